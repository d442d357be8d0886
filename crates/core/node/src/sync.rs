//! Events: taken from clients and peers, put on disk, passed on, caught up with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use document::{Documents, InsertError, Inserted, Outcome as Verdict};
use model::{DocId, EventId, NodeId, Sabotage, Time};
use wire::{Message, Position};

use crate::io::{CommandId, Effect, Outcome, Seq};
use crate::links::Heads;
use crate::state::Node;

/// Bytes of events in one message: a quarter of a frame, so that one event more always fits.
const EVENTS_BYTES_MAX: usize = 256 * 1024;

/// Events that wait for what they depend on, by sender: what one message of small events may hold
/// when its first is missing.
const PARKED_PER_SENDER_MAX: usize = 1_024;

/// Bytes of them, by sender.
const PARKED_BYTES_PER_SENDER_MAX: usize = 4 << 20;

/// Clients that wait for further disks: one each for a crowd of shells.
const WAITING_MAX: usize = 1_024;

/// Ids in one `Want` or `Stored`.
const IDS_MAX: usize = 4_096;

/// The same answer to the same heads is not given more often: a peer that cannot take what it is
/// sent (an event of a newer version) would ask for it in a loop.
const ANSWER_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// While the journal takes nothing, others are asked that often for what it lost: their events are not
/// sent again by themselves. Sooner finds room sooner, at the price of a message each time.
const TRY_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A client that waits for further disks.
#[derive(Debug)]
pub(crate) struct Waiting {
    event: EventId,
    seq: Seq,
    needed: u32,
    on: BTreeSet<NodeId>,
    deadline: Time,
    known: bool,
}

/// Events whose dependencies are not here.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    by_sender: BTreeMap<NodeId, VecDeque<ParkedEvent>>,
}

#[derive(Debug)]
struct ParkedEvent {
    bytes: Vec<u8>,
    missing: BTreeSet<EventId>,
}

impl Parked {
    /// How many, of all senders.
    pub(crate) fn len(&self) -> usize {
        self.by_sender.values().map(VecDeque::len).sum()
    }

    /// Keeps an event until what it misses is here; the oldest of a sender goes when there are too many.
    fn keep(&mut self, from: NodeId, bytes: Vec<u8>, missing: BTreeSet<EventId>) {
        let queue = self.by_sender.entry(from).or_default();
        if queue.iter().any(|parked| parked.bytes == bytes) {
            return;
        }
        queue.push_back(ParkedEvent { bytes, missing });
        let mut size: usize = queue.iter().map(|parked| parked.bytes.len()).sum();
        while queue.len() > PARKED_PER_SENDER_MAX || size > PARKED_BYTES_PER_SENDER_MAX {
            let Some(oldest) = queue.pop_front() else { break };
            size -= oldest.bytes.len();
        }
    }

    /// Takes those that miss nothing any more.
    fn ready(&mut self, here: impl Fn(&EventId) -> bool) -> Vec<(NodeId, Vec<u8>)> {
        let mut ready = Vec::new();
        for (from, queue) in &mut self.by_sender {
            let mut rest = VecDeque::new();
            for parked in queue.drain(..) {
                if parked.missing.iter().all(&here) {
                    ready.push((*from, parked.bytes));
                } else {
                    rest.push_back(parked);
                }
            }
            *queue = rest;
        }
        self.by_sender.retain(|_, queue| !queue.is_empty());
        ready
    }
}

impl Node {
    /// Holds an effect back until all that was given to the journal is synced.
    pub(crate) fn after_sync(&mut self, effect: Effect) {
        if self.issued > self.synced && !self.has(Sabotage::TellsBeforeSync) {
            self.held.push_back((self.issued, effect));
        } else {
            self.out.push(effect);
        }
    }

    /// The stored bytes of a valid event.
    fn bytes_of(&self, id: EventId) -> Option<Vec<u8>> {
        self.documents.event(id).filter(|stored| stored.void.is_none()).map(|stored| stored.event.encode())
    }

    /// Judges an event and takes it in, unless it is void.
    fn insert(&mut self, event: &[u8]) -> Result<Inserted, InsertError> {
        let ahead = self.insert_ahead(&[event]);
        if let Some(inserted) = ahead.and_then(|mut ahead| ahead.pop()) {
            return Ok(inserted);
        }
        let inserted = Documents::insert_valid(&mut self.documents, event)?;
        if matches!(inserted.outcome, Verdict::Applied { .. }) {
            self.config.reader.keep_documents(&self.documents, std::slice::from_ref(&inserted));
        }
        Ok(inserted)
    }

