//! Where the `skerry` binary is, which cargo does not tell the tests of another package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names another binary to test, as one that is to be shipped.
const OVERRIDE: &str = "SKERRY_E2E_BINARY";

/// The `skerry` binary of this build; built once where it is missing.
pub fn skerry() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os(OVERRIDE) {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "{OVERRIDE} names {}, which is no file", path.display());
            return path;
        }
        let me = std::env::current_exe().expect("a test knows its own path");
        // target/<profile>/deps/<test>
        let folder = me.parent().and_then(Path::parent).expect("tests lie two folders below the target's");
        let path = folder.join("skerry");
        if !path.is_file() {
            let mut command = Command::new(env!("CARGO"));
            command.args(["build", "-p", "cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.file_name().is_some_and(|name| name == "release") {
                command.arg("--release");
            }
            let built = command.status().expect("cargo runs");
            assert!(built.success(), "`cargo build -p cli` failed");
        }
        assert!(path.is_file(), "there is no binary at {}: run `cargo build -p cli`", path.display());
        path
    })
}

/// The program that runs inside of containers.
pub fn probe() -> PathBuf {
    let path = skerry_folder().join("probe");
    assert!(path.is_file(), "there is no binary at {}", path.display());
    path
}

/// The folder of this build's binaries.
fn skerry_folder() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows its own path");
    me.parent().and_then(Path::parent).expect("tests lie two folders below the target's").to_owned()
}
