//! Planning, from nothing or from what changed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{NodeId, ReplicaId, Sabotage, Sabotages};

use crate::cache::{Claim, Key, Node, Slot, Slots, Spec};
use crate::room::{Placing, Room};
use crate::stance::{Stance, stances};
use crate::{Placement, Plan, View, Wanted};

/// Deployments that nobody wants or runs, and that are remembered all the same, before the planner
/// starts from nothing: enough that it happens seldom, little enough that it costs no memory.
const UNUSED_SLOTS_MAX: usize = 1_024;

/// Makes a plan from nothing.
pub fn plan(view: &View<'_>) -> Plan {
    let mut planner = Planner::default();
    planner.plan(view);
    planner.plan
}

/// Plans again after a change, at the price of the change; the result equals [`plan`]'s.
///
/// It remembers of every deployment and node what decides a plan and compares each new view with
/// that, value by value. How a deployment's replicas stand depends on its own claims alone, so only
/// those that changed are thought through again; then the replicas that need room, of all
/// deployments, are given places from a fresh count of what is free.
#[derive(Debug, Default)]
pub struct Planner {
    pub(crate) slots: Slots,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Wanted deployments in canonical order.
    pub(crate) wanted: BTreeMap<Arc<Key>, Slot>,
    /// Of them, those with replicas that need room.
    hungry: BTreeMap<Arc<Key>, Slot>,
    pub(crate) rules: u16,
    pub(crate) plan: Plan,
    sabotage: Sabotages,
}

impl Planner {
    /// A planner that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans for `view`.
    pub fn plan(&mut self, view: &View<'_>) -> &Plan {
        if self.slots.len() > UNUSED_SLOTS_MAX + 2 * self.wanted.len()
            && self.slots.unused() > UNUSED_SLOTS_MAX
        {
            *self = Self { sabotage: self.sabotage, ..Self::default() };
        }
        let mut touched = BTreeSet::new();
        self.take_deployments(view, &mut touched);
        self.take_nodes(view, &mut touched);
        for slot in touched {
            self.think_through(slot);
        }
        self.rules = view.rules;
        self.give_places();
        &self.plan
    }

    /// Puts these faults in, before the first plan.
    pub fn sabotage(&mut self, faults: Sabotages) {
        self.sabotage = faults;
    }

    /// The plan of the last view.
    pub fn last(&self) -> &Plan {
        &self.plan
    }

