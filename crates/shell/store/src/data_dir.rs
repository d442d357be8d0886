//! The data folder: what it is called inside, and whose it is.

use std::path::{Path, PathBuf};

use model::{ClusterId, Name, NodeId};
use serde::{Deserialize, Serialize};

use crate::atomic::{FileError, ReadJsonError, read_json_with};
use crate::fs::{Disk, Fs};
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

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No node lives there.
    #[error("`{}` is not prepared: run `skerry init` or `skerry join` first", dir.display())]
    NotPrepared {
        /// The data folder.
        dir: PathBuf,
    },
    /// `init` or `join` was cut off in it, by a power cut or a failure.
    #[error(
        "`{}` is half prepared: `skerry init` or `skerry join` was cut off in it; run the same command again",
        dir.display()
    )]
    HalfPrepared {
        /// The data folder.
        dir: PathBuf,
    },
    /// A node's folder that has lost the file that says whose it is. No power cut does that.
    #[error(
        "`{}` is missing, and `{}` holds a node's journal: put the file back, or take the folder away \
         and remove the node from its cluster with `skerry node rm`",
        file.display(), dir.display()
    )]
    FormatLost {
        /// The file.
        file: PathBuf,
        /// The data folder.
        dir: PathBuf,
    },
    /// The folder cannot be looked into.
    #[error(transparent)]
    File(#[from] FileError),
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

/// A prepared data folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    dir: PathBuf,
    format: Format,
}

pub(crate) const FORMAT: &str = "format.json";
/// What `format.json` is called until everything else is there.
pub(crate) const DRAFT: &str = "draft.json";
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const LOCK: &str = "lock";
pub(crate) const KEY: &str = "key";
pub(crate) const SETTINGS: &str = "peer.toml";
const SOCKET: &str = "api.sock";
const CONTAINERS: &str = "containers";
const IMAGES: &str = "images";
const RESERVE: &str = "reserve";
const LEASES: &str = "leases.json";

/// `format.json` of a folder that is `format`'s.
pub(crate) fn format_text(format: &Format) -> String {
    let file = FormatFile {
        format: FORMAT_VERSION,
        cluster: format.cluster,
        node: format.node,
        name: format.name.clone(),
    };
    serde_json::to_string_pretty(&file).expect("ids and names are text")
}

impl DataDir {
    /// The name of the settings' file, which is the peer's to read and the operator's to change.
    pub const SETTINGS: &str = SETTINGS;

    /// Opens a prepared data folder.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(&Disk, dir)
    }

    /// As [`DataDir::open`], on a file system of the caller's.
    pub fn open_with(fs: &dyn Fs, dir: &Path) -> Result<Self, OpenError> {
        let file = dir.join(FORMAT);
        let error = |source: ReadJsonError| {
            if source.is_not_found() {
                unprepared(fs, dir)
            } else {
                OpenError::Format { dir: dir.to_owned(), source }
            }
        };
        let FormatVersion { format: found } = read_json_with(fs, &file).map_err(error)?;
        match found {
            FORMAT_VERSION => {}
            0 => return Err(OpenError::NoSuchFormat { file, found }),
            _ => return Err(OpenError::Newer { dir: dir.to_owned(), found }),
        }
        let FormatFile { cluster, node, name, .. } = read_json_with(fs, &file).map_err(error)?;
        Ok(Self { dir: dir.to_owned(), format: Format { cluster, node, name } })
    }

    /// Locks it for this process until the lock is dropped.
    pub fn lock(&self) -> Result<Lock, LockError> {
        Disk.lock(&self.dir, &self.path(LOCK))
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

    /// What the node has granted as a voter.
    pub fn leases(&self) -> PathBuf {
        self.path(LEASES)
    }

    /// A file that keeps room for a start on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.path(RESERVE)
    }

    /// The key's place in a folder that is not yet prepared: the key comes first, as the node id
    /// is made of it.
    pub fn key_in(dir: &Path) -> PathBuf {
        dir.join(KEY)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// What a folder without `format.json` is.
fn unprepared(fs: &dyn Fs, dir: &Path) -> OpenError {
    let there = |name: &str| {
        let path = dir.join(name);
        fs.is_there(&path).map_err(FileError::at("look for", &path))
    };
    let looked = (|| {
        // The draft comes before a journal and leaves when `format.json` comes: a journal without
        // either is no draft's.
        Ok(if there(DRAFT)? {
            OpenError::HalfPrepared { dir: dir.to_owned() }
        } else if there(JOURNAL)? {
            OpenError::FormatLost { file: dir.join(FORMAT), dir: dir.to_owned() }
        } else if there(KEY)? {
            OpenError::HalfPrepared { dir: dir.to_owned() }
        } else {
            OpenError::NotPrepared { dir: dir.to_owned() }
        })
    })();
    looked.unwrap_or_else(OpenError::File)
}
