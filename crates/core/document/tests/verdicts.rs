//! The table of verdicts, rule by rule.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;

use common::*;
use document::event::{Change, Kind, Role, Schedule, TokenRevoke, UserAdd, Verb};
use document::{Documents, InsertError, Outcome, VoidReason};
use model::limits::DEPLOYMENTS_PER_NAMESPACE_MAX;
use model::{DocId, EventId};

fn user_add(key: &Key, role: Role) -> Kind {
    Kind::UserAdd(UserAdd { name: name("zoe"), key: key.user(), role })
}

#[test]
fn an_admin_and_the_recovery_key_may_do_everything_and_others_only_what_their_role_says() {
    let world = World::new();
    let mut documents = world.documents();
    let token = Key::new(100);
    for key in [&world.deploy, &world.stranger] {
        let event = world.cluster_at_heads(key, &documents, World::token(&token, 1));
        assert!(matches!(put_void(&mut documents, &event), VoidReason::NotAllowed { .. }));
    }
    let event = world.cluster_at_heads(&world.recovery, &documents, World::token(&token, 1));
    put(&mut documents, &event);
    let auth = documents.heads(&DocId::Cluster);
    for key in [&world.deploy, &world.admin, &world.recovery] {
        let deps = documents.heads(&web());
        let deployment = format!("web-{}", &key.user().short()[..4]);
        let event =
            world.change_event(key, &web(), auth.clone(), deps, apply(vec![create(&deployment, whole(1))]));
        put(&mut documents, &event);
    }
    let event =
        world.change_event(&world.stranger, &web(), auth, vec![], apply(vec![create("evil", whole(1))]));
    assert!(matches!(put_void(&mut documents, &event), VoidReason::NotAllowed { .. }));
    assert_eq!(documents.deployments().count(), 3);
}

#[test]
fn rights_are_judged_where_the_event_says_and_not_by_what_is_known() {
    let world = World::new();
    let mut documents = world.documents();
    // The user was added after the genesis; an event judged at the genesis is void for ever.
    let event = world.change_event(
        &world.deploy,
        &web(),
        vec![world.genesis()],
        vec![],
        apply(vec![create("web", whole(1))]),
    );
    assert!(matches!(put_void(&mut documents, &event), VoidReason::NotAllowed { .. }));
    assert_eq!(documents.insert(&event).unwrap().outcome, Outcome::Known);
}

#[test]
fn a_user_added_as_admin_is_one_and_a_key_is_added_once() {
    let world = World::new();
    let mut documents = world.documents();
    let zoe = Key::new(50);
    let event = world.cluster_at_heads(&world.admin, &documents, user_add(&zoe, Role::Admin));
    put(&mut documents, &event);
    let event = world.cluster_at_heads(&zoe, &documents, user_add(&Key::new(51), Role::Deploy));
    put(&mut documents, &event);
    for taken in [&zoe, &world.admin, &world.recovery, &world.deploy] {
        let event = world.cluster_at_heads(&world.admin, &documents, user_add(taken, Role::Deploy));
        assert_eq!(put_void(&mut documents, &event), VoidReason::UserExists { key: taken.user() });
    }
    assert_eq!(documents.roster().users.len(), 4);
}

#[test]
fn concurrent_additions_of_one_user_settle_on_the_lowest_event() {
    let world = World::new();
    let mut documents = world.documents();
    let zoe = Key::new(50);
    let heads = documents.heads(&DocId::Cluster);
    let mut ids: Vec<(EventId, Role)> = [Role::Admin, Role::Deploy, Role::Admin]
        .into_iter()
        .map(|role| {
            let event = world.cluster_event(&world.admin, heads.clone(), user_add(&zoe, role));
            (put(&mut documents, &event), role)
        })
        .collect();
    ids.sort_unstable_by_key(|(id, _)| *id);
    let user = &documents.roster().users[&zoe.user()];
    assert_eq!((user.added_by, user.role), ids[0]);
    // The verdict follows the same rule.
    let event = world.cluster_at_heads(&zoe, &documents, World::token(&Key::new(9), 1));
    let valid = matches!(documents.insert(&event).unwrap().outcome, Outcome::Applied { .. });
    assert_eq!(valid, ids[0].1 == Role::Admin);
}

