//! The network: links that lose nothing while they hold, datagrams that may be lost, cuts.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use model::{NodeId, Time};
use node::Input;
use rand::RngExt;
use wire::Message;

use crate::host::HostState;
use crate::world::{Cluster, Happening};

/// Silence after which a connection is given up, as the transport has it.
const IDLE: Duration = Duration::from_secs(12);

/// Frames that wait for one node; with more the link is given up, as the transport has it.
const FRAMES_QUEUED_MAX: usize = 1_024;

/// How soon after a heal a connection that held sends again what was lost: it backs off meanwhile.
const RESENT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(1_500));

/// One link, while both ends hold it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [usize; 2],
    /// By direction (0 is from the first end): what was sent and has not arrived.
    pub(crate) sent: [VecDeque<(u64, Message)>; 2],
    pub(crate) numbers: [u64; 2],
    /// Since when something does not pass in at least one direction.
    pub(crate) silent_since: Option<Time>,
    /// By direction: until when the link is busy with what was sent, where its width is bounded.
    pub(crate) busy: [Time; 2],
}

impl Wire {
    fn direction(&self, from: usize) -> usize {
        usize::from(self.ends[0] != from)
    }

    fn other(&self, host: usize) -> usize {
        if self.ends[0] == host { self.ends[1] } else { self.ends[0] }
    }
}

impl Cluster {
    fn latency(&mut self, from: usize, to: usize) -> Duration {
        self.distances.between(from, to) + self.between(self.settings.latency)
    }

