//! Data folders that are damaged, of a newer release, in use, or not ours: the file is named, the exit
//! code says so, and not a byte of them is changed.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::world::{CAPACITY, Node, Site, content, root};

/// A node with some history, whose peer does not run.
fn prepared(site: &Site) -> Node<'_> {
    let mut node = site.init_as("ada", "a", CAPACITY);
    node.start();
    for _ in 0..3 {
        node.token(&[]);
    }
    node.stop();
    node
}

/// Spoils one file, sees that the peer refuses it with these words, and puts it back.
#[track_caller]
fn spoilt(node: &Node<'_>, file: &str, spoil: impl FnOnce(&Path, Vec<u8>), words: &[&str]) {
    let path = node.dir.join(file);
    let (good, mode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().permissions());
    spoil(&path, good.clone());
    let before = content(&node.dir);
    let named = path.display().to_string();
    node.peer_ends().fails(1, &[&["error: ", named.as_str()], words].concat());
    let after = content(&node.dir);
    let changed: Vec<_> = after.iter().filter(|it| !before.contains(it)).map(|it| it.0.display()).collect();
    assert!(after == before, "changed after {file} was spoilt: {changed:?}");
    assert!(!node.socket().exists());
    fs::write(&path, good).unwrap();
    fs::set_permissions(&path, mode).unwrap();
}

fn cut(to: usize) -> impl FnOnce(&Path, Vec<u8>) {
    move |path, bytes| fs::write(path, &bytes[..to]).unwrap()
}

fn cut_off(count: usize) -> impl FnOnce(&Path, Vec<u8>) {
    move |path, bytes| fs::write(path, &bytes[..bytes.len() - count]).unwrap()
}

fn flip(at: &'static [usize]) -> impl FnOnce(&Path, Vec<u8>) {
    move |path, mut bytes| {
        for at in at {
            bytes[*at] ^= 1;
        }
        fs::write(path, bytes).unwrap();
    }
}

fn write(text: &'static str) -> impl FnOnce(&Path, Vec<u8>) {
    move |path, _| fs::write(path, text).unwrap()
}

fn remove(path: &Path, _: Vec<u8>) {
    fs::remove_file(path).unwrap();
}

#[test]
fn a_damaged_journal_is_named_and_left_as_it_is() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut node = prepared(&site);
    let history = {
        node.start();
        let history = node.history();
        node.stop();
        history
    };
    let said = "the journal cannot be used; nothing was changed";
    let (log, mark) = ("journal/00000001.log", "journal/mark");
    spoilt(&node, log, cut(0), &[said, "is damaged: it is empty"]);
    spoilt(&node, log, cut(40), &[said, "is damaged at byte"]);
    spoilt(&node, log, cut_off(10), &[said, "the file ends, 10 acknowledged bytes are missing"]);
    spoilt(&node, log, flip(&[3]), &[said, "is damaged at byte 0"]);
    spoilt(&node, log, flip(&[700]), &[said, "a record's checksum does not match"]);
    spoilt(&node, log, remove, &[said, "it is missing"]);
    spoilt(&node, mark, cut(0), &[said, "is damaged: it is empty"]);
    spoilt(&node, mark, cut(100), &[said, "it has 100 bytes instead of 1024"]);
    spoilt(&node, mark, flip(&[70, 582]), &[said, "neither of its slots can be read"]);
    spoilt(&node, mark, remove, &[said, "it is missing"]);
    let way_out = "hint: this node cannot go on from its folder: remove it on another node";
    spoilt(&node, mark, flip(&[70, 582]), &[way_out, "do not put an older copy of the journal in its place"]);
    // Whole again, it is the same document as before.
    node.start();
    assert_eq!(node.history(), history);
}

#[test]
fn half_a_mark_is_mended_and_the_start_has_a_number_that_none_had_before() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut node = prepared(&site);
    let path = node.dir.join("journal/mark");
    let mut last = 0;
    for _ in 0..3 {
        // The newer slot, which holds the number of the last start.
        let mut mark = fs::read(&path).unwrap();
        let number = |slot: usize| u64::from_le_bytes(mark[slot + 44..slot + 52].try_into().unwrap());
        let slot = if number(0) > number(512) { 0 } else { 512 };
        last = last.max(number(slot));
        mark[slot + 70] ^= 1;
        fs::write(&path, mark).unwrap();
        node.start();
        let log = node.log();
        let said = log.lines().find(|line| line.contains("half of the journal's mark could not be read"));
        let said = said.unwrap_or_else(|| panic!("it is not said: {log}"));
        assert!(said.contains(&path.display().to_string()), "{said}");
        let number: u64 = said.split("start=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(number > last, "start {number} after {last}");
        last = number;
        assert_eq!(node.history().len(), 4);
        node.stop();
    }
    node.start();
    assert!(!node.log().contains("could not be read"), "{}", node.log());
}

