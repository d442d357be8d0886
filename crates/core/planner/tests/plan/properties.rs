//! What is true of the plan of every cluster.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::world::{MIB, World, deployment, gpus, node_id, replica, with_port};
use model::{
    Capacity, ContainerState, EventId, Extras, FailedRun, JobEnds, JobGroup, NodeId, RecordVersion,
    RestartPolicy,
};
use planner::{NodeView, Placement, Plan, Planner, Rank, holds_capacity};
use proptest::prelude::*;
use proptest::sample::Index;

const NAMES: [&str; 5] = ["api", "db", "job", "shop", "web"];
const STATES: [ContainerState; 6] = [
    ContainerState::Pending,
    ContainerState::Starting,
    ContainerState::Running,
    ContainerState::Stopping,
    ContainerState::Exited,
    ContainerState::Failed,
];

/// One change of a cluster; applied in turn they make every cluster, and every history of one.
#[derive(Clone, Debug)]
enum Edit {
    Deploy {
        name: Index,
        count: u32,
        version: u8,
        memory: u64,
        port: Option<u16>,
        zone: Option<u8>,
        once: bool,
        flavour: u8,
    },
    Delete {
        name: Index,
    },
    AddNode {
        n: u8,
        memory: u64,
        zone: u8,
    },
    RemoveNode {
        n: u8,
    },
    Alive {
        n: u8,
        alive: bool,
    },
    Cordon {
        n: u8,
        accepts_new: bool,
    },
    Drain {
        n: u8,
        drains: bool,
    },
    Press {
        n: u8,
        pressed: bool,
    },
    Relabel {
        n: u8,
        zone: u8,
    },
    Shrink {
        n: u8,
        memory: u64,
    },
    Run {
        n: u8,
        name: Index,
        ordinal: u32,
        version: u8,
        claim: u64,
        state: Index,
        healthy: Option<bool>,
    },
    State {
        n: u8,
        which: Index,
        state: Index,
        healthy: Option<bool>,
    },
    Drop {
        n: u8,
        which: Index,
    },
    Decline {
        n: u8,
        name: Index,
        ordinal: u32,
    },
    End {
        name: Index,
        ordinal: u32,
        how: u8,
    },
    Obey,
}

fn edit() -> impl Strategy<Value = Edit> {
    use prop::option::of;
    let name = any::<Index>;
    let n = || 0..6_u8;
    let healthy = || of(any::<bool>());
    prop_oneof![
        4 => ((name(), 0..5_u32, 0..3_u8, 1..500_u64), of(80..82_u16), of(0..2_u8), any::<bool>(), any::<u8>())
            .prop_map(|((name, count, version, memory), port, zone, once, flavour)| {
                Edit::Deploy { name, count, version, memory, port, zone, once, flavour }
            }),
        1 => name().prop_map(|name| Edit::Delete { name }),
        3 => (n(), 100..1_500_u64, 0..2_u8).prop_map(|(n, memory, zone)| Edit::AddNode { n, memory, zone }),
        1 => n().prop_map(|n| Edit::RemoveNode { n }),
        1 => (n(), any::<bool>()).prop_map(|(n, alive)| Edit::Alive { n, alive }),
        1 => (n(), any::<bool>()).prop_map(|(n, accepts_new)| Edit::Cordon { n, accepts_new }),
        1 => (n(), any::<bool>()).prop_map(|(n, drains)| Edit::Drain { n, drains }),
        1 => (n(), any::<bool>()).prop_map(|(n, pressed)| Edit::Press { n, pressed }),
        1 => (n(), 0..2_u8).prop_map(|(n, zone)| Edit::Relabel { n, zone }),
        1 => (n(), 10..900_u64).prop_map(|(n, memory)| Edit::Shrink { n, memory }),
        4 => (n(), name(), 0..6_u32, 0..3_u8, 0..4_u64, any::<Index>(), healthy()).prop_map(
            |(n, name, ordinal, version, claim, state, healthy)| {
                Edit::Run { n, name, ordinal, version, claim, state, healthy }
            }
        ),
        2 => (n(), any::<Index>(), any::<Index>(), healthy())
            .prop_map(|(n, which, state, healthy)| Edit::State { n, which, state, healthy }),
        1 => (n(), any::<Index>()).prop_map(|(n, which)| Edit::Drop { n, which }),
        1 => (n(), name(), 0..5_u32).prop_map(|(n, name, ordinal)| Edit::Decline { n, name, ordinal }),
        2 => (name(), 0..5_u32, any::<u8>()).prop_map(|(name, ordinal, how)| Edit::End { name, ordinal, how }),
        2 => Just(Edit::Obey),
    ]
}

