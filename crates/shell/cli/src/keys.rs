//! The person's own key: where it is, and how it comes to be.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use identity::{KeyFileError, KeyPair};

use crate::error::CliError;

/// The folder of a person's settings: `$XDG_CONFIG_HOME/skerry` or `~/.config/skerry`.
pub(crate) fn config_dir() -> Result<PathBuf, CliError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|dir| dir.join("skerry"))
        .ok_or_else(|| {
            CliError::new("no-home", "neither HOME nor XDG_CONFIG_HOME says where your settings are")
                .hint("name your key with --key PATH")
        })
}

/// The key's path: as given, or the default.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf, CliError> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(config_dir()?.join("user.key")),
    }
}

fn failed(error: &KeyFileError) -> CliError {
    CliError::from_error("key", error)
}

fn is_missing(error: &KeyFileError) -> bool {
    matches!(error, KeyFileError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Makes a folder that only its owner may enter, and its parents.
pub(crate) fn private_dir(dir: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        CliError::new("key", format!("the folder {} cannot be made", dir.display()))
            .because(error.to_string())
    })
}

/// The key, which must be there.
pub(crate) fn load(given: Option<&Path>) -> Result<KeyPair, CliError> {
    let path = path(given)?;
    KeyPair::load(&path).map_err(|error| {
        if is_missing(&error) {
            failed(&error).hint(
                "`skerry user key` makes one; an admin lets it in with `skerry user add NAME KEY`. Or name yours with --key PATH",
            )
        } else {
            failed(&error)
        }
    })
}

/// The key, made where it is not there yet. Says whether it was made.
pub(crate) fn load_or_create(given: Option<&Path>) -> Result<(KeyPair, PathBuf, bool), CliError> {
    let path = path(given)?;
    match KeyPair::load(&path) {
        Ok(key) => Ok((key, path, false)),
        Err(error) if is_missing(&error) => {
            if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                private_dir(dir)?;
            }
            let key = KeyPair::create(&path).map_err(|error| failed(&error))?;
            Ok((key, path, true))
        }
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_then_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/user.key");
        let error = load(Some(&path)).unwrap_err();
        assert_eq!(error.what, format!("cannot read the key file {}", path.display()));
        assert!(error.hint.as_deref().unwrap().contains("skerry user key"));
        let (made, _, created) = load_or_create(Some(&path)).unwrap();
        assert!(created);
        let (found, _, created) = load_or_create(Some(&path)).unwrap();
        assert!(!created);
        assert_eq!(made.public(), found.public());
    }
}
