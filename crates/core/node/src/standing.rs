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

use membership::Liveness;
use model::{NodeId, Sabotage, Time};

use crate::gossip::RELAYED;
use crate::links::PUSH_ALL_MAX;
use crate::state::Node;

/// A peer in a cluster has something to do each second. One that had nothing for so long was stopped, or its
/// machine slept: what it hears next was said before.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// For so long after that no copy makes way for another: whoever died meanwhile is found dead by then.
const HEARS_OLD: Duration = Duration::from_secs(3);

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

    /// How far apart plans are, looks at who counts, and what is said of nodes: in a large cluster news
    /// come in bursts.
    pub(crate) fn apart(&self) -> Duration {
        if self.links.len() <= PUSH_ALL_MAX {
            return Duration::ZERO;
        }
        let members = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        self.config.timings.replan.saturating_mul(members)
    }

    /// When a plan is due, if something has changed that it depends on.
    pub(crate) fn next_plan(&self) -> Option<Time> {
        self.dirty.then(|| self.planned_at.map_or(self.now, |at| at + self.apart()))
    }

    /// When it may be looked again at who counts.
    pub(crate) fn next_look(&self) -> Time {
        self.looked_at.map_or(self.now, |at| at + self.apart())
    }

    /// Whose record counts as their present word, and whose work as running.
    pub(crate) fn who_counts(&self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let words: BTreeSet<NodeId> =
            self.links.keys().filter(|node| self.has_word_of(node)).copied().collect();
        // Most of those that are down are said by nobody to be linked: each word is read once for all.
        let (mut alive, mut down): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            self.links.keys().copied().partition(|node| self.is_alive_by_itself(node));
        for word in words.iter().filter_map(|node| self.records.get(node)) {
            if down.is_empty() {
                break;
            }
            for node in word.links.iter().filter(|node| down.remove(node)) {
                alive.insert(*node);
            }
        }
        (words, alive)
    }

    pub(crate) fn look_who_counts(&mut self) {
        self.stirred = false;
        self.looked_at = Some(self.now);
        let (words, alive) = self.who_counts();
        self.membership.answer_for(self.answered_for(&words));
        if words != self.words {
            self.words = words;
            self.dirty = true;
        }
        if alive != self.alive {
            self.alive = alive;
            self.dirty = true;
        }
        let word = self.next_word().map(|at| (at, "the word of a node that is not linked counts"));
        let grace = self.next_grace_end().map(|at| (at, "a node's grace ends"));
        self.stirs_at = word.into_iter().chain(grace).min();
    }

    /// Members that are not linked, and whom others answer for: from link to link, each told of by one whose
    /// word counts and who is reached in the same way, there is a path to them. So no two that are cut off
    /// together answer for each other.
    fn answered_for(&self, words: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let unlinked = self.links.iter().filter(|(_, link)| !link.is_up()).map(|(node, _)| *node);
        let mut left: BTreeSet<NodeId> =
            unlinked.filter(|node| self.membership.liveness(node) != Liveness::Down).collect();
        let mut answered = BTreeSet::new();
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
        let (Some(link), Some(record)) = (self.links.get(node), self.records.get(node)) else { return false };
        if self.has(Sabotage::OldWordCounts) {
            return true;
        }
        if self.membership.liveness(node) != Liveness::Up {
            return false;
        }
        if link.is_up() {
            let named = link.held.as_ref().and_then(|held| held.get(node));
            return named.is_some_and(|version| record.version >= *version);
        }
        self.membership.up_since(node).is_some_and(|at| self.now.since(at) >= RELAYED)
    }

    /// When the word of the next node that is up and not linked will count.
    pub(crate) fn next_word(&self) -> Option<Time> {
        self.links
            .iter()
            .filter(|(node, link)| !link.is_up() && self.membership.liveness(node) == Liveness::Up)
            .filter_map(|(node, _)| self.membership.up_since(node))
            .map(|at| at + RELAYED)
            .filter(|at| *at > self.now)
            .min()
    }

    /// Whether what a node runs counts as running: it is up, or was declared down only just now, or one
    /// that is up says that it is linked to it. So a heal is believed as a whole: the links to the other
    /// side come one after the other, and what the last of them run is not started again meanwhile.
    ///
    /// This is the part that follows from the belief in the node alone; `who_counts` adds what others say.
    pub(crate) fn is_alive_by_itself(&self, node: &NodeId) -> bool {
        if self.has(Sabotage::NoTakeOver) {
            return true;
        }
        match self.membership.liveness(node) {
            Liveness::Up | Liveness::Suspect => true,
            Liveness::Down => {
                let grace = self.config.timings.grace;
                self.membership.changed_at(node).is_some_and(|at| self.now.since(at) < grace)
            }
        }
    }

    /// When the next node that was declared down stops counting.
    pub(crate) fn next_grace_end(&self) -> Option<Time> {
        self.links
            .keys()
            .filter(|node| self.membership.liveness(node) == Liveness::Down)
            .filter_map(|node| self.membership.changed_at(node))
            .map(|at| at + self.config.timings.grace)
            .filter(|at| *at > self.now)
            .min()
    }
}
