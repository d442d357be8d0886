//! The peer's side of a supervisor's socket.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::files;
use crate::protocol::{ExecLine, REPLY_B_MAX, Reply, Request, line};
use crate::record::ExecExit;
use crate::sys;

/// A supervisor answers in microseconds; it may have to wait for a slow disk once.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// A program to be started in a container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value` each, added to the container's own; the same name replaces.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working folder; the container's own when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The user; the container's own when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Give it a terminal of this many rows and columns.
    #[serde(default)]
    pub tty: Option<(u16, u16)>,
}

/// A program that runs in a container beside its main one.
#[derive(Debug)]
pub struct ExecSession {
    /// Its number on the host.
    pub pid: u32,
    /// What is written here the program reads. With a terminal: the terminal.
    pub stdin: OwnedFd,
    /// What the program writes. With a terminal: the terminal, a copy of the same descriptor.
    pub stdout: OwnedFd,
    /// What the program writes to its standard error; none with a terminal.
    pub stderr: Option<OwnedFd>,
    /// How it is directed and how it ends. The program gets SIGHUP when this is dropped.
    pub control: ExecControl,
}

/// The connection that belongs to an [`ExecSession`].
#[derive(Debug)]
pub struct ExecControl {
    stream: UnixStream,
}

impl ExecControl {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Sets the size of the terminal; without one nothing happens.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        (&self.stream).write_all(&line(&ExecLine::Resize(rows, columns)))
    }

    /// Signals the program.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        (&self.stream).write_all(&line(&ExecLine::Signal(signal)))
    }

    /// Waits for the program's end. Blocks; output must be read by somebody else meanwhile.
    pub fn wait(&self) -> io::Result<ExecExit> {
        self.stream.set_read_timeout(None)?;
        loop {
            match read_reply(&self.stream)? {
                (Reply::ExecExit(exit), _) => return Ok(exit),
                // An earlier line of ours was not possible: the program goes on.
                (Reply::Refused(_), _) => {}
                (other, _) => return Err(io::Error::other(format!("not an exit: {other:?}"))),
            }
        }
    }

    /// The connection itself, for use with an event loop: lines as [`exit_in`](Self::exit_in) reads
    /// them come out; it is closed after the exit.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// A copy of the control connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// The exit that a line of the connection tells of, if it does.
    pub fn exit_in(line: &[u8]) -> Option<ExecExit> {
        match serde_json::from_slice(line) {
            Ok(Reply::ExecExit(exit)) => Some(exit),
            _ => None,
        }
    }
}

/// Connects to the supervisor of the container in `dir`; `None` when nobody listens.
fn connect(dir: &Path) -> io::Result<Option<UnixStream>> {
    // The name of a socket is at most 107 bytes long, a path is not: go through a descriptor.
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir);
    let folder: File = match folder {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), files::SOCKET);
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Sends a request and reads the first answer. `None` when the supervisor is no more.
pub(crate) fn ask(
    dir: &Path,
    id: &str,
    request: &Request,
) -> Result<Option<(Reply, Vec<OwnedFd>, UnixStream)>, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::Supervisor { id: id.into(), problem: error.to_string() };
    let Some(mut stream) = connect(dir).map_err(failed)? else { return Ok(None) };
    stream.set_read_timeout(Some(ANSWER_WAIT)).map_err(failed)?;
    let answer = stream.write_all(&line(request)).and_then(|()| read_reply(&stream));
    match answer {
        Ok((reply, fds)) => {
            stream.set_read_timeout(None).map_err(failed)?;
            Ok(Some((reply, fds, stream)))
        }
        // It ended between our connecting and its answer.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Reads one line and no more, so that what follows is left for others to read.
fn read_reply(stream: &UnixStream) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let mut bytes = Vec::new();
    let mut fds = Vec::new();
    loop {
        let mut byte = [0];
        let (n, more) = sys::receive_fds(stream.as_fd(), &mut byte)?;
        fds.extend(more);
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            return Ok((serde_json::from_slice(&bytes)?, fds));
        }
        if bytes.len() == REPLY_B_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        bytes.push(byte[0]);
    }
}

/// Reads a line of at most `bytes_max` from a buffered reader.
pub(crate) fn read_line_bounded(from: &mut impl io::BufRead, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::take(from, bytes_max as u64).read_until(b'\n', &mut bytes)?;
    Ok(bytes)
}
