//! All documents of one cluster: the cluster document and one for each namespace.
//!
//! Events go in, in any order that respects their dependencies; rosters, views, conflicts and
//! histories come out, the same on every peer that has the same events. Callers keep the bytes on
//! disk, void ones too, and put them in again at the next start.
//!
//! Invariant: an error leaves everything as it was.
//! Absent on purpose: parking. An event whose dependencies are missing is the caller's to keep, in
//! a queue that is bounded for each sender. So is the limit of namespaces in one cluster: how many
//! there are is no part of any event's past.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::limits::EVENT_DEPS_MAX;
use model::{ClusterId, DocId, EventId, Name, Sabotage, Sabotages};

use crate::bits::Bits;
use crate::event::{
    Author, Body, DecodeError, Decoded, Groups, Kind, Refused, SignedEvent, decode, decode_unverified, id_of,
};
use crate::history::{self, HistoryItem};
use crate::log::{Log, PlanError, Planned};
use crate::namespace::{self, Namespace, View};
use crate::roster::{self, Facts, Roster, Seen};
use crate::shared::Taken;
use crate::verdict::VoidReason;

/// Ids in one sample: few enough for one message, and with doubling steps enough for any history.
pub const SAMPLES_MAX: usize = 64;

/// Why an event was not taken in. Everything is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The bytes are no event of this cluster.
    #[error("the event is refused")]
    Refused(#[from] Refused),
    /// An event of a version that this release does not know. Put aside, alike everywhere.
    #[error("event {id} has version {version}, which this release does not understand")]
    NotUnderstood {
        /// The event.
        id: EventId,
        /// Its version.
        version: u16,
    },
    /// Events that it builds on are not here yet: park it and fetch them.
    #[error("event {id} waits for {} others", deps.len() + auth.len())]
    Missing {
        /// The event.
        id: EventId,
        /// The document that it changes, and that `deps` belong to.
        doc: DocId,
        /// Those of its own document, sorted.
        deps: Vec<EventId>,
        /// Those of the cluster document, sorted.
        auth: Vec<EventId>,
    },
    /// Two events were ground to have one actor: proof that an author misbehaves.
    #[error("event {id} was made to collide with event {other}")]
    Collision {
        /// The event.
        id: EventId,
        /// The one that is here already.
        other: EventId,
    },
}

impl From<DecodeError> for InsertError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Refused(refused) => Self::Refused(refused),
            DecodeError::NotUnderstood { id, version } => Self::NotUnderstood { id, version },
        }
    }
}

/// Reads stored bytes, as [`decode`] does.
#[derive(Clone)]
pub struct EventReader(Arc<ReadEvent>);

type ReadEvent = dyn Fn(&[u8]) -> Result<Decoded, DecodeError> + Send + Sync;

impl EventReader {
    /// What reads; it must find what [`decode`] would.
    pub fn new(read: impl Fn(&[u8]) -> Result<Decoded, DecodeError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventReader")
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is valid, and part of the document now.
    Applied {
        /// The hash of its automerge change: the same on every peer.
        change: [u8; 32],
        /// The deployments whose view may have changed; empty in the cluster document.
        touched: Vec<Name>,
    },
    /// It is void, and is remembered as such.
    Void {
        /// Why.
        reason: VoidReason,
    },
    /// It was here before, valid or void.
    Known,
}

/// An event that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Its name.
    pub id: EventId,
    /// The document that it changes.
    pub doc: DocId,
    /// What became of it.
    pub outcome: Outcome,
}

/// An event that is here.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its name.
    pub id: EventId,
    /// As stored and sent.
    pub event: &'a SignedEvent,
    /// Why it is void, if it is.
    pub void: Option<&'a VoidReason>,
}

impl Stored<'_> {
    /// What it says. Read anew at each call.
    pub fn body(&self) -> Body {
        self.event.body()
    }
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: Slot,
    index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Cluster,
    /// By order of arrival; never shown.
    Namespace(u32),
}

#[derive(Clone, Debug)]
struct Void {
    doc: DocId,
    event: SignedEvent,
    reason: VoidReason,
}

enum Judged {
    Known { id: EventId, doc: DocId },
    Void { decoded: Decoded, reason: VoidReason },
    Valid { decoded: Decoded, planned: Box<Planned> },
}

