//! The journal: an append-only log of opaque records, and the mark that says how far it counts.
//!
//! Files: `00000001.log`, `00000002.log`, ... and `mark`. An append writes its records to the last
//! segment and syncs it, then writes the next mark and syncs that; only then are they
//! acknowledged. So whatever a power cut takes lies beyond a mark, and whatever is wrong before
//! the mark was no power cut. `recover` reads by this rule.
//!
//! Marks are numbered, and opening writes one: its number is that of the opening, and what the peer
//! counts its starts by. The mark is written in place, so that a start needs no room on the disk.
//! Whoever got a number `n` left `n - 1` or more in the other slot. So where one slot cannot be read,
//! all numbers given out are at most one above the one that can, and both slots are written anew
//! beyond that.

mod format;
mod recover;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::ClusterId;

use self::format::{Chain, HEADER_BYTES, Header, Mark, RECORD_HEAD_BYTES, chain_after, encode_record};
use crate::atomic::{parent, temporary};
use crate::fs::{Disk, Fs, FsFile, is_disk_full};

/// Bytes of one record: the largest event (64 KiB) with its signature, twice over.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;

/// Bytes of one append: it is built in memory, and must be small beside a 512 MiB node.
pub const APPEND_BYTES_MAX: usize = 16 << 20;

/// Bytes after which a new segment is begun. Larger ones mean fewer files; smaller ones less to
/// copy or to check at a time. A segment may exceed it by one append.
pub const SEGMENT_BYTES: u64 = 64 << 20;

const _: () = assert!(RECORD_BYTES_MAX + RECORD_HEAD_BYTES <= APPEND_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX >= model::limits::EVENT_BYTES_MAX);

const MARK: &str = "mark";

// The peer hands it to a thread of its own.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Journal>();
};

/// Why the journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no journal. A prepared folder has one, so it was taken away.
    #[error("there is no journal at `{}`", dir.display())]
    Missing {
        /// Its folder.
        dir: PathBuf,
    },
    /// Acknowledged data is missing or changed.
    #[error("`{}` is damaged at byte {offset}: {what}", file.display())]
    Corrupted {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of length zero: a file system that was repaired after a crash leaves such.
    #[error("`{}` is damaged: it is empty", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A segment under another's name.
    #[error("`{}` is segment {found}, renamed: segment {expected} belongs there", file.display())]
    Swapped {
        /// The file.
        file: PathBuf,
        /// Which segment belongs there.
        expected: u64,
        /// Which it is.
        found: u64,
    },
    /// The journal of another cluster.
    #[error("`{}` belongs to cluster {}, not to {}", file.display(), found.short(), expected.short())]
    OtherCluster {
        /// The file.
        file: PathBuf,
        /// The cluster that was to be opened.
        expected: ClusterId,
        /// The cluster that it belongs to.
        found: ClusterId,
    },
    /// A later release wrote it.
    #[error("`{}` was written by a newer Skerry: format {found}, this one reads up to {}", file.display(), format::VERSION)]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A record or an append is too large, or a record is empty. Nothing was written.
    #[error("{what} of {bytes} bytes cannot be kept: 1 to {limit} is allowed")]
    Size {
        /// `a record` or `an append`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no room. Nothing of the append was kept; a later one may succeed.
    #[error("there is no room to write `{}`", file.display())]
    DiskFull {
        /// The file.
        file: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// An operation failed. When it was part of an append, the journal is poisoned.
    #[error("cannot {action} `{}`", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// An earlier append failed in a way that leaves unknown what is on disk. Open it anew.
    #[error("the journal at `{}` is closed since an earlier write failed", dir.display())]
    Poisoned {
        /// Its folder.
        dir: PathBuf,
    },
}

fn io_error(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let file = file.to_owned();
    move |source| JournalError::Io { action, file, source }
}

/// What a journal held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Every record, in the order in which they were appended: all that were acknowledged, and
    /// perhaps some of the last append that was not.
    pub records: Vec<Vec<u8>>,
    /// Bytes of a last append that a power cut tore. They were cut away.
    pub torn_bytes: u64,
}

/// Where the journal ends.
#[derive(Clone, Copy, Debug)]
struct End {
    segment: u64,
    /// Bytes of that segment.
    length: u64,
    /// Bytes of all segments before it.
    sealed: u64,
    count: u64,
    chain: Chain,
}

/// An open journal. One at a time per folder: the data folder's lock sees to that.
#[derive(Debug)]
pub struct Journal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    cluster: ClusterId,
    segment_bytes: u64,
    /// The last segment.
    log: Box<dyn FsFile>,
    mark: Box<dyn FsFile>,
    /// The number of the last mark.
    commit: u64,
    opening: u64,
    mended: bool,
    end: End,
    poisoned: bool,
}

