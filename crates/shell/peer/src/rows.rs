//! From the node's state to the shapes that programs read.

use std::collections::{BTreeMap, BTreeSet};

use api::shapes::{
    Amounts, Authoring, ConflictRow, ConflictSide, DeploymentRow, Explain, ExplainNode, ExplainReplica,
    HistoryChange, HistoryRow, ImageRow, NodeRow, NodeSchedule, NodeState, PsRow, PsState, Removal, Status,
    TokenRow, Unplaced, UpdateFailed, UserRow,
};
use document::event::{Author, Kind, Role, Schedule};
use document::{Action, Scope};
use membership::Liveness;
use model::{Capacity, ContainerRecord, ContainerState, DocId, Mode, Name, NodeId, NodeRecord, ReplicaId};
use node::{Desired, Node};
use planner::Placement;

use crate::jobs;

fn amounts(of: &Capacity) -> Amounts {
    let Capacity { cpu_m, memory_b, pids, extras } = of;
    let extras = extras.iter().map(|(name, count)| (name.to_string(), count)).collect();
    Amounts { cpu_m: *cpu_m, memory_b: *memory_b, pids: *pids, extras }
}

/// Every record, this node's own as it is now.
fn records(node: &Node) -> Vec<NodeRecord> {
    let me = node.config().me;
    let others = node.records().iter().filter(|record| record.node != me).cloned();
    others.chain([node.own_record()]).collect()
}

fn free(record: &NodeRecord) -> Capacity {
    let taken = record.containers.iter().filter(|it| planner::holds_capacity(it.state));
    record.capacity.less(&taken.fold(Capacity::default(), |sum, it| sum.plus(&it.resources)))
}

fn removal(node: &Node, id: &NodeId) -> Option<Removal> {
    let node::Removal { event, by, time_ms } = node.removal_of(id)?;
    Some(Removal { by, time_ms, event: event.to_string() })
}

/// `node ls`.
pub(crate) fn nodes(node: &Node) -> Vec<NodeRow> {
    let roster = node.documents().roster();
    let me = node.config().me;
    let mut rows: Vec<NodeRow> = roster
        .nodes
        .iter()
        .map(|(id, member)| {
            let record = if *id == me { Some(node.own_record()) } else { node.records().get(id).cloned() };
            let seen_s =
                if *id == me { Some(0) } else { node.heard_at(id).map(|at| node.now().since(at).as_secs()) };
            let state = match node.liveness(id) {
                Liveness::Up => NodeState::Up,
                Liveness::Suspect => NodeState::Suspect,
                Liveness::Down => NodeState::Down,
            };
            let heads = record.iter().flat_map(|record| &record.heads);
            let terms = record.as_ref().map(|record| record.terms).unwrap_or_default();
            let pressure = record.as_ref().and_then(|record| record.pressure.clone());
            NodeRow {
                name: member.name.to_string(),
                id: id.to_string(),
                state,
                schedule: match member.schedule {
                    Schedule::Normal => NodeSchedule::Normal,
                    Schedule::Cordoned => NodeSchedule::Cordoned,
                    Schedule::Drained => NodeSchedule::Drained,
                },
                capacity: record.as_ref().map(|record| amounts(&record.capacity)).unwrap_or_default(),
                free: record.as_ref().map(|record| amounts(&free(record))).unwrap_or_default(),
                heads: heads
                    .map(|(doc, heads)| (doc.to_string(), heads.iter().map(ToString::to_string).collect()))
                    .collect(),
                seen_s,
                labels: record
                    .iter()
                    .flat_map(|record| &record.labels)
                    .map(|(key, value)| (key.to_string(), value.clone()))
                    .collect(),
                addresses: record.map_or_else(|| member.addresses.clone(), |record| record.addresses),
                cpu_percent: terms.cpu_percent,
                memory_percent: terms.memory_percent,
                reserved_cpu_m: terms.reserved_cpu_m,
                reserved_memory_b: terms.reserved_memory_b,
                pressure,
                removed: None,
            }
        })
        .collect();
    let names = admitted_names(node);
    rows.extend(roster.removed.keys().map(|id| NodeRow {
        name: names.get(id).map_or_else(|| id.short(), ToString::to_string),
        id: id.to_string(),
        state: NodeState::Removed,
        schedule: NodeSchedule::Normal,
        capacity: Amounts::default(),
        free: Amounts::default(),
        heads: BTreeMap::new(),
        seen_s: None,
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        cpu_percent: 100,
        memory_percent: 100,
        reserved_cpu_m: 0,
        reserved_memory_b: 0,
        pressure: None,
        removed: removal(node, id),
    }));
    rows.sort_by(|a, b| {
        (a.state == NodeState::Removed, &a.name, &a.id).cmp(&(b.state == NodeState::Removed, &b.name, &b.id))
    });
    rows
}

