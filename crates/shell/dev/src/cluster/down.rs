//! Taking a cluster down, and what shows that nothing is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::Lab;

use super::up::missing;
use super::{Cluster, ClusterError, Lock, failed, ours};
use crate::kernel;
use crate::marker::{FILE, Marker};
use crate::process::{self, Process};

/// A process that is just being executed has no arguments for a moment, and is not found by them: so
/// this many scans in a row, this far apart, must find nothing.
const SCANS_CLEAR: u32 = 2;
const SCAN_GAP: Duration = Duration::from_millis(5);

impl Cluster {
    /// Everything that can be seen of the cluster now, to be looked for after [`Cluster::down`].
    pub fn traces(&self) -> Result<Traces, ClusterError> {
        let mut processes: Vec<Process> = kernel::processes(&self.cgroup)?.into_iter().collect();
        processes.extend(ours(&self.dir)?);
        Ok(Traces { dir: self.dir.clone(), cgroup: self.cgroup.clone(), processes })
    }

    /// Takes everything down and away, the folder included. Returns the processes of others that are
    /// still inside of what were its network namespaces.
    pub fn down(self) -> Result<Vec<u32>, ClusterError> {
        let others = Self::down_at(&self.dir)?;
        self.bury();
        Ok(others)
    }

    /// Whether there is a cluster in `dir` that belonged to one process, which is gone.
    pub fn is_abandoned(dir: &Path) -> bool {
        find(dir).is_ok_and(|(_, marker)| marker.owner.is_some_and(|owner| !owner.is_alive()))
    }

    /// As [`Cluster::down`], also for a cluster that was not made to its end, or is from before this
    /// machine was started.
    pub fn down_at(dir: &Path) -> Result<Vec<u32>, ClusterError> {
        let missing = missing();
        if !missing.is_empty() {
            return Err(ClusterError::Missing { missing });
        }
        let (dir, _) = find(dir)?;
        let _lock = Lock::take(&dir)?;
        let (dir, marker) = find(&dir)?;
        if let Some(owner) = marker.owner.filter(|owner| owner.is_alive() && owner.pid != std::process::id())
        {
            let why = format!("holds a cluster that process {} is using", owner.pid);
            return Err(ClusterError::Folder { dir, why });
        }
        let others = sweep(&dir, &marker)?;
        clear(&dir)?;
        fs::remove_dir(&dir).map_err(failed("remove", &dir))?;
        Ok(others)
    }
}

pub(super) fn find(dir: &Path) -> Result<(PathBuf, Marker), ClusterError> {
    let missing = || ClusterError::NotFound { dir: dir.to_owned() };
    let real = match dir.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(failed("find", dir)(error)),
    };
    let marker = Marker::read(&real)?.ok_or_else(missing)?;
    Ok((real, marker))
}

/// Kills every peer and supervisor of the cluster, or of the node, in `dir`.
pub(super) fn end_ours(dir: &Path) -> Result<(), ClusterError> {
    let mut clear = 0;
    while clear < SCANS_CLEAR {
        let found = ours(dir)?;
        clear = if found.is_empty() { clear + 1 } else { 0 };
        // Peers first: they would start supervisors anew.
        let (peers, supervisors): (Vec<Process>, Vec<Process>) =
            found.into_iter().partition(|it| it.args().get(1).is_some_and(|word| word == "peer"));
        for process in peers.into_iter().chain(supervisors) {
            process.kill()?;
        }
        std::thread::sleep(SCAN_GAP);
    }
    Ok(())
}

/// Ends every process of the cluster and removes its cgroups, namespaces and mounts. Idempotent.
/// Returns processes of others that are inside of the namespaces.
pub(super) fn sweep(dir: &Path, marker: &Marker) -> Result<Vec<u32>, ClusterError> {
    let boot = process::boot_id().map_err(failed("read", Path::new("the boot id")))?;
    if boot == marker.boot_id {
        for peer in marker.nodes.iter().filter_map(|node| node.peer) {
            peer.kill()?;
        }
    }
    end_ours(dir)?;
    kernel::kill_all(&marker.cgroup)?;
    kernel::remove_cgroups(&marker.cgroup)?;
    let stragglers = Lab::destroy_at(&dir.join("net"))?;
    for point in kernel::mounts_below(dir)?.into_iter().rev() {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH).map_err(failed("unmount", &point))?;
    }
    Ok(stragglers.into_iter().map(|straggler| straggler.pid).collect())
}

/// Empties the cluster's folder, the marker last.
pub(super) fn clear(dir: &Path) -> Result<(), ClusterError> {
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        if entry.file_name() == FILE {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed("look at", dir))?);
        if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .map_err(failed("remove", &path))?;
    }
    let marker = dir.join(FILE);
    fs::remove_file(&marker).map_err(failed("remove", &marker))
}

/// What could be seen of a cluster before it was taken down.
#[derive(Clone, Debug)]
pub struct Traces {
    dir: PathBuf,
    cgroup: String,
    processes: Vec<Process>,
}

/// Something of a cluster that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process.
    Process(Process),
    /// A cgroup.
    Cgroup(PathBuf),
    /// A mount, a namespace among them.
    Mount(PathBuf),
    /// The folder.
    Folder(PathBuf),
}

impl Traces {
    /// What of it the kernel still shows.
    pub fn left(&self) -> Result<Vec<Leftover>, ClusterError> {
        let mut processes = ours(&self.dir)?;
        processes.extend(kernel::holders_of_mounts_below(&self.dir)?);
        processes.extend(self.processes.iter().filter(|process| process.is_alive()));
        processes.sort_unstable();
        processes.dedup();
        let mut left: Vec<Leftover> = processes.into_iter().map(Leftover::Process).collect();
        left.extend(kernel::cgroups(&self.cgroup)?.into_iter().map(Leftover::Cgroup));
        left.extend(kernel::mounts_below(&self.dir)?.into_iter().map(Leftover::Mount));
        if self.dir.exists() {
            left.push(Leftover::Folder(self.dir.clone()));
        }
        Ok(left)
    }

    /// How many processes it had.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }
}
