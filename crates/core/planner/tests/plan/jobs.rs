//! Jobs: so many at a time, each once, and no more once one has failed.

use model::{Condition, ContainerState, Deployment, FailedRun, JobEnds, JobGroup, RestartPolicy};
use planner::Placement;

use crate::world::{World, deployment, letters, node_id, replica};

fn job(completions: u32, parallelism: u32) -> Deployment {
    let mut it = deployment("batch", completions);
    it.restart.policy = RestartPolicy::Never;
    it.job = Some(JobGroup { parallelism, ..JobGroup::default() });
    it.validate().unwrap();
    it
}

fn ends<'w>(world: &'w mut World, of: &Deployment) -> &'w mut JobEnds {
    world.ends.entry(of.name.clone()).or_default()
}

fn failed() -> FailedRun {
    FailedRun { node: node_id(1), reason: "exited with code 7".into() }
}

#[test]
fn the_lowest_ordinals_that_have_not_ended_run_so_many_at_a_time() {
    let of = job(5, 2);
    let mut world = World::new(3);
    world.deployments = vec![of.clone()];
    assert_eq!(letters(&world.plan(), &of), "nnqqq");
    world.run(0, &of, 0);
    world.run(1, &of, 1);
    assert_eq!(letters(&world.plan(), &of), "kkqqq");
    world.node(0).containers[0].state = ContainerState::Exited;
    assert_eq!(letters(&world.plan(), &of), "kknqq");
    // What ended is known although its node is not there any more, and what ran there runs elsewhere.
    ends(&mut world, &of).add_done(0);
    world.nodes.remove(&node_id(0));
    world.node(1).alive = false;
    assert_eq!(letters(&world.plan(), &of), "ennqq");
    (0..5).for_each(|ordinal| ends(&mut world, &of).add_done(ordinal));
    world.nodes.remove(&node_id(1));
    assert_eq!(letters(&world.plan(), &of), "eeeee");
    // More is asked: the rest is done.
    world.deployments[0].replicas.count = 7;
    assert_eq!(letters(&world.plan(), &world.deployments[0]), "eeeeenn");
}

#[test]
fn once_one_has_failed_or_the_time_is_over_none_is_started_and_what_runs_stays() {
    let of = job(4, 2);
    let mut world = World::new(2);
    world.deployments = vec![of.clone()];
    world.run(0, &of, 1);
    ends(&mut world, &of).add_failed(0, failed());
    assert_eq!(letters(&world.plan(), &of), "xkxx");
    *ends(&mut world, &of) = JobEnds { overdue: true, ..JobEnds::default() };
    assert_eq!(letters(&world.plan(), &of), "xkxx");
    // On the other island it ended well.
    *ends(&mut world, &of) = JobEnds::default();
    ends(&mut world, &of).add_failed(0, failed());
    ends(&mut world, &of).add_done(0);
    assert_eq!(letters(&world.plan(), &of), "eknq");
}

#[test]
fn a_run_is_not_moved_and_another_template_stops_it_first() {
    let of = job(2, 2);
    let mut world = World::new(2);
    world.deployments = vec![of.clone()];
    world.run(0, &of, 0);
    world.node(0).drains = true;
    world.node(0).accepts_new = false;
    assert_eq!(letters(&world.plan(), &of), "on");
    world.node(0).drains = false;
    let mut new = of.clone();
    new.env.vars.insert("V".into(), "2".into());
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "sn");
}

#[test]
fn another_template_of_a_job_stops_nothing_while_something_is_to_be_completed_before() {
    let of = job(2, 2);
    let mut world = World::new(2);
    world.run(0, &of, 0);
    let mut new = of.clone();
    new.env.vars.insert("V".into(), "2".into());
    new.depends.on.insert("migrate".parse().unwrap(), Condition::Completed);
    let mut migrate = deployment("migrate", 1);
    migrate.restart.policy = RestartPolicy::Never;
    world.deployments = vec![new.clone(), migrate.clone()];
    assert_eq!(letters(&world.plan(), &new), "ow");
    world.run(1, &migrate, 0).state = ContainerState::Exited;
    assert_eq!(letters(&world.plan(), &new), "sn");
}

#[test]
fn what_waits_for_a_job_is_started_once_all_of_it_is_done_wherever_it_was() {
    let of = job(2, 1);
    let mut web = deployment("web", 1);
    web.depends.on.insert("batch".parse().unwrap(), Condition::Completed);
    let mut world = World::new(2);
    world.deployments = vec![of.clone(), web.clone()];
    ends(&mut world, &of).add_done(1);
    assert_eq!(world.plan().placements[&replica(&web, 0)], Placement::Waits);
    world.run(0, &of, 0).state = ContainerState::Exited;
    assert!(matches!(world.plan().placements[&replica(&web, 0)], Placement::Start { .. }));
}

#[test]
fn a_job_that_could_never_be_done_as_said_is_refused_in_words() {
    let told = |change: fn(&mut Deployment)| {
        let mut it = job(2, 1);
        change(&mut it);
        it.validate().unwrap_err().to_string()
    };
    assert!(told(|it| it.replicas.mode = model::Mode::Global).contains("mode `global`"));
    assert!(told(|it| it.restart.policy = RestartPolicy::Always).contains("a job needs `never`"));
    assert!(told(|it| it.replicas.count = 1_001).contains("job.completions: 1001 asked, the limit is 1000"));
    assert!(told(|it| it.job.as_mut().unwrap().parallelism = 0).contains("job.parallelism: 0 asked"));
    assert!(told(|it| it.job.as_mut().unwrap().deadline_s = Some(0)).contains("job.deadline"));
}
