//! The store as a whole: its folder, its locks, and the plain questions about what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use model::{Digest, ImageRecord};
use nix::fcntl::{Flock, FlockArg};

use crate::blob::Blobs;
use crate::error::at;
use crate::files::{empty_dir, make_dir, remove_counted};
use crate::index::Index;
use crate::limits::ADOPT_WITHIN_S;
use crate::oci::{Config, Manifest, parse_config, parse_manifest};
use crate::prepare::{Unpacked, chain_ids};
use crate::{
    BlobError, BlobKind, BlobRef, BlobWriter, ImageError, Limits, ManifestError, Platform, Reference,
};

/// One image that the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The name it goes by, `name:tag`.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Bytes of all its blobs, the manifest's too.
    pub size_b: u64,
    /// Bytes of its manifest alone.
    pub manifest_b: u64,
    /// When it was made, as its maker wrote it (RFC 3339); what is built here says nothing.
    pub created: Option<String>,
    /// Which machines it is for.
    pub platform: Platform,
}

/// The images of one node. Shared by reference between threads; one process at a time.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) blobs: Blobs,
    pub(crate) unpacked: Unpacked,
    pub(crate) limits: Limits,
    pub(crate) index: Mutex<Index>,
    /// Read by all that add blobs or folders, written by `prune`, which may not see them half made.
    pub(crate) gate: RwLock<()>,
    pub(crate) pending: Arc<Pending>,
    _lock: Flock<File>,
}

/// Blobs that came from a peer and wait for the rest of their image: `prune` leaves them alone.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<BTreeMap<Digest, Instant>>);

impl Pending {
    pub(crate) fn note(&self, digest: Digest) {
        locked(&self.0).insert(digest, Instant::now());
    }

    fn adopted(&self, digests: impl Iterator<Item = Digest>) {
        let mut pending = locked(&self.0);
        for digest in digests {
            pending.remove(&digest);
        }
    }

    fn waiting(&self) -> BTreeSet<Digest> {
        let mut pending = locked(&self.0);
        pending.retain(|_, since| since.elapsed() < Duration::from_secs(ADOPT_WITHIN_S));
        pending.keys().copied().collect()
    }
}

