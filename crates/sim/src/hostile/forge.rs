//! A peer that was taken over. It has its node's key and no other: beside all that it should send, it
//! sends records of the other nodes that these have not written.
//!
//! Each lie is told in two ways: signed by the liar's own key, and under the signature that the true
//! record has. Lies are newer than the truth, so whoever believes one hears the truth no more.

use model::{ContainerId, ContainerRecord, ContainerState, NodeId, NodeRecord, Signature, SignedRecord};
use node::sign_record;
use wire::Message;

use crate::world::Cluster;

/// By how much a lie is newer than the truth: it stays so for the whole story.
const AHEAD: u64 = 1_000_000;

impl Cluster {
    /// The peer of this machine is taken over, or given back.
    pub fn take_over(&mut self, host: usize, taken: bool) {
        let what = if taken { "is taken over and lies of the others" } else { "is given back" };
        self.tell(format!("n{}'s peer {what}", host + 1));
        self.hosts[host].lies = taken;
    }

    /// Hands records to a peer as if they had come from another.
    pub fn bring_records(&mut self, host: usize, from: NodeId, records: Vec<SignedRecord>) {
        self.input(host, node::Input::Received { from, message: Message::Records { records } });
    }

    /// The records that a peer holds of the others, its own included, as it would pass them on.
    pub fn held_records(&self, host: usize) -> Vec<(NodeId, SignedRecord)> {
        let node = self.hosts[host].node.as_ref();
        let held = node.into_iter().flat_map(|node| node.records().newer_than(&[]));
        held.map(|(of, signed)| (of, signed.clone())).collect()
    }

    /// A record signed by the node of this machine, for a cluster of any name.
    ///
    /// # Panics
    /// When the record is larger than any may be.
    pub fn signed_by(&self, host: usize, cluster: model::ClusterId, record: &NodeRecord) -> SignedRecord {
        sign_record(&self.hosts[host].signer, cluster, record).expect("a test makes records that fit")
    }

    /// Everything false that the peer of this machine can say of the others at a time: now that nothing
    /// runs there, now that everything does. Each is newer than all that it said before.
    pub(crate) fn send_lies(&mut self, host: usize, to: NodeId) {
        let me = self.hosts[host].id;
        let held = self.held_records(host);
        let known: Vec<(NodeRecord, Signature)> = held
            .iter()
            .filter_map(|(_, signed)| Some((wire::decode_record(&signed.bytes).ok()?, signed.signature)))
            .collect();
        let all: Vec<&ContainerRecord> = known.iter().flat_map(|(record, _)| &record.containers).collect();
        let mut records = Vec::new();
        for (truth, signature) in known.iter().filter(|(record, _)| record.node != me && record.node != to) {
            let mut lie = truth.clone();
            lie.version.count += AHEAD + self.frames;
            lie.containers = if self.frames.is_multiple_of(2) { Vec::new() } else { everything(&all) };
            let mine = self.signed_by(host, self.identity, &lie);
            let borrowed = SignedRecord { signature: *signature, ..mine.clone() };
            records.extend([mine, borrowed]);
        }
        if !records.is_empty() {
            self.send(host, to, Message::Records { records });
        }
    }
}

/// A copy of all that runs anywhere, well, before which every other one makes way.
fn everything(all: &[&ContainerRecord]) -> Vec<ContainerRecord> {
    let copy = |it: &&ContainerRecord| ContainerRecord {
        id: ContainerId::from_bytes(it.id.as_bytes().map(|byte| !byte)),
        claim: it.claim + AHEAD,
        state: ContainerState::Running,
        healthy: Some(true),
        confirms: all.iter().map(|it| it.id).collect(),
        ready: true,
        proven: true,
        yields_to: None,
        ..(*it).clone()
    };
    all.iter().map(copy).collect()
}
