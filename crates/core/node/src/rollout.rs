//! Whether a new template comes up, and what happens when it does not.
//!
//! Nobody is in charge of a rollout: each node sees how its own new containers do. One that is not ready in
//! the time that its update gives it, or that ends again and again before it ever was, has failed, and its
//! node says so in its record. Whoever hears that says it too, as long as the template is wanted: so all
//! peers of an island come to know it, and it outlives the node that said it first. With the failure known,
//! what is wanted is the newest earlier template that has not failed, on every peer alike, by the documents
//! and the records alone; no event is written, and the next change of the template begins anew.
//!
//! Absent on purpose: failures of a template that all replicas once ran and were ready of. What fails later
//! fails for another reason, and the template before would do no better.

use std::collections::BTreeSet;
use std::time::Duration;

use document::View;
use model::limits::FAILED_REVISIONS_MAX;
use model::{
    ContainerId, ContainerRecord, Deployment, EventId, FailedRevision, Group, Mode, Name, NodeId, OnFailure,
    ReplicaId, Revision, Strategy, Time,
};
use planner::Placement;

use crate::containers::{Mine, Phase, short};
use crate::reconcile::about;
use crate::state::{Desired, Node};

/// Ends of a container that was never ready, in a row, after which its template has failed: one may be chance,
/// two a dependency that was not up yet.
const FAILURES_MAX: u32 = 3;

/// That a deployment went back to an earlier template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The template that failed.
    pub from: Revision,
    /// The number that people see for it.
    pub from_number: u64,
    /// The node where it failed first, as far as this one knows.
    pub node: NodeId,
    /// Why, for people.
    pub reason: String,
}

impl Node {
    /// What is wanted of a deployment: its template, or the newest earlier one that has not failed.
    pub(crate) fn desired_of(&self, view: &View, deployment: &Deployment) -> Desired {
        let revision = deployment.revision();
        let number = self.documents.revision_number(&view.namespace, &view.name, view.incarnation);
        let as_said =
            || Desired { deployment: deployment.clone(), revision, number, rolled_back: None, failed: None };
        let Some(failed) = self.failure_of(view.incarnation, revision) else { return as_said() };
        let failed = failed.clone();
        if deployment.update.on_failure == OnFailure::Stop {
            return Desired { failed: Some(failed), ..as_said() };
        }
        let events = self.documents.revisions(&view.namespace, &view.name, view.incarnation);
        for (place, event) in events.iter().enumerate().rev() {
            let number = place as u64 + 1;
            let earlier = self.documents.groups_at(&view.namespace, &view.name, view.incarnation, *event);
            let Some(earlier) = earlier else { continue };
            let mut groups = view.groups.clone();
            for group in Group::TEMPLATE {
                match earlier.get(group.as_str()) {
                    Some(json) => _ = groups.insert(group.as_str().to_owned(), json.clone()),
                    None => _ = groups.remove(group.as_str()),
                }
            }
            let made = Deployment::from_groups(&view.namespace, &view.name, view.incarnation, &groups);
            let Ok(made) = made else { continue };
            let before = made.revision();
            if before == revision || self.failure_of(view.incarnation, before).is_some() {
                continue;
            }
            let FailedRevision { revision_number: from_number, node, reason, .. } = failed;
            let back = RolledBack { from: revision, from_number, node, reason };
            return Desired {
                deployment: made,
                revision: before,
                number,
                rolled_back: Some(back),
                failed: None,
            };
        }
        // There is none: it goes on trying.
        Desired { failed: Some(failed), ..as_said() }
    }

    fn failure_of(&self, incarnation: EventId, revision: Revision) -> Option<&FailedRevision> {
        self.failed.iter().find(|it| it.is_of(incarnation, revision))
    }

    /// Forgets failures of templates that the documents do not want any more.
    pub(crate) fn forget_failures(&mut self) {
        if self.failed.is_empty() {
            return;
        }
        // An earlier template that failed as well is kept while a later one is wanted that has failed.
        let keep: BTreeSet<EventId> = self
            .documents
            .deployments()
            .filter_map(|view| Some((view.incarnation, view.deployment.as_ref().ok()?.revision())))
            .filter(|(incarnation, wanted)| self.failure_of(*incarnation, *wanted).is_some())
            .map(|(incarnation, _)| incarnation)
            .collect();
        let count = self.failed.len();
        self.failed.retain(|it| keep.contains(&it.replica.incarnation));
        self.changed |= self.failed.len() != count;
        self.failures_full &= self.failed.len() >= FAILED_REVISIONS_MAX;
    }

    /// Says again what others have said of templates that are wanted here, and forgets what is refuted.
    pub(crate) fn hear_failures(&mut self) {
        self.forget_refuted();
        let heard: Vec<FailedRevision> = self
            .records
            .iter()
            .filter(|record| !record.failed.is_empty() && self.alive.contains(&record.node))
            .flat_map(|record| &record.failed)
            .filter(|it| !self.is_known(it) && self.is_in_force(it) && !self.is_refuted(it))
            .cloned()
            .collect();
        for failed in heard {
            self.note_failure(failed);
        }
    }

