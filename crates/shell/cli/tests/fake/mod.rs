//! A peer without a cluster: it takes events, checks them as every peer does, and answers at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::shapes::{
    Amounts, Authoring, ConflictRow, DeploymentRow, ExecAsk, Explain, HistoryRow, ImageRow, LogLine, NodeRow,
    NodeState, NoticeRow, PsRow, PsState, Status, Submitted, TokenRow, Unplaced, UserRow,
};
use api::{Backend, BodyReader, ExecFrame, ExecRun, Failure, LineStream, LogsAsk, Requester};
use bytes::Bytes;
use cli::out::Out;
use document::event::{Change, Decoded, Edit, Kind, decode};
use identity::KeyPair;
use tokio::io::AsyncReadExt;

/// The fake cluster's id.
pub(crate) const CLUSTER: [u8; 32] = [0x11; 32];

/// What the fake peer knows, for a test to set and to read.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) deployments: Vec<DeploymentRow>,
    pub(crate) ps: Vec<PsRow>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) images: Vec<ImageRow>,
    pub(crate) history: Vec<HistoryRow>,
    pub(crate) conflicts: Vec<ConflictRow>,
    pub(crate) tokens: Vec<TokenRow>,
    pub(crate) users: Vec<UserRow>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) notices: Vec<NoticeRow>,
    pub(crate) explain: Option<Explain>,
    /// Every event taken, decoded.
    pub(crate) events: Vec<Decoded>,
    /// Whether replicas never come up.
    pub(crate) stuck: bool,
    /// Node to reason: no replica finds a place.
    pub(crate) unplaced: BTreeMap<String, String>,
    /// Whether a replica without a place still runs where it was.
    pub(crate) keep_ready: bool,
    /// Bytes of the last archive.
    pub(crate) archive: Vec<u8>,
    /// How often the deployments were asked for.
    pub(crate) looked: u32,
    /// What was asked of `exec`.
    pub(crate) asked: Vec<ExecAsk>,
}

pub(crate) struct Fake(Mutex<State>);

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn replicas(groups: &BTreeMap<String, String>) -> u32 {
    let group: model::ReplicasGroup = serde_json::from_str(&groups["replicas"]).unwrap();
    group.count
}

impl State {
    /// The row of a deployment as it comes about, at once or never.
    fn settle(&mut self, name: &str) {
        let (stuck, unplaced) = (self.stuck, self.unplaced.clone());
        let row = self.deployments.iter_mut().find(|row| row.name == name).unwrap();
        row.replicas = replicas(&row.groups);
        row.revision += 1;
        row.unplaced.clear();
        row.ready = if stuck { 0 } else { row.replicas };
        if !unplaced.is_empty() {
            row.unplaced = vec![Unplaced { ordinal: row.replicas - 1, nodes: unplaced }];
            row.ready = row.replicas - u32::from(!self.keep_ready);
        }
        row.running = row.ready;
    }

    fn apply(&mut self, decoded: &Decoded, change: &Change) {
        for edit in &change.edits {
            match edit {
                Edit::Create(create) => {
                    self.deployments.push(DeploymentRow {
                        incarnation: decoded.id.to_string(),
                        groups: create.groups.clone(),
                        revision: 0,
                        ..deployment(create.name.as_str(), 0)
                    });
                    self.settle(create.name.as_str());
                }
                Edit::Set(set) => {
                    let row = self.deployments.iter_mut().find(|row| row.name == set.name.as_str()).unwrap();
                    assert_eq!(row.incarnation, set.incarnation.to_string());
                    row.groups.extend(set.groups.clone());
                    self.settle(set.name.as_str());
                }
                Edit::Delete(delete) => {
                    self.deployments.retain(|row| row.incarnation != delete.incarnation.to_string());
                    self.ps.retain(|row| row.deployment != delete.name.as_str());
                }
            }
        }
    }
}

type Lines<T> = Result<LineStream<T>, Failure>;

#[expect(clippy::unnecessary_wraps, reason = "the shape that the backend's methods answer with")]
fn lines<T: Send + 'static>(list: Vec<T>) -> Lines<T> {
    Ok(Box::pin(futures_util::stream::iter(list)))
}

