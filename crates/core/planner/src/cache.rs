//! What a planner remembers of a view: enough to see what changed, exactly, without a hash.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Capacity, Class, ContainerId, ContainerRecord, ContainerState, Declined, DependsGroup, Deployment,
    Digest, EventId, JobEnds, JobGroup, LabelKey, Mode, Name, NodeId, PlacementGroup, Port, RecordVersion,
    ReplicaId, RestartPolicy, Revision, Unmet, UpdateGroup, label_of, majority,
};

use crate::{NodeView, Waits, Wanted, holds_capacity};

/// Names one deployment, and orders them: the canonical order of planning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: Name,
    pub(crate) name: Name,
    pub(crate) incarnation: EventId,
}

impl Key {
    pub(crate) fn of(wanted: &Wanted<'_>) -> Self {
        let it = wanted.deployment;
        Self { namespace: it.namespace.clone(), name: it.name.clone(), incarnation: it.incarnation }
    }

    pub(crate) fn cmp_wanted(&self, wanted: &Wanted<'_>) -> Ordering {
        let it = wanted.deployment;
        (&self.namespace, &self.name, &self.incarnation).cmp(&(&it.namespace, &it.name, &it.incarnation))
    }

    pub(crate) fn of_replica(it: &ReplicaId) -> Self {
        Self { namespace: it.namespace.clone(), name: it.deployment.clone(), incarnation: it.incarnation }
    }

    fn is_of(&self, replica: &ReplicaId) -> bool {
        self.incarnation == replica.incarnation
            && self.name == replica.deployment
            && self.namespace == replica.namespace
    }

    pub(crate) fn replica(&self, ordinal: u32) -> ReplicaId {
        ReplicaId {
            namespace: self.namespace.clone(),
            deployment: self.name.clone(),
            incarnation: self.incarnation,
            ordinal,
        }
    }
}

/// A deployment's place in the planner's tables. Given out in order of arrival, so no decision may
/// depend on which of two is the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

impl Slot {
    /// For a fault that is put in on purpose: see [`model::Sabotage::TiesByArrival`].
    pub(crate) fn arrival(self) -> u64 {
        u64::from(self.0)
    }
}

/// What of a wanted deployment decides where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) revision: Revision,
    pub(crate) image: Digest,
    pub(crate) mode: Mode,
    pub(crate) count: u32,
    pub(crate) asked: Capacity,
    pub(crate) ports: Vec<Port>,
    pub(crate) placement: PlacementGroup,
    pub(crate) restart: RestartPolicy,
    pub(crate) update: UpdateGroup,
    pub(crate) depends: DependsGroup,
    pub(crate) job: Option<JobGroup>,
    /// What has ended for good, where it is a job.
    pub(crate) ends: Option<JobEnds>,
    /// Who decides which node runs a replica, where at most one may; else none.
    pub(crate) voters: Vec<NodeId>,
}

/// How an update goes. Where at most one copy may run, the old one is stopped first.
fn update_of(it: &Deployment) -> UpdateGroup {
    match it.replicas.class {
        Class::Available => it.update,
        Class::Exclusive => UpdateGroup { surge: 0, unavailable: it.update.unavailable.max(1), ..it.update },
    }
}

impl Spec {
    pub(crate) fn of(wanted: &Wanted<'_>) -> Self {
        let it = wanted.deployment;
        Self {
            revision: wanted.revision,
            image: it.image.digest,
            mode: it.replicas.mode,
            count: it.replicas.count,
            asked: it.resources.as_capacity(),
            ports: it.ports.ports.clone(),
            placement: it.placement.clone(),
            restart: it.restart.policy,
            update: update_of(it),
            depends: it.depends.clone(),
            job: it.job,
            ends: wanted.ends.cloned(),
            voters: it.replicas.voters.clone(),
        }
    }

    pub(crate) fn is_of(&self, wanted: &Wanted<'_>) -> bool {
        let it = wanted.deployment;
        self.revision == wanted.revision
            && self.mode == it.replicas.mode
            && self.count == it.replicas.count
            && self.asked == it.resources.as_capacity()
            && self.ports == it.ports.ports
            && self.placement == it.placement
            && self.restart == it.restart.policy
            && self.update == update_of(it)
            && self.depends == it.depends
            && self.job == it.job
            && self.ends.as_ref() == wanted.ends
            && self.voters == it.replicas.voters
    }

    /// Why not everybody may run it, by its voters: one that is alone runs it itself, and of several a majority
    /// must be in reach. `reaches`: whether that node does.
    pub(crate) fn unmet_by_voters(&self, on: NodeId, reaches: impl Fn(NodeId) -> bool) -> Option<ByVoters> {
        match self.voters.as_slice() {
            [] => None,
            [home] => (*home != on).then_some(ByVoters::Home(*home)),
            voters => {
                let reached = voters.iter().filter(|voter| reaches(**voter)).count();
                (reached < majority(voters.len())).then_some(ByVoters::Reach(reached, voters.len()))
            }
        }
    }

