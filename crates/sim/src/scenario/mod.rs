//! Stories that people write: a TOML file of steps at times, with what is expected when; running one
//! gives a transcript that a person can read.
//!
//! ```toml
//! story = "One node loses power and the others take over"
//! nodes = 3
//! seed = 7
//!
//! [[step]]
//! at = "3s"
//! deploy = { name = "web", replicas = 6, through = "n1" }
//!
//! [[step]]
//! at = "10s"
//! power_off = ["n3"]
//!
//! [[step]]
//! at = "10s"
//! expect = { runs_once = { name = "web", replicas = 6, on = ["n1", "n2"] }, within = "4s" }
//! ```
//!
//! - `read`: text becomes a scenario, or an error with file, line, column and a hint.
//! - `raw`: the form of the file; `steps` and `expect`: its steps are read.
//! - `act`: what can be done; `condition`: what can be expected.
//! - `run`: a scenario becomes a transcript; `take`: one step is taken.
//! - `agenda`: what goes on beside the steps: links that flap, conditions that are watched.
//!
//! Invariant: the same file gives the same transcript, byte for byte.

mod act;
mod agenda;
mod condition;
mod expect;
mod raw;
mod read;
mod run;
mod steps;
mod take;

pub use act::{Act, CrashLoop, Expectation, Flap, Step};
pub use condition::Condition;
pub use read::{Machine, ReadError, Scenario};
pub use run::{RunError, Transcript};
