//! The binary itself: exit codes and words for what needs no peer.
#![allow(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

use std::path::Path;
use std::process::{Command, Output};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn skerry(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
        command.args(args).env_clear().env("HOME", self.0.path()).env("PATH", "/usr/bin:/bin");
        command.stdin(std::process::Stdio::null());
        command.output().unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_wrong_command_line_ends_with_2_and_the_right_word() {
    let home = Home::new();
    for args in [&["frobnicate"][..], &["scale"], &["apply"], &["ps", "--no-such"], &["ps", "-o", "xml"], &[]]
    {
        assert_eq!(code(&home.skerry(args)), 2, "{args:?}");
    }
    let near = home.skerry(&["aply"]);
    assert!(text(&near.stderr).contains("apply"), "{}", text(&near.stderr));
    let json = home.skerry(&["-o", "json", "aply"]);
    let error: serde_json::Value = serde_json::from_str(&text(&json.stderr)).unwrap();
    assert_eq!((code(&json), error["code"].as_str()), (2, Some("usage")));
    assert!(json.stdout.is_empty());
}

#[test]
fn without_a_peer_every_command_that_needs_one_ends_with_7() {
    let home = Home::new();
    let socket = format!("unix:{}", home.0.path().join("none.sock").display());
    for args in
        [&["ps"][..], &["status"], &["node", "ls"], &["history"], &["logs", "web"], &["exec", "web", "ls"]]
    {
        let mut line = vec!["--peer", &socket];
        line.extend(args);
        let ended = home.skerry(&line);
        assert_eq!(code(&ended), 7, "{args:?}: {}", text(&ended.stderr));
        assert!(text(&ended.stderr).contains(&format!("no peer answers at {socket}")));
        assert!(text(&ended.stderr).contains("hint: start it with `skerry peer`"));
    }
    let json = home.skerry(&["--peer", &socket, "ps", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&text(&json.stderr)).unwrap();
    assert_eq!(error["code"], "no-peer");
    assert_eq!(code(&home.skerry(&["--peer", "nonsense", "ps"])), 2);
}

#[test]
fn help_is_data_and_touches_no_network() {
    let home = Home::new();
    for args in [&["--help"][..], &["help"], &["apply", "--help"], &["help", "apply"], &["--version"]] {
        let ended = home.skerry(args);
        assert_eq!((code(&ended), text(&ended.stderr).as_str()), (0, ""), "{args:?}");
        assert!(!ended.stdout.is_empty());
    }
    let top = text(&home.skerry(&["--help"]).stdout);
    for command in ["init", "join", "apply", "conflicts", "explain", "doctor"] {
        assert!(top.lines().any(|line| line.trim_start().starts_with(command)), "{command}\n{top}");
    }
    assert!(top.contains("7 no peer reachable"));
}

#[test]
fn validate_needs_no_peer_and_points_at_the_place() {
    let home = Home::new();
    let good = home.file("good.yaml", "deployments: [{name: web, image: \"web:1\", replicas: 2}]\n");
    let ended = home.skerry(&["validate", "-f", &good]);
    assert_eq!(
        (code(&ended), text(&ended.stdout).as_str()),
        (0, "NAMESPACE  DEPLOYMENT  IMAGE  REPLICAS\ndefault    web         web:1  2\n")
    );
    let bad = home.file("bad.yaml", "deployments:\n  - name: web\n    image: web:1\n    replica: 3\n");
    let ended = home.skerry(&["validate", "-f", &bad]);
    assert_eq!(code(&ended), 1);
    assert_eq!(
        text(&ended.stderr),
        format!(
            "error: {bad} cannot be used
  {bad}:4:5: unknown field `replica` in deployments[0]; did you mean `replicas`?
    4 |     replica: 3
      |     ^^^^^^^\n"
        )
    );
    let missing = home.skerry(&["validate", "-f", "/nowhere.yaml"]);
    assert!(text(&missing.stderr).starts_with("error: /nowhere.yaml cannot be read\n"));
}

#[test]
fn a_token_that_is_none_is_refused_before_anything_is_made() {
    let home = Home::new();
    let dir = home.0.path().join("node");
    let dir = dir.to_str().unwrap();
    for token in ["hello", "skerry1_abc", ""] {
        let ended = home.skerry(&["join", "--dir", dir, "--name", "n", token]);
        assert_eq!(code(&ended), 1, "{token}");
        assert!(text(&ended.stderr).contains("skerry token create"), "{}", text(&ended.stderr));
    }
    assert!(!Path::new(dir).exists());
}

#[test]
fn the_unit_the_schemas_the_completions_and_the_reference_come_out() {
    let home = Home::new();
    let unit = text(&home.skerry(&["init", "--systemd", "--dir", "/srv/skerry"]).stdout);
    assert!(unit.contains("peer --dir /srv/skerry\n"), "{unit}");
    let schema: serde_json::Value = serde_json::from_slice(&home.skerry(&["schema"]).stdout).unwrap();
    assert_eq!(schema["title"], "Manifest");
    assert_eq!(code(&home.skerry(&["schema", "nothing"])), 2);
    let dir = home.0.path().join("schemas");
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(code(&home.skerry(&["schema", "--all", dir.to_str().unwrap()])), 0);
    let listed = text(&home.skerry(&["schema", "--list"]).stdout).lines().count();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), listed);
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&home.skerry(&["completions", shell]).stdout).contains("skerry"), "{shell}");
    }
    assert_eq!(code(&home.skerry(&["help-pages", dir.to_str().unwrap()])), 0);
    let page = std::fs::read_to_string(dir.join("cli.md")).unwrap();
    for heading in ["## skerry apply", "### skerry token create", "### skerry conflicts resolve"] {
        assert!(page.lines().any(|line| line == heading), "{heading}");
    }
    assert!(!page.contains("help-pages\n"), "hidden commands stay out");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_skerry");
    let script = format!("set -o pipefail; {program} completions bash | head -n 1 >/dev/null");
    let ended = Command::new("bash").args(["-c", &script]).env("HOME", home.0.path()).output().unwrap();
    assert_eq!((code(&ended), text(&ended.stderr).as_str()), (0, ""));
}