/// Names under which nodes were ever admitted: the roster forgets those of removed ones.
fn admitted_names(node: &Node) -> BTreeMap<NodeId, Name> {
    if node.documents().roster().removed.is_empty() {
        return BTreeMap::new();
    }
    let history = node.documents().history(&DocId::Cluster, None).into_iter();
    history
        .filter_map(|item| match item.kind {
            Kind::Genesis(genesis) => Some((genesis.node.key, genesis.node.name)),
            Kind::NodeAdmit(admit) => Some((admit.node.key, admit.node.name)),
            _ => None,
        })
        .collect()
}

fn ps_state(record: &ContainerRecord, liveness: Liveness, linked: bool) -> PsState {
    match (liveness, record.state) {
        (Liveness::Down, _) => PsState::Lost,
        (Liveness::Suspect, _) if !linked => PsState::Unknown,
        (_, ContainerState::Pending) => PsState::Pending,
        (_, ContainerState::Starting) => PsState::Starting,
        (_, ContainerState::Running) => PsState::Running,
        (_, ContainerState::Stopping) => PsState::Stopping,
        (_, ContainerState::Exited) => PsState::Exited,
        (_, ContainerState::Failed) => PsState::Failed,
    }
}

/// `ps`: a row for each container known, and for each replica that has none.
pub(crate) fn ps(node: &Node, wall_ms: i64) -> Vec<PsRow> {
    let me = node.config().me;
    let linked: BTreeSet<NodeId> = node.linked().collect();
    let mut rows = Vec::new();
    let mut held: BTreeSet<ReplicaId> = BTreeSet::new();
    for record in records(node) {
        let liveness = node.liveness(&record.node);
        for container in &record.containers {
            let replica = &container.replica;
            let state = ps_state(container, liveness, record.node == me || linked.contains(&record.node));
            if liveness != Liveness::Down {
                held.insert(replica.clone());
            }
            let runs = state == PsState::Running;
            let age = container.started_ms.filter(|_| runs).map(|at| wall_ms.saturating_sub(at) / 1_000);
            rows.push(PsRow {
                namespace: replica.namespace.to_string(),
                deployment: replica.deployment.to_string(),
                ordinal: replica.ordinal,
                revision: container.revision_number,
                node: Some(record.name.to_string()),
                state,
                healthy: if liveness == Liveness::Up { container.healthy } else { None },
                container: Some(container.id.to_string()),
                pid: container.pid,
                age_s: age.and_then(|age| u64::try_from(age).ok()),
                restarts: container.restarts,
                reason: match state {
                    PsState::Lost => Some(format!("{} is down", record.name)),
                    PsState::Unknown => {
                        Some(format!("{} does not answer; the last that was heard is shown", record.name))
                    }
                    _ => container.reason.clone(),
                },
            });
        }
    }
    for (replica, placement) in node.plan().placements.iter() {
        if held.contains(&replica) {
            continue;
        }
        let desired = node.desired().get(&(replica.namespace.clone(), replica.deployment.clone()));
        let reason = match placement {
            Placement::Unplaced { reasons } => {
                let lines: Vec<String> =
                    reasons.iter().map(|(id, refusal)| format!("{} {refusal}", node.name_of(id))).collect();
                format!("no node can take it: {}", lines.join("; "))
            }
            Placement::Start { node: on }
            | Placement::Keep { node: on, .. }
            | Placement::KeepOld { node: on, .. }
            | Placement::StopFirst { node: on, .. } => {
                format!("to be started on {}", node.name_of(on))
            }
            Placement::Replace { new, .. } => format!("to be started on {}", node.name_of(new)),
            Placement::Waits => waits(node, &replica.namespace, &replica.deployment).join("; "),
            Placement::Ended => ENDED.to_owned(),
            Placement::Queued => queued(desired),
            Placement::GivenUp => desired.map(|it| jobs::given_up(node, it)).unwrap_or_default(),
            Placement::Awaits { node: on, .. } => {
                format!("to be started on {}, once others of lower priority have made way", node.name_of(on))
            }
        };
        rows.push(PsRow {
            namespace: replica.namespace.to_string(),
            deployment: replica.deployment.to_string(),
            ordinal: replica.ordinal,
            revision: desired.map_or(0, |desired| desired.number),
            node: None,
            state: match placement {
                Placement::Ended => PsState::Exited,
                Placement::GivenUp => PsState::Failed,
                _ => PsState::Pending,
            },
            healthy: None,
            container: None,
            pid: None,
            age_s: None,
            restarts: 0,
            reason: Some(reason),
        });
    }
    rows.sort_by(|a, b| {
        (&a.namespace, &a.deployment, a.ordinal, &a.node, &a.container).cmp(&(
            &b.namespace,
            &b.deployment,
            b.ordinal,
            &b.node,
            &b.container,
        ))
    });
    rows
}

