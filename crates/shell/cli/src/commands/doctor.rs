//! `doctor`: whether this machine can run containers, and what to do where it cannot.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use runtime::{Runtime, UserNamespaces};

use crate::Context;
use crate::connect::{default_dir, socket};
use crate::error::{CliError, Exit};
use crate::shapes::{DoctorRow, DoctorState};

/// The oldest kernel with pidfds, clone3 into a cgroup and overlay in user namespaces.
const KERNEL_MIN: (u32, u32) = (5, 11);
/// Bytes of disk below which an image or two no longer fit.
const DISK_WARN_B: u64 = 1 << 30;
/// Bytes of disk below which the journal itself is in danger.
const DISK_FAIL_B: u64 = 64 << 20;
/// Seconds of Unix time before which a clock was never set: the first of January 2025.
const CLOCK_MIN_S: u64 = 1_735_689_600;

/// Check whether this machine can run containers
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The data folder [default: /var/lib/skerry as root, else ~/.local/share/skerry]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The UDP address that the mesh is to listen on [default: that of the data folder, or 0.0.0.0:7440]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

fn row(check: &str, state: DoctorState, message: impl Into<String>, fix: Option<&str>) -> DoctorRow {
    DoctorRow { check: check.to_owned(), state, message: message.into(), fix: fix.map(str::to_owned) }
}

fn ok(check: &str, message: impl Into<String>) -> DoctorRow {
    row(check, DoctorState::Ok, message, None)
}

fn kernel() -> DoctorRow {
    let release = match nix::sys::utsname::uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(error) => return row("kernel", DoctorState::Fail, format!("not known: {error}"), None),
    };
    kernel_of(&release)
}

fn kernel_of(release: &str) -> DoctorRow {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => ok("kernel", release),
        _ => {
            let fix = "upgrade to Linux 5.11 or newer";
            row("kernel", DoctorState::Fail, format!("{release} is older than 5.11"), Some(fix))
        }
    }
}

fn root() -> DoctorRow {
    if nix::unistd::Uid::effective().is_root() {
        ok("root", "yes")
    } else {
        let fix = "run the peer as root for limits and published low ports";
        row(
            "root",
            DoctorState::Warn,
            "no: containers run in a user namespace, without cgroup limits",
            Some(fix),
        )
    }
}

/// Controllers that limits are made of.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// `mounts` is /proc/self/mounts, `unified` the controllers of the v2 hierarchy, `table` /proc/cgroups.
fn cgroups_of(mounts: &str, unified: Option<&str>, table: &str) -> DoctorRow {
    let mounted = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let (v1, v2) = (mounted("cgroup"), mounted("cgroup2"));
    let of_v1 = |name: &str| {
        mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup")).any(|line| {
            line.split(' ').nth(3).is_some_and(|options| options.split(',').any(|option| option == name))
        })
    };
    let of_v2 = |name: &str| unified.is_some_and(|list| list.split_whitespace().any(|it| it == name));
    let mode = match (v1, v2) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => {
            let fix = "mount -t cgroup2 none /sys/fs/cgroup";
            return row("cgroups", DoctorState::Fail, "not mounted", Some(fix));
        }
    };
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|name| !of_v1(name) && !of_v2(name)).collect();
    if missing.is_empty() {
        return ok("cgroups", format!("{mode} with {}", CONTROLLERS.join(", ")));
    }
    let known = |name: &str| {
        table.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(name) && words.nth(2) == Some("1")
        })
    };
    let fix = if missing.iter().all(|name| known(name)) {
        "enable them in the parent's cgroup.subtree_control (systemd: Delegate=yes)"
    } else {
        "boot with cgroup_enable=memory cgroup_memory=1 (Raspberry Pi), or a kernel that has them"
    };
    row("cgroups", DoctorState::Fail, format!("{mode} without {}", missing.join(", ")), Some(fix))
}

fn text(path: &str) -> String {
    // What cannot be read is judged as absent, and said as such by the check that needs it.
    std::fs::read_to_string(path).unwrap_or_default()
}

fn cgroups() -> DoctorRow {
    let mounts = text("/proc/self/mounts");
    let at = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let unified =
        at.and_then(|line| line.split(' ').nth(1)).map(|path| text(&format!("{path}/cgroup.controllers")));
    cgroups_of(&mounts, unified.as_deref(), &text("/proc/cgroups"))
}

fn overlayfs() -> DoctorRow {
    let listed =
        text("/proc/filesystems").lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    if listed {
        return ok("overlayfs", "yes");
    }
    let module = nix::sys::utsname::uname().ok().and_then(|name| {
        let release = name.release().to_string_lossy().into_owned();
        text(&format!("/lib/modules/{release}/modules.dep")).contains("/overlay.ko").then_some(())
    });
    match module {
        Some(()) => ok("overlayfs", "as a module, loaded when first used"),
        None => row(
            "overlayfs",
            DoctorState::Fail,
            "the kernel does not have it",
            Some("modprobe overlay, or another kernel"),
        ),
    }
}

