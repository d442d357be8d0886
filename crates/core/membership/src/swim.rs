//! The machine: foca, its timers, and what foca leaves to its surroundings.
//!
//! What we add to foca: announcements to members that are not heard, with back-off, at once when a
//! link comes up; news passed on only while there are any, so that an idle node sleeps; and a trial
//! for everyone we suspect: it is asked again, with the suspicion in the question, until it answers
//! or its time is over. Without the trial a lossy network calls the living dead (foca alone tells a
//! suspect of the suspicion only by chance).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Foca, Header, Member, Message, NoCustomBroadcast, State, Timer};
use model::{NodeId, Sabotage, Sabotages, Time};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::announces::{Announce, Announces};
use crate::codec::FullCodec;
use crate::packet::{DatagramError, Packet, read_push_pull, write_push_pull};
use crate::peer::Peer;
use crate::roster::Roster;
use crate::settings::{PUSH_PULL_MILLIS, Settings};
use crate::timers::{TimerKey, Timers, Wishes};
use crate::trial::Trial;

/// Longest spread of the first announcements to a roster, so that a large one is not called at once.
const FIRST_ANNOUNCE_SPREAD_MAX: Duration = Duration::from_secs(5);

/// Time between two first announcements on average.
const FIRST_ANNOUNCE_STEP: Duration = Duration::from_millis(5);

/// What is believed of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It answers.
    Up,
    /// It did not answer a probe and has not yet said that it lives; it counts as running.
    Suspect,
    /// It did not answer, or was never heard.
    Down,
}

/// What the caller is to do. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to that member if there is a link; it may be lost.
    Datagram {
        /// The receiver.
        to: NodeId,
        /// The bytes, mostly some ten, at most [`crate::DATAGRAM_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// What is believed of a member has changed.
    Change {
        /// The member.
        node: NodeId,
        /// What is believed now.
        now: Liveness,
        /// Why, in words to follow the node's name.
        reason: &'static str,
    },
    /// Send [`Membership::push_pull_out`] to some who are linked to this member, or nearer to it, and ask for
    /// theirs: it is down or suspected here and cannot be told so.
    Dispute {
        /// The member.
        node: NodeId,
    },
    /// A bug of ours that was survived: to be logged as an error.
    Fault {
        /// What failed.
        text: String,
    },
}

/// What is believed of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// Whether it is up.
    pub liveness: Liveness,
    /// When that last changed.
    pub changed_at: Time,
    /// Since when it has been up, if it is, in the life in which its peer was started last: a suspicion that it
    /// answered does not count.
    pub up_since: Option<Time>,
}

/// What is remembered of one member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) liveness: Liveness,
    changed_at: Time,
    /// When it was last heard after it was down.
    risen_at: Option<Time>,
    /// Since when it has been up in this generation without having been called down.
    up_since: Option<(u64, Time)>,
    /// What foca said of it last, if it has heard of it.
    pub(crate) told: Option<(Peer, u16)>,
    /// When it was last told that it is down here.
    pub(crate) contradicted_at: Option<Time>,
}

impl Seen {
    fn belief(&self) -> Belief {
        let up_since = self.up_since.map(|(_, since)| since);
        Belief { liveness: self.liveness, changed_at: self.changed_at, up_since }
    }

    /// Whether foca would learn nothing from this update about the member: it looks for each among all
    /// members, and most of what goes around in a large cluster is known.
    fn has_heard(&self, update: &Member<Peer>) -> bool {
        let Some((peer, incarnation)) = self.told else { return false };
        match update.id().life().cmp(&peer.life()) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // As foca orders them: down is the end of a life, a suspicion outweighs a life of the same
            // incarnation.
            Ordering::Equal => match (self.liveness, update.state()) {
                (Liveness::Down, _) => true,
                (_, State::Alive) | (Liveness::Suspect, State::Suspect) => {
                    update.incarnation() <= incarnation
                }
                (Liveness::Up, State::Suspect) => update.incarnation() < incarnation,
                (Liveness::Up | Liveness::Suspect, State::Down) => false,
            },
        }
    }
}

/// The probe whose indirect stage foca waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    target: Peer,
    pub(crate) number: u8,
    timer: TimerKey,
}

/// What led to a change, for its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// News from another member.
    News,
    /// A word from this member itself.
    Word(NodeId),
    /// A probe of ours that was not answered.
    Probe,
    /// The end of a trial of ours.
    Trial,
}

