//! Events as a program of somebody's own signs them, beside the command line.

use anyhow::Result;
use api::shapes::Authoring;
use document::event::{Author, Body, Change, EVENT_VERSION, Edit, Hex, Kind, Verb};
use identity::KeyPair;
use model::{DocId, EventId, Name};

/// A change of the namespace `default`, not signed yet, over what a peer has said of where that stands.
///
/// # Errors
/// Where what the peer said is not what it should be.
pub fn change(
    key: &KeyPair,
    authoring: &Authoring,
    nonce: [u8; 16],
    time_ms: i64,
    verb: Verb,
    edit: Edit,
) -> Result<Body> {
    let ids = |texts: &[String]| -> Result<Vec<EventId>> {
        let mut ids = texts.iter().map(|text| text.parse()).collect::<Result<Vec<EventId>, _>>()?;
        ids.sort_unstable();
        Ok(ids)
    };
    Ok(Body {
        v: EVENT_VERSION,
        cluster: authoring.cluster.parse()?,
        doc: DocId::Namespace(Name::default_namespace()),
        author: Author::User(key.user_id()),
        auth: ids(&authoring.auth)?,
        deps: ids(&authoring.deps)?,
        nonce: Hex(nonce),
        time_ms,
        kind: Kind::Change(Change { verb, undoes: None, edits: vec![edit] }),
    })
}
