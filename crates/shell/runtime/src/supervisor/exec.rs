//! Further programs in a container that runs.
//!
//! A child goes through the container's namespaces and control groups, and makes the program as its
//! own sibling, so that it is a child of the supervisor (which learns its end) and at the same time
//! inside of the container's process namespace (and dies with it).

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;

use crate::client::ExecRequest;
use crate::container::program::{Program, Stdio, become_it};
use crate::container::{ChildLine, capability, seccomp, tell};
use crate::error::{Errno, StartError};
use crate::files;
use crate::protocol::Reply;
use crate::record::ExecExit;
use crate::spec::{ContainerSpec, check_cwd, check_words};
use crate::sys::{self, Cloned};
use crate::users::Users;

use super::start::Live;
use super::users;

/// The file system that holds terminals, and nothing that an image could put in its place.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The lines of one start: one number, or one error.
const LINES_B_MAX: usize = 64 << 10;

/// How a container's namespaces are entered.
#[derive(Debug)]
pub(super) enum Door {
    /// By its init.
    Process,
    /// Without root init cannot be looked into any more, so its namespaces were opened in time.
    Files {
        /// The user namespace, which makes us mighty enough for the others.
        user: OwnedFd,
        /// The network one.
        network: OwnedFd,
        /// All the others.
        others: Vec<OwnedFd>,
    },
}

impl Door {
    /// Opens the namespaces of a container whose init has not hidden itself yet.
    pub(super) fn open(pid: u32) -> Result<Self, StartError> {
        let open = |name: &str| {
            File::open(format!("/proc/{pid}/ns/{name}"))
                .map(OwnedFd::from)
                .map_err(StartError::kernel(format!("open the container's {name} namespace")))
        };
        let others = ["ipc", "uts", "pid", "mnt"].iter().map(|name| open(name)).collect::<Result<_, _>>()?;
        Ok(Self::Files { user: open("user")?, network: open("net")?, others })
    }

    /// Enters the network namespace only.
    pub(super) fn enter_network(&self) -> io::Result<()> {
        match self {
            Self::Process => Err(io::ErrorKind::Unsupported.into()),
            Self::Files { user, network, .. } => {
                sys::setns(user.as_fd(), libc::CLONE_NEWUSER)?;
                sys::setns(network.as_fd(), libc::CLONE_NEWNET)
            }
        }
    }

    /// Enters all of the container `init`'s, as its user 0.
    fn enter(&self, init: &OwnedFd, users: Users) -> io::Result<()> {
        match self {
            Self::Process => {
                let all = crate::container::NAMESPACES | libc::CLONE_NEWCGROUP;
                if !users.have_namespace() {
                    return sys::setns(init.as_fd(), all);
                }
                sys::setns(init.as_fd(), all | libc::CLONE_NEWUSER)?;
                // Still our own id of the host, which means nobody in there.
                sys::set_ids(0, 0, Some(&[]))?;
            }
            Self::Files { others, .. } => {
                self.enter_network()?;
                for namespace in others {
                    sys::setns(namespace.as_fd(), 0)?;
                }
                sys::set_ids(0, 0, None)?;
            }
        }
        sys::prctl(libc::PR_SET_DUMPABLE, 0)
    }

    fn descriptors(&self) -> Vec<i32> {
        match self {
            Self::Process => Vec::new(),
            Self::Files { user, network, others } => {
                let mut all: Vec<i32> = others.iter().map(AsRawFd::as_raw_fd).collect();
                all.extend([user.as_raw_fd(), network.as_raw_fd()]);
                all
            }
        }
    }
}

/// Our ends of a program's stdio, on their way to the client.
#[derive(Debug)]
enum Ends {
    Pipes {
        stdin: OwnedFd,
        out: OwnedFd,
        err: OwnedFd,
    },
    /// The terminal comes through here.
    Terminal(UnixStream),
}

/// A program that was asked for.
#[derive(Debug)]
pub(super) struct Exec {
    /// Ends when the program was executed.
    pub(super) lines: Option<OwnedFd>,
    heard: Vec<u8>,
    ends: Option<Ends>,
    /// On the host; known once it runs.
    pub(super) pid: Option<u32>,
    /// For resizing.
    terminal: Option<OwnedFd>,
    /// The number of the control connection that asked.
    pub(super) connection: usize,
}

/// What became of the start of a program.
#[derive(Debug)]
pub(super) enum Progress {
    /// Not known yet.
    Waiting,
    /// It runs, and these are for the client.
    Runs { pid: u32, fds: Vec<OwnedFd> },
    /// It does not.
    Failed(StartError),
}

