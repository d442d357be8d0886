//! The data folder: prepared once, for one node, used by one peer, counting its starts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use model::{ClusterId, NodeId};
use store::{
    CreateError, DataDir, Format, GenerationError, Journal, LockError, OpenError, atomic_write, read_json,
};
use tempfile::TempDir;

fn format(node: u8) -> Format {
    Format {
        cluster: ClusterId::from_bytes([7; 32]),
        node: NodeId::from_bytes([node; 32]),
        name: "kiosk-1".parse().unwrap(),
    }
}

fn place() -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("deep/data");
    (temp, dir)
}

#[test]
fn a_prepared_folder_opens_as_what_it_was_prepared_for_and_is_private() {
    let (_temp, dir) = place();
    DataDir::create(&dir, format(1)).unwrap();
    let data = DataDir::open(&dir).unwrap();
    assert_eq!(data.format(), &format(1));
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let (journal, recovered) = Journal::open(&data.journal(), format(1).cluster).unwrap();
    assert_eq!((journal.count(), recovered.records.len()), (0, 0));
}

#[test]
fn preparing_twice_is_refused_and_says_whose_it_is() {
    let (_temp, dir) = place();
    DataDir::create(&dir, format(1)).unwrap();
    let error = DataDir::create(&dir, format(2)).unwrap_err();
    assert!(matches!(error, CreateError::AlreadyPrepared { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("kiosk-1") && text.contains("01010101") && text.contains("07070707"), "{text}");
    assert_eq!(DataDir::open(&dir).unwrap().format(), &format(1));
}

#[test]
fn a_folder_that_nobody_prepared_says_what_to_run() {
    let (temp, dir) = place();
    for dir in [dir.as_path(), temp.path()] {
        let error = DataDir::open(dir).unwrap_err();
        assert!(error.to_string().contains("`skerry init` or `skerry join`"), "{error}");
    }
}

#[test]
fn a_preparation_that_was_cut_off_can_be_begun_anew_for_another_node() {
    let (_temp, dir) = place();
    DataDir::create(&dir, format(1)).unwrap();
    std::fs::remove_file(dir.join("format.json")).unwrap();
    std::fs::write(dir.join(".key.0123456789ab"), "a key that was being made").unwrap();
    let other = Format { cluster: ClusterId::from_bytes([9; 32]), ..format(2) };
    DataDir::create(&dir, other.clone()).unwrap();
    Journal::open(&dir.join("journal"), other.cluster).unwrap();
}

#[test]
fn a_journal_with_records_is_never_written_over() {
    let (_temp, dir) = place();
    let data = DataDir::create(&dir, format(1)).unwrap();
    let (mut journal, _) = Journal::open(&data.journal(), format(1).cluster).unwrap();
    journal.append(&[b"a", b"b"]).unwrap();
    std::fs::remove_file(dir.join("format.json")).unwrap();
    let error = DataDir::create(&dir, format(1)).unwrap_err();
    assert!(matches!(error, CreateError::Records { records: 2, .. }), "{error}");
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_as_it_was() {
    let temp = TempDir::new().unwrap();
    std::fs::write(temp.path().join("letter.txt"), "dear").unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = DataDir::create(temp.path(), format(1)).unwrap_err();
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert_eq!(std::fs::metadata(temp.path()).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_of_a_newer_release_is_refused_by_its_number_whatever_else_it_says() {
    let (_temp, dir) = place();
    DataDir::create(&dir, format(1)).unwrap();
    atomic_write(&dir.join("format.json"), br#"{"format": 2, "cluster": {"new": "shape"}}"#).unwrap();
    let error = DataDir::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("newer Skerry"), "{error}");
    assert!(matches!(DataDir::create(&dir, format(1)), Err(CreateError::Unreadable { .. })));
}

#[test]
fn a_damaged_format_file_is_named() {
    let (_temp, dir) = place();
    DataDir::create(&dir, format(1)).unwrap();
    let path = dir.join("format.json");
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = DataDir::open(&dir).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("format.json"), "{length}: {cause}");
    }
}

#[test]
fn only_one_holder_has_the_lock_and_the_other_is_told_its_pid() {
    let (_temp, dir) = place();
    let data = DataDir::create(&dir, format(1)).unwrap();
    let lock = data.lock().unwrap();
    let error = data.lock().unwrap_err();
    assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    data.lock().unwrap();
}

#[test]
fn a_folder_that_is_being_prepared_by_another_process_is_left_to_it() {
    let (_temp, dir) = place();
    let data = DataDir::create(&dir, format(1)).unwrap();
    let _lock = data.lock().unwrap();
    std::fs::remove_file(dir.join("format.json")).unwrap();
    let error = DataDir::create(&dir, format(2)).unwrap_err();
    assert!(matches!(error, CreateError::Lock(LockError::Held { .. })), "{error}");
}

#[test]
fn starts_are_counted_from_one_and_on_disk() {
    let (_temp, dir) = place();
    let data = DataDir::create(&dir, format(1)).unwrap();
    assert_eq!(data.next_generation().unwrap(), 1);
    assert_eq!(DataDir::open(&dir).unwrap().next_generation().unwrap(), 2);
    assert_eq!(data.next_generation().unwrap(), 3);
}

#[test]
fn a_damaged_or_missing_start_counter_is_an_error_and_never_an_earlier_number() {
    let (_temp, dir) = place();
    let data = DataDir::create(&dir, format(1)).unwrap();
    for _ in 0..17 {
        data.next_generation().unwrap();
    }
    let path = dir.join("generation");
    let whole = std::fs::read(&path).unwrap();
    for byte in 0..whole.len() {
        for bit in 0..8 {
            let mut text = whole.clone();
            text[byte] ^= 1 << bit;
            std::fs::write(&path, text).unwrap();
            let error = data.next_generation().unwrap_err();
            assert!(matches!(error, GenerationError::Corrupted { .. }), "{byte}.{bit}: {error}");
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(data.next_generation(), Err(GenerationError::Corrupted { .. })));
    std::fs::write(&path, whole).unwrap();
    assert_eq!(data.next_generation().unwrap(), 18);
}

#[test]
fn a_file_is_replaced_whole_and_read_with_errors_that_name_it() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("list.json");
    assert!(read_json::<Vec<u8>>(&path).unwrap_err().is_not_found());
    atomic_write(&path, b"[1, 2]").unwrap();
    atomic_write(&path, b"[3]").unwrap();
    assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), [3]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "no draft is left");
    atomic_write(&path, b"[3").unwrap();
    let error = read_json::<Vec<u8>>(&path).unwrap_err();
    assert!(error.to_string().contains("list.json") && !error.is_not_found(), "{error}");
    let error = atomic_write(&temp.path().join("no/such"), b"").unwrap_err();
    assert!(error.to_string().contains("no/such.tmp"), "{error}");
}
