//! The serving side of a join: a machine that holds a token asks to be let in.

use document::Token;
use model::{DocId, TokenId};
use node::{Node, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::Peer;
use crate::joining::{self, TalkError};
use crate::mind::wall_ms;

/// How long a joiner may take for each of its words.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Peers that the admission should be durable on, so that it outlives this one.
const DURABLE: u32 = 2;

/// Why a token does not let anybody in now, for people.
fn why_not(node: &Node, id: TokenId, now_ms: i64) -> Option<String> {
    let roster = node.documents().roster();
    let Some(token) = roster.tokens.get(&id) else {
        return Some(
            "this token is not known here: it is of another cluster, or was made where this peer cannot see"
                .to_owned(),
        );
    };
    let Token { expires_ms, uses, used, revoked, .. } = token;
    if *revoked {
        return Some("this token was revoked; ask for a new one: skerry token create".to_owned());
    }
    if *expires_ms <= now_ms {
        let ago = now_ms.saturating_sub(*expires_ms) / 1_000;
        return Some(format!(
            "this token expired {ago} s ago by the clock of {}; ask for a new one: skerry token create",
            node.config().name
        ));
    }
    if used >= uses {
        return Some(format!(
            "this token is used up ({used} of {uses}); ask for a new one: skerry token create"
        ));
    }
    None
}

fn log(node: &Node) -> Vec<Vec<u8>> {
    node.documents().since(&DocId::Cluster, &[], usize::MAX).0
}

async fn soon<T>(work: impl Future<Output = Result<T, TalkError>>) -> Result<T, TalkError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or(Err(TalkError::TooSlow { seconds: PATIENCE.as_secs() }))
}

/// Holds the conversation. `token` is the key that the joiner has proven to hold.
pub(crate) async fn talk(
    peer: &Peer,
    token: [u8; 32],
    mut io: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), TalkError> {
    soon(joining::await_ask(&mut io)).await?;
    let id = TokenId::from_bytes(token);
    let asked =
        peer.mind.query(move |node| why_not(node, id, wall_ms()).map_or_else(|| Ok(log(node)), Err)).await;
    let log = match asked {
        Ok(Ok(log)) => log,
        Ok(Err(reason)) => return end(&mut io, &reason).await,
        Err(stopping) => return end(&mut io, &stopping.to_string()).await,
    };
    soon(joining::send_log(&mut io, &log)).await?;
    let event = soon(joining::read_event(&mut io)).await?;
    match peer.mind.submit(event, DURABLE).await {
        Ok(Outcome::Accepted { .. }) => {
            soon(joining::accept(&mut io)).await?;
            finish(&mut io).await
        }
        Ok(Outcome::Refused { reason, .. }) => end(&mut io, &reason).await,
        Err(stopping) => end(&mut io, &stopping.to_string()).await,
    }
}

async fn end(io: &mut (impl AsyncRead + AsyncWrite + Unpin), reason: &str) -> Result<(), TalkError> {
    soon(joining::refuse(io, reason)).await?;
    finish(io).await
}

/// Waits until the other side has read it all.
async fn finish(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), TalkError> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    io.shutdown().await?;
    let mut rest = [0; 64];
    // Whatever it still says is of no interest; its end is.
    drop(tokio::time::timeout(PATIENCE, io.read(&mut rest)).await);
    Ok(())
}