/// All documents of one cluster. A copy shares with the first what neither has changed since.
#[derive(Clone, Debug)]
pub struct Documents {
    cluster: ClusterId,
    epoch: u64,
    taken: Taken,
    log: Arc<Log>,
    facts: Arc<Facts>,
    roster: Arc<Roster>,
    namespaces: Vec<Arc<Namespace>>,
    by_name: BTreeMap<Name, u32>,
    places: BTreeMap<EventId, Place>,
    voids: BTreeMap<EventId, Void>,
    sabotage: Sabotages,
    reader: Option<EventReader>,
}

impl Documents {
    /// The documents of a cluster of which nothing but its id is known, in their first epoch.
    pub fn new(cluster: ClusterId) -> Self {
        Self::with_epoch(cluster, 0)
    }

    /// The same in another epoch: events have other changes there.
    pub fn with_epoch(cluster: ClusterId, epoch: u64) -> Self {
        let mut log = Log::new(cluster, &DocId::Cluster, epoch);
        log.flush();
        Self {
            cluster,
            epoch,
            taken: Taken::default(),
            log: Arc::new(log),
            facts: Arc::default(),
            roster: Arc::default(),
            namespaces: Vec::new(),
            by_name: BTreeMap::new(),
            places: BTreeMap::new(),
            voids: BTreeMap::new(),
            sabotage: Sabotages::NONE,
            reader: None,
        }
    }

    /// Has events read by this from now on. It must find what [`decode`] would.
    pub fn read_by(&mut self, reader: EventReader) {
        self.reader = Some(reader);
    }

