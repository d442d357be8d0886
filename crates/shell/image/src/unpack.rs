//! Unpacks one layer: reads the tar stream, judges each entry, and has the tree make it.
//!
//! `tar` only parses. What a layer may not do is refused with the entry's name; what is harmless in a
//! root of its own (absolute names, links that lead out) is done inside it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::rc::Rc;

use model::Digest;
use nix::sys::time::TimeSpec;

use crate::Limits;
use crate::hash::{CHUNK_BYTES, Hasher, Tap};
use crate::layer::decompress;
use crate::limits::{ENTRY_HEADER_BYTES_MAX, ENTRY_XATTR_BYTES_MAX, PART_BYTES_MAX, PATH_BYTES_MAX};
use crate::pax;
use crate::tree::{Folder, Meta, Tree};

/// Letters of a name that are shown in an error.
const SHOWN_CHARS_MAX: usize = 160;

/// What begins the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// A whiteout for all that the layers below have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS' own bookkeeping, which old Dockers left in layers.
const AUFS: &[u8] = b".wh..wh.";

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream is not a tar stream, or its compression is broken.
    #[error("it cannot be read as a layer (after {entries} entries)")]
    Format {
        /// Entries read before.
        entries: u64,
        /// Where and why.
        source: io::Error,
    },
    /// The stream ends too early.
    #[error("it ends in the middle of {place}")]
    Truncated {
        /// The entry, or what else was being read.
        place: String,
    },
    /// A name that no file may have.
    #[error("entry `{name}`: {why}")]
    Name {
        /// The entry.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An entry that is no file, folder, link or pipe.
    #[error("entry `{name}` is {kind}, which a layer may not have")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A hard link to what is no file of the layer.
    #[error("entry `{name}` is a hard link to `{target}`, but {why}")]
    HardLink {
        /// The entry.
        name: String,
        /// What it links to.
        target: String,
        /// Why that is refused.
        why: &'static str,
    },
    /// A part of the way to the entry is no folder.
    #[error("the way to `{name}` leads through `{part}`, which is no folder")]
    Way {
        /// The folder of the entry.
        name: String,
        /// The part.
        part: String,
    },
    /// An attribute by which a layer would speak to the kernel's overlayfs itself.
    #[error("entry `{name}` sets `{key}`, which only the node itself may set")]
    Attribute {
        /// The entry.
        name: String,
        /// The attribute.
        key: String,
    },
    /// More than a layer may have.
    #[error("it has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// It swells more than any honest layer.
    #[error("it unpacks to more than {ratio} times its {packed} bytes: it is made to fill the disk")]
    Ratio {
        /// How often it may swell.
        ratio: u64,
        /// Bytes read so far.
        packed: u64,
    },
    /// The unpacked stream is not the one that the configuration names.
    #[error("its contents are sha256:{found}, the configuration names sha256:{expected}")]
    DiffId {
        /// What the configuration names.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// The file system refused.
    #[error("cannot {action} `{name}`")]
    File {
        /// What was being done.
        action: &'static str,
        /// The entry.
        name: String,
        /// As the system said it.
        source: io::Error,
    },
}

/// A name as it is shown: without control characters, and not for pages.
pub(crate) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().take(SHOWN_CHARS_MAX).collect()
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) blob: Hasher,
    pub(crate) diff_id: Digest,
}

/// The plain stream, watched: hashed, counted, and cut off at its limits.
struct Plain<R> {
    inner: R,
    watch: Rc<RefCell<Watch>>,
}

struct Watch {
    plain: Hasher,
    blob: Rc<RefCell<Hasher>>,
    limits: Limits,
    /// The headers of the entry that comes next, as they are read; `None` while contents are.
    headers: Option<Vec<u8>>,
    /// Bytes of files made, which sparse entries make larger than the stream.
    made_b: u64,
    ended: bool,
    /// Why the stream was cut off: `tar` passes on only that it was.
    tripped: Option<LayerError>,
}

impl Watch {
    /// Judges how much there is so far.
    fn check(&self) -> Result<(), LayerError> {
        let (size, packed) = (self.plain.bytes().max(self.made_b), self.blob.borrow().bytes());
        if size > self.limits.layer_bytes {
            return Err(LayerError::Limit { what: "bytes", limit: self.limits.layer_bytes });
        }
        let ratio = self.limits.layer_ratio;
        if size > self.limits.layer_ratio_free_bytes && size > packed.saturating_mul(ratio) {
            return Err(LayerError::Ratio { ratio, packed });
        }
        Ok(())
    }

