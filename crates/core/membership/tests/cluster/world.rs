//! Many nodes, one thread, virtual time: datagrams that are late or lost, links that break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use membership::{Effect, Liveness, Membership, Settings};
use model::{NodeId, Time};

/// A small generator of chance for the network; the nodes have their own.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

pub(crate) fn id(n: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8] = 1;
    NodeId::from_bytes(bytes)
}

/// Another node whose id begins like that of `n`.
pub(crate) fn twin(n: usize) -> NodeId {
    let mut bytes = *id(n).as_bytes();
    bytes[31] = 9;
    NodeId::from_bytes(bytes)
}

#[derive(Debug)]
enum Event {
    Arrives { from: usize, to: usize, bytes: Vec<u8> },
    PushPull { from: usize, to: usize, bytes: Vec<u8>, answer: bool },
}

/// Who changed its mind, about whom, when, to what and why.
pub(crate) type Change = (usize, usize, Time, Liveness, &'static str);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) loss_percent: u64,
    /// Packets that arrive twice.
    pub(crate) twice_percent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) sent_packets: u64,
    pub(crate) wakes: u64,
    pub(crate) sent_to: BTreeSet<usize>,
    pub(crate) changes: Vec<Change>,
    /// A running hash of every datagram that was sent.
    pub(crate) trace: u64,
    pub(crate) keep_packets: bool,
    pub(crate) packets: Vec<Vec<u8>>,
    nodes: Vec<Membership>,
    generations: Vec<u64>,
    alive: Vec<bool>,
    blocked: BTreeSet<(usize, usize)>,
    events: BTreeMap<(Time, u64), Event>,
    wake_at: Vec<Option<Time>>,
    count: u64,
    ids: Vec<NodeId>,
    index: BTreeMap<NodeId, usize>,
    chance: Chance,
    seed: u64,
}