    /// Nothing of this cluster, read alike.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let mut empty = Self::with_epoch(self.cluster, self.epoch);
        empty.sabotage(self.sabotage);
        empty.reader.clone_from(&self.reader);
        empty
    }

    /// Puts these faults in, before the first event.
    pub fn sabotage(&mut self, faults: Sabotages) {
        self.sabotage = faults;
        Arc::make_mut(&mut self.log).sabotage = faults;
        Arc::make_mut(&mut self.facts).sabotage = faults;
    }

    fn new_namespace(&self, name: &Name) -> Namespace {
        let mut namespace = Namespace::new(self.cluster, name, self.epoch);
        namespace.log.sabotage = self.sabotage;
        namespace
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The epoch.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    // --- Events go in.

    /// Judges an event and takes it in.
    pub fn insert(&mut self, stored: &[u8]) -> Result<Inserted, InsertError> {
        let inserted = self.take_in(stored);
        self.settle();
        inserted
    }

    /// The same, but a void event is not remembered: nobody who sends one has it from here. Documents that
    /// somebody else holds as well are copied, if there is anything to take in.
    pub fn insert_valid(this: &mut Arc<Self>, stored: &[u8]) -> Result<Inserted, InsertError> {
        match this.judge(stored)? {
            Judged::Known { id, doc } => Ok(Inserted { id, doc, outcome: Outcome::Known }),
            Judged::Void { decoded: Decoded { id, body, .. }, reason } => {
                Ok(Inserted { id, doc: body.doc, outcome: Outcome::Void { reason } })
            }
            judged @ Judged::Valid { .. } => {
                let documents = Arc::make_mut(this);
                let inserted = documents.take(judged);
                documents.settle();
                Ok(inserted)
            }
        }
    }

    /// Takes in many events at once: at the start, and when catching up. The order must respect
    /// dependencies, those on the cluster document included; whatever comes too early is `Missing`.
    /// Answers in the order of the events. The result is that of single inserts, sooner.
    pub fn insert_all<B: AsRef<[u8]>>(
        &mut self,
        batch: impl IntoIterator<Item = B>,
    ) -> Vec<Result<Inserted, InsertError>> {
        let inserted = batch.into_iter().map(|stored| self.take_in(stored.as_ref())).collect();
        self.settle();
        inserted
    }

    /// The verdict that [`Documents::insert`] would give, with nothing taken in: for the peer that
    /// accepts an event and must have it on disk first.
    pub fn check(&self, stored: &[u8]) -> Result<Inserted, InsertError> {
        Ok(match self.judge(stored)? {
            Judged::Known { id, doc } => Inserted { id, doc, outcome: Outcome::Known },
            Judged::Void { decoded: Decoded { id, body, .. }, reason } => {
                Inserted { id, doc: body.doc, outcome: Outcome::Void { reason } }
            }
            Judged::Valid { decoded, planned } => applied(&decoded, planned.hash()),
        })
    }

    fn take_in(&mut self, stored: &[u8]) -> Result<Inserted, InsertError> {
        let judged = self.judge(stored)?;
        Ok(self.take(judged))
    }

    fn take(&mut self, judged: Judged) -> Inserted {
        match judged {
            Judged::Known { id, doc } => Inserted { id, doc, outcome: Outcome::Known },
            Judged::Void { decoded: Decoded { id, event, body }, reason } => {
                self.taken.add(id);
                self.voids.insert(id, Void { doc: body.doc.clone(), event, reason: reason.clone() });
                Inserted { id, doc: body.doc, outcome: Outcome::Void { reason } }
            }
            Judged::Valid { decoded, planned } => {
                let inserted = applied(&decoded, planned.hash());
                self.add(decoded, *planned);
                inserted
            }
        }
    }

    fn add(&mut self, decoded: Decoded, planned: Planned) {
        let Decoded { id, body: Body { doc, author, kind, .. }, .. } = decoded;
        let place = match (doc, kind) {
            (DocId::Namespace(name), Kind::Change(change)) => {
                let slot = if let Some(slot) = self.by_name.get(&name) {
                    *slot
                } else {
                    let slot =
                        u32::try_from(self.namespaces.len()).expect("each takes memory, far more than a bit");
                    self.namespaces.push(Arc::new(self.new_namespace(&name)));
                    self.by_name.insert(name, slot);
                    slot
                };
                let namespace = Arc::make_mut(&mut self.namespaces[slot as usize]);
                let index = namespace.log.add(planned);
                namespace.add(index, id, &change);
                Place { slot: Slot::Namespace(slot), index }
            }
            (_, kind) => {
                let index = Arc::make_mut(&mut self.log).add(planned);
                Arc::make_mut(&mut self.facts).add(index, id, author, kind);
                Place { slot: Slot::Cluster, index }
            }
        };
        self.places.insert(id, place);
        self.taken.add(id);
    }

    /// Brings automerge and all that is computed up to date with what was taken in.
    fn settle(&mut self) {
        if self.log.is_pending() {
            Arc::make_mut(&mut self.log).flush();
            self.roster = Arc::new(self.facts.roster(&self.log));
        }
        for namespace in self.namespaces.iter_mut().filter(|namespace| namespace.log.is_pending()) {
            let namespace = Arc::make_mut(namespace);
            namespace.log.flush();
            namespace.refresh();
        }
    }

    fn judge(&self, stored: &[u8]) -> Result<Judged, InsertError> {
        // Most of what peers send is here already: one hash tells.
        if stored.len() <= model::limits::EVENT_BYTES_MAX {
            let id = id_of(stored);
            if let Some(doc) = self.doc_of(id) {
                return Ok(Judged::Known { id, doc });
            }
        }
        let decoded = match &self.reader {
            _ if self.sabotage.has(Sabotage::NoVerification) => decode_unverified(stored)?,
            Some(reader) => (reader.0)(stored)?,
            None => decode(stored)?,
        };
        let Decoded { id, body, .. } = &decoded;
        let cluster = match body.kind {
            Kind::Genesis(_) => ClusterId::from_bytes(*id.as_bytes()),
            _ => body.cluster,
        };
        if cluster != self.cluster {
            return Err(Refused::WrongCluster { id: *id }.into());
        }
        let missing = |ids: &[EventId]| -> Vec<EventId> {
            ids.iter().filter(|id| !self.contains(**id)).copied().collect()
        };
        let (deps, auth) = (missing(&body.deps), missing(&body.auth));
        if !deps.is_empty() || !auth.is_empty() {
            return Err(InsertError::Missing { id: *id, doc: body.doc.clone(), deps, auth });
        }
        let planned = self.verdict(&decoded)?;
        Ok(match planned {
            Ok(planned) => Judged::Valid { decoded, planned: Box::new(planned) },
            Err(reason) => Judged::Void { decoded, reason },
        })
    }

    /// The indices of events in one log; or why one of them cannot be built on.
    fn resolve(&self, ids: &[EventId], slot: Option<Slot>) -> Result<Vec<u32>, VoidReason> {
        ids.iter()
            .map(|dep| match self.places.get(dep) {
                None => Err(VoidReason::DependsOnVoid { dep: *dep }),
                Some(place) if Some(place.slot) == slot => Ok(place.index),
                Some(_) => Err(VoidReason::WrongDocument { dep: *dep }),
            })
            .collect()
    }

    /// The verdict on an event all of whose dependencies are known, and if valid its change.
    fn verdict(&self, decoded: &Decoded) -> Result<Result<Planned, VoidReason>, InsertError> {
        let Decoded { id, body, .. } = decoded;
        let (slot, fresh) = match &body.doc {
            DocId::Cluster => (Some(Slot::Cluster), None),
            DocId::Namespace(name) => match self.by_name.get(name) {
                Some(slot) => (Some(Slot::Namespace(*slot)), None),
                None => (None, Some(self.new_namespace(name))),
            },
        };
        // Void ones first, whichever list they are in: the order of `VoidReason`.
        let all = body.deps.iter().chain(&body.auth);
        if let Some(dep) = all.copied().find(|dep| self.voids.contains_key(dep)) {
            return Ok(Err(VoidReason::DependsOnVoid { dep }));
        }
        let (deps, auth) =
            match (self.resolve(&body.deps, slot), self.resolve(&body.auth, Some(Slot::Cluster))) {
                (Ok(deps), Ok(auth)) => (deps, auth),
                (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
            };
        let namespace = match slot {
            Some(Slot::Namespace(slot)) => Some(&*self.namespaces[slot as usize]),
            _ => fresh.as_ref(),
        };
        let log = namespace.map_or(&*self.log, |namespace| &namespace.log);
        let past = log.past_of(deps.iter().copied());
        let everything = self.sabotage.has(Sabotage::JudgedByPresent).then(|| log.everything());
        let judged_by = everything.as_ref().unwrap_or(&past);
        let (verdict, puts) = match (namespace, &body.kind) {
            (Some(namespace), Kind::Change(change)) => {
                let rights = self.log.past_of(auth);
                let verdict = if self.facts.role_of(body.author, Seen::In(&rights)).is_none() {
                    Err(VoidReason::NotAllowed { author: body.author })
                } else {
                    let undone = change.undoes.and_then(|undone| self.places.get(&undone));
                    let undone = undone.filter(|undone| Some(undone.slot) == slot).map(|undone| undone.index);
                    namespace.judge(change, undone, judged_by)
                };
                (verdict, namespace::puts(*id, change))
            }
            (_, kind) => (self.facts.judge(body.author, kind, &past), roster::puts(kind)),
        };
        if let Err(reason) = verdict {
            return Ok(Err(reason));
        }
        match log.plan(decoded, deps, past, puts) {
            Ok(planned) => Ok(Ok(planned)),
            Err(PlanError::Full) => Ok(Err(VoidReason::DocumentFull)),
            Err(PlanError::Collision(other)) => Err(InsertError::Collision { id: *id, other }),
        }
    }

    // --- What is here.

    /// What was taken in so far, in a hash.
    pub(crate) const fn taken(&self) -> Taken {
        self.taken
    }

    /// Where each event is kept.
    pub(crate) fn kept(&self) -> Vec<(EventId, String)> {
        self.places.iter().map(|(id, place)| (*id, format!("{place:?}"))).collect()
    }

    /// Whether the event is here, valid or void.
    pub fn contains(&self, id: EventId) -> bool {
        self.places.contains_key(&id) || self.voids.contains_key(&id)
    }

    /// The event, valid or void.
    pub fn event(&self, id: EventId) -> Option<Stored<'_>> {
        if let Some(void) = self.voids.get(&id) {
            return Some(Stored { id, event: &void.event, void: Some(&void.reason) });
        }
        let place = self.places.get(&id)?;
        Some(Stored { id, event: &self.log_at(place.slot).entry(place.index).event, void: None })
    }

    /// The document of an event that is here.
    pub fn doc_of(&self, id: EventId) -> Option<DocId> {
        if let Some(void) = self.voids.get(&id) {
            return Some(void.doc.clone());
        }
        Some(match self.places.get(&id)?.slot {
            Slot::Cluster => DocId::Cluster,
            Slot::Namespace(slot) => self.namespaces[slot as usize].doc(),
        })
    }

    /// The documents, the cluster's first, namespaces by name.
    pub fn docs(&self) -> Vec<DocId> {
        let namespaces = self.by_name.keys().map(|name| DocId::Namespace(name.clone()));
        std::iter::once(DocId::Cluster).chain(namespaces).collect()
    }

    /// How many valid events a document has; none if it is not here.
    pub fn events(&self, doc: &DocId) -> usize {
        self.log_of(doc).map_or(0, Log::len)
    }

    /// How many void events are remembered, in all documents.
    pub fn voids(&self) -> usize {
        self.voids.len()
    }

    /// Valid events that no valid event of the document descends from, sorted; empty for a document
    /// that is not here. There may be more than an event can
    /// name: see [`Documents::heads_to_name`].
    pub fn heads(&self, doc: &DocId) -> Vec<EventId> {
        self.log_of(doc).map(Log::heads).unwrap_or_default()
    }

    /// The heads that a new event names: all of them, or if there are more than an event can name
    /// ([`EVENT_DEPS_MAX`]) those with the longest past. Sorted.
    pub fn heads_to_name(&self, doc: &DocId) -> Vec<EventId> {
        let mut heads = self.heads(doc);
        if let Some(log) = self.log_of(doc).filter(|_| heads.len() > EVENT_DEPS_MAX) {
            let longest = log.ordered().rev().map(|(_, entry)| entry.id).filter(|id| heads.contains(id));
            heads = longest.take(EVENT_DEPS_MAX).collect();
            heads.sort_unstable();
        }
        heads
    }

    /// The hash of a valid event's automerge change: the same on every peer.
    pub fn change_hash(&self, id: EventId) -> Option<[u8; 32]> {
        let place = self.places.get(&id)?;
        Some(self.log_at(place.slot).entry(place.index).hash.0)
    }

    /// The document as automerge keeps it: for audit with other tools. Equal documents may have
    /// different bytes; events are the truth, and nothing reads this back.
    pub fn save(&self, doc: &DocId) -> Option<Vec<u8>> {
        self.log_of(doc).map(Log::save)
    }

    /// Where automerge stands, sorted: the changes of [`Documents::heads`].
    pub fn automerge_heads(&self, doc: &DocId) -> Option<Vec<[u8; 32]>> {
        self.log_of(doc).map(Log::automerge_heads)
    }

    fn log_at(&self, slot: Slot) -> &Log {
        match slot {
            Slot::Cluster => &self.log,
            Slot::Namespace(slot) => &self.namespaces[slot as usize].log,
        }
    }

    fn namespace(&self, name: &Name) -> Option<&Namespace> {
        self.by_name.get(name).map(|slot| &*self.namespaces[*slot as usize])
    }

    fn log_of(&self, doc: &DocId) -> Option<&Log> {
        match doc {
            DocId::Cluster => Some(&self.log),
            DocId::Namespace(name) => self.namespace(name).map(|namespace| &namespace.log),
        }
    }

    /// The causal past of those of `ids` that are valid events of this log.
    fn past_in(&self, log: &Log, ids: &[EventId]) -> Bits {
        let here = ids.iter().filter_map(|id| self.places.get(id).map(|place| (id, place.index)));
        // An index of another log may be out of range or another event: the id tells.
        log.past_of(here.filter(|(id, index)| log.has(*index, **id)).map(|(_, index)| index))
    }

    // --- What a peer sends another.

    /// The valid events of a document that are not among `known` and their ancestors, as stored
    /// bytes, causes before effects: as many as fit `bytes_max`, and at least one. The flag says
    /// whether there are more. Ids that are not known here are passed over.
    pub fn since(&self, doc: &DocId, known: &[EventId], bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
        let Some(log) = self.log_of(doc) else { return (Vec::new(), false) };
        let past = self.past_in(log, known);
        let mut events = Vec::new();
        let mut bytes = 0_usize;
        for (_, entry) in log.ordered().filter(|(index, _)| !past.contains(*index)) {
            bytes = bytes.saturating_add(entry.event.size());
            if bytes > bytes_max && !events.is_empty() {
                return (events, true);
            }
            events.push(entry.event.encode());
        }
        (events, false)
    }

    /// A valid event behind its causal past in its own document, as stored bytes, causes before effects:
    /// the newest part of them that fits `bytes_max`, and at least the event. The flag says whether
    /// older ones were left out. Nothing for an event that is not here, or is void.
    pub fn with_past(&self, id: EventId, bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
        let Some(place) = self.places.get(&id) else { return (Vec::new(), false) };
        let log = self.log_at(place.slot);
        let past = &log.entry(place.index).past;
        let mut events = Vec::new();
        let mut bytes = 0_usize;
        let mut cut = false;
        // From the event backwards: nothing in its past sorts behind it.
        for (_, entry) in log.ordered().rev().filter(|(index, _)| past.contains(*index)) {
            bytes = bytes.saturating_add(entry.event.size());
            if bytes > bytes_max && !events.is_empty() {
                cut = true;
                break;
            }
            events.push(entry.event.encode());
        }
        events.reverse();
        (events, cut)
    }

    /// Ids from which a peer finds what both have: heads, then events 1, 2, 4, 8, ... back, then the
    /// first. At most [`SAMPLES_MAX`], distinct.
    pub fn samples(&self, doc: &DocId) -> Vec<EventId> {
        let Some(log) = self.log_of(doc) else { return Vec::new() };
        let mut samples = log.heads();
        samples.truncate(SAMPLES_MAX / 2);
        let mut further = |id: EventId| {
            if samples.len() < SAMPLES_MAX && !samples.contains(&id) {
                samples.push(id);
            }
        };
        let mut wanted = 1_usize;
        for (back, (_, entry)) in log.ordered().rev().enumerate() {
            if back == wanted {
                further(entry.id);
                wanted = wanted.saturating_mul(2);
            }
        }
        if let Some((_, first)) = log.ordered().next() {
            further(first.id);
        }
        samples
    }

    // --- What people and planners see.

    /// Who belongs to the cluster.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Every deployment as merged, by namespace and name.
    pub fn deployments(&self) -> impl Iterator<Item = &View> {
        self.by_name.values().flat_map(|slot| self.namespaces[*slot as usize].views())
    }

    /// One deployment as merged.
    pub fn get(&self, namespace: &Name, name: &Name) -> Option<&View> {
        self.namespace(namespace)?.view(name)
    }

    /// Whether a deployment of this creation was deleted: it never runs again. `false` where nothing is known
    /// of it.
    pub fn has_ended(&self, namespace: &Name, name: &Name, incarnation: EventId) -> bool {
        self.namespace(namespace).is_some_and(|it| it.has_ended(name, incarnation))
    }

    /// The groups of an incarnation as they stood once `at` had happened, and nothing that is not
    /// in its past. None if any of it is not here, or the incarnation did not live then.
    pub fn groups_at(
        &self,
        namespace: &Name,
        name: &Name,
        incarnation: EventId,
        at: EventId,
    ) -> Option<Groups> {
        let namespace = self.namespace(namespace)?;
        let index = self.places.get(&at)?.index;
        if !namespace.log.has(index, at) {
            return None;
        }
        namespace.groups_in(name, incarnation, &namespace.log.entry(index).past)
    }

    /// What happened in a document, or to one name in it, oldest first.
    pub fn history(&self, doc: &DocId, name: Option<&Name>) -> Vec<HistoryItem> {
        let Some(log) = self.log_of(doc) else { return Vec::new() };
        let wanted = match (doc, name) {
            (DocId::Namespace(namespace), Some(name)) => {
                self.namespace(namespace).map(|namespace| namespace.events_of(name))
            }
            _ => None,
        };
        log.ordered()
            .filter(|(index, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(index)))
            .map(|entry| history::item(log, doc, &self.roster, entry, name))
            .collect()
    }

    /// The events that changed an incarnation's template, its create first: the first is v1, the
    /// second v2, and so on. Every peer with the same events gives the same list.
    pub fn revisions(&self, namespace: &Name, name: &Name, incarnation: EventId) -> Vec<EventId> {
        self.namespace(namespace).map(|namespace| namespace.revisions(name, incarnation)).unwrap_or_default()
    }

    /// The number that people see for an incarnation's current template: 1 for v1; 0 if it is not
    /// here.
    pub fn revision_number(&self, namespace: &Name, name: &Name, incarnation: EventId) -> u64 {
        self.revisions(namespace, name, incarnation).len() as u64
    }

    /// The name of an author, for people.
    pub fn name_of(&self, author: &Author) -> Option<&str> {
        self.roster.name_of(author)
    }
}

fn applied(decoded: &Decoded, change: [u8; 32]) -> Inserted {
    let touched = match &decoded.body.kind {
        Kind::Change(change) => change.edits.iter().map(|edit| edit.name().clone()).collect(),
        _ => Vec::new(),
    };
    Inserted { id: decoded.id, doc: decoded.body.doc.clone(), outcome: Outcome::Applied { change, touched } }
}
