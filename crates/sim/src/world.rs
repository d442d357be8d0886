//! The queue of what happens when, and the founding of a cluster.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use document::event::NodeInfo;
use document::{Documents, EventReader};
use model::{Capacity, ClusterId, ContainerId, EventId, Name, NodeId, ReplicaId, Sabotages, Signature, Time};
use node::{CommandId, Effect, Input, Outcome, Reader as _, Seq, Timings};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use wire::Message;

use crate::author::{Author, name};
use crate::bytes::Bytes;
use crate::check::Check;
use crate::distance::Distances;
use crate::doom::{Doom, Program};
use crate::host::{Host, Machine};
use crate::memory::{self, Memory};
use crate::net::Wire;
use crate::timeline::Lives;
use crate::weather::{Flap, Odds};

/// 2026-11-24, in milliseconds of Unix time: where every simulated clock begins.
pub(crate) const EPOCH_MS: i64 = 1_795_000_000_000;

/// Inputs that one peer may take in one instant of virtual time. A burst of some hundred frames is
/// honest work; this many are a loop that never ends.
const INPUTS_PER_INSTANT_MAX: u32 = 20_000;

/// How the simulated world is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shortest and longest time of a message on its way.
    pub latency: (Duration, Duration),
    /// Datagrams lost, in thousandths. Streams lose nothing: QUIC sends again.
    pub loss: u32,
    /// How long the disk takes to sync.
    pub sync: Duration,
    /// How long a container takes to start.
    pub start: Duration,
    /// Shortest and longest time that a program takes to end when it is asked to.
    pub stop: (Duration, Duration),
    /// How long a dial into nowhere takes to fail.
    pub dial: Duration,
    /// Starts of containers that fail, in thousandths.
    pub start_failures: u32,
    /// What each node offers, where the machines are not described one by one.
    pub capacity: Capacity,
    /// Faults of every peer: to show that a check can fail.
    pub sabotage: Sabotages,
    /// What the world does by itself.
    pub odds: Odds,
    /// Programs that end by themselves.
    pub programs: Vec<Program>,
    /// The timings of every peer.
    pub timings: Timings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(300), Duration::from_micros(1_800)),
            loss: 0,
            sync: Duration::from_micros(400),
            start: Duration::from_millis(20),
            stop: (Duration::from_millis(5), Duration::from_millis(5)),
            dial: Duration::from_millis(500),
            start_failures: 0,
            capacity: Capacity { cpu_m: 4_000, memory_b: 4 << 30, pids: 4_000, ..Capacity::default() },
            sabotage: Sabotages::NONE,
            odds: Odds::default(),
            programs: Vec::new(),
            timings: Timings::default(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// For the peer of that life on that host.
    Input(Input),
    Synced(Seq),
    /// A dial from this host comes to its end.
    Dialled(NodeId),
    /// A link is found dead by this end, if it is still that link.
    Dead {
        peer: NodeId,
        link: u64,
    },
    /// The same, unless something can pass on it again.
    Idle {
        peer: NodeId,
        link: u64,
    },
    /// What was sent on a link up to that number arrives, if it is still that link.
    Arrived {
        link: u64,
        upto: u64,
    },
    Datagram {
        from: NodeId,
        link: u64,
        bytes: Vec<u8>,
    },
    Ran(ContainerId),
    Ended {
        container: ContainerId,
        pid: u32,
    },
    /// A program ends by itself with that code.
    Failed {
        container: ContainerId,
        pid: u32,
        code: i32,
    },
    Wake,
    /// The disk is done with a grant of a lease.
    LeaseSynced(Box<model::LeaseGrant>),
    /// A container may run until now, unless that was moved on.
    Deadline(ContainerId),
    /// The rogue does something.
    Mischief,
    // The rest is not for a peer.
    /// A machine whose peer died is switched on again.
    Back,
    /// A peer that was stopped goes on.
    Resume,
    /// A cut that comes and goes does so.
    Flips(usize),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Time,
    pub(crate) order: u64,
    pub(crate) host: usize,
    life: u64,
    pub(crate) what: Happening,
}

