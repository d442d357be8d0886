//! What must hold once the world is calm, and what must have held all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use document::event::Schedule;
use membership::Liveness;
use model::{ContainerId, Deployment, Mode, NodeId, ReplicaId};
use planner::Placement;

use super::draw::{Ending, Outside, Shape};
use super::take::start;
use super::unrun::{has_ended, has_no_turn, no_room, waits_for_others, was_given_up};
use crate::check::rules;
use crate::trouble::Clock;
use crate::weather::Odds;
use crate::world::Cluster;

/// From calm to equal documents everywhere: links are redialled, heads exchanged. A peer whose disk was
/// full asks again for what it lost, and the same question is asked every five seconds only.
const LEVEL_WITHIN: Duration = Duration::from_secs(6);

/// From calm to equal plans everywhere. Longer: a disk that was full may hold an answer back for the
/// time that the same question is not asked again.
const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// From calm to every wanted replica once, in the wanted revision: a rolling update of all replicas
/// of all deployments one after the other, behind a back-off of a program that kept failing.
const AT_REST_WITHIN: Duration = Duration::from_secs(200);

/// What a core needs more than a whole cluster: silent links are given up and their nodes found dead.
const WITHOUT_THE_REST: Duration = Duration::from_secs(16);

/// A removal is known to everybody after this.
const REMOVALS: Duration = Duration::from_secs(1);

/// For so long a node counts after it was found dead.
const SINCE_DOWN: Duration = Duration::from_millis(1_200);

/// A cut that stays for good.
const FOR_GOOD: Duration = Duration::from_secs(1_000_000);

/// For so long nothing may start or stop at the end of a story.
pub(super) const QUIET: Duration = Duration::from_secs(30);

/// Messages that one node may send in that time: some exchanges with each other node, far from a
/// question that is asked again and again.
const FRAMES_PER_NODE_MAX: u64 = 400;

/// How long it took from calm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Took {
    /// Until all documents were equal.
    pub level: Duration,
    /// Until all plans were.
    pub agreed: Duration,
    /// Until every wanted replica ran once, in the wanted revision.
    pub at_rest: Duration,
    /// How often each check had something to look at.
    pub looked: BTreeMap<&'static str, u64>,
}

