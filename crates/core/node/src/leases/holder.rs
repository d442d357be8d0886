//! Whoever wants to run a container of an exclusive replica: asks all voters, and counts.
//!
//! Invariants:
//! - a lease lasts from when a majority was asked, each of them in the last asking that it granted: the voters
//!   count from later;
//! - it is shorter by a fiftieth, so that with clocks that drift less than one in a hundred its end comes first;
//! - a number is asked for one attempt, and never again once it was given back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::{ContainerId, NodeId, ReplicaId, Time, majority};
use wire::{LeaseAnswer, LeaseAsk, LeaseEnd, Round, Verdict};

/// The holder counts this part of the term less.
const LESS_BY_PART: u32 = 50;

// A slow clock of the holder, a quick one of the voter, each by one in a hundred: 98 / 0.99 < 100 / 1.01.
const _: () = assert!((100 - 100 / LESS_BY_PART) * 101 < 100 * 99);

/// Askings of which the time is remembered: an answer to an older one is late, and counts for nothing.
const ROUNDS_MAX: usize = 8;

/// So many times in a term a lease is renewed: three may be lost before the program is asked to end.
const RENEWALS_PER_TERM: u32 = 5;

/// The last part of a term is for the program to end in.
const GRACE_PART: u32 = 4;

/// An attempt that has no majority after this gives back what it has: two that each have some would wait for one
/// another.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The least and the most that is waited between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// What one container asks of its voters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holding {
    pub(crate) replica: ReplicaId,
    pub(crate) container: ContainerId,
    me: NodeId,
    voters: Vec<NodeId>,
    term_ms: u32,
    generation: u64,
    /// Asked for now; 0 before the first attempt.
    number: u64,
    /// The greatest number heard of.
    highest: u64,
    rounds: u64,
    /// When the last rounds were asked, the newest last.
    asked: VecDeque<(u64, Time)>,
    /// Who has granted the number, and when the asking was that it granted last.
    granted: BTreeMap<NodeId, Time>,
    /// Who does not, in this attempt, and how long another holds it there.
    refused: BTreeMap<NodeId, Option<(NodeId, u32)>>,
    /// In this attempt nobody refused but for a number that was too low.
    is_behind: bool,
    /// Since when this attempt lasts.
    since: Option<Time>,
    /// No attempt before then.
    not_before: Time,
    /// A program was started under it.
    pub(crate) runs: bool,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    Ask(LeaseAsk),
    End(LeaseEnd),
}

impl Holding {
    /// Begins to want a lease.
    pub(crate) fn new(
        (me, generation): (NodeId, u64),
        replica: ReplicaId,
        container: ContainerId,
        voters: Vec<NodeId>,
        term: Duration,
        now: Time,
    ) -> Self {
        let term_ms = u32::try_from(term.as_millis()).unwrap_or(u32::MAX);
        Self {
            replica,
            container,
            me,
            voters,
            term_ms,
            generation,
            number: 0,
            highest: 0,
            rounds: 0,
            asked: VecDeque::new(),
            granted: BTreeMap::new(),
            refused: BTreeMap::new(),
            is_behind: true,
            since: None,
            not_before: now,
            runs: false,
        }
    }

    /// Asks for none up to that number: it was had before.
    pub(crate) fn know(&mut self, highest: u64) {
        self.highest = self.highest.max(highest);
    }

