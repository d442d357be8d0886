//! Bad input to the real binary and to real peers: what is said, with which exit code, and what is
//! left afterwards.
//!
//! What must hold in every test: the message names the thing and the way out, the exit code is the
//! promised one, and nothing that was there before is lost or changed.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod command_line;
mod containers;
mod disk;
mod events;
mod folders;
mod manifests;
mod noise;
mod tokens;
mod world;
