//! Keys, certificates and join tokens: who a node or a user is, and how the other end proves it.
//!
//! A node or a user *is* an Ed25519 public key. TLS carries that key in a self-signed certificate
//! which means nothing but the key: names, issuers and dates are ignored, because boxes boot in
//! 1970 and because an authority that signs certificates would be a hidden master. Whether a key
//! belongs to the cluster is asked of the roster, by whoever owns the connection.
//!
//! Invariants: a handshake that succeeds proves that the other end holds the private half of the
//! key that [`peer_public_key`] reads; the key that is pinned is the key that was verified. No
//! private key is printed by `Debug`. The copies that this crate keeps are wiped when dropped; those
//! inside ring and rustls are theirs.
//! Absent on purpose: sockets, the roster, expiry, session resumption and 0-RTT (resumed sessions
//! would skip the check of the key).
#![forbid(unsafe_code)]

mod file;
mod key;
mod tls;
mod token;

pub use file::KeyFileError;
pub use key::{KeyPair, PUBLIC_KEY_BYTES, RandomError, SEED_BYTES, SIGNATURE_BYTES, verify};
pub use tls::{Expect, PeerKeyError, client_config, peer_public_key, server_config};
pub use token::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, JoinToken, TOKEN_PREFIX, TokenError};
