//! Making a cluster, and adding to it.

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use network::{Lab, Subnet};
use serde::Deserialize;

use super::down::{clear, sweep};
use super::{
    COMMAND_WAIT, Cluster, ClusterError, Lock, MESH_PORT, NODES_MAX, User, cgroup_of, failed, ours, record,
};
use crate::marker::{DRAFT, Marker, NodeRecord, Wanted};
use crate::process::{self, Process};
use crate::skerry::Skerry;

/// Bytes of the folder's path: a socket's own is at most 107 (`sun_path`), with `/n64/api.sock` in it.
const DIR_BYTES_MAX: usize = 80;

/// What a new cluster shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `skerry` binary.
    pub exe: PathBuf,
    /// The folder; made where missing, and to be empty.
    pub dir: PathBuf,
    /// How many nodes, named `n1`, `n2` and so on.
    pub nodes: usize,
    /// What each node offers, as `init --capacity` takes it; measured where not given.
    pub capacity: Option<String>,
    /// Whether this process takes it down itself: another run may only once this one is gone.
    pub owned: bool,
    /// Whether a cluster that is in the folder already is taken down first.
    pub replace: bool,
}

/// What this machine lacks for a cluster.
pub(super) fn missing() -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return vec![
            "root: each peer gets a network namespace and packet filters of its own, and its containers \
             get cgroups and mounts"
                .to_owned(),
        ];
    }
    let lacking = network::doctor().into_iter().filter(|check| !check.ok && check.name != "packet loss");
    lacking
        .map(|check| {
            let fix = check.fix.map(|fix| format!(" ({fix})")).unwrap_or_default();
            format!("{}: {}{fix}", check.name, check.detail)
        })
        .collect()
}

/// The part of `user key` that is needed.
#[derive(Deserialize)]
struct UserKey {
    key: String,
}

/// Of `token create`.
#[derive(Deserialize)]
struct TokenCreated {
    token: String,
}

/// Of `init` and `join`.
#[derive(Deserialize)]
struct Prepared {
    node_id: String,
}

