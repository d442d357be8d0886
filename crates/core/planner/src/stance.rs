//! How each replica of one deployment stands: it stays, it waits for its turn, or it needs room.
//!
//! This part depends on the deployment and its own claims alone, not on what is free anywhere, so it
//! is done again only for deployments that a change touches.

use std::collections::BTreeMap;

use model::{ContainerState, Mode, NodeId, RestartPolicy, Strategy};

use crate::cache::{Claim, Need, Node, SlotState, Spec};
use crate::jobs::take_job_turns;
use crate::{Placement, Rank, Waits, is_claim};

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
pub const fn is_done(state: ContainerState, policy: RestartPolicy) -> bool {
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
pub(crate) struct Held {
    /// The best that fits: of the wanted revision, on a node where it may stay; or one that is
    /// done.
    pub(crate) fitting: Option<Rank>,
    /// Whether any, of whatever revision, runs or will.
    pub(crate) live: bool,
    /// Whether any that fits is ready or done.
    ready: bool,
    /// Whether any that fits is proven as a canary.
    proven: bool,
    /// Whether any, of whatever revision, is well or done.
    well: bool,
    /// The best of the others that run.
    pub(crate) old: Option<Rank>,
    /// Whether any of those is of the wanted revision: it is only to run elsewhere.
    pub(crate) moves: bool,
}

impl Held {
    fn add(&mut self, spec: &Spec, id: NodeId, node: &Node, claim: &Claim) {
        let wanted = claim.revision == spec.revision;
        let done = wanted && is_done(claim.state, spec.restart);
        if !node.alive || !(is_claim(claim.state) || done) {
            return;
        }
        self.live |= !done;
        let fits = done || wanted && spec.may_stay(node);
        let rank = Rank { fits, claim: claim.number, node: id, container: claim.container };
        let best = if fits { &mut self.fitting } else { &mut self.old };
        *best = (*best).max(Some(rank));
        self.ready |= done || fits && claim.is_healthy() && claim.ready;
        self.proven |= done || fits && claim.is_healthy() && claim.proven;
        self.well |= done || claim.is_healthy();
        self.moves |= wanted && !fits;
    }
}

/// How the replicas of one deployment stand.
#[derive(Debug)]
pub(crate) struct Stands {
    /// Each, by ordinal.
    pub(crate) stances: Vec<(u32, Stance)>,
    /// Whether all run the wanted revision and are ready.
    pub(crate) complete: bool,
}

/// How every replica stands.
pub(crate) fn stances(spec: &Spec, slot: &SlotState, nodes: &BTreeMap<NodeId, Node>) -> Stands {
    let all: Vec<(u32, Option<NodeId>, Held)> = match spec.mode {
        Mode::Replicated => {
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
            (0..spec.count).zip(held).map(|(ordinal, held)| (ordinal, None, held)).collect()
        }
        Mode::Global => {
            let of_node = |(ordinal, id): (u32, NodeId)| {
                let mut held = Held::default();
                let own = slot.claims.iter().filter(|(on, claim)| *on == id && claim.ordinal == ordinal);
                for (_, claim) in own {
                    held.add(spec, id, &nodes[&id], claim);
                }
                (ordinal, Some(id), held)
            };
            of_each_node(spec, nodes).into_iter().map(of_node).collect()
        }
    };
    let complete = all.iter().all(|(.., held)| held.ready);
    let waits = slot.waits.as_deref();
    let stances = match &spec.job {
        Some(job) if spec.mode == Mode::Replicated => take_job_turns(spec, job, waits, &all),
        _ => take_turns(spec, waits, &all),
    };
    Stands { stances, complete }
}

/// Which replicas change now: the rolling update.
///
/// Of those that are not ready in the wanted revision, the lowest ordinals have a turn, as many as the update
/// lets be more (`surge`) and less (`unavailable`) together; so no higher ordinal is touched while enough
/// lower ones are not ready. A replica with a turn is started anew beside the old one while fewer than
/// `surge` are; else its old one is stopped first, while fewer than `unavailable` are without any that is
/// well. A replica that runs nowhere is started whosever turn it is. Canaries are the lowest ordinals: the
/// others have no turn before those are through. What is waited for holds up starts, and where it is to be
/// completed also updates.
fn take_turns(spec: &Spec, waits: Option<&Waits>, all: &[(u32, Option<NodeId>, Held)]) -> Vec<(u32, Stance)> {
    let update = &spec.update;
    let is_exclusive = !spec.voters.is_empty();
    let waits_to_start = waits.is_some_and(Waits::holds_starts);
    let paused = update.paused || waits.is_some_and(Waits::holds_updates);
    let blue_green = update.strategy == Strategy::BlueGreen;
    let everything = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let surge = if blue_green { everything } else { update.surge };
    let mut turns = if paused { 0 } else { surge.saturating_add(update.unavailable) };
    let doubled = all.iter().filter(|(.., held)| held.fitting.is_some() && held.old.is_some());
    let mut surge = surge.saturating_sub(u32::try_from(doubled.count()).unwrap_or(u32::MAX));
    let unwell = all.iter().filter(|(.., held)| !held.well).count();
    let mut less = update.unavailable.saturating_sub(u32::try_from(unwell).unwrap_or(u32::MAX));
    let canaries = update.canary.filter(|canary| canary.promoted != Some(spec.revision));
    let mut through = true;
    // What is only to run elsewhere does not wait for the update.
    let mut moves = u32::from(paused || canaries.is_some());
    let mut stances = Vec::with_capacity(all.len());
    for (place, (ordinal, only, held)) in (0..).zip(all) {
        if let Some(canary) = &canaries {
            if place < canary.replicas {
                through &= held.proven && canary.promote_after_s.is_some();
            } else if !through {
                turns = 0;
            }
        }
        let has_turn = !held.ready && turns > 0;
        turns -= u32::from(has_turn);
        let moves_now = !held.ready && !has_turn && held.moves && moves > 0;
        moves -= u32::from(moves_now);
        let has_turn = has_turn || moves_now;
        let need = |old| Need { ordinal: *ordinal, only: *only, old, may_stop_first: false };
        stances.push((
            *ordinal,
            match (held.fitting, held.old) {
                (Some(new), Some(old)) if has_turn => {
                    Stance::Settled(Placement::Replace { old: (old.node, old.container), new: new.node })
                }
                (Some(new), _) => {
                    Stance::Settled(Placement::Keep { node: new.node, container: new.container })
                }
                (None, Some(old)) if has_turn && surge > 0 => {
                    surge -= 1;
                    Stance::Needs(need(Some((old.node, old.container))))
                }
                (None, Some(old)) if has_turn && less > 0 => {
                    less -= 1;
                    Stance::Settled(Placement::StopFirst { node: old.node, container: old.container })
                }
                // None may run beside it. Others that are missing do not hold it up: they may have no room at all.
                (None, Some(old)) if has_turn && is_exclusive => {
                    Stance::Settled(Placement::StopFirst { node: old.node, container: old.container })
                }
                (None, Some(old)) => {
                    Stance::Settled(Placement::KeepOld { node: old.node, container: old.container })
                }
                (None, None) if waits_to_start => Stance::Settled(Placement::Waits),
                (None, None) => Stance::Needs(need(None)),
            },
        ));
    }
    // Of those that are to be doubled, some may make room for themselves where there is none.
    for (_, stance) in &mut stances {
        if let Stance::Needs(need) = stance
            && need.old.is_some()
            && less > 0
        {
            less -= 1;
            need.may_stop_first = true;
        }
    }
    stances
}

/// In mode `global`: who runs one, by ordinal. A node that is down runs none meanwhile, and nobody
/// runs one in its place; one that drains is to run none.
pub(crate) fn of_each_node(spec: &Spec, nodes: &BTreeMap<NodeId, Node>) -> BTreeMap<u32, NodeId> {
    let wanted = nodes.iter().filter(|(_, node)| spec.count > 0 && node.alive && spec.may_stay(node));
    wanted.map(|(id, node)| (node.ordinal, *id)).collect()
}
