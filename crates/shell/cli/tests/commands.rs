//! Commands from the command line to a peer and back, against a fake one.
#![allow(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

mod fake;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::shapes::{
    ConflictRow, ConflictSide, Explain, ExplainNode, ExplainReplica, HistoryChange, HistoryRow, LogLine,
    NodeState, NoticeRow, PsState, TokenRow, UserRow,
};
use document::event::{Author, Edit, Kind, Verb};
use fake::{Peer, container, deployment, image, node};

const WEB: &str = "deployments:\n  - name: web\n    image: web:1\n    replicas: 3\n";

fn change(peer: &Peer, n: usize) -> document::event::Change {
    let state = peer.fake.state();
    match &state.events[n].body.kind {
        Kind::Change(change) => change.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ps_shows_rows_for_people_and_the_promised_shape_for_programs() {
    let peer = Peer::new(|state| {
        let mut waits = container("web", 1, "n2");
        waits.state = PsState::Pending;
        (waits.node, waits.container, waits.pid, waits.age_s, waits.healthy) = (None, None, None, None, None);
        waits.reason = Some("n2: memory 300Mi free, 512Mi asked".into());
        state.ps = vec![container("web", 0, "n1"), waits, container("db", 0, "n1")];
    });
    let ended = peer.run(&["ps", "web"]);
    assert_eq!(
        ended.stdout,
        "REPLICA  REVISION  NODE  STATE    HEALTHY  AGE    RESTARTS  REASON
web.0    v1        n1    running  yes      1m15s  0
web.1    v1        -     pending  -        -      0         n2: memory 300Mi free, 512Mi asked\n"
    );
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let rows = peer.run(&["ps", "-o", "json"]).json();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!(rows[1]["node"], serde_json::Value::Null);
    let keys: Vec<_> = rows[0].as_object().unwrap().keys().cloned().collect();
    let promised = [
        "age_s",
        "container",
        "deployment",
        "healthy",
        "namespace",
        "node",
        "ordinal",
        "pid",
        "reason",
        "restarts",
        "revision",
        "state",
    ];
    let mut sorted = keys;
    sorted.sort();
    assert_eq!(sorted, promised);
    assert_eq!(peer.run(&["ps", "-o", "name", "--node", "n1"]).stdout, "web.0\ndb.0\n");
    assert!(peer.run(&["ps", "-o", "wide"]).stdout.contains("CONTAINER"));
    assert_eq!(peer.run(&["get", "replicas", "-o", "name"]).stdout, "web.0\nweb.1\ndb.0\n");
    assert!(peer.run(&["ps", "web.1", "-o", "yaml"]).stdout.contains("reason: "));
}

#[test]
fn apply_signs_one_event_and_waits_until_it_has_come_about() {
    let peer = Peer::new(|_| {});
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y", "-o", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let applied = ended.json();
    assert_eq!(applied["revisions"]["web"], 1);
    assert_eq!(applied["durable_on"], 2);
    assert_eq!(applied["waited"], "running");
    assert_eq!(applied["reason"], serde_json::Value::Null);
    let event = peer.fake.state().events[0].clone();
    assert_eq!(applied["event"], event.id.to_string());
    assert_eq!(event.body.author, Author::User(peer.key.user_id()));
    let change = change(&peer, 0);
    assert_eq!(change.verb, Verb::Apply);
    let [Edit::Create(create)] = change.edits.as_slice() else { panic!("{change:?}") };
    assert!(create.groups["image"].contains(&"ab".repeat(32)), "{create:?}");
    assert_eq!(create.groups.len(), 8);
    for line in ["cluster shop by way of unix:", "+ web: create", "    replicas: 3", "done in "] {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }

    let again = peer.run(&["apply", "-f", file.to_str().unwrap(), "-o", "json"]);
    assert_eq!((again.code, again.json()["event"].clone()), (0, serde_json::Value::Null));
    assert_eq!(again.stderr, "nothing to change\n");
    assert_eq!(peer.fake.state().events.len(), 1);
}

#[test]
fn apply_shows_each_changed_field_and_sets_only_the_groups_that_changed() {
    let peer = Peer::new(|state| state.deployments = vec![deployment("web", 2)]);
    let file = peer.file("app.yaml", &format!("{WEB}    env: {{A: \"1\"}}\n"));
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "web v2\n"), "{ended:?}");
    for line in
        ["~ web: update, replacing its containers one at a time", "replicas: 2 -> 3", "env.A: 1 (added)"]
    {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }
    let change = change(&peer, 0);
    assert_eq!(change.edits[0].groups().unwrap().keys().collect::<Vec<_>>(), ["env", "replicas"]);
}

