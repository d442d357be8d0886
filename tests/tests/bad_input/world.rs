//! Peers on the loopback, each at an address of its own, and the binary that talks to them.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dev::kernel;
use e2e::eventually;
use identity::KeyPair;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long anything may take before a test fails: a busy machine, a debug build.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long one command may run: beyond it hangs, which no bad input may bring about.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// What a node offers where a test does not care.
pub(crate) const CAPACITY: &str = "cpu=2,memory=256Mi,pids=200";

/// Counts nodes, so that each has an address and cgroups of its own.
static NODES: AtomicU32 = AtomicU32::new(0);

/// An address of the loopback that no other node of this process has, and hardly one of another.
fn address() -> String {
    let node = NODES.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    let ip = Ipv4Addr::new(127, high.wrapping_add(100) | 1, low, u8::try_from(node % 250 + 2).unwrap());
    format!("{ip}:7440")
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails unless it ended with this code and said all of this on stderr.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for words in words {
            assert!(self.err.contains(words), "`{words}` is not said: {self:?}");
        }
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The one object on stderr that an error with `-o json` is.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let lines: Vec<&str> = self.err.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(lines.len(), 1, "one object: {self:?}");
        let object: Value = serde_json::from_str(lines[0]).unwrap();
        for key in ["error", "code", "at", "why", "hint"] {
            assert!(object.get(key).is_some(), "no `{key}`: {object}");
        }
        object
    }
}

/// A folder for one test, the binary in it, and a user.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("skerry-bad-").tempdir().unwrap();
        // Under a name of its own, so that a build meanwhile does not take it away from supervisors.
        let (from, to) = (e2e::binary::skerry(), folder.path().join("skerry"));
        if fs::hard_link(from, &to).is_err() {
            fs::copy(from, &to).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("skerry"));
        command.args(args).stdin(Stdio::null()).current_dir(self.folder.path());
        for name in
            ["SKERRY_PEER", "SKERRY_YES", "SKERRY_OUTPUT", "SKERRY_LOG", "XDG_CONFIG_HOME", "SUDO_USER"]
        {
            command.env_remove(name);
        }
        command
            .env("HOME", self.folder.path())
            .env("USER", user)
            .env("SKERRY_KEY", self.path(&format!("{user}.key")));
        command
    }

    /// Runs the binary as this user, at most [`COMMAND_LIMIT`] long.
    #[track_caller]
    pub(crate) fn run_as(&self, user: &str, args: &[&str]) -> Said {
        let child = self.command(user, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Said::of(within(child, args))
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.run_as("ada", args)
    }

    pub(crate) fn key(&self, user: &str) -> KeyPair {
        KeyPair::load(&self.path(&format!("{user}.key"))).unwrap()
    }

    /// The first node of a new cluster of `user`'s, not yet running.
    #[track_caller]
    pub(crate) fn init_as(&self, user: &str, name: &str, capacity: &str) -> Node<'_> {
        let node = Node::new(self, user, name);
        node.init_with(capacity).ok();
        node
    }

    /// The first node of a cluster, with a peer that answers.
    #[track_caller]
    pub(crate) fn node(&self) -> Node<'_> {
        self.node_of(CAPACITY)
    }

    #[track_caller]
    pub(crate) fn node_of(&self, capacity: &str) -> Node<'_> {
        let mut node = self.init_as("ada", "a", capacity);
        node.start();
        node
    }

    /// A further node of the cluster that `node` is of, not yet running.
    #[track_caller]
    pub(crate) fn join(&self, node: &Node<'_>, name: &str) -> Node<'_> {
        let token = node.token(&[]);
        let joined = Node::new(self, "ada", name);
        joined.join(&token).ok();
        joined
    }

    /// A node that has nothing yet.
    pub(crate) fn nothing(&self, name: &str) -> Node<'_> {
        Node::new(self, "ada", name)
    }
}

/// Waits for a command; kills it and fails the test where it takes too long.
#[track_caller]
fn within(child: Child, args: &[&str]) -> Output {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, ended) = std::sync::mpsc::channel();
    let waits = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        sender.send(()).ok();
        output
    });
    if ended.recv_timeout(COMMAND_LIMIT).is_err() {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        panic!("{args:?} did not end: {:?}", waits.join().unwrap());
    }
    waits.join().unwrap()
}

