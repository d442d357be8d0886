//! A full disk: the peer says so, takes nothing, keeps what it has, and goes on when there is room.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::world::{CAPACITY, Node, Site, root};

/// Bytes of the file system that the data folder is on.
const DISK: &str = "size=4m";

/// A node whose data folder is alone on a small disk that only its peer sees as mounted.
struct Small<'a> {
    node: Node<'a>,
}

impl<'a> Small<'a> {
    /// The peer's mount namespace has a tmpfs at the data folder, with the folder's content copied in.
    fn start(site: &'a Site) -> Self {
        let mut node = site.init_as("ada", "a", CAPACITY);
        let (dir, copy) = (node.dir_text(), site.path("copy").display().to_string());
        let script = format!(
            "set -e; mount --make-rprivate /; cp -a {dir} {copy}; mount -t tmpfs -o {DISK},mode=700 tmpfs {dir}; \
             cp -a {copy}/. {dir}/; exec \"$@\""
        );
        let peer = node.peer_command();
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(peer.get_program()).args(peer.get_args());
        for (name, value) in peer.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Outside of the namespace the folder is the old one: the socket is reached by way of `/proc`.
        let inside = site.path("inside");
        let place = node.dir.clone();
        node.start_elsewhere(command, |pid| {
            drop(fs::remove_file(&inside));
            let root = PathBuf::from(format!("/proc/{pid}/root{}", place.display()));
            std::os::unix::fs::symlink(root, &inside).unwrap();
            inside.clone()
        });
        Self { node }
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.node.dir.join("fill")).unwrap();
        let block = [0x55; 4096];
        let mut end = Ok(());
        while end.is_ok() {
            end = file.write_all(&block);
        }
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.node.dir.join("fill")).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_nothing_is_taken_meanwhile_and_it_recovers() {
    if !root() {
        return;
    }
    let site = Site::new();
    let small = Small::start(&site);
    let node = &small.node;
    node.token(&[]);
    small.fill();
    // Small events fit what is left of the last block: after some, none does.
    let mut full = None;
    for _ in 0..32 {
        let said = node.run(&["token", "create", "-o", "json"]);
        if said.code != 0 {
            full = Some(said);
            break;
        }
    }
    let before = node.history();
    let error = full.expect("32 events do not fit a full disk").fails(1, &[]).error();
    assert_eq!(error["code"], "disk");
    let words = error["error"].as_str().unwrap();
    assert!(words.starts_with("the event was not accepted: there is no room to write `"), "{words}");
    assert!(words.contains("journal/00000001.log`: No space left on device"), "{words}");
    // It says so wherever one looks.
    let status: Value = node.json(&["status"]);
    let refusing = status["refusing"].as_str().unwrap();
    assert!(refusing.starts_with("there is no room to write `"), "{refusing}");
    assert!(node.run(&["status"]).ok().out.contains("! accepts no changes: there is no room to write"));
    let notices = node.run(&["events"]).ok().out;
    assert!(notices.contains("accepts no events: there is no room"), "{notices}");
    // An image has no room either, and leaves nothing unfinished.
    let probe = e2e::binary::probe().display().to_string();
    node.run(&["image", "build", "probe:1", "--binary", &probe]).fails(1, &["the image was not taken"]);
    assert_eq!(fs::read_dir(node.dir.join("images/tmp")).unwrap().count(), 0);
    // What was refused is nowhere, what was there is.
    node.run(&["token", "create"]).fails(1, &["the event was not accepted: there is no room"]);
    assert_eq!(node.history(), before);
    // Room: it takes events again by itself.
    small.free();
    node.token(&[]);
    let status: Value = node.json(&["status"]);
    assert!(status["refusing"].is_null(), "{status}");
    let after = node.history();
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|event| after.contains(event)));
}

#[test]
fn what_was_acknowledged_before_the_disk_was_full_is_there_after_a_restart() {
    if !root() {
        return;
    }
    let site = Site::new();
    let small = Small::start(&site);
    let node = &small.node;
    for _ in 0..3 {
        node.token(&[]);
    }
    small.fill();
    while node.run(&["token", "create"]).code == 0 {}
    let known = node.history();
    // A copy of the disk as it is now, started elsewhere with room.
    let copy = site.path("after");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(node.dir.join(".")).arg(&copy).status().unwrap();
    assert!(copied.success());
    for name in ["fill", "api.sock"] {
        fs::remove_file(copy.join(name)).unwrap();
    }
    let address = node.address.clone();
    drop(small);
    let mut again = site.nothing("after");
    again.address = address;
    again.start();
    assert_eq!(again.history(), known);
}
