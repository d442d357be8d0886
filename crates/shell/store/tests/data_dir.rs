//! The data folder: prepared once, for one node, used by one peer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use model::{ClusterId, NodeId};
use store::{
    CreateError, DataDir, Draft, Format, Journal, LockError, OpenError, Secret, atomic_write, read_json,
};
use tempfile::TempDir;

fn format(node: u8) -> Format {
    Format {
        cluster: ClusterId::from_bytes([7; 32]),
        node: NodeId::from_bytes([node; 32]),
        name: "kiosk-1".parse().unwrap(),
    }
}

fn prepare(dir: &Path, format: &Format) -> Result<DataDir, CreateError> {
    let draft = Draft::begin(dir)?;
    if draft.secret(Secret::Key)?.is_none() {
        draft.put_secret(Secret::Key, b"a key")?;
    }
    draft.finish(format, &[b"first".to_vec()], "settings")
}

fn place() -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("deep/data");
    (temp, dir)
}

#[test]
fn a_prepared_folder_opens_as_what_it_was_prepared_for_and_is_private() {
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
    let data = DataDir::open(&dir).unwrap();
    assert_eq!(data.format(), &format(1));
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let (journal, recovered) = Journal::open(&data.journal(), format(1).cluster).unwrap();
    assert_eq!((journal.count(), recovered.records), (1, vec![b"first".to_vec()]));
}

#[test]
fn preparing_twice_is_refused_and_says_whose_it_is() {
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
    let error = prepare(&dir, &format(2)).unwrap_err();
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
fn a_folder_with_a_key_and_nothing_else_says_to_run_the_same_command_again() {
    let (_temp, dir) = place();
    let draft = Draft::begin(&dir).unwrap();
    assert!(matches!(DataDir::open(&dir), Err(OpenError::NotPrepared { .. })));
    draft.put_secret(Secret::Key, b"a key").unwrap();
    let error = DataDir::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::HalfPrepared { .. }), "{error}");
    assert!(error.to_string().contains("run the same command again"), "{error}");
}

#[test]
fn a_draft_is_taken_up_with_its_key_and_nothing_else_of_it_also_for_another_cluster() {
    // Goal: two tries are never mixed. Method: a folder as it is one step before its end.
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
    std::fs::rename(dir.join("format.json"), dir.join("draft.json")).unwrap();
    let error = DataDir::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::HalfPrepared { .. }), "{error}");
    let other = Format { cluster: ClusterId::from_bytes([9; 32]), ..format(2) };
    let draft = Draft::begin(&dir).unwrap();
    assert_eq!(draft.secret(Secret::Key).unwrap().unwrap().bytes, b"a key");
    draft.finish(&other, &[b"second".to_vec()], "other settings").unwrap();
    assert_eq!(DataDir::open(&dir).unwrap().format(), &other);
    let (_, recovered) = Journal::open(&dir.join("journal"), other.cluster).unwrap();
    assert_eq!(recovered.records, [b"second"]);
    assert_eq!(std::fs::read(dir.join("peer.toml")).unwrap(), b"other settings");
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["format.json", "journal", "key", "lock", "peer.toml"], "nothing of a draft is left");
}

#[test]
fn a_node_that_has_lost_its_format_file_is_no_draft_and_is_not_written_over() {
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
    std::fs::remove_file(dir.join("format.json")).unwrap();
    let error = DataDir::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::FormatLost { .. }), "{error}");
    assert!(error.to_string().contains("format.json` is missing"), "{error}");
    assert!(matches!(prepare(&dir, &format(1)), Err(CreateError::Unreadable { .. })));
    let (_, recovered) = Journal::open(&dir.join("journal"), format(1).cluster).unwrap();
    assert_eq!(recovered.records, [b"first"]);
}

#[test]
fn without_a_key_only_what_comes_before_it_is_ours() {
    for (name, content, ours) in [
        ("lock", "17\n", true),
        ("lock", "", true),
        ("lock", "of the boat house", false),
        ("key.tmp", "half a k", true),
        ("peer.toml", "", false),
        ("draft.json", "", false),
        ("recovery.key", "", false),
    ] {
        let temp = TempDir::new().unwrap();
        std::fs::write(temp.path().join(name), content).unwrap();
        let begun = Draft::begin(temp.path());
        assert_eq!(begun.is_ok(), ours, "{name} with `{content}`: {begun:?}");
        if !ours {
            assert_eq!(std::fs::read_to_string(temp.path().join(name)).unwrap(), content);
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_as_it_was() {
    let temp = TempDir::new().unwrap();
    std::fs::write(temp.path().join("letter.txt"), "dear").unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = prepare(temp.path(), &format(1)).unwrap_err();
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert_eq!(std::fs::metadata(temp.path()).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_of_a_newer_release_is_refused_by_its_number_whatever_else_it_says() {
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
    atomic_write(&dir.join("format.json"), br#"{"format": 2, "cluster": {"new": "shape"}}"#).unwrap();
    let error = DataDir::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("newer Skerry"), "{error}");
    assert!(matches!(prepare(&dir, &format(1)), Err(CreateError::Unreadable { .. })));
}

#[test]
fn a_damaged_format_file_is_named() {
    let (_temp, dir) = place();
    prepare(&dir, &format(1)).unwrap();
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
    let data = prepare(&dir, &format(1)).unwrap();
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
    let data = prepare(&dir, &format(1)).unwrap();
    let _lock = data.lock().unwrap();
    std::fs::rename(dir.join("format.json"), dir.join("draft.json")).unwrap();
    let error = prepare(&dir, &format(2)).unwrap_err();
    assert!(matches!(error, CreateError::Lock(LockError::Held { .. })), "{error}");
}

#[test]
fn a_lock_names_its_holder_after_one_with_a_longer_id_too() {
    let (_temp, dir) = place();
    let data = prepare(&dir, &format(1)).unwrap();
    std::fs::write(dir.join("lock"), "4194304999\n").unwrap();
    let _lock = data.lock().unwrap();
    let error = data.lock().unwrap_err();
    assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
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
