//! Where replicas go, what yields to what, and nodes that are to be looked after; by the kernel's word.

use std::collections::BTreeSet;
use std::time::Duration;

use api::routes;
use api::shapes::{Explain, NodeRow, NodeSchedule, PsRow, PsState};
use dev::User;
use e2e::{Held, LIMIT, World, eventually, never_within, with_cluster, with_cluster_of};

use super::{ALL, lines, quiet};

/// How long something is watched that must not happen.
const WATCHED: Duration = Duration::from_secs(3);

fn nodes_of(held: &[Held]) -> BTreeSet<&str> {
    held.iter().map(|held| held.node.as_str()).collect()
}

/// The lines of [`quiet`] and further ones.
fn quiet_and(replicas: usize, more: &[&str]) -> Vec<String> {
    quiet(replicas).into_iter().chain(more.iter().map(ToString::to_string)).collect()
}

/// Lines of a deployment that asks for so much memory of each node.
fn sized(replicas: usize, memory: &str, priority: &str) -> Vec<String> {
    [
        "command: [/probe, sleep]".to_owned(),
        format!("resources: {{cpu: 50m, memory: {memory}, pids: 20}}"),
        format!("replicas: {replicas}"),
        format!("priority: {priority}"),
    ]
    .into()
}

fn rows_of(world: &World, node: &str, name: &str) -> Result<Vec<PsRow>, String> {
    let rows: Vec<PsRow> = world.ask(node, routes::PS)?;
    Ok(rows.into_iter().filter(|row| row.deployment == name).collect())
}

fn schedule_of(world: &World, node: &str, of: &str) -> Result<NodeSchedule, String> {
    let rows: Vec<NodeRow> = world.ask(node, routes::NODES)?;
    rows.iter().find(|row| row.name == of).map(|row| row.schedule).ok_or(format!("{node} does not know {of}"))
}

#[test]
fn a_global_deployment_runs_one_on_each_node_that_its_constraints_admit() {
    with_cluster(3, |world| {
        world.image("n1");
        let of = quiet_and(1, &["mode: global", "constraints: [\"host != n2\"]"]);
        let of: Vec<&str> = lines(&of).into_iter().filter(|line| !line.starts_with("replicas")).collect();
        world.apply("n3", "agent", &of);
        let held = world.settled(&ALL, "agent", 2);
        assert_eq!(nodes_of(&held), BTreeSet::from(["n1", "n3"]));
        // It waits for the node that lost its power, and runs nowhere in its place.
        world.kill("n3");
        world.sees("n1", "n3", api::shapes::NodeState::Down);
        never_within(WATCHED, || match world.of("agent", &["n2"]).len() + world.of("agent", &["n1"]).len() {
            1 => Ok(()),
            more => Err(format!("{more} run on n1 and n2")),
        });
        world.start("n3");
        world.settled(&ALL, "agent", 2);
        // To none and back.
        world.ok("n1", &["scale", "agent=0"]);
        world.gone(&ALL, "agent");
        let refused = world.run("n1", User::Alice, &["scale", "agent=2"]);
        assert!(refused.ok().is_err(), "one on each node is not two");
        world.ok("n2", &["scale", "agent=1"]);
        world.settled(&ALL, "agent", 2);
    });
}

#[test]
fn near_and_apart_are_kept_whoever_comes_first() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "red", &lines(&quiet_and(1, &["constraints: {host: n2}"])));
        world.apply("n1", "blue", &lines(&quiet_and(2, &["apart: red"])));
        assert_eq!(nodes_of(&world.settled(&ALL, "blue", 2)), BTreeSet::from(["n1", "n3"]));
        world.apply("n3", "helper", &lines(&quiet_and(1, &["near: [red]"])));
        assert_eq!(nodes_of(&world.settled(&ALL, "helper", 1)), BTreeSet::from(["n2"]));
        // `green` may not be where `blue` is, and there is no other place: it says so.
        world.submit("n1", User::Alice, "green", &lines(&quiet_and(1, &["apart: [blue, red]"])));
        eventually(LIMIT, || {
            let rows = rows_of(world, "n2", "green")?;
            let reason = rows.first().and_then(|row| row.reason.clone()).unwrap_or_default();
            let told = ["n1 apart: default/blue runs there", "n2 apart: default/red runs there"];
            if told.iter().all(|words| reason.contains(words)) { Ok(()) } else { Err(reason) }
        });
        world.ok("n1", &["delete", "blue"]);
        assert_eq!(world.settled(&ALL, "green", 1).len(), 1);
    });
}

