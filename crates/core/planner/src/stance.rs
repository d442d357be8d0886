//! How each replica of one deployment stands: it stays, it waits for its turn, or it needs room.
//!
//! This part depends on the deployment and its own claims alone, not on what is free anywhere, so it
//! is done again only for deployments that a change touches.

use std::collections::BTreeMap;

use model::{ContainerState, NodeId, RestartPolicy};

use crate::cache::{Claim, Need, Node, SlotState, Spec};
use crate::{Placement, Rank, is_claim};

/// How one replica stands.
#[derive(Debug)]
pub(crate) enum Stance {
    /// What it has decides.
    Settled(Placement),
    /// A node must be found.
    Needs(Need),
}

/// Whether a container that ended did so for good, and its replica with it: such a replica is done,
/// and is not started elsewhere. One that its policy starts again is a claim only once it says so.
fn is_done(state: ContainerState, policy: RestartPolicy) -> bool {
    match (state, policy) {
        (ContainerState::Exited, RestartPolicy::Never | RestartPolicy::OnFailure)
        | (ContainerState::Failed, RestartPolicy::Never) => true,
        (ContainerState::Exited, RestartPolicy::Always)
        | (ContainerState::Failed, RestartPolicy::Always | RestartPolicy::OnFailure)
        | (
            ContainerState::Pending
            | ContainerState::Starting
            | ContainerState::Running
            | ContainerState::Stopping,
            _,
        ) => false,
    }
}

/// The claims of one replica on nodes that are alive, boiled down.
#[derive(Debug, Default)]
struct Held {
    /// The best that fits: of the wanted revision, on a node with the wanted labels; or one that is
    /// done.
    fitting: Option<Rank>,
    /// Whether any that fits is healthy or done.
    healthy: bool,
    /// The best of the others that run.
    old: Option<Rank>,
}

impl Held {
    fn add(&mut self, spec: &Spec, id: NodeId, node: &Node, claim: &Claim) {
        let wanted = claim.revision == spec.revision;
        let done = wanted && is_done(claim.state, spec.restart);
        if !node.alive || !(is_claim(claim.state) || done) {
            return;
        }
        let fits = done || wanted && spec.label_missing(&node.labels).is_none();
        let rank = Rank { fits, claim: claim.number, node: id, container: claim.container };
        let best = if fits { &mut self.fitting } else { &mut self.old };
        *best = (*best).max(Some(rank));
        self.healthy |= done || fits && claim.is_healthy();
    }
}

/// How every replica stands, by ordinal.
///
/// The rolling update: the lowest ordinal without a healthy container that fits has the turn. It
/// passes when that one is healthy, so no higher ordinal is touched while a lower one is not well.
/// A replica that runs nowhere is started whosever turn it is.
pub(crate) fn stances(
    spec: &Spec,
    slot: &SlotState,
    nodes: &BTreeMap<NodeId, Node>,
) -> impl Iterator<Item = Stance> {
    let mut held: Vec<Held> = Vec::new();
    held.resize_with(spec.count as usize, Held::default);
    // Both are by node: one walk instead of many searches.
    let mut nodes = nodes.iter().peekable();
    for (id, claim) in &slot.claims {
        while nodes.next_if(|(node, _)| *node < id).is_some() {}
        let node = nodes.peek().filter(|(node, _)| *node == id);
        if let (Some(held), Some((_, node))) = (held.get_mut(claim.ordinal as usize), node) {
            held.add(spec, *id, node, claim);
        }
    }
    let mut turn_taken = false;
    (0..spec.count).zip(held).map(move |(ordinal, held)| {
        let has_turn = !turn_taken && !held.healthy;
        turn_taken |= has_turn;
        match (held.fitting, held.old) {
            (Some(new), Some(old)) if has_turn => {
                Stance::Settled(Placement::Replace { old: (old.node, old.container), new: new.node })
            }
            (Some(new), _) => Stance::Settled(Placement::Keep { node: new.node, container: new.container }),
            (None, Some(old)) if has_turn => {
                Stance::Needs(Need { ordinal, old: Some((old.node, old.container)) })
            }
            (None, Some(old)) => {
                Stance::Settled(Placement::KeepOld { node: old.node, container: old.container })
            }
            (None, None) => Stance::Needs(Need { ordinal, old: None }),
        }
    })
}
