//! Jobs, what is set aside, and machines that are short of something: held at each start and at instants.
//!
//! How a run of a job ended is known here by the kernels' word. A peer is held to what it has known itself, and
//! where the world has been quiet to what the machines in its reach have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Capacity, ContainerId, ContainerState, JobEnds, JobId, ReplicaId, Revision, Time};
use node::{Claim, Desired, Node};

use crate::host::Container;
use crate::world::Cluster;

/// How late a peer may be with a deadline: it is looked for at instants.
const LATE: Duration = Duration::from_secs(1);

/// How long after a removal what the removed one had said may be forgotten.
const WORD_GONE: Duration = Duration::from_secs(1);

/// One run of a job: a replica in one template.
pub(crate) type Run = (ReplicaId, Revision);

/// What stays the same while the time of a job goes on: which job, the number of its template, its runs.
type Clocked = (JobId, u64, u32);

/// What is known of jobs.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Runs that ended well, and when first.
    pub(super) well: BTreeMap<Run, Time>,
    /// Runs that failed, on one machine, more often than they are tried again.
    pub(super) given_up: BTreeSet<Run>,
    /// By machine: what its peer has known in this life to have ended well, of jobs that have been wanted since.
    pub(super) known: BTreeMap<usize, BTreeMap<JobId, JobEnds>>,
    /// Jobs of which somebody has not wanted the template for a while: who comes back to one begins it anew, and old
    /// words of it may still be about.
    left: BTreeSet<JobId>,
    /// By machine: how many members its peer has known to be removed, and when that was last found to have changed.
    removed: BTreeMap<usize, (usize, Option<Time>)>,
    /// By machine: since when its peer has known of jobs with a deadline that are not done.
    pub(super) since: BTreeMap<usize, BTreeMap<Clocked, Time>>,
}

fn run_of(desired: &Desired, ordinal: u32) -> Run {
    let it = &desired.deployment;
    let (namespace, deployment) = (it.namespace.clone(), it.name.clone());
    (ReplicaId { namespace, deployment, incarnation: it.incarnation, ordinal }, desired.revision)
}

pub(super) fn job_of(desired: &Desired) -> JobId {
    let it = &desired.deployment;
    JobId {
        namespace: it.namespace.clone(),
        deployment: it.name.clone(),
        incarnation: it.incarnation,
        revision: desired.revision,
    }
}

/// The jobs that a peer knows to be wanted.
fn jobs(node: &Node) -> impl Iterator<Item = &Desired> {
    node.desired().values().filter(|it| it.deployment.job.is_some())
}

/// How many replicas of a job run or will, as far as a peer knows.
fn running_at_a_time(node: &Node, desired: &Desired) -> usize {
    let it = &desired.deployment;
    let own = node.own_record();
    let others = node.records().iter().filter(|it| it.node != own.node && node.counts(&it.node));
    let told = others.flat_map(|record| &record.containers).chain(&own.containers);
    let live: BTreeSet<u32> = told
        .filter(|told| {
            use ContainerState::{Pending, Running, Starting};
            told.replica.namespace == it.namespace
                && told.replica.deployment == it.name
                && told.replica.incarnation == it.incarnation
                && told.replica.ordinal < it.replicas.count
                && matches!(told.state, Pending | Starting | Running)
        })
        .map(|told| told.replica.ordinal)
        .filter(|ordinal| !node.ends_of(desired).is_some_and(|ends| ends.is_done(*ordinal)))
        .collect();
    live.len()
}

impl Work {
    pub(crate) fn ended_well(&mut self, run: Run, now: Time) {
        self.well.entry(run).or_insert(now);
    }

    pub(crate) fn gave_up(&mut self, run: Run) {
        self.given_up.insert(run);
    }

    /// Whether a run of a job ended well on any machine.
    pub(crate) fn has_ended(&self, desired: &Desired, ordinal: u32) -> bool {
        self.well.contains_key(&run_of(desired, ordinal))
    }

    /// Whether some machine may have given up a run of a job.
    pub(crate) fn has_been_given_up(&self, desired: &Desired) -> bool {
        (0..desired.deployment.replicas.count).any(|it| self.given_up.contains(&run_of(desired, it)))
    }

    /// A peer has another life: what it knew it reads and hears again.
    pub(super) fn begins_anew(&mut self, host: usize) {
        self.known.remove(&host);
        self.since.remove(&host);
        self.removed.remove(&host);
    }
}

