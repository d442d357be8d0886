//! What must hold once the world is calm, for all machines or for a core, as in the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use api::routes;
use api::shapes::{DeploymentRow, HistoryRow, NodeRow, NodeState as Liveness};
use dev::skerry::ask;
use dev::wait::chain;
use model::{ResourcesGroup, Time};
use serde::de::DeserializeOwned;
use sim::story::{Ending, Outside, Shape};

use super::lives::Life;
use super::play::Play;
use super::stage::State;

/// From calm to equal documents everywhere, and to everybody being found up or down. The simulator gives
/// seconds; this is a busy machine, and what is asked is whether, not when.
const LEVEL_WITHIN: Duration = Duration::from_secs(90);

/// From calm to every wanted replica once: as in the simulator, behind back-offs of programs that were killed
/// again and again.
const AT_REST_WITHIN: Duration = Duration::from_secs(300);

/// For so long nothing may start or stop at the end of a story.
const QUIET: Duration = Duration::from_secs(6);

/// How long a container must have run to count as healthy, and a look more.
const HEALTHY: Duration = Duration::from_millis(1_500);

/// A cut that stays for good.
const FOR_GOOD: Duration = Duration::from_secs(1_000_000);

/// How long each half of a link lasts that comes and goes for good.
const HALF: Duration = Duration::from_millis(700);

/// How long it took from calm.
#[derive(Clone, Debug)]
pub(super) struct Took {
    /// Until all documents were equal, and everybody found up or down.
    pub(super) level: Duration,
    /// Until every wanted replica ran once.
    pub(super) at_rest: Duration,
}

impl Play {
    /// Heals, starts and frees what the ending says, and holds what follows against the rules.
    pub(super) fn ends(&mut self, ending: &Ending) -> Result<Took> {
        let members: Vec<usize> = match ending {
            Ending::Calm => self.stage.hosts().collect(),
            Ending::Core(core, ..) => core.clone(),
        };
        self.heal(ending)?;
        self.judge.guard_copies(&self.stage, HEALTHY);
        for host in &members {
            self.start(*host)?;
        }
        let names: Vec<String> = members.iter().map(|host| self.stage.name(*host).to_owned()).collect();
        self.stage.tell(format!("calm for {}", names.join(", ")));
        let begin = self.stage.now();
        // Who was asked before may still answer.
        self.within(LEVEL_WITHIN, "answers", |play| {
            if play.users.are_done() { Ok(()) } else { Err("a user waits".to_owned()) }
        })?;
        self.within(LEVEL_WITHIN, "documents differ", |play| play.level(&members))?;
        self.within(LEVEL_WITHIN, "L3", |play| play.all_found(&members))?;
        let level = self.stage.now().since(begin);
        self.within(AT_REST_WITHIN, "not at rest", |play| play.at_rest(&members))?;
        let at_rest = self.stage.now().since(begin);
        self.stage.tell("at rest");
        let running = |play: &Self| -> BTreeSet<_> {
            let lives = play.judge.lives.all().filter(|life| members.contains(&life.host));
            lives.map(|life| (life.host, life.id.clone(), life.init)).collect()
        };
        let before = running(self);
        self.wait(QUIET)?;
        let after = running(self);
        if before != after {
            let differs: Vec<_> = before.symmetric_difference(&after).collect();
            bail!("L8: something was started or stopped at rest: {differs:?}");
        }
        for holds in [self.level(&members), self.at_rest(&members)] {
            if let Err(why) = holds {
                bail!("at rest, and {QUIET:?} later no more: {why}");
            }
        }
        self.kept_promises(&members)?;
        Ok(Took { level, at_rest })
    }

