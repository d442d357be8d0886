//! How a new version reaches the replicas, and how it is taken back; by the kernel's word.

use std::collections::BTreeSet;

use api::routes;
use api::shapes::{Applied, DeploymentRow};
use dev::User;
use e2e::{Held, LIMIT, World, eventually, never_within, with_cluster, with_cluster_of};
use std::time::Duration;

use super::{ALL, lines, quiet};

/// How long something is watched that must not happen.
const WATCHED: Duration = Duration::from_secs(3);

/// The lines of a version of a deployment.
fn version(replicas: usize, version: &str, more: &[&str]) -> Vec<String> {
    let mut lines = quiet(replicas);
    lines.push(format!("env: {{VERSION: \"{version}\"}}"));
    lines.extend(more.iter().map(ToString::to_string));
    lines
}

fn versions(held: &[Held]) -> BTreeSet<&str> {
    held.iter().map(|held| held.var("VERSION")).collect()
}

fn count(held: &[Held], version: &str) -> usize {
    held.iter().filter(|held| held.var("VERSION") == version).count()
}

fn row(world: &World, name: &str) -> Result<DeploymentRow, String> {
    let rows: Vec<DeploymentRow> = world.ask("n1", routes::DEPLOYMENTS)?;
    rows.into_iter().find(|row| row.name == name).ok_or(format!("{name} is not there"))
}

/// Runs a command of alice's that must end with that code; its words.
#[track_caller]
fn ends_with(world: &World, node: &str, args: &[&str], code: i32) -> String {
    let answer = world.run(node, User::Alice, args);
    assert_eq!(answer.code, Some(code), "{args:?}: {answer:?}");
    answer.stderr
}

#[test]
fn a_version_that_never_comes_up_is_rolled_back_by_itself_and_apply_says_so() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "web", &lines(&version(4, "1", &[])));
        let before = world.settled(&ALL, "web", 4);
        let bad = version(4, "2", &[]);
        let bad: Vec<String> =
            bad.into_iter()
                .map(|line| {
                    if line.starts_with("command") {
                        "command: [/probe, exit, \"3\"]".to_owned()
                    } else {
                        line
                    }
                })
                .collect();
        let file = world.manifest("web", &lines(&bad));
        let told = ends_with(world, "n2", &["apply", "-f", &file], 5);
        assert!(told.contains("v2 of web did not come up") && told.contains("v1 runs again"), "{told}");
        // Of the four, three were never touched.
        let after = world.settled(&ALL, "web", 4);
        assert_eq!(versions(&after), BTreeSet::from(["1"]));
        let kept = after.iter().filter(|held| before.iter().any(|it| it.id == held.id)).count();
        assert_eq!(kept, 4, "the one whose turn it was stayed beside the new one");
        let failed = row(world, "web").unwrap().failed.unwrap();
        assert_eq!((failed.revision, failed.back_to), (2, Some(1)));
        // It outlives the peer that saw it first.
        world.stop(&failed.node);
        world.start(&failed.node);
        world.linked(&ALL);
        never_within(WATCHED, || {
            let tried = versions(&world.of("web", &ALL)).contains("2");
            if tried { Err("v2 is tried again".to_owned()) } else { Ok(()) }
        });
        // The next one is tried anew.
        world.apply("n3", "web", &lines(&version(4, "3", &[])));
        assert_eq!(versions(&world.settled(&ALL, "web", 4)), BTreeSet::from(["3"]));
        assert!(row(world, "web").unwrap().failed.is_none());
    });
}

#[test]
fn on_full_machines_one_is_stopped_first_where_it_may_be_missing_and_never_two() {
    with_cluster_of(2, "cpu=4,memory=128Mi,pids=500", |world| {
        let both = ["n1", "n2"];
        let full = ["resources: {cpu: 50m, memory: 60Mi, pids: 20}", "update: {unavailable: 1}"];
        let of = |number: &str| {
            let all = version(4, number, &full);
            all.into_iter().filter(|line| !line.contains("32Mi")).collect::<Vec<_>>()
        };
        world.image("n1");
        world.apply("n1", "web", &lines(&of("1")));
        world.settled(&both, "web", 4);
        world.submit("n2", User::Alice, "web", &lines(&of("2")));
        eventually(LIMIT, || {
            let held = world.at_once("web", &both);
            let running: BTreeSet<&str> = held.iter().map(Held::ordinal).collect();
            assert!(running.len() >= 3, "more than one is missing: {held:?}");
            match count(&held, "2") {
                4 => Ok(()),
                new => Err(format!("{new} of 4 are new")),
            }
        });
        world.settled(&both, "web", 4);
    });
}