/// What happens when, in order. What happens lies still; only when and where it lies is moved about.
#[derive(Debug, Default)]
struct Queue {
    order: BinaryHeap<Reverse<(Time, u64, u32)>>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Queue {
    fn push(&mut self, entry: Entry) {
        let (at, order) = (entry.at, entry.order);
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("memory ends before 2^32 entries")
        });
        self.entries[place as usize] = Some(entry);
        self.order.push(Reverse((at, order, place)));
    }

    /// When the next thing happens.
    fn next(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    fn pop(&mut self) -> Option<Entry> {
        let Reverse((.., place)) = self.order.pop()?;
        self.free.push(place);
        self.entries[place as usize].take()
    }

    /// Takes one out of its turn.
    fn take(&mut self, number: u64) -> Option<Entry> {
        let place = self.order.iter().find(|Reverse((_, order, _))| *order == number)?.0.2;
        self.order.retain(|Reverse((_, order, _))| *order != number);
        self.free.push(place);
        self.entries[place as usize].take()
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }
}

/// An event that a peer has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Through which machine it was handed in.
    pub host: usize,
    /// Which.
    pub event: EventId,
    /// On how many disks it was said to be.
    pub durable_on: u32,
}

/// A whole cluster in one process.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    pub(crate) now: Time,
    order: u64,
    pub(crate) links_made: u64,
    pub(crate) commands: u64,
    queue: Queue,
    pub(crate) rng: ChaCha8Rng,
    /// What the peers were sent, read once.
    pub(crate) reader: Arc<Memory>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) index: BTreeMap<NodeId, usize>,
    pub(crate) identity: ClusterId,
    /// Directed pairs between which nothing passes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// Cuts that come and go, and what they cut just now.
    pub(crate) flaps: Vec<Flap>,
    pub(crate) flapped: BTreeSet<(usize, usize)>,
    /// Directed pairs between which nothing moves until then.
    pub(crate) clogs: BTreeMap<(usize, usize), Time>,
    /// How far apart the machines are.
    pub(crate) distances: Distances,
    /// Datagrams that are lost between directed pairs, in thousandths, beside the others.
    pub(crate) losses: BTreeMap<(usize, usize), u32>,
    /// Second machines of one key.
    pub(crate) clones: Vec<(NodeId, usize)>,
    /// How many machines there were when the cluster was founded.
    pub(crate) founders: usize,
    /// Machines that have asked to be let in: which, and what is on their disks once they are.
    pub(crate) joining: BTreeMap<CommandId, (usize, Vec<Vec<u8>>)>,
    /// Machines whose removal was asked for, whatever became of that.
    pub(crate) asked_to_go: BTreeSet<usize>,
    /// What is held against every step.
    pub(crate) check: Check,
    /// Links by number, while both ends hold them.
    pub(crate) wires: BTreeMap<u64, Wire>,
    pub(crate) outcomes: BTreeMap<CommandId, Outcome>,
    pub(crate) acked: Vec<Acked>,
    /// The first author, an admin.
    pub alice: Author,
    /// The second author, an admin.
    pub bob: Author,
    /// Messages sent on links.
    pub frames: u64,
    /// Events sent on links, each copy counted.
    pub events_sent: u64,
    /// Datagrams sent, those that were lost included.
    pub datagrams: u64,
    /// What was sent in bytes, once somebody wants to know.
    pub(crate) bytes: Option<Bytes>,
    /// By its signature, the record that was measured last, and its bytes as a message.
    pub(crate) measured: Option<(Signature, u64)>,
    /// Counts what changes what runs or what is known of events: what depends on these alone need not be
    /// looked at again before.
    pub(crate) changes: u64,
    /// Programs started so far, by deployment.
    pub(crate) starts: BTreeMap<Name, u64>,
    /// Programs that end by themselves.
    pub(crate) dooms: Vec<Doom>,
    /// Running copies of each replica, by the kernels' word.
    pub(crate) running: BTreeMap<ReplicaId, u32>,
    /// Replicas that must not lose their last copy, and when they first did.
    pub(crate) guarded: BTreeMap<ReplicaId, Option<Time>>,
    /// Since when.
    pub(crate) guarded_at: Time,
    /// Containers in the order of their first start: what they are called in the trace.
    pub(crate) names: BTreeMap<ContainerId, usize>,
    pub(crate) trace: Vec<String>,
    /// Whether there is to be a trace.
    pub(crate) traced: bool,
    /// What ran where and when, once somebody wants to know.
    pub(crate) lives: Option<Lives>,
    /// Rules of the world itself that a peer broke.
    pub(crate) violations: Vec<String>,
}

