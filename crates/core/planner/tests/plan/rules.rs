//! Each rule of planning on the smallest cluster that shows it.

use crate::world::{MIB, World, deployment, node_id, replica, with_policy, with_port};
use model::{ContainerState, Deployment, NodeId, RestartPolicy};
use planner::{Placement, Plan, Refusal, explain};

fn at<'a>(plan: &'a Plan, of: &Deployment, ordinal: u32) -> &'a Placement {
    &plan.placements[&replica(of, ordinal)]
}

fn refusals(placement: &Placement) -> Vec<String> {
    match placement {
        Placement::Unplaced { reasons } => reasons.values().map(ToString::to_string).collect(),
        other => panic!("expected no place, got {other:?}"),
    }
}

fn started(placement: &Placement) -> NodeId {
    match placement {
        Placement::Start { node } => *node,
        other => panic!("expected a start, got {other:?}"),
    }
}

/// The same deployment with another template.
fn changed(of: &Deployment) -> Deployment {
    let mut it = of.clone();
    it.env.vars.insert("VERSION".into(), "2".into());
    it
}

#[test]
fn replicas_go_where_the_largest_share_stays_free() {
    let web = deployment("web", 4);
    let mut world = World::new(2);
    world.deployments = vec![web.clone()];
    world.node(1).capacity.memory_b = 3_000 * MIB;
    world.node(1).capacity.cpu_m = 3_000;
    world.node(1).capacity.pids = 300;
    let plan = world.plan();
    let on_large = (0..4).filter(|it| started(at(&plan, &web, *it)) == node_id(1)).count();
    assert_eq!(on_large, 3, "three times the room takes three times the replicas: {plan:?}");
}

#[test]
fn a_deployment_that_fits_nowhere_is_told_the_number_of_every_node() {
    let mut web = deployment("web", 1);
    web.resources.memory_b = 512 * MIB;
    let mut world = World::new(5);
    world.deployments = vec![web.clone()];
    world.node(0).alive = false;
    world.node(1).accepts_new = false;
    world.node(2).capacity.memory_b = 300 * MIB;
    world.node(3).capacity.cpu_m = 50;
    world.decline(4, &web, 0);
    assert_eq!(
        refusals(at(&world.plan(), &web, 0)),
        [
            "down",
            "cordoned: takes no new work",
            "memory: 300Mi free, 512Mi asked",
            "cpu: 50m free, 100m asked",
            "declined: disk full",
        ]
    );
}

#[test]
fn a_node_whose_machine_is_short_of_something_keeps_what_it_runs_and_is_given_nothing_new() {
    let web = deployment("web", 2);
    let mut world = World::new(2);
    world.deployments = vec![web.clone()];
    let there = world.run(0, &web, 0).id;
    world.node(0).pressure = Some("memory: 34 % waited".into());
    let plan = world.plan();
    assert_eq!(*at(&plan, &web, 0), Placement::Keep { node: node_id(0), container: there });
    assert_eq!(started(at(&plan, &web, 1)), node_id(1));
    world.node(1).pressure = Some("disk: 3 MiB free".into());
    assert_eq!(
        refusals(at(&world.plan(), &web, 1)),
        [
            "pressure: takes no new work for now; memory: 34 % waited",
            "pressure: takes no new work for now; disk: 3 MiB free"
        ]
    );
}

#[test]
fn a_decline_holds_for_its_replica_revision_and_capacity_version_only() {
    let web = deployment("web", 2);
    let mut world = World::new(1);
    world.deployments = vec![web.clone()];
    world.decline(0, &web, 0);
    assert_eq!(refusals(at(&world.plan(), &web, 0)), ["declined: disk full"]);
    assert_eq!(started(at(&world.plan(), &web, 1)), node_id(0));
    let mut later = world.clone();
    later.node(0).capacity_version += 1;
    assert_eq!(started(at(&later.plan(), &web, 0)), node_id(0));
    world.deployments = vec![changed(&web)];
    assert_eq!(started(at(&world.plan(), &web, 0)), node_id(0));
}

