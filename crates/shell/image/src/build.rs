//! Makes images on this machine: from one program, or from a folder. The same input gives the same
//! digests, whenever and wherever: entries are sorted, times are 0, JSON keys are sorted.
//!
//! Layers are not compressed: zlib's output differs from release to release, which would change
//! digests; and peers exchange layers in chunks, which compression would make all different after the
//! first changed byte.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use crate::blob::Staged;
use crate::elf::{Elf, Files};
use crate::error::at;
use crate::files::temp_file;
use crate::hash::{CopyError, copy};
use crate::limits::{DEPTH_MAX, ENTRY_XATTR_BYTES_MAX};
use crate::oci::{MEDIA_LAYER, to_bytes, write_manifest};
use crate::{ElfError, ImageError, ImageInfo, ImageStore, Limits, Platform, Reference};

/// Why an image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name that the program cannot have in the image.
    #[error("`{name}` cannot be the program's file name: {why}")]
    FileName {
        /// The name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A program that would not start, as its libraries are not given.
    #[error(
        "the program needs the loader {interpreter} and shared libraries, which an upload does not bring: link it \
         statically, or build the image on a node from the program's path"
    )]
    Dynamic {
        /// Its loader.
        interpreter: String,
    },
    /// Its needs cannot be met.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A file that no image may have.
    #[error("{} {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// More than a layer may have.
    #[error("{} has more than {limit} {what}", path.display())]
    TooLarge {
        /// The folder or program.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// What was to be packed cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// As the system said it.
        source: io::Error,
    },
}

/// How a built image is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// The program and its first arguments; for one program, the program itself where this is empty.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The working folder.
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// Ports that it listens on, as `80/tcp`.
    pub exposed: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// For a program that comes as a stream: take its libraries from this machine, which is right only
    /// where it was linked on a machine like this one.
    pub host_libraries: bool,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageInfo,
    /// What its builder should know: files left out, a program that may not start.
    pub warnings: Vec<String>,
}

/// The folders of an image of one program, and their modes.
const FOLDERS: [(&str, u32); 6] =
    [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("root", 0o700), ("sys", 0o555), ("tmp", 0o1777)];
/// The users that programs look up: themselves as root, and the one without rights.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &[u8] = b"root:x:0:\nnobody:x:65534:\n";

/// One entry of an image of one program.
enum Item {
    Folder(u32),
    Bytes(&'static [u8]),
    Host(PathBuf),
    Program,
}

impl ImageStore {
    /// Builds an image of one program from a stream: `/<file_name>` (mode 0755), `/etc/passwd`,
    /// `/etc/group`, and empty `/tmp`, `/proc`, `/sys`, `/dev`, `/root`.
    ///
    /// The program must be static, or `host_libraries` set.
    pub fn build_binary(
        &self,
        name: &str,
        file_name: &str,
        reader: &mut dyn Read,
        options: &BuildOptions,
    ) -> Result<Built, ImageError> {
        let shown = format!("the program `{file_name}`");
        let spooled = temp_file(self.blobs.tmp())?;
        let mut file = spooled.as_file();
        let limit = self.limits.layer_bytes;
        let written = copy(&mut reader.take(limit.saturating_add(1)), |bytes| file.write_all(bytes));
        match written {
            Ok(bytes) if bytes > limit => {
                return Err(BuildError::TooLarge { path: shown.into(), what: "bytes", limit }.into());
            }
            Ok(_) => {}
            Err(CopyError::Read(source)) => {
                return Err(BuildError::Read { path: shown.into(), source }.into());
            }
            Err(CopyError::Write(source)) => return Err(ImageError::file("write", spooled.path(), source)),
        }
        // Where the program was linked, no path relative to itself can be known.
        self.build_program(
            name,
            (spooled.as_file(), &shown),
            file_name,
            Path::new("/"),
            options,
            options.host_libraries,
        )
    }

    /// Builds an image of one program that is on this machine, as [`ImageStore::build_binary`] does. If
    /// it is dynamically linked, its loader and its libraries go into the image too.
    pub fn build_binary_path(
        &self,
        name: &str,
        file_name: &str,
        path: &Path,
        options: &BuildOptions,
    ) -> Result<Built, ImageError> {
        let read = |source| BuildError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(BuildError::Refused { path: path.into(), why: "is not a file" }.into());
        }
        let real = fs::canonicalize(path).map_err(read)?;
        let origin = real.parent().unwrap_or(Path::new("/"));
        self.build_program(name, (&file, &path.display().to_string()), file_name, origin, options, true)
    }

