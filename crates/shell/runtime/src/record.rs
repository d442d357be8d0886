//! What is known of a container that runs or ran.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::spec::ContainerSpec;

/// How a container ended. Exactly one of `code` and `signal` is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The program's exit code, 0 to 255.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom: bool,
    /// It was killed since the time in which it may run was over.
    #[serde(default)]
    pub overdue: bool,
    /// Milliseconds since 1970 by this machine's clock, when the program had been executed.
    pub started_ms: i64,
    /// The same clock, when the last process was gone.
    pub exited_ms: i64,
}

/// How a program ended that [`Runtime::exec`](crate::Runtime::exec) started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// The exit code, 0 to 255.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

/// A process that cannot be taken for another, not even after its number was given out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number on the host.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub(crate) start_ticks: u64,
}

/// The file `lock`: who holds it, or held it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) boot_id: String,
    pub(crate) supervisor: Process,
}

impl Holder {
    /// Whether that supervisor still runs.
    pub(crate) fn is_alive(&self) -> bool {
        crate::files::boot_id().is_ok_and(|boot| boot == self.boot_id) && self.supervisor.is_alive()
    }
}

/// The file `state.json`: written when the program runs, and left behind if the supervisor dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    pub(crate) boot_id: String,
    pub(crate) supervisor: Process,
    pub(crate) init: Process,
    pub(crate) started_ms: i64,
    pub(crate) degraded: Vec<String>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The container's first process, as the host sees it; its namespaces are `/proc/<pid>/ns/*`.
    pub pid: u32,
    /// Its supervisor.
    pub supervisor_pid: u32,
    /// Milliseconds since 1970 by this machine's clock.
    pub started_ms: i64,
    /// What is missing, in words: see [`Started::degraded`](crate::Started::degraded).
    pub degraded: Vec<String>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its folder is there; it never ran, or its last start failed.
    Created,
    /// A supervisor is at work but has not executed the program yet.
    Starting,
    /// It runs.
    Running(Running),
    /// It ended, and its supervisor told how.
    Exited(ExitRecord),
    /// It ran, and nobody knows how it ended. Nothing of it runs any more.
    Lost {
        /// In words.
        reason: String,
    },
}

/// One folder that a scan found.
#[derive(Debug)]
pub struct Found {
    /// The folder's name.
    pub id: String,
    /// The folder.
    pub path: PathBuf,
    /// What the container shall be, or why its `spec.json` cannot be used.
    pub spec: Result<ContainerSpec, RuntimeError>,
    /// Where it is in its life, or why that cannot be told.
    pub state: Result<State, RuntimeError>,
    /// Whether it was told to stop since it was started last: whoever finds it knows why, if it ended, and
    /// that it will, if it runs. After a power cut this may be forgotten.
    pub stopping: bool,
}

/// What a container uses. `None` where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Microseconds of processor time since it started.
    pub cpu_usec: u64,
    /// Periods in which it was held back by its limit.
    pub throttled: Option<u64>,
    /// Microseconds for which it was held back.
    pub throttled_usec: Option<u64>,
    /// Bytes of memory now, page cache included.
    pub memory_b: Option<u64>,
    /// The most bytes it ever had.
    pub memory_peak_b: Option<u64>,
    /// Processes and threads now, our init included.
    pub pids: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}
