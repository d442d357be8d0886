//! The event: one signed change of desired state, and the form that its bytes must have.
//!
//! An event travels and rests as one byte string, `signature (64 bytes) || text`. The text is the
//! canonical JSON of [`Body`]: the fields in the order of the struct, no white space, nothing left
//! out that the struct would write and nothing more. A text that reads as a body but does not
//! serialise to the same bytes is refused, so one meaning has one text.
//!
//! ```text
//! id        = sha256("skerry-event-v1\0" || signature || text)
//! signature = Ed25519 by the author over "skerry-event-v1\0" || text
//! proof     = Ed25519 by the token's one-time key over
//!             "skerry-admit-v1\0" || cluster id (32) || node key (32) || node name
//! ```
//!
//! Signatures are checked as `ring` does: RFC 8032 without the cofactor, and no second encoding of a
//! number passes, so nobody but the author can make another event of the same text.
//!
//! What is decided here is decided from the bytes alone. It is never stored, never waited for, and
//! judged alike by every peer: [`Refused`] for what no version of this format is, and
//! [`DecodeError::NotUnderstood`] for a version that a newer release wrote, which is put aside.
//! What needs the causal past is a verdict, and belongs to [`crate::VoidReason`].
//!
//! Invariant: these rules are final for version 1. A rule is changed by a new version, never here.
//! Absent on purpose: the clock. `time_ms` is shown to people and compared with nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::HEXLOWER;
use model::limits::{EVENT_BYTES_MAX, EVENT_DEPS_MAX, EVENT_EDITS_MAX, GROUP_BYTES_MAX, NODES_MAX};
use model::{ClusterId, DocId, EventId, Name, NodeId, TokenId, UserId};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

pub use crate::schedule::{DRAIN_SECONDS_MAX, NodeSchedule, Schedule};

/// The version of the events that this release writes and the only one that it understands.
pub const EVENT_VERSION: u16 = 1;

/// Bytes of an Ed25519 signature, which every stored event begins with.
pub const SIGNATURE_BYTES: usize = 64;

/// Addresses of one node: a box has few ways in, and the roster is sent whole.
pub const ADDRESSES_MAX: usize = 8;

/// Bytes of one address: the longest host name (253), brackets, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;

/// Bytes of a group's name: it is part of a key in the document.
pub const GROUP_NAME_BYTES_MAX: usize = 32;

/// Groups in one edit: this release has 8; a newer one may have some more.
pub const GROUPS_PER_EDIT_MAX: usize = 32;

/// How deep the JSON of a group may nest: far more than any manifest, and no danger to any reader.
pub const GROUP_DEPTH_MAX: usize = 32;

/// The key under which the document says that an incarnation is deleted: no group may have it.
pub const DELETED_KEY: &str = "deleted";

/// What is hashed and signed in front of an event, so that no other signature can pass for one.
const EVENT_CONTEXT: &[u8] = b"skerry-event-v1\0";

/// The same for the proof that a joining node holds its token's one-time key.
const ADMIT_CONTEXT: &[u8] = b"skerry-admit-v1\0";

/// `N` bytes, written as hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Sixteen bytes of chance from the author: two events that say the same are still two events.
pub type Nonce = Hex<16>;

/// The signature of a token's one-time key.
pub type Proof = Hex<64>;

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("{length} bytes of hexadecimal, {N} expected")))
    }
}

/// Who signed an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// A person, by the user's key.
    User(UserId),
    /// A node, by its own key: for its own admission and nothing else.
    Node(NodeId),
}

impl Author {
    /// The public key that the signature is checked with.
    pub const fn key(&self) -> &[u8; 32] {
        match self {
            Self::User(user) => user.as_bytes(),
            Self::Node(node) => node.as_bytes(),
        }
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Change deployments.
    Deploy,
}

/// A person and the key they sign with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserInfo {
    /// For people; may be given twice.
    pub name: Name,
    /// The key.
    pub key: UserId,
}

/// A node, its key and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeInfo {
    /// For people; may be given twice.
    pub name: Name,
    /// The key.
    pub key: NodeId,
    /// `host:port`, at most [`ADDRESSES_MAX`], most wanted first.
    pub addresses: Vec<String>,
}

/// The first event of a cluster. Its id is the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The cluster's name, for people.
    pub name: Name,
    /// The first admin, who signs this event.
    pub admin: UserInfo,
    /// The first node.
    pub node: NodeInfo,
    /// A key kept offline; it may do whatever an admin may.
    pub recovery: UserId,
}

