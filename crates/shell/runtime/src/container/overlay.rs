//! The container's file system: the image's layers below, its own folder on top.
//!
//! Layers are shared by containers whose users are different ids of the host, and their files belong to
//! the image's ids on the disk. A container with a range of its own sees each layer through an idmapped
//! mount, which shows the files as that range's and changes nothing on the disk. The folder on top is
//! the container's alone: there the range's ids are on the disk, so that a program with the set-user
//! bit that somebody makes in a container is nobody's on the host.
//!
//! The overlay is mounted by the supervisor then, since in its own user namespace the container could
//! not read the whiteouts that root has written.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::StartError;
use crate::sys::{self, NewMount};

/// The folders of one container's file system, in its own folder.
pub(super) const UPPER: &str = "upper";
pub(super) const WORK: &str = "work";
/// Where it is mounted when the kernel wants a place for that.
pub(super) const MERGED: &str = "root";

const NONE: Option<&str> = None;

fn step<E: Into<crate::error::Errno>>(what: impl Into<String>) -> impl FnOnce(E) -> StartError {
    StartError::rootfs(what)
}

/// What an overlay is made of. All by descriptors: a path with `:` or `,` in it would be read as two,
/// and the options of many long paths would not fit a page.
struct Layers {
    /// Topmost first.
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// Its attributes are those that a user namespace may write.
    userxattr: bool,
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

/// The container's own two folders, seen as from a root of their own. The kernel wants both in one mount.
fn apart(dir: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let own = sys::clone_mount(open(dir)?.as_fd())?;
    let of_own = |name: &str| open(Path::new(&format!("/proc/self/fd/{}/{name}", own.as_raw_fd())));
    Ok((of_own(UPPER)?, of_own(WORK)?))
}

impl Layers {
    fn open(dir: &Path, lower: &[PathBuf], userxattr: bool) -> Result<Self, StartError> {
        let lower = lower
            .iter()
            .map(|path| {
                open(path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        StartError::LayerMissing { path: path.clone() }
                    }
                    _ => step(format!("opening the layer {}", path.display()))(error),
                })
            })
            .collect::<Result<_, _>>()?;
        let own =
            |name: &str| open(&dir.join(name)).map_err(step(format!("opening {}/{name}", dir.display())));
        Ok(Self { lower, upper: own(UPPER)?, work: own(WORK)?, userxattr })
    }

    /// Shows the layers as the user namespace `users` knows their owners. They are mounts of their own
    /// then, attached nowhere.
    fn map(&mut self, paths: &[PathBuf], users: BorrowedFd<'_>) -> Result<(), StartError> {
        for (layer, path) in self.lower.iter_mut().zip(paths) {
            *layer = sys::clone_mount(layer.as_fd())
                .and_then(|mount| sys::map_ids(mount.as_fd(), users).map(|()| mount))
                .map_err(step(format!("mapping the owners in the layer {}", path.display())))?;
        }
        Ok(())
    }

    /// The same without a place in the host's tree: the kernel shows a container the paths of what its
    /// root is made of, and they are none of its business. `dir` holds the folders on top.
    fn apart(&self, dir: &Path) -> io::Result<Self> {
        let lower =
            self.lower.iter().map(|layer| sys::clone_mount(layer.as_fd())).collect::<Result<_, _>>()?;
        let (upper, work) = apart(dir)?;
        Ok(Self { lower, upper, work, userxattr: self.userxattr })
    }

    /// The overlay as a mount that is attached nowhere. [`is_unknown`] when this kernel cannot do that.
    fn stack(&self) -> io::Result<OwnedFd> {
        let overlay = NewMount::new(c"overlay")?;
        for layer in &self.lower {
            overlay.file(c"lowerdir+", layer.as_fd())?;
        }
        overlay.file(c"upperdir", self.upper.as_fd())?;
        overlay.file(c"workdir", self.work.as_fd())?;
        // The upper layer is thrown away with the container, so syncing it wears flash out for nothing.
        overlay.flag(c"volatile")?;
        if self.userxattr {
            overlay.flag(c"userxattr")?;
        }
        overlay.mount()
    }

    /// The overlay at `target`, in words that every kernel understands. They fit a page for as many
    /// layers as a container may have.
    fn stack_at(&self, target: &Path) -> Result<(), StartError> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let lower: Vec<String> = self.lower.iter().map(name).collect();
        let (upper, work) = (name(&self.upper), name(&self.work));
        let mut options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        if self.userxattr {
            options.push_str(",userxattr");
        }
        let volatile = format!("{options},volatile");
        let mount_with =
            |options: &str| mount(Some("overlay"), target, Some("overlay"), MsFlags::MS_NODEV, Some(options));
        match mount_with(&volatile) {
            // Before Linux 5.10 there is no such option.
            Err(nix::errno::Errno::EINVAL) => mount_with(&options),
            done => done,
        }
        .map_err(step("mounting the overlay"))
    }
}

