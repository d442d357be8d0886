//! The file operations that the data folder, the journal and [`crate::atomic_write`] are made of.
//!
//! They are a trait for one reason: tests fail the n-th operation and cut the power between any
//! two. What must hold of an implementation is written at each operation; nothing else is assumed
//! (not that writes stay in order, nor that a write is whole, until a sync has returned).

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use crate::lock::{Lock, LockError};

/// Mode of every file made here: the data folder is its owner's alone.
const FILE_MODE: u32 = 0o600;

/// Mode of every folder made here.
pub(crate) const DIR_MODE: u32 = 0o700;

/// A file that was read whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Its permission bits, of the file that was read and not of one that took its name since.
    pub mode: u32,
}

/// A file system.
pub trait Fs: Debug + Send + Sync {
    /// Whether there is a file or a folder of this name.
    fn is_there(&self, path: &Path) -> io::Result<bool>;
    /// Reads a file whole; one of more than `bytes_max` bytes is `FileTooLarge`.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Content>;
    /// Makes a folder its owner's alone.
    fn protect(&self, dir: &Path) -> io::Result<()>;
    /// Locks the folder `dir` for this process by the file `path` in it, which is made if need be.
    fn lock(&self, dir: &Path, path: &Path) -> Result<Lock, LockError>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Makes a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Makes a folder; its parent exists, it does not.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Renames within one folder, at once: a reader, also after a power cut, finds old or new.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Returns after everything done so far to the folder's names survives a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub trait FsFile: Debug + Send {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads at `offset` until `buffer` is full or the file ends; how many bytes were read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Returns after content and length survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Fs for Disk {
    fn is_there(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Content> {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o777;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
        }
        Ok(Content { bytes, mode })
    }

    fn protect(&self, dir: &Path) -> io::Result<()> {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(DIR_MODE))
    }

    fn lock(&self, dir: &Path, path: &Path) -> Result<Lock, LockError> {
        Lock::take(dir, path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Box::new(options.open(path)?))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(DIR_MODE).create(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl FsFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    // fdatasync: it also makes the length last, which is all of the metadata that is read again.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether an error says that there is no room, and nothing worse.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
