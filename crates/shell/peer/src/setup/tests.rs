//! Power cuts at every write, sync and rename of `init` and `join`: what is left is a folder that a
//! peer runs, or one that the same command finishes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

// The disk that `store` is tested with: what was not synced may be lost, torn or out of order.
#[path = "../../../store/tests/disk/mod.rs"]
mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use document::event::TokenGrant;
use identity::JoinToken;
use model::TokenId;
use store::faults::{FaultyFs, Operation};
use store::{Journal, SEGMENT_BYTES};

use self::disk::{Fate, PowerDisk};
use self::join::Joining;
use super::*;
use crate::admit;
use crate::joining::{self, TalkError};

const DIR: &str = "/deep/data";

/// A moment before the token of these tests expires.
const NOW_MS: i64 = 1_000;

fn options(name: &str) -> NodeOptions {
    options_at(Path::new(DIR), name)
}

fn options_at(dir: &Path, name: &str) -> NodeOptions {
    NodeOptions {
        dir: dir.to_owned(),
        name: name.parse().unwrap(),
        listen: "127.0.0.1:7440".parse().unwrap(),
        advertise: Vec::new(),
        labels: BTreeMap::new(),
        capacity: None,
        extras: Extras::NONE,
        reserve: None,
        overcommit: Overcommit::default(),
        pressure: Pressure::default(),
        cgroup_parent: "skerry".to_owned(),
    }
}

fn user() -> KeyPair {
    KeyPair::from_seed([1; 32])
}

fn fs_of(disk: &PowerDisk) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

fn init_at(disk: &PowerDisk, name: &str) -> Result<Initialised, InitError> {
    init_in(&fs_of(disk), Path::new(DIR), name)
}

fn init_in(fs: &Arc<dyn Fs>, dir: &Path, name: &str) -> Result<Initialised, InitError> {
    init_on(fs, &options_at(dir, name), &"shop".parse().unwrap(), &"ada".parse().unwrap(), &user())
}

fn fates(salt: u64) -> Vec<Fate> {
    [
        Fate::Lost,
        Fate::Kept,
        Fate::Torn(salt),
        Fate::TornByte(salt),
        Fate::Subset(salt),
        Fate::Subset(salt + 99),
    ]
    .to_vec()
}

/// What a power cut left, as a peer that starts there sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// No key yet: nothing, or the first steps.
    Nothing,
    /// A draft: the peer says to run the same command again.
    Draft,
    /// A prepared folder.
    Prepared,
}

fn left(disk: &PowerDisk) -> Left {
    left_in(disk, Path::new(DIR))
}

fn left_in(fs: &dyn Fs, dir: &Path) -> Left {
    match DataDir::open_with(fs, dir) {
        Ok(_) => Left::Prepared,
        Err(OpenError::HalfPrepared { .. }) => Left::Draft,
        Err(OpenError::NotPrepared { .. }) => Left::Nothing,
        Err(error) => panic!("a power cut is taken for damage: {error}"),
    }
}

fn key(disk: &PowerDisk) -> Option<KeyPair> {
    key_in(disk, Path::new(DIR))
}

fn key_in(fs: &dyn Fs, dir: &Path) -> Option<KeyPair> {
    let path = DataDir::key_in(dir);
    let found = fs.read(&path, KEY_FILE_BYTES_MAX).ok()?;
    Some(KeyPair::parse(&path, found.mode, found.bytes).unwrap())
}

fn events(disk: &PowerDisk, context: &str) -> Vec<Vec<u8>> {
    events_in(&fs_of(disk), Path::new(DIR), context)
}

