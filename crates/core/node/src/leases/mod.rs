//! At most one: the leases of exclusive replicas, as a voter and as whoever runs one (docs/decisions/0019).
//!
//! - `voter`: what this node has granted to others, and to itself.
//! - `holder`: what one of its containers asks of its voters.
//!
//! Here both are tied to the node: who may ask for what, when a container may start, and when it must end.
//!
//! Invariants: a container of an exclusive replica is started with a lease that is held at that moment, under a
//! number of its own, and after the one before it on this node has ended. Its deadline goes to whoever keeps it
//! with the start and with each renewal, so that a peer that stands still extends nothing.

#[cfg(test)]
mod check;
mod holder;
mod voter;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::limits::EXCLUSIVE_REPLICAS_MAX;
use model::{ContainerId, ContainerState, NodeId, ReplicaId, Sabotage, Time, majority};
use rand::RngExt;
use wire::{LeaseAnswer, LeaseAsk, LeaseEnd, Message, Verdict};

use crate::containers::{Mine, Phase};
use crate::io::Effect;
use crate::links::Link;
use crate::settings::FoundLeases;
use crate::state::{Desired, Node};
use holder::{Holding, Say};
use voter::{Vote, Voter};

/// How often a voter looks whether what it has granted was deleted since.
const FORGETS_EVERY: Duration = Duration::from_secs(60);

/// The leases of one node.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Everybody who votes on what is wanted. Mostly nobody.
    pub(crate) voters: BTreeSet<NodeId>,
    voter: Voter,
    /// Why this node grants nothing, if so.
    fault: Option<String>,
    /// By container.
    holdings: BTreeMap<ContainerId, Holding>,
    /// When it is looked next at what may be forgotten.
    forgets_at: Time,
}

