//! Further programs in a running container, and the care for its orphans.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use runtime::{ExecRequest, ExecSession, RuntimeError, StartError};

use crate::world::{World, await_that, lives};

pub(crate) const CASES: &[super::Case] = &[
    ("a_further_program_has_its_own_stdio_and_exit_code", a_further_program_has_its_own_stdio_and_exit_code),
    ("a_further_program_is_inside_in_every_way", a_further_program_is_inside_in_every_way),
    ("a_further_program_that_cannot_run_says_why", a_further_program_that_cannot_run_says_why),
    ("a_terminal_has_a_size_that_can_change", a_terminal_has_a_size_that_can_change),
    (
        "a_further_program_can_be_signalled_and_does_not_outlive_its_client",
        a_further_program_can_be_signalled_and_does_not_outlive_its_client,
    ),
    ("further_programs_end_with_the_container", further_programs_end_with_the_container),
    ("many_further_programs_leave_nothing_behind", many_further_programs_leave_nothing_behind),
    ("orphans_are_buried", orphans_are_buried),
];

fn request(args: &[&str]) -> ExecRequest {
    ExecRequest {
        args: std::iter::once("/bin/tool").chain(args.iter().copied()).map(str::to_owned).collect(),
        ..ExecRequest::default()
    }
}

fn all(fd: impl Into<std::os::fd::OwnedFd>) -> String {
    let mut text = String::new();
    File::from(fd.into()).read_to_string(&mut text).unwrap();
    text
}

fn said(session: ExecSession) -> (String, String, Option<i32>) {
    drop(session.stdin);
    let out = all(session.stdout);
    let err = all(session.stderr.unwrap());
    (out, err, session.control.wait().unwrap().code)
}

fn a_further_program_has_its_own_stdio_and_exit_code() {
    let world = World::new();
    world.start(&world.spec("a1", &["sleep"]));
    world.await_log("a1", "asleep");
    for code in [0, 7, 255] {
        let session = world.runtime.exec("a1", request(&["exit", &code.to_string()])).unwrap();
        assert_eq!(session.control.wait().unwrap().code, Some(code));
    }
    let (out, err, code) = said(world.runtime.exec("a1", request(&["streams"])).unwrap());
    assert_eq!((out.as_str(), err.as_str(), code), ("to out\nno newline", "to err\n", Some(0)));
    let session = world.runtime.exec("a1", request(&["copy"])).unwrap();
    File::from(session.stdin).write_all(b"there and back").unwrap();
    assert_eq!(all(session.stdout), "there and back");
    assert_eq!(session.control.wait().unwrap().code, Some(0));
    assert_eq!(world.log("a1").len(), 1, "what it says is not the container's log");
}

fn a_further_program_is_inside_in_every_way() {
    let world = World::new();
    let mut spec = world.spec("a1", &["sleep"]);
    spec.env = vec!["OWN=1".into(), "BOTH=container".into()];
    spec.user = Some("web".into());
    world.start(&spec);
    let (out, ..) = said(world.runtime.exec("a1", request(&["pid"])).unwrap());
    assert!(out.contains("ppid 0 host inside uid 33 gid 34 groups 50 cwd /"), "{out}");
    let mut asked = request(&["env"]);
    asked.env = vec!["BOTH=exec".into()];
    let (out, ..) = said(world.runtime.exec("a1", asked).unwrap());
    assert!(out.starts_with("BOTH=exec\nOWN=1\nPATH="), "{out}");
    let mut asked = request(&["try"]);
    asked.user = Some("0".into());
    let (out, ..) = said(world.runtime.exec("a1", asked).unwrap());
    for what in ["mount", "ptrace", "setns", "unshare-user", "bpf"] {
        assert!(out.lines().any(|line| line == format!("{what} EPERM")), "{what}: {out}");
    }
    let mut asked = request(&["cat", "/proc/self/status"]);
    asked.user = Some("0".into());
    let (out, ..) = said(world.runtime.exec("a1", asked).unwrap());
    assert!(out.contains("CapEff:\t00000000a80425fb") && out.contains("CapBnd:\t00000000a80425fb"), "{out}");
    let (out, ..) = said(world.runtime.exec("a1", request(&["fds"])).unwrap());
    assert_eq!(out, "0 1 2 \n");
    let (mine, ..) = said(world.runtime.exec("a1", request(&["cat", "/proc/self/cgroup"])).unwrap());
    let (inits, ..) = said(world.runtime.exec("a1", request(&["cat", "/proc/1/cgroup"])).unwrap());
    assert_eq!(mine, inits);
    let mut asked = request(&["pid"]);
    asked.cwd = Some("/srv".into());
    assert!(said(world.runtime.exec("a1", asked).unwrap()).0.contains("cwd /srv"));
}

