//! Links: whom to dial and when, and who is believed alive.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use membership::Liveness;
use model::{ClusterId, DocId, EventId, NodeId, RecordVersion, Sabotage, Time};
use rand::RngExt;
use wire::Message;

use crate::io::Effect;
use crate::state::Node;

/// In a cluster of up to so many, an event or record is pushed to every link; beyond, to
/// [`PUSH_LINKS`] of them, and each receiver pushes on.
pub(crate) const PUSH_ALL_MAX: usize = 12;

/// Links that something is pushed to in a larger cluster: the two that follow in the order of ids,
/// which alone reach everybody in the end, and some at random, which reach most at once. Each peer sends
/// an event so often: with five, one of b bytes to N peers was more than 5 N b bytes.
const PUSH_LINKS: usize = 4;

/// The same of records, which go in bursts: what a burst leaves out, the next one or the periodic exchange
/// brings, and each copy of each record is looked at.
pub(crate) const PUSH_RECORD_LINKS: usize = 3;

/// Members that one is sent for through, at a time: mostly one who is linked to it is enough.
const SENT_FOR_MAX: usize = 3;

/// Redialling every unreachable member of a roster up to this size as often as `Timings::redial`
/// says; a larger one is redialled as much slower as it is larger.
const REDIAL_ROSTER: u32 = 10;

/// Where another node stood in a document when it was asked last.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) heads: Vec<EventId>,
    pub(crate) at: Time,
}

/// One member of the roster as somebody to be linked to.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) state: LinkState,
    /// When something was last heard on a link.
    pub(crate) heard_at: Option<Time>,
    /// Documents that it was asked about.
    pub(crate) asked: BTreeMap<DocId, Heads>,
    /// Since the link is up: its events are here.
    pub(crate) level: bool,
    /// The record of itself that the other side has named on this link, first.
    pub(crate) named: Option<RecordVersion>,
    /// Which records the other side held when it first said so on this link, and this one did not.
    pub(crate) lacking: Option<Vec<(NodeId, RecordVersion)>>,
    /// It may hold a record of somebody who was no member here when it was offered.
    pub(crate) knows_strangers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Dialled at that time.
    Down { dial_at: Time },
    /// The shell was told to dial.
    Dialling,
    /// Up.
    Up,
}

impl Default for LinkState {
    fn default() -> Self {
        Self::Down { dial_at: Time::ZERO }
    }
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }
}

impl Node {
    /// Follows the roster: who may speak, who is linked to, whether this node is still a member.
    pub(crate) fn roster_changed(&mut self) {
        self.removal_changed();
        let events = self.documents.events(&DocId::Cluster);
        if self.roster_of.replace(events) == Some(events) {
            return; // Most events change a deployment.
        }
        self.stirred = true;
        self.schedule_changed();
        let nodes: BTreeSet<NodeId> = self.documents.roster().nodes.keys().copied().collect();
        let others: BTreeSet<NodeId> = nodes.iter().copied().filter(|node| *node != self.config.me).collect();
        let out_of_date = self.out_of_date_roster(&nodes);
        if others.iter().eq(self.links.keys()) && !out_of_date {
            return;
        }
        self.membership.set_roster(self.now, &nodes);
        self.records.set_roster(&nodes);
        self.forgers.retain(|node, _| nodes.contains(node));
        let gone: Vec<NodeId> = self.links.keys().filter(|node| !others.contains(node)).copied().collect();
        // Whoever stays among the links may speak on: see `tell_roster`.
        let gone = if self.has(Sabotage::RemovedAreServed) { Vec::new() } else { gone };
        for node in gone {
            // It is told why before the door closes, so that it stops its containers.
            let Some(link) = self.links.remove(&node) else { continue };
            match link.state {
                LinkState::Up => self.begin_farewell(node),
                LinkState::Down { dial_at } => _ = self.dials.remove(&(dial_at, node)),
                LinkState::Dialling => {}
            }
        }
        let mut grown = false;
        for node in others {
            let second = if self.config.me < node { Duration::ZERO } else { self.config.timings.dial_second };
            let dial_at = self.now + second;
            if let Entry::Vacant(entry) = self.links.entry(node) {
                entry.insert(Link { state: LinkState::Down { dial_at }, ..Link::default() });
                self.dials.insert((dial_at, node));
                grown = true;
            }
        }
        if grown {
            self.ask_for_strangers();
        }
        self.tell_roster();
        self.changed = true;
        self.dirty = true;
    }

    /// Says who may speak from here on: members, and removed ones that are still being told so.
    pub(crate) fn tell_roster(&mut self) {
        let roster = self.documents.roster();
        let mut nodes: BTreeSet<NodeId> = roster.nodes.keys().chain(self.farewells.keys()).copied().collect();
        if self.has(Sabotage::RemovedAreServed) {
            nodes.extend(self.links.keys());
        }
        let users = roster.users.keys().copied().collect();
        let former = roster.removed.keys().copied().collect();
        self.out.push(Effect::Roster { nodes, users, former });
    }

