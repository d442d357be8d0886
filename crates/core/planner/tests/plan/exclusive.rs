//! At most one: where voters let it run, and that the old is stopped before the new is started.

use model::{Class, Deployment};
use planner::{Placement, Plan};

use crate::world::{World, deployment, letters, node_id, replica};

fn by_voters(voters: &[u8]) -> Deployment {
    let mut it = deployment("till", 1);
    it.replicas.class = Class::Exclusive;
    it.replicas.voters = voters.iter().map(|n| node_id(*n)).collect();
    it.replicas.voters.sort_unstable();
    it
}

fn why(plan: &Plan, of: &Deployment) -> Vec<String> {
    let Placement::Unplaced { reasons } = &plan.placements[&replica(of, 0)] else { panic!("{plan:?}") };
    reasons.values().map(ToString::to_string).collect()
}

#[test]
fn without_a_majority_of_its_voters_in_reach_it_has_no_place_and_each_node_says_so() {
    let till = by_voters(&[0, 1, 2]);
    let mut world = World::new(4);
    world.deployments = vec![till.clone()];
    world.node(1).alive = false;
    assert_eq!(letters(&world.plan(), &till), "n", "two of three are enough, wherever it runs");
    world.node(2).alive = false;
    let told = why(&world.plan(), &till);
    assert_eq!(told.iter().filter(|it| *it == "voters: 1 of 3 in reach, 2 needed").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|it| *it == "down").count(), 2, "{told:?}");
}

#[test]
fn it_runs_on_a_node_that_is_linked_to_a_majority_of_its_voters_itself() {
    let till = by_voters(&[0, 1, 2]);
    let mut world = World::new(5);
    world.deployments = vec![till.clone()];
    // A line of five: the last one reaches one voter.
    for n in 0..5_u8 {
        world.node(n).linked_voters =
            (n.saturating_sub(1)..=n + 1).filter(|it| *it < 3).map(node_id).collect();
    }
    for n in 0..3 {
        world.node(n).accepts_new = false;
    }
    let told = why(&world.plan(), &till);
    assert_eq!(told.iter().filter(|it| *it == "voters: 1 of 3 in reach, 2 needed").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|it| *it == "voters: 0 of 3 in reach, 2 needed").count(), 1, "{told:?}");
    world.node(2).accepts_new = true;
    assert_eq!(world.plan().placements[&replica(&till, 0)], Placement::Start { node: node_id(2) });
}

#[test]
fn its_only_voter_runs_it_or_nobody_does() {
    let till = by_voters(&[1]);
    let mut world = World::new(3);
    world.deployments = vec![till.clone()];
    assert_eq!(world.plan().placements[&replica(&till, 0)], Placement::Start { node: node_id(1) });
    world.node(1).alive = false;
    let told = why(&world.plan(), &till);
    assert_eq!(told.iter().filter(|it| it.ends_with("alone, its only voter")).count(), 2, "{told:?}");
}

#[test]
fn an_update_and_a_move_stop_it_first_and_one_that_is_not_well_as_well() {
    let old = by_voters(&[0, 1, 2]);
    let mut new = old.clone();
    new.env.vars.insert("VERSION".into(), "2".into());
    let mut world = World::new(3);
    world.run(0, &old, 0);
    world.deployments = vec![new.clone()];
    assert_eq!(letters(&world.plan(), &new), "s");
    world.node(0).containers[0].healthy = Some(false);
    assert_eq!(letters(&world.plan(), &new), "s", "what mends it is not kept out by it");
    world.node(0).containers[0].healthy = Some(true);
    world.deployments = vec![old.clone()];
    assert_eq!(letters(&world.plan(), &old), "k");
    world.node(0).drains = true;
    assert_eq!(letters(&world.plan(), &old), "s");
}
