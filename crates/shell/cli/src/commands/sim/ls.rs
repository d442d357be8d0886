//! `sim ls`, and the scenarios that ship with the binary.

use sim::scenario::{Act, Scenario};

use crate::Context;
use crate::error::CliError;
use crate::near::nearest;
use crate::shapes::sim::ScenarioRow;

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

/// How alike two names must be for one to be meant by the other, in letters.
const ALIKE: usize = 4;

/// The scenario of that name and the name of its file.
pub(super) fn shipped(name: &str) -> Option<Scenario> {
    let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    Some(read(name, text))
}

fn read(name: &str, text: &str) -> Scenario {
    Scenario::read(&format!("simulations/{name}.toml"), text).expect("what ships was read by a test")
}

/// The name that was probably meant.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    nearest(name, SHIPPED.iter().map(|(known, _)| *known), ALIKE)
}

fn row((name, text): &(&str, &str)) -> ScenarioRow {
    let scenario = read(name, text);
    let expects = |it: &&sim::scenario::Step| matches!(it.act, Act::Expect(_));
    ScenarioRow {
        name: (*name).to_owned(),
        expectations: scenario.steps.iter().filter(expects).count(),
        story: scenario.story,
        nodes: scenario.nodes,
        seed: scenario.seed,
    }
}

pub(crate) fn run(context: &Context) -> Result<(), CliError> {
    let rows: Vec<ScenarioRow> = SHIPPED.iter().map(row).collect();
    context.out.rows(
        &rows,
        |row| row.name.clone(),
        &[
            ("SCENARIO", &|row: &ScenarioRow| row.name.clone()),
            ("NODES", &|row| row.nodes.to_string()),
            ("+SEED", &|row| row.seed.to_string()),
            ("EXPECTS", &|row| row.expectations.to_string()),
            ("STORY", &|row| row.story.clone()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_ships_can_be_read() {
        assert!(SHIPPED.len() >= 6, "{SHIPPED:?}");
        for it in SHIPPED {
            assert!(row(it).expectations > 0, "{it:?}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_answered_with_the_right_one() {
        assert_eq!(meant("brige"), Some("bridge"));
        assert_eq!(meant("cold_start"), Some("cold-start"));
        assert_eq!(meant("something-else"), None);
    }
}
