//! Connections between nodes: who may, who calls whom, what ends them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{DEADLINE, Peer, joined, loopback};
use identity::KeyPair;
use tokio::time::timeout;
use transport::{BindError, Caller, Endpoint, Limits, OpenError, SendError};

#[tokio::test]
async fn a_call_connects_both_ends_once() {
    let (mut a, mut b) = joined().await;
    a.call(&b);
    b.call(&a);
    a.quiet(&mut b).await;
    assert_eq!(a.endpoint.links().len(), 1);
    assert_eq!(b.endpoint.links()[0].remote, a.address());
}

#[tokio::test]
async fn a_node_with_another_key_at_the_address_is_not_taken_for_the_one_called() {
    let (mut a, mut b) = Peer::pair().await;
    let wanted = KeyPair::from_seed([77; 32]).node_id();
    a.endpoint.connect(wanted, vec![b.address().to_string()]);
    let reason = a.failed(wanted).await;
    assert!(reason.contains("another key"), "{reason}");
    // The other side has told nothing of it.
    a.call(&b);
    b.connected(a.id()).await;
}

#[tokio::test]
async fn a_stranger_is_refused_with_a_reason() {
    let (mut a, mut b) = Peer::pair().await;
    b.roster.put_out(a.key.public());
    a.call(&b);
    let reason = a.failed(b.id()).await;
    assert!(reason.contains("not a member of this cluster"), "{reason}");
    assert!(b.events.try_recv().is_err());
}

