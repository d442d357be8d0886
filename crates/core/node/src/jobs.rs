//! What has ended for good of each job, said by whoever ran it and kept by some who heard so.
//!
//! A node whose container of a job ends for good says so in its record, and says it on as long as that job is
//! wanted; four nodes of its island, the same to every peer, say it too, so at least three beside it. So it is
//! known when the node that ran it is gone. What several say is joined: what ended well anywhere is done, although it failed
//! elsewhere; where two islands both ran one, both have ended, and one is enough.
//!
//! The deadline of a job is by the clock of each node, from when that node learned of the job, or began. The
//! first that finds it over says so, and all take it from there.
//!
//! Absent on purpose: a memory of what all that knew have forgotten. Where each node that said it was switched
//! off or removed before another heard it, it is run again.

use std::collections::BTreeMap;
use std::time::Duration;

use model::limits::{JOBS_REMEMBERED_MAX, JOBS_TOLD_MAX};
use model::{FailedRun, JobEnds, JobId, Name, NodeId, ReplicaId, Revision, Sabotage, Time};
use sha2::{Digest as _, Sha256};

use crate::containers::{Mine, Phase, short};
use crate::reconcile::about;
use crate::state::{Desired, Node};

/// Nodes of an island that keep what they hear of a job: one may be who ran it, and so three are left when it is
/// lost.
const KEEPERS: usize = 4;

/// The job that a replica of this template belongs to.
fn job_of(replica: &ReplicaId, revision: Revision) -> JobId {
    JobId {
        namespace: replica.namespace.clone(),
        deployment: replica.deployment.clone(),
        incarnation: replica.incarnation,
        revision,
    }
}

fn id_of(desired: &Desired) -> JobId {
    let of = &desired.deployment;
    JobId {
        namespace: of.namespace.clone(),
        deployment: of.name.clone(),
        incarnation: of.incarnation,
        revision: desired.revision,
    }
}

/// Adds how a container ended.
fn add_end(ends: &mut JobEnds, mine: &Mine, well: bool, me: NodeId) {
    let ordinal = mine.claim.replica.ordinal;
    if well {
        ends.add_done(ordinal);
    } else {
        let reason = mine.reason.as_deref().unwrap_or("ended for a reason that is not known");
        ends.add_failed(ordinal, FailedRun { node: me, reason: short(reason) });
    }
}

impl Node {
    /// What has ended for good of a job, as far as this node knows; `None` where nothing has.
    pub fn ends_of(&self, desired: &Desired) -> Option<&JobEnds> {
        self.ends.get(&id_of(desired))
    }

    /// Notes how one of this node's containers ended for good, if it is of a job.
    pub(crate) fn note_end(&mut self, mine: &Mine) {
        let Phase::Done { well } = mine.phase else { return };
        if mine.claim.run.retries.is_none() {
            return;
        }
        self.changed = true;
        self.dirty = true;
        let job = job_of(&mine.claim.replica, mine.claim.revision);
        if !self.job_records.contains_key(&job) && self.job_records.len() >= JOBS_TOLD_MAX {
            let words = format!(
                "replica {} has ended, and is run again if this node is lost: {JOBS_TOLD_MAX} other jobs are \
                 remembered here, delete some",
                mine.claim.replica.ordinal
            );
            self.notice("job-not-remembered", Some(about(&mine.claim.replica)), words);
            return;
        }
        add_end(self.job_records.entry(job).or_default(), mine, well, self.config.me);
    }

    /// Forgets what is not wanted any more, and sees since when the others are wanted.
    pub(crate) fn jobs_changed(&mut self, desired: &BTreeMap<(Name, Name), Desired>) {
        let wanted = |job: &JobId| {
            desired.get(&(job.namespace.clone(), job.deployment.clone())).is_some_and(|it| {
                it.deployment.job.is_some()
                    && it.deployment.incarnation == job.incarnation
                    && it.revision == job.revision
            })
        };
        let count = self.job_records.len();
        self.job_records.retain(|job, _| wanted(job));
        self.changed |= self.job_records.len() != count;
        self.job_since.retain(|job, _| wanted(job));
        self.jobs_over.retain(wanted);
        let now = self.now;
        for it in desired.values().filter(|it| it.deployment.job.is_some_and(|job| job.deadline_s.is_some()))
        {
            self.job_since.entry(id_of(it)).or_insert(now);
        }
    }

