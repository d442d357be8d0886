//! A cluster on this machine: made, cut apart, killed in part, and taken down.
//!
//! Its folder:
//!
//! ```text
//! dev.json     what there is; first in, last out
//! net/         the lab: network namespaces and the packet filters between them
//! user.key     the key of `alice`, the cluster's first admin
//! bob.key      the key of `bob`, who may deploy
//! n1/ n2/ ...  each node's data folder, with `peer.log`, what its peer said
//! ```

mod down;
mod faults;
mod up;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::routes;
use api::shapes::{NodeRow, NodeState as Liveness, Status};
use network::{Cuts, CutsError, Lab, LabError, NodeNet, SpawnError};
use serde::{Deserialize, Serialize};

use crate::kernel::{self, KernelError};
use crate::marker::{Marker, MarkerError, NodeRecord, Wanted};
use crate::process::{self, Process, ProcessError};
use crate::skerry::{Skerry, SkerryError, ask};
use crate::wait::{self, TooLate, chain};

pub use down::{Leftover, Traces};
pub use up::Options;

use down::{end_ours, find};

/// Nodes in one cluster: each is a process with threads, and two cores are what most have to spare.
pub const NODES_MAX: usize = 64;

/// The port of every peer's mesh.
const MESH_PORT: u16 = 7070;

/// How long a peer may take until it answers: a debug build on a busy machine.
const READY_WAIT: Duration = Duration::from_secs(30);

/// How long peers may take to find each other.
const TOGETHER_WAIT: Duration = Duration::from_secs(60);

/// How long a command of ours may take.
const COMMAND_WAIT: Duration = Duration::from_secs(60);

/// Bytes of a peer's log that are told with an error.
const LOG_TAIL_B: usize = 2_000;

/// Why a cluster could not be made, changed, found or taken down.
///
/// After a failed `up` nothing is left. After any other, `down` takes away what there is.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// This machine cannot hold one.
    #[error("a cluster on one machine needs {}", missing.join("; "))]
    Missing {
        /// What is missing, and why it is needed.
        missing: Vec<String>,
    },
    /// A number of nodes that makes no sense.
    #[error("{nodes} is not a number of nodes, 1 to {NODES_MAX}")]
    Nodes {
        /// The number.
        nodes: usize,
    },
    /// The folder cannot be used for a new cluster.
    #[error("{} {why}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// There is none.
    #[error("there is no cluster in {}", dir.display())]
    NotFound {
        /// The folder.
        dir: PathBuf,
    },
    /// A node that is not there, or is not in a state for this.
    #[error("node {node} {why}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
    /// A peer did not come up.
    #[error("the peer of {node} {why}; the end of its log:\n{log}")]
    Peer {
        /// The node.
        node: String,
        /// What happened.
        why: String,
        /// The end of what it said.
        log: String,
    },
    /// The peers did not find each other.
    #[error("the peers did not find each other")]
    Apart(#[source] TooLate),
    /// Cuts that make no sense.
    #[error("the cluster cannot be cut like this")]
    Cuts(#[from] CutsError),
    /// The network.
    #[error("the cluster's network cannot be used")]
    Lab(#[from] LabError),
    /// The kernel.
    #[error("the cluster's processes cannot be dealt with")]
    Kernel(#[from] KernelError),
    /// A process.
    #[error("the cluster's processes cannot be dealt with")]
    Process(#[from] ProcessError),
    /// A command of ours.
    #[error(transparent)]
    Skerry(#[from] SkerryError),
    /// A peer could not be started at all.
    #[error("a peer cannot be started")]
    Spawn(#[from] SpawnError),
    /// The marker.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// A file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> ClusterError + use<E> {
    let path = path.to_owned();
    move |source| ClusterError::Io { action, path, source: source.into() }
}

/// The cluster's two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The first admin.
    Alice,
    /// Who may deploy.
    Bob,
}

impl User {
    fn key(self) -> &'static str {
        match self {
            Self::Alice => "user.key",
            Self::Bob => "bob.key",
        }
    }
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its peer runs.
    Up,
    /// It lost its power: nothing of it runs, nobody reaches it.
    Killed,
    /// Its peer does not run; its containers may.
    Stopped,
}

/// One row of `dev status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name.
    pub name: String,
    /// Id: the node's public key, hexadecimal; `null` while it is being prepared.
    pub id: Option<String>,
    /// The peer; `null` where none runs.
    pub pid: Option<u32>,
    /// The peer's Unix socket.
    pub socket: PathBuf,
    /// The data folder.
    pub dir: PathBuf,
    /// The network namespace, for `nsenter --net=`.
    pub netns: PathBuf,
    /// The folder of cgroups, relative to each hierarchy's top.
    pub cgroup: String,
    /// What it is doing.
    pub state: NodeState,
}

/// A cluster on this machine. Dropping it takes nothing down: it is on the machine, and this is a
/// handle to it.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    exe: PathBuf,
    cgroup: String,
    /// Peers that this process started, to be buried when they have ended.
    children: Mutex<BTreeMap<u32, Child>>,
}

/// The folder's lock, held until dropped.
struct Lock {
    _folder: File,
}

impl Lock {
    fn take(dir: &Path) -> Result<Self, ClusterError> {
        loop {
            let folder = File::open(dir).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ClusterError::NotFound { dir: dir.to_owned() },
                _ => failed("open", dir)(error),
            })?;
            folder.lock().map_err(failed("lock", dir))?;
            // While we waited it may have been taken away, and made anew.
            let (held, there) = (folder.metadata().map_err(failed("look at", dir))?, fs::metadata(dir));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                return Ok(Self { _folder: folder });
            }
        }
    }
}