/// A user is added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserAdd {
    /// For people; may be given twice.
    pub name: Name,
    /// The key.
    pub key: UserId,
    /// What they may do.
    pub role: Role,
}

/// A join token is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenGrant {
    /// The public half of its one-time key.
    pub id: TokenId,
    /// Milliseconds of Unix time after which peers serve no join with it; no part of any verdict.
    pub expires_ms: i64,
    /// How many nodes it admits, 1 to [`NODES_MAX`].
    pub uses: u32,
}

/// A join token is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevoke {
    /// Which.
    pub id: TokenId,
}

/// A node joins; signed by the node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAdmit {
    /// The token that lets it in.
    pub token: TokenId,
    /// The node: the author of the event.
    pub node: NodeInfo,
    /// Shows that the node holds the token's one-time key: see [`admit_bytes`].
    pub proof: Proof,
}

/// A node's key is removed, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRemove {
    /// Which.
    pub node: NodeId,
}

/// What the author of a change wanted; shown in the history, no part of the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A manifest was applied.
    Apply,
    /// The number of replicas was changed.
    Scale,
    /// Every replica is made anew.
    Restart,
    /// Deployments were deleted.
    Delete,
    /// An earlier change was taken back.
    Undo,
    /// A conflict was settled.
    Resolve,
}

impl Verb {
    /// The word for screens and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Scale => "scale",
            Self::Restart => "restart",
            Self::Delete => "delete",
            Self::Undo => "undo",
            Self::Resolve => "resolve",
        }
    }
}

/// Group name to the group's JSON text, opaque to the merge.
pub type Groups = BTreeMap<String, String>;

/// A deployment is created. The event's id is its incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name.
    pub name: Name,
    /// At least one group.
    pub groups: Groups,
}

/// Groups of a deployment are set; the others stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Its name.
    pub name: Name,
    /// The event that created it.
    pub incarnation: EventId,
    /// At least one group.
    pub groups: Groups,
}

/// A deployment is deleted, for ever: creating it again is another incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Its name.
    pub name: Name,
    /// The event that created it.
    pub incarnation: EventId,
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// See [`Create`].
    Create(Create),
    /// See [`Set`].
    Set(Set),
    /// See [`Delete`].
    Delete(Delete),
}

impl Edit {
    /// The deployment's name.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Create(Create { name, .. })
            | Self::Set(Set { name, .. })
            | Self::Delete(Delete { name, .. }) => name,
        }
    }

    /// The groups that it sets; a delete sets none.
    pub const fn groups(&self) -> Option<&Groups> {
        match self {
            Self::Create(Create { groups, .. }) | Self::Set(Set { groups, .. }) => Some(groups),
            Self::Delete(_) => None,
        }
    }
}

/// Deployments of one namespace change together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What the author wanted.
    pub verb: Verb,
    /// The event that is taken back: with the verb `undo`, and with no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<EventId>,
    /// 1 to [`EVENT_EDITS_MAX`], each of another name.
    pub edits: Vec<Edit>,
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`Genesis`].
    Genesis(Genesis),
    /// See [`UserAdd`].
    UserAdd(UserAdd),
    /// See [`TokenGrant`].
    Token(TokenGrant),
    /// See [`TokenRevoke`].
    TokenRevoke(TokenRevoke),
    /// See [`NodeAdmit`].
    NodeAdmit(NodeAdmit),
    /// See [`NodeRemove`].
    NodeRemove(NodeRemove),
    /// See [`NodeSchedule`].
    NodeSchedule(NodeSchedule),
    /// See [`Change`].
    Change(Change),
}

impl Kind {
    /// The word for screens: the kind, or for a change its verb.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::UserAdd(_) => "user_add",
            Self::Token(_) => "token",
            Self::TokenRevoke(_) => "token_revoke",
            Self::NodeAdmit(_) => "node_admit",
            Self::NodeRemove(_) => "node_remove",
            Self::NodeSchedule(_) => "node_schedule",
            Self::Change(change) => change.verb.as_str(),
        }
    }
}

