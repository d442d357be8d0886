//! Choosing a node: the replicas of one deployment are placed one after the other.
//!
//! Of the nodes that have room the best is the one with, in this order,
//! 1. the fewest replicas of the deployment among nodes of its value of each label of `spread`;
//! 2. none of the deployment's replicas: a second copy goes to another machine where one has room;
//! 3. the greatest score: the share of the node that stays free, preferences, images held;
//! 4. the greatest hash of (replica, node), so that equal nodes share equally.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::limits::{REPLICAS_MAX, SPREAD_MAX};
use model::{ContainerId, LabelKey, NodeId};

use crate::cache::{Key, Need, Slot, Spec};
use crate::preempt::{Made, make_room, wait_on};
use crate::room::{Room, Why};
use crate::{Reasons, Refusal, holds_capacity};

/// What each point of a preference's weight is worth, in millionths of a node: one percent of it.
const POINT_PPM: i64 = 10_000;

/// What holding the image is worth, in millionths of a node: as much as two percent of it. Between equals
/// nothing need be fetched; the holder of an image is not filled with all of its replicas.
const IMAGE_PPM: i64 = 20_000;

/// FNV-1a, 64 bits, continued from `hash`.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// FNV-1a of no bytes.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The last steps of splitmix64: spreads every bit over all of them.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Part of rules 1: nodes of equal share are ordered by `mix(d ^ n ^ mix(ordinal))`, the greater
/// first, then by node id, the greater first. `d` is FNV-1a of namespace, a zero byte, name, a zero
/// byte, incarnation; `n` is `mix` of FNV-1a of the node id.
fn tie(deployment: u64, node: u64, ordinal: u32) -> u64 {
    mix(deployment ^ node ^ mix(u64::from(ordinal)))
}

fn deployment_hash(key: &Key) -> u64 {
    let hash = fnv(FNV_START, key.namespace.as_str().as_bytes());
    let hash = fnv(fnv(hash, &[0]), key.name.as_str().as_bytes());
    fnv(fnv(hash, &[0]), key.incarnation.as_bytes())
}

pub(crate) fn node_hash(id: NodeId) -> u64 {
    mix(fnv(FNV_START, id.as_bytes()))
}

/// What orders equal nodes for a replica, the greater first.
pub(crate) fn tie_of(room: &Room<'_>, slot: Slot, index: usize, ordinal: u32) -> u64 {
    tie(deployment_hash(room.slots.key(slot)), room.places[index].hash, ordinal)
}

/// Bits of one count in [`Tier`].
const COUNT_BITS: u32 = 14;

const _: () = assert!(REPLICAS_MAX < 1 << COUNT_BITS && SPREAD_MAX * 14 < 64);

/// How crowded a place is with the deployment's own replicas: the lesser the better. The counts of `spread`
/// from the most important on, then whether the node has one.
type Tier = u64;

/// What a node is worth to one more replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    /// The scarcest resource's share that would stay free, in millionths.
    pub(crate) share_ppm: u64,
    /// What preferences and the image add, or take.
    pub(crate) bonus_ppm: i64,
}

impl Score {
    fn share(self) -> i64 {
        i64::try_from(self.share_ppm).expect("a share is at most a million")
    }

    fn total(self) -> i64 {
        self.share().saturating_add(self.bonus_ppm)
    }
}

/// Places the replicas of one deployment, one after the other.
///
/// All replicas of a deployment ask for the same, so each node is judged once and again only when it
/// was given one.
#[derive(Debug)]
pub(crate) struct Placing<'r, 'a> {
    room: &'r mut Room<'a>,
    slot: Slot,
    spec: &'a Spec,
    hash: u64,
    has_declines: bool,
    /// By node: what it is worth; `None` where it cannot go.
    scores: Vec<Option<i64>>,
    crowd: Crowd,
    /// Why no node takes a replica that none declined; found once.
    reasons: Option<Reasons>,
}

/// Where the deployment's own replicas are.
#[derive(Debug)]
struct Crowd {
    /// By node: how many.
    own: Vec<u32>,
    /// For each label of `spread`, by node: which value it has, and how many are on nodes of each value.
    spread: Vec<(Vec<usize>, Vec<u32>)>,
}

