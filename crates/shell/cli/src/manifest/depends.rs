//! The field that says what a deployment waits for before it is started.

use std::collections::BTreeSet;

use model::depends::{Dependencies, cycle_in_words, cycles};
use model::limits::DEPENDENCIES_MAX;
use model::{Condition, DependsGroup};

use super::node::{Node, Value};
use super::read::{Reader, Spec};

/// The words for how far another must be.
const CONDITIONS: [(&str, Condition); 3] = [
    (Condition::Started.as_str(), Condition::Started),
    (Condition::Healthy.as_str(), Condition::Healthy),
    (Condition::Completed.as_str(), Condition::Completed),
];

impl Reader {
    /// `{NAME: CONDITION}`, or names alone: those are to be healthy.
    pub(super) fn depends(&mut self, node: &Node) -> DependsGroup {
        let mut depends = DependsGroup::default();
        let found: Vec<_> = if let Value::Map(entries) = &node.value {
            let entry = |(key, value): &(Node, Node)| {
                let name = self.name(key, "a name in depends-on");
                let what = name.as_ref().map_or_else(|| "depends-on".into(), |it| format!("depends-on.{it}"));
                let condition = self.word(value, &what, &CONDITIONS);
                (key.place, name.zip(condition))
            };
            entries.iter().map(entry).collect()
        } else {
            let items = self.one_or_more(node, "depends-on", DEPENDENCIES_MAX).into_iter();
            let item = |(item, what): (&Node, String)| {
                (item.place, self.name(item, &what).zip(Some(Condition::Healthy)))
            };
            items.map(item).collect()
        };
        for (place, (name, condition)) in found.into_iter().filter_map(|(place, it)| Some((place, it?))) {
            if depends.on.insert(name.clone(), condition).is_some() {
                self.note(place, format!("depends-on: `{name}` is there twice"));
            }
        }
        depends
    }

    /// Notes deployments of one file that wait for one another.
    pub(super) fn refuse_cycles(&mut self, specs: &[Spec]) {
        let all: Dependencies<'_> =
            specs.iter().map(|spec| (&spec.name, spec.depends().on.keys().collect())).collect();
        let mut told: BTreeSet<BTreeSet<&model::Name>> = BTreeSet::new();
        for ((name, _), cycle) in cycles(&all) {
            if !told.insert(cycle.iter().copied().collect()) {
                continue;
            }
            let Some(spec) = specs.iter().find(|spec| spec.name == *name) else { continue };
            let message = format!("{name} would wait for itself: {}", cycle_in_words(cycle));
            self.note_with(
                spec.place,
                message,
                "leave one of them out, so that one comes first: in a cycle none waits for the next",
            );
        }
    }
}