/// Heals, starts and frees what the ending says, and holds what follows against the rules; nothing may
/// happen for `quiet` once all is at rest.
pub(crate) fn ends(cluster: &mut Cluster, ending: &Ending, quiet: Duration) -> Result<Took, String> {
    let machines: Vec<usize> = match ending {
        Ending::Calm => (0..cluster.len()).collect(),
        Ending::Core(core, ..) => core.clone(),
    };
    heal(cluster, ending);
    for host in &machines {
        mend(cluster, *host);
    }
    cluster.guard_copies();
    for host in &machines {
        // A machine whose admission nobody ever took has nothing to start with.
        if !cluster.hosts[*host].disk.is_empty() && !cluster.is_clone(*host) {
            start(cluster, *host);
        }
    }
    let slack = cluster.settings.slack();
    is_heard_with_an_old_disk(cluster, slack)?;
    // Rogues, and whoever lives a second time on an old disk, are removed by people.
    let rogues = (0..cluster.len()).filter(|host| cluster.hosts[*host].rogue.is_some());
    let bad: BTreeSet<usize> = rogues.chain(cluster.check.repeating()).collect();
    for host in &bad {
        // One that was removed a moment ago may not know it: what it takes is void.
        let is_sound =
            |it: &usize| cluster.answers(*it) && !bad.contains(it) && !cluster.asked_to_go.contains(it);
        // Where nobody sound is left, a rogue is removed by whoever is no rogue: with it no end is asked for.
        let is_rogue = |it: usize| cluster.hosts[it].rogue.is_some();
        let is_left = |it: &usize| {
            is_rogue(*host) && !is_rogue(*it) && cluster.answers(*it) && !cluster.asked_to_go.contains(it)
        };
        let via = (0..cluster.len()).find(is_sound).or_else(|| (0..cluster.len()).find(is_left));
        if let Some(via) = via {
            cluster.remove_node(via, *host);
        }
    }
    let begin = cluster.now();
    let disks: BTreeMap<usize, BTreeSet<model::EventId>> =
        machines.iter().map(|host| (*host, cluster.hosts[*host].on_disk.clone())).collect();
    let names: Vec<String> = machines.iter().map(|host| format!("n{}", host + 1)).collect();
    cluster.tell(format!("calm for {}", names.join(", ")));

    let mut more = slack + if *ending == Ending::Calm { Duration::ZERO } else { WITHOUT_THE_REST };
    let is_line = matches!(ending, Ending::Core(_, _, Shape::Line));
    if is_line {
        // What one machine says is heard by the next, written there, and only then passed on.
        more += slack * u32::try_from(machines.len()).unwrap_or(u32::MAX);
    }
    let sure: Vec<usize> = machines
        .iter()
        .copied()
        .filter(|host| cluster.node(*host).is_some() && !cluster.asked_to_go.contains(host))
        // Whoever was let in by one that was being removed may be known to nobody else.
        .filter(|host| *host < cluster.founders)
        .collect();
    let Some(first) = sure.first().copied() else {
        // All of the core were to be removed: there is nobody left of whom anything is asked.
        return kept_promises(cluster, &[], &BTreeSet::new()).map(|()| nothing());
    };
    cluster
        .run_until(LEVEL_WITHIN + more, |cluster| same_documents(cluster, &sure))
        .ok_or_else(|| format!("stuck: documents differ {:?} after calm", LEVEL_WITHIN + more))?;
    // A removal that was just signed has yet to get around.
    cluster.run_for(REMOVALS + slack);
    // One whose disk refused its removal may find it there after a start. It calls nobody: the others hear of it when
    // one of them calls.
    let is_told = |cluster: &Cluster, host: usize| {
        cluster.node(host).is_none_or(|node| !node.is_removed()) || is_removed(cluster, first, host)
    };
    cluster
        .run_until(LEVEL_WITHIN + more, |cluster| machines.iter().all(|host| is_told(cluster, *host)))
        .ok_or_else(|| {
            let alone = machines.iter().find(|host| !is_told(cluster, **host)).map_or(0, |host| host + 1);
            format!("stuck: n{alone} knows that it was removed, and n{} does not", first + 1)
        })?;
    if !bad.is_empty() {
        // Until now the words of those from an earlier day were believed.
        cluster.guard_copies();
    }
    // By now it is known who is still a member.
    let members: Vec<usize> =
        cluster.members(first).into_iter().filter(|host| machines.contains(host)).collect();
    // One that was let in and never heard so has to ask again.
    let members: Vec<usize> =
        members.into_iter().filter(|host| !cluster.hosts[*host].disk.is_empty()).collect();
    let held: BTreeSet<model::EventId> =
        members.iter().flat_map(|host| disks[host].iter().copied()).collect();
    let (out, strangers): (Vec<usize>, Vec<usize>) = machines
        .iter()
        .copied()
        .filter(|host| !members.contains(host) && cluster.node(*host).is_some())
        .partition(|host| is_removed(cluster, first, *host));
    // What was let in by one that was being removed is a member for nobody else: people find it.
    for host in strangers {
        cluster.power_off(host);
    }
    cluster
        .run_until(LEVEL_WITHIN + more, |cluster| same_documents(cluster, &members))
        .ok_or_else(|| format!("stuck: documents of members differ {:?} after calm", LEVEL_WITHIN + more))?;
    let level = cluster.now().since(begin);
    cluster
        .run_until(AGREED_WITHIN + more, |cluster| {
            cluster.agreed(&members) && in_reach(cluster, &members, is_line)
        })
        .ok_or_else(|| {
            format!(
                "stuck: plans differ {:?} after documents were level: {}",
                AGREED_WITHIN + more,
                plans(cluster)
            )
        })?;
    if let Ending::Core(core, ..) = ending {
        let given_up = |cluster: &Cluster| {
            let strangers = || (0..cluster.len()).filter(|host| !core.contains(host));
            let down = |host: usize, of: usize| {
                let id = cluster.id(of);
                cluster.node(host).is_none_or(|node| {
                    node.liveness(&id) == Liveness::Down
                        && node.liveness_changed_at(&id).is_none_or(|at| cluster.now().since(at) > SINCE_DOWN)
                })
            };
            members.iter().all(|host| strangers().all(|of| down(*host, of)))
        };
        cluster.run_until(WITHOUT_THE_REST + more, given_up).ok_or_else(|| {
            format!("L3: whoever is gone for good is not found dead in {:?}", WITHOUT_THE_REST + more)
        })?;
    }
    let agreed = cluster.now().since(begin);
    for host in out.iter().copied() {
        let knows = |cluster: &Cluster| cluster.node(host).is_some_and(node::Node::is_removed);
        let within = AGREED_WITHIN + more;
        cluster.run_until(within, knows).ok_or_else(|| {
            format!("S18: n{} was removed and does not know it {within:?} after plans were equal", host + 1)
        })?;
    }
    no_session_with(cluster, &members, &out, AGREED_WITHIN + more)?;
    let step = Duration::from_millis(100);
    while let Err(why) = at_rest(cluster, &members, &out) {
        let within = AT_REST_WITHIN + cluster.settings.jobs_take() + more * 4;
        if cluster.now().since(begin) > within {
            return Err(format!("stuck: not at rest {within:?} after calm: {why}"));
        }
        cluster.run_for(step);
    }
    let at_rest_after = cluster.now().since(begin);
    cluster.tell("at rest");

    let (before, frames, events) = (processes(cluster, &members), cluster.frames, cluster.events_sent);
    cluster.run_for(quiet);
    if processes(cluster, &members) != before {
        return Err("L8: something was started or stopped at rest".to_owned());
    }
    let sent = cluster.frames - frames;
    if sent > FRAMES_PER_NODE_MAX * cluster.len() as u64 && !cluster.check.lied_to {
        return Err(format!("L8: {sent} messages were sent in {quiet:?} at rest"));
    }
    let again = cluster.events_sent - events;
    if again > 0 && *ending == Ending::Calm && out.is_empty() && !cluster.check.lied_to {
        return Err(format!("L10: {again} events were sent in {quiet:?} to peers that have all of them"));
    }
    at_rest(cluster, &members, &out).map_err(|why| format!("at rest, and {quiet:?} later no more: {why}"))?;
    if !cluster.agreed(&members) {
        return Err(format!("agreed, and later no more: {}", plans(cluster)));
    }
    kept_promises(cluster, &members, &held)?;
    Ok(Took { level, agreed, at_rest: at_rest_after, looked: BTreeMap::new() })
}

