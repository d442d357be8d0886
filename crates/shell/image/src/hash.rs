//! Digests of streams, and streams that count.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use model::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes moved at a time: large enough that system calls do not show, small enough for any stack of
/// transfers on a node of 512 MiB.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;

/// The digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// Hashes and counts what passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher {
    sha256: Sha256,
    bytes: u64,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(self.sha256.clone().finalize().into())
    }
}

/// A reader whose hash and count can be looked at from outside while others hold the reader.
pub(crate) struct Tap<R> {
    inner: R,
    hasher: Rc<RefCell<Hasher>>,
}

impl<R: Read> Tap<R> {
    pub(crate) fn new(inner: R) -> (Self, Rc<RefCell<Hasher>>) {
        let hasher = Rc::new(RefCell::new(Hasher::default()));
        (Self { inner, hasher: Rc::clone(&hasher) }, hasher)
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// How the two ends of a copy may fail: the caller names them differently.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the reader ends; returns the bytes copied.
pub(crate) fn copy(
    reader: &mut dyn Read,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        write(&buffer[..read]).map_err(CopyError::Write)?;
        total += read as u64;
    }
}
