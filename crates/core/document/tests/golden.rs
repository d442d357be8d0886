//! The final form of version 1: bytes, ids, change hashes and heads of a fixed history.
//!
//! If this test fails, events that are signed and on disks somewhere have changed their meaning.
//! Never edit the golden file to make it pass; rules that differ need another event version.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;

use std::fmt::Write as _;

use common::*;
use data_encoding::HEXLOWER;
use document::event::{Change, Kind, Role, Schedule, SignedEvent, TokenRevoke, UserAdd, Verb, decode, id_of};
use document::{Documents, Outcome};
use model::{DocId, EventId};

const GOLDEN: &str = include_str!("golden/v1.txt");
const GOLDEN_SCHEDULES: &str = include_str!("golden/v1-node-schedule.txt");

/// Every kind, every verb, forks and void events.
fn history() -> (World, Vec<Vec<u8>>) {
    let world = World::new();
    let mut documents = world.documents();
    let mut events = world.first.clone();
    let (token, rock, late) = (Key::new(100), Key::new(60), Key::new(61));
    let cluster: Vec<(&Key, Kind)> = vec![
        (&world.admin, World::token(&token, 1)),
        (&rock, world.admit(&token, &rock, "rock-2")),
        (&late, world.admit(&token, &late, "rock-3")),
        (&world.recovery, Kind::UserAdd(UserAdd { name: name("zoe"), key: late.user(), role: Role::Admin })),
        (&world.admin, Kind::TokenRevoke(TokenRevoke { id: token.token() })),
        (&world.admin, World::remove(&rock)),
    ];
    for (key, kind) in cluster {
        let event = world.cluster_at_heads(key, &documents, kind);
        documents.insert(&event).unwrap();
        events.push(event);
    }
    let mut step = |deps: Option<Vec<EventId>>, kind: Kind| {
        let deps = deps.unwrap_or_else(|| documents.heads(&web()));
        let auth = documents.heads(&DocId::Cluster);
        let event = world.change_event(&world.deploy, &web(), auth, deps, kind);
        documents.insert(&event).unwrap();
        let id = id_of(&event);
        events.push(event);
        id
    };
    let created = step(None, apply(vec![create("web", whole(1)), create("api", replicas(2))]));
    let scaled = step(None, change(Verb::Scale, vec![set("web", created, replicas(3))]));
    step(Some(vec![created]), change(Verb::Scale, vec![set("web", created, replicas(4))]));
    step(Some(vec![]), apply(vec![create("web", whole(9))]));
    step(None, apply(vec![create("web", whole(8))]));
    step(None, change(Verb::Resolve, vec![set("web", created, replicas(3))]));
    let restart = groups(&[("restart", r#"{"policy":"always","token":"1"}"#), ("x-new", r#"{"é":"\n"}"#)]);
    step(None, change(Verb::Restart, vec![set("web", created, restart)]));
    let undo =
        Change { verb: Verb::Undo, undoes: Some(scaled), edits: vec![set("web", created, replicas(1))] };
    step(None, Kind::Change(undo));
    step(None, change(Verb::Delete, vec![delete("api", created)]));
    step(None, apply(vec![set("api", created, replicas(5))]));
    (world, events)
}

/// What was added to version 1 before the first release, on top of the first history's world.
fn schedules() -> (World, Vec<Vec<u8>>) {
    let world = World::new();
    let mut documents = world.documents();
    let mut events = world.first.clone();
    let said = |schedule, deadline_s| World::schedule(&world.node, schedule, deadline_s);
    let heads = documents.heads(&DocId::Cluster);
    for (key, kind) in [
        (&world.admin, said(Schedule::Cordoned, None)),
        (&world.recovery, said(Schedule::Drained, Some(600))),
        (&world.deploy, said(Schedule::Normal, None)),
    ] {
        events.push(world.cluster_event(key, heads.clone(), kind));
    }
    for event in &events[world.first.len()..] {
        documents.insert(event).unwrap();
    }
    events.push(world.cluster_at_heads(&world.admin, &documents, said(Schedule::Normal, None)));
    (world, events)
}

fn describe(documents: &mut Documents, events: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for event in events {
        let inserted = documents.insert(event).unwrap();
        writeln!(text, "event {}", HEXLOWER.encode(event)).unwrap();
        writeln!(text, "id {} {}", inserted.id, inserted.doc).unwrap();
        match inserted.outcome {
            Outcome::Applied { change, .. } => writeln!(text, "change {}", HEXLOWER.encode(&change)).unwrap(),
            Outcome::Void { reason } => writeln!(text, "void {reason:?}").unwrap(),
            Outcome::Known => panic!("each event is new"),
        }
    }
    for doc in documents.docs() {
        writeln!(
            text,
            "heads {doc} {:?}",
            documents.heads(&doc).iter().map(ToString::to_string).collect::<Vec<_>>()
        )
        .unwrap();
        for (key, values) in automerge_content(&documents.save(&doc).unwrap()) {
            writeln!(text, "value {doc} {key} {values:?}").unwrap();
        }
    }
    text
}

#[test]
fn a_fixed_history_has_the_bytes_ids_changes_and_state_that_it_always_had() {
    let (world, events) = history();
    let text = describe(&mut Documents::new(world.cluster), &events);
    assert!(text == GOLDEN, "the history is now:\n-----\n{text}-----");
}

#[test]
fn what_is_said_of_a_nodes_work_has_the_bytes_ids_changes_and_state_that_it_always_had() {
    let (world, events) = schedules();
    let text = describe(&mut Documents::new(world.cluster), &events);
    assert!(text == GOLDEN_SCHEDULES, "the history is now:\n-----\n{text}-----");
}

#[test]
fn the_limits_that_refusals_and_verdicts_rest_on_are_what_they_always_were() {
    use document::event::{
        ADDRESS_BYTES_MAX, ADDRESSES_MAX, GROUP_DEPTH_MAX, GROUP_NAME_BYTES_MAX, GROUPS_PER_EDIT_MAX,
    };
    use model::limits::{
        DEPLOYMENTS_PER_NAMESPACE_MAX, EVENT_BYTES_MAX, EVENT_DEPS_MAX, EVENT_EDITS_MAX, GROUP_BYTES_MAX,
        NAME_BYTES_MAX, NODES_MAX,
    };
    assert_eq!((EVENT_BYTES_MAX, GROUP_BYTES_MAX, NAME_BYTES_MAX), (65_536, 32_768, 63));
    assert_eq!((EVENT_DEPS_MAX, EVENT_EDITS_MAX), (64, 64));
    assert_eq!((DEPLOYMENTS_PER_NAMESPACE_MAX, NODES_MAX), (500, 1_000));
    assert_eq!((ADDRESSES_MAX, ADDRESS_BYTES_MAX), (8, 261));
    assert_eq!((GROUP_DEPTH_MAX, GROUP_NAME_BYTES_MAX, GROUPS_PER_EDIT_MAX), (32, 32, 32));
}

#[test]
fn the_golden_bytes_decode_to_what_signs_to_them_again() {
    let (world, _) = history();
    let mut documents = Documents::new(world.cluster);
    let keys = [1, 2, 3, 4, 60, 61].map(Key::new);
    let mut count = 0;
    for line in GOLDEN.lines().filter_map(|line| line.strip_prefix("event ")) {
        let bytes = HEXLOWER.decode(line.as_bytes()).unwrap();
        let decoded = decode(&bytes).unwrap();
        let key = keys.iter().find(|key| key.public() == *decoded.body.author.key()).unwrap();
        assert_eq!(SignedEvent::sign(&decoded.body, |bytes| key.sign(bytes)).encode(), bytes);
        documents.insert(&bytes).unwrap();
        count += 1;
    }
    assert_eq!(count, 18);
    assert_eq!(documents.voids(), 3);
}
