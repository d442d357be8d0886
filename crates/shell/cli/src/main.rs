//! The binary `skerry`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::begin(std::env::args_os().collect())
}
