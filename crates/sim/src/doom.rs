//! Programs that end by themselves, each time that they are started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ContainerId, Name};
use node::Exit;

use crate::world::{Cluster, Happening};

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
            self.at(after, host, Happening::Failed { container, pid, code });
        }
    }

    /// Its time has come, if it still is that program.
    pub(crate) fn failed(&mut self, host: usize, container: ContainerId, pid: u32, code: i32) {
        if self.hosts[host].kernel.get(&container).is_some_and(|entry| entry.pid == Some(pid)) {
            self.exits(host, container, Exit { code: Some(code), ..Exit::default() });
        }
    }
}
