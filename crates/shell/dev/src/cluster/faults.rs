//! What is done to a cluster that runs: links that are cut or lose packets, peers that stand still.

use network::Lab;

use super::{Cluster, ClusterError, Lock, cuts_of, record, unknown};
use crate::marker::{CutRecord, Marker};
use crate::process::Process;

impl Cluster {
    /// Cuts every link between nodes of different groups, and those one-way links (from, to), in place
    /// of whatever was cut before. A node in no group reaches everybody.
    pub fn partition(
        &self,
        groups: &[Vec<String>],
        one_way: &[(String, String)],
    ) -> Result<(), ClusterError> {
        self.have_cuts(CutRecord {
            groups: groups.to_vec(),
            one_way: one_way.to_vec(),
            ..CutRecord::default()
        })
    }

    /// Loses so many packets of a thousand on their way from one node to another, by chance, in place of
    /// whatever was cut before: 1000 is a cut. Ways that are not named lose nothing.
    pub fn lose(&self, ways: &[(String, String, u16)]) -> Result<(), ClusterError> {
        self.have_cuts(CutRecord { lossy: ways.to_vec(), ..CutRecord::default() })
    }

    /// Mends every link but those of nodes without power.
    pub fn heal(&self) -> Result<(), ClusterError> {
        self.have_cuts(CutRecord::default())
    }

    fn have_cuts(&self, cuts: CutRecord) -> Result<(), ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        marker.cuts = cuts;
        // Nonsense is refused before it is written down.
        let cuts = cuts_of(&marker)?;
        known(&marker)?;
        marker.write(&self.dir)?;
        #[cfg(feature = "sabotage")]
        if crate::sabotage::no_filter() {
            return Ok(());
        }
        Ok(Lab::open(&self.net())?.apply(&cuts)?)
    }

    /// Lets a node's peer stand still (SIGSTOP) until [`Cluster::go_on`]. Its containers go on.
    pub fn stand_still(&self, name: &str) -> Result<(), ClusterError> {
        Ok(self.peer_of(name)?.stand_still()?)
    }

    /// Lets a peer go on that stood still.
    pub fn go_on(&self, name: &str) -> Result<(), ClusterError> {
        Ok(self.peer_of(name)?.go_on()?)
    }

    fn peer_of(&self, name: &str) -> Result<Process, ClusterError> {
        let mut marker = self.marker()?;
        record(&mut marker, name)?.peer.filter(Process::is_alive).ok_or_else(|| ClusterError::Node {
            node: name.to_owned(),
            why: "has no peer that runs".to_owned(),
        })
    }
}

/// Whether every node that is named by a cut is there.
fn known(marker: &Marker) -> Result<(), ClusterError> {
    let cuts = &marker.cuts;
    let pairs = cuts.one_way.iter().flat_map(|(from, to)| [from, to]);
    let ways = cuts.lossy.iter().flat_map(|(from, to, _)| [from, to]);
    let mut named = cuts.groups.iter().flatten().chain(pairs).chain(ways);
    match named.find(|name| !marker.nodes.iter().any(|node| node.name == **name)) {
        Some(name) => Err(unknown(marker, name)),
        None => Ok(()),
    }
}
