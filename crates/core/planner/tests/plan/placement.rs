//! Where replicas go that ask for more than room, each rule on the smallest cluster that shows it.

use std::collections::BTreeMap;

use model::{Affinity, Deployment, ImageRecord, Mode, NodeId, Preference, Priority};
use planner::{Placement, Plan, explain};

use crate::world::{MIB, World, deployment, node_id, replica};

fn asking(mut it: Deployment, ask: impl FnOnce(&mut model::PlacementGroup)) -> Deployment {
    ask(&mut it.placement);
    it
}

fn beside(name: &str, within: &str) -> Affinity {
    Affinity { deployment: name.parse().unwrap(), within: within.parse().unwrap() }
}

fn label(world: &mut World, n: u8, key: &str, value: &str) {
    world.node(n).labels.insert(key.parse().unwrap(), value.to_owned());
}

/// How many replicas of a deployment are started, by node.
fn starts(plan: &Plan, of: &Deployment) -> BTreeMap<NodeId, usize> {
    let mut starts = BTreeMap::new();
    for (id, placement) in plan.placements.iter() {
        if let Placement::Start { node } = placement
            && id.deployment == of.name
        {
            *starts.entry(*node).or_default() += 1;
        }
    }
    starts
}

fn refusals(plan: &Plan, of: &Deployment, ordinal: u32) -> Vec<String> {
    match &plan.placements[&replica(of, ordinal)] {
        Placement::Unplaced { reasons } => reasons.values().map(ToString::to_string).collect(),
        other => panic!("it has a place: {other:?}"),
    }
}

#[test]
fn conditions_choose_the_nodes_and_say_which_one_failed() {
    let web = asking(deployment("web", 1), |it| {
        it.require = vec![
            "zone in (a, b)".parse().unwrap(),
            "ram > 4".parse().unwrap(),
            "host != node-3".parse().unwrap(),
        ];
    });
    let mut world = World::new(4);
    world.deployments = vec![web.clone()];
    for (n, zone, ram) in [(0, "c", "8"), (1, "a", "4"), (3, "b", "8")] {
        label(&mut world, n, "zone", zone);
        label(&mut world, n, "ram", ram);
    }
    assert_eq!(
        refusals(&world.plan(), &web, 0),
        [
            "label: zone=c, `zone in (a, b)` asked",
            "label: ram=4, `ram > 4` asked",
            "label: no zone, `zone in (a, b)` asked",
            "label: host=node-3, `host != node-3` asked",
        ]
    );
    label(&mut world, 1, "ram", "5");
    assert_eq!(starts(&world.plan(), &web), BTreeMap::from([(node_id(1), 1)]));
}

#[test]
fn a_second_copy_goes_to_another_machine_however_small_that_is() {
    let web = deployment("web", 3);
    let mut world = World::new(2);
    world.deployments = vec![web.clone()];
    world.node(1).capacity =
        model::Capacity { cpu_m: 50_000, memory_b: 50_000 * MIB, pids: 5_000, ..Default::default() };
    // Then by what stays free.
    assert_eq!(starts(&world.plan(), &web), BTreeMap::from([(node_id(0), 1), (node_id(1), 2)]));
}

#[test]
fn spread_is_even_over_the_first_label_then_over_the_next() {
    let web = asking(deployment("web", 6), |it| {
        it.spread = vec!["site".parse().unwrap(), "host".parse().unwrap()];
    });
    let mut world = World::new(4);
    world.deployments = vec![web.clone()];
    for n in 0..3 {
        label(&mut world, n, "site", "large");
    }
    label(&mut world, 3, "site", "small");
    let starts = starts(&world.plan(), &web);
    assert_eq!(starts[&node_id(3)], 3, "half of them on the one node of the other site");
    assert!((0..3).all(|n| starts[&node_id(n)] == 1), "{starts:?}");
    // What runs already counts.
    world.run(3, &web, 0);
    world.run(3, &web, 1);
    world.run(3, &web, 2);
    let plan = world.plan();
    assert!((3..6).all(|ordinal| !plan.placements[&replica(&web, ordinal)].names(node_id(3))));
}

