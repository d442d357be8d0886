//! Mounts as descriptors: made and changed before anything can be looked up in them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_uint};

use super::{check, own};

/// Of `open_tree`: a copy instead of the mount itself.
const OPEN_TREE_CLONE: c_int = 1;
/// Of `move_mount`: the source is the descriptor itself.
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
/// Of fsopen and fsmount: exec closes the descriptor.
const CLOEXEC: c_uint = 1;

/// Kinds of fsconfig.
const SET_FLAG: c_uint = 0;
const SET_STRING: c_uint = 1;
const CREATE: c_uint = 6;

/// Attributes of a mount.
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// The arguments of `mount_setattr`, as the kernel lays them out (version 0, 32 bytes).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A copy of one mount, attached nowhere yet.
pub(crate) fn open_tree(path: &CStr) -> io::Result<OwnedFd> {
    clone_at(libc::AT_FDCWD, path, 0)
}

/// As [`open_tree`], of a folder that is open. The folder becomes the root of the copy.
pub(crate) fn clone_mount(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    clone_at(folder.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

fn clone_at(at: RawFd, path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | flags;
    // SAFETY: a terminated string and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) }).map(own)
}

/// Attaches a mount that is attached nowhere. The last part of `path` is not followed.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: terminated strings and plain numbers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Files of a mount that is attached nowhere get the owners that the user namespace `users` makes of
/// the numbers on the disk: 0 becomes its user 0.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: u64::from(users.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: a terminated string, and a live struct with its size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// A file system on its way to a mount. Its options are handed over one by one, so no page has to hold
/// all of them.
#[derive(Debug)]
pub(crate) struct NewMount(OwnedFd);

impl NewMount {
    /// Of the kind that `/proc/filesystems` calls `kind`.
    pub(crate) fn new(kind: &CStr) -> io::Result<Self> {
        // SAFETY: a terminated string and a number.
        check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) }).map(|fd| Self(own(fd)))
    }

    fn configure(&self, kind: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
        let (key, value) = (pointer(key), pointer(value));
        // SAFETY: null or terminated strings that live on, as `kind` demands; and plain numbers.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), kind, key, value, 0) }).map(drop)
    }

    /// An option without value.
    pub(crate) fn flag(&self, key: &CStr) -> io::Result<()> {
        self.configure(SET_FLAG, Some(key), None)
    }

    /// An option with a value of at most 255 bytes.
    pub(crate) fn text(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.configure(SET_STRING, Some(key), Some(value))
    }

    /// The mount, attached nowhere, in which no device works.
    pub(crate) fn mount(self) -> io::Result<OwnedFd> {
        self.configure(CREATE, None, None)?;
        let (flags, attributes) = (CLOEXEC, MOUNT_ATTR_NODEV);
        // SAFETY: plain numbers.
        check(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), flags, attributes) }).map(own)
    }
}