#[test]
fn what_is_less_important_yields_where_there_is_no_room_and_is_back_when_there_is() {
    with_cluster_of(2, "cpu=4,memory=256Mi,pids=500", |world| {
        let both = ["n1", "n2"];
        world.image("n1");
        world.apply("n1", "batch", &lines(&sized(4, "100Mi", "low")));
        let before = world.settled(&both, "batch", 4);
        world.apply("n2", "till", &lines(&sized(1, "200Mi", "high")));
        let till = world.settled(&both, "till", 1).remove(0);
        // Two of the same node made room, and no more than two.
        let left: BTreeSet<String> = world.of("batch", &both).into_iter().map(|held| held.id).collect();
        let yielded: Vec<&Held> = before.iter().filter(|held| !left.contains(&held.id)).collect();
        assert_eq!(yielded.len(), 2, "{yielded:?}");
        assert!(yielded.iter().all(|held| held.node == till.node), "{yielded:?}");
        let rows = rows_of(world, "n1", "batch").unwrap();
        let pending: Vec<&PsRow> = rows.iter().filter(|row| row.state == PsState::Pending).collect();
        assert_eq!(pending.len(), 2, "{rows:?}");
        assert!(
            pending.iter().all(|row| row.reason.as_ref().is_some_and(|it| it.contains("memory: "))),
            "{rows:?}"
        );
        // Equals wait.
        world.submit("n1", User::Alice, "other", &lines(&sized(1, "200Mi", "high")));
        world.settled(&both, "other", 1);
        world.submit("n1", User::Alice, "late", &lines(&sized(1, "200Mi", "high")));
        never_within(WATCHED, || {
            let (till, late) = (world.of("till", &both).len(), world.of("late", &both).len());
            if (till, late) == (1, 0) { Ok(()) } else { Err(format!("till {till}, late {late}")) }
        });
        world.ok("n1", &["delete", "till", "late", "other"]);
        world.settled(&both, "batch", 4);
    });
}

#[test]
fn a_drained_node_is_empty_and_no_replica_is_missing_meanwhile() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "web", &lines(&quiet(6)));
        world.settled(&ALL, "web", 6);
        let refused = world.run("n1", User::Alice, &["node", "drain", "n9"]);
        assert!(refused.ok().is_err());
        world.ok("n1", &["node", "drain", "n2", "--detach"]);
        // By the kernel, at each look, each replica has a container.
        eventually(LIMIT, || {
            let held = world.at_once("web", &ALL);
            let ordinals: BTreeSet<&str> = held.iter().map(Held::ordinal).collect();
            assert_eq!(ordinals.len(), 6, "a replica is missing: {held:?}");
            let left = held.iter().filter(|held| held.node == "n2").count();
            if left == 0 { Ok(()) } else { Err(format!("{left} are left on n2")) }
        });
        world.settled(&["n1", "n3"], "web", 6);
        eventually(LIMIT, || match schedule_of(world, "n3", "n2")? {
            NodeSchedule::Drained => Ok(()),
            other => Err(format!("n3 knows n2 as {other:?}")),
        });
        // Nothing new comes, and `explain` says why.
        world.ok("n3", &["scale", "web=8"]);
        world.settled(&["n1", "n3"], "web", 8);
        let explain: Explain = world.json("n1", &["explain", "web"]);
        let why = explain.nodes.iter().find(|row| row.node == "n2").unwrap();
        assert!(!why.fits && why.why.starts_with("drains"), "{why:?}");
        // It survives a restart of the peer, and ends when somebody says so.
        world.stop("n2");
        world.start("n2");
        world.linked(&ALL);
        assert_eq!(schedule_of(world, "n2", "n2").unwrap(), NodeSchedule::Drained);
        world.ok("n2", &["node", "uncordon", "n2"]);
        world.ok("n2", &["scale", "web=12"]);
        let held = world.settled(&ALL, "web", 12);
        assert!(held.iter().any(|held| held.node == "n2"), "{held:?}");
    });
}

#[test]
fn a_cordoned_node_keeps_what_it_runs_and_the_last_that_takes_work_is_not_drained_unasked() {
    with_cluster(2, |world| {
        let both = ["n1", "n2"];
        world.image("n1");
        world.apply("n1", "web", &lines(&quiet(2)));
        let before = world.settled(&both, "web", 2);
        world.ok("n1", &["node", "cordon", "n2"]);
        world.ok("n1", &["scale", "web=5"]);
        let after = world.settled(&both, "web", 5);
        assert_eq!(after.iter().filter(|held| held.node == "n2").count(), 1);
        assert!(before.iter().all(|held| after.iter().any(|it| it.id == held.id)), "something moved");
        let refused = world.run("n2", User::Alice, &["node", "drain", "n1"]);
        let told = refused.ok().unwrap_err().to_string();
        assert!(told.contains("no other node is up and takes work"), "{told}");
        // With a deadline what has nowhere to go is stopped.
        world.ok("n2", &["node", "drain", "n1", "--force", "--deadline", "2s", "--detach"]);
        world.gone(&["n1"], "web");
        world.ok("n2", &["node", "uncordon", "n1"]);
        world.settled(&both, "web", 5);
    });
}

#[test]
fn each_side_of_a_split_makes_room_for_what_is_important() {
    with_cluster_of(2, "cpu=4,memory=256Mi,pids=500", |world| {
        let both = ["n1", "n2"];
        world.image("n1");
        world.apply("n1", "batch", &lines(&sized(2, "100Mi", "low")));
        world.apply("n1", "till", &lines(&sized(2, "120Mi", "critical")));
        world.settled(&both, "batch", 2);
        world.settled(&both, "till", 2);
        world.cut("n1/n2");
        for side in both {
            world.settled(&[side], "till", 2);
            world.gone(&[side], "batch");
        }
        world.heal();
        world.settled(&both, "till", 2);
        world.settled(&both, "batch", 2);
    });
}
