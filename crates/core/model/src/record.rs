//! What one node says of itself: observed, soft state that only its owner writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Capacity, ContainerId, Digest, DocId, EventId, JobRecord, LabelKey, Name, NodeId, ReplicaId, Revision,
    Terms,
};

/// Orders the records of one node: a later start beats any count of an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordVersion {
    /// How often the peer has started on this data folder; kept on disk.
    pub generation: u64,
    /// Counts the records of one start.
    pub count: u64,
}

/// The observed record of one node, written by that node alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Whose record this is.
    pub node: NodeId,
    /// Which of its records this is.
    pub version: RecordVersion,
    /// The node's name.
    pub name: Name,
    /// Where its mesh port can be reached: `host:port`, most wanted first.
    pub addresses: Vec<String>,
    /// Labels that its operator gave it.
    pub labels: BTreeMap<LabelKey, String>,
    /// What it offers to containers.
    pub capacity: Capacity,
    /// How its operator has it offer what its machine has.
    pub terms: Terms,
    /// Why it takes no new work for now, with its numbers, for people: its machine is short of something.
    pub pressure: Option<String>,
    /// Raised whenever its capacity changes or grows free again; frees it from its declines.
    pub capacity_version: u64,
    /// Nodes that it has a live link to: what it says reaches those without being passed on.
    pub links: Vec<NodeId>,
    /// Its containers: the claims of this node.
    pub containers: Vec<ContainerRecord>,
    /// What it was asked to run and could not.
    pub declined: Vec<Declined>,
    /// Images that it can give to others.
    pub images: Vec<ImageRecord>,
    /// Templates that did not come up, here or where this node heard so.
    pub failed: Vec<FailedRevision>,
    /// What of jobs has ended for good, here or where this node heard so.
    pub jobs: Vec<JobRecord>,
    /// Where its documents stand.
    pub heads: BTreeMap<DocId, Vec<EventId>>,
    /// The newest event version that it understands.
    pub event_version: u16,
}

impl NodeRecord {
    /// Whether a later record of the node tells nothing new but where its documents stand.
    pub fn differs_in_heads_alone(&self, later: &Self) -> bool {
        let Self {
            node,
            version: _,
            name,
            addresses,
            labels,
            capacity,
            terms,
            pressure,
            capacity_version,
            links,
            containers,
            declined,
            images,
            failed,
            jobs,
            heads: _,
            event_version,
        } = self;
        *node == later.node
            && *name == later.name
            && *addresses == later.addresses
            && *labels == later.labels
            && *capacity == later.capacity
            && *terms == later.terms
            && *pressure == later.pressure
            && *capacity_version == later.capacity_version
            && *links == later.links
            && *containers == later.containers
            && *declined == later.declined
            && *images == later.images
            && *failed == later.failed
            && *jobs == later.jobs
            && *event_version == later.event_version
    }
}

/// One container: a claim on a replica, and how it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The container.
    pub id: ContainerId,
    /// What it runs for.
    pub replica: ReplicaId,
    /// The template that it was made from.
    pub revision: Revision,
    /// The number that people see for that revision.
    pub revision_number: u64,
    /// Higher beats lower where two nodes hold one replica; fixed at start.
    pub claim: u64,
    /// What it was given.
    pub resources: Capacity,
    /// What it is doing.
    pub state: ContainerState,
    /// Whether its checks pass; `None` while it is not known.
    pub healthy: Option<bool>,
    /// Whether it was well for as long as its deployment's update asks: the next replica's turn has come.
    pub ready: bool,
    /// As a canary, whether it was well for as long as the others wait for it.
    pub proven: bool,
    /// Its first process, as the host sees it.
    pub pid: Option<u32>,
    /// When it started, in milliseconds of Unix time by its node's clock; shown, never compared.
    pub started_ms: Option<i64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is not running, for people.
    pub reason: Option<String>,
    /// Containers of the same replica elsewhere that may stop: this one is healthy and saw them.
    pub confirms: Vec<ContainerId>,
    /// The replica of a higher priority that it is stopped for, to be started on its node.
    pub yields_to: Option<ReplicaId>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Claimed; its image is on the way or its back-off runs.
    Pending,
    /// Being made.
    Starting,
    /// Its first process runs.
    Running,
    /// Asked to end.
    Stopping,
    /// Ended as it should.
    Exited,
    /// Ended or never began, against its will.
    Failed,
}

/// A node's word that a template did not come up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRevision {
    /// A replica that was to run it.
    pub replica: ReplicaId,
    /// Which template.
    pub revision: Revision,
    /// The number that people see for it.
    pub revision_number: u64,
    /// The node where it failed.
    pub node: NodeId,
    /// Why, for people.
    pub reason: String,
}

impl FailedRevision {
    /// Whether it is about this template of that creation.
    pub fn is_of(&self, incarnation: EventId, revision: Revision) -> bool {
        self.replica.incarnation == incarnation && self.revision == revision
    }
}

/// A node's word that it cannot run a replica now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// What it was asked to run.
    pub replica: ReplicaId,
    /// Which template.
    pub revision: Revision,
    /// The capacity version that this was said at.
    pub capacity_version: u64,
    /// Why, for people.
    pub reason: String,
}

/// An image that a node holds whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name it goes by there, `name:tag`.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Bytes of all its blobs.
    pub size_b: u64,
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// Bytes of a signature.
    pub const BYTES: usize = 64;

    /// Wraps the raw bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut halves = ([0; 32], [0; 32]);
        halves.0.copy_from_slice(&bytes[..32]);
        halves.1.copy_from_slice(&bytes[32..]);
        Self(halves.0, halves.1)
    }

    /// The raw bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sig-{}", data_encoding::HEXLOWER.encode(&self.0[..3]))
    }
}

/// A record as its node signed it: kept and passed on byte for byte, so that whoever gets it can see
/// that nobody on the way has changed it.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    /// The encoded [`NodeRecord`]; `wire` alone reads it. Shared: it is sent to many.
    pub bytes: Arc<[u8]>,
    /// The signature of its node.
    pub signature: Signature,
}

impl PartialEq for SignedRecord {
    /// Most are compared with themselves, and in a large cluster each is some ten thousand bytes.
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
            && (Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes)
    }
}