/// The folder of cgroups of the cluster in `dir`: FNV-1a of the path, so that it is found again.
fn cgroup_of(dir: &Path) -> String {
    let hash = dir.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("skerry-dev-{hash:016x}")
}

/// The peers and supervisors of the cluster in `dir`, by their command lines. Also children of a peer
/// that have not executed their program yet: they look like the peer.
fn ours(dir: &Path) -> Result<Vec<Process>, ClusterError> {
    let below = |arg: &String| Path::new(arg).starts_with(dir);
    process::with_args(|args| match args.get(1).map(String::as_str) {
        Some("peer") => args.iter().skip(2).any(below),
        // The runtime's own word, followed by the folder of containers.
        Some("__supervisor") => args.get(2).is_some_and(below),
        _ => false,
    })
    .map_err(failed("list", Path::new("/proc")))
}

impl Cluster {
    /// Finds the cluster that another process made. `exe` is the binary for peers that are started.
    pub fn open(dir: &Path, exe: &Path) -> Result<Self, ClusterError> {
        let (dir, marker) = find(dir)?;
        let refused = |why: &str| ClusterError::Folder { dir: dir.clone(), why: why.to_owned() };
        if !marker.complete {
            return Err(refused(
                "holds a cluster that was not made to its end: make it again, or take it down",
            ));
        }
        let boot = process::boot_id().map_err(failed("read", Path::new("the boot id")))?;
        if marker.boot_id != boot {
            return Err(refused("holds a cluster from before this machine was started: make it again"));
        }
        Ok(Self { dir, exe: exe.to_owned(), cgroup: marker.cgroup, children: Mutex::default() })
    }

    /// Its folder, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The `skerry` binary that its peers are.
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    fn net(&self) -> PathBuf {
        self.dir.join("net")
    }

    fn node_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn key(&self, user: User) -> PathBuf {
        self.dir.join(user.key())
    }

    /// The folder of a node's cgroups, relative to each hierarchy's top: for [`kernel`].
    pub fn cgroup(&self, name: &str) -> String {
        format!("{}/{name}", self.cgroup)
    }