    fn build_program(
        &self,
        name: &str,
        (file, shown): (&File, &str),
        file_name: &str,
        origin: &Path,
        options: &BuildOptions,
        libraries: bool,
    ) -> Result<Built, ImageError> {
        let reference = Reference::parse(name)?;
        let refused = |why| BuildError::FileName { name: file_name.into(), why };
        if file_name.is_empty() || file_name.contains(['/', '\0']) || matches!(file_name, "." | "..") {
            return Err(refused("it must be one part of a path").into());
        }
        if file_name.len() > crate::limits::PART_BYTES_MAX || file_name.starts_with(".wh.") {
            return Err(refused("it is longer than 255 bytes, or begins with `.wh.`").into());
        }
        let mut warnings = Vec::new();
        let mut platform = Platform::this();
        let mut needs = Files::new();
        match Elf::read(file, shown).map_err(BuildError::from)? {
            None => warnings.push(format!(
                "{shown} is not an ELF program: the image has no shell or interpreter that could run it"
            )),
            Some(elf) => {
                platform = Platform::linux(elf.architecture);
                if !platform.runs_on(&Platform::this()) {
                    warnings.push(format!("{shown} is for {platform}, this node runs {}", Platform::this()));
                }
                if elf.is_dynamic() && !libraries {
                    let interpreter = elf.interpreter.unwrap_or_default();
                    return Err(BuildError::Dynamic { interpreter }.into());
                }
                needs = elf.files(shown, origin).map_err(BuildError::from)?;
            }
        }
        let mut items: BTreeMap<PathBuf, Item> = BTreeMap::new();
        items.extend(FOLDERS.map(|(path, mode)| (path.into(), Item::Folder(mode))));
        items.insert("etc/passwd".into(), Item::Bytes(PASSWD));
        items.insert("etc/group".into(), Item::Bytes(GROUP));
        for (to, from) in needs {
            let to = to.strip_prefix("/").expect("a library's place is absolute").to_path_buf();
            for parent in to.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                items.entry(parent.into()).or_insert(Item::Folder(0o755));
            }
            items.insert(to, Item::Host(from));
        }
        if items.insert(file_name.into(), Item::Program).is_some() {
            return Err(refused("the image has a folder of that name").into());
        }
        let mut layer = LayerWriter::new(self, Path::new(shown))?;
        for (path, item) in items {
            let meta = |mode| Attributes { mode, uid: 0, gid: 0, xattrs: Vec::new() };
            match item {
                Item::Folder(mode) => layer.folder(&path, &meta(mode))?,
                Item::Bytes(bytes) => {
                    layer.file(&path, &meta(0o644), bytes.len() as u64, bytes, Path::new("/"))?;
                }
                Item::Program => layer.open_file(&path, &meta(0o755), file, Path::new(shown))?,
                Item::Host(from) => {
                    let read = |source| BuildError::Read { path: from.clone(), source };
                    layer.open_file(&path, &meta(0o755), &File::open(&from).map_err(read)?, &from)?;
                }
            }
        }
        let mut options = options.clone();
        if options.entrypoint.is_empty() {
            options.entrypoint = vec![format!("/{file_name}")];
        }
        self.finish_build(&reference, layer, &options, &platform, warnings)
    }

    /// Builds an image from a folder: its files with their modes, owners, hard links, capabilities and
    /// `user.*` attributes, and with time 0. Sockets are left out with a warning; devices and names
    /// that would be whiteouts are refused. The folder should not change meanwhile.
    pub fn build_rootfs(&self, name: &str, dir: &Path, options: &BuildOptions) -> Result<Built, ImageError> {
        let reference = Reference::parse(name)?;
        let mut walk = Walk {
            layer: LayerWriter::new(self, dir)?,
            links: HashMap::new(),
            warnings: Vec::new(),
            root: dir,
            // The store's own temporary file must not be packed into itself.
            skip: fs::metadata(self.blobs.tmp()).map_err(at("look at", self.blobs.tmp()))?.ino(),
        };
        let meta = fs::metadata(dir).map_err(|source| BuildError::Read { path: dir.into(), source })?;
        if !meta.is_dir() {
            return Err(BuildError::Refused { path: dir.into(), why: "is not a folder" }.into());
        }
        walk.folder(Path::new(""), 0)?;
        let Walk { layer, warnings, .. } = walk;
        self.finish_build(&reference, layer, options, &Platform::this(), warnings)
    }

    fn finish_build(
        &self,
        reference: &Reference,
        layer: LayerWriter<'_>,
        options: &BuildOptions,
        platform: &Platform,
        warnings: Vec<String>,
    ) -> Result<Built, ImageError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let staged = layer.finish()?;
        let (digest, size) = staged.keep(&self.blobs)?;
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": run_config(options),
            // Uncompressed: the blob is its own `diff_id`.
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let config = self.blobs.put(&to_bytes(&config))?;
        let (manifest, _) = self.blobs.put(&write_manifest(config, &[(digest, size, MEDIA_LAYER)]))?;
        let image = self.describe(&reference.key(), &manifest)?;
        self.file_under(std::slice::from_ref(&image))?;
        Ok(Built { image, warnings })
    }
}

