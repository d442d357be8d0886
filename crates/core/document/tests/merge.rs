//! Merging: the same events give the same everything, whatever the order of arrival.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use document::event::{Change, Kind, Role, TokenRevoke, UserAdd, Verb, id_of};
use document::{Documents, Scope};
use model::{DocId, EventId, Name};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use sha2::{Digest as _, Sha256};

/// Two documents with the same beginnings and one deployment, ready to be set apart.
fn split(world: &World) -> (Documents, Documents, EventId) {
    let mut left = world.documents();
    let event = world.at_heads(&left, apply(vec![create("web", whole(1))]));
    let created = put(&mut left, &event);
    let mut right = world.documents();
    put(&mut right, &event);
    (left, right, created)
}

fn heal(left: &mut Documents, right: &mut Documents) {
    for doc in left.docs().into_iter().chain(right.docs()).collect::<BTreeSet<_>>() {
        let (to_right, _) = left.since(&doc, &right.heads(&doc), usize::MAX);
        let (to_left, _) = right.since(&doc, &left.heads(&doc), usize::MAX);
        deliver(right, &to_right);
        deliver(left, &to_left);
        assert_eq!(left.heads(&doc), right.heads(&doc));
    }
}

#[test]
fn different_groups_merge_without_a_conflict() {
    let world = World::new();
    let (mut left, mut right, created) = split(&world);
    let event = world.at_heads(&left, apply(vec![set("web", created, image(2))]));
    put(&mut left, &event);
    let event = world.at_heads(&right, change(Verb::Scale, vec![set("web", created, replicas(9))]));
    put(&mut right, &event);
    heal(&mut left, &mut right);
    for documents in [&left, &right] {
        let view = documents.get(&name("default"), &name("web")).unwrap();
        let mut wanted = image(2);
        wanted.extend(replicas(9));
        assert_eq!(view.groups, wanted);
        assert!(view.conflicts.is_empty());
        assert_eq!(view.deployment.as_ref().unwrap().replicas.count, 9);
        assert_eq!(documents.revision_number(&name("default"), &name("web"), created), 2);
    }
}

#[test]
fn one_group_changed_on_both_sides_is_a_conflict_until_somebody_settles_it() {
    let world = World::new();
    let (mut left, mut right, created) = split(&world);
    let event = world.at_heads(&left, apply(vec![set("web", created, replicas(2))]));
    let on_left = put(&mut left, &event);
    // Two events on the right: the longer history has the greater counter, and wins.
    let event = world.at_heads(&right, apply(vec![set("web", created, replicas(3))]));
    put(&mut right, &event);
    let event = world.at_heads(&right, apply(vec![set("web", created, replicas(4))]));
    let on_right = put(&mut right, &event);
    heal(&mut left, &mut right);
    for documents in [&left, &right] {
        let view = documents.get(&name("default"), &name("web")).unwrap();
        assert_eq!(view.groups["replicas"], replicas(4)["replicas"]);
        assert_eq!(view.written_by["replicas"], on_right);
        let [conflict] = view.conflicts.as_slice() else { panic!("{:?}", view.conflicts) };
        assert_eq!(conflict.scope, Scope::Group("replicas".to_owned()));
        assert_eq!(conflict.winner, on_right);
        assert_eq!(conflict.sides.iter().map(|side| side.event).collect::<Vec<_>>(), [on_right, on_left]);
        assert_eq!(conflict.sides[1].value, replicas(2)["replicas"]);
    }
    let event = world.at_heads(&left, change(Verb::Resolve, vec![set("web", created, replicas(2))]));
    put(&mut left, &event);
    let view = left.get(&name("default"), &name("web")).unwrap();
    assert_eq!(view.groups["replicas"], replicas(2)["replicas"]);
    assert!(view.conflicts.is_empty());
}

#[test]
fn the_same_value_on_both_sides_is_no_conflict() {
    let world = World::new();
    let (mut left, mut right, created) = split(&world);
    for documents in [&mut left, &mut right] {
        let event = world.at_heads(documents, apply(vec![set("web", created, replicas(2))]));
        put(documents, &event);
    }
    heal(&mut left, &mut right);
    assert!(left.get(&name("default"), &name("web")).unwrap().conflicts.is_empty());
    assert_eq!(left.heads(&web()).len(), 2);
}

