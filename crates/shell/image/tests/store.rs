//! The store over time: transfers between peers, damage, crashes, several threads, cleaning up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::sync::Barrier;

use common::*;
use image::{BlobKind, BlobRef, ImageStore};
use model::Digest;

fn two_layers() -> Image {
    let base = tar_of(&[dir("etc/"), file("etc/a", "1")]);
    image_of(vec![gzipped(&base), plain(tar_of(&[file("b", "2")]))])
}

fn blob_path(world: &World, digest: &Digest) -> std::path::PathBuf {
    world.store_path().join("blobs/sha256").join(digest.to_string())
}

#[test]
fn an_image_spreads_from_store_to_store_blob_by_blob() {
    let (from, to) = (World::new(), World::new());
    let digest = load_image(&from, &two_layers());
    let copy = |blob: &BlobRef| {
        let (mut file, size) = from.store.open_blob(&blob.digest).unwrap();
        assert_eq!(size, blob.size_b);
        let mut writer = to.store.blob_writer(&blob.digest, blob.size_b).unwrap();
        std::io::copy(&mut file, &mut writer).unwrap();
        assert_eq!(writer.missing_b(), 0);
        writer.finish().unwrap();
    };
    let missing = to.store.blobs_of(&digest).unwrap_err();
    assert_eq!(missing.to_string(), format!("the manifest sha256:{digest} is not here"));
    let blobs = from.store.blobs_of(&digest).unwrap();
    let kinds: Vec<BlobKind> = blobs.iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [BlobKind::Manifest, BlobKind::Config, BlobKind::Layer, BlobKind::Layer]);
    copy(&blobs[0]);
    // With the manifest here, what is still missing can be asked of this store.
    assert_eq!(to.store.blobs_of(&digest).unwrap(), blobs);
    copy(&blobs[1]);
    copy(&blobs[2]);
    let error = to.store.adopt("web:1", &digest).unwrap_err();
    assert_eq!(error.to_string(), format!("the layer sha256:{} is not here", blobs[3].digest));
    assert!(to.store.list().is_empty());
    // What has arrived so far is not swept away.
    to.store.prune(&BTreeSet::new()).unwrap();
    copy(&blobs[3]);
    let info = to.store.adopt("web:1", &digest).unwrap();
    assert_eq!((info.digest, info.size_b), (digest, from.store.list()[0].size_b));
    assert_eq!(to.store.records()[0].reference, "web:1");
    assert_eq!(to.store.prepare(&digest).unwrap().lower.len(), 2);
}

#[test]
fn a_blob_of_another_size_or_digest_leaves_nothing() {
    let world = World::new();
    let digest = sha256(b"hello");
    let mut writer = world.store.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(
        writer.write_all(b"!").unwrap_err().to_string(),
        format!("blob sha256:{digest} is longer than the 5 bytes announced")
    );
    drop(writer);
    let mut writer = world.store.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"hell").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), format!("blob sha256:{digest} has 4 bytes, 5 were announced"));
    let mut writer = world.store.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"jello").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the bytes said to be sha256:{digest} are sha256:{}", sha256(b"jello"))
    );
    assert!(!world.store.has_blob(&digest) && world.leftovers().is_empty());
    assert!(list(&world.store_path().join("blobs/sha256")).is_empty());
    let error = world.store.blob_writer(&digest, u64::MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("blob sha256:{digest} has {} bytes, the limit is {}", u64::MAX, 32_u64 << 30)
    );
    let mut writer = world.store.blob_writer(&digest, 5).unwrap();
    writer.write_all(b"hello").unwrap();
    writer.finish().unwrap();
    let mut bytes = String::new();
    world.store.open_blob(&digest).unwrap().0.read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "hello");
}

