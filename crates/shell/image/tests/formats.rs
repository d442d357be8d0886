//! Images come in by every format and leave by one; digests stay.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::*;
use image::{ImageConfig, Platform};
use serde_json::json;

type Files = BTreeMap<String, Vec<u8>>;

fn web() -> Image {
    let base = tar_of(&[dir("bin/"), file("bin/web", "#!").mode(0o755), dir("etc/"), file("etc/old", "x")]);
    let top = tar_of(&[dir("etc/"), file("etc/.wh.old", ""), file("etc/new", "y")]);
    image_of(vec![gzipped(&base), plain(top)])
}

/// What `docker save` wrote before version 25. The second layer is a link to the first where equal.
fn docker_archive(image: &Image, names: &serde_json::Value, prefix: &str) -> Vec<u8> {
    let config = format!("{}.json", sha256(&image.config));
    let mut entries = vec![file(&config, &String::from_utf8(image.config.clone()).unwrap())];
    let mut layers = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        let name = format!("{at}/layer.tar");
        let same = image.layers[..at].iter().position(|it| it.diff_id == layer.diff_id);
        entries.push(dir(&format!("{at}/")));
        entries.push(match same {
            Some(first) => link(&name, &format!("../{first}/layer.tar")),
            None => Entry::new(b'0', name.as_bytes(), b"", &layer.blob),
        });
        layers.push(format!("{prefix}{name}"));
    }
    let manifest = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
    entries.push(file("manifest.json", &manifest.to_string()));
    entries.push(file("repositories", "{}"));
    tar_of(&entries)
}

