//! Private keys on disk: PKCS#8 in PEM, readable by their owner alone, written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::KeyPair;
use crate::key::{PKCS8_V1_PREFIX, SEED_BYTES};

/// Bytes of a key file: ours have 119; a little more is room for comments, a lot more is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// An Ed25519 private key in PKCS#8 version 2 (RFC 8410), as some tools write it: the seed, then
/// the public key.
const PKCS8_V2_PREFIX: [u8; 16] =
    [0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PKCS8_V2_MIDDLE: [u8; 3] = [0x81, 0x21, 0x00];

/// Why a key file was not read or not made. A file that was there is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be opened or read; its kind says whether it is missing.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it, so it may not be a secret any more.
    #[error("the key file {} can be used by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not one Ed25519 private key in PKCS#8 PEM.
    #[error("the key file {} is not an Ed25519 private key in PKCS#8 PEM form", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// There is a file of this name, and a key is never written over.
    #[error("there is a file at {} already, and a key is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made, or not made safe against a power cut. No key file is left behind.
    #[error("cannot write the key file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyPair {
    /// Reads the key at `path`; refuses a file that others than its owner may touch.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, so that it cannot be another one by the time it is read.
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        let mut pem = Zeroizing::new(Vec::with_capacity(256));
        file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
        Self::parse(path, mode, pem)
    }

    /// As [`KeyPair::load`], for a file that was read already: its permission bits and its text, which
    /// is wiped.
    pub fn parse(path: &Path, mode: u32, pem: impl Into<Zeroizing<Vec<u8>>>) -> Result<Self, KeyFileError> {
        let pem = pem.into();
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        let malformed = || KeyFileError::Malformed { path: path.to_owned() };
        if u64::try_from(pem.len()).map_or(true, |len| len > KEY_FILE_BYTES_MAX) {
            return Err(malformed());
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| malformed())?;
        from_pkcs8(der.secret_pkcs8_der()).ok_or_else(malformed)
    }

    /// Makes a new pair and writes it to `path`, which must not exist and whose folder must.
    /// When this returns, the file is safe against a power cut.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Write { path: path.to_owned(), source };
        let key = Self::generate().map_err(|error| failed(io::Error::other(error)))?;
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // The key is written under another name and linked to its own: a power cut leaves either
        // no key or a whole one, and a link, unlike a rename, never replaces what is there.
        let unfinished = folder.join(unfinished_name(path).map_err(failed)?);
        let linked = write_whole(&unfinished, &key.pem()).and_then(|()| fs::hard_link(&unfinished, path));
        let removed = fs::remove_file(&unfinished);
        match linked {
            Ok(()) => removed.map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeyFileError::Exists { path: path.to_owned() });
            }
            Err(error) => return Err(failed(error)),
        }
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(key)
    }

    /// The text of a key file, for a caller that writes it itself: a secret.
    pub fn pem(&self) -> Zeroizing<String> {
        // 48 bytes are one line of 64 characters, as the PEM form wants them.
        let line = Zeroizing::new(BASE64.encode(&self.pkcs8()));
        Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *line))
    }
}

/// A name beside `path` that no other process uses.
fn unfinished_name(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut chance = [0; 6];
    SystemRandom::new()
        .fill(&mut chance)
        .map_err(|_| io::Error::other("the system's random source failed"))?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", HEXLOWER.encode(&chance)));
    Ok(unfinished)
}

fn write_whole(path: &Path, pem: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

fn from_pkcs8(der: &[u8]) -> Option<KeyPair> {
    if let Some(seed) = der.strip_prefix(&PKCS8_V1_PREFIX) {
        return Some(KeyPair::from_seed(seed.try_into().ok()?));
    }
    let rest = der.strip_prefix(&PKCS8_V2_PREFIX)?;
    let (seed, rest) = rest.split_first_chunk::<SEED_BYTES>()?;
    let key = KeyPair::from_seed(*seed);
    // A public half that belongs to another key means that the file is damaged.
    (rest.strip_prefix(&PKCS8_V2_MIDDLE)? == key.public()).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_created_key_is_private_and_loads_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let made = KeyPair::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyPair::load(&path).unwrap().public(), made.public());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left in the folder");
        // Any tool that knows PKCS#8 reads it.
        assert!(rcgen::KeyPair::from_pem(&fs::read_to_string(&path).unwrap()).is_ok());
    }

    #[test]
    fn a_key_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let made = KeyPair::create(&path).unwrap();
        assert!(matches!(KeyPair::create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(KeyPair::load(&path).unwrap().public(), made.public());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_touch_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        KeyPair::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o602, 0o660, 0o777, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = KeyPair::load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Permissions { mode: found, .. } if found == mode));
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            KeyPair::load(&path).unwrap();
        }
    }

    #[test]
    fn a_missing_folder_or_file_is_said_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let error = KeyPair::create(&folder.path().join("no/node.key")).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
        let error = KeyPair::load(&folder.path().join("node.key")).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn what_is_not_one_ed25519_key_is_malformed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let whole = KeyPair::from_seed([7; 32]).pem();
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let damaged = whole.replacen("MC4C", "MC4D", 1);
        for text in ["", "hello", &whole[..70], &other, &damaged, &"x".repeat(5000)] {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(matches!(KeyPair::load(&path), Err(KeyFileError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_version_2_key_is_read_and_a_foreign_public_half_refused() {
        let der = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = from_pkcs8(der.as_ref()).unwrap();
        let mut foreign = der.as_ref().to_vec();
        *foreign.last_mut().unwrap() ^= 1;
        assert!(from_pkcs8(&foreign).is_none());
        assert!(from_pkcs8(&key.pkcs8()).is_some());
        assert!(from_pkcs8(&key.pkcs8()[..47]).is_none());
    }
}
