//! Every order of a small scope: three voters, two that want one replica, and so many faults: a message is lost, or
//! held back and overtaken; a voter is switched off and on; a peer stands still; a program ends by itself. Never do
//! two run, and each that is started has a greater number than those before.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{ContainerId, EventId, Name, NodeId, ReplicaId, Time};
use wire::{LeaseAnswer, LeaseAsk, LeaseEnd};

use super::holder::{Holding, Say};
use super::voter::{Vote, Voter};

const TERM: Duration = Duration::from_secs(1);
/// Less than a term by little, so that a renewal can come in time, and more than half of one.
const STEP: Duration = Duration::from_millis(540);
const STEPS: u32 = 3;
/// Askings of each of the two.
const ROUNDS: u32 = 2;
/// Messages that are lost or held back, voters that are switched off and on, peers that stand still, and programs
/// that end by themselves, together.
const FAULTS: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    GrantsForgotten,
    GrantsToAll,
    TermFromAnswer,
    /// Each asking passes for that of whoever holds the lease.
    AllRenew,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Letter {
    Ask(usize, usize, Box<(ReplicaId, ContainerId, u64, u32, bool, wire::Round)>),
    Answer(usize, usize, Box<(ReplicaId, ContainerId, u64, wire::Round, Heard)>),
    End(usize, usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Granted,
    Refused(u64, Option<(NodeId, u32)>),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    steps: u32,
    voters: [Voter; 3],
    holders: [Holding; 2],
    rounds: [u32; 2],
    /// Until when a program of each runs, if it does.
    runs: [Option<Time>; 2],
    /// One whose program has ended wants no more.
    done: [bool; 2],
    faults: u32,
    /// The greatest number that was started, and whether one was started that was not greater.
    started: (u64, bool),
    /// Held back.
    letters: BTreeSet<Letter>,
}

fn voter_id(at: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(at).unwrap() + 1; 32])
}

fn holder_id(at: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(at).unwrap() + 101; 32])
}

fn replica() -> ReplicaId {
    let incarnation = EventId::from_bytes([3; 32]);
    let deployment: Name = "till".parse().unwrap();
    ReplicaId { namespace: Name::default_namespace(), deployment, incarnation, ordinal: 0 }
}

