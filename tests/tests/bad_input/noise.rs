//! Random, oversized and cut-off bytes on every door of a peer: it goes on answering, in bounded memory.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use identity::{Expect, KeyPair};
use model::{NodeId, UserId};
use serde_json::Value;
use transport::{ALPN_API, Endpoint, Event, Gate, Limits};

use crate::world::{LIMIT, Node, Site, root, timed, until};

/// KiB that noise may add to a peer: bounded buffers, and what the allocator keeps of them.
const GROWTH_KIB_MAX: u64 = 96 * 1024;

/// A small generator of chance with a fixed seed: a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Makes noise, and sees that the peer is the same process, answers, and has not grown.
#[track_caller]
fn survives(node: &Node<'_>, noise: impl FnOnce()) {
    let (pid, before, history) = (node.pid(), node.rss_kib(), node.history());
    noise();
    timed(10, || assert_eq!(node.history(), history));
    assert_eq!(node.json::<Value>(&["status"])["pid"], pid);
    let grown = node.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more than before");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn bytes_that_are_no_request_do_not_disturb_the_socket() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    survives(&node, || {
        let mut chance = Chance(1);
        for length in [0, 1, 10, 1_000, 100_000, 2_000_000] {
            let bytes = chance.bytes(length);
            let answer = node.raw(&bytes);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
        }
        // Requests that end in the middle.
        let whole = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nshort";
        for length in [1, 10, 30, whole.len()] {
            node.raw(&whole[..length]);
        }
        for request in [
            &b"GET /v1/status HTTP/9.9\r\n\r\n"[..],
            b"GET http://\x00 HTTP/1.1\r\n\r\n",
            b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
            b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            let answer = node.raw(request);
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.0 4"),
                "{:?} to {:?}",
                String::from_utf8_lossy(&answer),
                String::from_utf8_lossy(request)
            );
        }
    });
}

#[test]
fn a_huge_head_and_an_endless_body_are_cut_off() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    survives(&node, || {
        // 50 MB of head: refused once it is more than any head of ours.
        let mut head = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nx-junk: ".to_vec();
        head.resize(50_000_000, b'j');
        let answer = node.raw(&head);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let mut many = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n".to_vec();
        for n in 0..100_000 {
            many.extend_from_slice(format!("x-{n}: y\r\n").as_bytes());
        }
        let answer = node.raw(&many);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1_000_000));
        let answer = node.raw(path.as_bytes());
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        // A body without end for what takes an event.
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
            .write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        let chunk = [&b"10000\r\n"[..], &vec![b'x'; 65_536], b"\r\n"].concat();
        let mut sent = 0_u64;
        while stream.write_all(&chunk).is_ok() {
            sent += 65_536;
            assert!(sent < 256 << 20, "256 MiB of one event were taken");
        }
        let mut answer = Vec::new();
        // Reset, or answered before: both end it.
        stream.read_to_end(&mut answer).ok();
    });
}

#[test]
fn many_clients_that_say_nothing_do_not_keep_others_out() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    survives(&node, || {
        let idle: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
        timed(10, || node.run(&["status"]).ok());
        // Those that began a head are let go.
        let mut slow = UnixStream::connect(node.socket()).unwrap();
        slow.write_all(b"GET /v1/st").unwrap();
        slow.set_read_timeout(Some(LIMIT)).unwrap();
        let mut end = Vec::new();
        slow.read_to_end(&mut end).unwrap();
        drop(idle);
    });
}

#[test]
fn questions_that_make_no_sense_get_an_answer_that_does() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let long = "a".repeat(300);
    for (method, path, body, status, words) in [
        ("GET", "/v1/nothing", "", 404, "there is no such path"),
        ("DELETE", "/v1/status", "", 405, ""),
        ("GET", "/v1/authoring", "", 400, "doc"),
        ("GET", "/v1/authoring?doc=../x", "", 400, "there is no such document"),
        ("GET", "/v1/deployments?namespace=..", "", 400, "`..` is not the name of a namespace"),
        ("GET", &format!("/v1/deployments?namespace={long}"), "", 400, "is not the name of a namespace"),
        ("GET", "/v1/explain?deployment=none", "", 404, "there is no deployment default/none"),
        ("GET", "/v1/explain", "", 400, "the query needs `deployment`"),
        ("GET", "/v1/blobs/..%2f..%2fkey", "", 400, "not a digest"),
        ("GET", &format!("/v1/blobs/{}", "ab".repeat(32)), "", 404, "no such blob"),
        ("GET", "/v1/container-logs/..%2f..%2fkey", "", 400, ""),
        ("GET", "/v1/logs?tail=-1", "", 400, ""),
        ("POST", "/v1/events?durable=-1", "", 400, ""),
        ("POST", "/v1/exec", "{}", 400, "exec needs an upgrade to `skerry-exec`"),
        ("POST", "/v1/images/binary", "x", 400, "the query needs `name`"),
        ("POST", "/v1/images/binary?name=x:1&file=..%2fx", "x", 400, "the image was not taken"),
    ] {
        let (got, answer) = node.http(method, path, body.as_bytes());
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(answer.contains(words), "{method} {path}: {answer}");
    }
}

