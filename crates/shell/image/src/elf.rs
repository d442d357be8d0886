//! Reads what a program needs to start: which processor, which interpreter, which shared libraries;
//! and finds those on this machine as its own loader would.
//!
//! Absent on purpose: what a program opens by itself once it runs (plug-ins, locales, name services).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use crate::limits::LIBRARIES_MAX;

/// Program headers that are read: linkers write some fifteen.
const PROGRAM_HEADERS_MAX: u16 = 512;
/// Bytes of the dynamic section: 65,536 entries, where large programs have 60.
const DYNAMIC_BYTES_MAX: u64 = 1 << 20;
/// Bytes of one string (a library's name, a search path): that of a path, with room for several.
const STRING_BYTES_MAX: usize = 16 * 1024;
/// Files included by `ld.so.conf`, one from another: a distribution has a handful.
const CONF_FILES_MAX: usize = 256;
/// Where every loader looks at last.
const DEFAULT_DIRS: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Why a program's needs cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It begins like a program and goes on like none.
    #[error("{program} is a broken ELF file: {why}")]
    Malformed {
        /// The file.
        program: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A processor that no OCI platform is known for.
    #[error("{program} is for a processor that is not known (ELF machine {machine})")]
    Machine {
        /// The file.
        program: String,
        /// ELF's number for it.
        machine: u16,
    },
    /// A library that the loader would not find either.
    #[error("{needed_by} needs the library `{library}`, which is not on this machine (looked in {})", looked_in.join(", "))]
    LibraryNotFound {
        /// The library.
        library: String,
        /// The program or library that needs it.
        needed_by: String,
        /// The folders, in order.
        looked_in: Vec<String>,
    },
    /// The loader that the program names.
    #[error("{program} needs the loader {interpreter}, which is not on this machine")]
    InterpreterNotFound {
        /// The program.
        program: String,
        /// Its loader.
        interpreter: String,
    },
    /// More libraries than a program has.
    #[error("{program} needs more than {LIBRARIES_MAX} libraries")]
    TooMany {
        /// The program.
        program: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// As the system said it.
        source: io::Error,
    },
}

/// What an ELF file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    is_64: bool,
    machine: u16,
    pub(crate) architecture: &'static str,
    pub(crate) interpreter: Option<String>,
    needed: Vec<String>,
    rpath: Vec<String>,
    runpath: Vec<String>,
}

/// The files that a program needs besides itself: where they go in the image, and where they are here.
pub(crate) type Files = BTreeMap<PathBuf, PathBuf>;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

struct Reader<'a> {
    file: &'a File,
    shown: &'a str,
    is_64: bool,
}

impl Reader<'_> {
    fn broken(&self, why: &'static str) -> ElfError {
        ElfError::Malformed { program: self.shown.into(), why }
    }

    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], ElfError> {
        let mut bytes = [0; N];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.broken("it ends too early"))
            }
            // An offset that no file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(self.broken("an offset is too large"))
            }
            Err(source) => Err(ElfError::Read { path: self.shown.into(), source }),
        }
    }

    fn u16(&self, at: u64) -> Result<u16, ElfError> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Result<u32, ElfError> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    /// An address or size, as wide as the class has it.
    fn word(&self, at: u64) -> Result<u64, ElfError> {
        if self.is_64 { self.bytes(at).map(u64::from_le_bytes) } else { self.u32(at).map(u64::from) }
    }

    fn sum(&self, base: u64, offset: u64) -> Result<u64, ElfError> {
        base.checked_add(offset).ok_or_else(|| self.broken("an offset is too large"))
    }

    fn string(&self, at: u64) -> Result<String, ElfError> {
        let mut bytes = vec![0; STRING_BYTES_MAX];
        let read = self
            .file
            .read_at(&mut bytes, at)
            .map_err(|source| ElfError::Read { path: self.shown.into(), source })?;
        let end = bytes[..read].iter().position(|byte| *byte == 0);
        bytes.truncate(end.ok_or_else(|| self.broken("a string does not end"))?);
        String::from_utf8(bytes).map_err(|_| self.broken("a string is not UTF-8"))
    }

    fn segment(&self, at: u64) -> Result<Segment, ElfError> {
        let fields: [u64; 4] = if self.is_64 { [0, 8, 16, 32] } else { [0, 4, 8, 16] };
        let [kind, offset, address, bytes] = fields;
        Ok(Segment {
            kind: self.u32(self.sum(at, kind)?)?,
            offset: self.word(self.sum(at, offset)?)?,
            address: self.word(self.sum(at, address)?)?,
            bytes: self.word(self.sum(at, bytes)?)?,
        })
    }
}