#[test]
fn an_oci_layout_is_read_as_a_folder_a_tar_and_a_compressed_tar_with_the_same_digests() {
    let image = web();
    let files = layout_files(&[&image], index_of(&[image.line(Some("docker.io/library/web:1"), None)]));
    let archive = tar_files(&files);
    let world = World::new();
    write_files(&world.path("layout"), &files);
    for (name, bytes) in
        [("a.tar", archive.clone()), ("a.tar.gz", gzip(&archive)), ("a.tar.zst", zstd(&archive))]
    {
        fs::write(world.path(name), bytes).unwrap();
    }
    for name in ["layout", "a.tar", "a.tar.gz", "a.tar.zst"] {
        let world_again = World::new();
        let infos = world_again.store.load(&world.path(name), None).unwrap();
        assert_eq!(infos.len(), 1, "{name}");
        assert_eq!((infos[0].reference.as_str(), infos[0].digest), ("web:1", image.digest()), "{name}");
        assert_eq!(infos[0].size_b, image.blobs().iter().map(|it| it.len() as u64).sum::<u64>(), "{name}");
        assert_eq!(infos[0].created.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(world_again.store.resolve("web:1"), Some(image.digest()));
        assert_eq!(world_again.leftovers(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_prepared_image_has_its_layers_topmost_first_and_its_configuration() {
    let (world, image) = (World::new(), web());
    let digest = load_image(&world, &image);
    let prepared = world.store.prepare(&digest).unwrap();
    assert_eq!(prepared.lower.len(), 2);
    assert_eq!(fs::read(prepared.lower[0].join("etc/new")).unwrap(), b"y");
    assert_eq!(fs::read(prepared.lower[1].join("etc/old")).unwrap(), b"x");
    assert_eq!(
        prepared.config,
        ImageConfig {
            entrypoint: vec!["/bin/web".into()],
            cmd: vec!["-v".into()],
            env: vec!["A=1".into()],
            workdir: Some("/srv".into()),
            user: Some("7:8".into()),
            exposed: vec!["443/tcp".into(), "80/tcp".into()],
            volumes: vec![],
            stop_signal: None,
            labels: BTreeMap::from([("l".into(), "1".into())]),
        }
    );
}

#[test]
fn an_old_docker_archive_is_read_and_layers_that_are_links_are_found() {
    let layer = plain(tar_of(&[file("a", "1")]));
    let image = image_of(vec![layer.clone(), plain(tar_of(&[file("b", "2")])), layer]);
    let world = World::new();
    let archive = docker_archive(&image, &json!(["web:1", "docker.io/library/web:2"]), "");
    let infos = world.store.load_reader(&mut gzip(&archive).as_slice(), None).unwrap();
    let names: Vec<&str> = infos.iter().map(|it| it.reference.as_str()).collect();
    assert_eq!(names, ["web:1", "web:2"]);
    assert_eq!(infos[0].digest, infos[1].digest);
    let prepared = world.store.prepare(&infos[0].digest).unwrap();
    assert_eq!(prepared.lower.len(), 3, "the same layer twice is two folders: overlayfs refuses one twice");
    assert_eq!(fs::read(prepared.lower[0].join("a")).unwrap(), b"1");
    // The same archive again is the same image, also unpacked into a folder.
    let again = world.store.load_reader(&mut archive.as_slice(), Some("other")).unwrap();
    assert_eq!((again[0].reference.as_str(), again[0].digest), ("other:latest", infos[0].digest));
}

#[test]
fn a_new_docker_archive_is_read_with_its_names() {
    // Docker 25 and later: an OCI layout with a manifest.json beside it.
    let image = web();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let layers: Vec<String> = image.layers.iter().map(|it| blob(&it.blob)).collect();
    let manifest =
        json!([{"Config": blob(&image.config), "RepoTags": ["web:1", "web:stable"], "Layers": layers}]);
    let mut line = image.line(Some("1"), None);
    line["annotations"]["io.containerd.image.name"] = json!("docker.io/library/web:1");
    let mut files = layout_files(&[&image], index_of(&[line.clone()]));
    let world = World::new();
    let infos = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap();
    assert_eq!((infos[0].reference.as_str(), infos[0].digest), ("web:1", image.digest()));
    files.insert("manifest.json".into(), manifest.to_string().into_bytes());
    let infos = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap();
    let names: Vec<&str> = infos.iter().map(|it| it.reference.as_str()).collect();
    assert_eq!(names, ["web:1", "web:stable"]);
    assert!(infos.iter().all(|it| it.digest == image.digest()));
}

#[test]
fn of_several_platforms_the_one_of_this_node_is_taken_and_of_none_the_others_are_named() {
    let this = Platform::this();
    let (s390x, mips) = (platform("s390x", None), platform("mips64le", Some("v2")));
    let layer = |text: &str| vec![plain(tar_of(&[file("which", text)]))];
    let (ours, other) = (image_for(layer("ours"), &this), image_for(layer("other"), &s390x));
    let inner = index_of(&[other.line(None, Some(&s390x)), ours.line(None, Some(&this)), attestation(&ours)]);
    let outer = json!({
        "mediaType": INDEX, "digest": format!("sha256:{}", sha256(&inner)), "size": inner.len(),
        "annotations": {"org.opencontainers.image.ref.name": "many:1"},
    });
    // Only our platform's blobs are there, as `docker save` does.
    let mut files = layout_files(&[&ours], index_of(&[outer]));
    files.insert(format!("blobs/sha256/{}", sha256(&inner)), inner);
    let world = World::new();
    let infos = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap();
    assert_eq!((infos[0].digest, infos[0].reference.as_str()), (ours.digest(), "many:1"));
    // Side by side in one index.
    let files = layout_files(
        &[&ours, &other],
        index_of(&[other.line(Some("flat:1"), Some(&s390x)), ours.line(Some("flat:1"), Some(&this))]),
    );
    let infos = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap();
    assert_eq!((infos.len(), infos[0].digest), (1, ours.digest()));
    // None of them ours.
    let third = image_for(layer("third"), &mips);
    let files = layout_files(
        &[&other, &third],
        index_of(&[other.line(Some("x:1"), Some(&s390x)), third.line(Some("x:1"), Some(&mips))]),
    );
    let error = world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the image in the uploaded archive is for linux/mips64le/v2, linux/s390x; this node runs {this}"
        )
    );
    // Alone it may come in, for other nodes; it does not run here.
    let digest = load_image(&world, &other);
    let error = world.store.prepare(&digest).unwrap_err();
    assert_eq!(error.to_string(), format!("image sha256:{digest} is for linux/s390x; this node runs {this}"));
}

fn platform(architecture: &str, variant: Option<&str>) -> Platform {
    Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
}

fn attestation(image: &Image) -> serde_json::Value {
    let unknown = Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None };
    image.line(None, Some(&unknown))
}

#[test]
fn gzip_zstd_and_plain_layers_of_the_same_files_unpack_to_the_same_tree() {
    let tar = tar_of(&[dir("d/"), file("d/f", &"text ".repeat(10_000)), link("l", "d/f"), hard("h", "d/f")]);
    let trees: Vec<_> = [plain(tar.clone()), gzipped(&tar), zstded(&tar)]
        .into_iter()
        .map(|layer| {
            let world = World::new();
            let digest = load_image(&world, &image_of(vec![layer]));
            snapshot(&world.store.prepare(&digest).unwrap().lower[0])
        })
        .collect();
    assert_eq!(trees[0].len(), 4);
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
}

#[test]
fn a_saved_image_loads_elsewhere_with_identical_digests() {
    let (from, to) = (World::new(), World::new());
    let digest = load_image(&from, &web());
    let (mut saved, mut again) = (Vec::new(), Vec::new());
    from.store.save("test:1", &mut saved).unwrap();
    from.store.save("test:1", &mut again).unwrap();
    assert_eq!(saved, again, "the same image gives the same archive");
    let infos = to.store.load_reader(&mut saved.as_slice(), None).unwrap();
    assert_eq!(infos, from.store.list());
    assert_eq!(infos[0].digest, digest);
    assert_eq!(to.store.blobs_of(&digest).unwrap(), from.store.blobs_of(&digest).unwrap());
    assert_eq!(
        from.store.save("none:1", &mut Vec::new()).unwrap_err().to_string(),
        "there is no image `none:1` here"
    );
}

#[test]
fn archives_that_are_no_images_or_lack_a_part_say_which() {
    let image = web();
    let line = |name| image.line(name, None);
    let files = layout_files(&[&image], index_of(&[line(Some("web:1"))]));
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        tar_files(&files)
    };
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let (manifest, layer) = (blob(&image.manifest), blob(&image.layers[0].blob));
    let a = "the uploaded archive";
    let wrong_layer = vec![b'x'; image.layers[0].blob.len()];
    let one = plain(tar_of(&[file("a", "1")]));
    let swapped = Layer { diff_id: sha256(b"else"), ..one.clone() };
    for (what, archive, expected) in [
        (
            "nothing",
            Vec::new(),
            format!(
                "{a} is neither a docker-archive nor an OCI layout: it has no manifest.json and no index.json"
            ),
        ),
        (
            "some tar",
            tar_of(&[file("x", "y")]),
            format!(
                "{a} is neither a docker-archive nor an OCI layout: it has no manifest.json and no index.json"
            ),
        ),
        (
            "no manifest",
            changed(&|it| drop(it.remove(&manifest))),
            format!("{a} has no `{manifest}`, which its manifest names"),
        ),
        (
            "no layer",
            changed(&|it| drop(it.remove(&layer))),
            format!("{a} has no `{layer}`, which its manifest names"),
        ),
        (
            "another layer",
            changed(&|it| drop(it.insert(layer.clone(), wrong_layer.clone()))),
            format!(
                "the bytes said to be sha256:{} are sha256:{}",
                sha256(&image.layers[0].blob),
                sha256(&wrong_layer)
            ),
        ),
        (
            "a longer layer",
            changed(&|it| it.get_mut(&layer).unwrap().push(0)),
            format!(
                "blob sha256:{} has {} bytes, {} were announced",
                sha256(&image.layers[0].blob),
                image.layers[0].blob.len() + 1,
                image.layers[0].blob.len()
            ),
        ),
        (
            "another manifest",
            changed(&|it| drop(it.insert(manifest.clone(), b"{}".to_vec()))),
            format!("the bytes said to be sha256:{} are sha256:{}", image.digest(), sha256(b"{}")),
        ),
        (
            "broken index",
            changed(&|it| drop(it.insert("index.json".into(), b"{".to_vec()))),
            format!("index.json in {a} does not decode"),
        ),
        (
            "no name",
            changed(&|it| drop(it.insert("index.json".into(), index_of(&[line(None)])))),
            format!("{a} does not say what its image is called: give it a name"),
        ),
        (
            "only a tag",
            changed(&|it| drop(it.insert("index.json".into(), index_of(&[line(Some("latest"))])))),
            format!("{a} does not say what its image is called: give it a name"),
        ),
        (
            "a bad name",
            changed(&|it| drop(it.insert("index.json".into(), index_of(&[line(Some("We b:1"))])))),
            "`We b:1` is not the name of an image: upper case is not allowed (tags may have it)".into(),
        ),
        (
            "docker: no layer",
            tar_of(&[
                file("c", &String::from_utf8(image.config.clone()).unwrap()),
                file(
                    "manifest.json",
                    &json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["x", "../y"]}]).to_string(),
                ),
            ]),
            format!("{a} has no `x`, which its manifest names"),
        ),
        (
            "docker: another diff_id",
            docker_archive(&image_of(vec![swapped]), &json!(["a:1"]), ""),
            format!(
                "`0/layer.tar` in {a} is sha256:{}, the configuration names sha256:{}",
                one.diff_id,
                sha256(b"else")
            ),
        ),
        (
            "docker: no names",
            docker_archive(&image_of(vec![one.clone()]), &json!(null), ""),
            format!("{a} does not say what its image is called: give it a name"),
        ),
        (
            "docker: no config",
            tar_of(&[file("manifest.json", "[{}]")]),
            format!("manifest.json in {a} does not decode"),
        ),
        (
            "cut off",
            {
                let mut it = tar_files(&files);
                it.truncate(it.len() / 2);
                it
            },
            format!("{a} cannot be read as an archive"),
        ),
        (
            "gzip cut off",
            {
                let mut it = gzip(&tar_files(&files));
                it.truncate(it.len() / 2);
                it
            },
            format!("{a} cannot be read as an archive"),
        ),
    ] {
        let world = World::new();
        let error = world.store.load_reader(&mut archive.as_slice(), None).unwrap_err();
        assert_eq!(error.to_string(), expected, "{what}: {}", chain(&error));
        assert!(world.store.list().is_empty() && world.leftovers().is_empty(), "{what}");
    }
}

