//! A cluster for one test.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use api::routes;
use api::shapes::{Applied, DeploymentRow, NodeRow, NodeState as Liveness, PsRow, Status};
use dev::http::{self, HttpError};
use dev::skerry::{Answer, ask};
use dev::wait::chain;
use dev::web::Hello;
use dev::{Cluster, Options, User, kernel};
use serde::de::DeserializeOwned;

use crate::binary;
use crate::look::{Held, env_of, eventually};

/// How long anything may take before a test fails: a busy machine with two cores, a debug build.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Clusters at the same time: more only wait for each other's processors.
const CLUSTERS_MAX: usize = 2;

/// What a node offers where a test does not care.
const CAPACITY: &str = "cpu=8,memory=4Gi,pids=4000";

/// How long a replica or a peer may take to answer a request, or must not answer over a cut link.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Numbers manifests: a file that was applied stays as it was.
static MANIFESTS: AtomicU32 = AtomicU32::new(0);

static CLUSTERS: Mutex<usize> = Mutex::new(0);
static CLUSTER_ENDED: Condvar = Condvar::new();

/// Shown by the harness below the name of the test, if it fails.
#[allow(clippy::print_stderr, reason = "the harness keeps nothing else")]
fn tell_with_the_test(words: &str) {
    eprintln!("{words}");
}

/// One of so many clusters at a time.
struct Permit;

impl Permit {
    fn take() -> Self {
        let mut running = CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= CLUSTERS_MAX {
            running = CLUSTER_ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLUSTER_ENDED.notify_one();
    }
}

/// Whether this test can run. Without root it fails in CI, and says loudly what was not tested elsewhere.
pub fn can_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var("CI").is_err(),
        "{name} needs root, and CI must not skip it: network namespaces, packet filters, cgroups"
    );
    // Past the test harness, which keeps the words of tests that pass to itself.
    let words = format!("\n*** NOT TESTED, needs root: {name}\n");
    std::io::stderr().write_all(words.as_bytes()).expect("stderr is there");
    false
}

/// The beginning of the names of the tests' folders.
const FOLDER: &str = "skerry-e2e-";

/// Takes down, once, what a run left that was killed itself. A cluster whose maker is alive is not
/// touched, nor one that belongs to nobody.
fn clear_away_once() {
    static CLEARED: Once = Once::new();
    CLEARED.call_once(|| {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
        for folder in entries.flatten().filter(|it| it.file_name().to_string_lossy().starts_with(FOLDER)) {
            let cluster = folder.path().join("c");
            if Cluster::is_abandoned(&cluster) && Cluster::down_at(&cluster).is_ok() {
                // What is in it is of use to nobody; a leftover file harms nobody either.
                fs::remove_dir_all(folder.path()).ok();
            }
        }
    });
}

/// A temporary folder of a test; first, what an earlier run left is cleared away.
pub fn folder() -> tempfile::TempDir {
    clear_away_once();
    tempfile::Builder::new().prefix(FOLDER).tempdir().expect("a temporary folder")
}

/// Runs a test on a cluster of so many nodes, and checks that nothing is left of it.
#[track_caller]
pub fn with_cluster(nodes: usize, test: impl FnOnce(&World)) {
    with_cluster_of(nodes, CAPACITY, test);
}

/// As [`with_cluster`], with what each node offers.
#[track_caller]
pub fn with_cluster_of(nodes: usize, capacity: &str, test: impl FnOnce(&World)) {
    if !can_run() {
        return;
    }
    let _permit = Permit::take();
    let folder = folder();
    let options = Options {
        exe: binary::skerry().to_owned(),
        dir: folder.path().join("c"),
        nodes,
        capacity: Some(capacity.to_owned()),
        owned: true,
        replace: false,
    };
    let cluster = Cluster::up(&options).unwrap_or_else(|error| panic!("no cluster: {}", chain(&error)));
    let world = World { cluster, files: folder.path().to_owned() };
    let ended = catch_unwind(AssertUnwindSafe(|| test(&world)));
    if ended.is_err() {
        world.tell();
    }
    let traces = world.cluster.traces();
    let down = world.cluster.down();
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
    down.unwrap_or_else(|error| panic!("the cluster was not taken down: {}", chain(&error)));
    let left = traces.and_then(|traces| traces.left());
    let left =
        left.unwrap_or_else(|error| panic!("the kernel cannot be asked what is left: {}", chain(&error)));
    assert!(left.is_empty(), "this is left of the cluster: {left:?}");
}

/// A cluster and a folder for files.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    files: std::path::PathBuf,
}

impl World {
    /// Says what is known, for a test that failed.
    fn tell(&self) {
        let mut words = String::new();
        for name in self.cluster.names().unwrap_or_default() {
            words.extend(["--- the end of the log of ", &name, ":\n", &self.cluster.log_tail(&name), "\n"]);
            let rows: Result<Vec<PsRow>, _> = ask(&self.cluster.socket(&name), routes::PS);
            for row in rows.unwrap_or_default() {
                words.extend(["--- ", &name, " shows ", &format!("{row:?}"), "\n"]);
            }
        }
        tell_with_the_test(&words);
    }

