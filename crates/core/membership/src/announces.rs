//! The announcements that are to be made, by member and by time: the next one is asked for at every input.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{NodeId, Time};

/// An announcement that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announce {
    pub(crate) at: Time,
    pub(crate) wait: Duration,
}

/// At most one for each member.
#[derive(Debug, Default)]
pub(crate) struct Announces {
    by_member: BTreeMap<NodeId, Announce>,
    by_time: BTreeSet<(Time, NodeId)>,
}

impl Announces {
    /// Puts one in the place of the one before.
    pub(crate) fn set(&mut self, member: NodeId, announce: Announce) {
        self.remove(&member);
        self.by_time.insert((announce.at, member));
        self.by_member.insert(member, announce);
    }

    pub(crate) fn remove(&mut self, member: &NodeId) {
        if let Some(gone) = self.by_member.remove(member) {
            self.by_time.remove(&(gone.at, *member));
        }
    }

    pub(crate) fn get(&self, member: &NodeId) -> Option<Announce> {
        self.by_member.get(member).copied()
    }

    /// When the first is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Members whose announcement is due, by id.
    pub(crate) fn due(&self, now: Time) -> Vec<NodeId> {
        let mut due: Vec<NodeId> =
            self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, member)| *member).collect();
        due.sort_unstable();
        due
    }

    /// Makes all that are to be made anew.
    pub(crate) fn set_all(&mut self, announce: Announce) {
        for known in self.by_member.values_mut() {
            *known = announce;
        }
        self.by_time = self.by_member.keys().map(|member| (announce.at, *member)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn at(millis: u64) -> Announce {
        Announce { at: Time::ZERO + Duration::from_millis(millis), wait: Duration::ZERO }
    }

    #[test]
    fn the_next_is_the_earliest_however_it_was_set() {
        let mut announces = Announces::default();
        announces.set(member(1), at(50));
        announces.set(member(2), at(20));
        announces.set(member(2), at(80));
        announces.set(member(3), at(50));
        assert_eq!(announces.next(), Some(at(50).at));
        assert_eq!(announces.due(at(60).at), [member(1), member(3)]);
        announces.remove(&member(1));
        announces.remove(&member(3));
        assert_eq!(announces.next(), Some(at(80).at));
        announces.set_all(at(10));
        assert_eq!(announces.due(at(10).at), [member(2)]);
        assert_eq!(announces.get(&member(2)), Some(at(10)));
    }
}
