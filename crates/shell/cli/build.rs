//! Links the binary at a fixed address.
//!
//! Each container has a supervisor that is this binary, executed again. The relocations of a large
//! position-independent executable would be about a megabyte of dirty memory in each of them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bin=skerry=-no-pie");
    }
}
