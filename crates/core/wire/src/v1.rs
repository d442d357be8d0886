//! The messages of protocol version 1. Variants are only ever added, at the end.

use model::{ClusterId, ContainerId, DocId, EventId, NodeId, RecordVersion, ReplicaId, SignedRecord};
use serde::{Deserialize, Serialize};

/// Where a sender stands in one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The document.
    pub doc: DocId,
    /// Its heads: the events that no other known event names as a dependency.
    pub heads: Vec<EventId>,
    /// Older events, exponentially further back, so that the other side finds common ground
    /// although it knows none of the heads. Empty where it is not expected to be needed.
    pub samples: Vec<EventId>,
}

/// Names one asking for a lease, so that its answer is matched with when it was asked: the count begins anew with
/// each start of the asking peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Round {
    /// The start counter of who asks.
    pub generation: u64,
    /// Counts the askings of that life.
    pub count: u64,
}

/// Asks a voter for a lease, or to renew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAsk {
    /// Of which replica.
    pub replica: ReplicaId,
    /// For which container.
    pub container: ContainerId,
    /// Which number: the same of all voters.
    pub number: u64,
    /// For how long, in milliseconds.
    pub term_ms: u32,
    /// It holds the lease of that number as it asks, by the grants of a majority.
    pub renews: bool,
    /// Which asking.
    pub round: Round,
}

/// What a voter says to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It grants, and nobody else meanwhile. On its disk.
    Granted,
    /// It does not.
    Refused {
        /// The greatest number that it has granted for the replica.
        highest: u64,
        /// Who holds the lease that it granted last, and for how many milliseconds more by its clock.
        held: Option<(NodeId, u32)>,
    },
    /// It knows of no such replica of which it is a voter.
    Unknown,
    /// Its disk does not take what it would have to remember, or it lost what it had to.
    Unable,
}

/// The answer to a [`LeaseAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Of which replica.
    pub replica: ReplicaId,
    /// For which container.
    pub container: ContainerId,
    /// Which number.
    pub number: u64,
    /// Which asking.
    pub round: Round,
    /// What it says.
    pub verdict: Verdict,
}

/// Gives a lease back: nothing runs under it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEnd {
    /// Of which replica.
    pub replica: ReplicaId,
    /// For which container.
    pub container: ContainerId,
    /// Which number.
    pub number: u64,
}

/// A message from one peer to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first message on a connection, both ways.
    Hello {
        /// The sender's cluster; another one ends the connection.
        cluster: ClusterId,
        /// The sender's start counter.
        generation: u64,
    },
    /// Where the sender stands. The receiver answers with what the sender lacks, and with its own
    /// position where it lacks something itself.
    Positions {
        /// A document each.
        positions: Vec<Position>,
        /// Whether these are all of the sender's documents: one that is not named is empty there.
        full: bool,
    },
    /// Events in an order that respects their dependencies.
    Events {
        /// Stored bytes of each event.
        events: Vec<Vec<u8>>,
        /// More follow once the receiver has said where it stands.
        more: bool,
    },
    /// Asks for events by id: dependencies that the sender misses.
    Want {
        /// Their ids.
        ids: Vec<EventId>,
    },
    /// These events are on the sender's disk.
    Stored {
        /// Their ids.
        ids: Vec<EventId>,
    },
    /// Observed records, each newer than what the receiver was known to hold.
    Records {
        /// The records; each is its owner's word, whoever carries it, as its signature shows.
        records: Vec<SignedRecord>,
    },
    /// Which records the sender holds.
    RecordDigest {
        /// A version for each node.
        versions: Vec<(NodeId, RecordVersion)>,
        /// Whether the receiver should answer with its own digest.
        reply: bool,
    },
    /// The liveness table, as `membership` encodes it.
    Liveness {
        /// Opaque here.
        bytes: Vec<u8>,
        /// Whether the receiver should answer with its own.
        reply: bool,
    },
    /// Asks a voter for a lease of an exclusive replica.
    LeaseAsk(LeaseAsk),
    /// A voter's answer.
    LeaseAnswer(LeaseAnswer),
    /// Gives a lease back.
    LeaseEnd(LeaseEnd),
}