#[test]
fn a_node_comes_in_by_a_token_that_is_there_not_revoked_and_not_used_up() {
    let world = World::new();
    let mut documents = world.documents();
    let (token, other, [a, b, c]) = (Key::new(100), Key::new(101), [60, 61, 62].map(Key::new));
    let unknown = world.cluster_at_heads(&a, &documents, world.admit(&token, &a, "rock-2"));
    assert_eq!(put_void(&mut documents, &unknown), VoidReason::TokenUnknown { token: token.token() });

    let grant = world.cluster_at_heads(&world.admin, &documents, World::token(&token, 2));
    put(&mut documents, &grant);
    let again = world.cluster_at_heads(&world.admin, &documents, World::token(&token, 2));
    assert_eq!(put_void(&mut documents, &again), VoidReason::TokenExists { token: token.token() });

    let event = world.cluster_at_heads(&a, &documents, world.admit(&token, &a, "rock-2"));
    put(&mut documents, &event);
    let event = world.cluster_at_heads(&a, &documents, world.admit(&token, &a, "rock-2"));
    assert_eq!(put_void(&mut documents, &event), VoidReason::NodeIsMember { node: a.node() });
    let event = world.cluster_at_heads(&b, &documents, world.admit(&token, &b, "rock-3"));
    put(&mut documents, &event);
    let event = world.cluster_at_heads(&c, &documents, world.admit(&token, &c, "rock-4"));
    assert_eq!(put_void(&mut documents, &event), VoidReason::TokenUsedUp { token: token.token() });

    let revoke = Kind::TokenRevoke(TokenRevoke { id: other.token() });
    let event = world.cluster_at_heads(&world.admin, &documents, revoke.clone());
    assert_eq!(put_void(&mut documents, &event), VoidReason::TokenUnknown { token: other.token() });
    let grant = world.cluster_at_heads(&world.admin, &documents, World::token(&other, 5));
    put(&mut documents, &grant);
    let before = documents.heads(&DocId::Cluster);
    let event = world.cluster_at_heads(&world.admin, &documents, revoke);
    put(&mut documents, &event);
    let event = world.cluster_at_heads(&c, &documents, world.admit(&other, &c, "rock-4"));
    assert_eq!(put_void(&mut documents, &event), VoidReason::TokenRevoked { token: other.token() });
    // An island that did not know of the revocation admits it, and that stands.
    let event = world.cluster_event(&c, before, world.admit(&other, &c, "rock-4"));
    put(&mut documents, &event);

    let roster = documents.roster();
    assert_eq!(roster.nodes.len(), 4);
    assert_eq!((roster.tokens[&token.token()].used, roster.tokens[&token.token()].revoked), (2, false));
    assert!(roster.tokens[&other.token()].revoked);
}

#[test]
fn a_removed_node_stays_out_for_ever_and_so_does_one_removed_elsewhere_meanwhile() {
    let world = World::new();
    let mut documents = world.documents();
    let (token, a, b) = (Key::new(100), Key::new(60), Key::new(61));
    let event = world.cluster_at_heads(&world.admin, &documents, World::remove(&a));
    assert_eq!(put_void(&mut documents, &event), VoidReason::NodeUnknown { node: a.node() });
    let event = world.cluster_at_heads(&world.admin, &documents, World::token(&token, 5));
    put(&mut documents, &event);
    for (node, text) in [(&a, "rock-2"), (&b, "rock-3")] {
        let event = world.cluster_at_heads(node, &documents, world.admit(&token, node, text));
        put(&mut documents, &event);
    }
    let heads = documents.heads(&DocId::Cluster);
    for node in [&a, &b] {
        let event = world.cluster_event(&world.admin, heads.clone(), World::remove(node));
        put(&mut documents, &event);
    }
    let event = world.cluster_at_heads(&a, &documents, world.admit(&token, &a, "rock-2"));
    assert_eq!(put_void(&mut documents, &event), VoidReason::NodeRemoved { node: a.node() });
    assert_eq!(documents.roster().nodes.keys().collect::<Vec<_>>(), [&world.node.node()]);
    assert_eq!(documents.roster().removed.len(), 2);
    let genesis_node = world.cluster_at_heads(&world.admin, &documents, World::remove(&world.node));
    put(&mut documents, &genesis_node);
    assert!(documents.roster().nodes.is_empty());
}

