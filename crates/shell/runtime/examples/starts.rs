//! How long starts take: `starts IMAGE N` starts `/bin/true` of the folder IMAGE N times, one after the
//! other, and prints for each the milliseconds until its program was executed, and until it was gone.
//!
//! As root: `cargo run --release -p runtime --example starts -- /tmp/image 100`
#![allow(clippy::print_stdout, reason = "what it measures is its output")]

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runtime::{ContainerSpec, Limits, LogLimits, Runtime, SPEC_VERSION, SUPERVISOR_ARG, supervisor_main};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == SUPERVISOR_ARG) {
        return ExitCode::from(u8::try_from(supervisor_main(&args)).unwrap_or(u8::MAX));
    }
    let (Some(image), Some(n)) = (args.get(1), args.get(2).and_then(|n| n.to_str()?.parse::<u32>().ok()))
    else {
        println!("usage: starts IMAGE N");
        return ExitCode::FAILURE;
    };
    let dir = tempfile::tempdir().expect("a folder for containers");
    let exe = std::env::current_exe().expect("the path of this program");
    let runtime = Runtime::new(dir.path(), exe).expect("a runtime folder");
    let mut spec = ContainerSpec {
        version: SPEC_VERSION,
        id: String::new(),
        claim: serde_json::Value::Null,
        lower: vec![image.into()],
        args: vec!["/bin/true".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: None,
        hostname: "starts".into(),
        limits: Limits { cpu_m: 500, memory_b: 64 << 20, pids: 16 },
        cpu_share_m: 0,
        ports: Vec::new(),
        stop_grace_ms: 0,
        log: LogLimits::default(),
        cgroup_parent: format!("skerry-starts-{}", std::process::id()),
        read_only: false,
        until_boot_ns: None,
        fence: None,
    };
    for number in 0..n {
        spec.id = format!("{number:x}");
        runtime.write_spec(&spec).expect("the specification is written");
        let began = Instant::now();
        runtime.start(&spec.id).expect("it starts");
        let started = began.elapsed();
        runtime.wait_blocking(&spec.id, Some(Duration::from_secs(30))).expect("it ends");
        runtime.remove(&spec.id).expect("it is removed");
        println!("{:.3} {:.3}", started.as_secs_f64() * 1e3, began.elapsed().as_secs_f64() * 1e3);
    }
    ExitCode::SUCCESS
}