impl Leases {
    pub(crate) fn new(found: FoundLeases, now: Time, forgets: bool) -> Self {
        let (grants, fault) = match found {
            Ok(_) if forgets => (Vec::new(), None),
            Ok(grants) => (grants, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Self { voter: Voter::new(grants, now), fault, ..Self::default() }
    }
}

impl Mine {
    /// Whether at most one copy of its replica may run anywhere.
    pub(crate) fn is_exclusive(&self) -> bool {
        !self.claim.run.voters.is_empty()
    }
}

/// Those voters that a node can ask: itself, and whom it is linked to.
pub(crate) fn linked_voters(voters: &BTreeSet<NodeId>, node: NodeId, links: &[NodeId]) -> Vec<NodeId> {
    if voters.is_empty() {
        return Vec::new();
    }
    let linked: BTreeSet<NodeId> =
        links.iter().chain([&node]).filter(|it| voters.contains(it)).copied().collect();
    linked.into_iter().collect()
}

impl Node {
    /// Other deployments may be wanted than before.
    pub(crate) fn voters_changed(&mut self) {
        let all = self.desired.values().flat_map(|it| &it.deployment.replicas.voters);
        self.leases.voters = all.copied().collect();
    }

    /// Takes over the leases of what runs on from an earlier life of the peer.
    pub(crate) fn adopt_leases(&mut self) {
        if self.has(Sabotage::GrantsToAll) {
            self.leases.voter.be_lavish();
        }
        if let Some(why) = self.leases.fault.clone() {
            self.notice("leases-lost", None, format!("this node grants no lease: {why}"));
        }
        let runs: Vec<Mine> =
            self.mine.values().filter(|mine| mine.is_exclusive() && mine.may_run()).cloned().collect();
        for mine in runs {
            let mut holding = self.holding_of(&mine);
            holding.adopt(mine.claim.fence.unwrap_or(0), self.now);
            self.leases.holdings.insert(mine.id, holding);
        }
    }

    fn holding_of(&self, mine: &Mine) -> Holding {
        let (replica, voters) = (mine.claim.replica.clone(), mine.claim.run.voters.clone());
        let me = (self.config.me, self.config.generation);
        let mut holding = Holding::new(me, replica, mine.id, voters, self.config.timings.lease, self.now);
        holding.know(mine.claim.fence.unwrap_or(0));
        holding
    }

    // --- As a voter.

    fn is_voter_of(&self, replica: &ReplicaId) -> bool {
        let desired = self.desired.get(&(replica.namespace.clone(), replica.deployment.clone()));
        desired.is_some_and(|Desired { deployment, .. }| {
            deployment.incarnation == replica.incarnation
                && deployment.replicas.voters.contains(&self.config.me)
                && replica.ordinal < EXCLUSIVE_REPLICAS_MAX
        })
    }

    /// Whether it has granted leases of a deployment whose merged groups say nothing sensible any more: what runs of
    /// it is kept, and so started again. Its voters are those of its creation, and this node is one.
    fn keeps_what_runs_of(&self, replica: &ReplicaId) -> bool {
        self.invalid.contains(&(replica.namespace.clone(), replica.deployment.clone()))
            && self.leases.voter.knows(replica)
    }

    pub(crate) fn on_lease_ask(&mut self, from: NodeId, ask: &LeaseAsk) {
        let vote = if self.leases.fault.is_some() {
            Vote::Answer(Verdict::Unable)
        } else if self.is_voter_of(&ask.replica)
            || self.leases.voter.is_renewal(from, ask)
            || self.keeps_what_runs_of(&ask.replica)
        {
            self.leases.voter.asked(self.now, from, ask)
        } else {
            Vote::Answer(Verdict::Unknown)
        };
        match vote {
            Vote::Answer(verdict) => {
                let LeaseAsk { replica, container, number, round, .. } = ask.clone();
                self.tell_holder(from, LeaseAnswer { replica, container, number, round, verdict });
            }
            Vote::Keep(grant) => self.out.push(Effect::KeepLease(grant)),
            Vote::Later => {}
        }
    }

    /// The disk has a grant, or did not take it.
    pub(crate) fn on_lease_kept(&mut self, replica: &ReplicaId, number: u64, holder: NodeId, kept: bool) {
        if let Some((to, answer)) = self.leases.voter.written(replica, number, holder, kept) {
            self.tell_holder(to, answer);
        }
    }

    pub(crate) fn on_lease_end(&mut self, from: NodeId, end: &LeaseEnd) {
        self.leases.voter.ended(from, &end.replica, end.container, end.number);
    }

    fn tell_holder(&mut self, to: NodeId, answer: LeaseAnswer) {
        if to == self.config.me {
            self.on_lease_answer(to, &answer);
        } else {
            self.out.push(Effect::Send { to, message: Message::LeaseAnswer(answer) });
        }
    }

    // --- As whoever runs one.

    pub(crate) fn on_lease_answer(&mut self, from: NodeId, answer: &LeaseAnswer) {
        let jitter = self.jitter(answer.container);
        let counts_from_answer = self.has(Sabotage::TermFromAnswer);
        let now = self.now;
        let Some(holding) = self.leases.holdings.get_mut(&answer.container) else { return };
        let (ended, was_held) = (holding.ends(), holding.is_held(now));
        let says = holding.answered(now, from, answer, jitter);
        if counts_from_answer {
            holding.count_from_answer(now, from);
        }
        let (ends, is_held) = (holding.ends(), holding.is_held(now));
        let until = ends.filter(|_| holding.runs && ends > ended && !holding.is_at_home());
        // It may be started now, or says otherwise why it is not.
        self.dirty |= !holding.runs && (is_held != was_held || !is_held);
        if let Some(until) = until {
            self.out.push(Effect::ExtendLease { container: answer.container, until });
        }
        self.say(says);
    }

    fn say(&mut self, says: Vec<(NodeId, Say)>) {
        for (to, say) in says {
            if to == self.config.me {
                match say {
                    Say::Ask(ask) => self.on_lease_ask(to, &ask),
                    Say::End(end) => self.on_lease_end(to, &end),
                }
            } else if self.links.get(&to).is_some_and(Link::is_up) {
                let message = match say {
                    Say::Ask(ask) => Message::LeaseAsk(ask),
                    Say::End(end) => Message::LeaseEnd(end),
                };
                self.out.push(Effect::Send { to, message });
            }
        }
    }

    /// Two nodes that want one replica do not try again at the same moment.
    fn jitter(&mut self, container: ContainerId) -> u32 {
        if self.leases.holdings.contains_key(&container) { self.rng.random_range(0..100) } else { 0 }
    }

    /// Whether a container that is to be started may be, and if not sees to it that it will. An exclusive one
    /// needs a lease.
    pub(crate) fn may_be_started(&mut self, id: ContainerId) -> bool {
        let Some(mine) = self.mine.get(&id).filter(|mine| mine.is_exclusive()) else { return true };
        let before = self
            .mine
            .values()
            .find(|it| it.id != id && it.claim.replica == mine.claim.replica && it.may_run());
        let reason = if let Some(before) = before {
            format!("waits for {} to end", before.id)
        } else {
            if !self.leases.holdings.contains_key(&id) {
                let holding = self.holding_of(mine);
                self.leases.holdings.insert(id, holding);
                self.tick_lease(id);
            }
            let now = self.now;
            let Some(holding) = self.leases.holdings.get_mut(&id) else { return false };
            if holding.is_held(now) {
                holding.runs = true;
                let number = holding.number();
                if let Some(mine) = self.mine.get_mut(&id) {
                    mine.claim.fence = Some(number);
                }
                return true;
            }
            let holding = &self.leases.holdings[&id];
            holding.waits_for(|node| self.name_of(node))
        };
        let Some(mine) = self.mine.get_mut(&id) else { return false };
        if mine.phase != Phase::Waiting || mine.reason.as_deref() != Some(&reason) {
            mine.phase = Phase::Waiting;
            mine.reason = Some(reason);
            self.changed = true;
        }
        false
    }

    /// When the lease of a container ends that is started now; `None` where it does not end by time.
    pub(crate) fn lease_until(&self, id: ContainerId) -> Option<Time> {
        let holding = self.leases.holdings.get(&id)?;
        holding.ends().filter(|_| !holding.is_at_home())
    }

    /// How much of its lease is left to a container that runs under one which ends by time.
    pub fn lease_left(&self, id: ContainerId) -> Option<Duration> {
        self.lease_until(id).map(|ends| ends.since(self.now))
    }

    fn tick_lease(&mut self, id: ContainerId) {
        let jitter = self.jitter(id);
        let now = self.now;
        if let Some(holding) = self.leases.holdings.get_mut(&id) {
            let says = holding.tick(now, jitter);
            self.say(says);
        }
    }

    /// Asks a voter at once that is linked anew.
    pub(crate) fn leases_on_connected(&mut self, voter: NodeId) {
        let now = self.now;
        let asks: Vec<_> =
            self.leases.holdings.values_mut().flat_map(|holding| holding.link_is_up(now, voter)).collect();
        self.say(asks);
    }

    /// Renews and tries again; gives back what nothing runs under any more.
    pub(crate) fn tick_leases(&mut self) {
        let ids: Vec<ContainerId> = self.leases.holdings.keys().copied().collect();
        for id in ids {
            let phase = self.mine.get(&id).map(|mine| mine.phase.clone());
            match phase {
                Some(Phase::Running { .. } | Phase::Starting) => {
                    if self.leases.holdings[&id].is_running_out(self.now) {
                        self.let_go(id, "its lease runs out: no majority of its voters renews it");
                    }
                    self.tick_lease(id);
                }
                Some(Phase::Waiting | Phase::Stopping) => self.tick_lease(id),
                Some(Phase::BackOff { .. } | Phase::Done { .. } | Phase::Removing) | None => {
                    let Some(holding) = self.leases.holdings.remove(&id) else { continue };
                    // Whoever lost it to its deadline has no more right to the replica than others.
                    if holding.runs
                        && !holding.is_held(self.now)
                        && matches!(phase, Some(Phase::BackOff { .. }))
                    {
                        self.let_go(id, "its lease has ended: no majority of its voters renewed it");
                    }
                    self.say(holding.end());
                    self.dirty = true;
                }
            }
        }
        if !self.leases.voter.is_empty() && self.leases.forgets_at <= self.now {
            self.leases.forgets_at = self.now + FORGETS_EVERY;
            let documents = &self.documents;
            let is_gone = |it: &ReplicaId| documents.has_ended(&it.namespace, &it.deployment, it.incarnation);
            let gone = self.leases.voter.forget(self.now, is_gone);
            if !gone.is_empty() {
                self.out.push(Effect::ForgetLeases(gone));
            }
        }
    }

    pub(crate) fn next_lease_wake(&self) -> Option<(Time, &'static str)> {
        let asks = self.leases.holdings.values().filter_map(Holding::next_wake);
        let asks = asks.map(|at| (at, "a lease is asked for or renewed"));
        let ends = self.leases.holdings.iter().filter(|(id, holding)| {
            let phase = self.mine.get(id).map(|mine| &mine.phase);
            holding.runs && matches!(phase, Some(Phase::Running { .. } | Phase::Starting))
        });
        let ends = ends.filter_map(|(_, holding)| Some((holding.runs_out()?, "a lease runs out")));
        asks.chain(ends).min()
    }

    /// Why a container of an exclusive replica goes, beside what its lease says: it does not run, and another
    /// does, or has the higher claim, or its voters are out of reach.
    pub(crate) fn judge_exclusive(&self, mine: &Mine, desired: Option<&Desired>) -> Option<String> {
        if let Some(desired) = desired {
            for (node, record) in self.claims_of(&mine.claim.replica) {
                if record.id != mine.id && self.makes_obsolete(mine, desired, node, &record) {
                    return Some(format!(
                        "no more to do: {} on {} has ended",
                        record.id,
                        self.name_of(&node)
                    ));
                }
            }
        }
        if mine.may_run() || !mine.is_claim() {
            return None;
        }
        if desired.is_none() && mine.claim.fence.is_none() {
            return Some("its deployment is not valid, and it has not run yet".to_owned());
        }
        let rank_of = |node: NodeId, record: &model::ContainerRecord| match desired {
            Some(desired) => self.rank_of(node, record, desired),
            None => planner::rank(node, record, true),
        };
        let own = rank_of(self.config.me, &mine.record());
        for (node, record) in self.claims_of(&mine.claim.replica) {
            if record.id == mine.id || !(node == self.config.me || self.has_word_of(&node)) {
                continue;
            }
            let runs = matches!(record.state, ContainerState::Starting | ContainerState::Running);
            if runs || record.state == ContainerState::Pending && rank_of(node, &record) > own {
                return Some(format!("one too many: {} on {} stays", record.id, self.name_of(&node)));
            }
        }
        let voters = &mine.claim.run.voters;
        let linked = |it: &NodeId| self.links.get(it).is_some_and(Link::is_up);
        let reached = voters.iter().filter(|it| **it == self.config.me || linked(it)).count();
        let needed = majority(voters.len());
        (self.settled && reached < needed)
            .then(|| format!("{reached} of its {} voters are in reach, {needed} are needed", voters.len()))
    }
}
