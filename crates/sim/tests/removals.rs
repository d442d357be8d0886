//! Nodes that are removed while nobody can tell them, and what they do when somebody can.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use document::Documents;
use document::event::decode;
use sim::{Author, Cluster, HostState, Settings, Spec};

/// From the first contact with any member.
const SOON: Duration = Duration::from_secs(2);

fn with_web(nodes: usize, replicas: u32) -> Cluster {
    let mut cluster = Cluster::new(11, nodes, Settings::default());
    cluster.run_for(Duration::from_secs(3));
    cluster.apply(0, "web", &Spec::new(replicas));
    cluster.run_for(Duration::from_secs(4));
    cluster
}

#[track_caller]
fn expect(
    cluster: &mut Cluster,
    within: Duration,
    what: &str,
    holds: impl FnMut(&Cluster) -> bool,
) -> Duration {
    match cluster.run_until(within, holds) {
        Some(took) => took,
        None => panic!("not within {within:?}: {what}\n{}", cluster.trace().join("\n")),
    }
}

/// Whether a peer knows that its node was removed, says by whom, and runs nothing.
fn knows(cluster: &Cluster, host: usize) -> bool {
    cluster.node(host).is_some_and(|node| {
        node.is_removed() && node.removal_of(&node.config().me).is_some_and(|it| it.by == "alice")
    }) && cluster.containers(host).count() == 0
}

fn said(cluster: &Cluster, host: usize, what: &str) -> usize {
    let begins = format!(" n{} {what}", host + 1);
    cluster.trace().iter().filter(|line| line.contains(&begins)).count()
}

#[test]
fn a_node_that_was_removed_while_it_was_off_stops_within_two_seconds_of_contact_and_for_good() {
    let mut cluster = with_web(3, 6);
    cluster.power_off(2);
    expect(&mut cluster, Duration::from_secs(10), "two run six", |c| c.runs_once(&[0, 1], "web", 6));
    cluster.remove_node(0, 2);
    cluster.run_for(Duration::from_secs(3_600));
    let before = cluster.processes();
    // Alone it cannot know, and runs its last share.
    cluster.split(&[&[0, 1], &[2]]);
    cluster.start(2);
    expect(&mut cluster, SOON, "its last share", |c| c.running(2).count() > 0);
    cluster.run_for(Duration::from_secs(30));
    assert!(!cluster.node(2).unwrap().is_removed());
    // One member is enough.
    cluster.split(&[&[1, 2], &[0]]);
    let took = expect(&mut cluster, SOON, "it knows and runs nothing", |c| knows(c, 2));
    println!("{took:?} from contact");
    assert_eq!(said(&cluster, 2, "removed: "), 1);
    // Never again: not later, not after another start, not cut off.
    cluster.heal();
    cluster.run_for(Duration::from_secs(60));
    assert!(knows(&cluster, 2));
    cluster.power_off(2);
    cluster.start(2);
    cluster.run_for(Duration::from_secs(60));
    assert!(knows(&cluster, 2) && cluster.node(2).unwrap().linked().count() == 0);
    assert!(before.iter().all(|it| cluster.processes().contains(it)), "the others were touched");
    assert!(cluster.agreed(&[0, 1]) && cluster.violations().is_empty());
}

