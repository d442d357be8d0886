//! Opens what images arrive in, a tar file (compressed or not) or a folder, as a set of named files.
//! What the files mean is `load`'s business.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::at;
use crate::files::temp_file;
use crate::hash::{CopyError, copy};
use crate::layer::{Compression, decompress};
use crate::limits::{ARCHIVE_ENTRIES_MAX, ENTRY_HEADER_BYTES_MAX, LINKS_WALKED_MAX};
use crate::{ImageError, Limits};

/// An archive or layout that cannot be read as images.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither format.
    #[error(
        "{path} is neither a docker-archive nor an OCI layout: it has no manifest.json and no index.json"
    )]
    Unknown {
        /// The archive.
        path: String,
    },
    /// The bytes are not those of an archive.
    #[error("{path} cannot be read as an archive")]
    Malformed {
        /// The archive.
        path: String,
        /// Where and why.
        source: io::Error,
    },
    /// A file that the archive's own manifest names is not in it.
    #[error("{path} has no `{name}`, which its manifest names")]
    Missing {
        /// The archive.
        path: String,
        /// The file.
        name: String,
    },
    /// More than the store takes.
    #[error("{path} has more than {limit} {what}")]
    TooLarge {
        /// The archive.
        path: String,
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// Nothing says what to call the image.
    #[error("{path} does not say what its image is called: give it a name")]
    NameNeeded {
        /// The archive.
        path: String,
    },
    /// One name was given for several images.
    #[error("{path} holds {} images ({}): one name cannot be given to all of them", names.len(), names.join(", "))]
    NameAmbiguous {
        /// The archive.
        path: String,
        /// What they are called.
        names: Vec<String>,
    },
    /// A layer's bytes are not those that the configuration names.
    #[error("`{name}` in {path} is sha256:{found}, the configuration names sha256:{expected}")]
    DiffId {
        /// The archive.
        path: String,
        /// The layer's file.
        name: String,
        /// What the configuration names.
        expected: model::Digest,
        /// What it is.
        found: model::Digest,
    },
    /// The store's own index is not what it wrote.
    #[error("{} is not an index of this store: a line lacks its name or size", path.display())]
    Index {
        /// The file.
        path: PathBuf,
    },
}

/// A file's bytes, and how many there are.
pub(crate) type Opened<'a> = (Box<dyn Read + 'a>, u64);

/// Named files, readable in any order.
pub(crate) trait Source {
    /// One file; `None` where there is no such file.
    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, ImageError>;

    /// How errors name it.
    fn path(&self) -> &str;
}

impl dyn Source + '_ {
    /// A file that must be there.
    pub(crate) fn need(&self, name: &str) -> Result<Opened<'_>, ImageError> {
        let missing = || ArchiveError::Missing { path: self.path().into(), name: name.into() };
        Ok(self.open(name)?.ok_or_else(missing)?)
    }

    /// A small file in memory.
    pub(crate) fn read(&self, name: &str, limits: &Limits) -> Result<Vec<u8>, ImageError> {
        let (reader, size) = self.need(name)?;
        if size > limits.json_bytes {
            let (path, what) = (format!("`{name}` in {}", self.path()), "bytes");
            return Err(ArchiveError::TooLarge { path, what, limit: limits.json_bytes }.into());
        }
        let mut bytes = Vec::new();
        reader
            .take(limits.json_bytes)
            .read_to_end(&mut bytes)
            .map_err(|source| ArchiveError::Malformed { path: self.path().into(), source })?;
        Ok(bytes)
    }
}

/// A folder: an OCI layout, or a docker-archive that was unpacked.
pub(crate) struct DirSource {
    root: OwnedFd,
    dir: PathBuf,
    shown: String,
}

impl DirSource {
    pub(crate) fn open(dir: &Path) -> Result<Self, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(dir, flags, Mode::empty()).map_err(at("open", dir))?;
        Ok(Self { root, dir: dir.into(), shown: dir.display().to_string() })
    }
}

impl Source for DirSource {
    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, ImageError> {
        // The names come from files in the folder; they may not lead out of it.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = self.dir.join(name);
        let file = match openat2(&self.root, name, how) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(error) => return Err(ImageError::file("open", &path, error)),
        };
        let meta = file.metadata().map_err(at("look at", &path))?;
        if !meta.is_file() {
            return Ok(None);
        }
        Ok(Some((Box::new(file), meta.len())))
    }

    fn path(&self) -> &str {
        &self.shown
    }
}

/// Where a name's bytes lie in the tar file.
#[derive(Debug)]
enum Place {
    At { offset: u64, bytes: u64 },
    // `docker save` wrote the second occurrence of a layer as a link to the first.
    Link(String),
}

/// A tar file.
#[derive(Debug)]
pub(crate) struct TarSource {
    file: File,
    shown: String,
    places: BTreeMap<String, Place>,
}

