//! What a deployment waits for before it is started, and how far that is.
//!
//! A replica that runs nowhere is not started while something that its deployment depends on is not as far as it
//! asks, by the claims on the nodes that are alive in this view; so each island of a split decides by what it
//! sees. What runs is never stopped for it, and runs again where it is after it ended. An update changes no
//! replica while something is not `completed` (what it asks to be `started` or `healthy` does not hold it up: it
//! may be the repair).
//!
//! Deployments that wait for one another in a cycle, which a merge of two islands can make, do not wait for one
//! another; all else that they wait for counts. The cycle is in the plan, to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use model::depends::{Dependencies, cycles};
use model::{Condition, ContainerState, EventId, Mode, Name, NodeId, Sabotage};

use crate::cache::{Key, Node, Slot, SlotState, Spec};
use crate::planner::Planner;
use crate::stance::{is_done as ends_for_good, of_each_node};

/// What a deployment waits for, and the cycles that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// What is not as far as is asked, by name.
    pub unmet: Vec<Dependency>,
    /// Cycles of deployments that wait for one another, and so do not: each begins and ends with this one.
    pub cycles: Vec<Vec<Name>>,
}

impl Waits {
    /// Whether nothing of it may be started.
    pub fn holds_starts(&self) -> bool {
        !self.unmet.is_empty()
    }

    /// Whether an update changes nothing.
    pub fn holds_updates(&self) -> bool {
        self.unmet.iter().any(|it| it.condition == Condition::Completed)
    }
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Its name.
    pub name: Name,
    /// How far it must be.
    pub condition: Condition,
    /// How far it is.
    pub progress: Progress,
}

/// How far a deployment is that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is none of that name, or what was merged is not valid.
    Absent,
    /// It is scaled to 0.
    Empty,
    /// So many of its replicas are as far as is asked.
    Replicas {
        /// As far.
        met: usize,
        /// Ended for good, and not well.
        failed: usize,
        /// All.
        of: usize,
    },
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, condition) = (&self.name, self.condition.as_str());
        write!(f, "waits for {name} to be {condition}: ")?;
        match self.progress {
            Progress::Absent => write!(f, "there is no valid deployment {name}"),
            Progress::Empty => write!(f, "{name} is scaled to 0"),
            Progress::Replicas { met, failed: 0, of } => write!(f, "{met} of {of} is"),
            Progress::Replicas { met, failed, of } => {
                write!(f, "{met} of {of} is, {failed} ended badly for good")
            }
        }
    }
}

/// One deployment that another waits for.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    name: Name,
    condition: Condition,
    /// The cycle that both are in, if they are.
    cycle: Option<Vec<Name>>,
}

fn progress(
    condition: Condition,
    spec: &Spec,
    slot: &SlotState,
    nodes: &BTreeMap<NodeId, Node>,
    dead_count: bool,
) -> Progress {
    let ordinals: BTreeSet<u32> = match spec.mode {
        Mode::Replicated => (0..spec.count).collect(),
        Mode::Global => of_each_node(spec, nodes).into_keys().collect(),
    };
    if ordinals.is_empty() {
        return Progress::Empty;
    }
    let ends = spec.ends.as_ref();
    let is_done = |ordinal: &&u32| ends.is_some_and(|it| it.is_done(**ordinal));
    let mut met: BTreeSet<u32> = ordinals.iter().filter(is_done).copied().collect();
    let failed = ends.iter().flat_map(|it| it.failed.keys()).filter(|it| ordinals.contains(it));
    let mut failed: BTreeSet<u32> = failed.copied().collect();
    for (id, claim) in &slot.claims {
        if !nodes.get(id).is_some_and(|node| node.alive || dead_count) || !ordinals.contains(&claim.ordinal) {
            continue;
        }
        let done = claim.revision == spec.revision && ends_for_good(claim.state, spec.restart);
        let ended_well = done && claim.state == ContainerState::Exited;
        let is_met = match condition {
            Condition::Started => ended_well || claim.state == ContainerState::Running,
            Condition::Healthy => ended_well || claim.is_healthy(),
            Condition::Completed => ended_well,
        };
        if is_met {
            met.insert(claim.ordinal);
        } else if done && !ended_well {
            failed.insert(claim.ordinal);
        }
    }
    let failed = failed.difference(&met).count();
    Progress::Replicas { met: met.len(), failed, of: ordinals.len() }
}

