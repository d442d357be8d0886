//! Start, stop, adoption, loss, removal.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runtime::{Runtime, RuntimeError, StartError, State};

use crate::world::{PATIENCE, STARTER_ARG, World, await_that, lives};

pub(crate) const CASES: &[super::Case] = &[
    ("exit_codes_and_signals_are_told_as_they_were", exit_codes_and_signals_are_told_as_they_were),
    ("what_cannot_start_says_precisely_why", what_cannot_start_says_precisely_why),
    (
        "a_program_without_handler_ends_at_once_when_stopped",
        a_program_without_handler_ends_at_once_when_stopped,
    ),
    ("a_program_with_handler_ends_in_its_own_way", a_program_with_handler_ends_in_its_own_way),
    (
        "a_program_that_ignores_the_stop_is_killed_after_its_grace",
        a_program_that_ignores_the_stop_is_killed_after_its_grace,
    ),
    (
        "what_was_told_to_stop_is_found_so_until_it_is_started_again",
        what_was_told_to_stop_is_found_so_until_it_is_started_again,
    ),
    ("signals_reach_the_program", signals_reach_the_program),
    (
        "a_container_ends_with_its_program_and_takes_its_daemons_along",
        a_container_ends_with_its_program_and_takes_its_daemons_along,
    ),
    ("containers_outlive_the_process_that_started_them", containers_outlive_the_process_that_started_them),
    ("a_scan_finds_everything_and_names_what_is_broken", a_scan_finds_everything_and_names_what_is_broken),
    (
        "a_container_whose_supervisor_is_killed_is_lost_and_gone",
        a_container_whose_supervisor_is_killed_is_lost_and_gone,
    ),
    ("a_container_of_an_earlier_boot_is_lost", a_container_of_an_earlier_boot_is_lost),
    (
        "a_restart_has_a_fresh_file_system_and_goes_on_with_the_log",
        a_restart_has_a_fresh_file_system_and_goes_on_with_the_log,
    ),
    (
        "a_container_runs_once_and_is_not_removed_while_it_runs",
        a_container_runs_once_and_is_not_removed_while_it_runs,
    ),
    ("a_folder_with_a_long_path_is_no_problem", a_folder_with_a_long_path_is_no_problem),
    (
        "malformed_and_huge_requests_leave_the_container_alone",
        malformed_and_huge_requests_leave_the_container_alone,
    ),
    ("two_hundred_lives_leave_nothing_behind", two_hundred_lives_leave_nothing_behind),
    ("a_supervisor_is_small_and_a_start_is_quick", a_supervisor_is_small_and_a_start_is_quick),
];

fn exit_codes_and_signals_are_told_as_they_were() {
    let world = World::new();
    for code in [0, 1, 42, 255] {
        let exit = world.run(&world.spec("aa", &["exit", &code.to_string()]));
        assert_eq!((exit.code, exit.signal, exit.oom), (Some(code), None, false));
        assert!(exit.started_ms <= exit.exited_ms);
        assert_eq!(world.runtime.state("aa").unwrap(), State::Exited(exit));
    }
    for signal in [libc::SIGSEGV, libc::SIGKILL, libc::SIGTERM] {
        let exit = world.run(&world.spec("aa", &["die", &signal.to_string()]));
        assert_eq!((exit.code, exit.signal, exit.oom), (None, Some(signal), false));
    }
}

fn what_cannot_start_says_precisely_why() {
    let world = World::new();
    let fails = |change: &dyn Fn(&mut runtime::ContainerSpec)| {
        let mut spec = world.spec("ab", &["exit", "0"]);
        change(&mut spec);
        world.runtime.write_spec(&spec).unwrap();
        let error = world.runtime.start("ab").unwrap_err();
        assert_eq!(world.runtime.state("ab").unwrap(), State::Created, "{error}");
        error
    };
    let missing = fails(&|spec| spec.args[0] = "/bin/nothing".into());
    assert_eq!(missing, StartError::ProgramMissing { program: "/bin/nothing".into() });
    assert_eq!(missing.to_string(), "program `/bin/nothing` does not exist in the image");
    assert_eq!(
        fails(&|spec| spec.args[0] = "nothing".into()),
        StartError::ProgramMissing { program: "nothing".into() }
    );
    for name in ["/bin/data", "data", "/bin"] {
        assert_eq!(
            fails(&|spec| spec.args[0] = name.into()),
            StartError::ProgramNotExecutable { program: name.into() }
        );
    }
    assert!(fails(&|spec| spec.args[0] = "/bin/script".into()).to_string().contains("interpreter"));
    assert!(fails(&|spec| spec.args[0] = "/bin/garbage".into()).to_string().contains("kind of machine"));
    assert_eq!(
        fails(&|spec| spec.user = Some("nobody".into())),
        StartError::UserMissing { user: "nobody".into() }
    );
    assert_eq!(
        fails(&|spec| spec.cwd = "/nowhere".into()),
        StartError::CwdMissing { cwd: "/nowhere".into() }
    );
    assert_eq!(
        fails(&|spec| spec.lower.push("/no/such/layer".into())),
        StartError::LayerMissing { path: "/no/such/layer".into() }
    );
    let refused = fails(&|spec| spec.limits.cpu_m = u64::MAX);
    assert!(matches!(&refused, StartError::LimitRefused { limit, .. } if limit == "cpu"), "{refused}");
    let refused = fails(&|spec| spec.limits.pids = 1 << 40);
    assert!(matches!(&refused, StartError::LimitRefused { limit, .. } if limit == "pids"), "{refused}");
    // Found by name in the PATH of the container, and run.
    let mut spec = world.spec("ab", &["exit", "5"]);
    spec.args[0] = "tool".into();
    assert_eq!(world.run(&spec).code, Some(5));
}

