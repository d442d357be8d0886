//! Images made here: from a program, from a folder.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use image::BuildOptions;
use nix::sys::stat::{Mode, SFlag, mknod};

fn tree_of(world: &World, built: &image::Built) -> PathBuf {
    world.store.prepare(&built.image.digest).unwrap().lower[0].clone()
}

/// The smallest program that there is: enough of an ELF file to be taken for a static one.
fn static_program() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    elf[54] = 56;
    elf
}

#[test]
fn a_static_program_becomes_an_image_that_is_the_same_every_time() {
    let options = BuildOptions {
        cmd: vec!["--port".into(), "80".into()],
        env: vec!["A=1".into(), "B=2".into()],
        exposed: vec!["80/tcp".into(), "443/tcp".into()],
        user: Some("65534".into()),
        workdir: Some("/tmp".into()),
        labels: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
        ..BuildOptions::default()
    };
    let build = |world: &World| {
        world.store.build_binary("web:1", "web", &mut static_program().as_slice(), &options).unwrap()
    };
    let (one, two) = (World::new(), World::new());
    let built = build(&one);
    assert_eq!(built.warnings, Vec::<String>::new());
    assert_eq!(built, build(&two));
    assert_eq!(built, build(&one), "a second time in the same store");
    let prepared = one.store.prepare(&built.image.digest).unwrap();
    assert_eq!(prepared.config.entrypoint, ["/web"]);
    assert_eq!(prepared.config.cmd, options.cmd);
    assert_eq!(prepared.config.env, options.env);
    assert_eq!(prepared.config.exposed, ["443/tcp", "80/tcp"]);
    assert_eq!((&prepared.config.user, &prepared.config.workdir), (&options.user, &options.workdir));
    assert_eq!(prepared.config.labels, options.labels);
    let tree = snapshot(&prepared.lower[0]);
    let names: Vec<&str> = tree.keys().map(String::as_str).collect();
    assert_eq!(names, ["dev", "etc", "etc/group", "etc/passwd", "proc", "root", "sys", "tmp", "web"]);
    assert_eq!(tree["tmp"], "dir 1777");
    assert_eq!(fs::read(prepared.lower[0].join("web")).unwrap(), static_program());
    assert_eq!(fs::metadata(prepared.lower[0].join("web")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(prepared.lower[0].join("web")).unwrap().mtime(), 0);
    assert!(one.leftovers().is_empty());
}

#[test]
fn an_image_of_one_program_has_a_digest_that_no_release_changes() {
    // Written down: a digest that moves makes every node of a cluster fetch every built image anew.
    if cfg!(target_arch = "x86_64") {
        let world = World::new();
        let built = world.store.build_binary(
            "web",
            "web",
            &mut static_program().as_slice(),
            &BuildOptions::default(),
        );
        assert_eq!(
            built.unwrap().image.digest.to_string(),
            "f8fce829170318edf5dc62f423a07540ed5e82823fe4b8b92f46997e60be0042"
        );
    }
}

#[test]
fn a_dynamic_program_brings_its_loader_and_every_library_that_it_needs() {
    let world = World::new();
    for program in ["/bin/true", "/bin/ls", "/bin/bash"] {
        let built = world
            .store
            .build_binary_path("dyn:1", "prog", Path::new(program), &BuildOptions::default())
            .unwrap();
        let root = tree_of(&world, &built);
        // The judge is this machine's own loader: what it resolves must be in the image, and be the same
        // bytes.
        let output = Command::new("ldd").arg(program).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut checked = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(path) = words.iter().find(|word| word.starts_with('/')) else { continue };
            let name = Path::new(path).file_name().unwrap();
            let found = find_by_name(&root, name.to_str().unwrap());
            assert!(!found.is_empty(), "{program}: {path} is not in the image");
            assert_eq!(fs::read(&found[0]).unwrap(), fs::read(path).unwrap(), "{path}");
            checked += 1;
        }
        assert!(checked >= 2, "{text}");
        // And it starts with nothing but the image around it.
        if nix::unistd::geteuid().is_root() {
            let status = Command::new("chroot").arg(&root).args(["/prog", "--version"]).output().unwrap();
            assert!(status.status.success(), "{program}: {}", String::from_utf8_lossy(&status.stderr));
        }
    }
}