/// What an event says; its JSON is what is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// [`EVENT_VERSION`].
    pub v: u16,
    /// The cluster; all zeros in the genesis, whose id is not known before it is signed.
    pub cluster: ClusterId,
    /// The document that it changes.
    pub doc: DocId,
    /// Who signed it.
    pub author: Author,
    /// Where in the cluster document the author's rights are judged: sorted, distinct, at most
    /// [`EVENT_DEPS_MAX`]. Empty in the cluster document, where they are judged at `deps`.
    pub auth: Vec<EventId>,
    /// The events of the same document that the author had seen: sorted, distinct, at most
    /// [`EVENT_DEPS_MAX`].
    pub deps: Vec<EventId>,
    /// Sixteen bytes of chance.
    pub nonce: Nonce,
    /// Milliseconds of Unix time by the author's clock; shown, never compared.
    pub time_ms: i64,
    /// What it does.
    pub kind: Kind,
}

/// Why bytes are not an event: judged from the bytes alone, alike by every peer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Shorter than a signature and a text.
    #[error("{size} bytes are too few for an event")]
    TooShort {
        /// Bytes received.
        size: usize,
    },
    /// Longer than [`EVENT_BYTES_MAX`].
    #[error("an event of {size} bytes, the limit is {EVENT_BYTES_MAX}")]
    TooLarge {
        /// Bytes received.
        size: usize,
    },
    /// The text is not UTF-8.
    #[error("an event's text is not UTF-8")]
    NotUtf8 {
        /// Where.
        source: std::str::Utf8Error,
    },
    /// The text is not the JSON of a body.
    #[error("an event's text cannot be read")]
    Malformed {
        /// What the reader found.
        source: serde_json::Error,
    },
    /// It reads as a body, but not in the one form that a body has.
    #[error("an event's text is not in canonical form")]
    NotCanonical,
    /// It names another cluster, or is the genesis of another.
    #[error("event {id} belongs to another cluster")]
    WrongCluster {
        /// The event.
        id: EventId,
    },
    /// The author did not sign it.
    #[error("event {id} is not signed by its author")]
    Signature {
        /// The event.
        id: EventId,
    },
    /// The joining node does not hold the token's one-time key.
    #[error("event {id} does not prove that its node holds the token")]
    Proof {
        /// The event.
        id: EventId,
    },
    /// A field has a value that version 1 does not allow.
    #[error("{field}: {problem}")]
    Field {
        /// The field, as the JSON spells it.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Why bytes were not decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are no event of any version.
    #[error("not an event")]
    Refused(#[from] Refused),
    /// They are an event of a version that this release does not know. Put aside, alike everywhere.
    #[error("event {id} has version {version}, this release understands {EVENT_VERSION}")]
    NotUnderstood {
        /// The event.
        id: EventId,
        /// Its version.
        version: u16,
    },
}

pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Refused {
    Refused::Field { field, problem: problem.into() }
}

/// An event as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEvent {
    /// The canonical JSON of the body.
    pub text: String,
    /// The author's signature.
    pub sig: [u8; SIGNATURE_BYTES],
}

/// An event whose form and signature hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its name: the hash of its bytes.
    pub id: EventId,
    /// As stored and sent.
    pub event: SignedEvent,
    /// What it says.
    pub body: Body,
}

/// What an author signs for a text.
pub fn signing_bytes(text: &str) -> Vec<u8> {
    [EVENT_CONTEXT, text.as_bytes()].concat()
}

/// What a token's one-time key signs for a node that joins.
pub fn admit_bytes(cluster: ClusterId, node: NodeId, name: &Name) -> Vec<u8> {
    [ADMIT_CONTEXT, cluster.as_bytes(), node.as_bytes(), name.as_str().as_bytes()].concat()
}

/// The id of stored bytes, whether or not they are an event.
pub fn id_of(stored: &[u8]) -> EventId {
    let mut hash = Sha256::new();
    hash.update(EVENT_CONTEXT);
    hash.update(stored);
    EventId::from_bytes(hash.finalize().into())
}