    /// A node's Unix socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.node_dir(name).join("api.sock")
    }

    /// What a node's peers have said.
    pub fn log(&self, name: &str) -> PathBuf {
        self.node_dir(name).join("peer.log")
    }

    /// A node's place in the network.
    pub fn node(&self, name: &str) -> Result<NodeNet, ClusterError> {
        Ok(Lab::open(&self.net())?.node(name)?)
    }

    /// A node's address.
    pub fn address(&self, name: &str) -> Result<Ipv4Addr, ClusterError> {
        Ok(self.node(name)?.address)
    }

    /// The command line of a user at a node's peer.
    pub fn skerry(&self, name: &str, user: User) -> Skerry {
        self.skerry_with(&self.socket(name), &self.key(user))
    }

    /// The command line of whoever has this key, at any socket.
    pub fn skerry_with(&self, socket: &Path, key: &Path) -> Skerry {
        Skerry::new(&self.exe, COMMAND_WAIT).at(socket).signing(key)
    }

    /// The names of all nodes.
    pub fn names(&self) -> Result<Vec<String>, ClusterError> {
        Ok(self.marker()?.nodes.into_iter().map(|node| node.name).collect())
    }

    fn marker(&self) -> Result<Marker, ClusterError> {
        Marker::read(&self.dir)?.ok_or_else(|| ClusterError::NotFound { dir: self.dir.clone() })
    }

    /// Starts a peer without waiting for it.
    fn spawn_peer(&self, marker: &mut Marker, name: &str) -> Result<(), ClusterError> {
        let path = self.log(name);
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        let mut command =
            Skerry::peer(&self.exe, &self.node_dir(name), log).map_err(failed("open", &path))?;
        let child = network::spawn_in(&self.node(name)?.netns_path, &mut command)?;
        let record = record(marker, name)?;
        record.peer = Process::find(child.id());
        record.wanted = Wanted::Up;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id(), child);
        Ok(marker.write(&self.dir)?)
    }

    /// Waits until a peer that was started answers.
    fn await_peer(&self, marker: &Marker, name: &str) -> Result<(), ClusterError> {
        let peer = marker.nodes.iter().find(|node| node.name == name).and_then(|node| node.peer);
        let socket = self.socket(name);
        let ended = || !peer.is_some_and(|peer| peer.is_alive());
        let waited = wait::until(READY_WAIT, || match ask::<Status>(&socket, routes::STATUS) {
            // The socket of an earlier peer may still be there.
            Ok(status) if peer.is_some_and(|peer| peer.pid == status.pid) => Ok(true),
            Ok(_) => Err("is not the one that answers".to_owned()),
            Err(_) if ended() => Ok(false),
            Err(error) => Err(format!("does not answer: {}", chain(&error))),
        });
        let why = match waited {
            Ok((true, _)) => return Ok(()),
            Ok((false, _)) => "ended at once".to_owned(),
            Err(late) => late.to_string(),
        };
        Err(ClusterError::Peer { node: name.to_owned(), why, log: self.log_tail(name) })
    }

    fn start_peer(&self, marker: &mut Marker, name: &str) -> Result<(), ClusterError> {
        self.spawn_peer(marker, name)?;
        self.await_peer(marker, name)
    }

    /// The end of a node's log, for messages.
    pub fn log_tail(&self, name: &str) -> String {
        let bytes = fs::read(self.log(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_B)..]).into_owned()
    }

    /// Waits until every running peer that may reach all others sees them up, in the absence of cuts.
    pub fn together(&self) -> Result<Duration, ClusterError> {
        let rows = self.status()?;
        let up: Vec<&NodeStatus> = rows.iter().filter(|row| row.state == NodeState::Up).collect();
        let ((), took) = wait::until(TOGETHER_WAIT, || {
            for row in &up {
                let seen: Vec<NodeRow> = ask(&row.socket, routes::NODES)
                    .map_err(|error| format!("{}: {}", row.name, chain(&error)))?;
                for other in &up {
                    let there = seen.iter().find(|it| it.name == other.name);
                    if there.is_none_or(|there| there.state != Liveness::Up) {
                        return Err(format!("{} does not see {}", row.name, other.name));
                    }
                }
            }
            Ok(())
        })
        .map_err(ClusterError::Apart)?;
        Ok(took)
    }

    fn apply_cuts(&self, marker: &Marker) -> Result<(), ClusterError> {
        Ok(Lab::open(&self.net())?.apply(&cuts_of(marker)?)?)
    }

    /// Takes a node's power away: its network, its peer, its supervisors and everything in its cgroups
    /// end at once. What is on its disk stays.
    pub fn kill(&self, name: &str) -> Result<(), ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        let record = record(&mut marker, name)?;
        if record.wanted == Wanted::Killed {
            return Err(ClusterError::Node { node: name.to_owned(), why: "has no power already".to_owned() });
        }
        record.wanted = Wanted::Killed;
        let peer = record.peer.take();
        marker.write(&self.dir)?;
        // Nothing of it may be heard any more, not even that it ends.
        self.apply_cuts(&marker)?;
        if let Some(peer) = peer {
            peer.kill()?;
        }
        end_ours(&self.node_dir(name))?;
        // A machine that starts anew has no cgroups either.
        kernel::kill_all(&self.cgroup(name))?;
        kernel::remove_cgroups(&self.cgroup(name))?;
        self.bury();
        Ok(())
    }

    /// Kills a node's peer, as `kill -9` does. Its containers go on.
    pub fn stop(&self, name: &str) -> Result<(), ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        let record = record(&mut marker, name)?;
        let Some(peer) = record.peer.filter(Process::is_alive) else {
            return Err(ClusterError::Node {
                node: name.to_owned(),
                why: "has no peer that runs".to_owned(),
            });
        };
        record.wanted = Wanted::Stopped;
        record.peer = None;
        marker.write(&self.dir)?;
        peer.kill()?;
        self.bury();
        Ok(())
    }

    /// Starts a node's peer again; gives its network back first where it had lost its power. Returns
    /// when the peer answers.
    pub fn start(&self, name: &str) -> Result<(), ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        let record = record(&mut marker, name)?;
        if record.peer.is_some_and(|peer| peer.is_alive()) {
            return Err(ClusterError::Node { node: name.to_owned(), why: "runs already".to_owned() });
        }
        let was_killed = record.wanted == Wanted::Killed;
        record.wanted = Wanted::Stopped;
        marker.write(&self.dir)?;
        if was_killed {
            self.apply_cuts(&marker)?;
        }
        self.start_peer(&mut marker, name)
    }

    /// Every node.
    pub fn status(&self) -> Result<Vec<NodeStatus>, ClusterError> {
        let netns = self.net().join("netns");
        let rows = self.marker()?.nodes.into_iter().map(|node| {
            let peer = node.peer.filter(Process::is_alive);
            let state = match (node.wanted, peer) {
                (Wanted::Killed, _) => NodeState::Killed,
                (_, Some(_)) => NodeState::Up,
                (Wanted::Prepared | Wanted::Up | Wanted::Stopped, None) => NodeState::Stopped,
            };
            NodeStatus {
                pid: peer.map(|peer| peer.pid),
                socket: self.socket(&node.name),
                dir: self.node_dir(&node.name),
                netns: netns.join(&node.name),
                cgroup: self.cgroup(&node.name),
                id: node.id,
                name: node.name,
                state,
            }
        });
        Ok(rows.collect())
    }

    /// Gives the cluster away: another process may take it down, although this one still runs.
    pub fn disown(&self) -> Result<(), ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        marker.owner = None;
        Ok(marker.write(&self.dir)?)
    }

    /// Takes the peers that have ended, so that they do not stay as zombies.
    fn bury(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }
}

