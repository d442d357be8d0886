//! What is done in a small scope, in this order; when is what is searched.

use std::time::Duration;

use node::Timings;

use crate::author::Spec;
use crate::host::HostState;
use crate::world::{Cluster, Settings};

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Alice applies `web` with so many replicas through this peer.
    Apply(usize, u32),
    /// Bob scales it through this one.
    Scale(usize, u32),
    /// Alice changes its environment: every replica is made anew.
    Change(usize, u32),
    /// Alice deletes it.
    Delete(usize),
    /// Nothing passes between this machine and the others.
    Cut(usize),
    /// Everything passes again.
    Heal,
    /// This peer is killed; its containers go on.
    Kill(usize),
    /// This machine loses power.
    PowerOff(usize),
    /// Whatever does not run is started.
    Start(usize),
}

/// A small world.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// Machines.
    pub nodes: usize,
    /// What is done in a quiet world before anything is searched.
    pub before: Vec<Act>,
    /// What is done, in this order.
    pub acts: Vec<Act>,
}

impl Scope {
    /// The scopes that are searched.
    pub fn all() -> Vec<Self> {
        let scope = |name, nodes, before: &[Act], acts: &[Act]| Self {
            name,
            nodes,
            before: before.to_vec(),
            acts: acts.to_vec(),
        };
        vec![
            scope("two write at once", 2, &[], &[Act::Apply(0, 1), Act::Apply(1, 2)]),
            scope(
                "an update against a deletion",
                2,
                &[Act::Apply(0, 1)],
                &[Act::Scale(0, 2), Act::Delete(1)],
            ),
            scope(
                "a crash behind an event",
                2,
                &[Act::Apply(0, 1)],
                &[Act::Scale(0, 2), Act::Kill(0), Act::Start(0), Act::Delete(1)],
            ),
            scope(
                "both sides of a cut",
                3,
                &[Act::Apply(0, 2)],
                &[Act::Cut(0), Act::Change(0, 1), Act::Scale(1, 3), Act::Heal],
            ),
            scope(
                "power goes during an update",
                3,
                &[Act::Apply(0, 2)],
                &[Act::Change(1, 1), Act::PowerOff(1), Act::Start(1)],
            ),
            scope(
                "deleted and made again across a cut",
                2,
                &[Act::Apply(0, 1)],
                &[Act::Cut(0), Act::Delete(0), Act::Apply(0, 2), Act::Scale(1, 3), Act::Heal],
            ),
            scope(
                "four events, a cut and a crash",
                3,
                &[Act::Apply(0, 2)],
                &[
                    Act::Change(1, 1),
                    Act::Cut(0),
                    Act::Scale(0, 3),
                    Act::Change(1, 2),
                    Act::PowerOff(1),
                    Act::Heal,
                    Act::Start(1),
                    Act::Delete(2),
                ],
            ),
        ]
    }

    /// The world at the beginning of the search: up, level, and quiet. Each run begins here, so that it
    /// costs as little time as it can: programs are well at once.
    pub(super) fn begin(&self) -> Cluster {
        let millisecond = Duration::from_millis(1);
        let timings = Timings { healthy: millisecond * 10, ..Timings::default() };
        let settings = Settings {
            latency: (millisecond, millisecond),
            sync: millisecond,
            start: millisecond,
            stop: (millisecond, millisecond),
            timings,
            ..Settings::default()
        };
        let mut cluster = Cluster::new(1, self.nodes, settings);
        cluster.thorough(false);
        let all: Vec<usize> = (0..self.nodes).collect();
        cluster.run_until(Duration::from_secs(5), |cluster| cluster.agreed(&all) && cluster.all_up(&all));
        for act in &self.before {
            take(&mut cluster, *act);
        }
        cluster.run_for(millisecond * 150);
        cluster.thorough(true);
        cluster
    }
}

/// Does it, where it can be done.
pub(super) fn take(cluster: &mut Cluster, act: Act) {
    use crate::faults::User::{Alice, Bob};
    match act {
        Act::Apply(host, count) if cluster.answers(host) => {
            let spec = Spec::new(count);
            cluster.sign_and_submit(host, Alice, "apply", |author, documents, at| {
                author.apply(documents, "web", &spec, at)
            });
        }
        Act::Scale(host, count) if cluster.answers(host) => {
            let json = format!(r#"{{"count":{count},"class":"available"}}"#);
            cluster.sign_and_submit(host, Bob, "scale", |author, documents, at| {
                author.set(documents, "web", "replicas", &json, at)
            });
        }
        Act::Change(host, value) if cluster.answers(host) => {
            let json = format!(r#"{{"vars":{{"V":"{value}"}}}}"#);
            cluster.sign_and_submit(host, Alice, "change", |author, documents, at| {
                author.set(documents, "web", "env", &json, at)
            });
        }
        Act::Delete(host) if cluster.answers(host) => {
            cluster.sign_and_submit(host, Alice, "delete", |author, documents, at| {
                author.delete(documents, "web", at)
            });
        }
        Act::Cut(alone) => {
            let others: Vec<usize> = (0..cluster.len()).filter(|host| *host != alone).collect();
            cluster.split(&[&[alone], &others]);
        }
        Act::Heal => cluster.heal(),
        Act::Kill(host) if cluster.state(host) == HostState::Up => cluster.stop_peer(host),
        Act::PowerOff(host) if cluster.state(host) != HostState::PowerOff => cluster.power_off(host),
        Act::Start(host) if cluster.state(host) != HostState::Up => cluster.start(host),
        _ => {}
    }
}