/// Whether the kernel does not know the way that was tried: layers by descriptor, and layers in mounts
/// that are attached nowhere, came with Linux 6.15.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EBADF))
}

/// For a container that knows the layers' owners as they are: makes the overlay in the mount namespace
/// of this process, and returns a mount that is attached nowhere.
pub(super) fn make(dir: &Path, lower: &[PathBuf], userxattr: bool) -> Result<OwnedFd, StartError> {
    let layers = Layers::open(dir, lower, userxattr)?;
    match layers.apart(dir).and_then(|layers| layers.stack()) {
        Err(error) if is_unknown(&error) => {
            let target = dir.join(MERGED);
            layers.stack_at(&target)?;
            lift(&target)
        }
        done => done.map_err(step("mounting the overlay")),
    }
}

/// For a container whose users are those of the user namespace `users`. Called by the supervisor; the
/// mount that it returns is attached nowhere.
pub(crate) fn make_mapped(
    dir: &Path,
    lower: &[PathBuf],
    users: BorrowedFd<'_>,
) -> Result<OwnedFd, StartError> {
    let mut layers = Layers::open(dir, lower, false)?;
    layers.map(lower, users)?;
    let stacked = apart(dir).and_then(|(upper, work)| Layers { upper, work, ..layers }.stack());
    match stacked {
        Err(error) if is_unknown(&error) => make_in_private(dir, lower, users),
        done => done.map_err(step("mounting the overlay")),
    }
}

/// Older kernels want the layers' mounts attached somewhere, so the supervisor leaves the host's mount
/// namespace for one of its own. Mounts that the host takes away vanish in there too.
fn make_in_private(dir: &Path, lower: &[PathBuf], users: BorrowedFd<'_>) -> Result<OwnedFd, StartError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE))
        .map_err(StartError::kernel("make a mount namespace for the supervisor"))?;
    let mut layers = Layers::open(dir, lower, false)?;
    layers.map(lower, users)?;
    let target = dir.join(MERGED);
    let path = std::ffi::CString::new(target.as_os_str().as_bytes()).map_err(|_| StartError::Rootfs {
        step: "naming the root".into(),
        source: crate::error::Errno(libc::EINVAL),
    })?;
    // One on top of the other: only their descriptors are used.
    for layer in &layers.lower {
        sys::move_mount(layer.as_fd(), &path).map_err(step("attaching a layer"))?;
    }
    layers.stack_at(&target)?;
    let overlay = lift(&target)?;
    for _ in &layers.lower {
        umount2(&target, MntFlags::MNT_DETACH).map_err(step("detaching a layer"))?;
    }
    Ok(overlay)
}

/// Takes the mount at `target` away from there.
fn lift(target: &Path) -> Result<OwnedFd, StartError> {
    let overlay = open(target)
        .and_then(|overlay| sys::clone_mount(overlay.as_fd()))
        .map_err(step("taking the overlay along"))?;
    umount2(target, MntFlags::MNT_DETACH).map_err(step("detaching the overlay"))?;
    Ok(overlay)
}
