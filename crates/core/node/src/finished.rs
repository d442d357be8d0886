//! Containers that ended for good, by their restart policy, in the company of others of their replica.
//!
//! Invariant: nothing of a replica runs on, or lies about, in a revision that is not wanted once one of
//! the wanted revision has ended for good. Absent on purpose: of two that both ended so, neither goes;
//! nothing of them runs, and each is somebody's answer.

use model::{ContainerRecord, ContainerState, NodeId};

use crate::containers::{Mine, Phase};
use crate::state::{Desired, Node};

/// Why a container of this node that ended for good may go, if it may. No winner confirms it: it
/// holds no room, and nobody would ever let it go.
pub(crate) fn is_left_over(mine: &Mine, desired: &Desired) -> Option<String> {
    let ended = matches!(mine.phase, Phase::Done { .. });
    (ended && mine.claim.revision != desired.revision)
        .then(|| "it has ended, and another revision is wanted".to_owned())
}

impl Node {
    /// Whether a container of a higher rank, on that node, has ended so that this one has nothing more to
    /// do: in the wanted revision, while this one is of another, or well. It cannot confirm anything any
    /// more, and no copy is protected by that: a replica that has ended needs none. Its node must know of the
    /// same changes: where another revision is wanted by what it knows, it removes what has ended.
    pub(crate) fn makes_obsolete(
        &self,
        mine: &Mine,
        desired: &Desired,
        node: NodeId,
        record: &ContainerRecord,
    ) -> bool {
        let wanted = desired.revision;
        let here = self.mine.get(&record.id);
        let ended = planner::is_done(record.state, desired.deployment.restart.policy)
            && here.is_none_or(|it| !it.is_removed());
        let enough = mine.claim.revision != wanted || record.state == ContainerState::Exited;
        record.revision == wanted
            && ended
            && enough
            && self.hears_old_until.is_none()
            && (node == self.config.me
                || self.has_word_of(&node) && self.stands_with(node, &mine.claim.replica))
    }
}