    /// One whose program runs on from an earlier life of the peer, under that number.
    pub(crate) fn adopt(&mut self, number: u64, now: Time) {
        self.number = number;
        self.highest = number;
        self.since = Some(now);
        self.runs = true;
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms.into())
    }

    /// One voter is the node that runs it: nobody else is ever granted one, and so it does not end by time.
    pub(crate) fn is_at_home(&self) -> bool {
        self.voters.len() == 1
    }

    /// When the lease ends; `None` while there is none.
    pub(crate) fn ends(&self) -> Option<Time> {
        let needed = majority(self.voters.len());
        if self.granted.len() < needed {
            return None;
        }
        let mut since: Vec<Time> = self.granted.values().copied().collect();
        since.sort_unstable_by(|a, b| b.cmp(a));
        Some(since[needed - 1] + self.term() / LESS_BY_PART * (LESS_BY_PART - 1))
    }

    /// Whether it has a lease at `now`.
    pub(crate) fn is_held(&self, now: Time) -> bool {
        self.ends().is_some_and(|ends| self.is_at_home() || now < ends)
    }

    /// From when on its program is to end by itself, where no majority renews the lease until then.
    pub(crate) fn runs_out(&self) -> Option<Time> {
        let ends = self.ends().filter(|_| !self.is_at_home())?;
        let grace = u64::from(self.term_ms) * 1_000_000 / u64::from(GRACE_PART);
        Some(Time::from_nanos(ends.as_nanos().saturating_sub(grace)))
    }

    /// Whether that time has come.
    pub(crate) fn is_running_out(&self, now: Time) -> bool {
        self.runs && self.runs_out().is_some_and(|at| at <= now)
    }

    /// Why it has none, for people. `name` says what a node is called.
    pub(crate) fn waits_for(&self, name: impl Fn(&NodeId) -> String) -> String {
        let of = self.voters.len();
        let holder = self.refused.values().flatten().max_by_key(|(_, left)| *left);
        match holder {
            Some((node, left)) => {
                format!("waits for its lease: {} may hold it for {} s more", name(node), left.div_ceil(1_000))
            }
            None => format!(
                "waits for its lease: {} of {of} voters have granted it, {} needed",
                self.granted.len(),
                majority(of)
            ),
        }
    }

    /// Asks all voters, or those that have not answered in this attempt.
    fn ask(&mut self, now: Time) -> Vec<(NodeId, Say)> {
        self.rounds += 1;
        if self.asked.len() >= ROUNDS_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((self.rounds, now));
        let renews = self.is_held(now);
        let ask = LeaseAsk {
            replica: self.replica.clone(),
            container: self.container,
            number: self.number,
            term_ms: self.term_ms,
            renews,
            round: Round { generation: self.generation, count: self.rounds },
        };
        self.voters.iter().map(|voter| (*voter, Say::Ask(ask.clone()))).collect()
    }

    /// What is to be done at `now`. `jitter`: 0 to 99, by which attempts of two nodes come apart.
    pub(crate) fn tick(&mut self, now: Time, jitter: u32) -> Vec<(NodeId, Say)> {
        if self.next_wake().is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.runs || self.is_held(now) {
            return self.ask(now);
        }
        if self.since.is_some() {
            return self.give_up(now, jitter);
        }
        self.number = self.highest.max(self.number) + 1;
        self.since = Some(now);
        self.granted.clear();
        self.refused.clear();
        self.is_behind = true;
        self.ask(now)
    }

    /// A voter can be reached again. What was asked of it meanwhile was lost, and a lease that was taken over
    /// may have little time left.
    pub(crate) fn link_is_up(&mut self, now: Time, voter: NodeId) -> Vec<(NodeId, Say)> {
        let asks = self.voters.contains(&voter) && (self.runs || self.since.is_some());
        if asks { self.ask(now) } else { Vec::new() }
    }

    /// When there is something to do next.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let last = self.asked.back().map(|(_, at)| *at);
        if self.runs || self.ends().is_some() {
            if self.is_at_home() && self.ends().is_some() {
                return None;
            }
            return Some(last.map_or(self.not_before, |at| at + self.term() / RENEWALS_PER_TERM));
        }
        Some(self.since.map_or(self.not_before, |since| since + ATTEMPT))
    }

    /// Gives back what this attempt was granted, and waits for the next.
    fn give_up(&mut self, now: Time, jitter: u32) -> Vec<(NodeId, Say)> {
        let needed = majority(self.voters.len());
        // When enough of those that refuse may be free.
        let mut lefts: Vec<u32> =
            self.refused.values().map(|held| held.map_or(0, |(_, left_ms)| left_ms)).collect();
        lefts.sort_unstable();
        let lacking = needed.saturating_sub(self.granted.len());
        let left = lacking.checked_sub(1).and_then(|at| lefts.get(at)).copied().unwrap_or(0);
        let pause = Duration::from_millis(left.into()).clamp(PAUSE.0, PAUSE.1);
        self.not_before = now + pause + PAUSE.0 * jitter / 100;
        if self.is_behind && !self.refused.is_empty() && self.highest >= self.number {
            self.not_before = now;
        }
        self.since = None;
        self.granted.clear();
        self.end()
    }

    /// Gives the lease back, of all voters: some may have granted it and not been heard.
    pub(crate) fn end(&self) -> Vec<(NodeId, Say)> {
        let end = LeaseEnd { replica: self.replica.clone(), container: self.container, number: self.number };
        self.voters.iter().map(|voter| (*voter, Say::End(end.clone()))).collect()
    }

    /// A voter has answered. What is said of another number, or too late, counts for nothing.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        voter: NodeId,
        answer: &LeaseAnswer,
        jitter: u32,
    ) -> Vec<(NodeId, Say)> {
        let Round { generation, count } = answer.round;
        let asked = self.asked.iter().find(|(round, _)| *round == count).map(|(_, at)| *at);
        let (Some(asked), true) = (asked, self.voters.contains(&voter)) else { return Vec::new() };
        if generation != self.generation || answer.number != self.number || self.since.is_none() {
            return Vec::new();
        }
        match answer.verdict {
            Verdict::Granted => {
                let since = self.granted.entry(voter).or_insert(asked);
                *since = (*since).max(asked);
                self.refused.remove(&voter);
            }
            Verdict::Refused { highest, held } => {
                self.highest = self.highest.max(highest);
                let held = held.filter(|(node, _)| *node != self.me);
                self.is_behind &= held.is_none() && highest >= self.number;
                self.refused.insert(voter, held);
            }
            Verdict::Unknown | Verdict::Unable => {
                self.is_behind = false;
                self.refused.insert(voter, None);
            }
        }
        let granted: BTreeSet<&NodeId> = self.granted.keys().collect();
        let against = self.refused.keys().filter(|it| !granted.contains(it)).count();
        let is_lost = against > self.voters.len() - majority(self.voters.len());
        if is_lost && !self.runs && !self.is_held(now) { self.give_up(now, jitter) } else { Vec::new() }
    }

    /// With [`model::Sabotage::TermFromAnswer`]: whoever granted is taken to have been asked now.
    pub(crate) fn count_from_answer(&mut self, now: Time, voter: NodeId) {
        if let Some(since) = self.granted.get_mut(&voter) {
            *since = now;
        }
    }
}
