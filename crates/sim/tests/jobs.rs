//! Programs that end for good, by their restart policy: what stands for a replica then, and what goes.

use std::time::Duration;

use model::{ContainerId, RestartPolicy};
use sim::{Cluster, Settings, Spec};

const SECOND: Duration = Duration::from_secs(1);

/// Three machines that run a job so many times.
fn with_job(policy: RestartPolicy, count: u32) -> Cluster {
    let mut cluster = Cluster::new(31, 3, Settings::default());
    let up = cluster.run_until(5 * SECOND, |it| it.all_up(&[0, 1, 2]) && it.agreed(&[0, 1, 2]));
    assert!(up.is_some(), "the cluster never came up");
    let mut spec = Spec::new(count);
    spec.restart.policy = policy;
    cluster.apply(0, "web", &spec);
    let runs = cluster.run_until(5 * SECOND, |it| it.runs_once(&[0, 1, 2], "web", count as usize));
    assert!(runs.is_some(), "the job does not run");
    cluster.run_for(3 * SECOND);
    cluster
}

/// What there is of any container, running or not.
fn left(cluster: &Cluster) -> Vec<(usize, ContainerId)> {
    let of = |host: usize| cluster.containers(host).map(move |(id, _)| (host, *id));
    (0..cluster.len()).flat_map(of).collect()
}

fn finish(cluster: &mut Cluster, code: i32) {
    for (host, id, _) in cluster.processes() {
        cluster.crash_container(host, id, code);
    }
}

#[test]
fn what_ended_by_its_policy_stays_ended_through_restarts_and_power_cuts() {
    for (policy, code) in [(RestartPolicy::OnFailure, 0), (RestartPolicy::Never, 3)] {
        let mut cluster = with_job(policy, 3);
        finish(&mut cluster, code);
        let ended = left(&cluster);
        cluster.run_for(30 * SECOND);
        cluster.stop_peer(0);
        cluster.power_off(1);
        cluster.run_for(SECOND);
        cluster.start(0);
        cluster.start(1);
        cluster.run_for(30 * SECOND);
        assert!(cluster.processes().is_empty(), "{}", cluster.trace().join("\n"));
        assert_eq!(left(&cluster), ended);
    }
}

/// Nobody confirmed what had ended on another machine, as it held no room: each change of a job left one
/// more container behind, for ever.
#[test]
fn what_is_left_of_a_job_goes_once_another_revision_is_wanted() {
    let mut cluster = with_job(RestartPolicy::Never, 3);
    for round in 0..5 {
        finish(&mut cluster, 0);
        cluster.run_for(SECOND);
        let ended = left(&cluster);
        // Another machine than the one it ended on may have more room.
        let json = format!(r#"{{"cpu_m":{},"memory_b":67108864,"pids":64}}"#, 101 + round);
        cluster.set(round % 3, false, "web", "resources", &json);
        cluster.run_for(20 * SECOND);
        assert!(cluster.runs_once(&[0, 1, 2], "web", 3), "{}", cluster.trace().join("\n"));
        let both: Vec<_> = left(&cluster).into_iter().filter(|it| ended.contains(it)).collect();
        assert!(both.is_empty(), "round {round}: {both:?} are left: {}", cluster.trace().join("\n"));
    }
}

/// The new container ended before it could confirm the old one, which ran on for ever beside it.
#[test]
fn an_old_revision_stops_when_the_new_one_has_done_its_work_at_once() {
    let mut cluster = with_job(RestartPolicy::OnFailure, 1);
    let old = cluster.processes()[0];
    cluster.set(0, false, "web", "env", r#"{"vars":{"V":"2"}}"#);
    let both = cluster.run_until(5 * SECOND, |it| it.processes().len() == 2);
    assert!(both.is_some(), "no second one: {}", cluster.trace().join("\n"));
    let new = cluster.processes().into_iter().find(|it| *it != old).expect("it was there a moment ago");
    cluster.crash_container(new.0, new.1, 0);
    cluster.run_for(10 * SECOND);
    assert!(cluster.processes().is_empty(), "{}", cluster.trace().join("\n"));
    assert_eq!(left(&cluster), [(new.0, new.1)]);
}

/// What is being removed was told as ended: for a moment the replica passed for done, and an old copy that
/// still ran would have gone.
#[test]
fn a_start_that_failed_does_not_pass_for_a_job_that_is_done() {
    let mut cluster = with_job(RestartPolicy::OnFailure, 1);
    let old = cluster.processes()[0];
    cluster.set_start_failures(1_000);
    cluster.set(0, false, "web", "env", r#"{"vars":{"V":"2"}}"#);
    // Not so long that the new version is given up.
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.processes(), [old], "{}", cluster.trace().join("\n"));
    cluster.set_start_failures(0);
    let replaced = cluster.run_until(60 * SECOND, |it| it.processes().len() == 1 && it.processes()[0] != old);
    assert!(replaced.is_some(), "{}", cluster.trace().join("\n"));
}
