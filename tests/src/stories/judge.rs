//! What must hold at every look. Ids are those of docs/simulation.md, and so are the rules: where the
//! simulator has them over plain observations (`sim::rules`), it is that code; the others are said here
//! once more, for kernels of which there are only looks. Times are generous: this is about what holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use api::routes;
use api::shapes::{NodeRow, NodeState as Liveness, PsRow, PsState};
use dev::kernel::Limits;
use dev::process::Process;
use dev::skerry::ask;
use model::{Capacity, EventId, ReplicaId, Revision, Time};
use sim::rules::{self, Truth};

use super::lives::{Change, Life, Lives};
use super::stage::{Stage, State};
use super::words::{Why, Words};

/// Within which duplicates are gone from a component that is quiet.
const DUPLICATES: Duration = Duration::from_secs(20);

/// How old a word about a node may be that counts as fresh, in a component that has been quiet as long.
const FRESH: Duration = Duration::from_secs(12);

/// Within which a machine that is out of everybody's reach is no longer called up.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// What a peer was about when it was killed comes to its end within this: a start, mostly.
const UNDER_WAY: Duration = Duration::from_secs(8);

/// For so long after a copy was lost to a fault the word of it may still be about.
const EXCUSED_FOR: Duration = Duration::from_secs(30);

/// Within which a machine that came back alone runs again what it ran.
const BACK: Duration = Duration::from_secs(30);

/// How often peers are asked what they believe.
const ASKED: Duration = Duration::from_secs(2);

/// Questions in a row that a peer may leave unanswered on a busy machine.
const UNANSWERED_MAX: u32 = 4;

/// Violations that are kept: the first says it all.
const VIOLATIONS_MAX: usize = 6;

/// What a machine ran when it lost its power, to be looked at when it is back.
#[derive(Clone, Debug)]
struct Booted {
    host: usize,
    life: u64,
    at: Time,
    replicas: BTreeSet<ReplicaId>,
}

/// What the checks remember.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// What runs.
    pub(super) lives: Lives,
    /// What was told to stop.
    pub(super) words: Words,
    /// What does not hold.
    pub(super) violations: Vec<String>,
    /// How often each check had something to look at.
    pub(super) looked: BTreeMap<&'static str, u64>,
    truth: BTreeMap<usize, Truth<String>>,
    /// Programs that the story ended itself.
    ended: BTreeSet<Process>,
    /// When a copy of a replica was last lost to a fault, or stopped because it was not wanted.
    excused: BTreeMap<ReplicaId, Time>,
    /// Deletions that a machine's own peer has acknowledged.
    deleted: BTreeMap<(usize, EventId), Time>,
    /// Two of one replica in one revision on one machine, at the last look.
    pairs: BTreeSet<(usize, ReplicaId, Revision)>,
    /// Copies that were well when the world healed: when first there was none, if ever.
    guarded: BTreeMap<ReplicaId, Guarded>,
    ran_at_power_off: BTreeMap<usize, BTreeSet<ReplicaId>>,
    booted: Vec<Booted>,
    asked: Time,
    /// Questions in a row that a peer has not answered, each within seconds.
    unanswered: BTreeMap<usize, u32>,
    /// When a user last asked for anything.
    wished: Time,
}

/// A replica that must not be without a copy any more.
#[derive(Clone, Copy, Debug)]
struct Guarded {
    since: Time,
    /// There was none at the last look.
    missing: bool,
    /// There was none at two looks in a row.
    lost: Option<Time>,
}

impl Judge {
    pub(super) fn looks(&mut self, check: &'static str) {
        *self.looked.entry(check).or_insert(0) += 1;
    }

