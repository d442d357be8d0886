//! The messages of protocol version 1. Variants are only ever added, at the end.

use model::{ClusterId, DocId, EventId, NodeId, RecordVersion, SignedRecord};
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
}
