//! From a folder with a specification to a program that runs, or to nothing at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::cgroup::{self, Group, Layout};
use crate::container::{self, Birth, CgroupMount, ChildLine, Pipes};
use crate::error::{Errno, StartError};
use crate::files;
use crate::record::{Holder, Process, StateFile};
use crate::spec::ContainerSpec;
use crate::sys::{self, Cloned};
use crate::users::Users;

use super::connector::Connector;
use super::exec::Door;
use super::ports::{self, Listener};
use super::users;

/// Mounting a large image from slow flash takes a second or two; a minute is a fault.
const BIRTH_WAIT: Duration = Duration::from_secs(60);

/// A predecessor that has written its exit record is about to end.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(5);

/// The lines of one start: a handful of missing things, or one error.
const LINES_B_MAX: usize = 64 << 10;

/// Two for each forwarded connection, and some for ourselves; more than most machines allow anyway.
const DESCRIPTORS_WANTED: u64 = 8192;

/// Everything of a container that runs.
#[derive(Debug)]
pub(super) struct Live {
    /// Its folder, absolute; also this process's working folder.
    pub(super) dir: PathBuf,
    pub(super) log: crate::spec::LogLimits,
    /// It is killed at that time of `CLOCK_BOOTTIME`.
    pub(super) until_boot_ns: Option<u64>,
    pub(super) cgroup_parent: String,
    pub(super) state: StateFile,
    pub(super) init: OwnedFd,
    pub(super) door: Door,
    pub(super) groups: Vec<Group>,
    pub(super) layout: Layout,
    pub(super) status: OwnedFd,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) listeners: Vec<Listener>,
    pub(super) connector: Connector,
    pub(super) socket: UnixListener,
    pub(super) descriptors: (u64, u64),
    pub(super) users: Users,
    /// To be closed when the start has been told.
    pub(super) spent: Vec<OwnedFd>,
    /// Held until the process ends.
    pub(super) _lock: File,
}

/// Undoes a start that failed half-way.
struct Attempt<'a> {
    dir: &'a Path,
    parent: &'a str,
    layout: &'a Layout,
    groups: Vec<Group>,
    child: Option<(i32, OwnedFd)>,
}

impl Attempt<'_> {
    /// What cannot be undone is told together with why the start failed.
    fn undo(self, why: StartError) -> StartError {
        let undone = (|| {
            if let Some((pid, pidfd)) = &self.child {
                match sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    _ => {}
                }
                wait_for_end(*pid)?;
            }
            cgroup::kill_all(&self.groups)?;
            cgroup::remove(&self.groups)?;
            cgroup::remove_empty_parents(self.layout, self.parent)?;
            files::remove_if_there(&self.dir.join(files::CGROUPS))?;
            files::remove_if_there(&self.dir.join(files::STATE))?;
            files::remove_if_there(&self.dir.join(files::SOCKET))?;
            files::remove_if_there(&self.dir.join(files::LISTENERS))
        })();
        match undone {
            Ok(()) => why,
            Err(error) => {
                StartError::Supervisor { problem: format!("{why}; cleaning up failed too: {error}") }
            }
        }
    }
}

