//! The cut, the time, the heal; and what they did, read off what ran where and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ReplicaId, Time};
use planner::Placement;

use super::found::{AT_REST_WITHIN, found};
use super::{Answer, Before, Heal, Island, Missing, NoAnswer, Question, Stopped, Twice};
use crate::host::HostState;
use crate::timeline::Life;
use crate::world::Cluster;

/// How often it is looked whether the cluster is at rest: what is told of times is read off the
/// kernels, and exact.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// For so long nothing may start or stop, and all must agree, for a cluster to be at rest: longer than
/// the silence after which a node is down and its work is placed elsewhere.
const QUIET: Duration = Duration::from_secs(5);

/// How long the cluster is let alone before the cut, once it is at rest: what started is well then.
const BEFORE_CUT: Duration = Duration::from_secs(10);

impl Question {
    /// Simulates it.
    ///
    /// # Errors
    /// When the cluster does not come to rest before the cut, or a bug shows.
    ///
    /// # Panics
    /// When the question is none: see the fields of [`Question`].
    pub fn answer(&self) -> Result<Answer, NoAnswer> {
        let mut cluster = found(self)?;
        let all: Vec<usize> = (0..cluster.len()).collect();
        if come_to_rest(&mut cluster, &all).is_none() {
            return Err(NoAnswer::Restless { within: AT_REST_WITHIN });
        }
        cluster.run_for(BEFORE_CUT);
        let before = Before {
            wanted: wanted(&cluster, 0).len(),
            runs: runs(&cluster, &all),
            missing: missing(&cluster, &all),
        };

        let cut_at = cluster.now();
        let groups: Vec<&[usize]> = self.islands.iter().map(Vec::as_slice).collect();
        if groups.len() > 1 {
            cluster.split(&groups);
        }
        for host in &self.killed {
            cluster.power_off(*host);
        }
        cluster.run_for(self.lasts);
        let over_at = cluster.now();
        let islands = self.islands.iter().map(|island| self.island(&cluster, island, cut_at)).collect();
        let at_end = runs(&cluster, &all);

        let heal = self.heals.then(|| self.heal(&mut cluster, over_at, &at_end));
        if let Some(what) = cluster.violations().first() {
            return Err(NoAnswer::Violation { what: what.clone() });
        }
        let end_at = cluster.now();
        let lives = cluster.lives().to_vec();
        let twice = twice(
            &lives,
            cut_at,
            end_at,
            &self.machines.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        );
        Ok(Answer { before, cut_at, over_at, end_at, islands, twice, heal, lives })
    }

    fn island(&self, cluster: &Cluster, machines: &[usize], cut_at: Time) -> Island {
        let here: Vec<&Life> = cluster.lives().iter().filter(|life| machines.contains(&life.host)).collect();
        let started = here.iter().filter(|life| life.from > cut_at);
        // What a machine ran that lost power ended with it.
        let stopped = here.iter().filter(|life| {
            !self.killed.contains(&life.host) && life.until.is_some_and(|until| until > cut_at)
        });
        let times =
            started.clone().map(|life| life.from).chain(stopped.clone().filter_map(|life| life.until));
        let named = |life: &&Life| (life.replica.clone(), life.host);
        Island {
            machines: machines.to_vec(),
            runs: runs(cluster, machines),
            missing: missing(cluster, machines),
            settled: times.max().map(|last| last.since(cut_at)),
            started: started.map(named).collect(),
            stopped: stopped.map(named).collect(),
        }
    }

    fn heal(&self, cluster: &mut Cluster, over_at: Time, before: &[Vec<ReplicaId>]) -> Heal {
        let up: Vec<usize> = (0..cluster.len()).filter(|host| !self.killed.contains(host)).collect();
        cluster.heal();
        let rest = come_to_rest(cluster, &up);
        let all: Vec<usize> = (0..cluster.len()).collect();
        let after = runs(cluster, &all);
        let lives = cluster.lives();
        let stays =
            |replica: &ReplicaId| all.iter().copied().filter(|host| after[*host].contains(replica)).collect();
        let stopped: Vec<Stopped> = lives
            .iter()
            .filter_map(|life| {
                let until = life.until.filter(|until| *until > over_at)?;
                // What was there at the heal; what was started and stopped since shows in both lists.
                Some(Stopped {
                    replica: life.replica.clone(),
                    machine: life.host,
                    stays: stays(&life.replica),
                    after: until.since(over_at),
                })
            })
            .collect();
        let started: Vec<(ReplicaId, usize)> = lives
            .iter()
            .filter(|life| life.from > over_at)
            .map(|life| (life.replica.clone(), life.host))
            .collect();
        let last = lives.iter().flat_map(|life| [Some(life.from), life.until]).flatten().max();
        let changed = before != after || !stopped.is_empty();
        Heal {
            agreed: rest.map(|rest| rest.agreed),
            once: rest.map(|_| last.filter(|_| changed).map_or(Duration::ZERO, |last| last.since(over_at))),
            stopped,
            started,
            missing: missing(cluster, &up),
            runs: after,
        }
    }
}

