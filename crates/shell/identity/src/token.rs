//! Join tokens: what a person carries from a member of the cluster to a machine that shall join.
//!
//! Text form: `skerry1_` and base32 (lower case, no padding) of
//! `version u8 | length of the body u16 | body | checksum [u8; 4]`, all numbers big-endian. Body:
//! `cluster [u8; 32] | seed [u8; 32] | number of addresses u8 | (length u8, address)...`. The
//! checksum is the start of the SHA-256 of all that stands before it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use model::{ClusterId, TokenId};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::key::{KeyPair, SEED_BYTES};

/// How every token begins. The number is that of the binary form.
pub const TOKEN_PREFIX: &str = "skerry1_";

/// Addresses in a token: enough for one peer's interfaces or a few peers; the text stays pasteable.
pub const ADDRESSES_MAX: usize = 8;

/// Bytes of one address: the longest DNS name, 253, leaves no room for a port of five digits, and
/// nobody has one.
pub const ADDRESS_BYTES_MAX: usize = 255;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const HEADER_BYTES: usize = 3;
const BODY_FIXED_BYTES: usize = 32 + SEED_BYTES + 1;

/// Characters of a token that are looked at: the longest one has about 3,500.
const TOKEN_TEXT_BYTES_MAX: usize = 8192;

const _: () = assert!(BODY_FIXED_BYTES + ADDRESSES_MAX * (1 + ADDRESS_BYTES_MAX) <= u16::MAX as usize);

/// Why a text is not a usable token, or a token cannot be made. No message repeats the text, which
/// may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("this is not a join token: one begins with `{TOKEN_PREFIX}`")]
    NotAToken,
    /// Characters are missing, doubled or changed.
    #[error("the join token is incomplete or was changed on its way; copy it whole")]
    Damaged,
    /// It was made by a release that this one does not understand.
    #[error("the join token has version {version}, this release knows version {VERSION}; upgrade it first")]
    Newer {
        /// The token's version.
        version: u32,
    },
    /// No address, or too many.
    #[error("a join token needs 1 to {ADDRESSES_MAX} addresses, not {count}")]
    AddressCount {
        /// How many there are.
        count: usize,
    },
    /// An address is not `host:port`.
    #[error("`{}` is not an address of the form host:port", address.escape_default())]
    Address {
        /// The address.
        address: String,
    },
}

/// What a machine needs to join: which cluster, whom to call, and the one-time key that admits it.
///
/// `Display` writes the text form, **which is a secret**; `Debug` leaves the secret out.
#[derive(Clone)]
pub struct JoinToken {
    cluster: ClusterId,
    addresses: Vec<String>,
    key: KeyPair,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("cluster", &self.cluster)
            .field("addresses", &self.addresses)
            .field("token_id", &self.token_id())
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Makes a token. `addresses` are 1 to [`ADDRESSES_MAX`] of the form `host:port`, in the order
    /// in which they are tried; `seed` is that of a key made for this token alone.
    pub fn new(
        cluster: ClusterId,
        addresses: Vec<String>,
        seed: [u8; SEED_BYTES],
    ) -> Result<Self, TokenError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::AddressCount { count: addresses.len() });
        }
        if let Some(address) = addresses.iter().find(|address| !is_address(address)) {
            return Err(TokenError::Address { address: address.clone() });
        }
        Ok(Self { cluster, addresses, key: KeyPair::from_seed(seed) })
    }

    /// The cluster to join: the hash that its genesis event must have.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Where members listen, in the order in which to try.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The one-time key.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The token's id in the document: its public key.
    pub fn token_id(&self) -> TokenId {
        self.key.token_id()
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_FIXED_BYTES + 64));
        body.extend_from_slice(self.cluster.as_bytes());
        body.extend_from_slice(self.key.seed());
        body.push(u8::try_from(self.addresses.len()).expect("checked by new"));
        for address in &self.addresses {
            body.push(u8::try_from(address.len()).expect("checked by new"));
            body.extend_from_slice(address.as_bytes());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + body.len() + CHECKSUM_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&u16::try_from(body.len()).expect("bounded by the limits").to_be_bytes());
        bytes.extend_from_slice(&body);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Zeroizing::new(BASE32_NOPAD.encode(&self.to_bytes()));
        text.make_ascii_lowercase();
        write!(f, "{TOKEN_PREFIX}{}", *text)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// White space anywhere is left out: terminals and mails break long lines. Case is not told
    /// apart.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut upper = Zeroizing::new(String::with_capacity(text.len().min(TOKEN_TEXT_BYTES_MAX)));
        for character in text.chars().filter(|character| !character.is_ascii_whitespace()) {
            if upper.len() >= TOKEN_TEXT_BYTES_MAX {
                return Err(TokenError::NotAToken);
            }
            upper.push(character.to_ascii_uppercase());
        }
        let (prefix, encoded) = upper.split_once('_').ok_or(TokenError::NotAToken)?;
        let number = prefix.strip_prefix("SKERRY").ok_or(TokenError::NotAToken)?;
        if number.is_empty() || number.starts_with('0') || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TokenError::NotAToken);
        }
        let version: u32 = number.parse().map_err(|_| TokenError::NotAToken)?;
        if version != u32::from(VERSION) {
            return Err(TokenError::Newer { version });
        }
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Damaged)?);
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if checksum(content) != *sum {
            return Err(TokenError::Damaged);
        }
        let ([version, high, low], body) =
            content.split_first_chunk::<HEADER_BYTES>().ok_or(TokenError::Damaged)?;
        if *version != VERSION {
            return Err(TokenError::Newer { version: u32::from(*version) });
        }
        if usize::from(u16::from_be_bytes([*high, *low])) != body.len() {
            return Err(TokenError::Damaged);
        }
        from_body(body)
    }
}