fn wait_for_end(pid: i32) -> io::Result<()> {
    match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None) {
        Ok(_) | Err(nix::errno::Errno::ECHILD) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A file of the container's folder could not be read or written.
pub(super) fn file_error(error: &crate::error::RuntimeError) -> StartError {
    let cause = std::error::Error::source(error).and_then(|it| it.downcast_ref::<io::Error>());
    let source = cause.and_then(io::Error::raw_os_error).map_or(Errno(libc::EIO), Errno);
    StartError::Kernel { action: error.to_string(), source }
}

/// Starts the container `id` of the runtime folder `root`. Returns when its program was executed.
pub(super) fn start(root: &Path, id: &str) -> Result<Live, StartError> {
    let rootless = !geteuid().is_root();
    become_supervisor(rootless)?;
    let dir = root.join(id);
    nix::unistd::chdir(&dir).map_err(StartError::kernel(format!("enter {}", dir.display())))?;
    let lock = lock(&dir, id)?;
    let spec = read_spec(&dir, id)?;
    let (users, degraded) = users::of(&dir, rootless)?;
    let layout = Layout::detect().map_err(StartError::kernel("read the mounts of this machine"))?;
    clear(&dir).map_err(|error| match error {
        Clear::File(error) => file_error(&error),
        Clear::Io(error) => StartError::kernel(format!("clear {} of its last run", dir.display()))(error),
    })?;
    let mut attempt =
        Attempt { dir: &dir, parent: &spec.cgroup_parent, layout: &layout, groups: Vec::new(), child: None };
    match go(root, &spec, users, lock, degraded, &mut attempt) {
        Ok(parts) => {
            drop(attempt);
            let cgroup_parent = spec.cgroup_parent.clone();
            let mut live = parts.into_live(dir, spec.log, cgroup_parent, layout);
            live.until_boot_ns = spec.until_boot_ns;
            Ok(live)
        }
        Err(error) => Err(attempt.undo(error)),
    }
}

pub(super) fn become_supervisor(rootless: bool) -> Result<(), StartError> {
    sys::close_from(3, false).map_err(StartError::kernel("close inherited files"))?;
    // Fails when it is the leader of a process group already, which is as good.
    if let Err(errno) = nix::unistd::setsid()
        && errno != nix::errno::Errno::EPERM
    {
        return Err(StartError::kernel("make a session")(errno));
    }
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(StartError::kernel("become a subreaper"))?;
    if !rootless {
        // The container's init is a copy of this process: nobody in there may look into it, or open
        // the binary through /proc/1/exe.
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(StartError::kernel("hide from the container"))?;
    }
    sys::set_name(c"skerry-super").map_err(StartError::kernel("set the process name"))?;
    sys::block_signals().map_err(StartError::kernel("block signals"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    Ok(())
}

fn lock(dir: &Path, id: &str) -> Result<File, StartError> {
    let deadline = Instant::now() + PREDECESSOR_WAIT;
    loop {
        let path = dir.join(files::LOCK);
        let lock = files::try_lock(&path).map_err(StartError::kernel(format!("lock {}", path.display())))?;
        if let Some(mut lock) = lock {
            sign(&mut lock).map_err(StartError::kernel(format!("sign {}", path.display())))?;
            return Ok(lock);
        }
        let ending = dir.join(files::EXIT).exists();
        if !ending || Instant::now() > deadline {
            return Err(StartError::AlreadyRunning { id: id.into() });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes into the lock who holds it.
fn sign(lock: &mut File) -> io::Result<()> {
    let holder = Holder { boot_id: files::boot_id()?, supervisor: Process::find(std::process::id())? };
    lock.set_len(0)?;
    lock.write_all(&serde_json::to_vec(&holder)?)
}

fn read_spec(dir: &Path, id: &str) -> Result<ContainerSpec, StartError> {
    let path = dir.join(files::SPEC);
    let bad = |problem: String| StartError::Spec { path: path.clone(), problem };
    let spec = files::read::<ContainerSpec>(dir, files::SPEC)
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
            bad(cause)
        })?
        .ok_or_else(|| bad("does not exist".into()))?;
    spec.validate().map_err(|problem| bad(problem.to_string()))?;
    if spec.id != id {
        return Err(bad(format!("it is of container {}", spec.id)));
    }
    Ok(spec)
}

enum Clear {
    File(crate::error::RuntimeError),
    Io(io::Error),
}

impl From<io::Error> for Clear {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Removes what an earlier run left, and makes the folders of this one.
fn clear(dir: &Path) -> Result<(), Clear> {
    if let Some(groups) = files::read::<Vec<Group>>(dir, files::CGROUPS).map_err(Clear::File)? {
        cgroup::kill_all(&groups)?;
        cgroup::remove(&groups)?;
    }
    for file in [files::CGROUPS, files::STATE, files::EXIT, files::STOPPING, files::LISTENERS, files::SOCKET]
    {
        files::remove_if_there(&dir.join(file))?;
    }
    for folder in container::FOLDERS {
        let path = dir.join(folder);
        files::remove_tree(&path)?;
        fs::DirBuilder::new().mode(0o755).create(&path)?;
    }
    Ok(())
}

/// What `go` has made when the program runs.
struct Parts {
    state: StateFile,
    init: OwnedFd,
    door: Door,
    groups: Vec<Group>,
    status: OwnedFd,
    out: OwnedFd,
    err: OwnedFd,
    listeners: Vec<Listener>,
    connector: Connector,
    socket: UnixListener,
    descriptors: (u64, u64),
    users: Users,
    spent: Vec<OwnedFd>,
    lock: File,
}

impl Parts {
    fn into_live(
        self,
        dir: PathBuf,
        log: crate::spec::LogLimits,
        cgroup_parent: String,
        layout: Layout,
    ) -> Live {
        Live {
            dir,
            log,
            until_boot_ns: None,
            cgroup_parent,
            layout,
            state: self.state,
            init: self.init,
            door: self.door,
            groups: self.groups,
            status: self.status,
            out: self.out,
            err: self.err,
            listeners: self.listeners,
            connector: self.connector,
            socket: self.socket,
            descriptors: self.descriptors,
            users: self.users,
            spent: self.spent,
            _lock: self.lock,
        }
    }
}

fn go(
    root: &Path,
    spec: &ContainerSpec,
    users: Users,
    lock: File,
    mut degraded: Vec<String>,
    attempt: &mut Attempt<'_>,
) -> Result<Parts, StartError> {
    let dir = attempt.dir;
    let filters = container::seccomp::compile()?;
    users::dress_upper(dir, spec, users)?;
    let supervisor = Process::find(std::process::id()).map_err(StartError::kernel("look at ourselves"))?;
    let boot_id = files::boot_id().map_err(StartError::kernel("read the boot id"))?;
    let listeners = ports::open(root, dir, &spec.ports, &supervisor, &boot_id)?;
    let descriptors =
        raise_descriptor_limit().map_err(StartError::kernel("raise the limit of open files"))?;
    attempt.groups = make_groups(attempt.layout, spec, dir, users.are_rootless(), &mut degraded)?;

    let (go_write, go_read) = UnixStream::pair().map_err(StartError::kernel("make a socket pair"))?;
    let (lines_read, lines_write) = pipe(false)?;
    let (status, status_write) = pipe(true)?;
    let (out, out_write) = pipe(true)?;
    let (err, err_write) = pipe(true)?;
    users::own(out_write.as_fd(), users)?;
    users::own(err_write.as_fd(), users)?;
    let birth = Birth {
        spec,
        dir,
        users,
        pipes: Pipes {
            go: go_read.into(),
            lines: lines_write,
            status: status_write,
            out: out_write,
            err: err_write,
        },
        filters: &filters,
        cgroup_mounts: &cgroup_mounts(&attempt.groups),
        descriptors,
    };
    let v2 = attempt.groups.iter().find(|group| group.version == 2);
    let v2 = v2.map(Group::open).transpose().map_err(StartError::kernel("open the control group"))?;
    let flags = container::NAMESPACES | if users.have_namespace() { libc::CLONE_NEWUSER } else { 0 };
    let cloned = sys::clone3(flags, false, v2.as_ref().map(OwnedFd::as_fd));
    let (pid, init) = match cloned.map_err(StartError::kernel("make a process with its own namespaces"))? {
        Cloned::Child => container::live(&birth),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let number = pid.cast_unsigned();
    let kept = init.try_clone().map_err(StartError::kernel("keep the container's descriptor"))?;
    attempt.child = Some((pid, kept));
    // From here on the pipes end when the container's own ends do.
    drop(birth);

    let mut door = Door::Process;
    let mut spent = Vec::new();
    if users.have_namespace() {
        users::map(number, users)?;
        if users.are_rootless() {
            door = Door::open(number)?;
        }
        let mapped = users::overlay(number, users, dir, spec)?;
        say(&go_write, container::GO_MAPPED, mapped.as_ref().map(|it| &it.overlay))?;
        spent = mapped.map_or_else(Vec::new, |it| it.spent);
    }
    for group in attempt.groups.iter().filter(|group| group.version == 1) {
        let action = format!("place the container in {}", group.path.display());
        group.join(number).map_err(StartError::kernel(action))?;
    }
    in_time(spec)?;
    say(&go_write, container::GO_PLACED, None)?;
    hear_until(&lines_read, &mut degraded, spec.until_boot_ns)?;

    let started_ms = files::now_ms();
    let connector = if listeners.is_empty() {
        Connector::None
    } else {
        Connector::new(number, &door).map_err(StartError::kernel("reach into the container's network"))?
    };
    let init_process = Process::find(number).map_err(StartError::kernel("look at the container's init"))?;
    let state = StateFile { boot_id, supervisor, init: init_process, started_ms, degraded };
    // Relative to the working folder, so that a long path does not matter.
    let socket = UnixListener::bind(files::SOCKET).map_err(StartError::kernel("make the control socket"))?;
    socket.set_nonblocking(true).map_err(StartError::kernel("make the control socket"))?;
    files::write_volatile(dir, files::STATE, &state).map_err(|error| file_error(&error))?;
    Ok(Parts {
        state,
        init,
        door,
        groups: std::mem::take(&mut attempt.groups),
        status,
        out,
        err,
        listeners,
        connector,
        socket,
        descriptors,
        users,
        spent,
        lock,
    })
}

pub(super) fn pipe(nonblocking_read: bool) -> Result<(OwnedFd, OwnedFd), StartError> {
    sys::pipe(nonblocking_read).map_err(StartError::kernel("make a pipe"))
}

/// The limit as it was, which the container gets back.
fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    let (soft, hard) = sys::descriptor_limit()?;
    if soft < DESCRIPTORS_WANTED {
        sys::set_descriptor_limit(hard.min(DESCRIPTORS_WANTED).max(soft), hard)?;
    }
    Ok((soft, hard))
}

fn make_groups(
    layout: &Layout,
    spec: &ContainerSpec,
    dir: &Path,
    rootless: bool,
    degraded: &mut Vec<String>,
) -> Result<Vec<Group>, StartError> {
    let made = (|| {
        let own = layout.for_supervisor(&spec.cgroup_parent)?;
        let groups = layout.plan(&spec.cgroup_parent, &spec.id)?;
        Ok((own, groups))
    })();
    let (own, groups) = match made {
        Ok(made) => made,
        Err(StartError::NoPermission { .. } | StartError::LimitRefused { .. }) if rootless => {
            degraded.push("limits are not enforced: without root no control group may be made".into());
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    for group in &own {
        let action = format!("move the supervisor to {}", group.path.display());
        group.make().and_then(|()| group.join(std::process::id())).map_err(StartError::kernel(action))?;
    }
    files::write_volatile(dir, files::CGROUPS, &groups).map_err(|error| file_error(&error))?;
    let limited = groups.iter().try_for_each(|group| {
        // The container looks into it, and is neither us nor, with a user namespace, root.
        group
            .make()
            .and_then(|()| group.open_up())
            .map_err(StartError::kernel(format!("make the control group {}", group.path.display())))
    });
    match limited.and_then(|()| cgroup::apply(&groups, &spec.limits, spec.cpu_share_m)) {
        Ok(()) => Ok(groups),
        Err(error) => {
            // The caller knows only of groups that it was given.
            cgroup::remove(&groups).map_err(StartError::kernel("remove a control group"))?;
            Err(error)
        }
    }
}

/// What the container shall see at `/sys/fs/cgroup`: its own part, as the host would show its own.
fn cgroup_mounts(groups: &[Group]) -> Vec<CgroupMount> {
    let v1: Vec<CgroupMount> = groups
        .iter()
        .filter(|group| group.version == 1)
        .map(|group| {
            let controllers = group.controllers.join(",");
            CgroupMount { name: controllers.clone(), kind: "cgroup", options: controllers }
        })
        .collect();
    if !v1.is_empty() {
        return v1;
    }
    let v2 = groups.iter().find(|group| group.version == 2);
    v2.map(|_| CgroupMount { name: String::new(), kind: "cgroup2", options: String::new() })
        .into_iter()
        .collect()
}

pub(super) fn say(go: &UnixStream, word: u8, with_it: Option<&OwnedFd>) -> Result<(), StartError> {
    let with_it: Vec<_> = with_it.iter().map(|it| it.as_fd()).collect();
    match sys::send_fds(go.as_fd(), &[word], &with_it) {
        // It has given up already, and says why in its lines.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        done => done.map_err(StartError::kernel("speak to the container")),
    }
}

/// What may run no longer is not let go.
fn in_time(spec: &ContainerSpec) -> Result<(), StartError> {
    spec.until_boot_ns.map_or(Ok(()), |until| left_until(until).map(drop))
}

/// How long until that time of `CLOCK_BOOTTIME`.
fn left_until(until_boot_ns: u64) -> Result<Duration, StartError> {
    let left = until_boot_ns.saturating_sub(sys::boottime::now_ns());
    if left == 0 {
        let problem = "the time in which the container may run was over before its program ran; it is started \
                       again once there is more";
        return Err(StartError::Supervisor { problem: problem.into() });
    }
    Ok(Duration::from_nanos(left))
}

/// Waits until the program was executed, which ends the lines, or for the reason why not.
pub(super) fn hear(lines: &OwnedFd, degraded: &mut Vec<String>) -> Result<(), StartError> {
    hear_until(lines, degraded, None)
}

/// The same, and no longer than until that time of `CLOCK_BOOTTIME`: whoever calls undoes the start then.
fn hear_until(
    lines: &OwnedFd,
    degraded: &mut Vec<String>,
    until_boot_ns: Option<u64>,
) -> Result<(), StartError> {
    let deadline = Instant::now() + BIRTH_WAIT;
    let mut heard = Vec::new();
    loop {
        let mut left = deadline.saturating_duration_since(Instant::now());
        if let Some(until) = until_boot_ns {
            // Looked at again each second: what is waited with stands still while the machine sleeps.
            left = left.min(left_until(until)?).min(Duration::from_secs(1));
        }
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        if !sys::poll_read(lines.as_fd(), timeout).map_err(StartError::kernel("hear from the container"))? {
            if deadline <= Instant::now() {
                let problem = format!("the container was not ready after {} s", BIRTH_WAIT.as_secs());
                return Err(StartError::Supervisor { problem });
            }
            continue;
        }
        let mut buffer = [0; 4096];
        let n =
            sys::read(lines.as_fd(), &mut buffer).map_err(StartError::kernel("hear from the container"))?;
        if n == 0 {
            break;
        }
        heard.extend_from_slice(&buffer[..n]);
        if heard.len() > LINES_B_MAX {
            return Err(StartError::Supervisor { problem: "the container said too much".into() });
        }
    }
    let mut executing = false;
    for line in heard.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(ChildLine::Degraded(what)) => degraded.push(what),
            Ok(ChildLine::Executing) => executing = true,
            Ok(ChildLine::Failed(error)) => return Err(error),
            Ok(ChildLine::Program(_)) | Err(_) => {
                return Err(StartError::Supervisor { problem: "the container said nonsense".into() });
            }
        }
    }
    if executing {
        return Ok(());
    }
    let problem = "the container was killed before its program ran; is its memory limit too small?";
    Err(StartError::Supervisor { problem: problem.into() })
}
