//! Which hierarchies this machine has, and where in them we may make groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Group, make_folder, write_existing};
use crate::error::StartError;

/// The group of all supervisors of one parent, apart from the peer's own, whose end must not be theirs.
pub(super) const SUPERVISORS: &str = "supervisors";

/// What we limit.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    version: u8,
    /// Of v1; `name=systemd` too.
    controllers: Vec<String>,
    /// Where it is mounted.
    mount: PathBuf,
    /// The group of this process, relative to the mount.
    own: PathBuf,
}

/// The hierarchies of this machine.
#[derive(Debug)]
pub(crate) struct Layout {
    hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at this process's mounts.
    pub(crate) fn detect() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Self { hierarchies: parse(&mounts, &own) })
    }

    fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|it| it.version == 2)
    }

    fn v1_with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|it| it.version == 1 && it.controllers.iter().any(|c| c == controller))
    }

    /// Every folder below which we may have made groups.
    pub(super) fn tops(&self) -> Vec<PathBuf> {
        let mut tops: Vec<PathBuf> =
            self.hierarchies.iter().flat_map(|it| [it.mount.clone(), it.mount.join(&it.own)]).collect();
        tops.sort();
        tops.dedup();
        tops
    }

    /// The groups that a container gets, in folders that exist up to the parent. Empty when this
    /// machine has no control groups.
    pub(crate) fn plan(&self, parent: &str, id: &str) -> Result<Vec<Group>, StartError> {
        let mut groups: Vec<Group> = Vec::new();
        let mut on_v2: Vec<&str> = Vec::new();
        let mut on_v1: Vec<&str> = Vec::new();
        for controller in CONTROLLERS {
            if self.v1_with(controller).is_some() { &mut on_v1 } else { &mut on_v2 }.push(controller);
        }
        if self.v2().is_none() && self.v1_with("cpuacct").is_some() {
            on_v1.push("cpuacct");
        }
        for controller in on_v1 {
            let hierarchy = self.v1_with(controller).expect("was found above");
            let path = parent_folder(hierarchy, parent)?.join(id);
            match groups.iter_mut().find(|group| group.path == path) {
                Some(group) => group.controllers.push(controller.to_owned()),
                None => {
                    groups.push(Group { path, version: 1, controllers: vec![controller.to_owned()] });
                }
            }
        }
        if let Some(hierarchy) = self.v2() {
            let folder = parent_folder(hierarchy, parent)?;
            let controllers = enable(&folder, parent, &on_v2)?;
            groups.push(Group { path: folder.join(id), version: 2, controllers });
        }
        Ok(groups)
    }

    /// The groups that this process, a supervisor, shall move to: none where it is at the top anyway.
    pub(crate) fn for_supervisor(&self, parent: &str) -> Result<Vec<Group>, StartError> {
        let wanted = |it: &&Hierarchy| {
            let ours = ["cpu", "memory", "pids", "name=systemd"];
            it.version == 2 || it.controllers.iter().any(|c| ours.contains(&c.as_str()))
        };
        self.hierarchies
            .iter()
            .filter(wanted)
            .filter(|it| !it.own.as_os_str().is_empty())
            .map(|it| {
                let path = parent_folder(it, parent)?.join(SUPERVISORS);
                Ok(Group { path, version: it.version, controllers: it.controllers.clone() })
            })
            .collect()
    }
}

/// Makes the parent's folder at the top of a hierarchy, or below our own group if we may not.
fn parent_folder(hierarchy: &Hierarchy, parent: &str) -> Result<PathBuf, StartError> {
    let top = hierarchy.mount.join(parent);
    let refused = match make_folder(&top) {
        Ok(()) => return Ok(top),
        Err(error) => error,
    };
    let may_not = matches!(refused.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS));
    if may_not && !hierarchy.own.as_os_str().is_empty() {
        let own = hierarchy.mount.join(&hierarchy.own).join(parent);
        if make_folder(&own).is_ok() {
            return Ok(own);
        }
    }
    Err(StartError::kernel(format!("make the control group {}", top.display()))(refused))
}

