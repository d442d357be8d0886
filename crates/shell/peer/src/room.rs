//! Room on the disk that the data folder is on: said when there is none, and a little of it kept, so
//! that a node whose disk is full starts its containers again after a power cut.
//!
//! What the peer itself opens at a start is written in place and needs no room. A container does: its
//! specification, its folders, its control files. For that the file `reserve` is kept. It is given up
//! at a start on a full disk, before anything else, and taken back when the containers have had their
//! time. Taking back leaves to the disk what others wrote meanwhile: it may come out smaller.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node::DiskSpace;

use crate::containers::chain;
use crate::mind::wall_ms;
use crate::notices::Notices;

/// Bytes below which a disk is called full: the largest event, and a container's files.
const FULL_BYTES: u64 = 128 << 10;

/// Bytes that are kept for a start. A container that starts again gives up as much as it takes but for
/// a few blocks, and few start at once: this is enough for a hundred.
const RESERVE_BYTES_MAX: u64 = 1 << 20;

/// On small disks the reserve is one part of so many.
const RESERVE_PART: u64 = 32;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Bytes written at once into the reserve: a block, so that a partly full disk gives all it has.
const BLOCK: [u8; 4096] = [0; 4096];

/// The disk that a folder is on, as it is now: with what the file system keeps for root, or without.
pub(crate) fn space(dir: &Path, for_root: bool) -> io::Result<DiskSpace> {
    let disk = nix::sys::statvfs::statvfs(dir)?;
    let block = disk.fragment_size();
    let free = if for_root { disk.blocks_free() } else { disk.blocks_available() };
    Ok(DiskSpace { free_b: free.saturating_mul(block), total_b: disk.blocks().saturating_mul(block) })
}

/// Room on the disk of one data folder.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    reserve: PathBuf,
}

impl Room {
    /// Looks at the disk that `dir` is on, and gives up the file `reserve` if the disk is full.
    pub(crate) fn begin(dir: &Path, reserve: PathBuf) -> Self {
        let room = Self { dir: dir.to_owned(), reserve };
        if room.full().is_some() {
            match std::fs::remove_file(&room.reserve) {
                Ok(()) => tracing::warn!("the disk is full: what was kept of it for a start is given up"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "what was kept of the disk cannot be given up"),
            }
        }
        room
    }

    fn free(&self) -> io::Result<DiskSpace> {
        // Root writes where others may not any more.
        space(&self.dir, nix::unistd::geteuid().is_root())
    }

    fn reserved(&self) -> u64 {
        std::fs::metadata(&self.reserve).map_or(0, |meta| meta.len())
    }

    /// In words, if the disk is full. What the reserve still lacks counts as taken.
    pub(crate) fn full(&self) -> Option<String> {
        // A disk that cannot be asked is not called full; what fails on it says so itself.
        let DiskSpace { free_b, total_b } = self.free().ok()?;
        let lacks = wanted(total_b).saturating_sub(self.reserved());
        (free_b.saturating_sub(lacks) < FULL_BYTES).then(|| {
            format!(
                "the disk of {} is full ({} KiB are left): changes and images may be refused, running \
                 containers go on; make room on it",
                self.dir.display(),
                free_b >> 10
            )
        })
    }

    /// Takes back what the reserve lacks, or as much of that as there is.
    fn take_back(&self) -> io::Result<()> {
        let wanted = wanted(self.free()?.total_b);
        let mut length = self.reserved();
        if length >= wanted {
            return Ok(());
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.reserve)?;
        while length < wanted {
            match file.write(&BLOCK) {
                Ok(0) => break,
                Ok(bytes) => length += bytes as u64,
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(error),
            }
        }
        // Some file systems promise room at a write and find it at the sync only.
        file.sync_all().or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })?;
        File::open(&self.dir)?.sync_all()
    }

    /// Says when the disk becomes full and when it has room again, for as long as the peer runs.
    pub(crate) async fn watch(self: Arc<Self>, notices: Arc<Notices>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let (mut was_full, mut looks) = (false, 0_u32);
        loop {
            look.tick().await;
            let full = self.full();
            if full.is_some() != was_full {
                was_full = full.is_some();
                let (kind, message) = match &full {
                    Some(words) => ("disk-full", words.clone()),
                    None => ("disk-room", format!("the disk of {} has room again", self.dir.display())),
                };
                notices.add(wall_ms(), &node::Notice { kind, about: None, message });
            }
            // At the third look the containers have had their time.
            looks = looks.saturating_add(1);
            if looks == 3 || full.is_none() {
                let room = Arc::clone(&self);
                match tokio::task::spawn_blocking(move || room.take_back()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(error = chain(&error), "no room is kept on the disk"),
                    Err(error) => tracing::error!(%error, "a bug in keeping room"),
                }
            }
        }
    }
}

fn wanted(total_b: u64) -> u64 {
    RESERVE_BYTES_MAX.min(total_b / RESERVE_PART)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs `f` in a folder on a file system of 16 MiB that its thread alone sees. Needs root.
    fn on_small_disk(f: impl FnOnce(&Path) + Send) {
        if !nix::unistd::geteuid().is_root() {
            println!("\n*** NOT TESTED: mounting a small file system needs root ***\n");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI nothing may stay untested");
            return;
        }
        let temp = tempfile::TempDir::new().unwrap();
        let dir = temp.path();
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=16m")).unwrap();
            f(dir);
        };
        // The thread's mounts end with the thread.
        std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
    }

    fn fill(dir: &Path) {
        let mut file = OpenOptions::new().append(true).create(true).open(dir.join("fill")).unwrap();
        while file.write(&BLOCK).is_ok() {}
    }

    #[test]
    fn room_is_kept_given_up_at_a_start_on_a_full_disk_and_taken_back_as_far_as_there_is_any() {
        on_small_disk(|dir| {
            let reserve = dir.join("reserve");
            let room = Room::begin(dir, reserve.clone());
            assert_eq!(room.full(), None);
            room.take_back().unwrap();
            let kept = std::fs::metadata(&reserve).unwrap().len();
            assert_eq!(kept, (16 << 20) / RESERVE_PART);
            assert_eq!(Room::begin(dir, reserve.clone()).reserved(), kept, "a disk with room keeps it");
            fill(dir);
            assert!(room.full().unwrap().contains(" is full (0 KiB are left)"), "{:?}", room.full());
            // A start.
            let room = Room::begin(dir, reserve.clone());
            assert_eq!((room.reserved(), room.free().unwrap().free_b), (0, kept));
            assert!(room.full().unwrap().contains("is full (512 KiB are left)"), "{:?}", room.full());
            std::fs::write(dir.join("container"), vec![0; 40_960]).unwrap();
            room.take_back().unwrap();
            assert_eq!((room.reserved(), room.free().unwrap().free_b), (kept - 40_960, 0));
            // Room: all of it is kept again.
            std::fs::remove_file(dir.join("fill")).unwrap();
            assert_eq!(room.full(), None);
            room.take_back().unwrap();
            assert_eq!(room.reserved(), kept);
        });
    }
}
