//! The shapes that `sim` answers with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One row of `sim ls`: a scenario that ships with the binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioRow {
    /// What `sim run` calls it.
    pub name: String,
    /// What it is about, in a line.
    pub story: String,
    /// Machines.
    pub nodes: usize,
    /// The seed that it is written for.
    pub seed: u64,
    /// What is expected in it, a number of steps.
    pub expectations: usize,
}

/// `sim run`: how a scenario, or random stories, ended under one or many seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SimRun {
    /// The scenario; `null` for random stories.
    pub scenario: Option<String>,
    /// The first seed.
    pub from: u64,
    /// How many seeds were run.
    pub seeds: u64,
    /// How many of them held in all that is expected.
    pub held: u64,
    /// Those that did not, by seed.
    pub failures: Vec<SimFailure>,
    /// Virtual time of all nodes together, in hours.
    pub node_hours: f64,
    /// How long it took, in seconds of real time.
    pub took_s: f64,
    /// The transcript, a line each, where one seed of a scenario was run.
    pub transcript: Vec<String>,
    /// What was expected, in order, where one seed of a scenario was run.
    pub expectations: Vec<SimExpectation>,
}

/// One expectation of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimExpectation {
    /// Where it is written.
    pub line: usize,
    /// What was expected.
    pub condition: String,
    /// Whether it held; `null` where the scenario ended before it.
    pub held: Option<bool>,
}

/// A seed under which something did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimFailure {
    /// The seed.
    pub seed: u64,
    /// Where in the scenario's file, as `FILE:LINE`.
    pub at: Option<String>,
    /// What did not hold.
    pub what: String,
    /// The command that shows it again.
    pub replay: String,
}

/// `sim seed`: a random story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SimSeed {
    /// The seed.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// What was done, each with its time; the shrunk steps with `--shrink`.
    pub steps: Vec<String>,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// What did not hold; `null` where everything did.
    pub failed: Option<String>,
    /// The shrunk story as a scenario file, with `--shrink`, where something did not hold.
    pub scenario: Option<String>,
}
