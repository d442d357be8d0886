//! The peer's side: blocking calls on the folder that holds every container of a node.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cgroup::{self, Group, Layout};
use crate::client::{self, ExecControl, ExecRequest, ExecSession, read_line_bounded};
use crate::container;
use crate::error::{Errno, RuntimeError, StartError};
use crate::files;
use crate::protocol::{REPLY_B_MAX, Reply, Report, Request, line};
use crate::record::{ExitRecord, Found, Holder, Process, Running, State, StateFile, Stats};
use crate::spec::{ContainerSpec, Limits, is_id};
use crate::supervisor::{SUPERVISOR_ARG, TRIAL_ARG, TRIAL_FOLDER};
use crate::sys;
use crate::users::{Ids, Ranges, UserNamespaces};

/// More than a supervisor itself gives its container.
const START_WAIT: Duration = Duration::from_secs(90);

/// How long a killed container may take: disks and network mounts hold processes back.
const KILL_WAIT: Duration = Duration::from_secs(20);

/// A supervisor that has written its exit record is about to end.
const ENDING_WAIT: Duration = Duration::from_secs(5);

/// A supervisor that is starting its container when we look: waited for this long, then told as such.
const STARTING_WAIT: Duration = Duration::from_secs(2);

/// How often something that is about to happen is looked for.
const POLL: Duration = Duration::from_millis(2);

/// Folders that are being removed start with this, so that half of one is never taken for a container.
const REMOVING: &str = ".removing-";

/// The words of a dead supervisor that are told on.
const LAST_WORDS_B_MAX: u64 = 4096;

/// A container that has just been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The container's first process, as the host sees it; its namespaces are `/proc/<pid>/ns/*`.
    pub pid: u32,
    /// Its supervisor.
    pub supervisor_pid: u32,
    /// Milliseconds since 1970 by this machine's clock.
    pub started_ms: i64,
    /// What is missing, in words; empty with root on a machine that lets containers
    /// have user namespaces. Without root, limits are not enforced.
    pub degraded: Vec<String>,
}

/// What there is of a container's supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supervisor {
    None,
    Lives,
    /// The kernel is still about its end.
    Ends,
}

/// All containers of one folder. Calls block; none of them forks.
#[derive(Debug)]
pub struct Runtime {
    dir: PathBuf,
    exe: PathBuf,
    /// Supervisors that we started, to be buried when they have ended.
    children: Mutex<BTreeMap<u32, Child>>,
    user_namespaces: UserNamespaces,
    /// Which container has which ids of the host.
    ranges: Mutex<Ranges>,
}