/// What is said of a run whose container is out of sight, or gone.
const ENDED: &str = "it has ended well, and its container is not there any more";

fn queued(desired: Option<&Desired>) -> String {
    let at_a_time = desired.and_then(|it| it.deployment.job).map_or(0, |job| job.parallelism);
    format!("waits for its turn: {at_a_time} at a time")
}

/// What a deployment waits for before more of it is started, a line for each.
fn waits(node: &Node, namespace: &Name, name: &Name) -> Vec<String> {
    let waits = node.plan().waits.get(&(namespace.clone(), name.clone()));
    waits.iter().flat_map(|it| &it.unmet).map(ToString::to_string).collect()
}

/// The cycles that a deployment is in.
fn cycles(node: &Node, namespace: &Name, name: &Name) -> Vec<String> {
    let waits = node.plan().waits.get(&(namespace.clone(), name.clone()));
    waits.iter().flat_map(|it| &it.cycles).map(model::depends::cycle_in_words).collect()
}

/// Deployments, of one namespace or of all.
pub(crate) fn deployments(node: &Node, namespace: Option<&Name>) -> Vec<DeploymentRow> {
    let records = records(node);
    let views = node.documents().deployments();
    let views = views.filter(|view| namespace.is_none_or(|namespace| view.namespace == *namespace));
    views
        .map(|view| {
            let desired = node.desired().get(&(view.namespace.clone(), view.name.clone()));
            let containers: Vec<&ContainerRecord> = records
                .iter()
                .filter(|record| node.liveness(&record.node) != Liveness::Down)
                .flat_map(|record| &record.containers)
                .filter(|container| container.replica.incarnation == view.incarnation)
                .filter(|container| container.replica.deployment == view.name)
                .collect();
            let of_this = |replica: &ReplicaId| {
                replica.incarnation == view.incarnation && replica.deployment == view.name
            };
            let is_global = desired.is_some_and(|it| it.deployment.replicas.mode == Mode::Global);
            let replicas = if is_global {
                let all = node.plan().placements.replicas().filter(of_this).count();
                u32::try_from(all).unwrap_or(u32::MAX)
            } else {
                desired.map_or(0, |desired| desired.deployment.replicas.count)
            };
            let ready: BTreeSet<u32> = containers
                .iter()
                .filter(|it| it.state == ContainerState::Running && it.healthy == Some(true))
                .filter(|it| desired.is_some_and(|desired| desired.revision == it.revision))
                .filter(|it| it.replica.ordinal < replicas || node.plan().placements.contains(&it.replica))
                .map(|it| it.replica.ordinal)
                .collect();
            let job = desired.and_then(|desired| jobs::row(node, desired, &containers));
            let unplaced = node.plan().placements.iter().filter_map(|(replica, placement)| {
                let reasons = match placement {
                    Placement::Unplaced { reasons } => Some(reasons),
                    _ => node.plan().held_back.get(&replica),
                };
                reasons.filter(|_| of_this(&replica)).map(|reasons| Unplaced {
                    ordinal: replica.ordinal,
                    nodes: reasons
                        .iter()
                        .map(|(id, refusal)| (node.name_of(id), refusal.to_string()))
                        .collect(),
                })
            });
            DeploymentRow {
                namespace: view.namespace.to_string(),
                name: view.name.to_string(),
                incarnation: view.incarnation.to_string(),
                revision: node.documents().revision_number(&view.namespace, &view.name, view.incarnation),
                revision_hash: desired.map(|desired| desired.revision.to_string()),
                replicas,
                ready: job
                    .as_ref()
                    .map_or(u32::try_from(ready.len()).unwrap_or(u32::MAX), |job| job.succeeded),
                running: u32::try_from(
                    containers.iter().filter(|it| it.state == ContainerState::Running).count(),
                )
                .unwrap_or(u32::MAX),
                groups: view.groups.clone(),
                conflicts: view.conflicts.iter().map(|conflict| scope_name(&conflict.scope)).collect(),
                invalid: view.deployment.as_ref().err().map(ToString::to_string),
                unplaced: unplaced.collect(),
                failed: desired.and_then(|desired| update_failed(node, desired)),
                paused: desired.is_some_and(|desired| desired.deployment.update.paused),
                waits: waits(node, &view.namespace, &view.name),
                cycles: cycles(node, &view.namespace, &view.name),
                job,
            }
        })
        .collect()
}

