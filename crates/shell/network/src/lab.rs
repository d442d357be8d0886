//! A lab: nodes' network namespaces joined by one bridge, and the packet filters between them.
//!
//! The lab's folder:
//!
//! ```text
//! lock        held for the length of each call that changes the lab
//! lab.json    subnet and nodes; written last, removed first: with it the lab is whole
//! netns/      a private mount, so that no other mount namespace gets to see what is mounted below
//!   _bridge   the bridge's namespace, held by a mount on this file
//!   <node>    each node's namespace, likewise (a node's name has no underscore)
//! ```
//!
//! What a call that was killed leaves is found by listing `netns` and the mount table, never by
//! remembering; so `destroy` is also the repair.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use model::{Name, NameError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::cuts::{Cuts, CutsError};
use crate::links::{self, LinkError};
use crate::netns::{self, NetnsError, in_netns};
use crate::nft::{self, Drop, FilterError};
use crate::subnet::Subnet;

/// Nodes in one lab: a bridge has 1,024 ports, and a batch of rules for this many fits a socket.
pub(crate) const LAB_NODES_MAX: usize = 1000;

/// Nodes whose filters are set at once: two threads each, for the milliseconds that it takes.
const FILTERS_AT_ONCE_MAX: usize = 64;

/// The version of `lab.json`.
const FORMAT: u32 = 1;

const STATE: &str = "lab.json";
const LOCK: &str = "lock";
const NETNS: &str = "netns";
const BRIDGE: &str = "_bridge";

