//! Random stories: a cluster, every fault at once, then calm; and what must hold of each.
//!
//! Everything is drawn from the seed, the probabilities themselves included (one story has no cuts and
//! many kills, another the reverse), so that rare mixtures come up too. A story is a list of steps and
//! can be run without some of them: a failure is shrunk by leaving out what it does not need.
//!
//! - `draw`: a seed becomes a world and steps.
//! - `run`: the steps are taken, the world becomes calm.
//! - `check`: what must hold then, and what must have held all the time.
//! - `written`: a story as a scenario file, for people who take it further.

mod check;
mod draw;
mod run;
mod written;

use std::fmt;
use std::time::Duration;

pub use check::Took;
pub use draw::{Action, Cuts, Step, Story};

/// All of one story.
#[derive(Clone, Debug)]
pub struct Told {
    /// How long the cluster took to come to rest, or what did not hold.
    pub ended: Result<Took, String>,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// Virtual time from the first switch to the last check.
    pub lasted: Duration,
}

/// What did not hold in one story.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The story's seed.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// The steps, as drawn.
    pub steps: Vec<String>,
    /// What happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(f, "--- {} steps", self.steps.len())?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        writeln!(f, "--- trace")?;
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
