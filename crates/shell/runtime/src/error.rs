//! Why something did not work, in words for the person who asked for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::SpecProblem;

/// An error number of the kernel. It crosses from the container through the supervisor to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Errno(pub i32);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(error: nix::errno::Errno) -> Self {
        Self(error as i32)
    }
}

/// Why a container, or a program in it, did not start. Nothing of the attempt is left running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartError {
    /// It runs already.
    #[error("container {id} runs already")]
    AlreadyRunning {
        /// The container.
        id: String,
    },
    /// The specification on disk cannot be read or used.
    #[error("{path}: {problem}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer of the root file system is not there.
    #[error("rootfs: the layer {path} does not exist")]
    LayerMissing {
        /// The folder that was named.
        path: PathBuf,
    },
    /// The root file system cannot be made or entered.
    #[error("rootfs: {step} failed")]
    Rootfs {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The program is not in the image.
    #[error("program `{program}` does not exist in the image")]
    ProgramMissing {
        /// As it was asked for.
        program: String,
    },
    /// The program is there but may not be executed.
    #[error("program `{program}` is not executable")]
    ProgramNotExecutable {
        /// As it was asked for.
        program: String,
    },
    /// The program is there, but the kernel cannot run it.
    #[error("program `{program}` cannot be run: {why}")]
    ProgramUnusable {
        /// As it was asked for.
        program: String,
        /// In words.
        why: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The user is not in the image.
    #[error("user `{user}` does not exist in the image")]
    UserMissing {
        /// As it was asked for.
        user: String,
    },
    /// The user exists but cannot be taken on.
    #[error(
        "user `{user}` cannot be used: a container has users and groups 0 to 65535, and without root only user 0"
    )]
    UserRefused {
        /// As it was asked for.
        user: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The working folder is not in the image.
    #[error("working folder `{cwd}` does not exist in the image")]
    CwdMissing {
        /// As it was asked for.
        cwd: String,
    },
    /// A limit cannot be held.
    #[error("limit {limit} cannot be held: {problem}")]
    LimitRefused {
        /// `cpu`, `memory` or `pids`.
        limit: String,
        /// Why not.
        problem: String,
        /// What the kernel said, where it was asked.
        source: Option<Errno>,
    },
    /// Somebody else listens on the port.
    #[error("port {port} is taken")]
    PortTaken {
        /// The port of the host.
        port: u16,
    },
    /// The port cannot be listened on for another reason.
    #[error("port {port} cannot be published")]
    PortRefused {
        /// The port of the host.
        port: u16,
        /// What the kernel said.
        source: Errno,
    },
    /// The kernel does not let us.
    #[error("no permission to {action}")]
    NoPermission {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: Errno,
    },
    /// Anything else that the kernel refused.
    #[error("{action} failed")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The supervisor did not come up, or died before it could tell.
    #[error("the supervisor did not start the container: {problem}")]
    Supervisor {
        /// What was seen of it.
        problem: String,
    },
}

impl StartError {
    /// Whether the disk, or the share of it that may be used, was full.
    pub fn is_for_want_of_room(&self) -> bool {
        let source = std::error::Error::source(self).and_then(|it| it.downcast_ref::<Errno>());
        source.is_some_and(|errno| [libc::ENOSPC, libc::EDQUOT].contains(&errno.0))
    }
}

impl StartError {
    /// For `map_err`: names what was tried; lack of permission is told apart.
    pub(crate) fn kernel<E: Into<Errno>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |error| match error.into() {
            source @ Errno(libc::EPERM | libc::EACCES) => Self::NoPermission { action, source },
            source => Self::Kernel { action, source },
        }
    }

    /// For `map_err`, in the making of the root file system.
    pub(crate) fn rootfs<E: Into<Errno>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |error| Self::Rootfs { step, source: error.into() }
    }
}

/// Why a call on a container did not work.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not the name of a container.
    #[error("`{id}` is not a container id: expected 1 to 64 hexadecimal digits in lower case")]
    Id {
        /// As it was given.
        id: String,
    },
    /// The specification is not valid.
    #[error("the specification of container {id} is not valid")]
    Spec {
        /// The container.
        id: String,
        /// What is wrong with it.
        source: SpecProblem,
    },
    /// There is no such container.
    #[error("there is no container {id}")]
    NotFound {
        /// The container.
        id: String,
    },
    /// It must not run for this.
    #[error("container {id} still runs")]
    StillRunning {
        /// The container.
        id: String,
    },
    /// It must run for this.
    #[error("container {id} does not run")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// It did not end in time, not even when killed.
    #[error("container {id} did not end within {waited_ms} ms")]
    NotEnding {
        /// The container.
        id: String,
        /// How long was waited.
        waited_ms: u128,
    },
    /// The supervisor answered something else than expected, or nothing.
    #[error("the supervisor of container {id}: {problem}")]
    Supervisor {
        /// The container.
        id: String,
        /// What it said.
        problem: String,
    },
    /// A program could not be started in the container.
    #[error("no program was started in container {id}")]
    Exec {
        /// The container.
        id: String,
        /// Why not.
        source: StartError,
    },
    /// A file could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} cannot be understood")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        source: serde_json::Error,
    },
}

impl RuntimeError {
    /// For `map_err`: names what was tried on which file.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Whether there was no room for it.
    pub(crate) fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::File { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
