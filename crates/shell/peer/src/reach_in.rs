//! `exec`: a program in a container of this node, or of another that is asked in turn.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use api::shapes::ExecAsk;
use api::{Connection, ExecFrame, ExecRun, Failure, read_frame, routes, write_frame};
use model::{ContainerId, ContainerState, NodeId};
use runtime::{ExecControl, ExecRequest, ExecSession, Runtime, RuntimeError, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::backend::Peer;
use crate::containers::chain;
use crate::images::client;

/// Bytes read from the program at a time: one frame.
const CHUNK_BYTES: usize = 16 * 1024;

/// Frames on their way to the client.
const FRAMES_QUEUED_MAX: usize = 64;

impl Peer {
    /// Picks a running container and runs the program there.
    pub(crate) async fn exec_anywhere(&self, ask: ExecAsk) -> Result<ExecRun, Failure> {
        let (namespace, deployment, ordinal) = (ask.namespace.clone(), ask.deployment.clone(), ask.ordinal);
        let of = format!("{namespace}/{deployment}");
        let found: Option<(NodeId, ContainerId, u32)> = self
            .ask(move |node| {
                let me = node.config().me;
                let own = node.own_record();
                let linked: Vec<NodeId> = node.linked().collect();
                let others = node.records().iter().filter(|record| linked.contains(&record.node));
                // This node's own first: nothing has to cross the network.
                std::iter::once(&own)
                    .chain(others.filter(|record| record.node != me))
                    .flat_map(|record| record.containers.iter().map(move |it| (record.node, it)))
                    .find(|(_, it)| {
                        it.state == ContainerState::Running
                            && it.replica.namespace.as_str() == namespace
                            && it.replica.deployment.as_str() == deployment
                            && ordinal.is_none_or(|ordinal| ordinal == it.replica.ordinal)
                    })
                    .map(|(on, it)| (on, it.id, it.replica.ordinal))
            })
            .await?;
        let Some((on, container, ordinal)) = found else {
            let which = ask
                .ordinal
                .map_or_else(|| "no replica".to_owned(), |ordinal| format!("replica {ordinal} is not"));
            let error = format!("{which} of {of} running on a node that can be reached");
            return Err(Failure::new(404, "not-running", error).hint(format!("skerry ps {}", ask.deployment)));
        };
        let me = self.ask(|node| node.config().me).await?;
        if on != me {
            let ask = ExecAsk { ordinal: Some(ordinal), ..ask };
            return self.exec_there(on, &ask).await;
        }
        self.exec_here(container, ask).await
    }

    async fn exec_there(&self, on: NodeId, ask: &ExecAsk) -> Result<ExecRun, Failure> {
        let body = serde_json::to_vec(ask)
            .map_err(|error| Failure::new(500, "bug", "cannot ask on").caused_by(&error))?;
        let upgraded = client(&self.endpoint, on).upgrade(routes::EXEC, body, "skerry-exec").await;
        let mut there = upgraded.map_err(|error| match error {
            api::ClientError::Refused { status, body } => Failure {
                status: axum::http::StatusCode::from_u16(status)
                    .unwrap_or(axum::http::StatusCode::BAD_GATEWAY),
                body,
            },
            other => {
                Failure::new(502, "unreachable", "the node that has it does not answer").caused_by(&other)
            }
        })?;
        Ok(Box::new(move |mut here: Box<dyn Connection>| {
            Box::pin(async move {
                if let Err(error) = tokio::io::copy_bidirectional(&mut here, &mut there).await {
                    tracing::debug!(%error, "an exec that was passed on broke");
                }
            })
        }))
    }

    async fn exec_here(&self, container: ContainerId, ask: ExecAsk) -> Result<ExecRun, Failure> {
        let runtime = Arc::clone(&self.runtime);
        let session = Self::blocking(move || begin(&runtime, container, ask)).await?;
        Ok(Box::new(move |connection| Box::pin(carry(session, connection))))
    }
}

fn begin(runtime: &Runtime, container: ContainerId, ask: ExecAsk) -> Result<ExecSession, Failure> {
    let request = ExecRequest { args: ask.args, env: Vec::new(), cwd: None, user: ask.user, tty: ask.tty };
    runtime.exec(&container.to_string(), request).map_err(|error| {
        // As Docker and shells have it: 127 not found, 126 cannot be run.
        let code = match &error {
            RuntimeError::Exec { source: StartError::ProgramMissing { .. }, .. } => "exec-127",
            RuntimeError::Exec { .. } => "exec-126",
            _ => "exec-125",
        };
        Failure::new(422, code, chain(&error))
    })
}

fn file(fd: OwnedFd) -> tokio::fs::File {
    tokio::fs::File::from_std(std::fs::File::from(fd))
}

/// Moves bytes between the program and the client until the program has ended.
async fn carry(session: ExecSession, connection: Box<dyn Connection>) {
    let (mut from, mut to) = tokio::io::split(connection);
    let (frames, mut outgoing) = mpsc::channel::<ExecFrame>(FRAMES_QUEUED_MAX);
    let mut outputs = vec![tokio::spawn(pump(file(session.stdout), frames.clone(), ExecFrame::Stdout))];
    if let Some(stderr) = session.stderr {
        outputs.push(tokio::spawn(pump(file(stderr), frames.clone(), ExecFrame::Stderr)));
    }
    let control = Arc::new(session.control);
    let stdin = file(session.stdin);
    let steering = Arc::clone(&control);
    let input = tokio::spawn(async move { feed(&mut from, stdin, &steering).await });
    let ending = tokio::spawn(async move {
        let exit = tokio::task::spawn_blocking(move || control.wait()).await;
        for output in outputs {
            drop(output.await);
        }
        let last = match exit {
            Ok(Ok(exit)) => ExecFrame::Exit(exit.code.unwrap_or_else(|| 128 + exit.signal.unwrap_or(0))),
            Ok(Err(error)) => ExecFrame::Failed(format!("how it ended is not known: {error}")),
            Err(error) => ExecFrame::Failed(format!("how it ended is not known: {error}")),
        };
        drop(frames.send(last).await);
    });
    while let Some(frame) = outgoing.recv().await {
        if write_frame(&mut to, &frame).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
    input.abort();
    ending.abort();
}

/// From the program to the client. A terminal whose program has ended says EIO: that is its end.
async fn pump(mut from: tokio::fs::File, frames: mpsc::Sender<ExecFrame>, frame: fn(Vec<u8>) -> ExecFrame) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if frames.send(frame(chunk[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

/// From the client to the program.
async fn feed(from: &mut (impl tokio::io::AsyncRead + Unpin), stdin: tokio::fs::File, control: &ExecControl) {
    let mut stdin = Some(stdin);
    while let Ok(Some(frame)) = read_frame(from).await {
        match frame {
            ExecFrame::Stdin(bytes) => {
                if let Some(pipe) = &mut stdin {
                    let written = async {
                        pipe.write_all(&bytes).await?;
                        pipe.flush().await
                    };
                    if written.await.is_err() {
                        stdin = None;
                    }
                }
            }
            ExecFrame::StdinEnd => stdin = None,
            ExecFrame::Resize { rows, columns } => drop(control.resize(rows, columns)),
            ExecFrame::Stdout(_) | ExecFrame::Stderr(_) | ExecFrame::Exit(_) | ExecFrame::Failed(_) => return,
        }
    }
}