    fn passed(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.plain.update(bytes);
        self.ended = bytes.is_empty();
        if let Some(headers) = &mut self.headers {
            headers.extend_from_slice(bytes);
            let limit = ENTRY_HEADER_BYTES_MAX;
            if headers.len() as u64 > limit {
                return Err(LayerError::Limit { what: "bytes of headers for one entry", limit });
            }
        }
        self.check()
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        let mut watch = self.watch.borrow_mut();
        if let Err(error) = watch.passed(&buffer[..read]) {
            watch.tripped = Some(error);
            return Err(io::Error::other("cut off"));
        }
        Ok(read)
    }
}

/// Unpacks a layer into a tree. On error the tree is in pieces and is to be thrown away.
pub(crate) fn unpack(blob: impl Read, tree: Tree<'_>, limits: &Limits) -> Result<Contents, LayerError> {
    let (blob, blob_hash) = Tap::new(blob);
    let (_, plain) = decompress(blob).map_err(|source| LayerError::Format { entries: 0, source })?;
    let watch = Rc::new(RefCell::new(Watch {
        plain: Hasher::default(),
        blob: Rc::clone(&blob_hash),
        limits: limits.clone(),
        headers: None,
        made_b: 0,
        ended: false,
        tripped: None,
    }));
    let mut archive = tar::Archive::new(Plain { inner: plain, watch: Rc::clone(&watch) });
    let mut unpacker = Unpacker { tree, watch: Rc::clone(&watch), entries: 0, buffer: vec![0; CHUNK_BYTES] };
    unpacker.run(&mut archive)?;
    // What follows the last entry belongs to the digests too.
    let mut rest = archive.into_inner();
    let place = "its closing bytes";
    while unpacker.read(&mut rest, place)? > 0 {}
    let Unpacker { tree, .. } = unpacker;
    tree.finish()?;
    let (blob, diff_id) = (blob_hash.borrow().clone(), watch.borrow().plain.digest());
    Ok(Contents { blob, diff_id })
}

