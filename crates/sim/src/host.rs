//! One simulated machine: its peer, its disk, its kernel; what survives which fault.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use document::Documents;
use model::{
    Capacity, ContainerId, EventId, LabelKey, LeaseGrant, Name, NodeId, ReplicaId, RestartPolicy, Terms, Time,
};
use node::{Claim, Exit, Node, Seq, Signer};

use crate::hostile::Rogue;
use crate::short::Shortage;
use crate::trouble::{Backup, Clock, Fate};
use crate::world::Happening;

/// What state a machine is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// The peer runs.
    Up,
    /// The peer does not run; its containers may.
    PeerDown,
    /// There is no power.
    PowerOff,
}

/// What a machine is called and what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name of its node.
    pub name: Name,
    /// What it offers to containers, from the next start of its peer on.
    pub capacity: Capacity,
    /// The labels of its node, from the next start of its peer on.
    pub labels: BTreeMap<LabelKey, String>,
}

/// A container in the simulated kernel: what really runs.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its claim, as it lies beside it on disk.
    pub claim: Claim,
    /// Its first process; `None` when it does not run.
    pub pid: Option<u32>,
    /// When its program was started, in milliseconds of the machine's clock.
    pub started_ms: i64,
    /// When its program was started, in virtual time.
    pub(crate) started: Time,
    /// How often its program was started.
    pub starts: u32,
    /// It may run until then, where its lease ends.
    pub(crate) until: Option<Time>,
    /// It is being made; a peer that dies meanwhile takes it along.
    pub(crate) starting: bool,
    /// It was asked to end while it was being made.
    pub(crate) stop_asked: bool,
    /// It was asked to end although its node wants the replica: as a duplicate, or replaced.
    pub(crate) surplus: bool,
    /// How its program ended last.
    pub(crate) exit: Exit,
    /// When the program that runs will end by itself, where it will.
    pub(crate) ends_at: Option<Time>,
    /// Of a job: how often its program ran and ended badly by itself.
    pub(crate) failed: u32,
    /// Of a job: how often it could not be started, here or anywhere.
    pub(crate) failed_starts: u32,
}

impl Container {
    /// Whether its program ended so that its restart policy lets it be: by the kernel's word and the rules
    /// alone.
    pub(crate) fn has_ended_for_good(&self) -> bool {
        let well = self.exit.code == Some(0) && !self.exit.oom;
        let ran = self.starts > 0 && self.pid.is_none() && !self.starting && self.exit.lost.is_none();
        ran && match self.claim.run.restart {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => well,
            RestartPolicy::Never => {
                let retries = self.claim.run.retries;
                well || retries.is_none_or(|retries| self.failed > retries)
            }
        }
    }

    /// Whether its program has done what it is for: of a job, and not told to stop.
    pub(crate) fn has_done_its_run(&self) -> bool {
        let well = self.exit.code == Some(0) && !self.exit.oom;
        self.claim.run.retries.is_some() && well && self.has_ended_for_good() && !self.stop_asked
    }

    /// Whether it may have been given up: of a job, and as often as it is tried it has failed, its starts
    /// included. A peer that is started again has forgotten starts that failed, and tries once more.
    pub(crate) fn may_be_given_up(&self) -> bool {
        self.pid.is_none()
            && !self.starting
            && self.claim.run.retries.is_some_and(|retries| self.failed + self.failed_starts > retries)
    }
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) machine: Machine,
    /// Signs with the node's key.
    pub(crate) signer: Signer,
    /// The peer was taken over: beside all else it sends false records of the others.
    pub(crate) lies: bool,
    pub(crate) state: HostState,
    pub(crate) node: Option<Node>,
    /// Counts the lives of the peer: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// The documents of the peer's last life, so that they are found again when it reads its disk.
    pub(crate) last_documents: Option<Arc<Documents>>,
    /// How often the peer was started: its generation.
    pub(crate) starts: u64,
    /// What the journal has synced.
    pub(crate) disk: Vec<Vec<u8>>,
    /// The same, by id.
    pub(crate) on_disk: BTreeSet<EventId>,
    /// What it was given and has not synced. Of this a power cut, like the death of the peer, leaves
    /// any beginning.
    pub(crate) unsynced: Vec<(Seq, Vec<Vec<u8>>)>,
    pub(crate) disk_full: bool,
    /// Records that there is still room for, where that was counted.
    pub(crate) disk_room: Option<usize>,
    /// A sync failed: the journal takes nothing more in this life of the peer.
    pub(crate) disk_failed: bool,
    /// What that sync was to make last: it may be found at the next start, any beginning of it.
    pub(crate) uncertain: Vec<Vec<u8>>,
    /// When the journal is done with what it was given last: it syncs one batch after the other.
    pub(crate) disk_busy: Time,
    /// What it has granted as a voter, on disk.
    pub(crate) leases: BTreeMap<ReplicaId, LeaseGrant>,
    /// What of that is being written, oldest first.
    pub(crate) leases_unsynced: VecDeque<LeaseGrant>,
    /// A copy of the whole disk from some earlier day.
    pub(crate) backup: Option<Backup>,
    pub(crate) kernel: BTreeMap<ContainerId, Container>,
    pub(crate) pids: u32,
    pub(crate) clock: Clock,
    /// How long a container takes to start here, where it differs.
    pub(crate) start: Option<Duration>,
    /// The kernel makes no process more: every start fails, here only.
    pub(crate) no_pids: bool,
    /// What it keeps and gives away twice, from the next start of its peer on.
    pub(crate) terms: Terms,
    /// What it has offered to containers since the last start of its peer.
    pub(crate) offers: Capacity,
    /// What it is short of, where a peer would measure it.
    pub(crate) shortage: Option<Shortage>,
    /// Since when its peer has known of a shortage without a break, in this life.
    pub(crate) short_since: Option<Time>,
    /// The peer is stopped and hears nothing; what comes for it waits.
    pub(crate) paused: bool,
    pub(crate) deferred: Vec<Happening>,
    /// When the peer will die.
    pub(crate) fate: Option<Fate>,
    /// What is there in the place of a peer, where the node's key is in the wrong hands.
    pub(crate) rogue: Option<Box<Rogue>>,
    /// Peers with a live link, and which of the links that there were.
    pub(crate) links: BTreeMap<NodeId, u64>,
    pub(crate) dialling: BTreeSet<NodeId>,
    /// Who may speak to the peer, as the core said last.
    pub(crate) allowed: BTreeSet<NodeId>,
    /// Nodes that the core called removed: they are told so when they dial.
    pub(crate) former: BTreeSet<NodeId>,
    /// Which machine called last in the name of a removed node.
    pub(crate) turned_away: BTreeMap<NodeId, usize>,
    pub(crate) wake: Option<Time>,
    /// The alarm that was set last, whether it is still meant or not.
    pub(crate) alarm: Option<Time>,
    /// Inputs in one instant: many are a loop that never ends.
    pub(crate) busy: (Time, u32),
}

