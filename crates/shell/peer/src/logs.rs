//! Logs: of this node's containers from their files, and of all nodes' merged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::shapes::LogLine;
use api::{Failure, LineStream, LogsAsk, path, routes};
use futures_util::{FutureExt, StreamExt};
use membership::Liveness;
use model::{ContainerId, NodeId};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use crate::backend::{Boxed, Peer};
use crate::containers::chain;
use crate::images::client;
use crate::mind::wall_ms;

/// How often a followed log is looked at. A person cannot tell; a watcher per file would cost more.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

/// How often new containers of a followed deployment are looked for.
const FOLLOW_CONTAINERS: Duration = Duration::from_secs(1);

/// Lines on their way to a client: a slow one holds the reader back, not the container.
const LINES_QUEUED_MAX: usize = 1_024;

/// Lines asked for from the end, at most.
const TAIL_MAX: usize = 100_000;

/// One container whose log is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    node: NodeId,
    node_name: String,
    container: ContainerId,
    deployment: String,
    ordinal: u32,
    reachable: bool,
}

/// One record of a log file: time, stream, whether the line goes on, text.
fn record(line: &[u8]) -> Option<(i64, u8, bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let (stream, end) = (*parts.next()?.first()?, *parts.next()?.first()?);
    Some((time, stream, end == b'P', parts.next().unwrap_or_default()))
}

impl Peer {
    /// The logs of one container of this node.
    pub(crate) async fn own_logs(&self, id: String, ask: LogsAsk) -> Result<LineStream<LogLine>, Failure> {
        let container: ContainerId = id.parse().map_err(|error: model::IdError| {
            Failure::new(400, "usage", "not a container").caused_by(&error)
        })?;
        let named = self
            .ask(move |node| {
                node.mine().get(&container).map(|mine| {
                    (mine.claim.replica.deployment.to_string(), mine.claim.replica.ordinal, node.config().me)
                })
            })
            .await?;
        let Some((deployment, ordinal, me)) = named else {
            return Err(Failure::new(404, "not-found", format!("this node has no container {id}")));
        };
        let source = Source {
            node: me,
            node_name: self.name.clone(),
            container,
            deployment,
            ordinal,
            reachable: true,
        };
        Ok(self.read(source, &ask))
    }

    /// A stream over the files of one container.
    fn read(&self, source: Source, ask: &LogsAsk) -> Boxed<LogLine> {
        let (sender, lines) = mpsc::channel(LINES_QUEUED_MAX);
        let runtime = Arc::clone(&self.runtime);
        let (tail, follow) = (ask.tail.map(|tail| tail.min(TAIL_MAX)), ask.follow);
        tokio::spawn(async move {
            let id = source.container.to_string();
            let files = move || {
                let (runtime, id) = (Arc::clone(&runtime), id.clone());
                tokio::task::spawn_blocking(move || runtime.log_files(&id).unwrap_or_default())
                    .map(Result::unwrap_or_default)
            };
            let reader = Reader { source, sender };
            if let Err(error) = reader.run(files, tail, follow).await {
                tracing::debug!(error = chain(&error), "a log could not be read on");
            }
        });
        Box::pin(futures_util::stream::unfold(lines, |mut lines| async {
            lines.recv().await.map(|it| (it, lines))
        }))
    }

    /// The containers that are asked for, and where they are.
    async fn sources(&self, ask: &LogsAsk) -> Result<Vec<Source>, Failure> {
        let (namespace, deployment, ordinal) = (ask.namespace.clone(), ask.deployment.clone(), ask.ordinal);
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        self.ask(move |node| {
            let linked: BTreeSet<NodeId> = node.linked().collect();
            let me = node.config().me;
            let own = node.own_record();
            let others = node.records().iter().filter(|record| record.node != me);
            let mut sources = Vec::new();
            for record in others.chain([&own]) {
                for container in &record.containers {
                    let replica = &container.replica;
                    let asked = replica.namespace.as_str() == namespace
                        && deployment.as_deref().is_none_or(|it| it == replica.deployment.as_str())
                        && ordinal.is_none_or(|it| it == replica.ordinal);
                    if asked {
                        sources.push(Source {
                            node: record.node,
                            node_name: record.name.to_string(),
                            container: container.id,
                            deployment: replica.deployment.to_string(),
                            ordinal: replica.ordinal,
                            reachable: record.node == me
                                || (linked.contains(&record.node)
                                    && node.liveness(&record.node) != Liveness::Down),
                        });
                    }
                }
            }
            sources.sort_by(|a, b| {
                (&a.deployment, a.ordinal, &a.node_name).cmp(&(&b.deployment, b.ordinal, &b.node_name))
            });
            sources
        })
        .await
    }

    /// The stream of one source, wherever it is.
    async fn open(&self, source: Source, ask: &LogsAsk) -> Boxed<LogLine> {
        let me = self.ask(|node| node.config().me).await.ok();
        if me == Some(source.node) {
            return self.read(source, ask);
        }
        if !source.reachable {
            return Box::pin(futures_util::stream::iter([word(
                &source,
                "does not answer; its lines are missing",
            )]));
        }
        let mut query = vec![("follow", if ask.follow { "true" } else { "false" })];
        let tail = ask.tail.map(|tail| tail.to_string());
        if let Some(tail) = &tail {
            query.push(("tail", tail));
        }
        let from = path(&format!("{}/{}", routes::CONTAINER_LOGS, source.container), &query);
        match client(&self.endpoint, source.node).stream(&from).await {
            Ok(stream) => {
                let lines = BufReader::new(stream).lines();
                let lines = futures_util::stream::unfold(lines, |mut lines| async {
                    let line = lines.next_line().await.ok()??;
                    Some((serde_json::from_str(&line).ok(), lines))
                });
                Box::pin(lines.filter_map(|line: Option<LogLine>| async { line }))
            }
            Err(error) => Box::pin(futures_util::stream::iter([word(&source, &chain(&error))])),
        }
    }

