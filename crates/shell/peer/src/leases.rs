//! What this node has granted as a voter: `leases.json` in the data folder, written whole before anything is told.
//!
//! Grants are few, one for each start of an exclusive container, and some hundred bytes each. What is there and
//! cannot be read is left as it is: a voter that has forgotten would grant what it granted before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use model::{LeaseGrant, ReplicaId};
use node::{FoundLeases, Input};
use serde::{Deserialize, Serialize};

use crate::containers::chain;
use crate::mind::Mind;

/// The version that this release writes, and the only one that it reads.
const VERSION: u16 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u16,
    grants: Vec<LeaseGrant>,
}

/// What the thread is asked.
pub(crate) enum Letter {
    Keep(LeaseGrant),
    Forget(Vec<ReplicaId>),
}

/// Reads what was granted; a file that is not there holds nothing.
pub(crate) fn read(path: &Path) -> FoundLeases {
    let what_to_do = "remove this node with `skerry node rm` and let it join anew, since it may have granted what \
                      it does not know of";
    match store::read_json::<File>(path) {
        Ok(File { version: VERSION, grants }) => Ok(grants),
        Ok(File { version, .. }) => {
            Err(format!("`{}` has version {version}, this release reads {VERSION}", path.display()))
        }
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(format!("{}; {what_to_do}", chain(&error))),
    }
}

/// Starts the thread that writes.
pub(crate) fn start(path: PathBuf, found: &FoundLeases, mind: Mind) -> std::io::Result<Sender<Letter>> {
    let (sender, letters) = channel();
    let grants = found.iter().flatten().map(|grant| (grant.replica.clone(), grant.clone())).collect();
    let thread = std::thread::Builder::new().name("leases".to_owned()).stack_size(256 * 1024);
    thread.spawn(move || write(&path, grants, &letters, &mind))?;
    Ok(sender)
}

fn write(path: &Path, mut grants: BTreeMap<ReplicaId, LeaseGrant>, letters: &Receiver<Letter>, mind: &Mind) {
    while let Ok(first) = letters.recv() {
        // All that wait are written at once.
        let mut told = Vec::new();
        for letter in std::iter::once(first).chain(letters.try_iter()) {
            match letter {
                Letter::Keep(grant) => {
                    told.push((grant.replica.clone(), grant.number, grant.holder));
                    grants.insert(grant.replica.clone(), grant);
                }
                Letter::Forget(replicas) => replicas.iter().for_each(|it| _ = grants.remove(it)),
            }
        }
        let file = File { version: VERSION, grants: grants.values().cloned().collect() };
        let bytes = serde_json::to_vec(&file).expect("ids and names are text");
        let kept = match store::atomic_write(path, &bytes) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = chain(&error), "the leases granted cannot be written");
                false
            }
        };
        for (replica, number, holder) in told {
            mind.input_blocking(Input::LeaseKept { replica, number, holder, kept });
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{ContainerId, EventId, Name, NodeId};

    use super::*;

    #[test]
    fn what_is_damaged_is_told_and_grants_nothing_and_what_is_not_there_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.json");
        assert_eq!(read(&path), Ok(Vec::new()));
        let replica = ReplicaId {
            namespace: Name::default_namespace(),
            deployment: "till".parse().unwrap(),
            incarnation: EventId::from_bytes([1; 32]),
            ordinal: 0,
        };
        let grant = LeaseGrant {
            replica,
            number: 7,
            highest: 8,
            holder: NodeId::from_bytes([2; 32]),
            container: ContainerId::from_bytes([3; 8]),
            term_ms: 10_000,
        };
        let file = File { version: VERSION, grants: vec![grant.clone()] };
        std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(read(&path), Ok(vec![grant]));
        std::fs::write(&path, b"{\"version\":1,").unwrap();
        assert!(read(&path).unwrap_err().contains("let it join anew"));
        std::fs::write(&path, b"{\"version\":2,\"grants\":[]}").unwrap();
        assert!(read(&path).unwrap_err().contains("has version 2"));
    }
}
