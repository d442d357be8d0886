//! A cluster whose progress is told.

use std::time::{Duration, Instant};

use sim::{Cluster, Settings};

/// How long each part may take in the simulation.
const PATIENCE: Duration = Duration::from_secs(600);

/// A cluster, and when the measurement began.
pub(crate) struct Watch {
    pub(crate) cluster: Cluster,
    pub(crate) all: Vec<usize>,
    begin: Instant,
    step: Duration,
}

impl Watch {
    /// A cluster of so many machines, without the costly checks, of which some are switched on and all that
    /// is needed to look at it is cheap.
    pub(crate) fn new(nodes: usize) -> Self {
        let begin = Instant::now();
        let mut cluster = Cluster::switched_off(1, nodes, Settings::default());
        cluster.thorough(false);
        cluster.without_trace();
        let all: Vec<usize> = (0..nodes).collect();
        // To look at all of a large cluster takes long.
        let step =
            Duration::from_millis(10).max(Duration::from_micros(250) * u32::try_from(nodes).expect("small"));
        Self { cluster, all, begin, step }
    }

    /// Switches all machines on.
    pub(crate) fn switch_on(&mut self) {
        for host in self.all.clone() {
            self.cluster.start(host);
        }
    }

    /// Says what holds now, how long it took on the wall so far, and how long in the simulation.
    pub(crate) fn tell(&self, what: &str, simulated: Duration) {
        println!(
            "{:>8.1} s {:>6} MiB {what}: {:.2} s simulated, {} frames, {} datagrams",
            self.begin.elapsed().as_secs_f64(),
            memory_mib("VmRSS"),
            simulated.as_secs_f64(),
            self.cluster.frames,
            self.cluster.datagrams,
        );
    }

    /// Lets time pass until something holds; how long that took.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) -> Duration {
        let from = self.cluster.now();
        while !holds(&self.cluster) && self.cluster.now().since(from) < PATIENCE {
            self.cluster.run_for(self.step);
        }
        let took = self.cluster.now().since(from);
        self.tell(what, took);
        took
    }

    /// The end: the most memory that was used.
    pub(crate) fn end(&self) {
        if let Some(violation) = self.cluster.violations().first() {
            println!("VIOLATION {violation}");
        }
        println!("{:>8.1} s {:>6} MiB at most", self.begin.elapsed().as_secs_f64(), memory_mib("VmHWM"));
    }
}

/// A line of the kernel's word on this process.
fn memory_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}
