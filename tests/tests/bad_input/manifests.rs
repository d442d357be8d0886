//! Manifests that say what cannot be: nothing is accepted, and everything wrong is named.

use std::fmt::Write as _;
use std::fs;

use crate::world::{Node, Site, root, timed};

/// `apply` says all this with the place, exits 1, and the peer has heard of nothing.
#[track_caller]
fn refused(site: &Site, node: &Node<'_>, text: &str, words: &[&str]) {
    let before = node.history();
    let file = site.file("bad.yaml", text);
    let said = timed(10, || node.run(&["apply", "-y", "-f", &file])).fails(1, words);
    assert!(said.out.is_empty(), "{said:?}");
    assert!(said.err.len() < 10_000, "an error is a page at most: {} bytes", said.err.len());
    assert_eq!(node.history(), before);
}

#[test]
fn every_wrong_field_is_named_with_its_place_and_nothing_is_accepted() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    let with = |field: &str| format!("deployments:\n  - name: web\n    image: probe:1\n    {field}\n");
    let long = "a".repeat(300);
    for (text, words) in [
        // Unknown and misspelt.
        (
            with("replica: 3"),
            "bad.yaml:4:5: unknown field `replica` in deployments[0]; did you mean `replicas`?",
        ),
        (with("resources: {mem: 64Mi}"), "4:17: unknown field `mem` in resources; did you mean `memory`?"),
        (with("healthcheck: {}"), "4:5: unknown field `healthcheck` in deployments[0], which knows"),
        (
            "services: {}".to_owned(),
            "1:1: unknown field `services` in the manifest; did you mean `deployments`?",
        ),
        // Types and units.
        (with("replicas: three"), "4:15: replicas must be a whole number, found the text \"three\""),
        (with("replicas: 2.5"), "4:15: replicas must be a whole number, found the number 2.5"),
        (with("env: {ON: true}"), "env.ON must be text, found `true`; put it in quotes: \"true\""),
        (
            with("resources: {memory: 64mb}"),
            "resources.memory: `64mb` is not an amount of memory; did you mean `64M`?",
        ),
        (
            with("resources: {cpu: 1GHz}"),
            "resources.cpu: `1GHz` is not an amount of cpu: write it like `250m`",
        ),
        (with("ports: [\"80\"]"), "ports[0] must be \"HOST:CONTAINER\" with ports 1 to 65535"),
        (with("ports: [\"0:80\"]"), "ports[0] must be \"HOST:CONTAINER\" with ports 1 to 65535"),
        (
            with("restart: sometimes"),
            "4:14: restart cannot be `sometimes`, use one of `always`, `on-failure`, `never`",
        ),
        // Zero and absurd.
        (with("replicas: 0"), "4:15: replicas must be at least 1, found 0"),
        (with("replicas: -1"), "4:15: replicas must be 1 to 10000, found -1"),
        (with("replicas: 10001"), "4:15: replicas must be 1 to 10000, found 10001"),
        (
            with("replicas: 99999999999999999999999"),
            "4:15: replicas must be a whole number, found the number",
        ),
        (with("resources: {memory: 1}"), "4:25: resources.memory: 1 bytes asked, use 1Mi to 16Ti"),
        (with("resources: {memory: 0}"), "4:25: resources.memory: 0 bytes asked, use 1Mi to 16Ti"),
        (
            with("resources: {memory: 99999Gi}"),
            "4:25: resources.memory: 107373108658176 bytes asked, use 1Mi to 16Ti",
        ),
        (
            with("resources: {memory: 99999999999999Gi}"),
            "`99999999999999Gi` is not a whole number of bytes: write it like `64Mi`",
        ),
        (with("resources: {cpu: 0}"), "4:22: resources.cpu: 0m asked, use 1m to 1024000m"),
        (with("resources: {cpu: 1e9}"), "4:22: resources.cpu: 1000000000000m asked, use 1m to 1024000m"),
        (with("resources: {pids: 0}"), "4:23: resources.pids must be 1 to 4194304, found 0"),
        // Names.
        (
            with("").replace("web", "\"..\""),
            "2:11: name: `..` has the character '.': use a to z, 0 to 9 and `-`",
        ),
        (with("").replace("web", "a/b"), "2:11: name: `a/b` has the character '/'"),
        (with("").replace("web", "../../etc/passwd"), "2:11: name: `../../etc/passwd` has the character '.'"),
        (
            with("").replace("web", &long),
            "2:11: name: `aaaaaaaaaaaaaaaaaaaa...` has 300 characters, the limit is 63",
        ),
        (format!("namespace: ../x\n{}", with("")), "1:12: namespace: `../x` has the character '.'"),
        (with("").replace("probe:1", "../probe"), "3:12: image: `../probe` is not the name of an image"),
        (
            with("").replace("probe:1", &long),
            "3:12: image: the name of an image has 300 bytes, the limit is 255",
        ),
        (with("workdir: etc"), "4:14: workdir must be an absolute path, like `/srv`, found `etc`"),
        // At most one.
        (with("class: exclusive"), "4:12: class `exclusive` needs voters"),
        (with("voters: [n1]"), "voters without `class: exclusive`"),
        (with("class: exclusive\n    voters: [n1, n2]"), "2 named, use one or 3 to 5"),
        (with("class: exclusive\n    voters: [n1, n2, n1]"), "voters: `n1` is named twice"),
        (with("class: exclusive\n    voters: [n1]\n    mode: global"), "`exclusive` in mode `global`"),
        // The same twice.
        (with("name: web"), "4:5: duplicate mapping key `name` is not allowed here"),
        (
            format!("{}  - {{name: web, image: probe:1}}\n", with("")),
            "5:12: deployment `web` is there twice: first in line 2",
        ),
    ] {
        refused(&site, &node, &text, &["error: ", words]);
    }
    // All of it at once.
    let text = "deployments:\n  - name: A\n    image: probe:1\n    replica: 1\n    resources: {cpu: 1GHz, memroy: 1}\n";
    refused(
        &site,
        &node,
        text,
        &[
            "cannot be used: 4 problems",
            "did you mean `replicas`?",
            "did you mean `memory`?",
            "resources.cpu: ",
            "`A` has the character 'A'",
        ],
    );
    // What cannot be read is no manifest either.
    let missing = site.path("missing.yaml").display().to_string();
    node.run(&["apply", "-y", "-f", &missing])
        .fails(1, &["missing.yaml cannot be read", "No such file or directory"]);
    let file = site.file("binary.yaml", b"deployments: \xff\xfe");
    node.run(&["apply", "-y", "-f", &file]).fails(1, &["binary.yaml is not text", "byte 13 is not UTF-8"]);
    // Without a terminal and without -y nothing is done.
    let good = node.manifest("web", &[]);
    node.run(&["apply", "-f", &good]).fails(2, &["-y"]);
    assert_eq!(node.history().len(), 1);
    assert!(node.containers().is_empty());
}