#[test]
fn a_removed_node_makes_no_further_call_and_takes_no_event() {
    let mut cluster = with_web(3, 3);
    cluster.split(&[&[0, 1], &[2]]);
    cluster.remove_node(0, 2);
    cluster.run_for(Duration::from_secs(5));
    cluster.heal();
    expect(&mut cluster, SOON, "it knows", |c| knows(c, 2));
    let frames = cluster.frames;
    let events = cluster.node(2).unwrap().documents().docs().len();
    cluster.split(&[&[0, 1], &[2]]);
    cluster.run_for(Duration::from_secs(30));
    let quiet = cluster.frames - frames;
    cluster.heal();
    let frames = cluster.frames;
    cluster.run_for(Duration::from_secs(30));
    assert!(cluster.frames - frames <= quiet + 20, "it is spoken to again");
    let command = cluster.set(2, false, "web", "replicas", r#"{"count":9,"class":"available"}"#);
    let Some(node::Outcome::Refused { code: "removed", reason }) = cluster.outcome(command) else {
        panic!("{:?}", cluster.outcome(command));
    };
    assert!(reason.contains("by alice at 2026-11-18T"), "{reason}");
    assert_eq!(cluster.node(2).unwrap().documents().docs().len(), events);
}

#[test]
fn a_node_that_was_removed_together_with_another_learns_it_from_whoever_it_meets_first() {
    // n3 and n4 are cut off together; n4 alone was removed.
    let mut cluster = with_web(4, 8);
    cluster.split(&[&[0, 1], &[2, 3]]);
    cluster.run_for(Duration::from_secs(5));
    cluster.remove_node(0, 3);
    cluster.run_for(Duration::from_secs(20));
    assert!(cluster.running(3).count() > 0, "it cannot know");
    cluster.guard_copies();
    cluster.heal();
    expect(&mut cluster, SOON, "n4 knows", |c| knows(c, 3));
    expect(&mut cluster, Duration::from_secs(10), "three run eight", |c| {
        c.agreed(&[0, 1, 2]) && c.runs_once(&[0, 1, 2], "web", 8)
    });
    assert_eq!(cluster.lost_copies().count(), 0, "{}", cluster.trace().join("\n"));

    // Both were removed, and only one of them is in reach of a member: it tells the other.
    let mut cluster = with_web(4, 8);
    cluster.split(&[&[0, 1], &[2, 3]]);
    cluster.run_for(Duration::from_secs(5));
    cluster.remove_node(0, 2);
    cluster.remove_node(0, 3);
    cluster.run_for(Duration::from_secs(20));
    cluster.split(&[&[0, 1, 2], &[3]]);
    expect(&mut cluster, SOON, "n3 knows", |c| knows(c, 2));
    cluster.split(&[&[0, 1], &[2, 3]]);
    cluster.run_for(Duration::from_secs(10));
    cluster.heal();
    expect(&mut cluster, SOON, "n4 knows", |c| knows(c, 3));
    expect(&mut cluster, Duration::from_secs(10), "two run eight", |c| c.runs_once(&[0, 1], "web", 8));
}

#[test]
fn a_farewell_that_proves_nothing_changes_nothing() {
    let mut cluster = with_web(3, 6);
    let ids: Vec<_> = (0..3).map(|host| cluster.id(host)).collect();
    let log = cluster.node(0).unwrap().documents().since(&model::DocId::Cluster, &[], usize::MAX).0;
    let mut documents = Documents::new(cluster.node(0).unwrap().documents().cluster());
    documents.insert_all(&log);
    // Built on an event that n3 has not got and is not given.
    let unknown = cluster.alice.user_add(&documents, "carol", [3; 32]);
    let mut later = Documents::new(documents.cluster());
    assert!(later.insert_all(log.iter().chain([&unknown])).iter().all(Result::is_ok));
    let lacking = cluster.alice.node_remove(&later, ids[2], 0);
    let other = cluster.alice.node_remove(&documents, ids[1], 0);
    let removal = cluster.alice.node_remove(&documents, ids[2], 0);
    documents.insert(&removal).unwrap();
    let (farewell, cut) = documents.with_past(Cluster::event_id(&removal), usize::MAX);
    assert!(!cut && farewell.last() == Some(&removal) && farewell.len() == log.len() + 1);

    let mut eve = Author::new([9; 32]);
    let forged = eve.node_remove(&documents, ids[2], 0);
    let mut bent = removal.clone();
    *bent.last_mut().unwrap() ^= 1;
    // Of another cluster with the very same nodes' keys, but for its genesis.
    let foreign = Cluster::new(12, 3, Settings::default());
    let foreign_log = foreign.node(0).unwrap().documents().since(&model::DocId::Cluster, &[], usize::MAX).0;

    let with = |last: &Vec<u8>| [log.clone(), vec![last.clone()]].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("nothing", vec![]),
        ("noise", vec![b"noise".to_vec(); 3]),
        ("signed by nobody", with(&forged)),
        ("a bit turned", with(&bent)),
        ("of another cluster", foreign_log),
        ("of another node", with(&other)),
        ("without its end", log.clone()),
        ("without what it builds on", with(&lacking)),
        ("noise in its middle", vec![b"noise".to_vec(), lacking]),
    ];
    let before = cluster.processes();
    for (what, events) in cases {
        cluster.say_farewell(2, ids[0], events);
        cluster.run_for(Duration::from_secs(1));
        let node = cluster.node(2).unwrap();
        assert!(!node.is_removed() && node.documents().events(&model::DocId::Cluster) == log.len(), "{what}");
    }
    // The true one, from somebody who is no member.
    cluster.say_farewell(2, model::NodeId::from_bytes([5; 32]), farewell.clone());
    cluster.run_for(Duration::from_secs(5));
    assert!(!cluster.node(2).unwrap().is_removed());
    assert_eq!(before, cluster.processes());
    assert!(cluster.agreed(&[0, 1, 2]) && cluster.state(2) == HostState::Up);
    // The true one is believed, and told on: those that had not heard of it know it too.
    cluster.say_farewell(2, ids[0], farewell);
    expect(&mut cluster, SOON, "it knows", |c| knows(c, 2));
    expect(&mut cluster, Duration::from_secs(10), "two run six", |c| c.runs_once(&[0, 1], "web", 6));
}

#[test]
fn a_removal_that_the_disk_does_not_take_stops_nothing_and_is_learned_again() {
    let mut cluster = with_web(3, 6);
    cluster.split(&[&[0, 1], &[2]]);
    cluster.remove_node(0, 2);
    cluster.run_for(Duration::from_secs(10));
    let of_n3 = |cluster: &Cluster| -> Vec<_> {
        cluster.processes().into_iter().filter(|(host, ..)| *host == 2).collect()
    };
    let before = of_n3(&cluster);
    cluster.disk_full(2, true);
    cluster.heal();
    cluster.run_for(Duration::from_secs(20));
    assert!(!cluster.node(2).unwrap().is_removed() && of_n3(&cluster) == before);
    cluster.disk_full(2, false);
    // It calls twice a second, and each member tells it every five seconds at most.
    expect(&mut cluster, Duration::from_secs(8), "it knows", |c| knows(c, 2));
}

#[test]
fn a_farewell_that_is_too_large_holds_the_newest_and_the_removal() {
    let cluster = with_web(3, 1);
    let documents = cluster.node(0).unwrap().documents();
    let log = documents.since(&model::DocId::Cluster, &[], usize::MAX).0;
    let last = Cluster::event_id(log.last().unwrap());
    let (all, cut) = documents.with_past(last, usize::MAX);
    assert!(!cut && all == log, "the founding is a chain");
    let size: usize = log[2..].iter().map(Vec::len).sum();
    assert_eq!(documents.with_past(last, size), (log[2..].to_vec(), true));
    assert_eq!(documents.with_past(last, size + 1).0.len(), log.len() - 2);
    assert_eq!(documents.with_past(last, 0), (vec![log.last().unwrap().clone()], true));
    assert_eq!(documents.with_past(Cluster::event_id(b"unknown"), 9), (vec![], false));
    assert!(log.iter().all(|event| decode(event).is_ok()));
}