/// One node: its folder, its address, and its peer where one runs.
pub(crate) struct Node<'a> {
    site: &'a Site,
    user: String,
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    pub(crate) cgroup: String,
    peer: Option<Child>,
}

impl<'a> Node<'a> {
    fn new(site: &'a Site, user: &str, name: &str) -> Self {
        let address = address();
        let cgroup = format!("skerry-bad-{}", address.replace(['.', ':'], "-"));
        let dir = site.path(name);
        Self { site, user: user.to_owned(), name: name.to_owned(), dir, address, cgroup, peer: None }
    }

    pub(crate) fn dir_text(&self) -> String {
        self.dir.display().to_string()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    fn options(&self) -> Vec<String> {
        [
            "--dir",
            &self.dir_text(),
            "--name",
            &self.name,
            "--listen",
            &self.address,
            "--cgroup-parent",
            &self.cgroup,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn init_with(&self, capacity: &str) -> Said {
        let mut args = vec!["init", "--user", &self.user, "--capacity", capacity];
        let own = self.options();
        args.extend(own.iter().map(String::as_str));
        self.site.run_as(&self.user, &args)
    }

    /// `init` of this node.
    pub(crate) fn init(&self) -> Said {
        self.init_with(CAPACITY)
    }

    /// `join` of this node, with whatever token.
    #[track_caller]
    pub(crate) fn join(&self, token: &str) -> Said {
        self.join_with(token, &[])
    }

    #[track_caller]
    pub(crate) fn join_with(&self, token: &str, more: &[&str]) -> Said {
        let own = self.options();
        let mut args = vec!["join", token];
        args.extend(own.iter().map(String::as_str));
        args.extend(more);
        self.site.run_as(&self.user, &args)
    }

    /// A token for joining, made by this peer.
    #[track_caller]
    pub(crate) fn token(&self, more: &[&str]) -> String {
        let mut args = vec!["token", "create", "-o", "name"];
        args.extend(more);
        self.run(&args).ok().out.trim().to_owned()
    }

    /// Runs the peer until it ends, for one that is expected not to come up.
    #[track_caller]
    pub(crate) fn peer_ends(&self) -> Said {
        self.site.run_as(&self.user, &["peer", "--dir", &self.dir_text()])
    }

    /// Starts the peer and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        let command = self.site.command(&self.user, &["peer", "--dir", &self.dir_text()]);
        self.start_by(command);
    }

    /// The command of the peer, for one that is started in surroundings of its own.
    pub(crate) fn peer_command(&self) -> Command {
        self.site.command(&self.user, &["peer", "--dir", &self.dir_text()])
    }

    /// Starts the peer by this command and waits until it answers.
    #[track_caller]
    pub(crate) fn start_by(&mut self, command: Command) {
        let dir = self.dir.clone();
        self.start_elsewhere(command, |_| dir);
    }

    /// The same for a peer whose folder is elsewhere for us: `seen` says where, by its process.
    #[track_caller]
    pub(crate) fn start_elsewhere(&mut self, mut command: Command, seen: impl FnOnce(u32) -> PathBuf) {
        let log = fs::File::create(self.site.path(&format!("{}.log", self.name))).unwrap();
        let peer = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.dir = seen(peer.id());
        self.peer = Some(peer);
        let started = eventually(LIMIT, || {
            if let Some(status) = self.peer.as_mut().unwrap().try_wait().unwrap() {
                return Ok(Err(status));
            }
            let said = self.run(&["status", "-o", "json"]);
            if said.code == 0 { Ok(Ok(())) } else { Err(said.err) }
        });
        started.unwrap_or_else(|status| panic!("the peer ended with {status}: {}", self.log()));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site.path(&format!("{}.log", self.name))).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.peer.as_ref().unwrap().id()
    }

    /// Ends the peer as an operator does.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut peer = self.peer.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(peer.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(peer.wait().unwrap().success(), "{}", self.log());
    }

    /// Kills the peer and every container at once, as a power cut does.
    #[track_caller]
    pub(crate) fn power_cut(&mut self) {
        let mut peer = self.peer.take().unwrap();
        peer.kill().unwrap();
        peer.wait().unwrap();
        kernel::kill_all(&self.cgroup).unwrap();
        assert_eq!(self.containers().len(), 0);
    }

