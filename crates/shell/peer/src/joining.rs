//! The conversation of a machine that joins, both sides of it.
//!
//! The joiner's TLS key is the token's one-time key, so the handshake has proven that it holds the
//! token. Then, on one stream:
//!
//! ```text
//! joiner: one byte, the conversation's version | its node key (32) | its signature of `proof_bytes` (64)
//! peer:   `n` and a text (refused), or `y` and the cluster's log: length (u32) | event, ..., 0
//! joiner: length (u32) | its own admission; nothing where the log has it already
//! peer:   `y`, or `n` and a text: length (u32) | text
//! ```
//!
//! The joiner says who it is so that one which was admitted, and lost its power before it knew, is not
//! refused because its token is used up.

use std::io;

use identity::KeyPair;
use model::{ClusterId, NodeId, TokenId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 2;

/// What a joiner's signature is for: this and nothing else.
const PROOF_CONTEXT: &[u8] = b"skerry join v2\0";

/// Bytes of a refusal.
const TEXT_BYTES_MAX: usize = 1_024;

/// Bytes of the log that a joiner takes: tens of thousands of roster changes.
const LOG_BYTES_MAX: usize = 64 << 20;

/// Why the conversation broke.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The connection.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The other side does not follow the conversation.
    #[error("the other side sent something else than was expected: {what}")]
    Unexpected {
        /// What.
        what: &'static str,
    },
    /// It took too long.
    #[error("it took longer than {seconds} s")]
    TooSlow {
        /// The deadline.
        seconds: u64,
    },
}

impl From<io::Error> for TalkError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

type Talk<T> = Result<T, TalkError>;

async fn write_bytes(out: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Talk<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| TalkError::Unexpected { what: "too long a text" })?;
    out.write_all(&length.to_be_bytes()).await?;
    out.write_all(bytes).await?;
    Ok(())
}

async fn read_bytes(from: &mut (impl AsyncRead + Unpin), max: usize) -> Talk<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length > max {
        return Err(TalkError::Unexpected { what: "too long a text" });
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn read_verdict(from: &mut (impl AsyncRead + Unpin)) -> Talk<Result<(), String>> {
    match from.read_u8().await? {
        b'y' => Ok(Ok(())),
        b'n' => {
            let text = read_bytes(from, TEXT_BYTES_MAX).await?;
            Ok(Err(String::from_utf8_lossy(&text).into_owned()))
        }
        _ => Err(TalkError::Unexpected { what: "neither yes nor no" }),
    }
}

/// Who wants to join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joiner {
    /// The key that it has or will have in the roster.
    pub(crate) node: NodeId,
    /// Its signature, see `proof_bytes`.
    pub(crate) proof: [u8; 64],
}

impl Joiner {
    /// The holder of `key`, who comes with `token`.
    pub(crate) fn new(cluster: ClusterId, token: TokenId, key: &KeyPair) -> Self {
        let node = key.node_id();
        Self { node, proof: key.sign(&proof_bytes(cluster, token, node)) }
    }

    /// Whether it holds the key that it names.
    pub(crate) fn is_proven(&self, cluster: ClusterId, token: TokenId) -> bool {
        identity::verify(self.node.as_bytes(), &proof_bytes(cluster, token, self.node), &self.proof)
    }
}

fn proof_bytes(cluster: ClusterId, token: TokenId, node: NodeId) -> Vec<u8> {
    [PROOF_CONTEXT, cluster.as_bytes(), token.as_bytes(), node.as_bytes()].concat()
}

/// Joiner: begins.
pub(crate) async fn ask(out: &mut (impl AsyncWrite + Unpin), joiner: &Joiner) -> Talk<()> {
    out.write_all(&[VERSION]).await?;
    out.write_all(joiner.node.as_bytes()).await?;
    out.write_all(&joiner.proof).await?;
    Ok(out.flush().await?)
}

/// Joiner: the log, or the peer's reason to give none.
pub(crate) async fn read_log(from: &mut (impl AsyncRead + Unpin)) -> Talk<Result<Vec<Vec<u8>>, String>> {
    if let Err(reason) = read_verdict(from).await? {
        return Ok(Err(reason));
    }
    let mut log = Vec::new();
    let mut size = 0;
    loop {
        let event = read_bytes(from, model::limits::EVENT_BYTES_MAX).await?;
        size += event.len();
        if size > LOG_BYTES_MAX {
            return Err(TalkError::Unexpected { what: "too long a log" });
        }
        if event.is_empty() {
            return Ok(Ok(log));
        }
        log.push(event);
    }
}

/// Joiner: hands in its admission; nothing where it was admitted before.
pub(crate) async fn send_event(out: &mut (impl AsyncWrite + Unpin), event: &[u8]) -> Talk<()> {
    write_bytes(out, event).await?;
    Ok(out.flush().await?)
}

/// Joiner: the peer's answer.
pub(crate) async fn read_answer(from: &mut (impl AsyncRead + Unpin)) -> Talk<Result<(), String>> {
    read_verdict(from).await
}

/// Peer: waits for the beginning.
pub(crate) async fn await_ask(from: &mut (impl AsyncRead + Unpin)) -> Talk<Joiner> {
    match from.read_u8().await? {
        VERSION => {}
        _ => return Err(TalkError::Unexpected { what: "another version of the conversation" }),
    }
    let (mut node, mut proof) = ([0; 32], [0; 64]);
    from.read_exact(&mut node).await?;
    from.read_exact(&mut proof).await?;
    Ok(Joiner { node: NodeId::from_bytes(node), proof })
}

/// Peer: says no.
pub(crate) async fn refuse(out: &mut (impl AsyncWrite + Unpin), reason: &str) -> Talk<()> {
    out.write_all(b"n").await?;
    let end = reason.floor_char_boundary(TEXT_BYTES_MAX);
    write_bytes(out, &reason.as_bytes()[..end]).await?;
    Ok(out.flush().await?)
}

/// Peer: sends the log.
pub(crate) async fn send_log(out: &mut (impl AsyncWrite + Unpin), log: &[Vec<u8>]) -> Talk<()> {
    out.write_all(b"y").await?;
    for event in log {
        write_bytes(out, event).await?;
    }
    write_bytes(out, &[]).await?;
    Ok(out.flush().await?)
}

/// Peer: the joiner's admission; empty where it had one already.
pub(crate) async fn read_event(from: &mut (impl AsyncRead + Unpin)) -> Talk<Vec<u8>> {
    read_bytes(from, model::limits::EVENT_BYTES_MAX).await
}

/// Peer: says yes.
pub(crate) async fn accept(out: &mut (impl AsyncWrite + Unpin)) -> Talk<()> {
    out.write_all(b"y").await?;
    Ok(out.flush().await?)
}
