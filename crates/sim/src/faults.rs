//! What a test does to a cluster: switches, cuts, and events handed in as the CLI does.

use std::collections::BTreeSet;

use document::Documents;
use model::{EventId, ImageRecord, NodeId};
use node::{Boot, CommandId, Config, Exit, Found, Input, Node};
use rand::RngExt;

use crate::author::{Author, Spec, image_digest};
use crate::host::HostState;
use crate::world::{Cluster, address, seed32};

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// The first admin.
    Alice,
    /// The second admin.
    Bob,
}

impl User {
    /// The user's name in the roster.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }
}

impl Cluster {
    // --- Switches.

    /// Switches a machine on, or starts its peer again.
    ///
    /// # Panics
    /// When the peer runs already, or refuses its own disk, which is a bug.
    pub fn start(&mut self, host: usize) {
        let (seed, now, wall_ms) = (self.seed, self.now, self.wall_ms(host));
        let (settings, offers) = (self.settings.clone(), self.offered(host));
        let it = &mut self.hosts[host];
        assert!(it.node.is_none(), "n{} runs already", host + 1);
        it.life += 1;
        it.starts += 1;
        it.state = HostState::Up;
        it.offers = offers;
        let found = it.kernel.iter().map(|(id, container)| Found {
            container: *id,
            claim: container.claim.clone(),
            state: match container.pid {
                Some(pid) => Ok((pid, container.started_ms)),
                None if container.starts == 0 && container.exit == Exit::default() => {
                    Err(Exit { lost: Some("it was never started".to_owned()), ..Exit::default() })
                }
                None => Err(container.exit.clone()),
            },
            stopping: container.stop_asked,
        });
        let image = ImageRecord { reference: "web:1".to_owned(), digest: image_digest(), size_b: 1 };
        let config = Config {
            me: it.id,
            name: it.machine.name.clone(),
            cluster: self.identity,
            generation: it.starts,
            addresses: vec![address(host)],
            labels: it.machine.labels.clone(),
            capacity: it.terms.offered(&it.machine.capacity),
            terms: it.terms,
            signer: it.signer.clone(),
            reader: self.reader.clone(),
            seed: seed32(seed, 0x5e, (host as u64) << 32 | it.starts),
            timings: settings.timings,
            sabotage: settings.sabotage,
        };
        let leases = Ok(it.leases.values().cloned().collect());
        let boot = Boot { events: it.disk.clone(), containers: found.collect(), images: vec![image], leases };
        let node = Node::new(config, boot, now, wall_ms).expect("a node takes its own disk");
        it.node = Some(node);
        self.changes += 1;
        self.tell(format!("n{} starts", host + 1));
        self.started(host);
        self.input(host, Input::Woken);
        self.measure(host);
    }

    /// Kills the peer; its containers go on.
    pub fn stop_peer(&mut self, host: usize) {
        self.tell(format!("n{}'s peer is killed", host + 1));
        self.peer_gone(host);
    }

    /// Cuts the power of a machine.
    pub fn power_off(&mut self, host: usize) {
        self.tell(format!("n{} loses power", host + 1));
        self.peer_gone(host);
        self.kernel_dies(host);
        self.hosts[host].state = HostState::PowerOff;
    }

    fn peer_gone(&mut self, host: usize) {
        self.disturb();
        self.falls_silent(host);
        let unsynced = self.hosts[host].unsynced_records();
        let kept = self.rng.random_range(0..=unsynced);
        self.hosts[host].lose_unsynced(kept);
        self.lose_leases(host);
        self.hosts[host].peer_dies();
        self.changes += 1;
    }

    /// Fills or empties a disk.
    pub fn disk_full(&mut self, host: usize, full: bool) {
        self.tell(format!("n{}'s disk {}", host + 1, if full { "is full" } else { "has room again" }));
        self.hosts[host].disk_full = full;
        self.hosts[host].disk_room = None;
    }

    /// Datagrams lost from now on, in thousandths.
    pub const fn set_loss(&mut self, loss: u32) {
        self.settings.loss = loss;
    }

