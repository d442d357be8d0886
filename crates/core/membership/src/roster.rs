//! The members, and their ids in short.

use std::collections::{BTreeMap, BTreeSet};

use model::NodeId;

/// Bytes of a short id. Ids are keys, so two members that collide by chance are not to be expected;
/// two that collide by malice are told apart by their whole ids.
pub(crate) const SHORT_BYTES: usize = 8;

/// A short id.
pub(crate) type Short = [u8; SHORT_BYTES];

/// The members that may be heard and spoken of, this node included.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    me: NodeId,
    others: BTreeSet<NodeId>,
    /// `None` where two members share it.
    shorts: BTreeMap<Short, Option<NodeId>>,
}

pub(crate) fn short(id: &NodeId) -> Short {
    let (start, _) = id.as_bytes().split_first_chunk().expect("an id is longer than its start");
    *start
}

impl Roster {
    pub(crate) fn new(me: NodeId, members: &BTreeSet<NodeId>) -> Self {
        let others: BTreeSet<NodeId> = members.iter().filter(|id| **id != me).copied().collect();
        let mut shorts: BTreeMap<Short, Option<NodeId>> = BTreeMap::new();
        for id in others.iter().chain([&me]) {
            shorts.entry(short(id)).and_modify(|it| *it = None).or_insert(Some(*id));
        }
        Self { me, others, shorts }
    }

    pub(crate) const fn me(&self) -> NodeId {
        self.me
    }

    /// The members but this node.
    pub(crate) const fn others(&self) -> &BTreeSet<NodeId> {
        &self.others
    }

    /// Whether it may be spoken of: a member, or this node.
    pub(crate) fn knows(&self, id: &NodeId) -> bool {
        *id == self.me || self.others.contains(id)
    }

    /// The one member of a short id.
    pub(crate) fn of_short(&self, short: Short) -> Option<NodeId> {
        self.shorts.get(&short).copied().flatten()
    }

    /// Whether the short id of a member names it alone.
    pub(crate) fn is_short_enough(&self, id: &NodeId) -> bool {
        self.of_short(short(id)) == Some(*id)
    }
}
