//! Work that is done once: so many runs that each end well, and then no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deployment::{GroupError, invalid};
use crate::limits::{JOB_COMPLETIONS_MAX, JOB_FAILURES_MAX, JOB_RETRIES_MAX, UPDATE_SECONDS_MAX};
use crate::{EventId, Name, NodeId, Revision};

/// How a job is done. How many runs must end well is the number of its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobGroup {
    /// So many of its replicas run at a time, 1 to [`JOB_COMPLETIONS_MAX`].
    pub parallelism: u32,
    /// So often each replica is run again after it failed, on one node; 0 to [`JOB_RETRIES_MAX`].
    pub retries: u32,
    /// After so many seconds what is not done is stopped, and the job has failed. 1 to
    /// [`UPDATE_SECONDS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
}

impl Default for JobGroup {
    /// One after the other; three retries are over what chance does to one run.
    fn default() -> Self {
        Self { parallelism: 1, retries: 3, deadline_s: None }
    }
}

impl JobGroup {
    pub(crate) fn validate(&self, completions: u32) -> Result<(), GroupError> {
        if completions > JOB_COMPLETIONS_MAX {
            let problem = format!("{completions} asked, the limit is {JOB_COMPLETIONS_MAX}");
            return Err(invalid("job.completions", problem));
        }
        if !(1..=JOB_COMPLETIONS_MAX).contains(&self.parallelism) {
            let problem = format!("{} asked, use 1 to {JOB_COMPLETIONS_MAX}", self.parallelism);
            return Err(invalid("job.parallelism", problem));
        }
        if self.retries > JOB_RETRIES_MAX {
            return Err(invalid(
                "job.retries",
                format!("{} asked, the limit is {JOB_RETRIES_MAX}", self.retries),
            ));
        }
        if self.deadline_s.is_some_and(|it| it == 0 || it > UPDATE_SECONDS_MAX) {
            return Err(invalid("job.deadline", format!("use 1 s to {UPDATE_SECONDS_MAX} s")));
        }
        Ok(())
    }
}

/// Names one job: a template of one creation of a deployment. Another template is other work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId {
    /// Its namespace.
    pub namespace: Name,
    /// Its deployment.
    pub deployment: Name,
    /// The event that created that.
    pub incarnation: EventId,
    /// The template.
    pub revision: Revision,
}

/// A run that ended badly for good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedRun {
    /// Where.
    pub node: NodeId,
    /// Why, for people.
    pub reason: String,
}

/// A node's word of what has ended for good of one job, there and where it heard so. Words of several nodes
/// are joined: the result does not depend on their order, and what is done is never undone again. Of more than
/// [`JOB_FAILURES_MAX`] runs that failed, one may be forgotten when another of them ends well elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnds {
    /// Ordinals that ended well, a bit each: the lowest ordinal is the lowest bit of the first byte.
    pub done: Vec<u8>,
    /// Ordinals that ended badly; the lowest [`JOB_FAILURES_MAX`] of them.
    pub failed: BTreeMap<u32, FailedRun>,
    /// Whether its time was over before it was done.
    pub overdue: bool,
}

impl JobEnds {
    /// Whether that ordinal ended well.
    pub fn is_done(&self, ordinal: u32) -> bool {
        self.done.get(ordinal as usize / 8).is_some_and(|bits| bits & 1 << (ordinal % 8) != 0)
    }

    /// How many of the first so many ordinals ended well.
    pub fn done_of(&self, completions: u32) -> u32 {
        (0..completions).map(|ordinal| u32::from(self.is_done(ordinal))).sum()
    }

    /// Notes that an ordinal ended well. One beyond [`JOB_COMPLETIONS_MAX`] is of no job.
    pub fn add_done(&mut self, ordinal: u32) {
        if ordinal >= JOB_COMPLETIONS_MAX {
            return;
        }
        let at = ordinal as usize / 8;
        if self.done.len() <= at {
            self.done.resize(at + 1, 0);
        }
        self.done[at] |= 1 << (ordinal % 8);
        self.failed.remove(&ordinal);
    }

    /// Notes that an ordinal ended badly, unless it ended well elsewhere.
    pub fn add_failed(&mut self, ordinal: u32, run: FailedRun) {
        if self.is_done(ordinal) {
            return;
        }
        // Of two nodes on which it failed the same one is told everywhere.
        let told = self.failed.entry(ordinal).or_insert_with(|| run.clone());
        if run < *told {
            *told = run;
        }
        while self.failed.len() > JOB_FAILURES_MAX {
            self.failed.pop_last();
        }
    }

    /// Takes in the word of another node.
    pub fn join(&mut self, other: &Self) {
        for (at, bits) in other.done.iter().take(JOB_COMPLETIONS_MAX as usize / 8 + 1).enumerate() {
            for bit in (0..8).filter(|bit| bits & 1 << bit != 0) {
                self.add_done(u32::try_from(at * 8 + bit).unwrap_or(u32::MAX));
            }
        }
        for (ordinal, run) in &other.failed {
            self.add_failed(*ordinal, run.clone());
        }
        self.overdue |= other.overdue;
    }

    /// The runs that failed for good, of those that are wanted.
    pub fn failures_of(&self, completions: u32) -> impl Iterator<Item = (u32, &FailedRun)> {
        self.failed.range(..completions).map(|(ordinal, run)| (*ordinal, run))
    }

    /// Whether nothing more is run of it although not all is done: a run failed for good, or its time is over.
    pub fn has_failed(&self, completions: u32) -> bool {
        (self.overdue || self.failures_of(completions).next().is_some())
            && self.done_of(completions) < completions
    }
}

/// What a node says has ended for good of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Which.
    pub job: JobId,
    /// What.
    pub ends: JobEnds,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: u8) -> FailedRun {
        FailedRun { node: NodeId::from_bytes([node; 32]), reason: "exited with code 1".into() }
    }

    #[test]
    fn words_of_two_islands_join_to_the_same_whoever_is_first_and_well_beats_badly() {
        let (mut a, mut b) = (JobEnds::default(), JobEnds::default());
        for ordinal in [0, 9, 999] {
            a.add_done(ordinal);
        }
        a.add_failed(3, run(1));
        a.add_failed(4, run(1));
        b.add_done(3);
        b.add_failed(0, run(2));
        b.add_failed(4, run(2));
        b.overdue = true;
        let joined = |one: &JobEnds, other: &JobEnds| {
            let mut it = one.clone();
            it.join(other);
            it
        };
        let both = joined(&a, &b);
        assert_eq!(both, joined(&b, &a));
        assert_eq!(both, joined(&both, &a));
        assert!([0, 3, 9, 999].into_iter().all(|it| both.is_done(it)));
        assert_eq!(both.failed, BTreeMap::from([(4, run(1))]));
        assert!(both.has_failed(5));
        assert!(!both.has_failed(1), "all that is asked is done: its time does not matter");
    }

    #[test]
    fn what_a_job_remembers_is_bounded() {
        let mut it = JobEnds::default();
        it.join(&JobEnds { done: vec![255; 100_000], ..JobEnds::default() });
        it.add_done(u32::MAX);
        assert_eq!(it.done.len(), JOB_COMPLETIONS_MAX as usize / 8);
        let mut it = JobEnds::default();
        (0..1_000).for_each(|ordinal| it.add_failed(ordinal, run(1)));
        assert_eq!(it.failed.len(), JOB_FAILURES_MAX);
    }
}
