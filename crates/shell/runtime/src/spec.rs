//! What a container shall be: the file `spec.json` in its folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version that this release writes. It reads this one and older ones.
pub const SPEC_VERSION: u16 = 1;

/// A container id is a folder name and a control group name; 64 digits are a SHA-256 digest.
const ID_DIGITS_MAX: usize = 64;

/// Older kernels take the options of an overlay in one page, with about 17 bytes for each layer.
pub(crate) const LAYERS_MAX: usize = 128;

/// The kernel takes 2 MiB of arguments and environment; half of it leaves room for the rest.
const WORDS_BYTES_MAX: usize = 1 << 20;

/// Ports of one container. Each costs the supervisor a descriptor.
const PORTS_MAX: usize = 64;

/// The kernel's own limit of a host name.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Any record (16 KiB of text and its head) fits a file.
const LOG_FILE_B_MIN: u64 = 32 << 10;

/// Kept log files of one container. Rotation renames each of them.
const LOG_FILES_MAX: u32 = 100;

/// Init takes one of the container's processes, the program the other.
pub(crate) const PIDS_MIN: u64 = 2;

/// The most that one container may use. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core, per 100 ms (per second below 10 thousandths).
    pub cpu_m: u64,
    /// Bytes of memory, page cache of its files included, without any swap.
    pub memory_b: u64,
    /// Processes and threads, our init included; at least 2.
    pub pids: u64,
}

/// A TCP port of the host that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port of the host, 1 to 65535. Containers of the same runtime folder may share it.
    pub host: u16,
    /// The port on the container's loopback, 1 to 65535.
    pub container: u16,
}

/// How much log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes after which a file is rotated, at least 32768.
    pub file_b_max: u64,
    /// Files kept, the one being written included; 1 to 100.
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_b_max: 1 << 20, files_max: 3 }
    }
}

/// What a container shall be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// [`SPEC_VERSION`].
    pub version: u16,
    /// 1 to 64 hexadecimal digits in lower case; also the name of its folder.
    pub id: String,
    /// The peer's own note on what this container is for; given back by `scan`, never read.
    #[serde(default)]
    pub claim: serde_json::Value,
    /// Absolute paths of the layers' folders, topmost first; 1 to 128. They are never written to.
    pub lower: Vec<PathBuf>,
    /// The program and its arguments. Without a `/` it is looked for in the container's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value` each. `PATH`, `HOME` and `HOSTNAME` are added where missing.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working folder, absolute. It must exist in the image.
    pub cwd: String,
    /// `name`, `uid`, `name:group` or `uid:gid`, looked up in the image; user 0 when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The host name that the container sees, 1 to 64 bytes.
    pub hostname: String,
    /// The most that it may use.
    pub limits: Limits,
    /// Thousandths of a core that it is to have where all want the processors; as its limit where 0.
    #[serde(default)]
    pub cpu_share_m: u64,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// How long a stop waits after SIGTERM, unless the caller says otherwise.
    pub stop_grace_ms: u64,
    /// How much log is kept.
    #[serde(default)]
    pub log: LogLimits,
    /// Control groups are made below this relative path, such as `skerry/node`.
    pub cgroup_parent: String,
    /// The container cannot write to its own root file system.
    #[serde(default)]
    pub read_only: bool,
    /// It may run until then and no longer, in nanoseconds of [`crate::boot_now_ns`]: all of it is killed at that
    /// time, whatever becomes of the peer, unless [`Runtime::extend`](crate::Runtime::extend) has moved it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_boot_ns: Option<u64>,
    /// A number that the program finds in the file `/etc/skerry-fence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// Why a specification is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecProblem {
    /// The field as the file spells it.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

fn problem(field: &'static str, problem: impl Into<String>) -> SpecProblem {
    SpecProblem { field, problem: problem.into() }
}

/// Whether `id` is 1 to 64 hexadecimal digits in lower case, and so a safe folder name.
pub(crate) fn is_id(id: &str) -> bool {
    (1..=ID_DIGITS_MAX).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `path` is relative, not empty, and walks nowhere but down.
fn is_downward(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'))
}

/// Checks words that become a program's arguments or environment.
pub(crate) fn check_words(args: &[String], env: &[String]) -> Result<(), SpecProblem> {
    if args.first().is_none_or(String::is_empty) {
        return Err(problem("args", "the name of a program is needed"));
    }
    if args.iter().any(|word| word.contains('\0')) {
        return Err(problem("args", "a word holds a NUL character"));
    }
    for entry in env {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() || !entry.contains('=') || entry.contains('\0') {
            return Err(problem("env", format!("`{}` is not `NAME=value`", entry.escape_default())));
        }
    }
    let bytes: usize = args.iter().chain(env).map(|word| word.len() + 1).sum();
    if bytes > WORDS_BYTES_MAX {
        return Err(problem("args", format!("{bytes} bytes with env, the limit is {WORDS_BYTES_MAX}")));
    }
    Ok(())
}

/// Checks a working folder.
pub(crate) fn check_cwd(cwd: &str) -> Result<(), SpecProblem> {
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(problem("cwd", "an absolute path is needed, like `/srv`"));
    }
    Ok(())
}