impl Backend for Fake {
    async fn status(&self) -> Result<Status, Failure> {
        let state = self.state();
        Ok(Status {
            cluster: "shop".into(),
            cluster_id: "11".repeat(32),
            node: "n1".into(),
            node_id: "a1".repeat(32),
            version: "0.1.0".into(),
            pid: 1,
            nodes: state.nodes.clone(),
            peers: 2,
            connected: 1,
            in_sync: 1,
            deployments: state.deployments.clone(),
            refusing: None,
            conflicts: 0,
            removed: None,
            degraded: vec![],
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, Failure> {
        Ok(self.state().nodes.clone())
    }

    async fn ps(&self) -> Result<Vec<PsRow>, Failure> {
        Ok(self.state().ps.clone())
    }

    async fn deployments(&self, namespace: Option<String>) -> Result<Vec<DeploymentRow>, Failure> {
        let mut state = self.state();
        state.looked += 1;
        let mut rows = state.deployments.clone();
        rows.retain(|row| namespace.as_ref().is_none_or(|namespace| row.namespace == *namespace));
        Ok(rows)
    }

    async fn authoring(&self, doc: String) -> Result<Authoring, Failure> {
        let state = self.state();
        let deps = match state.events.last() {
            Some(event) => vec![event.id.to_string()],
            None => vec!["0d".repeat(32)],
        };
        Ok(Authoring {
            cluster: "11".repeat(32),
            cluster_name: "shop".into(),
            deps,
            auth: if doc == "cluster" { vec![] } else { vec!["0a".repeat(32)] },
            deployments: state.deployments.clone(),
            event_version: 1,
        })
    }

    async fn submit(&self, event: Bytes, durable: u32) -> Result<Submitted, Failure> {
        let decoded = decode(&event)
            .map_err(|error| Failure::new(422, "refused", "the event was not accepted").caused_by(&error))?;
        assert_eq!(decoded.body.cluster.as_bytes(), &CLUSTER);
        let mut state = self.state();
        if let Kind::Change(change) = &decoded.body.kind {
            state.apply(&decoded, change);
        }
        let event = decoded.id.to_string();
        state.events.push(decoded);
        Ok(Submitted { event, durable_on: durable.min(2), known: false })
    }

    async fn history(&self, _: Option<String>, _: Option<String>) -> Result<Vec<HistoryRow>, Failure> {
        Ok(self.state().history.clone())
    }

    async fn conflicts(&self) -> Result<Vec<ConflictRow>, Failure> {
        Ok(self.state().conflicts.clone())
    }

    async fn notices(&self, after: u64, _: bool) -> Lines<NoticeRow> {
        lines(self.state().notices.iter().filter(|row| row.seq > after).cloned().collect())
    }

    async fn explain(&self, namespace: String, deployment: String) -> Result<Explain, Failure> {
        let missing =
            || Failure::new(404, "not-found", format!("there is no deployment {namespace}/{deployment}"));
        self.state().explain.clone().ok_or_else(missing)
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, Failure> {
        Ok(self.state().tokens.clone())
    }

    async fn users(&self) -> Result<Vec<UserRow>, Failure> {
        Ok(self.state().users.clone())
    }

    async fn images(&self) -> Result<Vec<ImageRow>, Failure> {
        Ok(self.state().images.clone())
    }

    async fn image_load(&self, name: Option<String>, mut body: BodyReader) -> Result<Vec<ImageRow>, Failure> {
        if name.as_deref() == Some("refused:1") {
            return Err(Failure::new(507, "disk", "the image was not taken: the disk is full"));
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)
            .await
            .map_err(|error| Failure::new(400, "body", "the body broke").caused_by(&error))?;
        let row = image(name.as_deref().unwrap_or("loaded:1"), "ee");
        let mut state = self.state();
        state.images.push(row.clone());
        state.archive = bytes;
        Ok(vec![row])
    }

    async fn image_binary(&self, _: String, _: String, _: BodyReader) -> Result<Vec<ImageRow>, Failure> {
        Err(Failure::new(400, "unused", "not asked by the command line"))
    }

    async fn blob(&self, _: String) -> Result<(u64, BodyReader), Failure> {
        Err(Failure::new(404, "not-found", "no blobs here"))
    }

    async fn logs(&self, ask: LogsAsk) -> Lines<LogLine> {
        let mut list = self.state().logs.clone();
        list.retain(|line| ask.ordinal.is_none_or(|ordinal| line.ordinal == ordinal));
        lines(list)
    }

    async fn container_logs(&self, _: String, _: LogsAsk) -> Lines<LogLine> {
        lines(vec![])
    }

    async fn exec(&self, ask: ExecAsk) -> Result<ExecRun, Failure> {
        self.state().asked.push(ask.clone());
        if ask.args[0] == "missing" {
            return Err(Failure::new(422, "exec-127", "the program missing is not there"));
        }
        Ok(Box::new(move |mut connection| {
            Box::pin(async move {
                let said = format!("{}\n", ask.args.join(" "));
                for frame in [
                    ExecFrame::Stdout(said.into_bytes()),
                    ExecFrame::Stderr(b"warned\n".to_vec()),
                    ExecFrame::Exit(7),
                ] {
                    api::write_frame(&mut connection, &frame).await.unwrap();
                }
                // The client goes when it has seen the exit.
                while api::read_frame(&mut connection).await.is_ok_and(|frame| frame.is_some()) {}
            })
        }))
    }
}

/// A node row.
pub(crate) fn node(name: &str, id: &str, state: NodeState) -> NodeRow {
    NodeRow {
        name: name.into(),
        id: id.repeat(32),
        state,
        schedule: api::shapes::NodeSchedule::Normal,
        capacity: Amounts { cpu_m: 2000, memory_b: 1 << 30, pids: 500, ..Amounts::default() },
        free: Amounts { cpu_m: 1500, memory_b: 512 << 20, pids: 436, ..Amounts::default() },
        heads: BTreeMap::new(),
        seen_s: Some(if state == NodeState::Up { 0 } else { 252 }),
        labels: BTreeMap::from([("site".into(), "north".into())]),
        addresses: vec![format!("{name}.example:7440")],
        cpu_percent: 100,
        memory_percent: 100,
        reserved_cpu_m: 0,
        reserved_memory_b: 0,
        pressure: None,
        removed: None,
    }
}

/// An image row.
pub(crate) fn image(reference: &str, digest: &str) -> ImageRow {
    ImageRow {
        reference: reference.into(),
        digest: format!("sha256:{}", digest.repeat(32)),
        size_b: 3 << 20,
        nodes: vec!["n1".into()],
    }
}

/// A deployment row of image `web:1` (digest ab..), as a manifest without more would make it.
pub(crate) fn deployment(name: &str, count: u32) -> DeploymentRow {
    let made = model::Deployment {
        namespace: model::Name::default_namespace(),
        name: name.parse().unwrap(),
        incarnation: model::EventId::from_bytes([0xc1; 32]),
        image: model::ImageGroup {
            reference: "web:1".into(),
            digest: model::Digest::from_bytes([0xab; 32]),
            command: vec![],
            args: vec![],
            workdir: None,
            user: None,
        },
        replicas: model::ReplicasGroup {
            count,
            class: model::Class::Available,
            mode: model::Mode::Replicated,
            voters: vec![],
        },
        resources: model::ResourcesGroup::default(),
        env: model::EnvGroup::default(),
        ports: model::PortsGroup::default(),
        placement: model::PlacementGroup::default(),
        restart: model::RestartGroup::default(),
        meta: model::MetaGroup::default(),
        update: model::UpdateGroup::default(),
        depends: model::DependsGroup::default(),
        job: None,
    };
    DeploymentRow {
        namespace: "default".into(),
        name: name.into(),
        incarnation: "c1".repeat(32),
        revision: 1,
        replicas: count,
        ready: count,
        running: count,
        groups: made.to_groups(),
        ..DeploymentRow::default()
    }
}

/// A running container.
pub(crate) fn container(deployment: &str, ordinal: u32, node: &str) -> PsRow {
    PsRow {
        namespace: "default".into(),
        deployment: deployment.into(),
        ordinal,
        revision: 1,
        node: Some(node.into()),
        state: PsState::Running,
        healthy: Some(true),
        container: Some(format!("{ordinal:016x}")),
        pid: Some(100 + ordinal),
        age_s: Some(75),
        restarts: 0,
        reason: None,
    }
}

/// A fake peer at a socket of its own, and a user's key.
pub(crate) struct Peer {
    pub(crate) fake: Arc<Fake>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: KeyPair,
    runtime: Option<tokio::runtime::Runtime>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Peer {
    pub(crate) fn new(set: impl FnOnce(&mut State)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State { images: vec![image("web:1", "ab")], ..State::default() };
        set(&mut state);
        let fake = Arc::new(Fake(Mutex::new(state)));
        let key = KeyPair::create(&dir.path().join("user.key")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let router = api::router(fake.clone());
        let listener = {
            let _in = runtime.enter();
            tokio::net::UnixListener::bind(dir.path().join("api.sock")).unwrap()
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(api::serve_stream(stream, router.clone(), Requester::Local));
            }
        });
        Self { fake, dir, key, runtime: Some(runtime) }
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `skerry ARGS` against the fake peer.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let socket = format!("unix:{}", self.dir.path().join("api.sock").display());
        self.run_at(&socket, args)
    }

    /// The same against the peer of that name.
    pub(crate) fn run_at(&self, peer: &str, args: &[&str]) -> Ended {
        let key = self.dir.path().join("user.key");
        let mut line: Vec<OsString> =
            vec!["skerry".into(), "--peer".into(), peer.into(), "--key".into(), key.into()];
        line.extend(args.iter().map(Into::into));
        let (out, captured) = Out::captured();
        let code = cli::run(line, out);
        Ended { code, stdout: captured.stdout(), stderr: captured.stderr() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
