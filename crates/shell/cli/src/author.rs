//! Events from edits: what to sign, over which heads, and in how many pieces.

use std::time::{SystemTime, UNIX_EPOCH};

use api::routes;
use api::shapes::{Authoring, Submitted};
use api::{Client, path};
use document::event::{Author, Body, Change, EVENT_VERSION, Edit, Kind, SignedEvent, Verb};
use identity::KeyPair;
use model::limits::{EVENT_BYTES_MAX, EVENT_EDITS_MAX};
use model::{DocId, EventId, Name};
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::CliError;

/// Bytes of an event around its edits: ids of 64 heads twice, and the rest.
const ENVELOPE_BYTES: usize = 12 * 1024;

/// Bytes of chance.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CliError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CliError::new("random", "the system's random source failed"))?;
    Ok(bytes)
}

/// Milliseconds of Unix time by this machine's clock; shown to people, compared with nothing.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map(|span| span.as_millis());
    since.ok().and_then(|millis| i64::try_from(millis).ok()).unwrap_or(0)
}

fn ids(texts: &[String]) -> Result<Vec<EventId>, CliError> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let id = text.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Asks the peer where a document stands.
pub(crate) async fn authoring(client: &Client, doc: &DocId) -> Result<Authoring, CliError> {
    let authoring: Authoring = client.get(&path(routes::AUTHORING, &[("doc", &doc.to_string())])).await?;
    if authoring.event_version < EVENT_VERSION {
        return Err(CliError::new(
            "version",
            format!(
                "a member of {} understands events up to version {} only, this release writes {EVENT_VERSION}",
                authoring.cluster_name, authoring.event_version
            ),
        )
        .hint("upgrade every peer, or use the skerry of their release"));
    }
    Ok(authoring)
}

/// Signs one event over what the peer said of the document.
fn sign(key: &KeyPair, doc: &DocId, authoring: &Authoring, kind: Kind) -> Result<SignedEvent, CliError> {
    let cluster =
        authoring.cluster.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let body = Body {
        v: EVENT_VERSION,
        cluster,
        doc: doc.clone(),
        author: Author::User(key.user_id()),
        auth: if *doc == DocId::Cluster { Vec::new() } else { ids(&authoring.auth)? },
        deps: ids(&authoring.deps)?,
        nonce: document::event::Hex(random()?),
        time_ms: now_ms(),
        kind,
    };
    // What every peer would refuse is refused here, before it is signed.
    body.check().map_err(|error| {
        CliError::new("event", "this makes no valid event").because(error.to_string()).causes(&error)
    })?;
    let event = SignedEvent::sign(&body, |bytes| key.sign(bytes));
    if event.size() > EVENT_BYTES_MAX {
        return Err(CliError::new(
            "too-large",
            format!("the change is too large: {} bytes, the limit is {EVENT_BYTES_MAX}", event.size()),
        )
        .hint("shorten `env` or `args` of the largest deployment"));
    }
    Ok(event)
}

/// Signs and submits one event. `durable` is the number of disks to wait for; the peer's own choice
/// where not given.
pub(crate) async fn submit(
    client: &Client,
    key: &KeyPair,
    doc: &DocId,
    authoring: &Authoring,
    kind: Kind,
    durable: Option<u32>,
) -> Result<Submitted, CliError> {
    let event = sign(key, doc, authoring, kind)?;
    let durable = durable.map(|count| count.to_string());
    let query: Vec<_> = durable.iter().map(|count| ("durable", count.as_str())).collect();
    Ok(client.post(&path(routes::EVENTS, &query), event.encode()).await?)
}

/// Signs and submits one event of the cluster document.
pub(crate) async fn submit_cluster(
    client: &Client,
    key: &KeyPair,
    kind: Kind,
) -> Result<Submitted, CliError> {
    let authoring = authoring(client, &DocId::Cluster).await?;
    submit(client, key, &DocId::Cluster, &authoring, kind, None).await
}

