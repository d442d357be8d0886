//! Makes an image ready to run: each chain of layers unpacked once, and its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::Digest;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::XattrFlags;

use crate::error::{at, is_disk_full};
use crate::files::{make_dir, remove_tree, sync_dir, temp_dir};
use crate::hash::digest_of;
use crate::store::{locked, sweep_folders};
use crate::tree::{Powers, Tree};
use crate::unpack::unpack;
use crate::{
    BlobError, BlobKind, BlobRef, ImageConfig, ImageError, ImageStore, LayerError, ManifestError, Platform,
};

/// An image that is ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The folders for overlayfs' `lowerdir`, the topmost first. Read-only: containers share them.
    pub lower: Vec<PathBuf>,
    /// How the image wants to be run.
    pub config: ImageConfig,
    /// Whether overlayfs must be mounted with `userxattr`, since the folders were not made by root.
    pub user_xattrs: bool,
}

/// The unpacked layers. A folder is named by its chain id (OCI: the digest of all `diff_id`s up to it),
/// since what a layer's files lie in can depend on the layers below.
#[derive(Debug)]
pub(crate) struct Unpacked {
    dir: PathBuf,
    tmp: PathBuf,
    powers: Powers,
    busy: Mutex<BTreeMap<Digest, Arc<Mutex<()>>>>,
}

impl Unpacked {
    pub(crate) fn open(store: &Path, tmp: &Path) -> Result<Self, ImageError> {
        let powers = powers(tmp)?;
        // Apart, since one cannot read the other's attributes.
        let name = if powers == Powers::Root { "rootfs" } else { "rootfs-user" };
        let dir = store.join(name);
        make_dir(&dir)?;
        Ok(Self { dir, tmp: tmp.into(), powers, busy: Mutex::default() })
    }

    pub(crate) fn sweep(&self, keep: &BTreeSet<Digest>) -> Result<u64, ImageError> {
        sweep_folders(&self.dir, &self.tmp, keep)
    }

    fn path(&self, chain: &Digest) -> PathBuf {
        self.dir.join(chain.to_string())
    }

    /// Whether a layer hides all layers below it. overlayfs does not look for that at the root.
    fn covers_all(&self, layer: &Path) -> Result<bool, ImageError> {
        let mut value = [0; 8];
        match rustix::fs::getxattr(layer, self.powers.overlay("opaque"), &mut value) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(at("look at", layer)(error)),
        }
    }
}

/// What is set to find out one's powers. Only who has root's sees it.
const PROBE: &str = "trusted.skerry.probe";

/// Finds out whether the kernel lets this process set what only root may, on this file system. What an
/// earlier process set tells it too, without writing: the disk may be full.
fn powers(tmp: &Path) -> Result<Powers, ImageError> {
    if rustix::fs::getxattr(tmp, PROBE, &mut [0; 1]).is_ok() {
        return Ok(Powers::Root);
    }
    match rustix::fs::setxattr(tmp, PROBE, b"y", XattrFlags::empty()) {
        Ok(()) => Ok(Powers::Root),
        Err(rustix::io::Errno::OPNOTSUPP) if nix::unistd::geteuid().is_root() => Ok(Powers::Root),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => Ok(Powers::User),
        Err(error) => Err(at("set an extended attribute in", tmp)(error)),
    }
}

/// The chain id of each layer, from the lowest up.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(below) => digest_of(format!("sha256:{below} sha256:{diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

