//! Preparing a data folder: `init` and `join`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use document::Documents;
use document::event::{
    Author, Body, EVENT_VERSION, Genesis, Hex, Kind, NodeAdmit, NodeInfo, SignedEvent, UserInfo, admit_bytes,
};
use identity::{Expect, JoinToken, KeyFileError, KeyPair, RandomError};
use model::{Capacity, ClusterId, DocId, LabelKey, Name, NodeId};
use store::{DataDir, Format, Journal, JournalError};
use transport::{ALPN_JOIN, DialError};

use crate::config::{Config, ConfigError};
use crate::joining::{self, TalkError};

/// How long one address of a token is tried.
const JOIN_DIAL_MAX: Duration = Duration::from_secs(5);

/// How long the whole conversation may take: the log of a large cluster over a slow link.
const JOIN_TALK_MAX: Duration = Duration::from_secs(60);

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
    pub capacity: Option<Capacity>,
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

/// A prepared further node.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster's name.
    pub cluster_name: Name,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The address of the peer that let it in.
    pub via: String,
}

/// Why a first node could not be prepared. The folder may be used for another try.
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
    /// The settings.
    #[error("the node's settings could not be written")]
    Config(#[from] ConfigError),
    /// The journal.
    #[error("the first event could not be written")]
    Journal(#[from] JournalError),
    /// The first event is not valid: a name or an address.
    #[error("the first event of the cluster is not valid")]
    Genesis(#[from] document::InsertError),
}

impl InitError {
    /// Whether the folder is a node's already, and so can become no other's.
    pub fn is_taken(&self) -> bool {
        let Self::Folder { source, .. } = self else { return false };
        matches!(source.downcast_ref(), Some(store::CreateError::AlreadyPrepared { .. }))
    }
}

/// Why a further node could not be prepared. The folder may be used for another try, with the same
/// key, so that a token that was used on the way still serves.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The local part.
    #[error(transparent)]
    Prepare(#[from] InitError),
    /// None of the token's addresses let it in.
    #[error("no peer that the token names can be joined through: {}", tried.join("; "))]
    Unreachable {
        /// Each address and what happened there.
        tried: Vec<String>,
    },
    /// A peer answered and said no.
    #[error("{via} refused to let this node in: {reason}")]
    Refused {
        /// Which peer.
        via: String,
        /// Its words.
        reason: String,
    },
    /// What the peer sent is not the log of the token's cluster, or the peer is no member of it.
    #[error("{via} is not a peer of the cluster that the token was made for: {reason}")]
    Foreign {
        /// Which peer.
        via: String,
        /// What does not fit.
        reason: String,
    },
    /// The conversation broke.
    #[error("the conversation with {via} broke")]
    Talk {
        /// Which peer.
        via: String,
        /// Why.
        source: TalkError,
    },
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn folder(dir: &Path) -> impl FnOnce(io::Error) -> InitError + '_ {
    move |source| InitError::Folder { dir: dir.to_owned(), source: source.into() }
}

/// Makes the folder and the node's key, or takes the key of an earlier try.
fn node_key(dir: &Path) -> Result<KeyPair, InitError> {
    use std::os::unix::fs::DirBuilderExt;
    // A prepared folder is refused before anything of it is touched.
    match DataDir::open(dir) {
        Ok(data) => {
            let format = Box::new(data.format().clone());
            let source = store::CreateError::AlreadyPrepared { dir: dir.to_owned(), format };
            return Err(InitError::Folder { dir: dir.to_owned(), source: source.into() });
        }
        Err(store::OpenError::NotPrepared { .. }) => {}
        Err(error) => return Err(InitError::Folder { dir: dir.to_owned(), source: error.into() }),
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(folder(dir))?;
    let path = DataDir::key_in(dir);
    if path.exists() {
        return Ok(KeyPair::load(&path)?);
    }
    // No key of an earlier try: whatever else is there is not ours, and gets no keys put beside it.
    if let Some(entry) = foreign_entry(dir).map_err(folder(dir))? {
        let source = store::CreateError::NotEmpty { dir: dir.to_owned(), entry };
        return Err(InitError::Folder { dir: dir.to_owned(), source: source.into() });
    }
    Ok(KeyPair::create(&path)?)
}

/// Something in a folder without a key that no earlier try left there.
fn foreign_entry(dir: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?.file_name().to_string_lossy().into_owned();
        // A file system of its own has this at its root.
        if entry != "lost+found" {
            return Ok(Some(entry));
        }
    }
    Ok(None)
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

fn write_folder(
    options: &NodeOptions,
    cluster: ClusterId,
    node: NodeId,
    events: &[Vec<u8>],
) -> Result<(), InitError> {
    let dir = &options.dir;
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| InitError::Folder { dir: dir.clone(), source };
    let config = Config {
        listen: options.listen,
        advertise: options.advertise.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        capacity: options.capacity,
        labels: options.labels.clone(),
    };
    let format = Format { cluster, node, name: options.name.clone() };
    let data = DataDir::create(dir, format).map_err(|error| failed(error.into()))?;
    let (mut journal, _) = Journal::open(&data.journal(), cluster)?;
    let records: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    for some in records.chunks(256) {
        journal.append(some)?;
    }
    store::atomic_write(&dir.join(Config::FILE), config.to_text().as_bytes())
        .map_err(|error| failed(error.into()))
}

/// Prepares the first node of a new cluster. `user` becomes its first admin.
pub fn init(
    options: &NodeOptions,
    cluster_name: &Name,
    user_name: &Name,
    user: &KeyPair,
) -> Result<Initialised, InitError> {
    let key = node_key(&options.dir)?;
    let recovery_key = options.dir.join("recovery.key");
    let recovery =
        if recovery_key.exists() { KeyPair::load(&recovery_key)? } else { KeyPair::create(&recovery_key)? };
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
    write_folder(options, cluster, key.node_id(), &[event.encode()])?;
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

/// Prepares a further node: asks a peer that the token names to let it in.
pub async fn join(options: &NodeOptions, token: &JoinToken) -> Result<Joined, JoinError> {
    let key = node_key(&options.dir)?;
    let mut tried = Vec::new();
    for address in token.addresses() {
        match transport::dial(address, token.key(), ALPN_JOIN, Expect::Any, JOIN_DIAL_MAX).await {
            Ok(connection) => {
                let via = address.clone();
                let talk = join_through(options, token, &key, connection, &via);
                return tokio::time::timeout(JOIN_TALK_MAX, talk).await.unwrap_or_else(|_| {
                    Err(JoinError::Talk {
                        via,
                        source: TalkError::TooSlow { seconds: JOIN_TALK_MAX.as_secs() },
                    })
                });
            }
            Err(DialError::Refused { reason, .. }) => {
                return Err(JoinError::Refused { via: address.clone(), reason });
            }
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(JoinError::Unreachable { tried })
}

async fn join_through(
    options: &NodeOptions,
    token: &JoinToken,
    key: &KeyPair,
    connection: transport::ClientConnection,
    via: &str,
) -> Result<Joined, JoinError> {
    let talk = |source| JoinError::Talk { via: via.to_owned(), source };
    let foreign = |reason: String| JoinError::Foreign { via: via.to_owned(), reason };
    let (mut send, mut recv) =
        connection.open_bi().await.map_err(|error| talk(TalkError::Lost(error.into())))?;
    joining::ask(&mut send).await.map_err(talk)?;
    let log = match joining::read_log(&mut recv).await.map_err(talk)? {
        Ok(log) => log,
        Err(reason) => return Err(JoinError::Refused { via: via.to_owned(), reason }),
    };
    // The log is believed from its first event on, whose hash the token holds; nothing else is.
    let mut documents = Documents::new(token.cluster());
    for inserted in documents.insert_all(&log) {
        inserted.map_err(|error| foreign(format!("its log is not that of the cluster: {error}")))?;
    }
    let roster = documents.roster();
    if !roster.nodes.contains_key(&NodeId::from_bytes(connection.peer_key())) {
        return Err(foreign("its key is not in the cluster's roster".to_owned()));
    }
    let cluster_name = roster.name.clone().ok_or_else(|| foreign("its log has no first event".to_owned()))?;
    let mut events = log;
    if !roster.nodes.contains_key(&key.node_id()) {
        let name = options.name.clone();
        let proof = token.key().sign(&admit_bytes(token.cluster(), key.node_id(), &name));
        let admit = NodeAdmit {
            token: token.token_id(),
            node: NodeInfo { name, key: key.node_id(), addresses: advertised(options) },
            proof: Hex(proof),
        };
        let mut deps = documents.heads(&DocId::Cluster);
        deps.truncate(model::limits::EVENT_DEPS_MAX);
        let body = Body {
            v: EVENT_VERSION,
            cluster: token.cluster(),
            doc: DocId::Cluster,
            author: Author::Node(key.node_id()),
            auth: Vec::new(),
            deps,
            nonce: Hex(nonce().map_err(InitError::from)?),
            time_ms: wall_ms(),
            kind: Kind::NodeAdmit(admit),
        };
        let event = SignedEvent::sign(&body, |bytes| key.sign(bytes)).encode();
        joining::send_event(&mut send, &event).await.map_err(talk)?;
        if let Err(reason) = joining::read_answer(&mut recv).await.map_err(talk)? {
            return Err(JoinError::Refused { via: via.to_owned(), reason });
        }
        events.push(event);
    }
    write_folder(options, token.cluster(), key.node_id(), &events)?;
    connection.close().await;
    Ok(Joined { cluster_name, cluster: token.cluster(), node: key.node_id(), via: via.to_owned() })
}
