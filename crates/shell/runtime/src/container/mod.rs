//! The inside of a container: what happens between the clone and the program's first instruction.
//!
//! Invariant: by the time that anything of the image runs, the process is in its namespaces and
//! control groups, its root is the container's, capabilities are dropped and the filters are on.
//! Anything that fails on the way is told through a pipe that exec closes, and ends the process.

pub(crate) mod capability;
mod init;
mod overlay;
pub(crate) mod program;
mod root;
pub(crate) mod seccomp;
mod user;

pub(crate) use overlay::{Mapped, make_mapped};

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::protocol::line;
use crate::spec::ContainerSpec;
use crate::sys;
use crate::users::Users;
use program::{Program, Stdio};
use seccomp::Filters;

/// The namespaces that a container gets at birth. The control group one follows once it is placed.
pub(crate) const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// The folders that a start finds empty.
pub(crate) const FOLDERS: [&str; 3] = [overlay::UPPER, overlay::WORK, overlay::MERGED];

/// The supervisor has written the child's user mapping. The overlay comes with it where the child cannot
/// make it by itself.
pub(crate) const GO_MAPPED: u8 = b'm';
/// The supervisor has placed the child in its control groups.
pub(crate) const GO_PLACED: u8 = b'p';

/// What a container on its way to its program tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChildLine {
    /// It goes on, without something.
    Degraded(String),
    /// All is ready, and exec is next. Without this line the end of the lines means death, not exec.
    Executing,
    /// It has given up.
    Failed(StartError),
    /// The number of the program that runs in a container that is there already, on the host.
    Program(u32),
}

/// A control group file system to be mounted below `/sys/fs/cgroup`.
#[derive(Debug)]
pub(crate) struct CgroupMount {
    /// Below `/sys/fs/cgroup`; empty for the folder itself.
    pub(crate) name: String,
    /// `cgroup` or `cgroup2`.
    pub(crate) kind: &'static str,
    /// The controllers of a v1 hierarchy.
    pub(crate) options: String,
}

/// The pipes between a container being born and its supervisor.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// A socket. Read: [`GO_MAPPED`], then [`GO_PLACED`].
    pub(crate) go: OwnedFd,
    /// Written: [`ChildLine`]s. Exec closes it.
    pub(crate) lines: OwnedFd,
    /// Written by init: the program's wait status, 4 bytes.
    pub(crate) status: OwnedFd,
    /// The program's standard output.
    pub(crate) out: OwnedFd,
    /// The program's standard error.
    pub(crate) err: OwnedFd,
}

/// All that a container needs to know at birth.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) spec: &'a ContainerSpec,
    /// The container's folder, absolute.
    pub(crate) dir: &'a Path,
    /// Who its users are on the host.
    pub(crate) users: Users,
    pub(crate) pipes: Pipes,
    pub(crate) filters: &'a Filters,
    pub(crate) cgroup_mounts: &'a [CgroupMount],
    /// Soft and hard limit of open files, as the supervisor found it.
    pub(crate) descriptors: (u64, u64),
}

/// Goes from the clone to init. Never returns.
pub(crate) fn live(birth: &Birth<'_>) -> ! {
    let lines = birth.pipes.lines.as_fd();
    match be_born(birth) {
        Ok(never) => match never {},
        Err(error) => {
            tell(lines, &ChildLine::Failed(error));
            sys::exit_now(1)
        }
    }
}

/// As [`live`], but ends where the program would come. Never returns.
pub(crate) fn try_out(birth: &Birth<'_>) -> ! {
    let outcome = match settle(birth) {
        Ok(()) => ChildLine::Executing,
        Err(error) => ChildLine::Failed(error),
    };
    tell(birth.pipes.lines.as_fd(), &outcome);
    sys::exit_now(0)
}

/// Writes a line to the supervisor. When nobody reads any more there is nobody to tell.
pub(crate) fn tell(pipe: BorrowedFd<'_>, what: &ChildLine) {
    let bytes = line(what);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match sys::write(pipe, rest) {
            Ok(n) => rest = &rest[n..],
            Err(_) => return,
        }
    }
}

