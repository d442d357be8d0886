//! What the demo checks: by the kernel, by HTTP, and what peers answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::routes;
use api::shapes::{DeploymentRow, NodeRow, NodeState as Liveness};

use crate::cluster::Cluster;
use crate::kernel;
use crate::skerry::ask;
use crate::wait::{self, chain};
use crate::web::Hello;

/// The port of the nodes that the application is published on.
pub(super) const PORT: u16 = 8080;

/// How long a replica may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// How long nothing must answer over a link that is cut.
const SILENCE: Duration = Duration::from_millis(300);

/// The deployment's name.
pub(super) const NAME: &str = "web";

/// An error of any kind as a check that did not hold.
pub(super) fn problem(error: impl std::error::Error) -> String {
    chain(&error)
}

/// How many containers each node has, by the kernel.
pub(super) fn counts(cluster: &Cluster, nodes: &[&str]) -> Result<BTreeMap<String, usize>, String> {
    nodes
        .iter()
        .map(|node| {
            let found = kernel::containers(&cluster.cgroup(node)).map_err(problem)?;
            Ok(((*node).to_owned(), found.len()))
        })
        .collect()
}

/// `n1 2, n2 3`.
pub(super) fn show(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(node, count)| format!("{node} {count}")).collect();
    parts.join(", ")
}

/// What a command complains of, with what the kernel shows where that is the reason.
pub(super) fn instead_of(cluster: &Cluster, nodes: &[&str], wanted: usize, problem: &str) -> String {
    match counts(cluster, nodes) {
        Ok(counts) if counts.values().sum::<usize>() != wanted => {
            let total: usize = counts.values().sum();
            format!("{total} containers run instead of {wanted}: {}\n{problem}", show(&counts))
        }
        _ => problem.to_owned(),
    }
}

/// The deployment, as a node's peer sees it.
pub(super) fn deployment(cluster: &Cluster, node: &str) -> Result<DeploymentRow, String> {
    let rows: Vec<DeploymentRow> = ask(&cluster.socket(node), routes::DEPLOYMENTS).map_err(problem)?;
    rows.into_iter().find(|row| row.name == NAME).ok_or(format!("{node} knows no deployment {NAME}"))
}

/// Waits until `wanted` containers, neither more nor less, run on these nodes by the kernel, and the
/// first node's peer finds all of them ready. Says where.
pub(super) fn running(
    cluster: &Cluster,
    nodes: &[&str],
    wanted: usize,
    limit: Duration,
) -> Result<(BTreeMap<String, usize>, Duration), String> {
    wait::until(limit, || {
        let counts = counts(cluster, nodes)?;
        let total: usize = counts.values().sum();
        if total != wanted {
            return Err(format!("{total} containers run instead of {wanted}: {}", show(&counts)));
        }
        let row = deployment(cluster, nodes[0])?;
        if row.ready as usize != wanted || row.running as usize != wanted {
            return Err(format!(
                "{} finds {} of {wanted} ready, {} running",
                nodes[0], row.ready, row.running
            ));
        }
        Ok(counts)
    })
    .map_err(problem)
}

/// Waits until a node's peer sees others as up or down.
pub(super) fn sees(
    cluster: &Cluster,
    node: &str,
    others: &[(&str, Liveness)],
    limit: Duration,
) -> Result<Duration, String> {
    let waited = wait::until(limit, || {
        let rows: Vec<NodeRow> = ask(&cluster.socket(node), routes::NODES).map_err(problem)?;
        for (other, wanted) in others {
            let row =
                rows.iter().find(|row| row.name == *other).ok_or(format!("{node} does not know {other}"))?;
            if row.state != *wanted {
                return Err(format!("{node} sees {other} as {:?}", row.state));
            }
        }
        Ok(())
    });
    waited.map(|((), took)| took).map_err(problem)
}

/// Where documents stand: heads by document.
pub(super) type Heads = BTreeMap<String, Vec<String>>;