/// The end of a small scope, in which nobody is removed and nothing stays broken: the same questions, and
/// no time is given beyond what it takes.
pub(crate) fn comes_to_rest(cluster: &mut Cluster, quiet: Duration) -> Result<(), String> {
    const STEP: Duration = Duration::from_millis(5);
    let all: Vec<usize> = (0..cluster.len()).collect();
    heal(cluster, &Ending::Calm);
    for host in &all {
        mend(cluster, *host);
    }
    cluster.guard_copies();
    for host in &all {
        start(cluster, *host);
    }
    let held = all.iter().flat_map(|host| cluster.hosts[*host].on_disk.iter().copied()).collect();
    let within = AGREED_WITHIN + cluster.settings.slack();
    cluster
        .run_until(within, |cluster| cluster.agreed(&all) && cluster.all_up(&all))
        .ok_or_else(|| format!("stuck: plans differ {within:?} after calm: {}", plans(cluster)))?;
    let begin = cluster.now();
    while let Err(why) = at_rest(cluster, &all, &[]) {
        if cluster.now().since(begin) > within {
            return Err(format!("stuck: not at rest {within:?} after plans were equal: {why}"));
        }
        cluster.run_for(STEP);
    }
    let before = processes(cluster, &all);
    cluster.run_for(quiet);
    if processes(cluster, &all) != before {
        return Err("L8: something was started or stopped at rest".to_owned());
    }
    at_rest(cluster, &all, &[]).map_err(|why| format!("at rest, and {quiet:?} later no more: {why}"))?;
    kept_promises(cluster, &all, &held)
}

const fn nothing() -> Took {
    let zero = Duration::ZERO;
    Took { level: zero, agreed: zero, at_rest: zero, looked: BTreeMap::new() }
}

fn processes(cluster: &Cluster, hosts: &[usize]) -> Vec<(usize, ContainerId, u32)> {
    cluster.processes().into_iter().filter(|(host, ..)| hosts.contains(host)).collect()
}

/// Equal documents; a single peer's are equal to its own.
fn same_documents(cluster: &Cluster, hosts: &[usize]) -> bool {
    cluster.same_heads(hosts)
}

