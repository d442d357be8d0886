//! One document's valid events as an automerge document: one event, one change, the same everywhere.
//!
//! ```text
//! genesis  actor zeros, seq 1, start_op 1, deps none, time 0,
//!          message "skerry-document-v1 <cluster> <document> epoch <n>",
//!          64 maps "00" to "63" in the root: op i + 1 makes map i
//! apply(e) start = 1 + max(max_op of the changes of e.deps; the genesis' when there are none)
//!          actor = be32(start) || sha256(e.id || be64(epoch))[..12]
//!          seq 1, start_op start, time 0, message = base64(signature, no padding) || text
//!          deps  = change hashes of e.deps, sorted; the genesis' when there are none
//!          ops   = for each put, in order: Put { obj: map[sha256(route)[0] % 64], key, value,
//!                  pred: the ops of that key in e's past that no op in e's past replaces }
//! ```
//!
//! A put makes an op even if the value is the same, and every event makes at least one op; so
//! `start_op` grows along every path, and (`start_op`, id) sorts causes before effects. Never a
//! delete: automerge lets a concurrent put revive what a delete removed, a flag of our own does not.
//!
//! Everything is read from an index of our own (key to ops, a bit set of ancestors per event):
//! automerge's historical reads cost a thousand times more, and a batch can be built before any of
//! it is applied. Which of several values wins is automerge's rule: the greatest (counter, actor).
//!
//! Invariant: the change of an event is a function of the event and its causal past; automerge's
//! heads are the changes of ours. A broken invariant is a bug, and stops the peer.
//! Absent on purpose: changes, documents or sync messages of automerge that came from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use data_encoding::BASE64_NOPAD;
use model::{ClusterId, DocId, EventId, Sabotage, Sabotages};
use sha2::{Digest as _, Sha256};

use crate::bits::Bits;
use crate::event::{Author, Decoded, SignedEvent};

/// Maps in each document: a put then searches a small one (measured: ten times faster than one map).
const MAPS: u8 = 64;

/// The actor of the genesis: sorts before every other.
const GENESIS_ACTOR: [u8; 16] = [0; 16];

/// Ops in one document: automerge counts in 32 bits and stops working beyond.
const OPS_MAX: u64 = (1 << 31) - 1;

/// Events from which a batch is applied to a document built anew: one application of everything
/// costs 30 us an event, adding late events to a large document up to 700.
const REBUILD_EVENTS_MIN: usize = 200;

/// A value in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// JSON text.
    Text(Arc<str>),
    /// `true`: something is so, for ever.
    Flag,
}

impl Value {
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The text; of a flag `true`, as JSON has it.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Flag => "true",
        }
    }
}

/// What an event writes under one key.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    map: u8,
    key: String,
    value: Value,
}

impl Put {
    /// `route` decides the map: what is read together lies together.
    pub(crate) fn new(route: &str, key: String, value: Value) -> Self {
        Self { map: Sha256::digest(route.as_bytes())[0] % MAPS, key, value }
    }
}

/// The id of an op as automerge orders it.
type OpOrder = (u64, [u8; 16]);

/// One op of a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyOp {
    /// The event, by its index.
    pub(crate) entry: u32,
    /// What it wrote.
    pub(crate) value: Value,
    /// The ops of this key that it replaced, by their place in the key's list.
    pub(crate) replaced: Vec<u32>,
    order: OpOrder,
}

/// The ops of one key, oldest first by arrival.
#[derive(Clone, Debug, Default)]
struct KeyOps {
    ops: Vec<KeyOp>,
    /// Those that no op replaced.
    visible: Vec<u32>,
}

/// One valid event.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) event: SignedEvent,
    pub(crate) author: Author,
    pub(crate) time_ms: i64,
    pub(crate) start_op: u64,
    max_op: u64,
    actor: [u8; 16],
    pub(crate) hash: ChangeHash,
    /// Its causal past, itself included.
    pub(crate) past: Bits,
}

