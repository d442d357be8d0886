//! Power cuts at every operation of a journal's life: nothing acknowledged is lost, and the
//! journal always opens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod disk;

use std::path::Path;
use std::sync::Arc;

use disk::{Fate, PowerDisk};
use model::ClusterId;
use store::Journal;
use store::fs::Fs as _;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 32]);
const DIR: &str = "/journal";

/// Small, so that a scenario of 50 appends goes through several segments.
const SEGMENT_BYTES: u64 = 4096;

/// The records of the append with this number: one to three, from one byte to some sectors.
fn group(number: usize) -> Vec<Vec<u8>> {
    (0..=number % 3)
        .map(|part| vec![u8::try_from(number + part).unwrap(); 1 + (number * 131 + part * 977) % 1500])
        .collect()
}

fn open(disk: &PowerDisk) -> Result<(Journal, Vec<Vec<u8>>), store::JournalError> {
    let (journal, recovered) =
        Journal::open_with(Arc::new(disk.clone()), Path::new(DIR), CLUSTER, SEGMENT_BYTES)?;
    Ok((journal, recovered.records))
}

/// What a run came to before the power failed.
#[derive(Default)]
struct Run {
    acknowledged: Vec<Vec<u8>>,
    /// The records of the append that the power failed in.
    in_flight: Vec<Vec<u8>>,
}

