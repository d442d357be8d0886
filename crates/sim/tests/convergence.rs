//! How soon a cluster that was cut in half, and changed on both sides, is one again: documents and plans
//! alike on all peers, on a simulated LAN, from the moment of the heal. Time is virtual, so it is a figure
//! of the protocol and not of the machine that runs this. `CONVERGENCE_NODES=300` measures one size more.
#![allow(clippy::print_stdout, reason = "figures are seen with --nocapture")]

use std::time::Duration;

use sim::{Cluster, Settings, Spec};

const SECOND: Duration = Duration::from_secs(1);

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn more_nodes() -> Option<usize> {
    let text = std::env::var("CONVERGENCE_NODES").ok();
    text.map(|text| text.parse().expect("CONVERGENCE_NODES is a number of nodes"))
}

/// From the heal: until all documents were equal, and until all plans were as well.
#[derive(Clone, Copy, Debug)]
struct Took {
    heads: Duration,
    plans: Duration,
}

fn halves_meet(seed: u64, nodes: usize) -> Took {
    let mut cluster = Cluster::new(seed, nodes, Settings::default());
    cluster.thorough(false);
    let all: Vec<usize> = (0..nodes).collect();
    let step = Duration::from_millis(if nodes > 50 { 50 } else { 10 });
    let until = |cluster: &mut Cluster, max: Duration, what: &str, holds: &dyn Fn(&Cluster) -> bool| {
        let begin = cluster.now();
        while !holds(cluster) {
            assert!(
                cluster.now().since(begin) < max,
                "{nodes} nodes, seed {seed}, not within {max:?}: {what}"
            );
            cluster.run_for(step);
        }
        cluster.now().since(begin)
    };
    until(&mut cluster, 60 * SECOND, "all are up", &|c| c.all_up(&all) && c.agreed(&all));
    let count = nodes * 2;
    let mut spec = Spec::new(u32::try_from(count).expect("small"));
    spec.resources.cpu_m = 50;
    cluster.apply(0, "web", &spec);
    until(&mut cluster, 30 * SECOND, "web runs", &|c| c.runs_once(&all, "web", count));
    cluster.run_for(3 * SECOND);
    let (one, other) = all.split_at(nodes / 2);
    cluster.split(&[one, other]);
    cluster.run_for(10 * SECOND);
    cluster.set(one[0], false, "web", "env", r#"{"vars":{"SIDE":"one"}}"#);
    cluster.set(other[0], true, "web", "meta", r#"{"labels":{"side":"other"}}"#);
    cluster.run_for(20 * SECOND);
    cluster.heal();
    let begin = cluster.now();
    until(&mut cluster, 60 * SECOND, "heads are equal", &|c| c.same_heads(&all));
    let heads = cluster.now().since(begin);
    until(&mut cluster, 60 * SECOND, "plans are equal", &|c| c.agreed(&all));
    Took { heads, plans: cluster.now().since(begin) }
}

fn held_to(nodes: usize, within: Duration, seeds: std::ops::Range<u64>) {
    let took: Vec<Took> = seeds.map(|seed| halves_meet(seed, nodes)).collect();
    let worst = |of: fn(&Took) -> Duration| took.iter().map(of).max().unwrap_or_default();
    let (heads, plans) = (worst(|it| it.heads), worst(|it| it.plans));
    println!(
        "{nodes} nodes, {} seeds: heads equal after {heads:?}, plans after {plans:?} at most",
        took.len()
    );
    assert!(plans <= within, "{nodes} nodes: {took:?}");
}

#[test]
fn ten_nodes_are_one_again_a_second_after_a_heal() {
    held_to(10, SECOND, 0..10);
}

#[test]
fn a_hundred_nodes_are_one_again_three_seconds_after_a_heal() {
    held_to(100, 3 * SECOND, 0..1);
}

#[test]
fn as_many_as_are_asked_for_are_one_again_ten_seconds_after_a_heal() {
    if let Some(nodes) = more_nodes() {
        held_to(nodes, 10 * SECOND, 0..1);
    }
}
