//! What deployments wait for, worked out a second time: by what one peer knows, and by the kernels' word.
//!
//! It shares nothing with `planner` but the nouns.

use std::collections::BTreeSet;

use model::{Condition, ContainerState, Name, NodeId, RestartPolicy};
use node::{Claim, Desired, Node};

use crate::world::Cluster;

/// What a deployment waits for as of what somebody knows: names, how far each must be, whether it is.
struct Looks<'a> {
    node: &'a Node,
    namespace: &'a Name,
}

impl Looks<'_> {
    fn desired(&self, name: &Name) -> Option<&Desired> {
        self.node.desired().get(&(self.namespace.clone(), name.clone()))
    }

    /// Whether one waits for the other, or for one that does.
    fn reaches(&self, from: &Name, to: &Name) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                next.extend(self.desired(at).into_iter().flat_map(|it| it.deployment.depends.on.keys()));
            }
        }
        false
    }

    /// What a deployment must wait for: all but those that are in a cycle with it.
    fn awaited<'s>(&'s self, of: &'s Desired) -> impl Iterator<Item = (&'s Name, Condition)> {
        let on = of.deployment.depends.on.iter().map(|(name, condition)| (name, *condition));
        on.filter(|(name, _)| !self.reaches(name, &of.deployment.name))
    }

    fn unmet(&self, of: &Desired, is_met: impl Fn(&Desired, Condition) -> bool) -> Vec<(Name, Condition)> {
        let met = |name: &Name, condition: Condition| {
            self.desired(name).is_some_and(|it| it.deployment.replicas.count > 0 && is_met(it, condition))
        };
        let unmet = self.awaited(of).filter(|(name, condition)| !met(name, *condition));
        unmet.map(|(name, condition)| (name.clone(), condition)).collect()
    }
}

/// Whether one of the replicas is enough, or all must be.
fn enough(condition: Condition, count: u32, met: &BTreeSet<u32>) -> bool {
    let met = (0..count).filter(|ordinal| met.contains(ordinal)).count();
    match condition {
        Condition::Started | Condition::Healthy => met > 0,
        Condition::Completed => met == count as usize,
    }
}

/// Ordinals of a deployment that are so far, by the records that a peer holds of those that count.
fn met_by_records(node: &Node, of: &Desired, condition: Condition) -> BTreeSet<u32> {
    let it = &of.deployment;
    let own = node.own_record();
    let others = node.records().iter().filter(|record| record.node != own.node && node.counts(&record.node));
    let told = others.flat_map(|record| &record.containers).chain(&own.containers).filter(|told| {
        let replica = &told.replica;
        replica.namespace == it.namespace
            && replica.deployment == it.name
            && replica.incarnation == it.incarnation
    });
    let mut met = BTreeSet::new();
    for told in told {
        let ended = told.revision == of.revision
            && told.state == ContainerState::Exited
            && it.restart.policy != RestartPolicy::Always;
        let runs = told.state == ContainerState::Running;
        let is_met = match condition {
            Condition::Started => ended || runs,
            Condition::Healthy => ended || runs && told.healthy == Some(true),
            Condition::Completed => ended,
        };
        if is_met {
            met.insert(told.replica.ordinal);
        }
    }
    if let Some(ends) = node.ends_of(of) {
        met.extend((0..it.replicas.count).filter(|ordinal| ends.is_done(*ordinal)));
    }
    met
}

impl Cluster {
    /// What a container that is new on a machine should still wait for, by what its own peer knows.
    pub(super) fn should_wait(&self, host: usize, claim: &Claim) -> Vec<(Name, Condition)> {
        let Some(node) = &self.hosts[host].node else { return Vec::new() };
        let replica = &claim.replica;
        let looks = Looks { node, namespace: &replica.namespace };
        let Some(of) = looks.desired(&replica.deployment) else { return Vec::new() };
        if of.deployment.depends.on.is_empty() {
            return Vec::new();
        }
        let is_met = |it: &Desired, condition| {
            enough(condition, it.deployment.replicas.count, &met_by_records(node, it, condition))
        };
        let mut unmet = looks.unmet(of, is_met);
        // What replaces something that runs waits only for what is to be completed.
        let own: NodeId = self.hosts[host].id;
        let stands = |state| {
            use ContainerState::{Pending, Running, Starting};
            matches!(state, Pending | Starting | Running)
        };
        let elsewhere = node.records().iter().filter(|it| it.node != own && node.counts(&it.node));
        let told = elsewhere.flat_map(|record| &record.containers);
        let mine = node.own_record().containers;
        let replaces = told
            .chain(&mine)
            .any(|told| told.replica == *replica && told.revision != claim.revision && stands(told.state));
        if replaces {
            unmet.retain(|(_, condition)| *condition == Condition::Completed);
        }
        unmet
    }

    /// What a deployment waits for by what the kernels of these machines run, as the documents of one of them have
    /// it. Whatever runs has been well for long: it is asked at rest.
    pub(crate) fn waits_by_kernels(
        &self,
        members: &[usize],
        by: &Node,
        of: &Desired,
    ) -> Vec<(Name, Condition)> {
        let looks = Looks { node: by, namespace: &of.deployment.namespace };
        looks.unmet(of, |it, condition| {
            let mut met = BTreeSet::new();
            for container in members.iter().flat_map(|host| self.hosts[*host].kernel.values()) {
                let replica = &container.claim.replica;
                let is_of_it = replica.namespace == it.deployment.namespace
                    && replica.deployment == it.deployment.name
                    && replica.incarnation == it.deployment.incarnation;
                let ended = container.claim.revision == it.revision
                    && container.has_ended_for_good()
                    && container.exit.code == Some(0);
                let runs = container.pid.is_some() && condition != Condition::Completed;
                if is_of_it && (ended || runs) {
                    met.insert(replica.ordinal);
                }
            }
            let done =
                (0..it.deployment.replicas.count).filter(|ordinal| self.check.work.has_ended(it, *ordinal));
            met.extend(done.filter(|ordinal| by.ends_of(it).is_some_and(|ends| ends.is_done(*ordinal))));
            enough(condition, it.deployment.replicas.count, &met)
        })
    }
}