impl Elf {
    /// `None` where the file is no ELF file.
    pub(crate) fn read(file: &File, shown: &str) -> Result<Option<Self>, ElfError> {
        let mut ident = [0; 16];
        let read =
            file.read_at(&mut ident, 0).map_err(|source| ElfError::Read { path: shown.into(), source })?;
        if read < 4 || !ident.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let is_64 = match ident[4] {
            1 => false,
            2 => true,
            _ => {
                return Err(ElfError::Malformed {
                    program: shown.into(),
                    why: "its class is neither 32 nor 64 bits",
                });
            }
        };
        let it = Reader { file, shown, is_64 };
        if ident[5] != 1 {
            return Err(it.broken("only little-endian files are supported"));
        }
        let machine = it.u16(18)?;
        let architecture = architecture(machine, is_64)
            .ok_or_else(|| ElfError::Machine { program: shown.into(), machine })?;
        let (table, size, count) = if is_64 {
            (it.word(32)?, it.u16(54)?, it.u16(56)?)
        } else {
            (it.word(28)?, it.u16(42)?, it.u16(44)?)
        };
        if count > PROGRAM_HEADERS_MAX {
            return Err(it.broken("it has too many program headers"));
        }
        let segments: Vec<Segment> = (0..count)
            .map(|at| it.segment(it.sum(table, u64::from(at) * u64::from(size))?))
            .collect::<Result<_, _>>()?;
        let mut elf = Self {
            is_64,
            machine,
            architecture,
            interpreter: None,
            needed: Vec::new(),
            rpath: Vec::new(),
            runpath: Vec::new(),
        };
        for segment in &segments {
            match segment.kind {
                PT_INTERP => elf.interpreter = Some(it.string(segment.offset)?),
                PT_DYNAMIC => elf.read_dynamic(&it, segment, &segments)?,
                _ => {}
            }
        }
        if elf.interpreter.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(it.broken("its loader's path is not absolute"));
        }
        Ok(Some(elf))
    }

    fn read_dynamic(&mut self, it: &Reader<'_>, dynamic: &Segment, all: &[Segment]) -> Result<(), ElfError> {
        if dynamic.bytes > DYNAMIC_BYTES_MAX {
            return Err(it.broken("its dynamic section is too large"));
        }
        let width: u64 = if self.is_64 { 8 } else { 4 };
        let (mut strings, mut entries) = (None, Vec::new());
        for at in 0..dynamic.bytes / (2 * width) {
            let at = it.sum(dynamic.offset, at * 2 * width)?;
            let (tag, value) = (it.word(at)?, it.word(it.sum(at, width)?)?);
            match tag {
                0 => break,
                DT_STRTAB => strings = Some(value),
                DT_NEEDED | DT_RPATH | DT_RUNPATH => entries.push((tag, value)),
                _ => {}
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let strings = strings.ok_or_else(|| it.broken("its dynamic section has no strings"))?;
        let holds = |segment: &&Segment| {
            segment.kind == PT_LOAD && strings >= segment.address && strings - segment.address < segment.bytes
        };
        let segment = all.iter().find(holds).ok_or_else(|| it.broken("its strings are in no segment"))?;
        let base = it.sum(segment.offset, strings - segment.address)?;
        for (tag, value) in entries {
            let text = it.string(it.sum(base, value)?)?;
            let paths = || text.split(':').filter(|path| !path.is_empty()).map(Into::into);
            match tag {
                DT_NEEDED => self.needed.push(text),
                DT_RPATH => self.rpath.extend(paths()),
                _ => self.runpath.extend(paths()),
            }
        }
        if self.needed.len() > LIBRARIES_MAX {
            return Err(ElfError::TooMany { program: it.shown.into() });
        }
        Ok(())
    }

    pub(crate) fn is_dynamic(&self) -> bool {
        self.interpreter.is_some()
    }

    /// Whether a loader would take `other` into one process with this.
    fn fits(&self, other: &Self) -> bool {
        self.is_64 == other.is_64 && self.machine == other.machine
    }

    /// The loader and all libraries of a program that lies in `origin` here, and in `/` in the image.
    pub(crate) fn files(&self, shown: &str, origin: &Path) -> Result<Files, ElfError> {
        let Some(interpreter) = &self.interpreter else { return Ok(Files::new()) };
        let here = Path::new(interpreter);
        if !here.is_file() {
            let (program, interpreter) = (shown.into(), interpreter.clone());
            return Err(ElfError::InterpreterNotFound { program, interpreter });
        }
        let mut files = Files::from([(here.to_path_buf(), here.to_path_buf())]);
        let system = system_dirs();
        // All that is not beside the program goes to where the C library is: a loader without a cache
        // looks there, and may not look where this machine's configuration sent it.
        let libc = find("libc.so.6", &system, self);
        let shelf =
            libc.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(Path::new("/lib")).to_path_buf();
        let mut seen: BTreeSet<String> =
            here.file_name().map(|name| name.to_string_lossy().into_owned()).into_iter().collect();
        let mut todo =
            VecDeque::from([(self.clone(), shown.to_owned(), origin.to_path_buf(), PathBuf::from("/"))]);
        while let Some((elf, needed_by, origin, place)) = todo.pop_front() {
            for library in &elf.needed {
                if !seen.insert(library.clone()) {
                    continue;
                }
                if seen.len() > LIBRARIES_MAX {
                    return Err(ElfError::TooMany { program: shown.into() });
                }
                // The newer kind of search path switches the older off, also the program's.
                let own: Vec<&String> = if elf.runpath.is_empty() {
                    elf.rpath.iter().chain(&self.rpath).collect()
                } else {
                    elf.runpath.iter().collect()
                };
                let mut found = None;
                for path in &own {
                    let (Some(dir), Some(to)) = (expand(path, &origin), expand(path, &place)) else {
                        continue;
                    };
                    if let Some((path, elf)) = find(library, std::slice::from_ref(&dir), self) {
                        found = Some((path, elf, to));
                        break;
                    }
                }
                if found.is_none() {
                    found = find(library, &system, self).map(|(path, elf)| (path, elf, shelf.clone()));
                }
                let Some((path, elf, to)) = found else {
                    let own = own.into_iter().filter_map(|path| expand(path, &origin));
                    let looked_in = own.chain(system).map(|dir| dir.display().to_string()).collect();
                    return Err(ElfError::LibraryNotFound { library: library.clone(), needed_by, looked_in });
                };
                let real = path.parent().unwrap_or(Path::new("/")).to_path_buf();
                todo.push_back((elf, path.display().to_string(), real, to.clone()));
                files.insert(to.join(library), path);
            }
        }
        Ok(files)
    }
}

fn architecture(machine: u16, is_64: bool) -> Option<&'static str> {
    Some(match (machine, is_64) {
        (3, false) => "386",
        (21, true) => "ppc64le",
        (40, false) => "arm",
        (62, true) => "amd64",
        (183, true) => "arm64",
        (243, true) => "riscv64",
        (258, true) => "loong64",
        _ => return None,
    })
}