#[test]
fn one_name_is_not_given_to_several_images() {
    let (one, two) = (web(), image_of(vec![plain(tar_of(&[file("a", "1")]))]));
    let files = layout_files(
        &[&one, &two],
        index_of(&[one.line(Some("one:1"), None), two.line(Some("two:1"), None)]),
    );
    let world = World::new();
    let error = world.store.load_reader(&mut tar_files(&files).as_slice(), Some("x")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the uploaded archive holds 2 images (one:1, two:1): one name cannot be given to all of them"
    );
    assert_eq!(world.store.load_reader(&mut tar_files(&files).as_slice(), None).unwrap().len(), 2);
}

#[test]
fn a_layout_cannot_lead_out_of_its_own_folder() {
    let world = World::new();
    let image = web();
    let dir = world.path("layout");
    write_files(&dir, &layout_files(&[&image], index_of(&[image.line(Some("web:1"), None)])));
    let layer = dir.join(format!("blobs/sha256/{}", sha256(&image.layers[0].blob)));
    fs::rename(&layer, world.path("outside")).unwrap();
    std::os::unix::fs::symlink(world.path("outside"), &layer).unwrap();
    let error = world.store.load(&dir, None).unwrap_err();
    assert!(chain(&error).starts_with(&format!("cannot open {}: ", layer.display())), "{}", chain(&error));
    // An unpacked docker-archive names its files itself.
    let dir = world.path("docker");
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join("manifest.json"),
        r#"[{"Config": "../../../../etc/passwd", "RepoTags": ["a:1"], "Layers": []}]"#,
    )
    .unwrap();
    let error = world.store.load(&dir, None).unwrap_err();
    assert!(chain(&error).starts_with("cannot open "), "{}", chain(&error));
}

#[test]
fn limits_of_archives_manifests_and_layer_counts_hold() {
    let image = web();
    let files = layout_files(&[&image], index_of(&[image.line(Some("web:1"), None)]));
    let archive = tar_files(&files);
    for (limits, expected) in [
        (
            image::Limits { archive_bytes: 1_000, ..Default::default() },
            "the uploaded archive has more than 1000 bytes".to_owned(),
        ),
        (
            image::Limits { json_bytes: 100, ..Default::default() },
            "`index.json` in the uploaded archive has more than 100 bytes".into(),
        ),
        (
            image::Limits { layers: 1, ..Default::default() },
            format!(
                "manifest sha256:{} in the uploaded archive has 2 layers, the limit is 1",
                image.digest()
            ),
        ),
        (
            image::Limits { blob_bytes: 10, ..Default::default() },
            format!(
                "blob sha256:{} has {} bytes, the limit is 10",
                sha256(&image.layers[0].blob),
                image.layers[0].blob.len()
            ),
        ),
    ] {
        let world = World::with(limits);
        let error = world.store.load_reader(&mut archive.as_slice(), None).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(world.leftovers().is_empty());
    }
}
