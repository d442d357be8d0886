//! A node that is to be looked after: what it runs moves elsewhere, and what has not moved by the deadline
//! is stopped.
//!
//! Moving is the planner's: nothing may stay on a node that drains, and each deployment replaces its
//! replicas there one after the other. The deadline is counted by the node itself, from when it learned of
//! it or was started since; no clock is compared with another.

use std::time::Duration;

use document::event::Schedule;
use model::Time;

use crate::state::Node;

/// A deadline that this node was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainDeadline {
    /// As it was said.
    deadline_s: u32,
    /// When it has come.
    pub(crate) at: Time,
}

impl Node {
    /// The cluster document says something else of some node: a plan depends on it.
    pub(crate) fn schedule_changed(&mut self) {
        self.dirty = true;
        self.own_ordinal = self.ordinals().get(&self.config.me).copied();
        let own = self.documents.roster().nodes.get(&self.config.me);
        let schedule = own.map(|own| own.schedule).unwrap_or_default();
        let asked = own.and_then(|own| own.deadline_s).filter(|_| schedule == Schedule::Drained);
        let known = self.drain_deadline.filter(|known| Some(known.deadline_s) == asked);
        self.drain_deadline = asked.map(|deadline_s| {
            let at = self.now + Duration::from_secs(deadline_s.into());
            known.unwrap_or(DrainDeadline { deadline_s, at })
        });
        if schedule == self.schedule {
            return;
        }
        self.schedule = schedule;
        let what = match schedule {
            Schedule::Normal => "this node takes work again",
            Schedule::Cordoned => "this node takes no new work; what it runs stays",
            Schedule::Drained => "what this node runs moves elsewhere",
        };
        self.notice("node-schedule", None, what);
    }

    /// Whether this node stops whatever it still runs.
    pub(crate) fn is_drain_overdue(&self) -> bool {
        self.drain_deadline.is_some_and(|deadline| deadline.at <= self.now)
    }

    /// When a deadline of this node comes.
    pub(crate) fn next_drain_wake(&self) -> Option<(Time, &'static str)> {
        let deadline = self.drain_deadline.filter(|deadline| deadline.at > self.now);
        deadline.map(|deadline| (deadline.at, "what did not move off this node is stopped"))
    }
}
