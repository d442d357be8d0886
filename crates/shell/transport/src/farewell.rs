//! Farewells: what a node that was removed is told when it calls, in place of a connection.
//!
//! The consumer is asked for the words ([`Event::FormerMember`]) and gives them with
//! [`crate::Endpoint::farewell`]. They go out on the one stream that this end opens, marked by a
//! greeting of its own; then the connection is closed. Nothing that the caller sends is read.
//!
//! Invariant: a caller waits in at most one place, for a bounded time, among a bounded number.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::NodeId;
use quinn::{Connection, RecvStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::Event;
use crate::close::Close;
use crate::endpoint::Inner;
use crate::frame::{self, FrameError, Greeting, Inbox};
use crate::limits::{FAREWELL_ANSWER_MS_MAX, FAREWELL_MS_MAX, FAREWELLS_MAX, INBOX_BYTES_MAX, ms};

/// Calls of removed nodes that wait for the consumer's words.
pub(crate) struct Farewells {
    seats: Arc<Semaphore>,
    waiting: BTreeMap<NodeId, oneshot::Sender<Bytes>>,
}

impl Farewells {
    pub(crate) fn new() -> Self {
        Self { seats: Arc::new(Semaphore::new(FAREWELLS_MAX)), waiting: BTreeMap::new() }
    }

    /// Waits for words to `node`; an earlier call of it waits no longer.
    fn expect(&mut self, node: NodeId) -> oneshot::Receiver<Bytes> {
        let (words, answer) = oneshot::channel();
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.waiting.insert(node, words);
        answer
    }

    /// Gives words to the call of `node` that waits, if one does.
    pub(crate) fn give(&mut self, node: &NodeId, words: Bytes) {
        if self.waiting.remove(node).is_some_and(|waiting| waiting.send(words).is_err()) {
            tracing::trace!(?node, "a removed node was gone before it was told");
        }
    }
}

/// Tells a removed node what the consumer has to say, and closes.
pub(crate) async fn tell(inner: Arc<Inner>, node: NodeId, connection: Connection) {
    let seats = Arc::clone(&inner.farewells().seats);
    let Ok(_seat) = seats.try_acquire_owned() else {
        return Close::Removed.shut(&connection);
    };
    let answer = inner.farewells().expect(node);
    let words = timeout(ms(FAREWELL_ANSWER_MS_MAX), async {
        inner.emit(Event::FormerMember { node }).await;
        answer.await.ok()
    });
    if let Ok(Some(words)) = words.await
        && !words.is_empty()
        && timeout(ms(FAREWELL_MS_MAX), write(&connection, words)).await.is_err()
    {
        tracing::debug!(?node, "a farewell took too long");
    }
    Close::Removed.shut(&connection);
}

/// Writes the words and waits until the other end has them: what is under way is lost with the
/// connection.
async fn write(connection: &Connection, words: Bytes) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(&Greeting::FAREWELL.to_bytes()).await.ok()?;
    frame::write(&mut stream, words).await.ok()?;
    stream.finish().ok()?;
    stream.stopped().await.ok()?;
    Some(())
}

/// Reads the words that stand behind the greeting of a farewell.
pub(crate) async fn read(inner: &Inner, mut stream: RecvStream) -> Result<Bytes, FrameError> {
    let inbox = Inbox { own: Arc::new(Semaphore::new(INBOX_BYTES_MAX)), total: Arc::clone(&inner.inbox) };
    timeout(ms(FAREWELL_MS_MAX), frame::read(&mut stream, &inbox)).await.unwrap_or(Err(FrameError::Truncated))
}
