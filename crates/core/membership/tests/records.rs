//! The table of what each node says of itself.
#![expect(clippy::unwrap_used, reason = "what a test made itself is there")]

use std::collections::{BTreeMap, BTreeSet};

use membership::{ADDRESSES_MAX, RecordError, Records};
use model::limits::{CLAIM_NUMBER_MAX, JOBS_TOLD_MAX};
use model::{
    Capacity, ContainerId, ContainerRecord, ContainerState, EventId, FailedRun, JobEnds, JobId, JobRecord,
    Name, NodeId, NodeRecord, RecordVersion, ReplicaId, Revision, Signature, SignedRecord,
};
use proptest::prelude::*;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn record(n: u8, generation: u64, count: u64) -> NodeRecord {
    let name: Name = format!("node-{n}").parse().unwrap();
    NodeRecord {
        node: id(n),
        version: RecordVersion { generation, count },
        name,
        addresses: vec!["10.0.0.1:7000".into()],
        labels: BTreeMap::new(),
        capacity: Capacity::default(),
        terms: model::Terms::default(),
        pressure: None,
        capacity_version: count,
        links: vec![],
        containers: vec![],
        declined: vec![],
        failed: Vec::new(),
        jobs: Vec::new(),
        images: vec![],
        heads: BTreeMap::new(),
        event_version: 1,
    }
}

fn replica(ordinal: u8) -> ReplicaId {
    ReplicaId {
        namespace: Name::default_namespace(),
        deployment: "web".parse().unwrap(),
        incarnation: EventId::from_bytes([2; 32]),
        ordinal: ordinal.into(),
    }
}

/// Of a node, and the so many-th there.
fn container(node: u8, place: u8, replica: ReplicaId) -> ContainerRecord {
    ContainerRecord {
        id: ContainerId::from_bytes([node, place, 0, 0, 0, 0, 0, 0]),
        replica,
        revision: Revision::from_bytes([3; 32]),
        revision_number: 1,
        claim: 1,
        resources: Capacity::default(),
        state: ContainerState::Running,
        healthy: None,
        pid: None,
        started_ms: None,
        restarts: 0,
        reason: None,
        confirms: vec![],
        ready: true,
        proven: true,
        yields_to: None,
    }
}

/// Signed bytes that tell one record from another; what they say is not looked at here.
fn signed(record: &NodeRecord) -> SignedRecord {
    let RecordVersion { generation, count } = record.version;
    let bytes = [&record.node.as_bytes()[..], &generation.to_be_bytes(), &count.to_be_bytes()].concat();
    SignedRecord { bytes: bytes.into(), signature: Signature::from_bytes(&[7; 64]) }
}

fn take(table: &mut Records, record: NodeRecord) -> Result<bool, RecordError> {
    let (news, signed) = (table.is_news(&record), signed(&record));
    let taken = table.insert(record.into(), signed);
    assert_eq!(news, taken, "it is foretold what becomes of it");
    taken
}

fn own(table: &mut Records, record: NodeRecord) -> Result<bool, RecordError> {
    let signed = signed(&record);
    table.set_own(record.into(), signed)
}

fn table(me: u8) -> Records {
    let mut records = Records::new(id(me));
    records.set_roster(&(0..4).map(id).collect());
    records
}