#[test]
fn a_blob_that_went_bad_is_found_out_dropped_and_mended_by_loading_again() {
    // One byte flipped anywhere in any blob.
    let image = two_layers();
    for (blob, position) in [(1, 3), (2, 0), (2, 5), (2, 40), (3, 0), (3, 514), (3, 2_000)] {
        let world = World::new();
        let digest = load_image(&world, &image);
        let original = image.blobs()[blob].clone();
        let path = blob_path(&world, &sha256(&original));
        let mut bad = original.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let error = world.store.prepare(&digest).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the bytes said to be sha256:{} are sha256:{}", sha256(&original), sha256(&bad)),
            "blob {blob} byte {position}"
        );
        assert!(!path.exists() && world.leftovers().is_empty());
        let lacking = world.store.prepare(&digest).unwrap_err().to_string();
        assert!(lacking.ends_with(&format!("sha256:{} is not here", sha256(&original))), "{lacking}");
        load_image(&world, &image);
        world.store.prepare(&digest).unwrap();
    }
    // Still in place, but bad: loading again mends that too.
    let world = World::new();
    let digest = load_image(&world, &image);
    let path = blob_path(&world, &sha256(&image.layers[1].blob));
    fs::write(&path, "short").unwrap();
    let error = world.store.save("test:1", &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("has 5 bytes"), "{error}");
    load_image(&world, &image);
    world.store.prepare(&digest).unwrap();
}

#[test]
fn many_threads_that_prepare_one_image_get_the_same_folders() {
    let entries: Vec<Entry> = (0..300).map(|at| file(&format!("d{}/f{at}", at % 7), "content")).collect();
    let image = image_of(vec![gzipped(&tar_of(&entries)), plain(tar_of(&[file("top", "x")]))]);
    let world = World::new();
    let digest = load_image(&world, &image);
    let barrier = Barrier::new(8);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    world.store.prepare(&digest).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(all.iter().all(|it| *it == all[0]));
    assert_eq!(world.rootfs().len(), 2);
    assert_eq!(snapshot(&all[0].lower[1]).len(), 307);
    assert!(world.leftovers().is_empty());
}

#[test]
fn what_a_crash_left_is_cleaned_up_and_all_else_is_found_again() {
    let world = World::new();
    let digest = load_image(&world, &two_layers());
    let (listed, prepared) = (world.store.list(), world.store.prepare(&digest).unwrap());
    let World { dir: base, store } = world;
    let path = base.path().join("store");
    drop(store);
    // A transfer and an unpacking that were cut off, with a folder that its owner may not enter.
    fs::write(path.join("tmp/.tmpblob"), "half").unwrap();
    fs::create_dir_all(path.join("tmp/.tmplayer/etc/closed")).unwrap();
    let closed: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(path.join("tmp/.tmplayer/etc/closed"), closed).unwrap();
    let store = ImageStore::open(path.clone()).unwrap();
    assert!(list(&path.join("tmp")).is_empty());
    assert_eq!(store.list(), listed);
    assert_eq!(store.prepare(&digest).unwrap(), prepared);
}

#[test]
fn a_broken_index_is_an_error_that_names_the_file_and_is_left_alone() {
    let world = World::new();
    load_image(&world, &two_layers());
    let World { dir: base, store } = world;
    drop(store);
    let path = base.path().join("store");
    let index = path.join("index.json");
    for broken in ["", "{", "[]", "{\"schemaVersion\": 2}"] {
        fs::write(&index, broken).unwrap();
        let error = ImageStore::open(path.clone()).unwrap_err();
        assert_eq!(error.to_string(), format!("{} does not decode", index.display()), "{broken}");
        assert_eq!(fs::read_to_string(&index).unwrap(), broken);
    }
    let foreign = index_of(&[two_layers().line(Some("web:1"), None)]);
    fs::write(&index, foreign).unwrap();
    let error = ImageStore::open(path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} is not an index of this store: a line lacks its name or size", index.display())
    );
}

