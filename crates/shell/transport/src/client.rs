//! The calling side for those who are not nodes: the CLI with a user's key, and joiners.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use identity::{Expect, KeyPair};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::time::timeout;

use crate::close::{Close, is_wrong_key, said};
use crate::config::{self, SERVER_NAME};
use crate::frame::Greeting;
use crate::limits::{CLOSE_MS_MAX, ms};
use crate::resolve::Resolver;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot find the address of {address}")]
    Resolve {
        /// As it was given.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// This machine cannot send to the address.
    #[error("cannot send to {address}")]
    Local {
        /// As it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came back in time.
    #[error("no answer from {address} in {} ms", waited.as_millis())]
    NoAnswer {
        /// As it was given.
        address: String,
        /// How long.
        waited: Duration,
    },
    /// Something came back that ended the call.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// As it was given.
        address: String,
        /// What.
        source: ConnectionError,
    },
    /// The node looked at the caller's key and said no.
    #[error("{address} refused: {reason}")]
    Refused {
        /// As it was given.
        address: String,
        /// Its words.
        reason: String,
    },
    /// Another node than the expected one is there.
    #[error("the node at {address} has another key than the one expected")]
    WrongKey {
        /// As it was given.
        address: String,
    },
}

/// A connection to one node. Closed when dropped; [`ClientConnection::close`] also makes sure that
/// the node hears of it.
#[derive(Debug)]
pub struct ClientConnection {
    endpoint: quinn::Endpoint,
    connection: Connection,
    key: [u8; 32],
}

impl ClientConnection {
    /// Opens a stream; the node sees it once something is written to it.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        self.connection.open_bi().await
    }

    /// The key that the node has proven to hold.
    pub fn peer_key(&self) -> [u8; 32] {
        self.key
    }

    /// Where the node is.
    pub fn remote(&self) -> SocketAddr {
        crate::session::remote(&self.connection)
    }

    /// Waits until the connection ends and says why.
    pub async fn closed(&self) -> String {
        crate::close::explain(&self.connection.closed().await)
    }

    /// Ends it, and waits for a second at most until the node has heard of it. Finish the streams
    /// and read their ends first: what is under way is dropped.
    pub async fn close(self) {
        Close::Done.shut(&self.connection);
        // Whether it heard or not, the connection has ended for this side.
        drop(timeout(ms(CLOSE_MS_MAX), self.endpoint.wait_idle()).await);
    }
}

/// Calls the node at `address` (`host:port`) over a socket of its own, and waits until the node has
/// admitted `key`. `alpn` is [`crate::ALPN_API`] or [`crate::ALPN_JOIN`]. `patience` is for all of it;
/// several addresses of a name share it.
pub async fn dial(
    address: &str,
    key: &KeyPair,
    alpn: &[u8],
    expect: Expect,
    patience: Duration,
) -> Result<ClientConnection, DialError> {
    let started = Instant::now();
    let no_answer = || DialError::NoAnswer { address: address.to_owned(), waited: patience };
    let found = timeout(patience, Resolver::new().resolve(address))
        .await
        .map_err(|_| no_answer())?
        .map_err(|source| DialError::Resolve { address: address.to_owned(), source })?;
    let crypto = config::client(key, alpn, expect);
    let mut last = no_answer();
    for (index, socket) in found.iter().enumerate() {
        let left = patience.saturating_sub(started.elapsed());
        let sharers = u32::try_from(found.len() - index).unwrap_or(u32::MAX);
        match timeout(left / sharers, attempt(address, *socket, crypto.clone())).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => last = no_answer(),
        }
    }
    Err(last)
}

async fn attempt(
    address: &str,
    socket: SocketAddr,
    crypto: quinn::ClientConfig,
) -> Result<ClientConnection, DialError> {
    let local = |source| DialError::Local { address: address.to_owned(), source };
    let ended = |error: ConnectionError| explain(address, error);
    let any: SocketAddr = match socket {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = quinn::Endpoint::client(any).map_err(local)?;
    let connection = endpoint
        .connect_with(crypto, socket, SERVER_NAME)
        .map_err(|error| local(io::Error::other(error)))?
        .await
        .map_err(ended)?;
    // The handshake has ended for this end only; the welcome says that the node admits the key.
    let mut welcome = connection.accept_uni().await.map_err(ended)?;
    if let Err(error) = Greeting::read(&mut welcome).await {
        let lost = connection.close_reason();
        Close::Fault.shut(&connection);
        return Err(lost.map_or_else(|| local(io::Error::other(error)), ended));
    }
    let key = config::peer_key(&connection).map_err(|error| local(io::Error::other(error)))?;
    Ok(ClientConnection { endpoint, connection, key })
}

fn explain(address: &str, error: ConnectionError) -> DialError {
    let address = address.to_owned();
    match error {
        ConnectionError::ApplicationClosed(close) => {
            DialError::Refused { address, reason: said(&close.reason) }
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Refused { address, reason: Close::Busy.text().to_owned() }
        }
        ConnectionError::TransportError(error) if is_wrong_key(error.code) => DialError::WrongKey { address },
        source @ (ConnectionError::ConnectionClosed(_)
        | ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted) => DialError::Unreachable { address, source },
    }
}