#[test]
fn what_is_held_is_known_by_its_bytes_and_what_was_replaced_is_not() {
    let mut records = Records::new(id(1));
    records.set_roster(&BTreeSet::from([id(1), id(2), id(3)]));
    let with_signature = |record: &NodeRecord, first: u8| {
        let mut bytes = [7; 64];
        (bytes[0], bytes[40]) = (first, record.node.as_bytes()[0]);
        SignedRecord { signature: Signature::from_bytes(&bytes), ..signed(record) }
    };
    let (first, second, of_another) = (record(2, 1, 1), record(2, 1, 2), record(3, 1, 1));
    let bytes = [(&first, 1), (&second, 2), (&of_another, 2)].map(|(record, n)| with_signature(record, n));
    assert_eq!(records.holds(&bytes[0]), None);
    assert_eq!(records.insert(first.clone().into(), bytes[0].clone()), Ok(true));
    assert_eq!(records.holds(&bytes[0]), Some(id(2)));
    let forged = SignedRecord { bytes: bytes[1].bytes.clone(), ..bytes[0].clone() };
    assert_eq!(records.holds(&forged), None, "other bytes under the same signature");
    assert_eq!(records.insert(second.into(), bytes[1].clone()), Ok(true));
    assert_eq!(records.holds(&bytes[0]), None, "it was replaced");
    assert_eq!(records.holds(&bytes[1]), Some(id(2)));
    // Of two signatures that begin alike the later is found; the other is read, as what is not held.
    assert_eq!(records.insert(of_another.into(), bytes[2].clone()), Ok(true));
    assert_eq!(records.holds(&bytes[2]), Some(id(3)));
    assert_eq!(records.holds(&bytes[1]), None);
    records.set_roster(&BTreeSet::from([id(1), id(2)]));
    assert_eq!(records.holds(&bytes[2]), None, "its node was removed");
}

#[test]
fn a_later_start_beats_any_count_of_an_earlier_one() {
    let mut records = table(0);
    assert_eq!(take(&mut records, record(1, 1, 900)), Ok(true));
    assert_eq!(take(&mut records, record(1, 2, 0)), Ok(true));
    assert_eq!(take(&mut records, record(1, 1, 901)), Ok(false));
    assert_eq!(take(&mut records, record(1, 2, 0)), Ok(false));
    assert_eq!(records.get(&id(1)).unwrap().version, RecordVersion { generation: 2, count: 0 });
}

#[test]
fn strangers_have_no_record_and_a_removed_node_loses_its_own() {
    let mut records = table(0);
    assert_eq!(take(&mut records, record(9, 1, 1)), Err(RecordError::Stranger(id(9))));
    assert_eq!(take(&mut records, record(3, 1, 1)), Ok(true));
    records.set_roster(&BTreeSet::from([id(1)]));
    assert_eq!(records.get(&id(3)), None);
    assert_eq!(own(&mut records, record(0, 1, 1)), Ok(true), "this node is always a member");
}

#[test]
fn nobody_else_writes_this_nodes_record() {
    let mut records = table(0);
    assert_eq!(own(&mut records, record(0, 2, 5)), Ok(true));
    assert_eq!(own(&mut records, record(1, 2, 5)), Err(RecordError::Stranger(id(1))));
    assert_eq!(take(&mut records, record(0, 2, 4)), Ok(false), "an echo of an earlier one is no news");
    let future = RecordVersion { generation: 3, count: 0 };
    assert_eq!(take(&mut records, record(0, 3, 0)), Err(RecordError::FromMyFuture(future)));
    assert_eq!(records.get(&id(0)).unwrap().version, RecordVersion { generation: 2, count: 5 });
}

/// Seed 114 of the random stories: a hostile member claimed by the last number there is, and the next
/// claim of every other node overflowed.
#[test]
fn a_claim_by_a_number_that_nobody_reaches_is_refused() {
    let claims = |claim: u64| {
        let mut record = record(1, 1, 1);
        record.containers.push(ContainerRecord { claim, ..container(1, 0, replica(0)) });
        record
    };
    let mut records = table(0);
    let refused = take(&mut records, claims(u64::MAX));
    assert_eq!(refused, Err(RecordError::ClaimTooHigh { node: id(1), claim: u64::MAX }));
    assert_eq!(take(&mut records, claims(CLAIM_NUMBER_MAX)), Ok(true));
}

