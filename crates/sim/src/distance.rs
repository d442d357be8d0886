//! How far apart machines are: regions, and the way between each two.

use std::time::Duration;

use crate::world::Cluster;

/// Where machines stand. Without it they are all in one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distances {
    /// The region of each machine; those beyond are in the first.
    region_of: Vec<usize>,
    one_way: Vec<Vec<Duration>>,
}

impl Distances {
    /// What a packet takes on its way, beside the latency that all have.
    pub(crate) fn between(&self, from: usize, to: usize) -> Duration {
        let region = |host: usize| self.region_of.get(host).copied().unwrap_or(0);
        self.one_way.get(region(from)).and_then(|row| row.get(region(to))).copied().unwrap_or_default()
    }
}

impl Cluster {
    /// Puts machines into regions. What a packet takes from one to another (`one_way`, a row for each) comes
    /// on top of the latency of the settings.
    pub fn put_into_regions(&mut self, region_of: Vec<usize>, one_way: Vec<Vec<Duration>>) {
        self.distances = Distances { region_of, one_way };
    }
}
