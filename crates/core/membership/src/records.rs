//! What each node says of itself: the newest record of every member.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::limits::{
    CLAIM_NUMBER_MAX, CONTAINERS_PER_NODE_MAX, EVENT_DEPS_MAX, FAILED_REVISIONS_MAX, IMAGES_ANNOUNCED_MAX,
    JOB_COMPLETIONS_MAX, JOB_FAILURES_MAX, JOBS_TOLD_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAMESPACES_MAX,
    NODES_MAX,
};
use model::{
    ContainerRecord, NodeId, NodeRecord, RecordVersion, ReplicaId, Sabotage, Sabotages, SignedRecord,
};

/// Addresses of one node: its interfaces, and what its operator adds.
pub const ADDRESSES_MAX: usize = 16;

/// Bytes of one address: a host name and a port.
pub const ADDRESS_BYTES_MAX: usize = 264;

/// Replicas that one node declines at a time: as many as it could run.
pub const DECLINED_MAX: usize = CONTAINERS_PER_NODE_MAX;

/// Bytes of a reason that people read: one line.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Bytes of an image's name, as a manifest may have.
pub const REFERENCE_BYTES_MAX: usize = 255;

/// Why a record was not taken. The table is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its node is not in the roster.
    #[error("a record of {0:?}, which is not a member")]
    Stranger(NodeId),
    /// It is of this node, from another, and later than this node's own: it was written in a life
    /// that this node has forgotten (a restored backup), or by a second holder of its key.
    #[error("a record of this node itself, of generation {} and count {}, is later than its own", .0.generation, .0.count)]
    FromMyFuture(RecordVersion),
    /// It claims a replica by a number that no honest cluster reaches.
    #[error("a record of {node:?} has claim number {claim}, the limit is {CLAIM_NUMBER_MAX}")]
    ClaimTooHigh {
        /// Whose record.
        node: NodeId,
        /// The number.
        claim: u64,
    },
    /// It has more of something than a node may say.
    #[error("a record of {node:?} has {count} {what}, the limit is {max}")]
    TooMuch {
        /// Whose record.
        node: NodeId,
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many it may have.
        max: usize,
    },
}

/// A replica in few bytes: the first of its incarnation's id, and its ordinal. Two replicas may share one.
type Short = (u64, u32);

/// No node comes before it.
const FIRST_NODE: NodeId = NodeId::from_bytes([0; 32]);

fn short(replica: &ReplicaId) -> Short {
    let first = replica.incarnation.as_bytes().first_chunk().copied().unwrap_or_default();
    (u64::from_be_bytes(first), replica.ordinal)
}

/// The first bytes of a signature, as a number.
fn beginning(signed: &SignedRecord) -> u64 {
    signed.signature.to_bytes().first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
}

fn shorts(containers: &[ContainerRecord]) -> BTreeSet<Short> {
    containers.iter().map(|it| short(&it.replica)).collect()
}

/// A record, and the signed bytes that it was read from and is passed on as.
#[derive(Clone, Debug)]
struct Held {
    record: Arc<NodeRecord>,
    signed: SignedRecord,
}

/// The newest record of each member. The caller vouches that a record was signed by its node.
#[derive(Clone, Debug)]
pub struct Records {
    me: NodeId,
    members: BTreeSet<NodeId>,
    newest: BTreeMap<NodeId, Held>,
    /// Whose record that is held has a signature which begins so: most of what goes around is held already, and
    /// need not even be read to tell. Where two begin alike only the later is found here.
    by_signature: BTreeMap<u64, NodeId>,
    /// Who has a container of which replica: a question that is asked often, of few.
    holders: BTreeSet<(Short, NodeId)>,
    sabotage: Sabotages,
}