fn from_body(body: &[u8]) -> Result<JoinToken, TokenError> {
    let (cluster, rest) = body.split_first_chunk::<32>().ok_or(TokenError::Damaged)?;
    let (seed, rest) = rest.split_first_chunk::<SEED_BYTES>().ok_or(TokenError::Damaged)?;
    let (count, mut rest) = rest.split_first().ok_or(TokenError::Damaged)?;
    let mut addresses = Vec::new();
    for _ in 0..*count {
        let (len, after) = rest.split_first().ok_or(TokenError::Damaged)?;
        let (address, after) = after.split_at_checked(usize::from(*len)).ok_or(TokenError::Damaged)?;
        addresses.push(std::str::from_utf8(address).map_err(|_| TokenError::Damaged)?.to_owned());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(TokenError::Damaged);
    }
    JoinToken::new(ClusterId::from_bytes(*cluster), addresses, *seed)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest(&SHA256, content).as_ref()[..CHECKSUM_BYTES]);
    sum
}

/// `host:port`, an IPv6 address in brackets; whether the host exists is for the one who calls it.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    host_fits
        && address.len() <= ADDRESS_BYTES_MAX
        && address.bytes().all(|byte| byte.is_ascii_graphic())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        let addresses =
            vec!["10.0.0.1:7440".to_owned(), "[fd00::1]:7440".to_owned(), "shop.example:1".to_owned()];
        JoinToken::new(ClusterId::from_bytes([9; 32]), addresses, [0x5a; 32]).unwrap()
    }

    fn encode(content: &[u8]) -> String {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&checksum(content));
        format!("{TOKEN_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
    }

    #[test]
    fn a_token_survives_its_text_form() {
        let token = token();
        let text = token.to_string();
        assert!(text.starts_with("skerry1_"));
        assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{text}");
        let wrapped = format!("  {}\r\n {}\n", &text[..40], &text[40..]);
        for form in [text.clone(), wrapped, text.to_uppercase()] {
            let read: JoinToken = form.parse().unwrap();
            assert_eq!(read.cluster(), token.cluster());
            assert_eq!(read.addresses(), token.addresses());
            assert_eq!(read.token_id(), token.token_id());
            assert_eq!(read.key().public(), KeyPair::from_seed([0x5a; 32]).public());
        }
    }

    #[test]
    fn every_wrong_text_is_told_apart() {
        let text = token().to_string();
        let fail = |text: &str| text.parse::<JoinToken>().unwrap_err();
        for foreign in [
            "",
            " ",
            "hello",
            "K10abc::server:x",
            "skerry",
            "skerry_",
            "skerry01_a",
            "SWMTKN-1_x",
            "skerryx_a",
        ] {
            assert_eq!(fail(foreign), TokenError::NotAToken, "{foreign}");
        }
        assert_eq!(fail(&format!("skerry1_{}", "a".repeat(9000))), TokenError::NotAToken);
        for cut in TOKEN_PREFIX.len()..text.len() {
            assert_eq!(fail(&text[..cut]), TokenError::Damaged, "cut at {cut}");
        }
        for position in TOKEN_PREFIX.len()..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[position] = if flipped[position] == b'a' { b'b' } else { b'a' };
            assert_eq!(fail(std::str::from_utf8(&flipped).unwrap()), TokenError::Damaged, "at {position}");
        }
        assert_eq!(fail(&format!("{text}aa")), TokenError::Damaged);
        assert_eq!(fail(&text.replace("skerry1_", "skerry2_")), TokenError::Newer { version: 2 });
        let mut newer = token().to_bytes().to_vec();
        newer.truncate(newer.len() - CHECKSUM_BYTES);
        newer[0] = 3;
        assert_eq!(fail(&encode(&newer)), TokenError::Newer { version: 3 });
    }

    #[test]
    fn a_checksum_does_not_make_a_wrong_body_right() {
        let whole = token().to_bytes();
        let content = &whole[..whole.len() - CHECKSUM_BYTES];
        let fail = |content: &[u8]| encode(content).parse::<JoinToken>().unwrap_err();
        let count_at = HEADER_BYTES + 64;
        for (at, value) in
            [(1, 0xff), (count_at, 200), (count_at, 2), (count_at + 1, 255), (count_at + 2, 0xff)]
        {
            let mut wrong = content.to_vec();
            wrong[at] = value;
            assert_eq!(fail(&wrong), TokenError::Damaged, "{at}");
        }
        let mut none = content[..=count_at].to_vec();
        none[count_at] = 0;
        none[1..3].copy_from_slice(&65u16.to_be_bytes());
        assert_eq!(fail(&none), TokenError::AddressCount { count: 0 });
    }

    #[test]
    fn a_token_is_made_of_a_few_real_addresses() {
        let make = |addresses: &[&str]| {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            JoinToken::new(ClusterId::from_bytes([0; 32]), addresses, [1; 32]).map(|_| ())
        };
        assert_eq!(make(&[]), Err(TokenError::AddressCount { count: 0 }));
        assert_eq!(make(&["a:1"; 9]), Err(TokenError::AddressCount { count: 9 }));
        assert_eq!(make(&["a:1"; 8]), Ok(()));
        for bad in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a b:1",
            "a:+1",
            "fd00::1",
            "[fd00:1",
            "[x]:1",
            &format!("{}:1", "a".repeat(300)),
        ] {
            assert!(matches!(make(&[bad]), Err(TokenError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn debug_leaves_the_secret_out() {
        let shown = format!("{:?} {:#?}", token(), token());
        assert!(!shown.contains("5a5a") && !shown.contains("90, 90"), "{shown}");
        assert!(shown.contains("shop.example"));
    }
}
