//! Observed records: what this node says of itself, and what it heard of the others.

use std::collections::BTreeSet;

use document::event::EVENT_VERSION;
use membership::RecordError;
use model::limits::{EVENT_DEPS_MAX, IMAGES_ANNOUNCED_MAX};
use model::{
    ContainerRecord, DocId, EventId, JobRecord, NodeId, NodeRecord, RecordVersion, Sabotage, SignedRecord,
    Time,
};
use wire::Message;

use crate::containers::Mine;
use crate::io::Effect;
use crate::leases::linked_voters;
use crate::links::{Link, PUSH_RECORD_LINKS};
use crate::signed::sign_record;
use crate::state::Node;

/// How long a record may take through other nodes after the news that its node is up. Some round
/// trips of a slow link; longer leaves duplicates on the two sides of a bridge for longer.
pub(crate) const RELAYED: std::time::Duration = std::time::Duration::from_secs(2);

/// Bytes of the records in one message: half a frame. One record alone may hold more and still fits.
const RECORDS_BYTES_MAX: usize = 512 * 1024;

/// That a member brings records which their nodes have not signed is told once in that time, of each
/// member: it may send any number.
const FORGED_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Records in one message.
const RECORDS_PER_MESSAGE_MAX: usize = 16;

/// Splits records over messages that fit a frame.
fn in_messages(records: Vec<SignedRecord>) -> Vec<Vec<SignedRecord>> {
    let mut messages: Vec<Vec<SignedRecord>> = Vec::new();
    let mut size = 0;
    for record in records {
        let more = record.bytes.len();
        let fits = size + more <= RECORDS_BYTES_MAX;
        match messages.last_mut() {
            Some(last) if fits && last.len() < RECORDS_PER_MESSAGE_MAX => {
                last.push(record);
                size += more;
            }
            _ => {
                messages.push(vec![record]);
                size = more;
            }
        }
    }
    messages
}

/// Whether a later record of a node changes nothing that a plan, or a next step of a container here, is made
/// from. Links and heads change more often than that; whose word and whose work counts is looked at apart.
/// Of links only those to `voters` do: a lease is asked for over them.
fn asks_for_the_same(known: &NodeRecord, later: &NodeRecord, voters: &BTreeSet<NodeId>) -> bool {
    let NodeRecord {
        node: _,
        version: _,
        name,
        addresses: _,
        labels,
        capacity,
        terms: _,
        pressure,
        capacity_version,
        links,
        containers,
        declined,
        images,
        failed,
        jobs,
        heads: _,
        event_version: _,
    } = known;
    *name == later.name
        && *labels == later.labels
        && *capacity == later.capacity
        && *pressure == later.pressure
        && *capacity_version == later.capacity_version
        && *containers == later.containers
        && *declined == later.declined
        && *images == later.images
        && *failed == later.failed
        && *jobs == later.jobs
        && linked_voters(voters, known.node, links) == linked_voters(voters, known.node, &later.links)
}

impl Node {
    /// This node's record, as it is now.
    pub(crate) fn make_record(&self, version: RecordVersion) -> NodeRecord {
        NodeRecord {
            node: self.config.me,
            version,
            name: self.config.name.clone(),
            addresses: self.config.addresses.iter().take(membership::ADDRESSES_MAX).cloned().collect(),
            labels: self.config.labels.clone(),
            capacity: self.config.capacity.clone(),
            terms: self.config.terms,
            pressure: self.press.reason(),
            capacity_version: self.capacity_version,
            links: self.linked().collect(),
            // What is being removed stands for nothing any more: told as ended, it would pass for a job
            // that has done its work.
            containers: self.mine.values().filter(|mine| !mine.is_removed()).map(Mine::record).collect(),
            declined: self.declined.clone(),
            failed: self.failed.clone(),
            jobs: self
                .job_records
                .iter()
                .map(|(job, ends)| JobRecord { job: job.clone(), ends: ends.clone() })
                .collect(),
            images: self.images.values().take(IMAGES_ANNOUNCED_MAX).cloned().collect(),
            heads: self
                .documents
                .docs()
                .into_iter()
                .map(|doc| (doc.clone(), self.some_heads(&doc)))
                .collect(),
            event_version: EVENT_VERSION,
        }
    }

