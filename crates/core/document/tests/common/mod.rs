//! A small cluster to test with: keys from seeds, events by hand, replicas that park.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

use std::collections::BTreeMap;

use automerge::{Automerge, ReadDoc};
use document::event::{
    Author, Body, Change, Create, Delete, Edit, Genesis, Groups, Hex, Kind, NodeAdmit, NodeInfo, NodeRemove,
    NodeSchedule, Role, Schedule, Set, SignedEvent, TokenGrant, UserAdd, UserInfo, Verb, admit_bytes,
};
use document::{Documents, InsertError, Inserted, Outcome, VoidReason};
use model::{ClusterId, DocId, EventId, Name, NodeId, TokenId, UserId};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A signing key that a seed determines.
pub struct Key(Ed25519KeyPair);

impl Key {
    pub fn new(seed: u16) -> Self {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        Self(Ed25519KeyPair::from_seed_unchecked(&bytes).unwrap())
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).as_ref().try_into().unwrap()
    }

    pub fn user(&self) -> UserId {
        UserId::from_bytes(self.public())
    }

    pub fn node(&self) -> NodeId {
        NodeId::from_bytes(self.public())
    }

    pub fn token(&self) -> TokenId {
        TokenId::from_bytes(self.public())
    }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn ns(text: &str) -> DocId {
    DocId::Namespace(name(text))
}

pub fn web() -> DocId {
    ns("default")
}

pub fn groups(pairs: &[(&str, &str)]) -> Groups {
    pairs.iter().map(|(group, json)| ((*group).to_owned(), (*json).to_owned())).collect()
}

