//! Limits: held by the kernel, read back, and told when they strike.

use runtime::Limits;

use crate::world::{PATIENCE, World, await_that};

pub(crate) const CASES: &[super::Case] = &[
    ("limits_are_held_by_the_kernel_as_they_were_asked", limits_are_held_by_the_kernel_as_they_were_asked),
    ("want_of_memory_is_told_as_such", want_of_memory_is_told_as_such),
    (
        "want_of_memory_of_a_child_is_told_and_a_good_end_is_good",
        want_of_memory_of_a_child_is_told_and_a_good_end_is_good,
    ),
    (
        "a_fork_bomb_stays_within_its_limit_and_can_be_stopped",
        a_fork_bomb_stays_within_its_limit_and_can_be_stopped,
    ),
    ("a_busy_program_is_held_back", a_busy_program_is_held_back),
    ("usage_is_counted", usage_is_counted),
    (
        "too_little_memory_to_start_is_told_and_leaves_nothing",
        too_little_memory_to_start_is_told_and_leaves_nothing,
    ),
];

fn limits_are_held_by_the_kernel_as_they_were_asked() {
    let world = World::new();
    for (number, limits) in [
        Limits { cpu_m: 250, memory_b: 32 << 20, pids: 16 },
        Limits { cpu_m: 7, memory_b: 8 << 20, pids: 2 },
        Limits { cpu_m: 3500, memory_b: 1 << 30, pids: 30_000 },
        Limits::default(),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("a{number}");
        let mut spec = world.spec(&id, &["sleep"]);
        spec.limits = limits;
        world.start(&spec);
        assert_eq!(world.runtime.read_limits(&id).unwrap(), limits);
        world.runtime.kill(&id).unwrap();
    }
    // Memory is counted in pages.
    let mut spec = world.spec("b0", &["sleep"]);
    spec.limits.memory_b = (16 << 20) + 100;
    world.start(&spec);
    assert_eq!(world.runtime.read_limits("b0").unwrap().memory_b, 16 << 20);
}

fn want_of_memory_is_told_as_such() {
    let world = World::new();
    let mut spec = world.spec("a1", &["eat", "200"]);
    spec.limits.memory_b = 24 << 20;
    let exit = world.run(&spec);
    assert!(exit.oom);
    assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGKILL)));
    // Enough of it: no such thing.
    spec.args[2] = "5".into();
    world.start(&spec);
    world.await_log("a1", "fed");
    let exit = world.runtime.kill("a1").unwrap();
    assert!(!exit.oom);
}

fn want_of_memory_of_a_child_is_told_and_a_good_end_is_good() {
    let world = World::new();
    let mut spec = world.spec("a2", &["eat-in-child", "5"]);
    spec.limits.memory_b = 24 << 20;
    let exit = world.run(&spec);
    // v2 kills all of the container, v1 the child alone.
    assert!(exit.oom, "{exit:?}");
    assert!(exit.code == Some(5) || exit.signal == Some(libc::SIGKILL), "{exit:?}");
    if exit.code == Some(5) {
        assert_eq!(world.log("a2")[0].text, "child 9");
        spec.args[2] = "0".into();
        assert!(!world.run(&spec).oom);
    }
}

fn a_fork_bomb_stays_within_its_limit_and_can_be_stopped() {
    let world = World::new();
    let mut spec = world.spec("a3", &["bomb"]);
    spec.limits.pids = 20;
    world.start(&spec);
    // Init and the program itself are among the twenty.
    world.await_log("a3", "made 18");
    assert_eq!(world.runtime.stats("a3").unwrap().pids, Some(20));
    let exit = world.runtime.stop("a3", PATIENCE).unwrap();
    assert_eq!(exit.signal, Some(libc::SIGTERM));
}

fn a_busy_program_is_held_back() {
    let world = World::new();
    let mut spec = world.spec("a4", &["burn"]);
    spec.limits.cpu_m = 50;
    world.start(&spec);
    await_that("the limit to strike", || world.runtime.stats("a4").unwrap().throttled >= Some(3));
    let stats = world.runtime.stats("a4").unwrap();
    assert!(stats.throttled_usec > Some(0), "{stats:?}");
}

fn usage_is_counted() {
    let world = World::new();
    world.start(&world.spec("a5", &["eat", "10"]));
    world.await_log("a5", "fed");
    let stats = world.runtime.stats("a5").unwrap();
    assert!(stats.cpu_usec > 0, "{stats:?}");
    assert!(stats.memory_b >= Some(10 << 20) && stats.memory_b <= Some(64 << 20), "{stats:?}");
    assert!(stats.memory_peak_b.is_none_or(|peak| peak >= 10 << 20), "{stats:?}");
    assert_eq!((stats.pids, stats.oom_kills), (Some(2), Some(0)));
}

fn too_little_memory_to_start_is_told_and_leaves_nothing() {
    let world = World::new();
    let mut spec = world.spec("a6", &["sleep"]);
    spec.limits.memory_b = 4096;
    world.runtime.write_spec(&spec).unwrap();
    let error = world.runtime.start("a6").unwrap_err();
    println!("  said: {error}");
    assert!(!world.is_running("a6"));
}
