//! The container's log: what it wrote, line by line, in files of bounded size and number.
//!
//! One record a line: `<unix_ms> <stream> <end> <text>`.
//! - `stream`: `o` standard output, `e` standard error, `s` the supervisor itself.
//! - `end`: `F`, the text ended with a newline (or with the stream); `P`, it goes on in the next
//!   record of the same stream.
//! - `text`: the bytes as they were written, without the newline; not necessarily UTF-8.
//!
//! Invariant: writing never waits. Where the disk is full, records are dropped and counted, and the
//! number is told in an `s` record as soon as there is room again. A record is whole or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files;
use crate::spec::LogLimits;

/// A longer line is cut into records: bounds what is held in memory.
const TEXT_B_MAX: usize = 16 << 10;

/// A prompt without newline is shown after this long.
const PARTIAL_WAIT: Duration = Duration::from_millis(500);

/// One of the container's streams, and the line that it has begun.
#[derive(Debug)]
pub(super) struct Stream {
    tag: u8,
    line: Vec<u8>,
    since: Option<Instant>,
}

impl Stream {
    pub(super) fn new(tag: u8) -> Self {
        Self { tag, line: Vec::new(), since: None }
    }

    /// When the begun line shall be written although it has not ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PARTIAL_WAIT)
    }

    /// Turns bytes into records, in `out`.
    fn take(&mut self, mut bytes: &[u8], now_ms: i64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = TEXT_B_MAX - self.line.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            if let Some(end) = end {
                record(out, now_ms, self.tag, b'F', &self.line, &bytes[..end]);
                bytes = &bytes[end + 1..];
            } else if bytes.len() >= room {
                record(out, now_ms, self.tag, b'P', &self.line, &bytes[..room]);
                bytes = &bytes[room..];
            } else {
                if self.line.is_empty() {
                    self.since = Some(Instant::now());
                }
                self.line.extend_from_slice(bytes);
                return;
            }
            self.line.clear();
            self.since = None;
        }
    }

    fn flush(&mut self, now_ms: i64, end: u8, out: &mut Vec<u8>) {
        self.since = None;
        if self.line.is_empty() {
            return;
        }
        record(out, now_ms, self.tag, end, &self.line, b"");
        // An idle container holds no buffer.
        self.line = Vec::new();
    }
}