    /// Whether a packet sent now would arrive and be heard.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.is_cut(from, to) && self.hosts[to].hears()
    }

    /// Whether nothing passes from one machine to another, by a cut or by one that comes and goes.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to)) || self.flapped.contains(&(from, to))
    }

    /// Whether two machines could shake hands now. Where packets are held back there is no handshake either: a
    /// link made through a clog would bring what was said at its beginning as the newest there is, long after.
    fn passes_both_ways(&self, one: usize, other: usize) -> bool {
        let passes = |from, to| self.passes(from, to) && self.clogged(from, to).is_zero();
        passes(one, other) && passes(other, one)
    }

    /// Who answers a call, whoever that is.
    fn who_answers(&self, host: usize, peer: NodeId) -> Option<usize> {
        self.holders(peer).find(|to| self.passes_both_ways(host, *to))
    }

    /// Every machine that has this key, or had it before it was set up anew: more than one after a disk
    /// was cloned.
    fn holders(&self, peer: NodeId) -> impl Iterator<Item = usize> {
        let clones = self.clones.iter().filter(move |(id, _)| *id == peer).map(|(_, host)| *host);
        self.index.get(&peer).copied().into_iter().chain(clones)
    }

    /// The machines with which a handshake would succeed: they answer, and each lets the other in.
    fn welcoming(&self, host: usize, peer: NodeId) -> Vec<usize> {
        self.holders(peer).filter(|to| self.lets_in(host, *to, peer)).collect()
    }

    fn lets_in(&self, host: usize, to: usize, peer: NodeId) -> bool {
        // A machine that was set up anew proves another key than the one that is dialled.
        self.passes_both_ways(host, to)
            && self.hosts[to].id == peer
            && self.hosts[to].allowed.contains(&self.hosts[host].id)
            && self.hosts[host].allowed.contains(&peer)
    }

    pub(crate) fn dial(&mut self, host: usize, peer: NodeId) {
        if !self.hosts[host].links.contains_key(&peer) && self.hosts[host].dialling.insert(peer) {
            let after = match self.who_answers(host, peer) {
                Some(to) => self.latency(host, to) * 3,
                None => self.settings.dial,
            };
            self.at(after, host, Happening::Dialled(peer));
        }
    }

    pub(crate) fn dialled(&mut self, host: usize, peer: NodeId) {
        self.hosts[host].dialling.remove(&peer);
        if self.hosts[host].links.contains_key(&peer) {
            return; // The other one was quicker: its call was the answer.
        }
        let welcoming = self.welcoming(host, peer);
        if welcoming.is_empty() {
            self.turned_away(host, peer);
            return self.input(host, Input::ConnectFailed(peer));
        }
        let me = self.hosts[host].id;
        let at = if welcoming.len() > 1 { self.rng.random_range(0..welcoming.len()) } else { 0 };
        let to = welcoming[at];
        // The other end may hold a dead link that it has not noticed: the new one takes its place.
        if let Some(old) = self.hosts[to].links.remove(&me) {
            // With two machines of one key the old link may be alive, and another's.
            if let Some(third) = self.wires.remove(&old).map(|wire| wire.other(to)).filter(|it| *it != host) {
                let (peer, after) = (self.hosts[to].id, self.latency(to, third));
                self.at(after, third, Happening::Dead { peer, link: old });
            }
            self.input(to, Input::Disconnected(me));
            if !self.lets_in(host, to, peer) {
                // It died of that: on a link with nobody at its end it would take itself for linked when it is back.
                return self.input(host, Input::ConnectFailed(peer));
            }
        }
        self.links_made += 1;
        let link = self.links_made;
        self.hosts[host].links.insert(peer, link);
        self.hosts[to].links.insert(me, link);
        let wire = Wire {
            ends: [host, to],
            sent: Default::default(),
            numbers: [0, 0],
            silent_since: None,
            busy: [Time::ZERO; 2],
        };
        self.wires.insert(link, wire);
        self.input(host, Input::Connected(peer));
        if self.hosts[to].links.get(&me) == Some(&link) {
            self.input(to, Input::Connected(me));
        }
    }

    /// A call that came to nothing: a removed node that calls where it is known as such is told so.
    fn turned_away(&mut self, host: usize, peer: NodeId) {
        let me = self.hosts[host].id;
        let Some(to) = self.who_answers(host, peer) else { return };
        let lets_in = |it: usize, whom: &NodeId| self.hosts[it].allowed.contains(whom);
        if lets_in(host, &peer) && !lets_in(to, &me) && self.hosts[to].former.contains(&me) {
            self.hosts[to].turned_away.insert(me, host);
            self.input(to, Input::FormerMember(me));
        }
    }

    /// What a removed node is told; lost if the way is cut. Nothing that it says is heard.
    pub(crate) fn farewell(&mut self, host: usize, to: NodeId, events: Vec<Vec<u8>>) {
        // With two machines of one key: to the one that is linked, or called last; else to one that hears it.
        let it = &self.hosts[host];
        let linked = it.links.get(&to).and_then(|link| self.wires.get(link)).map(|wire| wire.other(host));
        let called = it.turned_away.get(&to).copied();
        let target =
            linked.into_iter().chain(called).chain(self.holders(to)).find(|it| self.passes(host, *it));
        let Some(target) = target else { return };
        if !events.is_empty() {
            let (from, after) = (self.hosts[host].id, self.latency(host, target) * 2);
            self.at(after, target, Happening::Input(Input::Farewell { from, events }));
        }
    }

    /// This end lets go of a link; whether there was one. The other end hears of it if it can.
    pub(crate) fn hang_up(&mut self, host: usize, peer: NodeId) -> bool {
        let Some(link) = self.hosts[host].links.remove(&peer) else { return false };
        let wire = self.wires.remove(&link);
        let to = wire.map_or_else(|| self.index[&peer], |wire| wire.other(host));
        let me = self.hosts[host].id;
        let after = if self.passes(host, to) { self.latency(host, to) } else { IDLE };
        self.at(after, to, Happening::Dead { peer: me, link });
        true
    }

    /// The peer of this machine is gone without a word: the others find out when nothing comes.
    pub(crate) fn falls_silent(&mut self, host: usize) {
        let links: Vec<(NodeId, u64)> =
            self.hosts[host].links.iter().map(|(peer, link)| (*peer, *link)).collect();
        let me = self.hosts[host].id;
        for (peer, link) in links {
            let wire = self.wires.remove(&link);
            let to = wire.map_or_else(|| self.index[&peer], |wire| wire.other(host));
            self.at(IDLE, to, Happening::Dead { peer: me, link });
        }
    }

    pub(crate) fn dead(&mut self, host: usize, peer: NodeId, link: u64) {
        if self.hosts[host].links.get(&peer) != Some(&link) {
            return;
        }
        self.hosts[host].links.remove(&peer);
        if let Some(wire) = self.wires.remove(&link) {
            let (me, to) = (self.hosts[host].id, wire.other(host));
            let after = if self.passes(host, to) { self.latency(host, to) } else { IDLE };
            self.at(after, to, Happening::Dead { peer: me, link });
        }
        self.input(host, Input::Disconnected(peer));
    }

    /// A link over which nothing passed when this was asked: given up if nothing has passed since.
    pub(crate) fn idle(&mut self, host: usize, peer: NodeId, link: u64) {
        // Where the other end has let go already, nothing has passed since.
        let silent = self
            .wires
            .get(&link)
            .is_none_or(|wire| wire.silent_since.is_some_and(|since| self.now.since(since) >= IDLE));
        if silent {
            self.dead(host, peer, link);
        }
    }

    /// A stream: in order, and nothing is lost while the link holds.
    pub(crate) fn send(&mut self, host: usize, to: NodeId, message: Message) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        let Some(target) = self.wires.get(&link).map(|wire| wire.other(host)) else { return };
        // Dropped with no word, where a stream drops nothing: the story has failed then.
        if self.is_a_storm(host) {
            return;
        }
        let passes = self.passes(host, target);
        self.sends(&message);
        let after = self.stream_takes(host, target, link, &message);
        let Some(wire) = self.wires.get_mut(&link) else { return };
        self.frames += 1;
        if let Message::Events { events, .. } = &message {
            self.events_sent += events.len() as u64;
        }
        let direction = wire.direction(host);
        let number = wire.numbers[direction];
        wire.numbers[direction] += 1;
        wire.sent[direction].push_back((number, message));
        let waiting = wire.sent[direction].len();
        if passes {
            self.at(after, target, Happening::Arrived { link, upto: number });
        } else if waiting == FRAMES_QUEUED_MAX {
            self.at(Duration::ZERO, host, Happening::Dead { peer: to, link });
        }
    }

    /// How long a message takes on its way.
    fn stream_takes(&mut self, host: usize, target: usize, link: u64, message: &Message) -> Duration {
        // One latency for all of a link keeps the order; jitter comes from the links differing.
        let after = self.distances.between(host, target) + self.link_latency(link);
        let width = self.settings.odds.bytes_per_s;
        let queued = if width > 0 {
            let bytes = self.bytes_of_this(message);
            self.queue_behind(host, link, bytes, width)
        } else {
            Duration::ZERO
        };
        queued.max(self.clogged(host, target)) + after
    }

    /// The same as [`Self::bytes_of`]. One record goes to each peer in turn, and is measured once.
    fn bytes_of_this(&mut self, message: &Message) -> u64 {
        let Message::Records { records } = message else { return Self::bytes_of(message) };
        let [one] = &records[..] else { return Self::bytes_of(message) };
        match self.measured {
            Some((of, bytes)) if of == one.signature => bytes,
            _ => self.measured.insert((one.signature, Self::bytes_of(message))).1,
        }
    }

    /// What a message takes on the wire, as its frame.
    pub(crate) fn bytes_of(message: &Message) -> u64 {
        wire::encode(message).map_or(0, |frame| frame.len() as u64)
    }

    /// How long it takes until the last byte has left, behind what was sent before.
    fn queue_behind(&mut self, host: usize, link: u64, bytes: u64, bytes_per_s: u64) -> Duration {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&link) else { return Duration::ZERO };
        let direction = wire.direction(host);
        let begins = wire.busy[direction].max(now);
        wire.busy[direction] = begins + Duration::from_nanos(bytes * 1_000_000_000 / bytes_per_s);
        wire.busy[direction].since(now)
    }

    pub(crate) fn arrived(&mut self, host: usize, link: u64, upto: u64) {
        while let Some(wire) = self.wires.get_mut(&link) {
            let from = wire.other(host);
            let direction = wire.direction(from);
            let Some((first, _)) = wire.sent[direction].front() else { return };
            if *first > upto || !self.passes(from, host) {
                return; // Lost on the way; sent again when the cut is over.
            }
            let Some(wire) = self.wires.get_mut(&link) else { return };
            let Some((_, message)) = wire.sent[direction].pop_front() else { return };
            let from = self.hosts[from].id;
            self.input(host, Input::Received { from, message });
        }
    }

    fn link_latency(&self, link: u64) -> Duration {
        let (low, high) = self.settings.latency;
        let steps = u32::try_from(link % 16).unwrap_or(0);
        low + (high.saturating_sub(low)) * steps / 16
    }

    pub(crate) fn datagram(&mut self, host: usize, to: NodeId, mut bytes: Vec<u8>) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        if self.is_a_storm(host) {
            return;
        }
        self.datagrams += 1;
        self.sends_datagram(&bytes);
        let drawn = self.rng.random_range(0..1_000);
        let Some(target) = self.wires.get(&link).map(|wire| wire.other(host)) else { return };
        let loss = self.settings.loss + self.losses.get(&(host, target)).copied().unwrap_or(0);
        if drawn < loss || self.is_cut(host, target) || self.hosts[target].state != HostState::Up {
            return;
        }
        let from = self.hosts[host].id;
        for more in (0..self.times_that_it_comes()).rev() {
            let after = self.latency(host, target).max(self.clogged(host, target)) + self.late();
            let bytes = if more > 0 { bytes.clone() } else { std::mem::take(&mut bytes) };
            self.at(after, target, Happening::Datagram { from, link, bytes });
        }
    }

    /// Cuts these pairs, or lets them pass again; the others stay as they are.
    pub(crate) fn switch_cuts(&mut self, pairs: &BTreeSet<(usize, usize)>, cut: bool) {
        let cuts = if cut { &self.cuts | pairs } else { &self.cuts - pairs };
        self.set_cuts(cuts);
    }

    /// Puts new cuts in the place of the old ones.
    pub(crate) fn set_cuts(&mut self, cuts: BTreeSet<(usize, usize)>) {
        self.cuts = cuts;
        self.links_follow();
    }

    /// What is cut begins to be silent; what passes again brings what was sent meanwhile.
    pub(crate) fn links_follow(&mut self) {
        self.disturb();
        let now = self.now;
        let links: Vec<(u64, [usize; 2])> =
            self.wires.iter().map(|(link, wire)| (*link, wire.ends)).collect();
        for (link, [a, b]) in links {
            let held_up = |from: usize, to: usize| self.is_cut(from, to) || self.hosts[to].paused;
            let silent = held_up(a, b) || held_up(b, a);
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            let begins = silent && wire.silent_since.is_none();
            wire.silent_since = silent.then(|| wire.silent_since.unwrap_or(now));
            if begins {
                for (one, other) in [(a, b), (b, a)] {
                    let peer = self.hosts[other].id;
                    self.at(IDLE, one, Happening::Idle { peer, link });
                }
            }
            for (direction, from, to) in [(0, a, b), (1, b, a)] {
                let last = self.wires.get(&link).and_then(|wire| wire.sent[direction].back());
                if let Some(upto) = last.map(|(number, _)| *number)
                    && self.passes(from, to)
                {
                    let after = self.between(RESENT);
                    self.at(after, to, Happening::Arrived { link, upto });
                }
            }
        }
    }
}