struct Unpacker<'a> {
    tree: Tree<'a>,
    watch: Rc<RefCell<Watch>>,
    entries: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn run(&mut self, archive: &mut tar::Archive<impl Read>) -> Result<(), LayerError> {
        let mut entries = archive.entries().map_err(|source| self.broken(source, "its first header"))?;
        loop {
            // Contents were read to their end; what fills their last block comes before the headers.
            let filling =
                self.watch.borrow().plain.bytes().next_multiple_of(512) - self.watch.borrow().plain.bytes();
            self.watch.borrow_mut().headers = Some(Vec::new());
            let next = entries.next();
            let headers = self.watch.borrow_mut().headers.take().unwrap_or_default();
            let Some(entry) = next else { return Ok(()) };
            let mut entry = entry.map_err(|source| self.broken(source, "a header"))?;
            self.entries += 1;
            let limit = self.watch.borrow().limits.layer_entries;
            if self.entries > limit {
                return Err(LayerError::Limit { what: "entries", limit });
            }
            let headers =
                usize::try_from(filling).ok().and_then(|filling| headers.get(filling..)).unwrap_or_default();
            let said = Said::read(&entry, headers).map_err(|why| {
                let source = io::Error::new(io::ErrorKind::InvalidData, why);
                LayerError::Format { entries: self.entries - 1, source }
            })?;
            let name = said.name.clone();
            self.apply(&mut entry, &said)?;
            // What an entry has besides its file is passed over here, where headers' bytes are not
            // counted.
            let place = show(&name);
            while self.read(&mut entry, &place)? > 0 {}
        }
    }

    /// Names the reason for a failed read.
    fn broken(&self, source: io::Error, place: &str) -> LayerError {
        let mut watch = self.watch.borrow_mut();
        if let Some(error) = watch.tripped.take() {
            return error;
        }
        if watch.ended || source.kind() == io::ErrorKind::UnexpectedEof {
            return LayerError::Truncated { place: place.into() };
        }
        LayerError::Format { entries: self.entries, source }
    }

    fn read(&mut self, reader: &mut impl Read, place: &str) -> Result<usize, LayerError> {
        loop {
            match reader.read(&mut self.buffer) {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error, place)),
            }
        }
    }

    fn apply(&mut self, entry: &mut tar::Entry<'_, impl Read>, said: &Said<'_>) -> Result<(), LayerError> {
        let name = said.name.as_slice();
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(()); // `git archive` writes its commit there; it says nothing of any file.
        }
        let parts = split(name, name)?;
        if parts.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(());
        }
        // Before 1988 a folder was a file whose name ends in a slash; some writers still do so.
        let is_folder = kind.is_dir() || (kind.is_file() && name.ends_with(b"/") && entry.size() == 0);
        let Some((last, way)) = parts.split_last() else {
            if !is_folder {
                return Err(LayerError::Name { name: show(name), why: "only a folder can be the root" });
            }
            let meta = self.meta(entry, said)?;
            self.tree.put_root(meta);
            return Ok(());
        };
        if way.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(LayerError::Name { name: show(name), why: "it lies inside a whiteout" });
        }
        if last.starts_with(WHITEOUT) {
            return self.whiteout(way, last, name);
        }
        let refused = |kind| Err(LayerError::Kind { name: show(name), kind });
        let meta = self.meta(entry, said)?;
        match kind {
            _ if is_folder => {
                let here = self.tree.folder(way)?;
                self.tree.put_folder(&here, last, meta)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let here = self.tree.folder(way)?;
                self.file(entry, (&here, last), name, &meta)
            }
            tar::EntryType::Symlink => {
                let target = target(said)?;
                let here = self.tree.folder(way)?;
                self.tree.put_link(&here, last, &target, &meta)
            }
            tar::EntryType::Link => {
                let target = target(said)?;
                let parts = split(&target, name)?;
                let refused = |why| LayerError::HardLink { name: show(name), target: show(&target), why };
                let (to, way_to) = parts.split_last().ok_or_else(|| refused("it is the root"))?;
                let there =
                    self.tree.existing_folder(way_to)?.ok_or_else(|| refused("it is not in this layer"))?;
                let here = self.tree.folder(way)?;
                self.tree.put_hard_link(&here, last, (&there, to), refused)
            }
            tar::EntryType::Fifo => {
                let here = self.tree.folder(way)?;
                self.tree.put_pipe(&here, last, &meta)
            }
            tar::EntryType::Char => refused("a character device"),
            tar::EntryType::Block => refused("a block device"),
            _ => refused("of an unknown kind"),
        }
    }

    fn whiteout(&mut self, way: &[&[u8]], last: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let hidden = &last[WHITEOUT.len()..];
        if last != OPAQUE && matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Name { name: show(name), why: "it is a whiteout of nothing" });
        }
        let here = self.tree.folder(way)?;
        if last == OPAQUE { self.tree.cover(&here, name) } else { self.tree.put_whiteout(&here, hidden) }
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        (here, last): (&Folder, &[u8]),
        name: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError> {
        // A size that cannot be is refused before anything is written.
        let (limit, made_b) = (self.watch.borrow().limits.layer_bytes, self.watch.borrow().made_b);
        if entry.size() > limit.saturating_sub(made_b) {
            return Err(LayerError::Limit { what: "bytes", limit });
        }
        let mut file = self.tree.put_file(here, last)?;
        let mut left = entry.size();
        let place = show(name);
        loop {
            let read = self.read(entry, &place)?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read as u64);
            self.watch.borrow_mut().made_b += read as u64;
            self.watch.borrow().check()?;
            write(&mut file, &self.buffer[..read], &place)?;
        }
        if left > 0 {
            return Err(LayerError::Truncated { place });
        }
        self.tree.finish_file(&file, name, meta)
    }

    /// What the headers say of a file besides its contents.
    fn meta(&self, entry: &tar::Entry<'_, impl Read>, said: &Said<'_>) -> Result<Meta, LayerError> {
        let (entries, name) = (self.entries, said.name.as_slice());
        let format = |source| LayerError::Format { entries, source };
        let refused = |why| LayerError::Name { name: show(name), why };
        let header = entry.header();
        let id = |key: &str, id: io::Result<u64>| {
            let id = match said.get(key) {
                Some(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
                None => Some(id.map_err(format)?),
            };
            // The largest value means "leave it as it is" to the kernel.
            let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
            id.ok_or_else(|| refused("its owner is not a user or group number"))
        };
        let mode = header.mode().map_err(format)? & 0o7777;
        let (uid, gid) = (id("uid", header.uid())?, id("gid", header.gid())?);
        let mtime = match said.get("mtime") {
            Some(text) => parse_time(text).ok_or_else(|| refused("its time is not a number"))?,
            None => time(header.mtime().map_err(format)?),
        };
        let mut meta = Meta { mode, uid, gid, mtime, xattrs: Vec::new() };
        let mut bytes = 0;
        for (key, value) in &said.records {
            let Ok(key) = std::str::from_utf8(key) else { continue };
            if key.starts_with("GNU.sparse.") {
                return Err(LayerError::Kind { name: show(name), kind: "a sparse file in the form of PAX" });
            }
            let Some(key) = key.strip_prefix("SCHILY.xattr.") else { continue };
            if key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.") {
                return Err(LayerError::Attribute { name: show(name), key: show(key.as_bytes()) });
            }
            // Others (labels of SELinux, access lists of another machine's users) are about the machine
            // that the layer was made on.
            if (key == "security.capability" || key.starts_with("user.")) && !key.contains('\0') {
                bytes += key.len() + value.len();
                meta.xattrs.push((key.into(), value.to_vec()));
            }
        }
        if bytes > ENTRY_XATTR_BYTES_MAX {
            let limit = ENTRY_XATTR_BYTES_MAX as u64;
            return Err(LayerError::Limit { what: "bytes of extended attributes for one entry", limit });
        }
        Ok(meta)
    }
}

