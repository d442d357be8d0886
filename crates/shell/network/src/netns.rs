//! Network namespaces: making them, holding them by a mount, and running something inside.
//!
//! A namespace lives as long as something refers to it: a process, an open file or a mount. Ours
//! are held by mounts: they outlive the process that made them, cost no process, and are found
//! again by their paths. Holder processes would have to be found by pid, would show up in every
//! process list, and would die with the control group of whoever made the lab.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Why something could not be done with a network namespace.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the network namespace `{}`", path.display())]
pub struct NetnsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl NetnsError {
    fn at(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }
}

/// Runs `f` inside a network namespace, on a thread made for it.
///
/// Sockets that `f` opens belong to the namespace for good and may be handed out. A panic of `f`
/// is passed on.
pub fn in_netns<T, F>(netns_path: &Path, f: F) -> Result<T, NetnsError>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    on_own_thread(|| {
        let file = File::open(netns_path).map_err(|source| NetnsError::at("open", netns_path, source))?;
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(|source| NetnsError::at("enter", netns_path, source))?;
        Ok(f())
    })
    .map_err(|source| NetnsError::at("start a thread for", netns_path, source))?
}

/// Starts a process inside a network namespace.
///
/// The process is born to a thread that has entered the namespace and ends right after: nothing
/// runs between fork and exec, and no other thread is moved. So the command must not ask for a
/// signal at its parent's death (`PR_SET_PDEATHSIG`): the parent, for the kernel, is that thread.
pub fn spawn_in(netns_path: &Path, command: &mut Command) -> Result<Child, SpawnError> {
    let program = command.get_program().to_string_lossy().into_owned();
    in_netns(netns_path, move || command.spawn())?.map_err(|source| SpawnError::Spawn {
        program,
        path: netns_path.to_owned(),
        source,
    })
}

/// Why a process could not be started inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The program cannot be started.
    #[error("cannot start `{program}` inside `{}`", path.display())]
    Spawn {
        /// The program.
        program: String,
        /// The namespace.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs `f` in a new network namespace that ends with it.
pub(crate) fn in_new_netns<T, F>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(f())
    })?
}

/// Makes a namespace and holds it by a mount on `path`, a file that is made for it.
pub(crate) fn create(path: &Path) -> Result<(), NetnsError> {
    File::create_new(path).map_err(|source| NetnsError::at("make the file of", path, source))?;
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|source| NetnsError::at("make", path, source))?;
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|source| NetnsError::at("hold", path, source))
    })
    .map_err(|source| NetnsError::at("start a thread for", path, source))?
}

/// A thread's namespace is its own; the pool's threads and the caller's must keep theirs.
fn on_own_thread<T, F>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
