//! Becoming a program: user, environment, working folder, stdio, exec.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use crate::error::{Errno, StartError};
use crate::sys;
use crate::users::Users;

use super::{ChildLine, capability, tell, user};

/// Where programs are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to become.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) args: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) cwd: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) hostname: &'a str,
    pub(crate) users: Users,
    /// Soft and hard limit of open files.
    pub(crate) descriptors: (u64, u64),
}

/// What its standard input, output and error are.
#[derive(Debug)]
pub(crate) enum Stdio<'a> {
    /// No stdin is `/dev/null`.
    Pipes { stdin: Option<BorrowedFd<'a>>, out: BorrowedFd<'a>, err: BorrowedFd<'a> },
    /// All three are this terminal, which becomes the controlling one.
    Terminal(BorrowedFd<'a>),
}

/// Becomes the program, and says so in `lines` right before. Returns only when it cannot, with the
/// reason.
pub(crate) fn become_it(program: &Program<'_>, stdio: &Stdio<'_>, lines: BorrowedFd<'_>) -> StartError {
    match prepare(program, stdio) {
        Ok((env, path)) => {
            tell(lines, &ChildLine::Executing);
            execute(program.args, &env, &path)
        }
        Err(error) => error,
    }
}

type Prepared = (Vec<CString>, String);

fn prepare(program: &Program<'_>, stdio: &Stdio<'_>) -> Result<Prepared, StartError> {
    let user = user::look_up(program.user)?;
    let refused =
        |source: Errno| StartError::UserRefused { user: program.user.unwrap_or("0").into(), source };
    if let Users::Mapped(range) = program.users
        && [user.uid, user.gid].iter().chain(&user.groups).any(|id| range.of(*id).is_none())
    {
        return Err(refused(Errno(libc::EINVAL)));
    }
    nix::unistd::setsid().map_err(StartError::kernel("make a session"))?;
    connect(stdio, &user, program.users).map_err(StartError::kernel("connect the program's stdio"))?;
    let (soft, hard) = program.descriptors;
    sys::set_descriptor_limit(soft, hard).map_err(StartError::kernel("restore the limit of open files"))?;

    nix::unistd::chdir(program.cwd).map_err(|errno| match errno {
        nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR => {
            StartError::CwdMissing { cwd: program.cwd.into() }
        }
        errno => StartError::kernel(format!("enter the working folder `{}`", program.cwd))(errno),
    })?;

    // Without root the user namespace knows one group only, and the kernel wants no further ones.
    let groups = (!program.users.are_rootless()).then_some(&user.groups[..]);
    sys::set_ids(user.uid, user.gid, groups).map_err(|error| refused(error.into()))?;
    capability::set_for_user(user.uid).map_err(StartError::kernel("set capabilities"))?;
    // Descriptors that were meant for us end here.
    sys::close_from(3, true).map_err(StartError::kernel("close files"))?;
    sys::reset_signals().map_err(StartError::kernel("reset signals"))?;

    let mut env: Vec<String> = program.env.to_vec();
    let mut add = |name: &str, value: &str| {
        let there = env.iter().any(|entry| entry.split('=').next() == Some(name));
        if !there {
            env.push(format!("{name}={value}"));
        }
    };
    add("PATH", PATH_DEFAULT);
    add("HOME", &user.home);
    add("HOSTNAME", program.hostname);
    if matches!(stdio, Stdio::Terminal(_)) {
        add("TERM", "xterm");
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT).to_owned();
    Ok((words(&env)?, path))
}

fn words(list: &[String]) -> Result<Vec<CString>, StartError> {
    list.iter().map(|word| word_of(word)).collect()
}

fn word_of(word: &str) -> Result<CString, StartError> {
    CString::new(word).map_err(|_| StartError::Kernel {
        action: "pass a word with a NUL character".into(),
        source: Errno(libc::EINVAL),
    })
}

fn connect(stdio: &Stdio<'_>, user: &user::User, users: Users) -> io::Result<()> {
    match stdio {
        Stdio::Pipes { stdin, out, err } => {
            match stdin {
                Some(stdin) => sys::dup_onto(*stdin, 0)?,
                None => sys::dup_onto(File::open("/dev/null")?.as_fd(), 0)?,
            }
            // The pipes were made at 3 and above, so none of them is overwritten here.
            sys::dup_onto(*out, 1)?;
            sys::dup_onto(*err, 2)?;
        }
        Stdio::Terminal(terminal) => {
            for fd in 0..3 {
                sys::dup_onto(*terminal, fd)?;
            }
            sys::take_terminal(*terminal)?;
        }
    }
    if !users.are_rootless() {
        // `/dev/stdout` opens the pipe or terminal again, which its owner alone may do.
        let owned: &[BorrowedFd<'_>] = match stdio {
            Stdio::Pipes { stdin: Some(stdin), out, err } => &[*stdin, *out, *err],
            Stdio::Pipes { stdin: None, out, err } => &[*out, *err],
            Stdio::Terminal(terminal) => &[*terminal],
        };
        for fd in owned {
            nix::unistd::fchown(fd, Some(user.uid.into()), None)?;
        }
    }
    Ok(())
}

/// Executes the program, looking for it as a shell would.
fn execute(args: &[String], env: &[CString], path: &str) -> StartError {
    let name = args.first().map_or("", String::as_str);
    let argv = match words(args) {
        Ok(argv) => argv,
        Err(error) => return error,
    };
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.to_owned()]
    } else {
        path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir })).collect()
    };
    let mut worst = StartError::ProgramMissing { program: name.into() };
    for candidate in candidates {
        let file = match word_of(&candidate) {
            Ok(file) => file,
            Err(error) => return error,
        };
        let error = sys::execve(&file, &argv, env);
        let unusable = |why: &str, error: io::Error| StartError::ProgramUnusable {
            program: name.into(),
            why: why.into(),
            source: error.into(),
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) if Path::new(&candidate).exists() => {
                return unusable(
                    "the interpreter or loader that it names does not exist in the image",
                    error,
                );
            }
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {}
            Some(libc::EACCES | libc::EPERM | libc::EISDIR) => {
                worst = StartError::ProgramNotExecutable { program: name.into() };
            }
            Some(libc::ENOEXEC) => {
                return unusable("it is not a program of this kind of machine", error);
            }
            _ => return unusable("the kernel refused it", error),
        }
    }
    worst
}
