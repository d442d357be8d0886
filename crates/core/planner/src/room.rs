//! Finding room: nodes are ranked by the share that stays free, ties by a hash of (replica, node).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::limits::CONTAINERS_PER_NODE_MAX;
use model::{Capacity, LabelKey, NodeId, Port, Protocol};

use crate::cache::{Key, Node, Slot, Slots, Spec};
use crate::{RULES, Reasons, Refusal, holds_capacity};

/// The whole, in the parts that shares are counted in.
const WHOLE_PPM: u64 = 1_000_000;

/// `part` of `whole` in millionths, rounded down; 0 where there is no whole.
fn ppm(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let part = part.min(whole);
    // A division of 128 bits costs several times as much, and 16 TiB of memory still pass here.
    part.checked_mul(WHOLE_PPM).map_or_else(
        || {
            let wide = u128::from(part) * u128::from(WHOLE_PPM) / u128::from(whole);
            u64::try_from(wide).expect("a part is at most the whole")
        },
        |scaled| scaled / whole,
    )
}

/// The scarcest of what is free, in millionths of `capacity`: what nodes are ranked by.
pub fn share_ppm(free: &Capacity, capacity: &Capacity) -> u64 {
    ppm(free.cpu_m, capacity.cpu_m)
        .min(ppm(free.memory_b, capacity.memory_b))
        .min(ppm(free.pids, capacity.pids))
}

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

/// Why not, without a copy of anything: the hot loop asks often and reports seldom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why<'a> {
    Rules(u16),
    Down,
    Cordoned,
    Label(&'a LabelKey, &'a String, Option<&'a String>),
    Declined(&'a str),
    ContainersMax(usize),
    Port(u16, &'a Key),
    Cpu(u64, u64),
    Memory(u64, u64),
    Pids(u64, u64),
}

impl From<Why<'_>> for Refusal {
    fn from(why: Why<'_>) -> Self {
        match why {
            Why::Rules(asked) => Self::Rules { asked, known: RULES },
            Why::Down => Self::Down,
            Why::Cordoned => Self::Cordoned,
            Why::Label(key, want, has) => {
                Self::Label { key: key.clone(), want: want.clone(), has: has.cloned() }
            }
            Why::Declined(reason) => Self::Declined { reason: reason.to_owned() },
            Why::ContainersMax(running) => Self::ContainersMax { running },
            Why::Port(port, key) => Self::Port { port, held_by: (key.namespace.clone(), key.name.clone()) },
            Why::Cpu(free_m, asked_m) => Self::Cpu { free_m, asked_m },
            Why::Memory(free_b, asked_b) => Self::Memory { free_b, asked_b },
            Why::Pids(free, asked) => Self::Pids { free, asked },
        }
    }
}

/// One node while places are given out.
#[derive(Debug)]
struct Place<'a> {
    id: NodeId,
    node: &'a Node,
    free: Capacity,
    holding: usize,
    hash: u64,
    /// Who has which host port: the deployments, since replicas of one may share it.
    ports: BTreeMap<(Protocol, u16), BTreeSet<Slot>>,
}

/// All nodes while places are given out.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    places: Vec<Place<'a>>,
    slots: &'a Slots,
    rules: u16,
    /// Declines that still stand, sorted: (deployment, ordinal, index of the node, reason).
    declines: Vec<(Slot, u32, usize, &'a str)>,
    /// With [`model::Sabotage::TiesByArrival`].
    pub(crate) ties_by_arrival: bool,
}