    /// A file that lives as long as the test.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.join(name);
        fs::write(&path, text).expect("a file in a temporary folder");
        path.display().to_string()
    }

    /// Runs a command that may fail.
    #[track_caller]
    pub fn run(&self, node: &str, user: User, args: &[&str]) -> Answer {
        self.cluster.skerry(node, user).run(args).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Runs a command of alice's that must succeed.
    #[track_caller]
    pub fn ok(&self, node: &str, args: &[&str]) -> Answer {
        self.run(node, User::Alice, args).ok().unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Runs a command of alice's that must succeed, for its data.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self, node: &str, args: &[&str]) -> T {
        self.ok(node, args).json().unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Makes the image `probe:1` on a node.
    #[track_caller]
    pub fn image(&self, node: &str) {
        let path = binary::probe().display().to_string();
        self.ok(node, &["image", "build", "probe:1", "--binary", &path]);
    }

    /// A manifest of one deployment of `probe:1`, with further lines of the deployment.
    pub fn manifest(&self, name: &str, more: &[&str]) -> String {
        let mut text = format!("deployments:\n  - name: {name}\n    image: probe:1\n");
        for line in more {
            text.extend(["    ", line, "\n"]);
        }
        let count = MANIFESTS.fetch_add(1, Ordering::Relaxed);
        self.file(&format!("{name}-{count}.yaml"), &text)
    }

    /// Applies a manifest of alice's and waits until it has come about.
    #[track_caller]
    pub fn apply(&self, node: &str, name: &str, more: &[&str]) -> Applied {
        self.json(node, &["apply", "-f", &self.manifest(name, more)])
    }

    /// Applies a manifest and does not wait.
    #[track_caller]
    pub fn submit(&self, node: &str, user: User, name: &str, more: &[&str]) -> Applied {
        let answer = self.run(node, user, &["apply", "--detach", "-f", &self.manifest(name, more)]);
        answer.ok().and_then(|answer| answer.json()).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// What a node's peer answers.
    pub fn ask<T: DeserializeOwned>(&self, node: &str, route: &str) -> Result<T, String> {
        ask(&self.cluster.socket(node), route).map_err(|error| chain(&error))
    }

    /// The containers on these nodes, by the kernel.
    pub fn held(&self, nodes: &[&str]) -> Result<Vec<Held>, String> {
        let mut all = Vec::new();
        for node in nodes {
            let found = kernel::containers(&self.cluster.cgroup(node)).map_err(|error| chain(&error))?;
            all.extend(found.into_iter().map(|(id, processes)| {
                let processes: Vec<_> = processes.into_iter().collect();
                Held { node: (*node).to_owned(), env: env_of(&processes), id, processes }
            }));
        }
        Ok(all)
    }

    /// The containers of one deployment on these nodes, by the kernel.
    #[track_caller]
    pub fn of(&self, name: &str, nodes: &[&str]) -> Vec<Held> {
        let held = self.held(nodes).unwrap_or_else(|error| panic!("{error}"));
        held.into_iter().filter(|held| held.deployment() == name).collect()
    }

    /// The containers of one deployment that ran at the same moment: one look takes a while, in which
    /// one may end and another begin, so those that were there before and after count.
    #[track_caller]
    pub fn at_once(&self, name: &str, nodes: &[&str]) -> Vec<Held> {
        let (mut before, after) = (self.of(name, nodes), self.of(name, nodes));
        before.retain(|held| after.iter().any(|later| later.id == held.id));
        before
    }

    /// The deployment as a node's peer sees it.
    pub fn deployment(&self, node: &str, name: &str) -> Result<DeploymentRow, String> {
        let rows: Vec<DeploymentRow> = self.ask(node, routes::DEPLOYMENTS)?;
        rows.into_iter().find(|row| row.name == name).ok_or(format!("{node} knows no deployment {name}"))
    }

    /// The wanted copies in the document of a node's peer.
    pub fn replicas(&self, node: &str, name: &str) -> Result<u32, String> {
        Ok(self.deployment(node, name)?.replicas)
    }

    /// Waits until on these nodes the kernel runs exactly one container for each of `wanted` replicas,
    /// and each node's peer finds all of them ready.
    #[track_caller]
    pub fn settled(&self, nodes: &[&str], name: &str, wanted: usize) -> Vec<Held> {
        eventually(LIMIT, || {
            let held: Vec<Held> =
                self.held(nodes)?.into_iter().filter(|held| held.deployment() == name).collect();
            let mut ordinals: Vec<&str> = held.iter().map(Held::ordinal).collect();
            ordinals.sort_unstable();
            ordinals.dedup();
            if held.len() != wanted || ordinals.len() != wanted {
                let places: Vec<String> =
                    held.iter().map(|held| format!("{}.{} on {}", name, held.ordinal(), held.node)).collect();
                return Err(format!(
                    "{} containers of {name} run for {wanted} replicas: {places:?}",
                    held.len()
                ));
            }
            for node in nodes {
                let row = self.deployment(node, name)?;
                if row.ready as usize != wanted || row.running as usize != wanted {
                    return Err(format!(
                        "{node} finds {} of {wanted} ready, {} running",
                        row.ready, row.running
                    ));
                }
            }
            Ok(held)
        })
    }

    /// Waits until nothing of a deployment runs on these nodes.
    #[track_caller]
    pub fn gone(&self, nodes: &[&str], name: &str) {
        eventually(LIMIT, || {
            let left = self.held(nodes)?.into_iter().filter(|held| held.deployment() == name).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} containers of {name} still run")) }
        });
    }

    /// Cuts the cluster: `n1,n2/n3`.
    #[track_caller]
    pub fn cut(&self, groups: &str) {
        let groups = dev::cli::parse_groups(groups).expect("groups as in the manual").0;
        self.cluster.partition(&groups, &[]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Cuts nothing but the way from one node to another.
    #[track_caller]
    pub fn cut_one_way(&self, pairs: &[(&str, &str)]) {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        self.cluster.partition(&[], &pairs).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Mends all links.
    #[track_caller]
    pub fn heal(&self) {
        self.cluster.heal().unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Takes a node's power away.
    #[track_caller]
    pub fn kill(&self, node: &str) {
        self.cluster.kill(node).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Kills a node's peer with SIGKILL.
    #[track_caller]
    pub fn stop(&self, node: &str) {
        self.cluster.stop(node).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Starts a node's peer.
    #[track_caller]
    pub fn start(&self, node: &str) {
        self.cluster.start(node).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Waits until a node's peer sees another one so.
    #[track_caller]
    pub fn sees(&self, node: &str, other: &str, wanted: Liveness) {
        eventually(LIMIT, || {
            let rows: Vec<NodeRow> = self.ask(node, routes::NODES)?;
            let row =
                rows.iter().find(|row| row.name == other).ok_or(format!("{node} does not know {other}"))?;
            if row.state == wanted { Ok(()) } else { Err(format!("{node} sees {other} as {:?}", row.state)) }
        });
    }

    /// Waits until each of these nodes' peers has a live link to every other one, and sees it up.
    #[track_caller]
    pub fn linked(&self, nodes: &[&str]) {
        eventually(LIMIT, || {
            for node in nodes {
                let status: Status = self.ask(node, routes::STATUS)?;
                let up = status.nodes.iter().filter(|row| row.state == Liveness::Up).count();
                if (status.connected as usize) + 1 < nodes.len() || up < nodes.len() {
                    return Err(format!("{node} has {} links and sees {up} nodes up", status.connected));
                }
            }
            Ok(())
        });
    }

    /// Waits until these nodes' peers stand at the same heads of every document.
    #[track_caller]
    pub fn agreed(&self, nodes: &[&str]) {
        eventually(LIMIT, || {
            let mut heads = Vec::new();
            for node in nodes {
                let rows: Vec<NodeRow> = self.ask(node, routes::NODES)?;
                let own = rows.into_iter().find(|row| row.name == *node);
                heads.push(own.ok_or(format!("{node} does not know itself"))?.heads);
            }
            if heads.windows(2).all(|pair| pair[0] == pair[1]) {
                Ok(())
            } else {
                Err(format!("the documents of {nodes:?} differ: {heads:?}"))
            }
        });
    }

    /// What a published port of a node answers to clients on it.
    pub fn http(&self, node: &str, port: u16) -> Result<Hello, String> {
        let netns = self.cluster.node(node).map_err(|error| chain(&error))?.netns_path;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let answer =
            http::get(&netns, address, "/", ANSWER_WAIT).map_err(|error: HttpError| chain(&error))?;
        serde_json::from_str(&answer.body).map_err(|error| chain(&error))
    }

    /// What a published port of one node answers to clients on another.
    pub fn http_between(&self, from: &str, to: &str, port: u16) -> Result<Hello, String> {
        let failed = |error: dev::ClusterError| chain(&error);
        let netns = self.cluster.node(from).map_err(failed)?.netns_path;
        let address = SocketAddr::from((self.cluster.address(to).map_err(failed)?, port));
        let answer =
            http::get(&netns, address, "/", ANSWER_WAIT).map_err(|error: HttpError| chain(&error))?;
        serde_json::from_str(&answer.body).map_err(|error| chain(&error))
    }

    /// A node's data folder.
    pub fn dir(&self, node: &str) -> std::path::PathBuf {
        self.cluster.dir().join(node)
    }
}

/// Whether two processes are in the same namespace of a kind (`net`, `pid`, ...).
#[track_caller]
pub fn same_namespace(kind: &str, a: u32, b: u32) -> bool {
    let link = |pid: u32| {
        let path = format!("/proc/{pid}/ns/{kind}");
        fs::read_link(Path::new(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    link(a) == link(b)
}
