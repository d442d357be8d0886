//! What a cut would do, on clusters small enough to say what is right.
#![allow(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Capacity, Class, Deployment, EventId, Name};
use sim::Machine;
use sim::whatif::{NoAnswer, Placed, Question};

const LONG: Duration = Duration::from_secs(600);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn machine(of: &str, cpu_m: u64, label: Option<(&str, &str)>) -> Machine {
    Machine {
        name: name(of),
        capacity: Capacity { cpu_m, memory_b: 4 << 30, pids: 4_000, ..Capacity::default() },
        labels: label.map(|(key, value)| (key.parse().unwrap(), value.to_owned())).into_iter().collect(),
    }
}

fn deployment(of: &str, count: u32, cpu_m: u64) -> Deployment {
    let spec = sim::Spec::new(count);
    Deployment {
        namespace: Name::default_namespace(),
        name: name(of),
        incarnation: EventId::from_bytes([0; 32]),
        image: spec.image,
        replicas: model::ReplicasGroup {
            count,
            class: Class::Available,
            mode: model::Mode::Replicated,
            voters: vec![],
        },
        resources: model::ResourcesGroup { cpu_m, ..spec.resources },
        env: spec.env,
        ports: model::PortsGroup::default(),
        placement: spec.placement,
        restart: spec.restart,
        meta: model::MetaGroup::default(),
        update: model::UpdateGroup::default(),
        depends: model::DependsGroup::default(),
        job: None,
    }
}

fn question(machines: Vec<Machine>, deployments: Vec<Deployment>, islands: &[&[usize]]) -> Question {
    Question {
        machines,
        deployments,
        placed: Vec::new(),
        islands: islands.iter().map(|it| it.to_vec()).collect(),
        killed: Vec::new(),
        lasts: Duration::from_secs(60),
        heals: true,
        seed: 7,
    }
}

fn three() -> Vec<Machine> {
    ["a", "b", "c"].map(|it| machine(it, 4_000, None)).into()
}

#[test]
fn each_island_runs_all_and_the_heal_leaves_one_of_each() {
    let answer = question(three(), vec![deployment("web", 6, 100)], &[&[0], &[1, 2]]).answer().unwrap();
    assert_eq!((answer.before.wanted, answer.before.runs.iter().map(Vec::len).sum::<usize>()), (6, 6));
    for island in &answer.islands {
        assert_eq!(island.runs.iter().map(Vec::len).sum::<usize>(), 6, "{island:?}");
        assert!(island.settled.unwrap() < Duration::from_secs(5), "{island:?}");
        assert!(island.missing.is_empty() && island.stopped.is_empty(), "{island:?}");
    }
    assert_eq!(answer.islands[0].started.len() + answer.islands[1].started.len(), 6);
    assert_eq!(answer.twice.len(), 6);
    for it in &answer.twice {
        assert!(it.lasted > Duration::from_secs(55) && it.lasted < Duration::from_secs(65), "{it:?}");
        assert_eq!(it.machines.len(), 2, "{it:?}");
    }
    let heal = answer.heal.unwrap();
    assert_eq!((heal.stopped.len(), heal.started.len()), (6, 0), "{heal:?}");
    assert!(heal.once.unwrap() < Duration::from_secs(3), "{heal:?}");
    assert!(heal.stopped.iter().all(|it| it.stays.len() == 1 && it.stays[0] != it.machine), "{heal:?}");
    assert_eq!(heal.runs.iter().map(Vec::len).sum::<usize>(), 6);
}

#[test]
fn what_finds_no_room_is_named_with_the_planners_numbers() {
    // Each machine holds two; an island of one cannot hold all six.
    let machines = ["a", "b", "c"].map(|it| machine(it, 1_000, None)).into();
    let answer = question(machines, vec![deployment("web", 6, 500)], &[&[0], &[1, 2]]).answer().unwrap();
    let missing: Vec<usize> = answer.islands.iter().map(|it| it.missing.len()).collect();
    assert_eq!(missing, [4, 2]);
    let reasons: BTreeMap<usize, String> = answer.islands[0].missing[0].reasons.iter().cloned().collect();
    assert_eq!(reasons[&0], "cpu: 0m free, 500m asked");
    assert_eq!((reasons[&1].as_str(), reasons[&2].as_str()), ("down", "down"));
    assert!(answer.twice.is_empty(), "nobody had room for a second copy");
    let heal = answer.heal.unwrap();
    assert_eq!((heal.stopped.len(), heal.started.len(), heal.missing.len()), (0, 0, 0));
}