impl ImageStore {
    /// Makes an image ready to run. Layers that are not unpacked yet are, and both their digests are
    /// checked. Any number of threads may ask for the same image; one of them works.
    ///
    /// A blob that went bad on the disk is deleted, so that it can be had again from elsewhere.
    pub fn prepare(&self, manifest: &Digest) -> Result<Prepared, ImageError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (read, _) = self.manifest(manifest)?;
        let config = self.config(manifest, &read)?;
        let this = Platform::this();
        if !config.platform.runs_on(&this) {
            let (what, found) = (format!("image sha256:{manifest}"), vec![config.platform]);
            return Err(ManifestError::Platform { what, found, wanted: this }.into());
        }
        let mut lower = Vec::new();
        let layers = read.layers.iter().zip(&config.diff_ids);
        for ((layer, diff_id), chain) in layers.zip(chain_ids(&config.diff_ids)) {
            self.unpack_layer(layer, diff_id, &chain, &lower)?;
            let path = self.unpacked.path(&chain);
            if self.unpacked.covers_all(&path)? {
                lower.clear();
            }
            lower.insert(0, path);
        }
        Ok(Prepared { lower, config: config.run, user_xattrs: self.unpacked.powers == Powers::User })
    }

    fn unpack_layer(
        &self,
        layer: &BlobRef,
        diff_id: &Digest,
        chain: &Digest,
        lowers: &[PathBuf],
    ) -> Result<(), ImageError> {
        let path = self.unpacked.path(chain);
        if path.is_dir() {
            return Ok(());
        }
        let turn = Arc::clone(locked(&self.unpacked.busy).entry(*chain).or_default());
        let held = locked(&turn);
        let result = if path.is_dir() { Ok(()) } else { self.unpack_into(layer, diff_id, &path, lowers) };
        drop(held);
        // Whoever still waits finds the folder, or tries for itself.
        locked(&self.unpacked.busy).remove(chain);
        result
    }

    fn unpack_into(
        &self,
        layer: &BlobRef,
        diff_id: &Digest,
        path: &Path,
        lowers: &[PathBuf],
    ) -> Result<(), ImageError> {
        let scratch = temp_dir(&self.unpacked.tmp)?.keep();
        let done = self.unpack_scratch(layer, diff_id, &scratch, lowers).and_then(|()| {
            match fs::rename(&scratch, path) {
                // Another thread was faster; its folder is as good.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => remove_tree(&scratch),
                renamed => renamed.map_err(at("name", path)),
            }
        });
        match done {
            Ok(()) => sync_dir(&self.unpacked.dir),
            Err(error) => {
                remove_tree(&scratch)?;
                Err(error)
            }
        }
    }

    fn unpack_scratch(
        &self,
        layer: &BlobRef,
        diff_id: &Digest,
        scratch: &Path,
        lowers: &[PathBuf],
    ) -> Result<(), ImageError> {
        let digest = layer.digest;
        let missing = || ImageError::Missing { kind: BlobKind::Layer, digest };
        let (blob, _) = self.blobs.open_blob(&digest)?.ok_or_else(missing)?;
        let lowers = lowers.iter().map(|dir| open_dir(dir)).collect::<Result<Vec<_>, _>>()?;
        let tree = Tree::new(open_dir(scratch)?, &lowers, self.unpacked.powers);
        let read = match tree.and_then(|tree| unpack(blob, tree, &self.limits)) {
            Ok(read) => read,
            Err(error) => {
                // Bytes that went bad fail in any way; say so rather than how.
                self.check_blob(&digest)?;
                return Err(layer_error(digest, error, scratch));
            }
        };
        let (found, size) = (read.blob.digest(), read.blob.bytes());
        if found != digest {
            self.blobs.discard(&digest)?;
            return Err(BlobError::Digest { expected: digest, found }.into());
        }
        if size != layer.size_b {
            return Err(BlobError::Size { digest, expected: layer.size_b, found: size }.into());
        }
        if read.diff_id != *diff_id {
            let source = LayerError::DiffId { expected: *diff_id, found: read.diff_id };
            return Err(ImageError::Layer { layer: digest, source });
        }
        // One sync for all its files: thousands of single ones wear flash and take minutes.
        fs::File::open(scratch).and_then(|dir| Ok(nix::unistd::syncfs(&dir)?)).map_err(at("sync", scratch))
    }

    /// An error, and the blob gone, where it is not what its name says.
    fn check_blob(&self, digest: &Digest) -> Result<(), ImageError> {
        match self.blobs.verify(digest)? {
            Some(found) if found != *digest => {
                self.blobs.discard(digest)?;
                Err(BlobError::Digest { expected: *digest, found }.into())
            }
            _ => Ok(()),
        }
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(dir, flags, Mode::empty()).map_err(at::<Errno>("open", dir))
}

fn layer_error(layer: Digest, error: LayerError, scratch: &Path) -> ImageError {
    match error {
        LayerError::File { action, name, source } if is_disk_full(&source) => {
            ImageError::DiskFull { action, path: scratch.join(name), source }
        }
        source => ImageError::Layer { layer, source },
    }
}