    /// What all replicas run and are ready of has not failed, whatever it did on one island of a split: where
    /// it works, it stays.
    fn forget_refuted(&mut self) {
        let refuted: Vec<FailedRevision> =
            self.failed.iter().filter(|it| self.is_refuted(it)).cloned().collect();
        for it in refuted {
            self.failed.retain(|other| *other != it);
            self.changed = true;
            self.desired_changed();
            let (about, number) = (about(&it.replica), it.revision_number);
            self.notice("update-works", Some(about), format!("all replicas of v{number} are well: it stays"));
        }
    }

    fn is_refuted(&self, failed: &FailedRevision) -> bool {
        let ReplicaId { namespace, deployment, incarnation, .. } = &failed.replica;
        let view = self.documents.get(namespace, deployment).filter(|view| view.incarnation == *incarnation);
        let wanted = view.and_then(|view| view.deployment.as_ref().ok());
        wanted.is_some_and(|wanted| {
            wanted.replicas.mode == Mode::Replicated
                && wanted.replicas.count > 0
                && wanted.revision() == failed.revision
                && self.all_ready(&failed.replica, wanted.replicas.count, failed.revision)
        })
    }

    /// Whether a template is what its deployment runs or is to run, by what is known until now.
    fn is_in_force(&self, failed: &FailedRevision) -> bool {
        let ReplicaId { namespace, deployment, incarnation, .. } = &failed.replica;
        self.desired.get(&(namespace.clone(), deployment.clone())).is_some_and(|desired| {
            desired.deployment.incarnation == *incarnation && desired.revision == failed.revision
        })
    }

    fn is_known(&self, failed: &FailedRevision) -> bool {
        self.failure_of(failed.replica.incarnation, failed.revision).is_some()
    }

    fn note_failure(&mut self, failed: FailedRevision) {
        if self.is_known(&failed) {
            return;
        }
        let (about, number) = (about(&failed.replica), failed.revision_number);
        if self.failed.len() >= FAILED_REVISIONS_MAX {
            // It is tried on and on, which is said of the first such alone.
            if !std::mem::replace(&mut self.failures_full, true) {
                let words = format!(
                    "v{number} did not come up, and is tried again and again: {FAILED_REVISIONS_MAX} other \
                     updates have failed, and no more are remembered until one of those is changed or deleted"
                );
                self.notice("update-failed", Some(about), words);
            }
            return;
        }
        let on = self.name_of(&failed.node);
        let reason = failed.reason.clone();
        let key = (failed.replica.namespace.clone(), failed.replica.deployment.clone());
        self.failed.push(failed);
        self.failed.sort_by(|a, b| (&a.replica, a.revision).cmp(&(&b.replica, b.revision)));
        self.changed = true;
        self.desired_changed();
        let now = self.desired.get(&key);
        let then = match now.map(|now| (now.rolled_back.is_some(), now.number)) {
            Some((true, back)) => format!("; back to v{back}"),
            _ => "; nothing further is changed".to_owned(),
        };
        self.notice(
            "update-failed",
            Some(about),
            format!("v{number} did not come up on {on}: {reason}{then}"),
        );
    }

    /// A new container of this node is not ready, in a row or for too long.
    pub(crate) fn look_for_failure(&mut self, id: ContainerId) {
        let Some(mine) = self.mine.get(&id) else { return };
        if let Some(reason) = self.failure_reason(mine) {
            let failed = FailedRevision {
                replica: mine.claim.replica.clone(),
                revision: mine.claim.revision,
                revision_number: mine.claim.revision_number,
                node: self.config.me,
                reason: short(&reason),
            };
            self.note_failure(failed);
        }
    }

    fn failure_reason(&self, mine: &Mine) -> Option<String> {
        let desired = self.desired.get(&key(&mine.claim.replica))?;
        let judged = mine.is_claim()
            && mine.is_new
            && !mine.was_ready
            && desired.revision == mine.claim.revision
            && desired.deployment.incarnation == mine.claim.replica.incarnation
            && desired.failed.is_none()
            && desired.deployment.job.is_none()
            && desired.number > 1
            && !self.planner.was_complete(&mine.claim.replica, mine.claim.revision);
        if !judged {
            return None;
        }
        if mine.failures >= FAILURES_MAX {
            let last = mine.reason.as_deref().unwrap_or("for a reason that is not known");
            return Some(format!("ended {} times and was never well; last {last}", mine.failures));
        }
        let deadline_s = desired.deployment.update.deadline_s;
        let overdue = self.now.since(mine.claimed_at) >= Duration::from_secs(deadline_s.into());
        let last = mine.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        overdue.then(|| format!("was not well for long enough within {deadline_s} s{last}"))
    }

