//! The endpoint: the handle that the peer holds, and what all tasks of it share.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use identity::KeyPair;
use model::{NodeId, UserId};
use quinn::{ConnectionError, RecvStream, SendDatagramError, SendStream, TokioRuntime, VarInt};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::close::Close;
use crate::farewell::Farewells;
use crate::guest::Guests;
use crate::limits::{
    CLOSE_MS_MAX, EVENTS_QUEUED_MAX, FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, INBOX_TOTAL_BYTES_MAX,
    INCOMING_QUEUED_MAX, Limits, OPEN_MS_MAX, ms,
};
use crate::registry::{Queued, Registry};
use crate::resolve::Resolver;
use crate::{Event, Gate, Incoming, accept, config, dial, session};

/// Why an endpoint was not opened. Nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("the UDP address {address} is in use by another program")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen on UDP address {address}")]
    System {
        /// The address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// There is no random number to tell this process from the one before.
    #[error("cannot listen on UDP address {address}: no random numbers")]
    Random {
        /// The address.
        address: SocketAddr,
        /// What the generator said.
        source: identity::RandomError,
    },
}

/// Why a frame was not taken. Nothing of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("not connected to {node}")]
    NotConnected {
        /// The node.
        node: NodeId,
    },
    /// The node reads too slowly: what it misses must be made good by a resync.
    #[error("the queue to {node} is full")]
    Full {
        /// The node.
        node: NodeId,
    },
    /// The frame is larger than any may be.
    #[error("a frame of {bytes} bytes cannot be sent, the limit is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// There is no connection.
    #[error("not connected to {node}")]
    NotConnected {
        /// The node.
        node: NodeId,
    },
    /// It does not fit one packet on the way to this node: send it as a frame.
    #[error("a datagram of {bytes} bytes does not fit a packet, the limit is {limit} at present")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What fits now.
        limit: usize,
    },
}

/// Why no stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error("not connected to {node}")]
    NotConnected {
        /// The node.
        node: NodeId,
    },
    /// The node allowed no further stream in time.
    #[error("{node} has too many streams open already")]
    Busy {
        /// The node.
        node: NodeId,
    },
    /// The connection went away meanwhile.
    #[error("the connection to {node} was lost")]
    Lost {
        /// The node.
        node: NodeId,
        /// Why.
        source: ConnectionError,
    },
}

/// What is known of one connection of the mesh, for status pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The other end.
    pub node: NodeId,
    /// Its address.
    pub remote: SocketAddr,
    /// The round trip, smoothed.
    pub rtt: Duration,
    /// UDP payload bytes sent since the connection began.
    pub bytes_sent: u64,
    /// UDP payload bytes received since the connection began.
    pub bytes_received: u64,
    /// Packets held lost.
    pub packets_lost: u64,
}

/// What all tasks of an endpoint share.
pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) key: KeyPair,
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) limits: Limits,
    pub(crate) resolver: Resolver,
    pub(crate) inbox: Arc<Semaphore>,
    pub(crate) users: Arc<Semaphore>,
    pub(crate) joiners: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// The runtime of `bind`: the handle may be used from anywhere.
    runtime: Handle,
    /// Nobody listens to events any more.
    deaf: CancellationToken,
    events: mpsc::Sender<Event>,
    incoming: mpsc::Sender<Incoming>,
    registry: Mutex<Registry>,
    guests: Mutex<Guests>,
    farewells: Mutex<Farewells>,
}

impl Inner {
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing in the registry is left half done by a panic: its methods do not call out.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn farewells(&self) -> MutexGuard<'_, Farewells> {
        self.farewells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event, however long the consumer takes.
    pub(crate) async fn emit(&self, event: Event) {
        tokio::select! {
            biased;
            // An error means that the consumer is gone: nobody is left to be told.
            sent = self.events.send(event) => drop(sent),
            () = self.deaf.cancelled() => {}
        }
    }

