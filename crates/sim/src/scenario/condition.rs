//! What can be expected of a cluster.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use membership::Liveness;
use model::{ContainerId, ContainerState, EventId, JobEnds, Name, Revision};
use node::{CommandId, Node, Outcome};
use planner::Placement;

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
    /// At least so many replicas run there, some perhaps twice.
    AtLeast(Name, usize, Vec<usize>),
    /// At most so many containers of it run there.
    AtMost(Name, usize, Vec<usize>),
    /// Since the last `remember`, at most so many programs of it were started anywhere.
    StartsAtMost(Name, u64),
    /// Since the last `remember`, all nodes together sent at most so many messages and datagrams.
    MessagesAtMost(u64),
    /// Since the last `remember`, those peers have learned of no event.
    NoNewEvents(Vec<usize>),
    /// Each of those peers knows of every program that runs on them, and of no other.
    Known(Vec<usize>),
    /// Each of those peers believes that of that node.
    Believe(Vec<usize>, usize, Liveness),
    /// Those peers want the same of it: as many replicas of the same template, or none.
    Alike(Name, Vec<usize>),
    /// Nothing of it is left on those machines, running or not, nor in what their peers know.
    Forgotten(Name, Vec<usize>),
    /// Each of those peers finds no room for so many replicas of it.
    Unplaced(Name, usize, Vec<usize>),
    /// To each of those peers, so many replicas of it wait for what it depends on.
    Waits(Name, usize, Vec<usize>),
    /// To each of those peers, it is in a cycle of deployments that wait for one another.
    Cycle(Name, Vec<usize>),
    /// To each of those peers, so many runs of that job have ended well.
    Done(Name, usize, Vec<usize>),
    /// To each of those peers, that job has failed.
    GivenUp(Name, Vec<usize>),
    /// Every event that was ever acknowledged is in the documents of those peers.
    AckedKept(Vec<usize>),
    /// The last change was accepted, and is on at least so many disks; and was known before, or not.
    Accepted(u32, Option<bool>),
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
    /// The last event that was handed in.
    pub(super) event: Option<Vec<u8>>,
    pub(super) remembered: BTreeSet<(usize, ContainerId, u32)>,
    /// Programs started until then, by deployment.
    starts: BTreeMap<Name, u64>,
    messages: u64,
    heads: BTreeMap<usize, Vec<Vec<EventId>>>,
}

impl Past {
    /// Now is what is looked back to.
    pub(super) fn remember(&mut self, cluster: &Cluster) {
        self.remembered = cluster.processes().into_iter().collect();
        self.starts.clone_from(&cluster.starts);
        self.messages = messages(cluster);
        self.heads = (0..cluster.len()).filter_map(|host| Some((host, heads(cluster, host)?))).collect();
    }
}

fn messages(cluster: &Cluster) -> u64 {
    cluster.frames + cluster.datagrams
}

/// Where the documents of a peer stand.
fn heads(cluster: &Cluster, host: usize) -> Option<Vec<Vec<EventId>>> {
    let documents = cluster.node(host)?.documents();
    Some(documents.docs().iter().map(|doc| documents.heads(doc)).collect())
}

/// Whether a peer knows of exactly what runs on another machine, or its own.
fn knows(cluster: &Cluster, host: usize, other: usize) -> bool {
    let Some(node) = cluster.node(host) else { return false };
    let own = (host == other).then(|| node.own_record());
    let Some(record) = own.as_ref().or_else(|| node.records().get(&cluster.id(other))) else { return false };
    let told = record.containers.iter().filter(|it| it.state == ContainerState::Running);
    let told: BTreeSet<_> = told.map(|it| (it.id, it.pid)).collect();
    told == cluster.running(other).map(|(id, it)| (*id, it.pid)).collect()
}

/// Whether a peer's records, its own included, name a container of a deployment.
fn tells_of(node: &Node, of: &Name) -> bool {
    let own = node.own_record();
    let others = node.records().iter().filter(|record| record.node != own.node);
    others.chain([&own]).any(|record| record.containers.iter().any(|it| it.replica.deployment == *of))
}

