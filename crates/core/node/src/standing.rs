//! Whose word counts, whose work counts as running, and how often that is looked at.
//!
//! Both follow from links, from records (whom those that are up say they are linked to), from the roster
//! and from who is believed alive. A plan, and the resolution of duplicates, are made from them.
//!
//! A peer that stood still believes nobody's word of a copy for a while.
//!
//! Invariant: what was looked at last is true, or `stirred` says that it may not be.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use membership::{Belief, Liveness, Records};
use model::{NodeId, NodeRecord, RecordVersion, Sabotage, Time};

use crate::gossip::RELAYED;
use crate::links::Link;
use crate::state::Node;

/// A peer in a cluster has something to do each second. One that had nothing for so long was stopped, or its
/// machine slept: what it hears next was said before.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// For so long after that no copy makes way for another: whoever died meanwhile is found dead by then.
const HEARS_OLD: Duration = Duration::from_secs(3);

/// Whom each record says its node is linked to, as bits by member: in a large cluster that is cut, this is
/// asked of each of many for each of many.
#[derive(Debug, Default)]
pub(crate) struct Said {
    members: Vec<NodeId>,
    /// By member: of which record, and the bits.
    links: Vec<Option<(RecordVersion, Vec<u64>)>>,
}

impl Said {
    fn follow<'a>(&mut self, members: impl Iterator<Item = &'a NodeId> + Clone) {
        if !members.clone().eq(self.members.iter()) {
            self.members = members.copied().collect();
            self.links = vec![None; self.members.len()];
        }
    }

    fn place(&self, node: &NodeId) -> Option<usize> {
        self.members.binary_search(node).ok()
    }

    /// Everybody that one of `words` says it is linked to.
    fn linked<'a>(&mut self, words: impl Iterator<Item = &'a NodeId>, records: &Records) -> Vec<u64> {
        let mut all = vec![0; self.members.len().div_ceil(64)];
        for record in words.filter_map(|node| records.get(node)) {
            let Some(place) = self.place(&record.node) else { continue };
            let known = self.links[place].as_ref().is_some_and(|(version, _)| *version == record.version);
            if !known {
                self.links[place] = Some((record.version, self.bits(record)));
            }
            let bits = self.links[place].iter().flat_map(|(_, bits)| bits);
            for (word, more) in all.iter_mut().zip(bits) {
                *word |= *more;
            }
        }
        all
    }

    fn bits(&self, record: &NodeRecord) -> Vec<u64> {
        let mut bits = vec![0; self.members.len().div_ceil(64)];
        // They are mostly in order, and so are the members.
        let mut next = 0;
        for link in &record.links {
            let place = if self.members.get(next) == Some(link) { Some(next) } else { self.place(link) };
            if let Some(place) = place {
                bits[place / 64] |= 1 << (place % 64);
                next = place + 1;
            }
        }
        bits
    }
}

/// One link, with all that decides whose word and whose work counts.
struct Standing<'a> {
    node: &'a NodeId,
    link: &'a Link,
    /// `None` of one that the membership does not know.
    belief: Option<Belief>,
    /// Of its record, if there is one here.
    version: Option<RecordVersion>,
}

impl Standing<'_> {
    fn liveness(&self) -> Liveness {
        self.belief.map_or(Liveness::Down, |it| it.liveness)
    }
}

impl Node {
    /// Sees whether this peer stood still since its last input. The word of a winner that waited for it
    /// may be that of a machine which is gone: to stop the last copy on it would be wrong.
    pub(crate) fn notice_a_standstill(&mut self, now: Time) {
        if !self.links.is_empty() && self.now > self.started && now.since(self.now) >= STOOD_STILL {
            self.hears_old_until = Some(now + HEARS_OLD);
        }
        if self.hears_old_until.is_some_and(|until| until <= now) {
            self.hears_old_until = None;
            self.dirty = true;
        }
    }

    /// In a large cluster, where news come in bursts: so long for each member.
    fn for_each_member(&self, it: Duration) -> Duration {
        if !self.is_large() {
            return Duration::ZERO;
        }
        it.saturating_mul(u32::try_from(self.links.len()).unwrap_or(u32::MAX))
    }

