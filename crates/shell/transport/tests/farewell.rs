//! What a removed node is told when it calls, and that nothing it sends is read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Peer;
use identity::Expect;
use tokio::time::timeout;
use transport::{ALPN_MESH, Event, FRAME_BYTES_MAX, dial};

/// Two peers; the second was removed from the first one's roster.
async fn removed() -> (Peer, Peer) {
    let (keeper, gone) = Peer::pair().await;
    keeper.roster.remove(gone.id());
    (keeper, gone)
}

async fn asked(keeper: &mut Peer, gone: &Peer) {
    assert_eq!(keeper.next().await, Event::FormerMember { node: gone.id() });
}

#[tokio::test]
async fn a_removed_node_that_calls_is_told_the_consumers_words_and_not_let_in() {
    let (mut keeper, mut gone) = removed().await;
    gone.call(&keeper);
    asked(&mut keeper, &gone).await;
    let words = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    keeper.endpoint.farewell(gone.id(), words.clone()).unwrap();
    assert_eq!(gone.next().await, Event::Farewell { from: keeper.id(), bytes: words });
    let reason = gone.failed(keeper.id()).await;
    assert!(reason.ends_with("removed from the cluster"), "{reason}");
    assert!(keeper.endpoint.links().is_empty() && gone.endpoint.links().is_empty());
    assert!(keeper.events.try_recv().is_err(), "the keeper has heard something else of it");
}

#[tokio::test]
async fn with_nothing_to_say_the_call_just_fails_as_removed() {
    let (mut keeper, mut gone) = removed().await;
    for _ in 0..3 {
        gone.call(&keeper);
        asked(&mut keeper, &gone).await;
        keeper.endpoint.farewell(gone.id(), Bytes::new()).unwrap();
        let reason = gone.failed(keeper.id()).await;
        assert!(reason.contains("removed from the cluster"), "{reason}");
    }
}

#[tokio::test]
async fn a_consumer_that_says_nothing_at_all_keeps_no_call_waiting_for_long() {
    let (mut keeper, mut gone) = removed().await;
    let began = Instant::now();
    gone.call(&keeper);
    asked(&mut keeper, &gone).await;
    let reason = gone.failed(keeper.id()).await;
    assert!(reason.contains("removed from the cluster"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Words that come too late, or that nobody asked for, go nowhere.
    keeper.endpoint.farewell(gone.id(), Bytes::from_static(b"late")).unwrap();
    assert!(keeper.endpoint.farewell(gone.id(), Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).is_err());
}

#[tokio::test]
async fn nothing_that_a_removed_node_sends_is_read() {
    let (mut keeper, gone) = removed().await;
    let address = keeper.address().to_string();
    // Its own key, and a caller of our own making that talks all the same.
    let call = dial(&address, &gone.key, ALPN_MESH, Expect::Any, Duration::from_secs(10));
    let (call, ()) = tokio::join!(call, async {
        asked(&mut keeper, &gone).await;
        keeper.endpoint.farewell(gone.id(), Bytes::from_static(b"gone")).unwrap();
    });
    // What `dial` takes for a welcome is the greeting of the farewell.
    let connection = call.unwrap();
    let opened = timeout(Duration::from_secs(10), connection.open_bi()).await;
    assert!(matches!(opened, Ok(Err(_))), "a removed node was given a stream");
    let reason = connection.closed().await;
    assert!(reason.contains("removed from the cluster"), "{reason}");
    assert!(keeper.events.try_recv().is_err() && keeper.incoming.try_recv().is_err());
}

#[tokio::test]
async fn a_stranger_is_no_former_member_and_gets_no_words() {
    let (keeper, mut stranger) = Peer::pair().await;
    keeper.roster.put_out(stranger.key.public());
    stranger.call(&keeper);
    let reason = stranger.failed(keeper.id()).await;
    assert!(reason.contains("not a member"), "{reason}");
}

#[tokio::test]
async fn a_connection_whose_node_is_removed_ends_and_its_next_call_is_told() {
    let (mut keeper, mut gone) = common::joined().await;
    keeper.roster.remove(gone.id());
    keeper.endpoint.revoked(gone.id());
    let reason = gone.disconnected(keeper.id()).await;
    assert!(reason.contains("removed from the cluster"), "{reason}");
    keeper.disconnected(gone.id()).await;
    gone.call(&keeper);
    asked(&mut keeper, &gone).await;
    keeper.endpoint.farewell(gone.id(), Bytes::from_static(b"gone")).unwrap();
    assert_eq!(gone.next().await, Event::Farewell { from: keeper.id(), bytes: Bytes::from_static(b"gone") });
    gone.failed(keeper.id()).await;
}
