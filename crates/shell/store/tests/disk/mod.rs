//! A disk that can lose its power: what was written is pending until it is synced, and a power cut
//! decides the fate of each pending piece.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use store::fs::{Content, Fs, FsFile};
use store::{Lock, LockError};

/// What becomes of pending writes when the power is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// None of them is on the disk.
    Lost,
    /// All are.
    Kept,
    /// Each file has the first sectors of what was pending, up to a random one.
    Torn(u64),
    /// Each file has what was pending up to a random byte.
    TornByte(u64),
    /// Each sector is there or not, by chance, as if they had been written in any order.
    Subset(u64),
}

const SECTOR_BYTES: usize = 512;

/// Xorshift: chance that is the same in every run.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit as u64).unwrap()
    }
}

#[derive(Clone, Debug)]
enum FileChange {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl FileChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// The change as the disk sees it: sector by sector.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write(offset, bytes) = self else { return vec![self.clone()] };
        let mut offset = *offset;
        let (mut rest, mut pieces) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
            pieces.push(Self::Write(offset, piece.to_vec()));
            offset += piece.len();
            rest = after;
        }
        pieces
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                let inode = names.remove(from).unwrap();
                names.insert(to.clone(), inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Inode {
    File { durable: Vec<u8>, current: Vec<u8>, pending: Vec<FileChange> },
    Dir { durable: BTreeMap<String, usize>, current: BTreeMap<String, usize>, pending: Vec<NameChange> },
}

#[derive(Clone, Debug)]
struct World {
    inodes: Vec<Inode>,
    /// Operations done since the power came on.
    operations: u64,
    /// The power fails during the operation with this number.
    cut_at: Option<u64>,
    /// The sync with this number fails, and takes what it should have written with it.
    fail_sync_at: Option<u64>,
    off: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct PowerDisk(Arc<Mutex<World>>);

impl PowerDisk {
    pub(crate) fn new() -> Self {
        let root = Inode::Dir { durable: BTreeMap::new(), current: BTreeMap::new(), pending: Vec::new() };
        Self(Arc::new(Mutex::new(World {
            inodes: vec![root],
            operations: 0,
            cut_at: None,
            fail_sync_at: None,
            off: false,
        })))
    }

    /// An equal disk that goes its own way.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// The power will fail during the operation with this number, counted from 0 from now on.
    pub(crate) fn cut_at(&self, operation: u64) {
        let mut world = self.lock();
        world.operations = 0;
        world.cut_at = Some(operation);
    }

    /// The operation with this number, a sync counted from 0 from now on, will fail as it does on
    /// Linux: what was pending never gets to the disk, while readers go on seeing it.
    pub(crate) fn fail_sync_at(&self, operation: u64) {
        let mut world = self.lock();
        world.operations = 0;
        world.fail_sync_at = Some(operation);
    }

    /// Whether the power has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Cuts the power if it is still there, and brings it back.
    pub(crate) fn power_cut(&self, fate: Fate) {
        let mut world = self.lock();
        let mut chance = Chance::new(match fate {
            Fate::Lost | Fate::Kept => 0,
            Fate::Torn(seed) | Fate::TornByte(seed) | Fate::Subset(seed) => seed,
        });
        for inode in &mut world.inodes {
            match inode {
                Inode::File { durable, current, pending } => {
                    for change in fated(pending, fate, &mut chance) {
                        change.apply(durable);
                    }
                    pending.clear();
                    current.clone_from(durable);
                }
                Inode::Dir { durable, current, pending } => {
                    // File systems keep names in a log of their own: a prefix of it is there.
                    let kept = match fate {
                        Fate::Lost => 0,
                        Fate::Kept => pending.len(),
                        _ => chance.below(pending.len() + 1),
                    };
                    for change in &pending[..kept] {
                        change.apply(durable);
                    }
                    pending.clear();
                    current.clone_from(durable);
                }
            }
        }
        (world.operations, world.cut_at, world.off) = (0, None, false);
    }

    /// What a file holds.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let world = self.lock();
        match &world.inodes[world.find(path).unwrap()] {
            Inode::File { current, .. } => current.clone(),
            Inode::Dir { .. } => panic!("{} is a folder", path.display()),
        }
    }

    /// Changes a file behind everybody's back, as a bad disk does.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.lock();
        let inode = world.find(path).unwrap();
        match &mut world.inodes[inode] {
            Inode::File { current, durable, pending } => {
                assert!(pending.is_empty(), "what is damaged is on the disk");
                change(current);
                durable.clone_from(current);
            }
            Inode::Dir { .. } => panic!("{} is a folder", path.display()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Counts an operation. `Ok(false)`: it is done, and then the power fails.
    fn begin(world: &mut World) -> io::Result<bool> {
        if world.off {
            return Err(io::Error::other("the power is off"));
        }
        world.off = world.cut_at == Some(world.operations);
        world.operations += 1;
        Ok(!world.off)
    }

    /// An operation that may be pending when the power fails in it.
    fn change<T>(&self, f: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.lock();
        let lives = Self::begin(&mut world)?;
        let value = f(&mut world)?;
        if lives { Ok(value) } else { Err(io::Error::other("the power failed")) }
    }

    /// A sync: when the power fails in it, nothing more is certain than before.
    fn sync(&self, f: impl FnOnce(&mut World) -> io::Result<()>) -> io::Result<()> {
        let mut world = self.lock();
        if Self::begin(&mut world)? { f(&mut world) } else { Err(io::Error::other("the power failed")) }
    }

    fn look<T>(&self, f: impl FnOnce(&World) -> io::Result<T>) -> io::Result<T> {
        let world = self.lock();
        if world.off { Err(io::Error::other("the power is off")) } else { f(&world) }
    }
}

/// What of the pending changes gets to the disk.
fn fated(pending: &[FileChange], fate: Fate, chance: &mut Chance) -> Vec<FileChange> {
    let sectors: Vec<_> = pending.iter().flat_map(FileChange::sectors).collect();
    match fate {
        Fate::Lost => Vec::new(),
        Fate::Kept => sectors,
        Fate::Torn(_) => {
            let kept = chance.below(sectors.len() + 1);
            sectors[..kept].to_vec()
        }
        Fate::TornByte(_) => {
            let kept = chance.below(sectors.len() + 1);
            let mut changes = sectors[..kept].to_vec();
            if let Some(FileChange::Write(_, bytes)) = changes.last_mut() {
                bytes.truncate(chance.below(bytes.len() + 1));
            }
            changes
        }
        Fate::Subset(_) => sectors.into_iter().filter(|_| chance.below(2) == 0).collect(),
    }
}

impl World {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for part in path.components().filter(|part| matches!(part, std::path::Component::Normal(_))) {
            at = match &self.inodes[at] {
                Inode::Dir { current, .. } => current.get(part.as_os_str().to_str().unwrap()).copied(),
                Inode::File { .. } => None,
            }
            .ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn rename_in(&mut self, dir: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.find(dir)?;
        match &mut self.inodes[dir] {
            Inode::Dir { current, pending, .. } => {
                change.apply(current);
                pending.push(change);
                Ok(())
            }
            Inode::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn put(&mut self, path: &Path, inode: Inode) -> io::Result<usize> {
        self.inodes.push(inode);
        let id = self.inodes.len() - 1;
        self.rename_in(path.parent().unwrap(), NameChange::Put(name(path), id))?;
        Ok(id)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Fs for PowerDisk {
    fn is_there(&self, path: &Path) -> io::Result<bool> {
        self.look(|world| Ok(world.find(path).is_ok()))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Content> {
        let bytes = self.look(|world| match &world.inodes[world.find(path)?] {
            Inode::File { current, .. } => Ok(current.clone()),
            Inode::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        })?;
        assert!(bytes.len() as u64 <= bytes_max);
        Ok(Content { bytes, mode: 0o600 })
    }

    fn protect(&self, _: &Path) -> io::Result<()> {
        self.change(|_| Ok(()))
    }

    /// Nobody else is there.
    fn lock(&self, _: &Path, path: &Path) -> Result<Lock, LockError> {
        let made = if self.is_there(path).unwrap_or(true) { Ok(()) } else { self.create(path).map(drop) };
        made.map_err(|source| LockError::Io { path: path.to_owned(), source })?;
        Ok(Lock::new(()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let inode = self.look(|world| world.find(path))?;
        Ok(Box::new(PowerFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let inode = self.change(|world| match world.find(path) {
            Ok(inode) => {
                if let Inode::File { current, pending, .. } = &mut world.inodes[inode] {
                    current.clear();
                    pending.push(FileChange::Length(0));
                }
                Ok(inode)
            }
            Err(_) => world.put(path, Inode::File { durable: vec![], current: vec![], pending: vec![] }),
        })?;
        Ok(Box::new(PowerFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|world| {
            let empty = Inode::Dir { durable: BTreeMap::new(), current: BTreeMap::new(), pending: vec![] };
            world.put(dir, empty).map(|_| ())
        })
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.look(|world| match &world.inodes[world.find(dir)?] {
            Inode::Dir { current, .. } => Ok(current.keys().cloned().collect()),
            Inode::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent());
        self.change(|world| {
            world.find(from)?;
            world.rename_in(from.parent().unwrap(), NameChange::Rename(name(from), name(to)))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|world| {
            world.find(path)?;
            world.rename_in(path.parent().unwrap(), NameChange::Remove(name(path)))
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.remove_file(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync(|world| {
            let dir = world.find(dir)?;
            if let Inode::Dir { durable, current, pending } = &mut world.inodes[dir] {
                durable.clone_from(current);
                pending.clear();
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    inode: usize,
    path: PathBuf,
}

impl PowerFile {
    fn alter(&self, change: FileChange) -> io::Result<()> {
        self.disk.change(|world| match &mut world.inodes[self.inode] {
            Inode::File { current, pending, .. } => {
                change.apply(current);
                pending.push(change);
                Ok(())
            }
            Inode::Dir { .. } => panic!("{} is a folder", self.path.display()),
        })
    }

    fn with_content<T>(&self, f: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        self.disk.look(|world| match &world.inodes[self.inode] {
            Inode::File { current, .. } => Ok(f(current)),
            Inode::Dir { .. } => panic!("{} is a folder", self.path.display()),
        })
    }
}

impl FsFile for PowerFile {
    fn length(&self) -> io::Result<u64> {
        self.with_content(|content| content.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with_content(|content| {
            let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            read
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.alter(FileChange::Write(usize::try_from(offset).unwrap(), bytes.to_vec()))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.alter(FileChange::Length(usize::try_from(length).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync(|world| {
            let fails = world.fail_sync_at.is_some_and(|operation| operation + 1 == world.operations);
            if let Inode::File { durable, pending, .. } = &mut world.inodes[self.inode] {
                for change in std::mem::take(pending).into_iter().filter(|_| !fails) {
                    change.apply(durable);
                }
            }
            if fails { Err(io::Error::other("the disk failed")) } else { Ok(()) }
        })
    }
}