    /// The first condition that the node does not meet.
    pub(crate) fn unmet<'s>(&'s self, node: &Node) -> Option<Unmet<'s>> {
        self.placement.unmet(|key| label_of(&node.labels, &node.name, key))
    }

    /// Whether a container of it may stay on the node.
    pub(crate) fn may_stay(&self, node: &Node) -> bool {
        !node.drains && self.placement.is_met_by(&node.labels, &node.name)
    }
}

/// Why a node may not run a replica by its voters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ByVoters {
    /// This one alone runs it.
    Home(NodeId),
    /// So many are in reach, of so many.
    Reach(usize, usize),
}

/// What of a container decides a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) slot: Slot,
    pub(crate) ordinal: u32,
    pub(crate) container: ContainerId,
    pub(crate) revision: Revision,
    pub(crate) number: u64,
    pub(crate) resources: Capacity,
    pub(crate) state: ContainerState,
    pub(crate) healthy: Option<bool>,
    pub(crate) ready: bool,
    pub(crate) proven: bool,
}

/// A replica that something on a node is being stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Awaited {
    pub(crate) slot: Slot,
    pub(crate) ordinal: u32,
}

impl Claim {
    fn of(slot: Slot, it: &ContainerRecord) -> Self {
        Self {
            slot,
            ordinal: it.replica.ordinal,
            container: it.id,
            revision: it.revision,
            number: it.claim,
            resources: it.resources.clone(),
            state: it.state,
            healthy: it.healthy,
            ready: it.ready,
            proven: it.proven,
        }
    }

    /// It runs and its checks pass.
    pub(crate) fn is_healthy(&self) -> bool {
        self.state == ContainerState::Running && self.healthy == Some(true)
    }
}

/// What of a decline decides a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decline {
    pub(crate) slot: Slot,
    pub(crate) ordinal: u32,
    pub(crate) revision: Revision,
    pub(crate) capacity_version: u64,
    pub(crate) reason: String,
}

/// Containers that stop for another, and for which.
fn yields<'a>(view: &NodeView<'a>) -> impl Iterator<Item = (ContainerId, &'a ReplicaId)> {
    let stopping = view.containers.iter().filter(|it| it.state == ContainerState::Stopping);
    stopping.filter_map(|it| Some((it.id, it.yields_to.as_ref()?)))
}

fn digests(view: &NodeView<'_>) -> Vec<Digest> {
    let mut digests: Vec<Digest> = view.images.iter().map(|image| image.digest).collect();
    digests.sort_unstable();
    digests
}

/// What a planner remembers of one node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) said: Option<RecordVersion>,
    pub(crate) ordinal: u32,
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<LabelKey, String>,
    pub(crate) capacity: Capacity,
    pub(crate) capacity_version: u64,
    pub(crate) alive: bool,
    pub(crate) accepts_new: bool,
    pub(crate) pressure: Option<String>,
    pub(crate) drains: bool,
    pub(crate) linked_voters: Vec<NodeId>,
    /// Sorted.
    pub(crate) images: Vec<Digest>,
    /// In the order of its record, to be compared with the next one.
    pub(crate) claims: Vec<Claim>,
    pub(crate) declines: Vec<Decline>,
    /// What its containers are being stopped for, container by container.
    pub(crate) awaited: Vec<Awaited>,
    /// What its containers take up.
    pub(crate) held: Capacity,
    /// How many containers take something up.
    pub(crate) holding: usize,
}

impl Node {
    /// `before`: what was remembered of it until now, which mostly has the same containers.
    pub(crate) fn of(view: &NodeView<'_>, before: Option<&Self>, slots: &mut Slots) -> Self {
        let mut known = before.map_or(&[][..], |node| &node.claims).iter().peekable();
        let mut slot_of = |it: &ContainerRecord| {
            // Both are in the order of their ids, or nothing is found and nothing lost.
            while known.next_if(|claim| claim.container < it.id).is_some() {}
            match known.next_if(|claim| claim.container == it.id) {
                Some(claim) if slots.key(claim.slot).is_of(&it.replica) => claim.slot,
                _ => slots.of_replica(&it.replica),
            }
        };
        let claims: Vec<Claim> = view.containers.iter().map(|it| Claim::of(slot_of(it), it)).collect();
        let decline = |it: &Declined, slots: &mut Slots| Decline {
            slot: slots.of_replica(&it.replica),
            ordinal: it.replica.ordinal,
            revision: it.revision,
            capacity_version: it.capacity_version,
            reason: it.reason.clone(),
        };
        let holds = claims.iter().filter(|claim| holds_capacity(claim.state));
        Self {
            said: view.said,
            ordinal: view.ordinal,
            name: view.name.clone(),
            labels: view.labels.clone(),
            capacity: view.capacity.clone(),
            capacity_version: view.capacity_version,
            alive: view.alive,
            accepts_new: view.accepts_new,
            pressure: view.pressure.map(str::to_owned),
            drains: view.drains,
            linked_voters: view.linked_voters.clone(),
            images: digests(view),
            held: holds.clone().fold(Capacity::default(), |sum, claim| sum.plus(&claim.resources)),
            holding: holds.count(),
            declines: view.declined.iter().map(|it| decline(it, slots)).collect(),
            awaited: yields(view)
                .map(|(_, it)| Awaited { slot: slots.of_replica(it), ordinal: it.ordinal })
                .collect(),
            claims,
        }
    }

