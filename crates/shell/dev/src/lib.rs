//! Whole clusters on one machine, for trying things out and for tests, and the demo.
//!
//! A [`Cluster`] is real: each node is the `skerry` binary itself, run as a user would run it, with
//! a data folder, a network namespace and a folder of cgroups of its own; a partition is a packet
//! filter, a power loss is SIGKILL. [`kernel`] says what the kernel shows, which is what demo and
//! tests compare with what peers believe. [`demo`] is the story, [`web`] the small application in it.
//!
//! What must hold:
//! - What belongs to a cluster is found again from its folder alone, also after a kill -9 of whoever
//!   made it, and [`Cluster::down`] leaves nothing: no process, mount, namespace, cgroup or file.
//! - No process is signalled that is not proven to be of the cluster: by a pidfd, and its start time,
//!   its cgroup or its command line.
//! - A folder that is not ours is never emptied.
//! - Peers are told nothing that a user could not tell them: no back door, no shortened timeout.
//!
//! Absent on purpose: decisions about deployments, and any knowledge of how peers work inside.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod demo;
pub mod http;
pub mod kernel;
mod marker;
pub mod meddler;
pub mod process;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod skerry;
pub mod wait;
pub mod web;

pub use cluster::{Cluster, ClusterError, Leftover, NodeState, NodeStatus, Options, User};
