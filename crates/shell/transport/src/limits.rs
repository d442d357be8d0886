//! Every limit of this crate: a name, a unit, a reason.

use std::time::Duration;

/// Bytes of one frame. Messages are cut to fit (an event has at most 64 KiB); one frame in flight
/// per peer must not matter to a box of 512 MiB.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Frames that wait for one node. A peer that is this far behind is better served by a resync.
pub const FRAMES_QUEUED_MAX: usize = 1024;

/// Bytes that wait for one node: four of the largest frames, or a burst of many small ones.
pub const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// Bytes of datagrams that wait for one node: some 90 packets; older ones are dropped, being stale.
pub const DATAGRAM_QUEUE_BYTES_MAX: usize = 128 << 10;

/// Bytes that a frame counts for beyond its own, so that empty frames are not free.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 64;

/// Bytes of frames from one node that wait for the consumer: its own flow control stops it then.
pub(crate) const INBOX_BYTES_MAX: usize = 4 << 20;

/// Bytes of frames from all nodes that wait for the consumer.
pub(crate) const INBOX_TOTAL_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(OUTBOX_BYTES_MAX >= FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES);
const _: () = assert!(INBOX_BYTES_MAX >= FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES);
const _: () = assert!(INBOX_TOTAL_BYTES_MAX >= INBOX_BYTES_MAX);
const _: () = assert!(INBOX_TOTAL_BYTES_MAX <= u32::MAX as usize, "semaphores count in u32");

/// Events that wait for the consumer; a full queue slows the senders down.
pub(crate) const EVENTS_QUEUED_MAX: usize = 1024;

/// Incoming streams that wait for the consumer; a full queue leaves the others unopened.
pub(crate) const INCOMING_QUEUED_MAX: usize = 64;

/// Milliseconds between signs of life on a quiet connection. Below every NAT's memory (30 s).
pub(crate) const KEEP_ALIVE_MS: u64 = 4_000;

/// Milliseconds of silence after which a connection is given up: three signs of life lost. Liveness
/// is judged by membership, sooner; this cleans up.
pub const IDLE_MS_MAX: u32 = 12_000;

/// Milliseconds that one dialled address gets for its handshake. Short, because the first packets
/// of an old attempt back off for seconds when a partition ends, and a new attempt's do not.
pub(crate) const ATTEMPT_MS: u64 = 500;

/// Milliseconds for the handshake in every [`PATIENT_EVERY`]th failed call: a satellite's round
/// trip is longer than [`ATTEMPT_MS`], and such a link must be able to connect at all.
pub(crate) const ATTEMPT_PATIENT_MS: u64 = 1_500;

/// One call in this many is patient.
pub(crate) const PATIENT_EVERY: u32 = 5;

/// Milliseconds assumed for a round trip before one is measured. A lost first packet is sent again
/// after three of these, well inside [`ATTEMPT_MS`].
pub(crate) const INITIAL_RTT_MS: u64 = 100;

/// Milliseconds that the smaller node keeps the other's call waiting for the outcome of its own.
/// Longer than a patient attempt, so that the outcome decides and not this clock.
pub(crate) const HOLD_MS_MAX: u64 = 2_000;

/// Milliseconds that a caller waits for the welcome after the handshake: a held call and a round
/// trip more.
pub(crate) const WELCOME_MS_MAX: u64 = 4_000;

const _: () = assert!(HOLD_MS_MAX > ATTEMPT_PATIENT_MS);
const _: () = assert!(WELCOME_MS_MAX > HOLD_MS_MAX + ATTEMPT_PATIENT_MS / 2);

/// Milliseconds that a stranger's handshake may take, its greeting included.
pub(crate) const HANDSHAKE_MS_MAX: u64 = 5_000;

/// Milliseconds that `open` waits for the other side to allow one more stream.
pub(crate) const OPEN_MS_MAX: u64 = 10_000;

/// Milliseconds of one join conversation: the whole log of a cluster over a slow link.
pub(crate) const JOIN_MS_MAX: u64 = 300_000;

/// Milliseconds that `close` waits for the others to hear of it.
pub(crate) const CLOSE_MS_MAX: u64 = 1_000;

/// Milliseconds for looking up a host name; what takes longer is asked again at the next call.
pub(crate) const RESOLVE_MS_MAX: u64 = 2_000;

/// Look-ups at a time: each holds a thread until the system's resolver gives up.
pub(crate) const RESOLVE_AT_ONCE_MAX: usize = 8;

/// Addresses that one call tries: interfaces and names of one node.
pub(crate) const ADDRESSES_DIALLED_MAX: usize = 16;

/// Removed nodes that are told so at a time; others are refused without a word, and call again.
pub(crate) const FAREWELLS_MAX: usize = 4;

/// Milliseconds that a removed node waits for what the consumer has to say to it.
pub(crate) const FAREWELL_ANSWER_MS_MAX: u64 = 2_000;

/// Milliseconds that a farewell may take: the largest, a frame, at some 300 kbit/s.
pub(crate) const FAREWELL_MS_MAX: u64 = 30_000;

/// Streams that a node may have open to us: HTTP requests and image chunks of one peer.
pub(crate) const NODE_STREAMS_MAX: u32 = 64;

/// Streams that a user may have open on one connection.
pub(crate) const USER_STREAMS_MAX: u32 = 32;

/// Streams that a joiner may have open: one conversation.
pub(crate) const JOINER_STREAMS_MAX: u32 = 1;

/// Bytes that one stream may send ahead of its reader: 80 Mbit/s over a round trip of 100 ms.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes that all streams of an admitted connection may send ahead of their readers.
pub(crate) const WINDOW_BYTES: u32 = 4 << 20;

/// The same for whoever is not admitted (yet), and for joiners.
pub(crate) const STRANGER_WINDOW_BYTES: u32 = 128 << 10;

/// Bytes kept for sending again, per connection.
pub(crate) const SEND_WINDOW_BYTES: u64 = 4 << 20;

/// Bytes of handshake messages that may arrive out of order: ours take 1.5 KiB.
pub(crate) const CRYPTO_BUFFER_BYTES: usize = 16 << 10;

/// The largest UDP payload that is probed for: what Ethernet carries of IPv6, and with room for one
/// layer of VPN in IPv4.
pub(crate) const MTU_BYTES_MAX: u16 = 1452;

/// First packets of calls that wait to be looked at; more are refused by the stack.
pub(crate) const INCOMING_MAX: usize = 256;

/// How much one endpoint takes on. The default suits a node of a large cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the mesh.
    pub nodes_max: usize,
    /// Connections of users.
    pub users_max: usize,
    /// Join conversations at a time.
    pub joiners_max: usize,
    /// Handshakes under way at a time, members' included; more are refused.
    pub handshakes_max: usize,
    /// Handshakes under way above which a caller must first prove that it is at its address, which
    /// costs it a round trip and stops forged senders.
    pub retry_above: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes_max: model::limits::NODES_MAX,
            users_max: 64,
            joiners_max: 8,
            handshakes_max: 128,
            retry_above: 32,
        }
    }
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