    fn take_deployments<'a>(&mut self, view: &View<'a>, touched: &mut BTreeSet<Slot>) {
        let mut asked: Vec<&Wanted<'a>> = view.deployments.iter().collect();
        let place = |it: &Wanted<'a>| {
            let deployment = it.deployment;
            (&deployment.namespace, &deployment.name, &deployment.incarnation)
        };
        // Of two with one key the greater revision counts: it comes first, `dedup` keeps it.
        asked.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| b.revision.cmp(&a.revision)));
        asked.dedup_by(|a, b| place(a) == place(b));
        let mut before = self.wanted.iter().peekable();
        let mut gone = Vec::new();
        let mut changed = Vec::new();
        let mut added = Vec::new();
        for wanted in asked {
            let known = loop {
                match before.peek().map(|(key, slot)| (key.cmp_wanted(wanted), **slot)) {
                    Some((Ordering::Less, slot)) => {
                        gone.push(slot);
                        before.next();
                    }
                    Some((Ordering::Equal, slot)) => {
                        before.next();
                        break Some(slot);
                    }
                    Some((Ordering::Greater, _)) | None => break None,
                }
            };
            match known {
                Some(slot) if self.slots.get(slot).spec.as_ref().is_some_and(|it| it.is_of(wanted)) => {}
                Some(slot)
                    if self.sabotage.has(Sabotage::PlanIgnoresCounts)
                        && self
                            .slots
                            .get(slot)
                            .spec
                            .as_ref()
                            .is_some_and(|it| it.revision == wanted.revision) => {}
                Some(slot) => changed.push((slot, wanted)),
                None => added.push(wanted),
            }
        }
        gone.extend(before.map(|(_, slot)| *slot));
        for slot in gone {
            let state = self.slots.get_mut(slot);
            state.spec = None;
            self.wanted.remove(&state.key);
            touched.insert(slot);
        }
        for wanted in added {
            let slot = self.slots.of_key(Key::of(wanted));
            self.wanted.insert(Arc::clone(self.slots.key(slot)), slot);
            changed.push((slot, wanted));
        }
        for (slot, wanted) in changed {
            self.slots.get_mut(slot).spec = Some(Spec::of(wanted));
            touched.insert(slot);
        }
    }

    fn take_nodes(&mut self, view: &View<'_>, touched: &mut BTreeSet<Slot>) {
        let gone: Vec<NodeId> =
            self.nodes.keys().filter(|id| !view.nodes.contains_key(id)).copied().collect();
        for id in gone {
            let node = self.nodes.remove(&id).expect("it was found a moment ago");
            self.change_claims(id, &node.claims, &[], touched);
        }
        for (id, seen) in &view.nodes {
            let before = self.nodes.get(id);
            if before.is_some_and(|node| node.is_of(seen, &self.slots)) {
                continue;
            }
            let after = Node::of(seen, before, &mut self.slots);
            let before = self.nodes.insert(*id, after.clone());
            let claims = before.as_ref().map_or(&[][..], |node| &node.claims);
            self.change_claims(*id, claims, &after.claims, touched);
            let ignored = self.sabotage.has(Sabotage::PlanIgnoresDeaths);
            if before.is_some_and(|it| it.alive != after.alive || it.labels != after.labels) && !ignored {
                touched.extend(after.claims.iter().map(|claim| claim.slot));
            }
        }
    }

    /// Brings the deployments' lists of claims up to date and touches those that differ.
    fn change_claims(&mut self, id: NodeId, before: &[Claim], after: &[Claim], touched: &mut BTreeSet<Slot>) {
        let sorted = |claims: &[Claim]| {
            let mut sorted = claims.to_vec();
            sorted.sort_unstable();
            sorted
        };
        let (before, after) = (sorted(before), sorted(after));
        let of = |claims: &[Claim], slot: Slot| {
            let from = claims.partition_point(|claim| claim.slot < slot);
            let length = claims[from..].partition_point(|claim| claim.slot == slot);
            from..from + length
        };
        let slots: BTreeSet<Slot> = before.iter().chain(&after).map(|claim| claim.slot).collect();
        for slot in slots {
            let (was, is) = (&before[of(&before, slot)], &after[of(&after, slot)]);
            if was != is {
                let claims = &mut self.slots.get_mut(slot).claims;
                let from = claims.partition_point(|(node, _)| *node < id);
                let length = claims[from..].partition_point(|(node, _)| *node == id);
                claims.splice(from..from + length, is.iter().map(|claim| (id, *claim)));
                touched.insert(slot);
            }
        }
    }

    /// Works out how the replicas of one deployment stand, and writes down what that settles.
    fn think_through(&mut self, slot: Slot) {
        let state = self.slots.get(slot);
        let key = Arc::clone(&state.key);
        let count = state.spec.as_ref().map_or(0, |spec| spec.count);
        let mut replica = key.replica(0);
        let mut needs = Vec::new();
        let mut added = Vec::new();
        // The replicas of one deployment follow one another in the plan: one walk instead of many searches.
        let last = key.replica(u32::MAX);
        let mut planned = self.plan.placements.range_mut(&replica..=&last).peekable();
        for (ordinal, stance) in
            (0..).zip(state.spec.iter().flat_map(|spec| stances(spec, state, &self.nodes)))
        {
            match stance {
                Stance::Needs(need) => needs.push(need),
                Stance::Settled(placement) => {
                    while planned.next_if(|(known, _)| known.ordinal < ordinal).is_some() {}
                    match planned.next_if(|(known, _)| known.ordinal == ordinal) {
                        Some((_, old)) => *old = placement,
                        None => added.push((ordinal, placement)),
                    }
                }
            }
        }
        for (ordinal, placement) in added {
            replica.ordinal = ordinal;
            self.plan.placements.insert(replica.clone(), placement);
        }
        for ordinal in count..state.planned {
            replica.ordinal = ordinal;
            self.plan.placements.remove(&replica);
        }
        if needs.is_empty() {
            self.hungry.remove(&key);
        } else {
            self.hungry.insert(key, slot);
        }
        let state = self.slots.get_mut(slot);
        state.planned = count;
        state.needs = needs;
    }

    /// Gives the replicas that need room their places, in canonical order.
    fn give_places(&mut self) {
        self.plan.held_back.clear();
        if self.hungry.is_empty() {
            return;
        }
        let with_ports = self
            .hungry
            .values()
            .any(|slot| self.slots.get(*slot).spec.as_ref().is_some_and(|spec| !spec.ports.is_empty()));
        let mut room = Room::new(&self.nodes, &self.slots, self.rules, with_ports);
        room.ties_by_arrival = self.sabotage.has(Sabotage::TiesByArrival);
        for (key, slot) in &self.hungry {
            let state = self.slots.get(*slot);
            let spec = state.spec.as_ref().expect("only what is wanted needs room");
            let mut placing = Placing::new(&mut room, *slot, spec);
            let mut replica = key.replica(0);
            for need in &state.needs {
                replica.ordinal = need.ordinal;
                let placement = match (placing.place(need.ordinal), need.old) {
                    (Ok(node), None) => Placement::Start { node },
                    (Ok(new), Some(old)) => Placement::Replace { old, new },
                    (Err(reasons), None) => Placement::Unplaced { reasons },
                    (Err(reasons), Some((node, container))) => {
                        self.plan.held_back.insert(replica.clone(), reasons);
                        Placement::KeepOld { node, container }
                    }
                };
                set(&mut self.plan.placements, &replica, placement);
            }
        }
    }
}

/// Writes one placement; the replica is copied only when it is new.
fn set(placements: &mut BTreeMap<ReplicaId, Placement>, replica: &ReplicaId, placement: Placement) {
    match placements.get_mut(replica) {
        Some(old) => *old = placement,
        None => {
            placements.insert(replica.clone(), placement);
        }
    }
}
