//! What ran where, from when to when, by the kernels' word. Kept only for those who ask for it
//! beforehand: a random story of hours starts more than anybody looks at.

use std::collections::BTreeMap;

use model::{ContainerId, ReplicaId, Time};

use crate::world::Cluster;

/// One program from its start to its end. A container that is started again has another life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// On which machine.
    pub host: usize,
    /// In which container.
    pub container: ContainerId,
    /// For which replica.
    pub replica: ReplicaId,
    /// The revision number that people see, as it was when it started.
    pub revision_number: u64,
    /// When it started.
    pub from: Time,
    /// When it ended; `None` while it runs.
    pub until: Option<Time>,
    /// Why its node let it go, in the node's words; `None` where it did not.
    pub why: Option<String>,
}

impl Life {
    /// Whether it ran at that time.
    pub fn runs_at(&self, at: Time) -> bool {
        self.from <= at && self.until.is_none_or(|until| until > at)
    }
}

/// All of them, in the order of their starts.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    all: Vec<Life>,
    /// Which of them go on.
    open: BTreeMap<(usize, ContainerId), usize>,
}

impl Cluster {
    /// From now on it is kept what runs where.
    pub fn keep_lives(&mut self) {
        self.lives.get_or_insert_default();
    }

    /// What ran where since [`Cluster::keep_lives`], in the order of the starts.
    pub fn lives(&self) -> &[Life] {
        self.lives.as_ref().map_or(&[], |lives| &lives.all)
    }

    pub(crate) fn life_begins(&mut self, host: usize, container: ContainerId) {
        let (Some(lives), Some(it)) = (&mut self.lives, self.hosts[host].kernel.get(&container)) else {
            return;
        };
        let life = Life {
            host,
            container,
            replica: it.claim.replica.clone(),
            revision_number: it.claim.revision_number,
            from: self.now,
            until: None,
            why: None,
        };
        lives.open.insert((host, container), lives.all.len());
        lives.all.push(life);
    }

    pub(crate) fn life_ends(&mut self, host: usize, container: ContainerId) {
        let Some(lives) = &mut self.lives else { return };
        let Some(at) = lives.open.remove(&(host, container)) else { return };
        let node = self.hosts[host].node.as_ref();
        lives.all[at].until = Some(self.now);
        lives.all[at].why = node.and_then(|node| node.mine().get(&container)?.reason.clone());
    }
}
