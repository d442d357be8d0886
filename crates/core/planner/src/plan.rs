//! The plan, and why a node is not in it, in words.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use model::limits::CONTAINERS_PER_NODE_MAX;
use model::{Affinity, ContainerId, HOST, LabelKey, Name, NodeId, ReplicaId, Requirement};

use crate::{Placements, Waits};

/// Why each node was refused; shared by the replicas that it is the same for.
pub type Reasons = Arc<BTreeMap<NodeId, Refusal>>;

/// What each wanted replica should do. A container that no placement names is not wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every wanted replica has one.
    pub placements: Placements,
    /// Replicas whose turn in the rolling update has come but for whose new container, beside the
    /// old one, no node has room. They are [`Placement::KeepOld`] and their update waits.
    pub held_back: BTreeMap<ReplicaId, Reasons>,
    /// Containers that make room for a replica of a higher priority, and for which: their node is to stop
    /// them. They are wanted as before, so that their replicas are placed again where there is room.
    pub yields: BTreeMap<ContainerId, ReplicaId>,
    /// Deployments, by namespace and name, that wait for others or are in a cycle of such.
    pub waits: BTreeMap<(Name, Name), Arc<Waits>>,
}

/// What one replica should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It runs where it should (or ended there for good, by its restart policy): leave it. Every
    /// other container of the replica is a duplicate, or an old one, that goes once this is healthy.
    Keep {
        /// Where.
        node: NodeId,
        /// The winner.
        container: ContainerId,
    },
    /// It is its turn in the rolling update: a container of the wanted revision runs, or is to be
    /// started, on `new`; the old one stays until that one is ready.
    Replace {
        /// The container that it has now: of an old revision, or on a node without the wanted labels.
        old: (NodeId, ContainerId),
        /// Where the new one is, or is to be started. May be the same node.
        new: NodeId,
    },
    /// It is its turn, and the update lets it be missing for a while: the old container is stopped, and the
    /// wanted revision started where there is room then.
    StopFirst {
        /// Where.
        node: NodeId,
        /// The container.
        container: ContainerId,
    },
    /// It runs an old revision, or on a node without the wanted labels, and waits for its turn.
    KeepOld {
        /// Where.
        node: NodeId,
        /// The container.
        container: ContainerId,
    },
    /// It runs nowhere that is alive: start the wanted revision there.
    Start {
        /// Where.
        node: NodeId,
    },
    /// It runs nowhere, and room is made for it there: start it once there is.
    Awaits {
        /// Where.
        node: NodeId,
    },
    /// It runs nowhere, and is not started before what its deployment depends on is as far as it asks: see
    /// [`Plan::waits`].
    Waits,
    /// Of a job: it ended well on a node that is not there any more, or whose container is gone.
    Ended,
    /// Of a job: as many run as may at a time.
    Queued,
    /// Of a job that has failed or whose time is over: it is not started any more.
    GivenUp,
    /// It runs nowhere, and no node can take it.
    Unplaced {
        /// Every node of the view, with its reason.
        reasons: Reasons,
    },
}

impl Plan {
    /// The replicas that concern `node`: it runs one, or is to start it.
    pub fn share(&self, node: NodeId) -> impl Iterator<Item = (ReplicaId, &Placement)> {
        self.placements.of(move |placement| placement.names(node))
    }
}

impl Placement {
    /// Whether `node` runs the replica, or is to start it.
    pub fn names(&self, node: NodeId) -> bool {
        match self {
            Self::Keep { node: it, .. }
            | Self::KeepOld { node: it, .. }
            | Self::StopFirst { node: it, .. }
            | Self::Awaits { node: it }
            | Self::Start { node: it } => *it == node,
            Self::Replace { old: (old, _), new } => *old == node || *new == node,
            Self::Waits | Self::Ended | Self::Queued | Self::GivenUp | Self::Unplaced { .. } => false,
        }
    }
}

