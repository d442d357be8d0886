//! The images of one node: a store of blobs named by their sha256, and the folders unpacked from them.
//!
//! Owns one folder: `blobs/sha256/<hex>` and `index.json` (together an OCI image layout), `rootfs/`
//! (one folder for each unpacked chain of layers) and `tmp/`. Bytes come in from archives, from
//! builds on this machine and from other peers; all are untrusted until their digest is checked.
//!
//! What must hold:
//! - a file under `blobs/` had the digest that it is named by when it was put there, and was synced
//!   before its name appeared; a folder under `rootfs/` is complete;
//! - no layer, however hostile, touches anything outside the folder that it is unpacked into;
//! - what is built here is the same, byte for byte, wherever and whenever it is built;
//! - every size and count that others choose has a limit in [`limits`].
//!
//! Absent on purpose: registries and the wire to other peers (they hand in readers and digests),
//! mounting (the runtime stacks the folders of [`Prepared`]), wall clocks, threads and `unsafe`.
#![forbid(unsafe_code)]

mod archive;
mod blob;
mod build;
mod elf;
mod error;
mod files;
pub mod fuzz;
mod hash;
mod index;
mod layer;
pub mod limits;
mod load;
mod oci;
mod pax;
mod prepare;
mod reference;
mod save;
mod store;
mod tree;
mod unpack;

pub use archive::ArchiveError;
pub use blob::{BlobError, BlobWriter};
pub use build::{BuildError, BuildOptions, Built};
pub use elf::ElfError;
pub use error::ImageError;
pub use limits::Limits;
pub use oci::{BlobKind, BlobRef, ImageConfig, ManifestError, Platform};
pub use prepare::Prepared;
pub use reference::{Reference, ReferenceError};
pub use store::{ImageInfo, ImageStore};
pub use unpack::LayerError;