#[test]
fn a_preference_outweighs_as_much_room_as_its_weight_says_and_no_more() {
    let web = |weight| {
        asking(deployment("web", 1), |it| {
            it.prefer = vec![Preference { when: "disk = ssd".parse().unwrap(), weight }];
        })
    };
    let filler = deployment("filler", 1);
    let mut world = World::new(2);
    label(&mut world, 0, "disk", "ssd");
    // Node 0 has 30 % less free.
    world.run(0, &filler, 0).resources.memory_b = 300 * MIB;
    let goes_to = |world: &mut World, weight: i32| {
        let of = web(weight);
        world.deployments = vec![of.clone(), filler.clone()];
        *starts(&world.plan(), &of).keys().next().unwrap()
    };
    assert_eq!(goes_to(&mut world, 20), node_id(1));
    assert_eq!(goes_to(&mut world, 40), node_id(0));
    world.node(0).containers.clear();
    world.run(1, &filler, 0).resources.memory_b = 300 * MIB;
    assert_eq!(goes_to(&mut world, -20), node_id(0));
    assert_eq!(goes_to(&mut world, -40), node_id(1));
}

#[test]
fn of_equal_nodes_one_that_holds_the_image_is_taken() {
    let web = deployment("web", 1);
    for holder in 0..3 {
        let mut world = World::new(3);
        world.deployments = vec![web.clone()];
        world.node(holder).images =
            vec![ImageRecord { reference: "web:1".into(), digest: web.image.digest, size_b: 1 }];
        assert_eq!(starts(&world.plan(), &web), BTreeMap::from([(node_id(holder), 1)]));
        let explained = explain(&world.view(), &web.namespace, &web.name).unwrap();
        let bonus = |n| explained.nodes[&node_id(n)].one_more.as_ref().unwrap().bonus_ppm;
        assert_eq!([bonus(holder), bonus((holder + 1) % 3)], [20_000, 0]);
    }
}

#[test]
fn near_waits_for_company_and_follows_it() {
    let cache = asking(deployment("cache", 1), |it| it.near = vec![beside("web", "host")]);
    let web = deployment("web", 1);
    let mut world = World::new(2);
    world.deployments = vec![cache.clone()];
    assert_eq!(refusals(&world.plan(), &cache, 0), ["near: web does not run there"; 2]);
    world.deployments.push(web.clone());
    world.run(1, &web, 0);
    assert_eq!(starts(&world.plan(), &cache), BTreeMap::from([(node_id(1), 1)]));
}

#[test]
fn apart_holds_for_both_whoever_says_it_and_within_what_it_says() {
    let (a, b) = (asking(deployment("a", 1), |it| it.apart = vec![beside("b", "site")]), deployment("b", 1));
    let mut world = World::new(3);
    world.deployments = vec![a.clone(), b.clone()];
    for (n, site) in [(0, "x"), (1, "x"), (2, "y")] {
        label(&mut world, n, "site", site);
    }
    world.run(0, &a, 0);
    // `b` says nothing, and keeps away all the same.
    assert_eq!(starts(&world.plan(), &b), BTreeMap::from([(node_id(2), 1)]));
    world.node(2).alive = false;
    let apart = "apart: default/a runs within the same site";
    assert_eq!(refusals(&world.plan(), &b, 0), [apart, apart, "down"]);
}

#[test]
fn apart_from_itself_is_one_copy_for_each_place() {
    let web = asking(deployment("web", 3), |it| it.apart = vec![beside("web", "host")]);
    let mut world = World::new(2);
    world.deployments = vec![web.clone()];
    let plan = world.plan();
    assert_eq!(starts(&plan, &web), BTreeMap::from([(node_id(0), 1), (node_id(1), 1)]));
    assert_eq!(refusals(&plan, &web, 2), ["apart: default/web runs there"; 2]);
}

