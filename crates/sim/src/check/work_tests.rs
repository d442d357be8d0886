//! Each check of jobs, order and room sees what it is there to see.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Condition, ContainerId, DependsGroup, JobGroup, ReplicaId, RestartPolicy, Time};
use node::{Claim, Effect};

use crate::author::{Spec, name};
use crate::doom::Program;
use crate::host::Container;
use crate::short::Shortage;
use crate::world::{Cluster, Settings};

const SECOND: Duration = Duration::from_secs(1);

/// How the programs of `web` end, where they do.
fn web(fails: u32, endless: u32) -> Program {
    Program { of: name("web"), runs: (SECOND / 10, SECOND), fails, endless }
}

/// Three machines with a job of three runs, some time later: what it asks, and how its programs end.
fn with_job(job: JobGroup, program: Program) -> Cluster {
    let settings = Settings { programs: vec![program], ..Settings::default() };
    let mut cluster = Cluster::new(3, 3, settings);
    cluster.run_for(2 * SECOND);
    let mut spec = Spec::new(3);
    spec.restart.policy = RestartPolicy::Never;
    spec.job = Some(job);
    cluster.apply(0, "web", &spec);
    cluster.run_for(40 * SECOND);
    assert_eq!(cluster.violations(), &[] as &[String]);
    cluster
}

fn at_a_time(parallelism: u32) -> JobGroup {
    JobGroup { parallelism, retries: 0, deadline_s: None }
}

fn saw(cluster: &Cluster, check: &str) {
    let seen = cluster.violations().iter().any(|it| it.contains(&format!(" {check}: ")));
    assert!(seen, "{check} saw nothing: {:?}", cluster.violations());
}

/// The first machine that has something of the job, and what.
fn some(cluster: &Cluster) -> (usize, Container) {
    let all = (0..3).find_map(|host| Some((host, cluster.containers(host).next()?.1.clone())));
    all.expect("some machine has a container")
}

fn starts(cluster: &mut Cluster, host: usize, claim: Claim) {
    let container = ContainerId::from_bytes([1; 8]);
    cluster.before_effect(host, &Effect::Start { container, claim: Box::new(claim), until: None });
}

#[test]
fn a_run_that_ended_well_and_is_begun_again_on_its_machine_is_seen() {
    let mut cluster = with_job(at_a_time(3), web(0, 0));
    let (host, container) = some(&cluster);
    starts(&mut cluster, host, container.claim);
    saw(&cluster, "J1");
}

#[test]
fn an_end_that_is_forgotten_and_one_that_nobody_hears_of_are_seen() {
    let mut cluster = with_job(at_a_time(3), web(0, 0));
    let known = cluster.check.work.known.get_mut(&0).expect("it knows of the job");
    for ends in known.values_mut() {
        ends.add_done(7);
    }
    cluster.after_step(0, &[]);
    saw(&cluster, "J2");
    let mut cluster = with_job(at_a_time(3), web(0, 1_000));
    let (host, mut container) = some(&cluster);
    container.pid = None;
    container.exit = node::Exit { code: Some(0), ..node::Exit::default() };
    let run = (container.claim.replica.clone(), container.claim.revision);
    cluster.check.work.ended_well(run, Time::ZERO);
    cluster.hosts[host].kernel.insert(ContainerId::from_bytes([1; 8]), container);
    cluster.run_for(SECOND);
    saw(&cluster, "J2");
}

