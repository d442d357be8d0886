//! Calls that this node starts: one address after the other, each for a short time.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use identity::Expect;
use model::NodeId;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::close::{Close, explain};
use crate::config::{self, ALPN_MESH, SERVER_NAME};
use crate::endpoint::Inner;
use crate::frame::Greeting;
use crate::limits::{ADDRESSES_DIALLED_MAX, ATTEMPT_MS, ATTEMPT_PATIENT_MS, WELCOME_MS_MAX, ms};
use crate::registry::Ticket;
use crate::session::{self, Outward};
use crate::{Event, farewell};

/// A call that the other end has welcomed.
struct Welcomed {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    welcome: Greeting,
}

/// A call that came to nothing.
struct Failure {
    reason: String,
    /// What the other end said instead of a welcome: it has removed this node.
    farewell: Option<Bytes>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, farewell: None }
    }
}

/// Runs one call to its answer.
pub(crate) async fn run(inner: Arc<Inner>, node: NodeId, addresses: Vec<String>, ticket: Ticket) {
    let Ticket { id, mut told, mut turn, patient } = ticket;
    let given_up = || Failure::from("given up here".to_owned());
    let ended = tokio::select! {
        biased;
        stop = &mut told => Err(stop.is_ok()),
        walked = walk(&inner, node, id, &addresses, patient) => Ok(walked),
    };
    let failed = match ended {
        Err(told) => told.then(given_up),
        Ok(Ok(Welcomed { connection, send, recv, welcome })) => {
            let seat = inner.registry().dial_welcomed(&node, id, &connection, welcome);
            if let Some(seat) = seat {
                turn.pass().await;
                return session::run(inner, node, seat, Outward::Open(send), recv).await;
            }
            Close::Superseded.shut(&connection);
            told.try_recv().is_ok().then(given_up)
        }
        Ok(Err(failure)) => {
            let back = inner.registry().dial_failed(&node, id, turn);
            let Some((back, tell)) = back else { return };
            turn = back;
            if tell { Some(failure) } else { told.try_recv().is_ok().then(given_up) }
        }
    };
    turn.come().await;
    if let Some(Failure { reason, farewell }) = failed {
        if let Some(bytes) = farewell {
            inner.emit(Event::Farewell { from: node, bytes }).await;
        }
        inner.emit(Event::ConnectFailed { node, reason }).await;
    }
    turn.pass().await;
    inner.registry().sweep(&node);
}

/// Tries the addresses in order; the error says what happened at each.
async fn walk(
    inner: &Inner,
    node: NodeId,
    dial: u64,
    addresses: &[String],
    patient: bool,
) -> Result<Welcomed, Failure> {
    if node == inner.me {
        return Err("this is the node itself".to_owned().into());
    }
    let crypto = config::client(&inner.key, ALPN_MESH, Expect::from(node));
    let mut failures = Vec::new();
    let mut tried = 0;
    for address in addresses {
        let found = match inner.resolver.resolve(address).await {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("{address}: {error}"));
                continue;
            }
        };
        for socket in found {
            if tried == ADDRESSES_DIALLED_MAX {
                failures.push(format!("more than {ADDRESSES_DIALLED_MAX} addresses"));
                return Err(failures.join("; ").into());
            }
            let call = inner.registry().next_call(&node, dial, tried == 0);
            let Some(call) = call else {
                failures.push("a call of the other end came in between".to_owned());
                return Err(failures.join("; ").into());
            };
            tried += 1;
            match attempt(inner, crypto.clone(), socket, call, patient).await {
                Ok(welcomed) => return Ok(welcomed),
                Err(Failure { reason, farewell: None }) => failures.push(format!("{socket}: {reason}")),
                // The node itself has spoken: its other addresses would say the same.
                Err(Failure { reason, farewell }) => {
                    failures.push(format!("{socket}: {reason}"));
                    return Err(Failure { reason: failures.join("; "), farewell });
                }
            }
        }
    }
    if failures.is_empty() {
        failures.push("no address is known".to_owned());
    }
    Err(failures.join("; ").into())
}

async fn attempt(
    inner: &Inner,
    crypto: quinn::ClientConfig,
    socket: SocketAddr,
    call: Greeting,
    patient: bool,
) -> Result<Welcomed, Failure> {
    let patience = if patient { ATTEMPT_PATIENT_MS } else { ATTEMPT_MS };
    let connecting =
        inner.quinn.connect_with(crypto, socket, SERVER_NAME).map_err(|error| error.to_string())?;
    let connection = timeout(ms(patience), connecting)
        .await
        .map_err(|_| format!("no answer for {patience} ms"))?
        .map_err(|error| explain(&error))?;
    // The handshake has ended for this end only: the other one now looks at our key.
    let greeted = timeout(ms(WELCOME_MS_MAX), async {
        let mut send = connection.open_uni().await.ok()?;
        send.write_all(&call.to_bytes()).await.ok()?;
        let mut recv = connection.accept_uni().await.ok()?;
        let welcome = Greeting::read(&mut recv).await.ok()?;
        Some((send, recv, welcome))
    })
    .await;
    match greeted {
        Ok(Some((_, recv, Greeting::FAREWELL))) => {
            let words = farewell::read(inner, recv).await;
            Close::Done.shut(&connection);
            match words {
                Ok(words) => Err(Failure { reason: Close::Removed.text().to_owned(), farewell: Some(words) }),
                Err(error) => Err(format!("a farewell that was cut off: {error}").into()),
            }
        }
        Ok(Some((send, recv, welcome))) => Ok(Welcomed { connection, send, recv, welcome }),
        Ok(None) => {
            let reason = connection.close_reason();
            Close::Fault.shut(&connection);
            let reason =
                reason.map_or_else(|| "the other end does not greet".to_owned(), |error| explain(&error));
            Err(reason.into())
        }
        Err(_) => {
            Close::TooSlow.shut(&connection);
            Err(format!("no welcome for {WELCOME_MS_MAX} ms").into())
        }
    }
}