#[test]
fn without_a_terminal_apply_needs_a_yes_and_changes_nothing_without_one() {
    let peer = Peer::new(|_| {});
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.ends_with(
        "error: this changes the cluster, and there is no terminal to ask on\nhint: say yes beforehand: -y, or SKERRY_YES=1\n"
    ));
    assert!(peer.fake.state().events.is_empty());
}

#[test]
fn what_cannot_be_placed_ends_with_4_and_a_line_a_node() {
    let peer = Peer::new(|state| {
        state.unplaced = BTreeMap::from([
            ("edge-1".into(), "memory: 300Mi free, 512Mi asked".into()),
            ("edge-2".into(), "label site is south, north asked".into()),
        ]);
    });
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y", "-o", "json"]);
    assert_eq!(ended.code, 4);
    assert_eq!(
        ended.json()["reason"],
        "deployment web cannot be placed: 2 of 3 replicas run, 1 finds no node"
    );
    let error: serde_json::Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["code"], "cannot-be-placed");
    assert_eq!(
        error["why"],
        serde_json::json!([
            "edge-1: memory: 300Mi free, 512Mi asked",
            "edge-2: label site is south, north asked"
        ])
    );
}

#[test]
fn what_does_not_come_about_in_time_ends_with_3_and_says_what_is_missing() {
    let peer = Peer::new(|state| {
        state.stuck = true;
        let mut bad = container("web", 1, "n2");
        (bad.state, bad.healthy) = (PsState::Starting, None);
        bad.reason = Some("the image is on its way".into());
        state.ps = vec![bad];
        state.nodes = vec![node("n3", "a3", NodeState::Down)];
    });
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y", "--timeout", "1s"]);
    assert_eq!(ended.code, 3);
    assert!(
        ended.stderr.ends_with(
            "error: web did not come about within 1 s
  web.1 is starting on n2: the image is on its way
  n3 cannot be reached
hint: it continues in the background: `skerry ps` shows how far it is\n"
        ),
        "{}",
        ended.stderr
    );
    let detached = peer.run(&["scale", "web=4", "--detach", "-o", "json"]);
    assert_eq!((detached.code, detached.json()["waited"].clone()), (0, "none".into()));
}

#[test]
fn a_container_that_fails_again_and_again_is_not_waited_for() {
    let peer = Peer::new(|state| {
        state.stuck = true;
        let mut bad = container("web", 0, "n2");
        (bad.state, bad.healthy, bad.restarts) = (PsState::Failed, Some(false), 4);
        bad.reason = Some("exit code 1".into());
        state.ps = vec![bad];
    });
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("error: deployment web does not come up: replica 0 fails again and again\n  at n2\n  exit code 1 (started 5 times)\n"), "{}", ended.stderr);
}

#[test]
fn an_interrupted_wait_says_that_it_goes_on() {
    let peer = Peer::new(|state| state.stuck = true);
    let file = peer.file("app.yaml", WEB);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_skerry"));
    command.arg("--peer").arg(format!("unix:{}", peer.dir.path().join("api.sock").display()));
    command
        .arg("--key")
        .arg(peer.dir.path().join("user.key"))
        .args(["apply", "-y", "-o", "json", "-f"])
        .arg(file);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    // It waits, and hears ^C, once it has asked how its event goes on.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while peer.fake.state().looked < 3 {
        assert!(std::time::Instant::now() < deadline, "it never waited");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let applied: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(applied["reason"], "stopped waiting; it continues in the background");
    assert!(applied["event"].is_string());
}

#[test]
fn an_image_that_nobody_has_stops_apply_before_anything_is_signed() {
    let peer = Peer::new(|state| state.images = vec![image("web:2", "ab")]);
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (
            1,
            "error: no reachable peer has image web:1
  at deployment web
  there is `web:2`; is that the one?
hint: load it into any peer with `skerry image load FILE`\n"
        )
    );
    assert!(peer.fake.state().events.is_empty());
}

