//! Doors for a fuzzer: any bytes may come in, and nothing may panic or take more than its limits.

use std::path::Path;

use crate::limits::Limits;
use crate::oci::{parse_config, parse_index, parse_manifest};
use crate::reference::Reference;
use crate::tree::{Powers, Tree};
use crate::unpack::unpack;

/// Reads bytes as each of the documents of OCI and Docker. Errors are the expected outcome.
pub fn documents(data: &[u8]) {
    let limits = Limits::default();
    drop(parse_manifest("fuzz", data, &limits));
    drop(parse_config("fuzz", data, &limits));
    drop(parse_index("fuzz", data, &limits));
}

/// Reads a text as an image's name; one that is read has a key that reads as the same image.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let again = Reference::parse(&reference.key());
        assert!(again.is_ok_and(|again| again.key() == reference.key()), "a key names the same image");
    }
}

/// Unpacks bytes as a layer into the folder `scratch`, which must be there, and within small limits.
pub fn layer(scratch: &Path, data: &[u8]) {
    let limits = Limits {
        layer_entries: 1_000,
        layer_bytes: 1 << 20,
        layer_ratio_free_bytes: 1 << 18,
        ..Limits::default()
    };
    let root = std::fs::File::open(scratch).expect("the caller has made it");
    // As a user: nothing a layer says may need or get root's powers here.
    drop(Tree::new(root.into(), &[], Powers::User).and_then(|tree| unpack(data, tree, &limits)));
}

/// Reads a file as a program, and asks for the libraries that it names.
pub fn program(file: &std::fs::File) {
    if let Ok(Some(elf)) = crate::elf::Elf::read(file, "fuzz") {
        // The folder is one that is never there.
        drop(elf.files("fuzz", Path::new("/nonexistent")));
    }
}
