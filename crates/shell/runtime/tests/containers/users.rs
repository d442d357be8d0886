//! Who the users of a container are on the host.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::{ExecRequest, Runtime, State, UserNamespaces};

use crate::world::{PATIENCE, World, image};

pub(crate) const CASES: &[super::Case] = &[
    ("each_container_has_ids_of_its_own_and_keeps_them", each_container_has_ids_of_its_own_and_keeps_them),
    ("root_of_a_container_is_nobody_to_the_host", root_of_a_container_is_nobody_to_the_host),
    ("files_belong_to_whom_the_image_says", files_belong_to_whom_the_image_says),
    (
        "what_a_container_makes_is_its_own_and_goes_with_it",
        what_a_container_makes_is_its_own_and_goes_with_it,
    ),
    ("exec_is_the_same_user_of_the_same_namespace", exec_is_the_same_user_of_the_same_namespace),
    ("a_user_outside_of_the_range_is_refused_by_name", a_user_outside_of_the_range_is_refused_by_name),
    (
        "no_image_can_talk_its_way_out_of_the_user_namespace",
        no_image_can_talk_its_way_out_of_the_user_namespace,
    ),
    (
        "without_user_namespaces_a_container_runs_and_says_so",
        without_user_namespaces_a_container_runs_and_says_so,
    ),
    (
        "a_trial_tells_whether_and_why_not_and_leaves_nothing",
        a_trial_tells_whether_and_why_not_and_leaves_nothing,
    ),
    ("a_container_of_an_older_release_starts_again", a_container_of_an_older_release_starts_again),
    ("a_hundred_layers_are_mapped", a_hundred_layers_are_mapped),
];

/// Below this there are people, services and their own subordinate ids.
const ORDINARY_IDS_MAX: u32 = 0x4000_0000;

const IDS: u32 = 65_536;

/// The id of the host that user 0 of a process's namespace is.
fn first_id(pid: u32) -> u32 {
    let read = |file: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let fields: Vec<u32> = text.split_whitespace().map(|it| it.parse().unwrap()).collect();
        assert_eq!(fields.len(), 3, "{text}");
        assert_eq!((fields[0], fields[2]), (0, IDS), "{text}");
        fields[1]
    };
    assert_eq!(read("uid_map"), read("gid_map"));
    read("uid_map")
}

/// User and group of a process, real, effective, saved and of the file system, as the host sees them.
fn ids_on_host(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter_map(|line| line.strip_prefix("Uid:").or(line.strip_prefix("Gid:")));
    lines.flat_map(|line| line.split_whitespace().map(|it| it.parse().unwrap())).collect()
}

/// The program's process: init's only child.
fn program(init: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|it| (*it).to_owned()).collect()
}

fn each_container_has_ids_of_its_own_and_keeps_them() {
    let world = World::new();
    let start = |id: &str| {
        let started = world.start(&world.spec(id, &["sleep"]));
        assert_eq!(started.degraded, Vec::<String>::new());
        world.await_log(id, "asleep");
        let first = first_id(started.pid);
        assert!(first >= ORDINARY_IDS_MAX, "{first}");
        assert_eq!(first % IDS, 0);
        assert_eq!(ids_on_host(started.pid), vec![first; 8]);
        assert_eq!(ids_on_host(program(started.pid)), vec![first; 8]);
        first
    };
    let (one, other) = (start("a1"), start("a2"));
    assert_ne!(one, other);

    // Started again by a peer that was started again itself.
    let exe = std::env::current_exe().unwrap();
    let again = Runtime::new(world.dir.path().join("run"), exe).unwrap();
    again.kill("a1").unwrap();
    assert_eq!(first_id(again.start("a1").unwrap().pid), one);
    let State::Running(running) = again.state("a2").unwrap() else { panic!("it was adopted") };
    assert_eq!(first_id(running.pid), other);
}

