//! A full disk: the peer says so, takes nothing, keeps what it has, and goes on when there is room.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;

use crate::world::{CAPACITY, Node, Site, root, until};

/// The file system that the data folder is on.
const DISK: &str = "size=4m";

/// One that has room for an image and a container of it.
const DISK_WITH_IMAGE: &str = "size=160m";

/// A node whose data folder is alone on a small disk that only its peer sees as mounted.
struct Small<'a> {
    node: Node<'a>,
    /// Holds the mounts for as long as it lives: the disk outlives the peer.
    holder: Child,
    /// The command of the peer; its folder is the one that it sees.
    peer: Command,
    inside: PathBuf,
}

impl<'a> Small<'a> {
    /// The peer's mount namespace has a tmpfs at the data folder, with the folder's content copied in.
    fn start(site: &'a Site, disk: &str) -> Self {
        let node = site.init_as("ada", "a", CAPACITY);
        let (dir, copy, ready) = (node.dir_text(), site.path("copy"), site.path("ready"));
        let (copy, done) = (copy.display(), ready.display());
        let script = format!(
            "set -e; mount --make-rprivate /; cp -a {dir} {copy}; mount -t tmpfs -o {disk},mode=700 tmpfs {dir}; \
             cp -a {copy}/. {dir}/; touch {done}; exec sleep infinity"
        );
        let holder = Command::new("unshare").args(["--mount", "sh", "-c", &script]).spawn().unwrap();
        until(|| if ready.exists() { Ok(()) } else { Err("the small disk is not there".to_owned()) });
        let peer = node.peer_command();
        // Outside of the namespace the folder is the old one: the socket is reached by way of `/proc`.
        let inside = site.path("inside");
        let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), node.dir.display()));
        std::os::unix::fs::symlink(root, &inside).unwrap();
        let mut small = Self { node, holder, peer, inside };
        small.start_peer();
        small
    }

    fn start_peer(&mut self) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(self.peer.get_program()).args(self.peer.get_args());
        for (name, value) in self.peer.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let inside = self.inside.clone();
        self.node.start_elsewhere(command, |_| inside);
    }

    fn fill(&self) {
        use std::io::Write as _;
        let path = self.node.dir.join("fill");
        let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
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

    /// What `status` says that is amiss.
    fn degraded(&self) -> String {
        let status: Value = self.node.json(&["status"]);
        status["degraded"].to_string()
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

#[test]
fn a_full_disk_is_said_nothing_is_taken_meanwhile_and_it_recovers() {
    if !root() {
        return;
    }
    let site = Site::new();
    let small = Small::start(&site, DISK);
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
    let small = Small::start(&site, DISK);
    let node = &small.node;
    for _ in 0..3 {
        node.token(&[]);
    }
    small.fill();
    while node.run(&["token", "create"]).code == 0 {}
    let known = node.history();
    // A copy of the disk as it is now, started elsewhere with room.
    let copy = site.path("after");
    let copied = Command::new("cp").arg("-a").arg(node.dir.join(".")).arg(&copy).status().unwrap();
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

#[test]
fn a_node_whose_disk_is_full_starts_its_containers_again_after_a_power_cut() {
    if !root() {
        return;
    }
    let site = Site::new();
    let mut small = Small::start(&site, DISK_WITH_IMAGE);
    small.node.image();
    small.node.apply("web", &[]).ok();
    small.node.apply("db", &["replicas: 2"]).ok();
    until(|| match small.node.containers().len() {
        3 => Ok(()),
        some => Err(format!("{some} containers")),
    });
    assert_eq!(small.degraded(), "[]");
    let history = small.node.history();
    let kept = small.node.dir.join("reserve");
    let is_kept = || if kept.exists() { Ok(()) } else { Err("no room is kept".to_owned()) };
    // More than once: what one start takes of the disk is there for the next. At the third the power
    // fails again before room could be kept, and others have filled the disk meanwhile.
    for turn in 0..3 {
        if turn < 2 {
            until(is_kept);
        }
        small.fill();
        small.node.power_cut();
        small.fill();
        small.start_peer();
        until(|| match small.node.containers().len() {
            3 => Ok(()),
            some => Err(format!("{some} containers")),
        });
        assert_eq!(small.node.history(), history);
        // It says so wherever one looks.
        assert!(small.degraded().contains(" is full ("), "{}", small.degraded());
        assert!(small.node.run(&["status"]).ok().out.contains("make room on it"));
        until(|| {
            let notices = small.node.run(&["events"]).ok().out;
            if notices.contains("disk-full") { Ok(()) } else { Err(notices) }
        });
    }
    // Once the containers have had their time, what is left is kept for the next start: no event fits.
    until(is_kept);
    small.fill();
    let refused = until(|| {
        let said = small.node.run(&["token", "create", "-o", "json"]);
        if said.code == 0 { Err(said.out) } else { Ok(said) }
    });
    assert_eq!(refused.fails(1, &[]).error()["code"], "disk");
    small.free();
    small.node.token(&[]);
    until(|| match small.degraded() {
        well if well == "[]" => Ok(()),
        amiss => Err(amiss),
    });
    until(|| {
        let notices = small.node.run(&["events"]).ok().out;
        if notices.contains("has room again") { Ok(()) } else { Err(notices) }
    });
    assert_eq!(small.node.containers().len(), 3);
}
