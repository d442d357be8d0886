//! Leases in the simulated world: what a voter's disk keeps, and the kernel that ends a program at its deadline.
//!
//! The check S7 of exclusive replicas is here: over the whole cluster, at each start of a program, by the kernels'
//! word. A machine whose disk was put back or copied may repeat what it granted: people are told to remove it.

use model::{ContainerId, LeaseGrant, ReplicaId, Sabotage, Time};
use node::{Exit, Input};
use rand::RngExt;

use crate::world::{Cluster, Happening};

impl Cluster {
    /// A voter has a grant written.
    pub(crate) fn keep_lease(&mut self, host: usize, grant: LeaseGrant) {
        let after = self.sync_takes(host);
        self.hosts[host].leases_unsynced.push_back(grant.clone());
        self.at(after, host, Happening::LeaseSynced(Box::new(grant)));
    }

    pub(crate) fn lease_synced(&mut self, host: usize, grant: LeaseGrant) {
        let it = &mut self.hosts[host];
        let kept = !it.disk_full && !it.disk_failed;
        if let Some(at) = it.leases_unsynced.iter().position(|unsynced| *unsynced == grant) {
            it.leases_unsynced.remove(at);
        }
        let LeaseGrant { replica, number, holder, .. } = grant.clone();
        if kept {
            it.leases.insert(replica.clone(), grant);
        }
        self.input(host, Input::LeaseKept { replica, number, holder, kept });
    }

    /// The peer is gone: of what it had written any beginning is there.
    pub(crate) fn lose_leases(&mut self, host: usize) {
        let asked = self.hosts[host].leases_unsynced.len();
        if asked == 0 {
            return;
        }
        let kept = if self.hosts[host].disk_full { 0 } else { self.rng.random_range(0..=asked) };
        let it = &mut self.hosts[host];
        for grant in std::mem::take(&mut it.leases_unsynced).into_iter().take(kept) {
            it.leases.insert(grant.replica.clone(), grant);
        }
    }

    pub(crate) fn forget_leases(&mut self, host: usize, replicas: &[ReplicaId]) {
        self.hosts[host].leases.retain(|replica, _| !replicas.contains(replica));
    }

    /// From now on a container may run until then and no longer.
    pub(crate) fn hold_to(&mut self, host: usize, container: ContainerId, until: Time) {
        let Some(entry) = self.hosts[host].kernel.get_mut(&container) else { return };
        if entry.until.is_some_and(|before| before >= until) {
            return;
        }
        entry.until = Some(until);
        self.at(until.since(self.now), host, Happening::Deadline(container));
    }

    /// A deadline has come; it may have been moved on since.
    pub(crate) fn deadline(&mut self, host: usize, container: ContainerId) {
        let now = self.now;
        let outlives = self.settings.sabotage.has(Sabotage::LeaseOutlived);
        let over = self.hosts[host]
            .kernel
            .get(&container)
            .is_some_and(|entry| entry.pid.is_some() && entry.until.is_some_and(|until| until <= now));
        if over && !outlives {
            let name = self.name_of_container(container);
            self.tell(format!("{name} on n{} is killed: its lease has ended", host + 1));
            let lost = Some("its lease has ended".to_owned());
            self.exits(host, container, Exit { signal: Some(9), lost, ..Exit::default() });
        }
    }

    /// A program has begun: S7 and S14, where it is of an exclusive replica. `copies`: with it.
    pub(crate) fn begun(&mut self, host: usize, container: ContainerId, copies: u32) {
        let Some(entry) = self.hosts[host].kernel.get(&container) else { return };
        if entry.claim.run.voters.is_empty() {
            return;
        }
        let (replica, fence) = (entry.claim.replica.clone(), entry.claim.fence.unwrap_or(0));
        self.check.looks("S7 exclusive");
        if self.check.has_repeats() {
            return;
        }
        if copies > 1 {
            let on: Vec<String> = (0..self.hosts.len())
                .filter(|at| self.running(*at).any(|(_, it)| it.claim.replica == replica))
                .map(|at| format!("n{}", at + 1))
                .collect();
            self.violation(&format!("S7: the exclusive {replica:?} runs on {}", on.join(" and ")));
        }
        let last = self.check.fences.entry(replica.clone()).or_insert(0);
        let before = std::mem::replace(last, fence.max(*last));
        if fence <= before {
            self.violation(&format!("S14: {replica:?} starts under number {fence} after {before}"));
        }
    }
}
