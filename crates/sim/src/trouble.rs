//! Troubles of one machine: a peer that dies in the middle of what it does, or stands still; a disk
//! from another day; a clock that jumps; a kernel that refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ContainerId, EventId, LeaseGrant, ReplicaId, Time};
use node::{Effect, Exit};

use crate::host::{Container, Host, HostState};
use crate::world::{Cluster, Happening};

/// What comes for a peer that stands still and is kept for it: the buffer of its socket and the timers
/// of its kernel. Datagrams beyond are lost.
const DEFERRED_DATAGRAMS_MAX: usize = 256;

/// How a peer dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It is killed; its machine and its containers go on.
    Kill,
    /// Its machine loses power.
    Power,
}

/// A death that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// Effects that are still carried out.
    pub(crate) effects: u32,
    pub(crate) death: Death,
    /// After how long the peer is started again; never by itself where there is none.
    pub(crate) back_after: Option<Duration>,
}

/// A copy of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    disk: Vec<Vec<u8>>,
    on_disk: BTreeSet<EventId>,
    starts: u64,
    kernel: BTreeMap<ContainerId, Container>,
    leases: BTreeMap<ReplicaId, LeaseGrant>,
}

/// A machine's clock, which is never right.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// How far it is off.
    pub(crate) skew_ms: i64,
    /// Parts in a million that it is too fast, since the beginning.
    pub(crate) drift_ppm: i64,
    /// What it shows, where it stands still.
    pub(crate) stopped_ms: Option<i64>,
}

impl Cluster {
    // --- The peer.

    /// Lets a peer die behind its `effects`-th effect from now: between two of those that one input
    /// brought, as it comes. This is what a crash looks like from outside.
    pub fn die_after(&mut self, host: usize, effects: u32, death: Death, back_after: Option<Duration>) {
        if self.hosts[host].state == HostState::Up && self.hosts[host].rogue.is_none() {
            self.tell(format!("n{} will die after {effects} effects, by {death:?}", host + 1));
            self.hosts[host].fate = Some(Fate { effects, death, back_after });
        }
    }

    /// Whether the peer is dead before it carries out this effect.
    pub(crate) fn dies_before(&mut self, host: usize, effect: &Effect) -> bool {
        let Some(fate) = &mut self.hosts[host].fate else { return false };
        if let Some(left) = fate.effects.checked_sub(1) {
            fate.effects = left;
            return false;
        }
        let fate = *fate;
        let what = word(effect);
        self.tell(format!("n{} dies before it does this: {what}", host + 1));
        match fate.death {
            Death::Kill => self.stop_peer(host),
            Death::Power => self.power_off(host),
        }
        if let Some(after) = fate.back_after {
            self.at(after, host, Happening::Back);
        }
        true
    }

    /// A machine whose peer died comes back, if nobody else has seen to that.
    pub(crate) fn back(&mut self, host: usize) {
        if self.hosts[host].state != HostState::Up && !self.hosts[host].disk.is_empty() {
            self.start(host);
        }
    }

    /// Stops a peer where it stands, for so long: it hears nothing and does nothing, its containers go
    /// on.
    pub fn pause(&mut self, host: usize, span: Duration) {
        if self.hosts[host].hears() && self.hosts[host].rogue.is_none() {
            self.tell(format!("n{}'s peer stands still for {span:?}", host + 1));
            self.hosts[host].paused = true;
            self.links_follow();
            self.at(span, host, Happening::Resume);
        }
    }

    /// Lets it go on: everything that waited comes at once, at the time that it is by now.
    pub fn resume(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        self.tell(format!("n{}'s peer goes on", host + 1));
        self.hosts[host].paused = false;
        self.links_follow();
        for what in std::mem::take(&mut self.hosts[host].deferred) {
            if self.hosts[host].paused {
                self.hosts[host].deferred.push(what);
            } else if self.hosts[host].node.is_some() {
                self.happens(host, what);
            }
        }
    }

    /// Keeps what comes for a peer that stands still, within bounds.
    pub(crate) fn defer(&mut self, host: usize, what: Happening) {
        let deferred = &mut self.hosts[host].deferred;
        let datagram = matches!(what, Happening::Datagram { .. });
        let held = || deferred.iter().filter(|it| matches!(it, Happening::Datagram { .. })).count();
        if !datagram || held() < DEFERRED_DATAGRAMS_MAX {
            deferred.push(what);
        }
    }

    // --- The disk.

    /// Lets a disk take so many records more, and then no more.
    pub fn disk_room(&mut self, host: usize, records: usize) {
        self.tell(format!("n{}'s disk has room for {records} records", host + 1));
        self.hosts[host].disk_room = Some(records);
    }

    /// Copies a whole disk: the journal, the start counter, the containers' folders.
    pub fn back_up(&mut self, host: usize) {
        self.tell(format!("n{}'s disk is backed up", host + 1));
        let it = &mut self.hosts[host];
        let mut kernel = it.kernel.clone();
        for container in kernel.values_mut() {
            container.pid = None;
            container.starting = false;
            container.exit = Exit { lost: Some("it is of a backup".to_owned()), ..Exit::default() };
        }
        let (disk, on_disk, starts) = (it.disk.clone(), it.on_disk.clone(), it.starts);
        let leases = it.leases.clone();
        it.backup = Some(Backup { disk, on_disk, starts, kernel, leases });
    }

