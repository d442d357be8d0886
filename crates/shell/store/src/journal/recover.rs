//! Reads a journal back: whole up to the mark, or an error; beyond it, what is whole.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use model::ClusterId;

use super::format::{
    Bad, Chain, HEADER_BYTES, Header, MARK_BYTES, Mark, RECORD_HEAD_BYTES, RecordHead, chain_after,
};
use super::{End, JournalError, MARK, RECORD_BYTES_MAX, Recovered, io_error, segment_of, segment_path};
use crate::fs::{Fs, FsFile};

/// Bytes read at once: large enough that a segment is some dozens of reads.
const WINDOW_BYTES: usize = 1 << 20;

const _: () = assert!(WINDOW_BYTES >= RECORD_HEAD_BYTES + RECORD_BYTES_MAX);

/// An opened journal, as far as `Journal` needs it.
pub(super) struct Found {
    pub(super) log: Box<dyn FsFile>,
    pub(super) mark_file: Box<dyn FsFile>,
    pub(super) commit: u64,
    /// Whether both slots of the mark could be read.
    pub(super) whole: bool,
    pub(super) end: End,
}

pub(super) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    cluster: ClusterId,
) -> Result<(Found, Recovered), JournalError> {
    let (mark_file, mark, whole) = read_mark(fs, dir)?;
    if mark.cluster != cluster {
        return Err(JournalError::OtherCluster {
            file: dir.join(MARK),
            expected: cluster,
            found: mark.cluster,
        });
    }
    let last = last_segment(fs, dir, &mark)?;
    let mut scan = Scan {
        fs,
        dir,
        mark,
        last,
        end: End { segment: 0, length: 0, sealed: 0, count: 0, chain: Chain::default() },
        recovered: Recovered::default(),
    };
    let mut log = scan.segment(1)?;
    for segment in 2..=last {
        log = scan.segment(segment)?;
    }
    // The last segment's name may not be synced yet, nor the removal of drafts need be.
    fs.sync_dir(dir).map_err(io_error("sync", dir))?;
    Ok((Found { log, mark_file, commit: mark.commit, whole, end: scan.end }, scan.recovered))
}

fn read_mark(fs: &dyn Fs, dir: &Path) -> Result<(Box<dyn FsFile>, Mark, bool), JournalError> {
    let path = dir.join(MARK);
    let damaged =
        |what: &str| JournalError::Corrupted { file: path.clone(), offset: 0, what: what.to_owned() };
    let file = match fs.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A journal is renamed into place whole, so a folder without a mark has lost it.
            return Err(match fs.names(dir) {
                Ok(_) => damaged("it is missing"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    JournalError::Missing { dir: dir.to_owned() }
                }
                Err(error) => io_error("read", dir)(error),
            });
        }
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    let mut bytes = [0; MARK_BYTES];
    let length = file.length().map_err(io_error("read", &path))?;
    if length == 0 {
        return Err(JournalError::Empty { file: path });
    }
    let read = file.read_at(0, &mut bytes).map_err(io_error("read", &path))?;
    if length != MARK_BYTES as u64 || read != MARK_BYTES {
        return Err(damaged(&format!("it has {length} bytes instead of {MARK_BYTES}")));
    }
    match Mark::newest(&bytes) {
        Ok((mark, whole)) => Ok((file, mark, whole)),
        Err(Bad::Newer(found)) => Err(JournalError::Newer { file: path, found }),
        Err(Bad::Damaged(what)) => Err(damaged(what)),
    }
}

