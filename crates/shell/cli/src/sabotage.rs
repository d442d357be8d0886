//! Faults put in on purpose, for tests that show that the checks can fail.
//!
//! The variable [`VAR`] names them. Only a build with the feature `sabotage` has any; every other one
//! refuses the variable, so that no test takes a sound peer for a faulty one.

use crate::error::CliError;

/// Names the faults, with commas between them.
const VAR: &str = "SKERRY_SABOTAGE";

/// Refuses the variable.
#[cfg(not(feature = "sabotage"))]
pub(crate) fn obey() -> Result<(), CliError> {
    match std::env::var_os(VAR) {
        None => Ok(()),
        Some(_) => Err(CliError::usage(format!("{VAR} is set, and this build has no sabotage switches"))
            .hint(format!("unset {VAR}; only a build for tests has the feature `sabotage`"))),
    }
}

/// Puts the faults in that the variable names.
#[cfg(feature = "sabotage")]
pub(crate) fn obey() -> Result<(), CliError> {
    use peer::sabotage::Sabotage;
    let Some(text) = std::env::var_os(VAR) else { return Ok(()) };
    let mut faults = std::collections::BTreeSet::new();
    for word in text.to_string_lossy().split(',') {
        match Sabotage::ALL.into_iter().find(|fault| fault.word() == word) {
            Some(fault) => _ = faults.insert(fault),
            // The crate `dev` looks for its own.
            None if word == dev::sabotage::NO_FILTER => {}
            None => {
                let words = Sabotage::ALL.map(Sabotage::word).join(", ");
                return Err(CliError::usage(format!("{VAR}: {word:?} is no sabotage switch"))
                    .hint(format!("the switches are {}, {words}", dev::sabotage::NO_FILTER)));
            }
        }
    }
    peer::sabotage::set(faults);
    Ok(())
}
