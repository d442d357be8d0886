//! A member that follows no rule: it replays, mutates, lies and floods, with the types of the wire and
//! with real traffic for material. What its own key signs others must believe of it; what it says of
//! others in their name is refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::{
    Capacity, ClusterId, ContainerId, ContainerRecord, ContainerState, DocId, EventId, Name, NodeId,
    NodeRecord, RecordVersion, SignedRecord,
};
use node::{Input, sign_record};
use rand::RngExt;
use wire::{Message, Position};

use crate::host::HostState;
use crate::world::{Cluster, Happening};

/// Messages and datagrams that it keeps for later use.
const KEPT_MAX: usize = 64;

/// What it has overheard.
#[derive(Debug, Default)]
pub(crate) struct Rogue {
    messages: VecDeque<Message>,
    datagrams: VecDeque<Vec<u8>>,
}

impl Cluster {
    /// In the place of a peer there is a rogue with its key: the node's containers are gone.
    pub fn goes_rogue(&mut self, host: usize) {
        if self.hosts[host].state != HostState::PowerOff {
            self.power_off(host);
        }
        self.tell(format!("n{} goes rogue", host + 1));
        let all = self.hosts.iter().map(|it| it.id).collect();
        let it = &mut self.hosts[host];
        it.life += 1;
        it.state = HostState::Up;
        it.allowed = all;
        it.rogue = Some(Box::default());
        self.check.lied_to = true;
        self.at(Duration::ZERO, host, Happening::Mischief);
    }

    /// What comes to it is material.
    pub(crate) fn overhears(&mut self, host: usize, input: Input) {
        let Some(it) = &mut self.hosts[host].rogue else { return };
        match input {
            Input::Received { message, .. } => {
                it.messages.push_back(message);
                if it.messages.len() > KEPT_MAX {
                    it.messages.pop_front();
                }
            }
            Input::Datagram { bytes, .. } => {
                it.datagrams.push_back(bytes);
                if it.datagrams.len() > KEPT_MAX {
                    it.datagrams.pop_front();
                }
            }
            _ => {}
        }
    }

    /// It does one thing, and soon another.
    pub(crate) fn mischief(&mut self, host: usize) {
        let pause = Duration::from_millis(self.rng.random_range(1..200));
        self.at(pause, host, Happening::Mischief);
        let victim = self.rng.random_range(0..self.hosts.len());
        let to = self.hosts[victim].id;
        if victim == host || self.hosts[victim].rogue.is_some() {
            return;
        }
        if !self.hosts[host].links.contains_key(&to) {
            return self.dial(host, to);
        }
        if self.rng.random_range(0..3) == 0 {
            let bytes = self.bad_datagram(host);
            return self.datagram(host, to, bytes);
        }
        let message = self.bad_message(host);
        // What the codec does not carry never reaches a core.
        if let Ok(frame) = wire::encode(&message)
            && let Ok(message) = wire::decode(&frame)
        {
            self.send(host, to, message);
        }
    }

