//! The fields of `resources`: what is set aside for a replica, and the most that it may use.

use std::collections::BTreeMap;

use model::limits::{EXTRA_COUNT_MAX, EXTRAS_MAX, PIDS_MAX};
use model::{Extras, LabelKey, Limits, ResourcesGroup};

use super::node::{Node, Value};
use super::read::Reader;
use super::{start_of, units};

/// The fields of `resources`.
pub(super) const RESOURCES_FIELDS: [&str; 5] = ["cpu", "memory", "pids", "extras", "limits"];
/// The fields of `limits`.
pub(super) const LIMITS_FIELDS: [&str; 3] = ["cpu", "memory", "pids"];

impl Reader {
    /// What is set aside. What is wrong is noted.
    pub(super) fn resources(&mut self, node: &Node) -> Option<ResourcesGroup> {
        let fields = self.fields(node, "resources", &RESOURCES_FIELDS)?;
        let default = ResourcesGroup::default();
        let before = self.problems.len();
        let cpu_m = fields.get("cpu").map_or(Some(default.cpu_m), |node| {
            self.amount(node, "resources.cpu", units::CPU_FORMS, units::cpu)
        });
        let memory_b = fields.get("memory").map_or(Some(default.memory_b), |node| {
            self.amount(node, "resources.memory", units::MEMORY_FORMS, units::memory)
        });
        let pids = fields
            .get("pids")
            .map_or(Some(default.pids), |node| self.whole(node, "resources.pids", 1, PIDS_MAX));
        let extras =
            fields.get("extras").map(|node| self.extras(node, "resources.extras")).unwrap_or_default();
        let limits = fields.get("limits").and_then(|node| self.limits(node)).unwrap_or_default();
        if self.problems.len() > before {
            return None;
        }
        let mut group = ResourcesGroup { cpu_m: cpu_m?, memory_b: memory_b?, pids: pids?, extras, limits };
        // A limit that says nothing new makes no other revision.
        let Limits { cpu_m, memory_b, pids } = &mut group.limits;
        *cpu_m = cpu_m.filter(|limit| *limit != group.cpu_m);
        *memory_b = memory_b.filter(|limit| *limit != group.memory_b);
        *pids = pids.filter(|limit| *limit != group.pids);
        Some(group)
    }

    /// The most that a replica may use.
    fn limits(&mut self, node: &Node) -> Option<Limits> {
        let fields = self.fields(node, "resources.limits", &LIMITS_FIELDS)?;
        let cpu_m = fields
            .get("cpu")
            .and_then(|node| self.amount(node, "resources.limits.cpu", units::CPU_FORMS, units::cpu));
        let memory_b = fields.get("memory").and_then(|node| {
            self.amount(node, "resources.limits.memory", units::MEMORY_FORMS, units::memory)
        });
        let pids = fields.get("pids").and_then(|node| self.whole(node, "resources.limits.pids", 1, PIDS_MAX));
        Some(Limits { cpu_m, memory_b, pids })
    }

    /// Named things with whole counts.
    pub(super) fn extras(&mut self, node: &Node, what: &str) -> Extras {
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} must be a group of counts, found {}", node.value.found());
            self.note_with(node.place, message, "write it like `extras: {gpu: 1}`");
            return Extras::NONE;
        };
        if entries.len() > EXTRAS_MAX {
            self.note(node.place, format!("{what} has {} entries, the limit is {EXTRAS_MAX}", entries.len()));
            return Extras::NONE;
        }
        let mut counts: BTreeMap<LabelKey, u64> = BTreeMap::new();
        for (key, value) in entries {
            let Some(word) = self.text(key, &format!("a name in {what}")) else { continue };
            match word.parse::<LabelKey>() {
                Ok(name) => {
                    let of = format!("{what}.{}", start_of(word));
                    counts.extend(self.whole(value, &of, 1, EXTRA_COUNT_MAX).map(|count| (name, count)));
                }
                Err(error) => self.note(key.place, format!("{what}: {error}")),
            }
        }
        match Extras::new(counts) {
            Ok(extras) => extras,
            Err(error) => {
                self.note(node.place, format!("{what}: {error}"));
                Extras::NONE
            }
        }
    }
}
