//! Links the binary at a fixed address, and lists the scenarios that ship with it.
//!
//! Each container has a supervisor that is this binary, executed again. The relocations of a large
//! position-independent executable would be about a megabyte of dirty memory in each of them.
//!
//! A scenario is whatever lies in `simulations/` and ends in `.toml`: a new one ships without being
//! named anywhere else.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bin=skerry=-no-pie");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../simulations");
    println!("cargo:rerun-if-changed={}", folder.display());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the folder"));
    std::fs::write(out.join("scenarios.rs"), scenarios(&folder))
        .expect("the folder of the build takes files");
}

/// The source of a list of names and texts, in the order of the names.
fn scenarios(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("the folder `simulations` is there");
    let mut files: Vec<PathBuf> = entries.map(|it| it.expect("the folder can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    files.sort();
    let mut source = String::from("pub(crate) const SHIPPED: &[(&str, &str)] = &[\n");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.file_stem().expect("a file has a name").to_string_lossy();
        writeln!(source, "    ({name:?}, include_str!({:?})),", file.display().to_string())
            .expect("a text takes every line");
    }
    source.push_str("];\n");
    source
}
