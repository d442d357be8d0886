//! Layers that were made to hurt. Each either fails with the exact reason and leaves nothing, or does
//! something harmless inside its own folder. In no case does anything outside change.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use image::Limits;

enum Expect {
    /// The whole chain of errors below "layer ... cannot be unpacked".
    Error(&'static str),
    /// As `Error`, for texts that end in what a library says.
    ErrorStart(&'static str),
    /// Lines of the unpacked folder, among others; `!name` must not be there.
    Tree(&'static [(&'static str, &'static str)]),
}
use Expect::{Error, ErrorStart, Tree};

struct Case {
    name: &'static str,
    layer: Layer,
    expect: Expect,
}

fn case(name: &'static str, entries: impl AsRef<[Entry]>, expect: Expect) -> Case {
    Case { name, layer: plain(tar_of(entries.as_ref())), expect }
}

fn raw(name: &'static str, layer: Layer, expect: Expect) -> Case {
    Case { name, layer, expect }
}

fn wide(kind: u8, data: &[u8]) -> Entry {
    Entry::new(kind, b"././@LongLink", b"", data)
}

/// An old GNU sparse file: one byte of data at the very end of `size` bytes.
fn sparse(name: &str, size: u64) -> Entry {
    Entry::new(b'S', name.as_bytes(), b"", b"x").with(|header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(size - 1);
        gnu.sparse[0].set_length(1);
        gnu.set_real_size(size);
    })
}

fn limits() -> Limits {
    Limits {
        layer_entries: 1_000,
        layer_bytes: 8 << 20,
        layer_ratio: 50,
        layer_ratio_free_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// `victim` is a folder outside the store, by its absolute path.
fn cases(victim: &str) -> Vec<Case> {
    let secret = format!("{victim}/secret");
    let long = "n".repeat(256);
    let path = "d/".repeat(2_100);
    let deep = |levels: usize| "d/".repeat(levels);
    let zeros = vec![0; 4 << 20];
    let mut cases = vec![
        // Names.
        case("up", vec![file("../escape", "x")], Error("entry `../escape`: `..` would leave its folder")),
        case(
            "down and up",
            vec![file("a/../../escape", "x")],
            Error("entry `a/../../escape`: `..` would leave its folder"),
        ),
        case("ends up", vec![dir("a/..")], Error("entry `a/..`: `..` would leave its folder")),
        case("only up", vec![dir("..")], Error("entry `..`: `..` would leave its folder")),
        case(
            "up by a long name",
            vec![wide(b'L', b"../escape\0"), file("x", "x")],
            Error("entry `../escape`: `..` would leave its folder"),
        ),
        case(
            "up by PAX",
            vec![pax(&[("path", b"b/../../e")]), file("x", "x")],
            Error("entry `b/../../e`: `..` would leave its folder"),
        ),
        case(
            "absolute",
            vec![file("/etc/passwd", "x")],
            Tree(&[("etc", "dir 755"), ("etc/passwd", "file \"x\" 644")]),
        ),
        case("doubled slashes and dots", vec![file("//a///./b", "x")], Tree(&[("a/b", "file \"x\" 644")])),
        case(
            "zero byte",
            vec![pax(&[("path", b"a\0b")]), file("x", "x")],
            Error("entry `a\\0b`: it holds a zero byte"),
        ),
        case(
            "control letters",
            vec![pax(&[("path", b"../a\x1b[2J\n")]), file("x", "x")],
            Error("entry `../a\\u{1b}[2J\\n`: `..` would leave its folder"),
        ),
        case(
            "a part too long",
            vec![pax(&[("path", long.as_bytes())]), file("x", "x")],
            ErrorStart("entry `nnnnnnnn"),
        ),
        case(
            "a path too long",
            vec![pax(&[("path", path.as_bytes())]), dir("x")],
            ErrorStart("entry `d/d/d/"),
        ),
        case("root as a file", vec![file("./", "x")], Error("entry `./`: only a folder can be the root")),
        case("root as a link", vec![link("/", victim)], Error("entry `/`: only a folder can be the root")),
        case("empty name", vec![file("", "x")], Error("entry ``: only a folder can be the root")),
        case(
            "a broken record",
            vec![Entry::new(b'x', b"pax", b"", b"8 path=a\n"), file("x", "x")],
            Error("it cannot be read as a layer (after 0 entries): a PAX record is broken"),
        ),
        case(
            "two sizes",
            vec![pax(&[("size", b"1"), ("size", b"2")]), file("x", "x")],
            Error(
                "it cannot be read as a layer (after 0 entries): two headers differ on the size of an entry",
            ),
        ),
        case(
            "a size hidden behind a line end",
            vec![pax(&[("comment", b"\n"), ("size", b"512")]), file("x", "x")],
            Error(
                "it cannot be read as a layer (after 0 entries): two headers differ on the size of an entry",
            ),
        ),
        case(
            "a name with a line end",
            vec![pax(&[("path", b"a\nb")]), file("x", "x")],
            Tree(&[("a\nb", "file \"x\" 644")]),
        ),
        case(
            "the last of two names",
            vec![pax(&[("path", b"a"), ("path", b"b")]), file("x", "x")],
            Tree(&[("b", "file \"x\" 644"), ("!a", "")]),
        ),
        // Symbolic links on the way.
        case(
            "through a link up",
            vec![link("l", "../../../../../../../.."), file("l/escape", "x")],
            Tree(&[("escape", "file \"x\" 644"), ("l", "-> ../../../../../../../..")]),
        ),
        case(
            "through a link to the root",
            vec![link("l", "/"), file("l/escape", "x")],
            Tree(&[("escape", "file \"x\" 644")]),
        ),
        case(
            "through links to links",
            vec![link("a", "b"), link("b", "c/../c"), link("c", "/in"), file("a/x", "x")],
            Tree(&[("in/x", "file \"x\" 644"), ("a", "-> b")]),
        ),
        case(
            "through a loop",
            vec![link("a", "b"), link("b", "a"), file("a/x", "x")],
            ErrorStart("cannot open the folder `a`: Too many levels of symbolic links (os error 40)"),
        ),
        case(
            "through itself",
            vec![link("a", "a/b"), file("a/x", "x")],
            ErrorStart("cannot open the folder `a`: Too many levels of symbolic links (os error 40)"),
        ),
        case(
            "through a magic link",
            vec![link("p", "/proc/self/root"), file("p/escape", "x")],
            Tree(&[("proc/self/root/escape", "file \"x\" 644")]),
        ),
        case(
            "through a magic cwd",
            vec![link("p", "/proc/self/cwd/.."), file("p/escape", "x")],
            Tree(&[("proc/self/escape", "file \"x\" 644")]),
        ),
        case(
            "folder becomes link",
            vec![dir("d"), file("d/old", "x"), link("d", "/other"), file("d/new", "x")],
            Tree(&[("d", "-> /other"), ("other/new", "file \"x\" 644"), ("!d/old", "")]),
        ),
        case(
            "link becomes folder",
            vec![link("d", "/other"), dir("d"), file("d/new", "x")],
            Tree(&[("d", "dir 755"), ("d/new", "file \"x\" 644"), ("!other", "")]),
        ),
        case(
            "link becomes another while walked",
            vec![link("l", "a"), file("l/1", "x"), link("l", "b"), file("l/2", "x")],
            Tree(&[("a/1", "file \"x\" 644"), ("b/2", "file \"x\" 644"), ("!a/2", "")]),
        ),
        case(
            "file on the way",
            vec![file("f", "x"), file("f/x", "x")],
            Error("the way to `f` leads through `f`, which is no folder"),
        ),
        case(
            "link to a file on the way",
            vec![file("f", "x"), link("l", "f"), file("l/x", "x")],
            Error("the way to `l` leads through `f`, which is no folder"),
        ),
        case("link to nothing", vec![link("l", "")], Error("entry `l`: it is a link to nothing")),
        case(
            "target too long",
            vec![pax(&[("linkpath", path.as_bytes())]), link("l", "x")],
            Error("entry `l`: its target is longer than 4095 bytes"),
        ),
        case(
            "target with a zero byte",
            vec![pax(&[("linkpath", b"a\0b")]), link("l", "x")],
            Error("entry `l`: its target holds a zero byte"),
        ),
        // Writing through a name that was there before.
        case(
            "pipe then file",
            vec![Entry::new(b'6', b"p", b"", b""), file("p", "x")],
            Tree(&[("p", "file \"x\" 644")]),
        ),
        case(
            "the same file twice",
            vec![file("f", "first"), file("f", "2")],
            Tree(&[("f", "file \"2\" 644")]),
        ),
        case(
            "hard-linked file is replaced, its other name stays",
            vec![file("f", "1"), hard("h", "f"), file("h", "2")],
            Tree(&[("f", "file \"1\" 644"), ("h", "file \"2\" 644")]),
        ),
        case(
            "full folder becomes file",
            vec![file("d/a/b/c", "x"), file("d", "y")],
            Tree(&[("d", "file \"y\" 644")]),
        ),
        // Hard links.
        case(
            "hard link up",
            vec![hard("h", "../../secret")],
            Error("entry `h`: `..` would leave its folder"),
        ),
        case(
            "hard link to nothing here",
            vec![hard("h", "/etc/shadow")],
            Error("entry `h` is a hard link to `/etc/shadow`, but it is not in this layer"),
        ),
        case(
            "hard link through a link to nothing here",
            vec![link("l", "/etc"), hard("h", "l/shadow")],
            Error("entry `h` is a hard link to `l/shadow`, but it is not in this layer"),
        ),
        case(
            "hard link to itself",
            vec![file("f", "x"), hard("f", "f")],
            Error("entry `f` is a hard link to `f`, but it is the link itself"),
        ),
        case(
            "hard link to itself by another way",
            vec![file("d/f", "x"), link("l", "d"), hard("l/f", "d/f")],
            Error("entry `l/f` is a hard link to `d/f`, but it is the link itself"),
        ),
        case(
            "hard link to a folder",
            vec![dir("d"), hard("h", "d")],
            Error("entry `h` is a hard link to `d`, but it is neither a file nor a link"),
        ),
        case(
            "hard link to the root",
            vec![hard("h", "/")],
            Error("entry `h` is a hard link to `/`, but it is the root"),
        ),
        case(
            "hard link to a whiteout",
            vec![file(".wh.w", ""), hard("h", "w")],
            Error("entry `h` is a hard link to `w`, but it is a whiteout"),
        ),
        case(
            "hard link over the folder that its target is in",
            vec![file("d/f", "x"), hard("d", "d/f")],
            ErrorStart("cannot make the hard link `d`: No such file or directory (os error 2)"),
        ),
        case(
            "hard link within",
            vec![file("d/f", "x"), hard("/h", "/d/f")],
            Tree(&[("h", "file \"x\" 644")]),
        ),
        // What a layer may not have.
        case(
            "character device",
            vec![Entry::new(b'3', b"null", b"", b"")],
            Error("entry `null` is a character device, which a layer may not have"),
        ),
        case(
            "whiteout as a device",
            vec![Entry::new(b'3', b"etc/w", b"", b"").with(|it| {
                it.set_device_major(0).unwrap();
                it.set_device_minor(0).unwrap();
            })],
            Error("entry `etc/w` is a character device, which a layer may not have"),
        ),
        case(
            "block device",
            vec![Entry::new(b'4', b"sda", b"", b"")],
            Error("entry `sda` is a block device, which a layer may not have"),
        ),
        case(
            "unknown kind",
            vec![Entry::new(b'V', b"v", b"", b"")],
            Error("entry `v` is of an unknown kind, which a layer may not have"),
        ),
        case(
            "sparse by PAX",
            vec![pax(&[("GNU.sparse.major", b"1")]), file("s", "x")],
            Error("entry `s` is a sparse file in the form of PAX, which a layer may not have"),
        ),
        case(
            "overlay redirect",
            vec![pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]), dir("d")],
            Error("entry `d` sets `trusted.overlay.redirect`, which only the node itself may set"),
        ),
        case(
            "overlay opaque of users",
            vec![pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]), dir("d")],
            Error("entry `d` sets `user.overlay.opaque`, which only the node itself may set"),
        ),
        case(
            "attributes of another machine",
            vec![
                pax(&[("SCHILY.xattr.security.selinux", b"x"), ("SCHILY.xattr.trusted.x", b"x")]),
                file("f", "x"),
            ],
            Tree(&[("f", "file \"x\" 644")]),
        ),
        case(
            "attributes too large",
            vec![pax(&[("SCHILY.xattr.user.a", &[b'x'; 70_000])]), file("f", "x")],
            Error("it has more than 65536 bytes of extended attributes for one entry"),
        ),
        // Whiteouts.
        case(
            "whiteout of itself",
            vec![file("d/.wh..", "")],
            Error("entry `d/.wh..`: it is a whiteout of nothing"),
        ),
        case(
            "whiteout of its parent",
            vec![file("d/.wh...", "")],
            Error("entry `d/.wh...`: it is a whiteout of nothing"),
        ),
        case(
            "whiteout without a name",
            vec![file("d/.wh.", "")],
            Error("entry `d/.wh.`: it is a whiteout of nothing"),
        ),
        case(
            "file inside a whiteout",
            vec![file(".wh.d/x", "x")],
            Error("entry `.wh.d/x`: it lies inside a whiteout"),
        ),
        case(
            "whiteout through a link",
            vec![link("l", "../.."), file("l/.wh.w", "")],
            Tree(&[("w", "special 20000 0 0")]),
        ),
        case(
            "AUFS' own",
            vec![file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", "")],
            Tree(&[("!.wh..wh.plnk", ""), ("!.wh..wh.aufs", "")]),
        ),
        // Owners, modes, times.
        case(
            "no user number",
            vec![pax(&[("uid", b"4294967295")]), file("f", "x")],
            Error("entry `f`: its owner is not a user or group number"),
        ),
        case(
            "no group number",
            vec![pax(&[("gid", b"99999999999")]), file("f", "x")],
            Error("entry `f`: its owner is not a user or group number"),
        ),
        case(
            "no time",
            vec![pax(&[("mtime", b"noon")]), file("f", "x")],
            Error("entry `f`: its time is not a number"),
        ),
        case(
            "no mode",
            vec![file("f", "x").with(|it| it.as_mut_bytes()[100..107].copy_from_slice(b"rwxr-xr"))],
            ErrorStart("it cannot be read as a layer (after 1 entries): "),
        ),
        case(
            "the end of time",
            vec![file("f", "x").with(|it| it.set_mtime(u64::MAX))],
            Tree(&[("f", "file \"x\" 644")]),
        ),
        case(
            "a closed folder is filled all the same",
            vec![dir("d").mode(0), file("d/f", "x")],
            Tree(&[("d", "dir 0"), ("d/f", "file \"x\" 644")]),
        ),
        case("set-user-id stays", vec![file("su", "x").mode(0o4755)], Tree(&[("su", "file \"x\" 4755")])),
        // Sizes.
        case(
            "too many entries",
            (0..1_001).map(|at| file(&format!("f{at}"), "")).collect::<Vec<_>>(),
            Error("it has more than 1000 entries"),
        ),
        case(
            "a size that cannot be",
            vec![file("f", "x").with(|it| it.set_size(1 << 40))],
            Error("it has more than 8388608 bytes"),
        ),
        case(
            "the largest size",
            vec![file("f", "x").with(|it| it.set_size(u64::MAX))],
            ErrorStart("it cannot be read as a layer (after 0 entries): "),
        ),
        case(
            "too many bytes",
            vec![Entry::new(b'0', b"a", b"", &zeros), Entry::new(b'0', b"b", b"", &zeros), file("c", "x")],
            Error("it has more than 8388608 bytes"),
        ),
        case("a huge sparse file", vec![sparse("s", 1 << 40)], Error("it has more than 8388608 bytes")),
        case(
            "a swelling sparse file",
            vec![sparse("s", 6 << 20)],
            ErrorStart("it unpacks to more than 50 times its "),
        ),
        case(
            "headers too large",
            vec![pax(&[("comment", &vec![b'x'; 2 << 20])]), file("f", "x")],
            Error("it has more than 1048576 bytes of headers for one entry"),
        ),
        case(
            "a name too large",
            vec![wide(b'L', &vec![b'x'; 2 << 20]), file("f", "x")],
            Error("it has more than 1048576 bytes of headers for one entry"),
        ),
        case(
            "too deep",
            vec![pax(&[("path", deep(201).as_bytes())]), dir("x")],
            Error("it has more than 200 folders inside folders"),
        ),
        case(
            "just deep enough",
            vec![pax(&[("path", deep(200).as_bytes())]), dir("x")],
            Tree(&[("d/d/d", "dir 755")]),
        ),
        case(
            "too deep by way of links",
            vec![
                pax(&[("path", deep(150).as_bytes())]),
                dir("x"),
                pax(&[("linkpath", deep(150).as_bytes())]),
                link("l", "x"),
                pax(&[("path", format!("l/{}", deep(60)).as_bytes())]),
                dir("x"),
            ],
            Error("it has more than 200 folders inside folders"),
        ),
        // Streams that are none.
        raw(
            "not a tar",
            plain(b"hello, world. ".repeat(100)),
            ErrorStart("it cannot be read as a layer (after 0 entries): "),
        ),
        raw(
            "ends in a file",
            plain({
                let mut it = open_tar(&[file("f", "0123456789")]);
                it.truncate(517);
                it
            }),
            Error("it ends in the middle of f"),
        ),
        raw(
            "ends in a header",
            plain(open_tar(&[file("f", "x"), file("g", "y")])[..1_200].to_vec()),
            Error("it ends in the middle of a header"),
        ),
        raw(
            "ends after a long name",
            plain(open_tar(&[wide(b'L', b"name\0")])),
            Error("it ends in the middle of a header"),
        ),
        raw(
            "a wrong checksum",
            plain({
                let mut it = tar_of(&[file("f", "x"), file("g", "y")]);
                it[1_024] ^= 1;
                it
            }),
            ErrorStart("it cannot be read as a layer (after 1 entries): archive header checksum mismatch"),
        ),
        raw(
            "gzip cut off",
            {
                let mut it = gzipped(&tar_of(&[file("f", &"0123456789".repeat(1000))]));
                it.blob.truncate(it.blob.len() / 2);
                it
            },
            ErrorStart("it ends in the middle of "),
        ),
        raw(
            "gzip bomb",
            gzipped(&tar_of(&[Entry::new(b'0', b"z", b"", &zeros)])),
            ErrorStart("it unpacks to more than 50 times its "),
        ),
        raw(
            "zstd bomb",
            zstded(&tar_of(&[Entry::new(b'0', b"z", b"", &zeros)])),
            ErrorStart("it unpacks to more than 50 times its "),
        ),
        raw(
            "bomb after the last entry",
            gzipped(&{
                let mut it = tar_of(&[file("f", "x")]);
                it.extend(&zeros);
                it
            }),
            ErrorStart("it unpacks to more than 50 times its "),
        ),
        raw(
            "xz",
            plain(b"\xfd7zXZ\0rest".to_vec()),
            Error(
                "it cannot be read as a layer (after 0 entries): it is compressed by xz; gzip, zstd and none are supported",
            ),
        ),
        raw(
            "a window too large",
            Layer {
                blob: {
                    let mut it = zstd::Encoder::new(Vec::new(), 3).unwrap();
                    it.window_log(27).unwrap();
                    std::io::Write::write_all(&mut it, &tar_of(&[file("f", "x")])).unwrap();
                    it.finish().unwrap()
                },
                ..plain(tar_of(&[file("f", "x")]))
            },
            ErrorStart("it cannot be read as a layer (after 0 entries): "),
        ),
        raw(
            "another diff_id",
            Layer { diff_id: sha256(b"other"), ..plain(tar_of(&[file("f", "x")])) },
            ErrorStart("its contents are sha256:"),
        ),
        raw(
            "gzip with another diff_id",
            Layer { diff_id: sha256(b"other"), ..gzipped(&tar_of(&[file("f", "x")])) },
            ErrorStart("its contents are sha256:"),
        ),
        raw(
            "two gzip members are one stream",
            {
                let tar = tar_of(&[file("f", "x")]);
                Layer { blob: [gzip(&tar[..700]), gzip(&tar[700..])].concat(), ..gzipped(&tar) }
            },
            Tree(&[("f", "file \"x\" 644")]),
        ),
        raw(
            "bytes after the end belong to the digest",
            plain({
                let mut it = tar_of(&[file("f", "x")]);
                it.extend([7; 3000]);
                it
            }),
            Tree(&[("f", "file \"x\" 644")]),
        ),
        raw("nothing at all", plain(Vec::new()), Tree(&[])),
    ];
    // Aimed at the victim by its real path.
    cases.push(case("through a link out", vec![link("l", victim), file("l/secret", "stolen")], Tree(&[])));
    cases.push(case(
        "over a link out",
        vec![link("l", &secret), file("l", "x")],
        Tree(&[("l", "file \"x\" 644")]),
    ));
    cases.push(case("hard link out", vec![hard("h", &secret)], ErrorStart("entry `h` is a hard link to `")));
    cases.push(case(
        "hard link to a link out, then over it",
        vec![link("l", &secret), hard("h", "l"), file("h", "x")],
        Tree(&[("h", "file \"x\" 644")]),
    ));
    cases.push(case(
        "mode of a link out",
        vec![link("l", &secret), link("l", &secret).mode(0o777)],
        Tree(&[]),
    ));
    cases.push(case(
        "folder through a link out",
        vec![link("l", victim), dir("l").mode(0o777)],
        Tree(&[("l", "dir 777")]),
    ));
    cases.push(case(
        "whiteout of the victim",
        vec![link("l", victim), file("l/.wh.secret", ""), file("l/.wh..wh..opq", "")],
        Tree(&[]),
    ));
    cases.push(case(
        "remove a link out with its folder",
        vec![link("d/l", victim), file("d", "x")],
        Tree(&[("d", "file \"x\" 644")]),
    ));
    cases
}

#[test]
fn no_layer_reaches_outside_and_each_fails_or_works_exactly_as_written() {
    let count = cases("/v").len();
    assert!(count >= 40, "{count} cases");
    // Each waits for the disk most of the time.
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let world = World::with(limits());
                    let victim = world.path("victim");
                    fs::create_dir(&victim).unwrap();
                    fs::write(victim.join("secret"), "secret").unwrap();
                    let case = cases(victim.to_str().unwrap()).swap_remove(at);
                    if let Err(text) = check(&world, &case) {
                        wrong.lock().unwrap().push(format!("{}: {text}", case.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

fn check(world: &World, case: &Case) -> Result<(), String> {
    let ensure = |holds: bool, text: String| if holds { Ok(()) } else { Err(text) };
    let digest = load_image(world, &image_of(vec![case.layer.clone()]));
    let outside = |at: &Path| {
        let mut all = snapshot(at);
        all.retain(|path, _| !path.starts_with("store/rootfs"));
        all
    };
    let before = outside(world.dir.path());
    let result = world.store.prepare(&digest);
    let after = outside(world.dir.path());
    ensure(before == after, "something outside the folder changed".into())?;
    ensure(world.leftovers().is_empty(), "something was left in tmp".into())?;
    match (&case.expect, result) {
        (Error(expected), Err(error)) => {
            let text = chain(error_source(&error));
            ensure(text == *expected, format!("said\n    {text}\nwanted\n    {expected}"))?;
            ensure(world.rootfs().is_empty(), "a broken folder was kept".into())
        }
        (ErrorStart(expected), Err(error)) => {
            let text = chain(error_source(&error));
            ensure(text.starts_with(expected), format!("said\n    {text}\nwanted\n    {expected}"))?;
            ensure(world.rootfs().is_empty(), "a broken folder was kept".into())
        }
        (Tree(lines), Ok(prepared)) => {
            let tree = snapshot(&prepared.lower[0]);
            for (path, expected) in *lines {
                if let Some(absent) = path.strip_prefix('!') {
                    ensure(!tree.contains_key(absent), format!("{absent} is there"))?;
                } else {
                    let found = tree.get(*path).map_or("nothing", String::as_str);
                    ensure(
                        found == *expected,
                        format!("{path} is {found}, wanted {expected}; all: {tree:?}"),
                    )?;
                }
            }
            Ok(())
        }
        (_, Ok(_)) => Err("it was unpacked".into()),
        (_, Err(error)) => Err(format!("it failed: {}", chain(&error))),
    }
}

fn error_source(error: &image::ImageError) -> &dyn std::error::Error {
    std::error::Error::source(error).unwrap_or(error)
}