#[test]
fn a_global_deployment_runs_one_on_each_node_that_meets_its_conditions() {
    let mut agent = asking(deployment("agent", 1), |it| it.require = vec!["role != bare".parse().unwrap()]);
    agent.replicas.mode = Mode::Global;
    let mut world = World::new(4);
    world.deployments = vec![agent.clone()];
    label(&mut world, 3, "role", "bare");
    let on = |world: &World| starts(&world.plan(), &agent).into_keys().collect::<Vec<_>>();
    assert_eq!(on(&world), [node_id(0), node_id(1), node_id(2)]);
    let plan = world.plan();
    world.obey(&plan);
    assert!(on(&world).is_empty());
    // One that comes gets one; one that is down is not replaced by anything.
    world.add_node(9);
    world.node(1).alive = false;
    assert_eq!(on(&world), [node_id(9)]);
    assert_eq!(world.plan().placements.len(), 3);
    // A full node says so for itself alone.
    world.node(9).capacity.memory_b = 0;
    let plan = world.plan();
    let Some(Placement::Unplaced { reasons }) =
        plan.placements.values().find(|it| matches!(it, Placement::Unplaced { .. }))
    else {
        panic!("{plan:?}")
    };
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[&node_id(9)].to_string(), "memory: 0 free, 100Mi asked");
}

#[test]
fn what_runs_on_a_node_that_drains_moves_one_at_a_time_and_nothing_new_comes() {
    let web = deployment("web", 3);
    let mut world = World::new(2);
    world.deployments = vec![web.clone()];
    for ordinal in 0..3 {
        world.run(0, &web, ordinal);
    }
    world.node(0).drains = true;
    let mut moved = 0;
    for _ in 0..3 {
        let plan = world.plan();
        let moving: Vec<_> =
            plan.placements.values().filter(|it| matches!(it, Placement::Replace { .. })).collect();
        assert_eq!(moving.len(), 1, "{plan:?}");
        assert!(moving[0].names(node_id(1)));
        world.obey(&plan);
        moved += 1;
    }
    assert_eq!((moved, world.node(0).containers.len()), (3, 0));
    let more = deployment("more", 2);
    world.deployments.push(more.clone());
    assert_eq!(starts(&world.plan(), &more), BTreeMap::from([(node_id(1), 2)]));
    // With nowhere to go it stays.
    world.run(0, &more, 0);
    world.node(1).alive = false;
    let plan = world.plan();
    assert!(matches!(plan.placements[&replica(&more, 0)], Placement::KeepOld { .. }));
    assert_eq!(
        plan.held_back[&replica(&more, 0)][&node_id(0)].to_string(),
        "drains: what it runs is to move elsewhere"
    );
}

/// One core and 1,000 MiB; what asks for `mib` of it, at a priority.
fn of_priority(name: &str, count: u32, mib: u64, priority: Priority) -> Deployment {
    let mut it = asking(deployment(name, count), |it| it.priority = priority);
    it.resources.memory_b = mib * MIB;
    it
}

#[test]
fn what_is_more_important_is_given_room_first() {
    let (a, z) = (of_priority("a", 1, 600, Priority::Normal), of_priority("z", 1, 600, Priority::High));
    let mut world = World::new(1);
    world.deployments = vec![a.clone(), z.clone()];
    let plan = world.plan();
    assert_eq!(starts(&plan, &z).len(), 1);
    assert_eq!(refusals(&plan, &a, 0), ["memory: 400Mi free, 600Mi asked"]);
}