/// Why a lab could not be made, changed, opened or removed.
///
/// After a failed `create` nothing is left; after any other, the lab is as far as the call got,
/// and `destroy` removes it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// There is one already.
    #[error("`{}` holds a lab already", dir.display())]
    Exists {
        /// The lab's folder.
        dir: PathBuf,
    },
    /// There is none.
    #[error("`{}` holds no lab", dir.display())]
    NotFound {
        /// The lab's folder.
        dir: PathBuf,
    },
    /// Its namespaces are gone: the machine was started anew since. Destroy it and make it again.
    #[error("the lab in `{}` has lost the namespace `{name}`; destroy the lab and make it again", dir.display())]
    Lost {
        /// The lab's folder.
        dir: PathBuf,
        /// The namespace.
        name: String,
    },
    /// A name that is no node's name.
    #[error("the lab cannot have this node")]
    Name(#[from] NameError),
    /// A node that is there already.
    #[error("the lab has a node `{node}` already")]
    Duplicate {
        /// Its name.
        node: String,
    },
    /// A node that is not there.
    #[error("the lab has no node `{node}`")]
    UnknownNode {
        /// The name that was asked for.
        node: String,
    },
    /// More nodes than there is room for.
    #[error("a lab in {subnet} has room for {max} nodes")]
    Full {
        /// Its subnet.
        subnet: Subnet,
        /// The limit.
        max: usize,
    },
    /// The cuts make no sense here. Nothing was changed.
    #[error("the cuts cannot be made")]
    Cuts(#[from] CutsError),
    /// A node's packet filter was not set. Other nodes may have theirs; apply again.
    #[error("the cuts cannot be made at node `{node}`")]
    Filter {
        /// The node.
        node: String,
        /// Why.
        source: FilterError,
    },
    /// A namespace could not be made or entered.
    #[error("the lab's namespaces cannot be used")]
    Netns(#[from] NetnsError),
    /// A link could not be made or removed.
    #[error("the lab's links cannot be set up")]
    Link(#[from] LinkError),
    /// `lab.json` is damaged or newer.
    #[error("`{}` cannot be understood", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// `lab.json` was written by another release.
    #[error("`{}` was made by another Skerry: format {found}, this one reads {FORMAT}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file or mount could not be made or removed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> LabError {
    let path = path.to_owned();
    move |source| LabError::Io { action, path, source: source.into() }
}

/// One node's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNet {
    /// Its name.
    pub name: String,
    /// Its namespace, for [`crate::spawn_in`] and [`crate::in_netns`].
    pub netns_path: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A process that was still inside a lab's namespace when the lab was destroyed. It has no links
/// any more; its namespace ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The process.
    pub pid: u32,
    /// The node whose namespace it is in.
    pub node: String,
}

/// `lab.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    subnet: Subnet,
    /// In the order in which they came: a node's place gives its address.
    nodes: Vec<String>,
}

/// A set of nodes' network namespaces joined by one bridge. Dropping it destroys nothing: the lab
/// is on the machine, and this is a handle to it.
#[derive(Clone, Debug)]
pub struct Lab {
    dir: PathBuf,
    state: State,
}

impl Lab {
    /// Makes a lab in `state_dir`, which is made where missing. Needs root.
    ///
    /// What an earlier call left that was killed is cleared away first.
    pub fn create(state_dir: &Path, nodes: &[String], subnet: Subnet) -> Result<Self, LabError> {
        check_names(nodes, subnet)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(io_error("create", state_dir))?;
        // The mount table has real paths.
        let dir = state_dir.canonicalize().map_err(io_error("find", state_dir))?;
        let lock = Lock::take(&dir)?;
        if dir.join(STATE).exists() {
            return Err(LabError::Exists { dir });
        }
        sweep(&dir)?;
        let mut lab = Self { dir, state: State { format: FORMAT, subnet, nodes: Vec::new() } };
        let made = lab.make(nodes);
        if let Err(error) = made {
            // The first error is the one that counts; what this leaves, the next call clears away.
            let _swept = sweep(&lab.dir);
            lock.remove();
            return Err(error);
        }
        Ok(lab)
    }

    /// Finds the lab that another process made.
    pub fn open(state_dir: &Path) -> Result<Self, LabError> {
        let dir = match state_dir.canonicalize() {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LabError::NotFound { dir: state_dir.to_owned() });
            }
            Err(error) => return Err(io_error("find", state_dir)(error)),
        };
        let state = read_state(&dir)?;
        let lab = Self { dir, state };
        for name in std::iter::once(BRIDGE).chain(lab.state.nodes.iter().map(String::as_str)) {
            if !is_namespace(&lab.netns_path(name)) {
                return Err(LabError::Lost { dir: lab.dir, name: name.to_owned() });
            }
        }
        Ok(lab)
    }

    /// The lab's folder, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The addresses of the nodes.
    pub fn subnet(&self) -> Subnet {
        self.state.subnet
    }

    /// Every node, in the order in which they came.
    pub fn nodes(&self) -> impl Iterator<Item = NodeNet> {
        self.state.nodes.iter().enumerate().filter_map(|(index, name)| {
            let address = self.state.subnet.address(index)?;
            Some(NodeNet { name: name.clone(), netns_path: self.netns_path(name), address })
        })
    }

    /// One node.
    pub fn node(&self, name: &str) -> Result<NodeNet, LabError> {
        self.nodes()
            .find(|node| node.name == name)
            .ok_or_else(|| LabError::UnknownNode { node: name.to_owned() })
    }

    /// Adds a node with the next address. It reaches everybody until cuts are applied again.
    pub fn add_node(&mut self, name: &str) -> Result<NodeNet, LabError> {
        let _lock = Lock::take(&self.dir)?;
        // Another process may have added one since.
        self.state = read_state(&self.dir)?;
        let mut nodes = self.state.nodes.clone();
        nodes.push(name.to_owned());
        check_names(&nodes, self.state.subnet)?;
        self.make_node(name)?;
        links::wait_until_up(&self.netns_path(BRIDGE), [self.netns_path(name).as_path()])?;
        self.write_state()?;
        self.node(name)
    }

    /// Makes exactly these cuts: what was cut before and is not named is healed.
    ///
    /// At each node the change is atomic; from node to node it takes some milliseconds. Packets
    /// are dropped where they arrive, whatever their connection's age.
    pub fn apply(&self, cuts: &Cuts) -> Result<(), LabError> {
        let _lock = Lock::take(&self.dir)?;
        let lab = Self { dir: self.dir.clone(), state: read_state(&self.dir)? };
        let addresses: BTreeMap<_, _> = lab.nodes().map(|node| (node.name, node.address)).collect();
        cuts.check(&addresses.keys().map(String::as_str).collect())?;
        let mut drops: BTreeMap<&str, Vec<Drop>> =
            addresses.keys().map(|name| (name.as_str(), Vec::new())).collect();
        for (from, to, per_mille) in cuts.pairs() {
            if let (Some(source), Some(drops)) = (addresses.get(from), drops.get_mut(to)) {
                drops.push(Drop { source: *source, per_mille });
            }
        }
        // Side by side: the kernel waits some milliseconds for each, and a cut that comes to one
        // node well before another is not the cut that was asked for.
        let drops: Vec<_> = drops.into_iter().collect();
        for batch in drops.chunks(FILTERS_AT_ONCE_MAX) {
            std::thread::scope(|scope| {
                let start = |(node, drops): &(&str, Vec<Drop>)| {
                    let (node, drops, lab) = ((*node).to_owned(), drops.clone(), &lab);
                    scope.spawn(move || lab.filter(&node, &drops))
                };
                let threads: Vec<_> = batch.iter().map(start).collect();
                threads.into_iter().try_for_each(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })?;
        }
        Ok(())
    }

    fn filter(&self, node: &str, drops: &[Drop]) -> Result<(), LabError> {
        in_netns(&self.netns_path(node), || nft::replace(drops))?
            .map_err(|source| LabError::Filter { node: node.to_owned(), source })
    }

    /// Removes the lab: links, namespaces, mounts and files, and its folder if that is then empty.
    /// Idempotent.
    ///
    /// Processes that are still inside are returned; they are the caller's to end.
    pub fn destroy(&self) -> Result<Vec<Straggler>, LabError> {
        Self::destroy_at(&self.dir)
    }

    /// As [`Lab::destroy`], for a lab that cannot be opened: half made, half destroyed, or from
    /// before the machine was started anew. Where there is none, there is nothing to do.
    pub fn destroy_at(state_dir: &Path) -> Result<Vec<Straggler>, LabError> {
        let dir = match state_dir.canonicalize() {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("find", state_dir)(error)),
        };
        if ![STATE, NETNS, LOCK].iter().any(|name| dir.join(name).exists()) {
            return Ok(Vec::new());
        }
        let lock = Lock::take(&dir)?;
        let stragglers = sweep(&dir)?;
        lock.remove();
        Ok(stragglers)
    }

    fn netns_path(&self, name: &str) -> PathBuf {
        self.dir.join(NETNS).join(name)
    }

    fn make(&mut self, nodes: &[String]) -> Result<(), LabError> {
        let netns = self.dir.join(NETNS);
        DirBuilder::new().mode(0o700).create(&netns).map_err(io_error("create", &netns))?;
        mount(Some(&netns), &netns, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(io_error("mount", &netns))?;
        mount(None::<&str>, &netns, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(io_error("make private", &netns))?;
        let bridge = self.netns_path(BRIDGE);
        netns::create(&bridge)?;
        in_netns(&bridge, links::make_bridge)??;
        for node in nodes {
            self.make_node(node)?;
        }
        let paths: Vec<_> = nodes.iter().map(|node| self.netns_path(node)).collect();
        links::wait_until_up(&bridge, paths.iter().map(PathBuf::as_path))?;
        self.write_state()
    }

    fn make_node(&mut self, name: &str) -> Result<(), LabError> {
        let (subnet, index) = (self.state.subnet, self.state.nodes.len());
        let address = subnet.address(index).ok_or(LabError::Full { subnet, max: subnet.nodes_max() })?;
        let path = self.netns_path(name);
        // Left by a call that was killed: `lab.json` would name it otherwise.
        release(&path)?;
        netns::create(&path)?;
        links::connect(&self.netns_path(BRIDGE), &path, index, address, subnet.prefix())?;
        self.state.nodes.push(name.to_owned());
        Ok(())
    }

    fn write_state(&self) -> Result<(), LabError> {
        let path = self.dir.join(STATE);
        let draft = self.dir.join("lab.json.tmp");
        let text = serde_json::to_vec_pretty(&self.state).expect("names and a subnet are text");
        // Renamed into place: a reader never sees half of it. A power cut takes the lab anyway.
        std::fs::write(&draft, text).map_err(io_error("write", &draft))?;
        std::fs::rename(&draft, &path).map_err(io_error("replace", &path))
    }
}

fn read_state(dir: &Path) -> Result<State, LabError> {
    let path = dir.join(STATE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LabError::NotFound { dir: dir.to_owned() });
        }
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let state: State =
        serde_json::from_slice(&text).map_err(|source| LabError::State { path: path.clone(), source })?;
    if state.format != FORMAT {
        return Err(LabError::OtherFormat { path, found: state.format });
    }
    // The names become paths.
    check_names(&state.nodes, state.subnet)?;
    Ok(state)
}