/// What a lock guards here is whole between any two statements, so a panic elsewhere spoils nothing.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImageStore {
    /// Opens the store in `dir`, which is made where it is not there. Whatever an earlier process left
    /// half done is deleted. A second process that opens the same folder gets an error.
    ///
    /// A store that was open before is opened without writing anything: that needs no room on the disk.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_with(dir, Limits::default())
    }

    /// As [`ImageStore::open`], with other limits.
    pub fn open_with(dir: impl AsRef<Path>, limits: Limits) -> Result<Self, ImageError> {
        let dir = dir.as_ref();
        make_dir(dir)?;
        // Layers hold files with set-user-id bits, which nobody on the node may reach but containers.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at("protect", dir))?;
        let lock = lock(&dir.join("lock"))?;
        let tmp = dir.join("tmp");
        make_dir(&tmp)?;
        empty_dir(&tmp)?;
        Ok(Self {
            blobs: Blobs::open(dir)?,
            unpacked: Unpacked::open(dir, &tmp)?,
            index: Mutex::new(Index::open(dir, &tmp)?),
            limits,
            gate: RwLock::new(()),
            pending: Arc::default(),
            _lock: lock,
        })
    }

    /// Every image, sorted by name.
    pub fn list(&self) -> Vec<ImageInfo> {
        locked(&self.index).images().cloned().collect()
    }

    /// What the node announces to the others, sorted by name.
    pub fn records(&self) -> Vec<ImageRecord> {
        let record = |info: &ImageInfo| ImageRecord {
            reference: info.reference.clone(),
            digest: info.digest,
            size_b: info.size_b,
        };
        locked(&self.index).images().map(record).collect()
    }

    /// The manifest that a name stands for: `web:1`, `web` (which is `web:latest`), or
    /// `web@sha256:…` where an image with that digest is here. `None` also for what is no name.
    pub fn resolve(&self, reference: &str) -> Option<Digest> {
        self.find(reference).ok().map(|info| info.digest)
    }

    pub(crate) fn find(&self, reference: &str) -> Result<ImageInfo, ImageError> {
        let unknown = || ImageError::Unknown { reference: reference.into() };
        let parsed = Reference::parse(reference)?;
        let index = locked(&self.index);
        let found = match parsed.digest() {
            Some(digest) => index.images().find(|info| info.digest == digest),
            None => index.get(&parsed.key()),
        };
        found.cloned().ok_or_else(unknown)
    }

    /// The blobs of an image: its manifest (which must be here), its configuration, its layers from the
    /// lowest up. Each appears once, also where an image has the same layer twice.
    pub fn blobs_of(&self, manifest: &Digest) -> Result<Vec<BlobRef>, ImageError> {
        let (read, size_b) = self.manifest(manifest)?;
        let first = BlobRef { digest: *manifest, size_b, kind: BlobKind::Manifest };
        let mut seen = BTreeSet::new();
        let all = [first, read.config].into_iter().chain(read.layers);
        Ok(all.filter(|blob| seen.insert(blob.digest)).collect())
    }

    pub(crate) fn manifest(&self, digest: &Digest) -> Result<(Manifest, u64), ImageError> {
        let bytes = self.blobs.read(BlobKind::Manifest, digest, self.limits.json_bytes)?;
        let what = format!("manifest sha256:{digest}");
        Ok((parse_manifest(&what, &bytes, &self.limits)?, bytes.len() as u64))
    }

    pub(crate) fn config(&self, manifest: &Digest, read: &Manifest) -> Result<Config, ImageError> {
        let digest = &read.config.digest;
        let bytes = self.blobs.read(BlobKind::Config, digest, self.limits.json_bytes)?;
        let config = parse_config(&format!("configuration sha256:{digest}"), &bytes, &self.limits)?;
        let (layers, diff_ids) = (read.layers.len(), config.diff_ids.len());
        if layers != diff_ids {
            let what = format!("manifest sha256:{manifest}");
            return Err(ManifestError::LayersDiffer { what, layers, diff_ids }.into());
        }
        Ok(config)
    }

    /// Whether a blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.path(digest).is_file()
    }

    /// A blob's file and its bytes. What is read was checked when it came in; a peer that it is sent to
    /// checks again.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), ImageError> {
        let missing = || ImageError::Missing { kind: BlobKind::Layer, digest: *digest };
        self.blobs.open_blob(digest)?.ok_or_else(missing)
    }

    /// Begins to take in a blob of `size_b` bytes.
    pub fn blob_writer(&self, digest: &Digest, size_b: u64) -> Result<BlobWriter, ImageError> {
        let pending = Arc::clone(&self.pending);
        BlobWriter::new(self.blobs.clone(), pending, *digest, size_b, self.limits.blob_bytes)
    }

    /// Files an image under a name, once all its blobs are here. Checks that they are, and their sizes.
    pub fn adopt(&self, reference: &str, manifest: &Digest) -> Result<ImageInfo, ImageError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let reference = Reference::parse(reference)?;
        let info = self.describe(&reference.key(), manifest)?;
        self.file_under(std::slice::from_ref(&info))?;
        Ok(info)
    }

    pub(crate) fn file_under(&self, infos: &[ImageInfo]) -> Result<(), ImageError> {
        locked(&self.index).insert(infos)?;
        for info in infos {
            self.pending.adopted(self.blobs_of(&info.digest)?.into_iter().map(|blob| blob.digest));
        }
        Ok(())
    }

    /// What the index says of an image; an error where a blob is missing or has another size.
    pub(crate) fn describe(&self, reference: &str, manifest: &Digest) -> Result<ImageInfo, ImageError> {
        let (read, manifest_b) = self.manifest(manifest)?;
        let mut size_b = 0;
        for BlobRef { digest, size_b: expected, kind } in self.blobs_of(manifest)? {
            let (_, found) = self.blobs.open_blob(&digest)?.ok_or(ImageError::Missing { kind, digest })?;
            if found != expected {
                return Err(BlobError::Size { digest, expected, found }.into());
            }
            size_b += found;
        }
        let config = self.config(manifest, &read)?;
        Ok(ImageInfo {
            reference: reference.into(),
            digest: *manifest,
            size_b,
            manifest_b,
            created: config.created,
            platform: config.platform,
        })
    }

    /// Takes a name away and returns what it stood for. Blobs stay until [`ImageStore::prune`].
    pub fn remove(&self, reference: &str) -> Result<Digest, ImageError> {
        let info = self.find(reference)?;
        locked(&self.index).remove(&info.reference)?;
        Ok(info.digest)
    }

    /// Deletes all blobs and folders that neither a name nor `in_use` (manifests of containers) needs;
    /// returns the bytes freed. Blobs of an image that is still arriving stay for an hour. Where a manifest
    /// in use is not here, no folder goes: which ones its containers run from cannot be known.
    pub fn prune(&self, in_use: &BTreeSet<Digest>) -> Result<u64, ImageError> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut manifests = in_use.clone();
        manifests.extend(locked(&self.index).images().map(|info| info.digest));
        let mut blobs = self.pending.waiting();
        let (mut chains, mut known) = (BTreeSet::new(), true);
        for manifest in &manifests {
            let has_manifest = self.has_blob(manifest);
            let mut has_config = false;
            if has_manifest {
                blobs.extend(self.blobs_of(manifest)?.iter().map(|blob| blob.digest));
                let (read, _) = self.manifest(manifest)?;
                has_config = self.has_blob(&read.config.digest);
                if has_config {
                    chains.extend(chain_ids(&self.config(manifest, &read)?.diff_ids));
                }
            }
            // A blob that went bad was deleted; its image's containers still run from folders.
            known &= has_config || !in_use.contains(manifest);
        }
        let freed = sweep_files(self.blobs.dir(), &blobs)?;
        Ok(if known { freed + self.unpacked.sweep(&chains)? } else { freed })
    }
}

fn lock(path: &Path) -> Result<Flock<File>, ImageError> {
    let file = File::options().create(true).append(true).open(path).map_err(at("open", path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| ImageError::file("lock (another process has this store open)", path, error))
}

/// Deletes the files in `dir` that are not named in `keep`.
fn sweep_files(dir: &Path, keep: &BTreeSet<Digest>) -> Result<u64, ImageError> {
    sweep(dir, keep, |path| {
        let freed = fs::metadata(path).map_err(at("look at", path))?.len();
        fs::remove_file(path).map_err(at("delete", path))?;
        Ok(freed)
    })
}

/// Deletes the folders in `dir` that are not named in `keep`: first renamed into `tmp`, so that none
/// is ever seen half deleted.
pub(crate) fn sweep_folders(dir: &Path, tmp: &Path, keep: &BTreeSet<Digest>) -> Result<u64, ImageError> {
    sweep(dir, keep, |path| {
        let grave = crate::files::temp_dir(tmp)?.keep();
        fs::rename(path, &grave).map_err(at("delete", path))?;
        remove_counted(&grave)
    })
}

fn sweep(
    dir: &Path,
    keep: &BTreeSet<Digest>,
    mut delete: impl FnMut(&Path) -> Result<u64, ImageError>,
) -> Result<u64, ImageError> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        // What has no digest for a name is not ours to delete.
        let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !keep.contains(&digest) {
            freed += delete(&entry.path())?;
        }
    }
    Ok(freed)
}