    pub(super) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// Looks around.
    pub(super) fn look(&mut self, stage: &Stage) -> Result<()> {
        self.peers_go_on(stage)?;
        let change = self.lives.look(stage)?;
        let hosts: BTreeSet<usize> = change.ended.iter().map(|life| life.host).collect();
        for host in hosts {
            self.words.catch_up(stage, host)?;
        }
        self.remember(stage, &change);
        for life in &change.ended {
            self.may_end(stage, life);
        }
        for life in &change.began {
            self.may_begin(stage, life);
        }
        self.fits(stage);
        self.one_on_a_machine(stage)?;
        self.guard(stage);
        self.comes_back(stage);
        let now = stage.now();
        // The living are called dead now and then; here packets of streams are lost as well.
        if stage.is_lossy() {
            return Ok(());
        }
        let quiet = now.since(stage.disturbed);
        if quiet > DUPLICATES {
            for component in components(stage) {
                self.one_copy(stage, &component)?;
            }
        }
        if quiet > FRESH && now.since(self.asked) > ASKED {
            self.asked = now;
            for component in components(stage) {
                self.true_words(stage, &component);
            }
        }
        Ok(())
    }

    /// S12: no peer ends by itself.
    fn peers_go_on(&mut self, stage: &Stage) -> Result<()> {
        let rows = stage.cluster.status()?;
        for machine in stage.machines.iter().filter(|machine| machine.state == State::Up) {
            if rows.iter().any(|row| row.name == machine.name && row.pid.is_none()) {
                let name = &machine.name;
                self.violation(format!(
                    "S12: the peer of {name} ended by itself: {}",
                    stage.cluster.log_tail(name)
                ));
            }
        }
        Ok(())
    }

    fn remember(&mut self, stage: &Stage, change: &Change) {
        let touched: BTreeSet<usize> =
            change.began.iter().chain(&change.ended).map(|life| life.host).collect();
        for host in touched {
            let runs = self.lives.on(host).map(|life| life.id.clone()).collect();
            self.truth.entry(host).or_default().note(stage.now(), runs);
        }
    }

    // --- What the story does, and peers acknowledge.

    /// The story ends a program itself.
    pub(super) fn ends(&mut self, life: &Life, now: Time) {
        self.ended.insert(life.init);
        self.excused.insert(life.made.replica.clone(), now);
    }

    /// A machine is about to lose its power.
    pub(super) fn loses_power(&mut self, stage: &Stage, host: usize) -> Result<()> {
        self.words.catch_up(stage, host)?;
        let now = stage.now();
        // While a change is under way it is anybody's guess what will be wanted.
        let settled = now.since(self.wished) > UNDER_WAY;
        let old = |life: &&Life| settled && now.since(life.since) > UNDER_WAY && !self.is_told(life);
        let ran = self.lives.on(host).filter(old).map(|life| life.made.replica.clone()).collect();
        self.ran_at_power_off.insert(host, ran);
        let all: Vec<ReplicaId> = self.lives.on(host).map(|life| life.made.replica.clone()).collect();
        self.excused.extend(all.into_iter().map(|replica| (replica, now)));
        Ok(())
    }

    /// A machine was switched on after it had lost its power.
    pub(super) fn has_power_again(&mut self, stage: &Stage, host: usize) {
        let Some(replicas) = self.ran_at_power_off.remove(&host) else { return };
        let (life, at) = (stage.machines[host].life, stage.now() + BACK);
        self.booted.push(Booted { host, life, at, replicas });
    }

    /// A user asks something of this machine: what it ran before need not be what it runs now.
    pub(super) fn is_asked(&mut self, host: usize, now: Time) {
        self.wished = now;
        self.hears_news(host);
    }

    fn hears_news(&mut self, host: usize) {
        self.booted.retain(|it| it.host != host);
    }

    /// A machine's own peer has acknowledged that an incarnation is deleted.
    pub(super) fn knows_deleted(&mut self, host: usize, incarnation: EventId, now: Time) {
        self.deleted.entry((host, incarnation)).or_insert(now);
    }

    // --- Lives.