/// Finds the last segment, refuses gaps, and removes drafts of segments.
fn last_segment(fs: &dyn Fs, dir: &Path, mark: &Mark) -> Result<u64, JournalError> {
    let mut segments = BTreeSet::new();
    for name in fs.names(dir).map_err(io_error("read", dir))? {
        if let Some(segment) = segment_of(&name) {
            segments.insert(segment);
        } else if name.strip_suffix(".tmp").and_then(segment_of).is_some() {
            let path = dir.join(name);
            fs.remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    let damaged = |segment: u64, what: &str| JournalError::Corrupted {
        file: segment_path(dir, segment),
        offset: 0,
        what: what.to_owned(),
    };
    let last = segments.last().copied().unwrap_or(0);
    // A segment is begun only when all before it is acknowledged: there is at most one such.
    if last > mark.segment.saturating_add(1) {
        return Err(damaged(last, &format!("the mark is still in segment {}", mark.segment)));
    }
    // `mark.segment` has a checksum, but a loop's bound is not taken from a file alone.
    let gap = (1..).zip(&segments).find(|(expected, found)| expected != *found).map(|(expected, _)| expected);
    match gap {
        Some(missing) => Err(damaged(missing, "it is missing")),
        None if last < mark.segment => Err(damaged(last + 1, "it is missing")),
        None => Ok(last),
    }
}

struct Scan<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    mark: Mark,
    last: u64,
    end: End,
    recovered: Recovered,
}

impl Scan<'_> {
    /// Reads one segment; the ones before it have been read.
    fn segment(&mut self, segment: u64) -> Result<Box<dyn FsFile>, JournalError> {
        let path = segment_path(self.dir, segment);
        let file = self.fs.open(&path).map_err(io_error("open", &path))?;
        let length = file.length().map_err(io_error("read", &path))?;
        if length == 0 {
            return Err(JournalError::Empty { file: path });
        }
        let mut window = Window::new(&*file, &path, length);
        self.header(segment, &mut window)?;

        // Up to here every byte is acknowledged.
        let certain = match segment.cmp(&self.mark.segment) {
            std::cmp::Ordering::Less => length,
            std::cmp::Ordering::Equal => self.mark.length,
            std::cmp::Ordering::Greater => HEADER_BYTES as u64,
        };
        if length < certain {
            let what = format!("the file ends, {} acknowledged bytes are missing", certain - length);
            return Err(JournalError::Corrupted { file: path, offset: length, what });
        }
        let mut offset = HEADER_BYTES as u64;
        let mut checked = false;
        loop {
            if segment == self.mark.segment && offset == certain {
                self.meet_mark()?;
                checked = true;
            }
            if offset == length {
                break;
            }
            let limit = if offset < certain { certain } else { length };
            match self.record(&mut window, offset, limit) {
                Ok(bytes) => offset += bytes,
                Err(ScanError::Bad(_)) if offset >= certain && segment == self.last => break,
                Err(ScanError::Bad(what)) => {
                    return Err(JournalError::Corrupted { file: path, offset, what: what.to_owned() });
                }
                Err(ScanError::Read(error)) => return Err(error),
            }
        }
        if segment == self.mark.segment && !checked {
            // `limit` keeps records from crossing the mark: only a mark inside the header is left.
            return Err(self.mark_damaged("it points where no record ends"));
        }
        drop(window);
        self.settle(&*file, &path, certain.min(offset), offset, length)?;
        self.end.segment = segment;
        self.end.sealed += self.end.length;
        self.end.length = offset;
        Ok(file)
    }

    fn header(&self, segment: u64, window: &mut Window<'_>) -> Result<(), JournalError> {
        let file = window.path.to_owned();
        let damaged = |file, what: &str| JournalError::Corrupted { file, offset: 0, what: what.to_owned() };
        let Some(bytes) = window.at(0, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>() else {
            return Err(damaged(file, "it ends within its header"));
        };
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(Bad::Newer(found)) => return Err(JournalError::Newer { file, found }),
            Err(Bad::Damaged(what)) => return Err(damaged(file, what)),
        };
        if header.cluster != self.mark.cluster {
            return Err(JournalError::OtherCluster {
                file,
                expected: self.mark.cluster,
                found: header.cluster,
            });
        }
        if header.segment != segment {
            return Err(JournalError::Swapped { file, expected: segment, found: header.segment });
        }
        if header.first_seq > self.end.count {
            let what = format!("the file ends, {} records are missing", header.first_seq - self.end.count);
            let file = segment_path(self.dir, self.end.segment);
            return Err(JournalError::Corrupted { file, offset: self.end.length, what });
        }
        if header.first_seq != self.end.count || header.chain != self.end.chain {
            return Err(damaged(file, "it does not follow on the segment before it"));
        }
        Ok(())
    }

    /// Reads the record at `offset`, which must end by `limit`; how many bytes it takes.
    fn record(&mut self, window: &mut Window<'_>, offset: u64, limit: u64) -> Result<u64, ScanError> {
        let room = limit - offset;
        if room < RECORD_HEAD_BYTES as u64 {
            return Err(ScanError::Bad("a record is cut short"));
        }
        let head = window.at(offset, RECORD_HEAD_BYTES)?.first_chunk::<RECORD_HEAD_BYTES>().copied();
        let head = RecordHead::decode(head.ok_or(ScanError::Bad("a record is cut short"))?);
        let length = head.length as usize;
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(ScanError::Bad("a record's length is out of range"));
        }
        let whole = RECORD_HEAD_BYTES + length;
        if whole as u64 > room {
            return Err(ScanError::Bad("a record is cut short"));
        }
        let payload = window
            .at(offset, whole)?
            .get(RECORD_HEAD_BYTES..)
            .ok_or(ScanError::Bad("a record is cut short"))?;
        if payload.len() != length || !head.seals(payload) {
            return Err(ScanError::Bad("a record's checksum does not match"));
        }
        if head.seq != self.end.count {
            return Err(ScanError::Bad("a record of another place stands here"));
        }
        let chain = chain_after(&self.end.chain, payload);
        if head.chain != chain {
            return Err(ScanError::Bad("a record of another history stands here"));
        }
        self.end.chain = chain;
        self.end.count += 1;
        self.recovered.records.push(payload.to_vec());
        Ok(whole as u64)
    }

    /// The scan has come to where the mark points.
    fn meet_mark(&self) -> Result<(), JournalError> {
        if self.end.count != self.mark.count || self.end.chain != self.mark.chain {
            return Err(self.mark_damaged("it was written for other records"));
        }
        Ok(())
    }

    fn mark_damaged(&self, what: &str) -> JournalError {
        JournalError::Corrupted {
            file: self.dir.join(MARK),
            offset: self.mark.offset(),
            what: what.to_owned(),
        }
    }

    /// Makes what was read beyond the mark certain, and cuts off what was not whole.
    ///
    /// It is written once more, byte for byte: after a sync that failed, the kernel may hold pages
    /// that it believes to be on disk and that are not.
    fn settle(
        &mut self,
        file: &dyn FsFile,
        path: &Path,
        certain: u64,
        end: u64,
        length: u64,
    ) -> Result<(), JournalError> {
        if end < length {
            self.recovered.torn_bytes += length - end;
            file.set_length(end).map_err(io_error("cut", path))?;
        }
        let mut offset = certain;
        while offset < end {
            let part = usize::try_from(end - offset).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
            let mut window = Window::new(file, path, end);
            let bytes = window.at(offset, part)?;
            if bytes.len() != part {
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(JournalError::Io { action: "read", file: path.to_owned(), source });
            }
            file.write_at(offset, bytes).map_err(io_error("write", path))?;
            offset += part as u64;
        }
        if certain < length {
            file.sync().map_err(io_error("sync", path))?;
        }
        Ok(())
    }
}