impl SignedEvent {
    /// Writes the body and has it signed. `signer` is given the bytes of [`signing_bytes`].
    ///
    /// Nothing is checked here: [`decode`] does, and so does every peer.
    pub fn sign(body: &Body, signer: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Self {
        let text = body.to_text();
        let sig = signer(&signing_bytes(&text));
        Self { text, sig }
    }

    /// The stored form: `signature || text`.
    pub fn encode(&self) -> Vec<u8> {
        [&self.sig, self.text.as_bytes()].concat()
    }

    /// Its name: the hash of its bytes.
    pub fn id(&self) -> EventId {
        id_of(&self.encode())
    }

    /// Bytes of the stored form.
    pub const fn size(&self) -> usize {
        SIGNATURE_BYTES + self.text.len()
    }

    /// Reads the body of an event that was decoded before.
    pub(crate) fn body(&self) -> Body {
        serde_json::from_str(&self.text).expect("this text was decoded once, and reading is pure")
    }
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Version {
    v: u16,
}

/// Reads an event and checks all that its bytes alone decide, signature and proof included.
pub fn decode(stored: &[u8]) -> Result<Decoded, DecodeError> {
    let decoded = read(stored)?;
    verify(&decoded)?;
    Ok(decoded)
}

/// Reads an event, and believes whoever it names as its author.
pub(crate) fn decode_unverified(stored: &[u8]) -> Result<Decoded, DecodeError> {
    read(stored)
}

/// Reads an event and checks all but its signatures.
fn read(stored: &[u8]) -> Result<Decoded, DecodeError> {
    let size = stored.len();
    if size > EVENT_BYTES_MAX {
        return Err(Refused::TooLarge { size }.into());
    }
    let Some((sig, text)) =
        stored.split_first_chunk::<SIGNATURE_BYTES>().filter(|(_, text)| !text.is_empty())
    else {
        return Err(Refused::TooShort { size }.into());
    };
    let text = std::str::from_utf8(text).map_err(|source| Refused::NotUtf8 { source })?;
    let malformed = |source| Refused::Malformed { source };
    let Version { v: version } = serde_json::from_str(text).map_err(malformed)?;
    let id = id_of(stored);
    if version > EVENT_VERSION {
        return Err(DecodeError::NotUnderstood { id, version });
    }
    let body: Body = serde_json::from_str(text).map_err(malformed)?;
    if body.to_text() != text {
        return Err(Refused::NotCanonical.into());
    }
    body.check()?;
    Ok(Decoded { id, event: SignedEvent { text: text.to_owned(), sig: *sig }, body })
}

/// Whether the holder of this Ed25519 key signed these bytes.
pub fn is_signed_by(key: &[u8; 32], bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(bytes, signature).is_ok()
}

/// Checks that the author signed it, and that a node that joins holds the token's one-time key.
fn verify(Decoded { id, event, body }: &Decoded) -> Result<(), Refused> {
    if !is_signed_by(body.author.key(), &signing_bytes(&event.text), &event.sig) {
        return Err(Refused::Signature { id: *id });
    }
    if let Kind::NodeAdmit(admit) = &body.kind {
        let bytes = admit_bytes(body.cluster, admit.node.key, &admit.node.name);
        if !is_signed_by(admit.token.as_bytes(), &bytes, &admit.proof.0) {
            return Err(Refused::Proof { id: *id });
        }
    }
    Ok(())
}

impl Body {
    /// The canonical text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a body is structs, text, numbers and maps with text keys")
    }

    /// Checks every field, and which go together. Signatures are checked by [`decode`].
    pub fn check(&self) -> Result<(), Refused> {
        if self.v != EVENT_VERSION {
            return Err(field("v", format!("{} is no version, use {EVENT_VERSION}", self.v)));
        }
        check_ids("auth", &self.auth)?;
        check_ids("deps", &self.deps)?;
        self.check_place()?;
        self.check_author()?;
        match &self.kind {
            Kind::Genesis(genesis) => check_node("kind.genesis.node", &genesis.node),
            Kind::NodeAdmit(admit) => check_node("kind.node_admit.node", &admit.node),
            Kind::Token(token) if token.uses == 0 || token.uses as usize > NODES_MAX => {
                Err(field("kind.token.uses", format!("{} asked, use 1 to {NODES_MAX}", token.uses)))
            }
            Kind::NodeSchedule(it) => it.check(),
            Kind::UserAdd(_) | Kind::Token(_) | Kind::TokenRevoke(_) | Kind::NodeRemove(_) => Ok(()),
            Kind::Change(change) => check_change(change),
        }
    }

    /// Each kind has its document, and its place in the order.
    fn check_place(&self) -> Result<(), Refused> {
        let in_cluster = self.doc == DocId::Cluster;
        let is_genesis = matches!(self.kind, Kind::Genesis(_));
        if in_cluster == matches!(self.kind, Kind::Change(_)) {
            return Err(field("doc", format!("`{}` has no place in `{}`", self.kind.verb(), self.doc)));
        }
        if in_cluster != self.auth.is_empty() {
            return Err(field("auth", "empty in the cluster document, and nowhere else"));
        }
        if in_cluster && is_genesis != self.deps.is_empty() {
            return Err(field("deps", "empty in the genesis, and in no other event of the cluster document"));
        }
        if is_genesis != (*self.cluster.as_bytes() == [0; 32]) {
            return Err(field("cluster", "all zeros in the genesis, and in no other event"));
        }
        Ok(())
    }

    /// Some kinds say by themselves who must have signed them; a node signs only its admission.
    fn check_author(&self) -> Result<(), Refused> {
        let wanted = match &self.kind {
            Kind::Genesis(genesis) => Some(Author::User(genesis.admin.key)),
            Kind::NodeAdmit(admit) => Some(Author::Node(admit.node.key)),
            _ => None,
        };
        let fits = match (wanted, self.author) {
            (Some(wanted), author) => wanted == author,
            (None, Author::User(_)) => true,
            (None, Author::Node(_)) => false,
        };
        if fits { Ok(()) } else { Err(field("author", format!("may not sign `{}`", self.kind.verb()))) }
    }
}

fn check_ids(name: &'static str, ids: &[EventId]) -> Result<(), Refused> {
    if ids.len() > EVENT_DEPS_MAX {
        return Err(field(name, format!("{} events, the limit is {EVENT_DEPS_MAX}", ids.len())));
    }
    if !ids.is_sorted_by(|a, b| a < b) {
        return Err(field(name, "the events must be sorted and distinct"));
    }
    Ok(())
}

fn check_node(name: &'static str, node: &NodeInfo) -> Result<(), Refused> {
    if node.addresses.len() > ADDRESSES_MAX {
        return Err(field(name, format!("{} addresses, the limit is {ADDRESSES_MAX}", node.addresses.len())));
    }
    for address in &node.addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let fits = address.len() <= ADDRESS_BYTES_MAX
            && address.bytes().all(|byte| byte.is_ascii_graphic())
            && port.is_some_and(|port| {
                port.bytes().all(|byte| byte.is_ascii_digit())
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
        if !fits {
            let start: String = address.chars().take(40).collect();
            return Err(field(name, format!("`{}` is not `host:port`", start.escape_default())));
        }
    }
    Ok(())
}

fn check_change(change: &Change) -> Result<(), Refused> {
    if change.undoes.is_some() != (change.verb == Verb::Undo) {
        return Err(field("kind.change.undoes", "goes with the verb `undo`, and with no other"));
    }
    if change.edits.is_empty() || change.edits.len() > EVENT_EDITS_MAX {
        let count = change.edits.len();
        return Err(field("kind.change.edits", format!("{count} edits, use 1 to {EVENT_EDITS_MAX}")));
    }
    let mut names = BTreeSet::new();
    for edit in &change.edits {
        if !names.insert(edit.name()) {
            return Err(field("kind.change.edits", format!("two edits of `{}`", edit.name())));
        }
        if let Some(groups) = edit.groups() {
            check_groups(groups)?;
        }
    }
    Ok(())
}

fn check_groups(groups: &Groups) -> Result<(), Refused> {
    const FIELD: &str = "kind.change.edits.groups";
    if groups.is_empty() || groups.len() > GROUPS_PER_EDIT_MAX {
        return Err(field(FIELD, format!("{} groups, use 1 to {GROUPS_PER_EDIT_MAX}", groups.len())));
    }
    for (group, json) in groups {
        let named = group.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && group.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && group.len() <= GROUP_NAME_BYTES_MAX
            && group != DELETED_KEY;
        if !named {
            let start: String = group.chars().take(40).collect();
            return Err(field(FIELD, format!("`{}` cannot be the name of a group", start.escape_default())));
        }
        if json.len() > GROUP_BYTES_MAX {
            return Err(field(
                FIELD,
                format!("`{group}` has {} bytes, the limit is {GROUP_BYTES_MAX}", json.len()),
            ));
        }
        if depth(json) > GROUP_DEPTH_MAX {
            return Err(field(FIELD, format!("`{group}` nests deeper than {GROUP_DEPTH_MAX}")));
        }
        // The brace first: an object is wanted, and white space around it would be a second form.
        if !(json.starts_with('{') && json.ends_with('}'))
            || serde_json::from_str::<IgnoredAny>(json).is_err()
        {
            return Err(field(FIELD, format!("`{group}` is not a JSON object")));
        }
    }
    Ok(())
}

/// How deep brackets nest in a text that may be JSON; brackets in strings do not count.
fn depth(json: &str) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
