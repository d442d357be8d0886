//! What the kernels run, look by look: each container with what it was made for, which lies beside it on
//! its node's disk, and with the limits that its cgroups hold. What peers say of it is not asked here.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use dev::kernel::{self, Limits};
use dev::process::Process;
use model::{Capacity, ReplicaId, Revision, Time};
use serde::Deserialize;

use super::stage::Stage;
use crate::look::env_of;

/// A container with a program that runs.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// The machine.
    pub(super) host: usize,
    /// The container.
    pub(super) id: String,
    /// Its first process: with another one it is another life of the container.
    pub(super) init: Process,
    /// The process of its program.
    pub(super) program: Process,
    /// What it was made for.
    pub(super) made: Made,
    /// Its limits, by the kernel.
    pub(super) limits: Limits,
    /// When it was first seen to run.
    pub(super) since: Time,
    /// When it was last seen to.
    pub(super) seen: Time,
}

impl Life {
    /// The container, the replica and the machine, for people.
    pub(super) fn name(&self, stage: &Stage) -> String {
        format!("{} ({:?}) on {}", self.id, self.made.replica, stage.name(self.host))
    }
}

/// What a container was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// The replica.
    pub(super) replica: ReplicaId,
    /// The template.
    pub(super) revision: Revision,
    /// The limits that it was to have.
    pub(super) resources: Capacity,
}

/// The part of `spec.json` that is needed.
#[derive(Deserialize)]
struct Spec {
    claim: Claim,
}

/// The part of a claim that is needed.
#[derive(Deserialize)]
struct Claim {
    replica: ReplicaId,
    revision: Revision,
    run: Run,
}

/// The part of what is run that is needed.
#[derive(Deserialize)]
struct Run {
    resources: Capacity,
}

/// What a look found that the one before did not, and what it did not find any more.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Lives that began.
    pub(super) began: Vec<Life>,
    /// Lives that ended.
    pub(super) ended: Vec<Life>,
}

/// All lives that run, by machine and container.
#[derive(Debug, Default)]
pub(super) struct Lives {
    running: BTreeMap<(usize, String), Life>,
}

impl Lives {
    /// Those that ran at the last look.
    pub(super) fn all(&self) -> impl Iterator<Item = &Life> {
        self.running.values()
    }

    /// Those of one machine.
    pub(super) fn on(&self, host: usize) -> impl Iterator<Item = &Life> {
        self.running.values().filter(move |life| life.host == host)
    }

    /// Looks at every kernel, one after the other.
    pub(super) fn look(&mut self, stage: &Stage) -> Result<Change> {
        let (mut change, mut running) = (Change::default(), BTreeMap::new());
        for host in stage.hosts() {
            let cgroup = stage.cluster.cgroup(stage.name(host));
            let found = kernel::containers(&cgroup).context("the kernel cannot be asked")?;
            let now = stage.now();
            for (id, processes) in found {
                let processes: Vec<Process> = processes.into_iter().collect();
                let Some(init) = processes.iter().min_by_key(|it| (it.start_ticks, it.pid)).copied() else {
                    continue;
                };
                let key = (host, id);
                let known = self.running.remove(&key);
                if let Some(life) = &known
                    && life.init == init
                    && processes.contains(&life.program)
                {
                    running.insert(key, Life { seen: now, ..life.clone() });
                    continue;
                }
                // Its first process may have ended between two readings of the same group: then it ends.
                let began = known.as_ref().is_none_or(|life| !life.init.is_alive());
                change.ended.extend(known);
                if let Some(life) = begun(stage, &key, init, &processes, now)?.filter(|_| began) {
                    change.began.push(life.clone());
                    running.insert(key, life);
                }
            }
        }
        change.ended.extend(std::mem::replace(&mut self.running, running).into_values());
        Ok(change)
    }
}

/// A life that begins; none yet where its program is not yet executed, or all of it has ended meanwhile.
fn begun(
    stage: &Stage,
    (host, id): &(usize, String),
    init: Process,
    processes: &[Process],
    now: Time,
) -> Result<Option<Life>> {
    let program = processes.iter().find(|process| !env_of(std::slice::from_ref(*process)).is_empty());
    let Some(program) = program.copied() else { return Ok(None) };
    let node = stage.name(*host);
    let limits = kernel::limits(&format!("{}/{id}", stage.cluster.cgroup(node)))?;
    let path = stage.cluster.dir().join(node).join("containers").join(id).join("spec.json");
    // Gone, if it ended meanwhile.
    let Ok(text) = fs::read(&path) else { return Ok(None) };
    if !program.is_alive() {
        return Ok(None);
    }
    let Spec { claim: Claim { replica, revision, run } } =
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    let made = Made { replica, revision, resources: run.resources };
    let life = Life { host: *host, id: id.clone(), init, program, made, limits, since: now, seen: now };
    Ok(Some(life))
}