/// Who is alive, as seen from one node. Feed it datagrams, ticks and links; take its effects.
pub struct Membership {
    pub(crate) settings: Settings,
    pub(crate) foca: Foca<Peer, FullCodec, ChaCha8Rng, NoCustomBroadcast>,
    rng: ChaCha8Rng,
    pub(crate) roster: Roster,
    pub(crate) seen: BTreeMap<NodeId, Seen>,
    /// foca's members as they were when they were looked at last, in foca's order.
    looked_at: Vec<Member<Peer>>,
    timers: Timers,
    pub(crate) probe: Option<Probe>,
    /// Our own incarnation, as foca last wrote it.
    pub(crate) incarnation: u16,
    pub(crate) announces: Announces,
    /// Members that are suspected.
    pub(crate) trials: BTreeMap<NodeId, Trial>,
    /// Members that others answer for.
    pub(crate) answered_for: BTreeSet<NodeId>,
    /// Members that are down here and linked to somebody who is heard.
    pub(crate) disputed: BTreeSet<NodeId>,
    /// What others say against members that are up here and not linked, for those who are nearer to them.
    pub(crate) accused: BTreeMap<NodeId, Member<Peer>>,
    gossip_at: Option<Time>,
    gossiped_at: Time,
    /// When this node took another life last.
    pub(crate) renewed_at: Option<Time>,
    push_pull_at: Time,
    pub(crate) effects: Vec<Effect>,
    pub(crate) sabotage: Sabotages,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("me", self.foca.identity())
            .field("seen", &self.seen)
            .field("announces", &self.announces)
            .field("trials", &self.trials)
            .finish_non_exhaustive()
    }
}

impl Membership {
    /// A node that knows nobody yet. `generation` counts the starts of its peer and only grows;
    /// `seed` decides every choice that is left to chance.
    pub fn new(me: NodeId, generation: u64, seed: [u8; 32], settings: Settings) -> Self {
        let identity = Peer { node: me, generation, renewal: 0 };
        let mut rng = ChaCha8Rng::from_seed(seed);
        let foca_rng = rng.clone();
        rng.set_stream(1);
        Self {
            settings,
            foca: Foca::new(identity, settings.foca(1), foca_rng, FullCodec),
            push_pull_at: Time::ZERO + Duration::from_millis(rng.random_range(PUSH_PULL_MILLIS)),
            rng,
            roster: Roster::new(me, &BTreeSet::new()),
            seen: BTreeMap::new(),
            looked_at: Vec::new(),
            timers: Timers::default(),
            probe: None,
            incarnation: 0,
            announces: Announces::default(),
            trials: BTreeMap::new(),
            answered_for: BTreeSet::new(),
            disputed: BTreeSet::new(),
            accused: BTreeMap::new(),
            gossip_at: None,
            gossiped_at: Time::ZERO,
            renewed_at: None,
            effects: Vec::new(),
            sabotage: Sabotages::NONE,
        }
    }

    /// Puts these faults in.
    pub fn sabotage(&mut self, faults: Sabotages) {
        self.sabotage = faults;
    }

    /// This node.
    pub const fn me(&self) -> NodeId {
        self.roster.me()
    }

    /// Sets the members; this node may be among them. One that is gone is forgotten, a new one is
    /// down until it is heard.
    pub fn set_roster(&mut self, now: Time, members: &BTreeSet<NodeId>) {
        let next = Roster::new(self.me(), members);
        let before = std::mem::replace(&mut self.roster, next);
        self.looked_at.clear();
        for gone in before.others() {
            if !self.roster.others().contains(gone) {
                self.forget(now, gone);
            }
        }
        let count = self.roster.others().len();
        if let Err(error) = self.foca.set_config(self.settings.foca(count + 1)) {
            self.fault("adapt to the size of the roster", &error);
        }
        let spread =
            FIRST_ANNOUNCE_SPREAD_MAX.min(FIRST_ANNOUNCE_STEP * u32::try_from(count).unwrap_or(u32::MAX));
        let spread_nanos = u64::try_from(spread.as_nanos()).expect("some seconds fit");
        for id in self.roster.others() {
            if !self.seen.contains_key(id) {
                let seen = Seen {
                    liveness: Liveness::Down,
                    changed_at: now,
                    risen_at: None,
                    up_since: None,
                    told: None,
                    contradicted_at: None,
                };
                self.seen.insert(*id, seen);
                let at = now + Duration::from_nanos(self.rng.random_range(0..=spread_nanos));
                self.announces.set(*id, Announce { at, wait: self.settings.announce_first() });
            }
        }
    }