#[test]
fn what_is_said_of_a_nodes_work_is_an_admins_word_and_the_more_careful_of_two_counts() {
    let world = World::new();
    let mut documents = world.documents();
    let node = world.node.node();
    let stands = |documents: &Documents| {
        let member = &documents.roster().nodes[&node];
        (member.schedule, member.deadline_s)
    };
    assert_eq!(stands(&documents), (Schedule::Normal, None));
    let said = |schedule, deadline_s| World::schedule(&world.node, schedule, deadline_s);
    let event = world.cluster_at_heads(&world.deploy, &documents, said(Schedule::Cordoned, None));
    assert!(matches!(put_void(&mut documents, &event), VoidReason::NotAllowed { .. }));
    let stranger = Key::new(60);
    let event = world.cluster_at_heads(
        &world.admin,
        &documents,
        World::schedule(&stranger, Schedule::Cordoned, None),
    );
    assert_eq!(put_void(&mut documents, &event), VoidReason::NodeUnknown { node: stranger.node() });
    // Concurrently, in both orders of arrival.
    let heads = documents.heads(&DocId::Cluster);
    let concurrent: Vec<Vec<u8>> = [
        said(Schedule::Drained, Some(60)),
        said(Schedule::Normal, None),
        said(Schedule::Cordoned, None),
        said(Schedule::Drained, Some(90)),
    ]
    .into_iter()
    .map(|kind| world.cluster_event(&world.admin, heads.clone(), kind))
    .collect();
    let mut turned = world.documents();
    for event in &concurrent {
        put(&mut documents, event);
    }
    for event in concurrent.iter().rev() {
        put(&mut turned, event);
    }
    assert_eq!(stands(&documents), (Schedule::Drained, Some(90)));
    assert_eq!(stands(&turned), stands(&documents));
    // Who has seen them all has the last word.
    let event = world.cluster_at_heads(&world.recovery, &documents, said(Schedule::Normal, None));
    put(&mut documents, &event);
    assert_eq!(stands(&documents), (Schedule::Normal, None));
}

#[test]
fn a_deadline_goes_with_a_drain_and_is_no_longer_than_a_day() {
    let world = World::new();
    let mut documents = world.documents();
    for (schedule, deadline_s, told) in [
        (Schedule::Cordoned, Some(1), "goes with `drained` alone"),
        (Schedule::Drained, Some(0), "0 asked, use 1 to 86400"),
        (Schedule::Drained, Some(86_401), "86401 asked, use 1 to 86400"),
    ] {
        let kind = World::schedule(&world.node, schedule, deadline_s);
        let event = world.cluster_at_heads(&world.admin, &documents, kind);
        let InsertError::Refused(refused) = documents.insert(&event).unwrap_err() else { panic!("{told}") };
        assert_eq!(refused.to_string(), format!("kind.node_schedule.deadline_s: {told}"));
    }
}

#[test]
fn a_token_used_on_two_islands_admits_the_lowest_event_and_the_other_waits_for_another_token() {
    let world = World::new();
    let mut documents = world.documents();
    let (token, [a, b]) = (Key::new(100), [60, 61].map(Key::new));
    let event = world.cluster_at_heads(&world.admin, &documents, World::token(&token, 1));
    put(&mut documents, &event);
    let heads = documents.heads(&DocId::Cluster);
    let mut admitted: Vec<(EventId, &Key)> = [(&a, "rock-2"), (&b, "rock-3")]
        .into_iter()
        .map(|(node, text)| {
            let event = world.cluster_event(node, heads.clone(), world.admit(&token, node, text));
            (put(&mut documents, &event), node)
        })
        .collect();
    admitted.sort_unstable_by_key(|(id, _)| *id);
    let (first, late) = (admitted[0].1, admitted[1].1);
    let roster = documents.roster();
    assert!(roster.nodes.contains_key(&first.node()) && !roster.nodes.contains_key(&late.node()));
    assert_eq!(roster.waiting.keys().collect::<Vec<_>>(), [&late.node()]);
    assert_eq!(roster.tokens[&token.token()].used, 2);

    // It cannot help itself with the old token, and a person can with a new one.
    let event = world.cluster_at_heads(late, &documents, world.admit(&token, late, "rock-9"));
    assert_eq!(put_void(&mut documents, &event), VoidReason::TokenUsedUp { token: token.token() });
    let fresh = Key::new(101);
    let event = world.cluster_at_heads(&world.admin, &documents, World::token(&fresh, 1));
    put(&mut documents, &event);
    let event = world.cluster_at_heads(late, &documents, world.admit(&fresh, late, "rock-9"));
    put(&mut documents, &event);
    assert!(documents.roster().waiting.is_empty());
    assert_eq!(documents.roster().nodes[&late.node()].token, Some(fresh.token()));
}