#[test]
fn two_creations_of_one_name_conflict_as_wholes_and_deleting_the_loser_settles_it() {
    let world = World::new();
    let mut left = world.documents();
    let mut right = world.documents();
    let event = world.at_heads(&left, apply(vec![create("api", whole(1))]));
    put(&mut left, &event);
    let event = world.at_heads(&left, apply(vec![create("web", whole(2))]));
    let longer = put(&mut left, &event);
    let event = world.at_heads(&right, apply(vec![create("web", whole(3))]));
    let loser = put(&mut right, &event);
    heal(&mut left, &mut right);
    for documents in [&left, &right] {
        let view = documents.get(&name("default"), &name("web")).unwrap();
        assert_eq!((view.incarnation, &view.groups), (longer, &whole(2)), "no group of the other blends in");
        let [conflict] = view.conflicts.as_slice() else { panic!("{:?}", view.conflicts) };
        assert_eq!((&conflict.scope, conflict.winner), (&Scope::Whole, longer));
        assert_eq!(conflict.sides[1].incarnation, loser);
        assert_eq!(conflict.sides[1].value, serde_json::to_string(&whole(3)).unwrap());
    }
    let event = world.at_heads(&left, change(Verb::Resolve, vec![delete("web", loser)]));
    put(&mut left, &event);
    let view = left.get(&name("default"), &name("web")).unwrap();
    assert_eq!((view.incarnation, view.conflicts.len()), (longer, 0));
    let event = world.at_heads(&left, change(Verb::Delete, vec![delete("web", longer)]));
    put(&mut left, &event);
    assert!(left.get(&name("default"), &name("web")).is_none());
}