#[test]
fn capacities_and_labels_are_those_of_each_machine() {
    let machines = vec![
        machine("big", 8_000, Some(("disk", "ssd"))),
        machine("small", 300, Some(("disk", "ssd"))),
        machine("other", 8_000, None),
    ];
    let mut web = deployment("web", 4, 200);
    web.placement.labels.insert("disk".parse().unwrap(), "ssd".to_owned());
    let answer = question(machines, vec![web], &[&[0], &[1, 2]]).answer().unwrap();
    let counts: Vec<usize> = answer.before.runs.iter().map(Vec::len).collect();
    assert_eq!((counts[0] + counts[1], counts[2]), (4, 0));
    assert!(counts[1] <= 1, "small has room for one: {counts:?}");
    let island = &answer.islands[1];
    assert_eq!(island.runs[0].len(), 1);
    assert_eq!(island.missing.len(), 3);
    let reasons: BTreeMap<usize, String> = island.missing[0].reasons.iter().cloned().collect();
    assert_eq!(reasons[&1], "cpu: 100m free, 200m asked");
    assert_eq!(reasons[&2], "label: no disk, disk=ssd asked");
}

#[test]
fn what_runs_already_stays_where_it_is() {
    let mut it = question(three(), vec![deployment("web", 3, 100)], &[&[0, 1, 2]]);
    // The planner would spread them.
    it.placed = (0..3)
        .map(|ordinal| Placed {
            namespace: Name::default_namespace(),
            name: name("web"),
            ordinal,
            machine: 2,
        })
        .collect();
    // In a simulation every machine holds every image, whatever its digest.
    it.deployments[0].image.digest = model::Digest::from_bytes([0xab; 32]);
    it.killed = vec![0];
    let answer = it.answer().unwrap();
    assert_eq!(answer.before.runs.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 3]);
    assert!(answer.islands[0].started.is_empty() && answer.islands[0].settled.is_none(), "{answer:?}");
    assert_eq!(answer.heal.unwrap().once, Some(Duration::ZERO));
    it.islands = vec![vec![0, 1], vec![2]];
    it.killed = vec![];
    assert_eq!(it.answer().unwrap().twice.len(), 3);
}

#[test]
fn a_machine_that_is_killed_is_replaced_and_stays_off() {
    let mut it = question(three(), vec![deployment("web", 6, 100)], &[&[0, 1, 2]]);
    it.killed = vec![1];
    let answer = it.answer().unwrap();
    let island = &answer.islands[0];
    assert_eq!(island.runs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 3], "{island:?}");
    assert_eq!((island.started.len(), island.stopped.len()), (2, 0), "{island:?}");
    assert!(answer.twice.is_empty(), "{answer:?}");
    assert_eq!(answer.heal.unwrap().runs[1].len(), 0);
}

#[test]
fn a_long_cut_is_answered_twice_alike() {
    let mut it = question(three(), vec![deployment("web", 3, 100)], &[&[0], &[1, 2]]);
    it.lasts = LONG;
    let one = it.answer().unwrap();
    assert_eq!(one.over_at.since(one.cut_at), LONG);
    assert!(one.twice.iter().all(|it| it.lasted + Duration::from_secs(5) > LONG), "{:?}", one.twice);
    assert_eq!(format!("{one:?}"), format!("{:?}", it.answer().unwrap()));
}

#[test]
fn a_deployment_that_no_peer_accepts_is_named() {
    let mut web = deployment("web", 3, 100);
    web.env.vars = (0..256).map(|n| (format!("A{n}"), "x".repeat(1_000))).collect();
    let error = question(three(), vec![web], &[&[0], &[1, 2]]).answer().unwrap_err();
    assert!(matches!(error, NoAnswer::Refused { .. }), "{error:?}");
    assert_eq!(error.to_string(), "deployment default/web would not be accepted");
}