fn a_program_without_handler_ends_at_once_when_stopped() {
    let world = World::new();
    world.start(&world.spec("ac", &["sleep"]));
    world.await_log("ac", "asleep");
    let began = Instant::now();
    let exit = world.runtime.stop("ac", PATIENCE).unwrap();
    assert_eq!(exit.signal, Some(libc::SIGTERM));
    assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
    // Once more: the same answer.
    assert_eq!(world.runtime.stop("ac", PATIENCE).unwrap(), exit);
}

fn a_program_with_handler_ends_in_its_own_way() {
    let world = World::new();
    world.start(&world.spec("ad", &["polite"]));
    world.await_log("ad", "ready");
    assert_eq!(world.runtime.stop("ad", PATIENCE).unwrap().code, Some(7));
}

fn a_program_that_ignores_the_stop_is_killed_after_its_grace() {
    let world = World::new();
    world.start(&world.spec("ae", &["stubborn"]));
    world.await_log("ae", "ready");
    let began = Instant::now();
    let grace = Duration::from_millis(300);
    let exit = world.runtime.stop("ae", grace).unwrap();
    assert_eq!(exit.signal, Some(libc::SIGKILL));
    assert!(!exit.oom);
    assert!(began.elapsed() >= grace);
    world.start(&world.spec("ae", &["stubborn"]));
    assert_eq!(world.runtime.kill("ae").unwrap().signal, Some(libc::SIGKILL));
}

fn what_was_told_to_stop_is_found_so_until_it_is_started_again() {
    let world = World::new();
    let is_stopping = || world.runtime.scan().unwrap().remove(0).stopping;
    world.start(&world.spec("fe", &["stubborn"]));
    world.await_log("fe", "ready");
    assert!(!is_stopping());
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.runtime.stop("fe", Duration::from_millis(800)).unwrap());
        await_that("the note of the stop", is_stopping);
        assert!(world.is_running("fe"));
        stop.join().unwrap();
    });
    assert!(is_stopping(), "it ended for that");
    world.start(&world.spec("fe", &["stubborn"]));
    assert!(!is_stopping());
    world.runtime.kill("fe").unwrap();
    assert!(is_stopping());
}

fn signals_reach_the_program() {
    let world = World::new();
    world.start(&world.spec("af", &["hup"]));
    world.await_log("af", "ready");
    for signal in [libc::SIGHUP, libc::SIGUSR1] {
        world.runtime.signal("af", signal).unwrap();
        world.await_log("af", &format!("signal {signal}"));
    }
    for signal in [0, 65, -1, libc::SIGSTOP] {
        assert!(
            matches!(world.runtime.signal("af", signal), Err(RuntimeError::Supervisor { .. })),
            "{signal}"
        );
    }
    assert!(world.is_running("af"));
    world.runtime.kill("af").unwrap();
    assert!(matches!(world.runtime.signal("af", 1), Err(RuntimeError::NotRunning { .. })));
}

fn a_container_ends_with_its_program_and_takes_its_daemons_along() {
    let world = World::new();
    let exit = world.run(&world.spec("ba", &["daemon", "4"]));
    assert_eq!(exit.code, Some(4));
    assert!(matches!(world.runtime.stats("ba"), Err(RuntimeError::NotRunning { .. })));
}