pub(crate) fn seed32(seed: u64, what: u8, n: u64) -> [u8; 32] {
    let mut bytes = [what; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Everything that is on every disk before the machines are first switched on.
struct Founding {
    cluster: ClusterId,
    log: Vec<Vec<u8>>,
    ids: Vec<NodeId>,
}

/// Signs the genesis, bob's key and an admission for each further node that is not to join later.
fn found(
    seed: u64,
    machines: &[Machine],
    later: &BTreeSet<usize>,
    alice: &mut Author,
    bob: &Author,
    reader: &Arc<Memory>,
) -> Founding {
    const SOUND: &str = "the simulator's own events are valid";
    let mut keys: Vec<Author> =
        (0..machines.len()).map(|n| Author::new(seed32(seed, 0x0d, n as u64))).collect();
    let ids: Vec<NodeId> = keys.iter().map(|key| NodeId::from_bytes(key.public())).collect();
    let info =
        |n: usize| NodeInfo { name: machines[n].name.clone(), key: ids[n], addresses: vec![address(n)] };
    let (cluster, genesis) = alice.genesis(info(0));
    let mut documents = Documents::new(cluster);
    // The peers will read the same: their signatures are looked at once for all.
    let reader = Arc::clone(reader);
    documents.read_by(EventReader::new(move |stored| reader.event(stored)));
    documents.insert(&genesis).expect(SOUND);
    let mut log = vec![genesis];
    let mut add = |documents: &mut Documents, event: Vec<u8>| {
        documents.insert(&event).expect(SOUND);
        log.push(event);
    };
    let event = alice.user_add(&documents, "bob", bob.public());
    add(&mut documents, event);
    let token = Author::new(seed32(seed, 0x70, 0));
    let uses = u32::try_from(machines.len()).expect("a simulated cluster is bounded by its roster");
    let event = alice.token(&documents, model::TokenId::from_bytes(token.public()), uses);
    add(&mut documents, event);
    for (n, key) in keys.iter_mut().enumerate().skip(1).filter(|(n, _)| !later.contains(n)) {
        let event = key.admit(&documents, &token, info(n));
        add(&mut documents, event);
    }
    Founding { cluster, log, ids }
}

pub(crate) fn address(n: usize) -> String {
    format!("10.99.{}.{}:7070", n / 250, n % 250 + 1)
}

impl Cluster {
    /// A cluster of `nodes` machines, all admitted, all switched on now.
    ///
    /// # Panics
    /// With no node, or more than a roster may have.
    pub fn new(seed: u64, nodes: usize, settings: Settings) -> Self {
        let mut this = Self::switched_off(seed, nodes, settings);
        for n in 0..nodes {
            this.start(n);
        }
        this
    }

    /// The same before anybody has pressed a button.
    ///
    /// # Panics
    /// With no node, or more than a roster may have.
    pub fn switched_off(seed: u64, nodes: usize, settings: Settings) -> Self {
        Self::founded(seed, nodes, &BTreeSet::new(), settings)
    }

    /// The same, with machines that are not members yet: nothing is on their disks. The first founds the
    /// cluster and is a member in any case.
    pub(crate) fn founded(seed: u64, nodes: usize, later: &BTreeSet<usize>, settings: Settings) -> Self {
        let machine = |n: usize| Machine {
            name: name(&format!("n{}", n + 1)),
            capacity: settings.capacity.clone(),
            labels: BTreeMap::new(),
        };
        let machines = (0..nodes).map(machine).collect();
        Self::founded_of(machines, seed, later, settings)
    }

    /// A cluster of these machines, all admitted, all switched off.
    ///
    /// # Panics
    /// With no machine, or more than a roster may have, or two of one name.
    pub fn of_machines(seed: u64, machines: Vec<Machine>, settings: Settings) -> Self {
        Self::founded_of(machines, seed, &BTreeSet::new(), settings)
    }

    fn founded_of(machines: Vec<Machine>, seed: u64, later: &BTreeSet<usize>, settings: Settings) -> Self {
        let nodes = machines.len();
        assert!((1..=model::limits::NODES_MAX).contains(&nodes), "1 to 1,000 nodes, not {nodes}");
        let mut alice = Author::new(seed32(seed, 0xa1, 0));
        let bob = Author::new(seed32(seed, 0xb0, 0));
        let reader: Arc<Memory> = Arc::default();
        let Founding { cluster, log, ids } = found(seed, &machines, later, &mut alice, &bob, &reader);
        let mut hosts: Vec<Host> = ids
            .iter()
            .zip(machines)
            .map(|(id, machine)| Host::new(*id, memory::signer(*id), machine))
            .collect();
        for (_, host) in hosts.iter_mut().enumerate().filter(|(n, _)| !later.contains(n)) {
            host.write(log.iter().cloned());
        }
        Self {
            settings,
            seed,
            now: Time::ZERO,
            order: 0,
            links_made: 0,
            commands: 0,
            queue: Queue::default(),
            rng: ChaCha8Rng::from_seed(seed32(seed, 0x00, 0)),
            reader,
            index: ids.iter().enumerate().map(|(n, id)| (*id, n)).collect(),
            hosts,
            identity: cluster,
            cuts: BTreeSet::new(),
            flaps: Vec::new(),
            flapped: BTreeSet::new(),
            clogs: BTreeMap::new(),
            distances: Distances::default(),
            losses: BTreeMap::new(),
            clones: Vec::new(),
            founders: nodes,
            joining: BTreeMap::new(),
            asked_to_go: BTreeSet::new(),
            check: Check::new(&log),
            wires: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            acked: Vec::new(),
            alice,
            bob,
            frames: 0,
            events_sent: 0,
            datagrams: 0,
            bytes: None,
            measured: None,
            changes: 0,
            starts: BTreeMap::new(),
            dooms: Vec::new(),
            running: BTreeMap::new(),
            guarded: BTreeMap::new(),
            guarded_at: Time::ZERO,
            names: BTreeMap::new(),
            trace: Vec::new(),
            traced: true,
            lives: None,
            violations: Vec::new(),
        }
    }

    /// Virtual time since the beginning.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// What the clock of a machine shows.
    pub(crate) fn wall_ms(&self, host: usize) -> i64 {
        let passed = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX / 4);
        let clock = self.hosts[host].clock;
        let drift = passed.saturating_mul(clock.drift_ppm) / 1_000_000;
        clock.stopped_ms.unwrap_or(EPOCH_MS + passed + drift + clock.skew_ms)
    }

    pub(crate) fn at(&mut self, after: Duration, host: usize, what: Happening) {
        self.order += 1;
        let entry =
            Entry { at: self.now + after, order: self.order, host, life: self.hosts[host].life, what };
        self.queue.push(entry);
    }

    /// A time between the two, both included.
    pub(crate) fn between(&mut self, (low, high): (Duration, Duration)) -> Duration {
        let nanos = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.random_range(nanos(low)..=nanos(high)))
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.queue.next().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until something holds; how long that took, or `None` if it did not within `max`.
    pub fn run_until(&mut self, max: Duration, mut holds: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + max);
        loop {
            if holds(self) {
                return Some(self.now.since(begin));
            }
            match self.queue.next() {
                Some(at) if at <= end => self.step(),
                _ => {
                    self.now = end;
                    return holds(self).then_some(max);
                }
            }
        }
    }

    fn step(&mut self) {
        let Some(entry) = self.queue.pop() else { return };
        self.now = self.now.max(entry.at);
        self.sample();
        self.come(entry);
    }

    /// Something comes to a machine.
    fn come(&mut self, entry: Entry) {
        let host = entry.host;
        // Programs outlive the peer; the rest is for the peer of that life.
        match entry.what {
            Happening::Ended { container, pid } => return self.ended(host, container, pid),
            Happening::Failed { container, pid, code } => {
                return self.failed(host, container, pid, code);
            }
            Happening::Deadline(container) => return self.deadline(host, container),
            Happening::Back => return self.back(host),
            Happening::Resume => return self.resume(host),
            Happening::Flips(which) => return self.flips(which),
            _ => {}
        }
        let it = &self.hosts[host];
        if it.life != entry.life || (it.node.is_none() && it.rogue.is_none()) {
            return;
        }
        if it.paused {
            return self.defer(host, entry.what);
        }
        self.happens(host, entry.what);
    }

    // --- For the search of orders.

    pub(crate) fn queue_entries(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter()
    }

    /// Whether it is meant for an earlier life, or is an alarm that was set anew.
    pub(crate) fn is_stale(&self, entry: &Entry) -> bool {
        let it = &self.hosts[entry.host];
        match entry.what {
            Happening::Ended { .. }
            | Happening::Failed { .. }
            | Happening::Deadline(_)
            | Happening::Back
            | Happening::Resume
            | Happening::Flips(_) => false,
            Happening::Wake => it.life != entry.life || it.wake.is_none_or(|at| at > entry.at),
            _ => it.life != entry.life,
        }
    }

    /// Lets one thing come before all others; `window` is how late the others may be for it.
    pub(crate) fn take_entry(&mut self, order: u64, window: Duration) {
        if let Some(entry) = self.queue.take(order) {
            let first = self.queue.next().map_or(entry.at, |first| first.min(entry.at));
            self.now = self.now.max(entry.at).max(first + window);
            self.come(entry);
        }
    }

    /// What is under way, in words, by how far away it is.
    pub(crate) fn pending(&self) -> String {
        let mut all: Vec<_> = self.queue_entries().filter(|entry| !self.is_stale(entry)).collect();
        all.sort_unstable_by_key(|entry| (entry.at, entry.order));
        let words = all.iter().filter(|entry| !matches!(entry.what, Happening::Datagram { .. }));
        words
            .map(|entry| format!("{:?} {} {:?};", entry.at.since(self.now), entry.host, entry.what))
            .collect()
    }

    /// Something happens to a peer that runs.
    pub(crate) fn happens(&mut self, host: usize, what: Happening) {
        match what {
            Happening::Input(input) => self.input(host, input),
            Happening::Synced(seq) => self.synced(host, seq),
            Happening::Dialled(peer) => self.dialled(host, peer),
            Happening::Dead { peer, link } => self.dead(host, peer, link),
            Happening::Idle { peer, link } => self.idle(host, peer, link),
            Happening::Arrived { link, upto } => self.arrived(host, link, upto),
            Happening::Datagram { from, link, bytes } => {
                if self.hosts[host].links.get(&from) == Some(&link) {
                    self.input(host, Input::Datagram { from, bytes });
                }
            }
            Happening::Ran(container) => self.ran(host, container),
            Happening::Wake => {
                let it = &mut self.hosts[host];
                it.alarm = it.alarm.filter(|at| *at > self.now);
                if it.wake.is_some_and(|at| at <= self.now) {
                    self.input(host, Input::Woken);
                }
            }
            Happening::Mischief => self.mischief(host),
            Happening::LeaseSynced(grant) => self.lease_synced(host, *grant),
            Happening::Ended { .. }
            | Happening::Deadline(_)
            | Happening::Failed { .. }
            | Happening::Back
            | Happening::Resume
            | Happening::Flips(_) => {}
        }
    }

    // --- The peer of one host.

    /// Hands an input to a peer and carries out what it says, and so on with what answers at once.
    pub(crate) fn input(&mut self, host: usize, input: Input) {
        if self.hosts[host].paused {
            return self.defer(host, Happening::Input(input));
        }
        if self.hosts[host].rogue.is_some() {
            return self.overhears(host, input);
        }
        let (mut first, mut inputs) = (Some(input), VecDeque::new());
        while let Some(input) = first.take().or_else(|| inputs.pop_front()) {
            let (now, wall_ms) = (self.now, self.wall_ms(host));
            let it = &mut self.hosts[host];
            it.busy = if it.busy.0 == now { (now, it.busy.1 + 1) } else { (now, 1) };
            if it.busy.1 == INPUTS_PER_INSTANT_MAX {
                self.violation(&format!("n{} takes inputs without end: {input:?}", host + 1));
            }
            if self.hosts[host].busy.1 > INPUTS_PER_INSTANT_MAX {
                return;
            }
            let held = self.held_before(host, &input);
            let is_measured = matches!(input, Input::Pressure(_));
            let it = &mut self.hosts[host];
            let Some(node) = &mut it.node else { return };
            // As the shell has it: what is not said again is forgotten.
            it.wake = None;
            let effects = node.handle(now, wall_ms, input);
            if is_measured {
                self.measured(host);
            }
            self.after_step(host, &held);
            for effect in effects {
                if self.dies_before(host, &effect) {
                    return;
                }
                self.before_effect(host, &effect);
                self.carry_out(host, effect, &mut inputs);
            }
        }
    }

    pub(crate) fn carry_out(&mut self, host: usize, effect: Effect, answers: &mut VecDeque<Input>) {
        match effect {
            Effect::Persist { seq, records } => {
                self.changes += 1;
                self.hosts[host].unsynced.push((seq, records));
                let after = self.sync_takes(host);
                self.at(after, host, Happening::Synced(seq));
            }
            Effect::Send { to, message } => {
                if self.hosts[host].lies && matches!(message, Message::Records { .. }) {
                    self.send_lies(host, to);
                }
                self.send(host, to, message);
            }
            Effect::Datagram { to, bytes } => self.datagram(host, to, bytes),
            Effect::Connect { node, .. } => self.dial(host, node),
            Effect::Disconnect(peer) => {
                if self.hang_up(host, peer) {
                    answers.push_back(Input::Disconnected(peer));
                }
            }
            Effect::Start { container, claim, until } => self.start_container(host, container, *claim, until),
            Effect::ExtendLease { container, until } => self.hold_to(host, container, until),
            Effect::KeepLease(grant) => self.keep_lease(host, grant),
            Effect::ForgetLeases(replicas) => self.forget_leases(host, &replicas),
            Effect::Stop(container) => self.stop_container(host, container),
            Effect::Remove(container) => self.remove_container(host, container),
            Effect::Fetch { digest, .. } => {
                self.at(Duration::from_millis(50), host, Happening::Input(Input::ImageReady(digest)));
            }
            Effect::Reply { command, outcome } => self.replied(host, command, outcome),
            Effect::Notice(_) if !self.traced => {}
            Effect::Notice(notice) => {
                let about = notice.about.map(|about| format!(" {about}")).unwrap_or_default();
                let message = self.with_names(&notice.message);
                self.tell(format!("n{} {}{about}: {message}", host + 1, notice.kind));
            }
            Effect::Farewell { to, events } => self.farewell(host, to, events),
            Effect::Roster { nodes, former, .. } => {
                self.hosts[host].former = former;
                let gone: Vec<NodeId> = self.hosts[host].allowed.difference(&nodes).copied().collect();
                self.hosts[host].allowed = nodes;
                for peer in gone {
                    if self.hang_up(host, peer) {
                        answers.push_back(Input::Disconnected(peer));
                    }
                }
            }
            Effect::WakeAt { time, .. } => {
                // The alarm that is set for that time already will do.
                let it = &mut self.hosts[host];
                it.wake = Some(time);
                if it.alarm.replace(time) != Some(time) {
                    self.at(time.since(self.now), host, Happening::Wake);
                }
            }
        }
    }

    fn replied(&mut self, host: usize, command: CommandId, outcome: Outcome) {
        match &outcome {
            Outcome::Accepted { event, durable_on, known } => {
                let disks =
                    if *durable_on == 1 { "1 disk".to_owned() } else { format!("{durable_on} disks") };
                let known = if *known { ", known before" } else { "" };
                self.tell(format!("n{} answers: accepted, on {disks}{known}", host + 1));
                self.acknowledged(host, *event, *durable_on);
                self.acked.push(Acked { host, event: *event, durable_on: *durable_on });
            }
            Outcome::Refused { code, reason } => {
                let reason = self.with_names(reason);
                self.tell(format!("n{} answers: refused ({code}): {reason}", host + 1));
            }
        }
        self.let_in(command, &outcome);
        if self.outcomes.insert(command, outcome).is_some() {
            self.violation(&format!("n{} answered one request twice", host + 1));
        }
    }

    /// The journal is done with a batch. A full disk takes none, nor any that was given before the
    /// core knew of that.
    fn synced(&mut self, host: usize, seq: Seq) {
        let it = &mut self.hosts[host];
        if !it.unsynced.iter().any(|(at, _)| *at == seq) {
            return;
        }
        let odds = self.settings.odds.failed_syncs;
        if odds > 0 && !it.disk_failed && self.rng.random_range(0..100_000) < odds {
            self.tell(format!("n{}'s disk fails a sync", host + 1));
            self.hosts[host].disk_failed = true;
        }
        let it = &mut self.hosts[host];
        let asked: usize =
            it.unsynced.iter().filter(|(at, _)| *at <= seq).map(|(_, records)| records.len()).sum();
        if it.disk_room.is_some_and(|room| room < asked) {
            it.disk_room = None;
            self.disk_full(host, true);
        }
        let it = &mut self.hosts[host];
        if it.disk_full || it.disk_failed {
            let (kept, gone): (Vec<_>, Vec<_>) = it.unsynced.drain(..).partition(|(at, _)| *at < seq);
            it.unsynced = kept;
            let reason = if it.disk_full { "the disk is full" } else { "the disk failed a sync" };
            if it.disk_failed && it.uncertain.is_empty() {
                // Written and not synced: a later start may find any beginning of it.
                it.uncertain = gone.into_iter().flat_map(|(_, records)| records).collect();
            }
            return self.input(host, Input::PersistFailed { seq, reason: reason.to_owned() });
        }
        let (done, rest): (Vec<_>, Vec<_>) = it.unsynced.drain(..).partition(|(at, _)| *at <= seq);
        it.unsynced = rest;
        it.disk_room = it.disk_room.map(|room| room - asked);
        it.write(done.into_iter().flat_map(|(_, records)| records));
        self.input(host, Input::Persisted(seq));
    }
}
