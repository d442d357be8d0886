//! What the kernel shows: processes by cgroup, limits, mounts. Never what a peer believes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{self, Process, ProcessError};

/// The group of a node's supervisors, beside those of its containers.
const SUPERVISORS: &str = "supervisors";

/// How long a cgroup may take to become empty after its processes were killed.
const EMPTY_WAIT: Duration = Duration::from_secs(15);

/// How often it is looked at.
const EMPTY_POLL: Duration = Duration::from_millis(2);

/// Why the kernel could not be asked or told.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file of the kernel's.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something is still in a cgroup although all of it was killed.
    #[error("the cgroups {name} have processes left that do not end: {pids:?}")]
    Stays {
        /// The folder below the hierarchies' tops.
        name: String,
        /// The processes.
        pids: Vec<u32>,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError + use<> {
    let path = path.to_owned();
    move |source| KernelError::File { action, path, source }
}

/// Reading a cgroup that is being removed gives ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Every folder below which a peer may have made cgroups: the top of each hierarchy, and our own
/// place in it, where a peer that may not write at the top goes.
fn tops() -> Result<Vec<PathBuf>, KernelError> {
    let read = |path: &str| fs::read_to_string(path).map_err(failed("read", Path::new(path)));
    Ok(parse_tops(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

fn parse_tops(mounts: &str, own: &str) -> Vec<PathBuf> {
    let mut tops = BTreeSet::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, root, mount, ..], &[kind, _, options, ..]) = (&left[..], &right[..]) else {
            continue;
        };
        let controllers: Vec<&str> = match kind {
            "cgroup" => options.split(',').collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        let mount = unescape(mount);
        tops.insert(mount.clone());
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            let same = if kind == "cgroup2" {
                names.is_empty()
            } else {
                names.split(',').any(|name| controllers.contains(&name))
            };
            same.then_some(path)
        });
        let own = path.and_then(|path| path.strip_prefix(root.trim_end_matches('/'))).unwrap_or("");
        if !own.contains("/..") {
            tops.insert(mount.join(own.trim_matches('/')));
        }
    }
    tops.into_iter().collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character)).into()
}

/// The folders of the cgroups `name` (as `skerry/x`), one in each hierarchy that has it.
pub fn cgroups(name: &str) -> Result<Vec<PathBuf>, KernelError> {
    Ok(tops()?.into_iter().map(|top| top.join(name)).filter(|path| path.is_dir()).collect())
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let list = match fs::read_dir(folder) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        list => list.map_err(failed("list", folder))?,
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.map_err(failed("list", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A folder and all below it, deepest last.
fn subtree(folder: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut all = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(next) = all.get(at).cloned() {
        all.extend(children(&next)?);
        at += 1;
    }
    Ok(all)
}

fn pids_of(folder: &Path) -> Result<Vec<u32>, KernelError> {
    let path = folder.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // 0 is a process that this pid namespace does not see.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// The numbers of all processes in the cgroups `name` and below, in every hierarchy.
pub fn pids(name: &str) -> Result<BTreeSet<u32>, KernelError> {
    let mut found = BTreeSet::new();
    for folder in cgroups(name)? {
        for folder in subtree(&folder)? {
            found.extend(pids_of(&folder)?);
        }
    }
    Ok(found)
}

/// All processes in the cgroups `name` and below.
pub fn processes(name: &str) -> Result<BTreeSet<Process>, KernelError> {
    Ok(pids(name)?.into_iter().filter_map(Process::find).collect())
}

/// The containers below a node's cgroups `name` that have a process, with their processes.
pub fn containers(name: &str) -> Result<BTreeMap<String, BTreeSet<Process>>, KernelError> {
    let mut found: BTreeMap<String, BTreeSet<Process>> = BTreeMap::new();
    for folder in cgroups(name)? {
        for child in children(&folder)? {
            let Some(id) = child.file_name().map(|id| id.to_string_lossy().into_owned()) else { continue };
            if id == SUPERVISORS {
                continue;
            }
            for folder in subtree(&child)? {
                let live: Vec<Process> = pids_of(&folder)?.into_iter().filter_map(Process::find).collect();
                if !live.is_empty() {
                    found.entry(id.clone()).or_default().extend(live);
                }
            }
        }
    }
    Ok(found)
}

/// What one container may use, as the kernel holds it. `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_b: Option<u64>,
    /// Thousandths of a core.
    pub cpu_m: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The limits of the container with the cgroups `name`, by whichever hierarchies there are.
pub fn limits(name: &str) -> Result<Limits, KernelError> {
    let mut limits = Limits::default();
    for folder in cgroups(name)? {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        // v1 says "no limit" with a number near the greatest; v2 with the word `max`.
        let some = |value: Option<u64>| value.filter(|value| *value < u64::MAX / 4);
        limits.memory_b =
            limits.memory_b.or(some(number("memory.limit_in_bytes"))).or(some(number("memory.max")));
        limits.pids = limits.pids.or(some(number("pids.max")));
        let v1 = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
        let v2 = read("cpu.max").and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse().ok()?, period.parse().ok()?))
        });
        limits.cpu_m = limits.cpu_m.or(v1.or(v2).map(|(quota, period)| quota * 1000 / period));
    }
    Ok(limits)
}