    /// The same of some events, where another peer of this process has done just that.
    fn insert_ahead(&mut self, events: &[&[u8]]) -> Option<Vec<Inserted>> {
        let (documents, inserted) = self.config.reader.documents_after(&self.documents, events)?;
        self.documents = documents;
        Some(inserted)
    }

    fn persist(&mut self, events: Vec<(EventId, Vec<u8>)>) -> Seq {
        self.issued = Seq(self.issued.0 + 1);
        let (ids, mut records): (Vec<_>, Vec<_>) = events.into_iter().unzip();
        if self.has(Sabotage::BatchCutShort) {
            records.truncate(1);
        }
        self.at_journal.push_back((self.issued, ids));
        self.out.push(Effect::Persist { seq: self.issued, records });
        self.issued
    }

    pub(crate) fn on_submit(&mut self, command: CommandId, event: Vec<u8>, durable: u32) {
        let refuse = |node: &mut Self, code, reason: String| {
            let outcome = Outcome::Refused { code, reason };
            node.out.push(Effect::Reply { command, outcome });
        };
        if self.waiting.len() >= WAITING_MAX {
            return refuse(self, "busy", format!("{WAITING_MAX} requests wait already; try again"));
        }
        if self.removed {
            let told = self.removal_of(&self.config.me).map(|removal| format!(" {}", removal.told()));
            let told = told.unwrap_or_default();
            return refuse(self, "removed", format!("this node was removed from the cluster{told}"));
        }
        // Void events are refused and not remembered: nobody else would take them either.
        let Inserted { id, outcome, .. } = match self.insert(&event) {
            Ok(Inserted { outcome: Verdict::Void { reason }, .. }) => {
                return refuse(self, "void", reason.to_string());
            }
            Ok(inserted) => inserted,
            Err(error) => {
                let code = match &error {
                    InsertError::Missing { .. } => "unknown-deps",
                    InsertError::NotUnderstood { .. } => "newer-version",
                    InsertError::Refused(_) | InsertError::Collision { .. } => "malformed",
                };
                return refuse(self, code, chain(&error));
            }
        };
        let known = matches!(outcome, Verdict::Known);
        let seq = if known && !self.has(Sabotage::WrittenTwice) {
            // A retry: on disk with the batch that it came with, which is at most the last issued.
            self.issued
        } else {
            let seq = self.persist(vec![(id, event)]);
            self.events_changed(&[id], None);
            seq
        };
        let deadline = self.now + self.config.timings.durable;
        let waiting =
            Waiting { event: id, seq, needed: durable.max(1), on: BTreeSet::new(), deadline, known };
        self.waiting.insert(command, waiting);
        if known {
            self.pass_on_events(&[id], None);
        }
        self.answer_clients();
    }

    /// What follows from new events: pushed on and told, once they are synced, and planned for then: a
    /// change that the disk refuses must not have moved a container.
    fn events_changed(&mut self, ids: &[EventId], from: Option<NodeId>) {
        self.pass_on_events(ids, from);
        self.roster_changed();
        self.heads_moved.get_or_insert(self.now);
        self.dirty = true;
    }

    /// Sends events on, once they may be said: to everybody in a small cluster, along trees in a large one.
    fn pass_on_events(&mut self, ids: &[EventId], from: Option<NodeId>) {
        let with_bytes = |id: &EventId| self.bytes_of(*id).map(|bytes| (*id, bytes));
        let (ids, events): (Vec<EventId>, Vec<Vec<u8>>) = ids.iter().filter_map(with_bytes).unzip();
        if !self.is_large() {
            for events in in_messages(events) {
                self.push(&Message::Events { events, more: false }, from);
            }
            return;
        }
        for (to, its) in self.spread(&ids, from) {
            for events in in_messages(its.into_iter().filter_map(|at| events.get(at).cloned())) {
                self.after_sync(Effect::Send { to, message: Message::Events { events, more: false } });
            }
        }
    }

    /// Sends to a bounded number of links, once it may be said.
    pub(crate) fn push(&mut self, message: &Message, from: Option<NodeId>) {
        for to in self.push_targets(from) {
            self.after_sync(Effect::Send { to, message: message.clone() });
        }
    }

