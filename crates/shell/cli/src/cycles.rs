//! Changes after which deployments would wait for one another are refused, by name.
//!
//! Two sides of a split may each make half of such a cycle: the peers run it all the same, and tell. Whoever
//! changes something else is not kept from that.

use std::collections::BTreeMap;

use model::depends::{Dependencies, cycle_in_words, cycles};
use model::{DependsGroup, Group, Name};

use crate::change::{Prepared, Step};
use crate::error::CliError;
use crate::fields::Groups;

fn read(groups: &Groups) -> DependsGroup {
    // What does not read is told elsewhere, as not valid.
    let json = groups.get(Group::DependsOn.as_str());
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// An error where a step makes a deployment wait for itself, perhaps by way of others.
pub(crate) fn refuse_cycles(prepared: &[Prepared]) -> Result<(), CliError> {
    for one in prepared {
        let mut after: BTreeMap<Name, DependsGroup> = BTreeMap::new();
        for row in &one.authoring.deployments {
            if let Ok(name) = row.name.parse() {
                after.insert(name, read(&row.groups));
            }
        }
        for Step { target, after: groups, .. } in &one.steps {
            match groups {
                Some(groups) => _ = after.insert(target.name.clone(), read(groups)),
                None => _ = after.remove(&target.name),
            }
        }
        let all: Dependencies<'_> = after.iter().map(|(name, it)| (name, it.on.keys().collect())).collect();
        let cycles = cycles(&all);
        let made = |step: &&Step| step.after.as_ref().is_some_and(|it| read(it) != read(&step.before));
        for step in one.steps.iter().filter(made) {
            if let Some((_, cycle)) = cycles.iter().find(|((name, _), _)| **name == step.target.name) {
                return Err(CliError::new(
                    "dependency-cycle",
                    format!("{} would wait for itself: {}", step.target, cycle_in_words(cycle.iter().copied())),
                )
                .hint("take one of these out of `depends-on`, so that one comes first: in a cycle none waits for the next"));
            }
        }
    }
    Ok(())
}
