//! Whether this machine lets root give containers user namespaces, found out by doing it.
//!
//! All that a start does with one is done here, for a container of one layer that runs nothing, in a
//! range that belongs to no container. The outcome depends on the kernel and on two file systems, never
//! on an image: what an image can make fail must not decide what walls stand around it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::container::{self, Birth, Pipes};
use crate::error::StartError;
use crate::files;
use crate::spec::{ContainerSpec, Limits, LogLimits, SPEC_VERSION};
use crate::sys::{self, Cloned};
use crate::users::{TRIAL, Users};

use super::start::{become_supervisor, hear, pipe, say};
use super::users;

/// Stands where the id of a container would, and is none.
pub(crate) const TRIAL_ARG: &str = "try-user-namespaces";

/// The folder of a trial starts with this.
pub(crate) const FOLDER: &str = ".trial-";

/// Tries it in the runtime folder `root`, with the folder `layer` as the image's only layer.
pub(super) fn run(root: &Path, layer: &Path) -> Result<(), StartError> {
    become_supervisor(false)?;
    let dir = root.join(format!("{FOLDER}{}", std::process::id()));
    let made = container::FOLDERS
        .iter()
        .try_for_each(|folder| fs::DirBuilder::new().mode(0o700).recursive(true).create(dir.join(folder)));
    made.map_err(StartError::kernel(format!("make folders in {}", dir.display())))?;
    let outcome = in_folder(&dir, layer);
    let removed = files::remove_tree(&dir);
    outcome?;
    removed.map_err(StartError::kernel(format!("remove {}", dir.display())))
}

fn in_folder(dir: &Path, layer: &Path) -> Result<(), StartError> {
    let spec = ContainerSpec {
        version: SPEC_VERSION,
        id: "0".into(),
        claim: serde_json::Value::Null,
        lower: vec![layer.to_owned()],
        args: vec!["/".into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: None,
        hostname: "trial".into(),
        limits: Limits::default(),
        cpu_share_m: 0,
        ports: Vec::new(),
        stop_grace_ms: 0,
        log: LogLimits::default(),
        cgroup_parent: "none".into(),
        read_only: true,
        until_boot_ns: None,
        fence: None,
    };
    let users = Users::Mapped(TRIAL);
    users::dress_upper(dir, &spec, users)?;
    let (go, go_read) = UnixStream::pair().map_err(StartError::kernel("make a socket pair"))?;
    let (lines, lines_write) = pipe(false)?;
    let ((_status, status), (_out, out), (_err, err)) = (pipe(false)?, pipe(false)?, pipe(false)?);
    let birth = Birth {
        spec: &spec,
        dir,
        users,
        pipes: Pipes { go: go_read.into(), lines: lines_write, status, out, err },
        filters: &container::seccomp::compile()?,
        cgroup_mounts: &[],
        descriptors: (0, 0),
    };
    let cloned = sys::clone3(container::NAMESPACES | libc::CLONE_NEWUSER, false, None);
    let (pid, init) = match cloned.map_err(StartError::kernel("make a process with its own namespaces"))? {
        Cloned::Child => container::try_out(&birth),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(birth);
    let tried = accompany(pid.cast_unsigned(), users, dir, &spec, &go, &lines);
    end(pid, &init).map_err(StartError::kernel("end the trial"))?;
    tried
}

fn accompany(
    pid: u32,
    users: Users,
    dir: &Path,
    spec: &ContainerSpec,
    go: &UnixStream,
    lines: &OwnedFd,
) -> Result<(), StartError> {
    users::map(pid, users)?;
    let overlay = users::overlay(pid, users, dir, spec)?;
    say(go, container::GO_MAPPED, overlay.as_ref().map(|it| &it.overlay))?;
    say(go, container::GO_PLACED, None)?;
    let mut missing = Vec::new();
    hear(lines, &mut missing)?;
    match missing.pop() {
        None => Ok(()),
        Some(problem) => Err(StartError::Supervisor { problem }),
    }
}

/// Waits until nothing of the trial is left.
fn end(pid: i32, init: &OwnedFd) -> io::Result<()> {
    match sys::pidfd_signal(init.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
        _ => {}
    }
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    Ok(())
}
