//! The control groups of one container: where they are, what is in them, and their end.
//!
//! Three worlds: all controllers on v2; controllers on v1 and an almost empty v2 beside them (hybrid,
//! where v2 gives tracking, `cgroup.kill` and processor time); v1 alone.
//!
//! Invariant: a container has at most one group in each hierarchy, all of the same relative path
//! `<parent>/<id>`; nothing outside of these and `<parent>/supervisors` is ever made or removed.

mod layout;
mod limits;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub(crate) use layout::Layout;
pub(crate) use limits::{apply, oom_kills, read_limits, stats};

/// A killed process is gone within milliseconds, unless a broken disk or network mount holds it.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How often a group is looked at while its processes die.
const KILL_POLL: Duration = Duration::from_millis(2);

/// Somebody else may remove the empty parent between our making it and using it.
const MAKE_TRIES: usize = 10;

/// One group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// 1 or 2.
    pub(crate) version: u8,
    /// What is limited or counted here: `cpu`, `memory`, `pids`, `cpuacct`.
    pub(crate) controllers: Vec<String>,
}

impl Group {
    /// Whether `controller` is here.
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|it| it == controller)
    }

    /// Writes one of its files.
    pub(crate) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write_existing(&self.path.join(file), value)
    }

    /// Reads one of its files, without the line's end.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path.join(file))?.trim_end().to_owned())
    }

    /// Makes its folder, and the ones above.
    pub(crate) fn make(&self) -> io::Result<()> {
        make_folder(&self.path)
    }

    /// Lets everybody read it.
    pub(crate) fn open_up(&self) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755))
    }

    /// Places a process in it.
    pub(crate) fn join(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// For placing a child into it at birth (v2 only).
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(fs::File::open(&self.path)?.into())
    }

    /// The processes in it; none when it is gone.
    fn processes(&self) -> io::Result<Vec<i32>> {
        match fs::read_to_string(self.path.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Reading a file of a group that is being removed gives ENODEV.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Writes to a file that the kernel made; never makes one.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Makes a group's folder, although others may be removing empty parents at the same time.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::create_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MAKE_TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Kills everything in the groups, and waits until it is gone. `Ok(false)` when something stays.
pub(crate) fn kill_all(groups: &[Group]) -> io::Result<bool> {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let mut left = false;
        for group in groups {
            let processes = group.processes()?;
            if processes.is_empty() {
                continue;
            }
            left = true;
            if group.version == 2 && group.write("cgroup.kill", "1").is_ok() {
                continue;
            }
            for pid in processes {
                // 0 is a process that we cannot see, and would mean our own group to `kill`.
                if pid > 1 {
                    match crate::sys::kill(pid, libc::SIGKILL) {
                        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        if !left {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(KILL_POLL);
    }
}

/// Removes the groups, which must hold no process.
pub(crate) fn remove(groups: &[Group]) -> io::Result<()> {
    for group in groups {
        remove_folder(&group.path)?;
    }
    Ok(())
}

fn remove_folder(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        match fs::remove_dir(path) {
            Err(error) if is_gone(&error) => return Ok(()),
            // The last process has left, but the kernel is still about it.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(KILL_POLL);
            }
            done => return done,
        }
    }
}

/// Removes what is empty of the folders above the groups: the supervisors' one, then the parents.
pub(crate) fn remove_empty_parents(layout: &Layout, parent: &str) -> io::Result<()> {
    for top in layout.tops() {
        let mut path = top.join(parent);
        remove_if_empty(&path.join(layout::SUPERVISORS))?;
        for _ in parent.split('/') {
            if !remove_if_empty(&path)? {
                break;
            }
            path.pop();
        }
    }
    Ok(())
}

/// Whether it is gone.
fn remove_if_empty(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EBUSY | libc::ENOTEMPTY | libc::EACCES | libc::EPERM | libc::EROFS)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
