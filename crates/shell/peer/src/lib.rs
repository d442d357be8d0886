//! The daemon: the tasks, mailboxes and folders around the core's state machine.
//!
//! It carries out effects and reports what happened; it never decides. An `if` about deployments
//! here is in the wrong crate.
//!
//! - `setup` prepares a data folder: `init` for the first node, `join` for the others. Both may be cut
//!   off at any moment and repeated.
//! - `run` is the daemon: one task owns `node::Node`, one thread owns the journal, one task each
//!   owns the mesh endpoint, the Unix socket and the containers.
//!
//! Invariants: one peer per data folder; nothing is acknowledged or sent before the journal has
//! synced it; containers are supervised by their own processes and outlive this one; a start writes
//! nothing that needs room on the disk, but for what `room` has kept.
#![forbid(unsafe_code)]

mod admit;
mod backend;
mod config;
mod containers;
mod daemon;
mod images;
mod jobs;
mod joining;
mod leases;
mod logs;
mod mind;
mod notices;
mod park;
pub mod pressure;
mod reach_in;
mod room;
mod rows;
#[cfg(feature = "sabotage")]
pub mod sabotage;
mod setup;
mod watch;

pub use config::{Amounts, Config, ConfigError, Overcommit, Pressure, Reserve};
pub use daemon::{RunError, measured_capacity, run};
pub use joining::TalkError;
pub use setup::{InitError, Initialised, JoinError, Joined, NodeOptions, init, join};
