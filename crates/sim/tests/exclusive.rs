//! At most one: what a cut, a dead peer, voters that restart and a change of voters do to an exclusive replica.
//! The simulator holds S7 against every start by itself; these say when and where.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use model::{Name, NodeId};
use sim::{Cluster, Settings, Spec};

const SECOND: Duration = Duration::from_secs(1);

/// The term of a lease, less a fiftieth: by then whoever is cut off runs nothing.
const HELD: Duration = Duration::from_millis(9_800);

/// The term, a twentieth more that voters wait, and what finding the loss and asking again takes.
const TAKEN_OVER: Duration = Duration::from_millis(12_500);

fn spec(voters: &[&str]) -> Spec {
    Spec { voters: voters.iter().map(ToString::to_string).collect(), ..Spec::new(1) }
}

fn cluster(nodes: usize, seed: u64, voters: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(seed, nodes, Settings::default());
    cluster.run_for(SECOND * 2);
    cluster.apply(0, "till", &spec(voters));
    cluster.run_for(SECOND * 10);
    assert_eq!(holders(&cluster).len(), 1, "{:?}", cluster.violations());
    cluster
}

/// Where it runs, by the kernels' word.
fn holders(cluster: &Cluster) -> Vec<usize> {
    cluster.processes().into_iter().map(|(host, ..)| host).collect()
}

fn fence(cluster: &Cluster) -> u64 {
    let host = holders(cluster)[0];
    cluster.running(host).next().unwrap().1.claim.fence.unwrap()
}

fn well(cluster: &Cluster) {
    assert_eq!(cluster.violations(), &[] as &[String]);
}

#[test]
fn a_holder_that_is_cut_off_stops_within_the_term_and_then_the_other_side_runs_it() {
    for seed in 0..8 {
        let mut cluster = cluster(3, seed, &["n1", "n2", "n3"]);
        let (lost, before) = (holders(&cluster)[0], fence(&cluster));
        let rest: Vec<usize> = (0..3).filter(|host| *host != lost).collect();
        cluster.split(&[&[lost], &rest]);
        let stopped = cluster.run_until(HELD, |it| holders(it).is_empty());
        assert!(stopped.is_some(), "seed {seed}: n{} still runs it", lost + 1);
        let started =
            cluster.run_until(TAKEN_OVER.saturating_sub(stopped.unwrap()), |it| !holders(it).is_empty());
        assert!(started.is_some(), "seed {seed}: nobody runs it");
        assert!(rest.contains(&holders(&cluster)[0]));
        assert!(fence(&cluster) > before);
        cluster.run_for(SECOND * 20);
        cluster.heal();
        cluster.run_for(SECOND * 20);
        assert_eq!(holders(&cluster).len(), 1);
        well(&cluster);
    }
}

#[test]
fn a_container_whose_peer_is_dead_ends_at_its_deadline() {
    for seed in 0..8 {
        let mut cluster = cluster(3, seed, &["n1", "n2", "n3"]);
        let lost = holders(&cluster)[0];
        cluster.stop_peer(lost);
        let stopped = cluster.run_until(HELD, |it| holders(it).is_empty());
        assert!(stopped.is_some_and(|it| it > SECOND * 7), "seed {seed}: {stopped:?}");
        assert!(cluster.run_until(SECOND * 4, |it| !holders(it).is_empty()).is_some(), "seed {seed}");
        assert_ne!(holders(&cluster), [lost]);
        cluster.start(lost);
        cluster.run_for(SECOND * 20);
        assert_eq!(holders(&cluster).len(), 1);
        well(&cluster);
    }
}

#[test]
fn a_peer_that_is_started_again_in_time_takes_its_lease_over_and_nothing_is_restarted() {
    let mut cluster = cluster(3, 5, &["n1", "n2", "n3"]);
    let (host, before) = (holders(&cluster)[0], cluster.processes());
    cluster.stop_peer(host);
    cluster.run_for(SECOND * 2);
    cluster.start(host);
    cluster.run_for(SECOND * 30);
    assert_eq!(cluster.processes(), before);
    well(&cluster);
}

