//! Containers of this node that make room for what is of a higher priority.
//!
//! The plan says which; this node waits while another that is alive knows of events that it does not know.
//! A replica that is deleted there looks from here as if it ran nowhere, and would have others stopped for
//! it. The events are on their way, and are on the disk here a moment later.

use std::time::Duration;

use model::{ContainerId, ReplicaId, Time};

use crate::state::Node;

/// For so long it is waited for events that another knows of: some round trips and syncs of a slow disk. A disk
/// that takes nothing must not keep important work from running.
const BEHIND_MAX: Duration = Duration::from_secs(2);

impl Node {
    /// The replica of a higher priority that this container is to make room for.
    pub(crate) fn yields_to(&self, container: ContainerId) -> Option<ReplicaId> {
        let waits = self.behind_until.is_some_and(|until| until > self.now);
        let may = self.settled && !self.removed && !waits;
        self.planner.last().yields.get(&container).filter(|_| may).cloned()
    }

    /// Sees whether others know of events that this node lacks, where something is to make room on it.
    pub(crate) fn look_whether_behind(&mut self) {
        let yields = self.planner.last().yields.keys().any(|container| self.mine.contains_key(container));
        if !yields || !self.is_behind() {
            self.behind_until = None;
        } else if self.behind_until.is_none() {
            self.behind_until = Some(self.now + BEHIND_MAX);
        }
    }

    fn is_behind(&self) -> bool {
        let mut heads = self
            .records
            .iter()
            .filter(|record| self.alive.contains(&record.node))
            .flat_map(|record| record.heads.values().flatten());
        // What is not on the disk yet is not acted on either.
        !self.at_journal.is_empty() || heads.any(|head| !self.documents.contains(*head))
    }

    /// When it has waited long enough.
    pub(crate) fn next_behind_wake(&self) -> Option<(Time, &'static str)> {
        let until = self.behind_until.filter(|until| *until > self.now)?;
        Some((until, "something makes room, whatever others know"))
    }

    /// Whether that time has come.
    pub(crate) fn is_done_waiting(&self) -> bool {
        self.behind_until.is_some_and(|until| until == self.now)
    }
}
