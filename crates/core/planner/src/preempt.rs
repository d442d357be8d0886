//! Making room: where there is none for a replica, containers of lower priority yield on one node.
//!
//! The plan names the containers that yield. Their node stops them, and gives the room to the replica once
//! they have ended; until then the replica waits for that node, and nobody else is given what it waits for.
//! What has yielded is wanted as before and is placed where there is room, behind all that is of a higher
//! priority.
//!
//! A container that stops says for which replica, and that one waits for no other node meanwhile: else two
//! nodes that make room at the same time would each see the other's first.
//!
//! Invariants: only containers of a strictly lower priority yield, so no two ever yield to one another; and
//! none yields that need not.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use model::{Capacity, ContainerId, ContainerState, Priority};

use crate::cache::{Claim, Need, Slot, Spec};
use crate::holds_capacity;
use crate::place::tie_of;
use crate::room::Room;

/// Where room is made, and by whom.
#[derive(Debug)]
pub(crate) struct Made {
    /// The node, by its index.
    pub(crate) index: usize,
    /// The containers that yield; none where enough of them stop already.
    pub(crate) victims: Vec<ContainerId>,
}

/// What making room somewhere would cost; the least is chosen.
type Cost = (Option<Priority>, usize, Reverse<u64>);

/// Goes on waiting for the node where room is being made for the replica already. Others may have room by
/// now, or seem to: a replica that turned to them would be started there and here.
pub(crate) fn wait_on(room: &mut Room<'_>, slot: Slot, spec: &Spec, need: &Need) -> Option<Made> {
    let index = room.awaited(slot, need.ordinal).filter(|_| need.old.is_none())?;
    if room.judge(index, slot, spec).is_ok()
        || room.admits(index, slot, spec).is_err()
        || room.declined(slot, need.ordinal, index).is_some()
    {
        return None;
    }
    let plot = plot(room, index, slot, spec)?;
    Some(plot.carry_out(room, slot, spec))
}

/// Finds the node where the least must yield, and takes the room there. `None`: no node has enough of lower
/// priority.
pub(crate) fn make_room(room: &mut Room<'_>, slot: Slot, spec: &Spec, need: &Need) -> Option<Made> {
    if spec.placement.priority == Priority::Low {
        return None;
    }
    let mut best: Option<(Cost, Plot)> = None;
    for index in 0..room.places.len() {
        let place = &room.places[index];
        if need.only.is_some_and(|only| only != place.id)
            || room.admits(index, slot, spec).is_err()
            || room.declined(slot, need.ordinal, index).is_some()
        {
            continue;
        }
        if let Some(plot) = plot(room, index, slot, spec) {
            let worst = plot.victims.iter().map(|(priority, _)| *priority).max();
            let cost = (worst, plot.victims.len(), Reverse(tie_of(room, slot, index, need.ordinal)));
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, plot));
            }
        }
    }
    best.map(|(_, plot)| plot.carry_out(room, slot, spec))
}

/// How room would be made on one node.
#[derive(Debug)]
struct Plot {
    index: usize,
    victims: Vec<(Priority, Claim)>,
    /// What will be free once they, and those that stop already, have ended.
    coming: Capacity,
    /// All of those: counted once.
    used: BTreeSet<ContainerId>,
}

impl Plot {
    /// Keeps the room there for the replica.
    fn carry_out(self, room: &mut Room<'_>, slot: Slot, spec: &Spec) -> Made {
        room.promise(self.index, slot, spec, &self.coming, self.used);
        let victims = self.victims.iter().map(|(_, claim)| claim.container).collect();
        Made { index: self.index, victims }
    }
}

fn plot(room: &Room<'_>, index: usize, slot: Slot, spec: &Spec) -> Option<Plot> {
    let place = &room.places[index];
    let in_the_way = room.port_holders(index, slot, &spec.ports);
    let lower = place.node.claims.iter().filter_map(|claim| {
        let priority = room.slots.get(claim.slot).spec.as_ref()?.placement.priority;
        let name = &room.slots.key(claim.slot).name;
        let counts = priority < spec.placement.priority
            // Without its company it could not come, and its company would be back.
            && !spec.placement.near.iter().any(|it| it.deployment == *name)
            // Without what it depends on it would not be started, and that would be back.
            && !spec.depends.on.contains_key(name)
            && holds_capacity(claim.state)
            && !place.spent.contains(&claim.container);
        counts.then(|| (priority, claim.clone()))
    });
    let (stopping, mut running): (Vec<_>, Vec<_>) =
        lower.partition(|(_, claim)| claim.state == ContainerState::Stopping);
    // Each of those that have its ports must be among them, and must go.
    let goes = |holder: &Slot| {
        let mut of_it = place.node.claims.iter().filter(|it| it.slot == *holder && holds_capacity(it.state));
        let is_lower =
            |it: &Claim| stopping.iter().chain(&running).any(|(_, lower)| lower.container == it.container);
        // Where nothing of it runs the plan has just given the port to it.
        of_it.clone().next().is_some() && of_it.all(is_lower)
    };
    if !in_the_way.iter().all(goes) {
        return None;
    }
    let mut coming = place.coming.clone();
    for (_, claim) in &stopping {
        coming = coming.plus(&claim.resources);
    }
    // The least first, and of those the youngest.
    running.sort_unstable_by_key(|(priority, claim)| (*priority, Reverse(claim.number), claim.container));
    let enough = |coming: &Capacity| place.free.plus(&coming.less(&place.deficit)).holds(&spec.asked);
    let mut victims: Vec<(Priority, Claim)> = Vec::new();
    let (must_go, may_go): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|(_, claim)| in_the_way.contains(&claim.slot));
    let least = must_go.len();
    for (priority, claim) in must_go.into_iter().chain(may_go) {
        if victims.len() >= least && enough(&coming) {
            break;
        }
        coming = coming.plus(&claim.resources);
        victims.push((priority, claim));
    }
    if !enough(&coming) {
        return None;
    }
    // Whoever is spared by a later one that gives more: the most important first.
    for at in (least..victims.len()).rev() {
        let without = coming.less(&victims[at].1.resources);
        if enough(&without) {
            coming = without;
            victims.remove(at);
        }
    }
    let used = stopping.iter().chain(&victims).map(|(_, claim)| claim.container).collect();
    Some(Plot { index, victims, coming, used })
}
