//! Processes that cannot be taken for others, and their end.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A killed process is gone within milliseconds, unless a disk or a network mount holds it back.
const END_WAIT: Duration = Duration::from_secs(10);

/// Why a process could not be looked at or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// `/proc` does not tell.
    #[error("process {pid} cannot be looked at")]
    Look {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The signal was not sent.
    #[error("process {pid} cannot be signalled")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// It was killed, and is still there.
    #[error("process {pid} was killed and has not ended within {} s", END_WAIT.as_secs())]
    Stays {
        /// The process.
        pid: u32,
    },
}

/// One process: its number alone may be given out again, the two together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its number, as this machine sees it.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this number now; `None` where there is none.
    pub fn find(pid: u32) -> Option<Self> {
        let (state, start_ticks, _) = stat(pid).ok()?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start_ticks })
    }

    /// This process.
    pub fn me() -> Result<Self, ProcessError> {
        let pid = std::process::id();
        Self::find(pid).ok_or(ProcessError::Look { pid, source: io::ErrorKind::NotFound.into() })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// The number of its parent; `None` when it has ended.
    pub fn parent(&self) -> Option<u32> {
        let (_, ticks, parent) = stat(self.pid).ok()?;
        (ticks == self.start_ticks).then_some(parent)
    }

    /// Its arguments, the program's name first; empty when it has ended.
    pub fn args(&self) -> Vec<String> {
        args(self.pid)
    }

    /// Lets it stand still, all its threads, until [`Process::go_on`]. One that has ended is no error.
    pub fn stand_still(&self) -> Result<(), ProcessError> {
        self.signalled(Signal::STOP)
    }

    /// Lets it go on. One that does not stand still, or has ended, is no error.
    pub fn go_on(&self) -> Result<(), ProcessError> {
        self.signalled(Signal::CONT)
    }

    fn signalled(&self, what: Signal) -> Result<(), ProcessError> {
        let Some(held) = hold(self.pid)? else { return Ok(()) };
        // Held first, looked at then: the number cannot have changed hands in between.
        if stat(self.pid).map(|(_, ticks, _)| ticks).ok() != Some(self.start_ticks) {
            return Ok(());
        }
        signal(self.pid, &held, what)
    }

    /// Kills it with SIGKILL and waits until all of it has ended, and has let go of its files. One that
    /// had ended is no error.
    pub fn kill(&self) -> Result<(), ProcessError> {
        let Some(held) = hold(self.pid)? else { return Ok(()) };
        // Held first, looked at then: the number cannot have changed hands in between.
        if stat(self.pid).map(|(_, ticks, _)| ticks).ok() != Some(self.start_ticks) {
            return Ok(());
        }
        signal(self.pid, &held, Signal::KILL)?;
        // Its first thread may be a zombie while others still hold locks: the pidfd tells of the last.
        let mut polled = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
        let look = |source: nix::Error| ProcessError::Look { pid: self.pid, source: source.into() };
        let timeout = PollTimeout::try_from(END_WAIT).expect("ten seconds are in range");
        let deadline = Instant::now() + END_WAIT;
        loop {
            match poll(&mut polled, timeout) {
                Ok(0) => return Err(ProcessError::Stays { pid: self.pid }),
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) if Instant::now() < deadline => {}
                Err(error) => return Err(look(error)),
            }
        }
    }
}

/// Sends SIGKILL to those of `pids` for which `still` holds once they cannot be taken for others.
pub(crate) fn kill_those(pids: &[u32], still: impl Fn(u32) -> bool) -> Result<(), ProcessError> {
    for pid in pids {
        if let Some(held) = hold(*pid)?
            && still(*pid)
        {
            signal(*pid, &held, Signal::KILL)?;
        }
    }
    Ok(())
}

fn hold(pid: u32) -> Result<Option<OwnedFd>, ProcessError> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(held) => Ok(Some(held)),
        // Ended, or a thread that leads no process: nothing that could be killed.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(ProcessError::Signal { pid, source: error.into() }),
    }
}

fn signal(pid: u32, held: &OwnedFd, what: Signal) -> Result<(), ProcessError> {
    match pidfd_send_signal(held, what) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(ProcessError::Signal { pid, source: error.into() }),
    }
}

/// State letter, start time and parent.
fn stat(pid: u32) -> io::Result<(char, u64, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a stat line"))
}

fn parse_stat(text: &str) -> Option<(char, u64, u32)> {
    // The second field is the name in brackets, and a name may hold spaces and brackets.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((state, fields.nth(17)?.parse().ok()?, parent))
}

fn args(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').split('\0').filter(|_| !text.is_empty()).map(str::to_owned).collect()
}

/// Every process whose arguments fit. Those that end meanwhile are left out.
pub fn with_args(fits: impl Fn(&[String]) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fits(&args(pid)) {
            found.extend(Process::find(pid));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Changes with every boot: start times of another boot mean nothing.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_name_made_to_confuse_is_read_rightly() {
        let text = "7 (a) R 1 2 (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        assert_eq!(parse_stat(text), Some(('S', 4242, 3)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    /// A child that does not outlive its test.
    struct Sleeper(Child);

    impl Sleeper {
        fn new(seconds: &str) -> Self {
            Self(
                Command::new("sleep")
                    .arg(seconds)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            )
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).unwrap();
        }
    }

    #[test]
    fn a_process_is_killed_and_its_successor_of_the_same_number_is_not() {
        let mut child = Sleeper::new("1000");
        let process = Process::find(child.0.id()).unwrap();
        // The same number with another start time is another process: it must not be touched.
        let successor = Process { start_ticks: process.start_ticks + 1, ..process };
        successor.kill().unwrap();
        assert!(process.is_alive());
        assert_eq!((process.parent(), successor.parent()), (Some(std::process::id()), None));
        process.kill().unwrap();
        assert!(!process.is_alive());
        process.kill().unwrap();
        assert!(!child.0.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_stands_still_does_so_until_it_goes_on_and_can_be_killed_meanwhile() {
        let still = |process: &Process| stat(process.pid).is_ok_and(|(state, ..)| state == 'T');
        let is = |process: &Process, wanted: bool| {
            let look = || if still(process) == wanted { Ok(()) } else { Err("not yet".to_owned()) };
            crate::wait::until(END_WAIT, look).unwrap();
        };
        let mut child = Sleeper::new("1000");
        let process = Process::find(child.0.id()).unwrap();
        process.stand_still().unwrap();
        is(&process, true);
        process.go_on().unwrap();
        is(&process, false);
        // Its number in other hands: nothing is done.
        Process { start_ticks: process.start_ticks + 1, ..process }.stand_still().unwrap();
        assert!(!still(&process));
        process.stand_still().unwrap();
        process.kill().unwrap();
        assert!(!child.0.wait().unwrap().success());
    }

    #[test]
    fn processes_are_found_by_their_arguments() {
        let word = format!("31536{}", std::process::id());
        let child = Sleeper::new(&word);
        // A program that is just being executed has no arguments for a moment.
        let (found, _) = crate::wait::until(END_WAIT, || {
            let found = with_args(|args| args.get(1) == Some(&word)).unwrap();
            if found.is_empty() { Err("not found".to_owned()) } else { Ok(found) }
        })
        .unwrap();
        assert_eq!(found.iter().map(|it| it.pid).collect::<Vec<_>>(), [child.0.id()]);
        assert_eq!(found[0].args(), ["sleep", &word]);
    }
}
