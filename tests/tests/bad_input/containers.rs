//! Containers that cannot be: programs that are missing, ports that are taken, room that is nowhere.

use std::net::TcpListener;

use serde_json::Value;

use crate::world::{Node, Site, root, until};

fn rows(node: &Node<'_>, deployment: &str) -> Vec<Value> {
    let rows: Vec<Value> = node.json(&["ps"]);
    rows.into_iter().filter(|row| row["deployment"] == deployment).collect()
}

#[test]
fn a_program_that_does_not_exist_is_the_reason_that_apply_ends_with() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    node.apply("good", &[]).ok();
    let file = node.manifest("bad", &["command: [/missing, now]"]);
    let said = node.run(&["apply", "-y", "-f", &file]).fails(
        3,
        &[
            "error: deployment bad does not come up: replica 0 fails again and again",
            "at a\n",
            "program `/missing` does not exist in the image (started ",
            "hint: `skerry logs bad.0` shows what it says, `skerry undo bad` takes the change back",
        ],
    );
    assert_eq!(said.out, "bad v1\n");
    // It is shown with its reason, counts its tries, and waits longer before each.
    let row = rows(&node, "bad").remove(0);
    assert_eq!(row["reason"], "program `/missing` does not exist in the image");
    assert_eq!(row["healthy"], false);
    assert!(["pending", "starting"].contains(&row["state"].as_str().unwrap()), "{row}");
    let tries = row["restarts"].as_u64().unwrap();
    assert!((2..=6).contains(&tries), "{row}");
    until(|| {
        let row = rows(&node, "bad").remove(0);
        if row["restarts"].as_u64().unwrap() > tries { Ok(()) } else { Err(row.to_string()) }
    });
    // The one beside it is untouched.
    assert_eq!(rows(&node, "good")[0]["state"], "running");
    assert_eq!(rows(&node, "good")[0]["restarts"], 0);
    assert_eq!(node.containers().len(), 1);
    // Taken back it is gone, without a complaint that it does not come up.
    node.run(&["delete", "bad", "-y"]).ok();
    until(|| {
        // What is left of its folder is cleared away behind it.
        let rows = rows(&node, "bad");
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn a_program_that_cannot_be_run_and_users_and_folders_that_are_missing_are_named() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    for (field, reason) in [
        ("command: [/etc/passwd]", "program `/etc/passwd` is not executable"),
        ("command: [\"\"]", "command must begin with the name of a program, found \"\""),
        ("user: nobody-such", "user `nobody-such` does not exist in the image"),
        ("workdir: /nowhere", "working folder `/nowhere` does not exist in the image"),
    ] {
        let said = node.apply("bad", &[field]);
        assert_ne!(said.code, 0, "{field}: {said:?}");
        assert!(said.err.contains(reason), "{field}: {said:?}");
        // Where it was refused before it was an event there is nothing to take away.
        if said.out.contains("bad v1") {
            node.run(&["delete", "bad", "-y"]).ok();
        }
    }
    assert!(node.containers().is_empty());
}

#[test]
fn a_changed_template_that_does_not_come_up_leaves_the_old_replica_running() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    node.apply("web", &[]).ok();
    let before = node.containers();
    let told =
        ["v2 of web did not come up", "v1 runs again", "program `/missing` does not exist in the image"];
    node.apply("web", &["command: [/missing]"]).fails(5, &told);
    assert!(
        before.iter().all(|(id, processes)| node.containers().get(id) == Some(processes)),
        "{:?}",
        rows(&node, "web")
    );
    node.run(&["undo", "web", "-y"]).ok();
    assert_eq!(node.containers(), before);
}

#[test]
fn exec_of_what_is_missing_has_the_codes_that_shells_know() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    node.apply("web", &[]).ok();
    node.run(&["exec", "web.0", "--", "/nope"]).fails(127, &["program `/nope` does not exist in the image"]);
    let error = node.run(&["-o", "json", "exec", "web.0", "--", "/nope"]).fails(127, &[]).error();
    assert_eq!(error["code"], "exec-127");
    node.run(&["exec", "web.0", "--", "/etc/passwd"])
        .fails(126, &["program `/etc/passwd` is not executable"]);
    node.run(&["exec", "web.0", "--", "/probe", "exit", "42"]).fails(42, &[]);
    node.run(&["exec", "web.7", "--", "/probe"]).fails(125, &["replica 7 is not of default/web running"]);
    node.run(&["exec", "none.0", "--", "/probe"]).fails(125, &["none"]);
    node.run(&["exec", "web.0"]).fails(2, &[]);
    // The container goes on.
    assert_eq!(rows(&node, "web")[0]["restarts"], 0);
    assert_eq!(rows(&node, "web")[0]["state"], "running");
}