    /// Sets the members that others answer for: those that no packet from here would reach, and that are
    /// linked to one that is heard, or to one who is, and so on. A probe of such a member counts as
    /// answered; whoever is linked to it finds it dead and passes that on. Without this, members more than
    /// two links apart suspect one another for ever, and now and then call the living dead.
    pub fn answer_for(&mut self, members: BTreeSet<NodeId>) {
        self.answered_for = members;
    }

    /// Takes a datagram from the member at the other end of a link (the link vouches for `from`). On
    /// an error nothing was changed but, at most, that the sender is heard.
    pub fn datagram(&mut self, now: Time, from: NodeId, bytes: &[u8]) -> Result<(), DatagramError> {
        if !self.roster.others().contains(&from) {
            return Err(DatagramError::Stranger(from));
        }
        let mut packet = Packet::read(from, bytes, &self.roster)?;
        if self.is_newcomer(now, &from) {
            let me = self.me();
            let is_fresh = |it: &Member<Peer>| {
                it.state() == State::Alive
                    || it.id().node == me
                    || self.liveness(&it.id().node) == Liveness::Down
            };
            packet.updates.retain(is_fresh);
        }
        packet.updates.retain(|update| !self.has_heard(update));
        let Header { src, src_incarnation, message, .. } = &packet.header;
        let is_news = !packet.updates.is_empty()
            || self.seen.get(&from).is_some_and(|seen| {
                seen.liveness != Liveness::Up || seen.told != Some((*src, *src_incarnation))
            });
        let (dst, mine) = (packet.header.dst, *self.foca.identity());
        if dst.life() > mine.life() {
            // Not to be reached under the old life, but told: see there.
            self.hear_of_myself(now, &Member::new(dst, 0, State::Alive));
        }
        if self.has_just_renewed(now) {
            if *message == Message::TurnUndead && dst == mine {
                return Ok(());
            }
            packet.updates.retain(|it| it.id().node != mine.node || it.state() != State::Down);
        }
        let mut wishes = Wishes::default();
        let result = self.foca.handle_data(&packet.for_foca(), &mut wishes);
        self.fulfil(now, wishes, is_news, Cause::Word(from));
        self.contradict(now, *src);
        match message {
            Message::Ack(number) => self.answered(now, *src, *number),
            Message::Announce => {}
            Message::Ping(_)
            | Message::PingReq { .. }
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::ForwardedAck { .. }
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => {
                if dst.life() < mine.life() {
                    // It has not heard of our present life, and what it says to the earlier one is
                    // not answered: without a word it would soon call us dead.
                    self.announce(now, *src);
                }
            }
        }
        result.map_err(|source| DatagramError::Refused { from, source })
    }

    /// Does what is due at `now`. To be called when [`Self::next_wake`] has come; late is harmless.
    pub fn tick(&mut self, now: Time) {
        while let Some(timer) = self.timers.due(now) {
            if self.is_acquitted(&timer) {
                continue;
            }
            if let Timer::ChangeSuspectToDown { member_id, .. } = &timer
                && self.answered_for.contains(&member_id.node)
            {
                // Those who are linked to it will find it dead, if it is.
                self.timers.set(now + self.settings.suspect_to_down(), timer);
                continue;
            }
            let never = self.sabotage.has(Sabotage::NeverDown);
            if never && matches!(timer, Timer::ChangeSuspectToDown { .. }) {
                continue;
            }
            let cause = match &timer {
                Timer::ChangeSuspectToDown { .. } => Cause::Trial,
                Timer::SendIndirectProbe { .. }
                | Timer::ProbeRandomMember(_)
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => Cause::Probe,
            };
            if let Timer::SendIndirectProbe { probed_id, .. } = &timer
                && let Some(probe) = self.probe.filter(|probe| probe.target == *probed_id)
            {
                if self.answered_for.contains(&probe.target.node) {
                    self.take_as_answered(now, probe);
                } else {
                    // Mostly it was the packet that was lost, not the member: beside the others that
                    // foca asks, the member itself is asked again.
                    self.ping(probe.target, probe.number, vec![]);
                }
            }
            let tried = timer.clone();
            self.foca_timer(now, timer, cause);
            self.end_trial(now, &tried);
            if let Timer::ChangeSuspectToDown { member_id, .. } = tried {
                // If it hears it, it can come back at once.
                self.contradict(now, member_id);
            }
        }
        if self.gossip_at.is_some_and(|at| at <= now) {
            self.gossip_at = None;
            self.gossiped_at = now;
            self.gossip(now);
        }
        self.announce_due(now);
    }