fn named(name: Index) -> &'static str {
    NAMES[name.index(NAMES.len())]
}

fn state(of: Index) -> ContainerState {
    STATES[of.index(STATES.len())]
}

fn zone(zone: u8) -> BTreeMap<model::LabelKey, String> {
    BTreeMap::from([("zone".parse().unwrap(), zone.to_string())])
}

fn versioned(name: Index, count: u32, version: u8) -> model::Deployment {
    let mut it = deployment(named(name), count);
    it.env.vars.insert("VERSION".into(), version.to_string());
    it
}

/// Gives a deployment something of all that may be asked, by the bits of a number; most of them nothing.
fn season(it: &mut model::Deployment, flavour: u8) {
    let placement = &mut it.placement;
    placement.priority = model::Priority::ALL[usize::from(flavour & 3)];
    let beside = |name: &str, within: &str| model::Affinity {
        deployment: name.parse().unwrap(),
        within: within.parse().unwrap(),
    };
    it.resources.extras = gpus(u64::from(flavour >> 6).saturating_sub(1));
    match flavour >> 2 & 15 {
        0 => placement.require.push("zone in (0, 1)".parse().unwrap()),
        1 => placement.require.push("host != node-0".parse().unwrap()),
        2 => placement.prefer.push(model::Preference { when: "zone = 1".parse().unwrap(), weight: 30 }),
        3 => placement.prefer.push(model::Preference { when: "zone = 1".parse().unwrap(), weight: -30 }),
        4 => placement.spread.push("zone".parse().unwrap()),
        5 => placement.spread.extend(["zone".parse().unwrap(), "host".parse().unwrap()]),
        6 => placement.near.push(beside("web", "host")),
        7 => placement.near.push(beside("db", "zone")),
        8 => placement.apart.push(beside("api", "host")),
        9 => placement.apart.push(beside("job", "zone")),
        12 => it.update.paused = true,
        13 => (it.update.surge, it.update.unavailable) = (0, 2),
        14 => it.update.canary = Some(model::Canary { replicas: 1, promote_after_s: None, promoted: None }),
        10 | 11 => (it.replicas.mode, it.replicas.count) = (model::Mode::Global, it.replicas.count.min(1)),
        // Enough of them that cycles come about.
        _ if flavour >= 64 && it.name.as_str() != "web" => {
            it.depends.on.insert("web".parse().unwrap(), model::Condition::Healthy);
        }
        _ if flavour >= 64 => {
            it.depends.on.insert("job".parse().unwrap(), model::Condition::Completed);
        }
        _ => {}
    }
}

fn apply(world: &mut World, edit: &Edit) {
    match edit {
        Edit::Deploy { name, count, version, memory, port, zone: in_zone, once, flavour } => {
            let mut it = versioned(*name, *count, *version);
            it.resources.memory_b = memory * MIB;
            if let Some(port) = port {
                it = with_port(it, *port);
            }
            if let Some(in_zone) = in_zone {
                it.placement.labels = zone(*in_zone);
            }
            if *once {
                it.restart.policy = RestartPolicy::OnFailure;
            }
            season(&mut it, *flavour);
            if *once && flavour % 4 > 1 && it.replicas.mode == model::Mode::Replicated {
                it.restart.policy = RestartPolicy::Never;
                it.job = Some(JobGroup { parallelism: 1 + u32::from(flavour % 2), ..JobGroup::default() });
            }
            it.incarnation = EventId::from_bytes([7 + flavour % 2; 32]);
            world.deployments.retain(|other| other.name != it.name);
            world.deployments.push(it);
        }
        Edit::Delete { name } => {
            world.deployments.retain(|it| it.name.as_str() != named(*name));
        }
        Edit::AddNode { n, memory, zone: in_zone } => {
            if !world.nodes.contains_key(&node_id(*n)) {
                world.add_node(*n);
                world.node(*n).capacity.memory_b = memory * MIB;
                world.node(*n).labels = zone(*in_zone);
                world.node(*n).capacity.extras = gpus(memory % 4);
            }
        }
        Edit::RemoveNode { n } => {
            world.nodes.remove(&node_id(*n));
        }
        Edit::Run { n, name, ordinal, version, claim, state, healthy } => {
            if world.nodes.contains_key(&node_id(*n)) {
                let wanted = world.deployments.iter().find(|it| it.name.as_str() == named(*name));
                let of = match wanted {
                    Some(it) if *version > 0 => it.clone(),
                    _ => versioned(*name, 1, *version),
                };
                let record = world.run(*n, &of, *ordinal);
                record.claim = *claim;
                record.state = self::state(*state);
                record.healthy = *healthy;
            }
        }
        Edit::End { name, ordinal, how } => {
            let ends = world.ends.entry(named(*name).parse().unwrap()).or_default();
            match how % 8 {
                0 => ends.overdue = true,
                1 => *ends = JobEnds::default(),
                2 => ends.add_failed(*ordinal, FailedRun { node: node_id(1), reason: "code 7".into() }),
                _ => ends.add_done(*ordinal),
            }
        }
        Edit::Obey => {
            let plan = world.plan();
            world.obey(&plan);
        }
        Edit::Alive { n, .. }
        | Edit::Cordon { n, .. }
        | Edit::Drain { n, .. }
        | Edit::Press { n, .. }
        | Edit::Relabel { n, .. }
        | Edit::Shrink { n, .. }
        | Edit::State { n, .. }
        | Edit::Drop { n, .. }
        | Edit::Decline { n, .. } => {
            if world.nodes.contains_key(&node_id(*n)) {
                apply_to_node(world, *n, edit);
            }
        }
    }
}

