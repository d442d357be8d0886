//! Planning, from nothing or from what changed.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    Condition, ContainerId, DependsGroup, Extras, Mode, NodeId, Priority, ReplicaId, Revision, Sabotage,
    Sabotages,
};

use crate::cache::{Claim, Key, Node, Slot, Slots, Spec};
use crate::depends::Edge;
use crate::place::Placing;
use crate::room::{Minds, Room};
use crate::stance::{Stance, Stands, stances};
use crate::{Placement, Plan, Reasons, View, Wanted};

/// Deployments that nobody wants or runs, and that are remembered all the same, before the planner
/// starts from nothing: enough that it happens seldom, little enough that it costs no memory.
const UNUSED_SLOTS_MAX: usize = 1_024;

/// Whose turn it is to be given room: the greatest priority first, then by name.
type Turn = (Reverse<Priority>, Arc<Key>);

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
    /// Of them, those of mode `global`: each node that comes or goes matters to them.
    globals: BTreeSet<Slot>,
    /// Of them, those that wait for others, and for which.
    pub(crate) relations: BTreeMap<Slot, Vec<Edge>>,
    /// Of all, those of which the plan says that they wait or are in a cycle.
    pub(crate) waiting: BTreeSet<Slot>,
    /// Of them, those with replicas that need room, in the order in which they are given some.
    hungry: BTreeMap<Turn, Slot>,
    pub(crate) rules: u16,
    pub(crate) plan: Plan,
    pub(crate) sabotage: Sabotages,
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
        self.look_at_dependencies(&mut touched);
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
        let any_change = !(gone.is_empty() && changed.is_empty() && added.is_empty());
        for slot in gone {
            let state = self.slots.get_mut(slot);
            let priority = state.spec.take().map(|spec| spec.placement.priority);
            self.wanted.remove(&state.key);
            self.hungry.remove(&(Reverse(priority.unwrap_or_default()), Arc::clone(&state.key)));
            self.globals.remove(&slot);
            touched.insert(slot);
        }
        for wanted in added {
            let slot = self.slots.of_key(Key::of(wanted));
            self.wanted.insert(Arc::clone(self.slots.key(slot)), slot);
            changed.push((slot, wanted));
        }
        for (slot, wanted) in changed {
            let state = self.slots.get_mut(slot);
            if let Some(before) = &state.spec {
                self.hungry.remove(&(Reverse(before.placement.priority), Arc::clone(&state.key)));
            }
            let spec = state.spec.insert(misread(self.sabotage, Spec::of(wanted), wanted));
            match spec.mode {
                Mode::Global => self.globals.insert(slot),
                Mode::Replicated => self.globals.remove(&slot),
            };
            touched.insert(slot);
        }
        if any_change {
            self.relate();
        }
    }

    fn take_nodes(&mut self, view: &View<'_>, touched: &mut BTreeSet<Slot>) {
        // Both are by id: one walk along them tells who is gone and of whom something changed, mostly few.
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        let mut before = self.nodes.iter().peekable();
        for (id, seen) in &view.nodes {
            while let Some((it, _)) = before.next_if(|(it, _)| *it < id) {
                gone.push(*it);
            }
            let known = before.next_if(|(it, _)| *it == id);
            if !known.is_some_and(|(_, node)| node.is_of(seen, &self.slots)) {
                changed.push((*id, seen));
            }
        }
        gone.extend(before.map(|(id, _)| *id));
        for id in gone {
            let node = self.nodes.remove(&id).expect("it was found a moment ago");
            change_claims(&mut self.slots, id, &node.claims, &[], touched);
            touched.extend(&self.globals);
        }
        for (id, seen) in changed {
            let after = Node::of(seen, self.nodes.get(&id), &mut self.slots);
            let before = self.nodes.remove(&id);
            let claims = before.as_ref().map_or(&[][..], |node| &node.claims);
            change_claims(&mut self.slots, id, claims, &after.claims, touched);
            let ignored = self.sabotage.has(Sabotage::PlanIgnoresDeaths);
            let stands = |it: &Node| (it.alive, it.drains, it.ordinal);
            let changed = before.as_ref().is_some_and(|it| {
                stands(it) != stands(&after) || it.labels != after.labels || it.name != after.name
            });
            if changed && !ignored {
                touched.extend(after.claims.iter().map(|claim| claim.slot));
            }
            if changed || before.is_none() {
                touched.extend(&self.globals);
            }
            self.nodes.insert(id, after);
        }
    }

    /// Works out how the replicas of one deployment stand, and writes down what that settles.
    fn think_through(&mut self, slot: Slot) {
        let state = self.slots.get(slot);
        let key = Arc::clone(&state.key);
        let Some(spec) = &state.spec else {
            self.plan.placements.forget(&key);
            self.slots.get_mut(slot).needs = Vec::new();
            return;
        };
        let Stands { stances, complete } = stances(spec, state, &self.nodes);
        let turn = (Reverse(spec.placement.priority), Arc::clone(&key));
        let complete = complete.then_some(spec.revision);
        let mut needs = Vec::new();
        let planned = self.plan.placements.of_key_mut(&key);
        planned.clear();
        planned.extend(stances.into_iter().map(|(ordinal, stance)| match stance {
            Stance::Settled(placement) => (ordinal, placement),
            Stance::Needs(need) => {
                needs.push(need);
                // Until it is given its place, in this same plan.
                (ordinal, Placement::Queued)
            }
        }));
        if planned.is_empty() {
            self.plan.placements.forget(&key);
        }
        if needs.is_empty() {
            self.hungry.remove(&turn);
        } else {
            self.hungry.insert(turn, slot);
        }
        let state = self.slots.get_mut(slot);
        state.needs = needs;
        state.complete = complete.or(state.complete);
    }

    /// Whether all replicas of a deployment ran this template and were ready, in any view since this planner
    /// began. No plan depends on it.
    pub fn was_complete(&self, replica: &ReplicaId, revision: Revision) -> bool {
        self.slots.find(replica).is_some_and(|slot| self.slots.get(slot).complete == Some(revision))
    }

    /// Gives the replicas that need room their places.
    ///
    /// First in canonical order, each where most stays free: what comes later finds room everywhere. Where
    /// something finds none that way, packed tightly as well, the largest first; the way that leaves less of
    /// higher priority without a place counts.
    fn give_places(&mut self) {
        let mut given = Given::default();
        if !self.hungry.is_empty() {
            given = self.give(false);
            if given.without.iter().any(|count| *count > 0) {
                let tight = self.give(true);
                if tight.without < given.without {
                    given = tight;
                }
            }
        }
        for (slot, places) in given.placements {
            let planned = self.plan.placements.of_key_mut(self.slots.key(slot));
            for (ordinal, placement) in places {
                let at = planned.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal);
                planned[at.expect("whatever needs room is wanted")].1 = placement;
            }
        }
        self.plan.held_back = given.held_back;
        self.plan.yields = given.yields;
    }

    fn give(&self, tight: bool) -> Given {
        let mut given = Given::default();
        let mut room = Room::new(&self.nodes, &self.slots, self.rules, self.minds());
        room.ties_by_arrival = self.sabotage.has(Sabotage::TiesByArrival);
        room.tight = tight;
        let mut turns: Vec<(&Turn, Slot)> = self.hungry.iter().map(|(turn, slot)| (turn, *slot)).collect();
        if tight {
            let size =
                |slot: Slot| self.slots.get(slot).spec.as_ref().map_or(0, |spec| room.size_ppm(&spec.asked));
            turns.sort_by_cached_key(|((priority, _), slot)| (*priority, Reverse(size(*slot))));
        }
        // What runs nowhere comes before what is only to be replaced.
        let passes =
            [false, true].into_iter().flat_map(|replaces| turns.iter().map(move |it| (replaces, it)));
        for (replaces, ((priority, key), slot)) in passes {
            let state = self.slots.get(*slot);
            let mut needs = state.needs.iter().filter(|need| need.old.is_some() == replaces).peekable();
            if needs.peek().is_none() {
                continue;
            }
            let spec = state.spec.as_ref().expect("only what is wanted needs room");
            let mut placing = Placing::new(&mut room, *slot, spec);
            let mut places = Vec::new();
            for need in needs {
                let replica = || key.replica(need.ordinal);
                let placement = match (placing.wait_on(need), need.old) {
                    (Some(made), _) => given.awaits(&replica(), made),
                    (None, None) => match placing.place(need) {
                        Ok(node) => Placement::Start { node },
                        Err(reasons) => match placing.make_room(need) {
                            Some(made) => given.awaits(&replica(), made),
                            None => Placement::Unplaced { reasons },
                        },
                    },
                    (None, Some(old)) => match placing.place(need) {
                        Ok(new) => Placement::Replace { old, new },
                        Err(_) if need.may_stop_first => {
                            Placement::StopFirst { node: old.0, container: old.1 }
                        }
                        Err(reasons) => {
                            given.held_back.insert(replica(), reasons);
                            Placement::KeepOld { node: old.0, container: old.1 }
                        }
                    },
                };
                if let Placement::Awaits { .. } | Placement::Unplaced { .. } = placement {
                    given.without[Priority::ALL.len() - 1 - priority.0 as usize] += 1;
                }
                places.push((need.ordinal, placement));
            }
            given.placements.push((*slot, places));
        }
        given
    }

    /// What must be known of what runs where, for those that need room.
    fn minds(&self) -> Minds {
        let specs = || self.hungry.values().filter_map(|slot| self.slots.get(*slot).spec.as_ref());
        Minds { ports: specs().any(|spec| !spec.ports.is_empty()), company: self.minds_company() }
    }

    /// Whether any deployment minds which others run beside it.
    fn minds_company(&self) -> bool {
        let minds = |slot: &Slot| {
            let spec = self.slots.get(*slot).spec.as_ref();
            spec.is_some_and(|it| !it.placement.near.is_empty() || !it.placement.apart.is_empty())
        };
        self.wanted.values().any(minds)
    }
}

