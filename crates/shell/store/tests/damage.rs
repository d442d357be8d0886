//! Damage that is no power cut: every flipped bit and every missing byte is an error that names
//! the file, never a shorter or another history.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Fate, PowerDisk};
use model::ClusterId;
use store::fs::Fs as _;
use store::{Journal, JournalError, Recovered};

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 32]);
const DIR: &str = "/journal";
const SEGMENT_BYTES: u64 = 300;

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn open(disk: &PowerDisk) -> Result<Recovered, JournalError> {
    Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES)
        .map(|(_, recovered)| recovered)
}

/// Three segments, eight appends.
fn journal() -> (PowerDisk, Vec<Vec<u8>>) {
    let disk = PowerDisk::new();
    Journal::create_with(&disk, Path::new(DIR), CLUSTER).unwrap();
    let (mut journal, _) =
        Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES).unwrap();
    let records: Vec<Vec<u8>> = (1..=8).map(|number| vec![number; usize::from(number) * 12]).collect();
    for record in &records {
        journal.append(&[record]).unwrap();
    }
    assert_eq!(disk.names(Path::new(DIR)).unwrap(), ["00000001.log", "00000002.log", "00000003.log", "mark"]);
    (disk, records)
}

/// `journal`, opened and closed at rest: both slots of the mark are of its end.
fn journal_at_rest() -> (PowerDisk, Vec<Vec<u8>>) {
    let (disk, records) = journal();
    open(&disk).unwrap();
    (disk, records)
}

