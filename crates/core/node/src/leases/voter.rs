//! A voter: to whom it has granted which number, and for how long by its own clock.
//!
//! Invariants, of each replica:
//! - a number is granted to one container of one node, and each one granted is greater than those before, but to
//!   whoever holds a lease as it asks: had a majority granted a greater one meanwhile, it would not, since any two
//!   share a voter, and that one grants nothing while the lease is held. Without this a voter that granted an attempt
//!   which came to nothing would never grant the lease that is held, and with another voter lost it would end;
//! - while a node holds a lease, none is granted to another;
//! - what is told was on this voter's disk before, but for renewals, which repeat it;
//! - a voter that starts takes whatever it finds for renewed at that moment.
//!
//! Absent on purpose: who may ask, and of which replicas; the node knows the documents.

use std::collections::BTreeMap;
use std::time::Duration;

use model::limits::{LEASE_NUMBER_MAX, LEASE_TERM_MS_MAX, LEASE_TERM_MS_MIN, LEASES_PER_VOTER_MAX};
use model::{ContainerId, LeaseGrant, NodeId, ReplicaId, Time};
use wire::{LeaseAnswer, LeaseAsk, Round, Verdict};

/// A voter waits this part of the term longer than the term: a program that is killed at its deadline ends when
/// the machine comes round to it. Half a second of ten.
const LONGER_BY_PART: u32 = 20;

/// The last grant for one replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Granted {
    number: u64,
    /// The greatest that it ever granted.
    highest: u64,
    holder: NodeId,
    container: ContainerId,
    term_ms: u32,
    /// Until then nobody else is granted one.
    until: Time,
    /// It was given back.
    ended: bool,
    /// It is on disk.
    kept: bool,
    /// It was handed to the disk, and has not come back.
    at_disk: bool,
    /// Which asking is answered once it is on disk.
    asked: Option<Round>,
}

impl Granted {
    fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms.into())
    }

    fn holds(&self, now: Time) -> bool {
        !self.ended && now < self.until
    }

    /// Renewed at `now`: for a term, and what the end of a program takes.
    fn renew(&mut self, now: Time) {
        self.until = self.until.max(now + self.term() + self.term() / LONGER_BY_PART);
    }
}

/// What a voter does with an asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    /// Answers.
    Answer(Verdict),
    /// Has this written, and answers then: see [`Voter::kept`].
    Keep(LeaseGrant),
    /// Answers when the disk has taken what it was given already.
    Later,
}

/// All that one node has granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Voter {
    grants: BTreeMap<ReplicaId, Granted>,
    /// It grants whatever anybody asks, with [`model::Sabotage::GrantsToAll`].
    lavish: bool,
}

impl Voter {
    /// A voter that starts now and finds these on its disk.
    pub(crate) fn new(found: Vec<LeaseGrant>, now: Time) -> Self {
        let mut grants = BTreeMap::new();
        for it in found {
            let mut granted = Granted {
                number: it.number,
                highest: it.highest.max(it.number),
                holder: it.holder,
                container: it.container,
                term_ms: it.term_ms,
                until: now,
                ended: false,
                kept: true,
                at_disk: false,
                asked: None,
            };
            granted.renew(now);
            grants.insert(it.replica, granted);
        }
        Self { grants, lavish: false }
    }

    /// Puts the fault in that it grants to all.
    pub(crate) fn be_lavish(&mut self) {
        self.lavish = true;
    }

    /// Whether it has granted nothing yet, or forgotten all.
    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Whether it has granted anything for that replica.
    pub(crate) fn knows(&self, replica: &ReplicaId) -> bool {
        self.grants.contains_key(replica)
    }

    /// Whether `from` asks again for what it was granted last.
    pub(crate) fn is_renewal(&self, from: NodeId, ask: &LeaseAsk) -> bool {
        self.grants
            .get(&ask.replica)
            .is_some_and(|it| it.number == ask.number && it.holder == from && it.container == ask.container)
    }

