//! Callers that are not nodes: users with requests, and machines that want to join. They get
//! streams and no frames.

use std::sync::Arc;

use model::UserId;
use quinn::{Connection, VarInt};
use tokio::time::{sleep, timeout};

use crate::close::Close;
use crate::endpoint::Inner;
use crate::frame::Greeting;
use crate::limits::{JOIN_MS_MAX, JOINER_STREAMS_MAX, USER_STREAMS_MAX, WELCOME_MS_MAX, WINDOW_BYTES, ms};
use crate::{Caller, Incoming, session};

/// The connections of guests, to find those of a user whose rights end.
#[derive(Default)]
pub(crate) struct Guests {
    users: Vec<(UserId, Connection)>,
}

impl Guests {
    /// Closes the connections of `user`.
    pub(crate) fn revoke(&self, user: &UserId) {
        for (_, connection) in self.users.iter().filter(|(of, _)| of == user) {
            Close::Removed.shut(connection);
        }
    }

    fn leave(&mut self, connection: &Connection) {
        self.users.retain(|(_, of)| of.stable_id() != connection.stable_id());
    }
}

/// Why this caller may not be here; `None` when it may.
fn refusal(inner: &Inner, who: Caller) -> Option<Close> {
    match who {
        Caller::User(user) => (!inner.gate.user_allowed(&user)).then_some(Close::NotAMember),
        Caller::Joiner(_) => (!inner.gate.joining_allowed()).then_some(Close::NotJoining),
        Caller::Node(_) => Some(Close::Fault),
    }
}

/// Serves one guest until it leaves.
pub(crate) async fn run(inner: Arc<Inner>, who: Caller, connection: Connection) {
    let seats = match who {
        Caller::User(_) => &inner.users,
        Caller::Joiner(_) | Caller::Node(_) => &inner.joiners,
    };
    if let Some(close) = refusal(&inner, who) {
        return close.shut(&connection);
    }
    let Ok(_seat) = Arc::clone(seats).try_acquire_owned() else {
        return Close::Busy.shut(&connection);
    };
    if let Caller::User(user) = who {
        inner.guests().users.push((user, connection.clone()));
    }
    serve(&inner, who, &connection).await;
    inner.guests().leave(&connection);
}

async fn serve(inner: &Inner, who: Caller, connection: &Connection) {
    // After it can be found by `revoked_user`, asked again: see the same in `session`.
    if let Some(close) = refusal(inner, who) {
        return close.shut(connection);
    }
    // The numbers mean nothing to a guest; that they come means that it is admitted.
    let welcome = Greeting { instance: 0, call: 0 };
    let Ok(Some(mut stream)) = timeout(ms(WELCOME_MS_MAX), session::greet(connection, welcome)).await else {
        return Close::TooSlow.shut(connection);
    };
    // Only a stream that the other end has closed cannot be finished, and then there is no need.
    drop(stream.finish());
    match who {
        Caller::User(_) => {
            connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(USER_STREAMS_MAX));
            streams(inner, who, connection).await;
        }
        Caller::Joiner(_) | Caller::Node(_) => {
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(JOINER_STREAMS_MAX));
            tokio::select! {
                () = streams(inner, who, connection) => {}
                () = sleep(ms(JOIN_MS_MAX)) => Close::TooSlow.shut(connection),
            }
        }
    }
}

async fn streams(inner: &Inner, who: Caller, connection: &Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        if let Some(close) = refusal(inner, who) {
            return close.shut(connection);
        }
        let remote = session::remote(connection);
        inner.hand_over(Incoming { who, remote, send, recv }).await;
    }
}
