//! What a cut would do to a cluster that somebody has: its machines, its deployments and what runs
//! where now become a simulated cluster, which is cut, left alone for as long as asked, and healed.
//!
//! - `found`: the cluster as it is before the cut.
//! - `run`: the cut, the time, the heal; what happened then is read off the kernels.
//!
//! What is told is what the real core does with these numbers. Three things are not those of the real
//! cluster: the ids of nodes and deployments, so that where two nodes are equally good the other one may
//! be chosen; the programs, which here start, never end by themselves and are well; and the images,
//! which every machine holds.
//! Absent on purpose: words for people and pictures, which are the command line's.

mod found;
mod run;

use std::time::Duration;

use model::{Deployment, Name, ReplicaId, Time};

use crate::host::Machine;
use crate::timeline::Life;

/// What is asked. Machines are counted from 0.
#[derive(Clone, Debug)]
pub struct Question {
    /// The machines, 1 to [`model::limits::NODES_MAX`], each with a name of its own.
    pub machines: Vec<Machine>,
    /// The deployments: valid, each with a name of its own in its namespace. Their incarnations are
    /// replaced.
    pub deployments: Vec<Deployment>,
    /// What runs where before the cut. What is wanted beyond it is placed first.
    pub placed: Vec<Placed>,
    /// Between these nothing passes; every machine is in exactly one. A single one: nothing is cut.
    pub islands: Vec<Vec<usize>>,
    /// These lose power when the cut begins, and stay off.
    pub killed: Vec<usize>,
    /// How long it lasts.
    pub lasts: Duration,
    /// Whether everything passes again afterwards.
    pub heals: bool,
    /// Of all chance in it.
    pub seed: u64,
}

/// A replica that runs before the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Namespace of its deployment.
    pub namespace: Name,
    /// Name of its deployment.
    pub name: Name,
    /// Which copy.
    pub ordinal: u32,
    /// On which machine.
    pub machine: usize,
}

/// What would happen.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What ran before the cut.
    pub before: Before,
    /// When the cut began, in the time of `lives`.
    pub cut_at: Time,
    /// When the heal was, or would have been.
    pub over_at: Time,
    /// When it was no longer looked at.
    pub end_at: Time,
    /// Each island at the end of the cut, in the order of the question.
    pub islands: Vec<Island>,
    /// Replicas that more than one machine ran at the same time since the cut began, in their order.
    pub twice: Vec<Twice>,
    /// What the heal did, if there was one.
    pub heal: Option<Heal>,
    /// Everything that ran, from when to when.
    pub lives: Vec<Life>,
}

/// The cluster before the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Wanted replicas.
    pub wanted: usize,
    /// By machine, what it ran.
    pub runs: Vec<Vec<ReplicaId>>,
    /// What had no place.
    pub missing: Vec<Missing>,
}

/// One island at the end of the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Island {
    /// Its machines, those without power included.
    pub machines: Vec<usize>,
    /// By machine, in that order: what it runs.
    pub runs: Vec<Vec<ReplicaId>>,
    /// What is wanted and has no place in it.
    pub missing: Vec<Missing>,
    /// Replicas that were started in it since the cut began.
    pub started: Vec<(ReplicaId, usize)>,
    /// Programs of it that were stopped since the cut began, for another reason than want of power.
    pub stopped: Vec<(ReplicaId, usize)>,
    /// From the cut to its last start or stop; `None` where there was none.
    pub settled: Option<Duration>,
}

/// A replica that has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub replica: ReplicaId,
    /// Each machine's reason, in the planner's words.
    pub reasons: Vec<(usize, String)>,
}

/// A replica that ran more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// Which.
    pub replica: ReplicaId,
    /// The machines that ran it when there were most of them, in the order of their names.
    pub machines: Vec<usize>,
    /// For how long more than one did, in all.
    pub lasted: Duration,
}

/// What a heal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heal {
    /// Until all peers had the same documents and plans; `None` where that did not come.
    pub agreed: Option<Duration>,
    /// Until every replica that has a place ran once; `None` where that did not come.
    pub once: Option<Duration>,
    /// Programs that stopped, each with the machines that went on with that replica.
    pub stopped: Vec<Stopped>,
    /// Programs that were started: replica and machine.
    pub started: Vec<(ReplicaId, usize)>,
    /// By machine, what it ran in the end.
    pub runs: Vec<Vec<ReplicaId>>,
    /// What had no place in the end.
    pub missing: Vec<Missing>,
}

/// A program that the heal stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which replica.
    pub replica: ReplicaId,
    /// Where it stopped.
    pub machine: usize,
    /// Where it went on.
    pub stays: Vec<usize>,
    /// How long after the heal it ended.
    pub after: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// A deployment that no peer would accept.
    #[error("deployment {namespace}/{name} would not be accepted")]
    Refused {
        /// Its namespace.
        namespace: Name,
        /// Its name.
        name: Name,
        /// Why.
        source: Box<document::InsertError>,
    },
    /// The cluster did not come to rest before the cut.
    #[error("the cluster did not come to rest within {within:?} before the cut")]
    Restless {
        /// For how long that was waited for, in virtual time.
        within: Duration,
    },
    /// A rule of the simulated world was broken: a bug of Skerry.
    #[error("the simulation found a bug: {what}")]
    Violation {
        /// What happened.
        what: String,
    },
}