impl Host {
    pub(crate) fn new(id: NodeId, signer: Signer, machine: Machine) -> Self {
        Self {
            id,
            machine,
            signer,
            lies: false,
            state: HostState::PowerOff,
            node: None,
            life: 0,
            last_documents: None,
            starts: 0,
            disk: Vec::new(),
            on_disk: BTreeSet::new(),
            unsynced: Vec::new(),
            disk_full: false,
            disk_room: None,
            disk_failed: false,
            uncertain: Vec::new(),
            disk_busy: Time::ZERO,
            leases: BTreeMap::new(),
            leases_unsynced: VecDeque::new(),
            backup: None,
            kernel: BTreeMap::new(),
            pids: 100,
            clock: Clock::default(),
            start: None,
            no_pids: false,
            terms: Terms::default(),
            offers: Capacity::default(),
            shortage: None,
            short_since: None,
            paused: false,
            deferred: Vec::new(),
            fate: None,
            rogue: None,
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            allowed: BTreeSet::new(),
            former: BTreeSet::new(),
            turned_away: BTreeMap::new(),
            wake: None,
            alarm: None,
            busy: (Time::ZERO, 0),
        }
    }

    /// The peer is no more. Containers go on, but for those that it was just making.
    pub(crate) fn peer_dies(&mut self) {
        self.last_documents = self.node.take().map(|node| node.shared_documents());
        self.life += 1;
        self.links.clear();
        self.dialling.clear();
        self.wake = None;
        self.alarm = None;
        self.paused = false;
        self.deferred.clear();
        self.fate = None;
        self.short_since = None;
        self.disk_failed = false;
        for container in self.kernel.values_mut().filter(|container| container.starting) {
            container.starting = false;
            container.exit = Exit { lost: Some("its start was cut off".to_owned()), ..Exit::default() };
        }
        self.state = HostState::PeerDown;
    }

    /// Records that were given to the journal and of which nobody knows whether they are on disk.
    pub(crate) fn unsynced_records(&self) -> usize {
        let unsynced: usize = self.unsynced.iter().map(|(_, records)| records.len()).sum();
        self.uncertain.len() + unsynced
    }

    /// The first `kept` of them were on disk after all, if there was room; the others are gone.
    pub(crate) fn lose_unsynced(&mut self, kept: usize) {
        let kept = if self.disk_full { 0 } else { kept };
        let unsynced = std::mem::take(&mut self.unsynced).into_iter().flat_map(|(_, records)| records);
        let records: Vec<Vec<u8>> = std::mem::take(&mut self.uncertain).into_iter().chain(unsynced).collect();
        self.write(records.into_iter().take(kept));
    }

    /// Puts records on disk, for good.
    pub(crate) fn write(&mut self, records: impl IntoIterator<Item = Vec<u8>>) {
        for record in records {
            self.on_disk.insert(document::event::id_of(&record));
            self.disk.push(record);
        }
    }

    /// Whether the peer takes what comes to it.
    pub(crate) fn hears(&self) -> bool {
        self.state == HostState::Up && !self.paused
    }
}