fn containers_outlive_the_process_that_started_them() {
    let world = World::new();
    let ids = ["c1", "c2", "c3"];
    for id in ids {
        world.runtime.write_spec(&world.spec(id, &["polite"])).unwrap();
    }
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .arg(STARTER_ARG)
        .arg(world.dir.path().join("run"))
        .args(ids)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(starter.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    starter.kill().unwrap();
    starter.wait().unwrap();
    for id in ids {
        let State::Running(running) = world.runtime.state(id).unwrap() else { panic!("{id} does not run") };
        assert!(lives(running.pid) && lives(running.supervisor_pid));
        world.await_log(id, "ready");
        let watch = world.runtime.watch(id).unwrap();
        world.runtime.signal(id, libc::SIGTERM).unwrap();
        let mut line = Vec::new();
        BufReader::new(watch).read_until(b'\n', &mut line).unwrap();
        assert_eq!(Runtime::exit_in(&line).unwrap().code, Some(7));
    }
}

fn a_scan_finds_everything_and_names_what_is_broken() {
    let world = World::new();
    world.runtime.write_spec(&world.spec("d1", &["sleep"])).unwrap();
    let started = world.start(&world.spec("d2", &["sleep"]));
    let exit = world.run(&world.spec("d3", &["exit", "3"]));
    world.runtime.write_spec(&world.spec("d4", &["sleep"])).unwrap();
    let run = world.dir.path().join("run");
    fs::write(run.join("d4/spec.json"), "{ broken").unwrap();
    fs::create_dir(run.join("not-an-id")).unwrap();
    fs::create_dir(run.join("d5")).unwrap();

    // As another process of a peer would see it.
    let other = Runtime::new(run, std::env::current_exe().unwrap()).unwrap();
    let found = other.scan().unwrap();
    let ids: Vec<_> = found.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["d1", "d2", "d3", "d4", "d5"]);
    assert_eq!(found[0].spec.as_ref().unwrap().claim, serde_json::json!({"for": "d1"}));
    assert_eq!(*found[0].state.as_ref().unwrap(), State::Created);
    let State::Running(running) = found[1].state.as_ref().unwrap() else { panic!("{found:?}") };
    assert_eq!((running.pid, running.started_ms), (started.pid, started.started_ms));
    assert_eq!(*found[2].state.as_ref().unwrap(), State::Exited(exit));
    assert!(found[3].spec.as_ref().unwrap_err().to_string().contains("d4/spec.json"));
    assert!(found[4].spec.as_ref().unwrap_err().to_string().contains("d5/spec.json"));
    // The adopted one obeys.
    assert_eq!(other.stop("d2", PATIENCE).unwrap().signal, Some(libc::SIGTERM));
    fs::remove_dir(world.dir.path().join("run/not-an-id")).unwrap();
}

