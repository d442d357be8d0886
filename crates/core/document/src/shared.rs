//! Documents that are alike are one: for the many peers of one process, in a simulator.
//!
//! What a peer's documents are follows from the events that it has taken in, in their order, and from
//! nothing else. So a peer that is about to take in what would make its documents those of another may have
//! the other's instead. Two that took in the same events in another order count as alike only where that
//! was asked for: what they say is the same by the invariants of this crate, and that is what a simulator
//! of mistakes must not take for granted.
//!
//! Absent on purpose: locks. Whoever shares between threads guards a library itself. A peer by itself has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use model::{DocId, EventId};
use sha2::{Digest as _, Sha256};

use crate::documents::{Documents, Inserted, Outcome};
use crate::event::id_of;

/// Documents that nobody holds any more are forgotten when there are twice as many as at the last time, and
/// at least so many.
const FORGET_MIN: usize = 1_024;

/// What was taken in so far, in hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    in_order: [u8; 32],
    /// The sum of all ids, in words of 64 bits: they are hashes.
    in_any: [u64; 4],
}

impl Taken {
    pub(crate) fn add(&mut self, event: EventId) {
        let hash = Sha256::new_with_prefix(self.in_order).chain_update(event.as_bytes());
        self.in_order = hash.finalize().into();
        for (sum, word) in self.in_any.iter_mut().zip(event.as_bytes().chunks_exact(8)) {
            let word = word.try_into().map(u64::from_be_bytes).unwrap_or_default();
            *sum = sum.wrapping_add(word);
        }
    }

    fn key(&self, any_order: bool) -> [u8; 32] {
        if !any_order {
            return self.in_order;
        }
        let mut key = [0; 32];
        for (part, word) in key.chunks_exact_mut(8).zip(self.in_any) {
            part.copy_from_slice(&word.to_be_bytes());
        }
        key
    }
}

/// Documents that some peer of this process holds, by what they have taken in. All are of one cluster, one
/// epoch, and have the same faults, if any.
#[derive(Debug, Default)]
pub struct Library {
    any_order: bool,
    proves: bool,
    documents: BTreeMap<[u8; 32], Weak<Documents>>,
    forget_at: usize,
    /// What became of each event that was ever found valid: the same everywhere.
    applied: BTreeMap<EventId, Inserted>,
    /// How often documents were found here.
    found: u64,
}

impl Library {
    /// From now on documents that took in the same events in another order count as alike, or do not.
    pub fn in_any_order(&mut self, any: bool) {
        self.any_order = any;
        self.documents.clear();
    }

    /// From now on everything that is found is worked out as well, and compared.
    pub fn proves(&mut self, proves: bool) {
        self.proves = proves;
    }

    /// How often documents were found.
    pub const fn found(&self) -> u64 {
        self.found
    }

    /// What `documents` become with these events, and what becomes of each, if that is here.
    ///
    /// # Panics
    /// Where it was asked for a proof, and what is found is not what is worked out.
    pub fn after<B: AsRef<[u8]>>(
        &mut self,
        documents: &Documents,
        events: &[B],
    ) -> Option<(Arc<Documents>, Vec<Inserted>)> {
        let mut taken = documents.taken();
        let mut inserted = Vec::with_capacity(events.len());
        let mut fresh = BTreeSet::new();
        for event in events {
            let id = id_of(event.as_ref());
            let known = documents.contains(id) || fresh.contains(&id);
            if known && let Some(doc) = self.doc_of(documents, id) {
                inserted.push(Inserted { id, doc, outcome: Outcome::Known });
                continue;
            }
            inserted.push(self.applied.get(&id)?.clone());
            taken.add(id);
            fresh.insert(id);
        }
        if fresh.is_empty() {
            return None; // Nothing would change: that is soon told.
        }
        let found = self.documents.get(&taken.key(self.any_order))?.upgrade()?;
        self.found += 1;
        if self.proves {
            self.prove(documents, events, &found, &inserted);
        }
        Some((found, inserted))
    }

    fn doc_of(&self, documents: &Documents, id: EventId) -> Option<DocId> {
        documents.doc_of(id).or_else(|| self.applied.get(&id).map(|it| it.doc.clone()))
    }

    /// Remembers documents for as long as somebody holds them, and what became of events on the way there.
    pub fn keep(&mut self, documents: &Arc<Documents>, inserted: &[Inserted]) {
        for it in inserted.iter().filter(|it| matches!(it.outcome, Outcome::Applied { .. })) {
            self.applied.entry(it.id).or_insert_with(|| it.clone());
        }
        if self.documents.len() >= self.forget_at.max(FORGET_MIN) {
            self.documents.retain(|_, documents| documents.strong_count() > 0);
            self.forget_at = 2 * self.documents.len();
        }
        let kept = self.documents.entry(documents.taken().key(self.any_order)).or_default();
        if kept.strong_count() == 0 {
            *kept = Arc::downgrade(documents);
        }
    }

    fn prove<B: AsRef<[u8]>>(
        &self,
        before: &Documents,
        events: &[B],
        found: &Documents,
        inserted: &[Inserted],
    ) {
        let mut plain = Arc::new(before.clone());
        for (event, inserted) in events.iter().zip(inserted) {
            let worked_out = Documents::insert_valid(&mut plain, event.as_ref()).ok();
            assert_eq!(worked_out.as_ref(), Some(inserted), "what becomes of an event is not what was found");
        }
        let differs = plain.differs_from(found, !self.any_order);
        assert!(differs.is_none(), "documents differ from those that were found: {differs:?}");
    }
}

impl Documents {
    /// In what these documents differ from others, as far as anybody can see; with `exactly`, in which
    /// order things are kept as well.
    pub fn differs_from(&self, other: &Self, exactly: bool) -> Option<String> {
        if self.docs() != other.docs() {
            return Some(format!("documents {:?} and {:?}", self.docs(), other.docs()));
        }
        if self.roster() != other.roster() {
            return Some(format!("rosters {:?} and {:?}", self.roster(), other.roster()));
        }
        let views = |of: &Self| format!("{:?}", of.deployments().collect::<Vec<_>>());
        if views(self) != views(other) {
            return Some(format!("views {} and {}", views(self), views(other)));
        }
        if self.voids() != other.voids() {
            return Some(format!("{} and {} void events", self.voids(), other.voids()));
        }
        if exactly && self.kept() != other.kept() {
            return Some(format!("orders {:?} and {:?}", self.kept(), other.kept()));
        }
        self.docs().into_iter().find_map(|doc| {
            let same = self.heads(&doc) == other.heads(&doc)
                && self.samples(&doc) == other.samples(&doc)
                && self.since(&doc, &[], usize::MAX) == other.since(&doc, &[], usize::MAX)
                && self.history(&doc, None) == other.history(&doc, None)
                && self.automerge_heads(&doc) == other.automerge_heads(&doc);
            (!same).then(|| format!("what is said of {doc}"))
        })
    }
}