    /// Whether a replica of that node has a copy here: one may wait for a word of the other under today's heads.
    fn has_copies_beside(&self, record: &NodeRecord) -> bool {
        let here = |of: &ContainerRecord| self.mine.values().any(|mine| mine.claim.replica == of.replica);
        record.containers.iter().any(here)
    }

    /// Heads of a document, as many as a record may hold: with more, somebody has yet to merge them.
    pub(crate) fn some_heads(&self, doc: &DocId) -> Vec<EventId> {
        let mut heads = self.documents.heads(doc);
        heads.truncate(EVENT_DEPS_MAX);
        heads
    }

    /// Tells the others what has changed here, not more often than `Timings::publish` says.
    pub(crate) fn publish_if_due(&mut self) {
        self.make_record_if_due();
        self.pass_on_if_due();
    }

    fn make_record_if_due(&mut self) {
        if self.next_publish().is_none_or(|at| at > self.now) {
            return;
        }
        let only_heads = !self.changed;
        self.changed = false;
        self.heads_moved = None;
        self.count += 1;
        self.published_at = Some(self.now);
        let record = self.own_record();
        // Everything in it is bounded where it is made; a refusal is a bug, and the others would refuse
        // it too.
        let signed = match sign_record(&self.config.signer, self.config.cluster, &record) {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(error = crate::sync::chain(&error), "this node's own record is too large");
                return;
            }
        };
        if let Err(error) = self.records.set_own(record.into(), signed.clone()) {
            tracing::error!(%error, "this node's own record is out of bounds");
            return;
        }
        // Every member has such news after each event. Pushed on by all to all in a large cluster they
        // would be as many messages as members squared, for one event; here the periodic exchange of
        // records carries them, many in one message.
        if !self.is_large() {
            self.push(&Message::Records { records: vec![signed] }, None);
        } else if !only_heads {
            self.to_pass_on.insert(self.config.me, None);
        }
    }

    /// In a large cluster records are passed on some at a time: each reaches every member by a few ways,
    /// and one by one they would be as many messages as records, members and ways multiplied.
    fn pass_on_if_due(&mut self) {
        if self.next_pass_on().is_none_or(|at| at > self.now) {
            return;
        }
        self.passed_on_at = Some(self.now);
        let nodes = std::mem::take(&mut self.to_pass_on);
        let up: Vec<NodeId> = self.linked().collect();
        // It may have been a large cluster a moment ago.
        let to = if self.is_large() { self.some_of(up, PUSH_RECORD_LINKS) } else { up };
        for to in to {
            // Nobody is told what only concerns itself, or what it brought.
            let others = nodes.iter().filter(|(node, from)| **node != to && **from != Some(to));
            let records = others.filter_map(|(node, _)| self.records.signed(node));
            for records in in_messages(records.cloned().collect()) {
                self.after_sync(Effect::Send { to, message: Message::Records { records } });
            }
        }
    }

    fn next_pass_on(&self) -> Option<Time> {
        let apart = self.words_apart();
        (!self.to_pass_on.is_empty()).then(|| self.passed_on_at.map_or(self.now, |at| at + apart))
    }

    /// When there is something to tell. One event moves the heads of every member: told at once, that
    /// is as many records as members, each sent to all, right behind the event and in the way of the
    /// next. So new heads alone wait longer the more members there are.
    fn next_publish(&self) -> Option<Time> {
        let every = self.config.timings.publish.max(self.words_apart());
        let members = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let changed = self.changed.then(|| self.published_at.map_or(self.now, |at| at + every));
        let heads = self.heads_moved.map(|since| since + every.saturating_mul(members));
        changed.into_iter().chain(heads).min()
    }

    pub(crate) fn next_publish_wake(&self) -> Option<(Time, &'static str)> {
        let next = self.next_publish().into_iter().chain(self.next_pass_on()).min();
        next.map(|at| (at, "say what has changed here"))
    }

    pub(crate) fn send_digest(&mut self, to: NodeId, reply: bool) {
        let versions = self.records.digest();
        self.out.push(Effect::Send { to, message: Message::RecordDigest { versions, reply } });
    }

    /// Asks again whoever offered a record of one that was no member here: it may be one now. A record outruns the
    /// admission of its node where that must be written first by the one between, and nobody pushes it twice.
    /// Where its node is gone, or is reached through others alone, the periodic exchange would bring it a quarter
    /// of a minute later, or two, and plans differ until then.
    pub(crate) fn ask_for_strangers(&mut self) {
        let asked: Vec<NodeId> = self
            .links
            .iter_mut()
            .filter(|(_, link)| link.is_up())
            .filter_map(|(node, link)| std::mem::take(&mut link.knows_strangers).then_some(*node))
            .collect();
        for node in asked {
            self.send_digest(node, true);
        }
    }

    /// Sends what the other side has not; always answers, so that it knows that there is no more.
    pub(crate) fn on_record_digest(
        &mut self,
        from: NodeId,
        versions: &[(NodeId, RecordVersion)],
        reply: bool,
    ) {
        self.note_what_is_held(from, versions);
        // The other side knows best what it does itself.
        let newer = self.records.newer_than(versions).into_iter().filter(|(node, _)| *node != from);
        let newer: Vec<SignedRecord> = newer.map(|(_, signed)| signed.clone()).collect();
        if newer.is_empty() && reply {
            self.after_sync(Effect::Send { to: from, message: Message::Records { records: Vec::new() } });
        }
        for records in in_messages(newer) {
            self.after_sync(Effect::Send { to: from, message: Message::Records { records } });
        }
        self.settle_if_level();
    }

    /// Remembers what of the records that the other side holds is not here, and which its own is. A record
    /// is replaced by newer ones only: what is here now need not be remembered.
    fn note_what_is_held(&mut self, from: NodeId, versions: &[(NodeId, RecordVersion)]) {
        let Some(link) = self.links.get(&from) else { return };
        if link.lacking.is_some() {
            return;
        }
        let named = versions.iter().rfind(|(node, _)| *node == from).map(|(_, version)| *version);
        let lacks = |(node, version): &&(NodeId, RecordVersion)| {
            self.links.contains_key(node) && self.records.get(node).is_none_or(|it| it.version < *version)
        };
        let lacking = versions.iter().filter(lacks).copied().collect();
        if let Some(link) = self.links.get_mut(&from) {
            self.stirred = true;
            link.lacking = Some(lacking);
            link.named = link.named.or(named);
        }
    }

    /// In a large cluster a link may begin with the other side's own record instead: see
    /// `is_introduced_whole`. And one that links before it has made a record names none of its own.
    fn note_own_record(&mut self, from: NodeId, version: RecordVersion) {
        if let Some(link) = self.links.get_mut(&from)
            && link.named.is_none()
        {
            self.stirred = true;
            link.named = Some(version);
        }
    }

    /// Whether all records are here that the other side held when the link came up. That some records
    /// came says nothing: a peer also sends its own unasked, and what the rest run would be taken for
    /// not running.
    fn has_records_of(&self, link: &Link) -> bool {
        link.lacking.as_ref().is_some_and(|lacking| {
            lacking.iter().all(|(node, version)| {
                self.records.get(node).is_some_and(|record| record.version >= *version)
            })
        })
    }

    /// Whether a message brings records of others alone, and all are held: in a large cluster most do.
    pub(crate) fn is_told_again(&self, from: NodeId, message: &Message) -> bool {
        let known = |signed| self.records.holds(signed).is_some_and(|of| of != from);
        matches!(message, Message::Records { records } if !records.is_empty() && records.iter().all(known))
    }

    pub(crate) fn on_records(&mut self, from: NodeId, records: Vec<SignedRecord>) {
        let mut fresh = Vec::new();
        let mut heard = false;
        let mut behind: BTreeSet<DocId> = BTreeSet::new();
        for signed in records {
            if let Some(of) = self.records.holds(&signed) {
                if of == from {
                    let version = self.records.get(&from).map(|record| record.version);
                    self.note_own_record(from, version.unwrap_or_default());
                }
                continue; // What is known here, again: most of what goes around.
            }
            let record = match self.config.reader.record(&signed) {
                Ok(record) => record,
                Err(error) => {
                    self.record_dropped(from, &format!("a record that cannot be read ({error})"));
                    continue;
                }
            };
            let node = record.node;
            let news = self.records.is_news(&record);
            // Whoever brings it. What would not be believed anyway is not worth the time.
            let matters = matches!(news, Ok(true) | Err(RecordError::FromMyFuture(_)));
            if matters && !self.is_signed(&record, &signed) {
                let of = self.name_of(&node);
                self.record_dropped(from, &format!("a record of {of} that {of} has not signed"));
                continue;
            }
            if node == from && news.is_ok() {
                self.note_own_record(from, record.version);
            }
            match news {
                Ok(true) => {
                    if node == from {
                        let lacks = |heads: &[EventId]| heads.iter().any(|id| !self.documents.contains(*id));
                        let lacking = record.heads.iter().filter(|(_, heads)| lacks(heads));
                        behind.extend(lacking.map(|(doc, _)| doc.clone()));
                    }
                    let known = self.records.get(&node);
                    let asks_for_the_same =
                        known.is_some_and(|it| asks_for_the_same(it, &record, &self.leases.voters));
                    let heads_alone =
                        asks_for_the_same && known.is_some_and(|it| it.differs_in_heads_alone(&record));
                    self.dirty |= !asks_for_the_same || (heads_alone && self.has_copies_beside(&record));
                    let heads_alone = heads_alone && self.is_large();
                    self.stirred = true;
                    match self.records.insert(record, signed.clone()) {
                        // As where they are made: see `publish_if_due`.
                        Ok(_) if heads_alone => heard = true,
                        Ok(_) => fresh.push((node, signed)),
                        Err(error) => tracing::error!(%error, "a record that was sound is not taken"),
                    }
                }
                Ok(false) => {} // Known.
                Err(RecordError::Stranger(_)) => {
                    if let Some(link) = self.links.get_mut(&from) {
                        link.knows_strangers = true;
                    }
                }
                Err(error @ RecordError::FromMyFuture(_)) => {
                    self.notice("second-life", None, format!("{}: {error}", self.name_of(&from)));
                }
                Err(error @ (RecordError::TooMuch { .. } | RecordError::ClaimTooHigh { .. })) => {
                    tracing::warn!(%error, ?from, "record dropped");
                }
            }
        }
        if heard || !fresh.is_empty() {
            self.ask_for(from, &behind.into_iter().collect::<Vec<_>>());
            if self.is_large() {
                self.to_pass_on.extend(fresh.drain(..).map(|(node, _)| (node, Some(from))));
            }
            // Nobody is told what only concerns itself.
            let only = |records: &[(NodeId, SignedRecord)]| match records {
                [(node, _), rest @ ..] if rest.iter().all(|(other, _)| other == node) => Some(*node),
                _ => None,
            };
            let only = only(&fresh);
            for records in in_messages(fresh.into_iter().map(|(_, signed)| signed).collect()) {
                for to in self.push_targets(Some(from)) {
                    if only != Some(to) {
                        let message = Message::Records { records: records.clone() };
                        self.out.push(Effect::Send { to, message });
                    }
                }
            }
        }
        self.settle_if_level();
    }

    fn is_signed(&self, record: &NodeRecord, signed: &SignedRecord) -> bool {
        self.has(Sabotage::NoVerification)
            || self.config.reader.is_signed(self.config.cluster, record, signed)
    }

    /// Says that a member brought something which cannot be true, if that was not said just now.
    fn record_dropped(&mut self, from: NodeId, what: &str) {
        let now = self.now;
        if self.forgers.get(&from).is_some_and(|at| now.since(*at) < FORGED_AGAIN) {
            return;
        }
        self.forgers.insert(from, now);
        let name = self.name_of(&from);
        self.notice("record-forged", None, format!("{name} brought {what}; such records are dropped"));
    }

    /// The events of this link are all here.
    pub(crate) fn level_with(&mut self, peer: NodeId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.level = true;
        }
        self.settle_if_level();
    }

    /// New work is taken once somebody was caught up with, in events and in records, and every member
    /// has been heard of; or at once where there is nobody else; or after a while.
    pub(crate) fn settle_if_level(&mut self) {
        if self.settled {
            return;
        }
        let nobody_else = self.links.is_empty();
        // A member whose record nobody has may run anything: it was started together with this node, or
        // is gone for good. It is waited for as long as for company.
        let all_known = self.links.keys().all(|node| self.records.get(node).is_some());
        let caught_up = all_known
            && self.links.values().any(|link| link.is_up() && link.level && self.has_records_of(link));
        let alone = self.now >= self.started + self.config.timings.alone;
        if nobody_else || caught_up || alone {
            self.settled = true;
            self.dirty = true;
        }
    }
}