impl ContainerSpec {
    /// Checks every range.
    pub fn validate(&self) -> Result<(), SpecProblem> {
        if self.version == 0 || self.version > SPEC_VERSION {
            let version = self.version;
            return Err(problem(
                "version",
                format!("{version} is not known, this release reads 1 to {SPEC_VERSION}"),
            ));
        }
        if !is_id(&self.id) {
            return Err(problem("id", "1 to 64 hexadecimal digits in lower case are needed"));
        }
        if !(1..=LAYERS_MAX).contains(&self.lower.len()) {
            return Err(problem("lower", format!("{} layers, use 1 to {LAYERS_MAX}", self.lower.len())));
        }
        if let Some(path) = self.lower.iter().find(|path| !path.is_absolute()) {
            return Err(problem("lower", format!("`{}` is not an absolute path", path.display())));
        }
        check_words(&self.args, &self.env)?;
        check_cwd(&self.cwd)?;
        if self.user.as_deref().is_some_and(|user| user.is_empty() || user.contains(['\0', '\n'])) {
            return Err(problem("user", "use `name`, `uid` or `uid:gid`"));
        }
        if !(1..=HOSTNAME_BYTES_MAX).contains(&self.hostname.len())
            || self.hostname.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
        {
            return Err(problem("hostname", "1 to 64 bytes without spaces are needed"));
        }
        if self.limits.pids != 0 && self.limits.pids < PIDS_MIN {
            return Err(problem(
                "limits.pids",
                format!("at least {PIDS_MIN} are needed, init is one of them"),
            ));
        }
        if self.ports.len() > PORTS_MAX {
            return Err(problem("ports", format!("{} ports, the limit is {PORTS_MAX}", self.ports.len())));
        }
        for (index, port) in self.ports.iter().enumerate() {
            if port.host == 0 || port.container == 0 {
                return Err(problem("ports", "port 0 cannot be published, use 1 to 65535"));
            }
            if self.ports[..index].iter().any(|earlier| earlier.host == port.host) {
                return Err(problem("ports", format!("host port {} is published twice", port.host)));
            }
        }
        if self.log.file_b_max < LOG_FILE_B_MIN {
            return Err(problem("log.file_b_max", format!("at least {LOG_FILE_B_MIN} bytes are needed")));
        }
        if !(1..=LOG_FILES_MAX).contains(&self.log.files_max) {
            return Err(problem("log.files_max", format!("use 1 to {LOG_FILES_MAX}")));
        }
        if !is_downward(&self.cgroup_parent) {
            return Err(problem("cgroup_parent", "a relative path is needed, like `skerry/node`"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> ContainerSpec {
        ContainerSpec {
            version: SPEC_VERSION,
            id: "abcd".into(),
            claim: serde_json::json!({"replica": 1}),
            lower: vec!["/layers/a".into()],
            args: vec!["/bin/web".into()],
            env: vec!["A=b".into()],
            cwd: "/".into(),
            user: None,
            hostname: "web".into(),
            limits: Limits { cpu_m: 100, memory_b: 64 << 20, pids: 32 },
            cpu_share_m: 0,
            ports: vec![],
            stop_grace_ms: 1000,
            log: LogLimits::default(),
            cgroup_parent: "skerry/a".into(),
            read_only: false,
            until_boot_ns: None,
            fence: None,
        }
    }

    #[test]
    fn ids_and_paths_that_would_leave_their_folder_are_refused() {
        for id in ["", "..", "a/b", "ABC", "g", &"a".repeat(65)] {
            assert!(ContainerSpec { id: id.into(), ..spec() }.validate().is_err(), "{id}");
        }
        for parent in ["", "/a", "a/../b", "a//b", "./a", "a/"] {
            assert!(ContainerSpec { cgroup_parent: parent.into(), ..spec() }.validate().is_err(), "{parent}");
        }
        assert_eq!(spec().validate(), Ok(()));
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_its_field() {
        let field = |change: fn(&mut ContainerSpec)| {
            let mut bad = spec();
            change(&mut bad);
            bad.validate().unwrap_err().field
        };
        assert_eq!(field(|s| s.version = 99), "version");
        assert_eq!(field(|s| s.lower.clear()), "lower");
        assert_eq!(field(|s| s.lower[0] = "relative".into()), "lower");
        assert_eq!(field(|s| s.args.clear()), "args");
        assert_eq!(field(|s| s.env.push("=x".into())), "env");
        assert_eq!(field(|s| s.env.push("novalue".into())), "env");
        assert_eq!(field(|s| s.cwd = "srv".into()), "cwd");
        assert_eq!(field(|s| s.hostname = "a b".into()), "hostname");
        assert_eq!(field(|s| s.limits.pids = 1), "limits.pids");
        assert_eq!(field(|s| s.ports = vec![PublishedPort { host: 1, container: 2 }; 2]), "ports");
        assert_eq!(field(|s| s.ports = vec![PublishedPort { host: 0, container: 2 }]), "ports");
        assert_eq!(field(|s| s.log.files_max = 0), "log.files_max");
    }

    #[test]
    fn a_specification_reads_back_as_it_was_written() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert_eq!(serde_json::from_str::<ContainerSpec>(&text).unwrap(), spec());
    }
}
