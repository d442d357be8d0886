//! End-to-end tests: real peers, real containers, real partitions, on this machine. They need root.
#![allow(clippy::unwrap_used, reason = "all of this is test; clippy takes helpers for more")]

mod capacity;
mod containers;
mod crashes;
mod disk;
mod exclusive;
mod input;
mod jobs;
mod joining;
mod order;
mod partitions;
mod rollouts;
mod scheduling;
mod story;

/// Shared by all: three nodes.
const ALL: [&str; 3] = ["n1", "n2", "n3"];

/// A program that does nothing, small.
const QUIET: [&str; 2] = ["command: [/probe, sleep]", "resources: {cpu: 50m, memory: 32Mi, pids: 20}"];

/// As [`QUIET`], with so many replicas.
fn quiet(replicas: usize) -> Vec<String> {
    let mut lines: Vec<String> = QUIET.iter().map(ToString::to_string).collect();
    lines.push(format!("replicas: {replicas}"));
    lines
}

/// Lines as references.
fn lines(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}