enum ScanError {
    /// Not a record that belongs here; in words.
    Bad(&'static str),
    /// The file cannot be read.
    Read(JournalError),
}

impl From<JournalError> for ScanError {
    fn from(error: JournalError) -> Self {
        Self::Read(error)
    }
}

/// A part of a file in memory, so that a scan is not two reads per record.
struct Window<'a> {
    file: &'a dyn FsFile,
    path: &'a Path,
    /// The file's length.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn FsFile, path: &'a Path, length: u64) -> Self {
        Self { file, path, length, start: 0, bytes: Vec::new() }
    }
}

impl Window<'_> {
    /// The `wanted` bytes at `offset`, or as many as the file has.
    fn at(&mut self, offset: u64, wanted: usize) -> Result<&[u8], JournalError> {
        let held = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let held = held.filter(|from| from.checked_add(wanted).is_some_and(|end| end <= self.bytes.len()));
        let from = if let Some(from) = held {
            from
        } else {
            let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.bytes.resize(WINDOW_BYTES.max(wanted).min(left), 0);
            let read = self.file.read_at(offset, &mut self.bytes);
            let read = read.map_err(io_error("read", self.path))?;
            self.bytes.truncate(read);
            self.start = offset;
            0
        };
        Ok(&self.bytes[from..self.bytes.len().min(from + wanted)])
    }
}