    /// When [`Self::tick`], or [`Self::push_pull_due`], has something to do next, and what.
    pub fn next_wake(&self) -> Option<(Time, &'static str)> {
        let announce = self.announces.next();
        let push_pull = (!self.roster.others().is_empty()).then_some(self.push_pull_at);
        [
            self.timers.next().map(|at| (at, "probe")),
            self.gossip_at.map(|at| (at, "gossip")),
            announce.map(|at| (at, "announce")),
            push_pull.map(|at| (at, "push-pull")),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A link to a member came up: it is told of us at once. The caller makes a push-pull as well.
    pub fn connected(&mut self, now: Time, node: NodeId) {
        if self.roster.others().contains(&node) && !self.sabotage.has(Sabotage::DownForGood) {
            self.announces.set(node, Announce { at: now, wait: self.settings.announce_first() });
            self.announce_due(now);
        }
    }

    /// A random member, down ones included, when it is time for a push-pull; each time it says so
    /// once, whether or not the caller reaches that member.
    pub fn push_pull_due(&mut self, now: Time) -> Option<NodeId> {
        if now < self.push_pull_at || self.roster.others().is_empty() {
            return None;
        }
        let wait = self.rng.random_range(PUSH_PULL_MILLIS);
        self.push_pull_at = now + Duration::from_millis(wait);
        let pick = self.rng.random_range(0..self.roster.others().len());
        self.roster.others().iter().nth(pick).copied()
    }

    /// All that is known of the members, for one of them. At most [`crate::PUSH_PULL_BYTES_MAX`].
    pub fn push_pull_out(&self) -> Vec<u8> {
        let me = Member::new(*self.foca.identity(), self.incarnation, State::Alive);
        let others = self.foca.iter_membership_state().filter(|member| member.id().node != self.me());
        let others: Vec<Member<Peer>> =
            others.map(|member| self.accused.get(&member.id().node).unwrap_or(member).clone()).collect();
        write_push_pull([&me].into_iter().chain(&others), &self.roster)
    }

    /// Takes what a member knows, over a link that vouches for `from`.
    ///
    /// That another calls a third one down, or suspects it, is not believed: it may have been cut off
    /// from it while we were not. Of us it is believed, since we must come back in another life.
    pub fn push_pull_in(&mut self, now: Time, from: NodeId, bytes: &[u8]) -> Result<(), DatagramError> {
        if !self.roster.others().contains(&from) {
            return Err(DatagramError::Stranger(from));
        }
        let members = read_push_pull(from, bytes, &self.roster)?;
        let (of_me, of_others): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.id().node == self.me());
        for member in of_me {
            self.hear_of_myself(now, &member);
        }
        if !self.is_newcomer(now, &from) {
            for member in of_others.iter().filter(|member| member.state() != State::Alive) {
                self.pass_on_what_is_said_of(member);
            }
        }
        let alive = of_others
            .into_iter()
            .filter(|member| member.state() != State::Down)
            .map(|member| Member::new(*member.id(), member.incarnation(), State::Alive));
        let news: Vec<_> = alive.filter(|member| !self.has_heard(member)).collect();
        if !news.is_empty() {
            self.apply(now, news.into_iter(), Cause::News);
        }
        Ok(())
    }

    /// What is believed of a node: [`Liveness::Up`] of this one, [`Liveness::Down`] of a stranger.
    pub fn liveness(&self, node: &NodeId) -> Liveness {
        if *node == self.me() {
            return Liveness::Up;
        }
        self.seen.get(node).map_or(Liveness::Down, |seen| seen.liveness)
    }

    /// When that was last changed; `None` of a stranger and of this node.
    pub fn changed_at(&self, node: &NodeId) -> Option<Time> {
        self.seen.get(node).map(|seen| seen.changed_at)
    }

    /// What is believed of a member; `None` of a stranger and of this node.
    pub fn belief(&self, node: &NodeId) -> Option<Belief> {
        self.seen.get(node).map(Seen::belief)
    }

    /// What is believed of every member but this node. By id: whoever asks about many walks along, and searches
    /// for none.
    pub fn beliefs(&self) -> impl Iterator<Item = (&NodeId, Belief)> {
        self.seen.iter().map(|(id, seen)| (id, seen.belief()))
    }

    /// Every member but this node, with what is believed of it.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Liveness)> {
        self.seen.iter().map(|(id, seen)| (*id, seen.liveness))
    }

