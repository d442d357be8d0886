//! `just bench`: what a cluster of real peers costs and how fast it is, measured from outside.
//!
//! Every figure is taken where the kernel shows it (a container's own clock reading, a process's
//! memory, a namespace's counters, the write to a journal), never from what a peer believes. Nothing
//! here is a test: a figure that misses its target is printed as such, and the exit code stays 0.
#![forbid(unsafe_code)]

#[path = "../bench/mod.rs"]
mod bench;

use std::process::ExitCode;

fn main() -> ExitCode {
    bench::main()
}