fn root_of_a_container_is_nobody_to_the_host() {
    let world = World::new();
    let host = world.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (file, mode) in [("open", 0o644), ("secret", 0o600)] {
        fs::write(host.join(file), "of the host\n").unwrap();
        fs::set_permissions(host.join(file), fs::Permissions::from_mode(mode)).unwrap();
    }
    let started = world.start(&world.spec("a1", &["sleep"]));
    world.await_log("a1", "asleep");
    // As if a program of the container had found a way out of everything but its user namespace.
    let as_root_of_it = |words: &[&str]| {
        let target = started.pid.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &target, "--user", "--setuid", "0", "--setgid", "0"]).args(words);
        command.output().unwrap()
    };
    let path = |file: &str| host.join(file).to_str().unwrap().to_owned();
    let who = as_root_of_it(&["id", "-u"]);
    assert_eq!(String::from_utf8_lossy(&who.stdout), "0\n", "{who:?}");
    assert!(as_root_of_it(&["cat", &path("open")]).status.success());
    for forbidden in [
        words(&["cat", &path("secret")]),
        words(&["cp", "/dev/null", &path("open")]),
        words(&["chown", "0", &path("open")]),
        words(&["kill", "-0", &std::process::id().to_string()]),
        words(&["cat", &format!("/proc/{}/environ", std::process::id())]),
    ] {
        let forbidden: Vec<&str> = forbidden.iter().map(String::as_str).collect();
        let tried = as_root_of_it(&forbidden);
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        assert!(!tried.status.success(), "{forbidden:?} succeeded");
        assert!(said.contains("ermission denied") || said.contains("not permitted"), "{forbidden:?}: {said}");
    }
}

/// A layer with files of several owners.
fn layer_of_owners(world: &World) -> PathBuf {
    let layer = world.dir.path().join("owners");
    fs::create_dir(&layer).unwrap();
    for (name, owner, group, mode) in [
        ("root", 0, 0, 0o4755),
        ("web", 33, 34, 0o640),
        ("nobody", 65_534, 65_534, 0o600),
        ("far", 70_000, 80_000, 0o644),
    ] {
        let path = layer.join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    layer
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

fn files_belong_to_whom_the_image_says() {
    let world = World::new();
    let layer = layer_of_owners(&world);
    let mut spec = world.spec("0a", &["stat", "/root", "/web", "/nobody", "/far", "/bin/tool", "/etc", "/"]);
    spec.lower.insert(0, layer.clone());
    let said = world.output_of(&spec);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..3], ["/root 0:0 4755", "/web 33:34 640", "/nobody 65534:65534 600"]);
    // Whom the container does not know is nobody, and nobody can become them.
    assert_eq!(lines[3], "/far 65534:65534 644");
    assert_eq!(lines[4..], ["/bin/tool 0:0 755", "/etc 0:0 755", "/ 0:0 755"]);
    // The owner may read it, root may, another may not.
    for (user, may) in [("web", true), ("0", true), ("nobody:nobody", false)] {
        spec.args = words(&["/bin/tool", "cat", "/web"]);
        spec.user = Some(user.replace("nobody", "65534"));
        assert_eq!(world.run(&spec).code, Some(i32::from(!may)), "{user}");
    }
    spec.user = None;
    spec.id = "0b".into();
    spec.args = words(&["/bin/tool", "chown", "12", "13", "/web"]);
    assert_eq!(world.output_of(&spec), "");
    assert_eq!((owner(&layer.join("web")), owner(&layer.join("far"))), ((33, 34), (70_000, 80_000)));
}