/// Tries what a peer of the data folder `dir` tries when it starts.
fn user_namespaces_of_root(dir: &Path) -> DoctorRow {
    const CHECK: &str = "user namespaces";
    let tried = (|| {
        // The folder may not be there yet: its nearest parent is on the same file system.
        let there = dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let scratch = tempfile::tempdir_in(there)?;
        let layers = dir.join("images");
        let layers = if layers.is_dir() { layers } else { scratch.path().join("images") };
        std::fs::create_dir_all(&layers)?;
        let runtime = Runtime::new(scratch.path().join("containers"), std::env::current_exe()?)
            .map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(runtime.try_user_namespaces(&layers))
    })();
    match tried {
        Ok(UserNamespaces::Used) => ok(CHECK, "yes, each container has users of its own"),
        Ok(UserNamespaces::Refused { why }) => row(
            CHECK,
            DoctorState::Warn,
            format!("containers run without, their root is root of this machine: {why}"),
            Some("Linux 5.19 or newer, and the data folder on ext4, xfs, btrfs or tmpfs"),
        ),
        Err(error) => row(CHECK, DoctorState::Warn, format!("cannot be tried: {error}"), None),
    }
}

fn user_namespaces(dir: &Path) -> DoctorRow {
    let max = text("/proc/sys/user/max_user_namespaces");
    let as_root = nix::unistd::Uid::effective().is_root();
    let state = if as_root { DoctorState::Warn } else { DoctorState::Fail };
    match max.trim().parse::<u64>() {
        Err(_) => row(
            "user namespaces",
            state,
            "the kernel does not have them",
            Some("use a kernel with CONFIG_USER_NS"),
        ),
        Ok(0) => row("user namespaces", state, "forbidden", Some("sysctl -w user.max_user_namespaces=10000")),
        Ok(_) if text("/proc/sys/kernel/unprivileged_userns_clone").trim() == "0" && !as_root => row(
            "user namespaces",
            state,
            "forbidden to users without root",
            Some("sysctl -w kernel.unprivileged_userns_clone=1"),
        ),
        Ok(_) if as_root => user_namespaces_of_root(dir),
        Ok(_) => ok("user namespaces", "yes"),
    }
}

fn seccomp() -> DoctorRow {
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        ok("seccomp", "yes")
    } else {
        row("seccomp", DoctorState::Fail, "no filters", Some("use a kernel with CONFIG_SECCOMP_FILTER"))
    }
}

fn port(listen: SocketAddr, dir: &Path) -> DoctorRow {
    match std::net::UdpSocket::bind(listen) {
        Ok(_) => ok("port", format!("UDP {listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(socket(dir)).is_ok() {
                ok("port", format!("UDP {listen} is taken by this node's own peer, it seems"))
            } else {
                row(
                    "port",
                    DoctorState::Fail,
                    format!("UDP {listen} is taken"),
                    Some("find who has it with `ss -ulpn`, or listen elsewhere with --listen"),
                )
            }
        }
        Err(error) => row(
            "port",
            DoctorState::Fail,
            format!("UDP {listen} cannot be used: {error}"),
            Some("use an address of this machine"),
        ),
    }
}

fn disk(dir: &Path) -> DoctorRow {
    // The folder may not be there yet: its nearest parent decides.
    let Some(there) = dir.ancestors().find(|path| path.is_dir()) else {
        return row("disk", DoctorState::Fail, format!("{} cannot be made", dir.display()), None);
    };
    match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let message =
                format!("{} free below {}", crate::manifest::units::show_bytes(free), there.display());
            let fix = Some("make room, or use another folder with --dir");
            match free {
                DISK_WARN_B.. => ok("disk", message),
                DISK_FAIL_B.. => row("disk", DoctorState::Warn, message, fix),
                _ => row("disk", DoctorState::Fail, message, fix),
            }
        }
        Err(error) => row("disk", DoctorState::Fail, format!("{}: {error}", there.display()), None),
    }
}

/// Whether the kernel tells what the machine is short of.
fn pressure_at(files: &Path) -> DoctorRow {
    const CHECK: &str = "pressure";
    let missing: Vec<_> =
        ["cpu", "memory", "io"].into_iter().filter(|it| !files.join(it).is_file()).collect();
    if missing.is_empty() {
        return ok(CHECK, "the kernel tells of want of processors, memory and disk");
    }
    row(
        CHECK,
        DoctorState::Warn,
        format!("the kernel does not tell of want of {}: new work is taken all the same", missing.join(", ")),
        Some("boot with psi=1, or a kernel with CONFIG_PSI"),
    )
}

