//! Records carry the signature of the node that they are of: whoever passes one on cannot change it.
//!
//! ```text
//! signature = Ed25519 by the node over "skerry-record-v1\0" || cluster id (32) || encoded record
//! ```
//!
//! The signature covers the bytes as they were sent, so a record is kept and passed on as it came. The
//! node's id is its key, and is part of the record. An older record of a node is its own word as well:
//! that it is old is told by its version.
//! Absent on purpose: the key. The shell hands in what signs with it.

use std::fmt;
use std::sync::Arc;

use document::event::is_signed_by;
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

fn signing_bytes(cluster: ClusterId, bytes: &[u8]) -> Vec<u8> {
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
    Ok(SignedRecord { bytes, signature })
}

/// Whether a record was signed by the node that it is of, for this cluster.
pub(crate) fn is_signed(cluster: ClusterId, record: &NodeRecord, signed: &SignedRecord) -> bool {
    let bytes = signing_bytes(cluster, &signed.bytes);
    is_signed_by(record.node.as_bytes(), &bytes, &signed.signature.to_bytes())
}
