//! What the end-to-end tests stand on: clusters of real peers in a temporary folder, and looks at what
//! the kernel shows of them.
//!
//! What must hold:
//! - A test asserts what the kernel shows (processes, cgroups, packets), not what a peer believes;
//!   where it asks a peer too, then to check the one against the other.
//! - After each test nothing is left on the host, and the test fails where something is.
//! - Nothing is waited for by sleeping: conditions are looked at until they hold, with a deadline.
//!
//! Absent on purpose: numbers of performance. A deadline here is generous; `just bench` measures.

pub mod author;
pub mod binary;
pub mod look;
pub mod signals;
pub mod stories;
pub mod world;

pub use look::{Held, eventually, never_within};
pub use world::{LIMIT, World, with_cluster, with_cluster_of};
