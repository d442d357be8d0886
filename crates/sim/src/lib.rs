//! Many nodes, one thread, virtual time.
//!
//! Drives the real core (`node::Node::handle`) of every node of a cluster against a simulated
//! network, disk and kernel. Nothing here decides anything about deployments: what a node does in a
//! simulation it does in production.
//!
//! - `world`: the queue of what happens when, and the faults that a test or scenario asks for.
//! - `host`: one machine: its peer, its disk, its kernel; what survives which fault.
//! - `author`: users who sign events, as the CLI does.
//!
//! Invariants: the same seed and the same calls give the same trace, byte for byte; containers
//! survive the death of the peer and not that of the machine; what was not synced is lost by a
//! power cut.
//! Absent on purpose: real time, threads, sockets, files, and any crate of the shell.
#![forbid(unsafe_code)]

mod author;
mod host;
mod world;

pub use author::{Author, Spec};
pub use host::{Container, HostState};
pub use world::{Cluster, Settings};
