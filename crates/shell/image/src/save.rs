//! Writes an image as an archive that this store, and Docker, skopeo and podman read.

use std::io::{self, Read, Write};
use std::sync::PoisonError;

use serde_json::json;

use crate::hash::Tap;
use crate::index::write_index;
use crate::oci::to_bytes;
use crate::{BlobError, BlobRef, ImageError, ImageStore};

impl ImageStore {
    /// Writes an image as a tar file: an OCI layout, with the `manifest.json` that older Dockers read.
    /// Loaded elsewhere, all digests are the same. A blob that went bad on the disk is an error.
    pub fn save(&self, reference: &str, out: &mut dyn Write) -> Result<(), ImageError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let info = self.find(reference)?;
        let (manifest, _) = self.manifest(&info.digest)?;
        let path = |digest| format!("blobs/sha256/{digest}");
        let layers: Vec<String> = manifest.layers.iter().map(|layer| path(layer.digest)).collect();
        let saved =
            json!([{"Config": path(manifest.config.digest), "RepoTags": [info.reference], "Layers": layers}]);
        let mut tar = tar::Builder::new(out);
        let written = |source| ImageError::file("write the archive of", info.reference.as_ref(), source);
        append(&mut tar, "oci-layout", &mut br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice(), 30)
            .map_err(written)?;
        for (name, bytes) in
            [("index.json", write_index([&info].into_iter())), ("manifest.json", to_bytes(&saved))]
        {
            append(&mut tar, name, &mut bytes.as_slice(), bytes.len() as u64).map_err(written)?;
        }
        for BlobRef { digest, size_b, kind } in self.blobs_of(&info.digest)? {
            let (file, found) = self.blobs.open_blob(&digest)?.ok_or(ImageError::Missing { kind, digest })?;
            if found != size_b {
                return Err(BlobError::Size { digest, expected: size_b, found }.into());
            }
            let (mut tap, hasher) = Tap::new(file);
            append(&mut tar, &path(digest), &mut tap, size_b).map_err(written)?;
            let found = hasher.borrow().digest();
            if found != digest {
                return Err(BlobError::Digest { expected: digest, found }.into());
            }
        }
        tar.into_inner().and_then(Write::flush).map_err(written)
    }
}

/// Appends a file without owner and time: the same image gives the same archive.
fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    bytes: &mut dyn Read,
    size: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, bytes.take(size))
}
