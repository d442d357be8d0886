//! Work that is done once, by the kernel's word.

use std::collections::BTreeSet;
use std::time::Duration;

use api::routes;
use api::shapes::{DeploymentRow, JobRow, JobState, NodeState, PsRow, PsState};
use dev::User;
use e2e::{LIMIT, World, eventually, never_within, with_cluster};

use super::ALL;

/// How long something is watched that must not happen.
const WATCHED: Duration = Duration::from_secs(3);

/// What a job of so many runs is, that run this.
fn job<'a>(command: &'a str, job: &'a str) -> [&'a str; 3] {
    [command, "resources: {cpu: 50m, memory: 32Mi, pids: 20}", job]
}

fn standing(world: &World, node: &str, name: &str) -> Result<JobRow, String> {
    let rows: Vec<DeploymentRow> = world.ask(node, routes::DEPLOYMENTS)?;
    let row = rows.into_iter().find(|row| row.name == name).ok_or(format!("{node}: no {name}"))?;
    row.job.ok_or(format!("{name} is no job"))
}

#[track_caller]
fn comes_to(world: &World, nodes: &[&str], name: &str, state: JobState) -> JobRow {
    eventually(LIMIT, || {
        for node in nodes {
            let row = standing(world, node, name)?;
            if row.state != state {
                return Err(format!("{node}: {row:?}"));
            }
        }
        Ok(())
    });
    standing(world, nodes[0], name).unwrap()
}

#[test]
fn a_job_is_waited_for_and_what_is_done_is_not_done_again_when_its_node_is_lost() {
    with_cluster(3, |world| {
        world.image("n1");
        let lines = job("command: [/probe, exit, \"0\"]", "job: {completions: 5, parallelism: 2}");
        let file = world.manifest("batch", &lines);
        let told = world.ok("n2", &["apply", "-f", &file]);
        assert!(told.stderr.contains("done in"), "{told:?}");
        let row = comes_to(world, &ALL, "batch", JobState::Completed);
        assert_eq!((row.succeeded, row.failures.len()), (5, 0));
        let ran = |node: &str| -> Result<BTreeSet<(u32, String)>, String> {
            let rows: Vec<PsRow> = world.ask(node, routes::PS)?;
            let ended =
                rows.into_iter().filter(|row| row.deployment == "batch" && row.state == PsState::Exited);
            Ok(ended.filter_map(|row| Some((row.ordinal, row.container?))).collect())
        };
        let before = ran("n1").unwrap();
        // Where two runs end in one moment the next may begin on two nodes: both count as one.
        let ordinals: BTreeSet<u32> = before.iter().map(|(ordinal, _)| *ordinal).collect();
        assert_eq!(ordinals, (0..5).collect());
        world.kill("n3");
        world.sees("n1", "n3", NodeState::Down);
        never_within(WATCHED, || {
            let row = standing(world, "n1", "batch")?;
            let new = ran("n1")?.difference(&before).count();
            if row.state == JobState::Completed && new == 0 {
                Ok(())
            } else {
                Err(format!("{new} new, {row:?}"))
            }
        });
        world.start("n3");
        world.linked(&ALL);
        comes_to(world, &ALL, "batch", JobState::Completed);
        assert_eq!(ran("n1").unwrap(), before);
    });
}

#[test]
fn a_job_that_fails_or_takes_too_long_ends_apply_with_9_and_says_how_it_ended() {
    with_cluster(3, |world| {
        world.image("n1");
        let lines = job("command: [/probe, exit, \"7\"]", "job: {completions: 4, retries: 1}");
        let told = world.run("n1", User::Alice, &["apply", "-f", &world.manifest("bad", &lines)]);
        assert_eq!(told.code, Some(9), "{told:?}");
        assert!(told.stderr.contains("job bad has failed: 0 of 4 runs are done"), "{told:?}");
        assert!(told.stderr.contains("exited with code 7"), "{told:?}");
        let row = comes_to(world, &ALL, "bad", JobState::Failed);
        assert_eq!(row.failures[0].reason, "exited with code 7");
        let lines = job("command: [/probe, sleep]", "job: {completions: 2, parallelism: 2, deadline: 4s}");
        let told = world.run("n1", User::Alice, &["apply", "-f", &world.manifest("slow", &lines)]);
        assert_eq!(told.code, Some(9), "{told:?}");
        assert!(told.stderr.contains("its 4 s are over"), "{told:?}");
        world.gone(&ALL, "slow");
    });
}

#[test]
fn what_one_side_of_a_split_has_done_the_other_does_not_do_again_after_the_heal() {
    with_cluster(3, |world| {
        world.image("n1");
        // It could.
        world.image("n3");
        world.cut("n1,n2/n3");
        world.sees("n3", "n1", NodeState::Down);
        let lines = job("command: [/probe, exit, \"0\"]", "job: {completions: 2}");
        world.submit("n1", User::Alice, "batch", &lines);
        comes_to(world, &["n1", "n2"], "batch", JobState::Completed);
        world.heal();
        comes_to(world, &ALL, "batch", JobState::Completed);
        never_within(WATCHED, || {
            let rows: Vec<PsRow> = world.ask("n3", routes::PS)?;
            let on_n3 =
                rows.iter().filter(|row| row.deployment == "batch" && row.node.as_deref() == Some("n3"));
            if on_n3.count() == 0 { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    });
}
