//! What waits for what, by the kernel's word.

use std::time::Duration;

use api::routes;
use api::shapes::{DeploymentRow, Explain, PsRow};
use dev::User;
use e2e::{LIMIT, World, eventually, never_within, with_cluster};

use super::{ALL, lines, quiet};

/// How long something is watched that must not happen.
const WATCHED: Duration = Duration::from_secs(3);

fn quiet_and(replicas: usize, more: &[&str]) -> Vec<String> {
    quiet(replicas).into_iter().chain(more.iter().map(ToString::to_string)).collect()
}

fn reason(world: &World, node: &str, name: &str) -> Result<String, String> {
    let rows: Vec<PsRow> = world.ask(node, routes::PS)?;
    let row =
        rows.into_iter().find(|row| row.deployment == name).ok_or(format!("{node}: no row of {name}"))?;
    Ok(row.reason.unwrap_or_default())
}

/// Waits until that node says that of why the deployment does not run.
#[track_caller]
fn says(world: &World, node: &str, name: &str, words: &str) {
    eventually(LIMIT, || match reason(world, node, name)? {
        it if it.contains(words) => Ok(()),
        other => Err(other),
    });
}

#[test]
fn what_depends_on_others_starts_after_them_and_stays_when_they_go() {
    with_cluster(3, |world| {
        world.image("n1");
        let web = quiet_and(2, &["depends-on: {db: healthy, migrate: completed}"]);
        let told =
            world.run("n1", User::Alice, &["apply", "-f", &world.manifest("web", &lines(&web)), "--detach"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stderr.contains("web: waits for `db`, and there is no such deployment"), "{told:?}");
        says(world, "n3", "web", "waits for db to be healthy: there is no valid deployment db");
        world.apply("n2", "db", &lines(&quiet(1)));
        says(world, "n1", "web", "waits for migrate to be completed");
        never_within(WATCHED, || match world.of("web", &ALL).len() {
            0 => Ok(()),
            some => Err(format!("{some} of web run")),
        });
        let migrate = ["command: [/probe, exit, \"0\"]", "restart: on-failure", "depends-on: [db]"];
        world.submit("n1", User::Alice, "migrate", &migrate);
        let before = world.settled(&ALL, "web", 2);
        world.ok("n1", &["delete", "db", "migrate"]);
        world.gone(&ALL, "db");
        never_within(WATCHED, || {
            let now = world.of("web", &ALL);
            let same = now.len() == 2 && now.iter().all(|held| before.iter().any(|it| it.id == held.id));
            if same { Ok(()) } else { Err(format!("{before:?} became {now:?}")) }
        });
        let explain: Explain = world.json("n2", &["explain", "web"]);
        assert!(explain.replicas.iter().all(|row| row.node.is_some()), "{explain:?}");
    });
}

#[test]
fn a_cycle_is_refused_by_name_and_one_that_a_heal_makes_runs_and_is_told() {
    with_cluster(3, |world| {
        world.image("n1");
        world.image("n3");
        world.cut("n1,n2/n3");
        world.submit("n1", User::Alice, "a", &lines(&quiet_and(1, &["depends-on: [b]"])));
        world.submit("n3", User::Alice, "b", &lines(&quiet_and(1, &["depends-on: {a: started}"])));
        says(world, "n2", "a", "waits for b to be healthy: there is no valid deployment b");
        says(world, "n3", "b", "waits for a to be started: there is no valid deployment a");
        world.heal();
        world.settled(&ALL, "a", 1);
        world.settled(&ALL, "b", 1);
        eventually(LIMIT, || {
            let rows: Vec<DeploymentRow> = world.ask("n2", routes::DEPLOYMENTS)?;
            let cycles: Vec<&str> = rows.iter().flat_map(|row| &row.cycles).map(String::as_str).collect();
            if cycles == ["a -> b -> a", "b -> a -> b"] { Ok(()) } else { Err(format!("{cycles:?}")) }
        });
        let told = world.ok("n1", &["status"]).stdout;
        assert!(told.contains("a -> b -> a"), "{told}");
        // A person who makes one is told at once.
        let file = world.manifest("c", &lines(&quiet_and(1, &["depends-on: [b]"])));
        world.ok("n1", &["apply", "-f", &file, "--detach"]);
        let file = world.manifest("b", &lines(&quiet_and(1, &["depends-on: {c: healthy}"])));
        let refused = world.run("n1", User::Alice, &["apply", "-f", &file]);
        assert!(
            refused.code == Some(1) && refused.stderr.contains("b would wait for itself: b -> c -> b"),
            "{refused:?}"
        );
    });
}