    /// The logs of a deployment, merged over nodes; followed ones take in new containers.
    pub(crate) async fn merged_logs(&self, ask: LogsAsk) -> Result<LineStream<LogLine>, Failure> {
        let sources = self.sources(&ask).await?;
        if sources.is_empty() && !ask.follow {
            let of = ask.deployment.as_deref().unwrap_or("anything");
            return Err(Failure::new(
                404,
                "not-found",
                format!("no node is known to have a container of {of}"),
            ));
        }
        if !ask.follow {
            let mut all = Vec::new();
            for source in sources {
                let lines: Vec<LogLine> = self.open(source, &ask).await.collect().await;
                all.extend(lines);
            }
            // By time where clocks allow; lines of one container keep their order, as the sort is stable.
            all.sort_by_key(|line| line.time_ms);
            return Ok(Box::pin(futures_util::stream::iter(all)));
        }
        let (sender, lines) = mpsc::channel(LINES_QUEUED_MAX);
        let this = Arc::new(self.clone());
        tokio::spawn(async move { this.follow(ask, sources, sender).await });
        Ok(Box::pin(futures_util::stream::unfold(lines, |mut lines| async {
            lines.recv().await.map(|it| (it, lines))
        })))
    }

    async fn follow(
        self: Arc<Self>,
        mut ask: LogsAsk,
        mut sources: Vec<Source>,
        sender: mpsc::Sender<LogLine>,
    ) {
        let mut known: BTreeSet<ContainerId> = BTreeSet::new();
        loop {
            for source in sources {
                if known.insert(source.container) {
                    let mut stream = self.open(source, &ask).await;
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        while let Some(line) = stream.next().await {
                            if sender.send(line).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
            // A container that comes later is followed from its first line.
            ask.tail = None;
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(FOLLOW_CONTAINERS) => {}
            }
            match self.sources(&ask).await {
                Ok(now) => sources = now,
                Err(_) => return,
            }
        }
    }
}

/// A line of the peer's own about a source.
fn word(source: &Source, text: &str) -> LogLine {
    LogLine {
        node: source.node_name.clone(),
        container: source.container.to_string(),
        deployment: source.deployment.clone(),
        ordinal: source.ordinal,
        time_ms: wall_ms(),
        stream: "skerry".to_owned(),
        text: format!("{} {text}", source.node_name),
    }
}

struct Reader {
    source: Source,
    sender: mpsc::Sender<LogLine>,
}

impl Reader {
    async fn run<F: Future<Output = Vec<PathBuf>>>(
        &self,
        files: impl Fn() -> F,
        tail: Option<usize>,
        follow: bool,
    ) -> std::io::Result<()> {
        // By inode: a rotated file keeps its own.
        let mut read: BTreeMap<u64, u64> = BTreeMap::new();
        let mut pending: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        let mut first = true;
        loop {
            let mut last = VecDeque::new();
            for file in files().await {
                for line in self.new_lines(&file, &mut read, &mut pending).await? {
                    if first && let Some(tail) = tail {
                        last.push_back(line);
                        if last.len() > tail {
                            last.pop_front();
                        }
                    } else if self.sender.send(line).await.is_err() {
                        return Ok(());
                    }
                }
            }
            for line in last {
                if self.sender.send(line).await.is_err() {
                    return Ok(());
                }
            }
            first = false;
            if !follow || self.sender.is_closed() {
                return Ok(());
            }
            tokio::time::sleep(FOLLOW_PERIOD).await;
        }
    }

    /// What has been added to a file since it was read last, as whole lines.
    async fn new_lines(
        &self,
        path: &Path,
        read: &mut BTreeMap<u64, u64>,
        pending: &mut BTreeMap<u8, Vec<u8>>,
    ) -> std::io::Result<Vec<LogLine>> {
        use std::os::unix::fs::MetadataExt;
        let mut file = match File::open(path).await {
            Ok(file) => file,
            // Rotated away between the listing and here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let inode = file.metadata().await?.ino();
        let at = read.entry(inode).or_insert(0);
        file.seek(std::io::SeekFrom::Start(*at)).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        // A record that is being written is left for the next time.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        *at += whole as u64;
        let mut lines = Vec::new();
        for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Some((time_ms, stream, goes_on, text)) = record(line) else { continue };
            let begun = pending.entry(stream).or_default();
            begun.extend_from_slice(text);
            if goes_on && begun.len() < 1 << 20 {
                continue;
            }
            let text = String::from_utf8_lossy(begun).into_owned();
            begun.clear();
            lines.push(LogLine {
                node: self.source.node_name.clone(),
                container: self.source.container.to_string(),
                deployment: self.source.deployment.clone(),
                ordinal: self.source.ordinal,
                time_ms,
                stream: match stream {
                    b'o' => "stdout",
                    b'e' => "stderr",
                    _ => "skerry",
                }
                .to_owned(),
                text,
            });
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_its_text_as_it_was_written() {
        assert_eq!(record(b"17 o F hello  world"), Some((17, b'o', false, b"hello  world".as_slice())));
        assert_eq!(record(b"17 e P "), Some((17, b'e', true, b"".as_slice())));
        assert_eq!(record(b"x o F hello"), None);
        assert_eq!(record(b""), None);
    }
}
