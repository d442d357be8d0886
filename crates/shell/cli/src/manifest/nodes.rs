//! Nodes as a file describes them, for a simulation of a cluster that is not there: a list of names,
//! capacities and labels, in the units of manifests.
//!
//! ```yaml
//! - name: shop-1
//!   capacity: {cpu: 2, memory: 1Gi, pids: 500}
//!   labels: {site: north}
//! ```

use std::collections::BTreeMap;

use model::limits::{CPU_M_MAX, MEMORY_B_MAX, NODES_MAX, PIDS_MAX};
use model::{Capacity, LabelKey, Name};

use super::node::{Node, Value, parse};
use super::read::Reader;
use super::{Place, Problem, units};

/// The fields of a node.
const NODE_FIELDS: [&str; 3] = ["name", "capacity", "labels"];
/// The fields of a capacity.
const CAPACITY_FIELDS: [&str; 4] = ["cpu", "memory", "pids", "extras"];

/// The smallest file, for hints.
const SMALLEST: &str =
    "the smallest file of nodes is `[{name: a, capacity: {cpu: 2, memory: 1Gi, pids: 500}}]`";

/// One node of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    /// Its name.
    pub(crate) name: Name,
    /// What it offers to containers; no part is 0.
    pub(crate) capacity: Capacity,
    /// Its labels.
    pub(crate) labels: BTreeMap<LabelKey, String>,
}

/// Reads a file of nodes: 1 to [`NODES_MAX`], each with a name of its own. Every problem found is
/// returned.
pub(crate) fn read(text: &str) -> Result<Vec<NodeSpec>, Vec<Problem>> {
    let tree = parse(text).map_err(|mut problem| {
        // What the reader of text advises is about manifests.
        problem.hint = problem.hint.map(|_| SMALLEST.to_owned());
        vec![problem]
    })?;
    let mut reader = Reader { problems: Vec::new() };
    let nodes = reader.nodes(&tree);
    if reader.problems.is_empty() { Ok(nodes) } else { Err(reader.problems) }
}

