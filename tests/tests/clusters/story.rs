//! The demo, and clusters that were not taken down as they should be.

use std::process::{Command, Stdio};

use dev::{Cluster, kernel};
use e2e::world::{can_run, folder};
use e2e::{LIMIT, binary, eventually};

/// A cluster's folder in a temporary one, taken down at the end in any case.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(folder())
    }

    fn dir(&self) -> std::path::PathBuf {
        self.0.path().join("c")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.dir().exists() {
            // A test that failed says why itself.
            Cluster::down_at(&self.dir()).ok();
        }
    }
}

fn demo(dir: &std::path::Path) -> Command {
    let mut command = Command::new(binary::skerry());
    command.args(["demo", "-o", "json", "--dir"]).arg(dir).stdin(Stdio::null());
    command
}

#[test]
fn the_demo_holds_all_its_checks_also_after_runs_that_were_killed_in_the_middle() {
    if !can_run() {
        return;
    }
    let folder = Folder::new();
    let dir = folder.dir();
    for (n, killed_at) in ["net", "bob.key", "alice.yaml"].into_iter().enumerate() {
        let mut child = demo(&dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(LIMIT, || {
            // Each run clears the earlier one away first: wait for its own files.
            let there = dir.join(killed_at).exists() && dir.join("dev.json").exists();
            if there { Ok(()) } else { Err(format!("run {n} has not come to {killed_at}")) }
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let answer = demo(&dir).output().unwrap();
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success(), "{text}\n{}", String::from_utf8_lossy(&answer.stderr));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 12, "{text}");
    assert!(rows.iter().all(|row| row["ok"] == true), "{text}");
    let seconds: f64 = rows.iter().filter_map(|row| row["seconds"].as_f64()).sum();
    assert!(seconds < 90.0, "the demo took {seconds} s");
    assert!(!dir.exists());
    assert_eq!(kernel::mounts_below(&dir).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_cluster_whose_maker_was_killed_is_found_and_taken_down_by_another_process() {
    if !can_run() {
        return;
    }
    let folder = Folder::new();
    let dir = folder.dir();
    let up = |extra: &[&str]| {
        let mut command = Command::new(binary::skerry());
        command
            .args(["dev", "up", "--nodes", "2", "--capacity", "cpu=1,memory=1Gi,pids=100", "--dir"])
            .arg(&dir);
        command.args(extra).stdin(Stdio::null());
        command
    };
    let mut child = up(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(
        LIMIT,
        || if dir.join("n1/peer.log").exists() { Ok(()) } else { Err("no peer yet".to_owned()) },
    );
    child.kill().unwrap();
    child.wait().unwrap();
    // The next one clears away what is half made, and comes to its end.
    let made = up(&["-o", "json"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert!(rows.as_array().unwrap().iter().all(|row| row["state"] == "up"), "{rows}");
    // One that is whole is not taken away by mistake.
    let again = up(&[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", String::from_utf8_lossy(&again.stderr));
    let traces = Cluster::open(&dir, binary::skerry()).unwrap().traces().unwrap();
    assert!(traces.processes() >= 2);
    let down = Command::new(binary::skerry()).args(["dev", "down", "--dir"]).arg(&dir).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let left = traces.left().unwrap();
    assert!(left.is_empty(), "{left:?}");
}
