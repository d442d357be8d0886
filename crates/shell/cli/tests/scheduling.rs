//! Commands that say where work goes and how far a change may go, against a fake peer.
#![allow(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

#[expect(dead_code, reason = "shared with other tests, which use all of it")]
mod fake;

use std::collections::BTreeMap;

use api::shapes::{NodeSchedule, NodeState, UpdateFailed};
use document::event::{Kind, Schedule};
use fake::{Peer, container, deployment, image, node};

/// What the events of a peer say of nodes.
fn said(peer: &Peer) -> Vec<(String, Schedule, Option<u32>)> {
    let state = peer.fake.state();
    let of = |kind: &Kind| match kind {
        Kind::NodeSchedule(it) => (it.node.short(), it.schedule, it.deadline_s),
        other => panic!("{other:?}"),
    };
    state.events.iter().map(|event| of(&event.body.kind)).collect()
}

/// The update group that an event sets.
fn update(peer: &Peer, n: usize) -> model::UpdateGroup {
    let state = peer.fake.state();
    let Kind::Change(change) = &state.events[n].body.kind else { panic!("no change") };
    serde_json::from_str(&change.edits[0].groups().unwrap()["update"]).unwrap()
}

#[test]
fn what_no_node_and_no_deployment_answers_to_is_doubted_by_name_and_done_all_the_same() {
    let peer = Peer::new(|state| {
        state.nodes = vec![node("n1", "a1", NodeState::Up)];
        state.images = vec![image("web:1", "ab")];
        state.deployments = vec![deployment("cache", 1)];
    });
    let text = "deployments:\n  - name: web\n    image: web:1\n    constraints: [\"sit = north\", \"host = n1\"]\n    near: [cahce]\n    apart: [web]\n    spread: [rack]\n";
    let file = peer.file("app.yaml", text);
    for command in [vec!["plan"], vec!["apply", "-y"]] {
        let args = [command, vec!["-f", file.to_str().unwrap()]].concat();
        let ended = peer.run(&args);
        assert_eq!(ended.code, 0, "{ended:?}");
        for line in [
            "warning: web: no node has a label `sit`; is `site` meant?\n",
            "warning: web: no node has a label `rack`\n",
            "warning: web: there is no deployment `cahce`; is `cache` meant?\n",
        ] {
            assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
        }
        assert_eq!(ended.stderr.matches("warning: ").count(), 3, "{}", ended.stderr);
    }
}

