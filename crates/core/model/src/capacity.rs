//! Amounts of what a node has and a container asks for.

use serde::{Deserialize, Serialize};

use crate::Extras;

/// An amount of each resource. Whole numbers: plans must be equal bit for bit on every machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_m: u64,
    /// Bytes of memory.
    pub memory_b: u64,
    /// Processes.
    pub pids: u64,
    /// Named things, counted whole.
    #[serde(default)]
    pub extras: Extras,
}

impl Capacity {
    /// Whether every part of `asked` is there.
    pub fn holds(&self, asked: &Self) -> bool {
        self.cpu_m >= asked.cpu_m
            && self.memory_b >= asked.memory_b
            && self.pids >= asked.pids
            && self.extras.lacking(&asked.extras).is_none()
    }

    /// What is left after `taken`; no part goes below zero.
    #[must_use]
    pub fn less(&self, taken: &Self) -> Self {
        Self {
            cpu_m: self.cpu_m.saturating_sub(taken.cpu_m),
            memory_b: self.memory_b.saturating_sub(taken.memory_b),
            pids: self.pids.saturating_sub(taken.pids),
            extras: self.extras.less(&taken.extras),
        }
    }

    /// The sum, part by part.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            cpu_m: self.cpu_m.saturating_add(more.cpu_m),
            memory_b: self.memory_b.saturating_add(more.memory_b),
            pids: self.pids.saturating_add(more.pids),
            extras: self.extras.plus(&more.extras),
        }
    }
}
