//! The kernels: what really runs, and the rules that no peer may break.

use std::time::Duration;

use model::{Capacity, ContainerId, ReplicaId, Time};
use node::{Claim, Exit, Input};
use rand::RngExt;

use crate::host::{Container, HostState};
use crate::weather::GRACE;
use crate::world::{Cluster, Happening};

impl Cluster {
    pub(crate) fn start_container(
        &mut self,
        host: usize,
        container: ContainerId,
        claim: Claim,
        until: Option<Time>,
    ) {
        self.name_of_container(container);
        let now = self.now;
        let entry = self.hosts[host].kernel.entry(container).or_insert_with(|| Container {
            claim: claim.clone(),
            pid: None,
            started_ms: 0,
            started: now,
            starts: 0,
            until: None,
            starting: false,
            stop_asked: false,
            surplus: false,
            exit: Exit::default(),
            ends_at: None,
            failed: 0,
            failed_starts: 0,
        });
        let twice = entry.pid.is_some() || entry.starting;
        entry.claim = claim;
        entry.starting = true;
        entry.stop_asked = false;
        entry.surplus = false;
        entry.until = None;
        if twice {
            let name = self.name_of_container(container);
            self.violation(&format!("n{} starts {name}, which runs", host + 1));
        }
        if let Some(until) = until {
            self.hold_to(host, container, until);
        }
        let takes = self.hosts[host].start.unwrap_or(self.settings.start);
        self.at(takes, host, Happening::Ran(container));
        self.hold_to_capacity(host);
    }

    /// The making of a container comes to its end.
    pub(crate) fn ran(&mut self, host: usize, container: ContainerId) {
        let (now, wall_ms) = (self.now, self.wall_ms(host));
        let fails = self.settings.start_failures > 0
            && self.rng.random_range(0..1_000) < self.settings.start_failures;
        let it = &mut self.hosts[host];
        let no_pids = it.no_pids;
        let Some(entry) = it.kernel.get_mut(&container).filter(|entry| entry.starting) else { return };
        entry.starting = false;
        if entry.until.is_some_and(|until| until <= now) {
            let reason = "its lease ended while it was made".to_owned();
            entry.exit = Exit { lost: Some(reason.clone()), ..Exit::default() };
            self.disturb();
            return self.input(host, Input::StartFailed { container, here_only: false, reason });
        }
        if fails || no_pids {
            let here_only = no_pids || self.rng.random_range(0..2) == 0;
            let reason = if no_pids { "there is no process left" } else { "the simulator lets it fail" };
            let reason = reason.to_owned();
            entry.exit = Exit { lost: Some(reason.clone()), ..Exit::default() };
            if !here_only && entry.claim.run.retries.is_some() {
                entry.failed_starts += 1;
            }
            let given_up =
                entry.may_be_given_up().then(|| (entry.claim.replica.clone(), entry.claim.revision));
            if let Some(run) = given_up {
                self.check.work.gave_up(run);
            }
            self.disturb();
            return self.input(host, Input::StartFailed { container, here_only, reason });
        }
        let pid = it.pids;
        it.pids += 1;
        entry.pid = Some(pid);
        entry.started_ms = wall_ms;
        entry.started = now;
        entry.starts += 1;
        let stop_asked = entry.stop_asked;
        let replica = entry.claim.replica.clone();
        let copies = self.count(&replica, true);
        self.begun(host, container, copies);
        self.remember_truth(host);
        *self.starts.entry(replica.deployment).or_insert(0) += 1;
        self.life_begins(host, container);
        self.doom(host, container, pid);
        self.input(host, Input::Started { container, pid });
        if stop_asked {
            let after = self.ends_after();
            self.at(after, host, Happening::Ended { container, pid });
        }
    }

    pub(crate) fn stop_container(&mut self, host: usize, container: ContainerId) {
        let it = &mut self.hosts[host];
        if let Some(entry) = it.kernel.get_mut(&container) {
            let replica = &entry.claim.replica;
            entry.stop_asked = true;
            // A machine that was removed stops everything, wanted or not.
            let member = it.node.as_ref().filter(|node| !node.is_removed());
            entry.surplus = member.is_some_and(|node| node.wants(replica) && !node.gives_way(container));
        }
        self.may_stop(host, container);
        match self.hosts[host].kernel.get(&container) {
            Some(entry) if entry.starting => {}
            Some(Container { pid: Some(pid), .. }) => {
                let pid = *pid;
                let after = self.ends_after();
                self.at(after, host, Happening::Ended { container, pid });
            }
            Some(_) | None => {
                let exit = Exit { lost: Some("it had ended already".to_owned()), ..Exit::default() };
                self.at(Duration::from_millis(1), host, Happening::Input(Input::Exited { container, exit }));
            }
        }
    }

    /// How long a program takes to end that is asked to now.
    fn ends_after(&mut self) -> Duration {
        let deaf = self.settings.odds.deaf;
        if deaf > 0 && self.rng.random_range(0..1_000) < deaf {
            return GRACE;
        }
        self.between(self.settings.stop)
    }

    /// A program that was asked to end does so, if it is still that one.
    pub(crate) fn ended(&mut self, host: usize, container: ContainerId, pid: u32) {
        if self.hosts[host].kernel.get(&container).is_some_and(|entry| entry.pid == Some(pid)) {
            self.exits(host, container, Exit { signal: Some(15), ..Exit::default() });
        }
    }