/// A change that was built and not yet added.
#[derive(Debug)]
pub(crate) struct Planned {
    change: Change,
    ops: Vec<(Put, Vec<u32>)>,
    entry: Entry,
    deps: Vec<u32>,
}

impl Planned {
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.entry.hash.0
    }
}

/// Why no change can be made of a valid event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// The document has no op numbers left; a function of the causal past alone.
    Full,
    /// Another event has the same actor: somebody ground 2^48 hashes to make it so.
    Collision(EventId),
}

/// One document: its events, their changes, and the index. What only grows is shared with copies.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    epoch: u64,
    pub(crate) sabotage: Sabotages,
    automerge: Automerge,
    genesis: Change,
    entries: Vec<Arc<Entry>>,
    /// By (`start_op`, id): the order that every peer gives to the same events.
    order: BTreeSet<(u64, EventId, u32)>,
    heads: BTreeSet<u32>,
    actors: BTreeMap<[u8; 16], EventId>,
    keys: BTreeMap<Arc<str>, Arc<KeyOps>>,
    /// Added, and not yet given to automerge.
    pending: Vec<Change>,
}

impl Log {
    pub(crate) fn new(cluster: ClusterId, doc: &DocId, epoch: u64) -> Self {
        let genesis = genesis(cluster, doc, epoch);
        Self {
            epoch,
            sabotage: Sabotages::NONE,
            automerge: empty_automerge(),
            genesis: genesis.clone(),
            entries: Vec::new(),
            order: BTreeSet::new(),
            heads: BTreeSet::new(),
            actors: BTreeMap::new(),
            keys: BTreeMap::new(),
            pending: vec![genesis],
        }
    }

    pub(crate) fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    /// Whether the event at `index` is there and is `id`.
    pub(crate) fn has(&self, index: u32, id: EventId) -> bool {
        self.entries.get(index as usize).is_some_and(|entry| entry.id == id)
    }

