//! Real containers: everything that the crate promises, on the kernel that is there.
//!
//! This program is its own supervisor, so it has a `main` of its own (`harness = false`). Without
//! root, or where the kernel lacks what containers need, it says so and passes.
#![allow(clippy::print_stdout, reason = "this is a test runner: its report is its output")]
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod deadlines;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod ports;
mod programs;
mod rootless;
mod users;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A test: a sentence, and what checks it.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == runtime::SUPERVISOR_ARG) {
        return exit_code(runtime::supervisor_main(&args));
    }
    if args.get(1).is_some_and(|arg| arg == world::STARTER_ARG) {
        return exit_code(world::starter_main(&args));
    }
    if args.get(1).is_some_and(|arg| arg == rootless::ROOTLESS_ARG) {
        return exit_code(rootless::rootless_main(&args));
    }
    let words: Vec<String> = args.iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let cases: Vec<Case> = [
        deadlines::CASES,
        lifecycle::CASES,
        isolation::CASES,
        limits::CASES,
        logs::CASES,
        ports::CASES,
        programs::CASES,
        rootless::CASES,
        users::CASES,
    ]
    .concat();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in cases {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED, all {} tests of real containers: they need root", cases.len());
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
        .collect();
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, began.elapsed());
        if !passed {
            failed.push(*name);
        }
    }
    world::remove_image();
    println!("\ntest result: {} passed, {} failed: {failed:?}", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