    /// Tells an event if there is room: for datagrams, which may be lost.
    pub(crate) fn offer(&self, event: Event) {
        match self.events.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => tracing::debug!("a datagram was dropped: the consumer is behind"),
        }
    }

    /// Hands a stream over, however long the consumer takes.
    pub(crate) async fn hand_over(&self, incoming: Incoming) {
        tokio::select! {
            biased;
            // An error means that the consumer is gone; dropping the stream resets it.
            sent = self.incoming.send(incoming) => drop(sent),
            () = self.deaf.cancelled() => {}
        }
    }
}

/// Stops everything when the last handle is dropped.
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop.cancel();
        self.0.registry().stop();
        self.0.quinn.close(Close::Stopping.code(), Close::Stopping.text().as_bytes());
        self.0.deaf.cancel();
    }
}

/// One UDP socket and all connections over it. Clones are handles to the same; when the last one is
/// dropped, or [`Endpoint::close`] is called, all connections end.
#[derive(Clone)]
pub struct Endpoint {
    owner: Arc<Owner>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("me", &self.inner().me).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Listens on UDP address `listen` as the node whose key is `key`. Everything runs on the current
    /// tokio runtime, wherever the handle is used. Both receivers must be read, or the connections stall; port 0 takes a free port.
    #[expect(clippy::unused_async, reason = "the socket needs a runtime, which an async fn says in its type")]
    pub async fn bind(
        listen: SocketAddr,
        key: &KeyPair,
        gate: Arc<dyn Gate>,
        limits: Limits,
    ) -> Result<(Self, mpsc::Receiver<Event>, mpsc::Receiver<Incoming>), BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::AddressTaken { address: listen },
            _ => BindError::System { address: listen, source },
        };
        let socket = std::net::UdpSocket::bind(listen).map_err(failed)?;
        let runtime = Arc::new(TokioRuntime);
        let quinn = quinn::Endpoint::new(config::endpoint(key), Some(config::server(key)), socket, runtime)
            .map_err(failed)?;
        let random = KeyPair::generate().map_err(|source| BindError::Random { address: listen, source })?;
        let instance = u64::from_be_bytes(*random.public().first_chunk().expect("a key has 32 bytes"));

        let (events, event_receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (incoming, incoming_receiver) = mpsc::channel(INCOMING_QUEUED_MAX);
        let inner = Arc::new(Inner {
            me: key.node_id(),
            key: key.clone(),
            quinn,
            gate,
            limits,
            resolver: Resolver::new(),
            inbox: Arc::new(Semaphore::new(INBOX_TOTAL_BYTES_MAX)),
            users: Arc::new(Semaphore::new(limits.users_max)),
            joiners: Arc::new(Semaphore::new(limits.joiners_max)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            deaf: CancellationToken::new(),
            events,
            incoming,
            registry: Mutex::new(Registry::new(key.node_id(), instance, limits.nodes_max)),
            guests: Mutex::new(Guests::default()),
            farewells: Mutex::new(Farewells::new()),
        });
        inner.tasks.spawn(accept::run(Arc::clone(&inner)));
        Ok((Self { owner: Arc::new(Owner(inner)) }, event_receiver, incoming_receiver))
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.owner.0
    }

    /// Calls `node` at `addresses` (`host:port`), one after the other, unless it is connected or
    /// being called. Answered by one `Connected` or `ConnectFailed`.
    pub fn connect(&self, node: NodeId, addresses: Vec<String>) {
        let ticket = self.inner().registry().start_dial(node);
        if let Some(ticket) = ticket {
            let inner = Arc::clone(self.inner());
            self.inner().tasks.spawn_on(dial::run(inner, node, addresses, ticket), &self.inner().runtime);
        }
    }

    /// Ends the connection to `node`, or the call to it.
    pub fn disconnect(&self, node: NodeId) {
        self.inner().registry().disconnect(&node, Close::Done, false);
    }

    /// Ends the connection to a node that the roster has dropped, telling it so. The gate refuses
    /// it already.
    pub fn revoked(&self, node: NodeId) {
        self.inner().registry().disconnect(&node, Close::Removed, true);
    }

    /// Says this to a removed node whose call was told as [`Event::FormerMember`], and closes its
    /// connection: up to [`FRAME_BYTES_MAX`], or nothing. Never waits.
    pub fn farewell(&self, node: NodeId, words: Bytes) -> Result<(), SendError> {
        if words.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: words.len() });
        }
        self.inner().farewells().give(&node, words);
        Ok(())
    }

    /// Ends the connections of a user whose rights have ended. The gate refuses it already.
    pub fn revoked_user(&self, user: UserId) {
        self.inner().guests().revoke(&user);
    }

    /// Queues a frame of up to [`FRAME_BYTES_MAX`]. Frames to one node arrive whole and in order, or
    /// the connection ends. Never waits.
    pub fn send(&self, node: NodeId, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: frame.len() });
        }
        let link = self.inner().registry().link(&node).ok_or(SendError::NotConnected { node })?;
        let weight = u32::try_from(frame.len() + FRAME_OVERHEAD_BYTES).expect("checked just now");
        let room =
            Arc::clone(&link.room).try_acquire_many_owned(weight).map_err(|_| SendError::Full { node })?;
        link.outbox.try_send(Queued { frame, _room: room }).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full { node },
            TrySendError::Closed(_) => SendError::NotConnected { node },
        })
    }

    /// Sends one packet that may be lost. Never waits; when too many wait, the oldest is dropped.
    pub fn datagram(&self, node: NodeId, bytes: Bytes) -> Result<(), DatagramError> {
        let link = self.inner().registry().link(&node).ok_or(DatagramError::NotConnected { node })?;
        let len = bytes.len();
        link.connection.send_datagram(bytes).map_err(|error| match error {
            SendDatagramError::ConnectionLost(_) => DatagramError::NotConnected { node },
            // Every node speaks datagrams, so a node that does not has room for none.
            SendDatagramError::TooLarge
            | SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled => {
                let limit = link.connection.max_datagram_size().unwrap_or(0);
                DatagramError::TooLarge { bytes: len, limit }
            }
        })
    }

    /// Opens a stream of bytes in both directions; the other end sees it as [`Incoming`] once
    /// something is written to it.
    pub async fn open(&self, node: NodeId) -> Result<(SendStream, RecvStream), OpenError> {
        let link = self.inner().registry().link(&node).ok_or(OpenError::NotConnected { node })?;
        match timeout(ms(OPEN_MS_MAX), link.connection.open_bi()).await {
            Ok(Ok(streams)) => Ok(streams),
            Ok(Err(source)) => Err(OpenError::Lost { node, source }),
            Err(_) => Err(OpenError::Busy { node }),
        }
    }

    /// The connections of the mesh, by node.
    pub fn links(&self) -> Vec<LinkInfo> {
        let links = self.inner().registry().links();
        links
            .into_iter()
            .map(|(node, link)| {
                let stats = link.connection.stats();
                LinkInfo {
                    node,
                    remote: session::remote(&link.connection),
                    rtt: link.connection.rtt(),
                    bytes_sent: stats.udp_tx.bytes,
                    bytes_received: stats.udp_rx.bytes,
                    packets_lost: stats.path.lost_packets,
                }
            })
            .collect()
    }

    /// The address that is listened on, with the port that was taken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().quinn.local_addr()
    }

    /// Ends all connections and waits, for a second at most, until the others have heard of it.
    /// Every connection that was announced is told as `Disconnected` if the receiver is still read.
    pub async fn close(&self) {
        let inner = self.inner();
        inner.stop.cancel();
        inner.registry().stop();
        inner.quinn.close(VarInt::from_u32(Close::Stopping as u32), Close::Stopping.text().as_bytes());
        inner.tasks.close();
        let ended = async {
            inner.quinn.wait_idle().await;
            inner.tasks.wait().await;
        };
        if timeout(ms(CLOSE_MS_MAX), ended).await.is_err() {
            tracing::debug!("some connections were not closed in time");
        }
        inner.deaf.cancel();
    }
}
