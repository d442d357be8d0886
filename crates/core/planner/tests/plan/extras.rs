//! Counted things: who has them, who gets them, and who yields for them.

use std::collections::BTreeMap;

use crate::world::{World, deployment, gpus, node_id, replica};
use model::{Capacity, Deployment, Extras, Priority};
use planner::{Placement, explain};

fn asking(name: &str, count: u32, extras: Extras) -> Deployment {
    let mut it = deployment(name, count);
    it.resources.extras = extras;
    it
}

#[test]
fn a_thing_that_is_counted_is_given_to_as_many_as_there_are_and_the_rest_are_told_the_number() {
    let scan = asking("scan", 4, gpus(1));
    let mut world = World::new(3);
    world.deployments = vec![scan.clone()];
    world.node(1).capacity.extras = gpus(1);
    world.node(2).capacity.extras = gpus(2);
    let plan = world.plan();
    let mut starts: BTreeMap<_, usize> = BTreeMap::new();
    for placement in plan.placements.values() {
        if let Placement::Start { node } = placement {
            *starts.entry(*node).or_default() += 1;
        }
    }
    assert_eq!(starts, BTreeMap::from([(node_id(1), 1), (node_id(2), 2)]));
    let Placement::Unplaced { reasons } = &plan.placements[&replica(&scan, 3)] else { panic!("{plan:?}") };
    let told: Vec<String> = reasons.values().map(ToString::to_string).collect();
    assert_eq!(told, ["gpu: 0 free, 1 asked"; 3]);
    // What runs counts, and what asks for none goes anywhere.
    world.obey(&plan);
    world.deployments.push(deployment("web", 3));
    let plan = world.plan();
    assert_eq!(plan.placements.values().filter(|it| matches!(it, Placement::Unplaced { .. })).count(), 1);
    let explained = explain(&world.view(), &scan.namespace, &scan.name).unwrap();
    assert!(explained.nodes.values().all(|node| node.one_more.is_err()));
}

#[test]
fn a_thing_is_never_shared_even_where_everything_else_is_free() {
    let mut world = World::new(1);
    world.node(0).capacity = Capacity { extras: gpus(3), cpu_m: 64_000, memory_b: 1 << 40, pids: 10_000 };
    world.deployments = vec![asking("pair", 2, gpus(2))];
    let starts = world.plan().placements.values().filter(|it| matches!(it, Placement::Start { .. })).count();
    assert_eq!(starts, 1, "one of three is left, and two are asked");
}

#[test]
fn what_is_less_important_yields_a_thing_that_is_wanted_and_what_has_none_of_it_stays() {
    let mut low = asking("batch", 1, gpus(1));
    low.placement.priority = Priority::Low;
    let mut idle = deployment("idle", 1);
    idle.placement.priority = Priority::Low;
    let mut till = asking("till", 1, gpus(1));
    till.placement.priority = Priority::High;
    let mut world = World::new(1);
    world.node(0).capacity.extras = gpus(1);
    let holder = world.run(0, &low, 0).id;
    world.run(0, &idle, 0);
    world.deployments = vec![low, idle, till.clone()];
    let plan = world.plan();
    assert_eq!(plan.placements[&replica(&till, 0)], Placement::Awaits { node: node_id(0) });
    assert_eq!(plan.yields.keys().copied().collect::<Vec<_>>(), [holder]);
}