#[test]
fn a_store_is_opened_once_at_a_time_and_is_closed_to_other_users() {
    let world = World::new();
    let error = ImageStore::open(world.store_path()).unwrap_err();
    let lock = world.store_path().join("lock");
    assert_eq!(
        error.to_string(),
        format!("cannot lock (another process has this store open) {}", lock.display())
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(world.store_path()).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn names_come_and_go_and_blobs_go_when_nothing_needs_them() {
    let world = World::new();
    let shared = plain(tar_of(&[file("base", "x")]));
    let one = image_of(vec![shared.clone(), plain(tar_of(&[file("one", &"1".repeat(5_000))]))]);
    let two = image_of(vec![shared, plain(tar_of(&[file("two", "2")]))]);
    let files =
        layout_files(&[&one, &two], index_of(&[one.line(Some("one:1"), None), two.line(Some("two"), None)]));
    let mut index = files.clone();
    index.insert(
        "index.json".into(),
        index_of(&[one.line(Some("one:1"), None), two.line(Some("two:latest"), None)]),
    );
    world.store.load_reader(&mut tar_files(&index).as_slice(), None).unwrap();
    let (one, two) = (one.digest(), two.digest());
    world.store.adopt("copy:1", &one).unwrap();
    assert_eq!(world.store.resolve("two"), Some(two));
    assert_eq!(world.store.resolve(&format!("whatever@sha256:{two}")), Some(two));
    assert_eq!(world.store.resolve("one"), None, "one:latest is another name than one:1");
    assert_eq!(world.store.resolve("No Name"), None);
    world.store.prepare(&one).unwrap();
    world.store.prepare(&two).unwrap();
    assert_eq!(world.rootfs().len(), 3, "the shared layer is unpacked once");
    let none = BTreeSet::new();
    assert_eq!(world.store.prune(&none).unwrap(), 0, "all has a name");
    assert_eq!(world.store.remove("one:1").unwrap(), one);
    assert_eq!(world.store.prune(&none).unwrap(), 0, "copy:1 still stands for it");
    world.store.remove("copy:1").unwrap();
    assert_eq!(world.store.remove("copy:1").unwrap_err().to_string(), "there is no image `copy:1` here");
    assert_eq!(world.store.prune(&BTreeSet::from([one])).unwrap(), 0, "a container uses it");
    let kept = snapshot(&world.store.prepare(&two).unwrap().lower[1]);
    assert!(world.store.prune(&none).unwrap() > 5_000);
    assert_eq!(world.rootfs().len(), 2);
    assert!(!world.store.has_blob(&one));
    assert_eq!(snapshot(&world.store.prepare(&two).unwrap().lower[1]), kept);
    assert_eq!(world.store.list().len(), 1);
    assert!(world.leftovers().is_empty());
}

#[test]
fn a_container_whose_manifest_is_gone_keeps_its_folders() {
    let world = World::new();
    let digest = load_image(&world, &two_layers());
    world.store.prepare(&digest).unwrap();
    world.store.remove("test:1").unwrap();
    fs::remove_file(blob_path(&world, &digest)).unwrap();
    world.store.prune(&BTreeSet::from([digest])).unwrap();
    assert_eq!(world.rootfs().len(), 2, "which folders it uses cannot be known, so none goes");
    world.store.prune(&BTreeSet::new()).unwrap();
    assert_eq!(world.rootfs().len(), 0);
}

#[test]
fn manifests_and_configurations_that_do_not_fit_together_are_refused() {
    let world = World::new();
    let layer = plain(tar_of(&[file("a", "1")]));
    let mut image = image_of(vec![layer.clone()]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let line = manifest["layers"][0].clone();
    manifest["layers"].as_array_mut().unwrap().push(line);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let files = layout_files(&[&image], index_of(&[image.line(Some("a:1"), None)]));
    let error = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest sha256:{} has 2 layers, its configuration names 1", image.digest())
    );
    manifest["layers"] = serde_json::json!([]);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let files = layout_files(&[&image], index_of(&[image.line(Some("a:1"), None)]));
    let error = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "manifest sha256:{} in the uploaded archive has no layers: there is nothing to run",
            image.digest()
        )
    );
    manifest["layers"] =
        serde_json::json!([{"mediaType": "x", "digest": format!("sha512:{}", "a".repeat(128)), "size": 1}]);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let files = layout_files(&[&image], index_of(&[image.line(Some("a:1"), None)]));
    let error = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap_err();
    assert!(error.to_string().ends_with("only sha256 digests are supported"), "{error}");
}
