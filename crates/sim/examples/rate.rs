//! How fast the simulator is: `cargo run --release -p sim --example rate -- faults|halves [nodes]`.
//!
//! - `faults 10`: random stories with every fault on ten machines, on each processor, for a while;
//!   prints simulated node-hours a wall hour.
//! - `halves 200`: so many machines with ten replicas each; cut in half, healed; prints how long it took
//!   until the plans were equal and each replica ran once, on the wall and in the simulation.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement looks at the clock, uses each processor and tells"
)]

use std::time::{Duration, Instant};

use sim::story::Story;
use sim::{Cluster, Settings, Spec};

/// How long stories are run.
const STORIES_FOR: Duration = Duration::from_secs(60);

/// How long the parts of `halves` may take in the simulation.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let nodes = |otherwise| args.get(1).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    match args.first().map(String::as_str) {
        Some("halves") => halves(nodes(200)),
        _ => faults(nodes(10)),
    }
}

fn faults(nodes: usize) {
    let begin = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = |thread: u64| {
        std::thread::spawn(move || {
            let (mut hours, mut stories, mut failed) = (0.0, 0, 0);
            for seed in (0..).filter(|seed| seed % threads == thread) {
                if begin.elapsed() > STORIES_FOR {
                    break;
                }
                stories += 1;
                let told = Story::draw_sized(seed, Some(nodes)).tell();
                let machines = f64::from(u32::try_from(told.machines).expect("small"));
                hours += told.lasted.as_secs_f64() / 3600.0 * machines;
                if let Err(what) = told.ended {
                    failed += 1;
                    println!("seed {seed}: {}", what.lines().next().unwrap_or_default());
                }
            }
            (hours, stories, failed)
        })
    };
    let threads: Vec<_> = (0..threads).map(share).collect();
    let (mut hours, mut stories, mut failed) = (0.0, 0, 0);
    for thread in threads {
        let (its_hours, its_stories, its_failed) = thread.join().expect("a story does not panic");
        hours += its_hours;
        stories += its_stories;
        failed += its_failed;
    }
    let wall = begin.elapsed().as_secs_f64() / 3600.0;
    println!(
        "{stories} stories on {nodes} machines, {failed} failed: {:.0} node-hours a wall hour",
        hours / wall
    );
}

fn halves(nodes: usize) {
    let begin = Instant::now();
    let wall = |what: &str, simulated: Option<Duration>| {
        println!("{:>8.1} s {what}: {simulated:?} simulated", begin.elapsed().as_secs_f64());
    };
    let mut cluster = Cluster::new(1, nodes, Settings::default());
    cluster.thorough(false);
    let all: Vec<usize> = (0..nodes).collect();
    let step = Duration::from_millis(100);
    let until = |cluster: &mut Cluster, what: &str, holds: &dyn Fn(&Cluster) -> bool| {
        let from = cluster.now();
        while !holds(cluster) && cluster.now().since(from) < PATIENCE {
            cluster.run_for(step);
        }
        wall(what, Some(cluster.now().since(from)));
    };
    until(&mut cluster, "up", &|c| c.all_up(&all) && c.agreed(&all));
    let count = nodes * 10;
    let mut spec = Spec::new(u32::try_from(count / 10).expect("small"));
    spec.resources.cpu_m = 50;
    spec.resources.memory_b = 16 << 20;
    for n in 0..10 {
        cluster.apply(n % nodes, &format!("web-{n}"), &spec);
    }
    let run_once =
        |c: &Cluster, hosts: &[usize]| (0..10).all(|n| c.runs_once(hosts, &format!("web-{n}"), count / 10));
    until(&mut cluster, "placed", &|c| run_once(c, &all));
    cluster.run_for(Duration::from_secs(3));
    let (one, other) = all.split_at(nodes / 2);
    cluster.split(&[one, other]);
    until(&mut cluster, "each half runs all", &|c| run_once(c, one) && run_once(c, other));
    cluster.run_for(Duration::from_secs(10));
    cluster.heal();
    until(&mut cluster, "agreed after the heal", &|c| c.agreed(&all) && c.all_up(&all));
    until(&mut cluster, "each replica once", &|c| run_once(c, &all));
    wall("the end", None);
}
