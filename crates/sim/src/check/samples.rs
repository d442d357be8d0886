//! Checks at instants, a few of each second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use membership::Liveness;
use model::{ContainerId, ContainerState, DocId, EventId};
use node::Phase;

use super::rules::{self, Truth};
use crate::host::{Container, HostState};
use crate::weather::{GRACE, SLOW_SYNC};
use crate::world::{Cluster, Settings};

/// How often.
const SAMPLE: Duration = Duration::from_millis(200);

/// Within which duplicates are gone from a component that is quiet, on a quick network with quick
/// disks and programs.
const DUPLICATES: Duration = Duration::from_secs(2);

/// How old a word about a node may be that counts as fresh.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// Datagrams lost, in thousandths, from which on a network is never quiet: the living are called dead.
const LOSS_MAX: u32 = 50;

/// Where a peer stands and what it takes the others to run: what its plan is made from.
type Known = (Vec<(DocId, Vec<EventId>)>, node::Knowledge);

impl Settings {
    /// What the network, the disks and the programs of this world add to a time that is set for quick
    /// ones: some round trips, some syncs, a start and a stop.
    pub(crate) fn slack(&self) -> Duration {
        let odds = &self.odds;
        let sync = if odds.slow_syncs > 0 { self.sync.max(SLOW_SYNC) } else { self.sync };
        let stop = if odds.deaf > 0 { self.stop.1.max(GRACE) } else { self.stop.1 };
        let narrow = if odds.bytes_per_s > 0 { Duration::from_secs(2) } else { Duration::ZERO };
        (self.latency.1 + odds.late_by) * 8 + sync * 4 + self.start + stop + narrow
    }
}

impl Cluster {
    /// Looks around, if it is time to.
    pub(crate) fn sample(&mut self) {
        if !self.check.thorough || self.now < self.check.next_sample {
            return;
        }
        self.check.next_sample = self.now + SAMPLE;
        let clogged = self.clogs.len();
        self.clogs.retain(|_, until| *until > self.now);
        if self.clogs.len() < clogged {
            self.disturb();
        }
        self.boots();
        self.jobs_in_time();
        if self.check.lied_to || self.check.has_repeats() {
            return;
        }
        self.plans_alike();
        if self.settings.loss > LOSS_MAX || !self.losses.is_empty() {
            return;
        }
        let quiet = self.now.since(self.check.disturbed);
        let slack = self.settings.slack();
        if quiet <= FRESH.min(DUPLICATES * 2) + slack {
            return;
        }
        let components = self.components();
        if quiet > DUPLICATES * 2 + slack {
            for component in &components {
                self.one_copy(component);
                self.knows_what_ended(component, DUPLICATES * 2 + slack);
            }
        }
        if quiet > FRESH + slack {
            for component in &components {
                self.true_words(component);
            }
        }
    }

    /// Machines whose peers hear each other, each of one all others of it.
    fn components(&self) -> Vec<Vec<usize>> {
        let open = |a, b| !self.is_cut(a, b) && !self.clogs.contains_key(&(a, b));
        let knows = |a: usize, b: usize| self.hosts[a].allowed.contains(&self.hosts[b].id);
        let hears = |host: usize| self.hosts[host].node.is_some() && self.hosts[host].hears();
        rules::components(self.hosts.len(), hears, |a, b| {
            open(a, b) && open(b, a) && knows(a, b) && knows(b, a)
        })
    }

    /// S7: in a component that has been quiet no replica has two copies that both are old enough to
    /// have been found out.
    fn one_copy(&mut self, component: &[usize]) {
        // A disk that takes nothing cannot learn who is a member now.
        if component.iter().any(|host| self.hosts[*host].disk_full || self.hosts[*host].disk_failed) {
            return;
        }
        let found_out = DUPLICATES * 2 + self.settings.slack();
        let old = |it: &Container| !it.stop_asked && self.now.since(it.started) > found_out;
        let copies = component.iter().flat_map(|host| {
            let running = self.running(*host).filter(|(_, it)| old(it));
            running.map(|(_, it)| ((it.claim.replica.clone(), it.claim.revision), *host))
        });
        let twice = rules::run_twice(copies);
        self.check.looks("S7");
        if let Some(((replica, _), hosts)) = twice {
            let on: Vec<String> = hosts.iter().map(|host| format!("n{}", host + 1)).collect();
            self.violation(&format!("S7: {replica:?} runs on {} for {found_out:?}", on.join(" and ")));
        }
    }