/// Where each of these nodes' peers stands: one where they agree.
pub(super) fn heads(cluster: &Cluster, nodes: &[&str]) -> Result<BTreeSet<Heads>, String> {
    let mut all = BTreeSet::new();
    for node in nodes {
        let rows: Vec<NodeRow> = ask(&cluster.socket(node), routes::NODES).map_err(problem)?;
        // Each peer for itself: what it says of others is what it heard.
        let own =
            rows.into_iter().find(|row| row.name == *node).ok_or(format!("{node} does not know itself"))?;
        all.insert(own.heads);
    }
    Ok(all)
}

/// Waits until all these nodes' peers stand at the same heads.
pub(super) fn same_heads(cluster: &Cluster, nodes: &[&str], limit: Duration) -> Result<Duration, String> {
    let waited = wait::until(limit, || {
        let all = heads(cluster, nodes)?;
        if all.len() == 1 { Ok(()) } else { Err("the peers' documents differ".to_owned()) }
    });
    waited.map(|((), took)| took).map_err(problem)
}

/// Whether a replica on `to` answers a client on `from`.
pub(super) fn reaches(cluster: &Cluster, from: &str, to: &str) -> Result<bool, String> {
    let netns = cluster.node(from).map_err(problem)?.netns_path;
    let address = SocketAddr::from((cluster.address(to).map_err(problem)?, PORT));
    Ok(crate::http::get(&netns, address, "/", SILENCE).is_ok())
}

/// What the replicas on a node answer to clients on it: asks until every container has answered.
pub(super) fn answers(cluster: &Cluster, node: &str, limit: Duration) -> Result<Vec<Hello>, String> {
    let netns = cluster.node(node).map_err(problem)?.netns_path;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut heard: BTreeMap<String, Hello> = BTreeMap::new();
    let waited = wait::until(limit, || {
        // The kernel picks the replica: some rounds of asking meet all of them.
        for _ in 0..8 {
            let answer = crate::http::get(&netns, address, "/", ANSWER_WAIT).map_err(problem)?;
            let hello: Hello = serde_json::from_str(&answer.body).map_err(problem)?;
            heard.insert(hello.container.clone(), hello);
        }
        let running = kernel::containers(&cluster.cgroup(node)).map_err(problem)?;
        heard.retain(|container, _| running.contains_key(container));
        if heard.len() == running.len() {
            Ok(())
        } else {
            Err(format!("{} of {} replicas on {node} answer over HTTP", heard.len(), running.len()))
        }
    });
    waited.map_err(problem)?;
    Ok(heard.into_values().collect())
}

/// Checks that every replica on these nodes greets with this word.
pub(super) fn greet(cluster: &Cluster, nodes: &[&str], word: &str, limit: Duration) -> Result<usize, String> {
    let mut all = 0;
    for node in nodes {
        let (count, _) = wait::until(limit, || {
            let heard = answers(cluster, node, ANSWER_WAIT)?;
            match heard.iter().find(|hello| hello.greeting != word) {
                None => Ok(heard.len()),
                Some(other) => {
                    Err(format!("{} on {node} says {:?} instead of {word:?}", other.hostname, other.greeting))
                }
            }
        })
        .map_err(problem)?;
        all += count;
    }
    Ok(all)
}

/// Waits until the kernel holds every container on these nodes to this much memory.
pub(super) fn held_to(
    cluster: &Cluster,
    nodes: &[&str],
    memory_b: u64,
    limit: Duration,
) -> Result<(), String> {
    let waited = wait::until(limit, || {
        for node in nodes {
            let cgroup = cluster.cgroup(node);
            for id in kernel::containers(&cgroup).map_err(problem)?.keys() {
                let limits = kernel::limits(&format!("{cgroup}/{id}")).map_err(problem)?;
                if limits.memory_b != Some(memory_b) {
                    return Err(format!(
                        "a container on {node} is held to {:?} bytes of memory",
                        limits.memory_b
                    ));
                }
            }
        }
        Ok(())
    });
    waited.map(|((), _)| ()).map_err(problem)
}
