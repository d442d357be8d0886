//! Disks that fail or are full, on the machine's own file system.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::ClusterId;
use store::faults::{FaultyFs, Operation};
use store::{APPEND_BYTES_MAX, Journal, JournalError, RECORD_BYTES_MAX, Recovered};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 32]);

fn journal(segment_bytes: u64) -> (TempDir, PathBuf, FaultyFs, Journal) {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("journal");
    Journal::create(&dir, CLUSTER).unwrap();
    let fs = FaultyFs::new();
    let (journal, _) = Journal::open_with(Arc::new(fs.clone()), &dir, CLUSTER, segment_bytes).unwrap();
    (temp, dir, fs, journal)
}

fn reopen(dir: &Path) -> Recovered {
    Journal::open(dir, CLUSTER).unwrap().1
}

#[test]
fn records_read_back_in_order_across_segments() {
    let (_temp, dir, _fs, mut journal) = journal(1000);
    let records: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 100 + usize::from(n)]).collect();
    for group in records.chunks(3) {
        journal.append(&group.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(journal.count(), 100);
    let bytes: u64 = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "mark")
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(journal.len_bytes(), bytes);
    drop(journal);
    let (again, recovered) = Journal::open(&dir, CLUSTER).unwrap();
    assert_eq!(recovered, Recovered { records, torn_bytes: 0 });
    assert_eq!((again.count(), again.len_bytes()), (100, bytes));
}

#[test]
fn a_full_disk_keeps_nothing_of_the_append_and_lets_the_next_one_succeed() {
    let (_temp, dir, fs, mut journal) = journal(1 << 20);
    journal.append(&[b"one"]).unwrap();
    fs.fail(Operation::Write, 0, 1, ErrorKind::StorageFull);
    let error = journal.append(&[&[b'x'; 5000], b"y"]).unwrap_err();
    assert!(matches!(&error, JournalError::DiskFull { .. }), "{error}");
    assert_eq!(journal.count(), 1);
    journal.append(&[b"two"]).unwrap();
    drop(journal);
    assert_eq!(reopen(&dir), Recovered { records: vec![b"one".to_vec(), b"two".to_vec()], torn_bytes: 0 });
}

#[test]
fn a_disk_that_is_full_when_a_segment_begins_does_not_poison_the_journal() {
    for operation in [Operation::Create, Operation::Write] {
        let (_temp, dir, fs, mut journal) = journal(10);
        journal.append(&[b"one"]).unwrap();
        fs.fail(operation, 0, 2, ErrorKind::StorageFull);
        for _ in 0..2 {
            let error = journal.append(&[b"no room"]).unwrap_err();
            assert!(matches!(&error, JournalError::DiskFull { .. }), "{error}");
        }
        journal.append(&[b"two"]).unwrap();
        assert_eq!(reopen(&dir).records, [b"one".to_vec(), b"two".to_vec()]);
    }
}

#[test]
fn after_a_failed_write_or_sync_the_journal_takes_nothing_more_until_it_is_opened_again() {
    let cases = [
        (Operation::Write, 0, ErrorKind::Other), // The log.
        (Operation::Sync, 0, ErrorKind::Other),
        (Operation::Sync, 0, ErrorKind::StorageFull), // Too late to be sure of anything.
        (Operation::Write, 1, ErrorKind::Other),      // The mark.
        (Operation::Write, 1, ErrorKind::StorageFull),
        (Operation::Sync, 1, ErrorKind::Other),
    ];
    for (operation, passes, kind) in cases {
        let (_temp, dir, fs, mut journal) = journal(1 << 20);
        journal.append(&[b"one"]).unwrap();
        fs.fail(operation, passes, 1, kind);
        let error = journal.append(&[b"lost or not"]).unwrap_err();
        assert!(matches!(&error, JournalError::Io { .. }), "{operation:?} {passes}: {error}");
        let error = journal.append(&[b"never"]).unwrap_err();
        assert!(matches!(&error, JournalError::Poisoned { .. }), "{operation:?} {passes}: {error}");
        drop(journal);
        let (mut journal, found) = Journal::open(&dir, CLUSTER).unwrap();
        assert_eq!(found.records[0], b"one");
        assert!(found.records.len() == 1 || found.records[1..] == [b"lost or not".to_vec()]);
        journal.append(&[b"two"]).unwrap();
    }
}

#[test]
fn a_full_disk_that_cannot_be_tidied_poisons_the_journal() {
    for operation in [Operation::SetLength, Operation::Sync] {
        let (_temp, dir, fs, mut journal) = journal(1 << 20);
        journal.append(&[b"one"]).unwrap();
        fs.fail(Operation::Write, 0, 1, ErrorKind::StorageFull);
        fs.fail(operation, 0, 1, ErrorKind::Other);
        assert!(matches!(journal.append(&[&[1; 500]]), Err(JournalError::Io { .. })));
        assert!(matches!(journal.append(&[b"two"]), Err(JournalError::Poisoned { .. })));
        drop(journal);
        assert_eq!(reopen(&dir).records, [b"one".to_vec()]);
    }
}

#[test]
fn a_segment_that_cannot_be_begun_poisons_the_journal_and_loses_nothing() {
    for operation in [Operation::Create, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let (_temp, dir, fs, mut journal) = journal(10);
        journal.append(&[b"one"]).unwrap();
        fs.fail(operation, 0, 1, ErrorKind::Other);
        assert!(matches!(journal.append(&[b"two"]), Err(JournalError::Io { .. })), "{operation:?}");
        assert!(matches!(journal.append(&[b"two"]), Err(JournalError::Poisoned { .. })));
        drop(journal);
        let (mut journal, found) = Journal::open(&dir, CLUSTER).unwrap();
        assert_eq!(found.records, [b"one".to_vec()]);
        journal.append(&[b"two"]).unwrap();
        assert!(
            !std::fs::read_dir(&dir)
                .unwrap()
                .any(|it| it.unwrap().path().extension() == Some("tmp".as_ref()))
        );
    }
}

#[test]
fn records_that_are_empty_or_too_large_are_refused_and_harm_nothing() {
    let (_temp, dir, _fs, mut journal) = journal(1 << 20);
    let largest = vec![1; RECORD_BYTES_MAX];
    journal.append(&[&largest]).unwrap();
    assert!(matches!(journal.append(&[b"a", &[]]), Err(JournalError::Size { bytes: 0, .. })));
    assert!(matches!(journal.append(&[&vec![0; RECORD_BYTES_MAX + 1]]), Err(JournalError::Size { .. })));
    let many = vec![largest.as_slice(); APPEND_BYTES_MAX / RECORD_BYTES_MAX];
    assert!(matches!(journal.append(&many), Err(JournalError::Size { what: "an append", .. })));
    journal.append(&[]).unwrap();
    journal.append(&[b"last"]).unwrap();
    assert_eq!(reopen(&dir).records, [largest, b"last".to_vec()]);
}
