//! Users who sign events, as the CLI does.

use std::collections::BTreeMap;

use document::Documents;
use document::event::{
    self, Author as Signer, Body, Change, Create, Delete, EVENT_VERSION, Edit, Genesis, Hex, Kind, NodeAdmit,
    NodeInfo, Role, Set, SignedEvent, TokenGrant, UserAdd, UserInfo, Verb,
};
use model::{
    ClusterId, DependsGroup, Digest, DocId, EnvGroup, EventId, ImageGroup, JobGroup, MetaGroup, Name, NodeId,
    PlacementGroup, PortsGroup, ReplicasGroup, ResourcesGroup, RestartGroup, TokenId, UpdateGroup, UserId,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A key and a counter for nonces: everything that the CLI has and a simulation needs.
pub struct Author {
    key: Ed25519KeyPair,
    nonces: u64,
}

impl std::fmt::Debug for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Author").field("nonces", &self.nonces).finish_non_exhaustive()
    }
}

/// A deployment as a test wants it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names of the nodes that vote, where at most one copy of each replica may run.
    pub voters: Vec<String>,
    /// Replicas.
    pub replicas: ReplicasGroup,
    /// Resources.
    pub resources: ResourcesGroup,
    /// Environment.
    pub env: EnvGroup,
    /// Image.
    pub image: ImageGroup,
    /// Placement.
    pub placement: PlacementGroup,
    /// Restart policy.
    pub restart: RestartGroup,
    /// How it is updated.
    pub update: UpdateGroup,
    /// What it waits for before it is started.
    pub depends: DependsGroup,
    /// How it is done once, where it is a job.
    pub job: Option<JobGroup>,
}

impl Spec {
    /// So many replicas of an image that every node holds.
    pub fn new(count: u32) -> Self {
        Self {
            voters: Vec::new(),
            replicas: ReplicasGroup {
                count,
                class: model::Class::Available,
                mode: model::Mode::Replicated,
                voters: Vec::new(),
            },
            resources: ResourcesGroup::default(),
            env: EnvGroup::default(),
            image: ImageGroup {
                reference: "web:1".to_owned(),
                digest: image_digest(),
                command: Vec::new(),
                args: Vec::new(),
                workdir: None,
                user: None,
            },
            placement: PlacementGroup::default(),
            restart: RestartGroup::default(),
            update: UpdateGroup::default(),
            depends: DependsGroup::default(),
            job: None,
        }
    }

    /// With the ids of those that vote; `None` where the roster lacks one.
    fn with_voters(&self, documents: &Documents) -> Option<Self> {
        let mut spec = self.clone();
        if self.voters.is_empty() {
            return Some(spec);
        }
        let nodes = &documents.roster().nodes;
        let of = |name: &String| nodes.iter().find(|(_, it)| it.name.as_str() == name).map(|(id, _)| *id);
        spec.replicas.class = model::Class::Exclusive;
        spec.replicas.voters = self.voters.iter().map(of).collect::<Option<Vec<_>>>()?;
        spec.replicas.voters.sort_unstable();
        Some(spec)
    }

    fn groups(&self, namespace: &Name, name: &Name) -> BTreeMap<String, String> {
        model::Deployment {
            namespace: namespace.clone(),
            name: name.clone(),
            incarnation: EventId::from_bytes([0; 32]),
            image: self.image.clone(),
            replicas: self.replicas.clone(),
            resources: self.resources.clone(),
            env: self.env.clone(),
            ports: PortsGroup::default(),
            placement: self.placement.clone(),
            restart: self.restart.clone(),
            meta: MetaGroup::default(),
            update: self.update,
            depends: self.depends.clone(),
            job: self.job,
        }
        .to_groups()
    }
}

/// The image that every simulated node holds.
pub(crate) const fn image_digest() -> Digest {
    Digest::from_bytes([0x1a; 32])
}