/// The first file of that name that `program` could be loaded with.
fn find(library: &str, dirs: &[PathBuf], program: &Elf) -> Option<(PathBuf, Elf)> {
    for dir in dirs {
        let path = dir.join(library);
        let Ok(file) = File::open(&path) else { continue };
        // A broken or foreign file in a search path is passed over, as the loader does.
        if file.metadata().is_ok_and(|meta| meta.is_file())
            && let Ok(Some(elf)) = Elf::read(&file, &path.display().to_string())
            && program.fits(&elf)
        {
            return Some((path, elf));
        }
    }
    None
}

/// A search path with `$ORIGIN` filled in, without `.` and `..`. `None` for what is not supported
/// (`$LIB`, `$PLATFORM`, paths that depend on the working folder).
fn expand(path: &str, origin: &Path) -> Option<PathBuf> {
    let origin = origin.to_str()?;
    let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    if path.contains('$') || !path.starts_with('/') {
        return None;
    }
    let mut plain = PathBuf::from("/");
    for part in Path::new(&path).components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::Normal(part) => plain.push(part),
            _ => {}
        }
    }
    Some(plain)
}

/// Where this machine's loader looks: the folders of `ld.so.conf`, then the usual ones.
fn system_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let mut todo = VecDeque::from([PathBuf::from("/etc/ld.so.conf")]);
    let mut files = 0;
    while let Some(path) = todo.pop_front() {
        files += 1;
        // No such file is how systems without glibc say that there is nothing to add.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if let Some(pattern) = line.strip_prefix("include ") {
                todo.extend(included(pattern.trim()));
            } else if line.starts_with('/') {
                dirs.push(PathBuf::from(line));
            }
        }
        if files == CONF_FILES_MAX {
            break;
        }
    }
    dirs.extend(DEFAULT_DIRS.iter().map(PathBuf::from));
    dirs
}

