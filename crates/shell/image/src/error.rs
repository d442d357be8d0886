//! What the store could not do. In every case its blobs, index and folders are as they were before.

use std::io;
use std::path::{Path, PathBuf};

use model::Digest;
use nix::errno::Errno;

use crate::{ArchiveError, BlobError, BlobKind, BuildError, LayerError, ManifestError, ReferenceError};

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name that nothing here goes by.
    #[error("there is no image `{reference}` here")]
    Unknown {
        /// The name asked for.
        reference: String,
    },
    /// A blob that an image needs and that is not here.
    #[error("the {kind} sha256:{digest} is not here")]
    Missing {
        /// What it is to the image.
        kind: BlobKind,
        /// Its digest.
        digest: Digest,
    },
    /// Bytes that are not the blob they were said to be.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An archive or layout that cannot be read as images.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A manifest, index or configuration that cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A layer that cannot be unpacked. Nothing of it is left.
    #[error("layer sha256:{layer} cannot be unpacked")]
    Layer {
        /// The digest of the layer's blob.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// An image that cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No space (or quota) is left.
    #[error("the disk is full: cannot {action} {}", path.display())]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// As the system said it.
        source: io::Error,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// As the system said it.
        source: io::Error,
    },
}

impl ImageError {
    pub(crate) fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let (source, path) = (source.into(), path.to_path_buf());
        if is_disk_full(&source) {
            Self::DiskFull { action, path, source }
        } else {
            Self::File { action, path, source }
        }
    }
}

/// A quota that is used up is, to its user, a full disk.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOSPC | Errno::EDQUOT))
}

/// For `map_err`: names what was being done to which file.
pub(crate) fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> ImageError {
    move |source| ImageError::file(action, path, source)
}
