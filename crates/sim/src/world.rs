//! The queue of what happens when, and the faults that a test asks for.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::cmp::Reverse;
use std::time::Duration;

use document::Documents;
use document::event::NodeInfo;
use membership::Liveness;
use model::{Capacity, ClusterId, ContainerId, ImageRecord, NodeId, ReplicaId, Revision, Time};
use node::{Boot, CommandId, Config, Effect, Exit, Found, Input, Node, Outcome, Sabotage, Seq, Timings};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use wire::Message;

use crate::author::{Author, Spec, image_digest, name};
use crate::host::{Container, Host, HostState};

/// 2026-11-24, in milliseconds of Unix time: where every simulated clock begins.
const EPOCH_MS: i64 = 1_795_000_000_000;

/// How the simulated world is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Shortest and longest time of a message on its way.
    pub latency: (Duration, Duration),
    /// Datagrams lost, in thousandths. Streams lose nothing: QUIC sends again.
    pub loss: u32,
    /// How long the disk takes to sync.
    pub sync: Duration,
    /// How long a container takes to start.
    pub start: Duration,
    /// How long a dial into nowhere takes to fail.
    pub dial: Duration,
    /// What each node offers.
    pub capacity: Capacity,
    /// Duplicates are never resolved: to show that a check can fail.
    pub no_duplicate_resolution: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(300), Duration::from_micros(1_800)),
            loss: 0,
            sync: Duration::from_micros(400),
            start: Duration::from_millis(20),
            dial: Duration::from_millis(500),
            capacity: Capacity { cpu_m: 4_000, memory_b: 4 << 30, pids: 4_000 },
            no_duplicate_resolution: false,
        }
    }
}

#[derive(Debug)]
enum Happening {
    /// For the peer of that life on that host.
    Input(Input),
    Synced(Seq),
    /// A dial from this host comes to its end.
    Dialled(NodeId),
    /// A link is found dead by this end, if it is still that link.
    Dead { peer: NodeId, link: u64 },
    /// A frame on a link, if it is still that link.
    Frame { from: NodeId, link: u64, message: Box<Message> },
    Ran(ContainerId),
    Ended(ContainerId),
    Wake,
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    host: usize,
    life: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A whole cluster in one process.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    seed: u64,
    now: Time,
    order: u64,
    links_made: u64,
    commands: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    rng: ChaCha8Rng,
    hosts: Vec<Host>,
    index: BTreeMap<NodeId, usize>,
    cluster: ClusterId,
    /// Directed pairs between which nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    outcomes: BTreeMap<CommandId, Outcome>,
    /// The first author, an admin.
    pub alice: Author,
    /// The second author, an admin.
    pub bob: Author,
    /// Messages sent on links.
    pub frames: u64,
    trace: Vec<String>,
}

