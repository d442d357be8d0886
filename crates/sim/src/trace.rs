//! What a cluster tells of itself: one line for each thing that happens, containers by short names.

use model::ContainerId;

use crate::world::Cluster;

/// Violations that are kept: the first says it all.
const VIOLATIONS_MAX: usize = 4;

impl Cluster {
    /// From now on nothing is told: of a thousand machines it would be a line for each two of them.
    pub const fn without_trace(&mut self) {
        self.traced = false;
    }

    pub(crate) fn tell(&mut self, line: impl AsRef<str>) {
        if !self.traced {
            return;
        }
        self.trace.push(format!("{:>9} {}", format!("{:?}", self.now), line.as_ref()));
    }

    pub(crate) fn violation(&mut self, what: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.tell(format!("VIOLATION {what}"));
            self.violations.push(format!("{:?} {what}", self.now));
        }
    }

    /// The name of a container in the trace; it gets one when it is first spoken of.
    pub(crate) fn name_of_container(&mut self, container: ContainerId) -> String {
        let next = self.names.len() + 1;
        format!("c{}", self.names.entry(container).or_insert(next))
    }

    /// A text with containers by their names instead of their ids.
    pub(crate) fn with_names(&mut self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        for (n, word) in text.split(' ').enumerate() {
            if n > 0 {
                named.push(' ');
            }
            let core = word.trim_end_matches([':', ',', '.', ';']);
            match core.parse::<ContainerId>() {
                Ok(id) => {
                    named.push_str(&self.name_of_container(id));
                    named.push_str(&word[core.len()..]);
                }
                Err(_) => named.push_str(word),
            }
        }
        named
    }
}
