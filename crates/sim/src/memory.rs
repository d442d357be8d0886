//! What one peer was sent, all others are sent as well: each signed thing is read once for all of them, and
//! peers that have taken in the same events, in the same order, have one set of documents together.
//!
//! What is read is a function of the bytes alone, so that a peer which reads here finds what it would find
//! itself. Records are shared, not copied: a thousand peers that each hold a thousand of them would not fit
//! into any memory.
//!
//! Under records stand marks in the place of signatures, of the same size: a hash of what was signed and by
//! whom. Nobody here makes the mark of another. Events have real signatures: their ids follow from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use document::event::{DecodeError, Decoded, id_of};
use document::{Documents, Inserted, Library};
use model::limits::EVENT_BYTES_MAX;
use model::{ClusterId, EventId, NodeId, NodeRecord, Signature, SignedRecord};
use node::{Plainly, Reader, Signer, signing_bytes};
use sha2::{Digest as _, Sha256};

/// Records that are remembered whether or not a peer holds them.
const RECORDS_UNHELD_MAX: usize = 8_192;

/// The same of events.
const EVENTS_MAX: usize = 65_536;

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    read: Mutex<Read>,
    library: Mutex<Library>,
}

#[derive(Debug, Default)]
struct Read {
    events: BTreeMap<EventId, Decoded>,
    /// By the first bytes of the signature: of two that share them one is read anew.
    records: BTreeMap<u64, Known>,
    /// So many that peers held there were when it was looked at last.
    held: usize,
}

#[derive(Debug)]
struct Known {
    bytes: Arc<[u8]>,
    signature: Signature,
    record: Arc<NodeRecord>,
    is_signed: Option<(ClusterId, bool)>,
}

/// Signs as this node.
pub(crate) fn signer(node: NodeId) -> Signer {
    Signer::new(move |bytes| mark(&node, bytes))
}

fn mark(node: &NodeId, bytes: &[u8]) -> [u8; 64] {
    let mut mark = [0; 64];
    for (half, part) in (0_u8..).zip(mark.chunks_mut(32)) {
        let hash = Sha256::new_with_prefix([half]).chain_update(node.as_bytes()).chain_update(bytes);
        part.copy_from_slice(&hash.finalize());
    }
    mark
}

impl Memory {
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The documents that peers hold.
    pub(crate) fn library(&self) -> MutexGuard<'_, Library> {
        self.library.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(signed: &SignedRecord) -> u64 {
    signed.signature.to_bytes().first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
}

impl Known {
    fn is_of(&self, signed: &SignedRecord) -> bool {
        let same_bytes = Arc::ptr_eq(&self.bytes, &signed.bytes) || self.bytes == signed.bytes;
        same_bytes && self.signature == signed.signature
    }
}

impl Reader for Memory {
    fn event(&self, stored: &[u8]) -> Result<Decoded, DecodeError> {
        if stored.len() > EVENT_BYTES_MAX {
            return Plainly.event(stored);
        }
        let id = id_of(stored);
        let mut read = self.read();
        if let Some(known) = read.events.get(&id) {
            return Ok(known.clone());
        }
        let decoded = Plainly.event(stored)?;
        if read.events.len() >= EVENTS_MAX {
            read.events.clear();
        }
        read.events.insert(id, decoded.clone());
        Ok(decoded)
    }

    fn record(&self, signed: &SignedRecord) -> Result<Arc<NodeRecord>, wire::DecodeError> {
        let mut read = self.read();
        let key = key(signed);
        if let Some(known) = read.records.get(&key).filter(|known| known.is_of(signed)) {
            return Ok(Arc::clone(&known.record));
        }
        let record = Plainly.record(signed)?;
        if read.records.len() >= RECORDS_UNHELD_MAX + 2 * read.held {
            // One that a peer still holds and that is read anew would be in memory twice.
            read.records.retain(|_, known| Arc::strong_count(&known.record) > 1);
            read.held = read.records.len();
        }
        let (bytes, signature) = (Arc::clone(&signed.bytes), signed.signature);
        let known = Known { bytes, signature, record: Arc::clone(&record), is_signed: None };
        read.records.insert(key, known);
        Ok(record)
    }

    fn is_signed(&self, cluster: ClusterId, record: &NodeRecord, signed: &SignedRecord) -> bool {
        let look =
            || mark(&record.node, &signing_bytes(cluster, &signed.bytes)) == signed.signature.to_bytes();
        let mut read = self.read();
        let known = read.records.get_mut(&key(signed));
        let known = known
            .filter(|known| known.is_of(signed) && Arc::as_ptr(&known.record) == std::ptr::from_ref(record));
        let Some(known) = known else { return look() };
        match known.is_signed {
            Some((of, is_signed)) if of == cluster => is_signed,
            _ => known.is_signed.insert((cluster, look())).1,
        }
    }

    fn documents_after(
        &self,
        documents: &Documents,
        events: &[&[u8]],
    ) -> Option<(Arc<Documents>, Vec<Inserted>)> {
        self.library().after(documents, events)
    }

    fn keep_documents(&self, documents: &Arc<Documents>, inserted: &[Inserted]) {
        self.library().keep(documents, inserted);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::author::Spec;
    use crate::world::{Cluster, Settings};

    /// Both sides of a split change things, peers are killed, the split heals; all that peers have together
    /// is worked out by each as well.
    fn tell(any_order: bool, nodes: usize) -> (Cluster, u64) {
        let mut cluster = Cluster::switched_off(7, nodes, Settings::default());
        cluster.thorough(!any_order);
        cluster.reader.library().proves(true);
        for host in 0..nodes {
            cluster.start(host);
        }
        let second = Duration::from_secs(1);
        cluster.run_for(second * 3);
        cluster.apply(0, "web", &Spec::new(3));
        cluster.run_for(second * 3);
        let all: Vec<usize> = (0..nodes).collect();
        let (one, other) = all.split_at(nodes / 2);
        cluster.split(&[one, other]);
        for n in 0..4 {
            cluster.set(0, false, "web", "env", &format!("{{\"vars\":{{\"N\":\"{n}\"}}}}"));
            let count = n + 1;
            let json = format!("{{\"count\":{count},\"class\":\"available\"}}");
            cluster.set(nodes - 1, true, "web", "replicas", &json);
            cluster.run_for(second);
        }
        cluster.stop_peer(1);
        cluster.heal();
        cluster.run_for(second * 5);
        cluster.start(1);
        cluster.run_for(second * 10);
        assert!(cluster.agreed(&all), "{:?}", cluster.trace());
        assert!(cluster.violations().is_empty(), "{:?}", cluster.violations());
        let found = cluster.reader.library().found();
        (cluster, found)
    }

    #[test]
    fn what_peers_have_together_is_what_each_would_work_out_itself() {
        for nodes in [4, 15] {
            for any_order in [false, true] {
                let (_, found) = tell(any_order, nodes);
                assert!(found > 8 * (nodes as u64 / 2 - 1), "{found} documents were found");
            }
        }
    }

    #[test]
    fn whatever_order_counts_a_cluster_does_the_same() {
        let (one, _) = tell(false, 4);
        let (other, _) = tell(true, 4);
        assert_eq!(one.trace(), other.trace());
    }
}