    /// L7, S8: what runs ends because its peer told it to, or by a fault that the story made; and the last
    /// copy of what is wanted is not told to.
    fn may_end(&mut self, stage: &Stage, life: &Life) {
        self.looks("L7 end");
        let now = stage.now();
        let replica = life.made.replica.clone();
        if stage.machines[life.host].off_at.is_some_and(|at| at >= life.seen)
            || self.ended.contains(&life.init)
        {
            self.excused.insert(replica, now);
            return;
        }
        match self.words.why(&life.id) {
            None => {
                let name = life.name(stage);
                self.violation(format!("L7: {name} ended, and its peer did not tell it to"));
            }
            Some(Why::Unwanted(_)) => _ = self.excused.insert(replica, now),
            Some(Why::Surplus(why)) => {
                let why = why.to_owned();
                let stays = self.lives.all().any(|it| it.made.replica == replica && !self.is_told(it));
                let excused = self.excused.get(&replica).is_some_and(|at| now.since(*at) < EXCUSED_FOR);
                self.looks("S8");
                if !stays && !excused {
                    let name = life.name(stage);
                    self.violation(format!("S8: {name} was the last copy, and was stopped: {why}"));
                }
            }
        }
    }

    fn is_told(&self, life: &Life) -> bool {
        self.words.why(&life.id).is_some()
    }

    /// S6, S5, and nothing is started but by a peer that runs.
    fn may_begin(&mut self, stage: &Stage, life: &Life) {
        let now = stage.now();
        let (machine, name) = (&stage.machines[life.host], life.name(stage));
        self.looks("S6 limits");
        let Limits { cpu_m, memory_b, pids } = life.limits;
        let asked = &life.made.resources;
        if (cpu_m, memory_b, pids) != (Some(asked.cpu_m), Some(asked.memory_b), Some(asked.pids)) {
            self.violation(format!(
                "S6: {name} is held to {:?}, and is to be held to {asked:?}",
                life.limits
            ));
        }
        if machine.state == State::Off {
            self.violation(format!("L7: {name} runs on a machine without power"));
        }
        if !machine.hears() && now.since(machine.since) > UNDER_WAY {
            self.violation(format!("L7: {name} began without a peer that goes"));
        }
        let known = self.deleted.get(&(life.host, life.made.replica.incarnation)).copied();
        self.looks("S5");
        if known.is_some_and(|at| now.since(at) > UNDER_WAY) {
            self.violation(format!("S5: {name} began, and its peer knows that it is deleted"));
        }
    }

    /// S6: what runs fits the machine, by the limits that the kernel holds.
    fn fits(&mut self, stage: &Stage) {
        for host in stage.hosts() {
            let used = self.used(host);
            if !stage.capacity.holds(&used) {
                let (name, has) = (stage.name(host), &stage.capacity);
                self.violation(format!("S6: {name} has {has:?}, and its containers may use {used:?}"));
            }
        }
        self.looks("S6");
    }

    /// What the containers of a machine may use, by the kernel.
    pub(super) fn used(&self, host: usize) -> Capacity {
        let amount = |life: &Life| Capacity {
            cpu_m: life.limits.cpu_m.unwrap_or(0),
            memory_b: life.limits.memory_b.unwrap_or(0),
            pids: life.limits.pids.unwrap_or(0),
            ..Capacity::default()
        };
        self.lives.on(host).fold(Capacity::default(), |sum, life| sum.plus(&amount(life)))
    }

    /// L7: what runs is taken over by a peer that starts, never started beside itself. Two looks in a row: a
    /// container that was told to stop is told of in the log before it ends.
    fn one_on_a_machine(&mut self, stage: &Stage) -> Result<()> {
        let mut pairs = BTreeSet::new();
        for host in stage.hosts() {
            let key = |life: &Life| (host, life.made.replica.clone(), life.made.revision);
            let keys = self.lives.on(host).map(|life| (key(life), host));
            if rules::run_twice(keys).is_none() {
                continue;
            }
            self.words.catch_up(stage, host)?;
            let keys: Vec<_> = self
                .lives
                .on(host)
                .filter(|life| !self.is_told(life))
                .map(|life| (key(life), host))
                .collect();
            if let Some((pair, _)) = rules::run_twice(keys) {
                if self.pairs.contains(&pair) {
                    let (host, replica, _) = &pair;
                    let name = stage.name(*host);
                    self.violation(format!("L7: {name} runs two containers of {replica:?}"));
                }
                pairs.insert(pair);
            }
        }
        self.pairs = pairs;
        Ok(())
    }

