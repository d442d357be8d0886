//! A node as foca knows it: with the life that it is in.

use model::NodeId;

/// One life of one node. A later one replaces an earlier one.
///
/// The renewal is apart from the generation, so that a node which came back to life by itself (it was
/// called down and was not) is never taken for one that was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// How often its peer was started, as in its records.
    pub(crate) generation: u64,
    /// How often it came back in this generation after it was called down.
    pub(crate) renewal: u32,
}

impl Peer {
    /// A node of which no life is known; good for an announcement only.
    pub(crate) const fn unknown(node: NodeId) -> Self {
        Self { node, generation: 0, renewal: 0 }
    }

    /// The next life; there is none after 2^96 of them, or after one that a liar made up.
    pub(crate) fn next(&self) -> Option<Self> {
        match self.renewal.checked_add(1) {
            Some(renewal) => Some(Self { renewal, ..*self }),
            None => Some(Self { generation: self.generation.checked_add(1)?, renewal: 0, ..*self }),
        }
    }

    pub(crate) const fn life(&self) -> (u64, u32) {
        (self.generation, self.renewal)
    }
}

impl foca::Identity for Peer {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.next()
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life() > adversary.life()
    }
}
