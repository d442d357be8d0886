//! Faults on demand, for tests of what stands on this crate: [`FaultyFs`] is the machine's disk
//! until the operation that it was told to fail.
//!
//! Nothing here reads the environment: a fault is there because a caller put it there.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::fs::{Content, Disk, Fs, FsFile};
use crate::lock::{Lock, LockError};

/// The operations that can be failed, counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Writing into a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Cutting or extending a file.
    SetLength,
    /// Syncing a folder.
    SyncDir,
    /// Making a file.
    Create,
    /// Renaming.
    Rename,
}

#[derive(Debug)]
struct Fault {
    operation: Operation,
    /// How many of these operations pass before it strikes.
    passes: u64,
    /// How many are failed after that.
    strikes: u64,
    kind: io::ErrorKind,
}

/// The machine's disk, with faults. Clones share their faults.
#[derive(Clone, Debug, Default)]
pub struct FaultyFs {
    faults: Arc<Mutex<Vec<Fault>>>,
}

impl FaultyFs {
    /// A disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `passes` further operations of this sort pass, then fails `strikes` of them with
    /// `kind`. A failed write has written the first half of its bytes, as a full disk does.
    pub fn fail(&self, operation: Operation, passes: u64, strikes: u64, kind: io::ErrorKind) {
        self.lock().push(Fault { operation, passes, strikes, kind });
    }

    /// Forgets all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().expect("no holder of this lock panics")
    }

    fn pass(&self, operation: Operation) -> io::Result<()> {
        let mut faults = self.lock();
        for fault in faults.iter_mut().filter(|fault| fault.operation == operation) {
            if fault.passes > 0 {
                fault.passes -= 1;
            } else if fault.strikes > 0 {
                fault.strikes -= 1;
                return Err(fault.kind.into());
            }
        }
        Ok(())
    }
}

impl Fs for FaultyFs {
    fn is_there(&self, path: &Path) -> io::Result<bool> {
        Disk.is_there(path)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Content> {
        Disk.read(path, bytes_max)
    }

    fn protect(&self, dir: &Path) -> io::Result<()> {
        Disk.protect(dir)
    }

    fn lock(&self, dir: &Path, path: &Path) -> Result<Lock, LockError> {
        Disk.lock(dir, path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(FaultyFile { inner: Disk.open(path)?, fs: self.clone() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.pass(Operation::Create)?;
        Ok(Box::new(FaultyFile { inner: Disk.create(path)?, fs: self.clone() }))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.names(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Operation::Rename)?;
        Disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass(Operation::SyncDir)?;
        Disk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Box<dyn FsFile>,
    fs: FaultyFs,
}

impl FsFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(fault) = self.fs.pass(Operation::Write) {
            self.inner.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(fault);
        }
        self.inner.write_at(offset, bytes)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.fs.pass(Operation::SetLength)?;
        self.inner.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.pass(Operation::Sync)?;
        self.inner.sync()
    }
}
