//! Command lines: wrong words, peers that are not there or are others.

use crate::world::{Site, root};

#[test]
fn a_wrong_word_is_a_usage_error_that_names_it() {
    let site = Site::new();
    for (args, words) in [
        (&["aply"][..], "unrecognized subcommand 'aply'"),
        (&["apply"][..], "required arguments were not provided"),
        (&["ps", "--wat"][..], "unexpected argument '--wat'"),
        (
            &["--timeout", "5", "ps"][..],
            "a time needs a unit: write it like `500ms`, `30s`, `2m`, `1h` or `7d`",
        ),
        (&["apply", "-f", "x", "--wait", "done"][..], "use running, replicated=N or none"),
        (&["ps", "-o", "xml"][..], "invalid value 'xml'"),
        (&["delete", "../web"][..], "`..` has the character '.': use a to z, 0 to 9 and `-`"),
        (
            &["exec", "web.x", "--", "sh"][..],
            "`x` is not a replica's number: a replica is named like `web.0`",
        ),
        (&["token", "revoke", "XYZ"][..], "expected 4 to 64 hexadecimal digits in lower case"),
        (&["token", "create", "--uses", "0"][..], "0 is not in 1..=1000"),
        (
            &["init", "--capacity", "cpu=2"][..],
            "`memory` is missing, write it like `cpu=2,memory=1Gi,pids=500`",
        ),
        (&["init", "--capacity", "cpu=0,memory=1Gi,pids=5"][..], "`cpu` must not be 0"),
        (
            &["init", "--capacity", "cpu=2,memory=1gb,pids=5"][..],
            "`1gb` is not an amount of memory; did you mean `1G`?",
        ),
        (&["init", "--listen", "here"][..], "invalid socket address syntax"),
        (&["init", "--label", "x"][..], "a label is written KEY=VALUE"),
        (&["init", "--cgroup-parent", "../../x", "--name", "a"][..], "`../../x` is not a folder of cgroups"),
    ] {
        site.run(args).fails(2, &["error: ", words]);
    }
    let long = "a".repeat(300);
    site.run(&["init", "--name", &long])
        .fails(2, &["`aaaaaaaaaaaaaaaaaaaa...` has 300 characters, the limit is 63"]);
    site.run(&["init", "--name", ".."]).fails(2, &["`..` has the character '.'"]);
    // Nothing of it was begun.
    assert!(!site.path("ada.key").exists() && !site.path(".local").exists());
}

#[test]
fn an_error_is_one_object_where_json_is_asked_for() {
    let site = Site::new();
    let usage = site.run(&["-o", "json", "ps", "--wat"]).fails(2, &[]).error();
    assert_eq!(usage["code"], "usage");
    let peer = format!("unix:{}", site.path("none.sock").display());
    let said = site.run(&["--peer", &peer, "-o", "json", "ps"]).fails(7, &[]);
    assert_eq!(said.out, "", "no data where there is none");
    assert_eq!(said.err.lines().count(), 1);
    let error = said.error();
    assert_eq!(error["code"], "no-peer");
    assert_eq!(error["error"], format!("no peer answers at {peer}"));
    assert_eq!(error["why"][0], "No such file or directory (os error 2)");
    let file = site.file("x.yaml", "deployments: [{name: web}]");
    let error = site.run(&["-o", "json", "apply", "-f", &file]).fails(1, &[]).error();
    assert_eq!(error["code"], "manifest");
    assert_eq!(error["at"], format!("{file}:1:15"));
    assert_eq!(error["why"][0], format!("{file}:1:15: deployments[0] has no `image`"));
}

#[test]
fn a_peer_that_is_named_wrongly_or_not_there_is_told_apart() {
    let site = Site::new();
    for (peer, words) in [
        ("nowhere", "`nowhere` names no peer: it has no port"),
        ("unix:", "`unix:` names no peer: the path is empty"),
        ("/run/api.sock", "a socket's path begins with `unix:`"),
        ("host:0", "`host:0` names no peer: it has no port"),
        ("host:7440#12", "`host:7440#12` names no peer: "),
    ] {
        site.run(&["--peer", peer, "ps"])
            .fails(2, &[words, "hint: write unix:/var/lib/skerry/api.sock, HOST:PORT"]);
    }
    // A socket that nobody listens on, and one that is none.
    let dead = site.path("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let dead = format!("unix:{}", dead.display());
    site.run(&["--peer", &dead, "ps"])
        .fails(7, &[&format!("error: no peer answers at {dead}"), "hint: start it with"]);
    let file = format!("unix:{}", site.file("file", ""));
    site.run(&["--peer", &file, "ps"]).fails(7, &["no peer answers at"]);
}

#[test]
fn over_the_mesh_only_known_keys_are_let_in_and_only_the_expected_peer_is_believed() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let address = node.address.as_str();
    site.run(&["--peer", address, "status"]).ok();
    // Nobody without a key, and nobody whom no event let in.
    site.run_as("eve", &["--peer", address, "status"])
        .fails(1, &["cannot read the key file", "hint: `skerry user key` makes one"]);
    site.run_as("eve", &["user", "key"]).ok();
    site.run_as("eve", &["--peer", address, "status"]).fails(
        7,
        &[
            &format!("no peer answers at {address}"),
            &format!("{address} refused: not a member of this cluster"),
        ],
    );
    // Another key than the one that was named.
    let pinned = format!("{address}#{}", "ab".repeat(32));
    site.run(&["--peer", &pinned, "status"])
        .fails(7, &[&format!("the node at {address} has another key than the one expected")]);
    // Another key than the one that was seen there before.
    let known = site.path(".config/skerry/known_peers");
    std::fs::write(&known, format!("{address} {}\n", "ab".repeat(32))).unwrap();
    site.run(&["--peer", address, "status"]).fails(
        7,
        &["has another key than the one expected; if the machine was made anew on purpose, remove its line from"],
    );
    std::fs::write(&known, format!("{address} rubbish\n")).unwrap();
    site.run(&["--peer", address, "status"]).fails(7, &["known_peers is damaged"]);
    // The peer took no harm, and nothing changed.
    assert_eq!(node.history().len(), 1);
}