impl Author {
    /// The author of this seed.
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
    pub fn new(seed: [u8; 32]) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        Self { key, nonces: 0 }
    }

    /// The public key.
    ///
    /// # Panics
    /// Never: an Ed25519 key has 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.key.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes")
    }

    fn sign(&mut self, body: &Body) -> Vec<u8> {
        let sign = |bytes: &[u8]| {
            let signature = self.key.sign(bytes);
            signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
        };
        SignedEvent::sign(body, sign).encode()
    }

    fn body(&mut self, cluster: ClusterId, doc: DocId, kind: Kind, time_ms: i64) -> Body {
        self.nonces += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.public()[..8]);
        nonce[8..].copy_from_slice(&self.nonces.to_be_bytes());
        Body {
            v: EVENT_VERSION,
            cluster,
            doc,
            author: Signer::User(UserId::from_bytes(self.public())),
            auth: Vec::new(),
            deps: Vec::new(),
            nonce: Hex(nonce),
            time_ms,
            kind,
        }
    }

    /// The first event of a cluster, and its id.
    pub(crate) fn genesis(&mut self, node: NodeInfo) -> (ClusterId, Vec<u8>) {
        let admin = UserInfo { name: name("alice"), key: UserId::from_bytes(self.public()) };
        let genesis = Genesis { name: name("sim"), admin, node, recovery: UserId::from_bytes([0x77; 32]) };
        let body = self.body(ClusterId::from_bytes([0; 32]), DocId::Cluster, Kind::Genesis(genesis), 0);
        let bytes = self.sign(&body);
        (ClusterId::from_bytes(*event::id_of(&bytes).as_bytes()), bytes)
    }

    fn in_cluster(&mut self, documents: &Documents, kind: Kind, time_ms: i64) -> Vec<u8> {
        let mut body = self.body(documents.cluster(), DocId::Cluster, kind, time_ms);
        body.deps = documents.heads(&DocId::Cluster);
        self.sign(&body)
    }

    /// A user is added.
    pub fn user_add(&mut self, documents: &Documents, of: &str, key: [u8; 32]) -> Vec<u8> {
        let user = UserAdd { name: name(of), key: UserId::from_bytes(key), role: Role::Admin };
        self.in_cluster(documents, Kind::UserAdd(user), 0)
    }

    /// A token is registered.
    pub(crate) fn token(&mut self, documents: &Documents, id: TokenId, uses: u32) -> Vec<u8> {
        self.in_cluster(documents, Kind::Token(TokenGrant { id, expires_ms: i64::MAX, uses }), 0)
    }

    /// This key, as a node's, admits itself with a token's key.
    pub(crate) fn admit(&mut self, documents: &Documents, token: &Self, node: NodeInfo) -> Vec<u8> {
        let proof = token.key.sign(&event::admit_bytes(documents.cluster(), node.key, &node.name));
        let proof = Hex(proof.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"));
        let admit = NodeAdmit { token: TokenId::from_bytes(token.public()), node, proof };
        let mut body = self.body(documents.cluster(), DocId::Cluster, Kind::NodeAdmit(admit), 0);
        body.author = Signer::Node(NodeId::from_bytes(self.public()));
        body.deps = documents.heads(&DocId::Cluster);
        self.sign(&body)
    }

    /// A node is removed.
    pub fn node_remove(&mut self, documents: &Documents, node: NodeId, time_ms: i64) -> Vec<u8> {
        self.in_cluster(documents, Kind::NodeRemove(event::NodeRemove { node }), time_ms)
    }

    /// A node takes work, or none.
    pub fn node_schedule(
        &mut self,
        documents: &Documents,
        said: event::NodeSchedule,
        time_ms: i64,
    ) -> Vec<u8> {
        self.in_cluster(documents, Kind::NodeSchedule(said), time_ms)
    }

    /// An event that changes deployments, as of what `documents` know.
    pub fn change(&mut self, documents: &Documents, verb: Verb, edits: Vec<Edit>, time_ms: i64) -> Vec<u8> {
        let change = Change { verb, undoes: None, edits };
        self.change_in(&Name::default_namespace(), documents, change, time_ms)
    }

    /// The same in any namespace, and with what it takes back.
    fn change_in(
        &mut self,
        namespace: &Name,
        documents: &Documents,
        change: Change,
        time_ms: i64,
    ) -> Vec<u8> {
        let doc = DocId::Namespace(namespace.clone());
        let kind = Kind::Change(change);
        let mut body = self.body(documents.cluster(), doc.clone(), kind, time_ms);
        body.auth = documents.heads(&DocId::Cluster);
        body.deps = documents.heads(&doc);
        self.sign(&body)
    }

    /// Creates a whole deployment in its namespace; its incarnation is the event.
    pub fn create(&mut self, documents: &Documents, deployment: &model::Deployment, time_ms: i64) -> Vec<u8> {
        let edit = Edit::Create(Create { name: deployment.name.clone(), groups: deployment.to_groups() });
        let change = Change { verb: Verb::Apply, undoes: None, edits: vec![edit] };
        self.change_in(&deployment.namespace, documents, change, time_ms)
    }

    /// Creates the deployment, or sets the groups in which it differs; `None` where it differs in none.
    pub fn apply(&mut self, documents: &Documents, of: &str, spec: &Spec, time_ms: i64) -> Option<Vec<u8>> {
        let (namespace, of) = (Name::default_namespace(), name(of));
        let mut groups = spec.with_voters(documents)?.groups(&namespace, &of);
        let edit = match documents.get(&namespace, &of) {
            None => Edit::Create(Create { name: of, groups }),
            Some(view) => {
                groups.retain(|group, json| view.groups.get(group) != Some(json));
                if groups.is_empty() {
                    return None;
                }
                Edit::Set(Set { name: of, incarnation: view.incarnation, groups })
            }
        };
        Some(self.change(documents, Verb::Apply, vec![edit], time_ms))
    }

    /// The group `replicas` with another count, and the promise and the voters that a deployment has.
    pub(crate) fn scaled(documents: &Documents, of: &str, json: &str) -> String {
        let group = |json: &str| serde_json::from_str::<ReplicasGroup>(json).ok();
        let now = documents
            .get(&Name::default_namespace(), &name(of))
            .and_then(|view| group(view.groups.get("replicas")?));
        match (now, group(json)) {
            (Some(now), Some(asked)) if !now.voters.is_empty() => {
                let scaled = ReplicasGroup { count: asked.count, ..now };
                serde_json::to_string(&scaled).expect("a group is a map with text keys")
            }
            _ => json.to_owned(),
        }
    }

    /// Sets one group of a deployment that exists.
    pub fn set(
        &mut self,
        documents: &Documents,
        of: &str,
        group: &str,
        json: &str,
        time_ms: i64,
    ) -> Option<Vec<u8>> {
        let view = documents.get(&Name::default_namespace(), &name(of))?;
        let groups = BTreeMap::from([(group.to_owned(), json.to_owned())]);
        let edit = Edit::Set(Set { name: name(of), incarnation: view.incarnation, groups });
        Some(self.change(documents, Verb::Apply, vec![edit], time_ms))
    }

    /// Restarts a deployment that exists: a new token in its restart group, the policy as it is.
    pub fn restart(&mut self, documents: &Documents, of: &str, time_ms: i64) -> Option<Vec<u8>> {
        let view = documents.get(&Name::default_namespace(), &name(of))?;
        let policy = view.deployment.as_ref().ok()?.restart.policy;
        let restart = RestartGroup { policy, token: format!("{}-{}", self.public()[0], self.nonces) };
        let json = serde_json::to_string(&restart).expect("a group is a map with text keys");
        self.set(documents, of, "restart", &json, time_ms)
    }

    /// Takes back the last change of a deployment, as the CLI's `undo` does; `None` where there is
    /// nothing to take back, or no value to put back.
    pub fn undo(&mut self, documents: &Documents, of: &str, time_ms: i64) -> Option<Vec<u8>> {
        let (namespace, of) = (Name::default_namespace(), name(of));
        let history = documents.history(&DocId::Namespace(namespace.clone()), Some(&of));
        let last = history.last()?;
        let did = last.summary.iter().rfind(|it| it.name == of)?;
        let now = documents.get(&namespace, &of);
        let edit = match (did.action, now) {
            (document::Action::Create, Some(view)) if view.incarnation == did.incarnation => {
                Edit::Delete(Delete { name: of, incarnation: view.incarnation })
            }
            (document::Action::Delete, None) => {
                let mut groups = BTreeMap::new();
                let before = history.iter().flat_map(|it| &it.summary).filter(|it| it.name == of);
                for change in before.filter(|it| it.incarnation == did.incarnation).flat_map(|it| &it.groups)
                {
                    groups.insert(change.group.clone(), change.after.clone());
                }
                (!groups.is_empty()).then_some(Edit::Create(Create { name: of, groups }))?
            }
            (document::Action::Set, Some(view)) => {
                let changes = did.groups.iter();
                let groups: BTreeMap<String, String> =
                    changes.filter_map(|it| Some((it.group.clone(), it.before.clone()?))).collect();
                (!groups.is_empty()).then_some(Edit::Set(Set {
                    name: of,
                    incarnation: view.incarnation,
                    groups,
                }))?
            }
            _ => return None,
        };
        let change = Change { verb: Verb::Undo, undoes: Some(last.id), edits: vec![edit] };
        Some(self.change_in(&namespace, documents, change, time_ms))
    }

    /// Sets a group of an incarnation that is deleted: valid, signed, and without any effect.
    pub fn set_on_the_deleted(&mut self, documents: &Documents, of: &str, time_ms: i64) -> Option<Vec<u8>> {
        let (namespace, of) = (Name::default_namespace(), name(of));
        let history = documents.history(&DocId::Namespace(namespace), Some(&of));
        let deleted = |it: &&document::EditSummary| it.name == of && it.action == document::Action::Delete;
        let gone = history.iter().flat_map(|it| &it.summary).find(deleted)?.incarnation;
        let groups =
            BTreeMap::from([("replicas".to_owned(), r#"{"count":5,"class":"available"}"#.to_owned())]);
        let edit = Edit::Set(Set { name: of, incarnation: gone, groups });
        Some(self.change(documents, Verb::Apply, vec![edit], time_ms))
    }

    /// Deletes a deployment that exists.
    pub fn delete(&mut self, documents: &Documents, of: &str, time_ms: i64) -> Option<Vec<u8>> {
        let view = documents.get(&Name::default_namespace(), &name(of))?;
        let edit = Edit::Delete(Delete { name: name(of), incarnation: view.incarnation });
        Some(self.change(documents, Verb::Delete, vec![edit], time_ms))
    }
}

/// A name that a test wrote down.
pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("tests and scenarios write valid names; scenarios are checked when read")
}
