//! A scenario becomes a transcript.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::act::Step;
use super::agenda::Agenda;
use super::condition::Past;
use super::read::Scenario;
use crate::host::HostState;
use crate::world::Cluster;

/// How often a transcript says the same: what is said more often is counted, and told in the end.
const SAME_MAX: u32 = 20;

const TAKES: &str = "a text takes every line";

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

/// What went wrong, and where that is written if not in the step that is taken.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: Option<usize>,
    pub(super) text: String,
}

impl<T: Into<String>> From<T> for Problem {
    fn from(text: T) -> Self {
        Self { line: None, text: text.into() }
    }
}

/// A scenario on its way.
pub(super) struct Run {
    pub(super) cluster: Cluster,
    pub(super) past: Past,
    pub(super) agenda: Agenda,
}

impl Scenario {
    /// Runs the scenario.
    ///
    /// # Errors
    /// When an expectation does not come true or does not last, something that is watched ends, a peer
    /// breaks a rule of the world, or a step cannot be taken.
    pub fn run(&self) -> Result<Transcript, RunError> {
        let cluster = self.found();
        let mut run = Run { cluster, past: Past::default(), agenda: Agenda::default() };
        let failed = |run: &Run, line: usize, problem: Problem| RunError {
            file: self.file.clone(),
            line: problem.line.unwrap_or(line),
            problem: problem.text,
            transcript: self.transcript(&run.cluster),
        };
        for step in &self.steps {
            run.step(step).map_err(|problem| failed(&run, step.line, problem))?;
        }
        let last = self.steps.last().map_or(1, |step| step.line);
        run.finish().map_err(|problem| failed(&run, last, problem))?;
        Ok(self.transcript(&run.cluster))
    }

    fn found(&self) -> Cluster {
        let mut cluster = Cluster::founded(self.seed, self.nodes, &self.outside, self.settings.clone());
        for (host, machine) in &self.machines {
            cluster.offer(*host, machine.offers.clone());
            cluster.label(*host, machine.labels.clone());
        }
        let members = (0..self.nodes).filter(|host| !self.outside.contains(host));
        if !self.switched_off {
            members.for_each(|host| cluster.start(host));
        }
        cluster
    }

    fn transcript(&self, cluster: &Cluster) -> Transcript {
        let mut text = format!("{}\n{} nodes, seed {}\n\n", self.story, self.nodes, self.seed);
        let mut said: BTreeMap<&str, u32> = BTreeMap::new();
        for line in cluster.trace() {
            // The time stands before the first blank.
            let times =
                said.entry(line.trim_start().split_once(' ').map_or("", |(_, what)| what)).or_default();
            *times += 1;
            if *times <= SAME_MAX {
                text.push_str(line);
                text.push('\n');
            }
        }
        let often: Vec<_> = said.iter().filter(|(_, times)| **times > SAME_MAX).collect();
        if !often.is_empty() {
            writeln!(text, "\nSaid more than {SAME_MAX} times, and left out from then on").expect(TAKES);
        }
        for (what, times) in often {
            writeln!(text, "{} times more: {what}", times - SAME_MAX).expect(TAKES);
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
            writeln!(text, "n{} {state}: {list}", host + 1).expect(TAKES);
        }
        Transcript { text, lasted: cluster.now().since(model::Time::ZERO) }
    }
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), Problem> {
        let left = step.at.saturating_sub(self.cluster.now().since(model::Time::ZERO));
        self.pass(left, |_, _| false)?;
        self.take(&step.act, step.line)?;
        self.cluster.violations().first().map_or(Ok(()), |it| Err(it.clone().into()))
    }
}