impl Cluster {
    /// J2: what a peer has known to be done it does not forget while it is wanted.
    pub(super) fn remembers_jobs(&mut self, host: usize) {
        if self.settings.programs.is_empty() || self.check.lied_to {
            return;
        }
        let Some(node) = &self.hosts[host].node else { return };
        let work = &mut self.check.work;
        let known = work.known.remove(&host).unwrap_or_default();
        let gone = node.documents().roster().removed.len();
        let removed = work.removed.entry(host).or_insert((gone, None));
        if removed.0 != gone {
            *removed = (gone, Some(self.now));
        }
        // What was had from one who is no member any more, and from nobody else, goes with it.
        let goes = removed.1.is_some_and(|at| self.now.since(at) <= WORD_GONE);
        let mut wanted = BTreeMap::new();
        let mut forgotten = None;
        for desired in jobs(node) {
            let job = job_of(desired);
            let ends = node.ends_of(desired).cloned().unwrap_or_default();
            let before = known.get(&job).map_or(&[][..], |it| &it.done);
            for (at, bits) in before.iter().enumerate() {
                if !goes
                    && !work.left.contains(&job)
                    && bits & !ends.done.get(at).copied().unwrap_or_default() != 0
                {
                    forgotten = Some(format!("J2: n{} has forgotten what is done of {job:?}", host + 1));
                }
            }
            wanted.insert(job, ends);
        }
        work.left.extend(known.into_keys().filter(|job| !wanted.contains_key(job)));
        let looked = !wanted.is_empty();
        work.known.insert(host, wanted);
        if looked {
            self.check.looks("J2");
        }
        if let Some(what) = forgotten {
            self.violation(&what);
        }
    }

    /// In front of a start, by what its own peer knows.
    pub(super) fn may_start_work(&mut self, host: usize, container: ContainerId, claim: &Claim) {
        self.has_what_it_asks(host, claim);
        // What was there before its peer's last life starts again in any case.
        if self.hosts[host].kernel.contains_key(&container) {
            return;
        }
        let unmet = self.should_wait(host, claim);
        self.check.looks("O1");
        if let Some((name, condition)) = unmet.first() {
            let (replica, condition) = (&claim.replica, condition.as_str());
            let what = format!("O1: n{} starts {replica:?} before {name} is {condition}", host + 1);
            self.violation(&what);
        }
        if self.has_been_short(host) {
            self.violation(&format!("P1: n{} is short of something and takes {:?}", host + 1, claim.replica));
        }
        self.check.looks("P1");
        if claim.run.retries.is_some() {
            self.may_run(host, container, claim);
        }
    }

    /// S6: what is set aside for a container, and its limits, are what its deployment says.
    fn has_what_it_asks(&mut self, host: usize, claim: &Claim) {
        let Some(node) = &self.hosts[host].node else { return };
        let key = (claim.replica.namespace.clone(), claim.replica.deployment.clone());
        let Some(desired) = node.desired().get(&key).filter(|it| it.revision == claim.revision) else {
            return;
        };
        let said = &desired.deployment.resources;
        let asked = Capacity {
            cpu_m: said.cpu_m,
            memory_b: said.memory_b,
            pids: said.pids,
            extras: said.extras.clone(),
        };
        if claim.run.resources != asked || claim.run.limits != said.limits {
            let (run, replica) = (&claim.run, &claim.replica);
            let what = format!(
                "S6: n{} sets {:?} aside for {replica:?}, which asks for {asked:?} within {:?}",
                host + 1,
                run.resources,
                said.limits
            );
            self.violation(&what);
        }
    }

    /// J1: what ended well on a machine is not run there again. J3: no more run at a time than may. J5: nothing
    /// is begun of a job that was given up on this machine.
    fn may_run(&mut self, host: usize, container: ContainerId, claim: &Claim) {
        let it = &self.hosts[host];
        let Some(node) = &it.node else { return };
        let key = (claim.replica.namespace.clone(), claim.replica.deployment.clone());
        let Some(desired) = node.desired().get(&key).filter(|it| it.revision == claim.revision) else {
            return;
        };
        let Some(job) = desired.deployment.job else { return };
        let of_job = |it: &Container| {
            let replica = &it.claim.replica;
            it.claim.revision == claim.revision
                && replica.deployment == claim.replica.deployment
                && replica.incarnation == claim.replica.incarnation
                && replica.ordinal < desired.deployment.replicas.count
        };
        let others = || it.kernel.iter().filter(|(id, it)| **id != container && of_job(it)).map(|(_, it)| it);
        let again = others().any(|it| it.claim.replica == claim.replica && it.has_done_its_run());
        let is_done = |ordinal| node.ends_of(desired).is_some_and(|ends| ends.is_done(ordinal));
        let given_up = others().any(|it| {
            let ordinal = it.claim.replica.ordinal;
            it.pid.is_none() && !it.stop_asked && it.failed > job.retries && !is_done(ordinal)
        });
        let running = running_at_a_time(node, desired);
        let (replica, at_a_time) = (claim.replica.clone(), job.parallelism as usize);
        self.check.looks("J1 J3 J5");
        if again {
            self.violation(&format!("J1: n{} runs {replica:?} again, which ended well there", host + 1));
        }
        if running > at_a_time {
            self.violation(&format!(
                "J3: n{} starts {replica:?}, and {running} run of {at_a_time} at a time",
                host + 1
            ));
        }
        if given_up {
            self.violation(&format!("J5: n{} starts {replica:?} of a job that has failed there", host + 1));
        }
    }

