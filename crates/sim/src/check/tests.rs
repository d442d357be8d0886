//! Each check sees what it is there to see.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{ContainerId, EventId, RecordVersion};
use node::{Effect, Seq};
use wire::Message;

use super::rules::Truth;
use crate::author::{Author, Spec};
use crate::world::{Cluster, Settings};

/// Three machines that run `web` three times, at rest.
fn at_rest() -> Cluster {
    let mut cluster = Cluster::new(3, 3, Settings::default());
    cluster.run_for(Duration::from_secs(2));
    cluster.apply(0, "web", &Spec::new(3));
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.violations(), &[] as &[String]);
    cluster
}

fn saw(cluster: &Cluster, check: &str) {
    let seen = cluster.violations().iter().any(|it| it.contains(&format!(" {check}: ")));
    assert!(seen, "{check} saw nothing: {:?}", cluster.violations());
}

fn one_of(cluster: &Cluster, host: usize) -> (ContainerId, node::Claim) {
    let (id, container) = cluster.running(host).next().expect("each machine runs one");
    (*id, container.claim.clone())
}

#[test]
fn a_peer_that_speaks_on_and_on_is_seen_whether_it_sends_datagrams_or_messages() {
    let mut cluster = at_rest();
    let to = cluster.id(1);
    for _ in 0..2_000 {
        cluster.datagram(0, to, vec![0]);
    }
    saw(&cluster, "L11");
    let mut cluster = at_rest();
    for _ in 0..2_000 {
        cluster.send(0, to, Message::Want { ids: vec![] });
    }
    saw(&cluster, "L11");
}

const NOWHERE: EventId = EventId::from_bytes([7; 32]);

#[test]
fn what_is_told_or_acknowledged_and_not_on_disk_is_seen() {
    let mut cluster = at_rest();
    let to = cluster.id(1);
    cluster.before_effect(0, &Effect::Send { to, message: Message::Stored { ids: vec![NOWHERE] } });
    saw(&cluster, "S1");
    let mut cluster = at_rest();
    cluster.acknowledged(0, NOWHERE, 1);
    saw(&cluster, "S1");
}

#[test]
fn what_nobody_signed_and_what_is_written_twice_is_seen() {
    let mut cluster = at_rest();
    let mut stranger = Author::new([5; 32]);
    let documents = cluster.node(0).expect("it runs").documents();
    let forged = stranger.user_add(documents, "eve", [6; 32]);
    cluster.before_effect(0, &Effect::Persist { seq: Seq(99), records: vec![forged] });
    saw(&cluster, "S3");
    let mut cluster = at_rest();
    let again = cluster.hosts[0].disk[1].clone();
    cluster.before_effect(0, &Effect::Persist { seq: Seq(99), records: vec![again] });
    saw(&cluster, "S16");
}

#[test]
fn a_container_id_used_twice_and_a_start_of_what_is_deleted_are_seen() {
    let mut cluster = at_rest();
    let (id, claim) = one_of(&cluster, 0);
    let claim = Box::new(claim);
    cluster.before_effect(1, &Effect::Start { container: id, claim: claim.clone(), until: None });
    saw(&cluster, "S2");
    let mut cluster = at_rest();
    cluster.delete(0, "web");
    cluster.run_for(Duration::from_secs(3));
    cluster
        .before_effect(0, &Effect::Start { container: ContainerId::from_bytes([1; 8]), claim, until: None });
    saw(&cluster, "S5");
}

#[test]
fn two_old_copies_of_one_replica_are_seen() {
    let mut cluster = at_rest();
    let (_, container) = cluster.running(0).next().expect("it runs");
    let copy = container.clone();
    cluster.hosts[1].kernel.insert(ContainerId::from_bytes([1; 8]), copy);
    cluster.run_for(Duration::from_secs(1));
    saw(&cluster, "S7");
}

#[test]
fn the_stop_of_a_last_copy_is_seen() {
    let mut cluster = at_rest();
    let (id, _) = one_of(&cluster, 0);
    cluster.stop_container(0, id);
    saw(&cluster, "S8");
}

#[test]
fn a_word_that_was_never_true_is_seen() {
    let mut cluster = at_rest();
    for truth in cluster.check.truth.values_mut() {
        *truth = Truth::default();
        truth.note(model::Time::ZERO, BTreeSet::new());
    }
    cluster.run_for(Duration::from_secs(1));
    saw(&cluster, "S9");
}

#[test]
fn a_record_version_that_goes_back_is_seen() {
    let mut cluster = at_rest();
    cluster.check.versions.insert(0, RecordVersion { generation: 9, count: 1 });
    cluster.after_step(0, &[]);
    saw(&cluster, "S14");
    let mut cluster = at_rest();
    let later = RecordVersion { generation: 9, count: 1 };
    cluster.after_step(0, &[(cluster.id(1), later)]);
    saw(&cluster, "S14");
}

#[test]
fn a_start_of_what_ended_for_good_is_seen() {
    let mut cluster = at_rest();
    let (id, claim) = one_of(&cluster, 0);
    let entry = cluster.hosts[0].kernel.get_mut(&id).expect("it runs");
    entry.claim.run.restart = model::RestartPolicy::Never;
    cluster.crash_container(0, id, 0);
    cluster.before_effect(0, &Effect::Start { container: id, claim: Box::new(claim), until: None });
    saw(&cluster, "L8");
}

#[test]
fn a_container_that_is_not_taken_over_and_an_event_that_is_forgotten_are_seen() {
    let mut cluster = at_rest();
    let (_, container) = cluster.running(0).next().expect("it runs");
    let copy = container.clone();
    cluster.hosts[0].kernel.insert(ContainerId::from_bytes([1; 8]), copy);
    cluster.started(0);
    saw(&cluster, "L7");
    let mut cluster = at_rest();
    cluster.hosts[0].on_disk.insert(NOWHERE);
    cluster.started(0);
    saw(&cluster, "S14");
}