#[test]
fn one_host_port_of_a_node_belongs_to_one_deployment_whose_replicas_share_it() {
    let (first, second) = (with_port(deployment("a", 2), 80), with_port(deployment("b", 1), 80));
    let mut world = World::new(1);
    world.deployments = vec![first.clone(), second.clone()];
    let plan = world.plan();
    assert_eq!(started(at(&plan, &first, 1)), node_id(0));
    assert_eq!(refusals(at(&plan, &second, 0)), ["port: 80 is held by default/a"]);
    // A claim holds it just as well as a plan.
    world.run(0, &second, 0);
    assert_eq!(refusals(at(&world.plan(), &first, 0)), ["port: 80 is held by default/b"]);
}

#[test]
fn what_is_stopping_still_takes_up_room_and_what_ended_does_not() {
    let web = deployment("web", 1);
    let mut other = deployment("other", 1);
    other.resources.memory_b = 950 * MIB;
    let mut world = World::new(1);
    world.deployments = vec![web.clone()];
    world.run(0, &other, 0).state = ContainerState::Stopping;
    assert_eq!(refusals(at(&world.plan(), &web, 0)), ["memory: 50Mi free, 100Mi asked"]);
    world.node(0).containers[0].state = ContainerState::Exited;
    assert_eq!(started(at(&world.plan(), &web, 0)), node_id(0));
}

#[test]
fn a_replica_that_is_done_by_its_policy_is_not_started_again() {
    for (policy, state, done) in [
        (RestartPolicy::OnFailure, ContainerState::Exited, true),
        (RestartPolicy::OnFailure, ContainerState::Failed, false),
        (RestartPolicy::Never, ContainerState::Failed, true),
        (RestartPolicy::Always, ContainerState::Exited, false),
    ] {
        let job = with_policy(deployment("job", 1), policy);
        let mut world = World::new(2);
        world.deployments = vec![job.clone()];
        world.run(0, &job, 0).state = state;
        let kept = matches!(at(&world.plan(), &job, 0), Placement::Keep { .. });
        assert_eq!(kept, done, "{policy:?} {state:?}");
        // A new template is a new task.
        world.deployments = vec![changed(&job)];
        assert!(matches!(at(&world.plan(), &job, 0), Placement::Start { .. }), "{policy:?} {state:?}");
    }
}

#[test]
fn an_update_replaces_one_replica_at_a_time_and_waits_until_it_is_healthy() {
    let (old, new) = (deployment("web", 3), changed(&deployment("web", 3)));
    let mut world = World::new(3);
    for n in 0..3 {
        world.run(n, &old, u32::from(n));
    }
    world.deployments = vec![new.clone()];
    let turns = |plan: &Plan| -> Vec<u32> {
        let replaced = |it: &u32| matches!(at(plan, &new, *it), Placement::Replace { .. });
        (0..3).filter(replaced).collect()
    };
    let plan = world.plan();
    assert_eq!(turns(&plan), [0]);
    let Placement::Replace { new: on, .. } = at(&plan, &new, 0) else { unreachable!() };
    // Started, not healthy: it still has the turn, and stays on the node it was given.
    world.run_on(*on, &new, 0).healthy = None;
    assert_eq!(at(&world.plan(), &new, 0), at(&plan, &new, 0));
    assert_eq!(turns(&world.plan()), [0]);
    world.nodes.get_mut(on).unwrap().containers.last_mut().unwrap().healthy = Some(true);
    let plan = world.plan();
    assert!(matches!(at(&plan, &new, 0), Placement::Keep { node, .. } if node == on));
    assert!(turns(&plan).is_empty(), "one more than three runs as long as the old one does");
    world.node(0).containers[0].state = ContainerState::Stopping;
    assert_eq!(turns(&world.plan()), [1]);
    // A lower one that falls ill takes the turn away.
    world.nodes.get_mut(on).unwrap().containers.last_mut().unwrap().healthy = Some(false);
    assert!(turns(&world.plan()).is_empty());
    assert!(matches!(at(&world.plan(), &new, 1), Placement::KeepOld { .. }));
}