impl Runtime {
    /// Uses the folder `dir`, which is made if need be. `exe` is the binary whose `main` calls
    /// [`supervisor_main`](crate::supervisor_main).
    pub fn new(dir: impl AsRef<Path>, exe: impl Into<PathBuf>) -> Result<Self, RuntimeError> {
        let dir = dir.as_ref();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(RuntimeError::file("make the folder", dir))?;
        let dir = fs::canonicalize(dir).map_err(RuntimeError::file("find", dir))?;
        let mut runtime = Self {
            dir,
            exe: exe.into(),
            children: Mutex::default(),
            user_namespaces: UserNamespaces::Used,
            ranges: Mutex::default(),
        };
        let mut ranges = Ranges::default();
        for entry in runtime.entries()? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(REMOVING) || name.starts_with(TRIAL_FOLDER) {
                files::remove_tree(&entry).map_err(RuntimeError::file("remove", &entry))?;
            }
            // One that cannot be read, or that another has, is chosen anew at the next start.
            if is_id(&name)
                && let Ok(Some(Ids::Mapped(range))) = files::read::<Ids>(&entry, files::IDS)
            {
                ranges.keep(range, &name);
            }
        }
        runtime.ranges = Mutex::new(ranges);
        Ok(runtime)
    }

    /// Whether containers of this folder can have user namespaces, found out by trying all that a start
    /// does with one. `layers` is a folder on the file system that holds the images' layers. Takes some
    /// 10 ms. Without root the answer is yes: then there is no other way to start a container.
    pub fn try_user_namespaces(&self, layers: &Path) -> UserNamespaces {
        if !nix::unistd::geteuid().is_root() {
            return UserNamespaces::Used;
        }
        let mut command = self.supervisor_command(TRIAL_ARG);
        command.arg(layers).stderr(Stdio::null());
        let why = match command.spawn() {
            Err(error) => format!("{} cannot be executed: {error}", self.exe.display()),
            Ok(mut child) => {
                let heard = hear(&mut child);
                end(&mut child);
                match heard {
                    Ok(Report::Possible) => return UserNamespaces::Used,
                    // A full disk says nothing of the kernel, and must not cost a wall: a container that
                    // then can have none does not start.
                    Ok(Report::Failed(error)) if error.is_for_want_of_room() => return UserNamespaces::Used,
                    Ok(Report::Failed(error)) => {
                        let cause = std::error::Error::source(&error);
                        cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"))
                    }
                    Ok(Report::Started { .. }) => "the trial gave an answer to another question".into(),
                    Err(problem) => format!("the trial failed: {problem}"),
                }
            }
        };
        UserNamespaces::Refused { why }
    }

    /// Starts containers with or without user namespaces from now on; with them, unless told otherwise.
    /// Those that run keep what they have.
    #[must_use]
    pub fn with_user_namespaces(mut self, them: UserNamespaces) -> Self {
        self.user_namespaces = them;
        self
    }

    /// What [`with_user_namespaces`](Self::with_user_namespaces) said.
    pub fn user_namespaces(&self) -> &UserNamespaces {
        &self.user_namespaces
    }

    /// A supervisor for `what`, a container or a trial.
    fn supervisor_command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .arg(SUPERVISOR_ARG)
            .arg(&self.dir)
            .arg(what)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Writes down who the users of a container are on the host, for its supervisor.
    fn write_ids(&self, path: &Path, id: &str) -> Result<(), StartError> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let ids = match &self.user_namespaces {
            UserNamespaces::Refused { why } => Ids::Host { why: why.clone() },
            UserNamespaces::Used => {
                let range = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).take(id);
                Ids::Mapped(range.ok_or_else(|| StartError::LimitRefused {
                    limit: "ids".into(),
                    problem: "other containers of this node have all ranges of user ids".into(),
                    source: None,
                })?)
            }
        };
        files::write_volatile(path, files::IDS, &ids).map_err(|error| StartError::Supervisor {
            problem: format!(
                "{error}: {}",
                std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
            ),
        })
    }

    fn entries(&self) -> Result<Vec<PathBuf>, RuntimeError> {
        let failed = || RuntimeError::file("read the folder", &self.dir);
        let mut entries = fs::read_dir(&self.dir)
            .and_then(|list| list.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(failed())?;
        entries.sort();
        Ok(entries)
    }

    /// The folder of a container that exists.
    fn folder(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        if !is_id(id) {
            return Err(RuntimeError::Id { id: id.into() });
        }
        let path = self.dir.join(id);
        if path.is_dir() { Ok(path) } else { Err(RuntimeError::NotFound { id: id.into() }) }
    }

    /// Writes what a container shall be, durably. Refused while it runs.
    pub fn write_spec(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let id = &spec.id;
        spec.validate().map_err(|source| RuntimeError::Spec { id: id.clone(), source })?;
        let path = self.dir.join(id);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => files::sync_dir(&self.dir).map_err(RuntimeError::file("write", &self.dir))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.await_rest(&path, id)?;
            }
            Err(error) => return Err(RuntimeError::file("make the folder", path)(error)),
        }
        let written = files::write_durable(&path, files::SPEC, spec);
        if !written.as_ref().is_err_and(RuntimeError::is_disk_full) {
            return written;
        }
        // What the last run wrote is room on a full disk, and no start keeps it.
        for folder in container::FOLDERS {
            let folder = path.join(folder);
            files::remove_tree(&folder).map_err(RuntimeError::file("remove", &folder))?;
        }
        files::write_durable(&path, files::SPEC, spec)
    }

    /// Whether a supervisor lives.
    fn supervisor(&self, path: &Path) -> Result<Supervisor, RuntimeError> {
        self.bury();
        let lock = path.join(files::LOCK);
        if !lock.exists() {
            return Ok(Supervisor::None);
        }
        if files::try_lock(&lock).map_err(RuntimeError::file("lock", lock))?.is_none() {
            return Ok(Supervisor::Lives);
        }
        // A process that ends lets go of its lock first, and of its control group last.
        match files::read::<Holder>(path, files::LOCK) {
            Ok(Some(holder)) if holder.is_alive() => Ok(Supervisor::Ends),
            Ok(_) | Err(RuntimeError::Unreadable { .. }) => Ok(Supervisor::None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a supervisor, be it one that ends.
    fn is_supervised(&self, path: &Path) -> Result<bool, RuntimeError> {
        Ok(self.supervisor(path)? != Supervisor::None)
    }

    /// Waits for a supervisor that has told the exit to end itself; refused while the container runs.
    fn await_rest(&self, path: &Path, id: &str) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + ENDING_WAIT;
        loop {
            let ending = match self.supervisor(path)? {
                Supervisor::None => return Ok(()),
                Supervisor::Ends => true,
                Supervisor::Lives => path.join(files::EXIT).exists(),
            };
            if !ending || Instant::now() > deadline {
                return Err(RuntimeError::StillRunning { id: id.into() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes the supervisors that have ended, so that they do not stay as zombies.
    fn bury(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    /// Starts a container, for the first time or again: with a fresh upper layer, its log going on.
    ///
    /// Returns when the program itself was executed.
    pub fn start(&self, id: &str) -> Result<Started, StartError> {
        self.bury();
        let path = self
            .folder(id)
            .map_err(|error| StartError::Spec { path: self.dir.join(id), problem: error.to_string() })?;
        let stderr = path.join(files::STDERR);
        let stderr = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(!self.is_supervised(&path).unwrap_or(true))
            .mode(0o600)
            .open(&stderr)
            .map_err(StartError::kernel(format!("open {}", stderr.display())))?;
        self.write_ids(&path, id)?;
        let mut child = self
            .supervisor_command(id)
            .stderr(stderr)
            .spawn()
            .map_err(StartError::kernel(format!("execute {}", self.exe.display())))?;
        match hear(&mut child) {
            Ok(Report::Started { pid, supervisor_pid, started_ms, degraded }) => {
                let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
                children.insert(supervisor_pid, child);
                Ok(Started { pid, supervisor_pid, started_ms, degraded })
            }
            Ok(Report::Failed(error)) => {
                end(&mut child);
                Err(error)
            }
            Ok(Report::Possible) => {
                end(&mut child);
                Err(StartError::Supervisor { problem: "it tried something else out".into() })
            }
            Err(problem) => {
                end(&mut child);
                let words = last_words(&path);
                let problem = if words.is_empty() { problem } else { format!("{problem}; it said: {words}") };
                Err(StartError::Supervisor { problem })
            }
        }
    }

    /// Every container of the folder and where it is in its life, for a peer that was restarted.
    ///
    /// One that is broken is told as such and does not keep the others from being found. Processes of
    /// a container whose supervisor is dead are killed.
    pub fn scan(&self) -> Result<Vec<Found>, RuntimeError> {
        self.bury();
        let mut found = Vec::new();
        for path in self.entries()? {
            let Some(id) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_id(name)) else {
                continue;
            };
            if !path.is_dir() {
                continue;
            }
            let id = id.to_owned();
            let stopping = path.join(files::STOPPING).exists();
            found.push(Found { spec: read_spec(&path, &id), state: self.state(&id), stopping, id, path });
        }
        Ok(found)
    }

    /// Where one container is in its life. Kills what is left of it when its supervisor is dead.
    pub fn state(&self, id: &str) -> Result<State, RuntimeError> {
        let path = self.folder(id)?;
        let deadline = Instant::now() + STARTING_WAIT;
        loop {
            match self.supervisor(&path)? {
                Supervisor::Lives => {}
                Supervisor::Ends => {
                    std::thread::sleep(POLL);
                    continue;
                }
                Supervisor::None => break,
            }
            let exit = files::read::<ExitRecord>(&path, files::EXIT)?;
            let state = files::read::<StateFile>(&path, files::STATE)?;
            match (exit, state) {
                (Some(exit), _) => return Ok(State::Exited(exit)),
                (None, Some(state)) if is_of_now(&state) => {
                    return Ok(State::Running(Running {
                        pid: state.init.pid,
                        supervisor_pid: state.supervisor.pid,
                        started_ms: state.started_ms,
                        degraded: state.degraded,
                    }));
                }
                _ if Instant::now() > deadline => return Ok(State::Starting),
                _ => std::thread::sleep(POLL),
            }
        }
        if let Some(exit) = files::read::<ExitRecord>(&path, files::EXIT)? {
            return Ok(State::Exited(exit));
        }
        kill_leftovers(&path, id)?;
        let reason = match files::read::<StateFile>(&path, files::STATE) {
            Ok(None) => return Ok(State::Created),
            Ok(Some(state)) => {
                let boot = files::boot_id().map_err(RuntimeError::file("read", "the boot id"))?;
                if state.boot_id == boot {
                    await_end(&state.init, id)?;
                    let words = last_words(&path);
                    let pid = state.supervisor.pid;
                    if words.is_empty() {
                        format!("its supervisor (process {pid}) was killed")
                    } else {
                        format!("its supervisor (process {pid}) died: {words}")
                    }
                } else {
                    "the machine was restarted while it ran".into()
                }
            }
            // Written without fsync: a power cut may leave it empty.
            Err(RuntimeError::Unreadable { .. }) => "the machine lost power while it ran".into(),
            Err(error) => return Err(error),
        };
        Ok(State::Lost { reason })
    }

    /// Asks a supervisor for something that it answers with `Ok`.
    fn order(&self, id: &str, request: &Request) -> Result<(), RuntimeError> {
        let path = self.folder(id)?;
        match client::ask(&path, id, request)? {
            None => Err(RuntimeError::NotRunning { id: id.into() }),
            Some((Reply::Ok, ..)) => Ok(()),
            Some((reply, ..)) => Err(unexpected(id, &reply)),
        }
    }

    /// Stops a container: SIGTERM to its program, SIGKILL to all of it after `grace`. Returns when
    /// nothing of it runs any more; also when it had ended before.
    pub fn stop(&self, id: &str, grace: Duration) -> Result<ExitRecord, RuntimeError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.end(id, &Request::Stop { grace_ms }, grace.saturating_add(KILL_WAIT))
    }

    /// Lets a container that was started with an end run until a later one, in nanoseconds of
    /// [`crate::boot_now_ns`]. An earlier one, or one of a container without end, changes nothing.
    pub fn extend(&self, id: &str, until_boot_ns: u64) -> Result<(), RuntimeError> {
        self.order(id, &Request::Extend { until_boot_ns })
    }

    /// Kills a container. Returns when nothing of it runs any more; also when it had ended before.
    pub fn kill(&self, id: &str) -> Result<ExitRecord, RuntimeError> {
        self.end(id, &Request::Kill, KILL_WAIT)
    }

    fn end(&self, id: &str, request: &Request, wait: Duration) -> Result<ExitRecord, RuntimeError> {
        let watch = self.watch(id)?;
        match self.order(id, request) {
            Ok(()) | Err(RuntimeError::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
        read_exit(&watch, id, Some(wait))
    }

    /// Signals the program, by way of its init: 1 to 64, but neither SIGSTOP nor SIGCHLD.
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        self.order(id, &Request::Signal { signal })
    }

    /// A stream on which one line of JSON arrives when the container has ended: see
    /// [`exit_in`](Self::exit_in). For one that has ended already the line is there at once. The
    /// stream ends without a line when the supervisor was killed: then [`state`](Self::state) tells.
    pub fn watch(&self, id: &str) -> Result<UnixStream, RuntimeError> {
        let path = self.folder(id)?;
        let deadline = Instant::now() + ENDING_WAIT;
        loop {
            match client::ask(&path, id, &Request::Watch)? {
                Some((Reply::Ok, _, stream)) => return Ok(stream),
                Some((reply, ..)) => return Err(unexpected(id, &reply)),
                None => {}
            }
            if let Some(exit) = files::read::<ExitRecord>(&path, files::EXIT)? {
                return ready(&exit).map_err(|error| RuntimeError::Supervisor {
                    id: id.into(),
                    problem: format!("its exit cannot be passed on: {error}"),
                });
            }
            // Between its last record and its end, or between its start and its socket.
            if Instant::now() > deadline || !self.is_supervised(&path)? {
                return Err(RuntimeError::NotRunning { id: id.into() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// The exit that a line of [`watch`](Self::watch) tells of, if it does.
    pub fn exit_in(line: &[u8]) -> Option<ExitRecord> {
        match serde_json::from_slice(line) {
            Ok(Reply::Exit(exit)) => Some(exit),
            _ => None,
        }
    }

    /// Waits for a container's end, for ever or for so long.
    pub fn wait_blocking(&self, id: &str, timeout: Option<Duration>) -> Result<ExitRecord, RuntimeError> {
        read_exit(&self.watch(id)?, id, timeout)
    }

    /// Starts a further program in a container that runs. Returns when it was executed.
    pub fn exec(&self, id: &str, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        let path = self.folder(id)?;
        let tty = request.tty.is_some();
        let exec = |source| RuntimeError::Exec { id: id.into(), source };
        match client::ask(&path, id, &Request::Exec(request))? {
            None => Err(RuntimeError::NotRunning { id: id.into() }),
            Some((Reply::Exec { pid }, fds, stream)) => {
                let mut fds = fds.into_iter();
                let missing = || {
                    exec(StartError::Kernel {
                        action: "receive the program's stdio".into(),
                        source: Errno(libc::EBADF),
                    })
                };
                let stdin = fds.next().ok_or_else(missing)?;
                let stdout = fds.next().ok_or_else(missing)?;
                let stderr = if tty { None } else { Some(fds.next().ok_or_else(missing)?) };
                Ok(ExecSession { pid, stdin, stdout, stderr, control: ExecControl::new(stream) })
            }
            Some((Reply::ExecFailed(source), ..)) => Err(exec(source)),
            Some((reply, ..)) => Err(unexpected(id, &reply)),
        }
    }

    /// The control groups of a container that runs.
    fn groups(&self, id: &str) -> Result<Vec<Group>, RuntimeError> {
        let path = self.folder(id)?;
        files::read::<Vec<Group>>(&path, files::CGROUPS)?.ok_or(RuntimeError::NotRunning { id: id.into() })
    }

    /// What a container that runs uses.
    pub fn stats(&self, id: &str) -> Result<Stats, RuntimeError> {
        cgroup::stats(&self.groups(id)?).map_err(|error| self.group_error(id, error))
    }

    /// The limits of a container that runs, as the kernel holds them; 0 where there is none.
    pub fn read_limits(&self, id: &str) -> Result<Limits, RuntimeError> {
        cgroup::read_limits(&self.groups(id)?).map_err(|error| self.group_error(id, error))
    }

    /// A group that is gone means that the container has just ended.
    fn group_error(&self, id: &str, error: io::Error) -> RuntimeError {
        if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) {
            return RuntimeError::NotRunning { id: id.into() };
        }
        RuntimeError::File { action: "read the control groups of", path: self.dir.join(id), source: error }
    }

    /// The log's files, oldest first. One record a line: `<unix_ms> <o|e|s> <F|P> <text>`, where `o` is
    /// standard output, `e` standard error, `s` the supervisor itself; `P` says that the text goes on
    /// in the next record of the same stream, `F` that a newline ended it. The text is bytes.
    pub fn log_files(&self, id: &str) -> Result<Vec<PathBuf>, RuntimeError> {
        let path = self.folder(id)?;
        let mut numbered: Vec<(u32, PathBuf)> = Vec::new();
        let list = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in list.map_err(RuntimeError::file("read the folder", &path))? {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(files::LOG)) else { continue };
            let number =
                if rest.is_empty() { Some(0) } else { rest.strip_prefix('.').and_then(|n| n.parse().ok()) };
            if let Some(number) = number {
                numbered.push((number, entry.path()));
            }
        }
        numbered.sort();
        Ok(numbered.into_iter().rev().map(|(_, path)| path).collect())
    }

    /// Removes a container with everything that is left of it. Refused while it runs.
    pub fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let path = self.folder(id)?;
        self.await_rest(&path, id)?;
        kill_leftovers(&path, id)?;
        let parent = read_spec(&path, id).ok().map(|spec| spec.cgroup_parent);
        if let Some(parent) = parent {
            Layout::detect()
                .and_then(|layout| cgroup::remove_empty_parents(&layout, &parent))
                .map_err(RuntimeError::file("remove the control groups of", &path))?;
        }
        let removing = self.dir.join(format!("{REMOVING}{id}"));
        fs::rename(&path, &removing)
            .and_then(|()| files::remove_tree(&removing))
            .and_then(|()| files::sync_dir(&self.dir))
            .map_err(RuntimeError::file("remove", path))?;
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).give_back(id);
        Ok(())
    }
}

/// Whether the state was written by a supervisor of this boot that still lives.
fn is_of_now(state: &StateFile) -> bool {
    files::boot_id().is_ok_and(|boot| boot == state.boot_id) && state.supervisor.is_well()
}

fn read_spec(path: &Path, id: &str) -> Result<ContainerSpec, RuntimeError> {
    let spec = files::read::<ContainerSpec>(path, files::SPEC)?
        .ok_or_else(|| RuntimeError::file("read", path.join(files::SPEC))(io::ErrorKind::NotFound.into()))?;
    spec.validate().map_err(|source| RuntimeError::Spec { id: id.into(), source })?;
    Ok(spec)
}

/// Kills and removes what a dead supervisor left behind.
fn kill_leftovers(path: &Path, id: &str) -> Result<(), RuntimeError> {
    let groups = match files::read::<Vec<Group>>(path, files::CGROUPS) {
        Ok(groups) => groups.unwrap_or_default(),
        // Written without fsync. After a power cut no group is left either.
        Err(RuntimeError::Unreadable { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    // Whatever the file says, only this container's groups are touched.
    let own: Vec<Group> = groups.into_iter().filter(|group| group.path.ends_with(id)).collect();
    let failed = || RuntimeError::file("end what is left of", path);
    if !cgroup::kill_all(&own).map_err(failed())? {
        return Err(RuntimeError::NotEnding { id: id.into(), waited_ms: KILL_WAIT.as_millis() });
    }
    cgroup::remove(&own).map_err(failed())?;
    files::remove_if_there(&path.join(files::CGROUPS)).map_err(failed())?;
    files::remove_if_there(&path.join(files::LISTENERS)).map_err(failed())
}

/// Waits for the end of a container's first process. It leaves its control group when it begins to end,
/// and ends only after all others.
fn await_end(init: &Process, id: &str) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + KILL_WAIT;
    while init.is_alive() {
        if Instant::now() > deadline {
            return Err(RuntimeError::NotEnding { id: id.into(), waited_ms: KILL_WAIT.as_millis() });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn unexpected(id: &str, reply: &Reply) -> RuntimeError {
    let problem = match reply {
        Reply::Refused(why) => format!("refused: {why}"),
        other => format!("gave an answer to another question: {other:?}"),
    };
    RuntimeError::Supervisor { id: id.into(), problem }
}

/// A stream on which the exit waits to be read.
fn ready(exit: &ExitRecord) -> io::Result<UnixStream> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.write_all(&line(&Reply::Exit(*exit)))?;
    Ok(theirs)
}

fn read_exit(watch: &UnixStream, id: &str, timeout: Option<Duration>) -> Result<ExitRecord, RuntimeError> {
    let failed = |problem: String| RuntimeError::Supervisor { id: id.into(), problem };
    let wait = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
    watch.set_read_timeout(wait).map_err(|error| failed(error.to_string()))?;
    match read_line_bounded(&mut BufReader::new(watch), REPLY_B_MAX) {
        Ok(bytes) => {
            Runtime::exit_in(&bytes).ok_or_else(|| failed("it was killed before it told the exit".into()))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(RuntimeError::NotEnding { id: id.into(), waited_ms: timeout.unwrap_or_default().as_millis() })
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The supervisor's one line.
fn hear(child: &mut Child) -> Result<Report, String> {
    let mut out = child.stdout.take().ok_or("it has no standard output")?;
    let deadline = Instant::now() + START_WAIT;
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it said nothing for {} s", START_WAIT.as_secs()));
        }
        let timeout = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        if !sys::poll_read(out.as_fd(), timeout).map_err(|error| error.to_string())? {
            continue;
        }
        let mut buffer = [0; 4096];
        let n = io::Read::read(&mut out, &mut buffer).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(&buffer[..n]);
        if n == 0 || bytes.ends_with(b"\n") {
            break;
        }
        if bytes.len() > REPLY_B_MAX {
            return Err("it said too much".into());
        }
    }
    if bytes.is_empty() {
        return Err("it ended without a word".into());
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("it said nonsense: {error}"))
}

/// Ends a supervisor whose start has failed; the kernel ends its container.
fn end(child: &mut Child) {
    // One that has ended already cannot be killed, and need not be.
    match child.kill() {
        Ok(()) | Err(_) => {}
    }
    match child.wait() {
        Ok(_) | Err(_) => {}
    }
}

fn last_words(path: &Path) -> String {
    let words = files::read_bounded(&path.join(files::STDERR), LAST_WORDS_B_MAX).unwrap_or_default();
    String::from_utf8_lossy(&words).trim().to_owned()
}
