//! Every reader of bytes from others, as a function that must not panic, whatever comes in. Shared by
//! the fuzz targets and by the brief run that is part of `cargo test`.
//!
//! Where something is read, what must hold of it is asserted as well: that it is written as the same
//! bytes, reads back, or is valid.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use document::event::signing_bytes;
use document::{Documents, Outcome};
use identity::{JoinToken, KeyPair};
use membership::{Membership, Settings};
use model::{ClusterId, Deployment, Digest, EventId, Group, Name, NodeId, Time};
use store::fs::{Content, Fs, FsFile};
use store::{Journal, Lock, LockError};

/// Reads bytes as one thing.
pub(crate) type Decoder = fn(&[u8]);

/// All of them, by the name of their target and corpus.
pub(crate) const DECODERS: [(&str, Decoder); 15] = [
    ("wire", wire),
    ("event", document::fuzz::decode),
    ("event_insert", document::fuzz::insert),
    ("event_signed", event_signed),
    ("datagram", datagram),
    ("push_pull", push_pull),
    ("manifest", manifest),
    ("groups", groups),
    ("image_documents", image::fuzz::documents),
    ("image_reference", image::fuzz::reference),
    ("image_layer", image_layer),
    ("image_program", image_program),
    ("token", token),
    ("frames", frames),
    ("journal", journal),
];

/// A frame of the mesh.
pub(crate) fn wire(data: &[u8]) {
    if let Ok(message) = ::wire::decode(data) {
        let frame = ::wire::encode(&message).expect("what fitted a frame fits one again");
        assert!(::wire::decode(&frame).is_ok_and(|again| again == message), "a message reads back");
    }
}

/// A history of every kind of event, and the keys that its authors have.
pub(crate) const HISTORY: &str = include_str!("../../crates/core/document/tests/golden/v1.txt");

/// Seeds of the keys of the golden history: admin, deployer, recovery, nodes.
const KEYS: [u16; 6] = [1, 2, 3, 4, 60, 61];

/// A key of the golden history.
pub(crate) fn golden_key(index: u8) -> KeyPair {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&KEYS[usize::from(index) % KEYS.len()].to_be_bytes());
    KeyPair::from_seed(seed)
}

/// The stored bytes of the golden history.
pub(crate) fn golden_events() -> Vec<Vec<u8>> {
    let lines = HISTORY.lines().filter_map(|line| line.strip_prefix("event "));
    lines
        .map(|hex| {
            let digit = |byte: u8| (byte as char).to_digit(16).expect("the golden file is hexadecimal");
            hex.as_bytes().chunks(2).map(|pair| (digit(pair[0]) * 16 + digit(pair[1])) as u8).collect()
        })
        .collect()
}

fn golden_documents() -> Documents {
    let events = golden_events();
    let cluster = ClusterId::from_bytes(*document::event::id_of(&events[0]).as_bytes());
    let mut documents = Documents::new(cluster);
    for inserted in documents.insert_all(&events) {
        inserted.expect("the golden history is valid");
    }
    documents
}

/// The text of an event behind a byte that says who signs it: so the reader gets past the signature,
/// to the verdict.
pub(crate) fn event_signed(data: &[u8]) {
    static DOCUMENTS: LazyLock<Mutex<Documents>> = LazyLock::new(|| Mutex::new(golden_documents()));
    let Some((signer, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let signature = golden_key(*signer).sign(&signing_bytes(text));
    let event = [&signature[..], text.as_bytes()].concat();
    let checked = {
        let documents = DOCUMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        documents.check(&event)
    };
    if let Ok(checked) = checked
        && !matches!(checked.outcome, Outcome::Known)
    {
        let inserted = golden_documents().insert(&event).expect("check and insert agree");
        assert!(inserted.outcome == checked.outcome, "check and insert agree on the outcome");
    }
}

/// Members of the cluster that packets are about.
const MEMBERS: u8 = 5;

/// The node of this number.
pub(crate) fn member(number: u8) -> NodeId {
    let mut id = [number % MEMBERS; 32];
    id[0] = number % MEMBERS + 1;
    NodeId::from_bytes(id)
}

/// Liveness as node `number` sees it, knowing the others.
pub(crate) fn membership_of(number: u8) -> Membership {
    let mut membership = Membership::new(member(number), 3, [number; 32], Settings::lan());
    membership.set_roster(Time::ZERO, &(0..MEMBERS).map(member).collect());
    membership
}

fn live_on(mut membership: Membership) {
    // What came in must not make anything panic later.
    for step in 1..20_u32 {
        membership.tick(Time::ZERO + std::time::Duration::from_millis(400) * step);
        drop(membership.take_effects());
    }
}

/// A packet of liveness, behind a byte that says who sent it.
pub(crate) fn datagram(data: &[u8]) {
    let Some((from, bytes)) = data.split_first() else { return };
    let mut membership = membership_of(0);
    if membership.datagram(Time::ZERO, member(*from), bytes).is_ok() {
        live_on(membership);
    }
}

/// A table of liveness, behind a byte that says who sent it.
pub(crate) fn push_pull(data: &[u8]) {
    let Some((from, bytes)) = data.split_first() else { return };
    let mut membership = membership_of(0);
    if membership.push_pull_in(Time::ZERO, member(*from), bytes).is_ok() {
        live_on(membership);
    }
}

/// A manifest in YAML or JSON.
pub(crate) fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match cli::manifest::read(text) {
        Ok(specs) => {
            for spec in specs {
                let deployment = spec.with_digest(Digest::from_bytes([1; 32]));
                assert!(deployment.validate().is_ok(), "what a manifest says is valid");
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "a refusal has a reason"),
    }
}

/// Groups of a deployment as they merge, a line each: the group's name, a space, its JSON.
pub(crate) fn groups(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let groups: BTreeMap<String, String> =
        lines.map(|(group, json)| (group.to_owned(), json.to_owned())).collect();
    let name: Name = "web".parse().expect("a name");
    let read =
        Deployment::from_groups(&Name::default_namespace(), &name, EventId::from_bytes([1; 32]), &groups);
    if let Ok(deployment) = read {
        assert!(deployment.validate().is_ok(), "what is read is valid");
        let again = deployment.to_groups();
        assert!(again.keys().all(|key| Group::ALL.iter().any(|group| group.as_str() == key)));
    }
}

/// A folder in memory where there is one: these are made and removed for every input.
fn scratch() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

/// A layer of an image, compressed or not.
pub(crate) fn image_layer(data: &[u8]) {
    let folder = scratch();
    let outside = folder.path().join("outside");
    let root = folder.path().join("root");
    for dir in [&outside, &root] {
        std::fs::create_dir(dir).expect("a folder");
    }
    image::fuzz::layer(&root, data);
    let around: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert!(around.len() == 2, "a layer stays where it is put");
    assert!(
        std::fs::read_dir(outside).expect("it is there").next().is_none(),
        "a layer stays where it is put"
    );
}

/// A program that is to be an image.
pub(crate) fn image_program(data: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("program");
    std::fs::write(&path, data).expect("a file");
    image::fuzz::program(&std::fs::File::open(path).expect("it was just written"));
}

/// A join token.
pub(crate) fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        let again: JoinToken = token.to_string().parse().expect("a token reads back");
        assert!(again.token_id() == token.token_id() && again.addresses() == token.addresses());
    }
}

