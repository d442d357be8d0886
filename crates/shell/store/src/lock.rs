//! The lock that keeps a data folder to one peer.

use std::fmt::Debug;
use std::fs::{OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::fs::is_disk_full;

/// Digits of the largest process id.
const PID_DIGITS_MAX: usize = 10;

/// Why a data folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("`{}` is in use by {}", dir.display(), holder(*pid))]
    Held {
        /// The data folder.
        dir: PathBuf,
        /// The holder, unless it took the lock this instant and has not yet written its id.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock `{}`", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Held by one process; given up when dropped, and by the kernel when the process ends in any way.
///
/// The file stays: removing it would let a third process lock a file that no one else sees.
#[derive(Debug)]
pub struct Lock {
    _held: Box<dyn Debug + Send + Sync>,
}

impl Lock {
    /// A lock that is given up when `held` is dropped, for file systems of the caller's.
    pub fn new(held: impl Debug + Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }

    pub(crate) fn take(dir: &Path, path: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(io_error)?;
                return Err(LockError::Held { dir: dir.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        // The id is for people only; whether the lock is held is the kernel's word. So a full disk
        // keeps nobody from locking: written over what is there, it mostly needs no room at all.
        let text = format!("{:<PID_DIGITS_MAX$}\n", std::process::id());
        let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
        match written {
            Ok(()) => {}
            // Nobody's id, rather than that of a process which is long gone.
            Err(error) if is_disk_full(&error) => file.set_len(0).map_err(io_error)?,
            Err(error) => return Err(io_error(error)),
        }
        Ok(Self::new(file))
    }
}

/// Whether the file of a lock could be one of ours: nothing, or the id of a process.
pub(crate) fn is_ours(content: &[u8]) -> bool {
    content.len() <= PID_DIGITS_MAX + 1
        && content.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace())
}
