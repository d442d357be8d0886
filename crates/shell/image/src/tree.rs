//! Makes files inside one folder and nowhere else.
//!
//! Every way to a file is resolved by the kernel with the folder as its root (`openat2` with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`), so links that lead up or out end inside; the last part
//! is never followed. What stands in the way of an entry is unlinked first and the entry made anew, so
//! nothing is ever written through a name that was there before. Nobody else writes in the folder.
//!
//! Modes and times of folders are set at the end: a folder may forbid what is still to come into it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::dir::Dir as DirStream;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, mkfifoat, symlinkat, unlinkat,
};
use rustix::fs::XattrFlags;

use crate::LayerError;
use crate::limits::{DEPTH_MAX, LAYER_DIRS_MAX, LINKS_WALKED_MAX, PATH_BYTES_MAX};
use crate::unpack::show;

/// What the process may do on the file system it unpacks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Powers {
    /// Owners are kept, overlayfs is told by `trusted.overlay.*`.
    Root,
    /// All files belong to whoever runs the peer, and overlayfs is told by `user.overlay.*`.
    User,
}

impl Powers {
    pub(crate) fn overlay(self, attribute: &str) -> String {
        match self {
            Self::Root => format!("trusted.overlay.{attribute}"),
            Self::User => format!("user.overlay.{attribute}"),
        }
    }
}

/// What a file is besides its contents.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: TimeSpec,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

impl Meta {
    /// What a folder gets that no entry describes.
    pub(crate) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: TimeSpec::new(0, 0), xattrs: Vec::new() }
    }

    fn of(stat: &FileStat) -> Self {
        let mtime = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
    }
}

/// An open folder of the tree.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    inode: u64,
}

/// A folder that was made, by its inode: all folders of the tree are.
#[derive(Debug)]
struct Made {
    parent: u64,
    name: Vec<u8>,
    depth: u32,
    meta: Meta,
    /// Nothing of the layers below shows through it.
    covers: bool,
}

/// The folder that is unpacked into.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    root: Rc<Folder>,
    /// The layers below, topmost first: what they say of a folder holds where this layer says nothing.
    lowers: &'a [OwnedFd],
    powers: Powers,
    /// Whether whiteouts are devices; the kernel forbids that in some sandboxes.
    pub(crate) device_whiteouts: bool,
    made: HashMap<u64, Made>,
    whiteouts: HashMap<u64, BTreeSet<Vec<u8>>>,
    last: Option<(Vec<u8>, Rc<Folder>)>,
}

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const FOLDER: OFlag = PATH.union(OFlag::O_DIRECTORY);
const IN_ROOT: ResolveFlag = ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