/// Starts a program; [`Exec::progress`] tells how that went.
pub(super) fn begin(live: &Live, request: &ExecRequest, connection: usize) -> Result<Exec, StartError> {
    let invalid = |problem: crate::spec::SpecProblem| StartError::Spec {
        path: "exec".into(),
        problem: problem.to_string(),
    };
    let unreadable = |problem: String| StartError::Spec { path: live.dir.join(files::SPEC), problem };
    // Read again rather than kept: most containers never see an exec.
    let spec = files::read::<ContainerSpec>(&live.dir, files::SPEC)
        .map_err(|error| unreadable(error.to_string()))?
        .ok_or_else(|| unreadable("does not exist".into()))?;
    let mut env = request.env.clone();
    for entry in spec.env {
        let name = entry.split('=').next().unwrap_or_default();
        if !env.iter().any(|own| own.split('=').next() == Some(name)) {
            env.push(entry);
        }
    }
    check_words(&request.args, &env).map_err(invalid)?;
    let cwd = request.cwd.clone().unwrap_or(spec.cwd);
    check_cwd(&cwd).map_err(invalid)?;
    let user = request.user.clone().or(spec.user);
    let filters = seccomp::compile()?;
    let program = Program {
        args: &request.args,
        env: &env,
        cwd: &cwd,
        user: user.as_deref(),
        hostname: &spec.hostname,
        users: live.users,
        descriptors: live.descriptors,
    };
    let pipe = || sys::pipe(false).map_err(StartError::kernel("make a pipe"));
    let (lines, lines_write) = pipe()?;
    let (ends, inner) = if let Some(size) = request.tty {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::kernel("make a socket pair"))?;
        ours.set_nonblocking(true).map_err(StartError::kernel("make a socket pair"))?;
        (Ends::Terminal(ours), Inner::Terminal(theirs.into(), size))
    } else {
        let ((stdin, ours_in), (ours_out, out), (ours_err, err)) = (pipe()?, pipe()?, pipe()?);
        for pipe in [&stdin, &out, &err] {
            users::own(pipe.as_fd(), live.users)?;
        }
        (Ends::Pipes { stdin: ours_in, out: ours_out, err: ours_err }, Inner::Pipes { stdin, out, err })
    };
    let v2 = live.groups.iter().find(|group| group.version == 2);
    let v2 = v2.map(crate::cgroup::Group::open).transpose();
    let v2 = v2.map_err(StartError::kernel("open the control group"))?;
    let cloned = sys::clone3(0, false, v2.as_ref().map(OwnedFd::as_fd));
    match cloned.map_err(StartError::kernel("fork a program for the container"))? {
        Cloned::Child => {
            let Err(error) = go_in(live, &program, &filters, &lines_write, &inner);
            tell(lines_write.as_fd(), &ChildLine::Failed(error));
            sys::exit_now(1)
        }
        Cloned::Parent { .. } => {}
    }
    sys::set_nonblocking(lines.as_fd()).map_err(StartError::kernel("make a pipe"))?;
    Ok(Exec {
        lines: Some(lines),
        heard: Vec::new(),
        ends: Some(ends),
        pid: None,
        terminal: None,
        connection,
    })
}

/// The program's ends.
enum Inner {
    Pipes {
        stdin: OwnedFd,
        out: OwnedFd,
        err: OwnedFd,
    },
    /// The way to the supervisor, and the terminal's rows and columns.
    Terminal(OwnedFd, (u16, u16)),
}

impl Inner {
    fn descriptors(&self) -> Vec<i32> {
        match self {
            Self::Pipes { stdin, out, err } => vec![stdin.as_raw_fd(), out.as_raw_fd(), err.as_raw_fd()],
            Self::Terminal(socket, _) => vec![socket.as_raw_fd()],
        }
    }
}