fn update_failed(node: &Node, desired: &Desired) -> Option<UpdateFailed> {
    if let Some(back) = &desired.rolled_back {
        return Some(UpdateFailed {
            revision: back.from_number,
            back_to: Some(desired.number),
            node: node.name_of(&back.node),
            reason: back.reason.clone(),
        });
    }
    let failed = desired.failed.as_ref()?;
    Some(UpdateFailed {
        revision: failed.revision_number,
        back_to: None,
        node: node.name_of(&failed.node),
        reason: failed.reason.clone(),
    })
}

fn scope_name(scope: &Scope) -> String {
    match scope {
        Scope::Group(group) => group.clone(),
        Scope::Whole => "deployment".to_owned(),
    }
}

/// What the author of an event in `doc` needs.
pub(crate) fn authoring(node: &Node, doc: &DocId) -> Authoring {
    let documents = node.documents();
    // Some of many heads are enough; the rest stay heads and are merged by a later event.
    let heads = |doc: &DocId| -> Vec<String> {
        documents.heads(doc).iter().take(model::limits::EVENT_DEPS_MAX).map(ToString::to_string).collect()
    };
    let namespace = match doc {
        DocId::Cluster => None,
        DocId::Namespace(name) => Some(name),
    };
    Authoring {
        cluster: documents.cluster().to_string(),
        cluster_name: documents.roster().name.as_ref().map(ToString::to_string).unwrap_or_default(),
        deps: heads(doc),
        auth: heads(&DocId::Cluster),
        deployments: namespace.map(|name| deployments(node, Some(name))).unwrap_or_default(),
        event_version: node
            .records()
            .iter()
            .map(|record| record.event_version)
            .fold(document::event::EVENT_VERSION, u16::min),
    }
}