/// What a peer wants of a deployment: incarnation, template, replicas; nothing where there is none, and
/// `None` where there is no peer.
fn wants(cluster: &Cluster, host: usize, of: &Name) -> Option<Vec<(EventId, Revision, u32)>> {
    let desired = cluster.node(host)?.desired();
    let of_it = desired.iter().filter(|((_, name), _)| name == of);
    let all = of_it.map(|(_, it)| (it.deployment.incarnation, it.revision, it.deployment.replicas.count));
    Some(all.collect())
}

/// What a peer knows to have ended of a job, and how many runs are asked.
fn ends<'a>(node: &'a Node, of: &'a Name) -> impl Iterator<Item = (u32, &'a JobEnds)> {
    let jobs = node.desired().iter().filter(move |((_, name), _)| name == of);
    jobs.filter_map(|(_, it)| Some((it.deployment.replicas.count, node.ends_of(it)?)))
}

/// A condition that is looked at again and again, and remembers its last answer while that must be
/// the same: a look costs as much as what happens between two.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) condition: Condition,
    last: Cell<Option<(u64, bool)>>,
}

impl Looked {
    pub(super) const fn new(condition: Condition) -> Self {
        Self { condition, last: Cell::new(None) }
    }

    pub(super) fn holds(&self, cluster: &Cluster, past: &Past) -> bool {
        match self.last.get() {
            Some((changes, held)) if changes == cluster.changes => held,
            _ => {
                let holds = self.condition.holds(cluster, past);
                if self.condition.hangs_on_changes_alone() {
                    self.last.set(Some((cluster.changes, holds)));
                }
                holds
            }
        }
    }
}

