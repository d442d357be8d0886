//! L12: machines that reach their neighbours only. What one knows of another far away it knows by the
//! word of those between, and everything converges all the same.
#![allow(clippy::print_stdout, reason = "figures are seen with --nocapture")]

use std::time::Duration;

use sim::{Cluster, Settings, Spec};

const SECOND: Duration = Duration::from_secs(1);

/// So many machines that all see one another and plan alike.
fn up(seed: u64, nodes: usize) -> (Cluster, Vec<usize>) {
    let mut cluster = Cluster::new(seed, nodes, Settings::default());
    let all: Vec<usize> = (0..nodes).collect();
    let up = cluster.run_until(5 * SECOND, |it| it.all_up(&all) && it.agreed(&all));
    assert!(up.is_some(), "the cluster never came up");
    (cluster, all)
}

/// So many machines in a line, at rest, that run `web` with as many replicas, each one all of them: they
/// were all apart when they were put in line.
fn meet_in_a_line(seed: u64, nodes: usize) -> (Cluster, Vec<usize>) {
    let (mut cluster, all) = up(seed, nodes);
    cluster.apply(0, "web", &Spec::new(u32::try_from(nodes).expect("small")));
    cluster.run_for(5 * SECOND);
    let alone: Vec<[usize; 1]> = all.iter().map(|host| [*host]).collect();
    let islands: Vec<&[usize]> = alone.iter().map(<[usize; 1]>::as_slice).collect();
    cluster.split(&islands);
    let apart = |it: &Cluster| all.iter().all(|host| it.running(*host).count() == nodes);
    assert!(cluster.run_until(20 * SECOND, apart).is_some(), "not on each island");
    cluster.run_for(3 * SECOND);
    cluster.line(&all);
    (cluster, all)
}

#[test]
fn islands_that_meet_in_a_line_end_with_one_copy_of_each_and_stay_so() {
    for (nodes, seed) in (3..=8).flat_map(|nodes| (0..3).map(move |seed| (nodes, seed))) {
        let (mut cluster, all) = meet_in_a_line(seed, nodes);
        let took = cluster.run_until(30 * SECOND, |it| it.runs_once(&all, "web", nodes) && it.agreed(&all));
        let told = |cluster: &Cluster| cluster.trace().join("\n");
        let took = took.unwrap_or_else(|| panic!("{nodes} in a line, seed {seed}:\n{}", told(&cluster)));
        println!("{nodes} in a line: one of each after {took:?}");
        cluster.run_for(5 * SECOND);
        let before = cluster.processes();
        cluster.run_for(60 * SECOND);
        assert_eq!(cluster.processes(), before, "{nodes}, seed {seed}: {}", told(&cluster));
        assert_eq!(cluster.violations(), &[] as &[String]);
    }
}

/// A machine that was cut off meets one of the others again, and reaches the rest through it alone.
#[test]
fn of_two_copies_on_machines_that_meet_through_a_third_one_is_kept() {
    for seed in 0..6 {
        let (mut cluster, all) = up(seed, 3);
        cluster.apply(0, "web", &Spec::new(3));
        cluster.run_for(5 * SECOND);
        cluster.split(&[&[0], &[1, 2]]);
        let apart =
            |it: &Cluster| it.running(0).count() == 3 && it.running(1).count() + it.running(2).count() == 3;
        assert!(cluster.run_until(20 * SECOND, apart).is_some(), "not on each island");
        cluster.run_for(3 * SECOND);
        cluster.line(&all);
        let took = cluster.run_until(20 * SECOND, |it| it.runs_once(&all, "web", 3) && it.agreed(&all));
        let told = cluster.trace().join("\n");
        println!(
            "seed {seed}: one of each after {:?}",
            took.unwrap_or_else(|| panic!("seed {seed}:\n{told}"))
        );
        assert_eq!(cluster.violations(), &[] as &[String]);
    }
}

#[test]
fn a_change_crosses_a_line_from_end_to_end() {
    for nodes in 3..=8 {
        let (mut cluster, all) = meet_in_a_line(1, nodes);
        cluster.run_for(30 * SECOND);
        cluster.set(0, false, "web", "replicas", r#"{"count":9,"class":"available"}"#);
        let took = cluster.run_until(10 * SECOND, |it| it.same_heads(&all) && it.runs_once(&all, "web", 9));
        let told = cluster.trace().join("\n");
        println!(
            "{nodes} in a line: nine run after {:?}",
            took.unwrap_or_else(|| panic!("{nodes}:\n{told}"))
        );
    }
}

/// A record is passed on at once, and the admission of its node once it is written: the one is there before the
/// other, and is not taken.
#[test]
fn who_joined_on_an_island_and_is_gone_is_known_at_the_far_end_of_a_line_at_once() {
    for seed in 0..6 {
        let (mut cluster, all) = up(seed, 3);
        cluster.split(&[&[0], &[1, 2]]);
        cluster.run_for(5 * SECOND);
        let joined = cluster.join_new(0).expect("n1 answers");
        let id = cluster.id(joined);
        let knows = |it: &Cluster, host: usize| {
            it.node(host).is_some_and(|node| node.records().iter().any(|record| record.node == id))
        };
        assert!(cluster.run_until(5 * SECOND, |it| knows(it, 0)).is_some(), "the new one was not let in");
        cluster.power_off(joined);
        cluster.line(&all);
        let took = cluster.run_until(3 * SECOND, |it| all.iter().all(|host| knows(it, *host)));
        let told = cluster.trace().join("\n");
        println!(
            "seed {seed}: known to all after {:?}",
            took.unwrap_or_else(|| panic!("seed {seed}:\n{told}"))
        );
        assert_eq!(cluster.violations(), &[] as &[String]);
    }
}

/// The word of a machine that is reached through others counts after two seconds only. What it is linked to is
/// believed at once, or the far end of the line would give up whoever it knows through it.
#[test]
fn the_far_end_of_a_line_gives_up_nobody_while_a_peer_between_is_started_again() {
    for seed in 0..12 {
        let (mut cluster, all) = up(seed, 4);
        cluster.apply(0, "web", &Spec::new(4));
        cluster.run_for(5 * SECOND);
        let before = cluster.processes();
        cluster.line(&all);
        cluster.stop_peer(1);
        cluster.run_for(Duration::from_millis(100 * seed));
        cluster.start(1);
        cluster.run_for(20 * SECOND);
        assert_eq!(cluster.processes(), before, "seed {seed}:\n{}", cluster.trace().join("\n"));
        assert_eq!(cluster.violations(), &[] as &[String]);
    }
}