/// As a power cut one step before the end leaves it.
fn undo_last_step(node: &Node<'_>) {
    fs::rename(node.dir.join("format.json"), node.dir.join("draft.json")).unwrap();
}

#[test]
fn a_half_prepared_folder_is_named_and_the_same_init_or_join_finishes_it() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut first = site.init_as("ada", "a", CAPACITY);
    let key = fs::read(first.dir.join("key")).unwrap();
    undo_last_step(&first);
    let before = content(&first.dir);
    let said =
        "is half prepared: `skerry init` or `skerry join` was cut off in it; run the same command again";
    first.peer_ends().fails(1, &[&first.dir_text(), said]);
    assert_eq!(content(&first.dir), before);
    first.init().ok();
    assert_eq!(fs::read(first.dir.join("key")).unwrap(), key);
    first.start();
    // A token for one node, used up by the try that was cut off.
    let token = first.token(&["--uses", "1"]);
    let mut second = site.nothing("b");
    second.join(&token).ok();
    undo_last_step(&second);
    second.peer_ends().fails(1, &[&second.dir_text(), said]);
    site.nothing("c").join(&token).fails(1, &["this token is used up (1 of 1)"]);
    second.join(&token).ok();
    second.start();
    let nodes: Vec<serde_json::Value> = first.json(&["node", "ls"]);
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    second.token(&[]);
}

#[test]
fn what_a_power_cut_may_tear_off_is_cut_away_and_nothing_acknowledged_is_lost() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut node = prepared(&site);
    let path = node.dir.join("journal/00000001.log");
    let good = fs::read(&path).unwrap();
    fs::write(&path, [&good[..], &[7; 33]].concat()).unwrap();
    node.start();
    assert_eq!(node.history().len(), 4);
    assert!(
        node.log().contains("the end of the journal was cut off by a crash; nothing acknowledged is lost")
    );
    node.stop();
    assert_eq!(fs::read(&path).unwrap(), good);
}

#[test]
fn a_folder_of_a_newer_release_or_with_damaged_settings_is_named_and_left_as_it_is() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut node = prepared(&site);
    let dir = node.dir_text();
    let newer = |path: &Path, bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap().replace("\"format\": 1", "\"format\": 2, \"more\": []");
        assert!(text.contains("\"format\": 2"));
        fs::write(path, text).unwrap();
    };
    let before = content(&node.dir);
    let path = node.dir.join("format.json");
    let good = fs::read(&path).unwrap();
    newer(&path, good.clone());
    node.peer_ends()
        .fails(1, &[&format!("`{dir}` was made by a newer Skerry: it has format 2, this one reads up to 1")]);
    fs::write(&path, good).unwrap();
    assert_eq!(content(&node.dir), before);
    spoilt(&node, "format.json", write("{\"format\": 0}"), &["is damaged: there is no format 0"]);
    spoilt(
        &node,
        "format.json",
        write("rubbish"),
        &["is damaged or not what it should be", "at line 1 column 1"],
    );
    spoilt(&node, "format.json", cut(0), &["is damaged or not what it should be"]);
    spoilt(&node, "key", write("hello"), &["is not an Ed25519 private key in PKCS#8 PEM form"]);
    spoilt(&node, "key", cut(0), &["is not an Ed25519 private key in PKCS#8 PEM form"]);
    spoilt(&node, "key", remove, &["cannot read the key file"]);
    let open = |path: &Path, _| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    spoilt(&node, "key", open, &["can be used by others (mode 644); run: chmod 600"]);
    spoilt(
        &node,
        "peer.toml",
        write("lissten = \"127.0.0.1:1\"\n"),
        &["is not a valid configuration", "unknown field `lissten`"],
    );
    spoilt(&node, "peer.toml", write("listen = 3\n"), &["is not a valid configuration", "line 1, column 10"]);
    spoilt(&node, "peer.toml", remove, &["cannot be read"]);
    node.start();
    assert_eq!(node.history().len(), 4);
}

