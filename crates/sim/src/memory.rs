//! What one peer was sent, all others are sent as well: each signed thing is read once for all of them.
//!
//! What is read is a function of the bytes alone, so that a peer which reads here finds what it would find
//! itself. Records are shared, not copied: a thousand peers that each hold a thousand of them would not fit
//! into any memory.
//!
//! Under records stand marks in the place of signatures, of the same size: a hash of what was signed and by
//! whom. Nobody here makes the mark of another. Events have real signatures: their ids follow from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use document::event::{DecodeError, Decoded, id_of};
use model::limits::EVENT_BYTES_MAX;
use model::{ClusterId, EventId, NodeId, NodeRecord, SignedRecord};
use node::{Plainly, Reader, Signer, signing_bytes};
use sha2::{Digest as _, Sha256};

/// Records that are remembered: some of each node of the largest cluster. With more, all are forgotten.
const RECORDS_MAX: usize = 8_192;

/// The same of events.
const EVENTS_MAX: usize = 65_536;

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Read>);

#[derive(Debug, Default)]
struct Read {
    events: BTreeMap<EventId, Decoded>,
    records: BTreeMap<[u8; 64], Known>,
}

#[derive(Debug)]
struct Known {
    bytes: Arc<[u8]>,
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

impl Known {
    fn is_of(&self, signed: &SignedRecord) -> bool {
        Arc::ptr_eq(&self.bytes, &signed.bytes) || self.bytes == signed.bytes
    }
}

impl Reader for Memory {
    fn event(&self, stored: &[u8]) -> Result<Decoded, DecodeError> {
        if stored.len() > EVENT_BYTES_MAX {
            return Plainly.event(stored);
        }
        let id = id_of(stored);
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = signed.signature.to_bytes();
        if let Some(known) = read.records.get(&key).filter(|known| known.is_of(signed)) {
            return Ok(Arc::clone(&known.record));
        }
        let record = Plainly.record(signed)?;
        if read.records.len() >= RECORDS_MAX {
            read.records.clear();
        }
        let known = Known { bytes: Arc::clone(&signed.bytes), record: Arc::clone(&record), is_signed: None };
        read.records.insert(key, known);
        Ok(record)
    }

    fn is_signed(&self, cluster: ClusterId, record: &NodeRecord, signed: &SignedRecord) -> bool {
        let look =
            || mark(&record.node, &signing_bytes(cluster, &signed.bytes)) == signed.signature.to_bytes();
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.records.get_mut(&signed.signature.to_bytes());
        let known = known
            .filter(|known| known.is_of(signed) && Arc::as_ptr(&known.record) == std::ptr::from_ref(record));
        let Some(known) = known else { return look() };
        match known.is_signed {
            Some((of, is_signed)) if of == cluster => is_signed,
            _ => known.is_signed.insert((cluster, look())).1,
        }
    }
}