fn unknown(marker: &Marker, name: &str) -> ClusterError {
    let names: Vec<&str> = marker.nodes.iter().map(|node| node.name.as_str()).collect();
    ClusterError::Node { node: name.to_owned(), why: format!("is not there: there are {}", names.join(", ")) }
}

fn record<'a>(marker: &'a mut Marker, name: &str) -> Result<&'a mut NodeRecord, ClusterError> {
    let error = unknown(marker, name);
    marker.nodes.iter_mut().find(|node| node.name == name).ok_or(error)
}

/// All cuts there shall be: the partition, and those around nodes without power.
fn cuts_of(marker: &Marker) -> Result<Cuts, CutsError> {
    let names: Vec<&str> = marker.nodes.iter().map(|node| node.name.as_str()).collect();
    let mut cuts = network::partition(&marker.cuts.groups)?;
    for (from, to) in &marker.cuts.one_way {
        cuts = cuts.and(network::one_way(from, to));
    }
    for (from, to, per_mille) in &marker.cuts.lossy {
        cuts = cuts.and(Cuts::none().and_loss(from, to, *per_mille)?);
    }
    let killed = marker.nodes.iter().filter(|node| node.wanted == Wanted::Killed);
    Ok(killed.fold(cuts, |cuts, node| cuts.and_isolated(&node.name, names.iter().copied())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::CutRecord;

    fn marker(nodes: &[(&str, Wanted)]) -> Marker {
        let mut marker = Marker::new("boot".into(), "x".into(), None, None);
        marker.nodes = nodes
            .iter()
            .map(|(name, wanted)| NodeRecord {
                name: (*name).into(),
                id: None,
                address: Ipv4Addr::LOCALHOST,
                peer: None,
                wanted: *wanted,
            })
            .collect();
        marker
    }

    #[test]
    fn a_node_without_power_is_cut_off_besides_the_partition_and_after_its_heal() {
        let mut marker = marker(&[("n1", Wanted::Up), ("n2", Wanted::Killed), ("n3", Wanted::Up)]);
        marker.cuts.groups = vec![vec!["n1".into(), "n2".into()], vec!["n3".into()]];
        marker.cuts.one_way = vec![("n3".into(), "n1".into())];
        marker.cuts.lossy = vec![("n1".into(), "n2".into(), 50), ("n3".into(), "n1".into(), 70)];
        let cuts = cuts_of(&marker).unwrap();
        assert_eq!([cuts.loss("n1", "n2"), cuts.loss("n1", "n3"), cuts.loss("n3", "n2")], [1000; 3]);
        marker.cuts = CutRecord::default();
        let cuts = cuts_of(&marker).unwrap();
        assert_eq!([cuts.loss("n1", "n3"), cuts.loss("n1", "n2"), cuts.loss("n2", "n3")], [0, 1000, 1000]);
    }

    #[test]
    fn a_folder_that_is_not_ours_is_neither_used_nor_emptied() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        let options = Options {
            exe: "/nonexistent".into(),
            dir: dir.path().into(),
            nodes: 1,
            capacity: None,
            owned: false,
            replace: true,
        };
        assert!(Cluster::up(&options).is_err());
        assert!(Cluster::down_at(dir.path()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("thesis.txt")).unwrap(), "years of work");
    }

    #[test]
    fn a_cluster_has_1_to_64_nodes() {
        let options = Options {
            exe: "/nonexistent".into(),
            dir: "/nonexistent".into(),
            nodes: 0,
            capacity: None,
            owned: false,
            replace: false,
        };
        assert_eq!(Cluster::up(&options).unwrap_err().to_string(), "0 is not a number of nodes, 1 to 64");
    }

    #[test]
    fn clusters_in_different_folders_have_different_cgroups() {
        assert_eq!(cgroup_of(Path::new("/a")), cgroup_of(Path::new("/a")));
        assert_ne!(cgroup_of(Path::new("/a")), cgroup_of(Path::new("/b")));
    }
}