/// What is to be done to one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) namespace: Name,
    pub(crate) verb: Verb,
    pub(crate) undoes: Option<EventId>,
    pub(crate) edits: Vec<Edit>,
}

/// Cuts edits into pieces that each fit one event, in order.
fn pieces(edits: Vec<Edit>) -> Vec<Vec<Edit>> {
    let mut pieces: Vec<Vec<Edit>> = Vec::new();
    let mut room = 0;
    for edit in edits {
        let size = serde_json::to_string(&edit).map_or(EVENT_BYTES_MAX, |text| text.len() + 1);
        match pieces.last_mut() {
            // One name has one edit an event.
            Some(piece)
                if piece.len() < EVENT_EDITS_MAX
                    && size <= room
                    && piece.iter().all(|other| other.name() != edit.name()) =>
            {
                room -= size;
                piece.push(edit);
            }
            _ => {
                room = (EVENT_BYTES_MAX - ENVELOPE_BYTES).saturating_sub(size);
                pieces.push(vec![edit]);
            }
        }
    }
    pieces
}

/// Signs and submits the work: one event, or a few where it does not fit one. The last answer is
/// returned, with the smallest number of disks among all.
pub(crate) async fn carry_out(
    client: &Client,
    key: &KeyPair,
    first: &Authoring,
    work: Work,
    durable: Option<u32>,
) -> Result<Option<Submitted>, CliError> {
    let doc = DocId::Namespace(work.namespace);
    let mut last: Option<Submitted> = None;
    for edits in pieces(work.edits) {
        // The second piece stands on the first.
        let fresh = match last {
            None => None,
            Some(_) => Some(authoring(client, &doc).await?),
        };
        let kind = Kind::Change(Change { verb: work.verb, undoes: work.undoes, edits });
        let mut submitted = submit(client, key, &doc, fresh.as_ref().unwrap_or(first), kind, durable).await?;
        if let Some(last) = last {
            submitted.durable_on = submitted.durable_on.min(last.durable_on);
        }
        last = Some(submitted);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use document::event::{Delete, Set};

    use super::*;

    fn delete(name: &str) -> Edit {
        Edit::Delete(Delete { name: name.parse().unwrap(), incarnation: EventId::from_bytes([1; 32]) })
    }

    #[test]
    fn edits_are_cut_by_count_by_size_and_by_name() {
        let many: Vec<_> = (0..130).map(|n| delete(&format!("d{n}"))).collect();
        assert_eq!(pieces(many).iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 2]);
        let big = |name: &str| {
            Edit::Set(Set {
                name: name.parse().unwrap(),
                incarnation: EventId::from_bytes([1; 32]),
                groups: [("env".to_owned(), "x".repeat(30_000))].into(),
            })
        };
        assert_eq!(
            pieces(vec![big("a"), big("b"), big("c")]).iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 1, 1]
        );
        assert_eq!(pieces(vec![delete("a"), delete("a"), delete("b")]).len(), 2);
        assert!(pieces(vec![]).is_empty());
    }

    #[test]
    fn a_signed_change_is_one_that_every_peer_accepts() {
        let key = KeyPair::from_seed([7; 32]);
        let authoring = Authoring {
            cluster: "11".repeat(32),
            cluster_name: "c".into(),
            deps: vec!["33".repeat(32), "22".repeat(32), "22".repeat(32)],
            auth: vec!["44".repeat(32)],
            deployments: vec![],
            event_version: 1,
        };
        let doc = DocId::Namespace(Name::default_namespace());
        let change = Change { verb: Verb::Delete, undoes: None, edits: vec![delete("web")] };
        let event = sign(&key, &doc, &authoring, Kind::Change(change)).unwrap();
        let decoded = document::event::decode(&event.encode()).unwrap();
        assert_eq!(decoded.body.author, Author::User(key.user_id()));
        assert_eq!(decoded.body.deps.len(), 2);
    }
}