    /// Runs a command against this peer.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.run_as(&self.user, args)
    }

    #[track_caller]
    pub(crate) fn run_as(&self, user: &str, args: &[&str]) -> Said {
        let peer = self.peer_name();
        // In front: behind `--` it would be the program's.
        let mut all = vec!["--peer", &peer];
        all.extend(args);
        self.site.run_as(user, &all)
    }

    fn peer_name(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// The data of a command that must succeed.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let said = self.run(&all).ok();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// The ids of every event that the peer knows.
    #[track_caller]
    pub(crate) fn history(&self) -> Vec<String> {
        let rows: Vec<Value> = self.json(&["history"]);
        rows.iter().map(|row| row["event"].as_str().unwrap().to_owned()).collect()
    }

    /// Makes the image `probe:1`.
    #[track_caller]
    pub(crate) fn image(&self) {
        let path = e2e::binary::probe().display().to_string();
        self.run(&["image", "build", "probe:1", "--binary", &path]).ok();
    }

    /// A manifest of one deployment of `probe:1` that sleeps, with further lines.
    pub(crate) fn manifest(&self, name: &str, more: &[&str]) -> String {
        let mut text = format!("deployments:\n  - name: {name}\n    image: probe:1\n");
        let sleeps = "command: [/probe, sleep]";
        let limits = "resources: {cpu: 100m, memory: 32Mi, pids: 20}";
        let own = |key: &str| more.iter().any(|line| line.starts_with(key));
        for line in [sleeps, limits].iter().filter(|line| !own(line.split_once(':').unwrap().0)).chain(more) {
            text.extend(["    ", line, "\n"]);
        }
        self.site.file(&format!("{}-{name}.yaml", self.name), text)
    }

    #[track_caller]
    pub(crate) fn apply(&self, name: &str, more: &[&str]) -> Said {
        let file = self.manifest(name, more);
        self.run(&["apply", "-y", "-f", &file])
    }

    /// The containers that have a process, by the kernel.
    #[track_caller]
    pub(crate) fn containers(
        &self,
    ) -> std::collections::BTreeMap<String, std::collections::BTreeSet<dev::process::Process>> {
        kernel::containers(&self.cgroup).unwrap()
    }

    /// One request on the Unix socket; its status and body.
    #[track_caller]
    pub(crate) fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: skerry\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // Left open in this direction: a client that goes away need not be answered.
        let answer = self.send(&[head.as_bytes(), body].concat(), false);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends bytes to the Unix socket, ends, and returns all that comes back.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes, true)
    }

    fn send(&self, bytes: &[u8], end: bool) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        // A peer that has heard enough may close before it was sent everything.
        let sent = stream.write_all(bytes);
        if end && sent.is_ok() {
            stream.shutdown(std::net::Shutdown::Write).ok();
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if sent.is_err() || error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end of the answer: {error}"),
        }
        answer
    }

    /// KiB of memory that the peer has in use.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.site.path(&format!("{}.log", self.name)))
        {
            std::io::stderr().write_all(format!("--- {}'s log:\n{log}\n", self.name).as_bytes()).ok();
        }
        if let Some(mut peer) = self.peer.take() {
            peer.kill().ok();
            peer.wait().ok();
        }
        // Supervisors are in cgroups below the parent, as are containers.
        let cleared = kernel::kill_all(&self.cgroup).and_then(|()| kernel::remove_cgroups(&self.cgroup));
        if !std::thread::panicking() {
            cleared.unwrap();
        }
    }
}

/// Every file below `dir` and what is in it, but for sockets and the lock.
pub(crate) fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name() != OsStr::new("lock") {
                found.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Waits until `look` gives something.
#[track_caller]
pub(crate) fn until<T>(look: impl FnMut() -> Result<T, String>) -> T {
    eventually(LIMIT, look)
}

/// Whether this test can run; see `e2e`.
pub(crate) fn root() -> bool {
    e2e::world::can_run()
}

/// Fails where `work` takes longer than a second per unit of `seconds`.
#[track_caller]
pub(crate) fn timed<T>(seconds: u64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let made = work();
    assert!(started.elapsed() < Duration::from_secs(seconds), "it took {:?}", started.elapsed());
    made
}
