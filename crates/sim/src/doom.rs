//! Programs that end by themselves, each time that they are started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ContainerId, Name};
use node::Exit;
use rand::RngExt;

use crate::world::{Cluster, Happening, Settings};

/// Which programs end, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doom {
    /// Of which deployment.
    pub(crate) of: Name,
    /// On which machines.
    pub(crate) on: BTreeSet<usize>,
    /// Only those that were given these variables; all where there is none.
    pub(crate) env: BTreeMap<String, String>,
    /// How long after their start.
    pub(crate) after: Duration,
    /// Their exit code.
    pub(crate) code: i32,
}

/// How the programs of one deployment end by themselves, in every world that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Of which deployment.
    pub of: Name,
    /// Shortest and longest time that one runs.
    pub runs: (Duration, Duration),
    /// Of a thousand so many end badly.
    pub fails: u32,
    /// Of a thousand so many run on for ever.
    pub endless: u32,
}

/// Runs of one deployment in a story, at most: completions times tries, one after the other.
const RUNS_MAX: u32 = 36;

/// What a job that fails again and again waits for in all: each of its replicas some seconds.
const BACK_OFFS: Duration = Duration::from_secs(120);

impl Settings {
    /// How long jobs go on after all else has come to rest, at most, where one waits for the other.
    pub(crate) fn jobs_take(&self) -> Duration {
        let take = |it: &Program| (it.runs.1 + self.start) * RUNS_MAX + BACK_OFFS;
        self.programs.iter().map(take).sum()
    }
}

impl Cluster {
    /// From its next start on, every such program ends by itself.
    pub(crate) fn dooms(&mut self, doom: Doom) {
        self.dooms.push(doom);
    }

    /// From its next start on, every program of the deployment runs again.
    pub(crate) fn spare(&mut self, of: &Name) {
        self.dooms.retain(|doom| doom.of != *of);
    }

    /// A program was started: it ends by itself if it is one of those.
    pub(crate) fn doom(&mut self, host: usize, container: ContainerId, pid: u32) {
        let Some(claim) = self.hosts[host].kernel.get(&container).map(|it| &it.claim) else { return };
        let is_meant = |doom: &&Doom| {
            doom.of == claim.replica.deployment
                && doom.on.contains(&host)
                && doom.env.iter().all(|(key, value)| claim.run.env.get(key) == Some(value))
        };
        if let Some(Doom { after, code, .. }) = self.dooms.iter().find(is_meant) {
            let (after, code) = (*after, *code);
            self.will_end(host, container, pid, after, code);
        } else if let Some(program) =
            self.settings.programs.iter().find(|it| it.of == claim.replica.deployment)
        {
            let Program { runs, fails, endless, .. } = program.clone();
            let after = self.between(runs);
            let draw = self.rng.random_range(0..1_000);
            let code = i32::from(self.rng.random_range(0..1_000) < fails);
            if draw >= endless {
                self.will_end(host, container, pid, after, code);
            }
        }
    }

    fn will_end(&mut self, host: usize, container: ContainerId, pid: u32, after: Duration, code: i32) {
        let at = self.now + after;
        if let Some(entry) = self.hosts[host].kernel.get_mut(&container) {
            entry.ends_at = Some(at);
        }
        self.at(after, host, Happening::Failed { container, pid, code });
    }

    /// Its time has come, if it still is that program.
    pub(crate) fn failed(&mut self, host: usize, container: ContainerId, pid: u32, code: i32) {
        if self.hosts[host].kernel.get(&container).is_some_and(|entry| entry.pid == Some(pid)) {
            self.exits(host, container, Exit { code: Some(code), ..Exit::default() });
        }
    }
}