fn apply_to_node(world: &mut World, n: u8, edit: &Edit) {
    match edit {
        Edit::Alive { alive, .. } => world.node(n).alive = *alive,
        Edit::Cordon { accepts_new, .. } => world.node(n).accepts_new = *accepts_new,
        Edit::Drain { drains, .. } => world.node(n).drains = *drains,
        Edit::Press { pressed, .. } => world.node(n).pressure = pressed.then(|| "memory: short".to_owned()),
        Edit::Relabel { zone: in_zone, .. } => world.node(n).labels = zone(*in_zone),
        Edit::Shrink { memory, .. } => {
            world.node(n).capacity.memory_b = memory * MIB;
            world.node(n).capacity.extras = gpus(memory % 3);
            world.node(n).capacity_version += 1;
        }
        Edit::State { which, state, healthy, .. } => {
            let containers = &mut world.node(n).containers;
            if !containers.is_empty() {
                let at = which.index(containers.len());
                containers[at].state = self::state(*state);
                containers[at].healthy = *healthy;
            }
        }
        Edit::Drop { which, .. } => {
            let containers = &mut world.node(n).containers;
            if !containers.is_empty() {
                containers.remove(which.index(containers.len()));
            }
        }
        Edit::Decline { name, ordinal, .. } => {
            let of = world.deployments.iter().find(|it| it.name.as_str() == named(*name)).cloned();
            if let Some(of) = of {
                world.decline(n, &of, *ordinal);
            }
        }
        Edit::Deploy { .. }
        | Edit::Delete { .. }
        | Edit::AddNode { .. }
        | Edit::RemoveNode { .. }
        | Edit::Run { .. }
        | Edit::End { .. }
        | Edit::Obey => unreachable!("not of one node"),
    }
}

fn world() -> impl Strategy<Value = World> {
    prop::collection::vec(edit(), 5..60).prop_map(|edits| {
        let mut world = World::new(3);
        for edit in &edits {
            apply(&mut world, edit);
        }
        world
    })
}

/// What the plan adds to each node.
fn added(world: &World, plan: &Plan) -> BTreeMap<NodeId, Capacity> {
    let mut added: BTreeMap<NodeId, Capacity> = BTreeMap::new();
    for (id, placement) in plan.placements.iter() {
        let of = world.deployments.iter().find(|it| it.name == id.deployment).unwrap();
        let on = match placement {
            Placement::Start { node } => *node,
            Placement::Replace { new, .. } if !has_wanted(world, &id, *new) => *new,
            _ => continue,
        };
        let sum = added.entry(on).or_default();
        *sum = sum.plus(&of.resources.as_capacity());
    }
    added
}

/// Whether the node already has a claim of the wanted revision for the replica.
fn has_wanted(world: &World, id: &model::ReplicaId, on: NodeId) -> bool {
    let of = world.deployments.iter().find(|it| it.name == id.deployment).unwrap();
    let fits = |it: &&model::ContainerRecord| {
        it.replica == *id && it.revision == of.revision() && planner::is_claim(it.state)
    };
    world.nodes[&on].containers.iter().any(|it| fits(&it))
}