/// The events of a prepared folder, which is whole: one node's, of one cluster.
fn events_in(fs: &Arc<dyn Fs>, dir: &Path, context: &str) -> Vec<Vec<u8>> {
    let data = DataDir::open_with(&**fs, dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(key_in(&**fs, dir).unwrap().node_id(), data.format().node, "{context}");
    let settings = fs.read(&dir.join(DataDir::SETTINGS), 10_000).unwrap().bytes;
    toml::from_str::<Config>(std::str::from_utf8(&settings).unwrap()).unwrap();
    let opened = Journal::open_with(Arc::clone(fs), &data.journal(), data.format().cluster, SEGMENT_BYTES);
    let (_, recovered) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(recovered.torn_bytes, 0, "{context}");
    let mut documents = Documents::new(data.format().cluster);
    for inserted in documents.insert_all(&recovered.records) {
        inserted.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let roster = documents.roster();
    assert_eq!(roster.nodes[&data.format().node].name, data.format().name, "{context}");
    let names: BTreeSet<String> = fs.names(dir).unwrap().into_iter().collect();
    assert!(!names.iter().any(|name| name.contains("draft")), "{context}: {names:?}");
    recovered.records
}

#[test]
fn init_that_a_power_cut_meets_anywhere_leaves_a_finished_folder_or_can_be_repeated() {
    let mut seen: BTreeMap<Left, u32> = BTreeMap::new();
    let mut states = Vec::new();
    for operation in 0.. {
        let disk = PowerDisk::new();
        disk.cut_at(operation);
        let done = init_at(&disk, "kiosk").is_ok();
        let ended = !disk.is_off();
        for fate in fates(operation) {
            let context = format!("cut in operation {operation}, {fate:?}");
            let after = disk.copy();
            after.power_cut(fate);
            let (state, before) = (left(&after), key(&after));
            *seen.entry(state).or_default() += 1;
            if matches!(fate, Fate::Kept) {
                states.push(state);
            }
            assert!(!done || state == Left::Prepared, "{context}: what was told as done is gone");
            assert_eq!(before.is_some(), state != Left::Nothing, "{context}");
            if state != Left::Prepared {
                // Under another name too: nothing of the first try but its key is used.
                let made = init_at(&after, "other").unwrap_or_else(|error| panic!("{context}: {error:?}"));
                assert!(before.is_none_or(|before| before.node_id() == made.node), "{context}: another key");
                assert_eq!(
                    DataDir::open_with(&after, Path::new(DIR)).unwrap().format().cluster,
                    made.cluster
                );
            }
            assert_eq!(events(&after, &context).len(), 1, "{context}: one first event");
            assert!(
                matches!(init_at(&after, "kiosk"), Err(InitError::Folder { .. })),
                "{context}: a prepared folder is prepared again"
            );
            after.power_cut(Fate::Lost);
            assert_eq!(events(&after, &context).len(), 1, "{context}, once more");
        }
        if ended {
            assert!(done);
            break;
        }
    }
    // From step to step it goes forward, through each state once.
    states.dedup();
    assert_eq!(states, [Left::Nothing, Left::Draft, Left::Prepared]);
    assert!(seen[&Left::Nothing] > 20 && seen[&Left::Draft] > 80 && seen[&Left::Prepared] > 5, "{seen:?}");
}

#[test]
fn a_second_power_cut_while_init_is_repeated_changes_nothing_of_that() {
    let mut cuts = 0;
    for first in (0..).step_by(4) {
        let disk = PowerDisk::new();
        disk.cut_at(first);
        drop(init_at(&disk, "kiosk"));
        if !disk.is_off() {
            break;
        }
        for fate in [Fate::Kept, Fate::Subset(first)] {
            let once = disk.copy();
            once.power_cut(fate);
            if left(&once) == Left::Prepared {
                continue;
            }
            for second in (0..).step_by(3) {
                let twice = once.copy();
                twice.cut_at(second);
                drop(init_at(&twice, "kiosk"));
                if !twice.is_off() {
                    break;
                }
                cuts += 1;
                for fate in [Fate::Lost, Fate::Kept, Fate::Subset(second)] {
                    let context = format!("cut in operation {first}, then {second}, {fate:?}");
                    let after = twice.copy();
                    after.power_cut(fate);
                    if left(&after) != Left::Prepared {
                        init_at(&after, "kiosk").unwrap_or_else(|error| panic!("{context}: {error:?}"));
                    }
                    assert_eq!(events(&after, &context).len(), 1, "{context}");
                }
            }
        }
    }
    assert!(cuts > 100, "only {cuts} second cuts");
}

#[test]
fn init_whose_nth_operation_fails_can_be_repeated_when_the_disk_is_well_again() {
    // The machine's own file system: a failed write has written half, as on a full disk.
    let operations =
        [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir];
    for operation in operations {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            for passes in 0.. {
                let context = format!("{operation:?} {passes} fails with {kind}");
                let temp = tempfile::TempDir::new().unwrap();
                let dir = temp.path().join("data");
                let faulty = FaultyFs::new();
                let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
                faulty.fail(operation, passes, 1, kind);
                let first = init_in(&fs, &dir, "kiosk");
                faulty.clear();
                let (state, before) = (left_in(&*fs, &dir), key_in(&*fs, &dir));
                match (&first, state) {
                    (Ok(_), Left::Prepared) => {
                        assert!(passes > 2, "{context}: it did not strike");
                        break;
                    }
                    // All is there but the certainty that it lasts.
                    (Err(_), Left::Prepared) => assert_eq!(operation, Operation::SyncDir, "{context}"),
                    (Err(_), Left::Nothing | Left::Draft) => {
                        let made = init_in(&fs, &dir, "kiosk");
                        let made = made.unwrap_or_else(|error| panic!("{context}: {error:?}"));
                        assert!(before.is_none_or(|before| before.node_id() == made.node), "{context}");
                    }
                    (Ok(_), _) => panic!("{context}: told as done, and it is not"),
                }
                assert_eq!(events_in(&fs, &dir, &context).len(), 1, "{context}");
            }
        }
    }
}

/// A cluster of one node, as its peer knows it, and a token for one more.
#[derive(Clone)]
struct Cluster {
    id: ClusterId,
    peer: KeyPair,
    token: JoinToken,
    log: Vec<Vec<u8>>,
}

impl Cluster {
    fn new() -> Self {
        let disk = PowerDisk::new();
        let made = init_at(&disk, "first").unwrap();
        let mut log = events(&disk, "the first node");
        let token = JoinToken::new(made.cluster, vec!["127.0.0.1:7440".to_owned()], [3; 32]).unwrap();
        let grant = TokenGrant { id: token.token_id(), expires_ms: NOW_MS + 1, uses: 1 };
        let body = Body {
            v: EVENT_VERSION,
            cluster: made.cluster,
            doc: DocId::Cluster,
            author: Author::User(user().user_id()),
            auth: Vec::new(),
            deps: vec![document::event::id_of(&log[0])],
            nonce: Hex([5; 16]),
            time_ms: NOW_MS,
            kind: Kind::Token(grant),
        };
        log.push(SignedEvent::sign(&body, |bytes| user().sign(bytes)).encode());
        let cluster = Self { id: made.cluster, peer: key(&disk).unwrap(), token, log };
        assert_eq!(cluster.documents().roster().tokens.len(), 1);
        cluster
    }

    fn documents(&self) -> Documents {
        let mut documents = Documents::new(self.id);
        for inserted in documents.insert_all(&self.log) {
            inserted.unwrap();
        }
        documents
    }

    /// The peer's side of a join, which happens at `now_ms`. `heard`: whether its last word arrives.
    async fn serve(
        &mut self,
        mut io: tokio::io::DuplexStream,
        now_ms: i64,
        heard: bool,
    ) -> Result<(), TalkError> {
        let joiner = joining::await_ask(&mut io).await?;
        let (documents, token) = (self.documents(), TokenId::from_bytes(self.token.key().public()));
        if !admit::is_member(&documents, token, &joiner)
            && let Some(reason) = admit::why_not(&documents, token, now_ms, &"first".parse().unwrap())
        {
            return joining::refuse(&mut io, &reason).await;
        }
        joining::send_log(&mut io, &documents.since(&DocId::Cluster, &[], usize::MAX).0).await?;
        let event = joining::read_event(&mut io).await?;
        if !event.is_empty() {
            self.documents().insert(&event).unwrap();
            self.log.push(event);
        }
        if heard { joining::accept(&mut io).await } else { Ok(()) }
    }

    /// `join` on this disk at `now_ms`, to its end or a power cut.
    fn join(&mut self, disk: &PowerDisk, name: &str, now_ms: i64, heard: bool) -> Result<Joined, JoinError> {
        let (options, token) = (options(name), self.token.clone());
        let node = Joining::begin(&fs_of(disk), &options, &token)?;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (recv, send) = tokio::io::split(ours);
        let peer = self.peer.public();
        let talk = async { node.converse(peer, "first", send, recv).await };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (admitted, _) = runtime.block_on(async { tokio::join!(talk, self.serve(theirs, now_ms, heard)) });
        Ok(node.finish(admitted?, "first")?)
    }

    /// Who was let in, by name.
    fn admitted(&self) -> Vec<String> {
        let documents = self.documents();
        assert!(documents.roster().waiting.is_empty(), "the token was used more often than it may");
        let names = documents.roster().nodes.values().map(|member| member.name.to_string());
        names.filter(|name| name != "first").collect()
    }
}

#[test]
fn join_that_a_power_cut_meets_anywhere_leaves_a_finished_folder_or_can_be_repeated_with_its_token() {
    let cluster = Cluster::new();
    let (mut seen, mut again): (BTreeMap<Left, u32>, u32) = (BTreeMap::new(), 0);
    for operation in 0.. {
        let disk = PowerDisk::new();
        disk.cut_at(operation);
        let mut cluster = cluster.clone();
        let done = cluster.join(&disk, "kiosk", NOW_MS, true).is_ok();
        let ended = !disk.is_off();
        for fate in fates(operation) {
            let context = format!("cut in operation {operation}, {fate:?}");
            let (after, mut cluster) = (disk.copy(), cluster.clone());
            after.power_cut(fate);
            let state = left(&after);
            *seen.entry(state).or_default() += 1;
            assert!(!done || state == Left::Prepared, "{context}: what was told as done is gone");
            let was_let_in = !cluster.admitted().is_empty();
            assert!(!was_let_in || state != Left::Nothing, "{context}: the key that was let in is gone");
            if state != Left::Prepared {
                // The token for one node is used up, and has expired meanwhile.
                let now_ms = if was_let_in { NOW_MS + 1_000_000 } else { NOW_MS };
                again += u32::from(was_let_in);
                cluster
                    .join(&after, "kiosk", now_ms, true)
                    .unwrap_or_else(|error| panic!("{context}: {error:?}"));
            }
            assert_eq!(cluster.admitted(), ["kiosk"], "{context}");
            assert_eq!(events(&after, &context), cluster.log, "{context}: the cluster's log");
            assert_eq!(DataDir::open_with(&after, Path::new(DIR)).unwrap().format().cluster, cluster.id);
        }
        if ended {
            assert!(done);
            break;
        }
    }
    assert!(seen[&Left::Nothing] > 20 && seen[&Left::Draft] > 60 && seen[&Left::Prepared] > 5, "{seen:?}");
    assert!(again > 60, "only {again} tries after the node had been let in");
}

#[test]
fn a_join_whose_last_answer_was_lost_is_repeated_and_nobody_else_gets_in_by_that() {
    let mut cluster = Cluster::new();
    let disk = PowerDisk::new();
    let error = cluster.join(&disk, "kiosk", NOW_MS, false).unwrap_err();
    assert!(matches!(error, JoinError::Talk { .. }), "{error:?}");
    assert_eq!((left(&disk), cluster.admitted()), (Left::Draft, vec!["kiosk".to_owned()]));
    // Another key with the same token: used up.
    let error = cluster.join(&PowerDisk::new(), "kiosk", NOW_MS, true).unwrap_err();
    assert!(error.to_string().contains("used up (1 of 1)"), "{error}");
    // The key that was let in, under another name.
    let error = cluster.join(&disk, "other", NOW_MS, true).unwrap_err();
    assert!(error.to_string().contains("repeat that, with --name kiosk"), "{error}");
    cluster.join(&disk, "kiosk", NOW_MS, true).unwrap();
    assert_eq!(events(&disk, "joined"), cluster.log);
}

#[test]
fn nobody_is_taken_for_a_member_by_naming_its_key() {
    let mut cluster = Cluster::new();
    let disk = PowerDisk::new();
    cluster.join(&disk, "kiosk", NOW_MS, true).unwrap();
    let (member, thief) = (key(&disk).unwrap(), KeyPair::from_seed([9; 32]));
    let (documents, token) = (cluster.documents(), cluster.token.token_id());
    let joiner = joining::Joiner::new(cluster.id, token, &member);
    assert!(admit::is_member(&documents, token, &joiner));
    let named = joining::Joiner { node: member.node_id(), ..joining::Joiner::new(cluster.id, token, &thief) };
    assert!(!admit::is_member(&documents, token, &named));
    let other_token = joining::Joiner::new(cluster.id, TokenId::from_bytes([7; 32]), &member);
    assert!(!admit::is_member(&documents, token, &other_token));
}

#[test]
fn a_join_in_the_folder_of_an_init_that_was_cut_off_leaves_nothing_of_that_cluster() {
    let mut cluster = Cluster::new();
    let mut drafts = 0;
    for operation in 0.. {
        let disk = PowerDisk::new();
        disk.cut_at(operation);
        drop(init_at(&disk, "kiosk"));
        if !disk.is_off() {
            break;
        }
        disk.power_cut(Fate::Kept);
        if left(&disk) == Left::Prepared {
            continue;
        }
        drafts += 1;
        let context = format!("cut in operation {operation}");
        let mut cluster = cluster.clone();
        cluster.join(&disk, "kiosk", NOW_MS, true).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert_eq!(events(&disk, &context), cluster.log, "{context}");
        let names = disk.names(Path::new(DIR)).unwrap();
        assert!(!names.iter().any(|name| name.contains("recovery")), "{context}: {names:?}");
    }
    assert!(drafts > 20, "only {drafts} drafts");
    cluster.join(&PowerDisk::new(), "kiosk", NOW_MS, true).unwrap();
}
