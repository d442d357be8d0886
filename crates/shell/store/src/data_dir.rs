//! The data folder: what it is called inside, whose it is, and which start this is.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use model::{ClusterId, Name, NodeId};
use serde::{Deserialize, Serialize};

use crate::atomic::{FileError, ReadJsonError, atomic_write, parent, read_json};
use crate::fs::{DIR_MODE, Disk, Fs as _};
use crate::journal::{Journal, JournalError};
use crate::lock::{Lock, LockError};

/// The version of the folder's layout that this release makes; it reads this and all before it.
pub const FORMAT_VERSION: u32 = 1;

/// Whose data folder it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub name: Name,
}

/// `format.json` as it is on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatFile {
    format: u32,
    cluster: ClusterId,
    node: NodeId,
    name: Name,
}

/// What every version of `format.json` has, whatever else it has.
#[derive(Deserialize)]
struct FormatVersion {
    format: u32,
}

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
    /// It has no `format.json` but a journal with records: a node's memory, not to be written over.
    #[error("`{}` holds {records} records although `format.json` is missing", journal.display())]
    Records {
        /// The journal's folder.
        journal: PathBuf,
        /// How many there are.
        records: u64,
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

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No node lives there.
    #[error("`{}` is not prepared: run `skerry init` or `skerry join` first", dir.display())]
    NotPrepared {
        /// The data folder.
        dir: PathBuf,
    },
    /// A later release made it.
    #[error(
        "`{}` was made by a newer Skerry: it has format {found}, this one reads up to {FORMAT_VERSION}",
        dir.display()
    )]
    Newer {
        /// The data folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A format that was never made.
    #[error("`{}` is damaged: there is no format {found}", file.display())]
    NoSuchFormat {
        /// The file.
        file: PathBuf,
        /// What it says.
        found: u32,
    },
    /// `format.json` is damaged or cannot be read.
    #[error("the data folder `{}` cannot be opened", dir.display())]
    Format {
        /// The data folder.
        dir: PathBuf,
        /// Why; names the file.
        source: ReadJsonError,
    },
}

/// Why this start has no number. The peer must not run without one.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The counter's file is damaged: a number made up instead might have been used before.
    #[error("the start counter `{}` is damaged", path.display())]
    Corrupted {
        /// The file.
        path: PathBuf,
    },
    /// The counter's file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A prepared data folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    dir: PathBuf,
    format: Format,
}

const FORMAT: &str = "format.json";
const JOURNAL: &str = "journal";
const GENERATION: &str = "generation";
const LOCK: &str = "lock";
const KEY: &str = "key";
const SOCKET: &str = "api.sock";
const CONTAINERS: &str = "containers";
const IMAGES: &str = "images";

/// What may be in a folder that is not yet prepared: what `create` leaves when it is cut off, and
/// what its caller puts there first (the key, which the node id comes from).
const LEFTOVERS: [&str; 12] = [
    KEY,
    "recovery.key",
    "recovery.key.tmp",
    "key.tmp",
    "format.json.tmp",
    GENERATION,
    "generation.tmp",
    JOURNAL,
    "journal.tmp",
    LOCK,
    CONTAINERS,
    IMAGES,
];