#[test]
fn a_group_of_a_newer_release_merges_unharmed_and_starts_nothing() {
    let world = World::new();
    let (mut left, mut right, created) = split(&world);
    let volumes = groups(&[("volumes", r#"{"data":{"path":"/srv","ro":false}}"#)]);
    let event = world.at_heads(&left, apply(vec![set("web", created, volumes.clone())]));
    put(&mut left, &event);
    let event = world.at_heads(&right, apply(vec![set("web", created, replicas(3))]));
    put(&mut right, &event);
    heal(&mut left, &mut right);
    let view = right.get(&name("default"), &name("web")).unwrap();
    assert_eq!(view.groups["volumes"], volumes["volumes"]);
    assert_eq!(view.groups["replicas"], replicas(3)["replicas"]);
    assert!(view.deployment.is_err());
}

#[test]
fn a_merge_that_does_not_validate_is_shown_with_its_reason() {
    let world = World::new();
    let (mut left, _, created) = split(&world);
    let absurd = groups(&[("replicas", r#"{"count":1000000000}"#)]);
    let event = world.at_heads(&left, apply(vec![set("web", created, absurd)]));
    put(&mut left, &event);
    let view = left.get(&name("default"), &name("web")).unwrap();
    let error = view.deployment.as_ref().unwrap_err().to_string();
    assert_eq!(error, "replicas: 1000000000 asked, the limit is 10000");
}

#[test]
fn an_event_that_changes_nothing_is_an_event_all_the_same() {
    let world = World::new();
    let (mut left, _, created) = split(&world);
    let event = world.at_heads(&left, apply(vec![set("web", created, whole(1))]));
    let id = put(&mut left, &event);
    assert_eq!(left.heads(&web()), [id]);
    assert_eq!(left.history(&web(), None).len(), 2);
    assert_eq!(left.revision_number(&name("default"), &name("web"), created), 1, "the template is the same");
}

#[test]
fn the_history_says_who_changed_what_from_which_value_to_which() {
    let world = World::new();
    let (mut left, _, created) = split(&world);
    let event = world.at_heads(&left, change(Verb::Scale, vec![set("web", created, replicas(5))]));
    let scaled = put(&mut left, &event);
    let event = world.at_heads(&left, apply(vec![set("web", created, image(2)), create("api", whole(7))]));
    let upgraded = put(&mut left, &event);
    let web_name = name("web");
    let history = left.history(&web(), Some(&web_name));
    assert_eq!(history.iter().map(|item| item.id).collect::<Vec<_>>(), [created, scaled, upgraded]);
    assert_eq!(history.iter().map(|item| item.verb).collect::<Vec<_>>(), ["apply", "scale", "apply"]);
    assert_eq!(history[1].author_name.as_deref(), Some("dana"));
    let [edit] = history[1].summary.as_slice() else { panic!("one edit") };
    assert_eq!(edit.groups[0].before.as_ref(), Some(&replicas(1)["replicas"]));
    assert_eq!(edit.groups[0].after, replicas(5)["replicas"]);
    assert_eq!(history[0].summary[0].groups[0].before, None);
    assert_eq!(history[2].summary.len(), 1, "the edit of the other name is not about this one");
    assert_eq!(left.history(&web(), None)[2].summary.len(), 2);
    assert_eq!(left.history(&web(), Some(&name("api"))).len(), 1);
    assert_eq!(left.history(&DocId::Cluster, None)[0].author_name.as_deref(), Some("ada"));

    assert_eq!(left.revisions(&name("default"), &web_name, created), [created, upgraded]);
    assert_eq!(left.groups_at(&name("default"), &web_name, created, created), Some(whole(1)));
    let mut wanted = whole(1);
    wanted.extend(replicas(5));
    assert_eq!(left.groups_at(&name("default"), &web_name, created, scaled), Some(wanted));
    assert_eq!(left.groups_at(&name("default"), &web_name, upgraded, upgraded), None);
}

#[test]
fn since_sends_what_is_missing_in_pieces_that_can_be_taken_in_at_once() {
    let world = World::new();
    let (mut left, mut right, created) = split(&world);
    for count in 2..40 {
        let event = world.at_heads(&left, apply(vec![set("web", created, replicas(count))]));
        put(&mut left, &event);
    }
    let mut rounds = 0;
    loop {
        let (events, more) = left.since(&web(), &right.heads(&web()), 4_000);
        rounds += 1;
        assert!(events.iter().map(Vec::len).sum::<usize>() <= 4_000);
        for inserted in right.insert_all(&events) {
            assert_applied(&inserted.unwrap());
        }
        if !more {
            break;
        }
    }
    assert!(rounds > 1);
    assert_eq!(left.heads(&web()), right.heads(&web()));
    let (one, more) = left.since(&web(), &[], 1);
    assert_eq!((one.len(), more), (1, true), "a limit below one event sends one");
    let (none, more) = left.since(&web(), &left.heads(&web()), 4_000);
    assert_eq!((none.len(), more), (0, false));
    let samples = left.samples(&web());
    assert_eq!(samples[0], left.heads(&web())[0]);
    assert_eq!(samples.last(), Some(&created));
    assert_eq!(samples.len(), 8, "the head, 1, 2, 4, 8, 16 and 32 back, the first: {samples:?}");
}

#[test]
fn a_saved_document_carries_every_event_in_the_change_that_it_made() {
    let world = World::new();
    let (mut left, _, created) = split(&world);
    for count in 2..6 {
        let event = world.at_heads(&left, apply(vec![set("web", created, replicas(count))]));
        put(&mut left, &event);
    }
    for doc in left.docs() {
        let loaded = automerge::Automerge::load(&left.save(&doc).unwrap()).unwrap();
        let changes = loaded.get_changes(&[]);
        assert_eq!(changes.len(), left.events(&doc) + 1);
        let wanted = format!("skerry-document-v1 {} {doc} epoch 0", world.cluster);
        assert_eq!(changes[0].message(), Some(wanted.as_str()));
        let max_op: BTreeMap<_, _> = changes.iter().map(|change| (change.hash(), change.max_op())).collect();
        assert_eq!(max_op[&changes[0].hash()], 64);
        for change in &changes[1..] {
            let (sig, text) = change.message().unwrap().split_at(86);
            let stored =
                [&data_encoding::BASE64_NOPAD.decode(sig.as_bytes()).unwrap(), text.as_bytes()].concat();
            let id = document::event::decode(&stored).unwrap().id;
            assert_eq!(left.change_hash(id), Some(change.hash().0));
            assert_eq!((change.seq(), change.timestamp()), (1, 0));
            // The scheme, computed here once more.
            let base = change.deps().iter().map(|dep| max_op[dep]).max().unwrap();
            assert_eq!(change.start_op().get(), base + 1);
            let mut actor = u32::try_from(base + 1).unwrap().to_be_bytes().to_vec();
            let hash = Sha256::digest([&id.as_bytes()[..], &[0; 8]].concat());
            actor.extend_from_slice(&hash[..12]);
            assert_eq!(change.actor_id().to_bytes(), actor);
        }
    }
}

#[test]
fn more_heads_than_an_event_can_name_are_brought_together_by_two() {
    let world = World::new();
    let (mut left, _, created) = split(&world);
    let behind = left.heads(&web());
    let auth = left.heads(&DocId::Cluster);
    for count in 0..70 {
        let kind = apply(vec![set("web", created, replicas(count))]);
        let event = world.change_event(&world.deploy, &web(), auth.clone(), behind.clone(), kind);
        put(&mut left, &event);
    }
    assert_eq!((left.heads(&web()).len(), left.heads_to_name(&web()).len()), (70, 64));
    for wanted in [7, 1] {
        let kind = apply(vec![set("web", created, replicas(7))]);
        let deps = left.heads_to_name(&web());
        let event = world.change_event(&world.deploy, &web(), auth.clone(), deps, kind);
        put(&mut left, &event);
        assert_eq!(left.heads(&web()).len(), wanted);
    }
    assert!(left.get(&name("default"), &name("web")).unwrap().conflicts.is_empty());
}

#[test]
fn another_epoch_gives_the_same_state_by_other_changes() {
    let world = World::new();
    let (left, _, created) = split(&world);
    let mut next = Documents::with_epoch(world.cluster, 1);
    for doc in left.docs() {
        deliver(&mut next, &left.since(&doc, &[], usize::MAX).0);
    }
    assert_eq!(next.heads(&web()), left.heads(&web()));
    assert_ne!(next.change_hash(created), left.change_hash(created));
    assert_eq!(
        next.get(&name("default"), &name("web")).unwrap().groups,
        left.get(&name("default"), &name("web")).unwrap().groups
    );
}

#[test]
fn a_large_batch_taken_in_at_once_is_what_single_events_make() {
    let world = World::new();
    let (mut left, right, created) = split(&world);
    let mut events: Vec<Vec<u8>> = Vec::new();
    for count in 0..450_u32 {
        // Every third event forks, so that there are many heads and conflicts.
        let behind = if count % 3 == 0 { &right } else { &left };
        let kind =
            apply(vec![set("web", created, if count % 2 == 0 { replicas(count) } else { image(count) })]);
        let event = world.at_heads(behind, kind);
        put(&mut left, &event);
        events.push(event);
    }
    let ids: Vec<EventId> = events.iter().map(|event| id_of(event)).collect();
    let mut batch = right;
    for inserted in batch.insert_all(&events) {
        assert_applied(&inserted.unwrap());
    }
    assert_eq!(fingerprint(&batch, &ids), fingerprint(&left, &ids));
}

// --- The property.

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// A change of one or two names on one replica, from its heads or from further back.
    Change { on: usize, other: bool, back: usize, names: Vec<u8>, what: u8, value: u32, by: u8 },
    /// An event of the cluster document.
    Cluster { on: usize, back: usize, what: u8, key: u8, by: u8 },
    /// One replica gets all that another has.
    Sync { from: usize, to: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4_usize, prop::bool::weighted(0.1), 0..4_usize, prop::collection::vec(0..4_u8, 1..3), 0..12_u8, 0..5_u32, 0..8_u8)
            .prop_map(|(on, other, back, names, what, value, by)| Step::Change { on, other, back, names, what, value, by }),
        3 => (0..4_usize, 0..3_usize, 0..8_u8, 0..5_u8, 0..4_u8)
            .prop_map(|(on, back, what, key, by)| Step::Cluster { on, back, what, key, by }),
        3 => (0..4_usize, 0..4_usize).prop_map(|(from, to)| Step::Sync { from, to }),
    ]
}

struct Run {
    world: World,
    replicas: Vec<Documents>,
    /// Every event ever made, void ones too.
    events: Vec<Vec<u8>>,
    /// Every create: name, incarnation.
    created: Vec<(Name, EventId)>,
    tokens: Vec<Key>,
    nodes: Vec<Key>,
}

impl Run {
    fn new() -> Self {
        let world = World::new();
        let mut replicas: Vec<Documents> = (0..4).map(|_| world.documents()).collect();
        let tokens: Vec<Key> = (0..2).map(|i| Key::new(100 + i)).collect();
        let mut events = world.first.clone();
        let token = world.cluster_at_heads(&world.admin, &replicas[0], World::token(&tokens[0], 1));
        for replica in &mut replicas {
            put(replica, &token);
        }
        events.push(token);
        // Two deployments that every replica knows, so that what follows meets.
        let both = vec![create("d0", whole(1)), create("d1", whole(1))];
        let both = world.at_heads(&replicas[0], apply(both));
        for replica in &mut replicas {
            put(replica, &both);
        }
        let created = ["d0", "d1"].map(|deployment| (name(deployment), id_of(&both))).to_vec();
        events.push(both);
        let nodes = (0..5).map(|i| Key::new(60 + i)).collect();
        Self { world, replicas, events, created, tokens, nodes }
    }

    fn key(&self, by: u8) -> &Key {
        match by {
            0 => &self.world.admin,
            1 => &self.world.recovery,
            2 => &self.world.stranger,
            _ => &self.world.deploy,
        }
    }

    /// Heads, or what was the end some events ago; sometimes a void event or nothing.
    fn deps(&self, on: usize, doc: &DocId, back: usize) -> Vec<EventId> {
        let replica = &self.replicas[on];
        match back {
            0 | 1 => replica.heads(doc),
            2 => replica.samples(doc).into_iter().nth(2).into_iter().collect(),
            _ => self
                .events
                .iter()
                .rev()
                .map(|event| id_of(event))
                .find(|id| replica.doc_of(*id).as_ref() == Some(doc))
                .into_iter()
                .collect(),
        }
    }

    fn edit(
        &self,
        on: usize,
        namespace: &str,
        deployment: u8,
        what: u8,
        value: u32,
    ) -> document::event::Edit {
        let text = format!("d{deployment}");
        let known = self.replicas[on].get(&name(namespace), &name(&text)).map(|view| view.incarnation);
        let past = self.created.iter().filter(|(created, _)| created.as_str() == text).map(|(_, id)| *id);
        let any = past.clone().nth(value as usize % past.clone().count().max(1));
        let target = known.or(any).unwrap_or_else(|| self.world.genesis());
        let some = any.unwrap_or(target);
        match what {
            0 | 1 => create(&text, whole(value)),
            2 => delete(&text, target),
            3 => delete(&text, some),
            4 => set(&text, some, replicas(value)),
            5 => set(&text, target, groups(&[("volumes", "{}")])),
            _ if known.is_none() => create(&text, whole(value)),
            6..=8 => set(&text, target, replicas(value)),
            _ => set(&text, target, image(value)),
        }
    }

    fn take(&mut self, on: usize, event: Vec<u8>) {
        let checked = self.replicas[on].check(&event).unwrap();
        let inserted = self.replicas[on].insert(&event).unwrap();
        assert_eq!(checked, inserted);
        self.events.push(event);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change { on, other, back, names, what, value, by } => {
                let namespace = if *other { "other" } else { "default" };
                let doc = ns(namespace);
                let names: BTreeSet<u8> = names.iter().copied().collect();
                let edits: Vec<_> = names
                    .iter()
                    .zip([0, 5])
                    .map(|(deployment, more)| {
                        self.edit(*on, namespace, *deployment, (what + more) % 12, *value)
                    })
                    .collect();
                let kind = if *what == 11 {
                    let undoes = Some(id_of(&self.events[*value as usize % self.events.len()]));
                    Kind::Change(Change { verb: Verb::Undo, undoes, edits: edits.clone() })
                } else {
                    apply(edits.clone())
                };
                let mut auth = self.deps(*on, &DocId::Cluster, 0);
                if *back == 2 && *value == 0 {
                    auth = vec![self.world.genesis()];
                }
                let deps = self.deps(*on, &doc, *back);
                let event = self.world.change_event(self.key(*by), &doc, auth, deps, kind);
                let id = id_of(&event);
                let creates = edits.iter().filter(|edit| matches!(edit, document::event::Edit::Create(_)));
                self.created.extend(creates.map(|edit| (edit.name().clone(), id)));
                self.take(*on, event);
            }
            Step::Cluster { on, back, what, key, by } => {
                let deps = self.deps(*on, &DocId::Cluster, *back);
                let token = &self.tokens[usize::from(*key) % 2];
                let by = &if *by == 2 { 2 } else { *by % 2 };
                let node = &self.nodes[usize::from(*key)];
                let event = match what {
                    0 => self.world.cluster_event(self.key(*by), deps, World::token(token, 2)),
                    1 => {
                        let revoke = Kind::TokenRevoke(TokenRevoke { id: token.token() });
                        self.world.cluster_event(self.key(*by), deps, revoke)
                    }
                    2 => self.world.cluster_event(self.key(*by), deps, World::remove(node)),
                    3 => {
                        let role = if by % 2 == 0 { Role::Admin } else { Role::Deploy };
                        let add = UserAdd { name: name("zoe"), key: self.world.stranger.user(), role };
                        self.world.cluster_event(self.key(*by), deps, Kind::UserAdd(add))
                    }
                    _ => {
                        let token = &self.tokens[usize::from(*by == 1)];
                        self.world.cluster_event(node, deps, self.world.admit(token, node, "rock-x"))
                    }
                };
                self.take(*on, event);
            }
            Step::Sync { from, to } if from != to => {
                for doc in self.replicas[*from].docs() {
                    let (events, more) =
                        self.replicas[*from].since(&doc, &self.replicas[*to].heads(&doc), usize::MAX);
                    assert!(!more);
                    for inserted in self.replicas[*to].insert_all(&events) {
                        inserted.unwrap();
                    }
                }
            }
            Step::Sync { .. } => {}
        }
    }
}

/// Conflicts and winners of the views against what automerge itself says of each key.
fn compare_with_automerge(documents: &Documents) {
    let contents: BTreeMap<Name, BTreeMap<String, Vec<String>>> = ["default", "other"]
        .into_iter()
        .filter_map(|namespace| Some((name(namespace), automerge_content(&documents.save(&ns(namespace))?))))
        .collect();
    for view in documents.deployments() {
        let content = &contents[&view.namespace];
        let sides: BTreeMap<&str, Vec<&str>> = view
            .conflicts
            .iter()
            .filter_map(|conflict| match &conflict.scope {
                Scope::Group(group) => {
                    Some((group.as_str(), conflict.sides.iter().map(|side| side.value.as_str()).collect()))
                }
                Scope::Whole => None,
            })
            .collect();
        for (group, value) in &view.groups {
            let theirs = &content[&format!("{}/{}/{group}", view.name, view.incarnation)];
            assert_eq!(theirs[0], format!("\"{value}\""), "automerge picks the same winner");
            let distinct: BTreeSet<&String> = theirs.iter().collect();
            match sides.get(group.as_str()) {
                None => assert_eq!(distinct.len(), 1, "no conflict that automerge knows is left out"),
                Some(sides) => {
                    let mut ours: Vec<String> = sides.iter().map(|value| format!("\"{value}\"")).collect();
                    ours[1..].sort_unstable();
                    assert_eq!(&ours, theirs);
                }
            }
        }
        let key = format!("{}/{}/deleted", view.name, view.incarnation);
        assert!(!content.contains_key(&key), "what lives is not deleted in automerge");
    }
}

fn converges(steps: &[Step], orders: &[Vec<proptest::sample::Index>]) -> Result<(), TestCaseError> {
    let mut run = Run::new();
    for step in steps {
        run.step(step);
    }
    let ids: Vec<EventId> = run.events.iter().map(|event| id_of(event)).collect();
    // Verdicts before the heal: what a replica said of its own events must stand.
    let mut said: BTreeMap<EventId, Option<[u8; 32]>> = BTreeMap::new();
    for replica in &run.replicas {
        for id in ids.iter().filter(|id| replica.contains(**id)) {
            let before = said.insert(*id, replica.change_hash(*id));
            prop_assert!(before.is_none_or(|before| before == replica.change_hash(*id)));
        }
    }
    let mut all = std::mem::take(&mut run.replicas);
    for replica in &mut all {
        deliver(replica, &run.events);
    }
    // Fresh peers, each with another order of arrival, one of them in one batch.
    for order in orders {
        let mut events = run.events.clone();
        for (place, index) in order.iter().enumerate().take(events.len()) {
            let other = index.index(events.len());
            events.swap(place, other);
        }
        let mut fresh = Documents::new(run.world.cluster);
        deliver(&mut fresh, &events);
        all.push(fresh);
    }
    let mut batch = Documents::new(run.world.cluster);
    for inserted in batch.insert_all(&run.events) {
        inserted.unwrap();
    }
    all.push(batch);
    let wanted = fingerprint(&all[0], &ids);
    compare_with_automerge(&all[0]);
    for documents in &all {
        prop_assert_eq!(&fingerprint(documents, &ids), &wanted);
        for (id, hash) in &said {
            prop_assert_eq!(documents.change_hash(*id), *hash);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn peers_with_the_same_events_agree_on_everything_whatever_the_order_of_arrival(
        steps in prop::collection::vec(any_step(), 10..90),
        orders in prop::collection::vec(prop::collection::vec(any::<proptest::sample::Index>(), 100), 2),
    ) {
        converges(&steps, &orders)?;
    }
}
