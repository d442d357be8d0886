//! Suspicions: how a member is told of one, also where it is reached through others alone, and how it ends.
//!
//! foca tells a suspect of the suspicion only by chance, and ends none that it was told of. So whoever is
//! suspected is asked again and again. One that is not linked here is told through those who are linked to it:
//! they say of it what is said here, in a push-pull, and pass it on to it. The same goes for a member that is
//! down here and lives: it must hear of that to take another life.

use std::collections::BTreeSet;
use std::time::Duration;

use foca::{Header, Member, Message, State, Timer};
use model::{NodeId, Sabotage, Time};

use crate::announces::Announce;
use crate::packet::Packet;
use crate::peer::Peer;
use crate::settings::Settings;
use crate::swim::{Cause, Effect, Liveness, Membership, Seen};

/// A member that is suspected, and asked until it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) peer: Peer,
    pub(crate) incarnation: u16,
    /// When those who are linked to it are asked next, if it is not linked here.
    dispute_at: Time,
    /// How long the next wait is.
    wait: Duration,
}

impl Trial {
    pub(crate) fn begin(now: Time, peer: Peer, incarnation: u16, settings: &Settings) -> Self {
        // By then it has answered, where news of the suspicion and of the answer came through.
        let wait = settings.suspect_to_down();
        Self { peer, incarnation, dispute_at: now + wait, wait }
    }
}

impl Membership {
    /// Sets the members that are called down here while somebody who is heard says that it is linked to them.
    /// Whoever was called down must take another life, and one that this node does not reach hears of that
    /// from nobody: those who reach it do not believe it. So it is sent for, as often as an announcement.
    pub fn dispute(&mut self, now: Time, members: BTreeSet<NodeId>) {
        for node in members.difference(&self.disputed) {
            // What this node says when it has just come back is from the time of the split.
            let at = now + self.settings.suspect_to_down();
            self.announces.set(*node, Announce { at, wait: self.settings.announce_first() });
        }
        self.disputed = members;
    }

    /// A member that is up here is suspected by another, or is down for it: it is to hear of that.
    pub(crate) fn pass_on_what_is_said_of(&mut self, said: &Member<Peer>) {
        let peer = *said.id();
        let is_news = |seen: &Seen| {
            seen.liveness == Liveness::Up
                && seen.told.is_some_and(|(told, incarnation)| {
                    told == peer && (said.state() == State::Down || said.incarnation() >= incarnation)
                })
        };
        if !self.seen.get(&peer.node).is_some_and(is_news) || self.sabotage.has(Sabotage::NoContradiction) {
            return;
        }
        if self.answered_for.contains(&peer.node) {
            if self.accused.insert(peer.node, said.clone()).as_ref() != Some(said) {
                self.effects.push(Effect::Dispute { node: peer.node });
            }
        } else if said.state() == State::Down {
            self.say_down(peer);
        } else {
            self.ask(peer, said.incarnation());
        }
    }

    fn say_down(&mut self, peer: Peer) {
        let header = Header {
            src: *self.foca.identity(),
            src_incarnation: self.incarnation,
            dst: peer,
            message: Message::TurnUndead,
        };
        self.send(&peer, &Packet { header, updates: vec![] });
    }

    /// Tells the sender of a message that it is down here, if so, and in which life: it must take a later one.
    ///
    /// foca 2.0.0 answers each message so, and names the life in which the sender speaks. Where a later one is
    /// down (a liar made it up, or a disk was put back) the sender took the next, and the next, with some ten
    /// messages for each: a storm as fast as the network (seed 805394 of the random stories).
    pub(crate) fn contradict(&mut self, now: Time, sender: Peer) {
        let pause = self.settings.renewal_pause();
        let Some(seen) = self.seen.get_mut(&sender.node) else { return };
        let Some((known, _)) = seen.told.filter(|(known, _)| known.life() >= sender.life()) else { return };
        if seen.liveness != Liveness::Down || seen.contradicted_at.is_some_and(|at| now - at < pause) {
            return;
        }
        seen.contradicted_at = Some(now);
        self.say_down(known);
    }

    /// Whether this node took another life a moment ago. What is said then of a life that is down is mostly an
    /// answer to the one before; what is not will be said again.
    pub(crate) fn has_just_renewed(&self, now: Time) -> bool {
        self.renewed_at.is_some_and(|at| now - at < self.settings.renewal_pause())
    }

    /// Whether this is the end of a trial in which the member has answered. foca 2.0.0 would leave it
    /// alive and all the same tell it that it was called dead; it would take another life for nothing,
    /// and be unknown under it for a moment, at every lost packet.
    pub(crate) fn is_acquitted(&self, timer: &Timer<Peer>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else {
            return false;
        };
        !self.foca.iter_membership_state().any(|member| {
            member.id() == member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    /// Calls a member down that did not answer in time. foca 2.0.0 forgets all trials when it takes another
    /// life, and those suspected would stay so.
    pub(crate) fn end_trial(&mut self, now: Time, timer: &Timer<Peer>) {
        if let Timer::ChangeSuspectToDown { member_id, .. } = timer
            && !self.is_acquitted(timer)
        {
            self.apply(now, std::iter::once(Member::down(*member_id)), Cause::Trial);
        }
    }

    /// Asks everybody who is suspected, and those who are linked to whoever is not linked here.
    pub(crate) fn tick_trials(&mut self, now: Time) {
        let trials: Vec<Trial> = self.trials.values().copied().collect();
        for trial in trials {
            self.ask(trial.peer, trial.incarnation);
        }
        let max = self.settings.announce_max(self.roster.others().len());
        for (node, trial) in &mut self.trials {
            if trial.dispute_at <= now && self.answered_for.contains(node) {
                (trial.dispute_at, trial.wait) = (now + trial.wait, (trial.wait * 2).min(max));
                self.effects.push(Effect::Dispute { node: *node });
            }
        }
    }

    /// Tells a member that it is suspected and asks it to answer. The answer bears its next
    /// incarnation, which ends the trial; its probe number is that of no probe.
    pub(crate) fn ask(&mut self, peer: Peer, incarnation: u16) {
        let number = self.probe.map_or(0, |probe| probe.number).wrapping_sub(1);
        self.ping(peer, number, vec![Member::new(peer, incarnation, State::Suspect)]);
    }
}
