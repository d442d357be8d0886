//! What must hold at every step, held against the kernels' and the disks' word, never a peer's.
//!
//! - `steps`: at each input and effect: nothing is said or acknowledged that is not on disk, nothing
//!   is invented, no identity is used twice, nothing deleted is started, no last copy is stopped.
//! - `samples`: at instants: one copy of each replica where the world has been quiet, words that agree
//!   with the kernels, equal plans from equal knowledge, starts without a network.
//! - `storms`: nobody speaks without end.
//! - `order`, `work`: what deployments wait for; jobs, what is set aside, machines that are short of something.
//! - `rules`: those of them that can be held to real kernels as well.
//! - `reference`: what the deployments are by the events alone, by a second opinion, at the end.
//!
//! The ids (`S1`, `L6`) are those of docs/simulation.md. What does not hold is a violation of the
//! cluster; a story that has one has failed.

mod order;
mod reference;
pub mod rules;
mod samples;
mod steps;
mod storms;
#[cfg(test)]
mod tests;
mod work;
#[cfg(test)]
mod work_tests;

use std::collections::{BTreeMap, BTreeSet};

use model::{ContainerId, EventId, RecordVersion, ReplicaId, Revision, Signature, Time};

/// What a container was made for: the same for as long as anybody knows its id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    host: usize,
    replica: ReplicaId,
    revision: Revision,
}

/// Containers that a machine came back with, to be looked at then.
#[derive(Clone, Debug)]
struct Booted {
    at: Time,
    host: usize,
    life: u64,
    containers: Vec<ContainerId>,
}

/// What the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// Whether the costly ones are made: those of instants, and of what each message says.
    pub(crate) thorough: bool,
    /// Whether a member lies of itself: what others take to be running is then nobody's fault.
    pub(crate) lied_to: bool,
    signed: BTreeSet<EventId>,
    made: BTreeMap<ContainerId, Made>,
    /// The last record version of each machine, over all lives of its peer.
    versions: BTreeMap<usize, RecordVersion>,
    /// Machines whose disk went back or is held twice: they repeat themselves, see S2 and S14.
    repeats: BTreeSet<usize>,
    /// When a copy of a replica was last lost to a fault, or stopped because it was not wanted.
    excused: BTreeMap<ReplicaId, Time>,
    /// When anything was last done to the world.
    disturbed: Time,
    truth: BTreeMap<usize, rules::Truth<ContainerId>>,
    boots: Vec<Booted>,
    /// Which one record a machine said last, and when: it is looked at once.
    said: Option<(usize, Time, Signature)>,
    /// What is known of jobs.
    pub(crate) work: work::Work,
    /// The number under which each exclusive replica was started last.
    pub(crate) fences: BTreeMap<ReplicaId, u64>,
    /// By machine.
    sent: Vec<storms::Sent>,
    next_sample: Time,
    /// How often each check had something to look at: one that never had says nothing.
    pub(crate) looked: BTreeMap<&'static str, u64>,
}

impl Check {
    pub(crate) fn new(log: &[Vec<u8>]) -> Self {
        let signed = log.iter().map(|event| document::event::id_of(event)).collect();
        Self { thorough: true, signed, ..Self::default() }
    }

    /// Somebody has signed this, whatever becomes of it.
    pub(crate) fn signed(&mut self, event: &[u8]) {
        self.signed.insert(document::event::id_of(event));
    }

    pub(crate) fn restored(&mut self, host: usize) {
        self.repeats.insert(host);
    }

    pub(crate) fn cloned(&mut self, host: usize, clone: usize) {
        self.repeats.extend([host, clone]);
    }

    /// Whether a disk went back or was copied in this story.
    pub(crate) fn has_repeats(&self) -> bool {
        !self.repeats.is_empty()
    }

    /// Machines of which that is so.
    pub(crate) fn repeating(&self) -> Vec<usize> {
        self.repeats.iter().copied().collect()
    }

    /// A machine was set up anew: it is another node from here on, with another past.
    pub(crate) fn set_up_anew(&mut self, host: usize) {
        self.versions.remove(&host);
        self.truth.remove(&host);
        self.repeats.remove(&host);
    }

    pub(crate) fn looks(&mut self, check: &'static str) {
        *self.looked.entry(check).or_insert(0) += 1;
    }
}

impl crate::world::Cluster {
    /// Holds what a peer makes of the events on its disk against a second opinion; what differs.
    pub(crate) fn merges_wrongly(&self, host: usize) -> Option<String> {
        let documents = self.node(host)?.documents();
        reference::differs(&self.hosts[host].disk, documents, &*self.reader)
            .map(|what| format!("S4: n{}: {what}", host + 1))
    }

    /// Whether the costly checks are made: those of instants, and of what each message says. They are,
    /// unless a measurement of large clusters does without. Then peers that have taken in the same events
    /// have one set of documents together, in whatever order the events came.
    pub fn thorough(&mut self, thorough: bool) {
        self.check.thorough = thorough;
        self.reader.library().in_any_order(!thorough);
    }
}
