//! What peers send, in bytes, for those who ask for it beforehand: to measure each message costs as much
//! as to send it.

use std::collections::BTreeMap;

use wire::Message;

use crate::world::Cluster;

/// What was sent on links since somebody wanted to know, by kind; as frames, without what QUIC adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes and messages of each kind.
    pub by_kind: BTreeMap<&'static str, (u64, u64)>,
}

impl Bytes {
    /// Bytes of all kinds together.
    pub fn total(&self) -> u64 {
        self.by_kind.values().map(|(bytes, _)| bytes).sum()
    }

    /// Bytes of some kinds together.
    pub fn of(&self, kinds: &[&str]) -> u64 {
        self.by_kind.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, (bytes, _))| bytes).sum()
    }

    fn add(&mut self, kind: &'static str, bytes: u64) {
        let so_far = self.by_kind.entry(kind).or_default();
        so_far.0 += bytes;
        so_far.1 += 1;
    }
}

const fn kind(message: &Message) -> &'static str {
    match message {
        Message::Hello { .. } => "hello",
        Message::Positions { .. } => "positions",
        Message::Events { .. } => "events",
        Message::Want { .. } => "want",
        Message::Stored { .. } => "stored",
        Message::Records { .. } => "records",
        Message::RecordDigest { .. } => "digests",
        Message::Liveness { .. } => "liveness",
        Message::LeaseAsk(_) | Message::LeaseAnswer(_) | Message::LeaseEnd(_) => "leases",
    }
}

impl Cluster {
    /// Counts bytes from here on, from zero.
    pub fn count_bytes(&mut self) {
        self.bytes = Some(Bytes::default());
    }

    /// What was counted since then.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone().unwrap_or_default()
    }

    pub(crate) fn sends(&mut self, message: &Message) {
        if let Some(bytes) = &mut self.bytes {
            bytes.add(kind(message), Self::bytes_of(message));
        }
    }

    pub(crate) fn sends_datagram(&mut self, datagram: &[u8]) {
        if let Some(bytes) = &mut self.bytes {
            bytes.add("datagrams", datagram.len() as u64);
        }
    }
}