#[test]
fn a_node_that_asks_two_islands_with_one_token_takes_one_use() {
    let world = World::new();
    let mut documents = world.documents();
    let (token, [a, b]) = (Key::new(100), [60, 61].map(Key::new));
    let event = world.cluster_at_heads(&world.admin, &documents, World::token(&token, 2));
    put(&mut documents, &event);
    let heads = documents.heads(&DocId::Cluster);
    for node in [&a, &a, &b] {
        let event = world.cluster_event(node, heads.clone(), world.admit(&token, node, "rock-2"));
        put(&mut documents, &event);
    }
    assert_eq!(documents.roster().nodes.len(), 3);
    assert!(documents.roster().waiting.is_empty());
    assert_eq!(documents.roster().tokens[&token.token()].used, 2);
}

#[test]
fn what_descends_from_a_void_event_is_void() {
    let world = World::new();
    let mut documents = world.documents();
    let bad = world.at_heads(&documents, apply(vec![set("web", world.genesis(), replicas(2))]));
    let unknown = VoidReason::IncarnationUnknown { name: name("web"), incarnation: world.genesis() };
    assert_eq!(put_void(&mut documents, &bad), unknown);
    let bad = document::event::id_of(&bad);
    let auth = documents.heads(&DocId::Cluster);
    let child =
        world.change_event(&world.deploy, &web(), auth, vec![bad], apply(vec![create("web", whole(1))]));
    assert_eq!(put_void(&mut documents, &child), VoidReason::DependsOnVoid { dep: bad });
    let child = document::event::id_of(&child);
    let auth = documents.heads(&DocId::Cluster);
    let grandchild =
        world.change_event(&world.deploy, &web(), auth, vec![child], apply(vec![create("web", whole(1))]));
    assert_eq!(put_void(&mut documents, &grandchild), VoidReason::DependsOnVoid { dep: child });
    assert_eq!(documents.docs(), [DocId::Cluster], "a void event makes no document");
    assert_eq!(documents.voids(), 3);
    assert!(documents.contains(bad) && documents.change_hash(bad).is_none());
}

#[test]
fn events_of_another_document_cannot_be_built_on() {
    let world = World::new();
    let mut documents = world.documents();
    let first = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    let first = put(&mut documents, &first);
    let auth = documents.heads(&DocId::Cluster);
    let kind = || apply(vec![create("api", whole(1))]);
    for (doc, auth, deps, wrong) in [
        (ns("other"), auth.clone(), vec![first], first),
        (web(), auth.clone(), vec![world.genesis()], world.genesis()),
        (web(), vec![first], vec![], first),
    ] {
        let event = world.change_event(&world.deploy, &doc, auth, deps, kind());
        assert_eq!(put_void(&mut documents, &event), VoidReason::WrongDocument { dep: wrong });
    }
    let event = world.cluster_event(&world.admin, vec![first], World::token(&Key::new(100), 1));
    assert_eq!(put_void(&mut documents, &event), VoidReason::WrongDocument { dep: first });
}

#[test]
fn a_deployment_is_created_once_set_while_it_lives_and_deleted_for_ever() {
    let world = World::new();
    let mut documents = world.documents();
    let created = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    let created = put(&mut documents, &created);
    let again = world.at_heads(&documents, apply(vec![create("web", whole(2))]));
    let taken = VoidReason::NameTaken { name: name("web"), incarnation: created };
    assert_eq!(put_void(&mut documents, &again), taken);
    let other = world.at_heads(&documents, apply(vec![set("api", created, replicas(2))]));
    let unknown = VoidReason::IncarnationUnknown { name: name("api"), incarnation: created };
    assert_eq!(put_void(&mut documents, &other), unknown);
    let before = documents.heads(&web());
    let event = world.at_heads(&documents, change(Verb::Delete, vec![delete("web", created)]));
    put(&mut documents, &event);
    let late = world.at_heads(&documents, apply(vec![set("web", created, replicas(2))]));
    let deleted = VoidReason::IncarnationDeleted { name: name("web"), incarnation: created };
    assert_eq!(put_void(&mut documents, &late), deleted);
    // Whoever did not know of the delete made a valid change; the delete beats it.
    let auth = documents.heads(&DocId::Cluster);
    let concurrent = world.change_event(
        &world.deploy,
        &web(),
        auth,
        before,
        apply(vec![set("web", created, replicas(7))]),
    );
    put(&mut documents, &concurrent);
    assert!(documents.get(&name("default"), &name("web")).is_none());
    let event = world.at_heads(&documents, change(Verb::Delete, vec![delete("web", created)]));
    put(&mut documents, &event);
    // Creating it again is another incarnation, of which the old one's values are no part.
    let event = world.at_heads(&documents, apply(vec![create("web", whole(5))]));
    let second = put(&mut documents, &event);
    let view = documents.get(&name("default"), &name("web")).unwrap();
    assert_eq!((view.incarnation, &view.groups), (second, &whole(5)));
    assert!(view.conflicts.is_empty());
}

