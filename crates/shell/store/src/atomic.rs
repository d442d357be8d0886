//! Whole files: written so that a power cut leaves the old or the new, and read with errors that
//! name the file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::fs::{Disk, Fs};

/// Bytes of a JSON file that is read whole: ours have some hundreds; this much is another file.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// Why a file could not be written or read. A file that could not be written is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// For use as `map_err(FileError::at("sync", path))`.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the operating system answered.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Why a JSON file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadJsonError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not JSON of the expected form.
    #[error("`{}` is damaged or not what it should be", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the reader found, with line and column.
        source: serde_json::Error,
    },
}

impl ReadJsonError {
    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::File(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Replaces a file's content: a reader, also after a power cut, finds the old or the new content,
/// whole. When it returns `Ok`, the new content is on disk. The file's mode is 0600.
///
/// One writer per path at a time: the content passes through `<path>.tmp`.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    atomic_write_with(&Disk, path, bytes)
}

/// As [`atomic_write`], on a file system of the caller's.
pub fn atomic_write_with(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = temporary(path);
    let file = fs.create(&temporary).map_err(FileError::at("create", &temporary))?;
    file.write_at(0, bytes).map_err(FileError::at("write", &temporary))?;
    file.sync().map_err(FileError::at("sync", &temporary))?;
    fs.rename(&temporary, path).map_err(FileError::at("replace", path))?;
    let dir = parent(path);
    fs.sync_dir(dir).map_err(FileError::at("sync", dir))
}

/// Reads a JSON file of up to 16 MiB.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ReadJsonError> {
    read_json_with(&Disk, path)
}

/// As [`read_json`], from a file system of the caller's.
pub(crate) fn read_json_with<T: DeserializeOwned>(fs: &dyn Fs, path: &Path) -> Result<T, ReadJsonError> {
    let content = fs.read(path, JSON_BYTES_MAX).map_err(FileError::at("read", path))?;
    serde_json::from_slice(&content.bytes)
        .map_err(|source| ReadJsonError::Malformed { path: path.to_owned(), source })
}

/// Where new content is prepared: beside the file, since a rename works within one file system.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(".tmp");
    path.with_file_name(name)
}

/// The folder that holds the file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
