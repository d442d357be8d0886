//! Where a deployment runs and why, and for every node whether it could take one more.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Capacity, ContainerId, Name, NodeId, ReplicaId};

use crate::place::score;
use crate::room::{Minds, Room};
use crate::{Placement, Planner, Reasons, Refusal, View, Waits};

/// Why a deployment is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Every replica with its placement and, where its update waits for room, why no node has any.
    pub replicas: BTreeMap<ReplicaId, (Placement, Option<Reasons>)>,
    /// For those that wait for room, the containers that make it and have not been stopped yet.
    pub yields: BTreeMap<ReplicaId, Vec<ContainerId>>,
    /// What it waits for, and the cycles that it is in.
    pub waits: Option<Arc<Waits>>,
    /// Every node of the view.
    pub nodes: BTreeMap<NodeId, NodeExplained>,
}

/// What one node could do for the deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeExplained {
    /// The node's name.
    pub name: Name,
    /// Ordinals that run there or are to be started there.
    pub runs: Vec<u32>,
    /// Whether it could take one more replica, beside all that runs and is planned.
    pub one_more: Result<Fit, Refusal>,
}

/// That a node could take one more replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What is free beside all claims and planned placements.
    pub free: Capacity,
    /// What the replica asks.
    pub asked: Capacity,
    /// The scarcest resource's share that would stay free, in millionths.
    pub share_ppm: u64,
    /// What preferences and an image that is there add, or take, in millionths. Of the nodes that are
    /// equally crowded with the deployment, the one with the greatest sum of both is chosen.
    pub bonus_ppm: i64,
}

/// Explains the plan of `view` for the deployment of this namespace and name. `None`: none is wanted.
///
/// Where two incarnations of one name are wanted (the merge has not settled yet), the replicas of
/// both are there, and the nodes are judged for the greater.
pub fn explain(view: &View<'_>, namespace: &Name, name: &Name) -> Option<Explanation> {
    let mut planner = Planner::new();
    planner.plan(view);
    planner.explain(namespace, name)
}

impl Planner {
    /// Explains the plan of the last view, as [`explain`] does.
    pub fn explain(&self, namespace: &Name, name: &Name) -> Option<Explanation> {
        let (_, slot) =
            self.wanted.iter().rev().find(|(key, _)| key.namespace == *namespace && key.name == *name)?;
        let spec = self.slots.get(*slot).spec.as_ref().expect("what is wanted has a spec");
        let mut room = Room::new(&self.nodes, &self.slots, self.rules, Minds { ports: true, company: true });
        for (key, other) in &self.wanted {
            let state = self.slots.get(*other);
            let spec = state.spec.as_ref().expect("what is wanted has a spec");
            for need in &state.needs {
                match self.plan.placements.get(&key.replica(need.ordinal)) {
                    Some(
                        Placement::Start { node }
                        | Placement::Awaits { node, .. }
                        | Placement::Replace { new: node, .. },
                    ) => {
                        room.assume(*node, *other, spec);
                    }
                    Some(
                        Placement::Keep { .. }
                        | Placement::KeepOld { .. }
                        | Placement::StopFirst { .. }
                        | Placement::Waits
                        | Placement::Ended
                        | Placement::Queued
                        | Placement::GivenUp
                        | Placement::Unplaced { .. },
                    )
                    | None => {}
                }
            }
        }
        let is_of = |id: &ReplicaId| id.namespace == *namespace && id.deployment == *name;
        let replicas: BTreeMap<ReplicaId, (Placement, Option<Reasons>)> = self
            .plan
            .placements
            .iter()
            .filter(|(id, _)| is_of(id))
            .map(|(id, placement)| {
                let held_back = self.plan.held_back.get(&id).cloned();
                (id, (placement.clone(), held_back))
            })
            .collect();
        let mut yields: BTreeMap<ReplicaId, Vec<ContainerId>> = BTreeMap::new();
        for (container, replica) in self.plan.yields.iter().filter(|(_, replica)| is_of(replica)) {
            yields.entry(replica.clone()).or_default().push(*container);
        }
        let nodes = room.places.iter().enumerate().map(|(index, place)| {
            let (id, free) = (place.id, place.free.clone());
            let verdict = score(&room, index, *slot, spec);
            let runs = replicas.iter().filter(|(_, (placement, _))| placement.names(id));
            let explained = NodeExplained {
                name: self.nodes[&id].name.clone(),
                runs: runs.map(|(replica, _)| replica.ordinal).collect(),
                one_more: verdict.map_err(Refusal::from).map(|score| Fit {
                    free,
                    asked: spec.asked.clone(),
                    share_ppm: score.share_ppm,
                    bonus_ppm: score.bonus_ppm,
                }),
            };
            (id, explained)
        });
        let nodes = nodes.collect();
        let waits = self.slots.get(*slot).waits.clone();
        Some(Explanation { replicas, yields, waits, nodes })
    }
}
