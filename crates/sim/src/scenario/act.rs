//! What a scenario does, and when. Nodes are counted from 0.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use document::event::Schedule;
use model::{Capacity, Name};

use super::condition::Condition;
use crate::author::Spec;
use crate::faults::User;

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub act: Act,
    /// Where it is written.
    pub line: usize,
}

/// What is done, or expected.
#[derive(Clone, Debug)]
pub enum Act {
    /// Apply a whole deployment.
    Deploy(User, usize, Name, Box<Spec>),
    /// Set some groups of one: group and JSON.
    Set(User, usize, Name, Vec<(&'static str, String)>),
    /// Make all replicas anew.
    Restart(User, usize, Name),
    /// Delete one.
    Delete(User, usize, Name),
    /// Hand in the last event again.
    Retry(usize),
    /// Change the labels of a deployment so often, with so much time between.
    Edits(User, usize, Name, u32, Duration),
    /// Remove the second node through the first.
    RemoveNode(usize, usize),
    /// Through a peer it is said whether a node takes work, and how long a drain may take.
    Schedule(usize, usize, Schedule, Option<Duration>),
    /// Let the second, as a fresh machine, join through the first.
    Join(usize, usize),
    /// Let nothing pass between groups.
    Split(Vec<Vec<usize>>),
    /// Let nothing pass from the first to the second.
    OneWay(usize, usize),
    /// Let nothing pass between any of the first and any of the second.
    Bridge(Vec<usize>, Vec<usize>),
    /// Cut and mend links again and again.
    Flap(Flap),
    /// Lose so many datagrams, in thousandths.
    Loss(u32),
    /// Let everything pass.
    Heal,
    /// Cut the power.
    PowerOff(Vec<usize>),
    /// Cut the power in the moment in which the last event is acknowledged.
    PowerOffOnAck(Vec<usize>),
    /// Kill peers.
    StopPeer(Vec<usize>),
    /// Switch machines on, or start their peers.
    Start(Vec<usize>),
    /// Fill disks, or free them.
    DiskFull(Vec<usize>, bool),
    /// Copy disks, each into a machine more, which is switched on: two with one key.
    CopyDisk(Vec<usize>),
    /// Set clocks to this time, in seconds of Unix time.
    Clock(Vec<usize>, i64),
    /// Offer so much, from the next start of the peer on.
    Capacity(Vec<usize>, Capacity),
    /// Let something wait for memory, in hundredths of a percent of the time.
    Pressure(Vec<usize>, u16),
    /// End all programs of a deployment there with this exit code.
    Crash(Name, Vec<usize>, i32),
    /// From their next start on, programs end by themselves.
    CrashLoop(CrashLoop),
    /// From their next start on, programs of a deployment run again.
    Mend(Name),
    /// Remember what runs and what is known, for what looks back.
    Remember,
    /// Something must be so all the time until then, while further steps are taken.
    Watch(Condition, Duration),
    /// Something must come true, and stay so.
    Expect(Expectation),
}

/// A link that goes and comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flap {
    /// One side.
    pub one: Vec<usize>,
    /// The other.
    pub other: Vec<usize>,
    /// How long it is cut each time.
    pub down: Duration,
    /// How long it is whole each time.
    pub up: Duration,
    /// How long this goes on. It ends whole.
    pub lasts: Duration,
}

impl Flap {
    /// What is cut, both ways.
    pub(super) fn pairs(&self) -> BTreeSet<(usize, usize)> {
        let pairs = self.one.iter().flat_map(|a| self.other.iter().map(move |b| (*a, *b)));
        pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
    }
}

/// Programs that end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashLoop {
    /// Of which deployment.
    pub of: Name,
    /// Where.
    pub on: Vec<usize>,
    /// Only those with these variables.
    pub env: BTreeMap<String, String>,
    /// How long they run each time.
    pub after: Duration,
    /// Their exit code.
    pub code: i32,
}

/// Something that must come true.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What.
    pub condition: Condition,
    /// How long it may take.
    pub within: Duration,
    /// How long it must stay so from then on.
    pub holds: Duration,
}