impl Crowd {
    fn new(room: &Room<'_>, slot: Slot, spec: &Spec) -> Self {
        let spread = |label: &LabelKey| {
            let mut values: BTreeMap<Option<&str>, usize> = BTreeMap::new();
            let of_place = |place| {
                let next = values.len();
                *values.entry(crate::room::Place::label(place, label)).or_insert(next)
            };
            let of_places: Vec<usize> = room.places.iter().map(of_place).collect();
            let counts = vec![0; values.len()];
            (of_places, counts)
        };
        let mut crowd = Self {
            own: vec![0; room.places.len()],
            spread: spec.placement.spread.iter().map(spread).collect(),
        };
        for (node, claim) in &room.slots.get(slot).claims {
            if holds_capacity(claim.state)
                && let Some(index) = room.index_of(*node)
            {
                crowd.add(index);
            }
        }
        crowd
    }

    fn add(&mut self, index: usize) {
        self.own[index] = self.own[index].saturating_add(1);
        for (of_places, counts) in &mut self.spread {
            let count = &mut counts[of_places[index]];
            *count = count.saturating_add(1);
        }
    }

    fn remove(&mut self, index: usize) {
        self.own[index] = self.own[index].saturating_sub(1);
        for (of_places, counts) in &mut self.spread {
            let count = &mut counts[of_places[index]];
            *count = count.saturating_sub(1);
        }
    }

    fn tier(&self, index: usize) -> Tier {
        let most = (1 << COUNT_BITS) - 1;
        let counts = self.spread.iter().map(|(of_places, counts)| counts[of_places[index]].min(most));
        counts.fold(0, |tier, count| tier << COUNT_BITS | u64::from(count)) << 1
            | u64::from(self.own[index] > 0)
    }
}

impl<'r, 'a> Placing<'r, 'a> {
    pub(crate) fn new(room: &'r mut Room<'a>, slot: Slot, spec: &'a Spec) -> Self {
        let scores = (0..room.places.len()).map(|it| worth(room, it, slot, spec)).collect();
        let hash = if room.ties_by_arrival { slot.arrival() } else { deployment_hash(room.slots.key(slot)) };
        let has_declines = room.has_declines(slot);
        let crowd = Crowd::new(room, slot, spec);
        Self { room, slot, spec, hash, has_declines, scores, crowd, reasons: None }
    }

    /// Gives one replica its place, or says for every node why it is none.
    pub(crate) fn place(&mut self, need: &Need) -> Result<NodeId, Reasons> {
        // What is to be replaced does not keep the new one away from its node.
        let old = need.old.and_then(|(node, _)| self.room.index_of(node));
        if let Some(old) = old {
            self.crowd.remove(old);
        }
        let best = self.best(need);
        if let Some(old) = old {
            self.crowd.add(old);
        }
        let Some(index) = best else { return Err(self.refuse(need)) };
        self.room.take(index, self.slot, self.spec);
        self.crowd.add(index);
        self.scores[index] = worth(self.room, index, self.slot, self.spec);
        if !self.spec.placement.near.is_empty() || !self.spec.placement.apart.is_empty() {
            self.scores =
                (0..self.scores.len()).map(|it| worth(self.room, it, self.slot, self.spec)).collect();
        }
        Ok(self.room.places[index].id)
    }

    /// Makes room for one replica that has found none: see [`make_room`].
    pub(crate) fn make_room(&mut self, need: &Need) -> Option<(NodeId, Vec<ContainerId>)> {
        let made = make_room(self.room, self.slot, self.spec, need)?;
        Some(self.made(made))
    }

    /// Where room is being made for it already: see [`wait_on`].
    pub(crate) fn wait_on(&mut self, need: &Need) -> Option<(NodeId, Vec<ContainerId>)> {
        let made = wait_on(self.room, self.slot, self.spec, need)?;
        Some(self.made(made))
    }