/// How a cluster came to rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Until all agreed, for the first time.
    agreed: Duration,
}

/// Lets time pass until the cluster of these machines is at rest; `None`: it was not in time.
fn come_to_rest(cluster: &mut Cluster, hosts: &[usize]) -> Option<Rest> {
    let begin = cluster.now();
    let mut agreed = None;
    let mut quiet_since = None;
    let mut before = cluster.processes();
    while cluster.now().since(begin) < AT_REST_WITHIN {
        cluster.run_for(LOOK_EVERY);
        let agrees = cluster.all_up(hosts) && cluster.agreed(hosts);
        if agrees {
            agreed.get_or_insert_with(|| cluster.now().since(begin));
        }
        let now = cluster.processes();
        if !agrees || now != before || !placed_once(cluster, hosts) {
            quiet_since = None;
        } else {
            let since = *quiet_since.get_or_insert_with(|| cluster.now());
            if cluster.now().since(since) >= QUIET {
                return agreed.map(|agreed| Rest { agreed });
            }
        }
        before = now;
    }
    None
}

/// Whether every replica with a place runs there and nowhere else.
fn placed_once(cluster: &Cluster, hosts: &[usize]) -> bool {
    let Some(node) = hosts.first().and_then(|host| cluster.node(*host)) else { return false };
    let running: usize = hosts.iter().map(|host| cluster.running(*host).count()).sum();
    let mut kept = 0;
    node.plan().placements.values().all(|placement| match placement {
        Placement::Keep { .. } | Placement::KeepOld { .. } => {
            kept += 1;
            true
        }
        Placement::Waits
        | Placement::Ended
        | Placement::Queued
        | Placement::GivenUp
        | Placement::Unplaced { .. } => true,
        Placement::Start { .. }
        | Placement::Awaits { .. }
        | Placement::StopFirst { .. }
        | Placement::Replace { .. } => false,
    }) && kept == running
}

fn wanted(cluster: &Cluster, host: usize) -> BTreeSet<ReplicaId> {
    cluster.node(host).map(|node| node.plan().placements.replicas().collect()).unwrap_or_default()
}

/// By machine, what it runs, in the order of replicas.
fn runs(cluster: &Cluster, hosts: &[usize]) -> Vec<Vec<ReplicaId>> {
    let of = |host: &usize| {
        let replicas: BTreeSet<ReplicaId> =
            cluster.running(*host).map(|(_, it)| it.claim.replica.clone()).collect();
        replicas.into_iter().collect()
    };
    hosts.iter().map(of).collect()
}

/// What has no place, by the plan of the first of these machines whose peer runs.
fn missing(cluster: &Cluster, hosts: &[usize]) -> Vec<Missing> {
    let up = hosts.iter().find(|host| cluster.state(**host) == HostState::Up);
    let Some(node) = up.and_then(|host| cluster.node(*host)) else { return Vec::new() };
    let without = node.plan().placements.iter().filter_map(|(replica, placement)| match placement {
        Placement::Unplaced { reasons } => Some((replica, reasons)),
        _ => None,
    });
    without
        .map(|(replica, reasons)| Missing {
            replica,
            reasons: reasons
                .iter()
                .filter_map(|(id, refusal)| Some((*cluster.index.get(id)?, refusal.to_string())))
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect(),
        })
        .collect()
}

/// Replicas of which more than one copy ran at the same time, from `from` to `to`.
fn twice(lives: &[Life], from: Time, to: Time, names: &[&str]) -> Vec<Twice> {
    let mut of: BTreeMap<&ReplicaId, Vec<&Life>> = BTreeMap::new();
    for life in lives.iter().filter(|life| life.until.is_none_or(|until| until > from)) {
        of.entry(&life.replica).or_default().push(life);
    }
    let mut found = Vec::new();
    for (replica, lives) in of {
        // Between two neighbouring moments nothing starts or stops.
        let mut moments: BTreeSet<Time> = BTreeSet::from([from, to]);
        for life in &lives {
            moments.extend(
                [life.from, life.until.unwrap_or(to)].into_iter().filter(|at| (from..to).contains(at)),
            );
        }
        let moments: Vec<Time> = moments.into_iter().collect();
        let mut lasted = Duration::ZERO;
        let mut most: Vec<usize> = Vec::new();
        for pair in moments.windows(2) {
            let mut here: Vec<usize> =
                lives.iter().filter(|life| life.runs_at(pair[0])).map(|life| life.host).collect();
            if here.len() > 1 {
                lasted += pair[1].since(pair[0]);
                if here.len() > most.len() {
                    here.sort_by_key(|host| names[*host]);
                    most = here;
                }
            }
        }
        if !most.is_empty() {
            found.push(Twice { replica: replica.clone(), machines: most, lasted });
        }
    }
    found
}