/// Why a node cannot take a replica: the first that holds, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cluster plans by rules that this release does not know.
    Rules {
        /// The rules asked for.
        asked: u16,
        /// The rules of this release.
        known: u16,
    },
    /// The node does not answer.
    Down,
    /// What the node runs is to move elsewhere.
    Drains,
    /// The node takes no new work.
    Cordoned,
    /// The node's machine is short of something, and takes no new work for now.
    Pressure {
        /// Its words.
        reason: String,
    },
    /// It has one voter, and runs there alone.
    Home {
        /// The voter's name.
        node: String,
    },
    /// Fewer than a majority of its voters are in reach.
    Voters {
        /// How many are.
        reached: usize,
        /// How many there are.
        of: usize,
    },
    /// The node lacks a label, or has another value.
    Label {
        /// The label.
        key: LabelKey,
        /// The value asked for.
        want: String,
        /// The value that it has.
        has: Option<String>,
    },
    /// The node does not meet a condition.
    Requirement {
        /// Which.
        requirement: Requirement,
        /// The value of the label that it has.
        has: Option<String>,
    },
    /// The node said that it cannot run this replica, and its capacity has not changed since.
    Declined {
        /// Its words.
        reason: String,
    },
    /// The node runs as many containers as one node may.
    ContainersMax {
        /// How many it runs.
        running: usize,
    },
    /// What it is to be near does not run there.
    Near {
        /// Which, and what counts as near.
        affinity: Affinity,
    },
    /// What it is to be apart from, or what is to be apart from it, runs there.
    Apart {
        /// Namespace and name of the other.
        from: (Name, Name),
        /// What counts as one place.
        within: LabelKey,
    },
    /// Another deployment has the host port on that node.
    Port {
        /// The port of the node.
        port: u16,
        /// Namespace and name of the deployment that has it.
        held_by: (Name, Name),
    },
    /// Not enough processor time, in thousandths of a core.
    Cpu {
        /// What is free.
        free_m: u64,
        /// What is asked.
        asked_m: u64,
    },
    /// Not enough memory, in bytes.
    Memory {
        /// What is free.
        free_b: u64,
        /// What is asked.
        asked_b: u64,
    },
    /// Not enough processes.
    Pids {
        /// How many are free.
        free: u64,
        /// How many are asked.
        asked: u64,
    },
    /// Not enough of an extra.
    Extra {
        /// Which.
        name: LabelKey,
        /// How many are free.
        free: u64,
        /// How many are asked.
        asked: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules { asked, known } => {
                write!(f, "rules: the cluster plans by rules {asked}, this release knows {known}")
            }
            Self::Down => f.write_str("down"),
            Self::Drains => f.write_str("drains: what it runs is to move elsewhere"),
            Self::Cordoned => f.write_str("cordoned: takes no new work"),
            Self::Pressure { reason } => write!(f, "pressure: takes no new work for now; {reason}"),
            Self::Home { node } => write!(f, "voters: runs on {node} alone, its only voter"),
            Self::Voters { reached, of } => {
                write!(f, "voters: {reached} of {of} in reach, {} needed", model::majority(*of))
            }
            Self::Label { key, want, has: Some(has) } => write!(f, "label: {key}={has}, {key}={want} asked"),
            Self::Label { key, want, has: None } => write!(f, "label: no {key}, {key}={want} asked"),
            Self::Requirement { requirement, has: Some(has) } => {
                write!(f, "label: {}={has}, `{requirement}` asked", requirement.key)
            }
            Self::Requirement { requirement, has: None } => {
                write!(f, "label: no {}, `{requirement}` asked", requirement.key)
            }
            Self::Near { affinity } => write!(f, "near: {} does not run there", affinity.deployment),
            Self::Apart { from: (namespace, name), within } if within.as_str() == HOST => {
                write!(f, "apart: {namespace}/{name} runs there")
            }
            Self::Apart { from: (namespace, name), within } => {
                write!(f, "apart: {namespace}/{name} runs within the same {within}")
            }
            Self::Declined { reason } => write!(f, "declined: {reason}"),
            Self::ContainersMax { running } => {
                write!(f, "containers: {running} there, the limit is {CONTAINERS_PER_NODE_MAX}")
            }
            Self::Port { port, held_by: (namespace, name) } => {
                write!(f, "port: {port} is held by {namespace}/{name}")
            }
            Self::Cpu { free_m, asked_m } => write!(f, "cpu: {free_m}m free, {asked_m}m asked"),
            Self::Memory { free_b, asked_b } => {
                write!(f, "memory: {} free, {} asked", Bytes(*free_b, false), Bytes(*asked_b, true))
            }
            Self::Pids { free, asked } => write!(f, "pids: {free} free, {asked} asked"),
            Self::Extra { name, free, asked } => write!(f, "{name}: {free} free, {asked} asked"),
        }
    }
}

/// An amount of memory in its largest unit with at most one decimal; `true` rounds up, so that what
/// is asked never looks smaller than what is free.
struct Bytes(u64, bool);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
        let Some((unit, shift)) = UNITS.into_iter().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{}", self.0);
        };
        let scaled = u128::from(self.0) * 10;
        let tenths = if self.1 { scaled.div_ceil(1 << shift) } else { scaled >> shift };
        match tenths % 10 {
            0 => write!(f, "{}{unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth}{unit}", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_words_with_numbers() {
        let memory = |free_b, asked_b| Refusal::Memory { free_b, asked_b }.to_string();
        assert_eq!(memory(300 << 20, 512 << 20), "memory: 300Mi free, 512Mi asked");
        assert_eq!(memory((1 << 30) - 1, 1 << 30), "memory: 1023.9Mi free, 1Gi asked");
        assert_eq!(memory(0, (3 << 29) + 1), "memory: 0 free, 1.6Gi asked");
        assert_eq!(Refusal::Cpu { free_m: 5, asked_m: 100 }.to_string(), "cpu: 5m free, 100m asked");
        let label = Refusal::Label { key: "disk".parse().unwrap(), want: "ssd".into(), has: None };
        assert_eq!(label.to_string(), "label: no disk, disk=ssd asked");
    }
}