impl World {
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        Self::with_ids(&(0..nodes).map(id).collect::<Vec<_>>(), seed)
    }

    pub(crate) fn with_ids(ids: &[NodeId], seed: u64) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            loss_percent: 0,
            twice_percent: 0,
            sent_bytes: 0,
            sent_packets: 0,
            wakes: 0,
            sent_to: BTreeSet::new(),
            changes: vec![],
            trace: 0,
            keep_packets: false,
            packets: vec![],
            nodes: vec![],
            generations: vec![1; ids.len()],
            alive: vec![true; ids.len()],
            blocked: BTreeSet::new(),
            events: BTreeMap::new(),
            wake_at: vec![None; ids.len()],
            count: 0,
            ids: ids.to_vec(),
            index: ids.iter().enumerate().map(|(n, id)| (*id, n)).collect(),
            chance: Chance::new(seed),
            seed,
        };
        for n in 0..ids.len() {
            world.nodes.push(world.fresh(n, 1));
        }
        for n in 0..ids.len() {
            world.enter(n);
        }
        world
    }

    fn fresh(&self, n: usize, generation: u64) -> Membership {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&(n as u64).to_be_bytes());
        seed[16..24].copy_from_slice(&generation.to_be_bytes());
        Membership::new(self.ids[n], generation, seed, Settings::lan())
    }

    /// Gives a node its roster and its links.
    fn enter(&mut self, n: usize) {
        let roster: BTreeSet<NodeId> = self.ids.iter().copied().collect();
        self.set_roster(n, &roster);
        for other in 0..self.ids.len() {
            if other != n && self.alive[other] && other < self.nodes.len() {
                self.link(n, other);
            }
        }
    }

    /// A link came up: both sides are told, and exchange what they know.
    fn link(&mut self, a: usize, b: usize) {
        if self.blocked.contains(&(a, b)) || self.blocked.contains(&(b, a)) {
            return;
        }
        let now = self.now;
        for (near, far) in [(a, b), (b, a)] {
            let far_id = self.ids[far];
            self.nodes[near].connected(now, far_id);
            self.settle(near);
        }
        self.start_push_pull(a, b);
    }

    pub(crate) fn node(&mut self, n: usize) -> &mut Membership {
        &mut self.nodes[n]
    }

    pub(crate) fn set_roster(&mut self, n: usize, roster: &BTreeSet<NodeId>) {
        let now = self.now;
        self.nodes[n].set_roster(now, roster);
        self.settle(n);
    }

    pub(crate) fn sees(&self, of: usize, node: usize) -> Liveness {
        self.nodes[of].liveness(&self.ids[node])
    }

    pub(crate) fn all_up(&self) -> bool {
        let living: Vec<usize> = (0..self.ids.len()).filter(|n| self.alive[*n]).collect();
        living.iter().all(|a| living.iter().all(|b| self.sees(*a, *b) == Liveness::Up))
    }

    pub(crate) fn kill(&mut self, n: usize) {
        self.alive[n] = false;
    }

    /// Goes on where it stood when it was killed.
    pub(crate) fn go_on(&mut self, n: usize) {
        self.alive[n] = true;
        self.settle(n);
    }

    pub(crate) fn start_again(&mut self, n: usize) {
        self.start_again_as(n, self.generations[n] + 1);
    }

    pub(crate) fn start_again_as(&mut self, n: usize, generation: u64) {
        self.generations[n] = generation;
        self.alive[n] = true;
        self.nodes[n] = self.fresh(n, generation);
        self.enter(n);
    }

    /// Nothing arrives any more from `from` at `to`.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn split(&mut self, near: &BTreeSet<usize>) {
        for a in 0..self.ids.len() {
            for b in 0..self.ids.len() {
                if near.contains(&a) != near.contains(&b) {
                    self.blocked.insert((a, b));
                }
            }
        }
    }

    /// Links work again, and the transport says so.
    pub(crate) fn heal(&mut self) {
        let healed = std::mem::take(&mut self.blocked);
        for (a, b) in healed {
            if a < b {
                self.link(a, b);
            }
        }
    }

    /// Links work again, and nobody is told.
    pub(crate) fn heal_quietly(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Runs until `done`, at most for `span`; how long it took.
    pub(crate) fn run_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        let end = start + span;
        let mut seen = usize::MAX;
        loop {
            // Only a change of mind can make it done, and asking is dear.
            if seen != self.changes.len() {
                seen = self.changes.len();
                if done(self) {
                    return Some(self.now - start);
                }
            }
            if !self.step(end) {
                self.now = end;
                return None;
            }
        }
    }

    fn step(&mut self, end: Time) -> bool {
        let wake = (0..self.nodes.len()).filter_map(|n| Some((self.wake_at[n]?, n))).min();
        let event = self.events.first_key_value().map(|(key, _)| key.0);
        match (wake, event) {
            (Some((at, n)), event) if at <= end && event.is_none_or(|event| at <= event) => {
                self.now = at.max(self.now);
                if self.alive[n] {
                    self.wakes += 1;
                    let now = self.now;
                    self.nodes[n].tick(now);
                    if let Some(partner) = self.nodes[n].push_pull_due(now) {
                        let partner = self.index[&partner];
                        self.start_push_pull(n, partner);
                    }
                }
                self.settle(n);
                true
            }
            (_, Some(at)) if at <= end => {
                let (_, event) = self.events.pop_first().unwrap();
                self.now = at.max(self.now);
                self.happen(event);
                true
            }
            _ => false,
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives { from, to, bytes } => {
                if self.alive[to] {
                    let from = self.ids[from];
                    // Strangers and gaps in rosters are part of some tests.
                    drop(self.nodes[to].datagram(now, from, &bytes));
                    self.settle(to);
                }
            }
            Event::PushPull { from, to, bytes, answer } => {
                if self.alive[to] {
                    let from_id = self.ids[from];
                    let taken = self.nodes[to].push_pull_in(now, from_id, &bytes).is_ok();
                    self.settle(to);
                    if taken && !answer {
                        let bytes = self.nodes[to].push_pull_out();
                        self.post(Event::PushPull { from: to, to: from, bytes, answer: true });
                    }
                }
            }
        }
    }

    fn start_push_pull(&mut self, from: usize, to: usize) {
        let cut = self.blocked.contains(&(from, to)) || self.blocked.contains(&(to, from));
        if !cut && self.alive[to] {
            let bytes = self.nodes[from].push_pull_out();
            self.post(Event::PushPull { from, to, bytes, answer: false });
        }
    }

    fn post(&mut self, event: Event) {
        let latency = Duration::from_micros(300 + self.chance.next() % 1_500);
        self.count += 1;
        self.events.insert((self.now + latency, self.count), event);
    }

    /// Carries out what a node wants.
    fn settle(&mut self, n: usize) {
        for effect in self.nodes[n].take_effects() {
            match effect {
                Effect::Datagram { to, bytes } => {
                    let to = self.index[&to];
                    self.sent_bytes += bytes.len() as u64;
                    self.sent_packets += 1;
                    self.sent_to.insert(to);
                    for byte in &bytes {
                        self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
                    }
                    if self.keep_packets {
                        self.packets.push(bytes.clone());
                    }
                    let lost = self.chance.next() % 100 < self.loss_percent;
                    if !lost && self.alive[n] && !self.blocked.contains(&(n, to)) {
                        if self.twice_percent > 0 && self.chance.next() % 100 < self.twice_percent {
                            self.post(Event::Arrives { from: n, to, bytes: bytes.clone() });
                        }
                        self.post(Event::Arrives { from: n, to, bytes });
                    }
                }
                Effect::Change { node, now, reason } => {
                    self.changes.push((n, self.index[&node], self.now, now, reason));
                }
                Effect::Dispute { .. } => {} // Everybody is linked to everybody here, or dead.
                Effect::Fault { text } => panic!("node {n}: {text}"),
            }
        }
        self.wake_at[n] = self.nodes[n].next_wake().map(|(at, _)| at).filter(|_| self.alive[n]);
    }
}