fn what_a_container_makes_is_its_own_and_goes_with_it() {
    let world = World::new();
    let mut spec = world.spec("a1", &["make"]);
    // A layer of its own, so that the copy of its file can be looked at.
    spec.lower.insert(0, layer_of_owners(&world));
    let started = world.start(&spec);
    world.await_log("a1", "made");
    let first = first_id(started.pid);
    let asked = ExecRequest {
        args: words(&["tool", "stat", "/by-root", "/closed", "/closed/in", "/webs/by-web", "/etc/passwd"]),
        ..ExecRequest::default()
    };
    let session = world.runtime.exec("a1", asked).unwrap();
    let mut said = String::new();
    fs::File::from(session.stdout).read_to_string(&mut said).unwrap();
    assert_eq!(
        said,
        "/by-root 0:0 4755\n/closed 0:0 0\n/closed/in 0:0 600\n/webs/by-web 33:34 644\n/etc/passwd 0:0 644\n"
    );
    assert_eq!(session.control.wait().unwrap().code, Some(0));
    // On the disk nothing of it is root's, not even a program with the set-user bit.
    let upper = world.dir.path().join("run/a1/upper");
    for name in ["", "by-root", "closed", "closed/in", "etc/passwd", "etc/hostname"] {
        assert_eq!(owner(&upper.join(name)), (first, first), "{name}");
    }
    assert_eq!(owner(&upper.join("webs/by-web")), (first + 33, first + 34));
    world.runtime.kill("a1").unwrap();
    world.runtime.remove("a1").unwrap();
    assert!(!world.dir.path().join("run/a1").exists());
}

fn exec_is_the_same_user_of_the_same_namespace() {
    let world = World::new();
    let started = world.start(&world.spec("a1", &["sleep"]));
    world.await_log("a1", "asleep");
    let first = first_id(started.pid);
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    for (user, inside) in [(None, 0), (Some("web"), 33)] {
        let asked = ExecRequest {
            args: words(&["tool", "sleep"]),
            user: user.map(str::to_owned),
            ..ExecRequest::default()
        };
        let session = world.runtime.exec("a1", asked).unwrap();
        let mut line = String::new();
        BufReader::new(fs::File::from(session.stdout)).read_line(&mut line).unwrap();
        assert_eq!(line, "asleep\n");
        assert_eq!(namespace(session.pid), namespace(started.pid));
        assert_eq!(ids_on_host(session.pid)[..4], [first + inside; 4]);
        session.control.signal(9).unwrap();
        assert_eq!(session.control.wait().unwrap().signal, Some(9));

        let asked = ExecRequest {
            args: words(&["tool", "reopen"]),
            user: user.map(str::to_owned),
            ..ExecRequest::default()
        };
        let session = world.runtime.exec("a1", asked).unwrap();
        let mut said = String::new();
        fs::File::from(session.stdout).read_to_string(&mut said).unwrap();
        assert_eq!(said, "again\n", "{user:?}");
    }
}

fn a_user_outside_of_the_range_is_refused_by_name() {
    let world = World::new();
    let mut spec = world.spec("a1", &["pid"]);
    spec.user = Some("70000".into());
    world.runtime.write_spec(&spec).unwrap();
    let error = world.runtime.start("a1").unwrap_err().to_string();
    assert!(error.contains("`70000`") && error.contains("0 to 65535"), "{error}");
    spec.user = Some("65535:65535".into());
    assert_eq!(world.output_of(&spec), "pid 2 ppid 1 host inside uid 65535 gid 65535 groups cwd /\n");
}

/// Files that only ids outside of the range may use make things fail, and never weaken the walls.
fn no_image_can_talk_its_way_out_of_the_user_namespace() {
    let world = World::new();
    for name in ["", "etc", "dev", "proc"] {
        let layer = world.dir.path().join(format!("far{name}"));
        fs::create_dir_all(layer.join(name)).unwrap();
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        chown(layer.join(name), Some(70_000), Some(70_000)).unwrap();
        let mut spec = world.spec("a1", &["sleep"]);
        spec.lower.insert(0, layer);
        world.runtime.write_spec(&spec).unwrap();
        match world.runtime.start("a1") {
            Ok(started) => {
                first_id(started.pid);
                world.runtime.kill("a1").unwrap();
            }
            Err(error) => assert!(error.to_string().contains("failed"), "{error}"),
        }
    }
}

