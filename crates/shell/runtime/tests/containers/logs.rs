//! The log.

use std::fs;

use runtime::LogLimits;

use crate::world::World;

pub(crate) const CASES: &[super::Case] = &[
    (
        "both_streams_are_logged_with_times_in_the_documented_form",
        both_streams_are_logged_with_times_in_the_documented_form,
    ),
    (
        "a_log_rotates_within_its_bounds_and_keeps_the_newest_lines",
        a_log_rotates_within_its_bounds_and_keeps_the_newest_lines,
    ),
    ("all_that_was_written_before_the_end_is_in_the_log", all_that_was_written_before_the_end_is_in_the_log),
    ("a_full_disk_does_not_hold_the_program_up", a_full_disk_does_not_hold_the_program_up),
];

fn both_streams_are_logged_with_times_in_the_documented_form() {
    let world = World::new();
    let exit = world.run(&world.spec("a1", &["streams"]));
    let mut log = world.log("a1");
    log.sort_by_key(|it| it.text.clone());
    let seen: Vec<_> = log.iter().map(|it| (it.stream, it.whole, it.text.as_str())).collect();
    assert_eq!(seen, [('o', true, "no newline"), ('e', true, "to err"), ('o', true, "to out")]);
    assert!(
        log.iter().all(|it| (exit.started_ms - 1000..=exit.exited_ms).contains(&it.ms)),
        "{log:?} {exit:?}"
    );
}

fn a_log_rotates_within_its_bounds_and_keeps_the_newest_lines() {
    let world = World::new();
    let mut spec = world.spec("a2", &["spam", "9000"]);
    spec.log = LogLimits { file_b_max: 40_000, files_max: 3 };
    world.run(&spec);
    let files = world.runtime.log_files("a2").unwrap();
    assert_eq!(files.len(), 3);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 40_000, "{}", file.display());
    }
    let log = world.log("a2");
    let expected: Vec<_> = (9000 - log.len()..9000).map(|number| format!("line {number}")).collect();
    assert_eq!(log.into_iter().map(|it| it.text).collect::<Vec<_>>(), expected);
}

fn all_that_was_written_before_the_end_is_in_the_log() {
    let world = World::new();
    world.run(&world.spec("a3", &["spam", "20000"]));
    assert_eq!(world.log("a3").len(), 20_000);
}

fn a_full_disk_does_not_hold_the_program_up() {
    let world = World::new();
    // A folder in place of the log cannot be appended to, as a full disk cannot.
    let spec = world.spec("a4", &["spam", "20000"]);
    world.runtime.write_spec(&spec).unwrap();
    let log = world.dir.path().join("run/a4/log");
    fs::create_dir(&log).unwrap();
    world.runtime.start("a4").unwrap();
    let exit = world.runtime.wait_blocking("a4", Some(crate::world::PATIENCE)).unwrap();
    assert_eq!(exit.code, Some(0));
}