/// Whether the settings of the node can be used, and what it offers by them.
fn offer(config: Result<&::peer::Config, &::peer::ConfigError>) -> DoctorRow {
    const CHECK: &str = "offer";
    let config = match config {
        Ok(config) => config,
        Err(::peer::ConfigError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return ok(CHECK, "not prepared yet");
        }
        Err(error) => {
            let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
            let words: Vec<String> = causes.map(ToString::to_string).collect();
            return row(CHECK, DoctorState::Fail, words.join(": "), Some("mend peer.toml"));
        }
    };
    match config.offers(::peer::measured_capacity) {
        Err(error) => row(
            CHECK,
            DoctorState::Fail,
            error.to_string(),
            Some("mend reserve, overcommit or capacity in peer.toml"),
        ),
        Ok((_, terms)) if terms.memory_percent > 100 => row(
            CHECK,
            DoctorState::Warn,
            format!(
                "memory is over-committed to {} %: where all use what they asked for, the kernel kills some",
                terms.memory_percent
            ),
            Some("set overcommit.memory-percent in peer.toml to 100, unless that may be"),
        ),
        Ok((offered, terms)) => ok(
            CHECK,
            format!(
                "cpu {} ({} %), memory {}",
                crate::manifest::units::show_cpu(offered.cpu_m),
                terms.cpu_percent,
                crate::manifest::units::show_bytes(offered.memory_b)
            ),
        ),
    }
}

fn clock() -> DoctorRow {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds >= CLOCK_MIN_S {
        ok("clock", "set")
    } else {
        let fix = "set it, or run a time service; order never depends on it, expiry of tokens does";
        row("clock", DoctorState::Warn, "not set: it shows a time long ago", Some(fix))
    }
}

pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<(), CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    let config = ::peer::Config::read(&dir);
    let config = config.as_ref();
    let configured = config.ok().map(|config| config.listen);
    let pressure = config.map(|config| config.pressure.clone()).unwrap_or_default();
    let files = pressure.files.unwrap_or_else(|| ::peer::pressure::FILES.into());
    let listen = args.listen.or(configured).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7440)));
    let rows = [
        kernel(),
        root(),
        cgroups(),
        overlayfs(),
        user_namespaces(&dir),
        seccomp(),
        port(listen, &dir),
        disk(&dir),
        if pressure.ignore {
            ok("pressure", "new work is taken in any case: pressure.ignore is set in peer.toml")
        } else {
            pressure_at(&files)
        },
        offer(config),
        clock(),
    ];
    context.out.rows(
        &rows,
        |row| row.check.clone(),
        &[
            ("CHECK", &|row: &DoctorRow| row.check.clone()),
            ("STATE", &|row| match row.state {
                DoctorState::Ok => "ok".to_owned(),
                DoctorState::Warn => "warn".to_owned(),
                DoctorState::Fail => "FAIL".to_owned(),
            }),
            ("FOUND", &|row| row.message.clone()),
            ("FIX", &|row| row.fix.clone().unwrap_or_default()),
        ],
    )?;
    if rows.iter().any(|row| row.state == DoctorState::Fail) {
        return Err(CliError::quiet(Exit::Error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named() {
        assert_eq!(kernel_of("6.1.0-18-amd64").state, DoctorState::Ok);
        assert_eq!(kernel_of("5.11.0").state, DoctorState::Ok);
        assert_eq!(kernel_of("5.10.0").message, "5.10.0 is older than 5.11");
        assert_eq!(kernel_of("strange").state, DoctorState::Fail);
    }

    #[test]
    fn cgroups_are_told_apart_and_missing_controllers_named() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";
        assert_eq!(
            cgroups_of(v2, Some("cpuset cpu io memory pids"), "").message,
            "v2 with cpu, memory, pids"
        );
        assert_eq!(cgroups_of(v1, None, "").message, "v1 with cpu, memory, pids");
        assert_eq!(cgroups_of(&format!("{v1}{v2}"), Some(""), "").message, "hybrid with cpu, memory, pids");
        let pi = cgroups_of(v2, Some("cpu pids"), "memory 0 100 0\n");
        assert_eq!((pi.message.as_str(), pi.state), ("v2 without memory", DoctorState::Fail));
        assert!(pi.fix.unwrap().contains("cgroup_enable=memory"));
        assert_eq!(cgroups_of("", None, "").message, "not mounted");
    }

    #[test]
    fn a_kernel_that_does_not_tell_of_pressure_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cpu", "io"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = pressure_at(dir.path());
        assert_eq!(found.state, DoctorState::Warn);
        assert!(found.message.starts_with("the kernel does not tell of want of memory:"), "{found:?}");
        std::fs::write(dir.path().join("memory"), "").unwrap();
        assert_eq!(pressure_at(dir.path()).state, DoctorState::Ok);
    }

    #[test]
    fn a_taken_port_is_named_with_a_way_out() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let found = port(address, dir.path());
        assert_eq!(found.message, format!("UDP {address} is taken"));
        assert!(found.fix.is_some());
    }
}
