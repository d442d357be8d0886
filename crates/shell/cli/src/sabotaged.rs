//! `skerry` as it is, under another name: a build for tests with faults in it never takes the place of
//! the real one.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::begin(std::env::args_os().collect())
}
