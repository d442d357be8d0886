//! Documents that peers of one process have together are those that each would have by itself.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;

use std::sync::Arc;

use common::*;
use document::{Documents, Library, Outcome};

/// Takes an event in as a peer does that has a library.
fn take(library: &mut Library, documents: &mut Arc<Documents>, event: &[u8]) -> bool {
    if let Some((found, inserted)) = library.after(documents, &[event]) {
        assert!(matches!(inserted[..], [ref it] if matches!(it.outcome, Outcome::Applied { .. })));
        *documents = found;
        return true;
    }
    let inserted = Documents::insert_valid(documents, event).unwrap();
    library.keep(documents, &[inserted]);
    false
}

/// Two peers at one place, and two events that neither has and neither event knows of.
fn two_peers() -> (World, [Arc<Documents>; 2], [Vec<u8>; 2]) {
    let world = World::new();
    let mut documents = world.documents();
    let event = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    put(&mut documents, &event);
    let created = document::event::id_of(&event);
    let events = [image(2), replicas(5)]
        .map(|groups| world.at_heads(&documents, apply(vec![set("web", created, groups)])));
    let first = Arc::new(documents.clone());
    (world, [first, Arc::new(documents)], events)
}

#[test]
fn a_peer_that_takes_in_what_another_took_in_has_the_others_documents() {
    let (_, [mut one, mut other], events) = two_peers();
    let mut library = Library::default();
    library.proves(true);
    for event in &events {
        assert!(!take(&mut library, &mut one, event), "nobody was there before");
        assert!(take(&mut library, &mut other, event), "another was there");
        assert!(Arc::ptr_eq(&one, &other));
    }
    assert_eq!(library.found(), 2);
}

#[test]
fn a_later_change_of_one_peer_does_not_reach_the_other() {
    let (world, [mut one, mut other], events) = two_peers();
    let mut library = Library::default();
    take(&mut library, &mut one, &events[0]);
    take(&mut library, &mut other, &events[0]);
    let before = format!("{:?}", other.deployments().collect::<Vec<_>>());
    let next = world.at_heads(&one, apply(vec![create("api", whole(1))]));
    take(&mut library, &mut one, &next);
    assert_eq!(format!("{:?}", other.deployments().collect::<Vec<_>>()), before);
    assert_eq!((one.deployments().count(), other.deployments().count()), (2, 1));
}

#[test]
fn another_order_is_another_story_unless_any_order_will_do() {
    for any_order in [false, true] {
        let (_, [mut one, mut other], events) = two_peers();
        let mut library = Library::default();
        library.proves(true);
        library.in_any_order(any_order);
        take(&mut library, &mut one, &events[0]);
        take(&mut library, &mut one, &events[1]);
        take(&mut library, &mut other, &events[1]);
        assert_eq!(take(&mut library, &mut other, &events[0]), any_order);
        assert_eq!(one.differs_from(&other, any_order), None);
        assert_eq!(one.differs_from(&other, true).is_none(), any_order, "the order of arrival is kept");
    }
}

#[test]
fn many_events_at_once_are_found_if_somebody_has_all_of_them() {
    let (_, [mut one, other], events) = two_peers();
    let mut library = Library::default();
    library.proves(true);
    assert!(library.after(&other, &events).is_none());
    for event in &events {
        take(&mut library, &mut one, event);
    }
    let (found, inserted) = library.after(&other, &events).unwrap();
    assert!(Arc::ptr_eq(&found, &one));
    assert_eq!(inserted.len(), 2);
    // One that has them all learns nothing from anybody.
    assert!(library.after(&found, &events).is_none());
}

#[test]
fn documents_that_nobody_holds_are_not_found() {
    let (_, [mut one, other], events) = two_peers();
    let mut library = Library::default();
    take(&mut library, &mut one, &events[0]);
    drop(one);
    assert!(library.after(&other, &events[..1]).is_none());
}