impl TarSource {
    /// Opens an archive; a compressed one is unpacked into `tmp` first.
    pub(crate) fn open(path: &Path, tmp: &Path, limits: &Limits) -> Result<Self, ImageError> {
        let shown = path.display().to_string();
        let mut file = File::open(path).map_err(at("open", path))?;
        let mut head = [0; Compression::MAGIC_BYTES];
        let read = file.read_at(&mut head, 0).map_err(at("read", path))?;
        if Compression::of(&head[..read]) == Compression::None {
            return Self::scan(file, shown);
        }
        Self::spool(&mut file, shown, tmp, limits)
    }

    /// Takes an archive from a stream, by way of a file in `tmp` that has no name once it is open.
    pub(crate) fn spool(
        reader: &mut dyn Read,
        shown: String,
        tmp: &Path,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let malformed = |source| ArchiveError::Malformed { path: shown.clone(), source };
        let limit = limits.archive_bytes;
        let too_large = || ArchiveError::TooLarge { path: shown.clone(), what: "bytes", limit };
        let spooled = temp_file(tmp)?;
        let mut file = spooled.reopen().map_err(at("open", spooled.path()))?;
        let (_, decompressed) = decompress(reader).map_err(malformed)?;
        let mut bounded = decompressed.take(limit.saturating_add(1));
        let written = copy(&mut bounded, |bytes| io::Write::write_all(&mut file, bytes));
        match written {
            Ok(bytes) if bytes > limit => return Err(too_large().into()),
            Ok(_) => {}
            Err(CopyError::Read(source)) => return Err(malformed(source).into()),
            Err(CopyError::Write(source)) => return Err(ImageError::file("write", spooled.path(), source)),
        }
        Self::scan(file, shown)
    }

    fn scan(mut file: File, shown: String) -> Result<Self, ImageError> {
        let malformed = |source| ArchiveError::Malformed { path: shown.clone(), source };
        let cut = |name: &str| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends in the middle of `{name}`"))
        };
        let length = file.seek(SeekFrom::End(0)).map_err(malformed)?;
        file.rewind().map_err(malformed)?;
        let budget = Rc::new(Cell::new(0));
        let headers = Headers { file: &file, budget: Rc::clone(&budget) };
        let mut archive = tar::Archive::new(headers);
        let mut places = BTreeMap::new();
        let mut count = 0;
        let mut entries = archive.entries_with_seek().map_err(malformed)?;
        loop {
            budget.set(ENTRY_HEADER_BYTES_MAX);
            let Some(entry) = entries.next() else { break };
            let entry = entry.map_err(malformed)?;
            count += 1;
            if count > ARCHIVE_ENTRIES_MAX {
                let (path, limit) = (shown.clone(), ARCHIVE_ENTRIES_MAX);
                return Err(ArchiveError::TooLarge { path, what: "entries", limit }.into());
            }
            let Some(name) = plain(&String::from_utf8_lossy(&entry.path_bytes())) else { continue };
            let kind = entry.header().entry_type();
            if kind.is_file() || kind.is_contiguous() {
                let (offset, bytes) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(bytes).is_none_or(|end| end > length) {
                    return Err(malformed(cut(&name)).into());
                }
                places.insert(name, Place::At { offset, bytes });
            } else if (kind.is_symlink() || kind.is_hard_link())
                && let Some(target) = entry.link_name_bytes()
            {
                let target = String::from_utf8_lossy(&target).into_owned();
                let folder =
                    if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                if let Some(target) = plain(&format!("{folder}/{target}")) {
                    places.insert(name, Place::Link(target));
                }
            }
        }
        Ok(Self { file, shown, places })
    }
}

impl Source for TarSource {
    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, ImageError> {
        let Some(mut name) = plain(name) else { return Ok(None) };
        for _ in 0..LINKS_WALKED_MAX {
            match self.places.get(&name) {
                None => return Ok(None),
                Some(Place::Link(target)) => name.clone_from(target),
                Some(Place::At { offset, bytes }) => {
                    return Ok(Some((
                        Box::new(Part { file: &self.file, at: *offset, left: *bytes }),
                        *bytes,
                    )));
                }
            }
        }
        Ok(None)
    }

    fn path(&self) -> &str {
        &self.shown
    }
}

/// A name without `.`, `..` and doubled slashes; `None` where it would leave the archive.
fn plain(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Lets `tar` read headers and seek past contents, within a budget of bytes for each entry.
struct Headers<'a> {
    file: &'a File,
    budget: Rc<Cell<u64>>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let left = self.budget.get().checked_sub(read as u64);
        self.budget.set(left.ok_or_else(|| {
            io::Error::other(format!("an entry's headers have more than {ENTRY_HEADER_BYTES_MAX} bytes"))
        })?);
        Ok(read)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..want], self.at)?;
        if read == 0 && want > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive became shorter while it was read",
            ));
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
