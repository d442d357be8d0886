//! The container's root: overlay, pivot, and the mounts that a program expects to find.
//!
//! Order matters. The image is hostile: any name in it may be a symbolic link. So nothing below the
//! new root is looked up before that root is the process's own; then a link leads nowhere else.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Errno, StartError};
use crate::sys;
use crate::users::Users;

use super::{Birth, overlay};

/// Kept in memory and counted as the container's; the same as Docker gives.
const SHM_OPTIONS: &str = "mode=1777,size=64m";

/// Where a program finds the number of its lease, beside its environment.
const FENCE: &str = "/etc/skerry-fence";

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Hidden, because they tell of the host or reach into it.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Settings of the whole machine.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const NONE: Option<&str> = None;

fn step<E: Into<Errno>>(what: impl Into<String>) -> impl FnOnce(E) -> StartError {
    StartError::rootfs(what)
}

/// Makes the root and moves into it. What cannot be had but is not vital is passed to `degraded`.
///
/// `overlay` is what [`super::make_mapped`] has made, where the container's users have a range.
pub(super) fn enter(
    birth: &Birth<'_>,
    overlay: Option<OwnedFd>,
    degraded: &dyn Fn(String),
) -> Result<(), StartError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(StartError::kernel("keep mounts to ourselves"))?;
    let overlay = match overlay {
        Some(overlay) => overlay,
        None => overlay::make(birth.dir, &birth.spec.lower, birth.users.are_rootless())?,
    };
    let devices = DEVICES
        .iter()
        .map(|name| {
            let path = CString::new(format!("/dev/{name}")).expect("no NUL in a constant");
            Ok((*name, sys::open_tree(&path).map_err(step(format!("taking /dev/{name} along")))?))
        })
        .collect::<Result<Vec<_>, StartError>>()?;

    let old = File::open("/").map_err(step("opening the old root"))?;
    // Over the old root rather than in the container's folder, which is closed to the users of a
    // range. What is looked up from `/` still begins below it.
    sys::move_mount(overlay.as_fd(), c"/").map_err(step("attaching the overlay"))?;
    nix::unistd::fchdir(&overlay).map_err(step("entering the overlay"))?;
    nix::unistd::pivot_root(".", ".").map_err(step("pivot_root"))?;
    // Now `/` is the container's. The old root lies on top of it, out of the way of lookups from `/`;
    // the kernel wants to see its /proc and /sys before it lets a user namespace mount new ones.
    nix::unistd::chdir("/").map_err(step("entering the new root"))?;

    folder("/proc")?;
    mount(Some("proc"), "/proc", Some("proc"), HARMLESS, NONE).map_err(step("mounting /proc"))?;
    folder("/sys")?;
    match mount(Some("sysfs"), "/sys", Some("sysfs"), HARMLESS | MsFlags::MS_RDONLY, NONE) {
        Err(nix::errno::Errno::EPERM) if birth.users.are_rootless() => {
            degraded("no /sys: the kernel refuses it".into());
        }
        done => done.map_err(step("mounting /sys"))?,
    }
    make_dev(birth, &devices)?;
    mask()?;
    set_network_defaults(birth, degraded);
    for path in READ_ONLY {
        read_only(path)?;
    }
    fill_etc(birth, degraded)?;

    nix::unistd::fchdir(&old).map_err(step("going back to the old root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(step("leaving the old root"))?;
    nix::unistd::chdir("/").map_err(step("entering the new root"))?;
    Ok(())
}

/// What can be mounted only after the container is in its control groups, and what must come last.
pub(super) fn finish(birth: &Birth<'_>, degraded: &dyn Fn(String)) -> Result<(), StartError> {
    const TOP: &str = "/sys/fs/cgroup";
    if !birth.cgroup_mounts.is_empty() && Path::new(TOP).is_dir() {
        let many = birth.cgroup_mounts.iter().any(|it| !it.name.is_empty());
        if many {
            mount(Some("tmpfs"), TOP, Some("tmpfs"), HARMLESS, Some("mode=755,size=64k"))
                .map_err(step("mounting /sys/fs/cgroup"))?;
        }
        for it in birth.cgroup_mounts {
            let path = if it.name.is_empty() { TOP.to_owned() } else { format!("{TOP}/{}", it.name) };
            folder(&path)?;
            let options = (!it.options.is_empty()).then_some(it.options.as_str());
            match mount(Some(it.kind), path.as_str(), Some(it.kind), HARMLESS | MsFlags::MS_RDONLY, options) {
                // A kernel that lets no user namespace mount v1. The container loses a view, no limit.
                Err(nix::errno::Errno::EPERM) if birth.users.have_namespace() => {
                    degraded(format!("no {path}: the kernel refuses it"));
                }
                done => done.map_err(step(format!("mounting {path}")))?,
            }
        }
        if many {
            remount_read_only(TOP).map_err(step("making /sys/fs/cgroup read-only"))?;
        }
    }
    if birth.spec.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        mount(NONE, "/", NONE, flags, NONE).map_err(step("making the root read-only"))?;
    }
    Ok(())
}

