//! Preparing a data folder: `init` here, `join` beside it.
//!
//! Both may be cut off at any moment and simply repeated: `store::Draft` keeps the order of writing.
//! The key of an earlier try is used again, since a peer may have admitted it. A repeated `init` makes
//! another cluster, with another first event; nobody can have heard of the earlier one.

mod join;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use document::Documents;
use document::event::{Author, Body, EVENT_VERSION, Genesis, Hex, Kind, NodeInfo, SignedEvent, UserInfo};
use identity::{KeyFileError, KeyPair, RandomError};
use model::{ClusterId, DocId, Extras, LabelKey, Name, NodeId};
use store::fs::{Disk, Fs};
use store::{CreateError, DataDir, Draft, FileError, Format, OpenError, Secret};

use crate::config::{Amounts, Config, ConfigError, Overcommit, Pressure, Reserve};

pub use self::join::{JoinError, Joined, join};

/// Bytes of a key file; a larger one is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What the operator says of the node that is prepared.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The data folder.
    pub dir: PathBuf,
    /// The node's name.
    pub name: Name,
    /// Where the mesh listens.
    pub listen: SocketAddr,
    /// What others are told to dial; derived from `listen` where empty.
    pub advertise: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<LabelKey, String>,
    /// What it offers; measured at start where not given.
    pub capacity: Option<Amounts>,
    /// What else it offers.
    pub extras: Extras,
    /// What is kept for the system; as usual where not given.
    pub reserve: Option<Reserve>,
    /// How often the rest is given away.
    pub overcommit: Overcommit,
    /// Whether it takes new work while its machine is short of something.
    pub pressure: Pressure,
    /// The cgroup folder of its containers.
    pub cgroup_parent: String,
}

/// A prepared first node.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Where the recovery key was put: the operator is to move it off the machine.
    pub recovery_key: PathBuf,
}

/// Why a first node could not be prepared. The same command may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data folder.
    #[error("the data folder {} could not be prepared", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key.
    #[error("the node's key could not be made")]
    Key(#[from] KeyFileError),
    /// No chance to make a key of.
    #[error("the system gave no random numbers")]
    Random(#[from] RandomError),
    /// What the node would offer: its peer would never start.
    #[error("the node cannot be prepared with these settings")]
    Offer(#[from] ConfigError),
    /// The first event is not valid: a name or an address.
    #[error("the first event of the cluster is not valid")]
    Genesis(#[from] document::InsertError),
}

impl InitError {
    /// Whether the folder is a node's already, and so can become no other's.
    pub fn is_taken(&self) -> bool {
        let Self::Folder { source, .. } = self else { return false };
        matches!(source.downcast_ref(), Some(CreateError::AlreadyPrepared { .. }))
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn folder<E: std::error::Error + Send + Sync + 'static>(dir: &Path) -> impl FnOnce(E) -> InitError + '_ {
    move |source| InitError::Folder { dir: dir.to_owned(), source: source.into() }
}

/// Begins a folder, or takes up the one of an earlier try, with the node's key. Nothing is made where its peer
/// could never start.
fn begin(fs: &Arc<dyn Fs>, options: &NodeOptions) -> Result<(Draft, KeyPair), InitError> {
    config(options).offers(crate::daemon::measured_capacity)?;
    let dir = &*options.dir;
    // A folder with a file `key` that is no key of ours is not ours, and is left as it is.
    let key = DataDir::key_in(dir);
    if matches!(DataDir::open_with(&**fs, dir), Err(OpenError::HalfPrepared { .. }))
        && let Ok(found) = fs.read(&key, KEY_FILE_BYTES_MAX)
    {
        KeyPair::parse(&key, found.mode, found.bytes)?;
    }
    let draft = Draft::begin_with(Arc::clone(fs), dir).map_err(folder::<CreateError>(dir))?;
    let key = secret(&draft, dir, Secret::Key)?;
    Ok((draft, key))
}

/// The key of an earlier try, or a new one that is on disk.
fn secret(draft: &Draft, dir: &Path, which: Secret) -> Result<KeyPair, InitError> {
    if let Some(found) = draft.secret(which).map_err(folder::<FileError>(dir))? {
        return Ok(KeyPair::parse(&draft.path(which), found.mode, found.bytes)?);
    }
    let key = KeyPair::generate()?;
    draft.put_secret(which, key.pem().as_bytes()).map_err(folder::<FileError>(dir))?;
    Ok(key)
}

/// What others are told to dial.
fn advertised(options: &NodeOptions) -> Vec<String> {
    if !options.advertise.is_empty() {
        return options.advertise.clone();
    }
    addresses_at(options.listen)
}

/// What to tell others who want to reach a socket that is bound to `local`.
pub(crate) fn addresses_at(local: SocketAddr) -> Vec<String> {
    if local.ip().is_unspecified() {
        local_addresses().into_iter().map(|ip| SocketAddr::new(ip, local.port()).to_string()).collect()
    } else {
        vec![local.to_string()]
    }
}

/// Addresses of this machine's interfaces that others may reach it at; IPv4 first, loopback only if
/// there is no other.
fn local_addresses() -> Vec<std::net::IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found: Vec<std::net::IpAddr> = interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|it| std::net::IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| std::net::IpAddr::V6(it.ip())))
        })
        // Link-local ones mean nothing without an interface.
        .filter(|ip| !matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local()))
        .collect();
    found.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    if found.iter().any(|ip| !ip.is_loopback()) {
        found.retain(|ip| !ip.is_loopback());
    }
    found.truncate(document::event::ADDRESSES_MAX);
    found
}

