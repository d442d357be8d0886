//! `skerry peer`: everything is opened, checked and started, and runs until it is told to end.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::Requester;
use identity::{KeyFileError, KeyPair};
use image::{ImageError, ImageStore};
use model::Time;
use node::{Boot, Config as NodeConfig, Input, Node, Seq, Signer, Timings};
use runtime::{Runtime, RuntimeError, UserNamespaces};
use store::{DataDir, Journal, JournalError, LockError, OpenError};
use tokio::sync::mpsc;
use transport::{BindError, Caller, Endpoint, Incoming, Limits};

use crate::backend::Peer;
use crate::config::{Amounts, Config, ConfigError};
use crate::containers::{Keeper, chain, scan};
use crate::images::Fetcher;
use crate::mind::{Batch, Hands, Mind, Roster, door, wall_ms};
use crate::notices::Notices;
use crate::room::Room;

/// Processes offered where the operator says nothing: far below any kernel's limit.
const PIDS_OFFERED: u64 = 4_096;

/// How long a peer that learns of its node's removal can still be asked about it. One that is started
/// after that says it at once.
const REMOVED_SHOWN: std::time::Duration = std::time::Duration::from_secs(10);

/// Bytes of events that are synced together: well below what one append takes, since one batch more
/// may come on top.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Why the peer did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another peer has the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key of another node: a copy of a folder, or a file that was put back in the wrong place.
    #[error(
        "the key {} is that of node {}, and the data folder is that of node {}; nothing was changed",
        path.display(), found.short(), expected.short()
    )]
    OtherKey {
        /// The key's file.
        path: PathBuf,
        /// Whose key it is.
        found: model::NodeId,
        /// Whose the folder is.
        expected: model::NodeId,
    },
    /// The journal.
    #[error("the journal cannot be used; nothing was changed")]
    Journal(#[from] JournalError),
    /// The journal's content.
    #[error("the journal holds an event that is not valid; nothing was changed")]
    Event(#[from] document::InsertError),
    /// The images.
    #[error("the image store cannot be used")]
    Images(#[from] ImageError),
    /// The containers.
    #[error("the containers' folder cannot be used")]
    Runtime(#[from] RuntimeError),
    /// The mesh port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The Unix socket.
    #[error("the socket {} cannot be made", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node was removed, and nothing of it runs any more.
    #[error("node `{node}` was removed from cluster `{cluster}` {told}; nothing of it runs here any more")]
    Removed {
        /// The node's name.
        node: model::Name,
        /// The cluster's name.
        cluster: String,
        /// By whom and when.
        told: String,
    },
    /// The system.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl RunError {
    /// What a person can do about it, where the words alone do not say so.
    pub fn hint(&self) -> Option<&'static str> {
        // Never a backup: an older journal counts starts, and lacks events, that others know of.
        let damaged = matches!(
            self,
            Self::Journal(
                JournalError::Corrupted { .. }
                    | JournalError::Empty { .. }
                    | JournalError::Missing { .. }
                    | JournalError::Swapped { .. }
            )
        );
        damaged.then_some(
            "this node cannot go on from its folder: remove it on another node with `skerry node rm`, and \
             join anew with an empty folder; do not put an older copy of the journal in its place",
        )
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// What this machine has.
pub fn measured_capacity() -> Amounts {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0);
    Amounts { cpu_m: cores * 1_000, memory_b: total_kib * 1_024, pids: PIDS_OFFERED }
}

/// Runs the peer of a prepared data folder until it is told to end; its containers go on. Ends with
/// [`RunError::Removed`] when its node was removed and nothing of it runs any more.
pub fn run(dir: &Path) -> Result<(), RunError> {
    let data = DataDir::open(dir)?;
    let _lock = data.lock()?;
    let room = Arc::new(Room::begin(dir, data.reserve()));
    let config = Config::read(dir)?;
    let key = KeyPair::load(&data.key())?;
    let expected = data.format().node;
    if key.node_id() != expected {
        return Err(RunError::OtherKey { path: data.key(), found: key.node_id(), expected });
    }
    let cluster = data.format().cluster;
    let (journal, recovered) = Journal::open(&data.journal(), cluster)?;
    if recovered.torn_bytes > 0 {
        tracing::warn!(
            bytes = recovered.torn_bytes,
            "the end of the journal was cut off by a crash; nothing acknowledged is lost"
        );
    }
    if journal.is_mended() {
        tracing::warn!(
            mark = %data.journal().join("mark").display(),
            start = journal.opening(),
            "half of the journal's mark could not be read, and was written anew: a power cut, or damage to \
             the disk; nothing acknowledged is lost"
        );
    }
    let generation = journal.opening();
    let images = Arc::new(ImageStore::open(data.images())?);
    let exe = std::env::current_exe().map_err(system("the path of this program cannot be read"))?;
    let runtime = Runtime::new(data.containers(), exe)?;
    let user_namespaces = runtime.try_user_namespaces(&data.images());
    let runtime = Arc::new(runtime.with_user_namespaces(user_namespaces));
    // One thread: what blocks goes to the pool, what thinks is the mind's, and the rest is too little
    // to share. With more, each message wakes a second thread that finds nothing left to do, which is
    // most of what an idle peer costs.
    let tokio = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(64)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()
        .map_err(system("the peer's threads cannot be started"))?;
    tokio.block_on(serve(Opened {
        data,
        config,
        key,
        journal,
        records: recovered.records,
        images,
        runtime,
        generation,
        room,
    }))
}

struct Opened {
    data: DataDir,
    config: Config,
    key: KeyPair,
    journal: Journal,
    records: Vec<Vec<u8>>,
    images: Arc<ImageStore>,
    runtime: Arc<Runtime>,
    generation: u64,
    room: Arc<Room>,
}

async fn serve(opened: Opened) -> Result<(), RunError> {
    let Opened { data, config, key, journal, records, images, runtime, generation, room } = opened;
    let started = runtime::boot_now_ns();
    let (containers, strange) = scan(&runtime)?;
    #[cfg(feature = "sabotage")]
    let containers = if crate::sabotage::Sabotage::NoAdoption.is_on() { Vec::new() } else { containers };
    let (capacity, terms) = config.offers(measured_capacity)?;
    let name = data.format().name.clone();
    let notices = Arc::new(Notices::new(name.to_string()));
    for strange in strange {
        tracing::error!(strange, "a container's folder cannot be used; it is left as it is");
        let message = format!("a container's folder cannot be used and is left as it is: {strange}");
        notices.add(wall_ms(), &node::Notice { kind: "container-strange", about: None, message });
    }

    let degraded = missing(runtime.user_namespaces());
    for message in &degraded {
        tracing::warn!(message, "containers have less than they should");
        let message = message.clone();
        notices.add(wall_ms(), &node::Notice { kind: "node-degraded", about: None, message });
    }

    let roster = Arc::new(Roster::default());
    let gate: Arc<dyn transport::Gate> = Arc::clone(&roster) as _;
    let socket = listen(&data.socket())?;
    let (endpoint, events, incoming) = Endpoint::bind(config.listen, &key, gate, Limits::default()).await?;
    let local = endpoint.local_addr().map_err(system("the mesh port cannot be read"))?;
    let addresses = if config.advertise.is_empty() {
        crate::setup::addresses_at(local)
    } else {
        config.advertise.clone()
    };

    let (mind, letterbox) = door();
    let keeper = Keeper::new(
        Arc::clone(&runtime),
        Arc::clone(&images),
        mind.clone(),
        Arc::clone(&notices),
        config.cgroup_parent.clone(),
    );
    for found in &containers {
        if found.state.is_ok() {
            keeper.adopt(found.container);
        }
    }
    let leases = crate::leases::read(&data.leases());
    let node = Node::new(
        NodeConfig {
            me: key.node_id(),
            name: name.clone(),
            cluster: data.format().cluster,
            generation,
            addresses,
            labels: config.labels_with_platform(),
            capacity,
            terms,
            signer: Signer::new({
                let key = key.clone();
                move |bytes| key.sign(bytes)
            }),
            reader: Arc::new(node::Plainly),
            seed: *key.derive(&format!("skerry-core-{generation}")),
            timings: Timings::default(),
            #[cfg(not(feature = "sabotage"))]
            sabotage: model::Sabotages::NONE,
            #[cfg(feature = "sabotage")]
            sabotage: crate::sabotage::of_the_core(),
        },
        Boot { events: records, containers, images: images.records(), leases: leases.clone() },
        Time::ZERO,
        wall_ms(),
    )?;
    let journal = journal_thread(journal, mind.clone())?;
    let leases = crate::leases::start(data.leases(), &leases, mind.clone())
        .map_err(system("the thread that writes leases cannot be started"))?;
    let fetcher = Fetcher { endpoint: endpoint.clone(), images: Arc::clone(&images), mind: mind.clone() };
    let hands = Hands {
        endpoint: endpoint.clone(),
        journal,
        leases,
        keeper,
        fetcher,
        notices: Arc::clone(&notices),
        roster,
    };
    let thread = letterbox
        .run(node, hands, started, tokio::runtime::Handle::current())
        .map_err(system("the mind's thread cannot be started"))?;

    let peer = Arc::new(Peer {
        mind: mind.clone(),
        notices: Arc::clone(&notices),
        images,
        runtime,
        endpoint: endpoint.clone(),
        name: name.to_string(),
        room: Arc::clone(&room),
        degraded,
    });
    let router = api::router(Arc::clone(&peer));
    tokio::spawn(forward_events(events, mind.clone()));
    tokio::spawn(serve_incoming(incoming, router.clone(), Arc::clone(&peer)));
    tokio::spawn(serve_socket(socket, router));
    tokio::spawn(room.watch(notices));
    if !config.pressure.ignore {
        tokio::spawn(crate::pressure::watch(mind.clone(), data.dir().to_owned(), config.pressure.files));
    }
    tracing::info!(node = %name, address = %local, socket = %data.socket().display(), "the peer runs");
    // Nobody to tell outside of systemd.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));

    let ended = until_told_to_end(&mind).await;
    if ended.is_ok() {
        tracing::info!("the peer ends; its containers go on");
    }
    mind.stop().await;
    endpoint.close().await;
    drop(tokio::task::spawn_blocking(move || thread.join()).await);
    drop(std::fs::remove_file(data.socket()));
    ended
}

/// What every container of this node lacks, in words.
fn missing(user_namespaces: &UserNamespaces) -> Vec<String> {
    match user_namespaces {
        UserNamespaces::Used => Vec::new(),
        UserNamespaces::Refused { why } => vec![format!(
            "containers run without a user namespace, their root is root of this machine: {why}; see `skerry doctor`"
        )],
    }
}

/// Ends at a signal, or when the node was removed and has stopped its containers.
async fn until_told_to_end(mind: &Mind) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(system("signals cannot be waited for"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(system("signals cannot be waited for"))?;
    let mut look = tokio::time::interval(std::time::Duration::from_secs(1));
    let removed = |node: &Node| node.is_removed();
    // Removed before this start: whoever started it reads why, and nobody has anything to ask.
    let mut shown_until = mind.query(removed).await.unwrap_or(false).then(Instant::now);
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            _ = look.tick() => {
                // A mind that does not answer is gone, and the peer with it.
                let Ok(end) = mind.query(removal).await else { return Ok(()) };
                if let Some(end) = end
                    && Instant::now() >= *shown_until.get_or_insert_with(|| Instant::now() + REMOVED_SHOWN)
                {
                    return Err(end);
                }
            }
        }
    }
}

/// What the peer ends with when its node was removed and nothing of it runs any more.
fn removal(node: &Node) -> Option<RunError> {
    if !node.is_removed() || !node.mine().is_empty() {
        return None;
    }
    let roster = node.documents().roster();
    Some(RunError::Removed {
        node: node.config().name.clone(),
        cluster: roster.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        told: node.removal_of(&node.config().me).map(|it| it.told()).unwrap_or_default(),
    })
}

/// The Unix socket; one that a dead peer left is replaced, since the lock shows that it is dead.
fn listen(path: &Path) -> Result<tokio::net::UnixListener, RunError> {
    let failed = |source| RunError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = tokio::net::UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Owns the journal: takes all that waits, appends it at once, says how it went.
///
/// After a failure the core forgets every batch that it has handed over, and skips a number before the
/// next: what was under way with the failed one, and may depend on it, is dropped and never written.
fn journal_thread(mut journal: Journal, mind: Mind) -> Result<std::sync::mpsc::Sender<Batch>, RunError> {
    let (sender, batches) = std::sync::mpsc::channel::<Batch>();
    let thread = std::thread::Builder::new().name("journal".to_owned()).stack_size(256 * 1024);
    thread
        .spawn(move || {
            let mut failed: Option<Seq> = None;
            while let Ok(first) = batches.recv() {
                if failed.is_some_and(|last| first.0 == Seq(last.0 + 1)) {
                    failed = Some(first.0);
                    continue;
                }
                failed = None;
                let mut all = vec![first];
                let mut bytes = 0;
                while bytes < GROUP_BYTES_MAX
                    && let Ok(next) = batches.try_recv()
                {
                    bytes += next.1.iter().map(Vec::len).sum::<usize>();
                    all.push(next);
                }
                let records: Vec<&[u8]> =
                    all.iter().flat_map(|(_, records)| records.iter().map(Vec::as_slice)).collect();
                let (first, last) = (all[0].0, all[all.len() - 1].0);
                match journal.append(&records) {
                    Ok(()) => mind.input_blocking(Input::Persisted(last)),
                    Err(error) => {
                        tracing::error!(error = chain(&error), "the journal took nothing");
                        failed = Some(last);
                        mind.input_blocking(Input::PersistFailed { seq: first, reason: chain(&error) });
                    }
                }
            }
        })
        .map_err(system("the journal's thread cannot be started"))?;
    Ok(sender)
}

async fn forward_events(mut events: mpsc::Receiver<transport::Event>, mind: Mind) {
    while let Some(event) = events.recv().await {
        let input = match event {
            transport::Event::Connected { node } => Input::Connected(node),
            transport::Event::ConnectFailed { node, reason } => {
                tracing::debug!(?node, reason, "not connected");
                Input::ConnectFailed(node)
            }
            transport::Event::Disconnected { node, reason } => {
                tracing::info!(?node, reason, "link is down");
                Input::Disconnected(node)
            }
            transport::Event::FormerMember { node } => Input::FormerMember(node),
            transport::Event::Farewell { from, bytes } => match wire::decode(&bytes) {
                Ok(wire::Message::Events { events, .. }) => Input::Farewell { from, events },
                Ok(_) => {
                    tracing::warn!(?from, "a farewell that holds no events was dropped");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(?from, error = chain(&error), "a farewell was dropped");
                    continue;
                }
            },
            transport::Event::Datagram { from, bytes } => Input::Datagram { from, bytes: bytes.to_vec() },
            transport::Event::Frame { from, bytes } => match wire::decode(&bytes) {
                Ok(message) => Input::Received { from, message },
                Err(error) => {
                    tracing::warn!(?from, error = chain(&error), "a frame was dropped");
                    continue;
                }
            },
        };
        mind.input(input).await;
    }
}

async fn serve_incoming(mut incoming: mpsc::Receiver<Incoming>, router: axum::Router, peer: Arc<Peer>) {
    while let Some(Incoming { who, remote, send, recv }) = incoming.recv().await {
        let io = tokio::io::join(recv, send);
        match who {
            Caller::Node(node) => {
                tokio::spawn(api::serve_stream(io, router.clone(), Requester::Node(node)));
            }
            Caller::User(user) => {
                tokio::spawn(api::serve_stream(io, router.clone(), Requester::User(user)));
            }
            Caller::Joiner(token) => {
                let peer = Arc::clone(&peer);
                tokio::spawn(async move {
                    if let Err(error) = crate::admit::talk(&peer, token, io).await {
                        tracing::info!(%remote, error = chain(&error), "a join was cut off");
                    }
                });
            }
        }
    }
}

async fn serve_socket(socket: tokio::net::UnixListener, router: axum::Router) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(api::serve_stream(stream, router.clone(), Requester::Local));
            }
            Err(error) => {
                tracing::warn!(%error, "the socket does not accept");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