#[test]
fn a_bad_manifest_asks_no_peer() {
    let peer = Peer::new(|_| {});
    let file = peer.file("app.yaml", "deployments:\n  - name: web\n    image: web:1\n    replica: 3\n");
    let ended = peer.run_at("unix:/nowhere/api.sock", &["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .stderr
            .contains("app.yaml:4:5: unknown field `replica` in deployments[0]; did you mean `replicas`?")
    );
}

#[test]
fn plan_writes_nothing_and_says_with_its_exit_code_whether_there_are_changes() {
    let peer = Peer::new(|state| state.deployments = vec![deployment("web", 2)]);
    let file = peer.file("app.yaml", WEB);
    let file = file.to_str().unwrap();
    let ended = peer.run(&["plan", "-f", file]);
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (0, "~ web: update in place\n    replicas: 2 -> 3\n", "namespace default stands at 0d0d0d0d\n")
    );
    assert_eq!(peer.run(&["plan", "-f", file, "--exit-code"]).code, 1);
    let answer = peer.run(&["plan", "-f", file, "-o", "json"]).json();
    assert_eq!(answer["deployments"][0]["fields"][0]["field"], "replicas");
    assert!(peer.fake.state().events.is_empty());
    peer.run(&["scale", "web=3"]);
    let same = peer.run(&["plan", "-f", file, "--exit-code"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "  web: unchanged\n"));
}

#[test]
fn a_guard_on_heads_refuses_what_changed_since_the_plan() {
    let peer = Peer::new(|state| state.deployments = vec![deployment("web", 2)]);
    let kept = peer.run(&["scale", "web=3", "--if-heads", "0d0d0d0d"]);
    assert_eq!(kept.code, 0, "{kept:?}");
    let refused = peer.run(&["scale", "web=4", "--if-heads", "0d0d0d0d"]);
    assert_eq!(refused.code, 6);
    assert!(refused.stderr.starts_with("error: namespace default changed since the plan\n"));
    assert_eq!(peer.fake.state().events.len(), 1);
}

