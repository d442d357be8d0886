//! Takes images out of archives: docker-archive (old and new) and OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::PoisonError;

use model::Digest;

use crate::archive::{DirSource, Source, TarSource};
use crate::blob::BlobWriter;
use crate::hash::{CopyError, copy, digest_of};
use crate::index::NAME_KEY;
use crate::layer::{Compression, peek};
use crate::limits::ARCHIVE_IMAGES_MAX;
use crate::oci::{IndexLine, Media, parse_config, parse_index, parse_manifest, write_manifest};
use crate::{
    ArchiveError, BlobError, BlobRef, ImageError, ImageInfo, ImageStore, ManifestError, Platform, Reference,
};

/// Where containerd, and Docker since 25, write an image's whole name.
const CONTAINERD_NAME_KEY: &str = "io.containerd.image.name";

/// Indexes inside indexes: one for the archive, one for each image of several platforms.
const INDEX_DEPTH_MAX: usize = 3;

/// One image of an archive's `manifest.json`, as `docker save` writes it.
struct Saved {
    config: String,
    names: Vec<String>,
    layers: Vec<String>,
}

/// One image of an archive, found and not yet copied.
struct Found {
    names: Vec<String>,
    line: IndexLine,
}

impl ImageStore {
    /// Takes in the images of an archive: a docker-archive or an OCI layout, as a tar file (plain, gzip
    /// or zstd) or as a folder.
    ///
    /// Of an image for several platforms, the one for this node is taken. The images get the names that
    /// the archive has for them, or `name`, where it holds one image. Returns one line for each name.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageInfo>, ImageError> {
        if path.is_dir() {
            self.import(&DirSource::open(path)?, name)
        } else {
            self.import(&TarSource::open(path, self.blobs.tmp(), &self.limits)?, name)
        }
    }

    /// As [`ImageStore::load`], from a stream; the archive waits in a temporary file meanwhile.
    pub fn load_reader(
        &self,
        reader: &mut dyn Read,
        name: Option<&str>,
    ) -> Result<Vec<ImageInfo>, ImageError> {
        let shown = "the uploaded archive".to_owned();
        self.import(&TarSource::spool(reader, shown, self.blobs.tmp(), &self.limits)?, name)
    }

    fn import(&self, source: &dyn Source, name: Option<&str>) -> Result<Vec<ImageInfo>, ImageError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let name = name.map(Reference::parse).transpose()?;
        let saved = match source.open("manifest.json")? {
            Some(_) => read_saved(source, &source.read("manifest.json", &self.limits)?)?,
            None => Vec::new(),
        };
        let images = if source.open("index.json")?.is_some() {
            self.import_layout(source, &saved, name.as_ref())?
        } else if !saved.is_empty() {
            self.import_saved(source, &saved, name.as_ref())?
        } else {
            return Err(ArchiveError::Unknown { path: source.path().into() }.into());
        };
        // All blobs are in place: only now do names appear.
        let mut infos = Vec::new();
        for (names, manifest) in images {
            for name in names {
                infos.push(self.describe(&name, &manifest)?);
            }
        }
        self.file_under(&infos)?;
        Ok(infos)
    }

    fn import_layout(
        &self,
        source: &dyn Source,
        saved: &[Saved],
        name: Option<&Reference>,
    ) -> Result<Vec<(Vec<String>, Digest)>, ImageError> {
        let what = format!("index.json in {}", source.path());
        let top = parse_index(&what, &source.read("index.json", &self.limits)?, &self.limits)?;
        // Manifests that stand side by side under one name are one image for several platforms.
        let mut groups: BTreeMap<(Option<String>, usize), Vec<IndexLine>> = BTreeMap::new();
        for (at, line) in top.into_iter().enumerate() {
            let name = line.annotations.get(CONTAINERD_NAME_KEY).or(line.annotations.get(NAME_KEY)).cloned();
            // Without a name, lines belong together only if each says which platform it is for.
            let alone = if name.is_some() || line.platform.is_some() { 0 } else { at + 1 };
            groups.entry((name, alone)).or_default().push(line);
        }
        let groups: Vec<Vec<IndexLine>> = groups.into_values().collect();
        check_count(source, groups.len())?;
        let mut found = Vec::new();
        for lines in groups {
            let line = self.choose(source, lines)?;
            found.push(Found { names: self.names_in(source, &line, saved)?, line });
        }
        if let Some(name) = name {
            one_name(source, name, found.iter_mut().map(|it| &mut it.names).collect())?;
        }
        let mut images = Vec::new();
        for Found { names, line } in found {
            let names = clean_names(source, &names)?;
            self.copy_image(source, &line)?;
            images.push((names, line.digest));
        }
        Ok(images)
    }

    /// The manifest for this node among lines that are one image. A manifest that stands alone is
    /// taken whatever it is for: other nodes of the cluster may run it.
    fn choose(&self, source: &dyn Source, lines: Vec<IndexLine>) -> Result<IndexLine, ImageError> {
        if let [line] = lines.as_slice()
            && line.media == Media::Manifest
        {
            return Ok(line.clone());
        }
        let what = format!("the image in {}", source.path());
        let this = Platform::this();
        let (mut platforms, mut chosen) = (BTreeSet::new(), Vec::new());
        for line in self.flatten(source, lines)? {
            let platform = match &line.platform {
                Some(platform) => platform.clone(),
                None => self.platform_of(source, &line)?,
            };
            platforms.insert(platform.clone());
            if platform.runs_on(&this) {
                chosen.push((platform.rank(), line));
            }
        }
        let best = chosen.into_iter().min_by_key(|(rank, _)| *rank);
        let other = || ManifestError::Platform { what, found: platforms.into_iter().collect(), wanted: this };
        Ok(best.ok_or_else(other)?.1)
    }

    /// The manifests in lines and in the indexes that they point to; names go down to them.
    fn flatten(&self, source: &dyn Source, lines: Vec<IndexLine>) -> Result<Vec<IndexLine>, ImageError> {
        let (mut manifests, mut level) = (Vec::new(), lines);
        for _ in 0..INDEX_DEPTH_MAX {
            let mut next = Vec::new();
            for line in level {
                if line.media == Media::Manifest {
                    manifests.push(line);
                    continue;
                }
                let what = format!("index sha256:{} in {}", line.digest, source.path());
                let bytes = self.read_blob(source, &line.digest)?;
                for mut below in parse_index(&what, &bytes, &self.limits)? {
                    below.annotations.extend(line.annotations.clone());
                    next.push(below);
                }
                check_count(source, next.len() + manifests.len())?;
            }
            if next.is_empty() {
                return Ok(manifests);
            }
            level = next;
        }
        let (path, limit) = (source.path().into(), INDEX_DEPTH_MAX as u64);
        Err(ArchiveError::TooLarge { path, what: "indexes inside indexes", limit }.into())
    }

    fn platform_of(&self, source: &dyn Source, line: &IndexLine) -> Result<Platform, ImageError> {
        let what = format!("manifest sha256:{} in {}", line.digest, source.path());
        let manifest = parse_manifest(&what, &self.read_blob(source, &line.digest)?, &self.limits)?;
        let what = format!("configuration sha256:{} in {}", manifest.config.digest, source.path());
        let config = parse_config(&what, &self.read_blob(source, &manifest.config.digest)?, &self.limits)?;
        Ok(config.platform)
    }

    /// What an image of a layout is called: what `manifest.json` beside it says, or containerd's
    /// annotation, or the layout's own, where that is more than a tag.
    fn names_in(
        &self,
        source: &dyn Source,
        line: &IndexLine,
        saved: &[Saved],
    ) -> Result<Vec<String>, ImageError> {
        let what = format!("manifest sha256:{} in {}", line.digest, source.path());
        let config =
            parse_manifest(&what, &self.read_blob(source, &line.digest)?, &self.limits)?.config.digest;
        let of_config = |it: &&Saved| it.config == blob_name(&config);
        let names: Vec<String> = saved.iter().filter(of_config).flat_map(|it| it.names.clone()).collect();
        if !names.is_empty() {
            return Ok(names);
        }
        if let Some(name) = line.annotations.get(CONTAINERD_NAME_KEY) {
            return Ok(vec![name.clone()]);
        }
        let own = line.annotations.get(NAME_KEY);
        Ok(own.filter(|name| name.contains([':', '/'])).into_iter().cloned().collect())
    }

    /// A small blob of a layout, checked.
    fn read_blob(&self, source: &dyn Source, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = source.read(&blob_name(digest), &self.limits)?;
        let found = digest_of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(BlobError::Digest { expected: *digest, found }.into()) }
    }

    fn copy_image(&self, source: &dyn Source, line: &IndexLine) -> Result<(), ImageError> {
        let bytes = self.read_blob(source, &line.digest)?;
        let what = format!("manifest sha256:{} in {}", line.digest, source.path());
        let manifest = parse_manifest(&what, &bytes, &self.limits)?;
        for BlobRef { digest, size_b, .. } in manifest.layers.iter().chain([&manifest.config]) {
            let (mut reader, size) = source.need(&blob_name(digest))?;
            if size != *size_b {
                return Err(BlobError::Size { digest: *digest, expected: *size_b, found: size }.into());
            }
            self.take_blob(digest, size, &mut reader)?;
        }
        self.take_blob(&line.digest, bytes.len() as u64, &mut bytes.as_slice())
    }

    /// Takes a blob in unless it is here and sound: loading an image again also mends it.
    fn take_blob(&self, digest: &Digest, size_b: u64, reader: &mut dyn Read) -> Result<(), ImageError> {
        if self.blobs.verify(digest)? == Some(*digest) {
            return Ok(());
        }
        let pending = self.pending.clone();
        BlobWriter::new(self.blobs.clone(), pending, *digest, size_b, self.limits.blob_bytes)?.fill(reader)
    }

    fn import_saved(
        &self,
        source: &dyn Source,
        saved: &[Saved],
        name: Option<&Reference>,
    ) -> Result<Vec<(Vec<String>, Digest)>, ImageError> {
        check_count(source, saved.len())?;
        let mut names: Vec<Vec<String>> = saved.iter().map(|it| it.names.clone()).collect();
        if let Some(name) = name {
            one_name(source, name, names.iter_mut().collect())?;
        }
        let mut images = Vec::new();
        for (saved, names) in saved.iter().zip(names) {
            let names = clean_names(source, &names)?;
            let config = source.read(&saved.config, &self.limits)?;
            let what = format!("`{}` in {}", saved.config, source.path());
            let diff_ids = parse_config(&what, &config, &self.limits)?.diff_ids;
            let (layers, limit) = (saved.layers.len(), self.limits.layers);
            if layers != diff_ids.len() {
                return Err(ManifestError::LayersDiffer { what, layers, diff_ids: diff_ids.len() }.into());
            }
            if layers > limit {
                return Err(ManifestError::Layers { what, layers, limit }.into());
            }
            let mut descriptors = Vec::new();
            for (layer, diff_id) in saved.layers.iter().zip(&diff_ids) {
                descriptors.push(self.take_layer(source, layer, diff_id)?);
            }
            let config = self.blobs.put(&config)?;
            let (manifest, _) = self.blobs.put(&write_manifest(config, &descriptors))?;
            images.push((names, manifest));
        }
        Ok(images)
    }

    /// Takes in a layer that nothing but the configuration's `diff_id` vouches for.
    fn take_layer(
        &self,
        source: &dyn Source,
        name: &str,
        diff_id: &Digest,
    ) -> Result<(Digest, u64, &'static str), ImageError> {
        let malformed = |error| ArchiveError::Malformed { path: source.path().into(), source: error };
        let (reader, size_b) = source.need(name)?;
        if size_b > self.limits.blob_bytes {
            let (path, limit) = (format!("`{name}` in {}", source.path()), self.limits.blob_bytes);
            return Err(ArchiveError::TooLarge { path, what: "bytes", limit }.into());
        }
        let (compression, mut reader) = peek(reader).map_err(malformed)?;
        let mut staged = self.blobs.stage()?;
        match copy(&mut reader, |bytes| staged.write_all(bytes)) {
            Ok(_) => {}
            Err(CopyError::Read(error)) => return Err(malformed(error).into()),
            Err(CopyError::Write(error)) => return Err(ImageError::file("write", staged.path(), error)),
        }
        let found = staged.digest();
        // A compressed one is checked when it is unpacked.
        if compression == Compression::None && found != *diff_id {
            let (path, name, expected) = (source.path().into(), name.into(), *diff_id);
            return Err(ArchiveError::DiffId { path, name, expected, found }.into());
        }
        let (digest, size) = staged.keep(&self.blobs)?;
        Ok((digest, size, compression.layer_media()))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

fn check_count(source: &dyn Source, images: usize) -> Result<(), ImageError> {
    if images <= ARCHIVE_IMAGES_MAX {
        return Ok(());
    }
    let (path, limit) = (source.path().into(), ARCHIVE_IMAGES_MAX as u64);
    Err(ArchiveError::TooLarge { path, what: "images", limit }.into())
}

/// Gives the only image of an archive another name.
fn one_name(
    source: &dyn Source,
    name: &Reference,
    mut images: Vec<&mut Vec<String>>,
) -> Result<(), ImageError> {
    if let [names] = images.as_mut_slice() {
        **names = vec![name.key()];
        return Ok(());
    }
    let shown =
        |names: &&mut Vec<String>| names.first().cloned().unwrap_or_else(|| "one without a name".into());
    let names = images.iter().map(shown).collect();
    Err(ArchiveError::NameAmbiguous { path: source.path().into(), names }.into())
}

fn clean_names(source: &dyn Source, names: &[String]) -> Result<Vec<String>, ImageError> {
    if names.is_empty() {
        return Err(ArchiveError::NameNeeded { path: source.path().into() }.into());
    }
    let keys: Result<BTreeSet<String>, _> =
        names.iter().map(|name| Reference::parse(name).map(|it| it.key())).collect();
    Ok(keys?.into_iter().collect())
}

fn read_saved(source: &dyn Source, bytes: &[u8]) -> Result<Vec<Saved>, ImageError> {
    let what = || format!("manifest.json in {}", source.path());
    let malformed = |error| ManifestError::Malformed { what: what(), source: error };
    let list: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(bytes).map_err(malformed)?;
    let mut images = Vec::new();
    for mut image in list {
        // A field that is null or not there is an empty list: `docker save ID` has no names.
        let mut take = |key: &str| image.remove(key).filter(|value| !value.is_null());
        let list = |value: Option<_>| value.map_or(Ok(Vec::new()), serde_json::from_value);
        images.push(Saved {
            names: list(take("RepoTags")).map_err(malformed)?,
            layers: list(take("Layers")).map_err(malformed)?,
            config: serde_json::from_value(take("Config").unwrap_or_default()).map_err(malformed)?,
        });
    }
    Ok(images)
}