impl Condition {
    /// Whether it can become other only by what [`Cluster::changes`] counts.
    const fn hangs_on_changes_alone(&self) -> bool {
        matches!(
            self,
            Self::RunsOnce(..)
                | Self::AtLeast(..)
                | Self::AtMost(..)
                | Self::Gone(..)
                | Self::RunsWith(..)
                | Self::Undisturbed(_)
                | Self::StartsAtMost(..)
                | Self::NoNewEvents(_)
        )
    }

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
            Self::AtLeast(of, count, on) => cluster.copies(on, of.as_str()).len() >= *count,
            Self::AtMost(of, count, on) => {
                cluster.copies(on, of.as_str()).values().map(Vec::len).sum::<usize>() <= *count
            }
            Self::StartsAtMost(of, count) => {
                let of = |starts: &BTreeMap<Name, u64>| starts.get(of).copied().unwrap_or(0);
                of(&cluster.starts) - of(&past.starts) <= *count
            }
            Self::MessagesAtMost(count) => messages(cluster) - past.messages <= *count,
            Self::NoNewEvents(on) => {
                on.iter().all(|host| past.heads.get(host) == heads(cluster, *host).as_ref())
            }
            Self::Known(on) => on.iter().all(|host| on.iter().all(|other| knows(cluster, *host, *other))),
            Self::Believe(on, of, liveness) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| node.liveness(&cluster.id(*of)) == *liveness)
            }),
            Self::Alike(of, on) => {
                let all: Vec<_> = on.iter().map(|host| wants(cluster, *host, of)).collect();
                all.iter().all(|it| it.is_some() && *it == all[0])
            }
            Self::Forgotten(of, on) => on.iter().all(|host| {
                let left = cluster.containers(*host).any(|(_, it)| it.claim.replica.deployment == *of);
                !left && cluster.node(*host).is_none_or(|node| !tells_of(node, of))
            }),
            Self::Unplaced(of, count, on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| {
                    let all = node.plan().placements.iter();
                    let unplaced = all.filter(|(replica, placement)| {
                        replica.deployment == *of && matches!(placement, Placement::Unplaced { .. })
                    });
                    unplaced.count() == *count
                })
            }),
            Self::Waits(of, count, on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| {
                    let all = node.plan().placements.iter();
                    let waits = all.filter(|(replica, placement)| {
                        replica.deployment == *of && **placement == Placement::Waits
                    });
                    waits.count() == *count
                })
            }),
            Self::Cycle(of, on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| {
                    let waits = node.plan().waits.iter();
                    waits.filter(|((_, name), _)| name == of).any(|(_, it)| !it.cycles.is_empty())
                })
            }),
            Self::Done(of, count, on) => on.iter().all(|host| {
                let mut all = cluster.node(*host).into_iter().flat_map(|node| ends(node, of));
                all.any(|(completions, ends)| ends.done_of(completions) as usize == *count)
            }),
            Self::GivenUp(of, on) => on.iter().all(|host| {
                let mut all = cluster.node(*host).into_iter().flat_map(|node| ends(node, of));
                all.any(|(completions, ends)| ends.has_failed(completions))
            }),
            Self::AckedKept(on) => on.iter().all(|host| {
                cluster.node(*host).is_some_and(|node| {
                    cluster.acked().iter().all(|acked| node.documents().contains(acked.event))
                })
            }),
            Self::Accepted(disks, asked) => matches!(
                past.last.and_then(|last| cluster.outcome(last)),
                Some(Outcome::Accepted { durable_on, known, .. })
                    if durable_on >= disks && asked.is_none_or(|asked| asked == *known)
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
                cluster.node(*host).is_some_and(Node::is_removed) && cluster.running(*host).next().is_none()
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
            Self::AtLeast(of, count, on) => {
                write!(f, "{count} replicas of {of} or more run on {}", Names(on))
            }
            Self::AtMost(of, count, on) => {
                write!(f, "{count} containers of {of} or fewer run on {}", Names(on))
            }
            Self::StartsAtMost(of, count) => {
                write!(f, "{count} programs of {of} or fewer were started since it was remembered")
            }
            Self::MessagesAtMost(count) => {
                write!(f, "{count} messages or fewer were sent since it was remembered")
            }
            Self::NoNewEvents(on) => {
                write!(f, "{} have learned of no event since it was remembered", Names(on))
            }
            Self::Known(on) => write!(f, "{} know exactly what runs on one another", Names(on)),
            Self::Believe(on, of, liveness) => {
                let word = match liveness {
                    Liveness::Up => "up",
                    Liveness::Suspect => "suspect",
                    Liveness::Down => "down",
                };
                write!(f, "n{} is {word} to {}", of + 1, Names(on))
            }
            Self::Alike(of, on) => write!(f, "{} want the same of {of}", Names(on)),
            Self::Forgotten(of, on) => write!(f, "nothing of {of} is left on {}, nor known", Names(on)),
            Self::Unplaced(of, count, on) => {
                write!(f, "{} find no room for {count} replicas of {of}", Names(on))
            }
            Self::Waits(of, count, on) => {
                write!(f, "to {} {count} replicas of {of} wait for what it depends on", Names(on))
            }
            Self::Cycle(of, on) => {
                write!(f, "{} show {of} in a cycle of deployments that wait for one another", Names(on))
            }
            Self::Done(of, count, on) => {
                write!(f, "to {} {count} runs of {of} have ended well", Names(on))
            }
            Self::GivenUp(of, on) => write!(f, "to {} the job {of} has failed", Names(on)),
            Self::AckedKept(on) => write!(f, "{} have every event that was ever acknowledged", Names(on)),
            Self::Accepted(disks, known) => {
                let known = match known {
                    Some(true) => ", and was known before",
                    Some(false) => ", and was not known before",
                    None => "",
                };
                write!(f, "the change is accepted, on {disks} disks or more{known}")
            }
            Self::Refused(code) => write!(f, "the change is refused ({code})"),
            Self::Undisturbed(on) => write!(f, "what was remembered on {} runs untouched", Names(on)),
            Self::Removed(on) => write!(f, "{} know that they were removed and run nothing", Names(on)),
        }
    }
}
