//! Waiting for a container's end without a thread for each.

use runtime::{ExitRecord, Runtime, State};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;

use crate::containers::chain;

/// Waits until the container has ended; or says why nobody knows how it did.
pub(crate) async fn exit_of(runtime: &Arc<Runtime>, id: &str) -> Result<ExitRecord, String> {
    if let Some(exit) = told_exit(runtime, id).await? {
        return Ok(exit);
    }
    // The supervisor was killed: what is left of the container is killed, and told as it is found.
    loop {
        let (runtime, id) = (Arc::clone(runtime), id.to_owned());
        let state = tokio::task::spawn_blocking(move || runtime.state(&id)).await;
        match state {
            Ok(Ok(State::Exited(exit))) => return Ok(exit),
            Ok(Ok(State::Lost { reason })) => return Err(reason),
            Ok(Ok(State::Created)) => return Err("it is not known to have run".to_owned()),
            Ok(Ok(State::Starting | State::Running(_))) => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            Ok(Err(error)) => return Err(chain(&error)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The exit that the supervisor tells; `None` when it ends without a word.
async fn told_exit(runtime: &Arc<Runtime>, id: &str) -> Result<Option<ExitRecord>, String> {
    let (at, of) = (Arc::clone(runtime), id.to_owned());
    let opened =
        tokio::task::spawn_blocking(move || at.watch(&of)).await.map_err(|error| error.to_string())?;
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(id, error = chain(&error), "the supervisor cannot be watched");
            return Ok(None);
        }
    };
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(stream))
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::with_capacity(1_024, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {
                if let Some(exit) = Runtime::exit_in(&line) {
                    return Ok(Some(exit));
                }
            }
        }
    }
}