impl<'a> Room<'a> {
    /// What is free beside every claim. `with_ports`: whether anything asks for a host port; if not,
    /// the walk over all claims is spared.
    pub(crate) fn new(
        nodes: &'a BTreeMap<NodeId, Node>,
        slots: &'a Slots,
        rules: u16,
        with_ports: bool,
    ) -> Self {
        let places = nodes.iter().map(|(id, node)| Place {
            id: *id,
            node,
            free: node.capacity.less(&node.held),
            holding: node.holding,
            hash: mix(fnv(FNV_START, id.as_bytes())),
            ports: BTreeMap::new(),
        });
        let mut room =
            Self { places: places.collect(), slots, rules, declines: Vec::new(), ties_by_arrival: false };
        for (index, (_, node)) in nodes.iter().enumerate() {
            for decline in &node.declines {
                let wanted = slots.get(decline.slot).spec.as_ref();
                if decline.capacity_version == node.capacity_version
                    && wanted.is_some_and(|spec| spec.revision == decline.revision)
                {
                    room.declines.push((decline.slot, decline.ordinal, index, &decline.reason));
                }
            }
        }
        room.declines.sort_unstable();
        if with_ports {
            for place in &mut room.places {
                for claim in place.node.claims.iter().filter(|claim| holds_capacity(claim.state)) {
                    if let Some(spec) = &slots.get(claim.slot).spec {
                        place.take_ports(claim.slot, &spec.ports);
                    }
                }
            }
        }
        room
    }

    /// The reason why `index` declined this replica, if that still stands.
    fn declined(&self, slot: Slot, ordinal: u32, index: usize) -> Option<&'a str> {
        let at = self.declines.partition_point(|it| (it.0, it.1, it.2) < (slot, ordinal, index));
        let found = self.declines.get(at)?;
        ((found.0, found.1, found.2) == (slot, ordinal, index)).then_some(found.3)
    }

    /// The share that stays free on a node after placing, or why it cannot be placed there. Declines
    /// are left out: they are said of one replica, the rest is the same for all of a deployment.
    fn judge<'s>(&'s self, index: usize, slot: Slot, spec: &'s Spec) -> Result<u64, Why<'s>> {
        let Place { node, free, holding, .. } = &self.places[index];
        if self.rules != RULES {
            return Err(Why::Rules(self.rules));
        }
        if !node.alive {
            return Err(Why::Down);
        }
        if !node.accepts_new {
            return Err(Why::Cordoned);
        }
        if let Some((key, want)) = spec.label_missing(&node.labels) {
            return Err(Why::Label(key, want, node.labels.get(key)));
        }
        if *holding >= CONTAINERS_PER_NODE_MAX {
            return Err(Why::ContainersMax(*holding));
        }
        if let Some((port, holder)) = self.port_taken(index, slot, &spec.ports) {
            return Err(Why::Port(port, holder));
        }
        let asked = &spec.asked;
        if free.cpu_m < asked.cpu_m {
            return Err(Why::Cpu(free.cpu_m, asked.cpu_m));
        }
        if free.memory_b < asked.memory_b {
            return Err(Why::Memory(free.memory_b, asked.memory_b));
        }
        if free.pids < asked.pids {
            return Err(Why::Pids(free.pids, asked.pids));
        }
        Ok(share_ppm(&free.less(asked), &node.capacity))
    }

    /// The first port that another deployment has there, and the first such deployment by name.
    fn port_taken(&self, index: usize, slot: Slot, ports: &[Port]) -> Option<(u16, &Key)> {
        ports.iter().find_map(|port| {
            let holders = self.places[index].ports.get(&(port.protocol, port.host))?;
            let others = holders.iter().filter(|holder| **holder != slot);
            others.map(|holder| &**self.slots.key(*holder)).min().map(|key| (port.host, key))
        })
    }

    fn take(&mut self, index: usize, slot: Slot, spec: &Spec) {
        let place = &mut self.places[index];
        assert!(place.free.holds(&spec.asked), "only a node that was judged to have room is taken");
        place.free = place.free.less(&spec.asked);
        place.holding += 1;
        place.take_ports(slot, &spec.ports);
    }

    /// What `node` would say to one more replica, with what is free there now. For explanations.
    pub(crate) fn verdict(&self, slot: Slot, spec: &Spec) -> impl Iterator<Item = (NodeId, Verdict)> {
        self.places.iter().enumerate().map(move |(index, place)| {
            let verdict = self.judge(index, slot, spec).map_err(Refusal::from);
            (place.id, verdict.map(|share_ppm| (place.free, share_ppm)))
        })
    }

    /// Takes back what a placement elsewhere in the plan will hold; for explanations.
    pub(crate) fn assume(&mut self, node: NodeId, slot: Slot, spec: &Spec) {
        if let Ok(index) = self.places.binary_search_by_key(&node, |place| place.id) {
            self.take(index, slot, spec);
        }
    }
}

