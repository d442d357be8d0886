//! Records carry the signature of the node that they are of: whoever passes one on cannot change it.
//!
//! ```text
//! signature = Ed25519 by the node over "skerry-record-v1\0" || cluster id (32) || encoded record
//! ```
//!
//! The signature covers the bytes as they were sent, so a record is kept and passed on as it came. The
//! node's id is its key, and is part of the record. An older record of a node is its own word as well:
//! that it is old is told by its version.
//! Reading and checking go through a [`Reader`], which is handed in: of what many nodes of one process are
//! sent, a simulator reads each thing once, and takes in each event once for all that stand alike.
//! Absent on purpose: the key. The shell hands in what signs with it.

use std::fmt;
use std::sync::Arc;

use document::event::{DecodeError, Decoded, is_signed_by};
use document::{Documents, Inserted};
use model::{ClusterId, NodeRecord, Signature, SignedRecord};

/// What is signed in front of a record, so that no other signature can pass for one.
const RECORD_CONTEXT: &[u8] = b"skerry-record-v1\0";

type Sign = dyn Fn(&[u8]) -> [u8; Signature::BYTES] + Send + Sync;

/// Signs with a node's key, the same bytes always alike, as Ed25519 does.
#[derive(Clone)]
pub struct Signer(Arc<Sign>);

impl Signer {
    /// What signs with the node's key.
    pub fn new(sign: impl Fn(&[u8]) -> [u8; Signature::BYTES] + Send + Sync + 'static) -> Self {
        Self(Arc::new(sign))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// What a node signs for the encoded bytes of a record.
pub fn signing_bytes(cluster: ClusterId, bytes: &[u8]) -> Vec<u8> {
    [RECORD_CONTEXT, cluster.as_bytes(), bytes].concat()
}

/// Encodes a record and has it signed, whoever's it is: nobody believes a signature that is not of the
/// record's node.
///
/// # Errors
/// When the record is larger than [`wire::RECORD_BYTES_MAX`].
pub fn sign_record(
    signer: &Signer,
    cluster: ClusterId,
    record: &NodeRecord,
) -> Result<SignedRecord, wire::EncodeError> {
    let bytes = wire::encode_record(record)?;
    let signature = Signature::from_bytes(&(signer.0)(&signing_bytes(cluster, &bytes)));
    Ok(SignedRecord { bytes: bytes.into(), signature })
}

/// Reads what others have signed. What it finds is a function of the bytes alone, so one that remembers
/// says the same as [`Plainly`].
pub trait Reader: fmt::Debug + Send + Sync {
    /// An event whose form and signatures hold.
    ///
    /// # Errors
    /// As [`document::event::decode`].
    fn event(&self, stored: &[u8]) -> Result<Decoded, DecodeError> {
        document::event::decode(stored)
    }

    /// What a record says, whoever signed it.
    ///
    /// # Errors
    /// As [`wire::decode_record`].
    fn record(&self, signed: &SignedRecord) -> Result<Arc<NodeRecord>, wire::DecodeError> {
        wire::decode_record(&signed.bytes).map(Arc::new)
    }

    /// Whether a record was signed by the node that it is of, for this cluster.
    fn is_signed(&self, cluster: ClusterId, record: &NodeRecord, signed: &SignedRecord) -> bool {
        is_signed(cluster, record, signed)
    }

    /// What documents become with these events, and what becomes of each, where another peer of this process
    /// has been there. As [`document::Library::after`].
    fn documents_after(
        &self,
        _documents: &Documents,
        _events: &[&[u8]],
    ) -> Option<(Arc<Documents>, Vec<Inserted>)> {
        None
    }

    /// Documents that other peers of this process may come to as well. As [`document::Library::keep`].
    fn keep_documents(&self, _documents: &Arc<Documents>, _inserted: &[Inserted]) {}
}

/// Reads everything anew each time.
#[derive(Clone, Copy, Debug)]
pub struct Plainly;

impl Reader for Plainly {}

/// Whether a record was signed by the node that it is of, for this cluster.
fn is_signed(cluster: ClusterId, record: &NodeRecord, signed: &SignedRecord) -> bool {
    let bytes = signing_bytes(cluster, &signed.bytes);
    is_signed_by(record.node.as_bytes(), &bytes, &signed.signature.to_bytes())
}