fn is_enough(condition: Condition, progress: Progress) -> bool {
    match (condition, progress) {
        (_, Progress::Absent | Progress::Empty) => false,
        (Condition::Started | Condition::Healthy, Progress::Replicas { met, .. }) => met > 0,
        (Condition::Completed, Progress::Replicas { met, of, .. }) => met == of,
    }
}

impl Planner {
    /// Who waits for whom, anew: some deployment has come, gone or changed.
    pub(crate) fn relate(&mut self) {
        let mut by_namespace: BTreeMap<&Name, Dependencies<'_>> = BTreeMap::new();
        for (key, slot) in &self.wanted {
            let Some(spec) = &self.slots.get(*slot).spec else { continue };
            if !spec.depends.on.is_empty() {
                let of = by_namespace.entry(&key.namespace).or_default();
                of.entry(&key.name).or_default().extend(spec.depends.on.keys());
            }
        }
        let by_namespace: BTreeMap<_, _> =
            by_namespace.into_iter().map(|(namespace, all)| (namespace, cycles(&all))).collect();
        let mut relations = BTreeMap::new();
        for (key, slot) in &self.wanted {
            let Some(spec) = &self.slots.get(*slot).spec else { continue };
            let cycles = by_namespace.get(&key.namespace);
            let edges: Vec<Edge> = spec
                .depends
                .on
                .iter()
                .map(|(name, condition)| {
                    let cycle = cycles.and_then(|cycles| cycles.get(&(&key.name, name)));
                    let cycle = cycle.map(|cycle| cycle.iter().map(|it| (*it).clone()).collect());
                    Edge { name: name.clone(), condition: *condition, cycle }
                })
                .collect();
            if !edges.is_empty() {
                relations.insert(*slot, edges);
            }
        }
        self.relations = relations;
    }

    /// Looks how far everything is that is waited for, and touches the deployments for which that has changed.
    pub(crate) fn look_at_dependencies(&mut self, touched: &mut BTreeSet<Slot>) {
        if self.relations.is_empty() && self.waiting.is_empty() {
            return;
        }
        let free: Vec<Slot> =
            self.waiting.difference(&self.relations.keys().copied().collect()).copied().collect();
        let looked = self.relations.iter().map(|(slot, edges)| (*slot, self.waits_of(*slot, edges)));
        // Of a name that was made again the earlier creation goes first: both have one place in the plan.
        let looked: Vec<_> = free.into_iter().map(|slot| (slot, None)).chain(looked).collect();
        for (slot, waits) in looked {
            let state = self.slots.get_mut(slot);
            if state.waits.as_deref() == waits.as_ref() {
                continue;
            }
            let key = (state.key.namespace.clone(), state.key.name.clone());
            state.waits = waits.map(Arc::new);
            if let Some(waits) = &state.waits {
                self.plan.waits.insert(key, Arc::clone(waits));
                self.waiting.insert(slot);
            } else {
                self.plan.waits.remove(&key);
                self.waiting.remove(&slot);
            }
            touched.insert(slot);
        }
    }

    fn waits_of(&self, slot: Slot, edges: &[Edge]) -> Option<Waits> {
        let namespace = &self.slots.key(slot).namespace;
        let dead_count = self.sabotage.has(Sabotage::DeadCountForOrder);
        let mut waits = Waits::default();
        for Edge { name, condition, cycle } in edges {
            if let Some(cycle) = cycle {
                waits.cycles.push(cycle.clone());
                continue;
            }
            let progress = match self.wanted_of(namespace, name) {
                Some(other) => {
                    let state = self.slots.get(other);
                    let spec = state.spec.as_ref().expect("what is wanted has a spec");
                    progress(*condition, spec, state, &self.nodes, dead_count)
                }
                None => Progress::Absent,
            };
            if !is_enough(*condition, progress) {
                waits.unmet.push(Dependency { name: name.clone(), condition: *condition, progress });
            }
        }
        (waits != Waits::default()).then_some(waits)
    }

    /// The deployment of that name; of two incarnations the greater.
    fn wanted_of(&self, namespace: &Name, name: &Name) -> Option<Slot> {
        let first = EventId::from_bytes([0; 32]);
        let first = Key { namespace: namespace.clone(), name: name.clone(), incarnation: first };
        let from = self.wanted.range::<Key, _>((Bound::Included(&first), Bound::Unbounded));
        let of_it = from.take_while(|(key, _)| key.namespace == *namespace && key.name == *name);
        of_it.last().map(|(_, slot)| *slot)
    }
}