    // --- Components.

    /// S7: in a component that has been quiet no replica has two copies that both are old enough to have
    /// been found out.
    fn one_copy(&mut self, stage: &Stage, component: &[usize]) -> Result<()> {
        let now = stage.now();
        let old = |life: &&Life| now.since(life.since) > DUPLICATES && component.contains(&life.host);
        let copies = |judge: &Self| {
            let lives = judge.lives.all().filter(old).filter(|life| !judge.is_told(life));
            rules::run_twice(lives.map(|life| ((life.made.replica.clone(), life.made.revision), life.host)))
        };
        self.looks("S7");
        if copies(self).is_none() {
            return Ok(());
        }
        for host in component {
            self.words.catch_up(stage, *host)?;
        }
        if let Some(((replica, _), hosts)) = copies(self) {
            let on: Vec<&str> = hosts.iter().map(|host| stage.name(*host)).collect();
            self.violation(format!("S7: {replica:?} runs on {} for {DUPLICATES:?}", on.join(" and ")));
        }
        Ok(())
    }

    /// S9: what a peer says of a node that it calls up was so at some time not long ago, and `stopped` is said
    /// of an empty cgroup only. L3: whoever is out of reach is not called up.
    fn true_words(&mut self, stage: &Stage, component: &[usize]) {
        for teller in component.iter().copied() {
            let socket = stage.cluster.socket(stage.name(teller));
            let asked = ask::<Vec<NodeRow>>(&socket, routes::NODES)
                .and_then(|nodes| Ok((nodes, ask::<Vec<PsRow>>(&socket, routes::PS)?)));
            let (nodes, rows) = match asked {
                Ok(asked) => asked,
                Err(error) => {
                    let unanswered = self.unanswered.entry(teller).or_insert(0);
                    *unanswered += 1;
                    if *unanswered >= UNANSWERED_MAX {
                        let (name, why) = (stage.name(teller), dev::wait::chain(&error));
                        self.violation(format!("L9: {name} does not answer: {why}"));
                    }
                    continue;
                }
            };
            self.unanswered.remove(&teller);
            for of in stage.hosts() {
                let called = nodes.iter().find(|row| row.name == stage.name(of)).map(|row| row.state);
                if called != Some(Liveness::Up) {
                    continue;
                }
                if component.contains(&of) {
                    self.true_word(stage, teller, of, &rows);
                } else if stage.now().since(stage.disturbed) > GIVEN_UP && is_out_of_reach(stage, teller, of)
                {
                    let (teller, of) = (stage.name(teller), stage.name(of));
                    self.violation(format!(
                        "L3: {teller} calls {of} up, which has been out of reach for {GIVEN_UP:?}"
                    ));
                }
            }
            self.looks("L3");
        }
    }

    fn true_word(&mut self, stage: &Stage, teller: usize, of: usize, rows: &[PsRow]) {
        let ids = |states: &[PsState]| -> BTreeSet<String> {
            let rows = rows.iter().filter(|row| row.node.as_deref() == Some(stage.name(of)));
            rows.filter(|row| states.contains(&row.state)).filter_map(|row| row.container.clone()).collect()
        };
        let runs = ids(&[PsState::Running]);
        let may = ids(&[PsState::Running, PsState::Starting, PsState::Stopping]);
        let now = stage.now();
        self.looks("S9");
        let truth = self.truth.entry(of).or_default();
        if !truth.bears_out(now, FRESH, &runs, &may) {
            let ran = truth.within(now, FRESH);
            let (teller, of) = (stage.name(teller), stage.name(of));
            let what =
                format!("S9: {teller} says that {of} runs {runs:?} and may run {may:?}; it ran {ran:?}");
            self.violation(what);
        }
    }

