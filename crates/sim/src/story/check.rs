//! What must hold once the world is calm, and what must have held all the time.

use std::collections::BTreeSet;
use std::time::Duration;

use model::ReplicaId;
use planner::Placement;

use super::run::start;
use crate::world::Cluster;

/// From calm to equal documents everywhere: links are redialled, heads exchanged.
const LEVEL_WITHIN: Duration = Duration::from_secs(4);

/// From calm to equal plans everywhere. Longer: a disk that was full may hold an answer back for the
/// time that the same question is not asked again.
const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// From calm to every wanted replica once, in the wanted revision: a rolling update of all replicas
/// of all deployments one after the other, behind a back-off of a program that kept failing.
const AT_REST_WITHIN: Duration = Duration::from_secs(200);

/// For so long nothing may start or stop then.
const QUIET: Duration = Duration::from_secs(30);

/// Messages that one node may send in that time: some exchanges with each other node, far from a
/// question that is asked again and again.
const FRAMES_PER_NODE_MAX: u64 = 400;

/// How long it took from calm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Until all documents were equal.
    pub level: Duration,
    /// Until all plans were.
    pub agreed: Duration,
    /// Until every wanted replica ran once, in the wanted revision.
    pub at_rest: Duration,
}

/// Heals, starts and frees everything, and holds what follows against the rules.
pub(super) fn calm_down(cluster: &mut Cluster) -> Result<Took, String> {
    let hosts: Vec<usize> = (0..cluster.len()).collect();
    cluster.set_loss(0);
    cluster.set_start_failures(0);
    for host in &hosts {
        cluster.disk_full(*host, false);
    }
    cluster.heal();
    cluster.guard_copies();
    for host in &hosts {
        start(cluster, *host);
    }
    // What anybody knows now, everybody hears of.
    let (out, all): (Vec<usize>, Vec<usize>) = hosts.iter().partition(|host| is_removed(cluster, **host));
    let begin = cluster.now();
    cluster.tell("calm");

    let level = cluster
        .run_until(LEVEL_WITHIN, |cluster| cluster.same_heads(&all))
        .ok_or_else(|| format!("documents differ {LEVEL_WITHIN:?} after calm"))?;
    let agreed =
        cluster.run_until(AGREED_WITHIN, |cluster| cluster.agreed(&all) && cluster.all_up(&all)).ok_or_else(
            || format!("plans differ {AGREED_WITHIN:?} after documents were level: {}", plans(cluster)),
        )?;
    let agreed = level + agreed;
    for host in out {
        let knows = |cluster: &Cluster| cluster.node(host).is_some_and(node::Node::is_removed);
        cluster.run_until(AGREED_WITHIN, knows).ok_or_else(|| {
            format!("n{} was removed and does not know it {AGREED_WITHIN:?} after plans were equal", host + 1)
        })?;
    }
    let step = Duration::from_millis(100);
    while let Err(why) = at_rest(cluster) {
        if cluster.now().since(begin) > AT_REST_WITHIN {
            return Err(format!("not at rest {AT_REST_WITHIN:?} after calm: {why}"));
        }
        cluster.run_for(step);
    }
    let at_rest_after = cluster.now().since(begin);
    cluster.tell("at rest");

    let (before, frames) = (cluster.processes(), cluster.frames);
    cluster.run_for(QUIET);
    if cluster.processes() != before {
        return Err("something was started or stopped at rest".to_owned());
    }
    let sent = cluster.frames - frames;
    if sent > FRAMES_PER_NODE_MAX * all.len() as u64 {
        return Err(format!("{sent} messages were sent in {QUIET:?} at rest"));
    }
    at_rest(cluster).map_err(|why| format!("at rest, and {QUIET:?} later no more: {why}"))?;
    if !cluster.agreed(&all) {
        return Err(format!("agreed, and later no more: {}", plans(cluster)));
    }
    kept_promises(cluster)?;
    Ok(Took { level, agreed, at_rest: at_rest_after })
}

/// Whether anybody knows that this node was removed.
fn is_removed(cluster: &Cluster, host: usize) -> bool {
    let id = cluster.id(host);
    let mut nodes = (0..cluster.len()).filter_map(|other| cluster.node(other));
    nodes.any(|node| node.documents().roster().removed.contains_key(&id))
}

/// Machines whose nodes are members.
fn members(cluster: &Cluster) -> impl Iterator<Item = usize> + '_ {
    (0..cluster.len()).filter(|host| !is_removed(cluster, *host))
}

fn plans(cluster: &Cluster) -> String {
    let of = |host: usize| {
        let node = cluster.node(host)?;
        Some(format!("\n  n{}: {:?}", host + 1, node.plan().placements))
    };
    (0..cluster.len()).filter_map(of).collect()
}