    /// Starts of containers that fail from now on, in thousandths.
    pub const fn set_start_failures(&mut self, start_failures: u32) {
        self.settings.start_failures = start_failures;
    }

    // --- Cuts.

    /// Lets nothing pass between the groups; within each everything passes.
    pub fn split(&mut self, groups: &[&[usize]]) {
        let words: Vec<String> = groups
            .iter()
            .map(|group| group.iter().map(|host| format!("n{}", host + 1)).collect::<Vec<_>>().join("+"))
            .collect();
        self.tell(format!("split {}", words.join(" | ")));
        let mut cuts = BTreeSet::new();
        for (n, from) in groups.iter().enumerate() {
            for to in groups.iter().enumerate().filter(|(m, _)| *m != n).flat_map(|(_, group)| group.iter()) {
                cuts.extend(from.iter().map(|from| (*from, *to)));
            }
        }
        self.set_cuts(cuts);
    }

    /// Lets nothing pass from one machine to another; the other way stays open.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.tell(format!("cut n{} -> n{}", from + 1, to + 1));
        let mut cuts = self.cuts.clone();
        cuts.insert((from, to));
        self.set_cuts(cuts);
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.tell("heal");
        self.set_cuts(BTreeSet::new());
    }

    // --- Events.

    /// Hands an event to a peer, as the CLI does.
    pub fn submit(&mut self, host: usize, event: Vec<u8>) -> CommandId {
        self.disturb();
        self.commands += 1;
        let command = CommandId(self.commands);
        self.input(host, Input::Submit { command, event, durable: 2 });
        command
    }

    /// A user signs an event as of what the peer of that host knows, and hands it in there; the request and
    /// the event's bytes, or `None` where there is nothing to sign.
    ///
    /// # Panics
    /// When the peer of that host does not run.
    pub fn sign_and_submit(
        &mut self,
        host: usize,
        user: User,
        what: &str,
        sign: impl FnOnce(&mut Author, &Documents, i64) -> Option<Vec<u8>>,
    ) -> Option<(CommandId, Vec<u8>)> {
        let time_ms = self.wall_ms(host);
        let node = self.hosts[host].node.as_ref().expect("the peer runs");
        let author = match user {
            User::Alice => &mut self.alice,
            User::Bob => &mut self.bob,
        };
        let event = sign(author, node.documents(), time_ms)?;
        self.check.signed(&event);
        self.tell(format!("{} through n{}: {what}", user.name(), host + 1));
        Some((self.submit(host, event.clone()), event))
    }

    /// Alice applies a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or the deployment is so already.
    pub fn apply(&mut self, host: usize, of: &str, spec: &Spec) -> CommandId {
        let what = format!("apply {of} with {} replicas", spec.replicas.count);
        let signed = self.sign_and_submit(host, User::Alice, &what, |author, documents, time_ms| {
            author.apply(documents, of, spec, time_ms)
        });
        signed.expect("something changes").0
    }

    /// Alice (or bob) sets one group of a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or has no such deployment.
    pub fn set(&mut self, host: usize, bob: bool, of: &str, group: &str, json: &str) -> CommandId {
        let user = if bob { User::Bob } else { User::Alice };
        let signed = self.sign_and_submit(
            host,
            user,
            &format!("set {group} of {of} to {json}"),
            |author, documents, time_ms| author.set(documents, of, group, json, time_ms),
        );
        signed.expect("the deployment is there").0
    }

    /// Alice deletes a deployment through a peer.
    ///
    /// # Panics
    /// When the peer of that host does not run, or has no such deployment.
    pub fn delete(&mut self, host: usize, of: &str) -> CommandId {
        let signed =
            self.sign_and_submit(host, User::Alice, &format!("delete {of}"), |author, documents, time_ms| {
                author.delete(documents, of, time_ms)
            });
        signed.expect("the deployment is there").0
    }

    /// Says a farewell to a peer in the name of another: true or not.
    pub fn say_farewell(&mut self, host: usize, from: NodeId, events: Vec<Vec<u8>>) {
        self.input(host, Input::Farewell { from, events });
    }

    /// The id of an event that was handed in.
    pub fn event_id(event: &[u8]) -> EventId {
        document::event::id_of(event)
    }
}