#[test]
fn packets_that_are_no_quic_do_not_disturb_the_mesh_port() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    survives(&node, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut chance = Chance(2);
        for n in 0..20_000_usize {
            let mut bytes = chance.bytes(n % 1_500);
            // Every other one looks like the first packet of a handshake.
            if n % 2 == 0 && bytes.len() > 6 {
                bytes[0] = 0xc0 | (bytes[0] & 0x0f);
                bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
                bytes[5] = 8;
            }
            socket.send_to(&bytes, &node.address).unwrap();
        }
        socket.send_to(&vec![0xff; 65_000], &node.address).unwrap();
        // Who has a key is still let in by that port.
        site.run(&["--peer", &node.address, "status"]).ok();
    });
}

#[derive(Debug)]
struct Anybody;

impl Gate for Anybody {
    fn node_allowed(&self, _: &NodeId) -> bool {
        true
    }

    fn node_former(&self, _: &NodeId) -> bool {
        false
    }

    fn user_allowed(&self, _: &UserId) -> bool {
        true
    }

    fn joining_allowed(&self) -> bool {
        true
    }
}

/// The next event that is not a frame or a datagram.
async fn link(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Event {
    let next = async {
        loop {
            match events.recv().await.unwrap() {
                Event::Frame { .. } | Event::Datagram { .. } => {}
                event => return event,
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.unwrap()
}

#[test]
fn a_member_that_talks_rubbish_is_not_believed_and_the_others_work_on() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let evil = site.join(&node, "evil");
    let key = KeyPair::load(&evil.dir.join("key")).unwrap();
    let me = KeyPair::load(&node.dir.join("key")).unwrap().node_id();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    survives(&node, || {
        runtime.block_on(async {
            let listen = evil.address.parse().unwrap();
            let (endpoint, mut events, _incoming) =
                Endpoint::bind(listen, &key, Arc::new(Anybody), Limits::default()).await.unwrap();
            endpoint.connect(me, vec![node.address.clone()]);
            assert_eq!(link(&mut events).await, Event::Connected { node: me });
            let mut chance = Chance(3);
            let frames = [
                chance.bytes(100),
                vec![],
                vec![0],
                [&[0, 1, 2, 253][..], &(1_u64 << 40).to_le_bytes()].concat(),
                [&[0, 9][..], &chance.bytes(50)].concat(),
                chance.bytes(1 << 20),
                wire::encode(&wire::Message::Events {
                    events: vec![chance.bytes(60_000), vec![], chance.bytes(70)],
                    more: false,
                })
                .unwrap(),
                wire::encode(&wire::Message::Liveness { bytes: chance.bytes(60_000), reply: true }).unwrap(),
                wire::encode(&wire::Message::Stored {
                    ids: vec![model::EventId::from_bytes([1; 32]); 20_000],
                })
                .unwrap(),
                wire::encode(&wire::Message::Want { ids: vec![model::EventId::from_bytes([1; 32]); 20_000] })
                    .unwrap(),
            ];
            for round in 0..20 {
                for frame in &frames {
                    // Where it closed the link: once more from the start.
                    if endpoint.send(me, Bytes::from(frame.clone())).is_err() {
                        endpoint.connect(me, vec![node.address.clone()]);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                endpoint.datagram(me, Bytes::from(chance.bytes(1 + round * 50))).ok();
            }
            // Through all this it is still a member that can be talked to.
            endpoint.connect(me, vec![node.address.clone()]);
            endpoint.close().await;
        });
    });
    let notices = until(|| {
        let said = node.run(&["events"]).ok().out;
        if said.contains("evil sent an event that was not taken") {
            Ok(said)
        } else {
            Err(format!("{said}\n{}", node.log()))
        }
    });
    assert!(!notices.contains("panicked"));
    assert!(node.log().contains("a frame was dropped"), "{}", node.log());
}

#[test]
fn a_client_with_a_key_that_sends_rubbish_over_the_mesh_is_told_so() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let key = site.key("ada");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    survives(&node, || {
        runtime.block_on(async {
            let mut chance = Chance(4);
            let connection =
                transport::dial(&node.address, &key, ALPN_API, Expect::Any, LIMIT).await.unwrap();
            for length in [1, 1_000, 300_000] {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                let bytes = chance.bytes(length);
                // It may stop reading when it has heard enough.
                send.write_all(&bytes).await.ok();
                send.finish().ok();
                let answer = recv.read_to_end(100_000).await.unwrap_or_default();
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
            }
            connection.close().await;
            // A joiner without a token that anybody made, and one that speaks in another way.
            let stranger = KeyPair::from_seed([77; 32]);
            let unproven = [&[2][..], &[0; 32 + 64]].concat();
            for (says, hears) in [
                (&unproven[..], "this token is not known here"),
                (&[1][..], "this peer and the machine that joins are of different releases"),
            ] {
                let connection =
                    transport::dial(&node.address, &stranger, transport::ALPN_JOIN, Expect::Any, LIMIT)
                        .await
                        .unwrap();
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                send.write_all(says).await.unwrap();
                let answer = recv.read_to_end(10_000).await.unwrap();
                assert_eq!(answer[0], b'n');
                let words = String::from_utf8_lossy(&answer[5..]);
                assert!(words.starts_with(hears), "{words}");
                connection.close().await;
            }
        });
    });
}