    /// How far apart plans are, and looks at who counts.
    fn plans_apart(&self) -> Duration {
        self.for_each_member(self.config.timings.replan)
    }

    /// How far apart it is what is said of nodes.
    pub(crate) fn words_apart(&self) -> Duration {
        self.for_each_member(self.config.timings.pass_on)
    }

    /// When a plan is due, if something has changed that it depends on.
    pub(crate) fn next_plan(&self) -> Option<Time> {
        self.dirty.then(|| self.planned_at.map_or(self.now, |at| at + self.plans_apart()))
    }

    /// When it may be looked again at who counts.
    pub(crate) fn next_look(&self) -> Time {
        self.looked_at.map_or(self.now, |at| at + self.plans_apart())
    }

    /// Each link with the belief in its node and the version of its record, in one walk: all are by id, and
    /// this is asked whenever a record or a link changes.
    fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        let mut beliefs = self.membership.beliefs().peekable();
        let mut records = self.records.iter().peekable();
        self.links.iter().map(move |(node, link)| {
            while beliefs.next_if(|(it, _)| *it < node).is_some() {}
            while records.next_if(|it| it.node < *node).is_some() {}
            let belief = beliefs.next_if(|(it, _)| *it == node).map(|(_, belief)| belief);
            let version = records.next_if(|it| it.node == *node).map(|it| it.version);
            Standing { node, link, belief, version }
        })
    }

    /// Sees whose record counts as their present word, whose work as running, whom others answer for, and
    /// when time alone will change any of it. Mostly nothing has changed.
    pub(crate) fn look_who_counts(&mut self) {
        self.stirred = false;
        self.looked_at = Some(self.now);
        let members = self.links.len();
        let (mut words, mut alive) = (Vec::with_capacity(members), Vec::with_capacity(members));
        let (mut unlinked, mut next_word, mut next_grace) = (BTreeSet::new(), None, None);
        let mut vouch = Vec::new();
        let earlier = |known: Option<Time>, at: Time| Some(known.map_or(at, |known| known.min(at)));
        let grace = self.config.timings.grace;
        for it in self.standings() {
            if it.version.is_some_and(|version| self.is_word(it.link, version, it.belief)) {
                words.push(*it.node);
            } else if it.version.is_some() && vouches(it.link, it.belief) {
                vouch.push(*it.node);
            }
            alive.push(self.is_alive_by_belief(it.belief));
            if it.liveness() != Liveness::Down {
                if !it.link.is_up() {
                    unlinked.insert(*it.node);
                }
            } else if let Some(at) = it.belief.map(|it| it.changed_at + grace).filter(|at| *at > self.now) {
                next_grace = earlier(next_grace, at);
            }
            if it.liveness() == Liveness::Up
                && !it.link.is_up()
                && let Some(at) = it.belief.and_then(|it| it.up_since).map(|at| at + RELAYED)
                && at > self.now
            {
                next_word = earlier(next_word, at);
            }
        }
        if !words.iter().eq(&self.words) {
            self.words = words.into_iter().collect();
            self.dirty = true;
        }
        let mut disputed = BTreeSet::new();
        if !alive.iter().all(|alive| *alive) {
            // Some are down: those that others say they are linked to count all the same.
            self.said.follow(self.links.keys());
            let linked = self.said.linked(self.words.iter().chain(&vouch), &self.records);
            for ((place, alive), (node, link)) in alive.iter_mut().enumerate().zip(&self.links) {
                let is_linked = linked[place / 64] >> (place % 64) & 1 == 1;
                if is_linked && !*alive && !link.is_up() {
                    disputed.insert(*node);
                }
                *alive |= is_linked;
            }
        }
        let alive = || self.links.keys().zip(&alive).filter(|(_, alive)| **alive).map(|(node, _)| node);
        if !alive().eq(&self.alive) {
            self.alive = alive().copied().collect();
            self.dirty = true;
        }
        self.membership.answer_for(self.answered_for(unlinked));
        self.membership.dispute(self.now, disputed);
        let word = next_word.map(|at| (at, "the word of a node that is not linked counts"));
        let grace = next_grace.map(|at| (at, "a node's grace ends"));
        self.stirs_at = word.into_iter().chain(grace).min();
    }

    /// The same, worked out from nothing.
    pub(crate) fn who_counts(&self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let words: BTreeSet<NodeId> =
            self.links.keys().filter(|node| self.has_word_of(node)).copied().collect();
        let by_itself = |node: &NodeId| {
            self.has(Sabotage::NoTakeOver)
                || self.membership.liveness(node) != Liveness::Down
                || self
                    .membership
                    .changed_at(node)
                    .is_some_and(|at| self.now.since(at) < self.config.timings.grace)
        };
        // Most of those that are down are said by nobody to be linked: each word is read once for all.
        let (mut alive, mut down): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            self.links.keys().copied().partition(by_itself);
        let vouch = |(node, link): &(&NodeId, &Link)| {
            words.contains(node) || vouches(link, self.membership.belief(node))
        };
        let vouchers = self.links.iter().filter(vouch);
        for word in vouchers.filter_map(|(node, _)| self.records.get(node)) {
            if down.is_empty() {
                break;
            }
            for node in word.links.iter().filter(|node| down.remove(node)) {
                alive.insert(*node);
            }
        }
        (words, alive)
    }

    /// Members that are not linked, and whom others answer for: from link to link, each told of by one whose
    /// word counts and who is reached in the same way, there is a path to them. So no two that are cut off
    /// together answer for each other. `left`: those that are not linked and not down.
    fn answered_for(&self, mut left: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let (mut answered, words) = (BTreeSet::new(), &self.words);
        if left.is_empty() {
            return answered;
        }
        let mut reached: VecDeque<NodeId> = self.linked().filter(|node| words.contains(node)).collect();
        // Mostly there is nobody left, or the first word tells of all that are.
        while let Some(by) = reached.pop_front()
            && !left.is_empty()
        {
            let Some(record) = self.records.get(&by) else { continue };
            for of in record.links.iter().filter(|of| left.remove(of)) {
                answered.insert(*of);
                if words.contains(of) {
                    reached.push_back(*of);
                }
            }
        }
        answered
    }

    /// Whether the record that is held of another node is what it says now, and not what it said before
    /// it lost power or was cut off: it is up, and on the present link it has named no later one. Of a
    /// node that is reached through others alone, news that it lives outrun its record for a moment. That it
    /// was suspected and answered is no such news: the far end of a line is suspected all the time.
    pub(crate) fn has_word_of(&self, node: &NodeId) -> bool {
        let Some((link, record)) = self.links.get(node).zip(self.records.get(node)) else { return false };
        self.is_word(link, record.version, self.membership.belief(node))
    }

    fn is_word(&self, link: &Link, version: RecordVersion, belief: Option<Belief>) -> bool {
        if self.has(Sabotage::OldWordCounts) {
            return true;
        }
        let Some(belief) = belief.filter(|it| it.liveness == Liveness::Up) else { return false };
        if link.is_up() {
            return link.named.is_some_and(|named| version >= named);
        }
        belief.up_since.is_some_and(|at| self.now.since(at) >= RELAYED)
    }

    /// Whether what a node runs counts as running: it is up, or was declared down only just now, or one
    /// that is up says that it is linked to it (or [`vouches`] for it). So a heal is believed as a whole: the links to the other
    /// side come one after the other, and what the last of them run is not started again meanwhile.
    ///
    /// This is the part that follows from the belief in the node alone; `who_counts` adds what others say.
    fn is_alive_by_belief(&self, belief: Option<Belief>) -> bool {
        if self.has(Sabotage::NoTakeOver) {
            return true;
        }
        belief.is_some_and(|it| match it.liveness {
            Liveness::Up | Liveness::Suspect => true,
            Liveness::Down => self.now.since(it.changed_at) < self.config.timings.grace,
        })
    }
}

/// Whether a node's record counts for those that it says it is linked to, before it counts as its word: one that is
/// up and reached through others alone. Should the record be an old one, work that is lost is started again a
/// little later; without it, the far end of a line would start what still runs whenever a node between was
/// started again.
fn vouches(link: &Link, belief: Option<Belief>) -> bool {
    !link.is_up() && belief.is_some_and(|it| it.liveness == Liveness::Up)
}