#[test]
fn the_least_important_yields_and_no_more_than_must() {
    let db = of_priority("db", 1, 500, Priority::High);
    let (low, small, normal) = (
        of_priority("low", 1, 450, Priority::Low),
        of_priority("small", 2, 200, Priority::Low),
        of_priority("normal", 1, 900, Priority::Normal),
    );
    let mut world = World::new(2);
    world.deployments = vec![db.clone(), low.clone(), small.clone(), normal.clone()];
    let kept = world.run(0, &low, 0).id;
    let victim = world.run(0, &small, 0).id;
    let spared = world.run(0, &small, 1).id;
    world.run(1, &normal, 0);
    let plan = world.plan();
    // 150 MiB are free on node 0: `low` alone gives enough.
    assert_eq!(plan.yields.keys().copied().collect::<Vec<_>>(), [kept], "{victim:?} {spared:?}");
    assert!(
        matches!(plan.placements[&replica(&db, 0)], Placement::Awaits { node, .. } if node == node_id(0))
    );
    // While that one stops nothing else yields, and nobody takes the room.
    world.node(0).containers[0].state = model::ContainerState::Stopping;
    world.node(0).containers[0].yields_to = Some(replica(&db, 0));
    let late = of_priority("late", 1, 100, Priority::Normal);
    world.deployments.push(late.clone());
    let plan = world.plan();
    assert!(plan.yields.is_empty(), "{:?}", plan.yields);
    assert!(matches!(plan.placements[&replica(&db, 0)], Placement::Awaits { .. }));
    assert_eq!(starts(&plan, &late), BTreeMap::from([(node_id(1), 1)]));
    world.node(0).containers.remove(0);
    assert_eq!(starts(&world.plan(), &db), BTreeMap::from([(node_id(0), 1)]));
}

#[test]
fn equals_and_betters_never_yield() {
    for (theirs, ours) in [
        (Priority::Normal, Priority::Normal),
        (Priority::High, Priority::Normal),
        (Priority::Low, Priority::Low),
    ] {
        let (old, new) = (of_priority("old", 1, 900, theirs), of_priority("new", 1, 900, ours));
        let mut world = World::new(1);
        world.deployments = vec![old.clone(), new.clone()];
        world.run(0, &old, 0);
        let plan = world.plan();
        assert!(plan.yields.is_empty());
        assert_eq!(refusals(&plan, &new, 0), ["memory: 100Mi free, 900Mi asked"]);
    }
}

#[test]
fn two_that_are_important_do_not_count_the_same_room_twice() {
    let db = of_priority("db", 2, 500, Priority::High);
    let low = of_priority("low", 2, 500, Priority::Low);
    let mut world = World::new(1);
    world.deployments = vec![db.clone(), low.clone()];
    world.run(0, &low, 0);
    world.run(0, &low, 1);
    assert_eq!(world.plan().yields.len(), 2, "each of the two needs one");
}

#[test]
fn whoever_room_is_being_made_for_waits_there_although_there_is_room_elsewhere_by_now() {
    let db = of_priority("db", 1, 500, Priority::High);
    let low = of_priority("low", 2, 600, Priority::Low);
    let mut world = World::new(2);
    world.deployments = vec![db.clone(), low.clone()];
    for n in 0..2 {
        world.run(n, &low, u32::from(n));
    }
    let plan = world.plan();
    let Placement::Awaits { node } = plan.placements[&replica(&db, 0)] else { panic!("{plan:?}") };
    let (here, there) = if node == node_id(0) { (0, 1) } else { (1, 0) };
    let victim = &mut world.node(here).containers[0];
    victim.state = model::ContainerState::Stopping;
    victim.yields_to = Some(replica(&db, 0));
    world.node(there).containers.clear();
    assert_eq!(world.plan().placements[&replica(&db, 0)], Placement::Awaits { node });
    // Unless that node goes away.
    let mut lost = world.clone();
    lost.node(here).alive = false;
    assert_eq!(starts(&lost.plan(), &db), BTreeMap::from([(node_id(there), 1)]));
    world.node(here).containers.clear();
    assert!(matches!(world.plan().placements[&replica(&db, 0)], Placement::Start { .. }));
}

#[test]
fn an_update_makes_nobody_yield() {
    let mut db = of_priority("db", 1, 600, Priority::High);
    let low = of_priority("low", 1, 400, Priority::Low);
    let mut world = World::new(1);
    world.run(0, &db, 0);
    world.run(0, &low, 0);
    db.env.vars.insert("VERSION".into(), "2".into());
    world.deployments = vec![db.clone(), low];
    let plan = world.plan();
    assert!(plan.yields.is_empty());
    assert!(plan.held_back.contains_key(&replica(&db, 0)));
}