/// `history`.
pub(crate) fn history(node: &Node, namespace: Option<&Name>, deployment: Option<&Name>) -> Vec<HistoryRow> {
    let documents = node.documents();
    let docs = documents.docs().into_iter().filter(|doc| match (doc, namespace) {
        (DocId::Namespace(name), Some(namespace)) => name == namespace,
        (DocId::Cluster, Some(_)) => false,
        (_, None) => true,
    });
    let docs: Vec<DocId> = docs.filter(|doc| deployment.is_none() || *doc != DocId::Cluster).collect();
    let mut rows: Vec<HistoryRow> = Vec::new();
    for doc in docs {
        for item in documents.history(&doc, deployment) {
            let key = match item.author {
                Author::User(user) => user.to_string(),
                Author::Node(node) => node.to_string(),
            };
            let undoes = match &item.kind {
                Kind::Change(change) => change.undoes.map(|event| event.to_string()),
                _ => None,
            };
            let mut changes: Vec<HistoryChange> = item
                .summary
                .iter()
                .flat_map(|edit| {
                    let whole = match edit.action {
                        Action::Delete => Some(HistoryChange {
                            subject: edit.name.to_string(),
                            group: None,
                            before: Some("present".to_owned()),
                            after: None,
                        }),
                        Action::Create | Action::Set => None,
                    };
                    let groups = edit.groups.iter().map(|change| HistoryChange {
                        subject: edit.name.to_string(),
                        group: Some(change.group.clone()),
                        before: change.before.clone(),
                        after: Some(change.after.clone()),
                    });
                    whole.into_iter().chain(groups).collect::<Vec<_>>()
                })
                .collect();
            changes.extend(roster_change(&item.kind));
            rows.push(HistoryRow {
                event: item.id.to_string(),
                doc: item.doc.to_string(),
                author: key,
                author_name: item.author_name.clone(),
                time_ms: item.time_ms,
                verb: item.verb.to_owned(),
                undoes,
                changes,
            });
        }
    }
    rows
}

fn roster_change(kind: &Kind) -> Option<HistoryChange> {
    let (subject, after) = match kind {
        Kind::Genesis(genesis) => (genesis.name.to_string(), Some(genesis.node.name.to_string())),
        Kind::UserAdd(user) => (user.name.to_string(), Some(user.key.to_string())),
        Kind::Token(token) => (token.id.short(), Some(format!("{} uses", token.uses))),
        Kind::TokenRevoke(token) => (token.id.short(), None),
        Kind::NodeAdmit(admit) => (admit.node.name.to_string(), Some(admit.node.key.to_string())),
        Kind::NodeRemove(remove) => (remove.node.to_string(), None),
        Kind::NodeSchedule(it) => {
            let deadline = it.deadline_s.map(|s| format!(", {s} s at most")).unwrap_or_default();
            (it.node.to_string(), Some(format!("{}{deadline}", it.schedule.as_str())))
        }
        Kind::Change(_) => return None,
    };
    Some(HistoryChange { subject, group: None, before: None, after })
}

/// `conflicts`.
pub(crate) fn conflicts(node: &Node) -> Vec<ConflictRow> {
    let roster = node.documents().roster();
    let views = node.documents().deployments();
    views
        .flat_map(|view| {
            view.conflicts.iter().map(|conflict| {
                let mut sides: Vec<ConflictSide> = conflict
                    .sides
                    .iter()
                    .map(|side| ConflictSide {
                        event: side.event.to_string(),
                        author: match side.author {
                            Author::User(user) => user.to_string(),
                            Author::Node(node) => node.to_string(),
                        },
                        author_name: roster.name_of(&side.author).map(ToOwned::to_owned),
                        time_ms: side.time_ms,
                        value: Some(side.value.clone()),
                    })
                    .collect();
                let winner = conflict.winner.to_string();
                sides.sort_by_key(|side| (side.event != winner, side.event.clone()));
                ConflictRow {
                    namespace: view.namespace.to_string(),
                    deployment: view.name.to_string(),
                    incarnation: conflict.incarnation.to_string(),
                    group: match &conflict.scope {
                        Scope::Group(group) => Some(group.clone()),
                        Scope::Whole => None,
                    },
                    winner,
                    sides,
                }
            })
        })
        .collect()
}

