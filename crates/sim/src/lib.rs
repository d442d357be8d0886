//! Many nodes, one thread, virtual time.
//!
//! Drives the real core (`node::Node::handle`) of every node of a cluster against a simulated
//! network, disk and kernel. Nothing here decides anything about deployments: what a node does in a
//! simulation it does in production.
//!
//! - `world`: the queue of what happens when; hands inputs to peers and carries out their effects.
//! - `memory`: what all peers are sent is read once.
//! - `net`, `kernel`, `host`: the network, what really runs, one machine and what it keeps.
//! - `bytes`: what peers send, in bytes, for those who ask.
//! - `distance`: how far apart machines are.
//! - `weather`: what a network does beside cutting: late, twice, clogged, narrow, flapping.
//! - `trouble`: crashes between two effects, pauses, disks of another day, clocks, kernels that refuse.
//! - `members`: machines that are let in while the cluster runs, and that are removed.
//! - `hostile`: members with a valid key that lie of the others, or follow no rule at all.
//! - `faults`, `look`: what a test does to a cluster, and what it looks at.
//! - `check`: what is held against every step of every story.
//! - `doom`, `short`: programs that end by themselves; what machines offer, and what they are short of.
//! - `author`: users who sign events, as the CLI does.
//! - `story`: random stories with every fault, and the checks that each must pass.
//! - `explore`: every order of small scopes.
//! - `scenario`: stories that people write, and their transcripts.
//! - `timeline`: what ran where, from when to when.
//! - `whatif`: what a cut would do to a cluster that somebody has.
//!
//! Invariants: the same seed and the same calls give the same trace, byte for byte; containers
//! survive the death of the peer and not that of the machine; what was not synced is lost by a
//! power cut.
//! Absent on purpose: real time, threads, sockets, files, and any crate of the shell.
#![forbid(unsafe_code)]

mod author;
mod bytes;
mod check;
mod distance;
mod doom;
pub mod explore;
mod faults;
mod host;
mod hostile;
mod kernel;
mod leases;
mod look;
mod members;
mod memory;
mod net;
pub mod scenario;
mod short;
pub mod story;
mod timeline;
mod trace;
mod trouble;
mod weather;
pub mod whatif;
mod world;

pub use author::{Author, Spec};
pub use bytes::Bytes;
pub use check::rules;
pub use doom::Program;
pub use faults::User;
pub use host::{Container, HostState, Machine};
pub use short::Shortage;
pub use timeline::Life;
pub use trouble::Death;
pub use weather::Odds;
pub use world::{Acked, Cluster, Settings};