#[test]
fn more_of_a_job_than_may_run_at_a_time_is_seen() {
    let mut cluster = with_job(at_a_time(3), web(0, 1_000));
    let (host, container) = some(&cluster);
    cluster.set(0, false, "web", "job", r#"{"parallelism":1,"retries":0}"#);
    cluster.run_for(SECOND);
    assert_eq!(cluster.violations(), &[] as &[String], "what runs runs on");
    starts(&mut cluster, host, container.claim);
    saw(&cluster, "J3");
}

#[test]
fn a_run_beyond_the_time_of_its_job_is_seen() {
    let mut cluster = with_job(at_a_time(3), web(0, 1_000));
    let (host, container) = some(&cluster);
    cluster.set(0, false, "web", "job", r#"{"parallelism":3,"retries":0,"deadline_s":8}"#);
    cluster.run_for(20 * SECOND);
    assert!(cluster.processes().is_empty(), "{}", cluster.trace().join("\n"));
    assert_eq!(cluster.violations(), &[] as &[String]);
    cluster.hosts[host].kernel.insert(ContainerId::from_bytes([1; 8]), container);
    cluster.run_for(SECOND);
    saw(&cluster, "J4");
}

#[test]
fn a_run_of_a_job_that_failed_on_its_machine_is_seen() {
    let mut cluster = with_job(at_a_time(1), web(1_000, 0));
    let (host, container) = some(&cluster);
    let claim = container.claim.clone();
    let other = ReplicaId { ordinal: 2, ..claim.replica.clone() };
    starts(&mut cluster, host, Claim { replica: other, ..claim });
    saw(&cluster, "J5");
}

#[test]
fn a_failed_run_that_is_tried_more_often_than_it_may_is_seen() {
    let mut cluster = with_job(at_a_time(1), web(1_000, 0));
    let (host, container) = some(&cluster);
    let id = *cluster.containers(host).next().expect("it was there a moment ago").0;
    cluster
        .before_effect(host, &Effect::Start { container: id, claim: Box::new(container.claim), until: None });
    saw(&cluster, "L8");
}

#[test]
fn a_start_before_what_it_depends_on_is_seen() {
    let of = |condition| {
        let mut cluster = with_job(at_a_time(3), web(0, 1_000));
        let mut spec = Spec::new(1);
        spec.depends = DependsGroup { on: BTreeMap::from([(name("web"), condition)]) };
        cluster.apply(0, "api", &spec);
        cluster.run_for(5 * SECOND);
        let node = cluster.node(0).expect("it runs");
        let desired = &node.desired()[&(model::Name::default_namespace(), name("api"))];
        let claim = Claim {
            replica: ReplicaId {
                namespace: model::Name::default_namespace(),
                deployment: name("api"),
                incarnation: desired.deployment.incarnation,
                ordinal: 0,
            },
            revision: desired.revision,
            run: node::RunSpec::of(&desired.deployment),
            ..some(&cluster).1.claim
        };
        assert_eq!(cluster.violations(), &[] as &[String]);
        starts(&mut cluster, 0, claim);
        cluster
    };
    saw(&of(Condition::Completed), "O1");
    assert_eq!(of(Condition::Healthy).violations(), &[] as &[String], "it is healthy");
}

#[test]
fn new_work_for_a_machine_that_is_short_of_something_is_seen() {
    for shortage in [Shortage::Memory(2_500), Shortage::Disk(100), Shortage::Io(8_500), Shortage::Cpu(9_800)]
    {
        let mut cluster = with_job(at_a_time(3), web(0, 1_000));
        let (host, container) = some(&cluster);
        cluster.press(host, shortage);
        cluster.run_for(9 * SECOND);
        starts(&mut cluster, host, container.claim.clone());
        assert_eq!(cluster.violations(), &[] as &[String], "that may be over in a moment");
        cluster.run_for(2 * SECOND);
        starts(&mut cluster, host, container.claim);
        saw(&cluster, "P1");
    }
}

#[test]
fn a_container_with_other_room_or_limits_than_its_deployment_asks_for_is_seen() {
    let cluster = || with_job(at_a_time(3), web(0, 1_000));
    let (host, container) = some(&cluster());
    let mut more = container.claim.clone();
    more.run.resources.cpu_m += 1;
    let mut unbound = container.claim;
    unbound.run.limits.memory_b = Some(1 << 30);
    for claim in [more, unbound] {
        let mut cluster = cluster();
        starts(&mut cluster, host, claim);
        saw(&cluster, "S6");
    }
}
