//! Faults put in on purpose, for tests that show that the checks can fail.
//!
//! There only with the feature `sabotage`, which nothing that is shipped has. One process is one peer,
//! and its faults are set once, before it starts: so nothing of the peer proper has to pass them on.

use std::collections::BTreeSet;
use std::sync::OnceLock;

/// One fault of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// Duplicates that a partition has made stay.
    NoDuplicateResolution,
    /// Containers that run when the peer starts are passed over, and go on.
    NoAdoption,
    /// Containers are given no limits.
    NoLimits,
    /// Signatures of events are not looked at.
    NoVerification,
}

static FAULTS: OnceLock<BTreeSet<Sabotage>> = OnceLock::new();

impl Sabotage {
    /// Every fault.
    pub const ALL: [Self; 4] =
        [Self::NoDuplicateResolution, Self::NoAdoption, Self::NoLimits, Self::NoVerification];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoDuplicateResolution => "no-duplicate-resolution",
            Self::NoAdoption => "no-adoption",
            Self::NoLimits => "no-limits",
            Self::NoVerification => "no-verification",
        }
    }

    /// Whether this peer has it.
    pub(crate) fn is_on(self) -> bool {
        FAULTS.get().is_some_and(|faults| faults.contains(&self))
    }
}

/// Puts these faults into the peer of this process, before it starts. Only the first call counts.
pub fn set(faults: BTreeSet<Sabotage>) {
    FAULTS.get_or_init(|| faults);
}

/// Those that are the core's.
pub(crate) fn of_the_core() -> model::Sabotages {
    let pairs = [
        (Sabotage::NoDuplicateResolution, model::Sabotage::NoResolutionAfterPartition),
        (Sabotage::NoVerification, model::Sabotage::NoVerification),
    ];
    pairs.into_iter().filter(|(fault, _)| fault.is_on()).map(|(_, core)| core).collect()
}
