//! What a deployment depends on holds up its starts, and nothing else.

use model::{Condition, ContainerState, Deployment, RestartPolicy};
use planner::{Placement, Plan, Planner};

use crate::world::{MIB, World, deployment, replica, with_policy};

fn after(mut it: Deployment, on: &[(&str, Condition)]) -> Deployment {
    it.depends.on = on.iter().map(|(name, condition)| (name.parse().unwrap(), *condition)).collect();
    it
}

fn web(on: &[(&str, Condition)]) -> Deployment {
    after(deployment("web", 2), on)
}

/// What the plan says that `web` waits for.
fn told(plan: &Plan) -> Vec<String> {
    let waits = plan.waits.iter().filter(|((_, name), _)| name.as_str() == "web");
    waits.flat_map(|(_, it)| &it.unmet).map(ToString::to_string).collect()
}

fn waits(plan: &Plan, of: &Deployment) -> bool {
    (0..of.replicas.count).all(|ordinal| plan.placements[&replica(of, ordinal)] == Placement::Waits)
}

#[test]
fn what_has_not_started_waits_for_each_condition_and_says_for_what() {
    for (condition, enough) in [
        (Condition::Started, (ContainerState::Running, None)),
        (Condition::Healthy, (ContainerState::Running, Some(true))),
        (Condition::Completed, (ContainerState::Exited, Some(false))),
    ] {
        let db = with_policy(deployment("db", 1), RestartPolicy::OnFailure);
        let web = web(&[("db", condition)]);
        let mut world = World::new(3);
        world.deployments = vec![web.clone(), db.clone()];
        let word = condition.as_str();
        let plan = world.plan();
        assert!(waits(&plan, &web), "{condition:?}: {plan:?}");
        assert_eq!(told(&plan), [format!("waits for db to be {word}: 0 of 1 is")]);
        assert!(matches!(plan.placements[&replica(&db, 0)], Placement::Start { .. }));
        let it = world.run(0, &db, 0);
        (it.state, it.healthy) = (ContainerState::Starting, None);
        assert!(waits(&world.plan(), &web), "{condition:?}");
        let it = &mut world.node(0).containers[0];
        (it.state, it.healthy) = enough;
        let plan = world.plan();
        assert!(
            plan.placements.values().all(|it| !matches!(it, Placement::Waits)),
            "{condition:?}: {plan:?}"
        );
        assert!(plan.waits.is_empty());
    }
}

#[test]
fn what_runs_stays_when_a_dependency_goes_and_what_is_lost_waits() {
    let (db, web) = (deployment("db", 1), web(&[("db", Condition::Healthy)]));
    let mut world = World::new(3);
    world.run(0, &db, 0);
    world.run(1, &web, 0);
    world.run(2, &web, 1);
    world.deployments = vec![web.clone(), db];
    world.node(0).alive = false;
    world.node(2).alive = false;
    let plan = world.plan();
    assert!(matches!(plan.placements[&replica(&web, 0)], Placement::Keep { .. }));
    assert_eq!(plan.placements[&replica(&web, 1)], Placement::Waits);
}

#[test]
fn one_replica_that_is_well_is_enough_and_completed_means_all_of_the_wanted_revision() {
    let db = with_policy(deployment("db", 3), RestartPolicy::Never);
    let mut world = World::new(3);
    world.run(0, &db, 1);
    world.deployments = vec![web(&[("db", Condition::Healthy)]), db.clone()];
    assert!(told(&world.plan()).is_empty());
    world.deployments[0] = web(&[("db", Condition::Completed)]);
    for ordinal in [0, 2] {
        world.run(1, &db, ordinal).state = ContainerState::Exited;
    }
    assert_eq!(told(&world.plan()), ["waits for db to be completed: 2 of 3 is"]);
    world.node(0).containers[0].state = ContainerState::Failed;
    assert_eq!(told(&world.plan()), ["waits for db to be completed: 2 of 3 is, 1 ended badly for good"]);
    world.node(0).containers[0].state = ContainerState::Exited;
    assert!(told(&world.plan()).is_empty());
    // Another template is other work.
    world.deployments[1].env.vars.insert("V".into(), "2".into());
    assert_eq!(told(&world.plan()), ["waits for db to be completed: 0 of 3 is"]);
}

#[test]
fn a_dependency_that_is_not_there_or_scaled_to_none_is_waited_for_by_name() {
    let mut world = World::new(1);
    world.deployments =
        vec![web(&[("cache", Condition::Started), ("db", Condition::Started)]), deployment("db", 0)];
    let plan = world.plan();
    assert_eq!(
        told(&plan),
        [
            "waits for cache to be started: there is no valid deployment cache",
            "waits for db to be started: db is scaled to 0",
        ]
    );
    assert!(waits(&plan, &world.deployments[0]));
}