    fn made(&mut self, made: Made) -> (NodeId, Vec<ContainerId>) {
        self.crowd.add(made.index);
        self.scores[made.index] = worth(self.room, made.index, self.slot, self.spec);
        (self.room.places[made.index].id, made.victims)
    }

    fn best(&self, need: &Need) -> Option<usize> {
        // Room was made for it there.
        if let Some(index) = self.room.awaited(self.slot, need.ordinal).filter(|_| need.old.is_none())
            && self.scores[index].is_some()
            && self.room.declined(self.slot, need.ordinal, index).is_none()
        {
            return Some(index);
        }
        if let Some(only) = need.only {
            let index = self.room.index_of(only)?;
            let declined = self.room.declined(self.slot, need.ordinal, index).is_some();
            return (self.scores[index].is_some() && !declined).then_some(index);
        }
        let mut best: Option<(Tier, i64, u64, usize)> = None;
        for (index, score) in self.scores.iter().enumerate() {
            let Some(score) = *score else { continue };
            let tier = self.crowd.tier(index);
            if best.is_some_and(|best| (tier, std::cmp::Reverse(score)) > (best.0, std::cmp::Reverse(best.1)))
                || self.has_declines && self.room.declined(self.slot, need.ordinal, index).is_some()
            {
                continue;
            }
            let tie = tie(self.hash, self.room.places[index].hash, need.ordinal);
            // Places are in the order of node ids, so the later of two that are all equal wins.
            if best.is_none_or(|best| (best.0, best.1) != (tier, score) || tie >= best.2) {
                best = Some((tier, score, tie, index));
            }
        }
        best.map(|(.., index)| index)
    }

    fn refuse(&mut self, need: &Need) -> Reasons {
        if !self.has_declines
            && need.only.is_none()
            && let Some(reasons) = &self.reasons
        {
            return Arc::clone(reasons);
        }
        let reason = |index: usize| {
            let why = self.room.judge(index, self.slot, self.spec).err();
            let declined = || self.room.declined(self.slot, need.ordinal, index).map(Why::Declined);
            Refusal::from(why.or_else(declined).expect("a node with room was passed over: it declined"))
        };
        let places = self.room.places.iter().enumerate();
        let asked = places.filter(|(_, place)| need.only.is_none_or(|only| only == place.id));
        let reasons = Arc::new(asked.map(|(index, place)| (place.id, reason(index))).collect());
        if need.only.is_none() {
            self.reasons = Some(Arc::clone(&reasons));
        }
        reasons
    }
}

fn worth(room: &Room<'_>, index: usize, slot: Slot, spec: &Spec) -> Option<i64> {
    let score = score(room, index, slot, spec).ok()?;
    // Packed tightly, the less stays free the better.
    Some(if room.tight { score.total() - 2 * score.share() } else { score.total() })
}

/// What a node is worth to one more replica, or why it cannot take it.
pub(crate) fn score<'s>(
    room: &'s Room<'_>,
    index: usize,
    slot: Slot,
    spec: &'s Spec,
) -> Result<Score, Why<'s>> {
    let share_ppm = room.judge(index, slot, spec)?;
    let place = &room.places[index];
    let holds_image = place.node.images.binary_search(&spec.image).is_ok();
    let image = if holds_image { IMAGE_PPM } else { 0 };
    let liked = spec.placement.prefer.iter().filter(|it| it.when.is_met_by(place.label(&it.when.key)));
    let bonus_ppm = liked.fold(image, |sum, it| sum.saturating_add(i64::from(it.weight) * POINT_PPM));
    Ok(Score { share_ppm, bonus_ppm })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tie_hash_of_rules_1_does_not_change() {
        // Golden: another value here is another plan on a cluster of mixed releases: raise RULES.
        let key = Key {
            namespace: "default".parse().unwrap(),
            name: "web".parse().unwrap(),
            incarnation: model::EventId::from_bytes([1; 32]),
        };
        let node = node_hash(NodeId::from_bytes([2; 32]));
        assert_eq!(fnv(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(tie(deployment_hash(&key), node, 0), 0x69bc_9db3_fdee_2f2c);
    }
}