#[tokio::test]
async fn a_node_that_the_caller_itself_does_not_admit_is_not_connected() {
    let (mut a, mut b) = Peer::pair().await;
    a.roster.put_out(b.key.public());
    a.call(&b);
    let reason = a.failed(b.id()).await;
    assert!(reason.contains("not a member"), "{reason}");
    b.connected(a.id()).await;
    let reason = b.disconnected(a.id()).await;
    assert!(reason.contains("not a member"), "{reason}");
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself() {
    let mut a = Peer::start(1).await;
    a.endpoint.connect(a.id(), vec![a.address().to_string()]);
    let reason = a.failed(a.id()).await;
    assert!(reason.contains("itself"), "{reason}");
}

#[tokio::test]
async fn addresses_are_tried_in_order_names_too() {
    let (mut a, mut b) = Peer::pair().await;
    // A socket that answers nothing, a word that is no address, a name.
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    let addresses = vec![
        deaf.local_addr().unwrap().to_string(),
        "no-port".to_owned(),
        format!("localhost:{}", b.address().port()),
    ];
    a.endpoint.connect(b.id(), addresses);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
}

#[tokio::test]
async fn a_call_to_nowhere_fails_soon_and_says_what_happened_where() {
    let (mut a, b) = Peer::pair().await;
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let started = Instant::now();
    a.endpoint.connect(b.id(), vec![address.clone(), "[::1]:9".to_owned()]);
    let reason = a.failed(b.id()).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(reason.contains(&address) && reason.contains("[::1]:9"), "{reason}");
    a.endpoint.connect(b.id(), vec![]);
    assert!(a.failed(b.id()).await.contains("no address"));
}

#[tokio::test]
async fn a_call_that_is_given_up_is_answered_once() {
    let (mut a, mut b) = Peer::pair().await;
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    a.endpoint.connect(b.id(), vec![deaf.local_addr().unwrap().to_string()]);
    a.endpoint.disconnect(b.id());
    assert!(a.failed(b.id()).await.contains("given up"));
    a.call(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    a.quiet(&mut b).await;
}

#[tokio::test]
async fn disconnecting_tells_both_ends() {
    let (mut a, mut b) = joined().await;
    b.endpoint.disconnect(a.id());
    b.disconnected(a.id()).await;
    let reason = a.disconnected(b.id()).await;
    assert!(reason.contains("done"), "{reason}");
    assert_eq!(a.endpoint.send(b.id(), Bytes::new()), Err(SendError::NotConnected { node: b.id() }));
    assert!(matches!(a.endpoint.open(b.id()).await, Err(OpenError::NotConnected { .. })));
}

#[tokio::test]
async fn a_node_that_is_removed_is_cut_off_at_once_and_stays_out() {
    let (mut a, mut b) = joined().await;
    a.roster.put_out(b.key.public());
    a.endpoint.revoked(b.id());
    let reason = b.disconnected(a.id()).await;
    assert!(reason.contains("removed from the cluster"), "{reason}");
    a.disconnected(b.id()).await;
    b.call(&a);
    assert!(b.failed(a.id()).await.contains("not a member"));
    assert!(a.events.try_recv().is_err());
}

#[tokio::test]
async fn two_nodes_that_call_each_other_at_once_keep_one_connection() {
    let (mut a, mut b) = Peer::pair().await;
    for round in 0..200u32 {
        // Who starts first, and by how much, changes from round to round.
        match round % 4 {
            0 => {
                a.call(&b);
                b.call(&a);
            }
            1 => {
                b.call(&a);
                a.call(&b);
            }
            2 => {
                a.call(&b);
                tokio::time::sleep(Duration::from_micros(u64::from(round) * 10)).await;
                b.call(&a);
            }
            _ => {
                b.call(&a);
                tokio::time::sleep(Duration::from_micros(u64::from(round) * 10)).await;
                a.call(&b);
            }
        }
        a.connected(b.id()).await;
        b.connected(a.id()).await;
        // One and the same: what is sent arrives, and nothing else was told, on either side.
        a.quiet(&mut b).await;
        b.quiet(&mut a).await;
        let ender = if round % 3 == 0 { &a } else { &b };
        ender.endpoint.disconnect(if round % 3 == 0 { b.id() } else { a.id() });
        a.disconnected(b.id()).await;
        b.disconnected(a.id()).await;
        assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "round {round}");
    }
}

#[tokio::test]
async fn a_way_that_is_open_in_one_direction_only_is_enough() {
    let (mut small, mut large) = Peer::pair().await;
    // The smaller node's call, which would be kept, reaches nobody; the larger one's waits for it.
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    small.endpoint.connect(large.id(), vec![deaf.local_addr().unwrap().to_string(); 8]);
    large.call(&small);
    small.connected(large.id()).await;
    large.connected(small.id()).await;
    small.quiet(&mut large).await;
}

/// A peer whose process is gone without a word: its runtime is shut down, then its socket is closed.
fn crash(runtime: tokio::runtime::Runtime, peer: Peer) {
    let address = peer.address();
    std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE)).join().unwrap();
    drop(peer);
    let deadline = Instant::now() + DEADLINE;
    while std::net::UdpSocket::bind(address).is_err() {
        assert!(Instant::now() < deadline, "the port is not free though the peer is gone");
        std::thread::yield_now();
    }
}

fn start_apart(seed: u8, port: u16) -> (tokio::runtime::Runtime, Peer) {
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = (std::net::Ipv4Addr::LOCALHOST, port).into();
        let peer =
            runtime.block_on(Peer::start_at(KeyPair::from_seed([seed; 32]), listen, Limits::default()));
        (runtime, peer)
    })
    .join()
    .unwrap()
}

#[tokio::test]
async fn a_peer_that_was_killed_and_calls_again_replaces_its_old_connection_at_once() {
    // Both orders of ids: the rule for two calls at once must not keep the dead connection.
    for (seed, other) in [(1, 2), (2, 1)] {
        let mut a = Peer::start(seed).await;
        let (runtime, mut b) = start_apart(other, 0);
        let port = b.address().port();
        for caller_is_a in [true, false] {
            if caller_is_a {
                a.call(&b);
            } else {
                a.endpoint.disconnect(b.id());
                a.disconnected(b.id()).await;
                b.disconnected(a.id()).await;
                b.call(&a);
            }
            a.connected(b.id()).await;
            b.connected(a.id()).await;
        }
        let id = b.id();
        crash(runtime, b);
        let (runtime, mut b) = start_apart(other, port);
        let started = Instant::now();
        b.call(&a);
        b.connected(a.id()).await;
        a.disconnected(id).await;
        a.connected(id).await;
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        a.quiet(&mut b).await;
        crash(runtime, b);
    }
}