fn config(options: &NodeOptions) -> Config {
    Config {
        listen: options.listen,
        advertise: options.advertise.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        capacity: options.capacity,
        extras: options.extras.clone(),
        reserve: options.reserve,
        overcommit: options.overcommit,
        pressure: options.pressure.clone(),
        labels: options.labels.clone(),
    }
}

fn finish(
    draft: Draft,
    options: &NodeOptions,
    format: &Format,
    events: &[Vec<u8>],
) -> Result<DataDir, InitError> {
    draft.finish(format, events, &config(options).to_text()).map_err(folder::<CreateError>(&options.dir))
}

/// Prepares the first node of a new cluster. `user` becomes its first admin.
pub fn init(
    options: &NodeOptions,
    cluster_name: &Name,
    user_name: &Name,
    user: &KeyPair,
) -> Result<Initialised, InitError> {
    init_on(&(Arc::new(Disk) as _), options, cluster_name, user_name, user)
}

/// The same on any file system.
fn init_on(
    fs: &Arc<dyn Fs>,
    options: &NodeOptions,
    cluster_name: &Name,
    user_name: &Name,
    user: &KeyPair,
) -> Result<Initialised, InitError> {
    let (draft, key) = begin(fs, options)?;
    let recovery_key = draft.path(Secret::Recovery);
    let recovery = secret(&draft, &options.dir, Secret::Recovery)?;
    let genesis = Genesis {
        name: cluster_name.clone(),
        admin: UserInfo { name: user_name.clone(), key: user.user_id() },
        node: NodeInfo { name: options.name.clone(), key: key.node_id(), addresses: advertised(options) },
        recovery: recovery.user_id(),
    };
    let body = Body {
        v: EVENT_VERSION,
        cluster: ClusterId::from_bytes([0; 32]),
        doc: DocId::Cluster,
        author: Author::User(user.user_id()),
        auth: Vec::new(),
        deps: Vec::new(),
        nonce: Hex(nonce()?),
        time_ms: wall_ms(),
        kind: Kind::Genesis(genesis),
    };
    let event = SignedEvent::sign(&body, |bytes| user.sign(bytes));
    let cluster = ClusterId::from_bytes(*event.id().as_bytes());
    Documents::new(cluster).insert(&event.encode())?;
    let format = Format { cluster, node: key.node_id(), name: options.name.clone() };
    finish(draft, options, &format, &[event.encode()])?;
    Ok(Initialised { cluster, node: key.node_id(), recovery_key })
}

/// Sixteen bytes of chance.
fn nonce() -> Result<[u8; 16], RandomError> {
    // A fresh public key is as good as random: half of one is enough.
    let public = KeyPair::generate()?.public();
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&public[..16]);
    Ok(nonce)
}
