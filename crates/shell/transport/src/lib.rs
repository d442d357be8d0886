//! QUIC connections to named nodes: bounded frames, datagrams and byte streams over one UDP socket.
//!
//! Three protocols share the socket, told apart by ALPN: the mesh between nodes, requests of users
//! to a node, and the conversation of a machine that joins. Who is at the other end is a public key
//! that TLS has proven; whether it may be there is asked of the [`Gate`] at every accept.
//!
//! Invariants: at most one connection per pair of nodes is announced at a time; `Connected` and
//! `Disconnected` of a node alternate, and every frame of a node comes between the two; each
//! `connect` that starts a dial is answered by exactly one `Connected` or `ConnectFailed`. Of a removed
//! node nothing is read after its handshake. What a peer sends is bounded before it is stored, per connection and in total. Nothing that arrives
//! from outside panics.
//! Absent on purpose: the meaning of a frame, the roster, and any decision whom to call or when to
//! call again.
#![forbid(unsafe_code)]

mod accept;
mod client;
mod close;
mod config;
mod dial;
mod endpoint;
mod farewell;
mod frame;
mod guest;
mod limits;
mod registry;
mod resolve;
mod session;

use std::net::SocketAddr;

use bytes::Bytes;
use model::{NodeId, UserId};

pub use client::{ClientConnection, DialError, dial};
pub use config::{ALPN_API, ALPN_JOIN, ALPN_MESH};
pub use endpoint::{BindError, DatagramError, Endpoint, LinkInfo, OpenError, SendError};
pub use limits::{
    DATAGRAM_QUEUE_BYTES_MAX, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, IDLE_MS_MAX, Limits, OUTBOX_BYTES_MAX,
};

/// Answers who may be here. Asked at every accept after the handshake, and again for each stream of
/// a user or a joiner.
///
/// The answers come from the latest roster and are given at once: no waiting, no call back into the
/// endpoint. When the roster changes, the gate answers by the new one *before*
/// [`Endpoint::revoked`] is called.
pub trait Gate: Send + Sync {
    /// Whether this node is a member.
    fn node_allowed(&self, node: &NodeId) -> bool;
    /// Whether this node, which is no member, was one and was removed: it is told so, and not let in.
    fn node_former(&self, node: &NodeId) -> bool;
    /// Whether this user may call.
    fn user_allowed(&self, user: &UserId) -> bool;
    /// Whether machines that are not members may start the join conversation now.
    fn joining_allowed(&self) -> bool;
}

/// What happened on the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a connection to `node` now; whichever end dialled it.
    Connected {
        /// The node.
        node: NodeId,
    },
    /// The dial that `connect` started came to nothing.
    ConnectFailed {
        /// The node.
        node: NodeId,
        /// Why, for a log line: each address with what happened there.
        reason: String,
    },
    /// The connection is gone, and with it every frame that was not delivered.
    Disconnected {
        /// The node.
        node: NodeId,
        /// Why, for a log line.
        reason: String,
    },
    /// A node that was removed calls. It is not let in; what [`Endpoint::farewell`] gives within two
    /// seconds is said to it.
    FormerMember {
        /// The node.
        node: NodeId,
    },
    /// The dial that `connect` started was answered with a farewell: this node was removed there.
    /// The `ConnectFailed` of the dial follows.
    Farewell {
        /// Who said it, by the key of the connection.
        from: NodeId,
        /// Up to [`FRAME_BYTES_MAX`].
        bytes: Bytes,
    },
    /// A frame, whole and in the order of sending. Its bytes count against the sender's share of
    /// memory until the last clone of `bytes` is dropped: decode it and let go.
    Frame {
        /// Who sent it, by the key of the connection.
        from: NodeId,
        /// Up to [`FRAME_BYTES_MAX`].
        bytes: Bytes,
    },
    /// A datagram: may be lost, doubled or overtaken.
    Datagram {
        /// Who sent it, by the key of the connection.
        from: NodeId,
        /// One packet at most.
        bytes: Bytes,
    },
}

/// Who opened a stream, by the key that the handshake proved and the protocol that it spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A member of the mesh.
    Node(NodeId),
    /// A user that the gate allowed.
    User(UserId),
    /// Somebody with any key, who may only join. The key is the one of the handshake.
    Joiner([u8; 32]),
}

/// One bidirectional stream that the other side opened: an HTTP request, or a join conversation.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub who: Caller,
    /// From where.
    pub remote: SocketAddr,
    /// What the other side reads. Dropping it without `finish` resets the stream.
    pub send: quinn::SendStream,
    /// What the other side writes.
    pub recv: quinn::RecvStream,
}