    /// From when on a container of this node counts as ready, and as proven, while it is well.
    fn settles_at(&self, mine: &Mine) -> (Option<Time>, Option<Time>) {
        let Phase::Running { since } = mine.phase else { return (None, None) };
        let update = self.desired.get(&key(&mine.claim.replica)).map(|desired| desired.deployment.update);
        let healthy = self.config.timings.healthy;
        let after = |seconds: u32| since + healthy.max(Duration::from_secs(seconds.into()));
        let ready = (!mine.ready).then(|| after(update.map_or(0, |update| update.min_healthy_s)));
        let proves_s = update.map_or(0, |update| update.proves_after_s().unwrap_or(update.min_healthy_s));
        (ready, (!mine.proven).then(|| after(proves_s)))
    }

    /// Containers that have been well for long enough, and those that never will be in time.
    pub(crate) fn tick_rollouts(&mut self) {
        let now = self.now;
        let has_come = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let settled: Vec<(ContainerId, bool, bool)> = self
            .mine
            .values()
            .filter(|mine| mine.is_healthy() && !mine.is_settled())
            .map(|mine| (mine.id, self.settles_at(mine)))
            .map(|(id, (ready, proven))| (id, has_come(ready), has_come(proven)))
            .filter(|(_, ready, proven)| *ready || *proven)
            .collect();
        for (id, ready, proven) in settled {
            if let Some(mine) = self.mine.get_mut(&id) {
                mine.ready |= ready;
                mine.was_ready |= ready;
                mine.proven |= proven;
                self.changed = true;
                self.dirty = true;
            }
        }
        let late: Vec<ContainerId> = self
            .mine
            .values()
            .filter(|mine| {
                mine.is_new && !mine.was_ready && self.deadline_of(mine).is_some_and(|at| at <= now)
            })
            .map(|mine| mine.id)
            .collect();
        for id in late {
            self.look_for_failure(id);
        }
    }

    fn deadline_of(&self, mine: &Mine) -> Option<Time> {
        let desired =
            self.desired.get(&key(&mine.claim.replica)).filter(|it| it.revision == mine.claim.revision)?;
        if desired.deployment.job.is_some() {
            return None; // It ends; it is never ready.
        }
        Some(mine.claimed_at + Duration::from_secs(desired.deployment.update.deadline_s.into()))
    }

    /// When the next of those times comes.
    pub(crate) fn next_rollout_wake(&self) -> Option<(Time, &'static str)> {
        let waits = self.mine.values().filter(|mine| mine.is_claim());
        let settles = waits.clone().filter(|mine| mine.is_healthy() && !mine.is_settled());
        let settles = settles.map(|mine| self.settles_at(mine));
        let ready = settles.flat_map(|(ready, proven)| ready.into_iter().chain(proven));
        let ready = ready.map(|at| (at, "a container is ready"));
        let late = waits.filter(|mine| mine.is_new && !mine.was_ready);
        let late = late.filter_map(|mine| self.deadline_of(mine)).map(|at| (at, "an update is overdue"));
        ready.chain(late).filter(|(at, _)| *at > self.now).min()
    }

    /// Whether this container is to end before its next revision is started.
    pub(crate) fn stops_first(&self, mine: &Mine, desired: &Desired) -> bool {
        // Most deployments let none be missing: their replicas need not be looked for in the plan.
        let may = desired.deployment.update.unavailable > 0
            || desired.deployment.job.is_some()
            || desired.deployment.is_exclusive();
        may && self.stops_first_by_plan(mine)
    }

    pub(crate) fn stops_first_by_plan(&self, mine: &Mine) -> bool {
        let placement = self.planner.last().placements.get(&mine.claim.replica);
        self.settled
            && matches!(placement, Some(Placement::StopFirst { container, .. }) if *container == mine.id)
    }

    /// Whether a container that takes the place of this one is far enough for it to go: of the same revision
    /// once it is well; of another once it is ready; and with blue and green once all are.
    pub(crate) fn may_be_followed_by(
        &self,
        mine: &Mine,
        next: &ContainerRecord,
        desired: Option<&Desired>,
    ) -> bool {
        if next.revision == mine.claim.revision {
            return true;
        }
        let Some(desired) = desired else { return true };
        let update = &desired.deployment.update;
        let replicas = &desired.deployment.replicas;
        let all_at_once = update.strategy == Strategy::BlueGreen && replicas.mode == Mode::Replicated;
        next.ready && (!all_at_once || self.all_ready(&mine.claim.replica, replicas.count, desired.revision))
    }

    /// Whether each replica has a container of a template that is ready, on some node that is alive.
    fn all_ready(&self, of: &ReplicaId, count: u32, revision: Revision) -> bool {
        (0..count).all(|ordinal| {
            let replica = ReplicaId { ordinal, ..of.clone() };
            self.claims_of(&replica).any(|(node, it)| {
                it.ready && it.revision == revision && (node == self.config.me || self.alive.contains(&node))
            })
        })
    }
}

fn key(replica: &ReplicaId) -> (Name, Name) {
    (replica.namespace.clone(), replica.deployment.clone())
}
