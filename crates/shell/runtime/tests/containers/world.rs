//! What every test stands on: an image of one program, a runtime folder, and the check at the end
//! that nothing of it is left on the machine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::{ContainerSpec, ExitRecord, Limits, LogLimits, Runtime, SPEC_VERSION, Started, State};
use tempfile::TempDir;

/// Anything that should happen at once has happened after this long, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes this program start a container and then wait to be killed.
pub(crate) const STARTER_ARG: &str = "__starter";

/// A process that starts containers and is killed by the test.
pub(crate) fn starter_main(args: &[OsString]) -> i32 {
    let [_, _, dir, ids @ ..] = args else { return 2 };
    let runtime = Runtime::new(dir, std::env::current_exe().unwrap()).unwrap();
    for id in ids {
        runtime.start(id.to_str().unwrap()).unwrap();
    }
    println!("started");
    std::thread::sleep(PATIENCE * 10);
    3
}

/// The image: `/bin/tool` and a user database. Built once, of the C source beside this file.
pub(crate) fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("runtime-image-{}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::create_dir_all(dir.join("srv")).unwrap();
        let source = dir.join("tool.c");
        fs::write(&source, include_str!("tool.c")).unwrap();
        let built = Command::new("cc")
            .args(["-static", "-O1", "-w", "-o"])
            .arg(dir.join("bin/tool"))
            .arg(&source)
            .status()
            .expect("a C compiler is needed to build Skerry at all");
        assert!(built.success(), "cc cannot make a static program");
        fs::remove_file(source).unwrap();
        fs::write(dir.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
        fs::write(dir.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:50:web\n").unwrap();
        fs::write(dir.join("bin/data"), "not a program").unwrap();
        fs::write(dir.join("bin/script"), "#!/bin/nowhere\n").unwrap();
        fs::write(dir.join("bin/garbage"), "garbage\n").unwrap();
        for name in ["bin/script", "bin/garbage"] {
            fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        dir
    })
}

/// Removes the image; called at the end of the run.
pub(crate) fn remove_image() {
    fs::remove_dir_all(image()).unwrap();
}

/// A runtime folder of its own, checked and removed at the end of the test.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) dir: TempDir,
    parent: String,
    before: Leftovers,
}

/// Everything of this machine that a container could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Leftovers {
    mounts: BTreeSet<String>,
    groups: BTreeSet<PathBuf>,
    own_fds: usize,
}

impl Leftovers {
    /// Others may use this machine at the same time: only what bears our names is looked at.
    fn now(parent: &str, dir: &Path) -> Self {
        let dir = dir.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let top = parent.split('/').next().unwrap();
        let mut groups = BTreeSet::new();
        find(Path::new("/sys/fs/cgroup"), top, 4, &mut groups);
        let own_fds = fs::read_dir("/proc/self/fd").unwrap().count();
        Self {
            mounts: mounts.lines().filter(|line| line.contains(dir)).map(str::to_owned).collect(),
            groups,
            own_fds,
        }
    }
}

fn find(dir: &Path, name: &str, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_str() == Some(name) {
            found.insert(entry.path());
        }
        if depth > 0 {
            find(&entry.path(), name, depth - 1, found);
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        image();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = format!("skerry-test-{}-{number}/node", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let before = Leftovers::now(&parent, dir.path());
        let runtime = Runtime::new(dir.path().join("run"), std::env::current_exe().unwrap()).unwrap();
        Self { runtime, dir, parent, before }
    }

    /// A container that runs the tool with these arguments.
    pub(crate) fn spec(&self, id: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            version: SPEC_VERSION,
            id: id.into(),
            claim: serde_json::json!({ "for": id }),
            lower: vec![image().to_owned()],
            args: std::iter::once("/bin/tool").chain(args.iter().copied()).map(str::to_owned).collect(),
            env: vec![],
            cwd: "/".into(),
            user: None,
            hostname: "inside".into(),
            limits: Limits { cpu_m: 500, memory_b: 64 << 20, pids: 64 },
            cpu_share_m: 0,
            ports: vec![],
            stop_grace_ms: 10_000,
            log: LogLimits::default(),
            cgroup_parent: self.parent.clone(),
            read_only: false,
            until_boot_ns: None,
            fence: None,
        }
    }

    pub(crate) fn start(&self, spec: &ContainerSpec) -> Started {
        self.runtime.write_spec(spec).unwrap();
        self.runtime.start(&spec.id).unwrap()
    }

    pub(crate) fn run(&self, spec: &ContainerSpec) -> ExitRecord {
        self.start(spec);
        self.runtime.wait_blocking(&spec.id, Some(PATIENCE)).unwrap()
    }

    /// What a container that has ended wrote to standard output.
    pub(crate) fn output(&self, args: &[&str]) -> String {
        self.output_of(&self.spec("0a", args))
    }

    pub(crate) fn output_of(&self, spec: &ContainerSpec) -> String {
        let exit = self.run(spec);
        let text = self
            .log(&spec.id)
            .iter()
            .filter(|it| it.stream == 'o')
            .fold(String::new(), |all, it| all + &it.text + if it.whole { "\n" } else { "" });
        assert_eq!((exit.code, exit.signal), (Some(0), None), "{:?}", self.log(&spec.id));
        self.runtime.remove(&spec.id).unwrap();
        text
    }

    pub(crate) fn log(&self, id: &str) -> Vec<Record> {
        let files = self.runtime.log_files(id).unwrap();
        files.iter().flat_map(|file| parse(&fs::read_to_string(file).unwrap())).collect()
    }

    /// Waits until the log holds a record with this text.
    pub(crate) fn await_log(&self, id: &str, text: &str) {
        await_that(&format!("`{text}` in the log of {id}"), || self.log(id).iter().any(|it| it.text == text));
    }

    pub(crate) fn is_running(&self, id: &str) -> bool {
        matches!(self.runtime.state(id).unwrap(), State::Running(_))
    }
}

/// One record of a log.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) ms: i64,
    pub(crate) stream: char,
    pub(crate) whole: bool,
    pub(crate) text: String,
}

fn parse(text: &str) -> Vec<Record> {
    text.lines()
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let [ms, stream, end, text] = parts[..] else { panic!("not a record: {line}") };
            Record {
                ms: ms.parse().unwrap(),
                stream: stream.parse().unwrap(),
                whole: end == "F",
                text: text.into(),
            }
        })
        .collect()
}

/// Waits for a condition that must come.
pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs (a zombie does not).
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| !text[text.rfind(')').unwrap()..].starts_with(") Z"))
}

impl Drop for World {
    fn drop(&mut self) {
        for found in self.runtime.scan().unwrap() {
            if let Ok(State::Running(_) | State::Starting) = found.state {
                drop(self.runtime.kill(&found.id));
            }
            let removed = self.runtime.remove(&found.id);
            if !std::thread::panicking() {
                removed.unwrap();
            }
        }
        if !std::thread::panicking() {
            assert_eq!(
                Leftovers::now(&self.parent, self.dir.path()),
                self.before,
                "something is left of the test"
            );
        }
    }
}
