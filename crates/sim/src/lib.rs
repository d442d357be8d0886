//! Many nodes, one thread, virtual time.
//!
//! Drives the real core (`node::Node::handle`) of every node of a cluster against a simulated
//! network, disk and kernel. Nothing here decides anything about deployments: what a node does in a
//! simulation it does in production.
//!
//! - `world`: the queue of what happens when; hands inputs to peers and carries out their effects.
//! - `net`, `kernel`, `host`: the network, what really runs, one machine and what it keeps.
//! - `faults`, `look`: what a test does to a cluster, and what it looks at.
//! - `hostile`: a peer that was taken over, and the false records that it sends.
//! - `doom`: programs that end by themselves.
//! - `author`: users who sign events, as the CLI does.
//! - `join`: machines that are let in while the cluster runs.
//! - `story`: random stories with every fault, and the checks that each must pass.
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
mod doom;
mod faults;
mod host;
mod hostile;
mod join;
mod kernel;
mod look;
mod net;
pub mod scenario;
pub mod story;
mod timeline;
pub mod whatif;
mod world;

pub use author::{Author, Spec};
pub use faults::User;
pub use host::{Container, HostState, Machine};
pub use timeline::Life;
pub use world::{Acked, Cluster, Settings};