    /// Whether it would be remembered just so: nothing of it changed that decides a plan.
    pub(crate) fn is_of(&self, view: &NodeView<'_>, slots: &Slots) -> bool {
        self.alive == view.alive
            && self.accepts_new == view.accepts_new
            && self.drains == view.drains
            && self.ordinal == view.ordinal
            && self.linked_voters == view.linked_voters
            && ((self.said.is_some() && self.said == view.said) || self.says(view, slots))
    }

    fn says(&self, view: &NodeView<'_>, slots: &Slots) -> bool {
        self.capacity == *view.capacity
            && self.capacity_version == view.capacity_version
            && self.pressure.as_deref() == view.pressure
            && self.claims.len() == view.containers.len()
            && self.declines.len() == view.declined.len()
            && self.name == *view.name
            && self.labels == *view.labels
            && self.images == digests(view)
            && self.awaited.len() == yields(view).count()
            && self
                .awaited
                .iter()
                .zip(yields(view))
                .all(|(awaited, (_, it))| awaited.ordinal == it.ordinal && slots.key(awaited.slot).is_of(it))
            && self.claims.iter().zip(view.containers).all(|(claim, it)| {
                *claim == Claim::of(claim.slot, it) && slots.key(claim.slot).is_of(&it.replica)
            })
            && self.declines.iter().zip(view.declined).all(|(decline, it)| {
                decline.ordinal == it.replica.ordinal
                    && decline.revision == it.revision
                    && decline.capacity_version == it.capacity_version
                    && decline.reason == it.reason
                    && slots.key(decline.slot).is_of(&it.replica)
            })
    }
}

/// What is known of one deployment, wanted or only seen in a claim.
#[derive(Debug)]
pub(crate) struct SlotState {
    pub(crate) key: Arc<Key>,
    /// `None` when it is not wanted.
    pub(crate) spec: Option<Spec>,
    /// The claims on all nodes, those that are down included, by node.
    pub(crate) claims: Vec<(NodeId, Claim)>,
    /// Ordinals that need room on a node.
    pub(crate) needs: Vec<Need>,
    /// The last template that all replicas ran and were ready of.
    pub(crate) complete: Option<Revision>,
    /// What it waits for, and the cycles that it is in.
    pub(crate) waits: Option<Arc<Waits>>,
}

/// A replica for which room must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) ordinal: u32,
    /// The one node that it is for, in mode `global`.
    pub(crate) only: Option<NodeId>,
    /// What it has now, which stays until the new one is well.
    pub(crate) old: Option<(NodeId, ContainerId)>,
    /// Whether the old one may be stopped first where there is no room for both.
    pub(crate) may_stop_first: bool,
}

/// The table of deployments.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_key: BTreeMap<Arc<Key>, Slot>,
    states: Vec<SlotState>,
}

impl Slots {
    pub(crate) fn of_key(&mut self, key: Key) -> Slot {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let slot = Slot(u32::try_from(self.states.len()).expect("memory ends before 2^32 deployments"));
        let key = Arc::new(key);
        self.by_key.insert(Arc::clone(&key), slot);
        self.states.push(SlotState {
            key,
            spec: None,
            claims: vec![],
            needs: vec![],
            complete: None,
            waits: None,
        });
        slot
    }

    /// The deployment of a replica, if it was ever seen.
    pub(crate) fn find(&self, it: &ReplicaId) -> Option<Slot> {
        self.by_key.get(&Key::of_replica(it)).copied()
    }

    fn of_replica(&mut self, it: &ReplicaId) -> Slot {
        self.of_key(Key::of_replica(it))
    }

    pub(crate) fn key(&self, slot: Slot) -> &Arc<Key> {
        &self.get(slot).key
    }

    pub(crate) fn get(&self, slot: Slot) -> &SlotState {
        &self.states[slot.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut SlotState {
        &mut self.states[slot.0 as usize]
    }

    /// Those that are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (Slot, &Spec)> {
        let number = |at: usize| Slot(u32::try_from(at).expect("checked when it was added"));
        self.states.iter().enumerate().filter_map(move |(at, it)| Some((number(at), it.spec.as_ref()?)))
    }

    /// How many deployments were ever seen.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// How many of them nobody wants or runs any more.
    pub(crate) fn unused(&self) -> usize {
        self.states.iter().filter(|it| it.spec.is_none() && it.claims.is_empty()).count()
    }
}