impl Journal {
    /// Makes an empty journal at `dir`, which must not exist: whole or not at all.
    pub fn create(dir: &Path, cluster: ClusterId) -> Result<(), JournalError> {
        Self::create_with(&Disk, dir, cluster)
    }

    /// As [`Journal::create`], on a file system of the caller's.
    pub fn create_with(fs: &dyn Fs, dir: &Path, cluster: ClusterId) -> Result<(), JournalError> {
        let draft = temporary(dir);
        remove_dir_of_files(fs, &draft)?;
        fs.create_dir(&draft).map_err(io_error("create", &draft))?;
        let header = Header { cluster, segment: 1, first_seq: 0, chain: Chain::default() };
        write_new(fs, &segment_path(&draft, 1), &header.encode())?;
        let mark = |commit| Mark {
            cluster,
            commit,
            segment: 1,
            length: HEADER_BYTES as u64,
            count: 0,
            chain: Chain::default(),
        };
        // Both slots: an unreadable one is told as such, and later marks need not ask for room.
        write_new(fs, &draft.join(MARK), &[mark(0).encode(), mark(1).encode()].concat())?;
        fs.sync_dir(&draft).map_err(io_error("sync", &draft))?;
        fs.rename(&draft, dir).map_err(io_error("create", dir))?;
        fs.sync_dir(parent(dir)).map_err(io_error("sync", parent(dir)))
    }

    /// Opens the journal at `dir`, reads all of it and cuts off what a power cut tore.
    pub fn open(dir: &Path, cluster: ClusterId) -> Result<(Self, Recovered), JournalError> {
        Self::open_with(Arc::new(Disk), dir, cluster, SEGMENT_BYTES)
    }

    /// As [`Journal::open`], on a file system of the caller's and with segments of another size.
    pub fn open_with(
        fs: Arc<dyn Fs>,
        dir: &Path,
        cluster: ClusterId,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), JournalError> {
        let (found, recovered) = recover::recover(&*fs, dir, cluster)?;
        let mut journal = Self {
            fs,
            dir: dir.to_owned(),
            cluster,
            segment_bytes,
            log: found.log,
            mark: found.mark_file,
            commit: found.commit,
            opening: 0,
            mended: !found.whole,
            end: found.end,
            poisoned: false,
        };
        if journal.mended {
            // The slot that cannot be read may have held one more, and that may have been given out.
            // Three more is beyond it and goes into that very slot, not over the one that is left.
            journal.commit += 2;
            journal.write_mark(found.end)?;
        }
        // What was found beyond the mark counts from here on.
        journal.write_mark(found.end)?;
        journal.opening = journal.commit;
        Ok((journal, recovered))
    }

