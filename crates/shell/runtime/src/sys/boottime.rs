//! The clock that runs on while the machine sleeps, and an alarm by it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use super::{check_int, own};

const NANOS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds since this machine was switched on, those included in which it slept.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one time. The clock is there since Linux 2.6.39, and reading it cannot fail then.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    assert!(done == 0, "CLOCK_BOOTTIME cannot be read");
    let part = |it: i64| u64::try_from(it).unwrap_or(0);
    part(now.tv_sec) * NANOS_PER_S + part(now.tv_nsec)
}

/// Readable from a moment on.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// One that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: plain numbers; the descriptor is new, and ours.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, flags) };
        check_int(fd).map(|fd| Self(own(fd.into())))
    }

    /// Sets it to that time of [`now_ns`], in the place of the one before; in the past it rings at once.
    pub(crate) fn set(&self, at_ns: u64) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // All zeros would unset it.
        let at_ns = at_ns.max(1);
        let it_value = libc::timespec {
            tv_sec: i64::try_from(at_ns / NANOS_PER_S).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at_ns % NANOS_PER_S).unwrap_or(0),
        };
        let spec = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: a descriptor of ours, a complete value, and nothing wanted back.
        let done = unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                ptr::null_mut(),
            )
        };
        check_int(done).map(drop)
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