/// The files of `dir/*suffix`, sorted: the only pattern that distributions use. Others name one file.
fn included(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new("/etc").join(pattern);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Some((prefix, suffix)) = name.split_once('*') else { return vec![path] };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let matches = |name: &str| name.starts_with(prefix) && name.ends_with(suffix);
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(matches))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Elf>, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Elf::read(&file, "prog")
    }

    #[test]
    fn a_program_cut_off_or_flipped_anywhere_is_refused_or_read_and_never_panics() {
        let program = fs::read("/bin/true").unwrap();
        for cut in (0..1024).chain((1024..program.len()).step_by(251)) {
            let _read = read(&program[..cut]);
        }
        for at in 0..1024 {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = program.clone();
                bytes[at] ^= flip;
                let _read = read(&bytes);
            }
        }
        assert!(read(&program).unwrap().unwrap().is_dynamic());
    }

    #[test]
    fn what_is_no_program_is_told_from_what_is_a_broken_one() {
        assert_eq!(read(b"#!/bin/sh\n").unwrap(), None);
        assert_eq!(read(b"").unwrap(), None);
        assert_eq!(
            read(b"\x7fELF").unwrap_err().to_string(),
            "prog is a broken ELF file: its class is neither 32 nor 64 bits"
        );
        let cut = read(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0").unwrap_err();
        assert_eq!(cut.to_string(), "prog is a broken ELF file: it ends too early");
    }

    #[test]
    fn origins_are_filled_in_and_dots_taken_out() {
        let origin = Path::new("/opt/app/bin");
        assert_eq!(expand("$ORIGIN/../lib", origin), Some("/opt/app/lib".into()));
        assert_eq!(expand("${ORIGIN}", origin), Some("/opt/app/bin".into()));
        assert_eq!(expand("$ORIGIN/../lib", Path::new("/")), Some("/lib".into()));
        assert_eq!(expand("$LIB/x", origin), None);
        assert_eq!(expand("lib", origin), None);
    }
}