/// Waits for the supervisor's word, and for what comes with it. Its end of the socket is closed when it
/// is no more.
fn wait_for(go: BorrowedFd<'_>, expected: u8) -> Result<Option<OwnedFd>, StartError> {
    let mut byte = [0];
    let (n, mut with_it) =
        sys::receive_fds(go, &mut byte).map_err(StartError::kernel("hear from the supervisor"))?;
    if n == 1 && byte[0] == expected {
        return Ok(with_it.pop());
    }
    Err(StartError::Supervisor { problem: "it went away during the start".into() })
}

fn be_born(birth: &Birth<'_>) -> Result<std::convert::Infallible, StartError> {
    settle(birth)?;
    let pipes = &birth.pipes;
    capability::drop_from_bounding_set().map_err(StartError::kernel("drop capabilities"))?;
    seccomp::install(birth.filters).map_err(StartError::kernel("install the system call filter"))?;

    let program = Program {
        args: &birth.spec.args,
        env: &birth.spec.env,
        cwd: &birth.spec.cwd,
        user: birth.spec.user.as_deref(),
        hostname: &birth.spec.hostname,
        users: birth.users,
        descriptors: birth.descriptors,
    };
    let child = sys::fork().map_err(|error| {
        if error.raw_os_error() == Some(libc::EAGAIN) {
            StartError::LimitRefused {
                limit: "pids".into(),
                problem: "it leaves no room for the program itself".into(),
                source: Some(error.into()),
            }
        } else {
            StartError::kernel("fork the program")(error)
        }
    })?;
    let Some(child) = child else {
        let stdio = Stdio::Pipes { stdin: None, out: pipes.out.as_fd(), err: pipes.err.as_fd() };
        let error = program::become_it(&program, &stdio, pipes.lines.as_fd());
        tell(pipes.lines.as_fd(), &ChildLine::Failed(error));
        sys::exit_now(1);
    };
    sys::close_all_but(&[pipes.status.as_raw_fd()])
        .map_err(StartError::kernel("close the container's files"))?;
    init::run(child, pipes.status.as_fd())
}

/// Moves into the namespaces, and makes the root. Still mighty in there.
fn settle(birth: &Birth<'_>) -> Result<(), StartError> {
    let pipes = &birth.pipes;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())
        .map_err(StartError::kernel("tie the container to its supervisor"))?;
    let keep = [&pipes.go, &pipes.lines, &pipes.status, &pipes.out, &pipes.err].map(AsRawFd::as_raw_fd);
    sys::close_all_but(&keep).map_err(StartError::kernel("close the supervisor's files"))?;
    sys::block_signals().map_err(StartError::kernel("block signals"))?;
    sys::blank_command_line().map_err(StartError::kernel("hide the command line"))?;
    // What needs no user comes first: meanwhile the supervisor maps them and makes the overlay.
    sys::loopback_up().map_err(StartError::kernel("put the loopback up"))?;
    nix::unistd::sethostname(&birth.spec.hostname).map_err(StartError::kernel("set the host name"))?;
    let mut overlay = None;
    if birth.users.have_namespace() {
        overlay = wait_for(pipes.go.as_fd(), GO_MAPPED)?;
        // In its own user namespace the child was nobody; now it is user 0 of it, and of no group of
        // the host's. Without root the kernel wants no word about groups.
        let groups: Option<&[u32]> = (!birth.users.are_rootless()).then_some(&[]);
        sys::set_ids(0, 0, groups).map_err(StartError::kernel("become user 0 of the user namespace"))?;
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())
            .map_err(StartError::kernel("tie the container to its supervisor"))?;
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(StartError::kernel("hide from the container"))?;
    }
    nix::unistd::setsid().map_err(StartError::kernel("make a session"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));

    let degraded = |what: String| tell(pipes.lines.as_fd(), &ChildLine::Degraded(what));
    root::enter(birth, overlay, &degraded)?;

    // Making the root takes a while, and so does the placing; they go on at the same time.
    wait_for(pipes.go.as_fd(), GO_PLACED)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(StartError::kernel("make a control group namespace"))?;
    root::finish(birth, &degraded)
}
