//! Frames: round trips, golden bytes, and everything that must be refused.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use model::{
    Capacity, ClusterId, ContainerId, ContainerRecord, ContainerState, Declined, Digest, DocId, EventId,
    Extras, ImageRecord, Name, NodeId, NodeRecord, RecordVersion, ReplicaId, Revision, Signature,
    SignedRecord, Terms,
};
use proptest::prelude::*;
use wire::{
    DecodeError, FRAME_BYTES_MAX, LeaseAnswer, LeaseAsk, LeaseEnd, Message, Position, RECORD_BYTES_MAX,
    Round, Verdict, decode, decode_record, encode, encode_record,
};

fn extras() -> Extras {
    Extras::new(BTreeMap::from([("gpu".parse().unwrap(), 1)])).unwrap()
}

fn replica() -> ReplicaId {
    ReplicaId {
        namespace: Name::default_namespace(),
        deployment: "web".parse().unwrap(),
        incarnation: EventId::from_bytes([3; 32]),
        ordinal: 2,
    }
}

const ROUND: Round = Round { generation: 4, count: 300 };

fn lease_answer(verdict: Verdict) -> Message {
    let container = ContainerId::from_bytes([9; 8]);
    Message::LeaseAnswer(LeaseAnswer { replica: replica(), container, number: 7, round: ROUND, verdict })
}

fn record() -> NodeRecord {
    let name: Name = "edge-1".parse().unwrap();
    let replica = replica();
    NodeRecord {
        node: NodeId::from_bytes([1; 32]),
        version: RecordVersion { generation: 4, count: 77 },
        name,
        addresses: vec!["10.0.0.1:7070".into()],
        labels: BTreeMap::from([("site".parse().unwrap(), "north".into())]),
        capacity: Capacity { cpu_m: 2000, memory_b: 1 << 30, pids: 500, extras: extras() },
        terms: Terms { reserved_cpu_m: 200, cpu_percent: 150, ..Terms::default() },
        pressure: Some("memory: short".into()),
        capacity_version: 3,
        links: vec![NodeId::from_bytes([2; 32])],
        containers: vec![ContainerRecord {
            id: ContainerId::from_bytes([9; 8]),
            replica: replica.clone(),
            revision: Revision::from_bytes([5; 32]),
            revision_number: 2,
            claim: 6,
            resources: Capacity { cpu_m: 100, memory_b: 64 << 20, pids: 64, ..Capacity::default() },
            state: ContainerState::Running,
            healthy: Some(true),
            pid: Some(4711),
            started_ms: Some(1_700_000_000_000),
            restarts: 1,
            reason: None,
            confirms: vec![ContainerId::from_bytes([8; 8])],
            ready: true,
            proven: true,
            yields_to: None,
        }],
        declined: vec![Declined {
            replica,
            revision: Revision::from_bytes([5; 32]),
            capacity_version: 3,
            reason: "memory: 1Mi free".into(),
        }],
        failed: Vec::new(),
        jobs: Vec::new(),
        images: vec![ImageRecord {
            reference: "web:1".into(),
            digest: Digest::from_bytes([7; 32]),
            size_b: 12,
        }],
        heads: BTreeMap::from([(DocId::Cluster, vec![EventId::from_bytes([2; 32])])]),
        event_version: 1,
    }
}

fn signed() -> SignedRecord {
    let mut signature = [0; 64];
    signature.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
    SignedRecord {
        bytes: encode_record(&record()).unwrap().into(),
        signature: Signature::from_bytes(&signature),
    }
}

