//! What a plan is made from, and what of it one node alone can tell of its own containers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use document::event::Schedule;
use model::{ContainerId, ContainerRecord, Mode, NodeId, NodeRecord, ReplicaId, Sabotage};
use planner::{NodeView, Rank, View, Wanted};

use crate::leases::linked_voters;
use crate::state::{Desired, Node};

impl Node {
    /// Reads the deployments anew.
    pub(crate) fn desired_changed(&mut self) {
        self.forget_failures();
        let mut desired = BTreeMap::new();
        let mut invalid = BTreeSet::new();
        for view in self.documents.deployments() {
            let key = (view.namespace.clone(), view.name.clone());
            match &view.deployment {
                Ok(deployment) => _ = desired.insert(key, self.desired_of(view, deployment)),
                Err(_) => _ = invalid.insert(key),
            }
        }
        // A container of the wanted template goes by the number, and the retries, that it has now.
        for mine in self.mine.values_mut() {
            let key = (mine.claim.replica.namespace.clone(), mine.claim.replica.deployment.clone());
            if let Some(wanted) = desired.get(&key)
                && wanted.revision == mine.claim.revision
            {
                mine.claim.revision_number = wanted.number;
                mine.claim.run.retries = wanted.deployment.job.map(|job| job.retries);
            }
        }
        self.jobs_changed(&desired);
        self.desired = desired;
        self.invalid = invalid;
        self.voters_changed();
        self.dirty = true;
    }

    pub(crate) fn make_plan(&mut self) {
        // Taken out while the view borrows the rest.
        let mut planner = std::mem::take(&mut self.planner);
        // What it said of itself last, where nothing has changed since.
        let said = |last: &&NodeRecord| !self.changed && last.version.count == self.count;
        let last = self.records.get(&self.config.me).filter(said);
        let mut own = last.map_or_else(|| Cow::Owned(self.own_record()), Cow::Borrowed);
        if self.has(Sabotage::PlansForItself) {
            let own = own.to_mut();
            own.capacity = own.capacity.plus(&own.capacity);
        }
        let own_said = matches!(own, Cow::Borrowed(_)).then_some(own.version);
        let members = &self.documents.roster().nodes;
        // Only these need them, and each is a walk over all members.
        let any_global = self.desired.values().any(|it| it.deployment.replicas.mode == Mode::Global);
        let ordinals = if any_global { self.ordinals() } else { BTreeMap::new() };
        let voters = &self.leases.voters;
        // Members, records and those that count are all by id: one walk along them, and no search.
        let mut records = self.records.iter().peekable();
        let mut alive = self.alive.iter().peekable();
        let view = View {
            deployments: self
                .desired
                .values()
                .map(|desired| Wanted {
                    deployment: &desired.deployment,
                    revision: desired.revision,
                    ends: desired.deployment.job.and_then(|_| self.ends_of(desired)),
                })
                .collect(),
            nodes: members
                .iter()
                .filter_map(|(id, member)| {
                    while records.next_if(|it| it.node < *id).is_some() {}
                    while alive.next_if(|it| *it < id).is_some() {}
                    let told = records.next_if(|it| it.node == *id);
                    let counts = alive.next_if(|it| *it == id).is_some();
                    let is_own = *id == self.config.me;
                    let record = if is_own { Some(&*own) } else { told };
                    record.map(|record| {
                        let node = NodeView {
                            said: if is_own { own_said } else { Some(record.version) },
                            name: &record.name,
                            labels: &record.labels,
                            capacity: &record.capacity,
                            capacity_version: record.capacity_version,
                            alive: is_own || counts || self.has(Sabotage::NoTakeOver),
                            ordinal: ordinals.get(id).copied().unwrap_or_default(),
                            accepts_new: member.schedule == Schedule::Normal,
                            pressure: record
                                .pressure
                                .as_deref()
                                .filter(|_| !self.has(Sabotage::PressureIgnored)),
                            drains: member.schedule == Schedule::Drained,
                            linked_voters: linked_voters(voters, *id, &record.links),
                            images: &record.images,
                            containers: &record.containers,
                            declined: &record.declined,
                        };
                        (*id, node)
                    })
                })
                .collect(),
            rules: planner::RULES,
        };
        planner.plan(&view);
        drop(own);
        self.planner = planner;
        self.planned_at = Some(self.now);
    }

    /// The ordinal of each member in deployments of mode `global`.
    pub(crate) fn ordinals(&self) -> BTreeMap<NodeId, u32> {
        planner::ordinals(self.documents.roster().nodes.keys().copied())
    }

    /// Why a replica of this node is more than is wanted, if it is.
    pub(crate) fn is_surplus(&self, ordinal: u32, desired: &Desired) -> Option<&'static str> {
        let replicas = &desired.deployment.replicas;
        match replicas.mode {
            Mode::Replicated => (ordinal >= replicas.count).then_some("scaled in"),
            Mode::Global if replicas.count == 0 => Some("scaled in"),
            Mode::Global if self.own_ordinal != Some(ordinal) => Some("it runs one on each node now"),
            Mode::Global => (!self.may_stay(&self.config.me, desired)).then_some("it is to run elsewhere"),
        }
    }

    /// Whether this node may run the replica by the documents alone, however many copies there are.
    pub fn wants(&self, replica: &ReplicaId) -> bool {
        let desired = self.desired.get(&(replica.namespace.clone(), replica.deployment.clone()));
        desired.is_some_and(|desired| {
            desired.deployment.incarnation == replica.incarnation
                && self.is_surplus(replica.ordinal, desired).is_none()
        })
    }

    /// Whether this node stops a container of its own that is wanted and the only copy: it makes room for
    /// what is more important, or the time for a drain is over.
    pub fn gives_way(&self, container: ContainerId) -> bool {
        self.is_drain_overdue()
            || self.mine.get(&container).is_some_and(|mine| {
                mine.yields_to.is_some()
                    || mine.stopped_first
                    || mine.is_exclusive()
                    || self.ends_with_its_job(mine)
            })
    }

    /// Whether a container of the deployment may stay on a node: it meets the conditions, and does not
    /// drain.
    fn may_stay(&self, node: &NodeId, desired: &Desired) -> bool {
        let placement = &desired.deployment.placement;
        let meets = if *node == self.config.me {
            placement.is_met_by(&self.config.labels, &self.config.name)
        } else {
            self.records.get(node).is_some_and(|record| placement.is_met_by(&record.labels, &record.name))
        };
        let member = self.documents.roster().nodes.get(node);
        meets && member.is_none_or(|member| member.schedule != Schedule::Drained)
    }

    pub(crate) fn rank_of(&self, node: NodeId, record: &ContainerRecord, desired: &Desired) -> Rank {
        let fits = record.revision == desired.revision && self.may_stay(&node, desired);
        planner::rank(node, record, fits)
    }
}