fn a_container_whose_supervisor_is_killed_is_lost_and_gone() {
    let world = World::new();
    let started = world.start(&world.spec("e1", &["exit", "0"]));
    drop(started);
    let started = {
        world.runtime.wait_blocking("e1", Some(PATIENCE)).unwrap();
        world.start(&world.spec("e1", &["bomb"]))
    };
    await_that("processes in the container", || world.runtime.stats("e1").unwrap().pids >= Some(60));
    let inner = world.runtime.read_limits("e1").unwrap();
    assert_eq!(inner.pids, 64);
    let mut watch = world.runtime.watch("e1").unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(started.supervisor_pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    // The watcher learns of it at once.
    let mut rest = Vec::new();
    watch.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    let State::Lost { reason } = world.runtime.state("e1").unwrap() else { panic!("not lost") };
    assert!(reason.contains("was killed"), "{reason}");
    assert!(!lives(started.pid));
    // It may be started again.
    world.start(&world.spec("e1", &["sleep"]));
    assert!(world.is_running("e1"));
}

fn a_container_of_an_earlier_boot_is_lost() {
    let world = World::new();
    let started = world.start(&world.spec("e2", &["sleep"]));
    let state = world.dir.path().join("run/e2/state.json");
    let text = fs::read_to_string(&state).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(started.supervisor_pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    await_that("the end of the container", || !lives(started.supervisor_pid));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&state, text.replace(boot.trim(), "another-boot")).unwrap();
    let State::Lost { reason } = world.runtime.state("e2").unwrap() else { panic!("not lost") };
    assert!(reason.contains("machine was restarted"), "{reason}");
    // Power was cut while the state was being written.
    fs::write(&state, "").unwrap();
    let State::Lost { reason } = world.runtime.state("e2").unwrap() else { panic!("not lost") };
    assert!(reason.contains("lost power"), "{reason}");
}

fn a_restart_has_a_fresh_file_system_and_goes_on_with_the_log() {
    let world = World::new();
    assert_eq!(world.run(&world.spec("f1", &["write", "/srv/new"])).code, Some(0));
    assert_eq!(world.run(&world.spec("f1", &["ls", "/srv"])).code, Some(0));
    let texts: Vec<_> = world.log("f1").into_iter().map(|it| it.text).collect();
    assert_eq!(texts, ["written"]);
    assert!(!crate::world::image().join("srv/new").exists());
}

fn a_container_runs_once_and_is_not_removed_while_it_runs() {
    let world = World::new();
    let spec = world.spec("f2", &["sleep"]);
    world.start(&spec);
    assert_eq!(world.runtime.start("f2").unwrap_err(), StartError::AlreadyRunning { id: "f2".into() });
    assert!(matches!(world.runtime.remove("f2"), Err(RuntimeError::StillRunning { .. })));
    assert!(matches!(world.runtime.write_spec(&spec), Err(RuntimeError::StillRunning { .. })));
    assert!(world.is_running("f2"));
    world.runtime.kill("f2").unwrap();
    world.runtime.remove("f2").unwrap();
    assert!(matches!(world.runtime.state("f2"), Err(RuntimeError::NotFound { .. })));
    assert!(matches!(world.runtime.state("../f2"), Err(RuntimeError::Id { .. })));
}

fn a_folder_with_a_long_path_is_no_problem() {
    let world = World::new();
    let deep = world.dir.path().join("x".repeat(100)).join("y:z,".repeat(30));
    let runtime = Runtime::new(deep, std::env::current_exe().unwrap()).unwrap();
    runtime.write_spec(&world.spec("ff", &["polite"])).unwrap();
    runtime.start("ff").unwrap();
    await_that("the log", || runtime.log_files("ff").unwrap().len() == 1);
    runtime.stop("ff", PATIENCE).unwrap();
    runtime.remove("ff").unwrap();
}

fn malformed_and_huge_requests_leave_the_container_alone() {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    let world = World::new();
    world.start(&world.spec("a0", &["sleep"]));
    let socket = world.dir.path().join("run/a0/control.sock");
    let huge = vec![b'x'; 6 << 20];
    let deep = format!("{}\n", "[".repeat(100_000));
    for bytes in [
        &b"nonsense\n"[..],
        b"\n",
        b"{\"unknown\":1}\n",
        b"\xff\xfe\n",
        b"{\"signal\":{\"signal\":99999999999}}\n",
        deep.as_bytes(),
        &huge,
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The supervisor may hang up in the middle.
        drop(stream.write_all(bytes));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.is_empty() || String::from_utf8_lossy(&answer).contains("refused"), "{answer:?}");
    }
    // Clients that say nothing do not use the supervisor up.
    let idle: Vec<_> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(world.is_running("a0"));
    drop(idle);
    await_that("a free connection", || world.runtime.signal("a0", libc::SIGUSR1).is_ok());
    let exit = world.runtime.wait_blocking("a0", Some(PATIENCE)).unwrap();
    assert_eq!(exit.signal, Some(libc::SIGUSR1));
}

fn two_hundred_lives_leave_nothing_behind() {
    // The world checks mounts, control groups, descriptors and the folder when it ends.
    let world = World::new();
    let namespaces = || {
        // Every container's init is this very program; others may use the machine at the same time.
        let exe = std::env::current_exe().unwrap();
        let mut found = std::collections::BTreeSet::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            if fs::read_link(entry.path().join("exe")).is_ok_and(|it| it == exe)
                && let Ok(name) = fs::read_link(entry.path().join("ns/net"))
            {
                found.insert(name);
            }
        }
        found
    };
    let before = namespaces();
    for number in 0..200 {
        let id = format!("{number:x}");
        let exit = world.run(&world.spec(&id, &["exit", "9"]));
        assert_eq!(exit.code, Some(9));
        world.runtime.remove(&id).unwrap();
    }
    assert_eq!(namespaces(), before);
    assert_eq!(fs::read_dir(world.dir.path().join("run")).unwrap().count(), 0);
}

/// Proportional share of memory, in bytes.
fn pss_b(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn a_supervisor_is_small_and_a_start_is_quick() {
    let world = World::new();
    let mut starts = Vec::new();
    let mut supervisors = Vec::new();
    for number in 0..20 {
        let id = format!("{:x}", 0x100 + number);
        world.runtime.write_spec(&world.spec(&id, &["sleep"])).unwrap();
        let began = Instant::now();
        let started = world.runtime.start(&id).unwrap();
        starts.push(began.elapsed());
        supervisors.push((started.supervisor_pid, started.pid));
    }
    starts.sort();
    let mean = |of: &dyn Fn(&(u32, u32)) -> u32| supervisors.iter().map(|it| pss_b(of(it))).sum::<u64>() / 20;
    let (supervisor, init) = (mean(&|it| it.0), mean(&|it| it.1));
    println!(
        "  start: min {:?}, median {:?}, max {:?}; mean PSS of 20: supervisor {} KiB, init {} KiB",
        starts[0],
        starts[10],
        starts[19],
        supervisor >> 10,
        init >> 10
    );
    // Far above what was measured: this test binary is unoptimised and carries tests.
    assert!(supervisor < 2 << 20, "{supervisor}");
    assert!(starts[0] < PATIENCE / 10);
}
