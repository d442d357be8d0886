//! Calls that come in: counted, proven, asked of the gate, and handed to the mesh or the guests.

use std::sync::Arc;

use model::{NodeId, UserId};
use quinn::{Connection, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::close::{Close, explain};
use crate::config::{self, ALPN_API, ALPN_JOIN, ALPN_MESH};
use crate::endpoint::Inner;
use crate::frame::Greeting;
use crate::limits::{HANDSHAKE_MS_MAX, HOLD_MS_MAX, ms};
use crate::registry::{Admission, Turn};
use crate::session::{self, Outward};
use crate::{Caller, Event, farewell, guest};

/// Accepts until the endpoint stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let slots = Arc::new(Semaphore::new(inner.limits.handshakes_max));
    loop {
        let incoming = tokio::select! {
            () = inner.stop.cancelled() => return,
            incoming = inner.quinn.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let under_way = inner.limits.handshakes_max - slots.available_permits();
        if under_way >= inner.limits.retry_above
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            // Answered without keeping anything; `may_retry` says that it cannot fail.
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "no retry was sent");
            }
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        inner.tasks.spawn(handshake(Arc::clone(&inner), incoming, slot));
    }
}

async fn handshake(inner: Arc<Inner>, incoming: quinn::Incoming, slot: OwnedSemaphorePermit) {
    let remote = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%remote, reason = explain(&error), "a call was not accepted");
            return;
        }
    };
    let connection = match timeout(ms(HANDSHAKE_MS_MAX), connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%remote, reason = explain(&error), "a handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "a handshake took too long");
            return;
        }
    };
    let key = match config::peer_key(&connection) {
        Ok(key) => key,
        Err(error) => {
            // The verifier has read the same certificate, so this is not expected to happen.
            tracing::debug!(%remote, %error, "a caller shows no key");
            return Close::Fault.shut(&connection);
        }
    };
    let alpn = config::alpn(&connection);
    match alpn.as_deref() {
        Some(ALPN_MESH) => mesh(inner, NodeId::from_bytes(key), connection, slot).await,
        Some(ALPN_API) => {
            drop(slot);
            guest::run(inner, Caller::User(UserId::from_bytes(key)), connection).await;
        }
        Some(ALPN_JOIN) => {
            drop(slot);
            guest::run(inner, Caller::Joiner(key), connection).await;
        }
        Some(_) | None => Close::Fault.shut(&connection),
    }
}

/// A call of the mesh: only members get as far as a greeting.
async fn mesh(inner: Arc<Inner>, node: NodeId, connection: Connection, slot: OwnedSemaphorePermit) {
    if node == inner.me {
        return Close::Myself.shut(&connection);
    }
    if !inner.gate.node_allowed(&node) {
        if inner.gate.node_former(&node) {
            drop(slot);
            return farewell::tell(inner, node, connection).await;
        }
        tracing::debug!(?node, remote = %connection.remote_address(), "a call of a stranger was refused");
        return Close::NotAMember.shut(&connection);
    }
    let greeted = timeout(ms(HANDSHAKE_MS_MAX), async {
        let mut stream = connection.accept_uni().await.ok()?;
        let greeting = Greeting::read(&mut stream).await.ok()?;
        Some((stream, greeting))
    });
    let (stream, greeting) = match greeted.await {
        Ok(Some(greeted)) => greeted,
        Ok(None) => return Close::Fault.shut(&connection),
        Err(_) => return Close::TooSlow.shut(&connection),
    };
    drop(slot);
    settle(inner, node, connection, greeting, stream).await;
}

/// Brings a member's call to its seat or its end; where this node's own call has the right of way,
/// it waits for the outcome of that one.
async fn settle(
    inner: Arc<Inner>,
    node: NodeId,
    connection: Connection,
    greeting: Greeting,
    stream: RecvStream,
) {
    let mut waited = false;
    // The turn of a call of ours that has failed and left its answer to this connection.
    let mut duty: Option<Turn> = None;
    loop {
        let admission = inner.registry().admit(node, &connection, greeting, waited, duty.is_some());
        let mut go = match admission {
            Admission::Refuse(close) => {
                close.shut(&connection);
                if let Some(turn) = duty {
                    answer(&inner, node, turn, close.text().to_owned()).await;
                }
                return;
            }
            Admission::Seated(seat) => {
                if let Some(turn) = duty {
                    turn.pass().await;
                }
                return session::run(inner, node, *seat, Outward::Welcome, stream).await;
            }
            Admission::Hold(go) => go,
        };
        tokio::select! {
            biased;
            turn = &mut go => match turn {
                Ok(turn) => duty = Some(turn),
                Err(_) => return Close::Superseded.shut(&connection),
            },
            error = connection.closed() => {
                // From here on our call answers for itself, unless it has just left that to us.
                go.close();
                if let Ok(turn) = go.try_recv() {
                    answer(&inner, node, turn, explain(&error)).await;
                }
                return;
            }
            () = sleep(ms(HOLD_MS_MAX)) => {
                go.close();
                duty = go.try_recv().ok();
                waited = true;
            }
        }
    }
}

/// Answers a call of ours that was left to a call of the other end, which came to nothing as well.
async fn answer(inner: &Inner, node: NodeId, mut turn: Turn, reason: String) {
    turn.come().await;
    inner.emit(Event::ConnectFailed { node, reason }).await;
    turn.pass().await;
    inner.registry().sweep(&node);
}