#[test]
fn doctor_looks_at_everything() {
    let home = Home::new();
    let ended = home.skerry(&["doctor", "--listen", "127.0.0.1:0", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let checks: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["check"].as_str().unwrap()).collect();
    let expected = [
        "kernel",
        "root",
        "cgroups",
        "overlayfs",
        "user namespaces",
        "seccomp",
        "port",
        "disk",
        "pressure",
        "offer",
        "clock",
    ];
    assert_eq!(checks, expected);
    let failed = rows.as_array().unwrap().iter().any(|row| row["state"] == "fail");
    assert_eq!(code(&ended), i32::from(failed));
}

/// Runs a script in a mount namespace of its own, with `/$1` on a file system that has no idmapped mounts.
fn on_ramfs(home: &Home, script: &str) -> Output {
    let dir = home.0.path().join("ramfs");
    std::fs::create_dir(&dir).unwrap();
    let script = format!("set -e; mount -t ramfs none \"$DIR\"; {script}");
    let mut command = Command::new("unshare");
    // All of it ends with the script, the peer too.
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script]);
    command.env_clear().env("HOME", home.0.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("DIR", &dir).env("SKERRY", env!("CARGO_BIN_EXE_skerry"));
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

#[test]
fn where_containers_can_have_no_user_namespace_doctor_and_status_say_so() {
    if !nix::unistd::geteuid().is_root() {
        // Without root a user namespace is always used.
        return;
    }
    let home = Home::new();
    let ended = on_ramfs(&home, r#""$SKERRY" doctor --dir "$DIR/node" --listen 127.0.0.1:0 -o json"#);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&ended.stdout).unwrap();
    let row = rows.iter().find(|row| row["check"] == "user namespaces").unwrap();
    assert_eq!(row["state"], "warn", "{row}");
    let found = row["message"].as_str().unwrap();
    assert!(found.contains("their root is root of this machine: rootfs: mapping the owners"), "{row}");
    assert!(row["fix"].as_str().unwrap().contains("ext4"), "{row}");

    let home = Home::new();
    let ended = on_ramfs(
        &home,
        r#""$SKERRY" init --dir "$DIR/node" --name n1 --cluster shop --user ada --listen 127.0.0.1:0 \
            --advertise 127.0.0.1:7440 >/dev/null
        "$SKERRY" peer --dir "$DIR/node" 2>/dev/null &
        until "$SKERRY" --peer "unix:$DIR/node/api.sock" status 2>/dev/null; do
            kill -0 $!; sleep 0.05
        done
        "$SKERRY" --peer "unix:$DIR/node/api.sock" events"#,
    );
    let said = text(&ended.stdout);
    let lines = said.lines().filter(|line| line.contains("containers run without a user namespace"));
    assert_eq!(lines.count(), 2, "{said}\n{}", text(&ended.stderr));
}

#[test]
fn a_node_is_prepared_with_a_key_of_its_owner() {
    let home = Home::new();
    let dir = home.0.path().join("node");
    let dir = dir.to_str().unwrap();
    let args = [
        "init",
        "--dir",
        dir,
        "--name",
        "n1",
        "--cluster",
        "shop",
        "--user",
        "ada",
        "--listen",
        "127.0.0.1:7440",
        "--extra",
        "gpu=1",
        "--extra",
        "camera=2",
    ];
    let twice = home.skerry(&[&args[..], &["--extra", "gpu=3"]].concat());
    assert_eq!((code(&twice), text(&twice.stderr).contains("extra `gpu` is given twice")), (2, true));
    let mut line = args.to_vec();
    line.extend(["-o", "json"]);
    let ended = home.skerry(&line);
    assert_eq!(code(&ended), 0, "{}", text(&ended.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((answer["cluster"].as_str(), answer["node"].as_str()), (Some("shop"), Some("n1")));
    let key = text(&home.skerry(&["user", "key"]).stdout);
    assert_eq!(answer["user"], key.trim());
    assert!(text(&ended.stderr).contains(&format!("  skerry peer --dir {dir}\n")));
    assert!(Path::new(answer["recovery_key"].as_str().unwrap()).exists());
    let settings = std::fs::read_to_string(Path::new(dir).join("peer.toml")).unwrap();
    assert!(settings.contains("[extras]\ncamera = 2\ngpu = 1\n"), "{settings}");
    let again = home.skerry(&args);
    assert_eq!(code(&again), 1, "a prepared folder is not prepared again");
}

#[test]
#[cfg(target_os = "linux")]
fn the_binary_is_linked_at_a_fixed_address() {
    // e_type 2 is ET_EXEC: a PIE (3) would have a megabyte of relocations in every supervisor.
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_skerry")).unwrap();
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert_eq!(u16::from_le_bytes([bytes[16], bytes[17]]), 2);
}

#[cfg(not(feature = "sabotage"))]
#[test]
fn a_build_without_sabotage_switches_refuses_their_variable() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
    let ended = command.arg("version").env_clear().env("SKERRY_SABOTAGE", "no-limits").output().unwrap();
    assert_eq!(code(&ended), 2);
    assert!(text(&ended.stderr).contains("no sabotage switches"), "{}", text(&ended.stderr));
    assert!(ended.stdout.is_empty());
}