/// `explain`; `None` where there is no such deployment.
pub(crate) fn explain(node: &Node, namespace: &Name, name: &Name) -> Option<Explain> {
    let view = node.documents().get(namespace, name)?;
    let Some(explanation) = node.explain(namespace, name) else {
        let why = view.deployment.as_ref().err().map_or_else(String::new, ToString::to_string);
        return Some(Explain {
            namespace: namespace.to_string(),
            deployment: name.to_string(),
            replicas: vec![ExplainReplica {
                ordinal: 0,
                node: None,
                why: format!("not valid, nothing is started: {why}"),
            }],
            nodes: Vec::new(),
        });
    };
    Some(explained(node, namespace, name, &explanation))
}

fn explained(node: &Node, namespace: &Name, name: &Name, explanation: &planner::Explanation) -> Explain {
    let containers = |id: &model::ContainerId| {
        let mut all = records(node).into_iter().flat_map(|record| record.containers);
        all.find(|container| container.id == *id)
    };
    let replicas = explanation.replicas.iter().map(|(replica, (placement, _))| {
        let (on, why) = match placement {
            Placement::Keep { node: on, container } => {
                let why = containers(container).map_or_else(
                    || "runs there".to_owned(),
                    |it| match it.reason {
                        Some(reason) => format!("placed there: {reason}"),
                        None => "runs there and stays: what runs is not moved".to_owned(),
                    },
                );
                (Some(*on), why)
            }
            Placement::StopFirst { node: on, .. } => {
                (Some(*on), "is stopped there first, and then started in its new revision".to_owned())
            }
            Placement::KeepOld { node: on, .. } => {
                let waits = waits(node, namespace, name).join("; ");
                let turn = if waits.is_empty() { "waits for its turn".to_owned() } else { waits };
                (Some(*on), format!("runs an older revision there and {turn}"))
            }
            Placement::Replace { old: (on, _), new } => {
                (Some(*on), format!("is being replaced by one on {}", node.name_of(new)))
            }
            Placement::Start { node: on } => {
                (Some(*on), "is to be started there: the best that has room".to_owned())
            }
            Placement::Awaits { node: on, .. } => {
                let count = explanation.yields.get(replica).map_or(0, Vec::len);
                (Some(*on), format!("waits there for room: {count} of lower priority make way for it"))
            }
            Placement::Ended => (None, ENDED.to_owned()),
            Placement::Queued => (None, queued(node.desired().get(&(namespace.clone(), name.clone())))),
            Placement::GivenUp => {
                let desired = node.desired().get(&(namespace.clone(), name.clone()));
                (None, desired.map(|it| jobs::given_up(node, it)).unwrap_or_default())
            }
            Placement::Waits => (None, waits(node, namespace, name).join("; ")),
            Placement::Unplaced { .. } => (None, "no node can take it".to_owned()),
        };
        let why = cycles(node, namespace, name).iter().fold(why, |why, cycle| {
            format!("{why}; it would wait for itself, so none of these waits for the next: {cycle}")
        });
        ExplainReplica { ordinal: replica.ordinal, node: on.map(|id| node.name_of(&id)), why }
    });
    Explain {
        namespace: namespace.to_string(),
        deployment: name.to_string(),
        replicas: replicas.collect(),
        nodes: explanation
            .nodes
            .iter()
            .map(|(id, it)| ExplainNode {
                node: node.name_of(id),
                fits: it.one_more.is_ok(),
                why: match &it.one_more {
                    Ok(fit) => {
                        format!(
                            "one more fits: {}; score {}{}",
                            amounts_of(fit),
                            score(fit),
                            ratios(node, id)
                        )
                    }
                    Err(refusal) => format!("{refusal}{}", ratios(node, id)),
                },
            })
            .collect(),
    }
}