    pub(crate) fn on_persisted(&mut self, seq: Seq) {
        self.synced = self.synced.max(seq);
        if self.has(Sabotage::OneSyncForAll) {
            self.synced = self.issued;
        }
        if self.refusing.take().is_some() {
            // Whoever was asked last may lack what others have: one that was removed, say.
            for to in self.push_targets(None) {
                let positions = self.all_positions();
                self.after_sync(Effect::Send { to, message: positions });
            }
        }
        self.catch_up_at = None;
        self.refused_at = None;
        self.durable = None;
        while self.at_journal.front().is_some_and(|(at, _)| *at <= self.synced) {
            self.at_journal.pop_front();
        }
        while self.held.front().is_some_and(|(at, _)| *at <= self.synced) {
            if let Some((_, effect)) = self.held.pop_front() {
                self.out.push(effect);
            }
        }
        self.removal_changed();
        self.desired_changed();
        self.answer_clients();
    }

    /// The disk did not take it: forget the events again, tell the clients, say nothing of it.
    pub(crate) fn on_persist_failed(&mut self, seq: Seq, reason: &str) {
        if self.refusing.as_deref() != Some(reason) {
            self.notice("refusing", None, format!("accepts no events: {reason}"));
        }
        self.refusing = Some(reason.to_owned());
        self.catch_up_at = Some(self.now + TRY_AGAIN);
        self.refused_at = Some(self.now);
        let lost: BTreeSet<EventId> =
            self.at_journal.iter().filter(|(at, _)| *at >= seq).flat_map(|(_, ids)| ids.clone()).collect();
        self.at_journal.retain(|(at, _)| *at < seq);
        self.held.retain(|(at, _)| *at < seq);
        self.issued = Seq(self.issued.0 + 1);
        self.synced = self.issued;
        if !self.has(Sabotage::LostKept) {
            // A full disk takes nothing again and again: all that came since the last time is lost.
            let all = self.at_journal.is_empty();
            let before = self.durable.take().filter(|_| all);
            self.documents = before.unwrap_or_else(|| Arc::new(without(&self.documents, &lost)));
            self.durable = all.then(|| Arc::clone(&self.documents));
        }
        let failed: Vec<CommandId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.seq >= seq)
            .map(|(command, _)| *command)
            .collect();
        for command in failed {
            self.waiting.remove(&command);
            let outcome = Outcome::Refused { code: "disk", reason: reason.to_owned() };
            self.out.push(Effect::Reply { command, outcome });
        }
        let members = self.links.len();
        self.roster_changed();
        if self.links.len() < members {
            // The records of those whose admission is lost went with it, and nobody pushes them again.
            for link in self.links.values_mut() {
                link.knows_strangers = true;
            }
        }
        self.desired_changed();
        self.changed = true;
        // At once: the record that was made last may name heads that were never synced.
        self.published_at = None;
        self.dirty = true;
    }

    /// Answers every client that has what it waits for, or whose time is up.
    fn answer_clients(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let reachable = u32::try_from(self.linked().count()).unwrap_or(u32::MAX);
        let done: Vec<CommandId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| {
                let durable_on = 1 + u32::try_from(waiting.on.len()).unwrap_or(u32::MAX);
                let enough = durable_on >= waiting.needed.min(reachable.saturating_add(1));
                let on_disk = waiting.seq <= self.synced || self.has(Sabotage::AcksBeforeSync);
                on_disk && (enough || waiting.deadline <= self.now)
            })
            .map(|(command, _)| *command)
            .collect();
        for command in done {
            let Some(waiting) = self.waiting.remove(&command) else { continue };
            let more = u32::from(self.has(Sabotage::AcksOneMore));
            let durable_on = 1 + more + u32::try_from(waiting.on.len()).unwrap_or(u32::MAX);
            let outcome = Outcome::Accepted { event: waiting.event, durable_on, known: waiting.known };
            self.out.push(Effect::Reply { command, outcome });
        }
    }

    pub(crate) fn on_received(&mut self, from: NodeId, message: Message) {
        if !self.documents.roster().nodes.contains_key(&from) {
            return; // Removed while the frame was on its way; the shell closes the link.
        }
        self.heard(from);
        match message {
            Message::Hello { cluster, generation } => self.on_hello(from, cluster, generation),
            Message::Positions { positions, full } => self.on_positions(from, &positions, full),
            Message::Events { events, more } => self.on_events(from, events, more),
            Message::Want { ids } => self.on_want(from, &ids),
            Message::Stored { ids } => {
                for waiting in self.waiting.values_mut() {
                    if ids.contains(&waiting.event) {
                        waiting.on.insert(from);
                    }
                }
                self.answer_clients();
            }
            Message::LeaseAsk(ask) => self.on_lease_ask(from, &ask),
            Message::LeaseAnswer(answer) => self.on_lease_answer(from, &answer),
            Message::LeaseEnd(end) => self.on_lease_end(from, &end),
            Message::Records { records } => self.on_records(from, records),
            Message::RecordDigest { versions, reply } => self.on_record_digest(from, &versions, reply),
            Message::Liveness { bytes, reply } => {
                if let Err(error) = self.membership.push_pull_in(self.now, from, &bytes) {
                    tracing::debug!(%error, "liveness table dropped");
                }
                if reply {
                    let bytes = self.membership.push_pull_out();
                    self.out
                        .push(Effect::Send { to: from, message: Message::Liveness { bytes, reply: false } });
                }
            }
        }
    }

    fn on_events(&mut self, from: NodeId, events: Vec<Vec<u8>>, more: bool) {
        if self.is_out() {
            return; // What happens after its removal is none of its business.
        }
        if self.refused_at.is_some_and(|at| self.now - at < TRY_AGAIN / 2) {
            // The disk would not take it either. Each record from others says that something is lacking here:
            // asked for at once each time, it would be written, lost and told of without end.
            return;
        }
        // With events parked it matters when each comes.
        let together = self.parked.len() == 0 && events.len() > 1;
        let all: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        let ahead = if together { self.insert_ahead(&all) } else { None };
        let mut ahead = VecDeque::from(ahead.unwrap_or_default());
        let mut queue: VecDeque<(NodeId, Vec<u8>)> = events.into_iter().map(|bytes| (from, bytes)).collect();
        let mut fresh: Vec<(EventId, Vec<u8>)> = Vec::new();
        let mut stored: Vec<EventId> = Vec::new();
        let mut missing = BTreeSet::new();
        let mut docs = BTreeSet::new();
        while let Some((sender, bytes)) = queue.pop_front() {
            let inserted = match ahead.pop_front() {
                Some(inserted) => Ok(inserted),
                None => self.insert(&bytes),
            };
            match inserted {
                Ok(Inserted { outcome: Verdict::Void { reason }, .. }) => {
                    self.notice(
                        "event-void",
                        None,
                        format!("{} sent a void event: {reason}", self.name_of(&sender)),
                    );
                }
                Ok(Inserted { id, doc, outcome }) => {
                    stored.push(id);
                    docs.insert(doc);
                    if !matches!(outcome, Verdict::Known) {
                        fresh.push((id, bytes));
                        queue.extend(self.parked.ready(|id| self.documents.contains(*id)));
                    }
                }
                Err(InsertError::Missing { deps, auth, .. }) => {
                    let lacking: BTreeSet<EventId> = deps.into_iter().chain(auth).collect();
                    missing.extend(lacking.iter().copied());
                    self.parked.keep(sender, bytes, lacking);
                }
                Err(error) => {
                    let message = format!(
                        "{} sent an event that was not taken: {}",
                        self.name_of(&sender),
                        chain(&error)
                    );
                    self.notice("event-refused", None, message);
                }
            }
        }
        if !fresh.is_empty() {
            self.take_in(fresh, from);
        }
        for ids in stored.chunks(IDS_MAX) {
            let stored = Effect::Send { to: from, message: Message::Stored { ids: ids.to_vec() } };
            if self.has(Sabotage::StoredBeforeSync) {
                self.out.push(stored);
            } else {
                self.after_sync(stored);
            }
        }
        missing.retain(|id| !self.documents.contains(*id));
        if !missing.is_empty() {
            let ids = missing.into_iter().take(IDS_MAX).collect();
            self.out.push(Effect::Send { to: from, message: Message::Want { ids } });
        }
        if more {
            let positions: Vec<Position> = docs.iter().map(|doc| self.position(doc, true)).collect();
            self.after_sync(Effect::Send {
                to: from,
                message: Message::Positions { positions, full: false },
            });
        }
    }

    /// Has new events of another node's put on disk, and follows them.
    pub(crate) fn take_in(&mut self, fresh: Vec<(EventId, Vec<u8>)>, from: NodeId) {
        let ids: Vec<EventId> = fresh.iter().map(|(id, _)| *id).collect();
        self.persist(fresh);
        self.events_changed(&ids, Some(from));
    }

    fn on_want(&mut self, from: NodeId, ids: &[EventId]) {
        let mut events = Vec::new();
        let mut size = 0;
        for bytes in ids.iter().take(IDS_MAX).filter_map(|id| self.bytes_of(*id)) {
            if size + bytes.len() > EVENTS_BYTES_MAX {
                break;
            }
            size += bytes.len();
            events.push(bytes);
        }
        if !events.is_empty() {
            self.after_sync(Effect::Send { to: from, message: Message::Events { events, more: false } });
        }
    }

    pub(crate) fn position(&self, doc: &DocId, samples: bool) -> Position {
        Position {
            doc: doc.clone(),
            heads: self.documents.heads(doc),
            samples: if samples { self.documents.samples(doc) } else { Vec::new() },
        }
    }

    /// All documents, as told at the start of a link and from time to time.
    pub(crate) fn all_positions(&self) -> Message {
        let positions = self.documents.docs().iter().map(|doc| self.position(doc, false)).collect();
        Message::Positions { positions, full: true }
    }

    /// Sends what the other side lacks, and asks for what is lacking here.
    fn on_positions(&mut self, from: NodeId, positions: &[Position], full: bool) {
        let mut ask = Vec::new();
        let mut level = true;
        for position in positions {
            let unknown = position.heads.iter().any(|id| !self.documents.contains(*id));
            level &= !unknown;
            if !unknown || !position.samples.is_empty() {
                let known: Vec<EventId> = position
                    .heads
                    .iter()
                    .chain(&position.samples)
                    .copied()
                    .filter(|id| self.documents.contains(*id))
                    .collect();
                self.send_since(from, &position.doc, &known);
            }
            if unknown {
                ask.push(position.doc.clone());
            }
        }
        if full {
            let named: BTreeSet<&DocId> = positions.iter().map(|position| &position.doc).collect();
            let unnamed: Vec<DocId> =
                self.documents.docs().into_iter().filter(|doc| !named.contains(doc)).collect();
            for doc in unnamed {
                self.send_since(from, &doc, &[]);
            }
        }
        if level {
            self.level_with(from);
        }
        self.ask_for(from, &ask);
    }

    /// Says where this node stands in documents that another is ahead in, not too often.
    pub(crate) fn ask_for(&mut self, from: NodeId, docs: &[DocId]) {
        let mut positions = Vec::new();
        for doc in docs {
            let position = self.position(doc, true);
            let Some(link) = self.links.get_mut(&from) else { return };
            let again = link.asked.get(doc).is_some_and(|Heads { heads, at }| {
                *heads == position.heads && self.now.since(*at) < ANSWER_AGAIN
            });
            if !again {
                link.asked.insert(doc.clone(), Heads { heads: position.heads.clone(), at: self.now });
                positions.push(position);
            }
        }
        if !positions.is_empty() {
            self.after_sync(Effect::Send {
                to: from,
                message: Message::Positions { positions, full: false },
            });
        }
    }

    fn send_since(&mut self, to: NodeId, doc: &DocId, known: &[EventId]) {
        let known = if self.has(Sabotage::SendsEverything) { &[] } else { known };
        let (mut events, more) = self.documents.since(doc, known, EVENTS_BYTES_MAX);
        if self.has(Sabotage::LastEventKept) {
            events.pop();
        }
        if !events.is_empty() {
            self.after_sync(Effect::Send { to, message: Message::Events { events, more } });
        }
    }

    pub(crate) fn tick_sync(&mut self) {
        if self.waiting.values().any(|waiting| waiting.deadline <= self.now) {
            self.answer_clients();
        }
        if self.catch_up_at.is_some_and(|at| at <= self.now) {
            self.catch_up_at = Some(self.now + TRY_AGAIN);
            self.exchange_positions();
        }
    }

    pub(crate) fn next_sync_wake(&self) -> Option<(Time, &'static str)> {
        let synced = self.waiting.values().filter(|waiting| waiting.seq <= self.synced);
        let clients = synced.map(|waiting| (waiting.deadline, "a client waits for further disks"));
        let catch_up = self.catch_up_at.map(|at| (at, "what the journal lost is asked for again"));
        clients.chain(catch_up).min()
    }
}

/// Splits events over messages that fit a frame.
fn in_messages(events: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut messages: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut size = 0;
    for bytes in events {
        size += bytes.len();
        match messages.last_mut() {
            Some(last) if size <= EVENTS_BYTES_MAX => last.push(bytes),
            _ => {
                size = bytes.len();
                messages.push(vec![bytes]);
            }
        }
    }
    messages
}

/// The documents without some events, and without what builds on them. Dear, and rare: a full disk.
fn without(documents: &Documents, lost: &BTreeSet<EventId>) -> Documents {
    let mut rest = documents.emptied();
    for doc in documents.docs() {
        let (events, _) = documents.since(&doc, &[], usize::MAX);
        // What builds on a lost event is lost as well: it was written after it.
        drop(rest.insert_all(events.iter().filter(|bytes| !lost.contains(&document::event::id_of(bytes)))));
    }
    rest
}

/// An error with its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
