//! Worlds that this machine is not: a full disk, a user without rights. Each test starts itself again
//! inside one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::*;
use image::{BuildOptions, ImageError, ImageStore};

/// Where the inner test finds its folder.
const DIR: &str = "IMAGE_TEST_DIR";

/// The inner test's own process: this program again.
fn again(test: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    vec![program, "--exact".into(), test.into(), "--ignored".into(), "--nocapture".into()]
}

fn must_pass(mut command: Command) {
    let output = command.output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_full_disk_is_told_from_other_errors_and_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return; // Mounting a small file system takes root.
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=3m tmpfs \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(dir.path()).args(again("inner_full_disk")).env(DIR, dir.path());
    must_pass(command);
}

#[test]
#[ignore = "started by a_full_disk_is_told_from_other_errors_and_leaves_nothing"]
fn inner_full_disk() {
    let dir = std::env::var(DIR).unwrap();
    let path = Path::new(&dir).join("store");
    let store = ImageStore::open(&path).unwrap();
    let full = |error: ImageError| {
        assert!(matches!(error, ImageError::DiskFull { .. }), "{}", chain(&error));
        assert!(error.to_string().starts_with("the disk is full: cannot "), "{error}");
        assert!(list(&path.join("tmp")).is_empty());
    };
    // The archive, an uploaded program, a blob.
    let noise: Vec<u8> =
        (0..4_000_000_u32).flat_map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = image_of(vec![plain(tar_of(&[Entry::new(b'0', b"f", b"", &noise)]))]);
    let files = layout_files(&[&large], index_of(&[large.line(Some("large:1"), None)]));
    full(store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap_err());
    full(store.build_binary("a", "a", &mut noise.as_slice(), &BuildOptions::default()).unwrap_err());
    // A layer that fits as a blob and not unpacked.
    let text = Entry::new(b'0', b"f", b"", &vec![b'x'; 4 << 20]);
    let small = image_of(vec![gzipped(&tar_of(&[text]))]);
    let files = layout_files(&[&small], index_of(&[small.line(Some("small:1"), None)]));
    let digest = store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap()[0].digest;
    full(store.prepare(&digest).unwrap_err());
    assert!(list(&path.join("rootfs")).is_empty());
    assert_eq!(store.list().len(), 1);
}

#[test]
fn without_root_layers_unpack_as_the_users_own_and_overlayfs_reads_them() {
    if !nix::unistd::geteuid().is_root() {
        return; // Then all other tests ran that way.
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
    let words = again("inner_rootless");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).uid(65_534).gid(65_534).env(DIR, dir.path()).env("TMPDIR", dir.path());
    must_pass(command);
}

#[test]
#[ignore = "started by without_root_layers_unpack_as_the_users_own_and_overlayfs_reads_them"]
fn inner_rootless() {
    let world = World::new();
    let below = tar_of(&[
        dir("./").mode(0o555),
        dir("d").mode(0o555),
        file("d/gone", "1"),
        file("d/kept", "1"),
        dir("o"),
        file("o/1", "1"),
        file("su", "x").mode(0o4755).with(|it| it.set_uid(0)),
        dir("shut").mode(0),
        file("shut/in", "x"),
        pax(&[(
            "SCHILY.xattr.security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )]),
        file("cap", "x"),
    ]);
    let above = tar_of(&[file("d/.wh.gone", ""), file("o/.wh..wh..opq", ""), file("o/2", "2")]);
    let digest = load_image(&world, &image_of(vec![plain(below), gzipped(&above)]));
    let prepared = world.store.prepare(&digest).unwrap();
    assert!(prepared.user_xattrs);
    assert!(prepared.lower[0].starts_with(world.store_path().join("rootfs-user")));
    let meta = |path: &str| fs::metadata(prepared.lower[1].join(path)).unwrap();
    assert_eq!(
        (meta("d").mode() & 0o7777, meta("su").mode() & 0o7777, meta("su").uid()),
        (0o555, 0o4755, 65_534)
    );
    // The same judge as for root: the kernel, here in a user namespace.
    fs::create_dir(world.path("mount")).unwrap();
    let lower: Vec<String> = prepared.lower.iter().map(|it| it.display().to_string()).collect();
    let script = "mount -t overlay overlay -o \"userxattr,lowerdir=$1\" \"$2\" && cd \"$2\" && echo d/* o/*";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([lower.join(":"), world.path("mount").display().to_string()])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "d/kept o/2\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Folders that even their owner may not enter can be taken away again.
    world.store.remove("test:1").unwrap();
    world.store.prune(&std::collections::BTreeSet::new()).unwrap();
    assert!(world.rootfs().is_empty() && world.leftovers().is_empty());
}