    /// `from` asks for a lease. Whoever calls has seen to it that this node is a voter of that replica,
    /// or that it has granted something for it.
    pub(crate) fn asked(&mut self, now: Time, from: NodeId, ask: &LeaseAsk) -> Vote {
        let is_sound = (1..=LEASE_NUMBER_MAX).contains(&ask.number)
            && (LEASE_TERM_MS_MIN..=LEASE_TERM_MS_MAX).contains(&ask.term_ms);
        if !is_sound {
            return Vote::Answer(Verdict::Unknown);
        }
        let lavish = self.lavish;
        let is_full = self.grants.len() >= LEASES_PER_VOTER_MAX;
        let highest = self.grants.get(&ask.replica).map_or(0, |it| it.highest).max(ask.number);
        match self.grants.get_mut(&ask.replica) {
            None if is_full => return Vote::Answer(Verdict::Unable),
            None => {}
            Some(it) if it.number == ask.number && it.holder == from && it.container == ask.container => {
                if it.ended {
                    return Vote::Answer(Verdict::Refused { highest: it.highest, held: None });
                }
                it.renew(now);
                if it.kept {
                    return Vote::Answer(Verdict::Granted);
                }
                it.asked = Some(ask.round);
                if std::mem::replace(&mut it.at_disk, true) {
                    return Vote::Later;
                }
                return Vote::Keep(grant_of(from, ask, highest));
            }
            Some(it) if lavish && it.number < ask.number => {}
            Some(it) => {
                let others = it.holder != from && it.holds(now);
                let is_behind = ask.number <= it.highest && (!ask.renews || it.holds(now));
                if others || is_behind {
                    let left = u32::try_from(it.until.since(now).as_millis()).unwrap_or(u32::MAX);
                    let held = it.holds(now).then_some((it.holder, left));
                    return Vote::Answer(Verdict::Refused { highest: it.highest, held });
                }
            }
        }
        let mut granted = Granted {
            number: ask.number,
            highest,
            holder: from,
            container: ask.container,
            term_ms: ask.term_ms,
            until: now,
            ended: false,
            kept: false,
            at_disk: true,
            asked: Some(ask.round),
        };
        granted.renew(now);
        self.grants.insert(ask.replica.clone(), granted);
        Vote::Keep(grant_of(from, ask, highest))
    }

    /// The disk has that grant, or did not take it: who is told, and what.
    pub(crate) fn written(
        &mut self,
        replica: &ReplicaId,
        number: u64,
        holder: NodeId,
        kept: bool,
    ) -> Option<(NodeId, LeaseAnswer)> {
        let it = self.grants.get_mut(replica).filter(|it| it.number == number && it.holder == holder)?;
        // What the disk says that it did not take may be there all the same: it stays granted.
        it.at_disk = false;
        it.kept |= kept;
        let round = it.asked.take()?;
        let verdict = match (kept, it.ended) {
            (false, _) => Verdict::Unable,
            (true, true) => Verdict::Refused { highest: it.highest, held: None },
            (true, false) => Verdict::Granted,
        };
        let container = it.container;
        Some((holder, LeaseAnswer { replica: replica.clone(), container, number, round, verdict }))
    }

    /// A lease is given back by the one that held it. Not written: a start takes it for held, and waits.
    pub(crate) fn ended(&mut self, from: NodeId, replica: &ReplicaId, container: ContainerId, number: u64) {
        let of = self.grants.get_mut(replica);
        if let Some(it) =
            of.filter(|it| it.number == number && it.holder == from && it.container == container)
        {
            it.ended = true;
        }
    }

    /// Forgets what nobody holds, of replicas that `is_gone` says will never be asked for again; returns which.
    pub(crate) fn forget(&mut self, now: Time, is_gone: impl Fn(&ReplicaId) -> bool) -> Vec<ReplicaId> {
        let gone: Vec<ReplicaId> = self
            .grants
            .iter()
            .filter(|(replica, it)| !it.holds(now) && !it.at_disk && is_gone(replica))
            .map(|(replica, _)| replica.clone())
            .collect();
        for replica in &gone {
            self.grants.remove(replica);
        }
        gone
    }

    /// What is on its disk.
    #[cfg(test)]
    pub(crate) fn on_disk(&self) -> Vec<LeaseGrant> {
        let grant = |(replica, it): (&ReplicaId, &Granted)| LeaseGrant {
            replica: replica.clone(),
            number: it.number,
            highest: it.highest,
            holder: it.holder,
            container: it.container,
            term_ms: it.term_ms,
        };
        self.grants.iter().map(grant).collect()
    }
}

fn grant_of(holder: NodeId, ask: &LeaseAsk, highest: u64) -> LeaseGrant {
    LeaseGrant {
        replica: ask.replica.clone(),
        number: ask.number,
        highest,
        holder,
        container: ask.container,
        term_ms: ask.term_ms,
    }
}