fn samples() -> Vec<(&'static str, Message)> {
    vec![
        ("hello", Message::Hello { cluster: ClusterId::from_bytes([1; 32]), generation: 300 }),
        (
            "positions",
            Message::Positions {
                positions: vec![Position {
                    doc: DocId::Namespace(Name::default_namespace()),
                    heads: vec![EventId::from_bytes([2; 32])],
                    samples: vec![],
                }],
                full: true,
            },
        ),
        ("events", Message::Events { events: vec![b"event".to_vec()], more: false }),
        ("want", Message::Want { ids: vec![EventId::from_bytes([4; 32])] }),
        ("stored", Message::Stored { ids: vec![EventId::from_bytes([4; 32])] }),
        ("records", Message::Records { records: vec![signed()] }),
        (
            "record-digest",
            Message::RecordDigest {
                versions: vec![(NodeId::from_bytes([1; 32]), RecordVersion { generation: 1, count: 2 })],
                reply: false,
            },
        ),
        ("liveness", Message::Liveness { bytes: vec![1, 2, 3], reply: true }),
        (
            "lease-ask",
            Message::LeaseAsk(LeaseAsk {
                replica: replica(),
                container: ContainerId::from_bytes([9; 8]),
                number: 7,
                term_ms: 10_000,
                renews: true,
                round: ROUND,
            }),
        ),
        ("lease-granted", lease_answer(Verdict::Granted)),
        ("lease-refused", lease_answer(Verdict::Refused { highest: 6, held: None })),
        ("lease-held", {
            let held = Some((NodeId::from_bytes([2; 32]), 9_000));
            lease_answer(Verdict::Refused { highest: 7, held })
        }),
        ("lease-unknown", lease_answer(Verdict::Unknown)),
        ("lease-unable", lease_answer(Verdict::Unable)),
        (
            "lease-end",
            Message::LeaseEnd(LeaseEnd {
                replica: replica(),
                container: ContainerId::from_bytes([9; 8]),
                number: 7,
            }),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_reads_back_and_its_bytes_are_those_of_the_golden_file() {
    let golden = include_str!("golden/v1.txt");
    let made: String = samples()
        .iter()
        .map(|(name, message)| format!("{name} {}\n", hex(&encode(message).unwrap())))
        .collect();
    for (_, message) in samples() {
        assert_eq!(decode(&encode(&message).unwrap()).unwrap(), message);
    }
    assert_eq!(golden, made, "the wire format of version 1 is final");
}

#[test]
fn every_shorter_frame_is_refused_and_so_is_one_byte_more() {
    for (name, message) in samples() {
        let frame = encode(&message).unwrap();
        for length in 0..frame.len() {
            assert!(decode(&frame[..length]).is_err(), "{name} cut to {length}");
        }
        let mut longer = frame;
        longer.push(0);
        assert!(matches!(decode(&longer), Err(DecodeError::Trailing { bytes: 1 })), "{name}");
    }
}

#[test]
fn a_record_reads_back_and_is_refused_when_it_is_cut_longer_or_too_large() {
    let bytes = encode_record(&record()).unwrap();
    assert_eq!(decode_record(&bytes).unwrap(), record());
    for length in 0..bytes.len() {
        assert!(decode_record(&bytes[..length]).is_err(), "cut to {length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode_record(&longer), Err(DecodeError::Trailing { bytes: 1 })));
    assert!(matches!(decode_record(&vec![0; RECORD_BYTES_MAX + 1]), Err(DecodeError::TooLarge { .. })));
    let mut large = record();
    large.addresses = vec!["a".repeat(RECORD_BYTES_MAX)];
    assert_eq!(encode_record(&large).unwrap_err().to_string(), "a record larger than 1048320 bytes");
    // The largest one still fits a frame by itself.
    let bytes = vec![1; RECORD_BYTES_MAX];
    encode(&Message::Records { records: vec![SignedRecord { bytes: bytes.into(), ..signed() }] }).unwrap();
}

#[test]
fn a_signature_costs_its_64_bytes_and_the_length_of_the_record() {
    let frame = encode(&Message::Records { records: vec![signed()] }).unwrap();
    // The version of the frame, the kind of the message, one record, its length as a varint of 3 bytes.
    assert_eq!(frame.len(), 2 + 1 + 1 + 3 + encode_record(&record()).unwrap().len() + 64);
}

#[test]
fn a_length_of_two_to_the_forty_is_refused_without_allocating() {
    // Variant 2 (Events), then a vector length as a 64-bit varint.
    let frame = [&[0, 1, 2, 253][..], &(1u64 << 40).to_le_bytes()].concat();
    assert!(matches!(decode(&frame), Err(DecodeError::Malformed { .. })));
}

#[test]
fn an_oversized_frame_and_a_newer_version_are_refused_by_name() {
    let error = decode(&vec![0; FRAME_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.to_string(), "a frame of 1048577 bytes, the limit is 1048576");
    let error = decode(&[0, 9, 1]).unwrap_err();
    assert_eq!(error.to_string(), "a frame of protocol version 9, this release speaks 1");
    let huge = Message::Liveness { bytes: vec![0; FRAME_BYTES_MAX], reply: false };
    assert!(encode(&huge).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        drop(decode(&bytes));
        drop(decode(&[&[0, 1][..], &bytes].concat()));
        drop(decode_record(&bytes));
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_as_some_message(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for (_, message) in samples() {
            let mut frame = encode(&message).unwrap();
            let at = at.index(frame.len());
            frame[at] = to;
            drop(decode(&frame));
        }
    }
}