fn append(journal: &mut Journal, records: &[Vec<u8>]) -> Result<(), store::JournalError> {
    journal.append(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn scenario(disk: &PowerDisk, appends: usize) -> Run {
    let mut run = Run::default();
    if Journal::create_with(disk, Path::new(DIR), CLUSTER).is_err() {
        return run;
    }
    let Ok((mut journal, _)) = open(disk) else { return run };
    for number in 0..appends {
        let records = group(number);
        if append(&mut journal, &records).is_err() {
            run.in_flight = records;
            break;
        }
        run.acknowledged.extend(records);
    }
    run
}

fn fates(salt: u64) -> Vec<Fate> {
    let seeds = (0..4).map(|seed| salt * 4 + seed);
    let chances = seeds.flat_map(|seed| [Fate::Torn(seed), Fate::TornByte(seed), Fate::Subset(seed)]);
    [Fate::Lost, Fate::Kept].into_iter().chain(chances).collect()
}

/// Opens after a power cut and checks that all that was acknowledged is there, and nothing that
/// was never written. Then goes on, and opens once more.
fn check(disk: &PowerDisk, run: &Run, context: &str) {
    if disk.names(Path::new(DIR)).is_err() {
        assert!(run.acknowledged.is_empty(), "{context}: the journal is gone");
        Journal::create_with(disk, Path::new(DIR), CLUSTER).unwrap();
    }
    let (mut journal, records) = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let possible: Vec<_> = run.acknowledged.iter().chain(&run.in_flight).cloned().collect();
    assert!(records.len() >= run.acknowledged.len(), "{context}: acknowledged records are lost");
    assert!(possible.starts_with(&records), "{context}: other records than were written");
    assert_eq!(journal.count(), records.len() as u64, "{context}");
    append(&mut journal, &[b"and on".to_vec()]).unwrap();
    drop(journal);
    disk.power_cut(Fate::Lost);
    let (_, again) = open(disk).unwrap_or_else(|error| panic!("{context}, once more: {error}"));
    assert_eq!(again.len(), records.len() + 1, "{context}");
    assert_eq!(again.last().map(Vec::as_slice), Some(b"and on".as_slice()), "{context}");
}

#[test]
fn no_power_cut_at_any_operation_loses_what_was_acknowledged() {
    // Goal: acknowledged is durable, and a pure crash is never taken for damage. Method: cut the
    // power in every operation of 50 appends, with every fate of what was pending.
    const APPENDS: usize = 50;
    let mut cuts = 0;
    for operation in 0.. {
        let disk = PowerDisk::new();
        disk.cut_at(operation);
        let run = scenario(&disk, APPENDS);
        if !disk.is_off() {
            break;
        }
        cuts += 1;
        for fate in fates(operation) {
            let after = disk.copy();
            after.power_cut(fate);
            check(&after, &run, &format!("cut in operation {operation}, {fate:?}"));
        }
    }
    assert!(cuts > APPENDS * 4, "only {cuts} operations were cut");
}

#[test]
fn a_second_power_cut_while_the_journal_is_opened_loses_nothing_either() {
    let mut cuts = 0;
    for operation in (0..).step_by(3) {
        let disk = PowerDisk::new();
        disk.cut_at(operation);
        let run = scenario(&disk, 20);
        if !disk.is_off() {
            break;
        }
        for fate in fates(operation).into_iter().take(6) {
            let first = disk.copy();
            first.power_cut(fate);
            for second in 0.. {
                let opened = first.copy();
                opened.cut_at(second);
                let done = open(&opened).is_ok();
                if !opened.is_off() {
                    break;
                }
                assert!(!done, "the last operation of opening is one that can fail");
                cuts += 1;
                for fate in fates(second).into_iter().take(5) {
                    let after = opened.copy();
                    after.power_cut(fate);
                    check(&after, &run, &format!("cut in operation {operation}, then {second}, {fate:?}"));
                }
            }
        }
    }
    assert!(cuts > 100, "only {cuts} second cuts");
}

#[test]
fn what_was_found_beyond_the_mark_survives_the_next_power_cut() {
    // Goal: a record that was returned by `open` may be acted upon. Method: keep an append whose
    // mark was lost, open, cut the power with nothing pending kept.
    let disk = PowerDisk::new();
    let run = scenario(&disk, 3);
    let (mut journal, before) = open(&disk).unwrap();
    assert_eq!(before, run.acknowledged);
    disk.cut_at(1); // Write of the log, then its sync.
    append(&mut journal, &[b"late".to_vec()]).unwrap_err();
    disk.power_cut(Fate::Kept);
    let (journal, found) = open(&disk).unwrap();
    assert_eq!(found.len(), before.len() + 1);
    drop(journal);
    disk.power_cut(Fate::Lost);
    assert_eq!(open(&disk).unwrap().1, found);
}

#[test]
fn after_a_sync_that_failed_what_the_next_opening_returns_is_on_the_disk() {
    // Goal: the kernel's memory is not taken for the disk. Method: fail the log's sync, or the
    // mark's, open with the kernel's memory intact, append, and cut the power.
    for operation in [1, 3] {
        for salt in 0..8 {
            for fate in fates(salt) {
                let disk = PowerDisk::new();
                let run = scenario(&disk, 5);
                let (mut journal, _) = open(&disk).unwrap();
                disk.fail_sync_at(operation);
                append(&mut journal, &[vec![1; 1300], b"unsure".to_vec()]).unwrap_err();
                append(&mut journal, &[b"refused".to_vec()]).unwrap_err();
                drop(journal);
                let (_journal, found) = open(&disk).unwrap();
                assert_eq!(found.len(), run.acknowledged.len() + 2, "the kernel still shows them");
                let seen = Run { acknowledged: found, in_flight: vec![] };
                disk.power_cut(fate);
                check(&disk, &seen, &format!("failed sync {operation}, {fate:?}"));
            }
        }
    }
}

#[test]
fn a_file_that_is_replaced_is_the_old_or_the_new_one_after_any_power_cut() {
    let path = Path::new("/state.json");
    let (old, new) = (vec![b'o'; 1500], vec![b'n'; 2100]);
    let (mut cuts, mut news) = (0, 0);
    for operation in 0.. {
        let disk = PowerDisk::new();
        store::atomic_write_with(&disk, path, &old).unwrap();
        disk.cut_at(operation);
        let replaced = store::atomic_write_with(&disk, path, &new).is_ok();
        let ended = !disk.is_off();
        cuts += 1;
        for fate in fates(operation) {
            let after = disk.copy();
            after.power_cut(fate);
            let found = after.content(path);
            assert!(found == new || (found == old && !replaced), "cut in operation {operation}, {fate:?}");
            news += u32::from(found == new);
            store::atomic_write_with(&after, path, &old).unwrap();
        }
        if ended {
            assert!(replaced);
            break;
        }
    }
    assert!(cuts > 5 && news > 14, "{cuts} cuts, {news} times the new file");
}