#[test]
fn an_update_waits_for_what_is_to_be_completed_and_not_for_health() {
    let migrate = with_policy(deployment("migrate", 1), RestartPolicy::OnFailure);
    let old = web(&[("db", Condition::Healthy), ("migrate", Condition::Completed)]);
    let mut world = World::new(3);
    world.run(0, &old, 0);
    world.run(1, &old, 1);
    let mut new = old.clone();
    new.env.vars.insert("V".into(), "2".into());
    world.deployments = vec![new.clone(), migrate.clone()];
    let of = |plan: &Plan| plan.placements[&replica(&new, 0)].clone();
    assert!(matches!(of(&world.plan()), Placement::KeepOld { .. }));
    world.run(2, &migrate, 0).state = ContainerState::Exited;
    let plan = world.plan();
    assert!(matches!(of(&plan), Placement::Replace { .. }), "{plan:?}");
    assert_eq!(told(&plan), ["waits for db to be healthy: there is no valid deployment db"]);
    // What must leave a node that is drained does so all the same.
    world.deployments[0] = old.clone();
    world.deployments.pop();
    world.node(2).containers.clear();
    world.node(0).drains = true;
    world.node(0).accepts_new = false;
    let plan = world.plan();
    assert!(matches!(plan.placements[&replica(&old, 0)], Placement::Replace { .. }), "{plan:?}");
}

/// The one made room, so the other was not started, so the one was back: for ever.
#[test]
fn what_is_important_takes_no_room_from_what_it_depends_on() {
    let mut db = deployment("db", 1);
    db.placement.priority = model::Priority::Low;
    db.resources.memory_b = 900 * MIB;
    let mut web = after(deployment("web", 1), &[("db", Condition::Healthy)]);
    web.placement.priority = model::Priority::High;
    let mut world = World::new(1);
    world.run(0, &db, 0);
    web.resources.memory_b = 200 * MIB;
    world.deployments = vec![web.clone(), db];
    let plan = world.plan();
    assert!(plan.yields.is_empty(), "{plan:?}");
    assert!(matches!(plan.placements[&replica(&web, 0)], Placement::Unplaced { .. }));
    world.deployments[0].depends.on.clear();
    assert_eq!(world.plan().yields.len(), 1);
}

#[test]
fn deployments_in_a_cycle_do_not_wait_for_one_another_and_are_told() {
    let a = after(deployment("a", 1), &[("web", Condition::Healthy)]);
    let web = web(&[("a", Condition::Healthy), ("db", Condition::Started)]);
    let outside = after(deployment("outside", 1), &[("a", Condition::Started)]);
    let mut world = World::new(3);
    world.deployments = vec![outside.clone(), web.clone(), a.clone(), deployment("db", 1)];
    let plan = world.plan();
    assert!(matches!(plan.placements[&replica(&a, 0)], Placement::Start { .. }), "{plan:?}");
    assert!(waits(&plan, &web), "what is outside the cycle is waited for");
    assert_eq!(told(&plan), ["waits for db to be started: 0 of 1 is"]);
    assert_eq!(plan.placements[&replica(&outside, 0)], Placement::Waits);
    let cycles: Vec<String> =
        plan.waits.values().flat_map(|it| &it.cycles).map(|cycle| format!("{cycle:?}")).collect();
    assert_eq!(cycles.len(), 2, "{cycles:?}");
    // Once it is mended nothing is left of it.
    let mut planner = Planner::new();
    planner.plan(&world.view());
    world.deployments[2].depends.on.clear();
    let plan = planner.plan(&world.view());
    assert_eq!(*plan, world.plan());
    assert!(plan.waits.values().all(|it| it.cycles.is_empty()));
    assert_eq!(told(plan), ["waits for a to be healthy: 0 of 1 is", "waits for db to be started: 0 of 1 is"]);
}

#[test]
fn a_name_that_is_made_again_between_two_plans_is_told_what_it_waits_for() {
    let mut world = World::new(1);
    world.deployments = vec![web(&[("db", Condition::Healthy)])];
    let mut planner = Planner::default();
    assert_eq!(told(planner.plan(&world.view())).len(), 1);
    world.deployments[0].incarnation = model::EventId::from_bytes([8; 32]);
    for _ in 0..2 {
        assert_eq!(*planner.plan(&world.view()), world.plan());
        assert_eq!(told(planner.last()).len(), 1);
    }
}
