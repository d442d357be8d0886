//! What can be expected of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{ContainerId, Name};
use node::{CommandId, Outcome};

use crate::world::Cluster;

/// A condition that holds at a time or not. Nodes are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// So many replicas run there, each once, by the kernels' word.
    RunsOnce(Name, usize, Vec<usize>),
    /// Nothing of it runs there.
    Gone(Name, Vec<usize>),
    /// Everything of it that runs there is of the template that the first of them wants.
    Updated(Name, Vec<usize>),
    /// Everything of it that runs there has these variables, and something does.
    RunsWith(Name, BTreeMap<String, String>, Vec<usize>),
    /// Those peers have the same documents.
    Level(Vec<usize>),
    /// Those peers have the same documents and plan alike.
    Agreed(Vec<usize>),
    /// Those peers believe each other up.
    AllUp(Vec<usize>),
    /// Each of those peers shows so many conflicts about it.
    Conflicts(Name, usize, Vec<usize>),
    /// The last change was accepted, and is on at least so many disks.
    Accepted(u32),
    /// The last change was refused with this code.
    Refused(String),
    /// What ran there at the last `remember` runs still: the same processes.
    Undisturbed(Vec<usize>),
    /// Those peers know that their nodes were removed, and nothing at all runs on them.
    Removed(Vec<usize>),
}

/// What conditions look back to.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) last: Option<CommandId>,
    pub(super) remembered: BTreeSet<(usize, ContainerId, u32)>,
}

impl Condition {
    pub(super) fn holds(&self, cluster: &Cluster, past: &Past) -> bool {
        match self {
            Self::RunsOnce(of, count, on) => cluster.runs_once(on, of.as_str(), *count),
            Self::Gone(of, on) => cluster.copies(on, of.as_str()).is_empty(),
            Self::Updated(of, on) => {
                let wanted = on.first().and_then(|host| cluster.node(*host)).and_then(|node| {
                    node.desired()
                        .iter()
                        .find(|((_, name), _)| name == of)
                        .map(|(_, desired)| desired.revision)
                });
                let mut revisions = cluster.copies(on, of.as_str()).into_values().flatten().map(|(_, it)| it);
                wanted.is_some_and(|wanted| revisions.all(|it| it == wanted))
            }
            Self::RunsWith(of, env, on) => {
                let copies: Vec<_> = on
                    .iter()
                    .flat_map(|host| cluster.running(*host))
                    .filter(|(_, it)| it.claim.replica.deployment == *of)
                    .collect();
                let has =
                    |it: &BTreeMap<String, String>| env.iter().all(|(key, value)| it.get(key) == Some(value));
                !copies.is_empty() && copies.iter().all(|(_, it)| has(&it.claim.run.env))
            }
            Self::Level(on) => cluster.same_heads(on),
            Self::Agreed(on) => cluster.agreed(on),
            Self::AllUp(on) => cluster.all_up(on),
            Self::Conflicts(of, count, on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| {
                    let views = node.documents().deployments().filter(|view| view.name == *of);
                    views.map(|view| view.conflicts.len()).sum::<usize>() == *count
                })
            }),
            Self::Accepted(disks) => matches!(
                past.last.and_then(|last| cluster.outcome(last)),
                Some(Outcome::Accepted { durable_on, .. }) if durable_on >= disks
            ),
            Self::Refused(asked) => matches!(
                past.last.and_then(|last| cluster.outcome(last)),
                Some(Outcome::Refused { code, .. }) if code == asked
            ),
            Self::Undisturbed(on) => {
                let now: BTreeSet<_> = cluster.processes().into_iter().collect();
                past.remembered.iter().filter(|(host, ..)| on.contains(host)).all(|it| now.contains(it))
            }
            Self::Removed(on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(node::Node::is_removed)
                    && cluster.running(*host).next().is_none()
            }),
        }
    }
}

/// Nodes by their names.
pub(super) struct Names<'a>(pub(super) &'a [usize]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, host) in self.0.iter().enumerate() {
            write!(f, "{}n{}", if n == 0 { "" } else { " " }, host + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunsOnce(of, count, on) => {
                write!(f, "{count} replicas of {of} run once each on {}", Names(on))
            }
            Self::Gone(of, on) => write!(f, "nothing of {of} runs on {}", Names(on)),
            Self::Updated(of, on) => write!(f, "all of {of} on {} is of the wanted revision", Names(on)),
            Self::RunsWith(of, env, on) => {
                let pairs: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "all of {of} on {} runs with {}", Names(on), pairs.join(" "))
            }
            Self::Level(on) => write!(f, "{} have the same documents", Names(on)),
            Self::Agreed(on) => write!(f, "{} have the same documents and plans", Names(on)),
            Self::AllUp(on) => write!(f, "{} believe each other up", Names(on)),
            Self::Conflicts(of, count, on) => write!(f, "{} show {count} conflicts about {of}", Names(on)),
            Self::Accepted(disks) => write!(f, "the change is accepted, on {disks} disks or more"),
            Self::Refused(code) => write!(f, "the change is refused ({code})"),
            Self::Undisturbed(on) => write!(f, "what was remembered on {} runs untouched", Names(on)),
            Self::Removed(on) => write!(f, "{} know that they were removed and run nothing", Names(on)),
        }
    }
}
