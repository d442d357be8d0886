//! Endpoints on the loopback, and waits that end when something was observed.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use identity::KeyPair;
use model::{NodeId, UserId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use transport::{Endpoint, Event, Gate, Incoming, Limits};

/// How long a test waits for what must happen: generous, as the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A roster that tests change. Everybody is in it until put out.
#[derive(Default)]
pub struct Roster {
    out: Mutex<BTreeSet<[u8; 32]>>,
    former: Mutex<BTreeSet<NodeId>>,
    closed: AtomicBool,
}

impl Roster {
    pub fn put_out(&self, key: [u8; 32]) {
        self.out.lock().unwrap().insert(key);
    }

    /// Removes a node: it is out, and known to have been in.
    pub fn remove(&self, node: NodeId) {
        self.former.lock().unwrap().insert(node);
        self.put_out(*node.as_bytes());
    }

    pub fn close_joining(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn has(&self, key: &[u8; 32]) -> bool {
        !self.out.lock().unwrap().contains(key)
    }
}

impl Gate for Roster {
    fn node_allowed(&self, node: &NodeId) -> bool {
        self.has(node.as_bytes())
    }

    fn node_former(&self, node: &NodeId) -> bool {
        self.former.lock().unwrap().contains(node)
    }

    fn user_allowed(&self, user: &UserId) -> bool {
        self.has(user.as_bytes())
    }

    fn joining_allowed(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }
}

/// One endpoint and what it tells.
pub struct Peer {
    pub key: KeyPair,
    pub endpoint: Endpoint,
    pub events: mpsc::Receiver<Event>,
    pub incoming: mpsc::Receiver<Incoming>,
    pub roster: Arc<Roster>,
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Peer {
    pub async fn start(seed: u8) -> Self {
        Self::start_at(KeyPair::from_seed([seed; 32]), loopback(), Limits::default()).await
    }

    pub async fn start_at(key: KeyPair, listen: SocketAddr, limits: Limits) -> Self {
        let roster = Arc::new(Roster::default());
        let gate = Arc::clone(&roster) as Arc<dyn Gate>;
        let (endpoint, events, incoming) = Endpoint::bind(listen, &key, gate, limits).await.unwrap();
        Self { key, endpoint, events, incoming, roster }
    }

    /// Two peers, the one with the smaller id first.
    pub async fn pair() -> (Self, Self) {
        let (a, b) = (Self::start(1).await, Self::start(2).await);
        if a.id() < b.id() { (a, b) } else { (b, a) }
    }

    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub fn call(&self, other: &Self) {
        self.endpoint.connect(other.id(), vec![other.address().to_string()]);
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("an open endpoint")
    }

    pub async fn connected(&mut self, other: NodeId) {
        assert_eq!(self.next().await, Event::Connected { node: other });
    }

    /// The reason of the next event, which must be the end of the connection to `other`.
    pub async fn disconnected(&mut self, other: NodeId) -> String {
        match self.next().await {
            Event::Disconnected { node, reason } if node == other => reason,
            event => panic!("{event:?} instead of a disconnection of {other:?}"),
        }
    }

    pub async fn failed(&mut self, other: NodeId) -> String {
        match self.next().await {
            Event::ConnectFailed { node, reason } if node == other => reason,
            event => panic!("{event:?} instead of a failed call to {other:?}"),
        }
    }

    pub async fn frame(&mut self, other: NodeId) -> Bytes {
        match self.next().await {
            Event::Frame { from, bytes } if from == other => bytes,
            event => panic!("{event:?} instead of a frame of {other:?}"),
        }
    }

    /// Nothing was told; shown by an answer from `other` that was asked for later.
    pub async fn quiet(&mut self, other: &mut Self) {
        self.endpoint.send(other.id(), Bytes::from_static(b"ping")).unwrap();
        assert_eq!(other.frame(self.id()).await, "ping");
        other.endpoint.send(self.id(), Bytes::from_static(b"pong")).unwrap();
        assert_eq!(self.frame(other.id()).await, "pong");
    }
}

/// Two peers with a connection.
pub async fn joined() -> (Peer, Peer) {
    let (mut a, mut b) = Peer::pair().await;
    a.call(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    (a, b)
}
