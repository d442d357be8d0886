//! Where the `skerry` binary is, which cargo does not tell the tests of another package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Names another binary to test, as one that is to be shipped.
const OVERRIDE: &str = "SKERRY_BIN";

/// The `skerry` binary of this build, brought up to date once: an old one would be tested in vain.
pub fn skerry() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os(OVERRIDE) {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "{OVERRIDE} names {}, which is no file", path.display());
            return path;
        }
        let folder = folder();
        let path = folder.join("skerry");
        // `cargo test --workspace` has built it just before; building it alone would resolve other
        // features and compile the whole tree once more.
        if is_newer_than_sources(&path) {
            return path;
        }
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "cli", "--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "`cargo build -p cli` failed");
        assert!(path.is_file(), "there is no binary at {}", path.display());
        path
    })
}

/// Whether the binary is younger than everything that it is made of, as `make` would judge.
fn is_newer_than_sources(binary: &Path) -> bool {
    fn newest(path: &Path) -> Option<SystemTime> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        if !meta.is_dir() {
            return meta.modified().ok();
        }
        let entries = std::fs::read_dir(path).ok()?;
        entries.filter_map(|entry| newest(&entry.ok()?.path())).max()
    }
    let Ok(built) = std::fs::metadata(binary).and_then(|meta| meta.modified()) else { return false };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    let sources = ["Cargo.toml", "Cargo.lock", "crates"].map(|name| newest(&root.join(name)));
    sources.iter().all(|source| source.is_some_and(|source| source < built))
}

/// The program that runs inside of containers.
pub fn probe() -> PathBuf {
    let path = folder().join("probe");
    assert!(path.is_file(), "there is no binary at {}", path.display());
    path
}

/// The folder of this build's binaries.
fn folder() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows its own path");
    let folder = me.parent().expect("a program lies in a folder");
    // Tests lie in a folder of their own beside the other programs.
    let of_tests = folder.file_name().is_some_and(|name| name == "deps");
    if of_tests { folder.parent().expect("it lies below the target's").to_owned() } else { folder.to_owned() }
}