fn record(out: &mut Vec<u8>, now_ms: i64, tag: u8, end: u8, begun: &[u8], text: &[u8]) {
    out.extend_from_slice(now_ms.to_string().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ', end, b' ']);
    out.extend_from_slice(begun);
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The files.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    size_b: u64,
    limits: LogLimits,
    dropped: u64,
    problem: String,
}

impl Log {
    /// Goes on with the file that is there.
    pub(super) fn new(dir: &Path, limits: LogLimits) -> Self {
        Self { path: dir.join(files::LOG), file: None, size_b: 0, limits, dropped: 0, problem: String::new() }
    }

    /// Writes what a stream has given.
    pub(super) fn take(&mut self, stream: &mut Stream, bytes: &[u8]) {
        let mut out = Vec::new();
        stream.take(bytes, files::now_ms(), &mut out);
        self.write(&out);
    }

    /// Writes a line that has waited long enough.
    pub(super) fn flush_overdue(&mut self, stream: &mut Stream) {
        if stream.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            let mut out = Vec::new();
            stream.flush(files::now_ms(), b'P', &mut out);
            self.write(&out);
        }
    }

    /// Writes the last line of a stream that has ended.
    pub(super) fn finish(&mut self, stream: &mut Stream) {
        let mut out = Vec::new();
        stream.flush(files::now_ms(), b'F', &mut out);
        self.write(&out);
    }

    /// Writes a line of our own.
    pub(super) fn notice(&mut self, text: &str) {
        let mut out = Vec::new();
        record(&mut out, files::now_ms(), b's', b'F', text.replace('\n', " ").as_bytes(), b"");
        self.write(&out);
    }

    /// Writes whole records, each into a file that has room for it; drops and counts them otherwise.
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut notice = Vec::new();
            if self.dropped > 0 {
                let text = format!("{} log records were dropped: {}", self.dropped, self.problem);
                record(&mut notice, files::now_ms(), b's', b'F', text.as_bytes(), b"");
            }
            let (now, later) = rest.split_at(self.fitting(rest, notice.len()));
            notice.extend_from_slice(now);
            match self.append(&notice) {
                Ok(()) => self.dropped = 0,
                Err(error) => {
                    self.dropped += now.split_inclusive(|byte| *byte == b'\n').count() as u64;
                    self.problem = error.to_string();
                }
            }
            rest = later;
        }
    }

    /// How much of `records` fits the file that is open, or else a new one: whole records, at least one.
    fn fitting(&self, records: &[u8], before_b: usize) -> usize {
        let room = |size_b: u64| {
            let room = self.limits.file_b_max.saturating_sub(size_b).saturating_sub(before_b as u64);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(records.len());
            records[..room].iter().rposition(|byte| *byte == b'\n').map(|end| end + 1)
        };
        let first = || records.iter().position(|byte| *byte == b'\n').map_or(records.len(), |end| end + 1);
        let here = if self.file.is_some() { room(self.size_b) } else { None };
        here.or_else(|| room(0)).unwrap_or_else(first)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.size_b > 0 && self.size_b + bytes.len() as u64 > self.limits.file_b_max;
        if self.file.is_none() || full {
            self.open(bytes.len() as u64)?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all(bytes) {
            Ok(()) => {
                self.size_b += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a record would be read as a whole one.
                file.set_len(self.size_b)?;
                Err(error)
            }
        }
    }

    /// Opens the file, and moves full ones on.
    fn open(&mut self, more_b: u64) -> io::Result<()> {
        self.file = None;
        self.size_b = match fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if self.size_b > 0 && self.size_b + more_b > self.limits.file_b_max {
            self.rotate()?;
            self.size_b = 0;
        }
        self.file = Some(OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        let old = |number: u32| {
            if number == 0 { self.path.clone() } else { self.path.with_extension(number.to_string()) }
        };
        let last = self.limits.files_max - 1;
        // Also what a larger limit left behind.
        let mut beyond = last + 1;
        while last > 0 && files_exists(&old(beyond)) {
            fs::remove_file(old(beyond))?;
            beyond += 1;
        }
        if last == 0 {
            return files::remove_if_there(&self.path);
        }
        for number in (0..last).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn files_exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_put_together_and_long_ones_are_cut() {
        let mut stream = Stream::new(b'o');
        let mut out = Vec::new();
        stream.take(b"one\ntw", 7, &mut out);
        stream.take(b"o\n\n", 7, &mut out);
        assert_eq!(lines(&out), ["o F one", "o F two", "o F "]);
        out.clear();
        let long = vec![b'x'; TEXT_B_MAX * 2 + 5];
        stream.take(&long, 7, &mut out);
        stream.flush(7, b'F', &mut out);
        let lines = lines(&out);
        assert_eq!(lines.iter().map(|line| &line[..4]).collect::<Vec<_>>(), ["o P ", "o P ", "o F "]);
        assert_eq!(lines.iter().map(|line| line.len() - 4).sum::<usize>(), long.len());
    }

    #[test]
    fn files_stay_within_their_size_and_number_and_keep_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { file_b_max: 4096, files_max: 3 };
        let mut stream = Stream::new(b'o');
        let mut log = Log::new(dir.path(), limits);
        let mut burst = String::new();
        for number in 0..2000 {
            // Most come one by one; some in bursts larger than a file.
            let text = format!("line {number}\n");
            if number % 1000 < 400 {
                log.take(&mut stream, text.as_bytes());
            } else {
                burst.push_str(&text);
            }
            if number % 1000 == 999 {
                log.take(&mut stream, burst.as_bytes());
                burst.clear();
            }
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let mut kept = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let bytes = fs::read(dir.path().join(name)).unwrap();
            assert!(bytes.len() <= 4096, "{name}: {}", bytes.len());
            kept.extend(lines(&bytes));
        }
        let expected: Vec<_> = (2000 - kept.len()..2000).map(|number| format!("o F line {number}")).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn records_that_could_not_be_written_are_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut stream = Stream::new(b'e');
        let mut log = Log::new(&dir.path().join("not/there"), LogLimits::default());
        log.take(&mut stream, b"a\nb\n");
        log.take(&mut stream, b"c\n");
        fs::create_dir_all(dir.path().join("not/there")).unwrap();
        log.take(&mut stream, b"d\n");
        let lines = lines(&fs::read(dir.path().join("not/there/log")).unwrap());
        assert!(lines[0].starts_with("s F 3 log records were dropped: No such file"), "{lines:?}");
        assert_eq!(lines[1..], ["e F d"]);
    }
}
