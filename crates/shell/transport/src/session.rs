//! One task per link: it owns the link's streams and tells its story, from `Connected` to
//! `Disconnected`.

use std::sync::Arc;

use model::NodeId;
use quinn::{Connection, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::close::{Close, explain};
use crate::endpoint::Inner;
use crate::frame::{self, FrameError, Greeting, Inbox};
use crate::limits::{INBOX_BYTES_MAX, NODE_STREAMS_MAX, WELCOME_MS_MAX, WINDOW_BYTES, ms};
use crate::registry::{Queued, Seat};
use crate::{Caller, Event, Incoming};

/// Frames go before bulk streams of the same connection.
const FRAMES_PRIORITY: i32 = 1;

/// The stream to the other end: open when this end called, to be opened with the welcome when it
/// was called.
pub(crate) enum Outward {
    Open(SendStream),
    Welcome,
}

/// Runs a link to its end.
pub(crate) async fn run(inner: Arc<Inner>, node: NodeId, seat: Seat, outward: Outward, inward: RecvStream) {
    let Seat { link, outbox, mut turn, owed, welcome } = seat;
    let connection = link.connection.clone();
    // Asked again now that the link can be found by `revoked`: between the first question and here
    // the roster may have changed.
    if !inner.gate.node_allowed(&node) {
        link.end(Close::NotAMember, None);
        inner.registry().vacate(&node, &link);
        turn.come().await;
        if owed {
            let reason = Close::NotAMember.text().to_owned();
            inner.emit(Event::ConnectFailed { node, reason }).await;
        }
        turn.pass().await;
        return inner.registry().sweep(&node);
    }
    let opened = match outward {
        Outward::Open(stream) => Some(stream),
        Outward::Welcome => timeout(ms(WELCOME_MS_MAX), greet(&connection, welcome)).await.ok().flatten(),
    };
    turn.come().await;
    inner.emit(Event::Connected { node }).await;
    match opened {
        Some(stream) => {
            connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(NODE_STREAMS_MAX));
            let fault = tokio::select! {
                fault = read_frames(&inner, node, inward) => fault,
                fault = write_frames(stream, outbox) => fault,
                () = read_datagrams(&inner, node, &connection) => None,
                () = accept_streams(&inner, node, &connection) => None,
                _ = connection.closed() => None,
            };
            if let Some(fault) = fault {
                link.end(Close::Fault, Some(fault));
            }
        }
        None => link.end(Close::TooSlow, None),
    }
    let error = connection.closed().await;
    let reason = link.ended_here().map_or_else(|| explain(&error), str::to_owned);
    inner.registry().vacate(&node, &link);
    inner.emit(Event::Disconnected { node, reason }).await;
    turn.pass().await;
    inner.registry().sweep(&node);
}

/// Opens the stream to a caller and welcomes it. `None` when it is gone.
pub(crate) async fn greet(connection: &Connection, welcome: Greeting) -> Option<SendStream> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(&welcome.to_bytes()).await.ok()?;
    Some(stream)
}

/// Ends with what the other end did wrong, or with nothing when the connection is gone.
async fn read_frames(inner: &Inner, node: NodeId, mut stream: RecvStream) -> Option<String> {
    let inbox = Inbox { own: Arc::new(Semaphore::new(INBOX_BYTES_MAX)), total: Arc::clone(&inner.inbox) };
    loop {
        match frame::read(&mut stream, &inbox).await {
            Ok(bytes) => inner.emit(Event::Frame { from: node, bytes }).await,
            Err(FrameError::Lost) => return None,
            Err(error @ (FrameError::TooLarge { .. } | FrameError::Truncated | FrameError::Ended)) => {
                return Some(error.to_string());
            }
        }
    }
}

async fn write_frames(mut stream: SendStream, mut outbox: mpsc::Receiver<Queued>) -> Option<String> {
    // Only a stream that is closed already has no priority; the first write says so.
    drop(stream.set_priority(FRAMES_PRIORITY));
    while let Some(queued) = outbox.recv().await {
        match frame::write(&mut stream, queued.frame).await {
            Ok(()) => {}
            Err(WriteError::Stopped(_)) => return Some("the stream of frames is not read".to_owned()),
            Err(WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected) => {
                return None;
            }
        }
    }
    None
}

async fn read_datagrams(inner: &Inner, node: NodeId, connection: &Connection) {
    while let Ok(bytes) = connection.read_datagram().await {
        inner.offer(Event::Datagram { from: node, bytes });
    }
}

async fn accept_streams(inner: &Inner, node: NodeId, connection: &Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let remote = remote(connection);
        inner.hand_over(Incoming { who: Caller::Node(node), remote, send, recv }).await;
    }
}

/// The other end's address; an IPv4 address as such, even if the socket is an IPv6 one.
pub(crate) fn remote(connection: &Connection) -> std::net::SocketAddr {
    let address = connection.remote_address();
    (address.ip().to_canonical(), address.port()).into()
}