    fn some_bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.rng.random_range(0..=most);
        (0..count).map(|_| self.rng.random_range(0..=u8::MAX)).collect()
    }

    fn some_id(&mut self, known: &[EventId]) -> EventId {
        if self.rng.random_range(0..2) == 0 && !known.is_empty() {
            return known[self.rng.random_range(0..known.len())];
        }
        let mut id = [0; 32];
        id.fill_with(|| self.rng.random_range(0..=u8::MAX));
        EventId::from_bytes(id)
    }

    fn some_ids(&mut self) -> Vec<EventId> {
        let count = if self.rng.random_range(0..8) == 0 { 4_000 } else { self.rng.random_range(0..8) };
        let known: Vec<EventId> = self.hosts[0].on_disk.iter().copied().collect();
        (0..count).map(|_| self.some_id(&known)).collect()
    }

    fn some_doc(&mut self) -> DocId {
        match self.rng.random_range(0..3) {
            0 => DocId::Cluster,
            1 => DocId::Namespace(Name::default_namespace()),
            _ => {
                let n: u32 = self.rng.random_range(0..100);
                DocId::Namespace(crate::author::name(&format!("ns-{n}")))
            }
        }
    }

    fn some_number(&mut self) -> u64 {
        match self.rng.random_range(0..4) {
            0 => 0,
            1 => u64::MAX,
            2 => self.rng.random_range(0..10),
            _ => self.rng.random_range(0..=u64::MAX),
        }
    }

    /// A byte changed, taken out or doubled, somewhere.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.random_range(1..4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.rng.random_range(0..bytes.len());
            match self.rng.random_range(0..4) {
                0 => bytes[at] ^= 1 << self.rng.random_range(0..8),
                1 => bytes[at] = self.rng.random_range(0..=u8::MAX),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, bytes[at]),
            }
        }
    }

    fn bad_datagram(&mut self, host: usize) -> Vec<u8> {
        let kept = self.hosts[host].rogue.as_ref().map_or(0, |it| it.datagrams.len());
        let how = self.rng.random_range(0..3);
        if kept == 0 || how == 0 {
            return self.some_bytes(1_200);
        }
        let at = self.rng.random_range(0..kept);
        let mut bytes = self.hosts[host].rogue.as_ref().map_or_else(Vec::new, |it| it.datagrams[at].clone());
        if how == 1 {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn bad_message(&mut self, host: usize) -> Message {
        let kept = self.hosts[host].rogue.as_ref().map_or(0, |it| it.messages.len());
        let how = self.rng.random_range(0..12);
        if kept > 0 && how < 4 {
            let at = self.rng.random_range(0..kept);
            let it = self.hosts[host].rogue.as_ref();
            let message = it.map_or(Message::Want { ids: Vec::new() }, |it| it.messages[at].clone());
            return if how < 2 { message } else { self.mutated(message) };
        }
        match how {
            4 => Message::Want { ids: self.some_ids() },
            5 => Message::Stored { ids: self.some_ids() },
            6 => {
                let count = self.rng.random_range(0..20);
                let position = |this: &mut Self| Position {
                    doc: this.some_doc(),
                    heads: this.some_ids(),
                    samples: this.some_ids(),
                };
                let positions = (0..count).map(|_| position(self)).collect();
                Message::Positions { positions, full: self.rng.random_range(0..2) == 0 }
            }
            7 => Message::Events { events: self.bad_events(), more: self.rng.random_range(0..2) == 0 },
            8 => Message::Records { records: self.bad_record(host).into_iter().collect() },
            9 => {
                let ids: Vec<NodeId> = self.hosts.iter().map(|it| it.id).collect();
                let versions = ids
                    .into_iter()
                    .map(|id| {
                        (id, RecordVersion { generation: self.some_number(), count: self.some_number() })
                    })
                    .collect();
                Message::RecordDigest { versions, reply: self.rng.random_range(0..2) == 0 }
            }
            10 => Message::Hello {
                cluster: if self.rng.random_range(0..2) == 0 {
                    self.identity
                } else {
                    ClusterId::from_bytes([9; 32])
                },
                generation: self.some_number(),
            },
            _ => Message::Liveness { bytes: self.some_bytes(600), reply: self.rng.random_range(0..2) == 0 },
        }
    }

    /// Real events, mutated or many times over, and noise.
    fn bad_events(&mut self) -> Vec<Vec<u8>> {
        let count = self.rng.random_range(1..20);
        let mut events = Vec::new();
        for _ in 0..count {
            let disk = &self.hosts[0].disk;
            if disk.is_empty() || self.rng.random_range(0..4) == 0 {
                events.push(self.some_bytes(300));
                continue;
            }
            let mut event = disk[self.rng.random_range(0..disk.len())].clone();
            if self.rng.random_range(0..2) == 0 {
                self.mutate(&mut event);
            }
            events.push(event);
        }
        events
    }

    /// A record with any numbers, of itself or of another, signed with its own key. It claims what others
    /// run and confirms that they may stop. `None` where it is too large to be sent.
    fn bad_record(&mut self, host: usize) -> Option<SignedRecord> {
        let forges = self.rng.random_range(0..3) == 0;
        let of = if forges { self.rng.random_range(0..self.hosts.len()) } else { host };
        let running: Vec<(ContainerId, node::Claim)> = (0..self.hosts.len())
            .flat_map(|it| self.running(it).map(|(id, it)| (*id, it.claim.clone())).collect::<Vec<_>>())
            .collect();
        let mut containers = Vec::new();
        for (id, claim) in running {
            let mut own = [0; 8];
            own.fill_with(|| self.rng.random_range(0..=u8::MAX));
            containers.push(ContainerRecord {
                id: ContainerId::from_bytes(own),
                replica: claim.replica.clone(),
                revision: claim.revision,
                revision_number: self.some_number(),
                claim: self.some_number(),
                resources: Capacity { cpu_m: 1, memory_b: u64::MAX, pids: 1, ..Capacity::default() },
                state: ContainerState::Running,
                healthy: Some(true),
                pid: None,
                started_ms: Some(i64::MIN),
                restarts: u32::MAX,
                reason: Some("x".repeat(self.rng.random_range(0..2_000))),
                confirms: vec![id],
                ready: true,
                proven: true,
                yields_to: None,
            });
        }
        let record = NodeRecord {
            node: self.hosts[of].id,
            version: RecordVersion { generation: self.some_number(), count: self.some_number() },
            name: crate::author::name("liar"),
            addresses: vec!["nowhere".to_owned(); self.rng.random_range(0..40)],
            labels: BTreeMap::new(),
            capacity: Capacity {
                cpu_m: u32::MAX.into(),
                memory_b: u64::MAX,
                pids: u32::MAX.into(),
                ..Capacity::default()
            },
            terms: model::Terms::default(),
            pressure: None,
            capacity_version: self.some_number(),
            links: self.hosts.iter().map(|it| it.id).collect(),
            containers,
            declined: Vec::new(),
            failed: Vec::new(),
            jobs: Vec::new(),
            images: Vec::new(),
            heads: BTreeMap::from([(self.some_doc(), self.some_ids())]),
            event_version: u16::MAX,
        };
        sign_record(&self.hosts[host].signer, self.identity, &record).ok()
    }

    fn mutated(&mut self, message: Message) -> Message {
        let Ok(mut frame) = wire::encode(&message) else { return message };
        self.mutate(&mut frame);
        wire::decode(&frame).unwrap_or(message)
    }
}
