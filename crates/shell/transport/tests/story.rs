//! What a consumer may rely on, whatever happens: ends follow beginnings, frames come between the
//! two, calls are answered, and in the end there is one connection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{DEADLINE, Peer, loopback};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use transport::Event;

/// A small generator with a fixed start: the order of deeds is the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One side's story; an event that does not fit fails the test.
#[derive(Default)]
struct Story {
    up: bool,
    asked: bool,
    ups: usize,
}

impl Story {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Connected { .. } => {
                assert!(!self.up, "connected twice");
                (self.up, self.asked) = (true, false);
                self.ups += 1;
            }
            Event::ConnectFailed { reason, .. } => {
                assert!(self.asked, "an answer to no call: {reason}");
                assert!(!self.up, "a call has failed while connected: {reason}");
                self.asked = false;
            }
            Event::Disconnected { .. } => {
                assert!(self.up, "disconnected twice");
                self.up = false;
            }
            Event::Frame { .. } | Event::Datagram { .. } => assert!(self.up, "a frame of nobody"),
            Event::FormerMember { .. } | Event::Farewell { .. } => panic!("nobody was removed"),
        }
    }
}

/// One side: its peer, where it finds the other, and its story.
struct Side {
    peer: Peer,
    other: model::NodeId,
    way: SocketAddr,
    story: Story,
}

impl Side {
    fn call(&mut self) {
        if !self.story.up && !self.story.asked {
            self.story.asked = true;
            self.peer.endpoint.connect(self.other, vec![self.way.to_string()]);
        }
    }

    fn hear_all(&mut self) {
        while let Ok(event) = self.peer.events.try_recv() {
            self.story.hear(&event);
        }
    }
}

/// Does `deeds` random deeds, or more until each side was connected twice: a busy machine connects seldom. Then
/// lets both sides call until they are connected, as nodes do.
async fn storm(mut sides: [Side; 2], seed: u64, deeds: u32, pause_us: u64) {
    let mut chance = Chance(seed);
    let (begun, mut done) = (std::time::Instant::now(), 0);
    while done < deeds || (sides.iter().any(|it| it.story.ups < 2) && begun.elapsed() < DEADLINE) {
        done += 1;
        let side = &mut sides[usize::from(chance.below(2) == 1)];
        match chance.below(8) {
            0 => side.peer.endpoint.disconnect(side.other),
            // Refused when there is no connection, which is as good here.
            1 => drop(side.peer.endpoint.send(side.other, Bytes::from_static(b"x"))),
            2 => sleep(Duration::from_micros(chance.below(pause_us))).await,
            _ => side.call(),
        }
        for side in &mut sides {
            side.hear_all();
        }
    }
    let [a, b] = &mut sides;
    let settled = timeout(DEADLINE, async {
        loop {
            tokio::select! {
                event = a.peer.events.recv() => a.story.hear(&event.unwrap()),
                event = b.peer.events.recv() => b.story.hear(&event.unwrap()),
                () = sleep(Duration::from_millis(700)) => {
                    if a.story.up && b.story.up {
                        return;
                    }
                    a.call();
                    b.call();
                }
            }
        }
    });
    settled.await.expect("both ends connected");
    a.peer.quiet(&mut b.peer).await;
    b.peer.quiet(&mut a.peer).await;
    assert!(a.story.ups > 1 && b.story.ups > 1, "the storm was a calm: {} {}", a.story.ups, b.story.ups);
}

fn side(peer: Peer, other: model::NodeId, way: SocketAddr) -> Side {
    Side { peer, other, way, story: Story::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_calls_and_ends_leaves_a_straight_story_and_one_connection() {
    for seed in 0..6 {
        let (a, b) = Peer::pair().await;
        let (to_a, to_b) = ((a.id(), a.address()), (b.id(), b.address()));
        storm([side(a, to_b.0, to_b.1), side(b, to_a.0, to_a.1)], seed, 600, 1500).await;
    }
}

/// A way to `target` that loses and delays packets, so that they also overtake one another.
async fn bad_way(target: SocketAddr, seed: u64) -> SocketAddr {
    let front = std::sync::Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let back = std::sync::Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let way = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut chance = Chance(seed);
        let mut caller = None;
        let (mut there, mut here) = ([0; 2048], [0; 2048]);
        loop {
            let (packet, socket, to) = tokio::select! {
                got = front.recv_from(&mut there) => {
                    let (len, from) = got.unwrap();
                    caller = Some(from);
                    (there[..len].to_vec(), &back, target)
                }
                got = back.recv_from(&mut here) => {
                    let (len, _) = got.unwrap();
                    let Some(caller) = caller else { continue };
                    (here[..len].to_vec(), &front, caller)
                }
            };
            if chance.below(100) < 15 {
                continue;
            }
            let delay = Duration::from_micros(chance.below(30_000));
            let socket = std::sync::Arc::clone(socket);
            tokio::spawn(async move {
                sleep(delay).await;
                drop(socket.send_to(&packet, to).await);
            });
        }
    });
    way
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_a_bad_link_leaves_a_straight_story_and_one_connection() {
    for seed in 0..3 {
        let (a, b) = Peer::pair().await;
        let ways = (bad_way(a.address(), seed).await, bad_way(b.address(), seed + 100).await);
        let ids = (a.id(), b.id());
        storm([side(a, ids.1, ways.1), side(b, ids.0, ways.0)], seed, 300, 100_000).await;
    }
}