/// Makes a folder where there is none. A link in its place would put a mount where nobody expects it.
fn folder(path: &str) -> Result<(), StartError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => {
            Err(step(format!("`{path}` of the image is not a folder; mounting there"))(Errno(libc::ENOTDIR)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().mode(0o755).create(path).map_err(step(format!("making the folder {path}")))
        }
        Err(error) => Err(step(format!("looking at {path}"))(error)),
    }
}

fn make_dev(birth: &Birth<'_>, devices: &[(&str, OwnedFd)]) -> Result<(), StartError> {
    let nosuid = MsFlags::MS_NOSUID;
    folder("/dev")?;
    // No device node made in here works: the ones bound from the host are mounts of their own.
    let flags = nosuid | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .map_err(step("mounting /dev"))?;
    for (name, device) in devices {
        let path = CString::new(format!("/dev/{name}")).expect("no NUL in a constant");
        File::create(as_path(&path)).map_err(step(format!("making /dev/{name}")))?;
        sys::move_mount(device.as_fd(), &path).map_err(step(format!("binding /dev/{name}")))?;
    }
    folder("/dev/pts")?;
    // Group 5 is tty everywhere, but a user namespace of one user does not know it.
    let options = if birth.users.are_rootless() {
        "newinstance,ptmxmode=0666,mode=0620"
    } else {
        "newinstance,ptmxmode=0666,mode=0620,gid=5"
    };
    mount(Some("devpts"), "/dev/pts", Some("devpts"), nosuid | MsFlags::MS_NOEXEC, Some(options))
        .map_err(step("mounting /dev/pts"))?;
    folder("/dev/shm")?;
    mount(Some("shm"), "/dev/shm", Some("tmpfs"), HARMLESS, Some(SHM_OPTIONS))
        .map_err(step("mounting /dev/shm"))?;
    folder("/dev/mqueue")?;
    match mount(Some("mqueue"), "/dev/mqueue", Some("mqueue"), HARMLESS, NONE) {
        // A kernel without POSIX message queues: then no program can use them either.
        Err(nix::errno::Errno::ENODEV) => {}
        done => done.map_err(step("mounting /dev/mqueue"))?,
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, format!("/dev/{name}"))
            .map_err(step(format!("making /dev/{name}")))?;
    }
    Ok(())
}

fn as_path(path: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

fn mask() -> Result<(), StartError> {
    for path in MASKED {
        let what = || format!("masking {path}");
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let flags = HARMLESS | MsFlags::MS_RDONLY;
                mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=0,nr_inodes=1,mode=755"))
                    .map_err(step(what()))?;
            }
            Ok(_) => mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE).map_err(step(what()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(step(what())(error)),
        }
    }
    Ok(())
}

fn read_only(path: &str) -> Result<(), StartError> {
    match mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE) {
        Err(nix::errno::Errno::ENOENT) => return Ok(()),
        done => done.map_err(step(format!("binding {path}")))?,
    }
    remount_read_only(path).map_err(step(format!("making {path} read-only")))
}

fn remount_read_only(path: &str) -> nix::Result<()> {
    mount(NONE, path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS, NONE)
}

/// As Docker does: any user of the container may listen on any port of it. They lead nowhere else.
fn set_network_defaults(birth: &Birth<'_>, degraded: &dyn Fn(String)) {
    // The range may name only groups that the user namespace knows.
    let groups = if birth.users == Users::Host { "0 2147483647" } else { "0 65535" };
    for (file, value) in [
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
        ("/proc/sys/net/ipv4/ping_group_range", groups),
    ] {
        let wrote =
            OpenOptions::new().write(true).open(file).and_then(|mut it| it.write_all(value.as_bytes()));
        // Without root only group 0 is known.
        if let Err(error) = wrote
            && error.raw_os_error() != Some(libc::EINVAL)
        {
            degraded(format!("{file} keeps its default: {error}"));
        }
    }
}

/// Files that the image should not have, because they are different for each container.
fn fill_etc(birth: &Birth<'_>, degraded: &dyn Fn(String)) -> Result<(), StartError> {
    let name = &birth.spec.hostname;
    folder("/etc")?;
    for (file, text) in [
        ("/etc/hostname", format!("{name}\n")),
        ("/etc/hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{name}\n")),
        ("/etc/resolv.conf", "# No name server: this container's network is its own loopback.\n".into()),
    ] {
        let new = OpenOptions::new().write(true).create_new(true).mode(0o644).open(file);
        match new {
            Ok(mut new) => new.write_all(text.as_bytes()).map_err(step(format!("writing {file}")))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // An image that was unpacked by somebody else: its folders are not ours to write to.
            Err(error) if birth.users.are_rootless() => degraded(format!("no {file}: {error}")),
            Err(error) => return Err(step(format!("making {file}"))(error)),
        }
    }
    if let Some(fence) = birth.spec.fence {
        // Whatever an image has there is of another start.
        match fs::remove_file(FENCE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step(format!("replacing {FENCE}"))(error));
            }
            _ => {}
        }
        let new = OpenOptions::new().write(true).create_new(true).mode(0o644).open(FENCE);
        let wrote = new.and_then(|mut new| new.write_all(format!("{fence}\n").as_bytes()));
        wrote.map_err(step(format!("writing {FENCE}")))?;
    }
    Ok(())
}
