//! Join tokens that let nobody in, and peers that are of another cluster.

use std::fs;

use serde_json::Value;

use crate::world::{CAPACITY, Node, Site, root, until};

/// The node has nothing but, at most, the key of its tries.
#[track_caller]
fn nothing_joined(node: &Node<'_>) {
    let left: Vec<_> = match fs::read_dir(&node.dir) {
        Ok(entries) => entries.map(|entry| entry.unwrap().file_name()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    assert!(left.iter().all(|name| name == "key" || name == "lock"), "{left:?}");
    // Where it came as far as a key of its own, the next try takes that up.
    let said = if left.is_empty() {
        "is not prepared: run `skerry init` or `skerry join` first"
    } else {
        "is half prepared"
    };
    node.peer_ends().fails(1, &[said]);
}

#[test]
fn a_text_that_is_no_whole_token_is_refused_without_asking_anybody() {
    let site = Site::new();
    let b = site.nothing("b");
    let hint = "hint: copy the whole line that `skerry token create` printed, or make another";
    b.join("nonsense").fails(1, &["this is not a join token: one begins with `skerry1_`", hint]);
    b.join("skerry2_aeafacg47jtx").fails(1, &["the join token has version 2, this release knows version 1"]);
    b.join("skerry1_")
        .fails(1, &["the join token is incomplete or was changed on its way; copy it whole", hint]);
    b.join(&format!("skerry1_{}", "a".repeat(100_000))).fails(1, &["error: this is not a join token"]);
    assert!(!b.dir.exists());
}

#[test]
fn a_token_that_is_cut_changed_used_expired_or_revoked_lets_nobody_in_and_says_why() {
    if !root() {
        return;
    }
    let site = Site::new();
    let a = site.node();
    let b = site.nothing("b");
    let token = a.token(&[]);
    // Cut and changed: every length, and a letter in the middle.
    for length in [9, 20, token.len() / 2, token.len() - 1] {
        b.join(&token[..length]).fails(1, &["the join token is incomplete or was changed on its way"]);
    }
    let middle = token.len() / 2;
    let other = if &token[middle..=middle] == "a" { "b" } else { "a" };
    let changed = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    b.join(&changed).fails(1, &["the join token is incomplete or was changed on its way"]);
    // The error is no place where a secret is shown.
    assert!(!b.join(&changed).err.contains(&token[..middle]));
    // Used.
    let c = site.nothing("c");
    c.join(&token).ok();
    let said = b.join(&token).fails(1, &[
        &format!("{} refused to let this node in: this token is used up (1 of 1); ask for a new one: skerry token create", a.address),
        "hint: a token is good for a while and for so many nodes: `skerry token ls` shows it",
    ]);
    assert!(said.out.is_empty());
    // Expired.
    let short = a.token(&["--ttl", "1ms"]);
    b.join(&short).fails(
        1,
        &["refused to let this node in: this token expired", "by the clock of a; ask for a new one"],
    );
    // Revoked.
    let revoked = a.token(&[]);
    let rows: Vec<Value> = a.json(&["token", "ls"]);
    let open: Vec<_> = rows
        .iter()
        .filter(|row| row["used"] == 0 && row["expires_ms"].as_i64().unwrap() > i64::from(u32::MAX))
        .max_by_key(|row| row["expires_ms"].as_i64().unwrap())
        .into_iter()
        .collect();
    let id = open[0]["id"].as_str().unwrap()[..12].to_owned();
    a.run(&["token", "revoke", &id]).ok();
    let error = b.join_with(&revoked, &["-o", "json"]).fails(1, &[]).error();
    assert_eq!(error["code"], "join");
    let words = error["error"].as_str().unwrap();
    assert!(words.contains("this token was revoked; ask for a new one: skerry token create"), "{words}");
    a.run(&["token", "revoke", "0123456789ab"])
        .fails(1, &["there is no token `0123456789ab`", "hint: `skerry token ls`"]);
    // Nobody but `c` is in, and the folder of the one who tried may be used again.
    let names: Vec<Value> = a.json(&["node", "ls"]);
    assert_eq!(names.iter().map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "c"]);
    nothing_joined(&b);
    b.join(&a.token(&[])).ok();
    b.join(&a.token(&[])).fails(1, &["could not be prepared", "is already prepared, for node `b`"]);
}

#[test]
fn a_token_of_another_cluster_or_of_nobody_leads_nowhere() {
    if !root() {
        return;
    }
    let site = Site::new();
    let a = site.node();
    let mut foreign = site.init_as("bob", "f", CAPACITY);
    foreign.start();
    let b = site.nothing("b");
    // The token is of one cluster, and the address that it names of another.
    let token = a.token(&["--address", &foreign.address]);
    b.join(&token).fails(1, &[&foreign.address, "this token is not known here: it is of another cluster"]);
    // Nobody is there.
    let token = a.token(&["--address", "127.255.255.1:1"]);
    b.join(&token).fails(
        1,
        &[
            "no peer that the token names can be joined through: ",
            "127.255.255.1:1",
            "hint: make a token that names an address which this machine can reach",
        ],
    );
    a.run(&["token", "create", "--address", "nowhere"])
        .fails(1, &["`nowhere` is not an address of the form host:port"]);
    nothing_joined(&b);
    assert_eq!(a.json::<Vec<Value>>(&["node", "ls"]).len(), 1);
    assert_eq!(foreign.json::<Vec<Value>>(&["node", "ls"]).len(), 1);
}

#[test]
fn a_user_of_another_cluster_changes_nothing() {
    if !root() {
        return;
    }
    let site = Site::new();
    let a = site.node();
    a.image();
    a.apply("web", &[]).ok();
    let foreign = site.init_as("bob", "f", CAPACITY);
    drop(foreign);
    let before = a.history();
    // The socket opens for whoever may open the file; what counts is the signature.
    for args in [
        &["token", "create"][..],
        &["scale", "web=3", "-y"],
        &["delete", "web", "-y"],
        &["restart", "web", "-y"],
        &["user", "add", "bob2", &"11".repeat(32)],
        &["node", "rm", "a", "--force", "-y"],
    ] {
        let said = a.run_as("bob", args);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("the event was not accepted: ") && said.err.contains("may not do this"),
            "{said:?}"
        );
    }
    assert_eq!(a.history(), before);
    assert_eq!(a.containers().len(), 1);
}