#[test]
fn an_update_without_room_for_both_keeps_the_old_and_says_why() {
    let mut old = deployment("web", 1);
    old.resources.memory_b = 600 * MIB;
    let new = changed(&old);
    let mut world = World::new(1);
    world.run(0, &old, 0);
    world.deployments = vec![new.clone()];
    let plan = world.plan();
    assert!(matches!(at(&plan, &new, 0), Placement::KeepOld { .. }));
    let reasons = &plan.held_back[&replica(&new, 0)];
    assert_eq!(reasons[&node_id(0)].to_string(), "memory: 400Mi free, 600Mi asked");
}

#[test]
fn a_replica_moves_off_a_node_that_lost_the_wanted_label() {
    let mut web = deployment("web", 1);
    web.placement.labels.insert("disk".parse().unwrap(), "ssd".into());
    let mut world = World::new(3);
    world.deployments = vec![web.clone()];
    world.node(1).labels = web.placement.labels.clone();
    world.run(0, &web, 0);
    let Placement::Replace { old, new } = at(&world.plan(), &web, 0).clone() else { panic!("no move") };
    assert_eq!((old.0, new), (node_id(0), node_id(1)));
    world.node(1).alive = false;
    let plan = world.plan();
    assert!(matches!(at(&plan, &web, 0), Placement::KeepOld { .. }));
    assert_eq!(plan.held_back[&replica(&web, 0)][&node_id(2)].to_string(), "label: no disk, disk=ssd asked");
}

#[test]
fn of_duplicates_the_wanted_revision_wins_then_the_claim_then_the_node() {
    let (old, new) = (deployment("web", 1), changed(&deployment("web", 1)));
    let mut world = World::new(4);
    world.deployments = vec![new.clone()];
    world.run(3, &old, 0).claim = 9;
    world.run(0, &new, 0).claim = 2;
    let keeps = |world: &World| match at(&world.plan(), &new, 0) {
        Placement::Keep { node, .. } => *node,
        other => panic!("{other:?}"),
    };
    assert_eq!(keeps(&world), node_id(0));
    world.run(2, &new, 0).claim = 2;
    assert_eq!(keeps(&world), node_id(2));
    world.run(1, &new, 0).claim = 3;
    assert_eq!(keeps(&world), node_id(1));
    world.node(1).alive = false;
    assert_eq!(keeps(&world), node_id(2));
}

#[test]
fn rules_of_another_release_keep_what_runs_and_start_nothing() {
    let web = deployment("web", 2);
    let mut world = World::new(1);
    world.deployments = vec![web.clone()];
    world.run(0, &web, 0);
    let mut view = world.view();
    view.rules += 1;
    let plan = planner::plan(&view);
    assert!(matches!(at(&plan, &web, 0), Placement::Keep { .. }));
    let Placement::Unplaced { reasons } = at(&plan, &web, 1) else { panic!("started") };
    assert_eq!(reasons[&node_id(0)], Refusal::Rules { asked: 2, known: 1 });
}

#[test]
fn an_explanation_names_every_node_with_its_numbers() {
    let web = deployment("web", 2);
    let mut world = World::new(3);
    world.deployments = vec![web.clone()];
    world.run(0, &web, 0);
    world.node(2).alive = false;
    let explained = explain(&world.view(), &web.namespace, &web.name).unwrap();
    assert_eq!(explained.replicas.len(), 2);
    let node = |n| &explained.nodes[&node_id(n)];
    assert_eq!(node(0).runs, [0]);
    assert_eq!(node(1).runs, [1], "the free node takes the second one");
    assert_eq!(node(1).one_more.as_ref().unwrap().free.memory_b, 900 * MIB, "the planned one is counted");
    assert_eq!(node(1).one_more.as_ref().unwrap().share_ppm, 800_000);
    assert_eq!(node(2).one_more, Err(Refusal::Down));
    assert_eq!(explain(&world.view(), &web.namespace, &"none".parse().unwrap()), None);
}