fn check_names(nodes: &[String], subnet: Subnet) -> Result<(), LabError> {
    let max = subnet.nodes_max().min(LAB_NODES_MAX);
    if nodes.len() > max {
        return Err(LabError::Full { subnet, max });
    }
    let mut seen = BTreeSet::new();
    for node in nodes {
        node.parse::<Name>()?;
        if !seen.insert(node) {
            return Err(LabError::Duplicate { node: node.clone() });
        }
    }
    Ok(())
}

/// Whether a namespace is mounted at the path.
fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Removes everything of a lab but its lock.
fn sweep(dir: &Path) -> Result<Vec<Straggler>, LabError> {
    for name in [STATE, "lab.json.tmp"] {
        remove_file(&dir.join(name))?;
    }
    let netns = dir.join(NETNS);
    let mut namespaces = Vec::new();
    match std::fs::read_dir(&netns) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(io_error("read", &netns))?;
                namespaces.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read", &netns)(error)),
    }
    let stragglers = stragglers(&namespaces)?;
    // Explicitly, and first: a process that is still inside keeps a namespace alive, but not its
    // link, and the kernel's own clearing up comes some time after the last of them.
    let bridge = netns.join(BRIDGE);
    if is_namespace(&bridge) {
        links::disconnect_all(&bridge)?;
    }
    for (_, path) in &namespaces {
        release(path)?;
    }
    unmount(&netns)?;
    // What lay in the folder before it was mounted over, if anything: only ever our own files.
    std::fs::remove_dir(&netns).map_err(io_error("remove", &netns))?;
    Ok(stragglers)
}