/// The network of the ending, for good.
fn heal(cluster: &mut Cluster, ending: &Ending) {
    cluster.end_flaps();
    cluster.set_loss(0);
    cluster.losses.clear();
    cluster.clogs.clear();
    cluster.set_odds(Odds::default());
    cluster.set_start_failures(0);
    // Second machines of one key are found and switched off by people.
    for (_, clone) in cluster.clones.clone() {
        if cluster.state(clone) != crate::HostState::PowerOff {
            cluster.power_off(clone);
        }
    }
    let Ending::Core(core, outside, shape) = ending else { return cluster.heal() };
    let late: Vec<usize> = (0..cluster.len()).filter(|host| !core.contains(host)).collect();
    let how =
        |host: usize| outside.iter().find(|(it, _)| *it == host).map_or(Outside::CutOff, |(_, how)| *how);
    let mut cuts: BTreeSet<(usize, usize)> = cluster.cuts.clone();
    cuts.retain(|(a, b)| !core.contains(a) && !core.contains(b));
    for host in late {
        match how(host) {
            Outside::Off if cluster.state(host) != crate::HostState::PowerOff => cluster.power_off(host),
            Outside::PeerDown if cluster.state(host) == crate::HostState::Up => cluster.stop_peer(host),
            _ => {}
        }
        for it in core {
            let (says, hears) = ((host, *it), (*it, host));
            match how(host) {
                Outside::Off | Outside::PeerDown | Outside::CutOff => cuts.extend([says, hears]),
                Outside::Deaf | Outside::Flaps => _ = cuts.insert(hears),
                Outside::Mute => _ = cuts.insert(says),
            }
        }
        cluster.tell(format!("n{} is {:?} for good", host + 1, how(host)));
        if how(host) == Outside::Flaps {
            let pairs = core.iter().map(|it| (host, *it)).collect();
            cluster.flap(pairs, Duration::from_millis(700), FOR_GOOD);
        }
    }
    if *shape == Shape::Line {
        // One that is to be removed is no link between two others.
        let line: Vec<usize> =
            core.iter().copied().filter(|host| !cluster.asked_to_go.contains(host)).collect();
        let names: Vec<String> = line.iter().map(|host| format!("n{}", host + 1)).collect();
        cluster.tell(format!("{} reach their neighbours only", names.join(" - ")));
        cuts.extend(rules::beyond_neighbours(&line));
    }
    cluster.set_cuts(cuts);
}

/// A machine whose disk is of an earlier day is known by a life that it has forgotten. It says so, and is
/// believed up by all others all the same, whatever becomes of it then.
fn is_heard_with_an_old_disk(cluster: &mut Cluster, slack: Duration) -> Result<(), String> {
    let old = cluster.check.repeating();
    if old.is_empty() || !cluster.clones.is_empty() || cluster.check.lied_to {
        return Ok(());
    }
    let sure: Vec<usize> = (0..cluster.founders)
        .filter(|host| cluster.node(*host).is_some() && !cluster.asked_to_go.contains(host))
        .collect();
    let within = AGREED_WITHIN + slack;
    cluster.check.looks("L3 old disks");
    match cluster.run_until(within, |cluster| cluster.all_up(&sure)) {
        Some(_) => Ok(()),
        None => Err(format!("L3: with an old disk in n{} not all are up {within:?} after calm", old[0] + 1)),
    }
}

/// S18: nobody has a session with one that was removed.
fn no_session_with(
    cluster: &mut Cluster,
    members: &[usize],
    out: &[usize],
    within: Duration,
) -> Result<(), String> {
    let open = |cluster: &Cluster| {
        let pairs = members.iter().flat_map(|member| out.iter().map(move |gone| (*member, *gone)));
        let mut open = pairs.filter(|(member, gone)| {
            let gone = &cluster.hosts[*gone].id;
            cluster.hosts[*member].links.contains_key(gone)
        });
        open.next()
    };
    if !out.is_empty() {
        cluster.check.looks("S18");
    }
    cluster.run_until(within, |cluster| open(cluster).is_none());
    match open(cluster) {
        None => Ok(()),
        Some((member, gone)) => Err(format!(
            "S18: n{} was removed and has a session with n{} {within:?} after plans were equal",
            gone + 1,
            member + 1
        )),
    }
}