/// What must have held all the time.
fn kept_promises(cluster: &Cluster) -> Result<(), String> {
    if let Some(violation) = cluster.violations().first() {
        return Err(violation.clone());
    }
    for acked in cluster.acked() {
        // What a removed node alone has on disk is heard by nobody any more.
        if acked.durable_on == 1 && is_removed(cluster, acked.host) {
            continue;
        }
        for host in members(cluster) {
            let here = cluster.node(host).is_some_and(|node| node.documents().contains(acked.event));
            if !here {
                return Err(format!(
                    "n{} acknowledged event {} on {} disks, and n{} has it not",
                    acked.host + 1,
                    acked.event.short(),
                    acked.durable_on,
                    host + 1
                ));
            }
        }
    }
    let wanted = wanted(cluster);
    for (replica, at) in cluster.lost_copies() {
        if wanted.contains(replica) {
            return Err(format!("{replica:?} was well when the world healed and had no copy at {at:?}"));
        }
    }
    Ok(())
}

/// Every wanted replica, by the documents of the first node.
fn wanted(cluster: &Cluster) -> BTreeSet<ReplicaId> {
    let Some(node) = cluster.node(0) else { return BTreeSet::new() };
    node.plan().placements.keys().cloned().collect()
}

/// Every wanted replica runs once in the wanted revision where the kernels say, or has no room
/// anywhere; nothing else is left of anything.
fn at_rest(cluster: &Cluster) -> Result<(), String> {
    let node = cluster.node(0).ok_or("n1 does not run")?;
    let mut copies: Vec<(ReplicaId, usize, bool)> = Vec::new();
    for host in 0..cluster.len() {
        // What is on its way out still holds room, for which a replica may be waiting.
        let leaving = |it: &node::Mine| matches!(it.phase, node::Phase::Stopping | node::Phase::Removing);
        if cluster.node(host).is_some_and(|node| node.mine().values().any(leaving)) {
            return Err(format!("n{} is stopping a container", host + 1));
        }
        if is_removed(cluster, host) && cluster.containers(host).next().is_some() {
            return Err(format!("n{} was removed and has containers", host + 1));
        }
        for (_, container) in cluster.containers(host) {
            let claim = &container.claim;
            let key = (claim.replica.namespace.clone(), claim.replica.deployment.clone());
            let desired = node.desired().get(&key);
            if desired.is_none_or(|it| it.deployment.incarnation != claim.replica.incarnation) {
                return Err(format!("n{} has something of {:?}, which is deleted", host + 1, claim.replica));
            }
            if container.pid.is_none() {
                return Err(format!(
                    "n{} has a container of {:?} that does not run",
                    host + 1,
                    claim.replica
                ));
            }
            let new = desired.is_some_and(|it| it.revision == claim.revision);
            copies.push((claim.replica.clone(), host, new));
        }
    }
    for (replica, placement) in &node.plan().placements {
        let mine: Vec<(usize, bool)> =
            copies.iter().filter(|(of, ..)| of == replica).map(|(_, host, new)| (*host, *new)).collect();
        let held_back = node.plan().held_back.contains_key(replica);
        // No higher ordinal is touched while a lower one is not well.
        let lower = |it: &ReplicaId| it.deployment == replica.deployment && it.ordinal < replica.ordinal;
        let unplaced = |it: &Placement| matches!(it, Placement::Unplaced { .. });
        let waits = matches!(placement, Placement::KeepOld { .. })
            && (node.plan().held_back.keys().any(lower)
                || node.plan().placements.iter().any(|(it, placement)| lower(it) && unplaced(placement)));
        match (placement, mine.as_slice()) {
            (Placement::Unplaced { .. }, []) => no_room(cluster, replica)?,
            (_, [(_, true)]) => {}
            (_, [(_, false)]) if held_back => no_room(cluster, replica)?,
            (_, [(_, false)]) if waits => {}
            _ => return Err(format!("{replica:?}: planned {placement:?}, runs (host, wanted) {mine:?}")),
        }
        copies.retain(|(of, ..)| of != replica);
    }
    match copies.first() {
        Some((replica, host, _)) => Err(format!("n{} runs {replica:?}, which nobody wants", host + 1)),
        None => Ok(()),
    }
}

/// Holds "there is no room" against what the kernels use.
fn no_room(cluster: &Cluster, replica: &ReplicaId) -> Result<(), String> {
    let node = cluster.node(0).ok_or("n1 does not run")?;
    let key = (replica.namespace.clone(), replica.deployment.clone());
    let desired = node.desired().get(&key).ok_or("a plan for a deployment that is not there")?;
    let asked = desired.deployment.resources.as_capacity();
    match members(cluster).find(|host| cluster.capacity().less(&cluster.used(*host)).holds(&asked)) {
        Some(host) => Err(format!("{replica:?} is not run, and n{} has room for it", host + 1)),
        None => Ok(()),
    }
}