#[test]
fn extras_that_no_node_has_so_many_of_are_doubted_and_those_of_a_node_are_listed() {
    let peer = Peer::new(|state| {
        let mut n1 = node("n1", "a1", NodeState::Up);
        n1.capacity.extras = BTreeMap::from([("camera".into(), 2), ("gpu".into(), 1)]);
        n1.free.extras = BTreeMap::from([("camera".into(), 2)]);
        state.nodes = vec![n1, node("n2", "a2", NodeState::Up)];
        state.images = vec![image("web:1", "ab")];
    });
    let listed = peer.run(&["node", "ls"]).stdout;
    assert!(listed.contains("EXTRAS FREE") && listed.contains("camera=2/2,gpu=0/1"), "{listed}");
    for (asked, told) in [
        ("gpuu: 1", "warning: web: no node has an extra `gpuu`; is `gpu` meant?\n"),
        ("plotter: 1", "warning: web: no node has an extra `plotter`\n"),
        ("camera: 3", "warning: web: no node has 3 of `camera`, the most is 2\n"),
        ("camera: 2, gpu: 1", ""),
    ] {
        let text =
            format!("deployments: [{{name: web, image: \"web:1\", resources: {{extras: {{{asked}}}}}}}]\n");
        let ended = peer.run(&["plan", "-f", peer.file("app.yaml", &text).to_str().unwrap()]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.contains(told), "{asked}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("warning: ").count(), usize::from(!told.is_empty()), "{asked}");
    }
}

#[test]
fn what_a_node_is_short_of_and_gives_away_twice_is_listed() {
    let peer = Peer::new(|state| {
        let mut n1 = node("n1", "a1", NodeState::Up);
        (n1.cpu_percent, n1.memory_percent, n1.reserved_cpu_m) = (150, 105, 250);
        n1.pressure =
            Some("memory: something waited for it 34.05 % of ten seconds, the limit is 20 %".into());
        state.nodes = vec![n1, node("n2", "a2", NodeState::Up)];
    });
    let listed = peer.run(&["node", "ls"]).stdout;
    for word in ["up, short of memory", "1500m/2 (x1.50)", "(x1.05)"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let wide = peer.run(&["node", "ls", "-o", "wide"]).stdout;
    for word in ["cpu=250m,memory=", "34.05 % of ten seconds"] {
        assert!(wide.contains(word), "{word}: {wide}");
    }
}

#[test]
fn a_node_is_cordoned_drained_and_let_work_again_and_the_last_one_not_unasked() {
    let peer = Peer::new(|state| {
        let mut other = node("n2", "a2", NodeState::Up);
        other.schedule = NodeSchedule::Cordoned;
        state.nodes = vec![node("n1", "a1", NodeState::Up), other];
    });
    assert!(peer.run(&["node", "ls"]).stdout.contains("up, cordoned"));
    let refused = peer.run(&["node", "drain", "n1"]);
    assert_eq!(
        (refused.code, refused.stderr.lines().next()),
        (1, Some("error: no other node is up and takes work: what n1 runs has nowhere to go"))
    );
    assert_eq!(peer.run(&["node", "cordon", "n1"]).code, 0);
    assert_eq!(peer.run(&["node", "uncordon", "n2"]).stdout, "n2 takes work again\n");
    let drained = peer.run(&["node", "drain", "n1", "--force", "--deadline", "10m"]);
    assert_eq!((drained.code, drained.stdout.as_str()), (0, "n1 is empty, and takes no new work\n"));
    let all = [
        ("a1a1a1a1".to_owned(), Schedule::Cordoned, None),
        ("a2a2a2a2".to_owned(), Schedule::Normal, None),
        ("a1a1a1a1".to_owned(), Schedule::Drained, Some(600)),
    ];
    assert_eq!(said(&peer), all);
    for (deadline, told) in [("500ms", "use whole seconds"), ("25h", "use whole seconds"), ("soon", "soon")] {
        let bad = peer.run(&["node", "drain", "n1", "--deadline", deadline]);
        assert!(bad.code == 2 && bad.stderr.contains(told), "{bad:?}");
    }
}

#[test]
fn a_drain_that_does_not_end_says_what_is_left_and_goes_on() {
    let peer = Peer::new(|state| {
        state.nodes = vec![node("n1", "a1", NodeState::Up), node("n2", "a2", NodeState::Up)];
        state.ps = vec![container("web", 3, "n2"), container("web", 4, "n1")];
    });
    let ended = peer.run(&["node", "drain", "n2", "--timeout", "300ms"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(
        ended.stderr.contains("error: n2 is not empty within 0.3 s\n  web.3 is still there\n"),
        "{ended:?}"
    );
    assert_eq!(said(&peer).len(), 1);
}

#[test]
fn an_update_is_paused_goes_on_and_its_canaries_are_let_through() {
    let peer = Peer::new(|state| {
        let mut web = deployment("web", 3);
        web.revision_hash = Some("5a".repeat(32));
        web.groups.insert("update".into(), r#"{"surge":2,"canary":{"replicas":1}}"#.into());
        state.deployments = vec![web, deployment("plain", 1)];
    });
    assert_eq!(peer.run(&["pause", "web"]).code, 0);
    assert_eq!(peer.run(&["resume", "web"]).code, 0);
    assert_eq!(peer.run(&["promote", "web"]).code, 0);
    assert!(update(&peer, 0).paused && !update(&peer, 1).paused);
    let promoted = update(&peer, 2);
    assert_eq!(promoted.canary.unwrap().promoted.unwrap().to_string(), "5a".repeat(32));
    assert_eq!(promoted.surge, 2, "what was said before stays");
    let none = peer.run(&["promote", "plain"]);
    assert_eq!(
        (none.code, none.stderr.lines().next()),
        (1, Some("error: plain has no canaries: nothing waits to be let through"))
    );
}

#[test]
fn a_version_that_was_taken_back_ends_apply_with_5_and_cannot_be_let_through() {
    let failed = UpdateFailed {
        revision: 2,
        back_to: Some(1),
        node: "n2".into(),
        reason: "ended 3 times and was never well; last exited with code 1".into(),
    };
    let peer = Peer::new(|state| {
        state.images = vec![image("web:1", "ab")];
        let mut web = deployment("web", 3);
        web.failed = Some(failed);
        web.groups.insert("update".into(), r#"{"canary":{"replicas":1}}"#.into());
        state.deployments = vec![web];
    });
    let refused = peer.run(&["promote", "web"]);
    assert!(refused.code == 1 && refused.stderr.contains("v2 of web did not come up on n2"), "{refused:?}");
    let file = peer
        .file("app.yaml", "deployments:\n  - {name: web, image: \"web:1\", replicas: 3, env: {A: \"1\"}}\n");
    let ended = peer.run(&["apply", "-y", "-f", file.to_str().unwrap()]);
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(
        ended.stderr.contains("error: v2 of web did not come up on n2, and v1 runs again\n  ended 3 times"),
        "{ended:?}"
    );
    // Whoever only scales is not told of it.
    assert_eq!(peer.run(&["scale", "web=4"]).code, 0);
}

#[test]
fn a_manifest_without_an_update_takes_back_the_one_that_is_there_and_keeps_who_was_let_through() {
    let peer = Peer::new(|state| {
        state.images = vec![image("web:1", "ab")];
        let mut web = deployment("web", 3);
        let canary = format!(r#"{{"canary":{{"replicas":1,"promoted":"{}"}}}}"#, "5a".repeat(32));
        web.groups.insert("update".into(), canary);
        state.deployments = vec![web];
    });
    let with = "deployments:\n  - {name: web, image: \"web:1\", replicas: 3, update: {canary: 1}}\n";
    let same = peer.run(&["apply", "-y", "-f", peer.file("same.yaml", with).to_str().unwrap()]);
    assert!(same.stderr.contains("nothing to change"), "{same:?}");
    let without = "deployments:\n  - {name: web, image: \"web:1\", replicas: 3}\n";
    let ended = peer.run(&["apply", "-y", "-f", peer.file("without.yaml", without).to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(update(&peer, 0), model::UpdateGroup::default());
}

#[test]
fn one_on_each_node_is_not_scaled_to_two() {
    let peer = Peer::new(|state| {
        let mut agent = deployment("agent", 1);
        agent.groups.insert("replicas".into(), r#"{"count":1,"class":"available","mode":"global"}"#.into());
        state.deployments = vec![agent];
    });
    let refused = peer.run(&["scale", "agent=2"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("agent runs one on each node, it cannot be scaled to 2"), "{refused:?}");
    assert_eq!(peer.run(&["scale", "agent=0"]).code, 0);
}

#[test]
fn what_would_wait_for_itself_is_refused_by_name_and_what_is_not_there_is_doubted() {
    let peer = Peer::new(|state| {
        state.images = vec![image("web:1", "ab")];
        let mut b = deployment("b", 1);
        b.groups.insert("depends-on".into(), r#"{"on":{"c":"healthy"}}"#.into());
        let mut c = deployment("c", 1);
        c.groups.insert("depends-on".into(), r#"{"on":{"a":"healthy"}}"#.into());
        state.deployments = vec![b, c];
    });
    let file = |text: &str| peer.file("app.yaml", text).to_str().unwrap().to_owned();
    let of_itself = file("deployments: [{name: a, image: \"web:1\", depends-on: [a]}]\n");
    let told = peer.run(&["validate", "-f", &of_itself]);
    assert!(told.code != 0 && told.stderr.contains("`a` waits for itself: a -> a"), "{told:?}");
    let of_two = "deployments:\n  - {name: x, image: \"web:1\", depends-on: y}\n  - {name: y, image: \"web:1\", depends-on: {x: started}}\n";
    let told = peer.run(&["validate", "-f", &file(of_two)]);
    assert!(told.code != 0 && told.stderr.contains("2:12: x would wait for itself: x -> y -> x"), "{told:?}");
    let by_others = file("deployments: [{name: a, image: \"web:1\", depends-on: [b]}]\n");
    for command in [vec!["plan"], vec!["apply", "-y"]] {
        let told = peer.run(&[command, vec!["-f", &by_others]].concat());
        assert!(
            told.code == 1 && told.stderr.contains("error: a would wait for itself: a -> b -> c -> a"),
            "{told:?}"
        );
    }
    let doubtful =
        file("deployments: [{name: web, image: \"web:1\", depends-on: {bb: started, c: completed}}]\n");
    let told = peer.run(&["plan", "-f", &doubtful]);
    assert_eq!(told.code, 0, "{told:?}");
    for line in [
        "warning: web: waits for `bb`, and there is no such deployment; is `b` meant?\n",
        "warning: web: waits for `c` to be completed, which never is: it is restarted always\n",
    ] {
        assert!(told.stderr.contains(line), "{line}: {}", told.stderr);
    }
}

#[test]
fn a_manifest_without_dependencies_takes_back_those_that_are_there() {
    let peer = Peer::new(|state| {
        state.images = vec![image("web:1", "ab")];
        let mut web = deployment("web", 1);
        web.groups.insert("depends-on".into(), r#"{"on":{"db":"healthy"}}"#.into());
        state.deployments = vec![web];
    });
    let file = peer.file("app.yaml", "deployments: [{name: web, image: \"web:1\"}]\n");
    let told = peer.run(&["plan", "-f", file.to_str().unwrap()]);
    assert!(told.stdout.contains("depends-on.db: healthy (removed)"), "{told:?}");
}

#[test]
fn apply_waits_for_a_job_and_ends_with_9_where_it_has_failed() {
    use api::shapes::{JobFailure, JobRow, JobState};
    let job = |state: JobState, succeeded: u32| {
        let failure = JobFailure { ordinal: 2, node: "n2".into(), reason: "exited with code 7".into() };
        JobRow {
            completions: 3,
            parallelism: 1,
            retries: 3,
            deadline_s: None,
            succeeded,
            running: 0,
            state,
            failures: if state == JobState::Failed { vec![failure] } else { vec![] },
            overdue: false,
        }
    };
    for (state, succeeded, code, told) in [
        (JobState::Completed, 3, 0, "done in"),
        (
            JobState::Failed,
            2,
            9,
            "error: job batch has failed: 2 of 3 runs are done\n  batch.2 on n2: exited with code 7\n",
        ),
        (JobState::Running, 1, 3, "of 3 done\nerror: batch did not come about within 1.5 s\n"),
    ] {
        let peer = Peer::new(|state_of| {
            state_of.images = vec![image("web:1", "ab")];
            let mut batch = deployment("batch", 3);
            batch.ready = succeeded;
            batch.running = 0;
            batch.groups.insert("job".into(), r#"{"parallelism":2}"#.into());
            batch.job = Some(job(state, succeeded));
            state_of.deployments = vec![batch];
        });
        let text = "deployments: [{name: batch, image: \"web:1\", job: {completions: 3}}]\n";
        let file = peer.file("app.yaml", text);
        let ended = peer.run(&["apply", "-y", "-f", file.to_str().unwrap(), "--timeout", "1500ms"]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}
