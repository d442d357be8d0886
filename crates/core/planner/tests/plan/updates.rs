//! How many replicas change at a time, and which.

use model::{Canary, ContainerState, Deployment, Strategy, UpdateGroup};

use crate::world::{MIB, World, deployment, letters, replica};

fn updating(count: u32, change: impl FnOnce(&mut UpdateGroup)) -> (Deployment, Deployment) {
    let mut old = deployment("web", count);
    change(&mut old.update);
    let mut new = old.clone();
    new.env.vars.insert("VERSION".into(), "2".into());
    (old, new)
}

/// Three nodes on which all replicas of the old run, and the new is wanted.
fn world_of(old: &Deployment, new: &Deployment) -> World {
    let mut world = World::new(3);
    for ordinal in 0..old.replicas.count {
        world.run(u8::try_from(ordinal % 3).unwrap(), old, ordinal);
    }
    world.deployments = vec![new.clone()];
    world
}

/// Lets what was started be well and ready, and what was doubled be rid of its old one.
fn settle(world: &mut World) {
    let plan = world.plan();
    world.obey(&plan);
}

#[test]
fn as_many_are_doubled_as_may_be_more_and_the_rest_waits() {
    let (old, new) = updating(5, |it| it.surge = 2);
    let mut world = world_of(&old, &new);
    assert_eq!(letters(&world.plan(), &new), "ddooo");
    settle(&mut world);
    assert_eq!(letters(&world.plan(), &new), "kkddo");
    settle(&mut world);
    settle(&mut world);
    assert_eq!(letters(&world.plan(), &new), "kkkkk");
}

#[test]
fn what_may_be_missing_is_stopped_first_and_no_more_while_it_is() {
    let (old, new) = updating(4, |it| (it.surge, it.unavailable) = (0, 1));
    let mut world = world_of(&old, &new);
    assert_eq!(letters(&world.plan(), &new), "sooo");
    settle(&mut world);
    assert_eq!(letters(&world.plan(), &new), "nooo");
    settle(&mut world);
    // It runs, and its checks have not passed yet.
    let started = world.nodes.values_mut().flat_map(|node| &mut node.containers);
    for it in started.filter(|it| it.revision == new.revision()) {
        (it.healthy, it.ready) = (None, false);
    }
    assert_eq!(letters(&world.plan(), &new), "kooo");
    for node in world.nodes.values_mut() {
        for it in &mut node.containers {
            (it.healthy, it.ready) = (Some(true), true);
        }
    }
    assert_eq!(letters(&world.plan(), &new), "ksoo");
}

#[test]
fn a_replica_that_is_missing_anyway_counts_as_one_that_may_be() {
    let (old, new) = updating(4, |it| (it.surge, it.unavailable) = (0, 1));
    let mut world = world_of(&old, &new);
    world.node(2).containers[0].healthy = Some(false);
    assert_eq!(letters(&world.plan(), &new), "oooo", "replica 2 is not well: nothing else may be missing");
}

#[test]
fn where_there_is_no_room_for_both_the_old_one_makes_it_if_it_may_be_missing() {
    let (mut old, mut new) = updating(1, |_| {});
    for it in [&mut old, &mut new] {
        it.resources.memory_b = 600 * MIB;
    }
    let mut world = World::new(1);
    world.run(0, &old, 0);
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "o");
    new.update.unavailable = 1;
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "s");
    // With room it is doubled.
    world.add_node(1);
    assert_eq!(letters(&world.plan(), &new), "d");
}

#[test]
fn a_new_one_that_is_well_and_not_yet_ready_lets_nobody_follow() {
    let (old, new) = updating(3, |_| {});
    let mut world = world_of(&old, &new);
    settle(&mut world);
    let started = world.nodes.values_mut().flat_map(|node| &mut node.containers);
    for it in started.filter(|it| it.revision == new.revision()) {
        it.ready = false;
    }
    assert_eq!(letters(&world.plan(), &new), "koo");
}

#[test]
fn canaries_go_alone_until_they_are_let_through_or_settled() {
    let by_hand = Canary { replicas: 2, promote_after_s: None, promoted: None };
    let (old, mut new) = updating(5, |it| (it.surge, it.canary) = (3, Some(by_hand)));
    let mut world = world_of(&old, &new);
    assert_eq!(letters(&world.plan(), &new), "ddooo");
    settle(&mut world);
    assert_eq!(letters(&world.plan(), &new), "kkooo");
    let mut other = new.clone();
    other.update.canary = Some(Canary { promoted: Some(old.revision()), ..by_hand });
    world.deployments = vec![other];
    assert_eq!(letters(&world.plan(), &new), "kkooo", "another template was let through");
    new.update.canary = Some(Canary { promoted: Some(new.revision()), ..by_hand });
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "kkddd");
    // By themselves: what is ready has been well for as long as that.
    new.update.canary = Some(Canary { promote_after_s: Some(60), ..by_hand });
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "kkddd");
    let started = world.nodes.values_mut().flat_map(|node| &mut node.containers);
    for it in started.filter(|it| it.revision == new.revision() && it.replica.ordinal == 1) {
        it.proven = false;
    }
    assert_eq!(letters(&world.plan(), &new), "kkooo");
}

#[test]
fn a_paused_update_changes_nothing_and_moves_what_must_move() {
    let (old, new) = updating(3, |it| it.paused = true);
    let mut world = world_of(&old, &new);
    assert_eq!(letters(&world.plan(), &new), "ooo");
    // One that is lost is started as it is wanted now.
    world.node(0).containers.clear();
    assert_eq!(letters(&world.plan(), &new), "noo");
    settle(&mut world);
    let on = world.nodes.iter().find(|(_, it)| it.containers.iter().any(|it| it.revision == new.revision()));
    let on = *on.unwrap().0;
    world.nodes.get_mut(&on).unwrap().drains = true;
    let moved = letters(&world.plan(), &new);
    assert!(moved.starts_with('d'), "{moved}");
}

#[test]
fn blue_and_green_run_side_by_side() {
    let (old, new) = updating(4, |it| it.strategy = Strategy::BlueGreen);
    let world = world_of(&old, &new);
    assert_eq!(letters(&world.plan(), &new), "dddd");
}

#[test]
fn a_planner_knows_which_template_all_replicas_were_ready_of() {
    let (old, new) = updating(2, |_| {});
    let mut world = World::new(2);
    world.deployments = vec![old.clone()];
    let mut planner = planner::Planner::new();
    let id = replica(&old, 0);
    planner.plan(&world.view());
    assert!(!planner.was_complete(&id, old.revision()));
    for ordinal in 0..2 {
        world.run(0, &old, ordinal);
    }
    planner.plan(&world.view());
    assert!(planner.was_complete(&id, old.revision()));
    // What fails later does not undo that; another template is another matter.
    world.node(0).containers[1].state = ContainerState::Pending;
    world.node(0).containers[1].healthy = Some(false);
    planner.plan(&world.view());
    assert!(planner.was_complete(&id, old.revision()));
    world.deployments = vec![new.clone()];
    planner.plan(&world.view());
    assert!(!planner.was_complete(&id, new.revision()));
}
