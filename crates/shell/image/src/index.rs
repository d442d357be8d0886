//! Which names stand for which manifests: `index.json`, itself an OCI image index, so that the
//! store's folder is an OCI layout that other tools can read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::at;
use crate::files::replace;
use crate::oci::{IndexLine, MEDIA_INDEX, MEDIA_MANIFEST, parse_index, to_bytes};
use crate::{ArchiveError, ImageError, ImageInfo, Limits, Platform};

pub(crate) const NAME_KEY: &str = "org.opencontainers.image.ref.name";
const SIZE_KEY: &str = "dev.skerry.image.size";
const CREATED_KEY: &str = "org.opencontainers.image.created";

/// The index in memory; every change is on disk before it is visible.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    tmp: PathBuf,
    images: BTreeMap<String, ImageInfo>,
}

impl Index {
    pub(crate) fn open(store: &Path, tmp: &Path) -> Result<Self, ImageError> {
        let path = store.join("index.json");
        let mut index = Self { path: path.clone(), tmp: tmp.to_path_buf(), images: BTreeMap::new() };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Once: a later start may be on a full disk.
                let layout = store.join("oci-layout");
                if !layout.exists() {
                    replace(tmp, &layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
                }
                return Ok(index);
            }
            Err(error) => return Err(at("read", &path)(error)),
        };
        // Our own file: no limit of ours can have made it too large, and many images make it large.
        let limits = Limits { json_bytes: u64::MAX, ..Limits::default() };
        for line in parse_index(&path.display().to_string(), &bytes, &limits)? {
            let info = read_line(&line).ok_or_else(|| ArchiveError::Index { path: path.clone() })?;
            index.images.insert(info.reference.clone(), info);
        }
        Ok(index)
    }

    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageInfo> {
        self.images.values()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&ImageInfo> {
        self.images.get(key)
    }

    /// Files images under their names; a name that was taken now stands for the new one.
    pub(crate) fn insert(&mut self, infos: &[ImageInfo]) -> Result<(), ImageError> {
        let mut next = self.images.clone();
        next.extend(infos.iter().map(|info| (info.reference.clone(), info.clone())));
        self.write(next)
    }

    pub(crate) fn remove(&mut self, key: &str) -> Result<(), ImageError> {
        let mut next = self.images.clone();
        next.remove(key);
        self.write(next)
    }

    fn write(&mut self, next: BTreeMap<String, ImageInfo>) -> Result<(), ImageError> {
        replace(&self.tmp, &self.path, &write_index(next.values()))?;
        self.images = next;
        Ok(())
    }
}

/// An OCI index of images; also the `index.json` of a saved archive.
pub(crate) fn write_index<'a>(images: impl Iterator<Item = &'a ImageInfo>) -> Vec<u8> {
    let lines: Vec<_> = images
        .map(|info| {
            let mut annotations = BTreeMap::from([(NAME_KEY, info.reference.clone())]);
            annotations.insert(SIZE_KEY, info.size_b.to_string());
            annotations.extend(info.created.clone().map(|created| (CREATED_KEY, created)));
            let mut platform = json!({"os": info.platform.os, "architecture": info.platform.architecture});
            if let Some(variant) = &info.platform.variant {
                platform["variant"] = json!(variant);
            }
            json!({
                "mediaType": MEDIA_MANIFEST,
                "digest": format!("sha256:{}", info.digest),
                "size": info.manifest_b,
                "platform": platform,
                "annotations": annotations,
            })
        })
        .collect();
    to_bytes(&json!({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": lines}))
}

fn read_line(line: &IndexLine) -> Option<ImageInfo> {
    Some(ImageInfo {
        reference: line.annotations.get(NAME_KEY)?.clone(),
        digest: line.digest,
        size_b: line.annotations.get(SIZE_KEY)?.parse().ok()?,
        manifest_b: line.size_b,
        created: line.annotations.get(CREATED_KEY).cloned(),
        platform: line.platform.clone().unwrap_or_else(Platform::this),
    })
}