#[test]
fn a_node_that_was_removed_is_refused_and_stops_what_it_ran() {
    if !root() {
        return;
    }
    let site = Site::new();
    let a = site.node();
    let mut b = site.join(&a, "b");
    b.start();
    until(|| {
        let rows: Vec<Value> = a.json(&["node", "ls"]);
        let up = rows.iter().filter(|row| row["state"] == "up").count();
        if up == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    a.run(&["node", "rm", "b", "-y"]).fails(1, &["error: b is up", "`skerry node rm b --force`"]);
    a.run(&["node", "rm", "b", "--force", "-y"]).ok();
    // Its peer hears of it and ends by itself; started again it ends at once.
    until(|| if b.log().contains("this node was removed from the cluster") { Ok(()) } else { Err(b.log()) });
    until(|| {
        let rows: Vec<Value> = a.json(&["node", "ls"]);
        let states: Vec<_> = rows.iter().map(|row| row["state"].as_str().unwrap()).collect();
        if states == ["up", "removed"] { Ok(()) } else { Err(format!("{states:?}")) }
    });
    let again = site.nothing("c");
    fs::create_dir(&again.dir).unwrap();
    fs::copy(b.dir.join("key"), again.dir.join("key")).unwrap();
    again.join(&a.token(&[])).fails(1, &["is removed, and its key with it"]);
}
