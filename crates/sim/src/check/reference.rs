//! A second opinion on merging: what the deployments are by the events on one disk, worked out in the
//! slowest and plainest way, from the rules alone.
//!
//! It shares nothing with `document` but the reading of one event: no index, no automerge, no bit sets.
//! What a peer believes is held against it at the end of every story.

use std::collections::{BTreeMap, BTreeSet};

use document::event::{Body, Edit, Kind, id_of};
use document::{Documents, Scope};
use model::{DocId, EventId, Name};
use node::Reader;
use sha2::{Digest as _, Sha256};

/// Ops of the change that every document begins with.
const GENESIS_OPS: u64 = 64;

/// One deployment.
#[derive(Debug, PartialEq, Eq)]
struct Deployment {
    incarnation: EventId,
    groups: BTreeMap<String, String>,
    conflicts: BTreeSet<Scope>,
}

type Deployments = BTreeMap<(Name, Name), Deployment>;

/// Creations of each name: what decides between them, and which event.
type Created = BTreeMap<(Name, Name), Vec<(u64, EventId)>>;

/// By incarnation: the events that deleted it.
type Deleted = BTreeMap<EventId, BTreeSet<EventId>>;

/// One event and what it follows from.
struct Node {
    past: BTreeSet<EventId>,
    first_op: u64,
    last_op: u64,
}

/// A value of one group, and what decides between two of them.
struct Written {
    event: EventId,
    /// Its op, the first op of its event, a hash of that.
    order: (u64, u64, [u8; 12]),
    value: String,
}

/// Holds what a peer makes of its events against the second opinion; what differs.
pub(crate) fn differs(disk: &[Vec<u8>], documents: &Documents, reader: &dyn Reader) -> Option<String> {
    let expected = match deployments(disk, reader) {
        Ok(expected) => expected,
        Err(what) => return Some(what),
    };
    let views: Deployments = documents
        .deployments()
        .map(|view| {
            let deployment = Deployment {
                incarnation: view.incarnation,
                groups: view.groups.clone(),
                conflicts: view.conflicts.iter().map(|it| it.scope.clone()).collect(),
            };
            ((view.namespace.clone(), view.name.clone()), deployment)
        })
        .collect();
    let keys: BTreeSet<_> = expected.keys().chain(views.keys()).collect();
    for key in keys {
        let (should, is) = (expected.get(key), views.get(key));
        if should != is {
            return Some(format!("{}/{} should be {should:?} and is {is:?}", key.0, key.1));
        }
    }
    documents.docs().into_iter().find_map(|doc| {
        let mut heads: Vec<[u8; 32]> =
            documents.heads(&doc).into_iter().filter_map(|id| documents.change_hash(id)).collect();
        heads.sort_unstable();
        (documents.automerge_heads(&doc) != Some(heads))
            .then(|| format!("automerge does not stand at the heads of {doc}"))
    })
}

fn deployments(disk: &[Vec<u8>], reader: &dyn Reader) -> Result<Deployments, String> {
    let mut nodes: BTreeMap<EventId, Node> = BTreeMap::new();
    let mut created: Created = BTreeMap::new();
    let mut deleted: Deleted = BTreeMap::new();
    let mut written: BTreeMap<(EventId, String), Vec<Written>> = BTreeMap::new();
    for bytes in disk {
        let id = id_of(bytes);
        // A sync that failed may have written what was written again later.
        if nodes.contains_key(&id) {
            continue;
        }
        let decoded =
            reader.event(bytes).map_err(|_| format!("event {} on disk cannot be read", id.short()))?;
        let Body { doc: DocId::Namespace(namespace), deps, kind: Kind::Change(change), .. } = decoded.body
        else {
            continue;
        };
        let mut node = Node { past: BTreeSet::new(), first_op: GENESIS_OPS + 1, last_op: GENESIS_OPS };
        for dep in deps {
            let known =
                nodes.get(&dep).ok_or_else(|| format!("event {} lacks a cause on disk", id.short()))?;
            node.past.insert(dep);
            node.past.extend(&known.past);
            node.first_op = node.first_op.max(known.last_op + 1);
        }
        node.last_op = node.first_op - 1;
        for edit in change.edits {
            if !may(&edit, &namespace, &node.past, &created, &deleted) {
                return Err(format!("event {} is on disk and should be void", id.short()));
            }
            let incarnation = match &edit {
                Edit::Create(create) => {
                    let key = (namespace.clone(), create.name.clone());
                    created.entry(key).or_default().push((node.first_op, id));
                    id
                }
                Edit::Set(set) => set.incarnation,
                Edit::Delete(delete) => {
                    deleted.entry(delete.incarnation).or_default().insert(id);
                    node.last_op += 1;
                    continue;
                }
            };
            for (group, value) in edit.groups().into_iter().flatten() {
                node.last_op += 1;
                let order = (node.last_op, node.first_op, tie(id));
                let written = written.entry((incarnation, group.clone())).or_default();
                written.push(Written { event: id, order, value: value.clone() });
            }
        }
        nodes.insert(id, node);
    }
    let mut deployments = Deployments::new();
    for (key, mut creations) in created {
        creations.retain(|(_, id)| !deleted.contains_key(id));
        let Some((_, incarnation)) = creations.iter().max().copied() else { continue };
        let mut conflicts = BTreeSet::new();
        if creations.len() > 1 {
            conflicts.insert(Scope::Whole);
        }
        let mut groups = BTreeMap::new();
        for ((_, group), values) in written.iter().filter(|((of, _), _)| *of == incarnation) {
            // Whoever wrote with this one in sight has replaced it.
            let stands = |it: &&Written| !values.iter().any(|by| nodes[&by.event].past.contains(&it.event));
            let standing: Vec<&Written> = values.iter().filter(stands).collect();
            let Some(winner) = standing.iter().max_by_key(|it| it.order) else { continue };
            groups.insert(group.clone(), winner.value.clone());
            if standing.iter().any(|it| it.value != winner.value) {
                conflicts.insert(Scope::Group(group.clone()));
            }
        }
        deployments.insert(key, Deployment { incarnation, groups, conflicts });
    }
    Ok(deployments)
}

/// Whether an author who knew this past may do that: a name is created while no creation of it lives there,
/// and changed while that creation does.
fn may(
    edit: &Edit,
    namespace: &Name,
    past: &BTreeSet<EventId>,
    created: &Created,
    deleted: &Deleted,
) -> bool {
    let known = created.get(&(namespace.clone(), edit.name().clone()));
    let known = |of: &EventId| past.contains(of) && known.into_iter().flatten().any(|(_, id)| id == of);
    let ended = |of: &EventId| deleted.get(of).is_some_and(|by| by.iter().any(|it| past.contains(it)));
    match edit {
        Edit::Create(create) => created
            .get(&(namespace.clone(), create.name.clone()))
            .is_none_or(|all| all.iter().all(|(_, id)| !past.contains(id) || ended(id))),
        Edit::Set(set) => known(&set.incarnation) && !ended(&set.incarnation),
        Edit::Delete(delete) => known(&delete.incarnation),
    }
}

/// What decides between two ops of one number: automerge's order of actors, in the first epoch.
fn tie(id: EventId) -> [u8; 12] {
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update(0_u64.to_be_bytes());
    let mut tie = [0; 12];
    tie.copy_from_slice(&hash.finalize()[..12]);
    tie
}