/// Kills everything in the cgroups `name` and below, and waits until nothing is left in them.
pub fn kill_all(name: &str) -> Result<(), KernelError> {
    let deadline = Instant::now() + EMPTY_WAIT;
    loop {
        let folders: Vec<PathBuf> = cgroups(name)?
            .iter()
            .map(|folder| subtree(folder))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        let mut left = Vec::new();
        for folder in folders {
            let found = pids_of(&folder)?;
            // Read again once each process is held: those that are still named are ours.
            process::kill_those(&found, |pid| pids_of(&folder).is_ok_and(|now| now.contains(&pid)))?;
            left.extend(found);
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(KernelError::Stays { name: name.to_owned(), pids: left });
        }
        std::thread::sleep(EMPTY_POLL);
    }
}

/// Removes the cgroups `name` and all below, which must have no process.
pub fn remove_cgroups(name: &str) -> Result<(), KernelError> {
    let deadline = Instant::now() + EMPTY_WAIT;
    for folder in cgroups(name)? {
        // The deepest first; others may be removing the same ones.
        for folder in subtree(&folder)?.into_iter().rev() {
            loop {
                match fs::remove_dir(&folder) {
                    Ok(()) => break,
                    Err(error) if is_gone(&error) => break,
                    // The last process has left, but the kernel is still about it.
                    Err(error)
                        if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline =>
                    {
                        std::thread::sleep(EMPTY_POLL);
                    }
                    Err(error) => return Err(failed("remove", &folder)(error)),
                }
            }
        }
    }
    Ok(())
}

/// Every mount point at or below `dir`, in this process's mount namespace.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(failed("read", table))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// The containers' processes that are no zombies and hold a mount below `dir` (their overlay) in a
/// mount namespace of their own.
pub fn holders_of_mounts_below(dir: &Path) -> Result<Vec<Process>, KernelError> {
    let proc = Path::new("/proc");
    let needle = dir.display().to_string();
    let mine = fs::read_link("/proc/self/ns/mnt").map_err(failed("read", proc))?;
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed("list", proc))? {
        let entry = entry.map_err(failed("list", proc))?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends meanwhile holds nothing.
        let Ok(theirs) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if theirs == mine {
            continue;
        }
        let Ok(text) = fs::read_to_string(entry.path().join("mountinfo")) else { continue };
        if text.contains(&needle) {
            found.extend(Process::find(pid));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_has_a_top_and_our_own_place_in_it() {
        let mounts = "\
22 1 0:21 / /proc rw - proc proc rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
43 31 0:39 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
        let own = "4:memory:/b/c\n5:pids:/docker/x\n0::/\n";
        let tops = parse_tops(mounts, own);
        let expected = [
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/memory/b/c",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup/uni fied",
        ];
        assert_eq!(tops, expected.map(PathBuf::from));
    }

    #[test]
    fn cgroups_that_nobody_made_are_empty_and_removing_them_is_no_error() {
        let name = format!("skerry-dev-test-{}", std::process::id());
        assert!(cgroups(&name).unwrap().is_empty());
        assert!(pids(&name).unwrap().is_empty());
        kill_all(&name).unwrap();
        remove_cgroups(&name).unwrap();
    }

    #[test]
    fn what_is_in_a_cgroup_is_seen_killed_and_cleared_away() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("NOT TESTED, needs root: what_is_in_a_cgroup_is_seen_killed_and_cleared_away");
            return;
        }
        let name = format!("skerry-dev-test-kill-{}", std::process::id());
        let tops = tops().unwrap();
        let top = tops.iter().find(|top| fs::create_dir_all(top.join(&name).join("n1/c1")).is_ok()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(top.join(&name).join("n1/c1/cgroup.procs"), child.id().to_string()).unwrap();
        let seen = containers(&format!("{name}/n1")).unwrap();
        assert_eq!(seen["c1"].iter().map(|it| it.pid).collect::<Vec<_>>(), [child.id()]);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        kill_all(&name).unwrap();
        assert!(!reaper.join().unwrap().success());
        assert!(containers(&format!("{name}/n1")).unwrap().is_empty());
        remove_cgroups(&name).unwrap();
        assert!(cgroups(&name).unwrap().is_empty());
    }
}