fn find_by_name(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in list(dir) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(find_by_name(&path, name));
        } else if path.file_name().is_some_and(|it| it == name) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_program_that_would_not_start_is_refused_or_warned_of() {
    let world = World::new();
    let options = BuildOptions::default();
    let program = fs::read("/bin/true").unwrap();
    let error = world.store.build_binary("a", "a", &mut program.as_slice(), &options).unwrap_err();
    assert!(error.to_string().starts_with("the program needs the loader /lib"), "{error}");
    let here = BuildOptions { host_libraries: true, ..options.clone() };
    world.store.build_binary("a", "a", &mut program.as_slice(), &here).unwrap();
    // A library that no machine has: its name is changed in the program itself.
    let at = program.windows(9).position(|it| it == b"libc.so.6").unwrap();
    let mut lost = program.clone();
    lost[at..at + 9].copy_from_slice(b"libq.so.6");
    let error = world.store.build_binary("a", "a", &mut lost.as_slice(), &here).unwrap_err().to_string();
    let start = "the program `a` needs the library `libq.so.6`, which is not on this machine (looked in /";
    assert!(error.starts_with(start), "{error}");
    let built = world.store.build_binary("s", "s", &mut b"#!/bin/sh\n".as_slice(), &options).unwrap();
    assert_eq!(
        built.warnings,
        ["the program `s` is not an ELF program: the image has no shell or interpreter that could run it"]
    );
    let mut foreign = static_program();
    foreign[18] = 243;
    let built = world.store.build_binary("f", "f", &mut foreign.as_slice(), &options).unwrap();
    assert_eq!(built.image.platform.to_string(), "linux/riscv64");
    assert!(built.warnings[0].starts_with("the program `f` is for linux/riscv64, this node runs "));
    for name in ["", ".", "..", "a/b", "../a", "etc", "tmp", ".wh.a"] {
        let error =
            world.store.build_binary("x", name, &mut static_program().as_slice(), &options).unwrap_err();
        let start = format!("`{name}` cannot be the program's file name: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    assert!(world.store.resolve("x").is_none() && world.leftovers().is_empty());
    assert!(world.store.build_binary("No", "x", &mut static_program().as_slice(), &options).is_err());
    let error = world.store.build_binary_path("x", "x", Path::new("/"), &options).unwrap_err();
    assert_eq!(error.to_string(), "/ is not a file");
}

/// A folder with one of everything.
fn sample(dir: &Path, order: &[&str]) {
    for name in order {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    symlink("../a/../nowhere", dir.join("a/link")).unwrap();
    fs::hard_link(dir.join("a/x"), dir.join("b/same")).unwrap();
    nix::unistd::mkfifo(&dir.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(dir.join("b/su"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o2750)).unwrap();
    rustix::fs::setxattr(dir.join("a/x"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn a_folder_becomes_an_image_with_all_that_files_are_and_the_same_digest_in_any_order() {
    let world = World::new();
    let (one, two) = (world.path("one"), world.path("two"));
    let long = format!("c/{}/{}", "long".repeat(40), "name".repeat(50));
    sample(&one, &["a/x", "b/su", "b/y", &long]);
    sample(&two, &[&long, "b/y", "b/su", "a/x"]);
    let options = BuildOptions { entrypoint: vec!["/b/su".into()], ..BuildOptions::default() };
    let built = world.store.build_rootfs("dir:1", &one, &options).unwrap();
    assert_eq!(built.image.digest, world.store.build_rootfs("dir:2", &two, &options).unwrap().image.digest);
    let root = tree_of(&world, &built);
    assert_eq!(snapshot(&root), snapshot(&one));
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(inode("a/x"), inode("b/same"), "hard links stay one file");
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(root.join("a/x"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
    assert!(snapshot(&root).contains_key(&long));
    let modes: Vec<u32> =
        ["a", "b/su", "a/x"].map(|it| fs::metadata(root.join(it)).unwrap().mode() & 0o7777).into();
    assert_eq!(modes, [0o2750, 0o4711, 0o640]);
}

#[test]
fn owners_and_capabilities_survive_where_the_store_is_roots() {
    if !nix::unistd::geteuid().is_root() {
        return; // Nobody else may give files away.
    }
    let world = World::new();
    let dir = world.path("dir");
    sample(&dir, &["a/x", "b/su"]);
    std::os::unix::fs::chown(dir.join("a"), Some(1_000), Some(2_000)).unwrap();
    std::os::unix::fs::lchown(dir.join("a/link"), Some(70_000), Some(5)).unwrap();
    // cap_dac_override and cap_fowner, effective and permitted, as the kernel stores them (version 2):
    // their bits are the byte of a line end.
    let capability = [1, 0, 0, 2, b'\n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("b/su"), "security.capability", &capability, flags).unwrap();
    let built = world.store.build_rootfs("dir:1", &dir, &BuildOptions::default()).unwrap();
    let root = tree_of(&world, &built);
    let owner = |path: &str| fs::symlink_metadata(root.join(path)).map(|it| (it.uid(), it.gid())).unwrap();
    assert_eq!((owner("a"), owner("a/link"), owner("a/x")), ((1_000, 2_000), (70_000, 5), (0, 0)));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(root.join("b/su"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
}

#[test]
fn sockets_are_left_out_and_devices_and_whiteout_names_refused() {
    let world = World::new();
    let dir = world.path("dir");
    fs::create_dir(&dir).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.join("sock")).unwrap();
    let options = BuildOptions::default();
    let built = world.store.build_rootfs("dir:1", &dir, &options).unwrap();
    assert_eq!(built.warnings, [format!("{}/sock was left out: it is a socket", dir.display())]);
    assert!(snapshot(&tree_of(&world, &built)).is_empty());
    drop(socket);
    fs::write(dir.join(".wh.x"), "").unwrap();
    let error = world.store.build_rootfs("dir:1", &dir, &options).unwrap_err();
    let text =
        format!("{}/.wh.x has a name that means `deleted` in a layer (it begins with `.wh.`)", dir.display());
    assert_eq!(error.to_string(), text);
    fs::remove_file(dir.join(".wh.x")).unwrap();
    if nix::unistd::geteuid().is_root() {
        mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, nix::sys::stat::makedev(1, 3)).unwrap();
        let error = world.store.build_rootfs("dir:1", &dir, &options).unwrap_err();
        let text = format!(
            "{}/null is a device, which an image may not have: containers get theirs from the node",
            dir.display()
        );
        assert_eq!(error.to_string(), text);
    }
    let error = world.store.build_rootfs("dir:1", &world.path("none"), &options).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", world.path("none").display()));
    assert!(world.leftovers().is_empty());
    assert_eq!(
        world.store.resolve("dir:1"),
        Some(built.image.digest),
        "the name still stands for the last good one"
    );
}

#[test]
fn a_folder_that_holds_the_store_itself_is_packed_without_the_stores_unfinished_files() {
    let world = World::new();
    fs::write(world.path("file"), "x").unwrap();
    let built = world.store.build_rootfs("self:1", world.dir.path(), &BuildOptions::default()).unwrap();
    assert_eq!(built.warnings.len(), 1, "{:?}", built.warnings);
    let tree = snapshot(&tree_of(&world, &built));
    assert!(tree.contains_key("file") && !tree.contains_key("store/tmp"), "{tree:?}");
}

#[test]
fn limits_of_a_build_hold() {
    let limits = image::Limits { layer_entries: 5, layer_bytes: 1_000, ..image::Limits::default() };
    let world = World::with(limits);
    let dir = world.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("big"), vec![0; 1_001]).unwrap();
    let error = world.store.build_rootfs("a", &dir, &BuildOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} has more than 1000 bytes", dir.display()));
    fs::remove_file(dir.join("big")).unwrap();
    (0..5).for_each(|at| fs::write(dir.join(at.to_string()), "").unwrap());
    let error = world.store.build_rootfs("a", &dir, &BuildOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} has more than 5 entries", dir.display()));
    let mut large: &[u8] = &[0; 1_001];
    let error = world.store.build_binary("a", "a", &mut large, &BuildOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "the program `a` has more than 1000 bytes");
    assert!(world.leftovers().is_empty());
}
