//! One simulated machine: its peer, its disk, its kernel; what survives which fault.

use std::collections::{BTreeMap, BTreeSet};

use model::{Capacity, ContainerId, LabelKey, Name, NodeId, Time};
use node::{Claim, Exit, Node, Seq, Signer};

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

/// What a machine is called and what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name of its node.
    pub name: Name,
    /// What it offers to containers, from the next start of its peer on.
    pub capacity: Capacity,
    /// The labels of its node, from the next start of its peer on.
    pub labels: BTreeMap<LabelKey, String>,
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
    /// When its program was started, in virtual time.
    pub(crate) started: Time,
    /// How often its program was started.
    pub starts: u32,
    /// It is being made; a peer that dies meanwhile takes it along.
    pub(crate) starting: bool,
    /// It was asked to end while it was being made.
    pub(crate) stop_asked: bool,
    /// It was asked to end although its node wants the replica: as a duplicate, or replaced.
    pub(crate) surplus: bool,
    /// How its program ended last.
    pub(crate) exit: Exit,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) machine: Machine,
    /// Signs with the node's key.
    pub(crate) signer: Signer,
    /// The peer was taken over: beside all else it sends false records of the others.
    pub(crate) lies: bool,
    pub(crate) state: HostState,
    pub(crate) node: Option<Node>,
    /// Counts the lives of the peer: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// How often the peer was started: its generation.
    pub(crate) starts: u64,
    /// What the journal has synced.
    pub(crate) disk: Vec<Vec<u8>>,
    /// What it was given and has not synced. Of this a power cut, like the death of the peer, leaves
    /// any beginning.
    pub(crate) unsynced: Vec<(Seq, Vec<Vec<u8>>)>,
    pub(crate) disk_full: bool,
    pub(crate) kernel: BTreeMap<ContainerId, Container>,
    pub(crate) pids: u32,
    /// How far this machine's clock is off.
    pub(crate) skew_ms: i64,
    /// Peers with a live link, and which of the links that there were.
    pub(crate) links: BTreeMap<NodeId, u64>,
    pub(crate) dialling: BTreeSet<NodeId>,
    /// Who may speak to the peer, as the core said last.
    pub(crate) allowed: BTreeSet<NodeId>,
    /// Nodes that the core called removed: they are told so when they dial.
    pub(crate) former: BTreeSet<NodeId>,
    pub(crate) wake: Option<Time>,
    /// Inputs in one instant: many are a loop that never ends.
    pub(crate) busy: (Time, u32),
}

impl Host {
    pub(crate) fn new(id: NodeId, signer: Signer, machine: Machine) -> Self {
        Self {
            id,
            machine,
            signer,
            lies: false,
            state: HostState::PowerOff,
            node: None,
            life: 0,
            starts: 0,
            disk: Vec::new(),
            unsynced: Vec::new(),
            disk_full: false,
            kernel: BTreeMap::new(),
            pids: 100,
            skew_ms: 0,
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            allowed: BTreeSet::new(),
            former: BTreeSet::new(),
            wake: None,
            busy: (Time::ZERO, 0),
        }
    }

    /// The peer is no more. Containers go on, but for those that it was just making.
    pub(crate) fn peer_dies(&mut self) {
        self.node = None;
        self.life += 1;
        self.links.clear();
        self.dialling.clear();
        self.wake = None;
        for container in self.kernel.values_mut().filter(|container| container.starting) {
            container.starting = false;
            container.exit = Exit { lost: Some("its start was cut off".to_owned()), ..Exit::default() };
        }
        self.state = HostState::PeerDown;
    }

    /// Records that were given to the journal and are not synced.
    pub(crate) fn unsynced_records(&self) -> usize {
        self.unsynced.iter().map(|(_, records)| records.len()).sum()
    }

    /// The first `kept` of them were on disk after all, if there was room; the others are gone.
    pub(crate) fn lose_unsynced(&mut self, kept: usize) {
        let kept = if self.disk_full { 0 } else { kept };
        let records = std::mem::take(&mut self.unsynced).into_iter().flat_map(|(_, records)| records);
        self.disk.extend(records.take(kept));
    }
}