    /// S9: what a peer says of a node that it calls up was so at some time not long ago.
    fn true_words(&mut self, component: &[usize]) {
        let window = FRESH + self.settings.slack();
        let mut wrong = None;
        // Many tell the same of one machine: by the same record.
        let mut looked_at = BTreeSet::new();
        for (teller, of) in component.iter().flat_map(|a| component.iter().map(move |b| (*a, *b))) {
            let (Some(node), id) = (self.node(teller), self.hosts[of].id) else { continue };
            let Some(record) = node.records().get(&id).filter(|_| node.liveness(&id) == Liveness::Up) else {
                continue;
            };
            if !looked_at.insert((of, record.version)) {
                continue;
            }
            let ids = |states: &[ContainerState]| -> BTreeSet<ContainerId> {
                record.containers.iter().filter(|it| states.contains(&it.state)).map(|it| it.id).collect()
            };
            let runs = ids(&[ContainerState::Running]);
            let may = ids(&[ContainerState::Running, ContainerState::Starting, ContainerState::Stopping]);
            let nothing = Truth::default();
            let truth = self.check.truth.get(&of).unwrap_or(&nothing);
            if !truth.bears_out(self.now, window, &runs, &may) {
                let recent = truth.within(self.now, window);
                wrong = Some(format!(
                    "S9: n{} says that n{} runs {runs:?}; it ran {recent:?}",
                    teller + 1,
                    of + 1
                ));
            }
        }
        self.check.looks("S9");
        if let Some(what) = wrong {
            self.violation(&what);
        }
    }

    /// What runs on a machine has changed: remembered for as long as anybody may speak of it.
    pub(crate) fn remember_truth(&mut self, host: usize) {
        let runs: BTreeSet<ContainerId> = self.running(host).map(|(id, _)| *id).collect();
        let now = self.now;
        self.check.truth.entry(host).or_default().note(now, runs);
    }

    /// S4: peers that know the same have made the same plan.
    fn plans_alike(&mut self) {
        let mut first: BTreeMap<Known, usize> = BTreeMap::new();
        let mut wrong = None;
        let mut compared = 0;
        for host in 0..self.hosts.len() {
            let Some(node) = self.node(host) else { continue };
            let Some(knowledge) = node.knowledge() else { continue };
            let documents = node.documents();
            let heads =
                documents.docs().into_iter().map(|doc| (doc.clone(), documents.heads(&doc))).collect();
            match first.entry((heads, knowledge)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(host);
                }
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let other = *entry.get();
                    compared += 1;
                    if self.node(other).is_some_and(|it| it.plan() != node.plan()) {
                        wrong = Some(format!(
                            "S4: n{} and n{} know the same and plan otherwise",
                            other + 1,
                            host + 1
                        ));
                    }
                }
            }
        }
        if compared > 0 {
            self.check.looks("S4");
        }
        if let Some(what) = wrong {
            self.violation(&what);
        }
    }

    /// L6: what a machine came back with is started again without anybody's word.
    fn boots(&mut self) {
        let (due, rest) = std::mem::take(&mut self.check.boots).into_iter().partition(|it| it.at <= self.now);
        self.check.boots = rest;
        let due: Vec<super::Booted> = due;
        for boot in due {
            let it = &self.hosts[boot.host];
            if it.life != boot.life || it.state != HostState::Up || it.paused {
                continue;
            }
            let Some(node) = &it.node else { continue };
            let waits = boot
                .containers
                .iter()
                .find(|id| node.mine().get(*id).is_some_and(|mine| mine.phase == Phase::Waiting));
            let waits = waits.copied();
            self.check.looks("L6");
            if let Some(id) = waits {
                let name = self.name_of_container(id);
                self.violation(&format!("L6: n{} came back and has not begun with {name}", boot.host + 1));
            }
        }
    }
}