    fn has_heard(&self, update: &Member<Peer>) -> bool {
        self.seen.get(&update.id().node).is_some_and(|seen| seen.has_heard(update))
    }

    /// What is to be done since this was last asked.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn fault(&mut self, doing: &str, error: &foca::Error) {
        self.effects.push(Effect::Fault { text: format!("membership could not {doing}: {error}") });
    }

    fn foca_timer(&mut self, now: Time, timer: Timer<Peer>, cause: Cause) {
        let is_trial = cause == Cause::Trial;
        let mut wishes = Wishes::default();
        if let Err(error) = self.foca.handle_timer(timer, &mut wishes) {
            self.fault("handle a timer", &error);
        }
        self.fulfil(now, wishes, is_trial, cause);
    }

    /// Feeds foca with what is known of members, or with nothing: then it looks at its own state.
    pub(crate) fn apply(&mut self, now: Time, members: impl Iterator<Item = Member<Peer>>, cause: Cause) {
        let mut wishes = Wishes::default();
        if let Err(error) = self.foca.apply_many(members, true, &mut wishes) {
            self.fault("take what is known of members", &error);
        }
        self.fulfil(now, wishes, true, cause);
    }

    /// Another knows us: in an earlier life, in this one (perhaps as down), or, after a backup was
    /// restored, in a later one than we know of ourselves. That last one is overtaken.
    fn hear_of_myself(&mut self, now: Time, told: &Member<Peer>) {
        if self.sabotage.has(Sabotage::NoContradiction) || self.has_just_renewed(now) {
            return;
        }
        let mine = *self.foca.identity();
        if told.id().life() > mine.life() {
            let Some(next) = told.id().next() else {
                return; // A lie: nobody lived that often.
            };
            let mut wishes = Wishes { renewed: true, ..Wishes::default() };
            if let Err(error) = self.foca.change_identity(next, &mut wishes) {
                self.fault("overtake a later life of this node", &error);
            }
            self.fulfil(now, wishes, true, Cause::News);
        } else if *told.id() == mine && told.state() != State::Alive {
            self.apply(now, std::iter::once(told.clone()), Cause::News);
        }
    }

    /// Does what foca wishes, and looks at what changed.
    fn fulfil(&mut self, now: Time, wishes: Wishes, look: bool, cause: Cause) {
        let mut look = look || wishes.changed || wishes.renewed;
        let mut accused = None;
        for (timer, after) in wishes.timers {
            let mut probed = None;
            match &timer {
                Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                    self.trials
                        .insert(member_id.node, Trial::begin(now, *member_id, *incarnation, &self.settings));
                    // It may have answered already: foca sets the timer all the same, and the member is
                    // to be looked at although it has not changed.
                    self.looked_at.clear();
                    accused = Some(member_id.node);
                    look = true;
                }
                Timer::SendIndirectProbe { probed_id, .. } => probed = Some(*probed_id),
                Timer::ProbeRandomMember(_)
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => {}
            }
            let key = self.timers.set(now + after, timer);
            if let Some(target) = probed {
                let ping = wishes.sends.iter().find_map(|(_, packet)| match packet.header.message {
                    Message::Ping(number) => Some(number),
                    _ => None,
                });
                self.probe = ping.map(|number| Probe { target, number, timer: key });
            }
        }
        for (to, packet) in wishes.sends {
            self.send(&to, &packet);
        }
        let died = look && self.look(now, cause);
        if let Some(trial) = accused.and_then(|node| self.trials.get(&node)).copied() {
            self.ask(trial.peer, trial.incarnation);
        }
        if wishes.renewed {
            self.renewed_at = Some(now);
            // Those that called us down must hear of the new life, and foca must find its feet.
            self.announces.set_all(Announce { at: now, wait: self.settings.announce_first() });
            self.announce_due(now);
            self.apply(now, std::iter::empty(), cause);
        }
        if self.gossip_at.is_none() && self.has_news() {
            self.gossip_at = Some(now + self.settings.gossip_period());
        }
        if died && let Some(at) = &mut self.gossip_at {
            // A death goes from mouth to mouth without a pause; many at once go together.
            *at = (*at).min(now.max(self.gossiped_at + self.settings.gossip_pause()));
        }
    }

    pub(crate) fn send(&mut self, to: &Peer, packet: &Packet) {
        self.incarnation = packet.header.src_incarnation;
        // foca may answer one that was removed a moment ago.
        if self.roster.others().contains(&to.node) {
            self.effects.push(Effect::Datagram { to: to.node, bytes: packet.write(&self.roster) });
        }
    }

    /// Compares foca's view with ours; whether a member died. Mostly one of a thousand has changed.
    fn look(&mut self, now: Time, cause: Cause) -> bool {
        let mut died = false;
        let mut count = 0;
        for (place, member) in self.foca.iter_membership_state().enumerate() {
            count = place + 1;
            match self.looked_at.get_mut(place) {
                Some(known) if known == member => continue,
                Some(known) => *known = member.clone(),
                None => self.looked_at.push(member.clone()),
            }
            let peer = *member.id();
            let Some(seen) = self.seen.get_mut(&peer.node) else {
                continue; // Ourselves in an earlier life, or removed.
            };
            let is = match member.state() {
                State::Alive => Liveness::Up,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Down,
            };
            let before = seen.told.replace((peer, member.incarnation()));
            if self.accused.get(&peer.node).is_some_and(|said| {
                *said.id() != peer || said.incarnation() < member.incarnation() || is == Liveness::Down
            }) {
                self.accused.remove(&peer.node);
            }
            if is != Liveness::Suspect || self.trials.get(&peer.node).is_some_and(|trial| trial.peer != peer)
            {
                self.trials.remove(&peer.node);
            }
            if is == Liveness::Suspect {
                // Suspected by the word of another: foca sets no end to that, and a member that does not
                // hear of it cannot answer. So it is asked here as well, until it has.
                let trial = Trial::begin(now, peer, member.incarnation(), &self.settings);
                self.trials.entry(peer.node).or_insert(trial);
            }
            if seen.liveness == is {
                continue;
            }
            let was = std::mem::replace(&mut seen.liveness, is);
            seen.changed_at = now;
            if was == Liveness::Down {
                seen.risen_at = Some(now);
                seen.up_since = None;
            }
            if is == Liveness::Up && seen.up_since.is_none_or(|(life, _)| life != peer.generation) {
                seen.up_since = Some((peer.generation, now));
            }
            let reason = reason(peer, before.map(|(peer, _)| peer), was, is, cause);
            self.effects.push(Effect::Change { node: peer.node, now: is, reason });
            if is == Liveness::Down {
                died = true;
                let wait = self.settings.announce_first();
                self.announces.set(peer.node, Announce { at: now + wait, wait });
            } else {
                self.announces.remove(&peer.node);
            }
        }
        self.looked_at.truncate(count);
        died
    }

    /// An answer to a probe has come: foca need not wait for the indirect stage, and we can sleep on.
    fn answered(&mut self, now: Time, by: Peer, number: u8) {
        if let Some(probe) = self.probe.take_if(|probe| probe.target == by && probe.number == number)
            && let Some(timer) = self.timers.take(probe.timer)
        {
            self.foca_timer(now, timer, Cause::Probe);
        }
    }

    /// Tells foca that a probe was answered, in the incarnation that is known: a suspicion ends, and whoever
    /// has found the member dead is believed all the same.
    fn take_as_answered(&mut self, now: Time, probe: Probe) {
        let told = self.seen.get(&probe.target.node).and_then(|seen| seen.told);
        let Some((src, src_incarnation)) = told.filter(|(peer, _)| *peer == probe.target) else { return };
        let header =
            Header { src, src_incarnation, dst: *self.foca.identity(), message: Message::Ack(probe.number) };
        let packet = Packet { header, updates: Vec::new() };
        let mut wishes = Wishes::default();
        if let Err(error) = self.foca.handle_data(&packet.for_foca(), &mut wishes) {
            self.fault("take a probe as answered", &error);
        }
        self.fulfil(now, wishes, true, Cause::News);
    }

    /// Whether a member was down until a moment ago: it was cut off, so what it says against others
    /// is from the time of the split, and of those that we hear we know better.
    pub(crate) fn is_newcomer(&self, now: Time, node: &NodeId) -> bool {
        self.seen.get(node).is_some_and(|seen| {
            let settled = |at| now - at >= self.settings.suspect_to_down();
            seen.liveness == Liveness::Down || !seen.risen_at.is_some_and(settled)
        })
    }

    fn has_news(&self) -> bool {
        self.foca.num_members() > 0 && (self.foca.updates_backlog() > 0 || !self.trials.is_empty())
    }

    fn gossip(&mut self, now: Time) {
        self.tick_trials(now);
        let mut wishes = Wishes::default();
        if self.foca.updates_backlog() > 0
            && let Err(error) = self.foca.gossip(&mut wishes)
        {
            self.fault("pass on news", &error);
        }
        self.fulfil(now, wishes, false, Cause::News);
    }

    pub(crate) fn ping(&mut self, peer: Peer, number: u8, updates: Vec<Member<Peer>>) {
        let header = Header {
            src: *self.foca.identity(),
            src_incarnation: self.incarnation,
            dst: peer,
            message: Message::Ping(number),
        };
        self.send(&peer, &Packet { header, updates });
    }

    fn announce_due(&mut self, now: Time) {
        let due = self.announces.due(now);
        let max = self.settings.announce_max(self.roster.others().len());
        for id in due {
            if self.sabotage.has(Sabotage::DownForGood)
                && self.seen.get(&id).is_some_and(|seen| seen.risen_at.is_some())
            {
                self.announces.remove(&id);
                continue;
            }
            if self.liveness(&id) == Liveness::Down {
                let wait = self.announces.get(&id).map_or(max, |announce| announce.wait);
                self.announces.set(id, Announce { at: now + wait, wait: (wait * 2).min(max) });
            } else {
                self.announces.remove(&id);
            }
            if self.disputed.contains(&id) {
                self.effects.push(Effect::Dispute { node: id });
            }
            let peer = self.seen.get(&id).and_then(|seen| seen.told).map_or(Peer::unknown(id), |told| told.0);
            self.announce(now, peer);
        }
    }

    fn announce(&mut self, now: Time, to: Peer) {
        let mut wishes = Wishes::default();
        if let Err(error) = self.foca.announce(to, &mut wishes) {
            self.fault("announce itself", &error);
        }
        self.fulfil(now, wishes, false, Cause::News);
    }

    /// Removes a node from everywhere. foca forgets only the down, so it is called down first, and
    /// that is passed on to nobody.
    fn forget(&mut self, now: Time, gone: &NodeId) {
        self.announces.remove(gone);
        self.trials.remove(gone);
        self.accused.remove(gone);
        let told = self.seen.remove(gone).and_then(|seen| seen.told);
        if let Some((peer, _)) = told {
            let mut wishes = Wishes::default();
            if let Err(error) = self.foca.apply_many(std::iter::once(Member::down(peer)), false, &mut wishes)
            {
                self.fault("call a removed node down", &error);
            }
            if let Err(error) = self.foca.handle_timer(Timer::RemoveDown(peer), &mut wishes) {
                self.fault("forget a removed node", &error);
            }
            self.fulfil(now, wishes, true, Cause::News);
        }
        self.timers.forget(gone);
    }
}

fn reason(peer: Peer, before: Option<Peer>, was: Liveness, is: Liveness, cause: Cause) -> &'static str {
    let heard = cause == Cause::Word(peer.node);
    match (is, before) {
        (Liveness::Up, None) if heard => "is heard for the first time",
        (Liveness::Up, None) => "is alive by the word of another member",
        (Liveness::Up, Some(before)) if before.generation != peer.generation => "was started again",
        (Liveness::Up, _) if was == Liveness::Suspect => "was suspected and says that it lives",
        (Liveness::Up, _) => "is heard again",
        (Liveness::Suspect, _) if cause == Cause::Probe => "answered no probe, direct or indirect",
        (Liveness::Suspect, _) => "is suspected by another member",
        (Liveness::Down, _) if cause == Cause::Trial => "was suspected and did not answer in time",
        (Liveness::Down, _) => "was suspected by another member and did not answer in time",
    }
}