/// What the headers of one entry say in all.
struct Said<'h> {
    name: Vec<u8>,
    target: Vec<u8>,
    records: Vec<(&'h [u8], &'h [u8])>,
}

impl<'h> Said<'h> {
    fn read(entry: &tar::Entry<'_, impl Read>, headers: &'h [u8]) -> Result<Self, &'static str> {
        let records = pax::records(headers).ok_or("a PAX record is broken")?;
        let mut said = Self { name: Vec::new(), target: Vec::new(), records };
        let own = |key: &str| said.get(key).map(<[u8]>::to_vec);
        let name = own("path").unwrap_or_else(|| entry.path_bytes().into_owned());
        let target =
            own("linkpath").unwrap_or_else(|| entry.link_name_bytes().unwrap_or_default().into_owned());
        // Where readers of one archive see contents begin in different places, one of them is deceived.
        if let Some(size) = said.get("size")
            && size != entry.size().to_string().as_bytes()
        {
            return Err("two headers differ on the size of an entry");
        }
        (said.name, said.target) = (name, target);
        Ok(said)
    }

    /// The last record of a key, which is the one that counts; an empty one takes back those before.
    fn get(&self, key: &str) -> Option<&'h [u8]> {
        let found = self.records.iter().rev().find(|(name, _)| *name == key.as_bytes());
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    }
}

fn write(file: &mut File, bytes: &[u8], name: &str) -> Result<(), LayerError> {
    file.write_all(bytes).map_err(|source| LayerError::File { action: "write", name: name.into(), source })
}

/// The parts of a name. An absolute one starts at the root that is unpacked into, as every one does.
fn split<'n>(path: &'n [u8], name: &[u8]) -> Result<Vec<&'n [u8]>, LayerError> {
    let refused = |why| Err(LayerError::Name { name: show(name), why });
    if path.contains(&0) {
        return refused("it holds a zero byte");
    }
    if path.len() > PATH_BYTES_MAX {
        return refused("its path is longer than 4095 bytes");
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return refused("`..` would leave its folder");
    }
    if parts.iter().any(|part| part.len() > PART_BYTES_MAX) {
        return refused("a part of its path is longer than 255 bytes");
    }
    Ok(parts)
}

fn target(said: &Said<'_>) -> Result<Vec<u8>, LayerError> {
    let refused = |why| Err(LayerError::Name { name: show(&said.name), why });
    match said.target.as_slice() {
        b"" => refused("it is a link to nothing"),
        target if target.contains(&0) => refused("its target holds a zero byte"),
        target if target.len() > PATH_BYTES_MAX => refused("its target is longer than 4095 bytes"),
        target => Ok(target.to_vec()),
    }
}

/// A time later than the kernel can say is the latest that it can.
fn time(seconds: u64) -> TimeSpec {
    TimeSpec::new(i64::try_from(seconds).unwrap_or(i64::MAX), 0)
}

/// PAX' time: seconds, perhaps with a fraction, perhaps before 1970.
fn parse_time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds): (i64, i64) = (seconds.parse().ok()?, nine.parse().ok()?);
    // The fraction of a time before 1970 goes down; the kernel counts up from the second before.
    if text.starts_with('-') && nanoseconds > 0 {
        return Some(TimeSpec::new(seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some(TimeSpec::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_pax_are_read_with_their_fraction_and_sign() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.25", Some((1_700_000_000, 250_000_000))),
            ("1.1234567891", Some((1, 123_456_789))),
            ("-1.5", Some((-2, 500_000_000))),
            ("", None),
            ("1.x", None),
            ("1e9", None),
            ("99999999999999999999", None),
        ] {
            let read = parse_time(text.as_bytes()).map(|time| (time.tv_sec(), time.tv_nsec()));
            assert_eq!(read, expected, "{text}");
        }
    }
}
