//! What a container sees, and what it cannot do.

use std::fs;

use crate::world::World;

pub(crate) const CASES: &[super::Case] = &[
    ("a_container_sees_itself_and_nobody_else", a_container_sees_itself_and_nobody_else),
    ("dangerous_calls_are_refused", dangerous_calls_are_refused),
    (
        "capabilities_are_dockers_and_privileges_cannot_grow",
        capabilities_are_dockers_and_privileges_cannot_grow,
    ),
    ("a_user_is_taken_from_the_image", a_user_is_taken_from_the_image),
    ("nothing_of_the_supervisor_is_inherited", nothing_of_the_supervisor_is_inherited),
    (
        "the_environment_is_the_asked_one_with_what_is_missing_added",
        the_environment_is_the_asked_one_with_what_is_missing_added,
    ),
    ("dev_and_etc_are_complete", dev_and_etc_are_complete),
    ("layers_are_stacked_and_never_written", layers_are_stacked_and_never_written),
    ("a_read_only_root_cannot_be_written", a_read_only_root_cannot_be_written),
    ("an_image_with_a_link_in_place_of_proc_is_refused", an_image_with_a_link_in_place_of_proc_is_refused),
    ("a_container_sees_its_own_control_groups", a_container_sees_its_own_control_groups),
];

fn a_container_sees_itself_and_nobody_else() {
    let world = World::new();
    assert_eq!(world.output(&["pid"]), "pid 2 ppid 1 host inside uid 0 gid 0 groups cwd /\n");
    let proc = world.output(&["ls", "/proc"]);
    let mut pids: Vec<u32> = proc.lines().filter_map(|line| line.parse().ok()).collect();
    pids.sort_unstable();
    assert_eq!(pids, [1, 2]);
    assert_eq!(world.output(&["ls", "/sys/class/net"]), "lo\n");
    // No path of the host, neither in its mounts nor in its init's command line.
    let host = world.dir.path().to_str().unwrap().to_owned();
    assert!(!world.output(&["cat", "/proc/1/cmdline"]).contains("supervisor"));
    let mounts = world.output(&["cat", "/proc/self/mountinfo"]);
    assert!(!mounts.contains(&host), "{mounts}");
    for line in mounts.lines().filter(|line| !line.contains("devtmpfs") && !line.contains("devpts")) {
        assert!(line.contains("nodev"), "{line}");
    }
    let mut spec = world.spec("0a", &["pid"]);
    spec.cwd = "/srv".into();
    assert!(world.output_of(&spec).contains("cwd /srv"));
}

fn dangerous_calls_are_refused() {
    let world = World::new();
    let said = world.output(&["try"]);
    for line in said.lines() {
        let (what, verdict) = line.split_once(' ').unwrap();
        let expected: &[&str] = match what {
            "clone3" | "future" => &["ENOSYS"],
            // With a user namespace it is not even the owner of the file.
            "write-proc-sys" => &["Read-only file system", "Permission denied"],
            "write-sys" | "write-sysrq" => {
                &["Read-only file system", "Permission denied", "No such file or directory"]
            }
            // With a user namespace not even the nodes can be made.
            "disk" | "mem" => &["Permission denied", "EPERM", "No such file or directory"],
            "init-exe" | "init-root" => &["Permission denied", "EPERM"],
            "kcore" => &["0", "-1"],
            _ => &["EPERM"],
        };
        assert!(expected.contains(&verdict), "{line}");
    }
    assert!(said.lines().count() > 25, "{said}");
}

fn capabilities_are_dockers_and_privileges_cannot_grow() {
    let world = World::new();
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let root = world.output(&["cat", "/proc/self/status"]);
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(&root, name), "00000000a80425fb", "{name}");
    }
    for name in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(&root, name), "0000000000000000", "{name}");
    }
    assert_eq!((field(&root, "NoNewPrivs:"), field(&root, "Seccomp:")), ("1".into(), "2".into()));
    let mut spec = world.spec("0a", &["cat", "/proc/self/status"]);
    spec.user = Some("web".into());
    let web = world.output_of(&spec);
    for name in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(&web, name), "0000000000000000", "{name}");
    }
    assert_eq!(field(&web, "SigBlk:"), "0000000000000000");
    assert_eq!(field(&web, "SigIgn:"), "0000000000000000");
    // Init keeps what it needs to signal a program of another user.
    spec.args = ["/bin/tool", "cat", "/proc/1/status"].map(str::to_owned).to_vec();
    assert_eq!(field(&world.output_of(&spec), "CapEff:"), "0000000000000020");
}

fn a_user_is_taken_from_the_image() {
    let world = World::new();
    for (user, expected) in [
        ("web", "uid 33 gid 34 groups 50 cwd"),
        ("33", "uid 33 gid 34 groups 50 cwd"),
        ("web:logs", "uid 33 gid 50 groups 50 cwd"),
        ("1000", "uid 1000 gid 0 groups cwd"),
        ("1000:2000", "uid 1000 gid 2000 groups cwd"),
    ] {
        let mut spec = world.spec("0a", &["pid"]);
        spec.user = Some(user.into());
        let said = world.output_of(&spec);
        assert!(said.contains(expected), "{user}: {said}");
    }
    // Its own standard output can be opened again, and it can be stopped.
    let mut spec = world.spec("0b", &["reopen"]);
    spec.user = Some("web".into());
    assert_eq!(world.output_of(&spec), "again\n");
    spec.args[1] = "polite".into();
    world.start(&spec);
    world.await_log("0b", "ready");
    assert_eq!(world.runtime.stop("0b", crate::world::PATIENCE).unwrap().code, Some(7));
}

