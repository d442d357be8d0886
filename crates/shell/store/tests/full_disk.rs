//! A disk that is really full: a small tmpfs in a mount namespace of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "what is not tested is said loudly")]

use std::path::Path;

use model::{ClusterId, NodeId};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store::{CreateError, DataDir, Draft, Format, Journal, JournalError, Secret};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 32]);

/// Runs `f` with a folder on a file system of `size`, seen by its thread alone.
fn on_small_disk(test: &str, size: &str, f: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("\n*** NOT TESTED: `{test}` needs root to mount a small file system ***\n");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI nothing may stay untested");
        return;
    }
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    // The thread's mounts end with the thread.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let options = format!("size={size}");
            mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
            f(dir);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "nothing was written to the machine's disk");
}

/// Fills the disk to the last byte; the file to remove to have room again.
fn fill(dir: &Path) -> std::path::PathBuf {
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    for block in [4096, 1] {
        while std::io::Write::write(&mut file, &vec![0; block]).is_ok() {}
    }
    ballast
}

#[test]
fn a_journal_on_a_full_disk_refuses_keeps_all_and_goes_on_when_there_is_room() {
    let test = "a_journal_on_a_full_disk_refuses_keeps_all_and_goes_on_when_there_is_room";
    on_small_disk(test, "512k", |disk| {
        let dir = disk.join("journal");
        Journal::create(&dir, CLUSTER).unwrap();
        let (mut journal, _) = Journal::open(&dir, CLUSTER).unwrap();
        let mut kept = Vec::new();
        let error = loop {
            let record = vec![u8::try_from(kept.len() % 251).unwrap(); 3000];
            match journal.append(&[&record, b"and a small one"]) {
                Ok(()) => kept.extend([record, b"and a small one".to_vec()]),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
        assert!(kept.len() > 100, "{} records", kept.len());
        let ballast = fill(disk);
        for _ in 0..3 {
            assert!(matches!(journal.append(&[&[1; 9000]]), Err(JournalError::DiskFull { .. })));
        }
        assert_eq!(journal.count(), kept.len() as u64);
        // A peer that starts on a full disk still reads all of it.
        drop(journal);
        let (mut journal, recovered) = Journal::open(&dir, CLUSTER).unwrap();
        assert_eq!((recovered.records, recovered.torn_bytes), (kept.clone(), 0));
        std::fs::remove_file(ballast).unwrap();
        let room: Vec<u8> = b"room again".to_vec();
        journal.append(&[&room]).unwrap();
        kept.push(room);
        drop(journal);
        assert_eq!(Journal::open(&dir, CLUSTER).unwrap().1.records, kept);
    });
}

fn prepare(dir: &Path) -> Result<DataDir, CreateError> {
    let format =
        Format { cluster: CLUSTER, node: NodeId::from_bytes([1; 32]), name: "kiosk".parse().unwrap() };
    let draft = Draft::begin(dir)?;
    if draft.secret(Secret::Key)?.is_none() {
        draft.put_secret(Secret::Key, b"a key")?;
    }
    draft.finish(&format, &[b"the first event".to_vec()], "settings")
}

#[test]
fn a_data_folder_on_a_full_disk_is_not_prepared_and_can_be_when_there_is_room() {
    let test = "a_data_folder_on_a_full_disk_is_not_prepared_and_can_be_when_there_is_room";
    on_small_disk(test, "256k", |disk| {
        let dir = disk.join("data");
        let ballast = fill(disk);
        let error = prepare(&dir).unwrap_err();
        assert!(!matches!(error, CreateError::AlreadyPrepared { .. }), "{error}");
        assert!(DataDir::open(&dir).is_err());
        std::fs::remove_file(&ballast).unwrap();
        prepare(&dir).unwrap();
        DataDir::open(&dir).unwrap();
    });
}

#[test]
fn a_prepared_folder_is_opened_and_its_start_counted_on_a_full_disk() {
    let test = "a_prepared_folder_is_opened_and_its_start_counted_on_a_full_disk";
    on_small_disk(test, "256k", |disk| {
        let dir = disk.join("data");
        prepare(&dir).unwrap();
        let ballast = fill(disk);
        let mut last = 0;
        for _ in 0..5 {
            let data = DataDir::open(&dir).unwrap();
            let _lock = data.lock().unwrap();
            let (mut journal, recovered) = Journal::open(&data.journal(), CLUSTER).unwrap();
            assert_eq!(recovered.records, [b"the first event"]);
            assert!(journal.opening() > last, "start {} after {last}", journal.opening());
            last = journal.opening();
            assert!(matches!(journal.append(&[&[1; 9000]]), Err(JournalError::DiskFull { .. })));
        }
        std::fs::remove_file(ballast).unwrap();
        let (mut journal, _) = Journal::open(&dir.join("journal"), CLUSTER).unwrap();
        journal.append(&[&[1; 9000]]).unwrap();
    });
}