    /// Whether the shell must be told again although the nodes are the same: users are added too.
    fn out_of_date_roster(&mut self, nodes: &BTreeSet<NodeId>) -> bool {
        let roster = self.documents.roster();
        let told = (nodes.len(), roster.users.len(), roster.removed.len());
        let out_of_date = self.told_roster != Some(told);
        self.told_roster = Some(told);
        out_of_date
    }

    /// Every change of a link's state goes through here: `dials` follows.
    fn set_link(&mut self, node: NodeId, state: LinkState) {
        let Some(link) = self.links.get_mut(&node) else { return };
        let was_up = link.is_up();
        if let LinkState::Down { dial_at } = std::mem::replace(&mut link.state, state) {
            self.dials.remove(&(dial_at, node));
        }
        if link.is_up() != was_up {
            // A plan is made of whom voters are linked to.
            self.dirty |= self.leases.voters.contains(&node);
        }
        if let LinkState::Down { dial_at } = state {
            self.dials.insert((dial_at, node));
        }
    }

    pub(crate) fn heard(&mut self, from: NodeId) {
        if let Some(link) = self.links.get_mut(&from) {
            link.heard_at = Some(self.now);
        }
    }

    pub(crate) fn on_connected(&mut self, peer: NodeId) {
        self.set_link(peer, LinkState::Up);
        let Some(link) = self.links.get_mut(&peer) else {
            self.out.push(Effect::Disconnect(peer));
            return;
        };
        *link = Link { state: LinkState::Up, heard_at: Some(self.now), ..Link::default() };
        let hello = Message::Hello { cluster: self.config.cluster, generation: self.config.generation };
        self.out.push(Effect::Send { to: peer, message: hello });
        self.membership.connected(self.now, peer);
        let whole = self.is_introduced_whole();
        if whole {
            let bytes = self.membership.push_pull_out();
            self.out.push(Effect::Send { to: peer, message: Message::Liveness { bytes, reply: false } });
        }
        if !self.has(Sabotage::NoPositionsAtConnect) {
            let positions = self.all_positions();
            self.after_sync(Effect::Send { to: peer, message: positions });
        }
        match self.records.signed(&self.config.me).cloned() {
            Some(own) if !whole => {
                let message = Message::Records { records: vec![own] };
                self.after_sync(Effect::Send { to: peer, message });
            }
            _ => self.send_digest(peer, true),
        }
        // Whom this node is linked to is part of what it says of itself.
        self.changed = true;
    }

    /// Whether a link that comes up now begins with all that is known of everybody. In a large cluster each
    /// member has many links that come up together, and all of this on each of them would be as much as
    /// members cubed: some tell it all, the others what is this node's own.
    fn is_introduced_whole(&mut self) -> bool {
        let whole =
            !self.is_large() || self.introduced_at.is_none_or(|at| self.now.since(at) >= self.words_apart());
        if whole {
            self.introduced_at = Some(self.now);
        }
        whole
    }

    pub(crate) fn on_hello(&mut self, from: NodeId, cluster: ClusterId, _generation: u64) {
        if cluster != self.config.cluster {
            // Its certificate is in our roster, so this is a folder that was put together by hand.
            let message = format!("{} says that it belongs to another cluster", self.name_of(&from));
            self.notice("foreign-peer", None, message);
            self.out.push(Effect::Disconnect(from));
        }
    }

    fn redial_after(&mut self) -> Duration {
        let roster = u32::try_from(self.links.len() + 1).unwrap_or(u32::MAX);
        let base = self.config.timings.redial * roster.div_ceil(REDIAL_ROSTER).max(1);
        // Up to a fifth earlier, so that two sides do not meet in the same pattern for ever.
        base * self.rng.random_range(80..100) / 100
    }

    pub(crate) fn on_connect_failed(&mut self, peer: NodeId) {
        let wait = self.redial_after();
        if self.links.get(&peer).is_some_and(|link| link.state == LinkState::Dialling) {
            self.set_link(peer, LinkState::Down { dial_at: self.now + wait });
        }
    }

    pub(crate) fn on_disconnected(&mut self, peer: NodeId) {
        let wait = self.redial_after();
        self.set_link(peer, LinkState::Down { dial_at: self.now + wait });
        if let Some(link) = self.links.get_mut(&peer) {
            link.level = false;
            self.changed = true;
        }
    }

    pub(crate) fn tick_links(&mut self) {
        self.end_farewells();
        let mut due: Vec<NodeId> =
            self.dials.iter().take_while(|(at, _)| *at <= self.now).map(|(_, node)| *node).collect();
        due.sort_unstable();
        // A removed node has nobody to call: nobody would let it in.
        let due = if self.is_out() { Vec::new() } else { due };
        for node in due {
            let mut addresses: Vec<String> =
                self.records.get(&node).map(|record| record.addresses.clone()).unwrap_or_default();
            if let Some(member) = self.documents.roster().nodes.get(&node) {
                addresses.extend(
                    member.addresses.iter().filter(|it| !addresses.contains(it)).cloned().collect::<Vec<_>>(),
                );
            }
            self.set_link(node, LinkState::Dialling);
            self.out.push(Effect::Connect { node, addresses });
        }
        if let Some(peer) = self.membership.push_pull_due(self.now) {
            self.anti_entropy(peer);
        }
    }