fn seed32(seed: u64, what: u8, n: u64) -> [u8; 32] {
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

/// Signs the genesis, bob's key and an admission for each further node.
fn found(seed: u64, nodes: usize, alice: &mut Author, bob: &Author) -> Founding {
    const SOUND: &str = "the simulator's own events are valid";
    let mut keys: Vec<Author> = (0..nodes).map(|n| Author::new(seed32(seed, 0x0d, n as u64))).collect();
    let ids: Vec<NodeId> = keys.iter().map(|key| NodeId::from_bytes(key.public())).collect();
    let info = |n: usize| NodeInfo { name: name(&format!("n{}", n + 1)), key: ids[n], addresses: vec![address(n)] };
    let (cluster, genesis) = alice.genesis(info(0));
    let mut documents = Documents::new(cluster);
    documents.insert(&genesis).expect(SOUND);
    let mut log = vec![genesis];
    let mut add = |documents: &mut Documents, event: Vec<u8>| {
        documents.insert(&event).expect(SOUND);
        log.push(event);
    };
    let event = alice.user_add(&documents, "bob", bob.public());
    add(&mut documents, event);
    let token = Author::new(seed32(seed, 0x70, 0));
    let uses = u32::try_from(nodes).expect("a simulated cluster is bounded by its roster");
    let event = alice.token(&documents, model::TokenId::from_bytes(token.public()), uses);
    add(&mut documents, event);
    for n in 1..nodes {
        let event = keys[n].admit(&documents, &token, info(n));
        add(&mut documents, event);
    }
    Founding { cluster, log, ids }
}

fn address(n: usize) -> String {
    format!("10.99.{}.{}:7070", n / 250, n % 250 + 1)
}

impl Cluster {
    /// A cluster of `nodes` machines, all admitted, all switched on now.
    ///
    /// # Panics
    /// With no node, or more than a roster may have.
    pub fn new(seed: u64, nodes: usize, settings: Settings) -> Self {
        assert!((1..=model::limits::NODES_MAX).contains(&nodes), "1 to 1,000 nodes, not {nodes}");
        let mut alice = Author::new(seed32(seed, 0xa1, 0));
        let bob = Author::new(seed32(seed, 0xb0, 0));
        let Founding { cluster, log, ids } = found(seed, nodes, &mut alice, &bob);
        let mut hosts: Vec<Host> = ids.iter().map(|id| Host::new(*id)).collect();
        for host in &mut hosts {
            host.disk.clone_from(&log);
        }
        let mut this = Self {
            settings,
            seed,
            now: Time::ZERO,
            order: 0,
            links_made: 0,
            commands: 0,
            queue: BinaryHeap::new(),
            rng: ChaCha8Rng::from_seed(seed32(seed, 0x00, 0)),
            index: ids.iter().enumerate().map(|(n, id)| (*id, n)).collect(),
            hosts,
            cluster,
            cuts: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            alice,
            bob,
            frames: 0,
            trace: Vec::new(),
        };
        for n in 0..nodes {
            this.start(n);
        }
        this
    }

    // --- Time.

    /// Virtual time since the beginning.
    pub const fn now(&self) -> Time {
        self.now
    }

    fn wall_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX - EPOCH_MS)
    }

    fn at(&mut self, after: Duration, host: usize, what: Happening) {
        self.order += 1;
        let entry = Entry { at: self.now + after, order: self.order, host, life: self.hosts[host].life, what };
        self.queue.push(Reverse(entry));
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.queue.peek().is_some_and(|Reverse(entry)| entry.at <= end) {
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
            match self.queue.peek() {
                Some(Reverse(entry)) if entry.at <= end => self.step(),
                _ => {
                    self.now = end;
                    return holds(self).then_some(max);
                }
            }
        }
    }

    fn step(&mut self) {
        let Some(Reverse(entry)) = self.queue.pop() else { return };
        self.now = self.now.max(entry.at);
        let host = entry.host;
        // The kernel's own happenings outlive the peer; the rest is for the peer of that life.
        match entry.what {
            Happening::Ran(container) => return self.ran(host, container, entry.life),
            Happening::Ended(container) => return self.ended(host, container, entry.life),
            _ if self.hosts[host].life != entry.life || self.hosts[host].node.is_none() => return,
            _ => {}
        }
        match entry.what {
            Happening::Input(input) => self.input(host, input),
            Happening::Synced(seq) => self.synced(host, seq),
            Happening::Dialled(peer) => self.dialled(host, peer),
            Happening::Dead { peer, link } => {
                if self.hosts[host].links.get(&peer) == Some(&link) {
                    self.hosts[host].links.remove(&peer);
                    self.input(host, Input::Disconnected(peer));
                }
            }
            Happening::Frame { from, link, message } => {
                if self.hosts[host].links.get(&from) == Some(&link) {
                    self.input(host, Input::Received { from, message: *message });
                }
            }
            Happening::Wake => {
                if self.hosts[host].wake.is_some_and(|at| at <= self.now) {
                    self.hosts[host].wake = None;
                    self.input(host, Input::Woken);
                }
            }
            Happening::Ran(_) | Happening::Ended(_) => unreachable!("taken care of above"),
        }
    }

    // --- The peer of one host.

    fn input(&mut self, host: usize, input: Input) {
        let (now, wall_ms) = (self.now, self.wall_ms());
        let Some(node) = &mut self.hosts[host].node else { return };
        let effects = node.handle(now, wall_ms, input);
        for effect in effects {
            self.carry_out(host, effect);
        }
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Persist { seq, records } => {
                self.hosts[host].unsynced.push((seq, records));
                self.at(self.settings.sync, host, Happening::Synced(seq));
            }
            Effect::Send { to, message } => self.send(host, to, message),
            Effect::Datagram { to, bytes } => self.datagram(host, to, bytes),
            Effect::Connect { node, .. } => {
                if !self.hosts[host].links.contains_key(&node) && self.hosts[host].dialling.insert(node) {
                    let after = if self.reachable(host, node) { self.latency() * 3 } else { self.settings.dial };
                    self.at(after, host, Happening::Dialled(node));
                }
            }
            Effect::Disconnect(peer) => self.disconnect(host, peer),
            Effect::Start { container, claim } => {
                let wall_ms = self.wall_ms();
                let kernel = &mut self.hosts[host].kernel;
                let entry = kernel.entry(container).or_insert_with(|| Container {
                    claim: (*claim).clone(),
                    pid: None,
                    started_ms: wall_ms,
                    starts: 0,
                });
                entry.claim = *claim;
                self.at(self.settings.start, host, Happening::Ran(container));
            }
            Effect::Stop(container) => self.at(Duration::from_millis(5), host, Happening::Ended(container)),
            Effect::Remove(container) => {
                self.hosts[host].kernel.remove(&container);
                self.at(Duration::from_millis(1), host, Happening::Input(Input::Removed(container)));
            }
            Effect::Fetch { digest, .. } => {
                self.at(Duration::from_millis(50), host, Happening::Input(Input::ImageReady(digest)));
            }
            Effect::Reply { command, outcome } => {
                self.outcomes.insert(command, outcome);
            }
            Effect::Notice(notice) => {
                let about = notice.about.map(|about| format!(" {about}")).unwrap_or_default();
                let line = format!("{:?} n{} {}{about}: {}", self.now, host + 1, notice.kind, notice.message);
                self.trace.push(line);
            }
            Effect::Roster { .. } => {}
            Effect::WakeAt { time, .. } => {
                self.hosts[host].wake = Some(time);
                self.at(time.since(self.now), host, Happening::Wake);
            }
        }
    }

    fn synced(&mut self, host: usize, seq: Seq) {
        let it = &mut self.hosts[host];
        if it.disk_full {
            it.unsynced.retain(|(at, _)| *at < seq);
            let reason = "the disk is full".to_owned();
            return self.input(host, Input::PersistFailed { seq, reason });
        }
        let (done, rest): (Vec<_>, Vec<_>) = it.unsynced.drain(..).partition(|(at, _)| *at <= seq);
        it.unsynced = rest;
        it.disk.extend(done.into_iter().flat_map(|(_, records)| records));
        self.input(host, Input::Persisted(seq));
    }

    // --- The network.

    fn latency(&mut self) -> Duration {
        let (low, high) = self.settings.latency;
        let nanos = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.random_range(nanos(low)..=nanos(high)))
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to)) && self.hosts[to].state == HostState::Up
    }

    /// Whether a handshake would succeed: packets pass both ways and somebody is there.
    fn reachable(&self, host: usize, peer: NodeId) -> bool {
        let Some(&to) = self.index.get(&peer) else { return false };
        self.passes(host, to) && !self.cuts.contains(&(to, host)) && self.hosts[to].node.is_some()
    }

    fn dialled(&mut self, host: usize, peer: NodeId) {
        self.hosts[host].dialling.remove(&peer);
        if self.hosts[host].links.contains_key(&peer) {
            return;
        }
        if !self.reachable(host, peer) {
            return self.input(host, Input::ConnectFailed(peer));
        }
        let (to, me) = (self.index[&peer], self.hosts[host].id);
        // The other end may hold a dead link that it has not noticed: the new one takes its place.
        if self.hosts[to].links.remove(&me).is_some() {
            self.input(to, Input::Disconnected(me));
        }
        self.links_made += 1;
        let link = self.links_made;
        self.hosts[host].links.insert(peer, link);
        self.hosts[to].links.insert(me, link);
        self.input(host, Input::Connected(peer));
        self.input(to, Input::Connected(me));
    }

    fn disconnect(&mut self, host: usize, peer: NodeId) {
        let Some(link) = self.hosts[host].links.remove(&peer) else { return };
        self.at(Duration::ZERO, host, Happening::Input(Input::Disconnected(peer)));
        let (to, me) = (self.index[&peer], self.hosts[host].id);
        if self.passes(host, to) {
            let after = self.latency();
            self.at(after, to, Happening::Dead { peer: me, link });
        }
    }

    /// A stream: in order, nothing lost while the link holds. A frame into a cut is lost with the
    /// link: the simulation of a connection that is given up before the cut ends.
    fn send(&mut self, host: usize, to: NodeId, message: Message) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        let (target, me) = (self.index[&to], self.hosts[host].id);
        self.frames += 1;
        if self.passes(host, target) {
            // One latency for all of a link keeps the order; jitter comes from the links differing.
            let after = self.link_latency(link);
            self.at(after, target, Happening::Frame { from: me, link, message: Box::new(message) });
        } else {
            self.at(Duration::from_millis(1_500), host, Happening::Dead { peer: to, link });
        }
    }

    fn link_latency(&self, link: u64) -> Duration {
        let (low, high) = self.settings.latency;
        let steps = u32::try_from(link % 16).unwrap_or(0);
        low + (high.saturating_sub(low)) * steps / 16
    }

    fn datagram(&mut self, host: usize, to: NodeId, bytes: Vec<u8>) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        let target = self.index[&to];
        let lost = self.rng.random_range(0..1_000) < self.settings.loss;
        if lost || !self.passes(host, target) || self.hosts[target].links.get(&self.hosts[host].id) != Some(&link) {
            return;
        }
        let (from, after) = (self.hosts[host].id, self.latency());
        self.at(after, target, Happening::Input(Input::Datagram { from, bytes }));
    }

    // --- The kernel.

    fn ran(&mut self, host: usize, container: ContainerId, life: u64) {
        let wall_ms = self.wall_ms();
        let it = &mut self.hosts[host];
        if it.state == HostState::PowerOff {
            return;
        }
        let pid = it.pids;
        it.pids += 1;
        let Some(entry) = it.kernel.get_mut(&container) else { return };
        entry.pid = Some(pid);
        entry.started_ms = wall_ms;
        entry.starts += 1;
        if it.life == life {
            self.input(host, Input::Started { container, pid });
        }
    }

    fn ended(&mut self, host: usize, container: ContainerId, life: u64) {
        let it = &mut self.hosts[host];
        if let Some(entry) = it.kernel.get_mut(&container) {
            entry.pid = None;
        }
        if it.life == life {
            let exit = Exit { signal: Some(15), ..Exit::default() };
            self.input(host, Input::Exited { container, exit });
        }
    }

    /// A program ends by itself with this code.
    pub fn crash_container(&mut self, host: usize, container: ContainerId, code: i32) {
        let Some(entry) = self.hosts[host].kernel.get_mut(&container) else { return };
        entry.pid = None;
        let exit = Exit { code: Some(code), ..Exit::default() };
        self.input(host, Input::Exited { container, exit });
    }

    // --- What a test does to the cluster.

    /// Switches a machine on, or starts its peer again.
    ///
    /// # Panics
    /// When the node refuses its own disk, which is a bug.
    pub fn start(&mut self, host: usize) {
        let (seed, now, wall_ms) = (self.seed, self.now, self.wall_ms());
        let settings = self.settings;
        let it = &mut self.hosts[host];
        assert!(it.node.is_none(), "n{} runs already", host + 1);
        it.life += 1;
        it.state = HostState::Up;
        let found = it.kernel.iter().map(|(id, container)| Found {
            container: *id,
            claim: container.claim.clone(),
            state: match container.pid {
                Some(pid) => Ok((pid, container.started_ms)),
                None => Err(Exit { lost: Some("the machine was switched off".to_owned()), ..Exit::default() }),
            },
        });
        let image = ImageRecord { reference: "web:1".to_owned(), digest: image_digest(), size_b: 1 };
        let config = Config {
            me: it.id,
            name: name(&format!("n{}", host + 1)),
            cluster: self.cluster,
            generation: it.life,
            addresses: vec![address(host)],
            labels: BTreeMap::new(),
            capacity: settings.capacity,
            seed: seed32(seed, 0x5e, (host as u64) << 32 | it.life),
            timings: Timings::default(),
            sabotage: settings.no_duplicate_resolution.then_some(Sabotage::NoDuplicateResolution).into_iter().collect(),
        };
        let boot = Boot { events: it.disk.clone(), containers: found.collect(), images: vec![image] };
        let node = Node::new(config, boot, now, wall_ms).expect("a node takes its own disk");
        it.node = Some(node);
        self.trace.push(format!("{now:?} n{} starts", host + 1));
        self.input(host, Input::Woken);
    }

    /// Kills the peer; its containers go on.
    pub fn stop_peer(&mut self, host: usize) {
        self.trace.push(format!("{:?} n{}'s peer is killed", self.now, host + 1));
        self.hosts[host].peer_dies();
    }

    /// Cuts the power of a machine.
    pub fn power_off(&mut self, host: usize) {
        self.trace.push(format!("{:?} n{} loses power", self.now, host + 1));
        self.hosts[host].power_off();
    }

    /// Lets nothing pass between the groups; within each everything passes.
    pub fn split(&mut self, groups: &[&[usize]]) {
        self.trace.push(format!("{:?} split {groups:?}", self.now));
        self.cuts.clear();
        for (n, from) in groups.iter().enumerate() {
            for to in groups.iter().enumerate().filter(|(m, _)| *m != n).flat_map(|(_, group)| group.iter()) {
                self.cuts.extend(from.iter().map(|from| (*from, *to)));
            }
        }
    }

    /// Lets nothing pass from one machine to another; the other way stays open.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.trace.push(format!("{:?} cut n{} -> n{}", self.now, from + 1, to + 1));
        self.cuts.insert((from, to));
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.trace.push(format!("{:?} heal", self.now));
        self.cuts.clear();
    }

    /// Fills or empties a disk.
    pub fn disk_full(&mut self, host: usize, full: bool) {
        self.hosts[host].disk_full = full;
    }

    /// Hands an event to a peer, as the CLI does.
    pub fn submit(&mut self, host: usize, event: Vec<u8>) -> CommandId {
        self.commands += 1;
        let command = CommandId(self.commands);
        self.input(host, Input::Submit { command, event, durable: 2 });
        command
    }

    /// The answer to a submitted event, if it has come.
    pub fn outcome(&self, command: CommandId) -> Option<&Outcome> {
        self.outcomes.get(&command)
    }

    /// Alice applies a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or the deployment is so already.
    pub fn apply(&mut self, host: usize, of: &str, spec: &Spec) -> CommandId {
        let time_ms = self.wall_ms();
        let node = self.hosts[host].node.as_ref().expect("the peer runs");
        let event = self.alice.apply(node.documents(), of, spec, time_ms).expect("something changes");
        self.submit(host, event)
    }

    /// Alice (or bob) sets one group of a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or has no such deployment.
    pub fn set(&mut self, host: usize, bob: bool, of: &str, group: &str, json: &str) -> CommandId {
        let time_ms = self.wall_ms();
        let node = self.hosts[host].node.as_ref().expect("the peer runs");
        let author = if bob { &mut self.bob } else { &mut self.alice };
        let event = author.set(node.documents(), of, group, json, time_ms).expect("the deployment is there");
        self.submit(host, event)
    }

    /// Alice deletes a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or has no such deployment.
    pub fn delete(&mut self, host: usize, of: &str) -> CommandId {
        let time_ms = self.wall_ms();
        let node = self.hosts[host].node.as_ref().expect("the peer runs");
        let event = self.alice.delete(node.documents(), of, time_ms).expect("the deployment is there");
        self.submit(host, event)
    }

    /// Alice removes a node through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run.
    pub fn remove_node(&mut self, host: usize, gone: usize) -> CommandId {
        let gone = self.hosts[gone].id;
        let node = self.hosts[host].node.as_ref().expect("the peer runs");
        let event = self.alice.node_remove(node.documents(), gone);
        self.submit(host, event)
    }

    // --- What a test looks at.

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Never: there is at least one machine.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The state of a machine.
    pub fn state(&self, host: usize) -> HostState {
        self.hosts[host].state
    }

    /// The mind of a peer that runs.
    pub fn node(&self, host: usize) -> Option<&Node> {
        self.hosts[host].node.as_ref()
    }

    /// What the kernel of a machine runs.
    pub fn running(&self, host: usize) -> impl Iterator<Item = (&ContainerId, &Container)> {
        self.hosts[host].kernel.iter().filter(|(_, container)| container.pid.is_some())
    }

    /// How many copies of each replica of a deployment run on these machines, by the kernels' word.
    pub fn copies(&self, hosts: &[usize], of: &str) -> BTreeMap<ReplicaId, Vec<(usize, Revision)>> {
        let mut copies: BTreeMap<ReplicaId, Vec<(usize, Revision)>> = BTreeMap::new();
        for host in hosts {
            for (_, container) in self.running(*host) {
                if container.claim.replica.deployment.as_str() == of {
                    let of = copies.entry(container.claim.replica.clone()).or_default();
                    of.push((*host, container.claim.revision));
                }
            }
        }
        copies
    }

    /// Whether exactly `count` replicas run on these machines, each once.
    pub fn runs_once(&self, hosts: &[usize], of: &str, count: usize) -> bool {
        let copies = self.copies(hosts, of);
        copies.len() == count && copies.values().all(|copies| copies.len() == 1)
    }

    /// Whether the peers of these machines hold the same documents and plan alike.
    pub fn agreed(&self, hosts: &[usize]) -> bool {
        let nodes: Vec<&Node> = hosts.iter().filter_map(|host| self.node(*host)).collect();
        let Some(first) = nodes.first() else { return false };
        nodes.len() == hosts.len()
            && nodes.iter().all(|node| {
                let docs = node.documents().docs();
                docs == first.documents().docs()
                    && docs.iter().all(|doc| node.documents().heads(doc) == first.documents().heads(doc))
            })
            && nodes.iter().all(|node| node.plan() == first.plan())
    }

    /// Whether all these machines believe each other up.
    pub fn all_up(&self, hosts: &[usize]) -> bool {
        hosts.iter().all(|host| {
            self.node(*host).is_some_and(|node| {
                hosts.iter().all(|other| node.liveness(&self.hosts[*other].id) == Liveness::Up)
            })
        })
    }

    /// The id of a machine's node.
    pub fn id(&self, host: usize) -> NodeId {
        self.hosts[host].id
    }

    /// What happened, as a person reads it: a line each.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}
