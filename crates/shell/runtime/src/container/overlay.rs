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

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Errno, StartError};
use crate::sys::{self, NewMount};

/// The folders of one container's file system, in its own folder.
pub(super) const UPPER: &str = "upper";
pub(super) const WORK: &str = "work";
/// Where it is mounted when the kernel wants a place for that.
pub(super) const MERGED: &str = "root";

const NONE: Option<&str> = None;

fn step<E: Into<Errno>>(what: impl Into<String>) -> impl FnOnce(E) -> StartError {
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

/// Whether both are the same folder of the same file system.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let id = |fd| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    Ok(id(one)? == id(other)?)
}

/// A path to what is open.
fn by_number(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
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

    /// Shows the layers as the user namespace `users` knows their owners. Returns the mounts that do so,
    /// attached nowhere: one for each folder that has layers in it, see [`Mapped`].
    fn map(&mut self, paths: &[PathBuf], users: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, StartError> {
        let mut folders: Vec<(PathBuf, OwnedFd)> = Vec::new();
        let mut single = Vec::new();
        for (layer, path) in self.lower.iter_mut().zip(paths) {
            let mapped = (|| {
                let mapped = |folder: &OwnedFd| {
                    let mount = sys::clone_mount(folder.as_fd())?;
                    sys::map_ids(mount.as_fd(), users).map(|()| mount)
                };
                if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
                    if folders.iter().all(|(there, _)| there != folder) {
                        folders.push((folder.to_owned(), mapped(&open(folder)?)?));
                    }
                    let (_, mount) =
                        folders.iter().find(|(there, _)| there == folder).expect("it was just added");
                    match open(&by_number(mount).join(name)) {
                        Ok(found) if is_same(&found, layer)? => return Ok(found),
                        // A link, or a mount of its own, is something else in there.
                        _ => {}
                    }
                }
                let mount = mapped(layer)?;
                single.push(mount.try_clone()?);
                Ok(mount)
            })();
            *layer = mapped
                .map_err(step::<io::Error>(format!("mapping the owners in the layer {}", path.display())))?;
        }
        Ok(folders.into_iter().map(|(_, mount)| mount).chain(single).collect())
    }

    /// The overlay as a mount that is attached nowhere. [`is_unknown`] when this kernel cannot do that.
    fn stack(&self) -> io::Result<OwnedFd> {
        let overlay = NewMount::new(c"overlay")?;
        // In words rather than as descriptors: the kernel shows the container what it was told here, and
        // would look the host's paths up for a descriptor.
        let text = |key: &CStr, folder: &OwnedFd| {
            let path = CString::new(by_number(folder).into_os_string().into_vec())?;
            overlay.text(key, &path)
        };
        for layer in &self.lower {
            text(c"lowerdir+", layer)?;
        }
        text(c"upperdir", &self.upper)?;
        text(c"workdir", &self.work)?;
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
        let name = |fd: &OwnedFd| by_number(fd).display().to_string();
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

/// Whether the kernel does not know the way that was tried: layers one by one came with Linux 6.8,
/// layers in mounts that are attached nowhere with 6.15.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

/// An overlay whose layers are mapped.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Attached nowhere.
    pub(crate) overlay: OwnedFd,
    /// No longer needed. Their closing waits for every processor, milliseconds on a busy machine, so it
    /// can wait itself.
    pub(crate) spent: Vec<OwnedFd>,
}

/// For a container that knows the layers' owners as they are: makes the overlay in the mount namespace
/// of this process, and returns a mount that is attached nowhere.
pub(super) fn make(dir: &Path, lower: &[PathBuf], userxattr: bool) -> Result<OwnedFd, StartError> {
    let layers = Layers::open(dir, lower, userxattr)?;
    match layers.stack() {
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
) -> Result<Mapped, StartError> {
    let mut layers = Layers::open(dir, lower, false)?;
    let spent = layers.map(lower, users)?;
    match layers.stack() {
        Err(error) if is_unknown(&error) => make_in_private(dir, lower, users),
        done => done.map(|overlay| Mapped { overlay, spent }).map_err(step("mounting the overlay")),
    }
}

/// Older kernels want the layers' mounts attached somewhere, so the supervisor leaves the host's mount
/// namespace for one of its own. Mounts that the host takes away vanish in there too.
fn make_in_private(dir: &Path, lower: &[PathBuf], users: BorrowedFd<'_>) -> Result<Mapped, StartError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE))
        .map_err(StartError::kernel("make a mount namespace for the supervisor"))?;
    let mut layers = Layers::open(dir, lower, false)?;
    let spent = layers.map(lower, users)?;
    let target = dir.join(MERGED);
    let path = CString::new(target.as_os_str().as_bytes())
        .map_err(|_| step("naming the root")(Errno(libc::EINVAL)))?;
    // One on top of the other: only their descriptors are used.
    for mount in &spent {
        sys::move_mount(mount.as_fd(), &path).map_err(step("attaching the layers"))?;
    }
    layers.stack_at(&target)?;
    let overlay = lift(&target)?;
    for _ in &spent {
        umount2(&target, MntFlags::MNT_DETACH).map_err(step("detaching the layers"))?;
    }
    Ok(Mapped { overlay, spent })
}

/// Takes the mount at `target` away from there.
fn lift(target: &Path) -> Result<OwnedFd, StartError> {
    let overlay = open(target)
        .and_then(|overlay| sys::clone_mount(overlay.as_fd()))
        .map_err(step("taking the overlay along"))?;
    umount2(target, MntFlags::MNT_DETACH).map_err(step("detaching the overlay"))?;
    Ok(overlay)
}