    /// J4: nothing of a job runs on where its time is over by its own peer's knowledge of it.
    pub(super) fn jobs_in_time(&mut self) {
        if self.settings.programs.is_empty() {
            return;
        }
        let mut late = None;
        for host in 0..self.hosts.len() {
            let it = &self.hosts[host];
            let Some(node) = it.node.as_ref().filter(|_| it.hears() && it.rogue.is_none()) else {
                self.check.work.since.remove(&host);
                continue;
            };
            let mut known = self.check.work.since.remove(&host).unwrap_or_default();
            let mut since = BTreeMap::new();
            for desired in jobs(node) {
                let count = desired.deployment.replicas.count;
                let Some(seconds) = desired.deployment.job.and_then(|job| job.deadline_s) else { continue };
                if node.ends_of(desired).is_some_and(|ends| ends.done_of(count) == count) {
                    continue;
                }
                let clocked = (job_of(desired), desired.number, count);
                let begun = known.remove(&clocked).unwrap_or(self.now);
                if self.now.since(begun) > Duration::from_secs(seconds.into()) + LATE {
                    let runs = it.kernel.values().find(|it| {
                        let replica = &it.claim.replica;
                        (it.pid.is_some() || it.starting)
                            && !it.stop_asked
                            && replica.deployment == desired.deployment.name
                            && replica.incarnation == desired.deployment.incarnation
                            && it.claim.revision == desired.revision
                    });
                    late = late.or(runs.map(|it| (host, it.claim.replica.clone())));
                }
                since.insert(clocked, begun);
            }
            self.check.looks("J4");
            self.check.work.since.insert(host, since);
        }
        if let Some((host, replica)) = late {
            self.violation(&format!("J4: n{} runs {replica:?}, and the time of its job is over", host + 1));
        }
    }

    /// J2: in a component that has been quiet everybody knows what ended well on its machines, and nothing of it is
    /// run any more.
    pub(super) fn knows_what_ended(&mut self, component: &[usize], window: Duration) {
        if self.settings.programs.is_empty() {
            return;
        }
        let long_ago =
            |run: &Run| self.check.work.well.get(run).is_some_and(|at| self.now.since(*at) > window);
        let here = component.iter().flat_map(|host| self.hosts[*host].kernel.values());
        let done: BTreeSet<Run> = here
            .filter(|it| it.has_done_its_run())
            .map(|it| (it.claim.replica.clone(), it.claim.revision))
            .filter(long_ago)
            .collect();
        let mut wrong = None;
        for host in component {
            let Some(node) = self.node(*host) else { continue };
            for (replica, revision) in &done {
                let key = (replica.namespace.clone(), replica.deployment.clone());
                let Some(desired) = node.desired().get(&key).filter(|it| it.revision == *revision) else {
                    continue;
                };
                if desired.deployment.job.is_none() || desired.deployment.incarnation != replica.incarnation {
                    continue;
                }
                let knows = node.ends_of(desired).is_some_and(|ends| ends.is_done(replica.ordinal));
                let runs = self.running(*host).any(|(_, it)| {
                    let claim = &it.claim;
                    claim.replica == *replica
                        && claim.revision == *revision
                        && !it.stop_asked
                        && self.now.since(it.started) > window
                });
                let n = host + 1;
                if !knows {
                    wrong = Some(format!("J2: n{n} does not know that {replica:?} has ended well"));
                } else if runs {
                    wrong = Some(format!("J2: n{n} runs {replica:?}, which has ended well elsewhere"));
                }
            }
        }
        if !done.is_empty() {
            self.check.looks("J2 known");
        }
        if let Some(what) = wrong {
            self.violation(&what);
        }
    }
}