impl DataDir {
    /// Prepares `dir` for a node: makes it (mode 0700) with its parents where missing, an empty
    /// journal, the start counter, and last `format.json`, from which moment it counts as prepared.
    ///
    /// May be called again after it failed or was cut off, also for another node.
    pub fn create(dir: &Path, format: Format) -> Result<Self, CreateError> {
        refuse_prepared(dir)?;
        make(dir)?;
        let created = Self { dir: dir.to_owned(), format };
        created.refuse_foreign()?;
        // Keys and secrets will live here. A folder that was there before may be open to others.
        std::fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))
            .map_err(FileError::at("protect", dir))?;
        let _lock = created.lock()?;
        // Another process may have been quicker.
        refuse_prepared(dir)?;
        let journal_error = |source| CreateError::Journal { dir: dir.to_owned(), source };
        let journal = created.journal();
        if journal.exists() {
            let records = Journal::peek(&journal).map_err(journal_error)?;
            if records > 0 {
                return Err(CreateError::Records { journal, records });
            }
            Journal::remove_empty(&journal).map_err(journal_error)?;
        }
        Journal::create(&journal, created.format.cluster).map_err(journal_error)?;
        atomic_write(&created.path(GENERATION), generation_text(0).as_bytes())?;
        let file = FormatFile {
            format: FORMAT_VERSION,
            cluster: created.format.cluster,
            node: created.format.node,
            name: created.format.name.clone(),
        };
        let text = serde_json::to_string_pretty(&file).expect("ids and names are text");
        atomic_write(&created.path(FORMAT), text.as_bytes())?;
        Ok(created)
    }

    /// Opens a prepared data folder.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file = dir.join(FORMAT);
        let error = |source: ReadJsonError| {
            if source.is_not_found() {
                OpenError::NotPrepared { dir: dir.to_owned() }
            } else {
                OpenError::Format { dir: dir.to_owned(), source }
            }
        };
        let FormatVersion { format: found } = read_json(&file).map_err(error)?;
        match found {
            FORMAT_VERSION => {}
            0 => return Err(OpenError::NoSuchFormat { file, found }),
            _ => return Err(OpenError::Newer { dir: dir.to_owned(), found }),
        }
        let FormatFile { cluster, node, name, .. } = read_json(&file).map_err(error)?;
        Ok(Self { dir: dir.to_owned(), format: Format { cluster, node, name } })
    }

    /// Locks it for this process until the lock is dropped.
    pub fn lock(&self) -> Result<Lock, LockError> {
        Lock::take(&self.dir, &self.path(LOCK))
    }

    /// Counts this start. The number is on disk before it is returned, so it is never returned
    /// again, whatever happens; the first is 1. Call it with the lock held.
    pub fn next_generation(&self) -> Result<u64, GenerationError> {
        let path = self.path(GENERATION);
        let corrupted = || GenerationError::Corrupted { path: path.clone() };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // `create` made it: a counter that is gone must not begin anew.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Err(corrupted());
            }
            Err(error) => return Err(FileError::at("read", &path)(error).into()),
        };
        let next = read_generation(&text).and_then(|last| last.checked_add(1)).ok_or_else(corrupted)?;
        atomic_write(&path, generation_text(next).as_bytes())?;
        Ok(next)
    }

    /// Whose it is.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's key.
    pub fn key(&self) -> PathBuf {
        self.path(KEY)
    }

    /// The Unix socket that the peer answers on.
    pub fn socket(&self) -> PathBuf {
        self.path(SOCKET)
    }

    /// One folder per container.
    pub fn containers(&self) -> PathBuf {
        self.path(CONTAINERS)
    }

    /// Images and their blobs.
    pub fn images(&self) -> PathBuf {
        self.path(IMAGES)
    }

    /// The journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.path(JOURNAL)
    }

    /// The key's place in a folder that is not yet prepared: the key comes first, as the node id
    /// is made of it.
    pub fn key_in(dir: &Path) -> PathBuf {
        dir.join(KEY)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn refuse_foreign(&self) -> Result<(), CreateError> {
        let read = || FileError::at("read", &self.dir);
        for entry in std::fs::read_dir(&self.dir).map_err(read())? {
            let entry = entry.map_err(read())?.file_name().to_string_lossy().into_owned();
            // A file system of its own may be mounted here, and ext4 puts this at its root.
            // A key that was being made when the power went: `identity` drafts it under such a name.
            let draft = [".key.", ".recovery.key."].iter().any(|name| entry.starts_with(name));
            if !LEFTOVERS.contains(&entry.as_str()) && entry != "lost+found" && !draft {
                return Err(CreateError::NotEmpty { dir: self.dir.clone(), entry });
            }
        }
        Ok(())
    }
}

fn refuse_prepared(dir: &Path) -> Result<(), CreateError> {
    match DataDir::open(dir) {
        Err(OpenError::NotPrepared { .. }) => Ok(()),
        Ok(there) => {
            Err(CreateError::AlreadyPrepared { dir: dir.to_owned(), format: Box::new(there.format) })
        }
        Err(error) => Err(CreateError::Unreadable { dir: dir.to_owned(), source: Box::new(error) }),
    }
}

fn make(dir: &Path) -> Result<(), FileError> {
    if dir.exists() {
        return Ok(());
    }
    let above = parent(dir);
    std::fs::create_dir_all(above).map_err(FileError::at("create", above))?;
    DirBuilder::new().mode(DIR_MODE).create(dir).map_err(FileError::at("create", dir))?;
    Disk.sync_dir(above).map_err(FileError::at("sync", above))
}

/// The number and its checksum: a flipped bit must not turn 17 into 16.
fn generation_text(number: u64) -> String {
    let number = number.to_string();
    format!("{number} {:08x}\n", crc32c::crc32c(number.as_bytes()))
}

fn read_generation(text: &str) -> Option<u64> {
    let number: u64 = text.split(' ').next()?.parse().ok()?;
    (generation_text(number) == text).then_some(number)
}