impl Records {
    /// An empty table, for a roster of this node alone.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            members: BTreeSet::from([me]),
            newest: BTreeMap::new(),
            by_signature: BTreeMap::new(),
            holders: BTreeSet::new(),
            sabotage: Sabotages::NONE,
        }
    }

    /// Puts these faults in.
    pub fn sabotage(&mut self, faults: Sabotages) {
        self.sabotage = faults;
    }

    /// Sets the members; records of others are forgotten. This node is always one.
    pub fn set_roster(&mut self, members: &BTreeSet<NodeId>) {
        self.members.clone_from(members);
        self.members.insert(self.me);
        let gone: Vec<NodeId> = self.newest.keys().filter(|id| !self.members.contains(id)).copied().collect();
        for id in gone {
            if let Some(held) = self.newest.remove(&id) {
                self.forget_signature(&held.signed, id);
                self.holds_now(&shorts(&held.record.containers), &BTreeSet::new(), id);
            }
        }
    }

    /// Whether a record from another node is newer than what is known, and may be taken. Nothing is:
    /// its signature is worth a look then.
    pub fn is_news(&self, record: &NodeRecord) -> Result<bool, RecordError> {
        if record.node == self.me {
            let own = self.get(&self.me).map_or(RecordVersion::default(), |own| own.version);
            return if record.version > own {
                Err(RecordError::FromMyFuture(record.version))
            } else {
                Ok(false)
            };
        }
        if !self.members.contains(&record.node) {
            return Err(RecordError::Stranger(record.node));
        }
        // Most of what goes around in a large cluster is known.
        let newer = self.is_newer(record);
        if newer {
            check(record)?;
        }
        Ok(newer)
    }

    /// Takes a record from another node; whether it is newer than what was known.
    pub fn insert(&mut self, record: Arc<NodeRecord>, signed: SignedRecord) -> Result<bool, RecordError> {
        let news = self.is_news(&record)?;
        if news {
            self.keep(record, signed);
        }
        Ok(news)
    }

    /// Takes this node's own record; whether it is newer than the last.
    pub fn set_own(&mut self, record: Arc<NodeRecord>, signed: SignedRecord) -> Result<bool, RecordError> {
        if record.node != self.me {
            return Err(RecordError::Stranger(record.node));
        }
        check(&record)?;
        let newer = self.is_newer(&record);
        if newer {
            self.keep(record, signed);
        }
        Ok(newer)
    }

    fn keep(&mut self, record: Arc<NodeRecord>, signed: SignedRecord) {
        let id = record.node;
        let known = self.newest.get(&id);
        let replicas = |record: &NodeRecord| record.containers.iter().map(|it| short(&it.replica)).collect();
        let before: Vec<Short> = known.map(|held| replicas(&held.record)).unwrap_or_default();
        let after: Vec<Short> = replicas(&record);
        let begins = beginning(&signed);
        if let Some(replaced) = self.newest.insert(id, Held { record, signed }) {
            self.forget_signature(&replaced.signed, id);
        }
        self.by_signature.insert(begins, id);
        if before != after {
            self.holds_now(&before.into_iter().collect(), &after.into_iter().collect(), id);
        }
    }

    fn forget_signature(&mut self, signed: &SignedRecord, id: NodeId) {
        if let Entry::Occupied(known) = self.by_signature.entry(beginning(signed))
            && *known.get() == id
        {
            known.remove();
        }
    }

    fn holds_now(&mut self, before: &BTreeSet<Short>, after: &BTreeSet<Short>, id: NodeId) {
        for gone in before.difference(after) {
            self.holders.remove(&(*gone, id));
        }
        self.holders.extend(after.difference(before).map(|new| (*new, id)));
    }

    /// Every container of a replica that a record tells of, by node.
    pub fn containers_of<'a>(
        &'a self,
        replica: &'a ReplicaId,
    ) -> impl Iterator<Item = (NodeId, &'a ContainerRecord)> {
        let short = short(replica);
        let holders = self.holders.range((short, FIRST_NODE)..).take_while(move |(of, _)| *of == short);
        holders.filter_map(|(_, id)| self.newest.get(id)).flat_map(move |held| {
            let of_it = held.record.containers.iter().filter(move |it| it.replica == *replica);
            of_it.map(|it| (held.record.node, it))
        })
    }

    /// Whose record these very bytes are, if they are held: nothing of them is news.
    pub fn holds(&self, signed: &SignedRecord) -> Option<NodeId> {
        let id = *self.by_signature.get(&beginning(signed))?;
        self.newest.get(&id).is_some_and(|held| held.signed == *signed).then_some(id)
    }

    fn is_newer(&self, record: &NodeRecord) -> bool {
        let older = self.sabotage.has(Sabotage::OlderRecordWins) && record.node != self.me;
        self.get(&record.node)
            .is_none_or(|known| known.version < record.version || (older && known.version > record.version))
    }

    /// The record of a node.
    pub fn get(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.newest.get(node).map(|held| &*held.record)
    }

    /// The record of a node as it is passed on.
    pub fn signed(&self, node: &NodeId) -> Option<&SignedRecord> {
        self.newest.get(node).map(|held| &held.signed)
    }

    /// Every record, by node.
    pub fn iter(&self) -> impl Iterator<Item = &NodeRecord> {
        self.newest.values().map(|held| &*held.record)
    }

    /// What is known, in short: for another to say what it knows better.
    pub fn digest(&self) -> Vec<(NodeId, RecordVersion)> {
        self.iter().map(|record| (record.node, record.version)).collect()
    }

    /// The records that one with this digest lacks, as their nodes signed them, and whose they are.
    pub fn newer_than(&self, digest: &[(NodeId, RecordVersion)]) -> Vec<(NodeId, &SignedRecord)> {
        let mut known: BTreeMap<NodeId, RecordVersion> = BTreeMap::new();
        for (id, version) in digest {
            let best = known.entry(*id).or_insert(*version);
            *best = (*best).max(*version);
        }
        let lacks = |record: &NodeRecord| known.get(&record.node).is_none_or(|it| *it < record.version);
        let kept = self.sabotage.has(Sabotage::RecordsKept);
        let lacking = self.newest.values().filter(|held| lacks(&held.record) && !kept);
        lacking.map(|held| (held.record.node, &held.signed)).collect()
    }
}

