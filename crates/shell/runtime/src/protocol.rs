//! What peer and supervisor say to one another: one JSON value a line.
//!
//! Peer and supervisor may be of different releases, so a request that is not understood is
//! answered with an error and changes nothing.

use serde::{Deserialize, Serialize};

use crate::client::ExecRequest;
use crate::error::StartError;
use crate::record::{ExecExit, ExitRecord};

/// Arguments and environment of one exec are at most 1 MiB; JSON may double them.
pub(crate) const REQUEST_B_MAX: usize = 4 << 20;

/// A reply holds no more than an error with some paths in it.
pub(crate) const REPLY_B_MAX: usize = 64 << 10;

/// What the first line of a connection asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered with `Ok` at once and `Exit` at the end.
    Watch,
    /// SIGTERM now, SIGKILL after the grace. Answered with `Ok` at once.
    Stop { grace_ms: u64 },
    /// To the program. Answered with `Ok`.
    Signal { signal: i32 },
    /// It may run until then and no longer, where it was started with an end. Answered with `Ok` at once.
    Extend { until_boot_ns: u64 },
    /// SIGKILL to all of it. Answered with `Ok` at once.
    Kill,
    /// Answered with `Exec` and the descriptors, then `ExecExit`.
    Exec(ExecRequest),
}

/// What a later line of an exec connection asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecLine {
    /// Rows and columns of the terminal.
    Resize(u16, u16),
    /// To the program.
    Signal(i32),
}

/// What the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Ok,
    /// The request was not understood or cannot be done.
    Refused(String),
    Exit(ExitRecord),
    /// The program runs; its stdio came with this line.
    Exec {
        pid: u32,
    },
    ExecFailed(StartError),
    ExecExit(ExecExit),
}

/// The one line that a supervisor writes to the peer that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Started {
        pid: u32,
        supervisor_pid: u32,
        started_ms: i64,
        degraded: Vec<String>,
    },
    Failed(StartError),
    /// A trial went well.
    Possible,
}

/// The value as one line.
pub(crate) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("these types have text keys only");
    bytes.push(b'\n');
    bytes
}
