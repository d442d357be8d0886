//! Frames and datagrams: whole, in order, bounded; and what becomes of those who cheat.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{DEADLINE, Peer, joined};
use identity::{Expect, KeyPair};
use tokio::time::timeout;
use transport::{
    ALPN_MESH, DatagramError, Event, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, OUTBOX_BYTES_MAX, SendError,
};

fn pattern(len: usize, salt: usize) -> Bytes {
    (0..len).map(|i| u8::try_from((i * 31 + salt * 7 + i / 251) % 256).unwrap()).collect()
}

#[tokio::test]
async fn frames_arrive_in_order_and_byte_for_byte_both_ways() {
    let (mut a, mut b) = joined().await;
    let sizes = [0, 1, 3, 4, 5, 1199, 1452, 65_536, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, 0, 2];
    for (salt, size) in sizes.into_iter().enumerate() {
        a.endpoint.send(b.id(), pattern(size, salt)).unwrap();
        b.endpoint.send(a.id(), pattern(size, salt + 100)).unwrap();
    }
    for (salt, size) in sizes.into_iter().enumerate() {
        assert_eq!(b.frame(a.id()).await, pattern(size, salt), "{size}");
        assert_eq!(a.frame(b.id()).await, pattern(size, salt + 100), "{size}");
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_is_not_taken() {
    let (a, b) = joined().await;
    let bytes = FRAME_BYTES_MAX + 1;
    assert_eq!(a.endpoint.send(b.id(), pattern(bytes, 0)), Err(SendError::TooLarge { bytes }));
}

#[tokio::test]
async fn a_slow_reader_fills_the_queue_and_nothing_that_was_taken_is_lost() {
    let (a, mut b) = joined().await;
    // Large frames fill the queue by bytes. What is under way and at the other end is bounded too,
    // so it fills after a finite number even though everybody has had time to pass frames on.
    let frame = |n: usize| pattern(256 << 10, n);
    let mut taken = 0;
    let mut refused = 0;
    while refused < 20 {
        match a.endpoint.send(b.id(), frame(taken)) {
            Ok(()) => (taken, refused) = (taken + 1, 0),
            Err(SendError::Full { .. }) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(taken < 100, "nothing stops the sender");
    }
    assert!(taken * (256 << 10) >= OUTBOX_BYTES_MAX - (256 << 10));
    for n in 0..taken {
        assert_eq!(b.frame(a.id()).await, frame(n), "{n}");
    }
}

#[tokio::test]
async fn many_small_frames_fill_the_queue_by_number() {
    let (a, mut b) = joined().await;
    // The current-thread runtime runs nothing else between these calls.
    let mut taken = 0u32;
    let refused = loop {
        match a.endpoint.send(b.id(), Bytes::copy_from_slice(&taken.to_be_bytes())) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::Full { node: b.id() });
    assert_eq!(usize::try_from(taken).unwrap(), FRAMES_QUEUED_MAX);
    for n in 0..taken {
        assert_eq!(b.frame(a.id()).await, n.to_be_bytes().as_slice());
    }
}

#[tokio::test]
async fn a_stalled_peer_does_not_hold_up_the_others() {
    let mut hub = Peer::start(1).await;
    let (mut noisy, mut calm) = (Peer::start(2).await, Peer::start(3).await);
    for peer in [&mut noisy, &mut calm] {
        peer.call(&hub);
        peer.connected(hub.id()).await;
        hub.connected(peer.id()).await;
    }
    // The consumer keeps the noisy peer's frames, up to that peer's share.
    let mut kept = Vec::new();
    for n in 0..3 {
        noisy.endpoint.send(hub.id(), pattern(FRAME_BYTES_MAX, n)).unwrap();
        kept.push(hub.frame(noisy.id()).await);
    }
    noisy.endpoint.send(hub.id(), pattern(FRAME_BYTES_MAX, 3)).unwrap();
    for n in 0..50 {
        calm.endpoint.send(hub.id(), pattern(1000, n)).unwrap();
        assert_eq!(hub.frame(calm.id()).await, pattern(1000, n));
    }
    // Letting go lets the noisy one go on.
    kept.clear();
    assert_eq!(hub.frame(noisy.id()).await, pattern(FRAME_BYTES_MAX, 3));
}

#[tokio::test]
async fn datagrams_arrive_and_too_large_ones_name_the_limit() {
    let (a, mut b) = joined().await;
    a.endpoint.datagram(b.id(), Bytes::from_static(b"alive")).unwrap();
    let event = b.next().await;
    assert_eq!(event, Event::Datagram { from: a.id(), bytes: Bytes::from_static(b"alive") });
    let Err(DatagramError::TooLarge { bytes: 2000, limit }) = a.endpoint.datagram(b.id(), pattern(2000, 0))
    else {
        panic!("a datagram of 2000 bytes was taken");
    };
    assert!((1100..1452).contains(&limit), "{limit}");
    a.endpoint.datagram(b.id(), pattern(limit, 5)).unwrap();
    assert_eq!(b.next().await, Event::Datagram { from: a.id(), bytes: pattern(limit, 5) });
    let nobody = KeyPair::from_seed([9; 32]).node_id();
    assert_eq!(a.endpoint.datagram(nobody, Bytes::new()), Err(DatagramError::NotConnected { node: nobody }));
}

/// A member that speaks QUIC and TLS well and the frames badly.
struct Cheat {
    connection: quinn::Connection,
    send: quinn::SendStream,
    key: KeyPair,
    _endpoint: quinn::Endpoint,
}

impl Cheat {
    async fn connect(to: &Peer, seed: u8) -> Self {
        let key = KeyPair::from_seed([seed; 32]);
        let tls = identity::client_config(&key, ALPN_MESH, Expect::from(to.id()));
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client(common::loopback()).unwrap();
        let connection = endpoint
            .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), to.address(), "any.name")
            .unwrap()
            .await
            .unwrap();
        let send = connection.open_uni().await.unwrap();
        Self { connection, send, key, _endpoint: endpoint }
    }

    async fn greet(&mut self) {
        self.send.write_all(&[7; 16]).await.unwrap();
    }

    /// The reason with which the other end closes.
    async fn closed(&self) -> String {
        match timeout(DEADLINE, self.connection.closed()).await.expect("an end in time") {
            quinn::ConnectionError::ApplicationClosed(close) => {
                String::from_utf8(close.reason.to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_cheat_loses_its_own_connection_and_nobody_elses() {
    let (mut a, mut b) = joined().await;
    let deeds: [(&str, &[u8], bool); 5] = [
        ("limit is 1048576", &[0x00, 0x10, 0x00, 0x01], false),
        ("limit is 1048576", &[0xff; 12], false),
        ("inside a frame", &[0, 0, 0, 10, 1, 2, 3], true),
        ("inside a frame", &[0, 0], true),
        ("the stream of frames ended", &[0, 0, 0, 1, 42], true),
    ];
    for (seed, (reason, bytes, finish)) in (50..).zip(deeds) {
        let mut cheat = Cheat::connect(&b, seed).await;
        let id = cheat.key.node_id();
        cheat.greet().await;
        b.connected(id).await;
        cheat.send.write_all(bytes).await.unwrap();
        if finish {
            cheat.send.finish().unwrap();
        }
        let said = cheat.closed().await;
        assert!(said.contains(reason), "{said}");
        loop {
            match b.next().await {
                Event::Disconnected { node, reason: told } => {
                    assert_eq!(node, id);
                    assert!(told.contains(reason), "{told}");
                    break;
                }
                Event::Frame { from, bytes } => assert_eq!((from, bytes.as_ref()), (id, [42].as_slice())),
                event => panic!("{event:?}"),
            }
        }
        a.quiet(&mut b).await;
    }
}

#[tokio::test]
async fn a_member_that_says_no_greeting_takes_no_place() {
    let (mut a, mut b) = joined().await;
    let mut cheat = Cheat::connect(&b, 50).await;
    cheat.send.write_all(&[1, 2, 3]).await.unwrap();
    cheat.send.finish().unwrap();
    assert_eq!(cheat.closed().await, "protocol error");
    // Silence is waited for, and then ended as well.
    let silent = Cheat::connect(&b, 51).await;
    assert_eq!(silent.closed().await, "took too long");
    a.quiet(&mut b).await;
}

#[tokio::test]
async fn a_second_stream_of_frames_cannot_be_opened() {
    let (mut a, mut b) = joined().await;
    let mut cheat = Cheat::connect(&b, 50).await;
    cheat.greet().await;
    b.connected(cheat.key.node_id()).await;
    let second = timeout(Duration::from_millis(300), cheat.connection.open_uni()).await;
    assert!(second.is_err(), "the limit of one stream is not kept");
    a.quiet(&mut b).await;
}

#[tokio::test]
async fn random_packets_change_nothing() {
    let (mut a, mut b) = joined().await;
    let socket = std::net::UdpSocket::bind(common::loopback()).unwrap();
    let mut chance = 7u64;
    for n in 0..3000usize {
        let mut packet = Vec::with_capacity(n % 1500);
        for _ in 0..n % 1500 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            packet.push(chance.to_be_bytes()[0]);
        }
        if let Some(first) = packet.first_mut() {
            // All kinds of QUIC packets: long headers of this version in every second.
            *first |= 0x40;
            if n % 2 == 0 && packet.len() > 5 {
                packet[0] |= 0x80;
                packet[1..5].copy_from_slice(&1u32.to_be_bytes());
            }
        }
        socket.send_to(&packet, b.address()).unwrap();
    }
    a.quiet(&mut b).await;
    let mut c = Peer::start(9).await;
    c.call(&b);
    c.connected(b.id()).await;
    b.connected(c.id()).await;
}