/// The part of a configuration that says how to run; what is empty is not written.
fn run_config(options: &BuildOptions) -> Value {
    let set = |list: &[String]| list.iter().map(|it| (it.clone(), json!({}))).collect::<BTreeMap<_, _>>();
    let mut config = serde_json::Map::new();
    let mut put = |key: &str, is_empty: bool, value: Value| {
        if !is_empty {
            config.insert(key.into(), value);
        }
    };
    put("Entrypoint", options.entrypoint.is_empty(), json!(options.entrypoint));
    put("Cmd", options.cmd.is_empty(), json!(options.cmd));
    put("Env", options.env.is_empty(), json!(options.env));
    put("WorkingDir", options.workdir.is_none(), json!(options.workdir));
    put("User", options.user.is_none(), json!(options.user));
    put("ExposedPorts", options.exposed.is_empty(), json!(set(&options.exposed)));
    put("Labels", options.labels.is_empty(), json!(options.labels));
    Value::Object(config)
}

/// What a packed file is besides its contents; its time is always 0.
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Writes one layer. Errors name the file that was being packed.
struct LayerWriter<'a> {
    tar: tar::Builder<Staged>,
    limits: &'a Limits,
    what: PathBuf,
    entries: u64,
    bytes: u64,
}

impl<'a> LayerWriter<'a> {
    fn new(store: &'a ImageStore, what: &Path) -> Result<Self, ImageError> {
        let tar = tar::Builder::new(store.blobs.stage()?);
        Ok(Self { tar, limits: &store.limits, what: what.into(), entries: 0, bytes: 0 })
    }

    fn header(
        &mut self,
        kind: tar::EntryType,
        meta: &Attributes,
        size: u64,
    ) -> Result<tar::Header, ImageError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size);
        let (entries, bytes) = (self.limits.layer_entries, self.limits.layer_bytes);
        for (found, limit, what) in [(self.entries, entries, "entries"), (self.bytes, bytes, "bytes")] {
            if found > limit {
                return Err(BuildError::TooLarge { path: self.what.clone(), what, limit }.into());
            }
        }
        let records =
            meta.xattrs.iter().map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.as_slice()));
        let records: Vec<(String, &[u8])> = records.collect();
        self.tar
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value)))
            .map_err(at("write a layer from", &self.what))?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(0);
        header.set_size(size);
        Ok(header)
    }

    fn folder(&mut self, path: &Path, meta: &Attributes) -> Result<(), ImageError> {
        let mut header = self.header(tar::EntryType::Directory, meta, 0)?;
        let path = if path.as_os_str().is_empty() { Path::new("./") } else { path };
        self.tar.append_data(&mut header, path, io::empty()).map_err(at("pack", path))
    }

    fn pipe(&mut self, path: &Path, meta: &Attributes) -> Result<(), ImageError> {
        let mut header = self.header(tar::EntryType::Fifo, meta, 0)?;
        self.tar.append_data(&mut header, path, io::empty()).map_err(at("pack", path))
    }

    fn link(
        &mut self,
        kind: tar::EntryType,
        path: &Path,
        to: &Path,
        meta: &Attributes,
    ) -> Result<(), ImageError> {
        let mut header = self.header(kind, meta, 0)?;
        self.tar.append_link(&mut header, path, to).map_err(at("pack", path))
    }

    fn open_file(
        &mut self,
        path: &Path,
        meta: &Attributes,
        file: &File,
        from: &Path,
    ) -> Result<(), ImageError> {
        let read = |source| BuildError::Read { path: from.into(), source };
        let size = file.metadata().map_err(read)?.len();
        self.file(path, meta, size, At { file, at: 0 }, from)
    }

    fn file(
        &mut self,
        path: &Path,
        meta: &Attributes,
        size: u64,
        reader: impl Read,
        from: &Path,
    ) -> Result<(), ImageError> {
        let mut header = self.header(tar::EntryType::Regular, meta, size)?;
        let mut exact = Exact { inner: reader, left: size, failed: None };
        let written = self.tar.append_data(&mut header, path, &mut exact);
        if let Some(source) = exact.failed {
            return Err(BuildError::Read { path: from.into(), source }.into());
        }
        written.map_err(at("pack", from))
    }

    fn finish(self) -> Result<Staged, ImageError> {
        let what = self.what;
        self.tar.into_inner().map_err(at("write a layer from", &what))
    }
}