    /// Events in causal order, the same on every peer with the same events.
    pub(crate) fn ordered(&self) -> impl DoubleEndedIterator<Item = (u32, &Entry)> {
        self.order.iter().map(|(_, _, index)| (*index, self.entry(*index)))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Events that no event of this document descends from, sorted.
    pub(crate) fn heads(&self) -> Vec<EventId> {
        let mut heads: Vec<EventId> = self.heads.iter().map(|index| self.entry(*index).id).collect();
        heads.sort_unstable();
        heads
    }

    /// These events and all their ancestors.
    pub(crate) fn past_of(&self, indices: impl IntoIterator<Item = u32>) -> Bits {
        let mut past = Bits::default();
        for index in indices {
            past.add_all(&self.entry(index).past);
        }
        past
    }

    /// Every event here.
    pub(crate) fn everything(&self) -> Bits {
        self.past_of(self.heads.iter().copied())
    }

    /// Builds the change of an event. `deps` are its dependencies in this log, `past` what they give.
    pub(crate) fn plan(
        &self,
        decoded: &Decoded,
        deps: Vec<u32>,
        past: Bits,
        puts: Vec<Put>,
    ) -> Result<Planned, PlanError> {
        let Decoded { id, event, body } = decoded;
        let (id, author, time_ms) = (*id, body.author, body.time_ms);
        assert!(!puts.is_empty(), "every event makes an op, or (start_op, id) would not sort causes first");
        let base = deps.iter().map(|dep| self.entry(*dep).max_op).max().unwrap_or(u64::from(MAPS));
        let start_op = base + 1;
        let max_op = base + puts.len() as u64;
        if max_op > OPS_MAX {
            return Err(PlanError::Full);
        }
        let actor = actor(start_op, id, self.epoch);
        if let Some(other) = self.actors.get(&actor) {
            return Err(PlanError::Collision(*other));
        }
        let ops: Vec<(Put, Vec<u32>)> = puts
            .into_iter()
            .map(|put| {
                let replaced = self.visible_in(&put.key, &past);
                (put, replaced)
            })
            .collect();
        let mut hashes: Vec<ChangeHash> = deps.iter().map(|dep| self.entry(*dep).hash).collect();
        if hashes.is_empty() {
            hashes.push(self.genesis.hash());
        }
        hashes.sort_unstable();
        let change = Change::from(ExpandedChange {
            operations: ops.iter().map(|(put, replaced)| self.op(put, replaced)).collect(),
            actor_id: ActorId::from(actor),
            hash: None,
            seq: 1,
            start_op: NonZeroU64::new(start_op).expect("a sum with one"),
            time: 0,
            message: Some(format!("{}{}", BASE64_NOPAD.encode(&event.sig), event.text)),
            deps: hashes,
            extra_bytes: Vec::new(),
            author: None,
        });
        let event = event.clone();
        let hash = change.hash();
        let entry = Entry { id, event, author, time_ms, start_op, max_op, actor, hash, past };
        Ok(Planned { change, ops, entry, deps })
    }

    fn op(&self, put: &Put, replaced: &[u32]) -> Op {
        let ops = self.keys.get(put.key.as_str()).map_or(&[][..], |key| &key.ops);
        let pred: Vec<OpId> = replaced
            .iter()
            .map(|place| {
                let (counter, actor) = &ops[*place as usize].order;
                OpId::new(*counter, &ActorId::from(actor))
            })
            .collect();
        Op {
            action: OpType::Put(match &put.value {
                Value::Text(text) => ScalarValue::Str((&**text).into()),
                Value::Flag => ScalarValue::Boolean(true),
            }),
            obj: ObjectId::Id(OpId::new(u64::from(put.map) + 1, &ActorId::from(GENESIS_ACTOR))),
            key: Key::Map(put.key.as_str().into()),
            pred: SortedVec::from(pred),
            insert: false,
        }
    }

    /// Adds a planned change; it reaches automerge with the next [`Log::flush`]. Returns its index.
    pub(crate) fn add(&mut self, planned: Planned) -> u32 {
        let Planned { change, ops, mut entry, deps } = planned;
        let index =
            u32::try_from(self.entries.len()).expect("fewer events than op numbers, which are 31 bits");
        entry.past.insert(index);
        for (place, (put, replaced)) in ops.into_iter().enumerate() {
            let key = Arc::make_mut(self.keys.entry(put.key.into()).or_default());
            let new = u32::try_from(key.ops.len()).expect("fewer ops than op numbers, which are 31 bits");
            key.visible.retain(|old| !replaced.contains(old));
            key.visible.push(new);
            let order = (entry.start_op + place as u64, entry.actor);
            key.ops.push(KeyOp { entry: index, value: put.value, replaced, order });
        }
        for dep in &deps {
            self.heads.remove(dep);
        }
        self.heads.insert(index);
        self.order.insert((entry.start_op, entry.id, index));
        self.actors.insert(entry.actor, entry.id);
        self.entries.push(Arc::new(entry));
        self.pending.push(change);
        index
    }

    /// Whether something was added that automerge has not been given yet.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives automerge what was added, and checks that it took it.
    pub(crate) fn flush(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let Some(last) = pending.last().map(Change::hash) else { return };
        if pending.len() > REBUILD_EVENTS_MIN && !self.automerge.is_empty() {
            let mut all = self.automerge.get_changes(&[]);
            all.append(&mut pending);
            pending = all;
            self.automerge = empty_automerge();
        }
        self.automerge
            .apply_changes(pending)
            .expect("every change is our own, with a distinct actor and seq 1");
        assert!(
            self.automerge.get_change_meta_by_hash(&last).is_some(),
            "automerge took a change whose dependencies it has"
        );
    }

    /// The places of the ops of `key` in `past` that no op in `past` replaces.
    fn visible_in(&self, key: &str, past: &Bits) -> Vec<u32> {
        let Some(KeyOps { ops, visible }) = self.keys.get(key).map(|it| &**it) else { return Vec::new() };
        // Whoever has seen every visible op has seen whatever they replaced.
        if visible.iter().all(|place| past.contains(ops[*place as usize].entry)) {
            return visible.clone();
        }
        let mut seen = BTreeSet::new();
        for (place, op) in ops.iter().enumerate().filter(|(_, op)| past.contains(op.entry)) {
            for replaced in &op.replaced {
                seen.remove(replaced);
            }
            seen.insert(u32::try_from(place).expect("checked when it was added"));
        }
        seen.into_iter().collect()
    }

    /// The visible ops of `key` in everything that is known, the winner first.
    pub(crate) fn values(&self, key: &str) -> Vec<&KeyOp> {
        let Some(KeyOps { ops, visible }) = self.keys.get(key).map(|it| &**it) else { return Vec::new() };
        let mut values: Vec<&KeyOp> = visible.iter().map(|place| &ops[*place as usize]).collect();
        values.sort_unstable_by_key(|op| std::cmp::Reverse(op.order));
        if self.sabotage.has(Sabotage::LastArrivalWins) {
            values.sort_unstable_by_key(|op| std::cmp::Reverse(op.entry));
        }
        if self.sabotage.has(Sabotage::LowestWins) {
            values.reverse();
        }
        if self.sabotage.has(Sabotage::LatestClockWins) {
            values.sort_by_key(|op| std::cmp::Reverse(self.entry(op.entry).time_ms));
        }
        values
    }

    /// The winning value of `key` in `past`.
    pub(crate) fn value_in(&self, key: &str, past: &Bits) -> Option<&Value> {
        self.winner_of(key, &self.visible_in(key, past))
    }

    /// What the event at `index` found under `key`, and what it wrote there.
    pub(crate) fn before_and_after(&self, key: &str, index: u32) -> Option<(Option<&Value>, &Value)> {
        let ops = &self.keys.get(key)?.ops;
        let op = &ops[ops.binary_search_by_key(&index, |op| op.entry).ok()?];
        Some((self.winner_of(key, &op.replaced), &op.value))
    }

    fn winner_of(&self, key: &str, places: &[u32]) -> Option<&Value> {
        let ops = &self.keys.get(key)?.ops;
        places.iter().map(|place| &ops[*place as usize]).max_by_key(|op| op.order).map(|op| &op.value)
    }

    /// The automerge document as bytes; equal documents may have different bytes.
    pub(crate) fn save(&self) -> Vec<u8> {
        self.automerge.save()
    }

    /// Where automerge stands.
    pub(crate) fn automerge_heads(&self) -> Vec<[u8; 32]> {
        self.automerge.get_heads().into_iter().map(|hash| hash.0).collect()
    }
}

/// Automerge takes a random actor unless it is given one; ours never makes a change itself.
fn empty_automerge() -> Automerge {
    Automerge::new().with_actor(ActorId::from(GENESIS_ACTOR))
}

/// The actor of an event's change. The counter in front keeps automerge's table of actors growing
/// at its end.
fn actor(start_op: u64, id: EventId, epoch: u64) -> [u8; 16] {
    let counter = u32::try_from(start_op).expect("OPS_MAX has 31 bits");
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update(epoch.to_be_bytes());
    let mut actor = [0; 16];
    actor[..4].copy_from_slice(&counter.to_be_bytes());
    actor[4..].copy_from_slice(&hash.finalize()[..12]);
    actor
}

/// The change that every document begins with.
fn genesis(cluster: ClusterId, doc: &DocId, epoch: u64) -> Change {
    Change::from(ExpandedChange {
        operations: (0..MAPS)
            .map(|map| Op {
                action: OpType::Make(ObjType::Map),
                obj: ObjectId::Root,
                key: Key::Map(format!("{map:02}").into()),
                pred: SortedVec::new(),
                insert: false,
            })
            .collect(),
        actor_id: ActorId::from(GENESIS_ACTOR),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: Some(format!("skerry-document-v1 {cluster} {doc} epoch {epoch}")),
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    })
}
