//! Doors for a fuzzer: any bytes may come in, and nothing may panic.

use model::ClusterId;

use crate::Documents;
use crate::event::decode as decode_event;

/// Decodes bytes as one event; whatever decodes must encode to the same bytes.
pub fn decode(data: &[u8]) {
    if let Ok(decoded) = decode_event(data) {
        assert!(decoded.event.encode() == data, "a decoded event encodes to what it was decoded from");
    }
}

/// Gives bytes to an empty cluster.
///
/// Only a genesis can be valid there, and only if the cluster is its own; both are tried.
pub fn insert(data: &[u8]) {
    for cluster in
        [ClusterId::from_bytes([1; 32]), ClusterId::from_bytes(*crate::event::id_of(data).as_bytes())]
    {
        let mut documents = Documents::new(cluster);
        let checked = documents.check(data).is_ok();
        assert!(checked == documents.insert(data).is_ok(), "check and insert agree");
    }
}