#[test]
fn an_incarnation_that_is_not_in_the_past_cannot_be_changed() {
    let world = World::new();
    let mut documents = world.documents();
    let created = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    let created = put(&mut documents, &created);
    let auth = documents.heads(&DocId::Cluster);
    for edit in [set("web", created, replicas(2)), delete("web", created)] {
        let event = world.change_event(&world.deploy, &web(), auth.clone(), vec![], apply(vec![edit]));
        let unknown = VoidReason::IncarnationUnknown { name: name("web"), incarnation: created };
        assert_eq!(put_void(&mut documents, &event), unknown);
    }
}

#[test]
fn one_bad_edit_makes_the_whole_event_void() {
    let world = World::new();
    let mut documents = world.documents();
    let edits = vec![create("good", whole(1)), set("bad", world.genesis(), replicas(2))];
    let event = world.at_heads(&documents, apply(edits));
    assert!(matches!(put_void(&mut documents, &event), VoidReason::IncarnationUnknown { .. }));
    assert_eq!(documents.deployments().count(), 0);
}

#[test]
fn what_is_taken_back_must_be_in_the_past() {
    let world = World::new();
    let mut documents = world.documents();
    let created = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    let created = put(&mut documents, &created);
    let auth = documents.heads(&DocId::Cluster);
    let undo = |undone, edits| Kind::Change(Change { verb: Verb::Undo, undoes: Some(undone), edits });
    for (undone, deps) in
        [(created, vec![]), (world.genesis(), vec![created]), (document::event::id_of(b"?"), vec![])]
    {
        let event = world.change_event(
            &world.deploy,
            &web(),
            auth.clone(),
            deps,
            undo(undone, vec![create("api", whole(1))]),
        );
        assert_eq!(put_void(&mut documents, &event), VoidReason::UndoesUnknown { event: undone });
    }
    let event = world.at_heads(&documents, undo(created, vec![delete("web", created)]));
    put(&mut documents, &event);
}

#[test]
fn a_namespace_has_room_for_so_many_deployments_and_deleting_makes_room() {
    let world = World::new();
    let mut documents = world.documents();
    let mut made: Vec<(String, EventId)> = Vec::new();
    let small = || groups(&[("meta", "{}")]);
    let per_event = 50;
    assert_eq!(DEPLOYMENTS_PER_NAMESPACE_MAX % per_event, 0);
    for batch in 0..DEPLOYMENTS_PER_NAMESPACE_MAX / per_event {
        let names: Vec<String> = (0..per_event).map(|i| format!("d-{batch}-{i}")).collect();
        let event =
            world.at_heads(&documents, apply(names.iter().map(|name| create(name, small())).collect()));
        let id = put(&mut documents, &event);
        made.extend(names.into_iter().map(|name| (name, id)));
    }
    let event = world.at_heads(&documents, apply(vec![create("one-more", small())]));
    let live = DEPLOYMENTS_PER_NAMESPACE_MAX + 1;
    assert_eq!(put_void(&mut documents, &event), VoidReason::NamespaceFull { live });
    let (old, incarnation) = &made[0];
    let event =
        world.at_heads(&documents, apply(vec![delete(old, *incarnation), create("one-more", small())]));
    put(&mut documents, &event);
    assert_eq!(documents.deployments().count(), DEPLOYMENTS_PER_NAMESPACE_MAX);
    let (old, incarnation) = &made[1];
    let event = world.at_heads(&documents, apply(vec![set(old, *incarnation, replicas(2))]));
    put(&mut documents, &event);
}

#[test]
fn an_event_waits_for_its_past_and_says_for_what() {
    let world = World::new();
    let mut full = world.documents();
    let event = world.at_heads(&full, apply(vec![create("web", whole(1))]));
    let first = put(&mut full, &event);
    let later = world.at_heads(&full, apply(vec![set("web", first, replicas(4))]));
    let mut empty = Documents::new(world.cluster);
    let Err(InsertError::Missing { doc, deps, auth, .. }) = empty.insert(&later) else { panic!("it waits") };
    assert_eq!((doc, deps, auth), (web(), vec![first], full.heads(&DocId::Cluster)));
    assert_eq!(empty.docs(), [DocId::Cluster]);
    deliver(&mut empty, [&later, &event, &world.first[1], &world.first[0]]);
    put(&mut full, &later);
    assert_eq!(empty.heads(&web()), full.heads(&web()));
}