/// The frames of an `exec`.
pub(crate) fn frames(mut data: &[u8]) {
    while let Ok(Some(frame)) = at_once(api::read_frame(&mut data)) {
        let mut bytes = Vec::new();
        assert!(at_once(api::write_frame(&mut bytes, &frame)).is_ok(), "what was read can be written");
    }
}

/// The outcome of a future that never waits: it reads from memory.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => ready,
        Poll::Pending => panic!("memory is always ready"),
    }
}

/// The cluster of the journals here.
pub(crate) const JOURNAL_CLUSTER: [u8; 32] = [3; 32];

/// A journal of one segment: bytes of its mark in two bytes, the mark, the segment.
pub(crate) fn journal(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let mark = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let dir = Path::new("/journal");
    let memory = Memory::default();
    memory.put(dir.join("mark"), rest[..mark].to_vec());
    memory.put(dir.join("00000001.log"), rest[mark..].to_vec());
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let cluster = ClusterId::from_bytes(JOURNAL_CLUSTER);
    let open = || Journal::open_with(Arc::clone(&fs), dir, cluster, 4_096);
    let Ok((mut journal, found)) = open() else { return };
    journal.append(&[b"one more"]).expect("memory has room");
    let opening = journal.opening();
    drop(journal);
    let (journal, again) = open().expect("what was opened and written to can be opened");
    assert!(journal.opening() > opening, "no opening has a number twice");
    assert!(again.torn_bytes == 0 && again.records.len() == found.records.len() + 1);
    assert!(again.records[..found.records.len()] == found.records[..], "nothing that was there is lost");
}

/// A file system in memory: a folder is there when a file is in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a file.
    pub(crate) fn put(&self, path: PathBuf, content: Vec<u8>) {
        self.files().insert(path, content);
    }

    /// What is in a file.
    pub(crate) fn get(&self, path: &Path) -> Option<Vec<u8>> {
        self.files().get(path).cloned()
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Fs for Memory {
    fn is_there(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files().keys().any(|file| file.starts_with(path)))
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Content> {
        Ok(Content { bytes: self.get(path).ok_or_else(not_found)?, mode: 0o600 })
    }

    fn protect(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Nobody else is there.
    fn lock(&self, _: &Path, _: &Path) -> Result<Lock, LockError> {
        Ok(Lock::new(()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        if !self.files().contains_key(path) {
            return Err(not_found());
        }
        Ok(Box::new(MemoryFile { memory: self.clone(), path: path.to_owned() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.put(path.to_owned(), Vec::new());
        self.open(path)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files();
        let inside = files.keys().filter(|path| path.parent() == Some(dir));
        let names: Vec<String> =
            inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
        if names.is_empty() { Err(not_found()) } else { Ok(names) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let moved: Vec<PathBuf> = files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(not_found());
        }
        for path in moved {
            let rest = path.strip_prefix(from).map_err(io::Error::other)?;
            let target = if rest == Path::new("") { to.to_owned() } else { to.join(rest) };
            if let Some(content) = files.remove(&path) {
                files.insert(target, content);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files().remove(path).map(drop).ok_or_else(not_found)
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A file of [`Memory`].
struct MemoryFile {
    memory: Memory,
    path: PathBuf,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({})", self.path.display())
    }
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.memory.files().get_mut(&self.path).map(work).ok_or_else(not_found)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl FsFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|content| content.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let from = place(offset)?;
        self.with(|content| {
            let rest = content.get(from..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = place(offset)?;
        self.with(|content| {
            content.resize(content.len().max(from + bytes.len()), 0);
            content[from..from + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let length = place(length)?;
        self.with(|content| content.resize(length, 0))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
