//! The life of one container of this node, as the core sees it.

use std::collections::BTreeSet;

use model::{Capacity, ContainerId, ContainerRecord, ContainerState, ReplicaId, RestartPolicy, Time};

use crate::io::{Claim, Exit};

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Claimed; to be started as soon as its image is here.
    Waiting,
    /// The shell was told to start it.
    Starting,
    /// Its program runs.
    Running {
        /// Since when.
        since: Time,
    },
    /// It ended and is started again then.
    BackOff {
        /// When.
        until: Time,
    },
    /// The shell was told to stop it; afterwards it is removed.
    Stopping,
    /// It ended for good, by its restart policy.
    Done {
        /// Whether as it should.
        well: bool,
    },
    /// The shell was told to remove what is left of it.
    Removing,
}

/// One container of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mine {
    /// Which.
    pub id: ContainerId,
    /// What it runs, and for which replica.
    pub claim: Claim,
    /// What it is doing.
    pub phase: Phase,
    /// Whether it is healthy, where that is known.
    pub healthy: Option<bool>,
    /// Its first process as the host sees it.
    pub pid: Option<u32>,
    /// When it was started, in milliseconds of Unix time.
    pub started_ms: Option<i64>,
    /// Failures in a row.
    pub failures: u32,
    /// Why it is not running, for people.
    pub reason: Option<String>,
    /// Containers elsewhere that may stop on its word.
    pub confirms: Vec<ContainerId>,
    /// All that it ever confirmed in this life of the peer, of those that are still told of.
    pub confirmed: BTreeSet<ContainerId>,
    /// Whether it has been well for as long as its update asks.
    pub ready: bool,
    /// Whether it has been well for as long as others wait for it as a canary.
    pub proven: bool,
    /// Whether it ever was, in this life of the peer.
    pub was_ready: bool,
    /// Whether it was claimed in this life of the peer.
    pub is_new: bool,
    /// When that was, or when the peer began.
    pub claimed_at: Time,
    /// Whether it was stopped before its next revision was started, since the update lets it.
    pub stopped_first: bool,
    /// What it is stopped for, if it makes room.
    pub yields_to: Option<ReplicaId>,
}

impl Mine {
    /// A fresh claim.
    pub(crate) const fn new(id: ContainerId, claim: Claim, now: Time) -> Self {
        Self {
            id,
            claim,
            phase: Phase::Waiting,
            healthy: None,
            pid: None,
            started_ms: None,
            failures: 0,
            reason: None,
            confirms: Vec::new(),
            confirmed: BTreeSet::new(),
            ready: false,
            proven: false,
            was_ready: false,
            is_new: false,
            claimed_at: now,
            stopped_first: false,
            yields_to: None,
        }
    }

    /// Whether it takes room.
    pub(crate) const fn holds(&self) -> bool {
        !matches!(self.phase, Phase::Done { .. } | Phase::Removing)
    }

    /// Whether it stands for its replica.
    pub(crate) const fn is_claim(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Starting | Phase::Running { .. } | Phase::BackOff { .. })
    }

    /// Whether something of it may run.
    pub(crate) const fn may_run(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running { .. } | Phase::Stopping)
    }

    /// Whether it is all that it can become.
    pub(crate) const fn is_settled(&self) -> bool {
        self.ready && self.proven
    }

    /// Whether what is left of it is being removed.
    pub(crate) const fn is_removed(&self) -> bool {
        matches!(self.phase, Phase::Removing)
    }

    /// Whether it runs and is healthy.
    pub(crate) fn is_healthy(&self) -> bool {
        matches!(self.phase, Phase::Running { .. }) && self.healthy == Some(true)
    }

    /// It is to be started again. What was lost with its machine has not had its run.
    pub(crate) fn count_restart(&mut self, lost: bool) {
        self.claim.restarts += 1;
        self.claim.failed_runs += u32::from(self.claim.run.retries.is_some() && !lost);
    }

    /// Its room.
    pub(crate) const fn resources(&self) -> &Capacity {
        &self.claim.run.resources
    }

    /// Whether its restart policy lets it end there.
    pub(crate) fn ends_with(&self, exit: &Exit) -> Option<bool> {
        let well = exit.code == Some(0) && !exit.oom;
        // A container that was lost, not ended, by a crash of the machine has not had its run.
        match self.claim.run.restart {
            RestartPolicy::Always => None,
            _ if exit.lost.is_some() => None,
            RestartPolicy::OnFailure => well.then_some(true),
            RestartPolicy::Never if !well && self.may_be_tried_again() => None,
            RestartPolicy::Never => Some(well),
        }
    }

    /// Whether it is of a job, and a run that fails is done again.
    pub(crate) fn may_be_tried_again(&self) -> bool {
        self.claim.run.retries.is_some_and(|retries| self.claim.failed_runs < retries)
    }

    /// As it is told to others.
    pub(crate) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id,
            replica: self.claim.replica.clone(),
            revision: self.claim.revision,
            revision_number: self.claim.revision_number,
            claim: self.claim.number,
            resources: self.resources().clone(),
            state: match self.phase {
                Phase::Waiting | Phase::BackOff { .. } => ContainerState::Pending,
                Phase::Starting => ContainerState::Starting,
                Phase::Running { .. } => ContainerState::Running,
                Phase::Stopping => ContainerState::Stopping,
                Phase::Done { well: true } | Phase::Removing => ContainerState::Exited,
                Phase::Done { well: false } => ContainerState::Failed,
            },
            healthy: self.healthy,
            ready: self.ready,
            proven: self.proven,
            pid: self.pid,
            started_ms: self.started_ms,
            restarts: self.claim.restarts,
            reason: self.reason.as_deref().map(short),
            confirms: self.confirms.clone(),
            yields_to: self.yields_to.clone(),
        }
    }
}

/// Bytes of a reason in a record: a sentence. A full node's record must fit one frame.
const REASON_BYTES_MAX: usize = 200;

/// A reason, no longer than a record may hold.
pub(crate) fn short(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

/// How a container ended, in words.
pub(crate) fn describe(exit: &Exit) -> String {
    match exit {
        Exit { lost: Some(why), .. } => format!("lost: {why}"),
        Exit { oom: true, .. } => "out of memory: killed by the kernel at its memory limit".to_owned(),
        Exit { signal: Some(signal), .. } => format!("killed by signal {signal}"),
        Exit { code: Some(code), .. } => format!("exited with code {code}"),
        Exit { .. } => "ended in an unknown way".to_owned(),
    }
}
