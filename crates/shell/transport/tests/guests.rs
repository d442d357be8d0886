//! Callers that are not nodes: users and joiners.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{DEADLINE, Peer, loopback};
use identity::{Expect, KeyPair};
use tokio::time::timeout;
use transport::{ALPN_API, ALPN_JOIN, ALPN_MESH, Caller, ClientConnection, DialError, Limits, dial};

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32])
}

async fn call(
    to: SocketAddr,
    key: &KeyPair,
    alpn: &[u8],
    expect: Expect,
) -> Result<ClientConnection, DialError> {
    dial(&to.to_string(), key, alpn, expect, Duration::from_secs(5)).await
}

/// Asks on a new stream and answers at the other end; shows who asked.
async fn ask(connection: &ClientConnection, node: &mut Peer) -> Caller {
    let (mut send, mut recv) = timeout(DEADLINE, connection.open_bi()).await.unwrap().unwrap();
    send.write_all(b"question").await.unwrap();
    send.finish().unwrap();
    let mut request = timeout(DEADLINE, node.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(request.recv.read_to_end(100).await.unwrap(), b"question");
    request.send.write_all(b"answer").await.unwrap();
    request.send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"answer");
    request.who
}

#[tokio::test]
async fn a_user_asks_over_streams_and_is_known_by_its_key() {
    let mut node = Peer::start(1).await;
    let user = key(2);
    let connection = call(node.address(), &user, ALPN_API, Expect::Key(node.key.public())).await.unwrap();
    assert_eq!(connection.peer_key(), node.key.public());
    for _ in 0..100 {
        assert_eq!(ask(&connection, &mut node).await, Caller::User(user.user_id()));
    }
    connection.close().await;
    assert!(node.events.try_recv().is_err(), "guests are no event of the mesh");
}

#[tokio::test]
async fn a_user_that_is_not_known_is_refused_with_a_reason() {
    let node = Peer::start(1).await;
    node.roster.put_out(key(2).public());
    let error = call(node.address(), &key(2), ALPN_API, Expect::Any).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Refused { reason, .. } if reason.contains("not a member")),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_whose_rights_end_is_cut_off() {
    let mut node = Peer::start(1).await;
    let (kept, gone) = (key(2), key(3));
    let kept_connection = call(node.address(), &kept, ALPN_API, Expect::Any).await.unwrap();
    let gone_connection = call(node.address(), &gone, ALPN_API, Expect::Any).await.unwrap();
    ask(&gone_connection, &mut node).await;
    node.roster.put_out(gone.public());
    node.endpoint.revoked_user(gone.user_id());
    let reason = timeout(DEADLINE, gone_connection.closed()).await.unwrap();
    assert!(reason.contains("removed"), "{reason}");
    ask(&kept_connection, &mut node).await;

    // Without that call the next request finds out.
    node.roster.put_out(kept.public());
    let (mut send, _recv) = kept_connection.open_bi().await.unwrap();
    send.write_all(b"question").await.unwrap();
    let reason = timeout(DEADLINE, kept_connection.closed()).await.unwrap();
    assert!(reason.contains("not a member"), "{reason}");
    assert!(node.incoming.try_recv().is_err());
}

#[tokio::test]
async fn a_joiner_with_any_key_may_have_one_conversation_at_a_time() {
    let mut node = Peer::start(1).await;
    let connection = call(node.address(), &key(5), ALPN_JOIN, Expect::Any).await.unwrap();
    assert_eq!(connection.peer_key(), node.key.public());
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"question").await.unwrap();
    let request = timeout(DEADLINE, node.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(request.who, Caller::Joiner(key(5).public()));
    let second = timeout(Duration::from_millis(300), connection.open_bi()).await;
    assert!(second.is_err(), "a joiner has opened a second stream");
}

#[tokio::test]
async fn joining_can_be_closed() {
    let node = Peer::start(1).await;
    node.roster.close_joining();
    let error = call(node.address(), &key(5), ALPN_JOIN, Expect::Any).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Refused { reason, .. } if reason.contains("admits nobody")),
        "{error}"
    );
}

#[tokio::test]
async fn a_users_key_opens_no_door_of_the_mesh() {
    let mut node = Peer::start(1).await;
    node.roster.put_out(key(2).public());
    let error = call(node.address(), &key(2), ALPN_MESH, Expect::Any).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Refused { reason, .. } if reason.contains("not a member")),
        "{error}"
    );
    let error = call(node.address(), &key(2), b"other/1", Expect::Any).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    assert!(node.incoming.try_recv().is_err());
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_said_as_such() {
    let node = Peer::start(1).await;
    let error = call(node.address(), &key(2), ALPN_API, Expect::Key(key(9).public())).await.unwrap_err();
    assert!(matches!(error, DialError::WrongKey { .. }), "{error}");
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_told_apart() {
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let error = dial(&address, &key(2), ALPN_API, Expect::Any, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, DialError::NoAnswer { .. }), "{error}");
    let error = dial("no-port", &key(2), ALPN_API, Expect::Any, Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, DialError::Resolve { .. }), "{error}");
    let node = Peer::start(1).await;
    let name = format!("localhost:{}", node.address().port());
    dial(&name, &key(2), ALPN_API, Expect::Any, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn guests_beyond_the_limit_are_told_that_the_node_is_busy() {
    let limits = Limits { users_max: 2, joiners_max: 1, ..Limits::default() };
    let node = Peer::start_at(key(1), loopback(), limits).await;
    for (alpn, max) in [(ALPN_API, 2), (ALPN_JOIN, 1)] {
        let mut guests = Vec::new();
        for _ in 0..max {
            guests.push(call(node.address(), &key(2), alpn, Expect::Any).await.unwrap());
        }
        let error = call(node.address(), &key(2), alpn, Expect::Any).await.unwrap_err();
        assert!(matches!(&error, DialError::Refused { reason, .. } if reason.contains("busy")), "{error}");
        guests.pop().unwrap().close().await;
        // The place is free when the node has heard of the end.
        let again = timeout(DEADLINE, async {
            loop {
                match call(node.address(), &key(2), alpn, Expect::Any).await {
                    Ok(connection) => return connection,
                    Err(DialError::Refused { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        drop(again.await.expect("a free place"));
    }
}

#[tokio::test]
async fn a_caller_that_must_prove_its_address_gets_in_all_the_same() {
    let limits = Limits { retry_above: 0, ..Limits::default() };
    let mut node = Peer::start_at(key(1), loopback(), limits).await;
    let connection = call(node.address(), &key(2), ALPN_API, Expect::Any).await.unwrap();
    ask(&connection, &mut node).await;
    let mut other = Peer::start(3).await;
    other.call(&node);
    other.connected(node.id()).await;
}

#[tokio::test]
async fn no_place_for_a_handshake_means_busy_at_once() {
    let limits = Limits { handshakes_max: 0, retry_above: 1, ..Limits::default() };
    let node = Peer::start_at(key(1), loopback(), limits).await;
    let error = call(node.address(), &key(2), ALPN_API, Expect::Any).await.unwrap_err();
    assert!(matches!(&error, DialError::Refused { reason, .. } if reason.contains("busy")), "{error}");
}