/// The priority of what a container runs, if that is wanted.
fn after_priority(world: &World, it: &model::ContainerRecord) -> Option<model::Priority> {
    world.deployments.iter().find(|of| of.name == it.replica.deployment).map(|of| of.placement.priority)
}

/// Which copies of a deployment there should be.
fn ordinals(world: &World, of: &model::Deployment) -> impl Iterator<Item = u32> {
    let all = planner::ordinals(world.nodes.keys().copied());
    let runs_one = |(id, _): &(&NodeId, &u32)| {
        let node = &world.nodes[*id];
        node.alive && !node.drains && of.placement.is_met_by(&node.labels, &node.name)
    };
    let count = of.replicas.count;
    let ordinals: Vec<u32> = match of.replicas.mode {
        model::Mode::Replicated => (0..count).collect(),
        model::Mode::Global if count == 0 => Vec::new(),
        model::Mode::Global => all.iter().filter(runs_one).map(|(_, ordinal)| *ordinal).collect(),
    };
    ordinals.into_iter()
}

fn holder(placement: &Placement) -> Option<NodeId> {
    match placement {
        Placement::Keep { node, .. }
        | Placement::KeepOld { node, .. }
        | Placement::StopFirst { node, .. } => Some(*node),
        Placement::Replace { old, .. } => Some(old.0),
        Placement::Start { .. }
        | Placement::Awaits { .. }
        | Placement::Waits
        | Placement::Ended
        | Placement::Queued
        | Placement::GivenUp
        | Placement::Unplaced { .. } => None,
    }
}

