//! The process beside each container: starts it, serves it, and tells how it ended.
//!
//! One thread, one wait, a few hundred kilobytes. It knows nothing of clusters, and goes on working
//! when the peer that started it is dead, replaced by a newer release, or back again.
//!
//! Invariant: the lock in the container's folder is held for as long as this process lives.

mod connector;
mod control;
mod exec;
mod life;
mod log;
mod ports;
mod proxy;
mod start;
mod trial;
mod users;

pub(crate) use trial::{FOLDER as TRIAL_FOLDER, TRIAL_ARG};

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::error::StartError;
use crate::protocol::{Report, line};
use crate::sys;

/// The first argument that makes the binary a supervisor.
pub const SUPERVISOR_ARG: &str = "__supervisor";

/// Runs the supervisor of one container and returns the process's exit code.
///
/// Called by the binary's `main` before anything else, and above all before any thread is started,
/// when the first argument is [`SUPERVISOR_ARG`]. `args` are all arguments, the binary's name first.
pub fn supervisor_main(args: &[OsString]) -> i32 {
    if let [_, _, dir, id, layer] = args
        && id.as_os_str() == TRIAL_ARG
    {
        let outcome = match trial::run(Path::new(dir), Path::new(layer)) {
            Ok(()) => Report::Possible,
            Err(error) => Report::Failed(error),
        };
        return told(&report(&outcome), 0);
    }
    let [_, _, dir, id] = args else {
        // Nobody but `Runtime::start` calls this, with a pipe as standard output.
        let problem = "it was called with the wrong arguments".to_owned();
        return told(&report(&Report::Failed(StartError::Supervisor { problem })), 2);
    };
    let Some(id) = id.to_str() else {
        let problem = "it was called with an id that is not text".to_owned();
        return told(&report(&Report::Failed(StartError::Supervisor { problem })), 2);
    };
    let mut live = match start::start(Path::new(dir), id) {
        Ok(live) => live,
        Err(error) => return told(&report(&Report::Failed(error)), 1),
    };
    let started = Report::Started {
        pid: live.state.init.pid,
        supervisor_pid: live.state.supervisor.pid,
        started_ms: live.state.started_ms,
        degraded: live.state.degraded.clone(),
    };
    // A peer that died meanwhile finds the container by itself.
    let heard = report(&started).is_ok();
    live.spent.clear();
    sys::trim_memory();
    match life::run(&mut live) {
        Ok(()) => 0,
        // The container dies with this process; the peer finds it lost, and this in the folder.
        Err(error) => {
            told(&writeln!(io::stderr(), "supervisor: {error} (peer heard of the start: {heard})"), 1)
        }
    }
}

/// The exit code, or another one when nobody could be told.
fn told(done: &io::Result<()>, code: i32) -> i32 {
    if done.is_ok() { code } else { 3 }
}

/// Writes the one line that the starter waits for, and lets go of its pipe.
fn report(what: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let wrote = out.write_all(&line(what)).and_then(|()| out.flush());
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    sys::dup_onto(null.as_fd(), 1)?;
    wrote
}