#[test]
fn without_leave_to_be_missing_a_full_cluster_keeps_the_old_and_says_what_to_do() {
    with_cluster_of(1, "cpu=4,memory=128Mi,pids=500", |world| {
        let of = |number: &str| {
            let all = version(2, number, &["resources: {cpu: 50m, memory: 60Mi, pids: 20}"]);
            all.into_iter().filter(|line| !line.contains("32Mi")).collect::<Vec<_>>()
        };
        world.image("n1");
        world.apply("n1", "web", &lines(&of("1")));
        let before = world.settled(&["n1"], "web", 2);
        let file = world.manifest("web", &lines(&of("2")));
        let told = ends_with(world, "n1", &["apply", "-f", &file], 4);
        assert!(told.contains("update: {unavailable: 1}"), "{told}");
        let after = world.of("web", &["n1"]);
        assert!(before.iter().all(|held| after.iter().any(|it| it.id == held.id)), "{after:?}");
    });
}

#[test]
fn canaries_wait_for_a_person_who_lets_the_others_follow_or_takes_it_back() {
    with_cluster(3, |world| {
        let of = |number: &str| version(5, number, &["update: {canary: 2, surge: 2}"]);
        world.image("n1");
        world.apply("n1", "web", &lines(&of("1")));
        world.settled(&ALL, "web", 5);
        // `apply` ends once the canaries run.
        let applied: Applied = world.apply("n2", "web", &lines(&of("2")));
        assert_eq!(applied.reason, None);
        never_within(WATCHED, || match count(&world.of("web", &ALL), "2") {
            2 => Ok(()),
            new => Err(format!("{new} are new")),
        });
        world.ok("n3", &["promote", "web"]);
        assert_eq!(versions(&world.settled(&ALL, "web", 5)), BTreeSet::from(["2"]));
        // The next version begins with canaries again, and is taken back.
        world.apply("n1", "web", &lines(&of("3")));
        eventually(LIMIT, || match count(&world.of("web", &ALL), "3") {
            2 => Ok(()),
            new => Err(format!("{new} are new")),
        });
        world.ok("n1", &["undo", "web"]);
        assert_eq!(versions(&world.settled(&ALL, "web", 5)), BTreeSet::from(["2"]));
        let told = ends_with(world, "n1", &["promote", "nobody"], 1);
        assert!(told.contains("nobody"), "{told}");
    });
}

#[test]
fn a_paused_update_stays_where_it_is_until_it_may_go_on() {
    with_cluster(2, |world| {
        let both = ["n1", "n2"];
        let of = |number: &str| version(4, number, &["update: {min-healthy: 2s}"]);
        world.image("n1");
        world.apply("n1", "web", &lines(&of("1")));
        world.settled(&both, "web", 4);
        world.submit("n1", User::Alice, "web", &lines(&of("2")));
        eventually(LIMIT, || match count(&world.of("web", &both), "2") {
            1.. => Ok(()),
            0 => Err("none is new".to_owned()),
        });
        world.ok("n2", &["pause", "web"]);
        // What had begun ends; then nothing changes.
        eventually(LIMIT, || match world.of("web", &both).len() {
            4 => Ok(()),
            running => Err(format!("{running} run")),
        });
        let before: BTreeSet<String> = world.of("web", &both).into_iter().map(|held| held.id).collect();
        never_within(WATCHED, || {
            let now: BTreeSet<String> = world.of("web", &both).into_iter().map(|held| held.id).collect();
            if now == before { Ok(()) } else { Err(format!("{before:?} are now {now:?}")) }
        });
        assert!(row(world, "web").unwrap().paused);
        world.ok("n1", &["resume", "web"]);
        assert_eq!(versions(&world.settled(&both, "web", 4)), BTreeSet::from(["2"]));
    });
}

#[test]
fn blue_runs_beside_green_until_all_of_it_is_well() {
    with_cluster(2, |world| {
        let both = ["n1", "n2"];
        let of = |number: &str| version(3, number, &["update: {strategy: blue-green, min-healthy: 3s}"]);
        world.image("n1");
        world.apply("n1", "web", &lines(&of("1")));
        world.settled(&both, "web", 3);
        world.submit("n2", User::Alice, "web", &lines(&of("2")));
        let mut doubled = false;
        eventually(LIMIT, || {
            let held = world.at_once("web", &both);
            let (old, new) = (count(&held, "1"), count(&held, "2"));
            assert!(old == 3 || new == 3, "{old} old and {new} new ones run");
            doubled |= (old, new) == (3, 3);
            if (old, new) == (0, 3) { Ok(()) } else { Err(format!("{old} old and {new} new ones run")) }
        });
        assert!(doubled, "all of both ran at one time");
    });
}