#[test]
fn huge_and_hostile_files_are_refused_at_once_and_with_little_memory() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    // 100 MB, by its size alone: sparse, so that it takes no room here.
    let huge = site.path("huge.yaml");
    fs::File::create(&huge).unwrap().set_len(100 << 20).unwrap();
    let huge = huge.display().to_string();
    timed(5, || node.run(&["apply", "-y", "-f", &huge]))
        .fails(1, &["huge.yaml is too large: 104857600 bytes, the limit is 4194304 bytes (4 MiB)"]);
    // A tower of anchors, each of ten of those before.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let last = format!("*a{}", n - 1);
        writeln!(bomb, "a{n}: &a{n} [{}]", [last.as_str(); 10].join(", ")).unwrap();
    }
    bomb.push_str("deployments: *a11\n");
    refused(&site, &node, &bomb, &["error: ", "bad.yaml"]);
    // Depth, in both forms.
    refused(&site, &node, &"[".repeat(100_000), &["error: ", "bad.yaml"]);
    refused(&site, &node, &format!("deployments: {}", "{a: ".repeat(50_000)), &["error: ", "bad.yaml"]);
    // As many deployments as fit the file: one namespace takes no more than 500.
    let mut many = "deployments:\n".to_owned();
    for n in 0..50_000 {
        writeln!(many, "- {{name: d{n}, image: probe:1}}").unwrap();
    }
    refused(&site, &node, &many, &["deployments has 50000 entries, the limit is 500"]);
    // Every line wrong: the first twenty are enough.
    let mut wrong = "deployments:\n- name: web\n  image: probe:1\n".to_owned();
    for n in 0..5_000 {
        writeln!(wrong, "  x{n}: 1").unwrap();
    }
    refused(&site, &node, &wrong, &["cannot be used: 5000 problems", "and 4980 more"]);
    // More than one event may hold.
    node.image();
    let before = node.history();
    let value = "x".repeat(31_900);
    let mut big = format!(
        "deployments:\n- name: big\n  image: probe:1\n  env: {{A: \"{value}\"}}\n  args: [\"{value}\"]\n  labels:\n"
    );
    for n in 0..60 {
        writeln!(big, "    label-{n}: {}", "y".repeat(60)).unwrap();
    }
    let file = site.file("big.yaml", big);
    node.run(&["apply", "-y", "-f", &file, "--detach"])
        .fails(1, &["the change is too large: ", "the limit is 65536"]);
    assert_eq!(node.history(), before);
}