#[tokio::test]
async fn a_peer_that_was_killed_and_is_back_at_its_port_is_noticed_by_the_first_packet() {
    let mut a = Peer::start(1).await;
    let (runtime, mut b) = start_apart(2, 0);
    let port = b.address().port();
    a.call(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    let id = b.id();
    crash(runtime, b);
    let (runtime, mut b) = start_apart(2, port);
    let started = Instant::now();
    a.endpoint.send(id, Bytes::from_static(b"are you there?")).unwrap();
    let reason = a.disconnected(id).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(reason.contains("restarted"), "{reason}");
    a.call(&b);
    a.connected(id).await;
    b.connected(a.id()).await;
    a.quiet(&mut b).await;
    crash(runtime, b);
}

#[tokio::test]
async fn a_peer_that_vanishes_is_given_up_after_the_idle_time() {
    let mut a = Peer::start(1).await;
    let (runtime, mut b) = start_apart(2, 0);
    a.call(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    let id = b.id();
    crash(runtime, b);
    let reason = a.disconnected(id).await;
    assert!(reason.contains("no sign of life"), "{reason}");
}

#[tokio::test]
async fn closing_tells_the_others_and_ends_the_story_here() {
    let (mut a, mut b) = joined().await;
    a.endpoint.close().await;
    let reason = b.disconnected(a.id()).await;
    assert!(reason.contains("stopping"), "{reason}");
    a.disconnected(b.id()).await;
    a.call(&b);
    assert_eq!(a.endpoint.send(b.id(), Bytes::new()), Err(SendError::NotConnected { node: b.id() }));
    // The port is free again.
    let address = a.address();
    drop(a);
    let deadline = Instant::now() + DEADLINE;
    while std::net::UdpSocket::bind(address).is_err() {
        assert!(Instant::now() < deadline, "the port is still taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_connections() {
    let (mut a, b) = joined().await;
    let id = b.id();
    drop(b);
    assert!(a.disconnected(id).await.contains("stopping"));
}

#[tokio::test]
async fn a_taken_address_is_said_as_such() {
    let a = Peer::start(1).await;
    let gate = std::sync::Arc::new(common::Roster::default());
    let result = Endpoint::bind(a.address(), &a.key, gate, Limits::default()).await;
    assert!(matches!(result, Err(BindError::AddressTaken { address }) if address == a.address()));
}

#[tokio::test]
async fn a_node_opens_streams_to_another() {
    let (a, mut b) = joined().await;
    let (mut send, mut recv) = a.endpoint.open(b.id()).await.unwrap();
    send.write_all(b"GET /").await.unwrap();
    send.finish().unwrap();
    let mut request = timeout(DEADLINE, b.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(request.who, Caller::Node(a.id()));
    assert_eq!(request.remote, a.address());
    assert_eq!(request.recv.read_to_end(100).await.unwrap(), b"GET /");
    request.send.write_all(b"200").await.unwrap();
    request.send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"200");
}

#[tokio::test]
async fn more_nodes_than_the_limit_are_told_that_the_node_is_busy() {
    let limits = Limits { nodes_max: 1, ..Limits::default() };
    let mut hub = Peer::start_at(KeyPair::from_seed([1; 32]), loopback(), limits).await;
    let (mut first, mut second) = (Peer::start(2).await, Peer::start(3).await);
    first.call(&hub);
    first.connected(hub.id()).await;
    second.call(&hub);
    assert!(second.failed(hub.id()).await.contains("busy"));
    hub.connected(first.id()).await;
    first.endpoint.disconnect(hub.id());
    hub.disconnected(first.id()).await;
    second.call(&hub);
    second.connected(hub.id()).await;
}