fn without_user_namespaces_a_container_runs_and_says_so() {
    let world = World::new();
    let why = "the kernel is too old for it".to_owned();
    let exe = std::env::current_exe().unwrap();
    let runtime = Runtime::new(world.dir.path().join("run"), exe)
        .unwrap()
        .with_user_namespaces(UserNamespaces::Refused { why: why.clone() });
    world.runtime.write_spec(&world.spec("a1", &["sleep"])).unwrap();
    let started = runtime.start("a1").unwrap();
    let expected = format!("no user namespace, user 0 of the container is root of the host: {why}");
    assert_eq!(started.degraded, std::slice::from_ref(&expected));
    assert_eq!(ids_on_host(started.pid), [0; 8]);
    // Whoever adopts it sees it as well.
    let State::Running(running) = world.runtime.state("a1").unwrap() else { panic!("it runs") };
    assert_eq!(running.degraded, [expected]);
    let asked = ExecRequest { args: words(&["tool", "pid"]), ..ExecRequest::default() };
    let session = world.runtime.exec("a1", asked).unwrap();
    assert_eq!(session.control.wait().unwrap().code, Some(0));
    runtime.stop("a1", PATIENCE).unwrap();
    // The next start of a peer that can is with one again.
    assert!(world.runtime.start("a1").unwrap().degraded.is_empty());
}

fn a_trial_tells_whether_and_why_not_and_leaves_nothing() {
    let world = World::new();
    let run = world.dir.path().join("run");
    let in_it = || fs::read_dir(&run).unwrap().count();
    let before = in_it();
    assert_eq!(world.runtime.try_user_namespaces(image()), UserNamespaces::Used);
    // A file system that has no idmapped mounts.
    let UserNamespaces::Refused { why } = world.runtime.try_user_namespaces(Path::new("/proc/sys")) else {
        panic!("layers on /proc cannot be mapped")
    };
    assert!(why.contains("mapping the owners in the layer /proc/sys failed"), "{why}");
    let exe = Path::new("/bin/false");
    let broken = Runtime::new(&run, exe).unwrap();
    let UserNamespaces::Refused { why } = broken.try_user_namespaces(image()) else {
        panic!("false is no supervisor")
    };
    assert!(why.contains("ended without a word"), "{why}");
    assert_eq!(in_it(), before);
}

fn a_container_of_an_older_release_starts_again() {
    let world = World::new();
    world.runtime.write_spec(&world.spec("a1", &["stat", "/left"])).unwrap();
    // As a release without user namespaces leaves it: files of root, and no word about ids.
    let upper = world.dir.path().join("run/a1/upper");
    fs::create_dir_all(upper.join("closed/in")).unwrap();
    fs::write(upper.join("left"), "x").unwrap();
    fs::set_permissions(upper.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let started = world.runtime.start("a1").unwrap();
    assert!(started.degraded.is_empty());
    // A start is with a fresh upper layer.
    assert_eq!(world.runtime.wait_blocking("a1", Some(PATIENCE)).unwrap().code, Some(1));
    // A supervisor that an older peer starts has no word about ids either, and says what that means.
    fs::remove_file(world.dir.path().join("run/a1/ids.json")).unwrap();
    let out = Command::new(std::env::current_exe().unwrap())
        .args([runtime::SUPERVISOR_ARG.as_ref(), world.dir.path().join("run").as_os_str(), "a1".as_ref()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("no user namespace"), "{said}");
}

fn a_hundred_layers_are_mapped() {
    let world = World::new();
    let mut spec = world.spec("0a", &["stat", "/file", "/bin/tool"]);
    for number in 0..100 {
        let layer = world.dir.path().join(format!("layer{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("file"), "x").unwrap();
        chown(layer.join("file"), Some(number), Some(number)).unwrap();
        spec.lower.insert(0, layer);
    }
    assert_eq!(world.output_of(&spec), "/file 99:99 644\n/bin/tool 0:0 755\n");
}
