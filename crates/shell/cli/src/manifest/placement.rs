//! The fields that say where a deployment runs: which nodes, spread how, beside whom, before whom.

use std::collections::BTreeMap;

use model::limits::{AFFINITIES_MAX, PREFERENCES_MAX, REQUIREMENTS_MAX, SPREAD_MAX, WEIGHT_MAX};
use model::{Affinity, HOST, LabelKey, Mode, Name, PlacementGroup, Preference, Priority, Requirement};

use super::node::{Node, Value};
use super::read::Reader;
use super::start_of;

/// The fields of a preference.
pub(super) const PREFERENCE_FIELDS: [&str; 2] = ["when", "weight"];

/// What a preference counts that says no weight: as much as a tenth of the node.
const WEIGHT: i32 = 10;

type Fields<'n> = BTreeMap<&'static str, &'n Node>;

impl Reader {
    /// All of them. What is wrong is noted.
    pub(super) fn placement(&mut self, fields: &Fields<'_>) -> PlacementGroup {
        let mut placement = PlacementGroup::default();
        match fields.get("constraints") {
            Some(node) if matches!(node.value, Value::List(_) | Value::Text(_)) => {
                let texts = self.one_or_more(node, "constraints", REQUIREMENTS_MAX);
                placement.require =
                    texts.into_iter().filter_map(|(n, what)| self.requirement(n, &what)).collect();
            }
            Some(node) => placement.labels = self.labels(node, "constraints"),
            None => {}
        }
        if let Some(node) = fields.get("prefer") {
            for (item, what) in self.one_or_more(node, "prefer", PREFERENCES_MAX) {
                placement.prefer.extend(self.preference(item, &what));
            }
        }
        if let Some(node) = fields.get("spread") {
            for (item, what) in self.one_or_more(node, "spread", SPREAD_MAX) {
                let Some(key) = self.label_key(item, &what) else { continue };
                if placement.spread.contains(&key) {
                    self.note(item.place, format!("{what}: `{key}` is there twice"));
                }
                placement.spread.push(key);
            }
        }
        for (field, list) in [("near", &mut placement.near), ("apart", &mut placement.apart)] {
            if let Some(node) = fields.get(field) {
                for (item, what) in self.one_or_more(node, field, AFFINITIES_MAX) {
                    list.extend(self.affinity(item, &what));
                }
            }
        }
        let words = Priority::ALL.map(|it| (it.as_str(), it));
        if let Some(priority) = fields.get("priority").and_then(|node| self.word(node, "priority", &words)) {
            placement.priority = priority;
        }
        placement
    }

    /// How the number of replicas is found; `None` where it is a job.
    pub(super) fn mode(&mut self, fields: &Fields<'_>) -> Option<Mode> {
        let words = [("replicated", Some(Mode::Replicated)), ("global", Some(Mode::Global)), ("job", None)];
        let mode = fields
            .get("mode")
            .and_then(|node| self.word(node, "mode", &words))
            .unwrap_or(Some(Mode::Replicated));
        if let (Some(Mode::Global), Some(replicas)) = (mode, fields.get("replicas")) {
            self.note_with(
                replicas.place,
                "replicas has no place beside mode `global`, which runs one on every node that meets the constraints",
                "leave one of the two out",
            );
        }
        mode
    }

    /// A list, or one entry without its brackets; each with what it is called.
    pub(super) fn one_or_more<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        max: usize,
    ) -> Vec<(&'n Node, String)> {
        match &node.value {
            Value::Text(_) | Value::Map(_) => vec![(node, what.to_owned())],
            _ => {
                let items = self.list(node, what, max);
                items.iter().enumerate().map(|(n, item)| (item, format!("{what}[{n}]"))).collect()
            }
        }
    }

    fn requirement(&mut self, node: &Node, what: &str) -> Option<Requirement> {
        let text = self.text(node, what)?;
        text.parse().map_err(|error| self.note(node.place, format!("{what}: {error}"))).ok()
    }

    fn preference(&mut self, node: &Node, what: &str) -> Option<Preference> {
        if matches!(node.value, Value::Text(_)) {
            return Some(Preference { when: self.requirement(node, what)?, weight: WEIGHT });
        }
        let before = self.problems.len();
        let fields = self.fields(node, what, &PREFERENCE_FIELDS)?;
        // A misspelt one was named already.
        if !fields.contains_key("when") && self.problems.len() == before {
            self.note(node.place, format!("{what} has no `when`, a condition like `disk = ssd`"));
        }
        let when = fields.get("when").and_then(|when| self.requirement(when, &format!("{what}.when")));
        let weight =
            fields.get("weight").map_or(Some(WEIGHT), |node| self.weight(node, &format!("{what}.weight")));
        Some(Preference { when: when?, weight: weight? })
    }

    fn weight(&mut self, node: &Node, what: &str) -> Option<i32> {
        let Value::Whole(number) = node.value else {
            self.note(node.place, format!("{what} must be a whole number, found {}", node.value.found()));
            return None;
        };
        let weight = i32::try_from(number).ok().filter(|it| *it != 0 && it.abs() <= WEIGHT_MAX);
        if weight.is_none() {
            self.note_with(
                node.place,
                format!("{what} must be 1 to {WEIGHT_MAX}, or -{WEIGHT_MAX} to -1 for nodes to be avoided, found {number}"),
                "10 counts as much as a tenth of the node staying free",
            );
        }
        weight
    }

    fn label_key(&mut self, node: &Node, what: &str) -> Option<LabelKey> {
        let text = self.text(node, what)?;
        text.parse().map_err(|error: model::NameError| self.note(node.place, format!("{what}: {error}"))).ok()
    }

    /// `NAME`, or `NAME within LABEL`.
    fn affinity(&mut self, node: &Node, what: &str) -> Option<Affinity> {
        let text = self.text(node, what)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, within) = match words.as_slice() {
            [name] => (*name, HOST),
            [name, "within", label] => (*name, *label),
            _ => {
                let message = format!(
                    "{what} must be the name of a deployment, or `NAME within LABEL`, found `{}`",
                    start_of(text)
                );
                self.note(node.place, message);
                return None;
            }
        };
        let note =
            |this: &mut Self, error: model::NameError| this.note(node.place, format!("{what}: {error}"));
        let deployment: Option<Name> = name.parse().map_err(|error| note(self, error)).ok();
        let within: Option<LabelKey> = within.parse().map_err(|error| note(self, error)).ok();
        Some(Affinity { deployment: deployment?, within: within? })
    }
}