fn failed<E: Into<io::Error>>(action: &'static str, name: &[u8]) -> impl FnOnce(E) -> LayerError {
    let name = show(name);
    move |source| LayerError::File { action, name, source: source.into() }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn lstat(folder: &Folder, name: &[u8]) -> Result<Option<FileStat>, Errno> {
    match fstatat(&folder.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl<'a> Tree<'a> {
    /// `root` is an empty folder.
    pub(crate) fn new(root: OwnedFd, lowers: &'a [OwnedFd], powers: Powers) -> Result<Self, LayerError> {
        let inode = fstat(&root).map_err(failed("look at", b"/"))?.st_ino;
        let below = lowers.first().and_then(|lower| fstat(lower).ok());
        let meta = below.map_or_else(Meta::implied, |stat| Meta::of(&stat));
        let top = Made { parent: inode, name: Vec::new(), depth: 0, meta, covers: false };
        Ok(Self {
            root: Rc::new(Folder { fd: root, inode }),
            lowers,
            powers,
            device_whiteouts: true,
            made: HashMap::from([(inode, top)]),
            whiteouts: HashMap::new(),
            last: None,
        })
    }

    /// The folder that a way leads to, through links that the layer made; it is made where it is not
    /// there.
    pub(crate) fn folder(&mut self, parts: &[&[u8]]) -> Result<Rc<Folder>, LayerError> {
        let path = parts.join(&b'/');
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, folder)) = &self.last
            && *last == path
        {
            return Ok(Rc::clone(folder));
        }
        let folder = match self.resolve(&path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                self.make_way(parts)?;
                self.resolve(&path)
            }
            other => other,
        };
        let folder = Rc::new(folder.map_err(failed("open the folder", &path))?);
        self.last = Some((path, Rc::clone(&folder)));
        Ok(folder)
    }

    /// The folder that a way leads to; `None` where it is not there.
    pub(crate) fn existing_folder(&self, parts: &[&[u8]]) -> Result<Option<Rc<Folder>>, LayerError> {
        let path = parts.join(&b'/');
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        match self.resolve(&path) {
            Ok(folder) => Ok(Some(Rc::new(folder))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(failed("open the folder", &path)(error)),
        }
    }

    fn resolve(&self, path: &[u8]) -> Result<Folder, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat2(&self.root.fd, path, OpenHow::new().flags(flags).resolve(IN_ROOT))?;
        let inode = fstat(&fd)?.st_ino;
        Ok(Folder { fd, inode })
    }

    /// Makes the folders that a way lacks. Walks by itself, one part at a time and never through a
    /// link that it has not read, so that it knows where each folder really lies.
    fn make_way(&mut self, parts: &[&[u8]]) -> Result<(), LayerError> {
        let whole = parts.join(&b'/');
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        let mut stack = vec![Rc::clone(&self.root)];
        let mut links = 0;
        while let Some(part) = todo.pop() {
            let here = Rc::clone(stack.last().expect("the root is never popped"));
            if part.is_empty() || part == b"." {
                continue;
            }
            if part == b".." {
                // Above the root is the root.
                stack.truncate(stack.len().saturating_sub(1).max(1));
                continue;
            }
            let found = lstat(&here, &part).map_err(failed("look at", &whole))?;
            let target = match found.as_ref().map(kind) {
                None => self.make_implied(&here, &part, &whole)?,
                Some(SFlag::S_IFDIR) => None,
                Some(SFlag::S_IFLNK) => Some(readlinkat(&here.fd, &*part).map_err(failed("read", &whole))?),
                Some(_) if self.is_whiteout(&here, &part) => {
                    self.unlink(&here, &part)?;
                    let made = self.make_folder(&here, &part, Meta::implied(), true)?;
                    self.set_opaque(&made, &part)?;
                    None
                }
                Some(_) => return Err(LayerError::Way { name: show(&whole), part: show(&part) }),
            };
            if let Some(target) = target {
                links += 1;
                if links > LINKS_WALKED_MAX {
                    return Err(failed("open the folder", &whole)(Errno::ELOOP));
                }
                let target = target.into_encoded_bytes();
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                continue;
            }
            stack.push(Rc::new(open_folder(&here, &part).map_err(failed("open the folder", &whole))?));
        }
        Ok(())
    }

    /// Makes what the layers below have at a place that this one says nothing of: a folder with the
    /// same mode and owner (or it would hide theirs), or a link, whose target is returned.
    fn make_implied(
        &mut self,
        here: &Folder,
        part: &[u8],
        whole: &[u8],
    ) -> Result<Option<std::ffi::OsString>, LayerError> {
        let Some((fd, stat)) = self.below(here, part) else {
            self.make_folder(here, part, Meta::implied(), false)?;
            return Ok(None);
        };
        if kind(&stat) == SFlag::S_IFDIR {
            self.make_folder(here, part, Meta::of(&stat), false)?;
            return Ok(None);
        }
        let target = readlinkat(&fd, "").map_err(failed("read", whole))?;
        symlinkat(&*target, &here.fd, part).map_err(failed("make the link", whole))?;
        self.finish_link(here, part, &Meta::of(&stat))?;
        Ok(Some(target))
    }

    /// The folder or link at a place in the topmost layer below that has anything there.
    fn below(&self, here: &Folder, part: &[u8]) -> Option<(OwnedFd, FileStat)> {
        let (mut path, mut inode) = (part.to_vec(), here.inode);
        while inode != self.root.inode {
            let made = self.made.get(&inode)?;
            if made.covers {
                return None;
            }
            path = [&made.name, b"/".as_slice(), &path].concat();
            inode = made.parent;
        }
        if self.made.get(&inode)?.covers {
            return None;
        }
        for lower in self.lowers {
            let how = OpenHow::new().flags(PATH).resolve(IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
            match openat2(lower, path.as_slice(), how) {
                Ok(fd) => {
                    let stat = fstat(&fd).ok()?;
                    return matches!(kind(&stat), SFlag::S_IFDIR | SFlag::S_IFLNK).then_some((fd, stat));
                }
                Err(Errno::ENOENT) => {}
                // A file or whiteout on the way hides all that is deeper.
                Err(_) => return None,
            }
        }
        None
    }

    fn make_folder(
        &mut self,
        here: &Folder,
        name: &[u8],
        meta: Meta,
        covers: bool,
    ) -> Result<Folder, LayerError> {
        let depth = self.made.get(&here.inode).map_or(0, |made| made.depth) + 1;
        if depth > DEPTH_MAX {
            return Err(LayerError::Limit { what: "folders inside folders", limit: DEPTH_MAX.into() });
        }
        if self.made.len() >= LAYER_DIRS_MAX {
            return Err(LayerError::Limit { what: "folders", limit: LAYER_DIRS_MAX as u64 });
        }
        mkdirat(&here.fd, name, Mode::S_IRWXU).map_err(failed("make the folder", name))?;
        let folder = open_folder(here, name).map_err(failed("open the folder", name))?;
        let made = Made { parent: here.inode, name: name.into(), depth, meta, covers };
        self.made.insert(folder.inode, made);
        Ok(folder)
    }

    /// A folder that an entry describes; one that is there keeps its contents.
    pub(crate) fn put_folder(&mut self, here: &Folder, name: &[u8], meta: Meta) -> Result<(), LayerError> {
        let was_whiteout = self.is_whiteout(here, name);
        if let Some(stat) = lstat(here, name).map_err(failed("look at", name))? {
            if kind(&stat) == SFlag::S_IFDIR {
                self.describe(stat.st_ino, meta);
                return Ok(());
            }
            self.unlink(here, name)?;
        }
        let made = self.make_folder(here, name, meta, was_whiteout)?;
        if was_whiteout { self.set_opaque(&made, name) } else { Ok(()) }
    }

    /// What an entry says of the root itself.
    pub(crate) fn put_root(&mut self, meta: Meta) {
        self.describe(self.root.inode, meta);
    }

    fn describe(&mut self, inode: u64, meta: Meta) {
        self.made.get_mut(&inode).expect("every folder of the tree was made here").meta = meta;
    }

    /// A new file, open for writing; [`Tree::finish_file`] must follow.
    pub(crate) fn put_file(&mut self, here: &Folder, name: &[u8]) -> Result<File, LayerError> {
        self.clear(here, name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd =
            openat(&here.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("make", name))?;
        Ok(File::from(fd))
    }

    /// Gives a file its owner, attributes, mode and time, in the order in which the kernel keeps them:
    /// a change of owner takes away set-user-id bits and capabilities.
    pub(crate) fn finish_file(&self, file: impl AsFd, name: &[u8], meta: &Meta) -> Result<(), LayerError> {
        if self.powers == Powers::Root {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fchown(file.as_fd(), Some(uid), Some(gid)).map_err(failed("set the owner of", name))?;
        }
        for (key, value) in &meta.xattrs {
            // Only root can give a capability away; without it the program runs without it.
            if self.powers == Powers::Root || key.starts_with("user.") {
                rustix::fs::fsetxattr(file.as_fd(), key.as_str(), value, XattrFlags::empty())
                    .map_err(failed("set an extended attribute of", name))?;
            }
        }
        fchmod(file.as_fd(), Mode::from_bits_truncate(meta.mode)).map_err(failed("set the mode of", name))?;
        futimens(file.as_fd(), &meta.mtime, &meta.mtime).map_err(failed("set the time of", name))
    }

    /// A symbolic link. Its target is only text: whoever walks it stays in the root.
    pub(crate) fn put_link(
        &mut self,
        here: &Folder,
        name: &[u8],
        target: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError> {
        self.clear(here, name)?;
        symlinkat(target, &here.fd, name).map_err(failed("make the link", name))?;
        self.finish_link(here, name, meta)
    }

    fn finish_link(&self, here: &Folder, name: &[u8], meta: &Meta) -> Result<(), LayerError> {
        self.own(here, name, meta)?;
        utimensat(&here.fd, name, &meta.mtime, &meta.mtime, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", name))
    }

    fn own(&self, here: &Folder, name: &[u8], meta: &Meta) -> Result<(), LayerError> {
        if self.powers == Powers::User {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        fchownat(&here.fd, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of", name))
    }

    /// A named pipe.
    pub(crate) fn put_pipe(&mut self, here: &Folder, name: &[u8], meta: &Meta) -> Result<(), LayerError> {
        self.clear(here, name)?;
        mkfifoat(&here.fd, name, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("make the pipe", name))?;
        self.own(here, name, meta)?;
        // A pipe that was made this moment, in a folder that nobody else writes to, is no link.
        fchmodat(&here.fd, name, Mode::from_bits_truncate(meta.mode), FchmodatFlags::FollowSymlink)
            .map_err(failed("set the mode of", name))?;
        utimensat(&here.fd, name, &meta.mtime, &meta.mtime, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", name))
    }

    /// A second name for a file (or link) of this layer.
    pub(crate) fn put_hard_link(
        &mut self,
        here: &Folder,
        name: &[u8],
        (there, target): (&Folder, &[u8]),
        refused: impl Fn(&'static str) -> LayerError,
    ) -> Result<(), LayerError> {
        if here.inode == there.inode && name == target {
            return Err(refused("it is the link itself"));
        }
        let stat = lstat(there, target).map_err(failed("look at", target))?;
        match stat.as_ref().map(kind) {
            None => return Err(refused("it is not in this layer")),
            Some(_) if self.is_whiteout(there, target) => return Err(refused("it is a whiteout")),
            Some(SFlag::S_IFREG | SFlag::S_IFLNK) => {}
            Some(_) => return Err(refused("it is neither a file nor a link")),
        }
        self.clear(here, name)?;
        linkat(&there.fd, target, &here.fd, name, LinkatFlags::empty())
            .map_err(failed("make the hard link", name))
    }

    /// Hides what the layers below have under a name. What this layer has there stays: a folder then
    /// covers theirs.
    pub(crate) fn put_whiteout(&mut self, here: &Folder, name: &[u8]) -> Result<(), LayerError> {
        if self.is_whiteout(here, name) {
            return Ok(());
        }
        match lstat(here, name).map_err(failed("look at", name))?.as_ref().map(kind) {
            Some(SFlag::S_IFDIR) => {
                let folder = open_folder(here, name).map_err(failed("open the folder", name))?;
                return self.cover(&folder, name);
            }
            Some(_) => return Ok(()),
            None => {}
        }
        if self.device_whiteouts {
            match mknodat(&here.fd, name, SFlag::S_IFCHR, Mode::empty(), 0) {
                Ok(()) => {}
                Err(Errno::EPERM | Errno::EACCES) => self.device_whiteouts = false,
                Err(error) => return Err(failed("make the whiteout", name)(error)),
            }
        }
        if !self.device_whiteouts {
            // The other form, which Linux 6.7 reads: an empty file with an attribute, in a folder that
            // says that it may hold such files.
            let file = self.put_file(here, name)?;
            self.set_overlay(&file, "whiteout", b"y", name)?;
            if !self.made.get(&here.inode).is_some_and(|made| made.covers) {
                self.set_overlay(&readable(here, name)?, "opaque", b"x", name)?;
            }
        }
        self.whiteouts.entry(here.inode).or_default().insert(name.into());
        Ok(())
    }

    /// Hides all that the layers below have in a folder.
    pub(crate) fn cover(&mut self, folder: &Folder, name: &[u8]) -> Result<(), LayerError> {
        if let Some(made) = self.made.get_mut(&folder.inode) {
            made.covers = true;
        }
        self.set_opaque(folder, name)
    }

    fn set_opaque(&self, folder: &Folder, name: &[u8]) -> Result<(), LayerError> {
        self.set_overlay(&readable(folder, name)?, "opaque", b"y", name)
    }

    fn set_overlay(
        &self,
        fd: impl AsFd,
        attribute: &str,
        value: &[u8],
        name: &[u8],
    ) -> Result<(), LayerError> {
        rustix::fs::fsetxattr(fd, self.powers.overlay(attribute), value, XattrFlags::empty())
            .map_err(failed("set overlayfs' attribute of", name))
    }

    fn is_whiteout(&self, here: &Folder, name: &[u8]) -> bool {
        self.whiteouts.get(&here.inode).is_some_and(|names| names.contains(name))
    }

    /// Removes whatever has a name.
    fn clear(&mut self, here: &Folder, name: &[u8]) -> Result<(), LayerError> {
        match lstat(here, name).map_err(failed("look at", name))?.as_ref().map(kind) {
            None => Ok(()),
            Some(SFlag::S_IFDIR) => {
                self.last = None;
                self.remove_folder(here, name)
            }
            Some(_) => self.unlink(here, name),
        }
    }

    fn unlink(&mut self, here: &Folder, name: &[u8]) -> Result<(), LayerError> {
        // The way that was walked last may have led through this link.
        self.last = None;
        if let Some(names) = self.whiteouts.get_mut(&here.inode) {
            names.remove(name);
        }
        unlinkat(&here.fd, name, UnlinkatFlags::NoRemoveDir).map_err(failed("replace", name))
    }

    /// At most [`DEPTH_MAX`] deep, since no deeper folder is made.
    fn remove_folder(&mut self, here: &Folder, name: &[u8]) -> Result<(), LayerError> {
        let folder = open_folder(here, name).map_err(failed("open the folder", name))?;
        let mut stream = DirStream::from_fd(readable(&folder, name)?).map_err(failed("list", name))?;
        let mut names = Vec::new();
        for entry in stream.iter() {
            let entry = entry.map_err(failed("list", name))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        drop(stream);
        for name in names {
            self.clear(&folder, &name)?;
        }
        self.made.remove(&folder.inode);
        self.whiteouts.remove(&folder.inode);
        unlinkat(&here.fd, name, UnlinkatFlags::RemoveDir).map_err(failed("replace", name))
    }

    /// Gives all folders what their entries said, the deepest first.
    pub(crate) fn finish(self) -> Result<(), LayerError> {
        let mut order: Vec<(u32, u64)> = self.made.iter().map(|(inode, made)| (made.depth, *inode)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        for (_, inode) in order {
            let parts = self.parts(inode);
            let folder = self.walk(&parts)?;
            let name = parts.join(&b'/');
            let mut meta = self.made[&inode].meta.clone();
            if inode == self.root.inode && self.powers == Powers::User {
                // Or its owner could not move it to its place. The root that a container sees takes its
                // mode from the container's own layer.
                meta.mode |= 0o700;
            }
            self.finish_file(&readable(&folder, &name)?, &name, &meta)?;
        }
        Ok(())
    }

    fn parts(&self, mut inode: u64) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        while inode != self.root.inode {
            let made = self.made.get(&inode).expect("a folder's parents were made before it");
            parts.push(made.name.as_slice());
            inode = made.parent;
        }
        parts.reverse();
        parts
    }

    /// Goes to a folder by its real place, where no link is; in steps where the path is too long for
    /// one.
    fn walk(&self, parts: &[&[u8]]) -> Result<Rc<Folder>, LayerError> {
        let path = parts.join(&b'/');
        if path.len() <= PATH_BYTES_MAX
            && let Some(folder) = self.existing_folder(parts)?
        {
            return Ok(folder);
        }
        let mut here = Rc::clone(&self.root);
        for part in parts {
            here = Rc::new(open_folder(&here, part).map_err(failed("open the folder", &path))?);
        }
        Ok(here)
    }
}

fn open_folder(here: &Folder, name: &[u8]) -> Result<Folder, Errno> {
    let fd = openat(&here.fd, name, FOLDER, Mode::empty())?;
    let inode = fstat(&fd)?.st_ino;
    Ok(Folder { fd, inode })
}

/// The same folder, open for reading: a handle made by `O_PATH` sets no attributes.
fn readable(folder: &Folder, name: &[u8]) -> Result<OwnedFd, LayerError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&folder.fd, ".", flags, Mode::empty()).map_err(failed("open the folder", name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn where_devices_are_forbidden_whiteouts_are_files_with_an_attribute() {
        let dir = tempfile::tempdir().unwrap();
        let root = nix::fcntl::open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let powers = if nix::unistd::geteuid().is_root() { Powers::Root } else { Powers::User };
        let mut tree = Tree::new(root, &[], powers).unwrap();
        tree.device_whiteouts = false;
        let folder = tree.folder(&[b"d"]).unwrap();
        tree.put_whiteout(&folder, b"w").unwrap();
        tree.put_whiteout(&folder, b"w").unwrap();
        // What comes later under the name takes its place.
        tree.put_whiteout(&folder, b"f").unwrap();
        drop(tree.put_file(&folder, b"f").unwrap());
        tree.finish().unwrap();
        let get = |path: &str, attribute: &str| {
            let mut value = [0; 4];
            let read = rustix::fs::getxattr(dir.path().join(path), powers.overlay(attribute), &mut value);
            read.map(|length| value[..length].to_vec())
        };
        assert_eq!(get("d/w", "whiteout").unwrap(), b"y");
        assert_eq!(get("d", "opaque").unwrap(), b"x");
        assert_eq!(std::fs::metadata(dir.path().join("d/w")).unwrap().size(), 0);
        assert!(get("d/f", "whiteout").is_err());
    }
}