    // --- A machine that comes back.

    /// L6: what a machine came back with runs again, whoever is in reach. Held where nobody is, and nobody
    /// asks for anything else meanwhile.
    fn comes_back(&mut self, stage: &Stage) {
        let now = stage.now();
        for host in stage.hosts() {
            let others = || stage.hosts().filter(|other| *other != host);
            let reached = others().any(|other| {
                stage.machines[other].hears() && (stage.open(host, other) || stage.open(other, host))
            });
            if reached && stage.machines[host].state == State::Up {
                self.hears_news(host);
            }
        }
        let life = |it: &Booted| stage.machines[it.host].life == it.life && stage.machines[it.host].hears();
        self.booted.retain(life);
        let (due, rest) = std::mem::take(&mut self.booted).into_iter().partition(|it| it.at <= now);
        self.booted = rest;
        let due: Vec<Booted> = due;
        for boot in due {
            let runs: BTreeSet<&ReplicaId> =
                self.lives.on(boot.host).map(|life| &life.made.replica).collect();
            let missing = boot.replicas.iter().find(|replica| !runs.contains(replica)).cloned();
            self.looks("L6");
            if let Some(replica) = missing {
                let name = stage.name(boot.host);
                self.violation(format!(
                    "L6: {name} came back alone and does not run {replica:?} after {BACK:?}"
                ));
            }
        }
    }

    // --- Copies that are well at the heal.

    /// From now on, what is well must not lose its last copy as a duplicate, nor by an update.
    pub(super) fn guard_copies(&mut self, stage: &Stage, healthy: Duration) {
        let now = stage.now();
        let well = |life: &&Life| now.since(life.since) >= healthy && !self.is_told(life);
        let guarded = Guarded { since: now, missing: false, lost: None };
        self.guarded =
            self.lives.all().filter(well).map(|life| (life.made.replica.clone(), guarded)).collect();
    }

    fn guard(&mut self, stage: &Stage) {
        let now = stage.now();
        let runs: BTreeSet<&ReplicaId> = self.lives.all().map(|life| &life.made.replica).collect();
        for (replica, guarded) in &mut self.guarded {
            let excused = self.excused.get(replica).is_some_and(|at| *at >= guarded.since);
            let missing = !runs.contains(replica) && !excused;
            // One look takes a while, in which one may end here and another begin where it has looked before.
            if missing && guarded.missing {
                guarded.lost.get_or_insert(now);
            }
            guarded.missing = missing;
        }
    }

    /// Guarded replicas that were without any copy, and when first.
    pub(super) fn lost_copies(&self) -> impl Iterator<Item = (&ReplicaId, Time)> {
        self.guarded.iter().filter_map(|(replica, guarded)| Some((replica, guarded.lost?)))
    }
}

/// Machines whose peers hear each other, each of one all others of it.
fn components(stage: &Stage) -> Vec<Vec<usize>> {
    let hears = |host: usize| stage.machines[host].hears();
    rules::components(stage.machines.len(), hears, |a, b| stage.clear(a, b))
}

/// Whether nothing that a machine says can come to the other, by way of whomever.
fn is_out_of_reach(stage: &Stage, teller: usize, of: usize) -> bool {
    if !stage.machines[of].hears() {
        return true;
    }
    let mut reached = BTreeSet::from([of]);
    let mut queue = vec![of];
    while let Some(from) = queue.pop() {
        for to in stage.hosts().filter(|to| stage.machines[*to].hears() && stage.open(from, *to)) {
            if reached.insert(to) {
                queue.push(to);
            }
        }
    }
    !reached.contains(&teller)
}