fn damaged(
    disk: &PowerDisk,
    name: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<Recovered, JournalError> {
    let copy = disk.copy();
    copy.damage(&path(name), change);
    open(&copy)
}

#[test]
fn every_flipped_bit_is_an_error_that_names_the_file_or_changes_nothing() {
    for (disk, records) in [journal(), journal_at_rest()] {
        for name in ["00000001.log", "00000002.log", "00000003.log", "mark"] {
            for byte in 0..disk.content(&path(name)).len() {
                for bit in 0..8 {
                    match damaged(&disk, name, |content| content[byte] ^= 1 << bit) {
                        Err(error) => {
                            let text = error.to_string();
                            assert!(
                                text.contains(name) || text.contains("mark"),
                                "{name} {byte}.{bit}: {text}"
                            );
                        }
                        // The mark is there twice; nothing else may be changed unnoticed.
                        Ok(found) => {
                            assert_eq!(name, "mark", "byte {byte}, bit {bit} was not noticed");
                            assert_eq!((found.records, found.torn_bytes), (records.clone(), 0));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_byte_set_to_zero_or_to_ff_is_noticed() {
    let (disk, records) = journal();
    for name in ["00000001.log", "00000002.log", "00000003.log", "mark"] {
        for byte in 0..disk.content(&path(name)).len() {
            for value in [0, 0xff] {
                let same = disk.content(&path(name))[byte] == value;
                match damaged(&disk, name, |content| content[byte] = value) {
                    Err(_) => assert!(!same, "{name} {byte}"),
                    Ok(found) => {
                        assert!(same || name == "mark", "{name} {byte} = {value}");
                        assert_eq!(found.records, records);
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_that_names_it() {
    let (disk, _) = journal();
    for name in ["00000001.log", "00000002.log", "00000003.log", "mark"] {
        for length in 0..disk.content(&path(name)).len() {
            let error = damaged(&disk, name, |content| content.truncate(length)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name), "{name} of {length} bytes: {text}");
            assert_eq!(matches!(error, JournalError::Empty { .. }), length == 0, "{text}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_cut_off_and_counted() {
    let (disk, records) = journal();
    let length = disk.content(&path("00000003.log")).len();
    let copy = disk.copy();
    copy.damage(&path("00000003.log"), |content| content.extend_from_slice(&[9; 77]));
    assert_eq!(open(&copy).unwrap(), Recovered { records, torn_bytes: 77 });
    assert_eq!(copy.content(&path("00000003.log")).len(), length);
    // Not the end: the segments before are complete.
    let error = damaged(&disk, "00000002.log", |content| content.extend_from_slice(&[9; 77])).unwrap_err();
    assert!(error.to_string().contains("00000002.log"), "{error}");
}

#[test]
fn a_record_repeated_after_the_end_is_not_taken_for_a_new_one() {
    let (disk, records) = journal();
    let last = 32 + records.last().unwrap().len();
    let repeat = |content: &mut Vec<u8>| content.extend_from_within(content.len() - last..);
    let found = damaged(&disk, "00000003.log", repeat).unwrap();
    assert_eq!(found, Recovered { records, torn_bytes: last as u64 });
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let (disk, _) = journal();
    for name in ["00000001.log", "00000002.log", "00000003.log", "mark"] {
        let copy = disk.copy();
        copy.remove_file(&path(name)).unwrap();
        let error = open(&copy).unwrap_err();
        assert!(
            matches!(error, JournalError::Corrupted { .. }) && error.to_string().contains(name),
            "{error}"
        );
    }
    let error = open(&PowerDisk::new()).unwrap_err();
    assert!(matches!(error, JournalError::Missing { .. }), "{error}");
}

#[test]
fn a_mark_with_no_readable_slot_is_an_error_that_names_the_mark() {
    let (disk, _) = journal();
    let error = damaged(&disk, "mark", |content| content.fill(0)).unwrap_err();
    assert!(error.to_string().contains("mark"), "{error}");
    let swapped = damaged(&disk, "mark", |content| content.rotate_left(512)).unwrap_err();
    assert!(swapped.to_string().contains("mark"), "{swapped}");
}

#[test]
fn swapped_segments_are_told_from_damage() {
    let (disk, _) = journal();
    for (from, to) in [("00000001.log", "x"), ("00000002.log", "00000001.log"), ("x", "00000002.log")] {
        disk.rename(&path(from), &path(to)).unwrap();
    }
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, JournalError::Swapped { expected: 1, found: 2, .. }), "{error}");
}

#[test]
fn a_segment_of_an_older_copy_of_the_journal_does_not_fit_in() {
    // A restored backup of one file: whole by itself, but of another history.
    let (disk, _) = journal();
    let other = PowerDisk::new();
    Journal::create_with(&other, Path::new(DIR), CLUSTER).unwrap();
    let (mut journal, _) =
        Journal::open_with(Arc::new(other.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES).unwrap();
    for number in 11..=18_u8 {
        journal.append(&[&vec![number; usize::from(number - 10) * 12]]).unwrap();
    }
    for name in ["00000001.log", "00000002.log", "00000003.log", "mark"] {
        let foreign = other.content(&path(name));
        assert!(damaged(&disk, name, |content| *content = foreign).is_err(), "{name}");
    }
}

#[test]
fn the_journal_of_another_cluster_is_not_opened() {
    let (disk, _) = journal();
    let other = ClusterId::from_bytes([8; 32]);
    let error = Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), other, SEGMENT_BYTES).unwrap_err();
    assert!(matches!(error, JournalError::OtherCluster { expected, .. } if expected == other), "{error}");
}

/// Writes another version into a sealed structure.
fn set_version(structure: &mut [u8], version: u32) {
    structure[8..12].copy_from_slice(&version.to_le_bytes());
    let (body, crc) = structure.split_last_chunk_mut::<4>().unwrap();
    *crc = crc32c::crc32c(body).to_le_bytes();
}

#[test]
fn a_journal_of_a_newer_release_is_told_from_damage() {
    let (disk, _) = journal();
    let error = damaged(&disk, "00000002.log", |content| set_version(&mut content[..80], 2)).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 2, .. }), "{error}");
    for slot in [0..512, 512..1024] {
        let error = damaged(&disk, "mark", |content| set_version(&mut content[slot], 3)).unwrap_err();
        assert!(matches!(error, JournalError::Newer { found: 3, .. }), "{error}");
    }
}

#[test]
fn a_journal_with_one_damaged_slot_goes_on_and_heals() {
    let (disk, mut records) = journal();
    for slot in 0..2 {
        let copy = disk.copy();
        copy.damage(&path("mark"), |content| content[slot * 512 + 40] ^= 1);
        let (mut journal, _) =
            Journal::open_with(Arc::new(copy.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES).unwrap();
        journal.append(&[b"more"]).unwrap();
        records.push(b"more".to_vec());
        // Now the other slot may go.
        copy.damage(&path("mark"), |content| content[(1 - slot) * 512 + 40] ^= 1);
        assert_eq!(open(&copy).unwrap().records, records);
        records.pop();
    }
}

fn opening(disk: &PowerDisk) -> (u64, bool) {
    let opened = Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES);
    let (journal, _) = opened.unwrap();
    (journal.opening(), journal.is_mended())
}

#[test]
fn no_damage_to_the_mark_makes_an_opening_have_a_number_twice() {
    // Goal: a start counter never repeats. Method: spoil each slot in each way after every opening,
    // over and over, and look at all numbers that were given out.
    type Spoil = fn(&mut [u8]);
    let ways: [Spoil; 4] =
        [|slot| slot[100] ^= 1, |slot| slot.fill(0), |slot| slot[256..].fill(0), |slot| slot.fill(0xff)];
    for appends in 0..3_u8 {
        for way in ways {
            // Which slot is spoilt after which opening: every sequence of four choices of three.
            for choices in 0..81_u32 {
                let disk = PowerDisk::new();
                Journal::create_with(&disk, Path::new(DIR), CLUSTER).unwrap();
                let mut given = Vec::new();
                for turn in 0..4 {
                    let (mut journal, _) =
                        Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES)
                            .unwrap();
                    given.push(journal.opening());
                    for _ in 0..appends {
                        journal.append(&[b"x"]).unwrap();
                    }
                    drop(journal);
                    match choices / 3_u32.pow(turn) % 3 {
                        0 => {}
                        slot => {
                            let from = (slot as usize - 1) * 512;
                            disk.damage(&path("mark"), |mark| way(&mut mark[from..from + 512]));
                            let (number, mended) = opening(&disk);
                            assert!(mended, "a slot that cannot be read is told");
                            given.push(number);
                        }
                    }
                }
                assert!(given.is_sorted_by(|a, b| a < b), "{appends} appends, choices {choices}: {given:?}");
            }
        }
    }
}

#[test]
fn an_opening_that_a_power_cut_meets_gives_no_number_that_was_given_before() {
    // Goal: the same while marks are mended. Method: spoil a slot, cut the power in every operation
    // of opening, with every fate, and open again; then spoil either slot and open once more.
    for slot in [0, 512] {
        for operation in 0..8 {
            for fate in [
                Fate::Lost,
                Fate::Kept,
                Fate::Torn(operation),
                Fate::TornByte(operation),
                Fate::Subset(operation),
            ] {
                let (disk, _) = journal_at_rest();
                let mut given = vec![opening(&disk).0];
                disk.damage(&path("mark"), |mark| mark[slot..slot + 512].fill(9));
                disk.cut_at(operation);
                let opened =
                    Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES);
                given.extend(opened.ok().map(|(journal, _)| journal.opening()));
                disk.power_cut(fate);
                given.push(opening(&disk).0);
                for slot in [0, 512] {
                    disk.damage(&path("mark"), |mark| mark[slot..slot + 512].fill(7));
                    given.push(opening(&disk).0);
                }
                assert!(
                    given.is_sorted_by(|a, b| a < b),
                    "slot {slot}, cut {operation}, {fate:?}: {given:?}"
                );
            }
        }
    }
}
