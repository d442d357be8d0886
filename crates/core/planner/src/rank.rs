//! Which of several containers of one replica stays.

use model::{ContainerId, ContainerRecord, ContainerState, NodeId};

/// Whether a container in this state stands for its replica: it runs, or it will.
///
/// One that stops does not, so its replica may be started elsewhere; one that ended for good does
/// not either (a container whose back-off runs says `Pending`).
pub const fn is_claim(state: ContainerState) -> bool {
    match state {
        ContainerState::Pending | ContainerState::Starting | ContainerState::Running => true,
        ContainerState::Stopping | ContainerState::Exited | ContainerState::Failed => false,
    }
}

/// Whether a container in this state takes up room on its node: every claim, duplicates that are to
/// go included, and what is still stopping.
pub const fn holds_capacity(state: ContainerState) -> bool {
    is_claim(state) || matches!(state, ContainerState::Stopping)
}

/// The place of one container among those that hold the same replica; the greatest stays.
///
/// A total order: merging duplicates (taking the greater) is commutative and associative, so every
/// peer that sees the same claims keeps the same container, in whatever order it heard of them.
/// The fields are compared from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// It is of the wanted revision, on a node that has the wanted labels.
    pub fits: bool,
    /// Its claim number.
    pub claim: u64,
    /// Its node.
    pub node: NodeId,
    /// Itself: only to tell two containers on one node apart.
    pub container: ContainerId,
}

/// The rank of a container on `node`. `fits`: see [`Rank::fits`].
pub const fn rank(node: NodeId, container: &ContainerRecord, fits: bool) -> Rank {
    Rank { fits, claim: container.claim, node, container: container.id }
}

/// The container that stays, of all that claim one replica; those that are no claim are passed over.
pub fn winner<'a>(
    containers: impl IntoIterator<Item = (NodeId, &'a ContainerRecord)>,
    fits: impl Fn(NodeId, &ContainerRecord) -> bool,
) -> Option<(NodeId, &'a ContainerRecord)> {
    containers
        .into_iter()
        .filter(|(_, container)| is_claim(container.state))
        .max_by_key(|(node, container)| rank(*node, container, fits(*node, container)))
}
