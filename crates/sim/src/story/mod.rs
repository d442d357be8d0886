//! Random stories: a cluster, every fault at once, then calm for all or for a core; what must hold of each.
//!
//! Everything is drawn from the seed, the probabilities themselves included (one story has no cuts and
//! many kills, another the reverse), so that rare mixtures come up too. A story is a list of steps and
//! can be run without some of them: a failure is shrunk by leaving out what it does not need.
//!
//! - `draw`, `action`: a seed becomes a world and steps.
//! - `rare`, `work`: what some stories have beside all else.
//! - `run`, `take`: the steps are taken; a failure is made smaller.
//! - `check`, `unrun`: the world becomes calm; what must hold then, and what must have held all the time.
//! - `written`: a story as a scenario file, for people who take it further.

mod action;
mod check;
mod draw;
mod rare;
mod run;
mod take;
mod unrun;
mod work;
mod written;

use std::fmt;
use std::time::Duration;

pub use action::{Action, Bad, Cuts, Kind};
pub use check::Took;
pub(crate) use check::comes_to_rest;
pub use draw::{Ending, Outside, Shape, Step, Story};
pub use work::Offer;

/// All of one story.
#[derive(Clone, Debug)]
pub struct Told {
    /// How long the cluster took to come to rest, or what did not hold.
    pub ended: Result<Took, String>,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// Virtual time from the first switch to the last check.
    pub lasted: Duration,
    /// Machines in the end: those that joined are among them.
    pub machines: usize,
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

impl Failure {
    /// What did not hold, without when and of whom: two failures of one kind may be one bug.
    pub fn kind(&self) -> String {
        kind_of(&self.what)
    }
}

/// The kind of a failure, by its words: see [`Failure::kind`].
pub fn kind_of(what: &str) -> String {
    let timed = what.starts_with(|first: char| first.is_ascii_digit());
    what.split(' ').skip(usize::from(timed)).take(3).collect::<Vec<_>>().join(" ")
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