#[test]
fn commands_about_deployments_that_are_not_there_name_them() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let before = node.history();
    for args in [
        &["scale", "none=3", "-y"][..],
        &["restart", "none", "-y"],
        &["delete", "none", "-y"],
        &["undo", "none", "-y"],
        &["explain", "none"],
        &["logs", "none"],
        &["conflicts", "resolve", "none", "--take", "0123456789ab", "-y"],
    ] {
        let said = node.run(args);
        assert_eq!(said.code, 1, "{args:?}: {said:?}");
        assert!(said.err.contains("none"), "{args:?}: {said:?}");
    }
    node.run(&["scale", "none=x", "-y"]).fails(2, &[]);
    node.run(&["scale", "none=99999", "-y"]).fails(2, &[]);
    assert_eq!(node.history(), before);
}

#[test]
fn without_room_anywhere_it_stays_pending_with_numbers_and_starts_when_room_comes() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node_of("cpu=1,memory=128Mi,pids=100");
    node.image();
    node.apply("first", &["resources: {cpu: 800m, memory: 32Mi, pids: 20}"]).ok();
    let second = ["resources: {cpu: 500m, memory: 32Mi, pids: 20}"];
    let said = node.apply("second", &second).fails(
        4,
        &[
            "error: deployment second cannot be placed: 0 of 1 replicas run, 1 finds no node",
            "a: cpu: 200m free, 500m asked",
            "hint: ask for less, or see `skerry explain second`; it starts by itself when a node has room",
        ],
    );
    assert_eq!(said.out, "second v1\n", "it was accepted all the same");
    let row = rows(&node, "second").remove(0);
    assert_eq!((row["state"].as_str(), row["node"].is_null()), (Some("pending"), true), "{row}");
    assert_eq!(row["reason"], "no node can take it: a cpu: 200m free, 500m asked");
    assert!(node.run(&["explain", "second"]).ok().out.contains("cpu: 200m free, 500m asked"));
    // More than any node has, each kind.
    node.apply("vast", &["resources: {cpu: 100m, memory: 8Gi, pids: 20}"])
        .fails(4, &["a: memory: ", "8Gi asked"]);
    node.apply("crowd", &["resources: {cpu: 100m, memory: 16Mi, pids: 4000}"])
        .fails(4, &["a: pids: ", "4000 asked"]);
    node.apply("far", &["constraints: {site: moon}"]).fails(4, &["a: ", "site"]);
    assert_eq!(node.containers().len(), 1);
    // Room comes.
    node.run(&["delete", "first", "-y"]).ok();
    until(|| {
        let row = rows(&node, "second").remove(0);
        if row["state"] == "running" && row["healthy"] == true { Ok(()) } else { Err(row.to_string()) }
    });
    assert_eq!(node.containers().len(), 1);
}

#[test]
fn a_published_port_that_another_program_has_is_the_reason_until_it_is_free() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("ports: [\"{port}:80\"]");
    let reason = format!("port {port} is taken");
    node.apply("web", &[&ports]).fails(
        4,
        &[
            "error: deployment web cannot be placed: 0 of 1 replicas run, 1 finds no node",
            &format!("a: declined: {reason}"),
        ],
    );
    assert!(node.containers().is_empty());
    // It is tried again, each time later: not all the time.
    until(|| {
        let row = rows(&node, "web").remove(0);
        let words = row["reason"].as_str().unwrap_or_default();
        if row["state"] == "pending" && words.contains(&reason) { Ok(()) } else { Err(row.to_string()) }
    });
    let tries = node.log().matches("could not be started").count();
    assert!(tries < 10, "{tries} tries within seconds");
    drop(taken);
    until(|| {
        let row = rows(&node, "web").remove(0);
        if row["state"] == "running" { Ok(()) } else { Err(row.to_string()) }
    });
}
