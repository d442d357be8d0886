//! A scenario becomes a transcript.

use std::fmt::Write as _;
use std::time::Duration;

use model::Name;

use super::condition::{Names, Past};
use super::read::{Act, Expectation, Scenario, Step};
use crate::faults::User;
use crate::host::HostState;
use crate::world::Cluster;

/// What happened, as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Lines, with a line break behind each.
    pub text: String,
    /// Virtual time from the first switch to the last step.
    pub lasted: Duration,
}

/// Why a scenario did not end well. The transcript ends where it happened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}\n{}", transcript.text)]
pub struct RunError {
    /// The scenario's file.
    pub file: String,
    /// The step's line.
    pub line: usize,
    /// What went wrong.
    pub problem: String,
    /// What had happened until then.
    pub transcript: Transcript,
}

impl Scenario {
    /// Runs the scenario.
    ///
    /// # Errors
    /// When an expectation does not come true or does not last, or a step cannot be taken.
    pub fn run(&self) -> Result<Transcript, RunError> {
        let mut cluster = if self.switched_off {
            Cluster::switched_off(self.seed, self.nodes, self.settings)
        } else {
            Cluster::new(self.seed, self.nodes, self.settings)
        };
        let mut past = Past::default();
        for step in &self.steps {
            let left = step.at.saturating_sub(cluster.now().since(model::Time::ZERO));
            cluster.run_for(left);
            let result = take(&mut cluster, &mut past, &step.act);
            let result =
                result.and_then(|()| cluster.violations().first().map_or(Ok(()), |it| Err(it.clone())));
            if let Err(problem) = result {
                let Step { line, .. } = step;
                let transcript = self.transcript(&cluster);
                return Err(RunError { file: self.file.clone(), line: *line, problem, transcript });
            }
        }
        Ok(self.transcript(&cluster))
    }

    fn transcript(&self, cluster: &Cluster) -> Transcript {
        let mut text = format!("{}\n{} nodes, seed {}\n\n", self.story, self.nodes, self.seed);
        for line in cluster.trace() {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\nIn the end\n");
        for host in 0..cluster.len() {
            let state = match cluster.state(host) {
                HostState::Up => "runs",
                HostState::PeerDown => "runs without its peer",
                HostState::PowerOff => "is off",
            };
            let mut replicas: Vec<String> = cluster
                .running(host)
                .map(|(_, it)| {
                    let claim = &it.claim;
                    format!(
                        "{}#{} (v{})",
                        claim.replica.deployment, claim.replica.ordinal, claim.revision_number
                    )
                })
                .collect();
            replicas.sort_unstable();
            let list = if replicas.is_empty() { "nothing".to_owned() } else { replicas.join(", ") };
            writeln!(text, "n{} {state}: {list}", host + 1).expect("a text takes every line");
        }
        Transcript { text, lasted: cluster.now().since(model::Time::ZERO) }
    }
}

fn take(cluster: &mut Cluster, past: &mut Past, act: &Act) -> Result<(), String> {
    match act {
        Act::Deploy(user, host, of, spec) => {
            let what = format!("apply {of} with {} replicas", spec.replicas.count);
            sign(cluster, past, (*user, *host), &what, |author, documents, time_ms| {
                author.apply(documents, of.as_str(), spec, time_ms)
            })
        }
        Act::Set(user, host, of, groups) => {
            for (group, json) in groups {
                let what = format!("set {group} of {of} to {json}");
                sign(cluster, past, (*user, *host), &what, |author, documents, time_ms| {
                    author.set(documents, of.as_str(), group, json, time_ms)
                })?;
            }
            Ok(())
        }
        Act::Restart(user, host, of) => one(cluster, past, (*user, *host), "restart", of),
        Act::Delete(user, host, of) => one(cluster, past, (*user, *host), "delete", of),
        Act::RemoveNode(host, gone) => {
            up(cluster, *host)?;
            past.last = Some(cluster.remove_node(*host, *gone));
            Ok(())
        }
        Act::Split(groups) => {
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            cluster.split(&groups);
            Ok(())
        }
        Act::OneWay(from, to) => {
            cluster.cut_one_way(*from, *to);
            Ok(())
        }
        Act::Bridge(one, other) => {
            for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                cluster.cut_one_way(a, b);
                cluster.cut_one_way(b, a);
            }
            Ok(())
        }
        Act::Heal => {
            cluster.heal();
            Ok(())
        }
        Act::PowerOff(hosts) => {
            for host in hosts {
                cluster.power_off(*host);
            }
            Ok(())
        }
        Act::StopPeer(hosts) => hosts.iter().try_for_each(|host| {
            up(cluster, *host)?;
            cluster.stop_peer(*host);
            Ok(())
        }),
        Act::Start(hosts) => hosts.iter().try_for_each(|host| {
            if cluster.state(*host) == HostState::Up {
                return Err(format!("n{} runs already", host + 1));
            }
            cluster.start(*host);
            Ok(())
        }),
        Act::DiskFull(hosts, full) => {
            for host in hosts {
                cluster.disk_full(*host, *full);
            }
            Ok(())
        }
        Act::Remember => {
            past.remembered = cluster.processes().into_iter().collect();
            let hosts: Vec<usize> = (0..cluster.len()).collect();
            cluster.tell(format!("what runs on {} is remembered", Names(&hosts)));
            Ok(())
        }
        Act::Expect(expectation) => expect(cluster, past, expectation),
    }
}

fn expect(cluster: &mut Cluster, past: &Past, expectation: &Expectation) -> Result<(), String> {
    let Expectation { condition, within, holds } = expectation;
    cluster.tell(format!("EXPECT within {within:?}: {condition}"));
    let Some(took) = cluster.run_until(*within, |cluster| condition.holds(cluster, past)) else {
        cluster.tell(format!("FAILED not within {within:?}: {condition}"));
        return Err(format!("not within {within:?}: {condition}"));
    };
    cluster.tell(format!("HOLDS after {:.3} s: {condition}", took.as_secs_f64()));
    if holds.is_zero() {
        return Ok(());
    }
    if cluster.run_until(*holds, |cluster| !condition.holds(cluster, past)).is_some() {
        cluster.tell(format!("FAILED did not last {holds:?}: {condition}"));
        return Err(format!("did not last {holds:?}: {condition}"));
    }
    cluster.tell(format!("HELD for {holds:?}: {condition}"));
    Ok(())
}

fn up(cluster: &Cluster, host: usize) -> Result<(), String> {
    if cluster.state(host) == HostState::Up { Ok(()) } else { Err(format!("n{} does not run", host + 1)) }
}

fn one(
    cluster: &mut Cluster,
    past: &mut Past,
    who: (User, usize),
    verb: &'static str,
    of: &Name,
) -> Result<(), String> {
    sign(cluster, past, who, &format!("{verb} {of}"), |author, documents, time_ms| match verb {
        "restart" => author.restart(documents, of.as_str(), time_ms),
        _ => author.delete(documents, of.as_str(), time_ms),
    })
}

fn sign(
    cluster: &mut Cluster,
    past: &mut Past,
    (user, host): (User, usize),
    what: &str,
    with: impl FnOnce(&mut crate::Author, &document::Documents, i64) -> Option<Vec<u8>>,
) -> Result<(), String> {
    up(cluster, host)?;
    let signed = cluster.sign_and_submit(host, user, what, with);
    let (command, _) = signed.ok_or_else(|| format!("there is nothing to {what} at n{}", host + 1))?;
    past.last = Some(command);
    Ok(())
}