    pub(crate) fn exits(&mut self, host: usize, container: ContainerId, exit: Exit) {
        let now = self.now;
        let Some(entry) = self.hosts[host].kernel.get_mut(&container) else { return };
        if entry.pid.take().is_none() {
            return;
        }
        entry.exit = exit.clone();
        entry.ends_at = None;
        if entry.claim.run.retries.is_some() && !entry.stop_asked && exit.lost.is_none() {
            let run = (entry.claim.replica.clone(), entry.claim.revision);
            if exit.code == Some(0) && !exit.oom {
                self.check.work.ended_well(run, now);
            } else {
                entry.failed += 1;
                if entry.may_be_given_up() {
                    self.check.work.gave_up(run);
                }
            }
        }
        let (replica, surplus) = (entry.claim.replica.clone(), entry.surplus);
        if !entry.stop_asked {
            self.disturb();
            self.excuse(replica.clone());
        }
        let left = self.count(&replica, false);
        self.remember_truth(host);
        self.life_ends(host, container);
        if surplus
            && left == 0
            && !self.excused_since_guard(&replica)
            && !self.is_done(&replica)
            && let Some(lost) = self.guarded.get_mut(&replica)
        {
            lost.get_or_insert(self.now);
        }
        self.input(host, Input::Exited { container, exit });
    }

    /// Whether a replica has done its work by its restart policy: there is nothing more to run.
    fn is_done(&self, replica: &ReplicaId) -> bool {
        let mut all = self.hosts.iter().flat_map(|host| host.kernel.values());
        let stands = |it: &Container| it.has_ended_for_good() || it.may_be_given_up();
        all.any(|it| it.claim.replica == *replica && stands(it))
    }

    /// A program ends by itself with this code.
    pub fn crash_container(&mut self, host: usize, container: ContainerId, code: i32) {
        let name = self.name_of_container(container);
        self.tell(format!("{name} on n{} ends with code {code}", host + 1));
        self.exits(host, container, Exit { code: Some(code), ..Exit::default() });
    }

    pub(crate) fn remove_container(&mut self, host: usize, container: ContainerId) {
        let removed = self.hosts[host].kernel.remove(&container);
        if let Some(removed) = removed.filter(|it| it.pid.is_some() || it.starting) {
            if removed.pid.is_some() {
                self.count(&removed.claim.replica, false);
                self.life_ends(host, container);
            }
            let name = self.name_of_container(container);
            self.violation(&format!("n{} removes {name}, which runs", host + 1));
        }
        self.at(Duration::from_millis(1), host, Happening::Input(Input::Removed(container)));
    }

    /// The power goes: nothing runs.
    pub(crate) fn kernel_dies(&mut self, host: usize) {
        let mut stopped = Vec::new();
        for (id, container) in &mut self.hosts[host].kernel {
            if container.pid.take().is_some() {
                container.ends_at = None;
                container.exit =
                    Exit { lost: Some("the machine was switched off".to_owned()), ..Exit::default() };
                stopped.push((*id, container.claim.replica.clone()));
            }
        }
        for (container, replica) in stopped {
            self.count(&replica, false);
            self.excuse(replica);
            self.life_ends(host, container);
        }
        self.remember_truth(host);
    }

    /// What the containers of a machine use, those that are being made included.
    pub(crate) fn used(&self, host: usize) -> Capacity {
        let holding = self.hosts[host].kernel.values().filter(|it| it.pid.is_some() || it.starting);
        holding.fold(Capacity::default(), |sum, it| sum.plus(&it.claim.run.resources))
    }

    fn hold_to_capacity(&mut self, host: usize) {
        let used = self.used(host);
        let has = &self.hosts[host].offers;
        if !has.holds(&used) {
            self.violation(&format!("n{} has {has:?} and its containers were given {used:?}", host + 1));
        }
    }

    /// How many copies run now.
    pub(crate) fn count(&mut self, replica: &ReplicaId, runs: bool) -> u32 {
        self.changes += 1;
        let copies = self.running.entry(replica.clone()).or_insert(0);
        *copies = if runs { *copies + 1 } else { copies.checked_sub(1).expect("every start was counted") };
        *copies
    }

    /// From now on, what is well must not lose its last copy as a duplicate, nor by an update:
    /// [`Cluster::lost_copies`] tells.
    pub fn guard_copies(&mut self) {
        let healthy = self.settings.timings.healthy;
        let now = self.now;
        self.guarded_at = now;
        self.guarded = self
            .hosts
            .iter()
            .filter(|host| host.state != HostState::PowerOff)
            .flat_map(|host| host.kernel.values())
            .filter(|it| it.pid.is_some() && !it.stop_asked && now.since(it.started) >= healthy)
            .map(|it| (it.claim.replica.clone(), None))
            .collect();
    }

    /// Guarded replicas whose last copy was stopped although it was wanted, and when first.
    pub fn lost_copies(&self) -> impl Iterator<Item = (&ReplicaId, Time)> {
        self.guarded.iter().filter_map(|(replica, lost)| lost.map(|at| (replica, at)))
    }
}
