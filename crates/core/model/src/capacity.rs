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

/// The most that one replica may use, where that is more than what is set aside for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Thousandths of a core. As with the others: what is set aside, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_m: Option<u64>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_b: Option<u64>,
    /// Processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether what is set aside is the limit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the kernel is to hold a replica to for which this much is set aside.
    pub fn over(&self, set_aside: &Capacity) -> Capacity {
        Capacity {
            cpu_m: self.cpu_m.unwrap_or(set_aside.cpu_m),
            memory_b: self.memory_b.unwrap_or(set_aside.memory_b),
            pids: self.pids.unwrap_or(set_aside.pids),
            extras: set_aside.extras.clone(),
        }
    }
}

/// What a node's operator makes of what the machine has: how much of it is kept, and how often the rest is given
/// away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Thousandths of a core that are kept for the system, and offered to nobody.
    pub reserved_cpu_m: u64,
    /// Bytes of memory that are kept.
    pub reserved_memory_b: u64,
    /// Of the rest so much of the processors is offered, in percent: above 100 it is over-committed.
    pub cpu_percent: u16,
    /// The same of memory.
    pub memory_percent: u16,
}

impl Default for Terms {
    /// Nothing is kept, and nothing is given away twice.
    fn default() -> Self {
        Self { reserved_cpu_m: 0, reserved_memory_b: 0, cpu_percent: 100, memory_percent: 100 }
    }
}

impl Terms {
    /// What is offered of what there is.
    pub fn offered(&self, has: &Capacity) -> Capacity {
        let part = |has: u64, reserved: u64, percent: u16| {
            let whole = u128::from(has.saturating_sub(reserved)) * u128::from(percent) / 100;
            u64::try_from(whole).unwrap_or(u64::MAX)
        };
        Capacity {
            cpu_m: part(has.cpu_m, self.reserved_cpu_m, self.cpu_percent),
            memory_b: part(has.memory_b, self.reserved_memory_b, self.memory_percent),
            pids: has.pids,
            extras: has.extras.clone(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_never_offered_and_the_rest_as_often_as_the_operator_says() {
        let has = Capacity { cpu_m: 2_000, memory_b: 1 << 30, pids: 500, extras: Extras::NONE };
        assert_eq!(Terms::default().offered(&has), has);
        let terms =
            Terms { reserved_cpu_m: 500, reserved_memory_b: 1 << 29, cpu_percent: 150, memory_percent: 100 };
        assert_eq!(terms.offered(&has), Capacity { cpu_m: 2_250, memory_b: 1 << 29, ..has.clone() });
        let all = Terms { reserved_cpu_m: 9_000, ..Terms::default() };
        assert_eq!(all.offered(&has).cpu_m, 0);
    }

    #[test]
    fn limits_that_are_not_said_are_what_is_set_aside() {
        let set_aside = Capacity { cpu_m: 200, memory_b: 64 << 20, pids: 64, extras: Extras::NONE };
        assert_eq!(Limits::default().over(&set_aside), set_aside);
        let limits = Limits { cpu_m: Some(1_000), ..Limits::default() };
        assert_eq!(limits.over(&set_aside), Capacity { cpu_m: 1_000, ..set_aside });
    }
}