    /// Puts the last backup in the place of a disk, with the machine off. Nothing newer is left.
    pub fn restore(&mut self, host: usize) {
        let Some(backup) = self.hosts[host].backup.clone() else { return };
        if self.hosts[host].state != HostState::PowerOff {
            self.power_off(host);
        }
        self.tell(format!("n{}'s disk is the one of the backup again", host + 1));
        let it = &mut self.hosts[host];
        it.disk = backup.disk;
        it.on_disk = backup.on_disk;
        it.leases = backup.leases;
        it.starts = backup.starts;
        it.kernel = backup.kernel;
        self.check.restored(host);
    }

    /// Puts a copy of a machine's disk into a second machine, and switches that on: two with one key.
    /// The number of the second.
    pub fn clone_disk(&mut self, host: usize) -> usize {
        let clone = self.hosts.len();
        self.tell(format!("n{}'s disk is copied into a second machine, n{}", host + 1, clone + 1));
        self.back_up(host);
        let id = self.hosts[host].id;
        let (signer, machine) = (self.hosts[host].signer.clone(), self.hosts[host].machine.clone());
        let mut second = Host::new(id, signer, machine);
        if let Some(backup) = self.hosts[host].backup.clone() {
            second.disk = backup.disk;
            second.on_disk = backup.on_disk;
            second.starts = backup.starts;
            second.kernel = backup.kernel;
            second.leases = backup.leases;
        }
        self.hosts.push(second);
        self.clones.push((id, clone));
        self.check.cloned(host, clone);
        self.start(clone);
        clone
    }

    // --- The clock.

    /// Sets a machine's clock off by so much, whatever it showed. A box without a battery boots in 1970.
    pub fn skew_clock(&mut self, host: usize, skew_ms: i64) {
        self.tell(format!("n{}'s clock is {skew_ms} ms off", host + 1));
        self.hosts[host].clock = Clock { skew_ms, ..Clock::default() };
    }

    /// Steps a clock from where it is.
    pub fn step_clock(&mut self, host: usize, by_ms: i64) {
        self.tell(format!("n{}'s clock is stepped by {by_ms} ms", host + 1));
        self.hosts[host].clock.skew_ms += by_ms;
    }

    /// Lets a clock go too fast or too slow, in parts in a million.
    pub fn drift_clock(&mut self, host: usize, ppm: i64) {
        self.tell(format!("n{}'s clock drifts by {ppm} ppm", host + 1));
        self.hosts[host].clock.drift_ppm = ppm;
    }

    /// Stops a clock where it is, or lets it go on from where it should be.
    pub fn stop_clock(&mut self, host: usize, stopped: bool) {
        self.tell(format!("n{}'s clock {}", host + 1, if stopped { "stands" } else { "goes again" }));
        let shown = self.wall_ms(host);
        self.hosts[host].clock.stopped_ms = stopped.then_some(shown);
    }

    // --- The kernel.

    /// The kernel kills a container for want of memory.
    pub fn oom_container(&mut self, host: usize, container: ContainerId) {
        let name = self.name_of_container(container);
        self.tell(format!("{name} on n{} is killed for want of memory", host + 1));
        self.exits(host, container, Exit { signal: Some(9), oom: true, ..Exit::default() });
    }

    /// Lets a machine make no process more, or some again. What runs goes on.
    pub fn no_pids(&mut self, host: usize, none: bool) {
        self.tell(format!(
            "n{} {}",
            host + 1,
            if none { "has no process left" } else { "has processes again" }
        ));
        self.hosts[host].no_pids = none;
    }

    /// Lets containers take so long to start on one machine.
    pub fn slow_starts(&mut self, host: usize, start: Duration) {
        self.tell(format!("containers take {start:?} to start on n{}", host + 1));
        self.hosts[host].start = Some(start);
    }

    /// When the disk will have synced what it is given now.
    pub(crate) fn sync_takes(&mut self, host: usize) -> Duration {
        let mut takes = self.settings.sync;
        let slow = self.settings.odds.slow_syncs;
        if slow > 0 && rand::RngExt::random_range(&mut self.rng, 0..1_000) < slow {
            takes = takes.max(crate::weather::SLOW_SYNC);
        }
        let done: Time = self.hosts[host].disk_busy.max(self.now + takes);
        self.hosts[host].disk_busy = done;
        done.since(self.now)
    }
}

/// What an effect does, in a word for the trace.
pub(crate) const fn word(effect: &Effect) -> &'static str {
    match effect {
        Effect::Persist { .. } => "write to the journal",
        Effect::Send { .. } => "send a message",
        Effect::Datagram { .. } => "send a datagram",
        Effect::Connect { .. } => "dial",
        Effect::Disconnect(_) => "hang up",
        Effect::Start { .. } => "start a container",
        Effect::ExtendLease { .. } => "extend a lease",
        Effect::KeepLease(_) => "write a lease",
        Effect::ForgetLeases(_) => "forget leases",
        Effect::Stop(_) => "stop a container",
        Effect::Remove(_) => "remove a container",
        Effect::Fetch { .. } => "fetch an image",
        Effect::Reply { .. } => "answer a client",
        Effect::Notice(_) => "say something",
        Effect::Roster { .. } => "tell who may speak",
        Effect::Farewell { .. } => "say farewell to a removed node",
        Effect::WakeAt { .. } => "set the alarm",
    }
}