/// A file from its start, wherever its own position is.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Gives exactly as many bytes as the header promised: a file that shrinks while it is packed would
/// shift all that follows. Keeps the error, to tell it from one of writing.
struct Exact<R> {
    inner: R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match self.inner.read(&mut buffer[..want]) {
            Ok(0) if want > 0 => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"))
            }
            other => other,
        };
        match read {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the file being packed cannot be read"))
            }
        }
    }
}

/// Packs a folder.
struct Walk<'a> {
    layer: LayerWriter<'a>,
    /// Files with several names, by device and inode: where the first name is.
    links: HashMap<(u64, u64), PathBuf>,
    warnings: Vec<String>,
    root: &'a Path,
    skip: u64,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, depth: u32) -> Result<(), ImageError> {
        let here = self.root.join(path);
        let read = |source| BuildError::Read { path: here.clone(), source };
        if depth > DEPTH_MAX {
            let (what, limit) = ("folders inside folders", DEPTH_MAX.into());
            return Err(BuildError::TooLarge { path: self.root.into(), what, limit }.into());
        }
        let meta = fs::symlink_metadata(if depth == 0 { self.root } else { &here }).map_err(read)?;
        let attributes = Self::attributes(&here, &meta)?;
        self.layer.folder(path, &attributes)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&here).map_err(read)? {
            names.push(entry.map_err(read)?.file_name());
        }
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            if name.as_bytes().starts_with(b".wh.") {
                let why = "has a name that means `deleted` in a layer (it begins with `.wh.`)";
                return Err(BuildError::Refused { path: here.join(name), why }.into());
            }
            self.entry(&path.join(name), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: u32) -> Result<(), ImageError> {
        let here = self.root.join(path);
        let read = |source| BuildError::Read { path: here.clone(), source };
        let meta = fs::symlink_metadata(&here).map_err(read)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            if meta.ino() == self.skip {
                self.warnings.push(format!("{} was left out: it is the image store's own", here.display()));
                return Ok(());
            }
            return self.folder(path, depth + 1);
        }
        if kind.is_socket() {
            self.warnings.push(format!("{} was left out: it is a socket", here.display()));
            return Ok(());
        }
        if kind.is_char_device() || kind.is_block_device() {
            let why = "is a device, which an image may not have: containers get theirs from the node";
            return Err(BuildError::Refused { path: here, why }.into());
        }
        let attributes = Self::attributes(&here, &meta)?;
        if meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| path.into());
            if first != path {
                return self.layer.link(tar::EntryType::Link, path, first, &attributes);
            }
        }
        if kind.is_symlink() {
            let target = fs::read_link(&here).map_err(read)?;
            return self.layer.link(tar::EntryType::Symlink, path, &target, &attributes);
        }
        if kind.is_fifo() {
            return self.layer.pipe(path, &attributes);
        }
        // The name may have become something else since it was looked at.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = File::options().read(true).custom_flags(flags).open(&here).map_err(read)?;
        self.layer.open_file(path, &attributes, &file, &here)
    }

    fn attributes(here: &Path, meta: &fs::Metadata) -> Result<Attributes, ImageError> {
        let mut xattrs = Vec::new();
        // A link has none that an image keeps; on other files, no attributes at all is an empty list.
        if meta.is_file() || meta.is_dir() {
            xattrs = read_xattrs(here).map_err(|source| BuildError::Read { path: here.into(), source })?;
        }
        Ok(Attributes { mode: meta.mode(), uid: meta.uid(), gid: meta.gid(), xattrs })
    }
}

/// The attributes that a layer keeps (see `unpack`), sorted.
fn read_xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0; ENTRY_XATTR_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for key in list[..length].split(|byte| *byte == 0) {
        let Ok(key) = std::str::from_utf8(key) else { continue };
        let wanted =
            key == "security.capability" || (key.starts_with("user.") && !key.starts_with("user.overlay."));
        if wanted {
            let mut value = vec![0; ENTRY_XATTR_BYTES_MAX];
            let length = rustix::fs::lgetxattr(path, key, &mut value[..])?;
            value.truncate(length);
            found.push((key.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}