impl World {
    fn new(fault: Fault) -> Self {
        let mut voters = [Voter::default(), Voter::default(), Voter::default()];
        if fault == Fault::GrantsToAll {
            voters.iter_mut().for_each(Voter::be_lavish);
        }
        let all: Vec<NodeId> = (0..3).map(voter_id).collect();
        let container = |at: usize| ContainerId::from_bytes([u8::try_from(at).unwrap(); 8]);
        let holder = |at: usize| {
            Holding::new((holder_id(at), 1), replica(), container(at), all.clone(), TERM, Time::ZERO)
        };
        Self {
            steps: 0,
            voters,
            holders: [holder(0), holder(1)],
            rounds: [0; 2],
            runs: [None; 2],
            done: [false; 2],
            faults: 0,
            started: (0, false),
            letters: BTreeSet::new(),
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + STEP * self.steps
    }

    /// What is said arrives at once, or is lost or held back: every choice.
    fn says(self, from: usize, says: Vec<(NodeId, Say)>, fault: Fault) -> Vec<Self> {
        let mut worlds = vec![self];
        for (to, say) in says {
            let to = (0..3).find(|at| voter_id(*at) == to).unwrap();
            let letter = match say {
                Say::Ask(it) => Letter::Ask(
                    from,
                    to,
                    Box::new((it.replica, it.container, it.number, it.term_ms, it.renews, it.round)),
                ),
                Say::End(it) => Letter::End(from, to, it.number),
            };
            worlds = worlds.into_iter().flat_map(|world| world.sends(&letter, fault)).collect();
        }
        worlds
    }

    fn sends(self, letter: &Letter, fault: Fault) -> Vec<Self> {
        let mut worlds = Vec::new();
        if self.faults < FAULTS {
            let mut lost = self.clone();
            lost.faults += 1;
            let mut late = lost.clone();
            worlds.push(lost);
            if late.letters.insert(letter.clone()) {
                worlds.push(late);
            }
        }
        worlds.extend(self.arrives(letter, fault));
        worlds
    }

    fn arrives(&self, letter: &Letter, fault: Fault) -> Vec<Self> {
        let mut world = self.clone();
        world.letters.remove(letter);
        let now = world.now();
        match letter.clone() {
            Letter::Ask(from, to, ask) => {
                let (replica, container, number, term_ms, renews, round) = *ask;
                let renews = renews || fault == Fault::AllRenew;
                let ask = LeaseAsk { replica, container, number, term_ms, renews, round };
                let verdict = match world.voters[to].asked(now, holder_id(from), &ask) {
                    Vote::Answer(verdict) => Some(verdict),
                    Vote::Keep(grant) => world.voters[to]
                        .written(&grant.replica, grant.number, grant.holder, true)
                        .map(|(_, answer)| answer.verdict),
                    Vote::Later => None,
                };
                let heard = match verdict {
                    Some(wire::Verdict::Granted) => Heard::Granted,
                    Some(wire::Verdict::Refused { highest, held }) => Heard::Refused(highest, held),
                    Some(wire::Verdict::Unknown | wire::Verdict::Unable) | None => Heard::Other,
                };
                let answer = Box::new((ask.replica, ask.container, number, round, heard));
                world.sends(&Letter::Answer(to, from, answer), fault)
            }
            Letter::Answer(from, to, answer) => {
                let (replica, container, number, round, heard) = *answer;
                let verdict = match heard {
                    Heard::Granted => wire::Verdict::Granted,
                    Heard::Refused(highest, held) => wire::Verdict::Refused { highest, held },
                    Heard::Other => wire::Verdict::Unable,
                };
                let answer = LeaseAnswer { replica, container, number, round, verdict };
                let says = world.holders[to].answered(now, voter_id(from), &answer, 0);
                if fault == Fault::TermFromAnswer {
                    world.holders[to].count_from_answer(now, voter_id(from));
                }
                if let (Some(until), Some(ends)) = (&mut world.runs[to], world.holders[to].ends()) {
                    *until = ends.max(*until);
                }
                world.says(to, says, fault)
            }
            Letter::End(from, to, number) => {
                let container = world.holders[from].container;
                let end = LeaseEnd { replica: replica(), container, number };
                world.voters[to].ended(holder_id(from), &end.replica, end.container, end.number);
                vec![world]
            }
        }
    }

    fn may_ask(&self, at: usize) -> bool {
        let due = self.holders[at].next_wake().is_some_and(|due| due <= self.now());
        due && self.rounds[at] < ROUNDS && !self.done[at]
    }

    /// All that can happen next.
    fn next(&self, fault: Fault) -> Vec<Self> {
        let now = self.now();
        let mut next = Vec::new();
        for letter in &self.letters {
            next.extend(self.arrives(letter, fault));
        }
        for at in 0..2 {
            let mut world = self.clone();
            if self.may_ask(at) {
                world.rounds[at] += 1;
                let says = world.holders[at].tick(now, 0);
                next.extend(world.says(at, says, fault));
            }
            let mut world = self.clone();
            if self.holders[at].is_held(now) && self.runs[at].is_none() && !self.done[at] {
                world.runs[at] = self.holders[at].ends();
                let number = self.holders[at].number();
                world.started = (number.max(self.started.0), number <= self.started.0);
                world.holders[at].runs = true;
                next.push(world);
            } else if self.runs[at].is_some() && self.faults < FAULTS {
                // It ends by itself, and its lease is given back.
                world.runs[at] = None;
                world.done[at] = true;
                world.faults += 1;
                let says = world.holders[at].end();
                next.extend(world.says(at, says, fault));
            }
        }
        if self.faults < FAULTS {
            for at in 0..3 {
                let mut world = self.clone();
                let disk = world.voters[at].on_disk();
                let disk = if fault == Fault::GrantsForgotten { Vec::new() } else { disk };
                world.voters[at] = Voter::new(disk, now);
                world.faults += 1;
                next.push(world);
            }
        }
        let stands_still = (0..2).any(|at| self.may_ask(at));
        if self.steps < STEPS && (!stands_still || self.faults < FAULTS) {
            let mut world = self.clone();
            world.steps += 1;
            world.faults += u32::from(stands_still);
            let now = world.now();
            for at in 0..2 {
                // The kernel keeps the deadline.
                if world.runs[at].is_some_and(|until| until <= now) {
                    world.runs[at] = None;
                    world.done[at] = true;
                }
            }
            next.push(world);
        }
        next
    }
}

/// How many states there are, or one in which two run.
fn search(fault: Fault) -> Result<usize, Box<World>> {
    let first = World::new(fault);
    let mut seen = BTreeSet::from([first.clone()]);
    let mut todo = vec![first];
    while let Some(world) = todo.pop() {
        for next in world.next(fault) {
            if next.runs.iter().all(Option::is_some) || next.started.1 {
                return Err(Box::new(next));
            }
            if !seen.contains(&next) {
                seen.insert(next.clone());
                todo.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn in_no_order_do_two_hold_a_lease() {
    let states = search(Fault::None).expect("never two");
    eprintln!("{states} states of three voters and two that want one replica");
    assert!(states > 10_000, "{states} states are no search");
}

#[test]
fn each_fault_of_a_voter_or_holder_lets_two_run() {
    for fault in [Fault::GrantsForgotten, Fault::GrantsToAll, Fault::TermFromAnswer, Fault::AllRenew] {
        assert!(search(fault).is_err(), "{fault:?} is not found");
    }
}
