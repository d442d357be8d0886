//! The network: links that lose nothing while they hold, datagrams that may be lost, cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::NodeId;
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
    pub(crate) sent: [BTreeMap<u64, Message>; 2],
    pub(crate) numbers: [u64; 2],
}

impl Wire {
    fn direction(&self, from: usize) -> usize {
        usize::from(self.ends[0] != from)
    }
}

impl Cluster {
    pub(crate) fn latency(&mut self) -> Duration {
        self.between(self.settings.latency)
    }

    /// Whether a packet sent now would arrive.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to)) && self.hosts[to].state == HostState::Up
    }

    /// Whether a call is answered: packets pass both ways.
    fn answers(&self, host: usize, peer: NodeId) -> bool {
        self.index.get(&peer).is_some_and(|to| self.passes(host, *to) && self.passes(*to, host))
    }

    /// Whether a handshake would succeed: the call is answered, and each lets the other in.
    fn reachable(&self, host: usize, peer: NodeId) -> bool {
        let Some(&to) = self.index.get(&peer) else { return false };
        // A machine that was set up anew proves another key than the one that is dialled.
        self.answers(host, peer)
            && self.hosts[to].id == peer
            && self.hosts[to].allowed.contains(&self.hosts[host].id)
            && self.hosts[host].allowed.contains(&peer)
    }

    pub(crate) fn dial(&mut self, host: usize, peer: NodeId) {
        if !self.hosts[host].links.contains_key(&peer) && self.hosts[host].dialling.insert(peer) {
            let after = if self.answers(host, peer) { self.latency() * 3 } else { self.settings.dial };
            self.at(after, host, Happening::Dialled(peer));
        }
    }

    pub(crate) fn dialled(&mut self, host: usize, peer: NodeId) {
        self.hosts[host].dialling.remove(&peer);
        if self.hosts[host].links.contains_key(&peer) {
            return; // The other one was quicker: its call was the answer.
        }
        if !self.reachable(host, peer) {
            self.turned_away(host, peer);
            return self.input(host, Input::ConnectFailed(peer));
        }
        let (to, me) = (self.index[&peer], self.hosts[host].id);
        // The other end may hold a dead link that it has not noticed: the new one takes its place.
        if let Some(old) = self.hosts[to].links.remove(&me) {
            self.wires.remove(&old);
            self.input(to, Input::Disconnected(me));
        }
        self.links_made += 1;
        let link = self.links_made;
        self.hosts[host].links.insert(peer, link);
        self.hosts[to].links.insert(me, link);
        let wire = Wire { ends: [host, to], sent: Default::default(), numbers: [0, 0] };
        self.wires.insert(link, wire);
        self.input(host, Input::Connected(peer));
        if self.hosts[to].links.get(&me) == Some(&link) {
            self.input(to, Input::Connected(me));
        }
    }

    /// A call that came to nothing: a removed node that calls where it is known as such is told so.
    fn turned_away(&mut self, host: usize, peer: NodeId) {
        let me = self.hosts[host].id;
        if self.answers(host, peer) && self.hosts[host].allowed.contains(&peer) {
            let to = self.index[&peer];
            if !self.hosts[to].allowed.contains(&me) && self.hosts[to].former.contains(&me) {
                self.input(to, Input::FormerMember(me));
            }
        }
    }

    /// What a removed node is told; lost if the way is cut. Nothing that it says is heard.
    pub(crate) fn farewell(&mut self, host: usize, to: NodeId, events: Vec<Vec<u8>>) {
        let target = self.index[&to];
        if !events.is_empty() && self.passes(host, target) {
            let (from, after) = (self.hosts[host].id, self.latency() * 2);
            self.at(after, target, Happening::Input(Input::Farewell { from, events }));
        }
    }

    /// This end lets go of a link; whether there was one. The other end hears of it if it can.
    pub(crate) fn hang_up(&mut self, host: usize, peer: NodeId) -> bool {
        let Some(link) = self.hosts[host].links.remove(&peer) else { return false };
        self.wires.remove(&link);
        let (to, me) = (self.index[&peer], self.hosts[host].id);
        let after = if self.passes(host, to) { self.latency() } else { IDLE };
        self.at(after, to, Happening::Dead { peer: me, link });
        true
    }

    /// The peer of this machine is gone without a word: the others find out when nothing comes.
    pub(crate) fn falls_silent(&mut self, host: usize) {
        let links: Vec<(NodeId, u64)> =
            self.hosts[host].links.iter().map(|(peer, link)| (*peer, *link)).collect();
        let me = self.hosts[host].id;
        for (peer, link) in links {
            self.wires.remove(&link);
            self.at(IDLE, self.index[&peer], Happening::Dead { peer: me, link });
        }
    }

    pub(crate) fn dead(&mut self, host: usize, peer: NodeId, link: u64) {
        if self.hosts[host].links.get(&peer) != Some(&link) {
            return;
        }
        self.hosts[host].links.remove(&peer);
        if self.wires.remove(&link).is_some() {
            let me = self.hosts[host].id;
            let to = self.index[&peer];
            let after = if self.passes(host, to) { self.latency() } else { IDLE };
            self.at(after, to, Happening::Dead { peer: me, link });
        }
        self.input(host, Input::Disconnected(peer));
    }

    /// A link that was cut when this was asked: given up if it is still so.
    pub(crate) fn idle(&mut self, host: usize, peer: NodeId, link: u64) {
        let Some(&to) = self.index.get(&peer) else { return };
        if self.cuts.contains(&(host, to)) || self.cuts.contains(&(to, host)) {
            self.dead(host, peer, link);
        }
    }

    /// A stream: in order, and nothing is lost while the link holds.
    pub(crate) fn send(&mut self, host: usize, to: NodeId, message: Message) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        let target = self.index[&to];
        let passes = self.passes(host, target);
        // One latency for all of a link keeps the order; jitter comes from the links differing.
        let after = self.link_latency(link);
        let Some(wire) = self.wires.get_mut(&link) else { return };
        self.frames += 1;
        let direction = wire.direction(host);
        let number = wire.numbers[direction];
        wire.numbers[direction] += 1;
        wire.sent[direction].insert(number, message);
        let waiting = wire.sent[direction].len();
        if passes {
            self.at(after, target, Happening::Arrived { link, upto: number });
        } else if waiting == FRAMES_QUEUED_MAX {
            self.at(Duration::ZERO, host, Happening::Dead { peer: to, link });
        }
    }

    pub(crate) fn arrived(&mut self, host: usize, link: u64, upto: u64) {
        while let Some(wire) = self.wires.get_mut(&link) {
            let from = if wire.ends[0] == host { wire.ends[1] } else { wire.ends[0] };
            if self.cuts.contains(&(from, host)) {
                return; // Lost on the way; sent again when the cut is over.
            }
            let direction = wire.direction(from);
            let Some(first) = wire.sent[direction].first_entry() else { return };
            if *first.key() > upto {
                return;
            }
            let message = first.remove();
            let from = self.hosts[from].id;
            self.input(host, Input::Received { from, message });
        }
    }

    fn link_latency(&self, link: u64) -> Duration {
        let (low, high) = self.settings.latency;
        let steps = u32::try_from(link % 16).unwrap_or(0);
        low + (high.saturating_sub(low)) * steps / 16
    }

    pub(crate) fn datagram(&mut self, host: usize, to: NodeId, bytes: Vec<u8>) {
        let Some(&link) = self.hosts[host].links.get(&to) else { return };
        let target = self.index[&to];
        self.datagrams += 1;
        let lost = self.rng.random_range(0..1_000) < self.settings.loss;
        if lost || !self.passes(host, target) {
            return;
        }
        let (from, after) = (self.hosts[host].id, self.latency());
        self.at(after, target, Happening::Datagram { from, link, bytes });
    }

    /// Cuts these pairs, or lets them pass again; the others stay as they are.
    pub(crate) fn switch_cuts(&mut self, pairs: &BTreeSet<(usize, usize)>, cut: bool) {
        let cuts = if cut { &self.cuts | pairs } else { &self.cuts - pairs };
        self.set_cuts(cuts);
    }

    /// Puts new cuts in the place of the old ones.
    pub(crate) fn set_cuts(&mut self, cuts: BTreeSet<(usize, usize)>) {
        self.cuts = cuts;
        let links: Vec<(u64, [usize; 2])> =
            self.wires.iter().map(|(link, wire)| (*link, wire.ends)).collect();
        for (link, [a, b]) in links {
            if self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a)) {
                for (one, other) in [(a, b), (b, a)] {
                    let peer = self.hosts[other].id;
                    self.at(IDLE, one, Happening::Idle { peer, link });
                }
            }
            for (direction, from, to) in [(0, a, b), (1, b, a)] {
                let last = self.wires.get(&link).and_then(|wire| wire.sent[direction].last_key_value());
                if let Some(upto) = last.map(|(number, _)| *number)
                    && !self.cuts.contains(&(from, to))
                {
                    let after = self.between(RESENT);
                    self.at(after, to, Happening::Arrived { link, upto });
                }
            }
        }
    }
}