pub fn replicas(count: u32) -> Groups {
    groups(&[("replicas", &format!(r#"{{"count":{count},"class":"available"}}"#))])
}

pub fn image(tag: u32) -> Groups {
    let digest = format!("{tag:064x}");
    groups(&[("image", &format!(r#"{{"reference":"web:{tag}","digest":"{digest}"}}"#))])
}

/// A deployment's first groups: enough to be valid.
pub fn whole(tag: u32) -> Groups {
    let mut all = image(tag);
    all.extend(replicas(1));
    all
}

pub fn create(deployment: &str, groups: Groups) -> Edit {
    Edit::Create(Create { name: name(deployment), groups })
}

pub fn set(deployment: &str, incarnation: EventId, groups: Groups) -> Edit {
    Edit::Set(Set { name: name(deployment), incarnation, groups })
}

pub fn delete(deployment: &str, incarnation: EventId) -> Edit {
    Edit::Delete(Delete { name: name(deployment), incarnation })
}

pub fn change(verb: Verb, edits: Vec<Edit>) -> Kind {
    Kind::Change(Change { verb, undoes: None, edits })
}

pub fn apply(edits: Vec<Edit>) -> Kind {
    change(Verb::Apply, edits)
}

pub fn node_info(key: &Key, text: &str) -> NodeInfo {
    NodeInfo { name: name(text), key: key.node(), addresses: vec!["10.0.0.1:7400".to_owned()] }
}

pub const ADMIN: u16 = 1;
pub const RECOVERY: u16 = 2;
pub const NODE: u16 = 3;
pub const DEPLOY: u16 = 4;
pub const STRANGER: u16 = 5;

/// The keys of a cluster, its genesis, and the events that tests begin with.
pub struct World {
    pub admin: Key,
    pub recovery: Key,
    pub node: Key,
    pub deploy: Key,
    pub stranger: Key,
    pub cluster: ClusterId,
    /// The genesis and the addition of a user with the role `deploy`.
    pub first: Vec<Vec<u8>>,
    nonce: std::cell::Cell<u64>,
}

impl World {
    pub fn new() -> Self {
        let [admin, recovery, node, deploy, stranger] =
            [ADMIN, RECOVERY, NODE, DEPLOY, STRANGER].map(Key::new);
        let body = genesis_body(&admin, &recovery, &node);
        let genesis = SignedEvent::sign(&body, |bytes| admin.sign(bytes));
        let cluster = ClusterId::from_bytes(*genesis.id().as_bytes());
        let mut world = Self {
            admin,
            recovery,
            node,
            deploy,
            stranger,
            cluster,
            first: vec![genesis.encode()],
            nonce: std::cell::Cell::new(1),
        };
        let add = UserAdd { name: name("dana"), key: world.deploy.user(), role: Role::Deploy };
        let add = world.cluster_event(&world.admin, vec![genesis.id()], Kind::UserAdd(add));
        world.first.push(add);
        world
    }

    pub fn genesis(&self) -> EventId {
        EventId::from_bytes(*self.cluster.as_bytes())
    }

    /// Documents that have the first events.
    pub fn documents(&self) -> Documents {
        let mut documents = Documents::new(self.cluster);
        for bytes in &self.first {
            assert_applied(&documents.insert(bytes).unwrap());
        }
        documents
    }

    fn nonce(&self) -> Hex<16> {
        let next = self.nonce.get();
        self.nonce.set(next + 1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&next.to_be_bytes());
        Hex(bytes)
    }

    pub fn body(
        &self,
        author: Author,
        doc: DocId,
        auth: Vec<EventId>,
        deps: Vec<EventId>,
        kind: Kind,
    ) -> Body {
        let nonce = self.nonce();
        let time_ms = 1_700_000_000_000 + i64::from(nonce.0[7]);
        Body { v: 1, cluster: self.cluster, doc, author, auth, deps, nonce, time_ms, kind }
    }

    pub fn cluster_event(&self, by: &Key, deps: Vec<EventId>, kind: Kind) -> Vec<u8> {
        let author = match kind {
            Kind::NodeAdmit(_) => Author::Node(by.node()),
            _ => Author::User(by.user()),
        };
        let body = self.body(author, DocId::Cluster, vec![], deps, kind);
        SignedEvent::sign(&body, |bytes| by.sign(bytes)).encode()
    }

    pub fn change_event(
        &self,
        by: &Key,
        doc: &DocId,
        auth: Vec<EventId>,
        deps: Vec<EventId>,
        kind: Kind,
    ) -> Vec<u8> {
        let body = self.body(Author::User(by.user()), doc.clone(), auth, deps, kind);
        SignedEvent::sign(&body, |bytes| by.sign(bytes)).encode()
    }

    /// A change at the heads of `documents`, signed by the user who may deploy.
    pub fn at_heads(&self, documents: &Documents, kind: Kind) -> Vec<u8> {
        self.change_event(
            &self.deploy,
            &web(),
            documents.heads(&DocId::Cluster),
            documents.heads(&web()),
            kind,
        )
    }

    /// An event of the cluster document at the heads of `documents`.
    pub fn cluster_at_heads(&self, by: &Key, documents: &Documents, kind: Kind) -> Vec<u8> {
        self.cluster_event(by, documents.heads(&DocId::Cluster), kind)
    }

    pub fn token(key: &Key, uses: u32) -> Kind {
        Kind::Token(TokenGrant { id: key.token(), expires_ms: 1_800_000_000_000, uses })
    }

    pub fn admit(&self, token: &Key, node: &Key, text: &str) -> Kind {
        let info = node_info(node, text);
        let proof = Hex(token.sign(&admit_bytes(self.cluster, info.key, &info.name)));
        Kind::NodeAdmit(NodeAdmit { token: token.token(), node: info, proof })
    }

    pub fn schedule(node: &Key, schedule: Schedule, deadline_s: Option<u32>) -> Kind {
        Kind::NodeSchedule(NodeSchedule { node: node.node(), schedule, deadline_s })
    }

    pub fn remove(node: &Key) -> Kind {
        Kind::NodeRemove(NodeRemove { node: node.node() })
    }
}

pub fn genesis_body(admin: &Key, recovery: &Key, node: &Key) -> Body {
    Body {
        v: 1,
        cluster: ClusterId::from_bytes([0; 32]),
        doc: DocId::Cluster,
        author: Author::User(admin.user()),
        auth: vec![],
        deps: vec![],
        nonce: Hex([0; 16]),
        time_ms: 1_700_000_000_000,
        kind: Kind::Genesis(Genesis {
            name: name("harbour"),
            admin: UserInfo { name: name("ada"), key: admin.user() },
            node: node_info(node, "rock-1"),
            recovery: recovery.user(),
        }),
    }
}

pub fn assert_applied(inserted: &Inserted) -> EventId {
    assert!(matches!(inserted.outcome, Outcome::Applied { .. }), "{inserted:?}");
    inserted.id
}

/// Inserts what must be valid; `check` must have said the same.
pub fn put(documents: &mut Documents, bytes: &[u8]) -> EventId {
    let checked = documents.check(bytes).unwrap();
    let inserted = documents.insert(bytes).unwrap();
    assert_eq!(checked, inserted);
    assert_applied(&inserted)
}

/// Inserts what must be void, and says why it is; `check` must have said the same.
pub fn put_void(documents: &mut Documents, bytes: &[u8]) -> VoidReason {
    let checked = documents.check(bytes).unwrap();
    let inserted = documents.insert(bytes).unwrap();
    assert_eq!(checked, inserted);
    match inserted.outcome {
        Outcome::Void { reason } => reason,
        outcome => panic!("not void: {outcome:?}"),
    }
}

/// Gives events in any order, parking what comes too early; all must find their place.
pub fn deliver<'a>(documents: &mut Documents, events: impl IntoIterator<Item = &'a Vec<u8>>) {
    let mut parked: Vec<&Vec<u8>> = Vec::new();
    for bytes in events {
        parked.push(bytes);
        loop {
            let before = parked.len();
            parked.retain(|bytes| match documents.insert(bytes) {
                Ok(_) => false,
                Err(InsertError::Missing { .. }) => true,
                Err(error) => panic!("{error}"),
            });
            if parked.len() == before {
                break;
            }
        }
    }
    assert!(parked.is_empty(), "{} events never found their past", parked.len());
}

/// Every map key of a saved automerge document: its values, the winner first, as text.
pub fn automerge_content(saved: &[u8]) -> BTreeMap<String, Vec<String>> {
    let loaded = Automerge::load(saved).unwrap();
    let mut content = BTreeMap::new();
    for map in loaded.keys(automerge::ROOT) {
        let (_, object) = loaded.get(automerge::ROOT, &map).unwrap().unwrap();
        for key in loaded.keys(&object) {
            let winner = loaded.get(&object, &key).unwrap().unwrap().0.to_string();
            let mut all: Vec<String> = loaded
                .get_all(&object, &key)
                .unwrap()
                .into_iter()
                .map(|(value, _)| value.to_string())
                .collect();
            let place = all.iter().position(|value| *value == winner).unwrap();
            all.swap(0, place);
            all[1..].sort_unstable();
            content.insert(key, all);
        }
    }
    content
}

/// All that two peers with the same events must agree on, as text.
pub fn fingerprint(documents: &Documents, ids: &[EventId]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for doc in documents.docs() {
        writeln!(text, "{doc} {} events, heads {:?}", documents.events(&doc), documents.heads(&doc)).unwrap();
        let mut heads: Vec<[u8; 32]> =
            documents.heads(&doc).into_iter().map(|id| documents.change_hash(id).unwrap()).collect();
        heads.sort_unstable();
        if !heads.is_empty() {
            assert_eq!(
                documents.automerge_heads(&doc).unwrap(),
                heads,
                "automerge stands where the events do"
            );
        }
        let saved = documents.save(&doc).unwrap();
        let reloaded = Automerge::load(&saved).unwrap();
        let reloaded: Vec<[u8; 32]> = reloaded.get_heads().into_iter().map(|hash| hash.0).collect();
        assert_eq!(documents.automerge_heads(&doc).unwrap(), reloaded, "a saved document loads as itself");
        writeln!(text, "{:?}", automerge_content(&saved)).unwrap();
        writeln!(text, "{:?}", documents.history(&doc, None)).unwrap();
        writeln!(text, "{:?}", documents.samples(&doc)).unwrap();
    }
    writeln!(text, "{:?}", documents.roster()).unwrap();
    for view in documents.deployments() {
        let number = documents.revision_number(&view.namespace, &view.name, view.incarnation);
        writeln!(text, "{view:?} v{number}").unwrap();
    }
    for id in ids {
        let void = documents.event(*id).unwrap().void.cloned();
        writeln!(text, "{id} {:?} {void:?}", documents.change_hash(*id)).unwrap();
    }
    text
}
