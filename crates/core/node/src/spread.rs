//! How an event gets around in a large cluster: along three trees that every member works out alike.
//!
//! The members stand in a ring, by id. Of each event a place on it is drawn from the event's id; from there on
//! each group of so many that follow one another has a first, its relay. Whoever hands an event in sends it
//! to all relays, each relay to its group: two steps to anybody. The groups of the other trees begin
//! elsewhere, so that a relay of one tree is a plain member in the others: one that is dead, slow or far
//! holds nobody up, and whoever is reached by the shortest of three ways is reached soon.
//!
//! A member whose sender is not linked to a relay sends to that one in its place: between islands that only
//! some bridge, those do. What still fails to come is caught up with when positions are exchanged.
//! Absent on purpose: where members are. Ids are keys, so those that follow one another are anywhere.

use std::collections::{BTreeMap, BTreeSet};

use model::{EventId, NodeId};

use crate::links::{Link, PUSH_ALL_MAX};
use crate::state::Node;

/// Trees for each event, which is as many copies for each member. In a simulation of 200 members in 19 regions
/// of the world half of the events had reached the last member after 218 ms by two trees.
const TREES: usize = 3;

/// The ring as one event sees it in one tree: a place is counted from the one that was drawn.
#[derive(Clone, Copy, Debug)]
struct Ring {
    members: usize,
    /// Members of one group, its relay included; there are about as many groups.
    group: usize,
    first: usize,
}

impl Ring {
    fn of(event: EventId, members: usize, tree: usize) -> Self {
        let group = members.isqrt() + usize::from(members.isqrt().pow(2) < members);
        let (drawn, _) = event.as_bytes().split_first_chunk().expect("an id is longer than eight bytes");
        let drawn = usize::try_from(u64::from_be_bytes(*drawn) % members as u64).expect("less than members");
        // A part of a group further: a relay of one tree is none of the others.
        Self { members, group, first: (drawn + tree * group / TREES) % members }
    }

    /// Where the member of this rank stands.
    fn place(self, rank: usize) -> usize {
        (rank + self.members - self.first) % self.members
    }

    /// The rank of the member that stands there.
    fn rank(self, place: usize) -> usize {
        (place + self.first) % self.members
    }

    fn is_relay(self, rank: usize) -> bool {
        self.place(rank).is_multiple_of(self.group)
    }

    fn relays(self) -> impl Iterator<Item = usize> {
        (0..self.members).step_by(self.group).map(move |place| self.rank(place))
    }

    /// Those that the relay of this rank serves.
    fn served_by(self, relay: usize) -> impl Iterator<Item = usize> {
        let place = self.place(relay);
        (place + 1..self.members.min(place + self.group)).map(move |place| self.rank(place))
    }
}

impl Node {
    /// Whom to send which of these events, as their indices: events of one sender, new here.
    pub(crate) fn spread(&self, events: &[EventId], from: Option<NodeId>) -> BTreeMap<NodeId, Vec<usize>> {
        let mut sends: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        let me = self.config.me;
        let mut ring: Vec<NodeId> = self.links.keys().copied().collect();
        let rank = ring.partition_point(|node| *node < me);
        ring.insert(rank, me);
        let is_up = |rank: usize| self.links.get(&ring[rank]).is_some_and(Link::is_up);
        let reached = self.reached_by(from);
        let is_reached = |rank: usize| reached.as_ref().is_none_or(|links| links.contains(&ring[rank]));
        for (index, event) in events.iter().enumerate() {
            let mut to: BTreeSet<usize> = BTreeSet::new();
            for tree in (0..TREES).map(|tree| Ring::of(*event, ring.len(), tree)) {
                if tree.is_relay(rank) {
                    to.extend(tree.served_by(rank).filter(|it| is_up(*it)));
                }
                for relay in tree.relays().filter(|relay| *relay != rank) {
                    if from.is_some() {
                        to.extend((is_up(relay) && !is_reached(relay)).then_some(relay));
                    } else if is_up(relay) {
                        to.insert(relay);
                    } else {
                        to.extend(tree.served_by(relay).filter(|it| is_up(*it)));
                    }
                }
            }
            for node in to.into_iter().map(|rank| ring[rank]).filter(|node| Some(*node) != from) {
                sends.entry(node).or_default().push(index);
            }
        }
        sends
    }

    /// Whom the sender is linked to, by its own word; `None` where it reaches as many as this node does.
    fn reached_by(&self, from: Option<NodeId>) -> Option<BTreeSet<NodeId>> {
        let links = &self.records.get(&from?)?.links;
        (links.len() < self.linked().count()).then(|| links.iter().copied().chain(from).collect())
    }

    /// Whether the cluster is so large that not everybody tells everybody.
    pub(crate) fn is_large(&self) -> bool {
        self.links.len() > PUSH_ALL_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tree_reaches_every_member_once_and_they_share_no_relay() {
        for members in PUSH_ALL_MAX + 1..300 {
            let mut id = [7; 32];
            id[7] = u8::try_from(members % 251).expect("small");
            let trees: Vec<Ring> =
                (0..TREES).map(|tree| Ring::of(EventId::from_bytes(id), members, tree)).collect();
            for tree in &trees {
                let mut reached: Vec<usize> =
                    tree.relays().chain(tree.relays().flat_map(|relay| tree.served_by(relay))).collect();
                reached.sort_unstable();
                assert_eq!(reached, (0..members).collect::<Vec<_>>(), "{tree:?}");
                assert!(tree.relays().all(|relay| tree.is_relay(relay)));
                assert!(tree.relays().count() <= tree.group, "{tree:?}");
            }
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let shared = trees[one].relays().filter(|relay| trees[other].is_relay(*relay)).count();
                assert!(shared <= 1, "{trees:?} share {shared} relays");
            }
        }
    }
}