    fn within(
        &mut self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<()> {
        match self.until(limit, |play| look(play))? {
            Ok(()) => Ok(()),
            Err(seen) => bail!("stuck: {what} {limit:?} after calm: {seen}"),
        }
    }

    /// The network of the ending, for good.
    fn heal(&mut self, ending: &Ending) -> Result<()> {
        self.calm()?;
        let Ending::Core(core, outside, shape) = ending else {
            return self.stage.set_cuts(BTreeSet::new());
        };
        let mut cuts = self.stage.cuts();
        cuts.retain(|(a, b)| !core.contains(a) && !core.contains(b));
        if *shape == Shape::Line {
            cuts.extend(sim::rules::beyond_neighbours(core));
            self.stage.tell("the core is a line");
        }
        let mut flaps = BTreeSet::new();
        for (host, how) in outside.iter().copied() {
            match how {
                Outside::Off => self.power_off(host)?,
                Outside::PeerDown => self.stage.kill_peer(host)?,
                Outside::CutOff | Outside::Deaf | Outside::Mute | Outside::Flaps => {}
            }
            for it in core.iter().copied() {
                let (says, hears) = ((host, it), (it, host));
                match how {
                    Outside::Off | Outside::PeerDown | Outside::CutOff => cuts.extend([says, hears]),
                    Outside::Deaf => _ = cuts.insert(hears),
                    Outside::Mute => _ = cuts.insert(says),
                    Outside::Flaps => {
                        cuts.insert(hears);
                        flaps.insert(says);
                    }
                }
            }
            let name = self.stage.name(host).to_owned();
            self.stage.tell(format!("{name} is {how:?} for good"));
        }
        self.stage.set_cuts(cuts)?;
        if flaps.is_empty() { Ok(()) } else { self.flap(flaps, HALF, FOR_GOOD) }
    }

    fn ask<T: DeserializeOwned>(&self, host: usize, route: &str) -> Result<T, String> {
        let name = self.stage.name(host);
        ask(&self.stage.cluster.socket(name), route).map_err(|error| format!("{name}: {}", chain(&error)))
    }

    /// L1: documents are equal.
    fn level(&self, members: &[usize]) -> Result<(), String> {
        let mut heads = BTreeMap::new();
        for host in members.iter().copied() {
            let rows: Vec<NodeRow> = self.ask(host, routes::NODES)?;
            let name = self.stage.name(host);
            let own = rows.into_iter().find(|row| row.name == name);
            heads.insert(name, own.ok_or(format!("{name} does not know itself"))?.heads);
        }
        let first = heads.values().next();
        if heads.values().all(|it| Some(it) == first) { Ok(()) } else { Err(format!("{heads:?}")) }
    }

    /// Whoever is of the core is found up by all of it, and L3: whoever is gone for good is found down.
    fn all_found(&self, members: &[usize]) -> Result<(), String> {
        for host in members.iter().copied() {
            let rows: Vec<NodeRow> = self.ask(host, routes::NODES)?;
            for of in self.stage.hosts() {
                let wanted = if members.contains(&of) { Liveness::Up } else { Liveness::Down };
                let (name, of) = (self.stage.name(host), self.stage.name(of));
                let state = rows.iter().find(|row| row.name == of).map(|row| row.state);
                if state != Some(wanted) {
                    return Err(format!("{name} finds {of} {state:?} and not {wanted:?}"));
                }
            }
        }
        Ok(())
    }

    /// L1, L2, S11: every wanted replica runs once, in the wanted revision, or there is no room for it;
    /// nothing else runs.
    fn at_rest(&self, members: &[usize]) -> Result<(), String> {
        let first = *members.first().ok_or("there is no member")?;
        let rows: Vec<DeploymentRow> = self.ask(first, routes::DEPLOYMENTS)?;
        let mut copies: BTreeMap<_, Vec<&Life>> = BTreeMap::new();
        for life in self.judge.lives.all().filter(|life| members.contains(&life.host)) {
            copies.entry(life.made.replica.clone()).or_default().push(life);
        }
        if let Some((replica, lives)) = copies.iter().find(|(_, lives)| lives.len() > 1) {
            let on: Vec<&str> = lives.iter().map(|life| self.stage.name(life.host)).collect();
            return Err(format!("{replica:?} runs on {}", on.join(" and ")));
        }
        for row in &rows {
            let of_it = |life: &&&Life| {
                let replica = &life.made.replica;
                replica.deployment.as_str() == row.name && replica.incarnation.to_string() == row.incarnation
            };
            let mine: Vec<&Life> = copies.values().flatten().filter(of_it).copied().collect();
            if row.invalid.is_none() {
                self.all_run(members, row, &mine)?;
            }
            // What runs of a deployment that says nothing sensible any more is kept, once.
            copies.retain(|_, lives| !lives.iter().any(|life| of_it(&life)));
        }
        match copies.values().flatten().next() {
            Some(life) => Err(format!("{} is not wanted by anybody", life.name(&self.stage))),
            None => Ok(()),
        }
    }

    fn all_run(&self, members: &[usize], row: &DeploymentRow, mine: &[&Life]) -> Result<(), String> {
        let name = &row.name;
        let unplaced: BTreeSet<u32> = row.unplaced.iter().map(|it| it.ordinal).collect();
        for ordinal in 0..row.replicas {
            let runs = mine.iter().find(|life| life.made.replica.ordinal == ordinal);
            if unplaced.contains(&ordinal) {
                self.no_room(members, row)?;
                continue;
            }
            let Some(life) = runs else { return Err(format!("{name}#{ordinal} does not run")) };
            // No higher ordinal is touched while a lower one has no place.
            let new = Some(life.made.revision.to_string()) == row.revision_hash;
            if !new && unplaced.first().is_none_or(|lower| *lower > ordinal) {
                return Err(format!("{} is of an earlier template", life.name(&self.stage)));
            }
        }
        match mine.iter().find(|life| life.made.replica.ordinal >= row.replicas) {
            Some(life) => {
                Err(format!("{} is beyond the {} that are wanted", life.name(&self.stage), row.replicas))
            }
            None => Ok(()),
        }
    }

    /// L2: holds "there is no room" against what the kernels' limits come to.
    fn no_room(&self, members: &[usize], row: &DeploymentRow) -> Result<(), String> {
        let json = row.groups.get("resources");
        let asked: ResourcesGroup = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let asked = asked.as_capacity();
        let room = |host: &&usize| self.stage.capacity.less(&self.judge.used(**host)).holds(&asked);
        match members.iter().find(room) {
            Some(host) => {
                Err(format!("{} has no place, and {} has room for it", row.name, self.stage.name(*host)))
            }
            None => Ok(()),
        }
    }

    /// What must have held all the time: S1, and copies that were well at the heal.
    fn kept_promises(&mut self, members: &[usize]) -> Result<()> {
        for host in members.iter().copied() {
            let rows: Vec<HistoryRow> = self.ask(host, routes::HISTORY).map_err(anyhow::Error::msg)?;
            let known: BTreeSet<&str> = rows.iter().map(|row| row.event.as_str()).collect();
            // What only a machine outside has on its disk is not lost, and out of reach.
            let acked = self.acked.iter().filter(|acked| members.contains(&acked.host));
            if let Some(acked) = acked.into_iter().find(|acked| !known.contains(acked.event.as_str())) {
                bail!(
                    "S1: {} acknowledged event {} on {} disks, and {} has it not",
                    self.stage.name(acked.host),
                    acked.event,
                    acked.durable_on,
                    self.stage.name(host)
                );
            }
        }
        let Some(first) = members.first() else { return Ok(()) };
        let rows: Vec<DeploymentRow> = self.ask(*first, routes::DEPLOYMENTS).map_err(anyhow::Error::msg)?;
        let lost: Vec<(String, Time)> = self
            .judge
            .lost_copies()
            .filter(|(replica, _)| {
                rows.iter().any(|row| {
                    row.incarnation == replica.incarnation.to_string() && replica.ordinal < row.replicas
                })
            })
            .map(|(replica, at)| (format!("{replica:?}"), at))
            .collect();
        match lost.first() {
            Some((replica, at)) => {
                bail!("S8: {replica} was well when the world healed and had no copy at {at:?}")
            }
            None => Ok(()),
        }
    }

    /// What a person would look at after something did not hold, by machine.
    pub(super) fn show(&self) -> Vec<(String, String)> {
        let mut shown = Vec::new();
        for host in self.stage.hosts() {
            let machine = &self.stage.machines[host];
            let mut words =
                format!("{:?}{}\n", machine.state, if machine.still { ", stands still" } else { "" });
            words.push_str("by the kernel:\n");
            for life in self.judge.lives.on(host) {
                let told = self.judge.words.why(&life.id);
                let (replica, revision) = (&life.made.replica, life.made.revision.short());
                writeln!(
                    words,
                    "  {} {replica:?} revision {revision} since {:?}, {:?}, told {told:?}",
                    life.id, life.since, life.limits
                )
                .expect("a text takes every line");
            }
            if machine.state == State::Up && !machine.still {
                words.push_str("by its peer:\n");
                let args: [&[&str]; 4] = [&["node", "ls"], &["ps"], &["status"], &["events"]];
                for args in args {
                    let answer = self.stage.cluster.skerry(&machine.name, dev::User::Alice).run(args);
                    let text =
                        answer.map_or_else(|error| chain(&error), |it| format!("{}{}", it.stdout, it.stderr));
                    writeln!(words, "--- {}\n{text}", args.join(" ")).expect("a text takes every line");
                }
            }
            shown.push((machine.name.clone(), words));
        }
        shown
    }
}
