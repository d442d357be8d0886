//! The serving side of a join: a machine that holds a token asks to be let in.

use document::{Documents, Token};
use model::{DocId, Name, TokenId};
use node::{Node, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::Peer;
use crate::joining::{self, Joiner, TalkError};
use crate::mind::wall_ms;

/// How long a joiner may take for each of its words.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Peers that the admission should be durable on, so that it outlives this one.
const DURABLE: u32 = 2;

/// Whether the joiner is a member already: it was let in, and was cut off before its folder was whole.
/// What its token is good for now does not matter then.
pub(crate) fn is_member(documents: &Documents, id: TokenId, joiner: &Joiner) -> bool {
    documents.roster().nodes.contains_key(&joiner.node) && joiner.is_proven(documents.cluster(), id)
}

/// Why a token does not let anybody in now, for people. `here` is this peer's node.
pub(crate) fn why_not(documents: &Documents, id: TokenId, now_ms: i64, here: &Name) -> Option<String> {
    let roster = documents.roster();
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
            "this token expired {ago} s ago by the clock of {here}; ask for a new one: skerry token create"
        ));
    }
    if used >= uses {
        return Some(format!(
            "this token is used up ({used} of {uses}); ask for a new one: skerry token create"
        ));
    }
    None
}

/// The cluster's log, or why the joiner does not get it.
fn answer(node: &Node, id: TokenId, joiner: &Joiner, now_ms: i64) -> Result<Vec<Vec<u8>>, String> {
    let documents = node.documents();
    if !is_member(documents, id, joiner)
        && let Some(reason) = why_not(documents, id, now_ms, &node.config().name)
    {
        return Err(reason);
    }
    Ok(documents.since(&DocId::Cluster, &[], usize::MAX).0)
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
    let joiner = match soon(joining::await_ask(&mut io)).await {
        Err(TalkError::Unexpected { .. }) => {
            return end(&mut io, "this peer and the machine that joins are of different releases of skerry")
                .await;
        }
        asked => asked?,
    };
    let id = TokenId::from_bytes(token);
    let asked = peer.mind.query(move |node| answer(node, id, &joiner, wall_ms())).await;
    let log = match asked {
        Ok(Ok(log)) => log,
        Ok(Err(reason)) => return end(&mut io, &reason).await,
        Err(stopping) => return end(&mut io, &stopping.to_string()).await,
    };
    soon(joining::send_log(&mut io, &log)).await?;
    let event = soon(joining::read_event(&mut io)).await?;
    if event.is_empty() {
        soon(joining::accept(&mut io)).await?;
        return finish(&mut io).await;
    }
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