/// Hands the controllers down to the children of `folder`; those that there are.
fn enable(folder: &Path, parent: &str, wanted: &[&str]) -> Result<Vec<String>, StartError> {
    let depth = parent.split('/').count();
    let mut levels: Vec<&Path> = folder.ancestors().take(depth + 1).collect();
    levels.reverse();
    let read = |level: &Path, file: &str| {
        fs::read_to_string(level.join(file))
            .map_err(StartError::kernel(format!("read {}/{file}", level.display())))
    };
    let offered = read(levels[0], "cgroup.controllers")?;
    let there: Vec<String> = wanted
        .iter()
        .filter(|name| offered.split_ascii_whitespace().any(|it| it == **name))
        .map(|name| (*name).to_owned())
        .collect();
    for level in levels {
        let on = read(level, "cgroup.subtree_control")?;
        for name in &there {
            if !on.split_ascii_whitespace().any(|it| it == name) {
                let file = level.join("cgroup.subtree_control");
                write_existing(&file, &format!("+{name}")).map_err(|error| StartError::LimitRefused {
                    limit: name.clone(),
                    problem: format!("the controller cannot be enabled in {}", file.display()),
                    source: Some(error.into()),
                })?;
            }
        }
    }
    Ok(there)
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`. Of several mounts of one hierarchy the first
/// counts.
fn parse(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, root, mount, ..], &[kind, _, options, ..]) = (&left[..], &right[..]) else {
            continue;
        };
        let (version, controllers) = match kind {
            "cgroup" => {
                (1, options.split(',').filter(|it| !is_mount_option(it)).map(str::to_owned).collect())
            }
            "cgroup2" => (2, Vec::new()),
            _ => continue,
        };
        if found.iter().any(|it| it.version == version && it.controllers == controllers) {
            continue;
        }
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            let same = if version == 2 {
                names.is_empty()
            } else {
                names.split(',').any(|name| controllers.iter().any(|c| c == name))
            };
            same.then_some(path)
        });
        let own = path.map_or("", |path| path.strip_prefix(root.trim_end_matches('/')).unwrap_or(""));
        // A path with `..` lies outside of what is mounted here.
        let own = if own.contains("/..") { "" } else { own.trim_matches('/') };
        found.push(Hierarchy { version, controllers, mount: unescape(mount).into(), own: own.into() });
    }
    found
}

fn is_mount_option(word: &str) -> bool {
    matches!(word, "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode" | "nsdelegate")
        || word.starts_with("release_agent=")
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_is_told_from_one_with_v2_alone() {
        let hybrid = "\
22 1 0:21 / /proc rw - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 / /mnt/second rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
        let own = "9:name=systemd:/a\n4:memory:/b/c\n2:cpu,cpuacct:/\n0::/\n";
        let found = parse(hybrid, own);
        let short: Vec<_> =
            found.iter().map(|it| (it.version, it.controllers.join(","), it.own.to_str().unwrap())).collect();
        assert_eq!(
            short,
            [
                (1, "cpu,cpuacct".into(), ""),
                (1, "memory".into(), "b/c"),
                (1, "name=systemd".into(), "a"),
                (2, String::new(), ""),
            ]
        );
        let v2 = parse("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n", "0::/system.slice/x.service\n");
        assert_eq!(v2[0].own, Path::new("system.slice/x.service"));
    }

    #[test]
    fn a_mount_of_a_part_of_a_hierarchy_counts_from_there() {
        let mounts = "1 0 0:1 /docker/abc /sys/fs/cgroup/pi\\040ds ro - cgroup cgroup rw,pids\n";
        let found = parse(mounts, "3:pids:/docker/abc/inner\n");
        assert_eq!(found[0].own, Path::new("inner"));
        assert_eq!(found[0].mount, Path::new("/sys/fs/cgroup/pi ds"));
        assert_eq!(parse(mounts, "3:pids:/../other\n")[0].own, Path::new(""));
    }
}
