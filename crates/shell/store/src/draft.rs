//! Preparing a data folder, so that a power cut at any moment leaves a prepared folder or a draft that
//! the same command takes up again.
//!
//! The order is all of it:
//! 1. the folder and its lock;
//! 2. the node's key, and the cluster's recovery key where there is one: from here on the folder is
//!    ours, and the key is kept whatever happens, since another peer may have admitted it;
//! 3. `draft.json`, which is `format.json` under another name: as long as it is there, journal and
//!    settings are drafts and are thrown away by the next try, never mixed with its own;
//! 4. the journal with its first records, then the settings;
//! 5. `draft.json` is renamed to `format.json`: from this moment the folder is prepared.
//!
//! A folder that holds anything else is somebody else's and gets nothing put into it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::atomic::{FileError, atomic_write_with, parent, temporary};
use crate::data_dir::{DRAFT, DataDir, FORMAT, Format, JOURNAL, KEY, LOCK, OpenError, SETTINGS, format_text};
use crate::fs::{Content, Disk, Fs};
use crate::journal::{APPEND_BYTES_MAX, Journal, JournalError, RECORD_BYTES_MAX, SEGMENT_BYTES};
use crate::lock::{self, Lock, LockError};

/// Bytes of a key file; a larger one is another file.
const SECRET_BYTES_MAX: u64 = 4096;

/// Bytes of records that are appended at once: whatever comes on top still fits one append.
const GROUP_BYTES_MAX: usize = APPEND_BYTES_MAX / 2;

const _: () = assert!(GROUP_BYTES_MAX + 2 * RECORD_BYTES_MAX <= APPEND_BYTES_MAX);

/// Bytes that a record takes beside its payload.
const RECORD_OVERHEAD_BYTES: usize = 32;

const RECOVERY: &str = "recovery.key";

/// What may be in a folder before its key: what a cut leaves of the first steps.
const BEFORE_KEY: [&str; 3] = [LOCK, "key.tmp", LOST_AND_FOUND];

/// What else may be in a draft.
const IN_DRAFT: [&str; 9] = [
    KEY,
    RECOVERY,
    "recovery.key.tmp",
    DRAFT,
    "draft.json.tmp",
    JOURNAL,
    "journal.tmp",
    SETTINGS,
    "peer.toml.tmp",
];

/// A file system of its own may be mounted here, and ext4 puts this at its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a data folder could not be prepared. What it held before, it still holds.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It belongs to a node already.
    #[error(
        "`{}` is already prepared, for node `{}` ({}) of cluster {}",
        dir.display(), format.name, format.node.short(), format.cluster.short()
    )]
    AlreadyPrepared {
        /// The data folder.
        dir: PathBuf,
        /// Whose it is.
        format: Box<Format>,
    },
    /// It belongs to a node already, but cannot be read.
    #[error("`{}` is already prepared, and cannot be opened", dir.display())]
    Unreadable {
        /// The data folder.
        dir: PathBuf,
        /// Why.
        source: Box<OpenError>,
    },
    /// It holds something that is not Skerry's: most likely the wrong folder was named.
    #[error("`{}` is not empty: it holds `{entry}`", dir.display())]
    NotEmpty {
        /// The data folder.
        dir: PathBuf,
        /// What was found.
        entry: String,
    },
    /// The journal could not be made.
    #[error("the journal of `{}` cannot be made", dir.display())]
    Journal {
        /// The data folder.
        dir: PathBuf,
        /// Why.
        source: JournalError,
    },
    /// Another process is preparing it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file or folder could not be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The keys of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The node's.
    Key,
    /// The cluster's, that the operator takes away.
    Recovery,
}

impl Secret {
    const fn name(self) -> &'static str {
        match self {
            Self::Key => KEY,
            Self::Recovery => RECOVERY,
        }
    }
}

/// A data folder that is being prepared, locked for this process.
#[derive(Debug)]
pub struct Draft {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    _lock: Lock,
}

impl Draft {
    /// Begins or takes up again: makes `dir` (mode 0700) with its parents where missing. Refuses a
    /// prepared folder, and one that holds anything that is not ours, before touching it.
    pub fn begin(dir: &Path) -> Result<Self, CreateError> {
        Self::begin_with(Arc::new(Disk), dir)
    }