/// That a node gives more away than it has, if so.
fn ratios(node: &Node, id: &NodeId) -> String {
    let own = (*id == node.config().me).then(|| node.config().terms);
    let terms = own.or_else(|| node.records().get(id).map(|record| record.terms)).unwrap_or_default();
    let parts = [("cpu", terms.cpu_percent), ("memory", terms.memory_percent)];
    let over = parts.iter().filter(|(_, percent)| *percent != 100);
    let over: Vec<String> =
        over.map(|(what, percent)| format!("{what} is over-committed to {percent} %")).collect();
    if over.is_empty() { String::new() } else { format!("; {}", over.join(", ")) }
}

/// What is free and what is asked, of each resource.
fn amounts_of(fit: &planner::Fit) -> String {
    let planner::Fit { free, asked, .. } = fit;
    let words = format!(
        "cpu {}m free, {}m asked; memory {}Mi free, {}Mi asked; pids {} free, {} asked",
        free.cpu_m,
        asked.cpu_m,
        free.memory_b >> 20,
        asked.memory_b.div_ceil(1 << 20),
        free.pids,
        asked.pids,
    );
    let extra = |(name, asked)| format!("; {name} {} free, {asked} asked", free.extras.count(name));
    words + &asked.extras.iter().map(extra).collect::<String>()
}

/// What decides between nodes that are equally crowded, in hundredths of a node.
fn score(fit: &planner::Fit) -> String {
    let (share, bonus) = (fit.share_ppm / 10_000, fit.bonus_ppm / 10_000);
    let total = i64::try_from(share).unwrap_or(i64::MAX).saturating_add(bonus);
    match bonus {
        0 => format!("{total} ({share} % stays free)"),
        bonus => format!("{total} ({share} % stays free, {bonus:+} for preferences and its image)"),
    }
}

/// `token ls`.
pub(crate) fn tokens(node: &Node) -> Vec<TokenRow> {
    let tokens = node.documents().roster().tokens.iter();
    tokens
        .map(|(id, token)| TokenRow {
            id: id.to_string(),
            expires_ms: token.expires_ms,
            uses: token.uses,
            used: token.used,
            revoked: token.revoked,
        })
        .collect()
}

/// `user ls`.
pub(crate) fn users(node: &Node) -> Vec<UserRow> {
    let users = node.documents().roster().users.iter();
    users
        .map(|(key, user)| UserRow {
            name: user.name.to_string(),
            key: key.to_string(),
            role: match user.role {
                Role::Admin => "admin".to_owned(),
                Role::Deploy => "deploy".to_owned(),
            },
        })
        .collect()
}

/// `image ls`: what any node says that it holds.
pub(crate) fn images(node: &Node) -> Vec<ImageRow> {
    let mut found: BTreeMap<(String, String), (u64, Vec<String>)> = BTreeMap::new();
    for record in records(node) {
        for image in &record.images {
            let key = (image.reference.clone(), format!("sha256:{}", image.digest));
            let entry = found.entry(key).or_insert((image.size_b, Vec::new()));
            entry.1.push(record.name.to_string());
        }
    }
    found
        .into_iter()
        .map(|((reference, digest), (size_b, mut nodes))| {
            nodes.sort_unstable();
            ImageRow { reference, digest, size_b, nodes }
        })
        .collect()
}

/// `status`.
pub(crate) fn status(node: &Node, degraded: Vec<String>) -> Status {
    let own = node.own_record();
    let linked: BTreeSet<NodeId> = node.linked().collect();
    let level = |id: &NodeId| node.records().get(id).is_some_and(|record| record.heads == own.heads);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let roster = node.documents().roster();
    Status {
        cluster: roster.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        cluster_id: node.config().cluster.to_string(),
        node: node.config().name.to_string(),
        node_id: node.config().me.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        nodes: nodes(node),
        peers: count(roster.nodes.keys().filter(|id| **id != node.config().me).count()),
        connected: count(linked.len()),
        in_sync: count(linked.iter().filter(|id| level(id)).count()),
        deployments: deployments(node, None),
        refusing: node.refusing().map(ToOwned::to_owned),
        conflicts: count(conflicts(node).len()),
        degraded,
        removed: if node.is_removed() { removal(node, &node.config().me) } else { None },
    }
}