/// What is free and the share that would stay free, or why not.
pub(crate) type Verdict = Result<(Capacity, u64), Refusal>;

impl Place<'_> {
    fn take_ports(&mut self, slot: Slot, ports: &[Port]) {
        for port in ports {
            self.ports.entry((port.protocol, port.host)).or_default().insert(slot);
        }
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
    /// Whether any node declined any replica of it.
    has_declines: bool,
    /// By node: the share that would stay free, plus one; 0 where it cannot go.
    shares: Vec<u64>,
    /// Why no node takes a replica that none declined; found once.
    reasons: Option<Reasons>,
}

impl<'r, 'a> Placing<'r, 'a> {
    pub(crate) fn new(room: &'r mut Room<'a>, slot: Slot, spec: &'a Spec) -> Self {
        let shares = (0..room.places.len()).map(|it| Self::share(room, it, slot, spec)).collect();
        let hash = if room.ties_by_arrival { slot.arrival() } else { deployment_hash(room.slots.key(slot)) };
        let at = room.declines.partition_point(|it| it.0 < slot);
        let has_declines = room.declines.get(at).is_some_and(|it| it.0 == slot);
        Self { room, slot, spec, hash, has_declines, shares, reasons: None }
    }

    fn share(room: &Room<'_>, index: usize, slot: Slot, spec: &Spec) -> u64 {
        room.judge(index, slot, spec).map_or(0, |share| share + 1)
    }

    /// Gives one replica its place, or says for every node why it is none.
    pub(crate) fn place(&mut self, ordinal: u32) -> Result<NodeId, Reasons> {
        let mut best: Option<(u64, u64, usize)> = None;
        let mut best_share = 1;
        for (index, share) in self.shares.iter().enumerate() {
            if *share < best_share
                || self.has_declines && self.room.declined(self.slot, ordinal, index).is_some()
            {
                continue;
            }
            // Places are in the order of node ids, so the later of two that are all equal wins.
            best = best.max(Some((*share, tie(self.hash, self.room.places[index].hash, ordinal), index)));
            best_share = *share;
        }
        let Some((_, _, index)) = best else {
            return Err(self.refuse(ordinal));
        };
        self.room.take(index, self.slot, self.spec);
        self.shares[index] = Self::share(self.room, index, self.slot, self.spec);
        Ok(self.room.places[index].id)
    }

    fn refuse(&mut self, ordinal: u32) -> Reasons {
        if !self.has_declines
            && let Some(reasons) = &self.reasons
        {
            return Arc::clone(reasons);
        }
        let reason = |index: usize| {
            let why = self.room.judge(index, self.slot, self.spec).err();
            let declined = || self.room.declined(self.slot, ordinal, index).map(Why::Declined);
            Refusal::from(why.or_else(declined).expect("a node with room was passed over: it declined"))
        };
        let places = self.room.places.iter().enumerate();
        let reasons = Arc::new(places.map(|(index, place)| (place.id, reason(index))).collect());
        self.reasons = Some(Arc::clone(&reasons));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_where_a_product_would_overflow() {
        assert_eq!(ppm(u64::MAX, u64::MAX), WHOLE_PPM);
        assert_eq!(ppm(u64::MAX / 2, u64::MAX), WHOLE_PPM / 2 - 1);
        assert_eq!(ppm(1, 3), 333_333);
        assert_eq!(ppm(5, 0), 0);
    }

    #[test]
    fn the_tie_hash_of_rules_1_does_not_change() {
        // Golden: another value here is another plan on a cluster of mixed releases: raise RULES.
        let key = Key {
            namespace: "default".parse().unwrap(),
            name: "web".parse().unwrap(),
            incarnation: model::EventId::from_bytes([1; 32]),
        };
        let node = mix(fnv(FNV_START, &[2; 32]));
        assert_eq!(fnv(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(tie(deployment_hash(&key), node, 0), 0x69bc_9db3_fdee_2f2c);
    }
}
