//! Images made by hand: tar streams byte by byte, layouts and archives around them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::{ImageStore, Platform};
use model::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A folder that is gone at the end, and a store in it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub store: ImageStore,
}

impl World {
    pub fn new() -> Self {
        Self::with(image::Limits::default())
    }

    pub fn with(limits: image::Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open_with(dir.path().join("store"), limits).unwrap();
        Self { dir, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store_path(&self) -> PathBuf {
        self.path("store")
    }

    /// What is left of unfinished work: nothing, ever.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        list(&self.store_path().join("tmp"))
    }

    /// The unpacked folders, of whichever user.
    pub fn rootfs(&self) -> Vec<PathBuf> {
        let dirs = ["rootfs", "rootfs-user"].map(|name| self.store_path().join(name));
        dirs.iter().filter(|dir| dir.is_dir()).flat_map(|dir| list(dir)).collect()
    }
}

pub fn list(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
    all.sort();
    all
}

/// Every name below a folder with what it is, its contents, and its mode.
pub fn snapshot(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    snapshot_into(dir, dir, &mut all);
    all
}

fn snapshot_into(root: &Path, dir: &Path, all: &mut BTreeMap<String, String>) {
    for path in list(dir) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut said = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            format!("file {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
        } else {
            format!("special {:o} {}", meta.mode() & 0o170_000, meta.rdev())
        };
        if !kind.is_symlink() {
            said = format!("{said} {:o}", meta.mode() & 0o7777);
        }
        all.insert(path.strip_prefix(root).unwrap().display().to_string(), said);
        if kind.is_dir() {
            snapshot_into(root, &path, all);
        }
    }
}

/// One tar entry as it is written, without any of the checks of a friendly writer.
#[derive(Clone)]
pub struct Entry {
    pub header: tar::Header,
    pub data: Vec<u8>,
}

impl Entry {
    pub fn new(kind: u8, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        assert!(name.len() <= 100 && link.len() <= 100, "longer names go into entries of their own");
        let mut header = tar::Header::new_gnu();
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.as_mut_bytes()[156] = kind;
        Self { header, data: data.to_vec() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut tar::Header)) -> Self {
        change(&mut self.header);
        self
    }

    pub fn mode(self, mode: u32) -> Self {
        self.with(|header| header.set_mode(mode))
    }
}

pub fn file(name: &str, data: &str) -> Entry {
    Entry::new(b'0', name.as_bytes(), b"", data.as_bytes())
}

pub fn dir(name: &str) -> Entry {
    Entry::new(b'5', name.as_bytes(), b"", b"")
}

pub fn link(name: &str, to: &str) -> Entry {
    Entry::new(b'2', name.as_bytes(), to.as_bytes(), b"")
}

pub fn hard(name: &str, to: &str) -> Entry {
    Entry::new(b'1', name.as_bytes(), to.as_bytes(), b"")
}

/// PAX records for the entry that follows.
pub fn pax(records: &[(&str, &[u8])]) -> Entry {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        write!(data, "{length} {key}=").unwrap();
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    Entry::new(b'x', b"pax", b"", &data)
}

/// A tar stream of entries, closed properly.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = open_tar(entries);
    bytes.extend([0; 1024]);
    bytes
}

pub fn open_tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Entry { header, data } in entries {
        let mut header = header.clone();
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A layer as it travels, and the digest of what is in it.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: Digest,
    pub media: &'static str,
}

pub fn plain(tar: Vec<u8>) -> Layer {
    Layer { diff_id: sha256(&tar), blob: tar, media: "application/vnd.oci.image.layer.v1.tar" }
}

pub fn gzipped(tar: &[u8]) -> Layer {
    Layer { diff_id: sha256(tar), blob: gzip(tar), media: "application/vnd.oci.image.layer.v1.tar+gzip" }
}

pub fn zstded(tar: &[u8]) -> Layer {
    Layer { diff_id: sha256(tar), blob: zstd(tar), media: "application/vnd.oci.image.layer.v1.tar+zstd" }
}

/// One image as blobs.
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
}

pub fn config_of(layers: &[Layer], platform: &Platform) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|it| format!("sha256:{}", it.diff_id)).collect();
    json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Entrypoint": ["/bin/web"], "Cmd": ["-v"], "Env": ["A=1"], "WorkingDir": "/srv", "User": "7:8",
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Volumes": null, "Labels": {"l": "1"},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

pub fn image_of(layers: Vec<Layer>) -> Image {
    image_for(layers, &Platform::this())
}

pub fn image_for(layers: Vec<Layer>, platform: &Platform) -> Image {
    let config = serde_json::to_vec(&config_of(&layers, platform)).unwrap();
    let line = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": line("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|it| line(it.media, &it.blob)).collect::<Vec<_>>(),
    });
    Image { manifest: serde_json::to_vec(&manifest).unwrap(), config, layers }
}

impl Image {
    pub fn digest(&self) -> Digest {
        sha256(&self.manifest)
    }

    pub fn blobs(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.manifest.clone(), self.config.clone()];
        all.extend(self.layers.iter().map(|it| it.blob.clone()));
        all
    }

    /// Its line in an index.
    pub fn line(&self, name: Option<&str>, platform: Option<&Platform>) -> Value {
        let mut line = json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", self.digest()), "size": self.manifest.len()});
        if let Some(name) = name {
            line["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        if let Some(platform) = platform {
            line["platform"] = json!({"os": platform.os, "architecture": platform.architecture, "variant": platform.variant});
        }
        line
    }
}

pub fn index_of(lines: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": lines})).unwrap()
}

/// The files of an OCI layout.
pub fn layout_files(images: &[&Image], index: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
    ]);
    for blob in images.iter().flat_map(|it| it.blobs()) {
        files.insert(format!("blobs/sha256/{}", sha256(&blob)), blob);
    }
    files
}

pub fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub fn tar_files(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Loads one image of these layers under the name `test:1`.
pub fn load_image(world: &World, image: &Image) -> Digest {
    let files = layout_files(&[image], index_of(&[image.line(Some("test:1"), None)]));
    let archive = tar_files(&files);
    let infos = world.store.load_reader(&mut archive.as_slice(), None).unwrap();
    assert_eq!(infos.len(), 1);
    infos[0].digest
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
