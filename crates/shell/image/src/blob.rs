//! Blobs on disk: named by their sha256, checked on the way in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Digest;
use tempfile::NamedTempFile;

use crate::error::at;
use crate::files::{keep, make_dir, temp_file};
use crate::hash::{CopyError, Hasher, copy};
use crate::store::Pending;
use crate::{BlobKind, ImageError};

/// Bytes that are not the blob they were said to be. Nothing of them is kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Another digest.
    #[error("the bytes said to be sha256:{expected} are sha256:{found}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or fewer bytes.
    #[error("blob sha256:{digest} has {found} bytes, {expected} were announced")]
    Size {
        /// Which blob.
        digest: Digest,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came; where too many came, the count at which reading stopped.
        found: u64,
    },
    /// A blob larger than the store takes.
    #[error("blob sha256:{digest} has {size_b} bytes, the limit is {limit_b}")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Bytes announced.
        size_b: u64,
        /// Bytes allowed.
        limit_b: u64,
    },
    /// The place it was to come from failed.
    #[error("blob sha256:{digest} cannot be read from its source")]
    Source {
        /// Which blob.
        digest: Digest,
        /// As the source said it.
        source: io::Error,
    },
}

/// The folder of blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    tmp: PathBuf,
}

impl Blobs {
    pub(crate) fn open(store: &Path) -> Result<Self, ImageError> {
        let blobs = Self { dir: store.join("blobs").join("sha256"), tmp: store.join("tmp") };
        make_dir(&blobs.dir)?;
        Ok(blobs)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn tmp(&self) -> &Path {
        &self.tmp
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// The file and its bytes; `None` where it is not here.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, ImageError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ImageError::file("open", &path, error)),
        };
        let size = file.metadata().map_err(at("look at", &path))?.len();
        Ok(Some((file, size)))
    }

    /// Whether the bytes on the disk still have the digest that they are named by.
    pub(crate) fn verify(&self, digest: &Digest) -> Result<Option<Digest>, ImageError> {
        let Some((mut file, _)) = self.open_blob(digest)? else { return Ok(None) };
        let mut hasher = Hasher::default();
        let copied = copy(&mut file, |bytes| {
            hasher.update(bytes);
            Ok(())
        });
        match copied {
            Ok(_) => Ok(Some(hasher.digest())),
            Err(CopyError::Read(error) | CopyError::Write(error)) => {
                Err(ImageError::file("read", &self.path(digest), error))
            }
        }
    }

    /// A small blob (manifest, configuration), checked; `limit_b` bounds what is held in memory.
    pub(crate) fn read(&self, kind: BlobKind, digest: &Digest, limit_b: u64) -> Result<Vec<u8>, ImageError> {
        let missing = || ImageError::Missing { kind, digest: *digest };
        let (mut file, size_b) = self.open_blob(digest)?.ok_or_else(missing)?;
        if size_b > limit_b {
            return Err(BlobError::TooLarge { digest: *digest, size_b, limit_b }.into());
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(at("read", &self.path(digest)))?;
        let found = crate::hash::digest_of(&bytes);
        if found != *digest {
            self.discard(digest)?;
            return Err(BlobError::Digest { expected: *digest, found }.into());
        }
        Ok(bytes)
    }

    /// Deletes a blob whose bytes went bad: it is of no use, and once it is gone it can be had again.
    pub(crate) fn discard(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::file("delete", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// A blob whose digest is not known yet.
    pub(crate) fn stage(&self) -> Result<Staged, ImageError> {
        Ok(Staged { file: temp_file(&self.tmp)?, hasher: Hasher::default() })
    }

    /// Keeps bytes in memory as a blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<(Digest, u64), ImageError> {
        let mut staged = self.stage()?;
        staged.write_all(bytes).map_err(at("write", staged.file.path()))?;
        let (digest, size) = (staged.hasher.digest(), staged.hasher.bytes());
        staged.keep(self)?;
        Ok((digest, size))
    }
}

/// A blob that is being written and has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    file: NamedTempFile,
    hasher: Hasher,
}

impl Staged {
    pub(crate) fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn keep(self, blobs: &Blobs) -> Result<(Digest, u64), ImageError> {
        let (digest, size) = (self.digest(), self.bytes());
        keep(self.file, &blobs.path(&digest))?;
        Ok((digest, size))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes in one blob of known digest and size, from a peer or an archive.
///
/// `write` refuses bytes beyond the size that was announced. Dropped before [`BlobWriter::finish`],
/// nothing is left.
#[derive(Debug)]
pub struct BlobWriter {
    staged: Staged,
    blobs: Blobs,
    pending: Arc<Pending>,
    digest: Digest,
    size_b: u64,
}

impl BlobWriter {
    pub(crate) fn new(
        blobs: Blobs,
        pending: Arc<Pending>,
        digest: Digest,
        size_b: u64,
        limit_b: u64,
    ) -> Result<Self, ImageError> {
        if size_b > limit_b {
            return Err(BlobError::TooLarge { digest, size_b, limit_b }.into());
        }
        Ok(Self { staged: blobs.stage()?, blobs, pending, digest, size_b })
    }

    /// Bytes still to come.
    pub fn missing_b(&self) -> u64 {
        self.size_b - self.staged.bytes()
    }

    /// Checks size and digest, syncs, and gives the blob its name. On error nothing is left.
    pub fn finish(self) -> Result<(), ImageError> {
        let found = self.staged.bytes();
        if found != self.size_b {
            return Err(BlobError::Size { digest: self.digest, expected: self.size_b, found }.into());
        }
        let found = self.staged.digest();
        if found != self.digest {
            return Err(BlobError::Digest { expected: self.digest, found }.into());
        }
        // Before the name appears, so that no prune can come between.
        self.pending.note(self.digest);
        self.staged.keep(&self.blobs).map(drop)
    }

    /// Takes everything from a reader and finishes.
    pub(crate) fn fill(mut self, reader: &mut dyn io::Read) -> Result<(), ImageError> {
        let (digest, path) = (self.digest, self.staged.path().to_path_buf());
        // One byte more than announced tells a longer stream from one that fits.
        let mut bounded = io::Read::take(reader, self.size_b.saturating_add(1));
        let mut found = 0;
        let copied = copy(&mut bounded, |bytes| {
            found += bytes.len() as u64;
            self.write_all(bytes)
        });
        match copied {
            Ok(_) => self.finish(),
            Err(CopyError::Read(source)) => Err(BlobError::Source { digest, source }.into()),
            Err(CopyError::Write(_)) if found > self.size_b => {
                Err(BlobError::Size { digest, expected: self.size_b, found }.into())
            }
            Err(CopyError::Write(source)) => Err(ImageError::file("write", &path, source)),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.missing_b() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("blob sha256:{} is longer than the {} bytes announced", self.digest, self.size_b),
            ));
        }
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
    }
}