/// Holds a record to its limits.
fn check(record: &NodeRecord) -> Result<(), RecordError> {
    let limit = |what, count, max| {
        if count > max { Err(RecordError::TooMuch { node: record.node, what, count, max }) } else { Ok(()) }
    };
    let longest = |texts: &mut dyn Iterator<Item = &String>| texts.map(String::len).max().unwrap_or(0);
    limit("addresses", record.addresses.len(), ADDRESSES_MAX)?;
    limit("bytes in an address", longest(&mut record.addresses.iter()), ADDRESS_BYTES_MAX)?;
    limit("labels", record.labels.len(), LABELS_MAX)?;
    limit("bytes in a label", longest(&mut record.labels.values()), LABEL_VALUE_BYTES_MAX)?;
    limit("links", record.links.len(), NODES_MAX)?;
    limit("containers", record.containers.len(), CONTAINERS_PER_NODE_MAX)?;
    let confirms = record.containers.iter().map(|it| it.confirms.len()).max().unwrap_or(0);
    limit("confirmed duplicates of one container", confirms, CONTAINERS_PER_NODE_MAX)?;
    let claim = record.containers.iter().map(|it| it.claim).max().unwrap_or(0);
    if claim > CLAIM_NUMBER_MAX {
        return Err(RecordError::ClaimTooHigh { node: record.node, claim });
    }
    let mut reasons = record.containers.iter().filter_map(|it| it.reason.as_ref());
    limit("bytes in a reason", longest(&mut reasons), REASON_BYTES_MAX)?;
    limit("bytes in a reason", longest(&mut record.pressure.iter()), REASON_BYTES_MAX)?;
    limit("jobs", record.jobs.len(), JOBS_TOLD_MAX)?;
    for it in &record.jobs {
        limit("bytes of ends of a job", it.ends.done.len(), (JOB_COMPLETIONS_MAX as usize).div_ceil(8))?;
        limit("failed runs of a job", it.ends.failed.len(), JOB_FAILURES_MAX)?;
        let mut reasons = it.ends.failed.values().map(|run| &run.reason);
        limit("bytes in a reason", longest(&mut reasons), REASON_BYTES_MAX)?;
    }
    limit("declined replicas", record.declined.len(), DECLINED_MAX)?;
    limit("failed templates", record.failed.len(), FAILED_REVISIONS_MAX)?;
    limit("bytes in a reason", longest(&mut record.failed.iter().map(|it| &it.reason)), REASON_BYTES_MAX)?;
    limit("bytes in a reason", longest(&mut record.declined.iter().map(|it| &it.reason)), REASON_BYTES_MAX)?;
    limit("images", record.images.len(), IMAGES_ANNOUNCED_MAX)?;
    let mut references = record.images.iter().map(|it| &it.reference);
    limit("bytes in an image's name", longest(&mut references), REFERENCE_BYTES_MAX)?;
    limit("documents", record.heads.len(), NAMESPACES_MAX + 1)?;
    let heads = record.heads.values().map(Vec::len).max().unwrap_or(0);
    limit("heads of one document", heads, EVENT_DEPS_MAX)
}
