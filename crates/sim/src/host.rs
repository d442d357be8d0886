//! One simulated machine: its peer, its disk, its kernel.

use std::collections::{BTreeMap, BTreeSet};

use model::{ContainerId, NodeId, Time};
use node::{Claim, Node, Seq};

/// What state a machine is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// The peer runs.
    Up,
    /// The peer does not run; its containers may.
    PeerDown,
    /// There is no power.
    PowerOff,
}

/// A container in the simulated kernel: what really runs.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its claim, as it lies beside it on disk.
    pub claim: Claim,
    /// Its first process; `None` when it does not run.
    pub pid: Option<u32>,
    /// When its program was started, in milliseconds of the machine's clock.
    pub started_ms: i64,
    /// How often its program was started.
    pub starts: u32,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) state: HostState,
    pub(crate) node: Option<Node>,
    /// Counts the lives of the peer: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// What the journal has synced.
    pub(crate) disk: Vec<Vec<u8>>,
    /// What it was given and has not synced: lost by a power cut and by the death of the peer.
    pub(crate) unsynced: Vec<(Seq, Vec<Vec<u8>>)>,
    pub(crate) disk_full: bool,
    pub(crate) kernel: BTreeMap<ContainerId, Container>,
    pub(crate) pids: u32,
    /// Peers with a live link, and which of the links that there were.
    pub(crate) links: BTreeMap<NodeId, u64>,
    pub(crate) dialling: BTreeSet<NodeId>,
    pub(crate) wake: Option<Time>,
}

impl Host {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            state: HostState::PowerOff,
            node: None,
            life: 0,
            disk: Vec::new(),
            unsynced: Vec::new(),
            disk_full: false,
            kernel: BTreeMap::new(),
            pids: 100,
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            wake: None,
        }
    }

    /// The peer dies: what it had not synced is gone, and so are its links. Containers go on.
    pub(crate) fn peer_dies(&mut self) {
        self.node = None;
        self.life += 1;
        self.unsynced.clear();
        self.links.clear();
        self.dialling.clear();
        self.wake = None;
        self.state = HostState::PeerDown;
    }

    /// The power goes: the same, and nothing runs.
    pub(crate) fn power_off(&mut self) {
        self.peer_dies();
        for container in self.kernel.values_mut() {
            container.pid = None;
        }
        self.state = HostState::PowerOff;
    }
}
