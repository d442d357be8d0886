//! Records that their nodes have not written, and those that are passed on as they came.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use model::{ClusterId, NodeId, NodeRecord, Signature, SignedRecord};
use proptest::prelude::*;
use sim::{Cluster, Settings, Spec};

fn with_web(nodes: usize, replicas: u32) -> Cluster {
    let mut cluster = Cluster::new(17, nodes, Settings::default());
    cluster.run_for(Duration::from_secs(3));
    cluster.apply(0, "web", &Spec::new(replicas));
    cluster.run_for(Duration::from_secs(4));
    cluster
}

fn record_of(cluster: &Cluster, at: usize, of: usize) -> NodeRecord {
    cluster.node(at).unwrap().records().get(&cluster.id(of)).unwrap().clone()
}

fn told(cluster: &Cluster, host: usize) -> usize {
    let begins = format!(" n{} record-forged: ", host + 1);
    cluster.trace().iter().filter(|line| line.contains(&begins)).count()
}

/// What n1 takes for n3's record when n2 brings these.
fn after(cluster: &mut Cluster, records: Vec<SignedRecord>) -> NodeRecord {
    let from = cluster.id(1);
    cluster.bring_records(0, from, records);
    record_of(cluster, 0, 2)
}

#[test]
fn a_record_counts_only_as_its_node_signed_it_for_this_cluster() {
    let mut cluster = with_web(3, 3);
    let truth = record_of(&cluster, 0, 2);
    let id = cluster.node(0).unwrap().documents().cluster();
    let mut newer = truth.clone();
    newer.version.count += 10;
    let good = cluster.signed_by(2, id, &newer);
    let mut changed = newer.clone();
    changed.capacity.cpu_m += 1;
    let changed = SignedRecord { bytes: wire::encode_record(&changed).unwrap().into(), ..good.clone() };
    let mut bent = good.signature.to_bytes();
    bent[63] ^= 1;
    let mut of_another = newer.clone();
    of_another.node = cluster.id(0);
    let lies = [
        ("by the key of who brings it", cluster.signed_by(1, id, &newer)),
        ("with a field changed", changed),
        ("for another cluster", cluster.signed_by(2, ClusterId::from_bytes([1; 32]), &newer)),
        (
            "with a bit of the signature turned",
            SignedRecord { signature: Signature::from_bytes(&bent), ..good.clone() },
        ),
        ("without any", SignedRecord { signature: Signature::from_bytes(&[0; 64]), ..good.clone() }),
        ("of n1 itself, from a life that it forgot", cluster.signed_by(1, id, &of_another)),
        ("that cannot be read", SignedRecord { bytes: vec![255; 9].into(), ..good.clone() }),
    ];
    for (what, lie) in lies {
        assert_eq!(after(&mut cluster, vec![lie]), truth, "{what}");
        assert_eq!(told(&cluster, 0), 1, "said once, however many come: {what}");
        cluster.run_for(Duration::from_secs(2));
    }
    assert!(!cluster.trace().iter().any(|line| line.contains("second-life")), "nobody proved one");
    let words = cluster.trace().iter().find(|line| line.contains("record-forged")).unwrap().clone();
    assert!(
        words.ends_with("n2 brought a record of n3 that n3 has not signed; such records are dropped"),
        "{words}"
    );
    // A minute later it is worth another word.
    cluster.run_for(Duration::from_secs(60));
    let lie = cluster.signed_by(1, id, &newer);
    after(&mut cluster, vec![lie]);
    assert_eq!(told(&cluster, 0), 2);

    // The true one is taken from whoever brings it, an older one from nobody.
    let mut newer = record_of(&cluster, 0, 2);
    newer.version.count += 10;
    let good = cluster.signed_by(2, id, &newer);
    assert_eq!(after(&mut cluster, vec![good]), newer);
    let old = cluster.signed_by(2, id, &truth);
    assert_eq!(after(&mut cluster, vec![old]), newer, "an older record is its node's word, and no news");
    assert_eq!(told(&cluster, 0), 2);
}