    /// Joins what is said of each job that is wanted, and says on what is this node's to keep.
    pub(crate) fn hear_of_jobs(&mut self) {
        let wanted = self.desired.values().filter(|it| it.deployment.job.is_some());
        let mut ends: BTreeMap<JobId, JobEnds> = wanted.map(|it| (id_of(it), JobEnds::default())).collect();
        if ends.is_empty() {
            self.ends.clear();
            return;
        }
        let heard = !self.has(Sabotage::EndsUnheard);
        let others = self.records.iter().filter(|record| heard && record.node != self.config.me);
        let said = others.flat_map(|record| record.jobs.iter().map(|it| (&it.job, &it.ends)));
        for (job, said) in said.chain(&self.job_records) {
            if let Some(ends) = ends.get_mut(job) {
                ends.join(said);
            }
        }
        // Also what is told to nobody, since too many others are.
        for mine in self.mine.values() {
            let Phase::Done { well } = mine.phase else { continue };
            if let Some(ends) = ends.get_mut(&job_of(&mine.claim.replica, mine.claim.revision)) {
                add_end(ends, mine, well, self.config.me);
            }
        }
        for (job, ends) in &mut ends {
            ends.overdue |= self.jobs_over.contains(job);
        }
        ends.retain(|_, it| *it != JobEnds::default());
        for (job, joined) in &ends {
            let known = self.job_records.get(job);
            let room = known.is_some() || self.job_records.len() < JOBS_REMEMBERED_MAX;
            if known != Some(joined) && room && (known.is_some() || self.keeps(job)) {
                self.job_records.insert(job.clone(), joined.clone());
                self.changed = true;
            }
        }
        self.ends = ends;
        // The time of one that is done is over. Where more of it is asked for later, it begins then.
        let is_done =
            |it: &&Desired| it.deployment.job.is_some() && self.done_of(it) == it.deployment.replicas.count;
        let done: Vec<JobId> = self.desired.values().filter(is_done).map(id_of).collect();
        for job in done {
            self.job_since.remove(&job);
        }
        self.give_up_what_is_overdue();
    }

    /// Whether this node is one of those that say on what they hear of a job.
    fn keeps(&self, job: &JobId) -> bool {
        let place = |node: &NodeId| {
            let mut hash = Sha256::new();
            hash.update(job.incarnation.as_bytes());
            hash.update(node.as_bytes());
            <[u8; 32]>::from(hash.finalize())
        };
        let own = place(&self.config.me);
        self.alive.iter().filter(|node| place(node) < own).take(KEEPERS).count() < KEEPERS
    }

    /// When the time of a job is over by this node's clock, if it has such a time and it is not done.
    fn overdue_at(&self, desired: &Desired) -> Option<Time> {
        let seconds = desired.deployment.job?.deadline_s?;
        if self.ends_of(desired).is_some_and(|it| it.overdue) || self.has(Sabotage::DeadlineIgnored) {
            return None;
        }
        let since = self.job_since.get(&id_of(desired))?;
        Some(*since + Duration::from_secs(seconds.into()))
    }

    fn done_of(&self, desired: &Desired) -> u32 {
        self.ends_of(desired).map_or(0, |it| it.done_of(desired.deployment.replicas.count))
    }

    /// Says which jobs were not done in time.
    fn give_up_what_is_overdue(&mut self) {
        let now = self.now;
        let overdue: Vec<(JobId, u32, u32)> = self
            .desired
            .values()
            .filter(|it| self.overdue_at(it).is_some_and(|at| at <= now))
            .filter_map(|it| Some((id_of(it), it.deployment.job?.deadline_s?, it.deployment.replicas.count)))
            .collect();
        for (job, seconds, completions) in overdue {
            let mut ends = self.ends.get(&job).cloned().unwrap_or_default();
            ends.overdue = true;
            let about = format!("{}/{}", job.namespace, job.deployment);
            let done = ends.done_of(completions);
            let words =
                format!("its {seconds} s are over, and {done} of {completions} are done: no more is run");
            self.notice("job-overdue", Some(about), words);
            self.ends.insert(job.clone(), ends.clone());
            self.jobs_over.insert(job.clone());
            if self.job_records.contains_key(&job) || self.job_records.len() < JOBS_TOLD_MAX {
                self.job_records.insert(job, ends);
            }
            self.changed = true;
            self.dirty = true;
        }
    }

    /// Why a container of a job has nothing more to do, if so.
    pub(crate) fn job_is_over(&self, mine: &Mine, desired: &Desired) -> Option<String> {
        desired.deployment.job.as_ref()?;
        let ends = self.ends_of(desired)?;
        if matches!(mine.phase, Phase::Done { .. }) {
            return None;
        }
        // Of another revision as well: the plan has no place for what has ended, and so would never name it.
        if ends.is_done(mine.claim.replica.ordinal) {
            return Some("no more to do: it has ended well elsewhere".to_owned());
        }
        if mine.claim.revision != desired.revision {
            return None;
        }
        let given_up = ends.has_failed(desired.deployment.replicas.count);
        if given_up && ends.overdue {
            return Some("the time of its job is over".to_owned());
        }
        let runs = mine.may_run();
        (given_up && !runs).then(|| "its job has failed: nothing more is started".to_owned())
    }

    /// Whether the container with this node's word is stopped since its job is over.
    pub(crate) fn ends_with_its_job(&self, mine: &Mine) -> bool {
        let key = (mine.claim.replica.namespace.clone(), mine.claim.replica.deployment.clone());
        self.desired.get(&key).is_some_and(|desired| self.job_is_over(mine, desired).is_some())
    }

    /// When the time of the next job is over.
    pub(crate) fn next_job_wake(&self) -> Option<(Time, &'static str)> {
        let all = self.desired.values().filter_map(|it| self.overdue_at(it));
        all.min().map(|at| (at, "the time of a job is over"))
    }

    /// Whether the time of some job has come.
    pub(crate) fn is_a_job_overdue(&self) -> bool {
        self.next_job_wake().is_some_and(|(at, _)| at <= self.now)
    }
}