#[test]
fn the_key_or_the_journal_of_another_node_is_refused() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = prepared(&site);
    let other = site.init_as("bob", "f", CAPACITY);
    let foreign_key = fs::read(other.dir.join("key")).unwrap();
    let swap = |path: &Path, _| fs::write(path, foreign_key).unwrap();
    spoilt(
        &node,
        "key",
        swap,
        &["is that of node", "and the data folder is that of node", "nothing was changed"],
    );
    let foreign_mark = fs::read(other.dir.join("journal/mark")).unwrap();
    let swap = |path: &Path, _| fs::write(path, foreign_mark).unwrap();
    spoilt(&node, "journal/mark", swap, &["belongs to cluster", "nothing was changed"]);
}

#[test]
fn one_data_folder_has_one_peer() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.peer_ends()
        .fails(1, &[&format!("error: `{}` is in use by process {}", node.dir_text(), node.pid())]);
    // The first one goes on, on its socket.
    node.token(&[]);
    let dir = node.dir_text();
    site.run(&["init", "--dir", &dir, "--name", "x"]).fails(1, &["is already prepared, for node `a`"]);
    node.token(&[]);
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_begun() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = prepared(&site);
    let taken = UdpSocket::bind(&node.address).unwrap();
    let said = format!("the UDP address {} is in use by another program", node.address);
    node.peer_ends().fails(1, &[&said]);
    drop(taken);
    // An address that this machine does not have.
    let path = node.dir.join("peer.toml");
    let text = fs::read_to_string(&path).unwrap().replace(&node.address, "203.0.113.7:7440");
    fs::write(&path, text).unwrap();
    node.peer_ends().fails(1, &["203.0.113.7:7440"]);
}

#[test]
fn an_address_that_others_cannot_dial_is_refused_before_anything_is_made() {
    let site = Site::new();
    let dir = site.path("a").display().to_string();
    let init = |more: &[&str]| site.run(&[&["init", "--dir", &dir, "--name", "a"], more].concat());
    init(&["--listen", "127.0.0.1:0"]).fails(
        2,
        &[
            "others cannot reach a node that listens at 127.0.0.1:0",
            "hint: name a port in --listen, or with --advertise HOST:PORT what others dial",
        ],
    );
    assert!(!site.path("a").exists());
    init(&["--advertise", "nowhere"]).fails(1, &["`nowhere` is not `host:port`"]);
    // The folder may be used for another try.
    init(&["--listen", "127.0.0.1:0", "--advertise", "edge-1:7440"]).ok();
}

#[test]
fn a_folder_that_is_not_ours_or_not_prepared_gets_nothing_put_into_it() {
    let site = Site::new();
    let node = site.nothing("photos");
    node.peer_ends().fails(1, &["is not prepared: run `skerry init` or `skerry join` first"]);
    assert!(!node.dir.exists());
    fs::create_dir(&node.dir).unwrap();
    fs::write(node.dir.join("cat.jpg"), "meow").unwrap();
    let before = content(&node.dir);
    let dir = node.dir_text();
    let said = format!("`{dir}` is not empty: it holds `cat.jpg`");
    site.run(&["init", "--dir", &dir, "--name", "a"]).fails(1, &["could not be prepared", &said]);
    assert_eq!(content(&node.dir), before);
    let file = site.file("file", "");
    site.run(&["init", "--dir", &file, "--name", "a"]).fails(1, &["could not be prepared"]);
}

#[test]
fn a_relative_data_folder_runs_containers_like_any_other() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut node = site.init_as("ada", "a", CAPACITY);
    let mut command = node.peer_command();
    command.current_dir(site.path(""));
    // Like `peer --dir a`, as a person types it.
    let mut relative = std::process::Command::new(command.get_program());
    relative.args(["peer", "--dir", "a"]).current_dir(site.path(""));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => relative.env(name, value),
            None => relative.env_remove(name),
        };
    }
    node.start_by(relative);
    node.image();
    node.apply("web", &[]).ok();
    assert_eq!(node.containers().len(), 1);
}
