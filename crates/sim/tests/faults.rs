//! One fault at a time, each seen to do what it says.

use std::time::Duration;

use sim::{Cluster, Death, Odds, Settings, Spec};

const ALL: [usize; 3] = [0, 1, 2];

/// Three machines that run `web` six times, at rest.
fn at_rest() -> Cluster {
    let mut cluster = Cluster::new(11, 3, Settings::default());
    cluster.run_for(Duration::from_secs(2));
    cluster.apply(0, "web", &Spec::new(6));
    cluster.run_for(Duration::from_secs(5));
    assert!(cluster.runs_once(&ALL, "web", 6), "{}", cluster.trace().join("\n"));
    cluster
}

#[track_caller]
fn comes_to_rest(cluster: &mut Cluster, within: Duration) {
    let rest =
        cluster.run_until(within, |it| it.agreed(&ALL) && it.all_up(&ALL) && it.runs_once(&ALL, "web", 6));
    assert!(rest.is_some(), "not at rest within {within:?}:\n{}", cluster.trace().join("\n"));
    assert_eq!(cluster.violations(), &[] as &[String], "{}", cluster.trace().join("\n"));
}

#[test]
fn a_peer_that_dies_between_any_two_effects_of_an_event_loses_nothing_that_was_acknowledged() {
    for effects in 0..40 {
        let mut cluster = at_rest();
        cluster.die_after(0, effects, Death::Power, Some(Duration::from_secs(1)));
        let event = cluster.set(0, false, "web", "env", r#"{"vars":{"A":"1"}}"#);
        cluster.run_for(Duration::from_secs(4));
        comes_to_rest(&mut cluster, Duration::from_secs(60));
        if matches!(cluster.outcome(event), Some(node::Outcome::Accepted { .. })) {
            assert!(!cluster.acked().is_empty());
        }
    }
}

#[test]
fn a_peer_that_stands_still_for_an_hour_hears_everything_at_once_and_comes_to_rest() {
    let mut cluster = at_rest();
    cluster.pause(1, Duration::from_secs(3_600));
    cluster.run_for(Duration::from_secs(10));
    let others = [0, 2];
    assert!(cluster.runs_once(&others, "web", 6), "the others did not take its share");
    cluster.run_for(Duration::from_secs(3_595));
    comes_to_rest(&mut cluster, Duration::from_secs(30));
}

#[test]
fn a_link_that_flaps_writes_nothing_to_any_journal() {
    let mut cluster = at_rest();
    let before: Vec<usize> = ALL.iter().map(|host| cluster.records_on_disk(*host)).collect();
    cluster.flap(vec![(0, 1), (1, 0)], Duration::from_millis(500), Duration::from_secs(120));
    cluster.run_for(Duration::from_secs(121));
    comes_to_rest(&mut cluster, Duration::from_secs(30));
    let after: Vec<usize> = ALL.iter().map(|host| cluster.records_on_disk(*host)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_sync_that_fails_is_never_followed_by_an_acknowledgement_until_the_peer_starts_again() {
    let mut cluster = at_rest();
    cluster.set_odds(Odds { failed_syncs: 100_000, ..Odds::default() });
    let event = cluster.set(0, false, "web", "env", r#"{"vars":{"A":"1"}}"#);
    cluster.run_for(Duration::from_secs(3));
    assert!(matches!(cluster.outcome(event), Some(node::Outcome::Refused { code: "disk", .. })));
    cluster.set_odds(Odds::default());
    let event = cluster.set(0, false, "web", "env", r#"{"vars":{"A":"2"}}"#);
    cluster.run_for(Duration::from_secs(3));
    assert!(matches!(cluster.outcome(event), Some(node::Outcome::Refused { code: "disk", .. })));
    cluster.stop_peer(0);
    cluster.start(0);
    cluster.run_for(Duration::from_secs(3));
    let event = cluster.set(0, false, "web", "env", r#"{"vars":{"A":"3"}}"#);
    cluster.run_for(Duration::from_secs(3));
    assert!(matches!(cluster.outcome(event), Some(node::Outcome::Accepted { .. })));
    comes_to_rest(&mut cluster, Duration::from_secs(60));
}

#[test]
fn clocks_that_jump_and_stand_still_change_nothing() {
    let mut cluster = at_rest();
    let before = cluster.processes();
    cluster.step_clock(0, -86_400_000);
    cluster.step_clock(1, 315_000_000_000);
    cluster.stop_clock(2, true);
    cluster.run_for(Duration::from_secs(60));
    assert_eq!(cluster.processes(), before);
    cluster.stop_peer(2);
    cluster.start(2);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.processes(), before, "the restart of a peer with a stopped clock moved containers");
    comes_to_rest(&mut cluster, Duration::from_secs(5));
}

#[test]
fn a_machine_without_processes_lets_another_run_its_share() {
    let mut cluster = at_rest();
    cluster.no_pids(0, true);
    let running: Vec<_> = cluster.running(0).map(|(id, _)| *id).collect();
    for id in running {
        cluster.oom_container(0, id);
    }
    cluster.run_for(Duration::from_secs(20));
    let elsewhere = [1, 2];
    assert!(cluster.runs_once(&elsewhere, "web", 6), "{}", cluster.trace().join("\n"));
}

#[test]
fn a_machine_that_joins_takes_its_share_and_one_that_leaves_gives_it_up() {
    let mut cluster = at_rest();
    let joined = cluster.join_new(1).expect("n2 answers");
    let four = [0, 1, 2, joined];
    let up = cluster.run_until(Duration::from_secs(10), |it| it.agreed(&four) && it.all_up(&four));
    assert!(up.is_some(), "{}", cluster.trace().join("\n"));
    cluster.remove_node(0, 2);
    let rest = [0, 1, joined];
    let gone =
        cluster.run_until(Duration::from_secs(20), |it| it.runs_once(&rest, "web", 6) && it.agreed(&rest));
    assert!(gone.is_some(), "{}", cluster.trace().join("\n"));
    assert_eq!(cluster.violations(), &[] as &[String]);
}