fn nothing_of_the_supervisor_is_inherited() {
    let world = World::new();
    assert_eq!(world.output(&["fds"]), "0 1 2 \n");
    assert_eq!(world.output(&["cat", "/dev/stdin"]), "");
}

fn the_environment_is_the_asked_one_with_what_is_missing_added() {
    let world = World::new();
    let mut spec = world.spec("0a", &["env"]);
    spec.env = vec!["A=b=c".into(), "EMPTY=".into()];
    spec.user = Some("web".into());
    let said = world.output_of(&spec);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["A=b=c", "EMPTY="]);
    assert_eq!(lines[3..], ["HOME=/srv", "HOSTNAME=inside"]);
    assert!(lines[2].starts_with("PATH=/usr/local/sbin:"));
    spec.env = vec!["HOME=/x".into(), "PATH=/bin".into(), "HOSTNAME=y".into()];
    assert_eq!(world.output_of(&spec), "HOME=/x\nPATH=/bin\nHOSTNAME=y\n");
}

fn dev_and_etc_are_complete() {
    let world = World::new();
    let dev = world.output(&["ls", "/dev"]);
    let mut names: Vec<_> = dev.lines().collect();
    names.sort_unstable();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(names, expected);
    assert_eq!(world.output(&["write", "/dev/null"]), "written\n");
    assert_eq!(world.output(&["write", "/dev/shm/x"]), "written\n");
    assert_eq!(world.output(&["cat", "/etc/hostname"]), "inside\n");
    assert!(world.output(&["cat", "/etc/hosts"]).contains("127.0.1.1\tinside"));
    assert!(world.output(&["cat", "/etc/passwd"]).contains("web:x:33"));
}

fn layers_are_stacked_and_never_written() {
    let world = World::new();
    let top = world.dir.path().join("top: layer, with \\ odd name");
    fs::create_dir_all(top.join("etc")).unwrap();
    fs::write(top.join("etc/passwd"), "of the top layer\n").unwrap();
    let mut spec = world.spec("0a", &["cat", "/etc/passwd"]);
    spec.lower.insert(0, top.clone());
    assert_eq!(world.output_of(&spec), "of the top layer\n");
    spec.args = ["/bin/tool", "write", "/etc/passwd"].map(str::to_owned).to_vec();
    assert_eq!(world.output_of(&spec), "written\n");
    assert_eq!(fs::read_to_string(top.join("etc/passwd")).unwrap(), "of the top layer\n");
    // A long stack fits as well.
    for number in 0..100 {
        let layer = world.dir.path().join(format!("{}{number}", "long-name-".repeat(20)));
        fs::create_dir(&layer).unwrap();
        spec.lower.insert(0, layer);
    }
    spec.args = ["/bin/tool", "exit", "0"].map(str::to_owned).to_vec();
    assert_eq!(world.output_of(&spec), "");
}

fn a_read_only_root_cannot_be_written() {
    let world = World::new();
    let mut spec = world.spec("0a", &["write", "/new"]);
    spec.read_only = true;
    let exit = world.run(&spec);
    assert_eq!(exit.code, Some(1));
    assert!(world.log("0a")[0].text.contains("Read-only"));
    spec.args[2] = "/dev/shm/new".into();
    assert_eq!(world.run(&spec).code, Some(0));
}

fn an_image_with_a_link_in_place_of_proc_is_refused() {
    let world = World::new();
    for name in ["proc", "dev", "sys", "etc"] {
        let layer = world.dir.path().join(name);
        fs::create_dir(&layer).unwrap();
        std::os::unix::fs::symlink("/srv", layer.join(name)).unwrap();
        let mut spec = world.spec("0a", &["exit", "0"]);
        spec.lower.insert(0, layer);
        world.runtime.write_spec(&spec).unwrap();
        let error = world.runtime.start("0a").unwrap_err().to_string();
        assert!(error.contains(&format!("`/{name}` of the image is not a folder")), "{error}");
    }
}

fn a_container_sees_its_own_control_groups() {
    let world = World::new();
    let groups = world.output(&["cat", "/proc/self/cgroup"]);
    for line in groups.lines().filter(|line| line.contains("memory") || line.starts_with("0:")) {
        assert!(line.ends_with(":/"), "{line}");
    }
    let there = world.output(&["ls", "/sys/fs/cgroup"]);
    if there.lines().any(|line| line == "memory") {
        let limit = world.output(&["cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        assert_eq!(limit.trim(), (64 << 20).to_string());
    } else {
        assert_eq!(world.output(&["cat", "/sys/fs/cgroup/memory.max"]).trim(), (64 << 20).to_string());
    }
}