impl Cluster {
    /// Makes a cluster: the folder, the network, the nodes, their peers and two users. Returns when
    /// every peer sees every other one.
    pub fn up(options: &Options) -> Result<Self, ClusterError> {
        if !(1..=NODES_MAX).contains(&options.nodes) {
            return Err(ClusterError::Nodes { nodes: options.nodes });
        }
        let missing = missing();
        if !missing.is_empty() {
            return Err(ClusterError::Missing { missing });
        }
        let given = &options.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(given).map_err(failed("create", given))?;
        let dir = given.canonicalize().map_err(failed("find", given))?;
        let refused = |why: &str| ClusterError::Folder { dir: dir.clone(), why: why.to_owned() };
        if dir.as_os_str().len() > DIR_BYTES_MAX {
            return Err(refused(&format!(
                "is too long a path for sockets in it, at most {DIR_BYTES_MAX} bytes"
            )));
        }
        let lock = Lock::take(&dir)?;
        match Marker::read(&dir)? {
            None => {
                let mut entries = fs::read_dir(&dir).map_err(failed("list", &dir))?;
                // A draft alone is what a kill left at the very beginning.
                if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != DRAFT)) {
                    return Err(refused("holds something else already"));
                }
            }
            Some(marker) => {
                let busy = marker.owner.filter(|owner| owner.is_alive() && owner.pid != std::process::id());
                if let Some(owner) = busy {
                    return Err(refused(&format!("holds a cluster that process {} is using", owner.pid)));
                }
                if marker.complete && !options.replace && !ours(&dir)?.is_empty() {
                    return Err(refused("holds a cluster already: `skerry dev down` takes it down"));
                }
                sweep(&dir, &marker)?;
                clear(&dir)?;
            }
        }
        let boot = process::boot_id().map_err(failed("read", Path::new("the boot id")))?;
        let owner = if options.owned { Some(Process::me()?) } else { None };
        let cgroup = cgroup_of(&dir);
        let mut marker = Marker::new(boot, cgroup.clone(), options.capacity.clone(), owner);
        marker.write(&dir)?;
        let cluster = Self { dir: dir.clone(), exe: options.exe.clone(), cgroup, children: Mutex::default() };
        match cluster.make(&mut marker, options.nodes) {
            Ok(()) => Ok(cluster),
            Err(error) => {
                // The first error is the one that counts; what this leaves, the next run clears away.
                if sweep(&dir, &marker).and_then(|_| clear(&dir)).is_ok() {
                    fs::remove_dir(&dir).ok();
                }
                cluster.bury();
                drop(lock);
                Err(error)
            }
        }
    }

    fn make(&self, marker: &mut Marker, nodes: usize) -> Result<(), ClusterError> {
        let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        let subnet = Subnet::default();
        for (index, name) in names.iter().enumerate() {
            let address = subnet.address(index).ok_or(ClusterError::Nodes { nodes })?;
            marker.nodes.push(NodeRecord {
                name: name.clone(),
                id: None,
                address,
                peer: None,
                wanted: Wanted::Prepared,
            });
        }
        marker.write(&self.dir)?;
        Lab::create(&self.net(), &names, subnet)?;
        self.prepare(marker, "n1", None)?;
        self.start_peer(marker, "n1")?;
        let alice = self.skerry("n1", User::Alice);
        if nodes > 1 {
            let token = self.token(nodes - 1)?;
            for name in names.iter().skip(1) {
                self.prepare(marker, name, Some(&token))?;
                self.spawn_peer(marker, name)?;
            }
            for name in names.iter().skip(1) {
                self.await_peer(marker, name)?;
            }
        }
        let bob: UserKey = self.skerry("n1", User::Bob).json(&["user", "key"])?;
        alice.ok(&["user", "add", "bob", &bob.key])?;
        self.together()?;
        marker.complete = true;
        Ok(marker.write(&self.dir)?)
    }

    /// A token that lets so many nodes in, through `n1`.
    fn token(&self, uses: usize) -> Result<String, ClusterError> {
        let uses = uses.to_string();
        let created: TokenCreated =
            self.skerry("n1", User::Alice).json(&["token", "create", "--uses", &uses])?;
        Ok(created.token)
    }

    /// Prepares a node's data folder: as the first one, or with a token.
    fn prepare(&self, marker: &mut Marker, name: &str, token: Option<&str>) -> Result<(), ClusterError> {
        let (dir, cgroup) = (self.node_dir(name).display().to_string(), self.cgroup(name));
        let node = self.node(name)?;
        let listen = SocketAddr::from((node.address, MESH_PORT)).to_string();
        let mut args = match token {
            None => vec!["init", "--cluster", "dev", "--user", "alice"],
            Some(token) => vec!["join", token],
        };
        args.extend(["--dir", &dir, "--name", name, "--listen", &listen, "--cgroup-parent", &cgroup]);
        // All of them share this machine, whose trouble is mostly that of whoever builds and tests beside them.
        args.push("--ignore-pressure");
        if let Some(capacity) = &marker.capacity {
            args.extend(["--capacity", capacity]);
        }
        let skerry =
            Skerry::new(&self.exe, COMMAND_WAIT).signing(&self.key(User::Alice)).inside(&node.netns_path);
        let prepared: Prepared = skerry.json(&args)?;
        record(marker, name)?.id = Some(prepared.node_id);
        Ok(marker.write(&self.dir)?)
    }

    /// Adds a node, which joins through `n1`, and starts its peer. Returns its name.
    pub fn add_node(&self) -> Result<String, ClusterError> {
        let _lock = Lock::take(&self.dir)?;
        let mut marker = self.marker()?;
        let name = format!("n{}", marker.nodes.len() + 1);
        if marker.nodes.len() >= NODES_MAX {
            return Err(ClusterError::Nodes { nodes: marker.nodes.len() + 1 });
        }
        let node = Lab::open(&self.net())?.add_node(&name)?;
        marker.nodes.push(NodeRecord {
            name: name.clone(),
            id: None,
            address: node.address,
            peer: None,
            wanted: Wanted::Prepared,
        });
        marker.write(&self.dir)?;
        let token = self.token(1)?;
        self.prepare(&mut marker, &name, Some(&token))?;
        self.start_peer(&mut marker, &name)?;
        Ok(name)
    }
}