/// Whether all of these count on all others: believe them up, or in a line, where most are known by the
/// word of others alone, take what they run to be running.
fn in_reach(cluster: &Cluster, members: &[usize], is_line: bool) -> bool {
    if !is_line {
        return cluster.all_up(members);
    }
    members.iter().all(|by| {
        let alive = cluster.node(*by).and_then(node::Node::knowledge).map(|known| known.alive);
        alive.is_some_and(|alive| members.iter().all(|of| alive.contains(&cluster.id(*of))))
    })
}

/// A machine without any fault of its own; its clock is as wrong as it was, and goes.
fn mend(cluster: &mut Cluster, host: usize) {
    cluster.resume(host);
    let failed = cluster.hosts[host].disk_failed;
    cluster.disk_full(host, false);
    let it = &mut cluster.hosts[host];
    it.no_pids = false;
    it.fate = None;
    it.clock = Clock { stopped_ms: None, ..it.clock };
    if failed && cluster.answers(host) {
        cluster.tell(format!("n{}'s journal failed: its peer is started again", host + 1));
        cluster.stop_peer(host);
    }
}

/// Whether a node was removed, by the documents of one that was not.
fn is_removed(cluster: &Cluster, by: usize, host: usize) -> bool {
    let id = cluster.id(host);
    cluster.node(by).is_some_and(|node| node.documents().roster().removed.contains_key(&id))
}

fn plans(cluster: &Cluster) -> String {
    let of = |host: usize| {
        let node = cluster.node(host)?;
        Some(format!("\n  n{}: {:?}", host + 1, node.plan().placements))
    };
    (0..cluster.len()).filter_map(of).collect()
}