/// A deployment as it is with the faults that were put in.
fn misread(faults: Sabotages, mut spec: Spec, wanted: &Wanted<'_>) -> Spec {
    if faults.has(Sabotage::LimitsAsRequests) {
        spec.asked = wanted.deployment.resources.limits.over(&spec.asked);
    }
    if faults.has(Sabotage::ExtrasUncounted) {
        spec.asked.extras = Extras::NONE;
    }
    if let Some(job) = spec.job.as_mut().filter(|_| faults.has(Sabotage::ParallelismIgnored)) {
        job.parallelism = u32::MAX;
    }
    if faults.has(Sabotage::OrderIgnored) {
        spec.depends = DependsGroup::default();
    }
    if faults.has(Sabotage::CompletedAsStarted) {
        spec.depends.on.values_mut().for_each(|it| *it = Condition::Started);
    }
    spec
}

/// Brings the deployments' lists of claims up to date and touches those that differ.
fn change_claims(
    all: &mut Slots,
    id: NodeId,
    before: &[Claim],
    after: &[Claim],
    touched: &mut BTreeSet<Slot>,
) {
    if before == after {
        return;
    }
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
            let claims = &mut all.get_mut(slot).claims;
            let from = claims.partition_point(|(node, _)| *node < id);
            let length = claims[from..].partition_point(|(node, _)| *node == id);
            claims.splice(from..from + length, is.iter().map(|claim| (id, claim.clone())));
            touched.insert(slot);
        }
    }
}

/// Places as they would be given in one order.
#[derive(Debug, Default)]
struct Given {
    placements: Vec<(Slot, Vec<(u32, Placement)>)>,
    held_back: BTreeMap<ReplicaId, Reasons>,
    yields: BTreeMap<ContainerId, ReplicaId>,
    /// How many that run nowhere have no place, or wait for one: of the highest priority first.
    without: [usize; Priority::ALL.len()],
}

impl Given {
    fn awaits(&mut self, replica: &ReplicaId, (node, victims): (NodeId, Vec<ContainerId>)) -> Placement {
        self.yields.extend(victims.into_iter().map(|victim| (victim, replica.clone())));
        Placement::Awaits { node }
    }
}