#[test]
fn scale_changes_the_count_and_nothing_else() {
    let peer = Peer::new(|state| state.deployments = vec![deployment("web", 2), deployment("api", 1)]);
    let ended = peer.run(&["scale", "web=5", "api=0", "-o", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let change = change(&peer, 0);
    assert_eq!((change.verb, change.edits.len()), (Verb::Scale, 2));
    assert_eq!(change.edits[0].groups().unwrap()["replicas"], r#"{"count":5,"class":"available"}"#);
    let missing = peer.run(&["scale", "wbe=5"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (1, "error: there is no deployment `wbe`\nhint: did you mean `web`?\n")
    );
    assert_eq!(peer.run(&["scale", "web=x"]).code, 2);
    assert_eq!(peer.run(&["scale", "web=1", "web=2"]).code, 2);
}

#[test]
fn restart_makes_replicas_anew_and_a_later_apply_does_not_do_it_once_more() {
    let peer = Peer::new(|state| state.deployments = vec![deployment("web", 3)]);
    assert_eq!(peer.run(&["restart", "web"]).code, 0);
    let restart = change(&peer, 0);
    assert_eq!(restart.verb, Verb::Restart);
    assert!(restart.edits[0].groups().unwrap()["restart"].contains("token"));
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "nothing to change\n"));
}

#[test]
fn delete_ends_deployments_by_name_or_by_manifest() {
    let peer = Peer::new(|state| {
        state.deployments = vec![deployment("web", 3), deployment("api", 1)];
        state.deployments[1].incarnation = "c2".repeat(32);
        state.ps = vec![container("web", 0, "n1")];
    });
    let file = peer.file("app.yaml", WEB);
    let ended = peer.run(&["delete", "-f", file.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "web deleted\n"), "{ended:?}");
    assert_eq!(peer.run(&["rm", "api", "-o", "json"]).json()["revisions"], serde_json::json!({}));
    assert!(peer.fake.state().deployments.is_empty());
    assert_eq!(peer.run(&["delete", "web"]).code, 1);
    assert_eq!(peer.run(&["delete", "web", "--ignore-missing"]).code, 0);
    assert_eq!(peer.run(&["delete"]).code, 2);
}

fn scaled_to_five() -> HistoryRow {
    HistoryRow {
        event: "b2".repeat(32),
        doc: "ns/default".into(),
        author: "aa".repeat(32),
        author_name: Some("ada".into()),
        time_ms: 0,
        verb: "scale".into(),
        undoes: None,
        changes: vec![HistoryChange {
            subject: "web".into(),
            group: Some("replicas".into()),
            before: Some(r#"{"count":2,"class":"available"}"#.into()),
            after: Some(r#"{"count":5,"class":"available"}"#.into()),
        }],
    }
}

#[test]
fn undo_puts_back_what_was_before_by_a_new_event() {
    let peer = Peer::new(|state| {
        state.deployments = vec![deployment("web", 5)];
        state.history = vec![scaled_to_five()];
    });
    assert_eq!(
        peer.run(&["history", "web"]).stdout,
        "b2b2b2b2  1970-01-01 00:00:00  ada  scale\n    web: replicas: 5 -> 2\n".replace("5 -> 2", "2 -> 5")
    );
    let ended = peer.run(&["undo", "web"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("replicas: 5 -> 2"), "{}", ended.stderr);
    let undo = change(&peer, 0);
    assert_eq!(undo.verb, Verb::Undo);
    assert_eq!(undo.undoes.unwrap().to_string(), "b2".repeat(32));
    assert_eq!(peer.run(&["undo", "--event", "b2b2"]).code, 0);
    let unknown = peer.run(&["undo", "--event", "dddd"]);
    assert_eq!((unknown.code, unknown.stderr.lines().next()), (1, Some("error: there is no event `dddd`")));
    assert_eq!(peer.run(&["undo"]).code, 2);
}

#[test]
fn a_conflict_is_shown_with_both_sides_and_settled_by_taking_one() {
    let side = |event: &str, name: &str, value: &str| ConflictSide {
        event: event.repeat(32),
        author: "aa".repeat(32),
        author_name: Some(name.into()),
        time_ms: 0,
        value: Some(format!(r#"{{"vars":{{"LEVEL":"{value}"}}}}"#)),
    };
    let peer = Peer::new(|state| {
        state.deployments = vec![deployment("web", 2)];
        state.conflicts = vec![ConflictRow {
            namespace: "default".into(),
            deployment: "web".into(),
            incarnation: "c1".repeat(32),
            group: Some("env".into()),
            winner: "b1".repeat(32),
            sides: vec![side("b1", "ada", "info"), side("b2", "bob", "debug")],
        }];
    });
    assert_eq!(
        peer.run(&["conflicts", "ls"]).stdout,
        "web env
  in force  b1b1b1b1  1970-01-01 00:00:00  ada  env.LEVEL=info
            b2b2b2b2  1970-01-01 00:00:00  bob  env.LEVEL=debug\n"
    );
    let ended = peer.run(&["conflicts", "resolve", "web", "--take", "b2b2"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let resolve = change(&peer, 0);
    assert_eq!(resolve.verb, Verb::Resolve);
    assert_eq!(resolve.edits[0].groups().unwrap()["env"], r#"{"vars":{"LEVEL":"debug"}}"#);
    assert_eq!(peer.run(&["conflicts", "resolve", "web", "--take", "dddd"]).code, 1);
}

#[test]
fn logs_have_prefixes_where_there_are_several_replicas() {
    let line = |ordinal, text: &str| LogLine {
        node: "n1".into(),
        container: "c".into(),
        deployment: "web".into(),
        ordinal,
        time_ms: 0,
        stream: "stdout".into(),
        text: text.into(),
    };
    let peer = Peer::new(|state| {
        state.ps = vec![container("web", 0, "n1"), container("web", 1, "n2")];
        state.logs = vec![line(0, "hello"), line(1, "there")];
    });
    assert_eq!(peer.run(&["logs", "web"]).stdout, "web-0 | hello\nweb-1 | there\n");
    assert_eq!(peer.run(&["logs", "web.1"]).stdout, "there\n");
    assert_eq!(peer.run(&["logs", "web.0", "-t"]).stdout, "1970-01-01 00:00:00  hello\n");
    let json = peer.run(&["logs", "web", "-o", "json"]).stdout;
    assert_eq!(json.lines().count(), 2);
    assert!(json.lines().all(|line| serde_json::from_str::<LogLine>(line).is_ok()));
}

#[test]
fn exec_passes_output_and_exit_code_on() {
    let peer = Peer::new(|state| state.ps = vec![container("web", 0, "n1")]);
    let ended = peer.run(&["exec", "web.0", "--", "echo", "-n", "hi"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (7, "echo -n hi\n", "warned\n"));
    assert_eq!(peer.fake.state().asked[0].ordinal, Some(0));
    let missing = peer.run(&["exec", "web", "--", "missing"]);
    assert_eq!((missing.code, missing.stderr.as_str()), (127, "error: the program missing is not there\n"));
    assert_eq!(peer.run(&["exec", "web"]).code, 2);
}

#[test]
fn a_token_is_signed_and_printed_as_the_line_that_joins() {
    let peer = Peer::new(|state| {
        state.nodes = vec![node("n2", "a2", NodeState::Down), node("n1", "a1", NodeState::Up)];
    });
    let ended = peer.run(&["token", "create", "--uses", "2", "--ttl", "30m", "-o", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let answer = ended.json();
    let token: identity::JoinToken = answer["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.cluster().as_bytes(), &fake::CLUSTER);
    assert_eq!(token.addresses(), ["n1.example:7440"]);
    assert_eq!(answer["join"], format!("skerry join {}", answer["token"].as_str().unwrap()));
    let event = peer.fake.state().events[0].clone();
    let Kind::Token(grant) = event.body.kind else { panic!("{event:?}") };
    assert_eq!((grant.id, grant.uses), (token.token_id(), 2));
    assert!(event.body.auth.is_empty());

    peer.fake.state().tokens =
        vec![TokenRow { id: "d1".repeat(32), expires_ms: 0, uses: 1, used: 0, revoked: false }];
    assert_eq!(
        peer.run(&["token", "ls"]).stdout,
        "TOKEN     STATE    USED  EXPIRES (UTC)\nd1d1d1d1  expired  0/1   1970-01-01 00:00:00\n"
    );
    assert_eq!(peer.run(&["token", "revoke", "d1d1"]).code, 0);
    assert!(matches!(peer.fake.state().events[1].body.kind, Kind::TokenRevoke(_)));
}

#[test]
fn a_cluster_that_has_no_address_makes_no_token() {
    let peer = Peer::new(|_| {});
    let ended = peer.run(&["token", "create"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("--address HOST:PORT"), "{}", ended.stderr);
    assert!(peer.fake.state().events.is_empty());
}

#[test]
fn nodes_are_listed_and_only_lost_ones_removed_without_force() {
    let peer = Peer::new(|state| {
        state.nodes = vec![node("n1", "a1", NodeState::Up), node("n2", "a2", NodeState::Down)];
    });
    assert_eq!(
        peer.run(&["node", "ls"]).stdout,
        "NODE  ID        STATE  SEEN       CPU FREE  MEMORY FREE  PIDS FREE  LABELS
n1    a1a1a1a1  up     now        1500m/2   512Mi/1Gi    436/500    site=north
n2    a2a2a2a2  down   4m12s ago  1500m/2   512Mi/1Gi    436/500    site=north\n"
    );
    let up = peer.run(&["node", "rm", "n1"]);
    assert_eq!((up.code, up.stderr.lines().next()), (1, Some("error: n1 is up")));
    assert_eq!(peer.run(&["node", "rm", "n2"]).stdout, "n2 is removed\n");
    assert_eq!(peer.run(&["leave"]).code, 0);
    let state = peer.fake.state();
    let removed: Vec<_> = state
        .events
        .iter()
        .map(|event| match &event.body.kind {
            Kind::NodeRemove(remove) => remove.node.short(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(removed, ["a2a2a2a2", "a1a1a1a1"]);
}

#[test]
fn users_are_let_in_by_key() {
    let peer = Peer::new(|state| {
        state.users = vec![UserRow { name: "ada".into(), key: "aa".repeat(32), role: "admin".into() }];
    });
    assert!(peer.run(&["user", "ls"]).stdout.contains("ada   admin"));
    let own = peer.run(&["user", "key"]).stdout;
    assert_eq!(own.trim(), peer.key.user_id().to_string());
    assert_eq!(peer.run(&["user", "add", "bob", own.trim(), "--role", "admin"]).code, 0);
    assert!(matches!(peer.fake.state().events[0].body.kind, Kind::UserAdd(_)));
    assert_eq!(peer.run(&["user", "add", "bob", "abc"]).code, 2);
}

#[test]
fn status_is_one_screen_and_names_what_is_wrong() {
    let peer = Peer::new(|state| {
        state.nodes = vec![node("n1", "a1", NodeState::Up), node("n2", "a2", NodeState::Suspect)];
        state.deployments = vec![deployment("web", 2)];
        state.deployments[0].conflicts = vec!["env".into()];
    });
    let ended = peer.run(&["status"]);
    for line in [
        "cluster shop · view of n1 · in sync with 1 of 2 peers (1 connected) · skerry 0.1.0",
        "! n2 is suspect: unseen for 4m12s",
        "web         v1        2/2    2        conflict on env",
    ] {
        assert!(ended.stdout.lines().any(|it| it == line), "{line}\n{}", ended.stdout);
    }
    assert_eq!(peer.run(&["status", "-o", "json"]).json()["in_sync"], 1);
}

#[test]
fn explain_gives_a_line_a_replica_and_a_line_a_node() {
    let peer = Peer::new(|state| {
        state.explain = Some(Explain {
            namespace: "default".into(),
            deployment: "web".into(),
            replicas: vec![ExplainReplica {
                ordinal: 0,
                node: Some("n1".into()),
                why: "it runs there".into(),
            }],
            nodes: vec![ExplainNode {
                node: "n2".into(),
                fits: false,
                why: "memory: 300Mi free, 512Mi asked".into(),
            }],
        });
    });
    assert_eq!(
        peer.run(&["explain", "web"]).stdout,
        "REPLICA  NODE  WHY
web.0    n1    it runs there

NODE  ONE MORE FITS  WHY
n2    no             memory: 300Mi free, 512Mi asked\n"
    );
}

#[test]
fn an_error_of_the_peer_is_passed_on_in_its_own_words() {
    let peer = Peer::new(|_| {});
    let ended = peer.run(&["explain", "web", "-o", "json"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"], "there is no deployment default/web");
    assert_eq!(error["code"], "not-found");
}

#[test]
fn events_are_lines_for_people_and_a_list_for_programs() {
    let peer = Peer::new(|state| {
        state.notices = vec![NoticeRow {
            seq: 4,
            time_ms: 0,
            node: "n1".into(),
            kind: "container-started".into(),
            about: Some("default/web".into()),
            message: "replica 0 runs".into(),
        }];
    });
    assert_eq!(
        peer.run(&["events"]).stdout,
        "1970-01-01 00:00:00  n1  container-started  default/web: replica 0 runs\n"
    );
    assert_eq!(peer.run(&["events", "-o", "json"]).json()[0]["seq"], 4);
    assert_eq!(peer.run(&["events", "--after", "4"]).stdout, "");
    assert_eq!(peer.run(&["events", "-f", "--for", "api"]).stdout, "");
}

#[test]
fn images_are_streamed_from_files_and_folders() {
    let peer = Peer::new(|_| {});
    let file = peer.dir.path().join("image.tar");
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&file, &bytes).unwrap();
    let ended = peer.run(&["image", "load", file.to_str().unwrap(), "--name", "x:2"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "IMAGE  DIGEST    SIZE  NODES\nx:2    eeeeeeee  3Mi   n1\n"),
        "{ended:?}"
    );
    assert!(peer.fake.state().archive == bytes);

    let dir = peer.dir.path().join("layout");
    std::fs::create_dir(&dir).unwrap();
    let bad = peer.run(&["image", "load", dir.to_str().unwrap()]);
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("skerry image build --rootfs"), "{}", bad.stderr);
    std::fs::write(dir.join("oci-layout"), "{}").unwrap();
    std::fs::write(dir.join("index.json"), "{}").unwrap();
    assert_eq!(peer.run(&["image", "load", dir.to_str().unwrap()]).code, 0);
    let archive = peer.fake.state().archive.clone();
    let names: Vec<_> = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.iter().any(|name| name.ends_with("index.json")), "{names:?}");
    // A peer that says no before it has read everything is heard.
    std::fs::write(dir.join("blob"), vec![7; 20 << 20]).unwrap();
    let refused = peer.run(&["image", "load", dir.to_str().unwrap(), "--name", "refused:1"]);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.stderr, "error: the image was not taken: the disk is full\n");
    let missing = peer.run(&["image", "load", "/nowhere.tar"]);
    assert!(missing.stderr.starts_with("error: /nowhere.tar cannot be read\n"), "{}", missing.stderr);
}

#[test]
fn a_folder_becomes_an_image_archive() {
    let peer = Peer::new(|_| {});
    let root = peer.dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("hello"), "hello").unwrap();
    let ended = peer.run(&[
        "image",
        "build",
        "hello:1",
        "--rootfs",
        root.to_str().unwrap(),
        "--entrypoint",
        "/hello",
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let archive = peer.fake.state().archive.clone();
    let mut names: Vec<_> = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.retain(|name| !name.starts_with("blobs"));
    assert_eq!(names, ["oci-layout", "index.json", "manifest.json"]);
    assert_eq!(peer.run(&["image", "build", "hello:1"]).code, 2);
}

struct Everyone;

impl transport::Gate for Everyone {
    fn node_allowed(&self, _: &model::NodeId) -> bool {
        false
    }
    fn node_former(&self, _: &model::NodeId) -> bool {
        false
    }

    fn user_allowed(&self, _: &model::UserId) -> bool {
        true
    }
    fn joining_allowed(&self) -> bool {
        false
    }
}

#[test]
fn a_remote_peer_is_spoken_to_with_the_users_key_and_held_to_its_own() {
    let peer = Peer::new(|state| state.ps = vec![container("web", 0, "n1")]);
    let node_key = identity::KeyPair::generate().unwrap();
    let bound = peer.runtime().block_on(transport::Endpoint::bind(
        "127.0.0.1:0".parse().unwrap(),
        &node_key,
        Arc::new(Everyone),
        transport::Limits::default(),
    ));
    let (endpoint, events, mut incoming) = bound.unwrap();
    let router = api::router(peer.fake.clone());
    peer.runtime().spawn(async move {
        while let Some(stream) = incoming.recv().await {
            let io = tokio::io::join(stream.recv, stream.send);
            let transport::Caller::User(user) = stream.who else { continue };
            tokio::spawn(api::serve_stream(io, router.clone(), api::Requester::User(user)));
        }
    });
    let address = endpoint.local_addr().unwrap();
    let pinned = format!("{address}#{}", node_key.node_id());
    let ended = peer.run_at(&pinned, &["ps", "-o", "name"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "web.0\n"), "{ended:?}");
    let other = format!("{address}#{}", "ab".repeat(32));
    let refused = peer.run_at(&other, &["ps"]);
    assert_eq!(refused.code, 7, "{refused:?}");
    assert!(refused.stderr.contains("has another key than the one expected"), "{}", refused.stderr);
    // Without a pin the first contact is trusted and remembered, and another key is refused later.
    let home = tempfile::tempdir().unwrap();
    let plain = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_skerry"));
        command.args(["--peer", &address.to_string(), "ps", "-o", "name", "--key"]);
        command.arg(peer.dir.path().join("user.key")).env_clear().env("HOME", home.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let known = home.path().join(".config/skerry/known_peers");
    for _ in 0..2 {
        assert_eq!(plain(), (0, String::new()));
        assert_eq!(std::fs::read_to_string(&known).unwrap(), format!("{address} {}\n", node_key.node_id()));
    }
    std::fs::write(&known, format!("{address} {}\n", "ab".repeat(32))).unwrap();
    let (code, stderr) = plain();
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.contains(&format!("remove its line from {}", known.display())), "{stderr}");
    drop(events);
    peer.runtime().block_on(endpoint.close());
}

#[test]
fn a_replica_that_runs_where_it_may_no_longer_be_is_not_called_done() {
    let peer = Peer::new(|state| {
        state.deployments = vec![deployment("web", 3)];
        state.unplaced = BTreeMap::from([("n1".into(), "label site is north, south asked".into())]);
    });
    let file = peer.file("app.yaml", &format!("{WEB}    constraints: {{site: south}}\n"));
    peer.fake.state().keep_ready = true;
    let ended = peer.run(&["apply", "-f", file.to_str().unwrap(), "-y"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.stderr.contains("  n1: label site is north, south asked\n"), "{}", ended.stderr);
}