/// What must have held all the time. An event that was acknowledged and is on no disk of `members` is
/// lost to them for good; whether somebody else has it or nobody is another question, and not theirs.
fn kept_promises(
    cluster: &Cluster,
    members: &[usize],
    held: &BTreeSet<model::EventId>,
) -> Result<(), String> {
    if let Some(violation) = cluster.violations().first() {
        return Err(violation.clone());
    }
    for acked in cluster.acked() {
        if !held.contains(&acked.event) {
            if cluster.hosts.iter().any(|it| it.on_disk.contains(&acked.event)) {
                continue; // On a disk outside: not lost, and out of reach.
            }
            if !cluster.check.has_repeats() {
                let (event, host) = (acked.event.short(), acked.host + 1);
                return Err(format!("S1: lost for good: event {event}, which n{host} acknowledged"));
            }
            continue; // Its disk was put back to an earlier day: it went with it.
        }
        for host in members.iter().copied() {
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
    if let Some(what) = members.iter().find_map(|host| cluster.merges_wrongly(*host)) {
        return Err(what);
    }
    let Some(first) = members.first() else { return Ok(()) };
    let wanted = wanted(cluster, *first);
    let asked = asked(cluster, *first);
    if let Some(replica) = wanted.symmetric_difference(&asked).next() {
        let how = if asked.contains(replica) { "wanted, and in no plan" } else { "planned, and not wanted" };
        return Err(format!("L2: {replica:?} is {how}"));
    }
    if cluster.check.lied_to {
        return Ok(());
    }
    for (replica, at) in cluster.lost_copies() {
        if wanted.contains(replica) {
            return Err(format!("{replica:?} was well when the world healed and had no copy at {at:?}"));
        }
    }
    Ok(())
}

/// The same by the documents alone.
fn asked(cluster: &Cluster, by: usize) -> BTreeSet<ReplicaId> {
    let deployments = cluster.node(by).into_iter().flat_map(|node| node.documents().deployments());
    let valid = deployments.filter_map(|view| view.deployment.as_ref().ok());
    let replicas = valid.flat_map(|it| {
        ordinals(cluster, by, it).into_iter().map(|ordinal| ReplicaId {
            namespace: it.namespace.clone(),
            deployment: it.name.clone(),
            incarnation: it.incarnation,
            ordinal,
        })
    });
    replicas.collect()
}

/// Which copies of a deployment there should be.
fn ordinals(cluster: &Cluster, by: usize, of: &Deployment) -> Vec<u32> {
    let (Mode::Global, Some(node)) = (of.replicas.mode, cluster.node(by)) else {
        return (0..of.replicas.count).collect();
    };
    let members = &node.documents().roster().nodes;
    let all = planner::ordinals(members.keys().copied());
    let own = node.own_record();
    let runs_one = |id: &NodeId| {
        let record = if *id == own.node { Some(&own) } else { node.records().get(id) };
        of.replicas.count > 0
            && node.liveness(id) != Liveness::Down
            && members[id].schedule != Schedule::Drained
            && record.is_some_and(|it| of.placement.is_met_by(&it.labels, &it.name))
    };
    all.into_iter().filter(|(id, _)| runs_one(id)).map(|(_, ordinal)| ordinal).collect()
}

/// Every wanted replica, by the plan of one node.
fn wanted(cluster: &Cluster, by: usize) -> BTreeSet<ReplicaId> {
    let Some(node) = cluster.node(by) else { return BTreeSet::new() };
    node.plan().placements.replicas().collect()
}

/// Every wanted replica runs once in the wanted revision where the kernels say, or has ended for good by
/// its policy, or has no room anywhere; nothing else is left of anything.
fn at_rest(cluster: &Cluster, members: &[usize], out: &[usize]) -> Result<(), String> {
    let first = *members.first().ok_or("there is no member")?;
    let node = cluster.node(first).ok_or("the first member does not run")?;
    if let Some(host) = out.iter().find(|host| cluster.containers(**host).next().is_some()) {
        return Err(format!("n{} was removed and has containers", host + 1));
    }
    let mut copies: Vec<(ReplicaId, usize, bool)> = Vec::new();
    // By claim number, node and id, as copies of one revision are ranked.
    let mut ranks: BTreeMap<ReplicaId, (u64, NodeId, ContainerId)> = BTreeMap::new();
    let mut ended: BTreeMap<ReplicaId, Option<(u64, NodeId, ContainerId)>> = BTreeMap::new();
    let mut kept: BTreeSet<ReplicaId> = BTreeSet::new();
    for host in members.iter().copied() {
        // What is on its way out still holds room, for which a replica may be waiting.
        let leaving = |it: &node::Mine| {
            use node::Phase::{Removing, Starting, Stopping};
            matches!(it.phase, Starting | Stopping | Removing)
        };
        if cluster.node(host).is_some_and(|node| node.mine().values().any(leaving)) {
            return Err(format!("n{} is starting or stopping a container", host + 1));
        }
        let tells = cluster.node(host).is_some_and(|node| node.own_record().pressure.is_some());
        if tells && !cluster.may_be_short(host) {
            return Err(format!("n{} takes nothing new, and is short of nothing", host + 1));
        }
        for (id, container) in cluster.containers(host) {
            let claim = &container.claim;
            let rank = (claim.number, cluster.id(host), *id);
            let voters = &claim.run.voters;
            if container.pid.is_some() && voters.len() > 1 && !has_a_majority(cluster, members, host, voters)
            {
                return Err(format!("n{} runs {:?} under a lease that runs out", host + 1, claim.replica));
            }
            // A voter may be bound for a term by somebody who is gone.
            let left = cluster.node(host).and_then(|node| node.lease_left(*id));
            if container.pid.is_some()
                && left.is_some_and(|left| left < cluster.settings.timings.lease * 7 / 10)
            {
                return Err(format!(
                    "n{} runs {:?} under a lease that is not renewed",
                    host + 1,
                    claim.replica
                ));
            }
            let key = (claim.replica.namespace.clone(), claim.replica.deployment.clone());
            let is_done = |it: &node::Mine| matches!(it.phase, node::Phase::Done { .. });
            let by_its_peer = cluster.node(host).and_then(|node| node.mine().get(id));
            let given_up = container.may_be_given_up() && by_its_peer.is_some_and(is_done);
            let merged = node.documents().get(&key.0, &key.1);
            if merged.is_some_and(|it| it.deployment.is_err() && it.incarnation == claim.replica.incarnation)
            {
                // What runs of a deployment that says nothing sensible any more is kept, once.
                if container.has_ended_for_good() || given_up {
                    continue;
                }
                if container.pid.is_none() {
                    return Err(format!("n{} is to start {:?} again", host + 1, claim.replica));
                }
                if container.ends_at.is_some() {
                    return Err(format!("n{} runs {:?}, which has an end", host + 1, claim.replica));
                }
                if !kept.insert(claim.replica.clone()) {
                    return Err(format!("{:?} runs twice", claim.replica));
                }
                continue;
            }
            let desired = node.desired().get(&key);
            if desired.is_none_or(|it| it.deployment.incarnation != claim.replica.incarnation) {
                return Err(format!("n{} has something of {:?}, which is deleted", host + 1, claim.replica));
            }
            let new = desired.is_some_and(|it| it.revision == claim.revision);
            let job = desired.and_then(|it| it.deployment.job);
            let will_be_stopped = container.pid.is_some() && job.is_some_and(|job| job.deadline_s.is_some());
            if container.ends_at.is_some() || will_be_stopped {
                return Err(format!("n{} runs {:?}, which has an end", host + 1, claim.replica));
            }
            if container.has_ended_for_good() || given_up {
                if !new {
                    return Err(format!("n{} has what is left of an old {:?}", host + 1, claim.replica));
                }
                let well = (container.exit.code == Some(0)).then_some(rank);
                let known = ended.entry(claim.replica.clone()).or_default();
                *known = (*known).max(well);
                continue;
            }
            if container.pid.is_none() {
                return Err(format!(
                    "n{} has a container of {:?} that does not run",
                    host + 1,
                    claim.replica
                ));
            }
            if new {
                ranks.insert(claim.replica.clone(), rank);
            }
            copies.push((claim.replica.clone(), host, new));
        }
    }
    // A copy that runs beside a greater one that ended well has nothing more to do. It goes once its node has the
    // word of the other, which takes some seconds where that one is reached through others, or was out of reach.
    let has_more_to_do = |(replica, rank): &(&ReplicaId, &_)| {
        ended.get(*replica).copied().flatten().is_none_or(|greatest| greatest < **rank)
    };
    if let Some((replica, _)) = ranks.iter().find(|it| !has_more_to_do(it)) {
        return Err(format!("{replica:?} runs on beside one that ended well"));
    }
    for (replica, placement) in node.plan().placements.iter() {
        let mine: Vec<(usize, bool)> =
            copies.iter().filter(|(of, ..)| *of == replica).map(|(_, host, new)| (*host, *new)).collect();
        let held_back = node.plan().held_back.contains_key(&replica);
        // No higher ordinal is touched while a lower one is not well.
        let lower = |it: &ReplicaId| it.deployment == replica.deployment && it.ordinal < replica.ordinal;
        let unplaced = |it: &Placement| matches!(it, Placement::Unplaced { .. } | Placement::Waits);
        let waits = matches!(placement, Placement::KeepOld { .. })
            && (node.plan().held_back.keys().any(lower)
                || node.plan().placements.iter().any(|(it, placement)| lower(&it) && unplaced(placement)));
        match (placement, mine.as_slice()) {
            (Placement::Unplaced { .. }, []) => no_room(cluster, members, &replica)?,
            (_, [(_, true)]) => {}
            (_, []) if ended.contains_key(&replica) => {}
            (Placement::Ended, []) => has_ended(cluster, members, &replica)?,
            (Placement::GivenUp, []) => was_given_up(cluster, members, &replica)?,
            (Placement::Queued, []) => has_no_turn(cluster, members, &replica)?,
            (Placement::Waits, []) => waits_for_others(cluster, members, &replica, false)?,
            (_, [(_, false)]) if held_back => no_room(cluster, members, &replica)?,
            (_, [(_, false)]) if waits => {}
            (Placement::KeepOld { .. }, [(_, false)]) => waits_for_others(cluster, members, &replica, true)?,
            _ => return Err(format!("{replica:?}: planned {placement:?}, runs (host, wanted) {mine:?}")),
        }
        copies.retain(|(of, ..)| *of != replica);
    }
    match copies.first() {
        Some((replica, host, _)) => Err(format!("n{} runs {replica:?}, which nobody wants", host + 1)),
        None => Ok(()),
    }
}

/// Whether a machine can be granted a lease by these: it asks over links, and nobody passes that on.
pub(super) fn has_a_majority(cluster: &Cluster, members: &[usize], host: usize, voters: &[NodeId]) -> bool {
    // A link that nothing passes on is found dead later.
    let cut = |voter: usize| cluster.is_cut(host, voter) || cluster.is_cut(voter, host);
    let asks = |voter: &usize| voters.contains(&cluster.id(*voter)) && (*voter == host || !cut(*voter));
    let reached = members.iter().filter(|it| asks(it)).count();
    reached >= model::majority(voters.len())
}