/// Lets go of one namespace and removes its file.
fn release(path: &Path) -> Result<(), LabError> {
    unmount(path)?;
    remove_file(path)
}

fn remove_file(path: &Path) -> Result<(), LabError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

/// Unmounts whatever is mounted at exactly this path, however often.
fn unmount(path: &Path) -> Result<(), LabError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(io_error("read", table))?;
    for _ in text.lines().filter(|line| mount_point(line).is_some_and(|point| point == path)) {
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(io_error("unmount", path))?;
    }
    Ok(())
}

/// The mount point of a line of `mountinfo`; the kernel writes blanks and the like as `\040`.
fn mount_point(line: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;

    let mut rest = line.split(' ').nth(4)?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// Finds the processes that are inside these namespaces.
fn stragglers(namespaces: &[(String, PathBuf)]) -> Result<Vec<Straggler>, LabError> {
    let mut ids = BTreeMap::new();
    for (name, path) in namespaces.iter().filter(|(_, path)| is_namespace(path)) {
        let found = std::fs::metadata(path).map_err(io_error("read", path))?;
        ids.insert((found.dev(), found.ino()), name);
    }
    let mut stragglers = Vec::new();
    let proc = Path::new("/proc");
    for entry in std::fs::read_dir(proc).map_err(io_error("read", proc))? {
        let entry = entry.map_err(io_error("read", proc))?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // A process that ended meanwhile, or is a zombie, is in no namespace.
        let Ok(netns) = std::fs::metadata(entry.path().join("ns/net")) else { continue };
        if let Some(node) = ids.get(&(netns.dev(), netns.ino())) {
            stragglers.push(Straggler { pid, node: (*node).clone() });
        }
    }
    stragglers.sort_by_key(|straggler| straggler.pid);
    Ok(stragglers)
}

/// The lab's lock, held until dropped.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(dir: &Path) -> Result<Self, LabError> {
        let path = dir.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = match options.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(LabError::NotFound { dir: dir.to_owned() });
                }
                Err(error) => return Err(io_error("open", &path)(error)),
            };
            file.lock().map_err(io_error("lock", &path))?;
            let held = file.metadata().map_err(io_error("read", &path))?.ino();
            // `destroy` removes the file: a lock on a removed one keeps nobody out.
            if std::fs::metadata(&path).is_ok_and(|found| found.ino() == held) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Ends the lock with its file, and with the folder if that is empty now.
    fn remove(self) {
        let Self { file, path } = self;
        // Both may fail without harm: an empty file or a folder of the caller's stays.
        let _removed = std::fs::remove_file(&path);
        if let Some(dir) = path.parent() {
            let _removed = std::fs::remove_dir(dir);
        }
        drop(file);
    }
}