/// In the child: through the container's door, to a sibling that becomes the program.
fn go_in(
    live: &Live,
    program: &Program<'_>,
    filters: &seccomp::Filters,
    lines: &OwnedFd,
    inner: &Inner,
) -> Result<Infallible, StartError> {
    let die_with_supervisor = || {
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())
            .map_err(StartError::kernel("tie the program to the supervisor"))
    };
    die_with_supervisor()?;
    let mut keep = vec![lines.as_raw_fd(), live.init.as_raw_fd()];
    keep.extend(live.door.descriptors());
    keep.extend(inner.descriptors());
    sys::close_all_but(&keep).map_err(StartError::kernel("close the supervisor's files"))?;
    for group in live.groups.iter().filter(|group| group.version == 1) {
        let action = format!("place the program in {}", group.path.display());
        group.join(std::process::id()).map_err(StartError::kernel(action))?;
    }
    sys::blank_command_line().map_err(StartError::kernel("hide the command line"))?;
    live.door.enter(&live.init, live.users).map_err(StartError::kernel("enter the container"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));

    match sys::clone3(0, true, None).map_err(StartError::kernel("fork the program"))? {
        Cloned::Parent { pid, .. } => {
            tell(lines.as_fd(), &ChildLine::Program(pid.cast_unsigned()));
            sys::exit_now(0)
        }
        Cloned::Child => {}
    }
    die_with_supervisor()?;
    capability::drop_from_bounding_set().map_err(StartError::kernel("drop capabilities"))?;
    seccomp::install(filters).map_err(StartError::kernel("install the system call filter"))?;
    Err(match inner {
        Inner::Pipes { stdin, out, err } => {
            let stdio = Stdio::Pipes { stdin: Some(stdin.as_fd()), out: out.as_fd(), err: err.as_fd() };
            become_it(program, &stdio, lines.as_fd())
        }
        Inner::Terminal(socket, size) => {
            let terminal = make_terminal(socket, *size).map_err(StartError::kernel("make a terminal"))?;
            become_it(program, &Stdio::Terminal(terminal.as_fd()), lines.as_fd())
        }
    })
}

/// A terminal of the container's own; its other end goes to the supervisor.
fn make_terminal(socket: &OwnedFd, (rows, columns): (u16, u16)) -> io::Result<OwnedFd> {
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NOFOLLOW)
        .open("/dev/pts/ptmx")?;
    if sys::filesystem_magic(master.as_fd())? != DEVPTS_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let terminal = sys::open_terminal(master.as_fd())?;
    sys::resize(master.as_fd(), rows, columns)?;
    sys::send_fds(socket.as_fd(), b"t", &[master.as_fd()])?;
    Ok(terminal)
}

impl Exec {
    /// Reads what the child says. To be called when `lines` is readable.
    pub(super) fn progress(&mut self) -> Progress {
        let Some(lines) = &self.lines else { return Progress::Waiting };
        let mut buffer = [0; 1024];
        match sys::read(lines.as_fd(), &mut buffer) {
            Ok(0) => {}
            Ok(n) if self.heard.len() + n <= LINES_B_MAX => {
                self.heard.extend_from_slice(&buffer[..n]);
                return Progress::Waiting;
            }
            Ok(_) => {
                return Progress::Failed(StartError::Supervisor { problem: "too long an answer".into() });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Waiting,
            Err(error) => return Progress::Failed(StartError::kernel("hear from the program")(error)),
        }
        self.lines = None;
        let (mut pid, mut executing) = (None, false);
        for line in std::mem::take(&mut self.heard).split(|byte| *byte == b'\n').filter(|it| !it.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(ChildLine::Program(number)) => pid = Some(number),
                Ok(ChildLine::Failed(error)) => return Progress::Failed(error),
                Ok(ChildLine::Executing) => executing = true,
                Ok(ChildLine::Degraded(_)) | Err(_) => {}
            }
        }
        self.pid = pid;
        let Some(pid) = pid.filter(|_| executing) else {
            let problem = "the program was killed before it ran".into();
            return Progress::Failed(StartError::Supervisor { problem });
        };
        match self.hand_out() {
            Ok(fds) => Progress::Runs { pid, fds },
            Err(error) => Progress::Failed(error),
        }
    }

    fn hand_out(&mut self) -> Result<Vec<OwnedFd>, StartError> {
        match self.ends.take() {
            Some(Ends::Pipes { stdin, out, err }) => Ok(vec![stdin, out, err]),
            Some(Ends::Terminal(socket)) => {
                let (_, mut fds) = sys::receive_fds(socket.as_fd(), &mut [0])
                    .map_err(StartError::kernel("receive the terminal"))?;
                let master = fds.pop().ok_or(StartError::Kernel {
                    action: "receive the terminal".into(),
                    source: Errno(libc::EBADF),
                })?;
                let copy = || master.try_clone().map_err(StartError::kernel("copy the terminal"));
                let (ours, second) = (copy()?, copy()?);
                self.terminal = Some(ours);
                Ok(vec![master, second])
            }
            None => Err(StartError::Supervisor { problem: "its stdio was handed out already".into() }),
        }
    }

    /// Sets the size of its terminal; nothing where it has none.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::resize(terminal.as_fd(), rows, columns),
            None => Ok(()),
        }
    }

    /// Signals the program, which is our child and not reaped yet.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        match self.pid {
            Some(pid) => match sys::kill(pid.cast_signed(), signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// How a program ended, for its client.
pub(super) fn exit_reply(status: i32) -> Reply {
    let (code, signal) = sys::decode_status(status);
    Reply::ExecExit(ExecExit { code, signal })
}
