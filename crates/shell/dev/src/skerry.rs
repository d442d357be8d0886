//! The `skerry` binary, used as a user uses it.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Client, ClientError, UnixSocket};
use serde::de::DeserializeOwned;

/// How often a command is looked at whether it has ended.
const POLL: Duration = Duration::from_millis(3);

/// How long a peer may take to answer one request.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Why a command could not be run, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SkerryError {
    /// The binary cannot be started.
    #[error("`{command}` cannot be started")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The namespace of its node cannot be entered.
    #[error("`{command}` cannot be started inside of its node")]
    Inside {
        /// The command line.
        command: String,
        /// Why.
        source: network::SpawnError,
    },
    /// It did not end in time and was killed.
    #[error("`{command}` did not end within {seconds} s{}", said(stderr))]
    TooSlow {
        /// The command line.
        command: String,
        /// The deadline.
        seconds: u64,
        /// What it said.
        stderr: String,
    },
    /// It said no.
    #[error("`{command}` ended with {}{}", code.map_or("a signal".to_owned(), |code| format!("code {code}")), said(stderr))]
    Failed {
        /// The command line.
        command: String,
        /// The exit code; none after a signal.
        code: Option<i32>,
        /// What it said.
        stderr: String,
    },
    /// Its data is not of its shape.
    #[error("`{command}` answered what cannot be read: {stdout}")]
    Shape {
        /// The command line.
        command: String,
        /// What it answered.
        stdout: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Characters of a command's words that are told on.
const SAID_CHARS_MAX: usize = 2_000;

fn said(stderr: &str) -> String {
    let text = stderr.trim();
    let text: String = text.chars().take(SAID_CHARS_MAX).collect();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What a command answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Words.
    pub stderr: String,
}

impl Answer {
    /// The answer where it succeeded, else an error with its words.
    pub fn ok(self) -> Result<Self, SkerryError> {
        match self.code {
            Some(0) => Ok(self),
            code => Err(SkerryError::Failed { command: self.command, code, stderr: self.stderr }),
        }
    }

    /// Its data.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, SkerryError> {
        serde_json::from_str(&self.stdout).map_err(|source| SkerryError::Shape {
            command: self.command.clone(),
            stdout: self.stdout.chars().take(SAID_CHARS_MAX).collect(),
            source,
        })
    }
}

/// The command line of one user at one peer.
#[derive(Clone, Debug)]
pub struct Skerry {
    exe: PathBuf,
    globals: Vec<String>,
    netns: Option<PathBuf>,
    timeout: Duration,
}

impl Skerry {
    /// The binary at `exe`, with JSON for an answer, and yes to every question.
    pub fn new(exe: &Path, timeout: Duration) -> Self {
        let globals = ["-o", "json", "-y"].map(str::to_owned).to_vec();
        Self { exe: exe.to_owned(), globals, netns: None, timeout }
    }

    /// Talks to the peer with this socket.
    #[must_use]
    pub fn at(mut self, socket: &Path) -> Self {
        self.globals.extend(["--peer".to_owned(), format!("unix:{}", socket.display())]);
        self
    }

    /// Signs with this key.
    #[must_use]
    pub fn signing(mut self, key: &Path) -> Self {
        self.globals.extend(["--key".to_owned(), key.display().to_string()]);
        self
    }

    /// Runs inside of a node's network namespace.
    #[must_use]
    pub fn inside(mut self, netns: &Path) -> Self {
        self.netns = Some(netns.to_owned());
        self
    }

    /// Waits so long for what was asked to come about, and a little longer for the command itself.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(&self.globals)
            .arg("--timeout")
            .arg(format!("{}ms", self.timeout.as_millis()))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What the caller's shell says of peers, keys and forms is about other clusters.
        for name in ["SKERRY_PEER", "SKERRY_KEY", "SKERRY_OUTPUT", "SKERRY_YES"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts a command that goes on; its output is piped.
    pub fn spawn(&self, args: &[&str]) -> Result<Child, SkerryError> {
        let line = format!("skerry {}", args.join(" "));
        let mut command = self.command(args);
        match &self.netns {
            None => command.spawn().map_err(|source| SkerryError::Start { command: line, source }),
            Some(netns) => network::spawn_in(netns, &mut command)
                .map_err(|source| SkerryError::Inside { command: line, source }),
        }
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Result<Answer, SkerryError> {
        let mut child = self.spawn(args)?;
        let command = format!("skerry {}", args.join(" "));
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        // A command waits so long itself, and then still has something to say.
        let limit = self.timeout + Duration::from_secs(10);
        let deadline = Instant::now() + limit;
        let start = |source| SkerryError::Start { command: command.clone(), source };
        let status = loop {
            if let Some(status) = child.try_wait().map_err(start)? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill().and_then(|()| child.wait()).map_err(start)?;
                break None;
            }
            std::thread::sleep(POLL);
        };
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        match status {
            Some(status) => Ok(Answer { command, code: status.code(), stdout, stderr }),
            None => Err(SkerryError::TooSlow { command, seconds: limit.as_secs(), stderr }),
        }
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Result<Answer, SkerryError> {
        self.run(args)?.ok()
    }

    /// Runs a command that must succeed, for its data.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T, SkerryError> {
        self.ok(args)?.json()
    }

    /// The daemon of a prepared data folder, ready to be started: apart from our process group, so that
    /// ^C at our terminal is not meant for it, and with its words in `log`.
    pub(crate) fn peer(exe: &Path, dir: &Path, log: std::fs::File) -> io::Result<Command> {
        let mut command = Command::new(exe);
        command
            .arg("peer")
            .arg("--dir")
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env_remove("NOTIFY_SOCKET")
            .process_group(0);
        Ok(command)
    }
}

/// Reads a pipe to its end, on a thread: a command that fills one pipe must not wait for the other.
fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is what there is.
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

/// Asks the peer with this socket directly; for conditions that are waited for, which ask often.
pub fn ask<T: DeserializeOwned>(socket: &Path, route: &str) -> Result<T, ClientError> {
    let client = Client::new(Arc::new(UnixSocket(socket.to_owned())), ANSWER_WAIT);
    let unreachable =
        |source| ClientError::Unreachable { peer: format!("unix:{}", socket.display()), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
    runtime.block_on(client.get(route))
}
