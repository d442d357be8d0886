//! What is free where, and whether a node could take one more.

use std::collections::{BTreeMap, BTreeSet};

use model::limits::CONTAINERS_PER_NODE_MAX;
use model::{
    Affinity, Capacity, ContainerId, LabelKey, Name, NodeId, Port, Protocol, Requirement, Unmet, label_of,
};

use crate::cache::{Awaited, ByVoters, Key, Node, Slot, Slots, Spec};
use crate::place::node_hash;
use crate::{RULES, Refusal, holds_capacity, is_claim};

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

/// Why not, without a copy of anything: the hot loop asks often and reports seldom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why<'a> {
    Rules(u16),
    Down,
    Drains,
    Cordoned,
    Pressure(&'a str),
    Home(Option<&'a Name>, NodeId),
    Voters(usize, usize),
    Label(&'a LabelKey, &'a String, Option<&'a str>),
    Requirement(&'a Requirement, Option<&'a str>),
    Declined(&'a str),
    ContainersMax(usize),
    Near(&'a Affinity),
    Apart(&'a Key, &'a LabelKey),
    Port(u16, &'a Key),
    Cpu(u64, u64),
    Memory(u64, u64),
    Pids(u64, u64),
    Extra(&'a LabelKey, u64, u64),
}

impl From<Why<'_>> for Refusal {
    fn from(why: Why<'_>) -> Self {
        let named = |key: &Key| (key.namespace.clone(), key.name.clone());
        match why {
            Why::Rules(asked) => Self::Rules { asked, known: RULES },
            Why::Down => Self::Down,
            Why::Drains => Self::Drains,
            Why::Cordoned => Self::Cordoned,
            Why::Pressure(reason) => Self::Pressure { reason: reason.to_owned() },
            Why::Home(name, id) => Self::Home { node: name.map_or_else(|| id.short(), Name::to_string) },
            Why::Voters(reached, of) => Self::Voters { reached, of },
            Why::Label(key, want, has) => {
                Self::Label { key: key.clone(), want: want.clone(), has: has.map(str::to_owned) }
            }
            Why::Requirement(requirement, has) => {
                Self::Requirement { requirement: requirement.clone(), has: has.map(str::to_owned) }
            }
            Why::Declined(reason) => Self::Declined { reason: reason.to_owned() },
            Why::ContainersMax(running) => Self::ContainersMax { running },
            Why::Near(affinity) => Self::Near { affinity: affinity.clone() },
            Why::Apart(key, within) => Self::Apart { from: named(key), within: within.clone() },
            Why::Port(port, key) => Self::Port { port, held_by: named(key) },
            Why::Cpu(free_m, asked_m) => Self::Cpu { free_m, asked_m },
            Why::Memory(free_b, asked_b) => Self::Memory { free_b, asked_b },
            Why::Pids(free, asked) => Self::Pids { free, asked },
            Why::Extra(name, free, asked) => Self::Extra { name: name.clone(), free, asked },
        }
    }
}

/// What must be counted beside amounts; each costs a walk over all claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Minds {
    /// Something that needs room asks for a host port.
    pub(crate) ports: bool,
    /// Some deployment minds which others run beside it.
    pub(crate) company: bool,
}

/// One node while places are given out.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) id: NodeId,
    pub(crate) node: &'a Node,
    pub(crate) free: Capacity,
    holding: usize,
    /// The hash of its id, for ties.
    pub(crate) hash: u64,
    /// Who has which host port: the deployments, since replicas of one may share it.
    ports: BTreeMap<(Protocol, u16), BTreeSet<Slot>>,
    /// The deployments that run there, where any is minded.
    company: BTreeSet<Slot>,
    /// Of them, those of which nothing but what stops is there.
    leaving: BTreeSet<Slot>,
    /// What its claims take up beyond what it has, where it offers less than it did.
    pub(crate) deficit: Capacity,
    /// What will be free once what yields there has ended, beside what was promised of it.
    pub(crate) coming: Capacity,
    /// What yields there.
    pub(crate) spent: BTreeSet<ContainerId>,
}

/// All nodes while places are given out.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    pub(crate) places: Vec<Place<'a>>,
    pub(crate) slots: &'a Slots,
    rules: u16,
    minds: Minds,
    /// Deployments that mind others beside them.
    shy: Vec<(Slot, &'a Spec)>,
    /// Declines that still stand, sorted: (deployment, ordinal, index of the node, reason).
    declines: Vec<(Slot, u32, usize, &'a str)>,
    /// Replicas that something is being stopped for, and on which node, by its index.
    awaited: BTreeMap<Awaited, usize>,
    /// Whether nodes with little left come first.
    pub(crate) tight: bool,
    /// With [`model::Sabotage::TiesByArrival`].
    pub(crate) ties_by_arrival: bool,
}

impl<'a> Room<'a> {
    /// What is free beside every claim.
    pub(crate) fn new(nodes: &'a BTreeMap<NodeId, Node>, slots: &'a Slots, rules: u16, minds: Minds) -> Self {
        let places = nodes.iter().map(|(id, node)| Place {
            id: *id,
            node,
            free: node.capacity.less(&node.held),
            holding: node.holding,
            hash: node_hash(*id),
            ports: BTreeMap::new(),
            company: BTreeSet::new(),
            leaving: BTreeSet::new(),
            deficit: node.held.less(&node.capacity),
            coming: Capacity::default(),
            spent: BTreeSet::new(),
        });
        let mut room = Self {
            places: places.collect(),
            slots,
            rules,
            minds,
            shy: Vec::new(),
            declines: Vec::new(),
            awaited: BTreeMap::new(),
            tight: false,
            ties_by_arrival: false,
        };
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
        for (index, place) in room.places.iter().enumerate() {
            for awaited in &place.node.awaited {
                room.awaited.entry(*awaited).or_insert(index);
            }
        }
        if minds.ports || minds.company {
            for place in &mut room.places {
                let node = place.node;
                for claim in node.claims.iter().filter(|claim| holds_capacity(claim.state)) {
                    if let Some(spec) = &slots.get(claim.slot).spec {
                        place.settle(claim.slot, spec, minds);
                    }
                }
                if minds.company {
                    let stays = node.claims.iter().filter(|claim| is_claim(claim.state));
                    let stays: BTreeSet<Slot> = stays.map(|claim| claim.slot).collect();
                    place.leaving = place.company.difference(&stays).copied().collect();
                }
            }
        }
        if minds.company {
            room.shy = slots.wanted().filter(|(_, spec)| !spec.placement.apart.is_empty()).collect();
        }
        room
    }

    /// The reason why `index` declined this replica, if that still stands.
    pub(crate) fn declined(&self, slot: Slot, ordinal: u32, index: usize) -> Option<&'a str> {
        let at = self.declines.partition_point(|it| (it.0, it.1, it.2) < (slot, ordinal, index));
        let found = self.declines.get(at)?;
        ((found.0, found.1, found.2) == (slot, ordinal, index)).then_some(found.3)
    }

    /// Where something is being stopped for that replica; the first such node by its id.
    pub(crate) fn awaited(&self, slot: Slot, ordinal: u32) -> Option<usize> {
        self.awaited.get(&Awaited { slot, ordinal }).copied()
    }

    /// The share of the largest node that something takes, of what is scarcest for it, in millionths.
    pub(crate) fn size_ppm(&self, asked: &Capacity) -> u64 {
        let most = |of: fn(&Capacity) -> u64| {
            let largest = self.places.iter().map(|place| of(&place.node.capacity)).max().unwrap_or(0);
            ppm(of(asked), largest)
        };
        most(|it| it.cpu_m).max(most(|it| it.memory_b)).max(most(|it| it.pids))
    }

    /// Whether any node declined any replica of it.
    pub(crate) fn has_declines(&self, slot: Slot) -> bool {
        let at = self.declines.partition_point(|it| it.0 < slot);
        self.declines.get(at).is_some_and(|it| it.0 == slot)
    }

    /// The share that stays free on a node after placing, or why it cannot be placed there. Declines
    /// are left out: they are said of one replica, the rest is the same for all of a deployment.
    pub(crate) fn judge<'s>(&'s self, index: usize, slot: Slot, spec: &'s Spec) -> Result<u64, Why<'s>> {
        self.admits(index, slot, spec)?;
        if let Some((port, holder)) = self.port_taken(index, slot, &spec.ports) {
            return Err(Why::Port(port, holder));
        }
        let Place { node, free, .. } = &self.places[index];
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
        if let Some((name, free, asked)) = free.extras.lacking(&asked.extras) {
            return Err(Why::Extra(name, free, asked));
        }
        Ok(share_ppm(&free.less(asked), &node.capacity))
    }

    /// Whether a node could take it if there were enough of everything, ports included, or why not.
    pub(crate) fn admits<'s>(&'s self, index: usize, slot: Slot, spec: &'s Spec) -> Result<(), Why<'s>> {
        let Place { node, holding, .. } = &self.places[index];
        if self.rules != RULES {
            return Err(Why::Rules(self.rules));
        }
        if !node.alive {
            return Err(Why::Down);
        }
        if node.drains {
            return Err(Why::Drains);
        }
        if !node.accepts_new {
            return Err(Why::Cordoned);
        }
        if let Some(reason) = &node.pressure {
            return Err(Why::Pressure(reason));
        }
        if let Some(why) = self.unmet_by_voters(index, spec) {
            return Err(why);
        }
        let value = |key: &LabelKey| label_of(&node.labels, &node.name, key);
        match spec.unmet(node) {
            Some(Unmet::Label(key, want)) => return Err(Why::Label(key, want, value(key))),
            Some(Unmet::Requirement(it)) => return Err(Why::Requirement(it, value(&it.key))),
            None => {}
        }
        if *holding >= CONTAINERS_PER_NODE_MAX {
            return Err(Why::ContainersMax(*holding));
        }
        if self.minds.company
            && let Some(why) = self.ill_company(index, slot, spec)
        {
            return Err(why);
        }
        Ok(())
    }

    fn unmet_by_voters(&self, index: usize, spec: &Spec) -> Option<Why<'_>> {
        let node_of = |id: NodeId| self.index_of(id).map(|at| self.places[at].node);
        let linked = &self.places[index].node.linked_voters;
        let reaches = |id| linked.binary_search(&id).is_ok() && node_of(id).is_some_and(|it| it.alive);
        let why = spec.unmet_by_voters(self.places[index].id, reaches)?;
        Some(match why {
            ByVoters::Home(home) => Why::Home(node_of(home).map(|it| &it.name), home),
            ByVoters::Reach(reached, of) => Why::Voters(reached, of),
        })
    }

    /// Whether it misses company there, or minds what there is, or is minded by it.
    fn ill_company<'s>(&'s self, index: usize, slot: Slot, spec: &'s Spec) -> Option<Why<'s>> {
        let own = self.slots.key(slot);
        let is_named = |other: Slot, namespace: &Key, it: &Affinity| {
            let key = self.slots.key(other);
            key.name == it.deployment && key.namespace == namespace.namespace
        };
        let missed = |it: &&Affinity| {
            !self
                .within(index, &it.within)
                .any(|place| place.company.difference(&place.leaving).any(|other| is_named(*other, own, it)))
        };
        if let Some(it) = spec.placement.near.iter().find(missed) {
            return Some(Why::Near(it));
        }
        // The first of all by name is told: the order of slots is another on each peer.
        let minded = spec.placement.apart.iter().flat_map(|it| {
            let others = self.within(index, &it.within).flat_map(|place| &place.company);
            let named = others.filter(move |other| is_named(**other, own, it));
            named.map(move |other| (&**self.slots.key(*other), &it.within))
        });
        // They mind it as much as it would mind them.
        let minding = self.shy.iter().flat_map(|(other, their)| {
            let key = self.slots.key(*other);
            let named = their.placement.apart.iter().filter(move |it| is_named(slot, key, it));
            let here = named
                .filter(move |it| self.within(index, &it.within).any(|place| place.company.contains(other)));
            here.map(move |it| (&**key, &it.within))
        });
        minded.chain(minding).min().map(|(key, within)| Why::Apart(key, within))
    }

    /// The places that have the same value of a label as that one; where it has none, it alone.
    fn within<'s>(&'s self, index: usize, label: &'s LabelKey) -> impl Iterator<Item = &'s Place<'a>> {
        let wanted = self.places[index].label(label);
        let same = move |(at, place): &(usize, &'s Place<'a>)| {
            *at == index || wanted.is_some() && place.label(label) == wanted
        };
        self.places.iter().enumerate().filter(same).map(|(_, place)| place)
    }

    /// The deployments beside that one which have a host port there that it asks for.
    pub(crate) fn port_holders(&self, index: usize, slot: Slot, ports: &[Port]) -> BTreeSet<Slot> {
        let taken = &self.places[index].ports;
        let holders = ports.iter().filter_map(|port| taken.get(&(port.protocol, port.host))).flatten();
        holders.copied().filter(|holder| *holder != slot).collect()
    }

    /// The first port that another deployment has there, and the first such deployment by name.
    fn port_taken(&self, index: usize, slot: Slot, ports: &[Port]) -> Option<(u16, &Key)> {
        ports.iter().find_map(|port| {
            let holders = self.places[index].ports.get(&(port.protocol, port.host))?;
            let others = holders.iter().filter(|holder| **holder != slot);
            others.map(|holder| &**self.slots.key(*holder)).min().map(|key| (port.host, key))
        })
    }

    pub(crate) fn take(&mut self, index: usize, slot: Slot, spec: &Spec) {
        let minds = self.minds;
        let place = &mut self.places[index];
        assert!(place.free.holds(&spec.asked), "only a node that was judged to have room is taken");
        place.free = place.free.less(&spec.asked);
        place.holding += 1;
        place.settle(slot, spec, minds);
    }

    /// Keeps room for a replica that waits until what yields there has ended.
    pub(crate) fn promise(
        &mut self,
        index: usize,
        slot: Slot,
        spec: &Spec,
        coming: &Capacity,
        yields: BTreeSet<ContainerId>,
    ) {
        let minds = self.minds;
        let place = &mut self.places[index];
        let lacking = spec.asked.less(&place.free);
        place.free = place.free.less(&spec.asked);
        place.coming = coming.less(&place.deficit).less(&lacking);
        place.deficit = Capacity::default();
        place.spent.extend(yields);
        place.holding += 1;
        place.settle(slot, spec, minds);
    }

    pub(crate) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.places.binary_search_by_key(&node, |place| place.id).ok()
    }

    /// Takes what a placement elsewhere in the plan will hold; for explanations.
    pub(crate) fn assume(&mut self, node: NodeId, slot: Slot, spec: &Spec) {
        if let Some(index) = self.index_of(node) {
            self.promise(index, slot, spec, &Capacity::default(), BTreeSet::new());
        }
    }
}

impl Place<'_> {
    /// One more of it runs there, or will.
    fn settle(&mut self, slot: Slot, spec: &Spec, minds: Minds) {
        if minds.company {
            self.company.insert(slot);
            self.leaving.remove(&slot);
        }
        for port in &spec.ports {
            self.ports.entry((port.protocol, port.host)).or_default().insert(slot);
        }
    }

    /// The node's value of a label.
    pub(crate) fn label(&self, key: &LabelKey) -> Option<&str> {
        label_of(&self.node.labels, &self.node.name, key)
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
}
