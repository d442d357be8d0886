//! What a manifest promises for a split: `class` and `voters`.

use std::collections::BTreeMap;

use model::limits::VOTERS_MAX;
use model::{Class, NodeId};

use super::node::Node;
use super::read::Reader;

/// The promise, and the names or ids of the voters.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    pub(super) class: Class,
    pub(super) voters: Vec<String>,
}

impl Promise {
    /// In the place of the voters until their names are known to be those of nodes: as many, in order.
    pub(super) fn stand_ins(&self) -> Vec<NodeId> {
        (1..).take(self.voters.len()).map(|n| NodeId::from_bytes([n; 32])).collect()
    }
}

impl Reader {
    pub(super) fn promise(&mut self, fields: &BTreeMap<&'static str, &Node>) -> Promise {
        let classes = [("available", Class::Available), ("exclusive", Class::Exclusive)];
        let class =
            fields.get("class").map_or(Some(Class::Available), |node| self.word(node, "class", &classes));
        let mut voters: Vec<String> = Vec::new();
        if let Some(node) = fields.get("voters") {
            for (n, item) in self.list(node, "voters", VOTERS_MAX).iter().enumerate() {
                let Some(name) = self.text(item, &format!("voters[{n}]")) else { continue };
                if voters.iter().any(|voter| voter == name) {
                    self.note(item.place, format!("voters: `{name}` is named twice"));
                }
                voters.push(name.to_owned());
            }
            if class == Some(Class::Available) {
                self.note_with(
                    node.place,
                    "voters without `class: exclusive`: nobody votes on what may run more than once",
                    "add `class: exclusive`, or leave the voters out",
                );
            }
        }
        if let (Some(Class::Exclusive), Some(node), true) =
            (class, fields.get("class"), !fields.contains_key("voters"))
        {
            self.note_with(
                node.place,
                "class `exclusive` needs voters: the nodes that decide who runs a replica",
                "add `voters: [NODE]` for one that runs it alone, or three to five, like `voters: [n1, n2, n3]`: \
                 then it runs wherever more than half of them are in reach",
            );
        }
        Promise { class: class.unwrap_or_default(), voters }
    }
}