fn a_further_program_that_cannot_run_says_why() {
    let world = World::new();
    world.start(&world.spec("a1", &["sleep"]));
    let fails = |change: &dyn Fn(&mut ExecRequest)| {
        let mut asked = request(&["exit", "0"]);
        change(&mut asked);
        match world.runtime.exec("a1", asked) {
            Err(RuntimeError::Exec { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        fails(&|it| it.args[0] = "/nothing".into()),
        StartError::ProgramMissing { program: "/nothing".into() }
    );
    assert_eq!(
        fails(&|it| it.args[0] = "data".into()),
        StartError::ProgramNotExecutable { program: "data".into() }
    );
    assert_eq!(fails(&|it| it.user = Some("x".into())), StartError::UserMissing { user: "x".into() });
    assert_eq!(fails(&|it| it.cwd = Some("/x".into())), StartError::CwdMissing { cwd: "/x".into() });
    assert!(matches!(fails(&|it| it.args.clear()), StartError::Spec { .. }));
    assert!(world.is_running("a1"));
    world.runtime.kill("a1").unwrap();
    assert!(matches!(
        world.runtime.exec("a1", request(&["exit", "0"])),
        Err(RuntimeError::NotRunning { .. })
    ));
}

fn a_terminal_has_a_size_that_can_change() {
    let world = World::new();
    let mut spec = world.spec("a1", &["sleep"]);
    spec.user = Some("web".into());
    world.start(&spec);
    let mut asked = request(&["tty"]);
    asked.tty = Some((33, 101));
    let session = world.runtime.exec("a1", asked).unwrap();
    assert!(session.stderr.is_none());
    let mut out = BufReader::new(File::from(session.stdout));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "tty 1 1 33x101\r\n");
    session.control.resize(5, 6).unwrap();
    let mut input = File::from(session.stdin);
    let mut last = String::new();
    await_that("the new size", || {
        input.write_all(b"\n").unwrap();
        last.clear();
        // The echo of the newline, then the answer.
        while !last.starts_with("size") {
            last.clear();
            out.read_line(&mut last).unwrap();
        }
        last == "size 5x6\r\n"
    });
    // End of input, as a person gives it.
    input.write_all(&[4]).unwrap();
    assert_eq!(session.control.wait().unwrap().code, Some(3));
}

fn a_further_program_can_be_signalled_and_does_not_outlive_its_client() {
    let world = World::new();
    world.start(&world.spec("a1", &["sleep"]));
    let session = world.runtime.exec("a1", request(&["hup"])).unwrap();
    let mut out = BufReader::new(File::from(session.stdout.try_clone().unwrap()));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    session.control.signal(libc::SIGUSR1).unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, format!("signal {}\n", libc::SIGUSR1));
    session.control.signal(libc::SIGKILL).unwrap();
    assert_eq!(session.control.wait().unwrap().signal, Some(libc::SIGKILL));

    let session = world.runtime.exec("a1", request(&["sleep"])).unwrap();
    let pid = session.pid;
    assert!(lives(pid));
    drop(session);
    // Somebody who connects next is not told what was meant for that client.
    let mut watch = world.runtime.watch("a1").unwrap();
    await_that("the end of a program without client", || !lives(pid));
    assert!(world.is_running("a1"));
    world.runtime.kill("a1").unwrap();
    let mut told = Vec::new();
    watch.read_to_end(&mut told).unwrap();
    assert_eq!(runtime::Runtime::exit_in(&told).unwrap().signal, Some(libc::SIGKILL));
}

fn further_programs_end_with_the_container() {
    let world = World::new();
    world.start(&world.spec("a1", &["sleep"]));
    let session = world.runtime.exec("a1", request(&["stubborn"])).unwrap();
    world.runtime.kill("a1").unwrap();
    assert!(!lives(session.pid));
    assert_eq!(session.control.wait().unwrap().signal, Some(libc::SIGKILL));
}

fn many_further_programs_leave_nothing_behind() {
    let world = World::new();
    let started = world.start(&world.spec("a1", &["sleep"]));
    let descriptors = || {
        let list = std::fs::read_dir(format!("/proc/{}/fd", started.supervisor_pid)).unwrap();
        list.map(|it| std::fs::read_link(it.unwrap().path()).unwrap_or_default()).collect::<Vec<_>>()
    };
    // Once it answers it has made all that it keeps; of sockets it keeps one.
    world.runtime.exec("a1", request(&["exit", "1"])).unwrap().control.wait().unwrap();
    let sockets = |list: &[std::path::PathBuf]| {
        list.iter().filter(|it| it.to_string_lossy().starts_with("socket:")).count()
    };
    let mut before = descriptors();
    await_that("the connection to be closed", || {
        before = descriptors();
        sockets(&before) == 1
    });
    for _ in 0..50 {
        let session = world.runtime.exec("a1", request(&["exit", "1"])).unwrap();
        assert_eq!(session.control.wait().unwrap().code, Some(1));
    }
    await_that(&format!("{before:?}"), || descriptors().len() == before.len());
    assert_eq!(world.runtime.stats("a1").unwrap().pids, Some(2));
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", started.supervisor_pid)).unwrap();
    assert_eq!(children.split_whitespace().collect::<Vec<_>>(), [started.pid.to_string()]);
}

fn orphans_are_buried() {
    let world = World::new();
    assert_eq!(world.output(&["orphans"]), "zombies 0\n");
}