#[test]
fn a_peer_that_was_taken_over_changes_nothing_by_lying_of_the_others() {
    // n1 and n3 hear of one another through n2 alone.
    let mut cluster = with_web(3, 6);
    cluster.cut_one_way(0, 2);
    cluster.cut_one_way(2, 0);
    cluster.run_for(Duration::from_secs(20));
    cluster.guard_copies();
    let before = cluster.processes();
    cluster.take_over(1, true);
    // Something to tell: each peer that is restarted asks for all records, and says its own.
    for host in [0, 2] {
        cluster.stop_peer(host);
        cluster.start(host);
        cluster.run_for(Duration::from_secs(20));
    }
    assert_eq!(cluster.processes(), before, "{}", cluster.trace().join("\n"));
    assert!(told(&cluster, 0) > 0 && told(&cluster, 2) > 0, "{}", cluster.trace().join("\n"));
    cluster.heal();
    // A change goes on as ever, and so does the loss of a node.
    cluster.set(0, false, "web", "replicas", r#"{"count":9,"class":"available"}"#);
    let runs = cluster
        .run_until(Duration::from_secs(5), |c| c.agreed(&[0, 1, 2]) && c.runs_once(&[0, 1, 2], "web", 9));
    assert!(runs.is_some(), "{}", cluster.trace().join("\n"));
    cluster.power_off(2);
    let runs = cluster.run_until(Duration::from_secs(5), |c| c.runs_once(&[0, 1], "web", 9));
    assert!(runs.is_some(), "{}", cluster.trace().join("\n"));
    assert_eq!(cluster.lost_copies().count(), 0);
    // What is told of it is bounded: once a minute for each that hears it.
    assert!(told(&cluster, 0) + told(&cluster, 2) <= 6, "{}", cluster.trace().join("\n"));
}

/// A record of a node, of any size that one may have.
fn any_record(of: NodeId) -> impl Strategy<Value = NodeRecord> {
    let text = "[a-z0-9.:]{1,20}";
    (
        prop::collection::vec(text, 0..4),
        prop::collection::vec(any::<[u8; 32]>().prop_map(NodeId::from_bytes), 0..6),
        prop::collection::vec((any::<[u8; 32]>(), text), 0..5),
        (any::<u16>(), any::<u32>(), any::<u64>()),
    )
        .prop_map(move |(addresses, links, images, (event_version, cpu, capacity_version))| NodeRecord {
            failed: Vec::new(),
            jobs: Vec::new(),
            node: of,
            version: model::RecordVersion { generation: 9_000, count: 1 },
            name: "n3".parse().unwrap(),
            addresses,
            labels: std::collections::BTreeMap::new(),
            capacity: model::Capacity { cpu_m: cpu.into(), memory_b: 1, pids: 1, ..Default::default() },
            terms: model::Terms::default(),
            pressure: None,
            capacity_version,
            links,
            containers: vec![],
            declined: vec![],
            images: images
                .into_iter()
                .map(|(digest, reference)| model::ImageRecord {
                    reference,
                    digest: model::Digest::from_bytes(digest),
                    size_b: capacity_version,
                })
                .collect(),
            heads: std::collections::BTreeMap::new(),
            event_version,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_reaches_others_in_the_very_bytes_that_its_node_signed(
        record in any_record(NodeId::from_bytes(*Cluster::switched_off(17, 4, Settings::default()).id(2).as_bytes()))
    ) {
        // n3 is off: whatever the others have of it, they have from one another.
        let mut cluster = Cluster::switched_off(17, 4, Settings::default());
        for host in [0, 1, 3] {
            cluster.start(host);
        }
        cluster.split(&[&[0, 1], &[2], &[3]]);
        cluster.run_for(Duration::from_secs(3));
        let id = cluster.node(0).unwrap().documents().cluster();
        let signed = cluster.signed_by(2, id, &record);
        let from = cluster.id(1);
        cluster.bring_records(0, from, vec![signed.clone()]);
        cluster.run_for(Duration::from_secs(1));
        // n4 gets it at the second hand, later.
        cluster.split(&[&[1, 3], &[0], &[2]]);
        cluster.run_for(Duration::from_secs(5));
        cluster.split(&[&[0, 3], &[1], &[2]]);
        cluster.run_for(Duration::from_secs(5));
        for host in [0, 3] {
            let held = cluster.held_records(host);
            let of_it = held.iter().find(|(of, _)| *of == record.node).map(|(_, signed)| signed);
            prop_assert_eq!(of_it, Some(&signed), "n{}", host + 1);
            prop_assert_eq!(cluster.node(host).unwrap().records().get(&record.node), Some(&record));
        }
    }
}