#[test]
fn voters_that_lose_power_together_grant_nothing_to_others_for_a_term() {
    // Goal: what is on their disks binds them. Method: the holder is out of reach of all when they come back.
    for seed in 0..8 {
        let mut cluster = cluster(4, seed, &["n1", "n2", "n3"]);
        let holder = holders(&cluster)[0];
        let others: Vec<usize> = (0..4).filter(|host| *host != holder).collect();
        cluster.split(&[&[holder], &others]);
        for host in &others {
            cluster.power_off(*host);
            cluster.start(*host);
        }
        let stopped = cluster.run_until(HELD, |it| holders(it).is_empty());
        assert!(stopped.is_some(), "seed {seed}: n{} still runs it", holder + 1);
        assert!(cluster.run_until(SECOND * 8, |it| !holders(it).is_empty()).is_some(), "seed {seed}");
        well(&cluster);
    }
}

#[test]
fn with_one_voter_it_runs_there_alone_and_a_peer_that_is_away_ends_nothing() {
    let mut cluster = cluster(2, 3, &["n2"]);
    assert_eq!(holders(&cluster), [1]);
    let before = cluster.processes();
    cluster.stop_peer(1);
    cluster.run_for(SECOND * 60);
    assert_eq!(cluster.processes(), before);
    cluster.power_off(1);
    cluster.run_for(SECOND * 60);
    assert_eq!(holders(&cluster), [] as [usize; 0]);
    let explained = cluster.node(0).unwrap().explain(&Name::default_namespace(), &"till".parse().unwrap());
    let why = explained.unwrap().nodes[&cluster.id(0)].one_more.clone().unwrap_err();
    assert_eq!(why.to_string(), "voters: runs on n2 alone, its only voter");
    cluster.start(1);
    cluster.run_for(SECOND * 10);
    assert_eq!(holders(&cluster), [1]);
    well(&cluster);
}

#[test]
fn a_side_without_a_majority_has_no_place_for_it_and_says_so() {
    let mut cluster = cluster(3, 4, &["n1", "n2", "n3"]);
    let lost = holders(&cluster)[0];
    let rest: Vec<usize> = (0..3).filter(|host| *host != lost).collect();
    cluster.split(&[&[lost], &rest]);
    cluster.run_for(SECOND * 20);
    let explained = cluster.node(lost).unwrap().explain(&Name::default_namespace(), &"till".parse().unwrap());
    let why = explained.unwrap().nodes[&cluster.id(lost)].one_more.clone().unwrap_err();
    assert_eq!(why.to_string(), "voters: 1 of 3 in reach, 2 needed");
    well(&cluster);
}

#[test]
fn other_voters_make_no_deployment_and_what_runs_is_kept() {
    let mut cluster = cluster(4, 6, &["n1", "n2", "n3"]);
    let before = cluster.processes();
    let ids: Vec<NodeId> = vec![cluster.id(3)];
    let json = format!(r#"{{"count":1,"class":"exclusive","voters":["{}"]}}"#, ids[0]);
    cluster.set(0, false, "till", "replicas", &json);
    cluster.run_for(SECOND * 30);
    assert_eq!(cluster.processes(), before);
    let documents = cluster.node(2).unwrap().documents();
    let view = documents.get(&Name::default_namespace(), &"till".parse().unwrap()).unwrap();
    let error = view.deployment.as_ref().unwrap_err().to_string();
    assert!(error.starts_with("voters: cannot be changed: "), "{error}");
    cluster.set(0, false, "till", "replicas", r#"{"count":1,"class":"available"}"#);
    cluster.run_for(SECOND * 30);
    assert_eq!(cluster.processes(), before);
    well(&cluster);
}
