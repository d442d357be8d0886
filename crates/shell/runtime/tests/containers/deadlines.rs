//! Containers that may run until some moment and no longer, whatever becomes of who started them.

use std::time::{Duration, Instant};

use runtime::boot_now_ns;

use crate::world::World;

pub(crate) const CASES: &[super::Case] = &[
    ("a_container_is_killed_at_its_end_and_no_grace_is_given", a_container_is_killed_at_its_end),
    ("an_end_that_is_moved_on_in_time_holds_and_one_that_is_over_stays", an_end_that_is_moved_on),
    ("what_may_run_no_longer_is_not_started", what_may_run_no_longer_is_not_started),
    ("a_program_finds_its_number_in_a_file", a_program_finds_its_number_in_a_file),
];

fn after(span: Duration) -> u64 {
    boot_now_ns() + u64::try_from(span.as_nanos()).unwrap()
}

fn a_container_is_killed_at_its_end() {
    let world = World::new();
    let mut spec = world.spec("d1", &["stubborn"]);
    spec.until_boot_ns = Some(after(Duration::from_millis(1_500)));
    let begin = Instant::now();
    let exit = world.run(&spec);
    assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGKILL)));
    assert!(begin.elapsed() >= Duration::from_millis(1_400), "it ended after {:?}", begin.elapsed());
}

fn an_end_that_is_moved_on() {
    let world = World::new();
    let mut spec = world.spec("d2", &["sleep"]);
    spec.until_boot_ns = Some(after(Duration::from_secs(2)));
    world.start(&spec);
    world.runtime.extend("d2", after(Duration::from_secs(4))).unwrap();
    // An earlier end changes nothing.
    world.runtime.extend("d2", after(Duration::from_secs(1))).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(world.is_running("d2"), "it was killed at its first end");
    let exit = world.runtime.wait_blocking("d2", Some(Duration::from_secs(20))).unwrap();
    assert_eq!((exit.signal, exit.overdue), (Some(libc::SIGKILL), true));
    // A container without an end is given none.
    world.start(&world.spec("d3", &["sleep"]));
    world.runtime.extend("d3", boot_now_ns()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(world.is_running("d3"));
}

fn what_may_run_no_longer_is_not_started() {
    let world = World::new();
    let mut spec = world.spec("d4", &["sleep"]);
    spec.until_boot_ns = Some(boot_now_ns());
    world.runtime.write_spec(&spec).unwrap();
    let error = world.runtime.start("d4").unwrap_err();
    assert!(error.to_string().contains("was over before its program ran"), "{error}");
    assert!(!world.is_running("d4"));
}

fn a_program_finds_its_number_in_a_file() {
    let world = World::new();
    let mut spec = world.spec("0a", &["cat", "/etc/skerry-fence"]);
    spec.fence = Some(41);
    assert_eq!(world.output_of(&spec), "41\n");
}