#[test]
fn a_planner_that_saw_many_deployments_come_and_go_plans_as_ever() {
    let mut world = World::new(3);
    let mut planner = Planner::new();
    for n in 0..2_500 {
        world.deployments = vec![deployment("web", 2), deployment(&format!("short-lived-{n}"), 1)];
        assert_eq!(planner.plan(&world.view()), &world.plan());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_node_is_ever_given_more_than_it_has(world in world()) {
        let plan = world.plan();
        for (id, sum) in added(&world, &plan) {
            let node = &world.nodes[&id];
            let holding = node.containers.iter().filter(|it| holds_capacity(it.state));
            let mut held = holding.fold(Capacity::default(), |held, it| held.plus(&it.resources));
            // A device that was taken out is lacking to those that had it, and to nobody who asks for none.
            if sum.extras.is_empty() {
                held.extras = Extras::NONE;
            }
            prop_assert!(node.capacity.holds(&held.plus(&sum)), "{id:?} has {held:?} and gets {sum:?}");
        }
    }

    #[test]
    fn every_wanted_replica_has_a_placement_and_nothing_else_has(world in world()) {
        let wanted: BTreeSet<_> =
            world.deployments.iter().flat_map(|it| ordinals(&world, it).map(|ordinal| replica(it, ordinal))).collect();
        let plan = world.plan();
        prop_assert_eq!(plan.placements.replicas().collect::<BTreeSet<_>>(), wanted);
    }

    #[test]
    fn the_order_of_what_is_seen_does_not_matter(world in world(), turn in 0..7_usize) {
        let mut turned = world.clone();
        turned.deployments.reverse();
        for node in turned.nodes.values_mut() {
            let by = turn.min(node.containers.len());
            node.containers.rotate_left(by);
            node.declined.reverse();
        }
        // A decline may be said twice in other words; these worlds say one reason only.
        prop_assert_eq!(turned.plan(), world.plan());
    }

    #[test]
    fn losing_a_node_moves_only_what_it_ran(world in world(), pick in any::<Index>()) {
        prop_assume!(!world.nodes.is_empty());
        let lost = *pick.get(&world.nodes.keys().copied().collect::<Vec<_>>());
        let mut after = world.clone();
        after.nodes.get_mut(&lost).unwrap().alive = false;
        let (before, after) = (world.plan(), after.plan());
        prop_assert!(after.share(lost).next().is_none(), "a node that is down has no share");
        for (id, placement) in before.placements.iter() {
            if let Some(held_by) = holder(placement).filter(|it| *it != lost) {
                let now = &after.placements[&id];
                let stays = holder(now) == Some(held_by)
                    || matches!(now, Placement::Keep { node, .. } if has_wanted(&world, &id, *node));
                prop_assert!(stays, "{id:?} was {placement:?}, is {now:?}");
            }
        }
    }

    #[test]
    fn adding_a_node_moves_nothing(world in world(), memory in 1..9_000_u64) {
        let mut after = world.clone();
        after.add_node(200);
        after.node(200).capacity.memory_b = memory * MIB;
        after.node(200).labels = zone(1);
        let (before, after) = (world.plan(), after.plan());
        for (id, placement) in before.placements.iter() {
            prop_assert_eq!(holder(placement), holder(&after.placements[&id]), "{:?}", id);
        }
    }

    #[test]
    fn labels_ports_and_cordons_are_respected(world in world()) {
        let plan = world.plan();
        let mut ports: BTreeMap<(NodeId, u16), BTreeSet<&str>> = BTreeMap::new();
        for node in &world.nodes {
            for it in node.1.containers.iter().filter(|it| holds_capacity(it.state)) {
                // Of what is not wanted, or was made again since, nobody knows the ports.
                let of = world.deployments.iter();
                let of = of
                    .filter(|of| of.incarnation == it.replica.incarnation)
                    .find(|of| of.name == it.replica.deployment);
                for port in of.iter().flat_map(|of| &of.ports.ports) {
                    ports.entry((*node.0, port.host)).or_default().insert(it.replica.deployment.as_str());
                }
            }
        }
        let before = ports.clone();
        for (id, placement) in plan.placements.iter() {
            let of = world.deployments.iter().find(|it| it.name == id.deployment).unwrap();
            let on = match placement {
                Placement::Start { node } => node,
                Placement::Replace { new, .. } if !has_wanted(&world, &id, *new) => new,
                _ => continue,
            };
            let node = &world.nodes[on];
            prop_assert!(node.alive && node.accepts_new && node.pressure.is_none() && !node.drains);
            prop_assert!(of.placement.is_met_by(&node.labels, &node.name));
            for port in &of.ports.ports {
                ports.entry((*on, port.host)).or_default().insert(of.name.as_str());
            }
        }
        for (at, holders) in ports {
            let had = before.get(&at).map_or(0, BTreeSet::len);
            prop_assert!(holders.len() <= had.max(1), "{at:?} is given to {holders:?}");
        }
    }

    #[test]
    fn a_rolling_update_touches_one_replica_and_none_above_one_that_is_ill(world in world()) {
        let plan = world.plan();
        for of in &world.deployments {
            let healthy = |ordinal: u32| {
                world.nodes.values().filter(|node| node.alive).any(|node| {
                    let labels_fit = !node.drains && of.placement.is_met_by(&node.labels, &node.name);
                    node.containers.iter().any(|it| {
                        let done = it.state == ContainerState::Exited
                            && of.restart.policy != RestartPolicy::Always;
                        let well = it.state == ContainerState::Running && it.healthy == Some(true);
                        it.replica == replica(of, ordinal)
                            && it.revision == of.revision()
                            && (done || labels_fit && well)
                    })
                })
            };
            let replaced: Vec<u32> = ordinals(&world, of)
                .filter(|it| matches!(plan.placements[&replica(of, *it)], Placement::Replace { .. }))
                .collect();
            prop_assert!(replaced.len() <= 1, "{replaced:?}");
            // What only has to leave a node does not wait for an update that is held up.
            let held_up = of.update.paused || of.update.canary.is_some() || !of.depends.on.is_empty();
            let leaves = |ordinal: &u32| match plan.placements[&replica(of, *ordinal)] {
                Placement::Replace { old: (node, _), .. } => {
                    let node = &world.nodes[&node];
                    held_up && (node.drains || !of.placement.is_met_by(&node.labels, &node.name))
                }
                _ => false,
            };
            for ordinal in replaced.into_iter().filter(|it| !leaves(it)) {
                let mut lower = ordinals(&world, of).filter(|it| *it < ordinal);
                prop_assert!(lower.all(healthy), "{ordinal} is replaced before a lower one is well");
            }
        }
    }

    #[test]
    fn only_what_is_of_lower_priority_yields_and_enough_of_it(world in world()) {
        let plan = world.plan();
        let priority = |name: &model::Name| {
            world.deployments.iter().find(|it| it.name == *name).unwrap().placement.priority
        };
        for (victim, replica) in &plan.yields {
            let Some(Placement::Awaits { node, .. }) = plan.placements.get(replica) else {
                return Err(TestCaseError::fail(format!("{replica:?} is yielded to and does not wait")));
            };
            let found = world.nodes[node].containers.iter().find(|it| it.id == *victim).unwrap();
            prop_assert!(priority(&found.replica.deployment) < priority(&replica.deployment));
            prop_assert!(planner::is_claim(found.state));
        }
        // Once they have ended, and what is to be started runs, there is room.
        let mut after = world.clone();
        after.obey(&plan);
        for node in after.nodes.values_mut() {
            node.containers.retain(|it| {
                let lower = || {
                    let of = after_priority(&world, it);
                    of.is_some_and(|of| plan.placements.iter().any(|(id, placement)| {
                        matches!(placement, Placement::Awaits { .. }) && priority(&id.deployment) > of
                    }))
                };
                !(it.state == ContainerState::Stopping && lower())
            });
        }
        let then = after.plan();
        let first = plan.placements.iter().filter(|(_, it)| matches!(it, Placement::Awaits { .. }));
        if let Some((id, _)) = first.min_by_key(|(id, _)| (Reverse(priority(&id.deployment)), id.clone())) {
            // Or for another of that priority that could not come while they were there.
            let started = |other: &model::ReplicaId| matches!(then.placements[other], Placement::Start { .. });
            let instead = then.placements.replicas().any(|other| {
                started(&other) && priority(&other.deployment) >= priority(&id.deployment)
            });
            prop_assert!(started(&id) || instead, "{:?}", then.placements[&id]);
        }
    }

    #[test]
    fn what_has_no_place_has_a_reason_for_every_node(world in world()) {
        let plan = world.plan();
        let unplaced = plan.placements.iter().filter_map(|(id, placement)| match placement {
            Placement::Unplaced { reasons } => Some((id, reasons)),
            _ => None,
        });
        for (id, reasons) in plan.held_back.iter().map(|(id, reasons)| (id.clone(), reasons)).chain(unplaced) {
            let of = world.deployments.iter().find(|it| it.name == id.deployment).unwrap();
            match of.replicas.mode {
                model::Mode::Replicated => prop_assert!(reasons.keys().eq(world.nodes.keys())),
                model::Mode::Global => prop_assert_eq!(reasons.len(), 1),
            }
        }
    }

    #[test]
    fn planning_again_after_each_change_equals_planning_from_nothing(
        edits in prop::collection::vec(edit(), 1..60)
    ) {
        let mut world = World::new(2);
        let mut planner = Planner::new();
        let mut said: BTreeMap<NodeId, (String, u64)> = BTreeMap::new();
        for edit in &edits {
            apply(&mut world, edit);
            let mut view = world.view();
            // As records do: another version whenever a node says anything else.
            for (id, node) in &mut view.nodes {
                let words = format!(
                    "{:?}",
                    NodeView { alive: true, accepts_new: true, drains: false, ordinal: 0, ..node.clone() }
                );
                let (last, count) = said.entry(*id).or_default();
                if *last != words {
                    (*last, *count) = (words, *count + 1);
                }
                node.said = Some(RecordVersion { generation: 1, count: *count });
            }
            prop_assert_eq!(planner.plan(&view), &planner::plan(&view), "after {:?}", edit);
            let name = "web".parse().unwrap();
            let namespace = model::Name::default_namespace();
            prop_assert_eq!(
                planner.explain(&namespace, &name),
                planner::explain(&view, &namespace, &name)
            );
        }
    }

    #[test]
    fn the_order_of_duplicates_is_total_and_merging_them_commutes(
        raw in prop::collection::vec((any::<bool>(), 0..3_u64, 0..3_u8, 0..3_u8), 3)
    ) {
        let ranks: Vec<Rank> = raw
            .iter()
            .map(|(fits, claim, node, container)| Rank {
                fits: *fits,
                claim: *claim,
                node: node_id(*node),
                container: model::ContainerId::from_bytes([*container; 8]),
            })
            .collect();
        let [a, b, c] = [ranks[0], ranks[1], ranks[2]];
        prop_assert_eq!(a.max(b), b.max(a));
        prop_assert_eq!(a.max(b).max(c), a.max(b.max(c)));
        prop_assert_eq!(a == b, raw[0] == raw[1]);
        prop_assert!(a.max(b).fits == (a.fits || b.fits), "a wanted one is never beaten by another");
    }
}
