//! PID 1 of a container: passes signals on to the program and buries orphans.
//!
//! It executes nothing, opens nothing, and keeps one capability (to signal a program that has
//! another user). When the program has ended it tells how and ends too, and the kernel kills
//! whatever else is left in the container.

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use crate::error::StartError;
use crate::sys;

use super::capability;

/// Signals that are init's own business: passing on SIGCHLD would tell the program nothing.
fn is_ours(signal: i32) -> bool {
    signal == libc::SIGCHLD
}

/// Runs until the program ends, and with it the container.
pub(super) fn run(program: i32, status: BorrowedFd<'_>) -> Result<Infallible, StartError> {
    // After the fork there is nobody left to tell of an error but the supervisor, by our exit.
    if capability::keep_only_kill().is_err() || sys::set_name(c"skerry-init").is_err() {
        sys::exit_now(1);
    }
    sys::trim_memory();
    loop {
        match sys::next_signal() {
            Ok(signal) if is_ours(signal) => bury(program, status),
            Ok(signal) => match sys::kill(program, signal) {
                // Gone already: its SIGCHLD is on the way.
                Ok(()) | Err(_) => {}
            },
            // Interrupted, by being stopped and continued.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => sys::exit_now(1),
        }
    }
}

/// Takes every child that has ended; the program's end is the container's.
fn bury(program: i32, status_pipe: BorrowedFd<'_>) {
    while let Ok(Some((pid, status))) = sys::reap() {
        if pid == program {
            let told = sys::write(status_pipe, &status.to_ne_bytes());
            sys::exit_now(i32::from(told.is_err()));
        }
    }
}
