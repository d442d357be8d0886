//! Addresses as people write them (`host:port`) to socket addresses, within bounds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::limits::{ADDRESSES_DIALLED_MAX, RESOLVE_AT_ONCE_MAX, RESOLVE_MS_MAX, ms};

/// Looks names up, a few at a time.
#[derive(Clone)]
pub(crate) struct Resolver {
    turns: Arc<Semaphore>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(RESOLVE_AT_ONCE_MAX)) }
    }

    /// The socket addresses of `address`; at least one.
    pub(crate) async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(literal) = address.parse() {
            return Ok(vec![literal]);
        }
        let turn = Arc::clone(&self.turns).try_acquire_owned().map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "too many look-ups wait for the resolver")
        })?;
        let address = address.to_owned();
        // A task of its own keeps its turn when the wait below ends first: the thread that the
        // system's resolver blocks is not given back by our losing patience.
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host(address).await.map(Iterator::collect::<Vec<_>>);
            drop(turn);
            found
        });
        let mut found = timeout(ms(RESOLVE_MS_MAX), lookup)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the resolver does not answer"))?
            .map_err(io::Error::other)??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        found.truncate(ADDRESSES_DIALLED_MAX);
        Ok(found)
    }
}