#[test]
fn an_image_that_nobody_has_is_refused_before_anything_is_changed() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let text = "deployments: [{name: web, image: \"prob:1\"}]";
    refused(
        &site,
        &node,
        text,
        &[
            "error: no reachable peer has image prob:1\n",
            "at deployment web",
            "hint: load it into any peer with `skerry image load FILE`",
        ],
    );
    node.image();
    refused(
        &site,
        &node,
        text,
        &["no reachable peer has image prob:1", "there is `probe:1`; is that the one?"],
    );
    assert!(node.json::<Vec<serde_json::Value>>(&["ps"]).is_empty());
}

#[test]
fn an_image_by_a_digest_that_nobody_has_stays_pending_with_the_reason() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let text = format!("deployments: [{{name: web, image: \"web@sha256:{}\"}}]", "ab".repeat(32));
    let file = site.file("by-digest.yaml", text);
    let said = node.run(&["apply", "-y", "-f", &file, "--timeout", "20s"]);
    assert!([3, 4].contains(&said.code), "{said:?}");
    assert!(said.err.contains("image"), "the reason is the image: {said:?}");
    assert!(node.containers().is_empty());
    // It is not in the way of others, and goes when it is told to.
    node.image();
    node.apply("other", &[]).ok();
    node.run(&["delete", "web", "-y"]).ok();
}

#[test]
fn files_that_are_no_images_are_refused_and_leave_nothing_in_the_store() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let garbage = site.file("garbage.tar", vec![0x5a; 300_000]);
    node.run(&["image", "load", &garbage]).fails(1, &["error: the image was not taken"]);
    let empty = site.file("empty.tar", "");
    node.run(&["image", "load", &empty]).fails(1, &["error: the image was not taken"]);
    let bomb = site.file("zeros.tar.gz", {
        // A gzip stream that ends in the middle.
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0x4b; 50]].concat()
    });
    node.run(&["image", "load", &bomb]).fails(1, &["error: the image was not taken"]);
    let missing = site.path("missing.tar").display().to_string();
    node.run(&["image", "load", &missing]).fails(1, &["missing.tar cannot be read"]);
    let text = site.file("script", "no program");
    node.run(&["image", "build", "../x", "--binary", &text]).fails(1, &["error: "]);
    let missing = site.path("missing").display().to_string();
    node.run(&["image", "build", "x:1", "--binary", &missing]).fails(1, &["missing"]);
    assert!(node.json::<Vec<serde_json::Value>>(&["image", "ls"]).is_empty());
    assert_eq!(fs::read_dir(node.dir.join("images/tmp")).unwrap().count(), 0, "nothing unfinished is left");
    assert_eq!(fs::read_dir(node.dir.join("images/blobs/sha256")).unwrap().count(), 0);
    // A program that is none is taken with a warning, as an image may be for a reader of its own.
    node.run(&["image", "build", "x:1", "--binary", &text]).fails(0, &["script is not an ELF program"]);
}
