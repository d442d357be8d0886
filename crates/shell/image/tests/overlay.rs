//! The folders of a prepared image, stacked by the kernel's overlayfs in a mount namespace of its own:
//! what one layer deletes or covers is not seen through the next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::*;

/// Names and contents of the merged root, one a line; nothing where this user may not mount.
fn merged(world: &World, lower: &[std::path::PathBuf]) -> Option<Vec<String>> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let (mount, extra) = (world.path("mount"), world.path("extra"));
    fs::create_dir_all(&mount).unwrap();
    fs::create_dir_all(&extra).unwrap();
    let mut dirs: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
    // overlayfs wants two; this one is empty.
    dirs.push(extra.display().to_string());
    let script = "set -e; mount -t overlay overlay -o \"lowerdir=$1\" \"$2\"; cd \"$2\"; \
                  find . -mindepth 1 | sort | while read -r f; do \
                  if [ -f \"$f\" ]; then echo \"$f=$(cat \"$f\")\"; else echo \"$f $(stat -c %a:%u \"$f\")\"; fi; done";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([dirs.join(":"), mount.display().to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(Into::into).collect())
}

fn layers(world: &World, tars: &[Vec<Entry>]) -> Vec<std::path::PathBuf> {
    let layers = tars.iter().map(|entries| plain(tar_of(entries))).collect();
    let digest = load_image(world, &image_of(layers));
    world.store.prepare(&digest).unwrap().lower
}

#[test]
fn whiteouts_and_opaque_folders_hide_what_is_below_and_nothing_of_their_own_layer() {
    let below = vec![
        file("gone", "1"),
        file("kept", "1"),
        file("d/1", "1"),
        file("d/2", "1"),
        file("o/1", "1"),
        file("o/2", "1"),
        file("r/old", "1"),
        file("q/old", "1"),
        file("z/deep/1", "1"),
        file("both", "1"),
    ];
    for (name, above, expected) in [
        ("a file", vec![file(".wh.gone", "")], vec!["!gone", "kept=1"]),
        ("in a folder", vec![file("d/.wh.1", "")], vec!["!d/1", "d/2=1"]),
        ("a folder", vec![file(".wh.d", "")], vec!["!d/1", "!d 755:0", "kept=1"]),
        ("opaque first", vec![file("o/.wh..wh..opq", ""), file("o/3", "2")], vec!["!o/1", "!o/2", "o/3=2"]),
        ("opaque last", vec![file("o/3", "2"), file("o/.wh..wh..opq", "")], vec!["!o/1", "!o/2", "o/3=2"]),
        (
            "then a folder again",
            vec![file(".wh.r", ""), dir("r"), file("r/new", "2")],
            vec!["!r/old", "r/new=2"],
        ),
        ("then something in it", vec![file(".wh.r", ""), file("r/new", "2")], vec!["!r/old", "r/new=2"]),
        (
            "a folder and then its whiteout",
            vec![file("q/new", "2"), file(".wh.q", "")],
            vec!["!q/old", "q/new=2"],
        ),
        ("a file and its whiteout", vec![file("both", "2"), file(".wh.both", "")], vec!["both=2"]),
        ("a whiteout and its file", vec![file(".wh.both", ""), file("both", "2")], vec!["both=2"]),
        ("twice", vec![file(".wh.gone", ""), file(".wh.gone", "")], vec!["!gone"]),
        ("deep", vec![file("z/deep/.wh.1", "")], vec!["!z/deep/1", "z/deep 755:0"]),
        (
            "all of it",
            vec![file(".wh..wh..opq", ""), file("only", "2")],
            vec!["!gone", "!kept", "!d/1", "only=2"],
        ),
    ] {
        let world = World::new();
        let lower = layers(&world, &[below.clone(), above]);
        let Some(found) = merged(&world, &lower) else { return };
        for line in expected {
            let (absent, line) = line.strip_prefix('!').map_or((false, line), |line| (true, line));
            let is = |it: &String| {
                it.strip_prefix("./")
                    .is_some_and(|it| it == line || absent && it.starts_with(&format!("{line}=")))
            };
            assert_eq!(found.iter().any(is), !absent, "{name}: {line} in {found:?}");
        }
    }
}

#[test]
fn a_folder_that_a_layer_only_passes_through_keeps_the_mode_and_owner_that_it_has_below() {
    let owned =
        |entry: Entry| entry.with(|it| it.set_uid(if nix::unistd::geteuid().is_root() { 7 } else { 0 }));
    let below = vec![
        dir("tmp").mode(0o1777),
        owned(dir("var")),
        owned(dir("var/lib")).mode(0o700),
        link("lib", "usr/lib"),
        dir("usr/lib"),
    ];
    let above = vec![file("tmp/a", "2"), file("var/lib/x/y", "2"), file("lib/so", "2")];
    let world = World::new();
    let lower = layers(&world, &[below, above]);
    let meta = |path: &str| fs::symlink_metadata(lower[0].join(path)).unwrap();
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!((meta("var/lib").mode() & 0o7777, meta("var/lib/x").mode() & 0o7777), (0o700, 0o755));
    assert!(meta("lib").is_symlink(), "a link below is walked, not hidden by a folder");
    assert!(meta("usr/lib/so").is_file());
    let Some(found) = merged(&world, &lower) else { return };
    for line in ["./tmp 1777:0", "./var 755:7", "./var/lib 700:7", "./usr/lib/so=2"] {
        assert!(found.iter().any(|it| it == line), "{line} in {found:?}");
    }
}

#[test]
fn the_same_layer_on_another_base_is_unpacked_for_that_base() {
    let above = vec![file("tmp/a", "2")];
    let world = World::new();
    let one = layers(&world, &[vec![dir("tmp").mode(0o1777)], above.clone()]);
    let two = layers(&world, &[vec![dir("tmp").mode(0o711)], above]);
    let mode = |lower: &[std::path::PathBuf]| fs::metadata(lower[0].join("tmp")).unwrap().mode() & 0o7777;
    assert_eq!((mode(&one), mode(&two)), (0o1777, 0o711));
}