#[test]
fn a_record_beyond_its_limits_is_refused_with_the_number() {
    let mut records = table(0);
    let mut large = record(1, 1, 1);
    large.addresses = vec!["10.0.0.1:7000".into(); ADDRESSES_MAX + 1];
    let error = take(&mut records, large).unwrap_err();
    assert!(error.to_string().ends_with("has 17 addresses, the limit is 16"), "{error}");
    let of = JobId {
        namespace: Name::default_namespace(),
        deployment: "copy".parse().unwrap(),
        incarnation: EventId::from_bytes([7; 32]),
        revision: Revision::from_bytes([5; 32]),
    };
    let tells = |times: usize, ends: JobEnds| {
        let mut large = record(1, 1, 1);
        large.jobs = vec![JobRecord { job: of.clone(), ends }; times];
        large
    };
    let failed = |runs: u32, reason: &str| {
        let run = FailedRun { node: id(1), reason: reason.to_owned() };
        JobEnds { failed: (0..runs).map(|it| (it, run.clone())).collect(), ..JobEnds::default() }
    };
    for (large, told) in [
        (tells(JOBS_TOLD_MAX + 1, JobEnds::default()), "has 129 jobs, the limit is 128"),
        (
            tells(1, JobEnds { done: vec![0; 126], ..JobEnds::default() }),
            "has 126 bytes of ends of a job, the limit is 125",
        ),
        (tells(1, failed(9, "")), "has 9 failed runs of a job, the limit is 8"),
        (tells(1, failed(1, &"r".repeat(1025))), "has 1025 bytes in a reason, the limit is 1024"),
    ] {
        let error = take(&mut records, large).unwrap_err();
        assert!(error.to_string().ends_with(told), "{error}");
    }
    assert_eq!(records.get(&id(1)), None);
    assert_eq!(take(&mut records, tells(JOBS_TOLD_MAX, failed(8, &"r".repeat(1024)))), Ok(true));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exchanging_what_the_other_lacks_makes_two_tables_equal(
        ours in prop::collection::vec((2..4_u8, 0..3_u64, 0..4_u64), 0..12),
        theirs in prop::collection::vec((2..4_u8, 0..3_u64, 0..4_u64), 0..12),
    ) {
        let (mut a, mut b) = (table(0), table(1));
        for (table, records) in [(&mut a, &ours), (&mut b, &theirs)] {
            for (n, generation, count) in records {
                take(table, record(*n, *generation, *count)).unwrap();
            }
        }
        let lacks = |of: &Records, to: &Records| -> Vec<(NodeRecord, SignedRecord)> {
            let lacking = of.newer_than(&to.digest()).into_iter();
            lacking.map(|(node, signed)| (of.get(&node).unwrap().clone(), signed.clone())).collect()
        };
        let (to_a, to_b) = (lacks(&b, &a), lacks(&a, &b));
        for (record, bytes) in to_a {
            prop_assert_eq!(&bytes, &signed(&record), "what is passed on is what came");
            prop_assert_eq!(a.insert(record.into(), bytes), Ok(true), "nothing is sent in vain");
        }
        for (record, bytes) in to_b {
            prop_assert_eq!(b.insert(record.into(), bytes), Ok(true), "nothing is sent in vain");
        }
        prop_assert_eq!(a.digest(), b.digest());
        prop_assert!(a.newer_than(&b.digest()).is_empty());
    }

    #[test]
    fn whoever_has_a_container_of_a_replica_is_found_and_nobody_else(
        steps in prop::collection::vec((0..4_u8, prop::collection::vec(0..5_u8, 0..4)), 1..20),
        leaves in prop::option::of(1..4_u8),
    ) {
        let mut table = table(0);
        for (count, (n, ordinals)) in (1..).zip(&steps) {
            let containers = (0..).zip(ordinals).map(|(place, ordinal)| container(*n, place, replica(*ordinal)));
            let record = NodeRecord { containers: containers.collect(), ..record(*n, 1, count) };
            if *n == 0 { own(&mut table, record).unwrap(); } else { take(&mut table, record).unwrap(); }
        }
        if let Some(gone) = leaves {
            table.set_roster(&(0..4).filter(|n| *n != gone).map(id).collect());
        }
        for replica in (0..5).map(replica) {
            let found: Vec<_> = table.containers_of(&replica).map(|(node, it)| (node, it.id)).collect();
            let all = table.iter().flat_map(|record| record.containers.iter().map(|it| (record.node, it)));
            let those: Vec<_> = all.filter(|(_, it)| it.replica == replica).map(|(node, it)| (node, it.id)).collect();
            prop_assert_eq!(found, those);
        }
    }
}
