//! Ids: each a noun, each its own type, printed short in traces and whole in data.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Name;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected {digits} hexadecimal digits in lower case")]
pub struct IdError {
    what: &'static str,
    digits: usize,
    text: String,
}

/// The first eight bytes, as a number of the same order.
const fn first_eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => 0,
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $short:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $len]);

        // By their bytes. Ids are hashes and keys: the first eight tell nearly always, and as one number they
        // are compared in place. Maps by id are asked at each input.
        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                match first_eight(&self.0).cmp(&first_eight(&other.0)) {
                    Ordering::Equal if self == other => Ordering::Equal,
                    Ordering::Equal => self.0.cmp(&other.0),
                    unequal => unequal,
                }
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// Wraps the raw bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough to tell ids apart by eye.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "-{}"), HEXLOWER.encode(&self.0[..3]))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { what: $what, digits: $len * 2, text: text.chars().take(80).collect() };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| error())?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }

        // Text where people read (JSON), bytes where machines do (the wire).
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    Ok(Self(<[u8; $len]>::deserialize(deserializer)?))
                }
            }
        }
    };
}

id!(
    /// Names one cluster: the hash of its genesis event.
    ClusterId, 32, "cluster", "cluster id"
);
id!(
    /// Names one node: its Ed25519 public key. Never reused: a re-imaged machine is a new node.
    NodeId, 32, "node", "node id"
);
id!(
    /// Names one user: the Ed25519 public key that signs the user's events.
    UserId, 32, "user", "user id"
);
id!(
    /// Names one join token: the public half of its one-time key.
    TokenId, 32, "token", "token id"
);
id!(
    /// Names one event: the hash of its signed bytes.
    EventId, 32, "event", "event id"
);
id!(
    /// Names one version of a deployment's template: the hash of the merged template.
    Revision, 32, "rev", "revision"
);
id!(
    /// A SHA-256 digest of content (an image's manifest, a blob).
    Digest, 32, "sha256", "sha256 digest"
);
id!(
    /// Names one container on one node, for ever.
    ContainerId, 8, "c", "container id"
);

/// One wanted copy of a deployment.
///
/// The incarnation (the event that created the deployment) is part of it, so a deployment that is
/// deleted and made again shares no replica with its namesake.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The namespace.
    pub namespace: Name,
    /// The deployment's name.
    pub deployment: Name,
    /// The event that created the deployment.
    pub incarnation: EventId,
    /// Which copy, counted from 0.
    pub ordinal: u32,
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.namespace, self.deployment, self.ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_bytes() {
        let mut all = Vec::new();
        for place in [0, 6, 7, 8, 9, 31] {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = [0x80; 32];
                bytes[place] = byte;
                all.push(bytes);
            }
        }
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            assert_eq!(NodeId::from_bytes(*a).cmp(&NodeId::from_bytes(*b)), a.cmp(b), "{a:?} {b:?}");
            let short = |it: &[u8; 32]| *it.first_chunk::<8>().unwrap();
            let (a, b) = (short(a), short(b));
            assert_eq!(ContainerId::from_bytes(a).cmp(&ContainerId::from_bytes(b)), a.cmp(&b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn an_id_survives_text_and_refuses_what_is_not_one() {
        let id = NodeId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        for bad in ["", "ab", "AB", &"AB".repeat(32), &"g".repeat(64), &"ab".repeat(33)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
