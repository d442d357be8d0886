//! How long a plan takes; prints one line a case. Run: `cargo bench -p planner`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench measures and prints"
)]

#[path = "../tests/plan/world.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod world;

use std::hint::black_box;
use std::time::{Duration, Instant};

use planner::Planner;
use world::{MIB, World, deployment, node_id};

/// The median of some runs of `work`, each on what `prepare` makes.
fn median<T>(runs: usize, mut prepare: impl FnMut() -> T, mut work: impl FnMut(&mut T)) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let mut input = prepare();
            let start = Instant::now();
            work(&mut input);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn empty(deployments: u32, replicas: u32, nodes: u8) -> World {
    let mut world = World::new(nodes);
    for n in 0..nodes {
        let node = world.node(n);
        node.capacity.cpu_m = 64_000 + u64::from(n % 7) * 1_000;
        node.capacity.memory_b = 64_000 * MIB;
        node.capacity.pids = 10_000;
    }
    world.deployments = (0..deployments).map(|it| deployment(&format!("app-{it}"), replicas)).collect();
    world
}

fn main() {
    for (deployments, replicas, nodes) in [(1_000, 10, 100), (200, 50, 200), (20, 5, 3)] {
        let mut world = empty(deployments, replicas, nodes);
        println!("{deployments} deployments x {replicas} replicas over {nodes} nodes:");
        let view = world.view();
        let from_nothing = median(15, || (), |()| drop(black_box(planner::plan(&view))));
        println!("  all to be placed, from nothing   {from_nothing:>12.2?}");
        drop(view);

        let plan = world.plan();
        let mut names: Vec<_> = world.deployments.iter().collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let starts: Vec<_> = plan
            .placements
            .iter()
            .map(|(id, placement)| {
                let planner::Placement::Start { node } = placement else { panic!("no room: {id:?}") };
                let at = names.binary_search_by(|it| it.name.cmp(&id.deployment)).expect("it is wanted");
                (*node, names[at].clone(), id.ordinal)
            })
            .collect();
        for (node, of, ordinal) in starts {
            world.run_on(node, &of, ordinal);
        }
        let view = world.view();
        let running = median(15, || (), |()| drop(black_box(planner::plan(&view))));
        println!("  all running, from nothing        {running:>12.2?}");

        let mut planner = Planner::new();
        planner.plan(&view);
        let nothing = median(
            31,
            || (),
            |()| {
                black_box(planner.plan(&view).placements.len());
            },
        );
        println!("  nothing changed                  {nothing:>12.2?}");
        drop(view);

        let mut scaled = world.clone();
        scaled.deployments[0].replicas.count += 1;
        let mut died = world.clone();
        died.node(1).alive = false;
        let mut ill = world.clone();
        ill.node(0).containers[0].healthy = Some(false);
        let mut joined = world.clone();
        joined.add_node(250);
        let mut more = world.clone();
        more.deployments.push(deployment("newcomer", replicas));
        for (what, after) in [
            ("one container fell ill", &ill),
            ("one deployment scaled by one", &scaled),
            ("one deployment added", &more),
            ("one node joined", &joined),
            ("one node died", &died),
        ] {
            let (before, after) = (world.view(), after.view());
            let prepare = || {
                let mut planner = Planner::new();
                planner.plan(&before);
                planner
            };
            let time = median(15, prepare, |planner| {
                black_box(planner.plan(&after).placements.len());
            });
            println!("  {what:<32} {time:>12.2?}");
        }
        black_box(node_id(0));
    }
}
