//! One container's life in Linux, from its folder on disk to the last process of it being gone.
//!
//! Owns: the folder of each container, its namespaces, control groups, root file system, published
//! ports, log and exit record. Each container has a **supervisor**: this same binary, executed again
//! with [`SUPERVISOR_ARG`], single-threaded and small, which outlives the peer that started it. The
//! peer's side is [`Runtime`]: blocking calls that start a supervisor, talk to it, or find it again.
//!
//! What must hold:
//! - A limit that cannot be written, or does not read back as written, is an error: never ignored.
//!   Only without root (and so without control groups) is it left out, and then [`Started::degraded`]
//!   says so.
//! - Root of a container is nobody to the host: its users are a range of ids of its own, or, without
//!   root, whoever started it. Where the machine refuses that, which is tried once and never left to an
//!   image, [`Started::degraded`] says so.
//! - `start` returns once the program itself was executed, or with the precise reason why not.
//! - An exit is told only after every process of the container is gone.
//! - Nothing runs without a supervisor: when one is killed, the kernel kills its container.
//! - After [`Runtime::remove`] nothing is left: no mount, namespace, control group, file or process.
//!
//! PID 1 of a container is a small init of ours, and the program is its child. The kernel discards
//! signals to a PID 1 without handlers, and orphans are reaped by PID 1 alone; most programs are
//! ready for neither. So SIGTERM ends a program that has no handler, at once. Init counts as one
//! process of the container's limit.
//!
//! Absent on purpose:
//! - Ids above 65535: such files of an image are nobody's in a container, such users are refused.
//! - Networks: a container has its own network namespace with loopback and published ports only.
//! - Images: layers are unpacked by others and given as folders.
#![allow(
    unsafe_code,
    reason = "namespaces, clone3 and seccomp have no safe interface; `sys` holds all of it"
)]

mod cgroup;
mod client;
mod container;
mod error;
mod files;
mod protocol;
mod record;
mod runtime;
mod spec;
mod supervisor;
mod sys;
mod users;

pub use client::{ExecControl, ExecRequest, ExecSession};
pub use error::{Errno, RuntimeError, StartError};
pub use record::{ExecExit, ExitRecord, Found, Running, State, Stats};
pub use runtime::{Runtime, Started};
pub use spec::{ContainerSpec, Limits, LogLimits, PublishedPort, SPEC_VERSION, SpecProblem};
pub use supervisor::{SUPERVISOR_ARG, supervisor_main};
pub use users::UserNamespaces;

/// Nanoseconds since this machine was switched on, those included in which it slept (`CLOCK_BOOTTIME`).
pub fn boot_now_ns() -> u64 {
    sys::boottime::now_ns()
}