impl Reader {
    fn nodes(&mut self, tree: &Node) -> Vec<NodeSpec> {
        if matches!(tree.value, Value::Null) {
            self.note_with(Place::START, "the file is empty", SMALLEST);
            return Vec::new();
        }
        if !matches!(tree.value, Value::List(_)) {
            let message = format!("the file must be a list of nodes, found {}", tree.value.found());
            self.note_with(tree.place, message, SMALLEST);
            return Vec::new();
        }
        let items = self.list(tree, "the list of nodes", NODES_MAX);
        if items.is_empty() && self.problems.is_empty() {
            self.note_with(tree.place, "there is no node", SMALLEST);
        }
        let mut lines: BTreeMap<Name, usize> = BTreeMap::new();
        let mut nodes = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let Some(node) = self.node(item, &format!("nodes[{n}]")) else { continue };
            match lines.get(&node.name) {
                None => _ = lines.insert(node.name.clone(), item.place.line),
                Some(line) => self
                    .note(item.place, format!("node `{}` is there twice: first in line {line}", node.name)),
            }
            nodes.push(node);
        }
        nodes
    }

    fn node(&mut self, item: &Node, what: &str) -> Option<NodeSpec> {
        let before = self.problems.len();
        let fields = self.fields(item, what, &NODE_FIELDS)?;
        for field in ["name", "capacity"] {
            // A misspelt one was named already.
            if !fields.contains_key(field) && self.problems.len() == before {
                self.note_with(item.place, format!("{what} has no `{field}`"), SMALLEST);
            }
        }
        let name = fields.get("name").and_then(|node| self.name(node, "name"));
        let capacity = fields.get("capacity").and_then(|node| self.capacity(node));
        let labels = fields.get("labels").map(|node| self.labels(node, "labels")).unwrap_or_default();
        if self.problems.len() > before {
            return None;
        }
        Some(NodeSpec { name: name?, capacity: capacity?, labels })
    }

    fn capacity(&mut self, node: &Node) -> Option<Capacity> {
        let before = self.problems.len();
        let fields = self.fields(node, "capacity", &CAPACITY_FIELDS)?;
        for field in CAPACITY_FIELDS.into_iter().filter(|it| *it != "extras") {
            if !fields.contains_key(field) && self.problems.len() == before {
                self.note_with(node.place, format!("capacity has no `{field}`"), SMALLEST);
            }
        }
        let cpu = fields.get("cpu").and_then(|node| {
            let amount = self.amount(node, "capacity.cpu", units::CPU_FORMS, units::cpu)?;
            self.in_range(node, "capacity.cpu", amount, CPU_M_MAX)
        });
        let memory = fields.get("memory").and_then(|node| {
            let amount = self.amount(node, "capacity.memory", units::MEMORY_FORMS, units::memory)?;
            self.in_range(node, "capacity.memory", amount, MEMORY_B_MAX)
        });
        let pids = fields.get("pids").and_then(|node| self.whole(node, "capacity.pids", 1, PIDS_MAX));
        let extras =
            fields.get("extras").map(|node| self.extras(node, "capacity.extras")).unwrap_or_default();
        Some(Capacity { cpu_m: cpu?, memory_b: memory?, pids: pids?, extras })
    }

    fn in_range(&mut self, node: &Node, what: &str, amount: u64, most: u64) -> Option<u64> {
        if amount == 0 {
            self.note(node.place, format!("{what} must not be 0"));
        } else if amount > most {
            self.note(node.place, format!("{what} is more than any machine has"));
        } else {
            return Some(amount);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, usize, String) {
        let problems = read(text).expect_err(text);
        (problems[0].place.line, problems[0].place.column, problems[0].message.clone())
    }

    #[test]
    fn nodes_are_read_in_the_units_of_manifests() {
        let text = "- {name: a, capacity: {cpu: 500m, memory: 1Gi, pids: 100}, labels: {site: north}}\n\
                    - name: b\n  capacity: {cpu: 2, memory: 512Mi, pids: 50}\n";
        let nodes = read(text).unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!(
            nodes[0].capacity,
            Capacity { cpu_m: 500, memory_b: 1 << 30, pids: 100, ..Capacity::default() }
        );
        assert_eq!(nodes[0].labels.values().collect::<Vec<_>>(), ["north"]);
        assert_eq!((nodes[1].name.as_str(), nodes[1].capacity.cpu_m), ("b", 2_000));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let good = "capacity: {cpu: 1, memory: 1Gi, pids: 9}";
        for (text, place, message) in [
            ("", (1, 1), "the file is empty"),
            ("[]", (1, 1), "there is no node"),
            ("nodes: []", (1, 1), "the file must be a list of nodes, found a group of fields"),
            ("- {name: a}", (1, 3), "nodes[0] has no `capacity`"),
            ("- name: a\n  capacity: {cpu: 1, memory: 1Gi}", (2, 13), "capacity has no `pids`"),
            (
                "- name: a\n  capacity: {cpu: 1, memroy: 1Gi, pids: 9}",
                (2, 22),
                "unknown field `memroy` in capacity; did you mean `memory`?",
            ),
            (
                "- name: a\n  capacity: {cpu: 1, memory: 1gb, pids: 9}",
                (2, 30),
                "capacity.memory: `1gb` is not an amount of memory; did you mean `1G`?",
            ),
            ("- name: a\n  capacity: {cpu: 0, memory: 1Gi, pids: 9}", (2, 19), "capacity.cpu must not be 0"),
            (&format!("- name: A\n  {good}"), (1, 9), "name: "),
            (
                &format!("- {{name: a, {good}}}\n- {{name: a, {good}}}"),
                (2, 3),
                "node `a` is there twice: first in line 1",
            ),
            (
                &format!("- {{name: a, {good}, lables: {{}}}}"),
                (1, 55),
                "unknown field `lables` in nodes[0]; did you mean `labels`?",
            ),
        ] {
            let (line, column, found) = problem(text);
            assert!(found.starts_with(message), "{text}: {found}");
            assert_eq!((line, column), place, "{text}: {found}");
        }
    }

    #[test]
    fn more_nodes_than_a_roster_takes_are_refused() {
        let text: String = (0..1_001)
            .map(|n| format!("- {{name: n{n}, capacity: {{cpu: 1, memory: 1Gi, pids: 9}}}}\n"))
            .collect();
        assert_eq!(problem(&text).2, "the list of nodes has 1001 entries, the limit is 1000");
    }
}
