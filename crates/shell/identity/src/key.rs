//! Ed25519 key pairs.

use std::fmt;
use std::sync::Arc;

use model::{NodeId, TokenId, UserId};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// Bytes of the seed that an Ed25519 key pair is made from.
pub const SEED_BYTES: usize = 32;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Bytes before the seed in an Ed25519 private key in PKCS#8 version 1 (RFC 8410, section 7).
pub(crate) const PKCS8_V1_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The system's source of random bytes gave none. Nothing was made.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomError(());

/// An Ed25519 key pair of a node, a user or a token. Clones share one copy of the secret.
#[derive(Clone)]
pub struct KeyPair {
    inner: Arc<Inner>,
}

struct Inner {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The public half alone: a key pair may stand in a struct that is traced.
        write!(f, "KeyPair(public {})", data_encoding::HEXLOWER.encode(&self.inner.public[..4]))
    }
}

impl KeyPair {
    /// Makes a new pair from the system's random source.
    pub fn generate() -> Result<Self, RandomError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| RandomError(()))?;
        Ok(Self::from_seed(*seed))
    }

    /// Makes the pair of `seed`; the same seed always gives the same pair.
    pub fn from_seed(seed: [u8; SEED_BYTES]) -> Self {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .expect("any 32 bytes are the seed of an Ed25519 key");
        let public = pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Self { inner: Arc::new(Inner { seed, pair, public }) }
    }

    /// The public half.
    pub fn public(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.inner.public
    }

    /// Signs `message`. Deterministic: the same message always has the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.inner.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The node that this key is.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.inner.public)
    }

    /// The user that this key is.
    pub fn user_id(&self) -> UserId {
        UserId::from_bytes(self.inner.public)
    }

    /// The join token that this key is the one-time key of.
    pub fn token_id(&self) -> TokenId {
        TokenId::from_bytes(self.inner.public)
    }

    /// A secret of 32 bytes that only this key's holder can compute, one for each `label`.
    ///
    /// For keys that must be the same after a restart without being stored, like the key of QUIC's
    /// stateless resets. Labels are fixed texts in code, one per use.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.inner.seed.as_slice());
        let mut context = hmac::Context::with_key(&key);
        // No Ed25519 computation takes this input, so the two uses of the seed do not meet.
        context.update(b"skerry derive v1\0");
        context.update(label.as_bytes());
        let tag = context.sign();
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(tag.as_ref());
        secret
    }

    /// The pair as PKCS#8 version 1, the form that every tool reads.
    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_V1_PREFIX.len() + SEED_BYTES));
        der.extend_from_slice(&PKCS8_V1_PREFIX);
        der.extend_from_slice(self.inner.seed.as_slice());
        der
    }

    pub(crate) fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.inner.seed
    }
}

/// Whether `signature` is `public`'s signature of `message`. A `public` that is no curve point
/// verifies nothing.
pub fn verify(public: &[u8; PUBLIC_KEY_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_with_its_key_and_message_alone() {
        let key = KeyPair::generate().unwrap();
        let signature = key.sign(b"hello");
        assert!(verify(&key.public(), b"hello", &signature));
        assert!(!verify(&key.public(), b"hullo", &signature));
        assert!(!verify(&KeyPair::from_seed([1; 32]).public(), b"hello", &signature));
        for bit in [0, 255, 256, 511] {
            let mut broken = signature;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&key.public(), b"hello", &broken), "bit {bit}");
        }
        assert!(!verify(&[0xff; 32], b"hello", &signature));
    }

    #[test]
    fn a_seed_gives_the_public_key_of_rfc_8032() {
        // RFC 8032, section 7.1, test 1.
        let seed = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let key = KeyPair::from_seed(seed.try_into().unwrap());
        assert_eq!(
            key.node_id().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn two_generated_keys_differ() {
        assert_ne!(KeyPair::generate().unwrap().public(), KeyPair::generate().unwrap().public());
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let key = KeyPair::from_seed([0x5a; 32]);
        let shown = format!("{key:?} {key:#?}");
        assert!(!shown.contains("5a5a") && !shown.contains("90, 90"), "{shown}");
    }

    #[test]
    fn derived_secrets_differ_by_label_and_key_and_are_repeatable() {
        let (a, b) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]));
        assert_eq!(*a.derive("x"), *a.derive("x"));
        assert_ne!(*a.derive("x"), *a.derive("y"));
        assert_ne!(*a.derive("x"), *b.derive("x"));
        assert_ne!(*a.derive("x"), *a.seed());
    }
}