    /// Appends records, all or none. When it returns `Ok` they are on disk.
    ///
    /// After an error they may or may not be found when the journal is opened again, except for
    /// [`JournalError::Size`] and [`JournalError::DiskFull`], which leave nothing and let the
    /// journal go on.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned { dir: self.dir.clone() });
        }
        let bytes_max = check_sizes(records)?;
        if records.is_empty() {
            return Ok(());
        }
        let result = self.append_checked(records, bytes_max);
        self.poisoned = matches!(&result, Err(error) if !matches!(error, JournalError::DiskFull { .. }));
        result
    }

    /// The number of this opening: on disk, and higher than that of every opening before, also after
    /// damage that [`Journal::open`] has mended. The peer counts its starts by it.
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// Whether one of the mark's two slots could not be read and was written anew: a power cut does
    /// that, and so does damage. Nothing acknowledged is lost by it.
    pub fn is_mended(&self) -> bool {
        self.mended
    }

    /// Records in the journal.
    pub fn count(&self) -> u64 {
        self.end.count
    }

    /// Bytes of all segments.
    pub fn len_bytes(&self) -> u64 {
        self.end.sealed + self.end.length
    }

    /// Removes the journal at `dir`, if there is one.
    pub(crate) fn remove_with(fs: &dyn Fs, dir: &Path) -> Result<(), JournalError> {
        let draft = temporary(dir);
        remove_dir_of_files(fs, &draft)?;
        if !fs.is_there(dir).map_err(io_error("look for", dir))? {
            return Ok(());
        }
        // First out of its place at once, so that no half of it is ever taken for a journal.
        fs.rename(dir, &draft).map_err(io_error("remove", dir))?;
        fs.sync_dir(parent(dir)).map_err(io_error("sync", parent(dir)))?;
        remove_dir_of_files(fs, &draft)
    }

    fn append_checked(&mut self, records: &[&[u8]], bytes_max: usize) -> Result<(), JournalError> {
        if self.end.length >= self.segment_bytes.max(HEADER_BYTES as u64 + 1) {
            self.begin_segment()?;
        }
        let mut end = self.end;
        let mut bytes = Vec::with_capacity(bytes_max);
        for payload in records {
            end.chain = chain_after(&end.chain, payload);
            encode_record(&mut bytes, end.count, &end.chain, payload);
            end.count += 1;
        }
        end.length += bytes.len() as u64;

        let path = segment_path(&self.dir, end.segment);
        if let Err(error) = self.log.write_at(self.end.length, &bytes) {
            if !is_disk_full(&error) {
                return Err(io_error("write", &path)(error));
            }
            // Nothing was synced, so nothing is uncertain once the part that fitted is gone. The
            // sync makes that last: a new segment may be begun before this one is synced again.
            self.log.set_length(self.end.length).map_err(io_error("cut", &path))?;
            self.log.sync().map_err(io_error("sync", &path))?;
            return Err(JournalError::DiskFull { file: path, source: error });
        }
        self.log.sync().map_err(io_error("sync", &path))?;
        self.write_mark(end)?;
        self.end = end;
        Ok(())
    }

    /// Begins the next segment; the one before is synced up to its end.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let End { segment, length, sealed, count, chain } = self.end;
        let header = Header { cluster: self.cluster, segment: segment + 1, first_seq: count, chain };
        let path = segment_path(&self.dir, segment + 1);
        let draft = temporary(&path);
        let log = write_new(&*self.fs, &draft, &header.encode())?;
        self.fs.rename(&draft, &path).map_err(io_error("create", &path))?;
        self.fs.sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        self.log = log;
        self.end =
            End { segment: segment + 1, length: HEADER_BYTES as u64, sealed: sealed + length, count, chain };
        Ok(())
    }

    /// Writes the next mark over the last but one.
    fn write_mark(&mut self, end: End) -> Result<(), JournalError> {
        let path = self.dir.join(MARK);
        let mark = Mark {
            cluster: self.cluster,
            commit: self.commit + 1,
            segment: end.segment,
            length: end.length,
            count: end.count,
            chain: end.chain,
        };
        self.mark.write_at(mark.offset(), &mark.encode()).map_err(io_error("write", &path))?;
        self.mark.sync().map_err(io_error("sync", &path))?;
        self.commit = mark.commit;
        Ok(())
    }
}

/// Checks each size; what all records come to on disk.
fn check_sizes(records: &[&[u8]]) -> Result<usize, JournalError> {
    let mut total = 0_usize;
    for record in records {
        if record.is_empty() || record.len() > RECORD_BYTES_MAX {
            return Err(JournalError::Size {
                what: "a record",
                bytes: record.len(),
                limit: RECORD_BYTES_MAX,
            });
        }
        total = total.saturating_add(record.len() + RECORD_HEAD_BYTES);
    }
    if total > APPEND_BYTES_MAX {
        return Err(JournalError::Size { what: "an append", bytes: total, limit: APPEND_BYTES_MAX });
    }
    Ok(total)
}

fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:08}.log"))
}

/// The segment that a file of this name is.
fn segment_of(name: &str) -> Option<u64> {
    let segment = name.strip_suffix(".log")?.parse().ok()?;
    (format!("{segment:08}.log") == name).then_some(segment)
}

/// Makes a synced file. When there is no room, what was begun is a draft that the next try empties.
fn write_new(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<Box<dyn FsFile>, JournalError> {
    let full_or = |action| {
        move |error: io::Error| {
            if is_disk_full(&error) {
                JournalError::DiskFull { file: path.to_owned(), source: error }
            } else {
                io_error(action, path)(error)
            }
        }
    };
    let file = fs.create(path).map_err(full_or("create"))?;
    file.write_at(0, bytes).map_err(full_or("write"))?;
    file.sync().map_err(io_error("sync", path))?;
    Ok(file)
}

/// Removes a folder of files, if it is there.
fn remove_dir_of_files(fs: &dyn Fs, dir: &Path) -> Result<(), JournalError> {
    let names = match fs.names(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read", dir)(error)),
    };
    for name in names {
        let path = dir.join(name);
        fs.remove_file(&path).map_err(io_error("remove", &path))?;
    }
    fs.remove_dir(dir).map_err(io_error("remove", dir))
}