    /// As [`Draft::begin`], on a file system of the caller's.
    pub fn begin_with(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, CreateError> {
        refuse_prepared(&*fs, dir)?;
        make(&*fs, dir)?;
        refuse_foreign(&*fs, dir)?;
        // Keys and secrets will live here. A folder that was there before may be open to others.
        fs.protect(dir).map_err(FileError::at("protect", dir))?;
        let lock = fs.lock(dir, &dir.join(LOCK))?;
        // Another process may have been quicker.
        refuse_prepared(&*fs, dir)?;
        Ok(Self { fs, dir: dir.to_owned(), _lock: lock })
    }

    /// Where a key is or will be.
    pub fn path(&self, secret: Secret) -> PathBuf {
        self.dir.join(secret.name())
    }

    /// The text of a key of an earlier try; `None` where there is none.
    pub fn secret(&self, secret: Secret) -> Result<Option<Content>, FileError> {
        let path = self.path(secret);
        match self.fs.read(&path, SECRET_BYTES_MAX) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::at("read", &path)(error)),
        }
    }

    /// Puts a key there that is not there yet. When this returns it is on disk.
    pub fn put_secret(&self, secret: Secret, text: &[u8]) -> Result<(), FileError> {
        atomic_write_with(&*self.fs, &self.path(secret), text)
    }

    /// Removes a key that this try has no use for.
    pub fn drop_secret(&self, secret: Secret) -> Result<(), FileError> {
        for path in [self.path(secret), temporary(&self.path(secret))] {
            match self.fs.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::at("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes all the rest, whatever an earlier try left. When this returns the folder is prepared;
    /// after an error it is a draft, unless the last sync alone failed.
    pub fn finish(
        self,
        format: &Format,
        records: &[Vec<u8>],
        settings: &str,
    ) -> Result<DataDir, CreateError> {
        let (fs, dir) = (&*self.fs, self.dir.as_path());
        let draft = dir.join(DRAFT);
        atomic_write_with(fs, &draft, format_text(format).as_bytes())?;
        self.journal(format, records)
            .map_err(|source| CreateError::Journal { dir: dir.to_owned(), source })?;
        atomic_write_with(fs, &dir.join(SETTINGS), settings.as_bytes())?;
        let path = dir.join(FORMAT);
        fs.rename(&draft, &path).map_err(FileError::at("create", &path))?;
        fs.sync_dir(dir).map_err(FileError::at("sync", dir))?;
        DataDir::open_with(fs, dir)
            .map_err(|source| CreateError::Unreadable { dir: dir.to_owned(), source: Box::new(source) })
    }

    fn journal(&self, format: &Format, records: &[Vec<u8>]) -> Result<(), JournalError> {
        let path = self.dir.join(JOURNAL);
        Journal::remove_with(&*self.fs, &path)?;
        Journal::create_with(&*self.fs, &path, format.cluster)?;
        let (mut journal, _) =
            Journal::open_with(Arc::clone(&self.fs), &path, format.cluster, SEGMENT_BYTES)?;
        let (mut group, mut bytes) = (Vec::new(), 0);
        for record in records {
            group.push(record.as_slice());
            bytes += record.len() + RECORD_OVERHEAD_BYTES;
            if bytes >= GROUP_BYTES_MAX {
                journal.append(&group)?;
                (group, bytes) = (Vec::new(), 0);
            }
        }
        journal.append(&group)
    }
}

fn refuse_prepared(fs: &dyn Fs, dir: &Path) -> Result<(), CreateError> {
    match DataDir::open_with(fs, dir) {
        Err(OpenError::NotPrepared { .. } | OpenError::HalfPrepared { .. }) => Ok(()),
        Ok(there) => Err(CreateError::AlreadyPrepared {
            dir: dir.to_owned(),
            format: Box::new(there.format().clone()),
        }),
        Err(error) => Err(CreateError::Unreadable { dir: dir.to_owned(), source: Box::new(error) }),
    }
}

fn refuse_foreign(fs: &dyn Fs, dir: &Path) -> Result<(), CreateError> {
    let foreign = |entry: String| Err(CreateError::NotEmpty { dir: dir.to_owned(), entry });
    let names = fs.names(dir).map_err(FileError::at("read", dir))?;
    let has_key = names.iter().any(|name| name == KEY);
    for name in names {
        let ours = BEFORE_KEY.contains(&name.as_str()) || has_key && IN_DRAFT.contains(&name.as_str());
        if !ours {
            return foreign(name);
        }
        // A common name, and all that there is before the key.
        if name == LOCK {
            let path = dir.join(LOCK);
            match fs.read(&path, SECRET_BYTES_MAX) {
                Ok(content) if lock::is_ours(&content.bytes) => {}
                Ok(_) => return foreign(name),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return foreign(name),
                Err(error) => return Err(FileError::at("read", &path)(error).into()),
            }
        }
    }
    Ok(())
}

/// Makes the folder with its parents, each of which is on disk before the next.
fn make(fs: &dyn Fs, dir: &Path) -> Result<(), FileError> {
    if fs.is_there(dir).map_err(FileError::at("look for", dir))? {
        // An earlier try may have ended before its name was synced.
        return match fs.sync_dir(parent(dir)) {
            // The folder above is another's, or of a file system that is never written: then the name
            // is not from an earlier try.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::InvalidInput
                ) =>
            {
                Err(FileError::at("sync", parent(dir))(error))
            }
            _ => Ok(()),
        };
    }
    let above = parent(dir);
    if above != dir {
        make_parents(fs, above)?;
    }
    fs.create_dir(dir).map_err(FileError::at("create", dir))?;
    fs.sync_dir(above).map_err(FileError::at("sync", above))
}

fn make_parents(fs: &dyn Fs, dir: &Path) -> Result<(), FileError> {
    if fs.is_there(dir).map_err(FileError::at("look for", dir))? { Ok(()) } else { make(fs, dir) }
}