    /// Asks a link where it stands: catches what pushing missed. Another one than was drawn where
    /// that one is not linked.
    fn anti_entropy(&mut self, drawn: NodeId) {
        let up: Vec<NodeId> = self.linked().collect();
        if up.is_empty() {
            return;
        }
        let peer = if up.contains(&drawn) { drawn } else { up[self.rng.random_range(0..up.len())] };
        let bytes = self.membership.push_pull_out();
        self.out.push(Effect::Send { to: peer, message: Message::Liveness { bytes, reply: true } });
        let positions = self.all_positions();
        self.after_sync(Effect::Send { to: peer, message: positions });
        self.send_digest(peer, true);
    }

    /// Tells those who are linked to a member what is believed of it here, or some who may be nearer to it.
    fn send_for(&mut self, member: NodeId) {
        let says = |node: &NodeId| self.records.get(node).is_some_and(|it| it.links.contains(&member));
        let linked: Vec<NodeId> = self.linked().filter(|node| self.words.contains(node)).collect();
        let nearest: Vec<NodeId> = linked.iter().filter(|node| says(node)).copied().collect();
        let to = if nearest.is_empty() { linked } else { nearest };
        for to in to.into_iter().take(SENT_FOR_MAX) {
            let bytes = self.membership.push_pull_out();
            self.out.push(Effect::Send { to, message: Message::Liveness { bytes, reply: true } });
        }
    }

    /// Tells some link where this node stands, so that it sends what is lacking here.
    pub(crate) fn exchange_positions(&mut self) {
        let up: Vec<NodeId> = self.linked().collect();
        if up.is_empty() {
            return;
        }
        let to = up[self.rng.random_range(0..up.len())];
        let positions = self.all_positions();
        self.after_sync(Effect::Send { to, message: positions });
    }

    pub(crate) fn on_datagram(&mut self, from: NodeId, bytes: &[u8]) {
        self.heard(from);
        if let Err(error) = self.membership.datagram(self.now, from, bytes) {
            tracing::debug!(%error, "datagram dropped");
        }
    }

    pub(crate) fn next_link_wake(&self) -> Option<(Time, &'static str)> {
        let next = self.dials.first().filter(|_| !self.is_out());
        next.map(|(dial_at, _)| (*dial_at, "dial a member"))
    }

    /// Carries out what the membership wants and follows what it believes.
    pub(crate) fn on_membership(&mut self) {
        for effect in self.membership.take_effects() {
            match effect {
                membership::Effect::Datagram { to, bytes } => self.out.push(Effect::Datagram { to, bytes }),
                membership::Effect::Change { node, now, reason } => self.on_liveness(node, now, reason),
                membership::Effect::Dispute { node } => self.send_for(node),
                membership::Effect::Fault { text } => tracing::error!(text, "a fault in the membership"),
            }
        }
    }

    fn on_liveness(&mut self, node: NodeId, liveness: Liveness, reason: &'static str) {
        self.stirred = true;
        let name = self.name_of(&node);
        match liveness {
            Liveness::Up => self.notice("node-up", None, format!("{name} is up: {reason}")),
            Liveness::Suspect => self.notice("node-suspect", None, format!("{name} is silent: {reason}")),
            Liveness::Down => {
                self.notice("node-down", None, format!("{name} is down: {reason}"));
                if self.has(Sabotage::NoResolutionAfterPartition) {
                    self.parted.insert(node);
                }
                // The connection would back off for seconds; a fresh one is tried instead.
                if self.links.get(&node).is_some_and(Link::is_up) {
                    self.set_link(node, LinkState::Down { dial_at: self.now });
                    self.out.push(Effect::Disconnect(node));
                    self.changed = true;
                }
            }
        }
        self.dirty = true;
    }

    /// Whom to push to, of those that are linked and did not get it from where it came from.
    pub(crate) fn push_targets(&mut self, from: Option<NodeId>) -> Vec<NodeId> {
        let others = self.linked().filter(|node| Some(*node) != from);
        if !self.is_large() {
            // The sender has pushed to all its links itself.
            let record = from.and_then(|from| self.records.get(&from));
            let theirs = record.map_or(&[][..], |record| &record.links);
            return others.filter(|node| !theirs.contains(node)).collect();
        }
        let up: Vec<NodeId> = others.collect();
        self.some_of(up, PUSH_LINKS)
    }

    /// So many of those that are linked, or all: the two that follow, and some at random.
    pub(crate) fn some_of(&mut self, up: Vec<NodeId>, count: usize) -> Vec<NodeId> {
        if up.len() <= count {
            return up;
        }
        let after = up.partition_point(|node| *node < self.config.me);
        let mut targets: Vec<NodeId> = (0..2).map(|n| up[(after + n) % up.len()]).collect();
        while targets.len() < count {
            let one = up[self.rng.random_range(0..up.len())];
            if !targets.contains(&one) {
                targets.push(one);
            }
        }
        targets
    }
}
