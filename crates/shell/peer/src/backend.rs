//! What the HTTP routes stand on: questions to the mind, streams from disk, and requests passed on
//! to the node that has the answer.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;

use api::shapes::{
    Authoring, ConflictRow, DeploymentRow, ExecAsk, Explain, HistoryRow, ImageRow, LogLine, NodeRow,
    NoticeRow, PsRow, Status, Submitted, TokenRow, UserRow,
};
use api::{Backend, BodyReader, ExecRun, Failure, LineStream, LogsAsk};
use bytes::Bytes;
use futures_util::StreamExt;
use image::{BuildOptions, ImageStore};
use model::{DocId, Name};
use node::{Input, Node, Outcome};
use runtime::Runtime;
use tokio_util::io::SyncIoBridge;
use transport::Endpoint;

use crate::mind::{Mind, Stopping, wall_ms};
use crate::notices::Notices;
use crate::room::Room;
use crate::rows;

/// The peer behind its interface.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) mind: Mind,
    pub(crate) notices: Arc<Notices>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) endpoint: Endpoint,
    pub(crate) name: String,
    pub(crate) room: Arc<Room>,
    pub(crate) degraded: Vec<String>,
}

fn stopping(_: Stopping) -> Failure {
    Failure::new(503, "stopping", "the peer is stopping")
}

fn name(text: &str, what: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: model::NameError| {
        Failure::new(
            400,
            "usage",
            format!("`{}` is not the name of a {what}", text.chars().take(80).collect::<String>()),
        )
        .caused_by(&error)
    })
}

fn optional(text: Option<String>, what: &str) -> Result<Option<Name>, Failure> {
    text.map(|text| name(&text, what)).transpose()
}

impl Peer {
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.mind.query(question).await.map_err(stopping)
    }

    /// Runs what blocks on a thread of the pool.
    pub(crate) async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(Failure::new(500, "bug", "a bug in the peer").caused_by(&error)))
    }

    /// Tells the others what images are here, and answers with those that have just come.
    async fn images_came(&self, came: Vec<image::ImageInfo>) -> Vec<ImageRow> {
        self.mind.input(Input::Images(self.images.records())).await;
        came.into_iter()
            .map(|info| ImageRow {
                reference: info.reference,
                digest: format!("sha256:{}", info.digest),
                size_b: info.size_b,
                nodes: vec![self.name.clone()],
            })
            .collect()
    }
}

fn image_failure(error: &image::ImageError) -> Failure {
    let status = if matches!(error, image::ImageError::DiskFull { .. }) { 507 } else { 400 };
    Failure::new(status, "image", "the image was not taken").caused_by(error)
}

/// Bytes of a refused image that are still read. Most clients read the answer only once they have
/// sent everything; this is an image that fits a small node.
const REFUSED_BYTES_MAX: u64 = 1 << 30;

/// The failure, once the client has sent the rest and can hear of it.
fn refused_image(error: &image::ImageError, body: &mut impl std::io::Read) -> Failure {
    // Where it cannot be read the client has gone.
    drop(std::io::copy(&mut body.by_ref().take(REFUSED_BYTES_MAX), &mut std::io::sink()));
    image_failure(error)
}

impl Backend for Peer {
    async fn status(&self) -> Result<Status, Failure> {
        let mut degraded = self.degraded.clone();
        degraded.extend(self.room.full());
        self.ask(|node| rows::status(node, degraded)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, Failure> {
        self.ask(rows::nodes).await
    }

    async fn ps(&self) -> Result<Vec<PsRow>, Failure> {
        self.ask(|node| rows::ps(node, wall_ms())).await
    }

    async fn deployments(&self, namespace: Option<String>) -> Result<Vec<DeploymentRow>, Failure> {
        let namespace = optional(namespace, "namespace")?;
        self.ask(move |node| rows::deployments(node, namespace.as_ref())).await
    }

    async fn authoring(&self, doc: String) -> Result<Authoring, Failure> {
        let doc: DocId = doc.parse().map_err(|error: model::NameError| {
            Failure::new(400, "usage", "there is no such document").caused_by(&error)
        })?;
        self.ask(move |node| rows::authoring(node, &doc)).await
    }

    async fn submit(&self, event: Bytes, durable: u32) -> Result<Submitted, Failure> {
        match self.mind.submit(event.to_vec(), durable).await.map_err(stopping)? {
            Outcome::Accepted { event, durable_on, known } => {
                Ok(Submitted { event: event.to_string(), durable_on, known })
            }
            Outcome::Refused { code, reason } => {
                let status = match code {
                    "busy" => 429,
                    "disk" => 507,
                    "unknown-deps" => 409,
                    _ => 422,
                };
                Err(Failure::new(status, code, format!("the event was not accepted: {reason}")))
            }
        }
    }

    async fn history(
        &self,
        namespace: Option<String>,
        deployment: Option<String>,
    ) -> Result<Vec<HistoryRow>, Failure> {
        let namespace = optional(namespace, "namespace")?;
        let deployment = optional(deployment, "deployment")?;
        self.ask(move |node| rows::history(node, namespace.as_ref(), deployment.as_ref())).await
    }

    async fn conflicts(&self) -> Result<Vec<ConflictRow>, Failure> {
        self.ask(rows::conflicts).await
    }

    async fn notices(&self, after: u64, follow: bool) -> Result<LineStream<NoticeRow>, Failure> {
        let notices = Arc::clone(&self.notices);
        if !follow {
            return Ok(Box::pin(futures_util::stream::iter(notices.after(after))));
        }
        let changes = notices.watch();
        let stream =
            futures_util::stream::unfold((after, changes, true), move |(after, mut changes, first)| {
                let notices = Arc::clone(&notices);
                async move {
                    if !first {
                        changes.changed().await.ok()?;
                    }
                    let rows = notices.after(after);
                    let last = rows.last().map_or(after, |row| row.seq);
                    Some((futures_util::stream::iter(rows), (last, changes, false)))
                }
            });
        Ok(Box::pin(stream.flatten()))
    }

    async fn explain(&self, namespace: String, deployment: String) -> Result<Explain, Failure> {
        let (space, of) = (name(&namespace, "namespace")?, name(&deployment, "deployment")?);
        let explained = self.ask(move |node| rows::explain(node, &space, &of)).await?;
        explained.ok_or_else(|| {
            Failure::new(404, "not-found", format!("there is no deployment {namespace}/{deployment}"))
        })
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, Failure> {
        self.ask(rows::tokens).await
    }

    async fn users(&self) -> Result<Vec<UserRow>, Failure> {
        self.ask(rows::users).await
    }

    async fn images(&self) -> Result<Vec<ImageRow>, Failure> {
        self.ask(rows::images).await
    }

    async fn image_load(&self, name: Option<String>, body: BodyReader) -> Result<Vec<ImageRow>, Failure> {
        let images = Arc::clone(&self.images);
        let mut body = SyncIoBridge::new(body);
        let loaded = Self::blocking(move || {
            let loaded = images.load_reader(&mut body, name.as_deref());
            loaded.map_err(|error| refused_image(&error, &mut body))
        });
        Ok(self.images_came(loaded.await?).await)
    }

    async fn image_binary(
        &self,
        name: String,
        file: String,
        body: BodyReader,
    ) -> Result<Vec<ImageRow>, Failure> {
        let images = Arc::clone(&self.images);
        let mut body = SyncIoBridge::new(body);
        let built = Self::blocking(move || {
            let built = images.build_binary(&name, &file, &mut body, &BuildOptions::default());
            built.map_err(|error| refused_image(&error, &mut body))
        });
        Ok(self.images_came(vec![built.await?.image]).await)
    }

    async fn blob(&self, digest: String) -> Result<(u64, BodyReader), Failure> {
        let bare = digest.strip_prefix("sha256:").unwrap_or(&digest);
        let digest: model::Digest = bare
            .parse()
            .map_err(|error: model::IdError| Failure::new(400, "usage", "not a digest").caused_by(&error))?;
        let images = Arc::clone(&self.images);
        let (file, length) = Self::blocking(move || {
            images
                .open_blob(&digest)
                .map_err(|error| Failure::new(404, "not-found", "no such blob").caused_by(&error))
        })
        .await?;
        let reader: BodyReader = Box::pin(tokio::fs::File::from_std(file));
        Ok((length, reader))
    }

    async fn logs(&self, ask: LogsAsk) -> Result<LineStream<LogLine>, Failure> {
        self.merged_logs(ask).await
    }

    async fn container_logs(&self, id: String, ask: LogsAsk) -> Result<LineStream<LogLine>, Failure> {
        self.own_logs(id, ask).await
    }

    async fn exec(&self, ask: ExecAsk) -> Result<ExecRun, Failure> {
        self.exec_anywhere(ask).await
    }
}

/// A stream that is boxed.
pub(crate) type Boxed<T> = Pin<Box<dyn futures_util::Stream<Item = T> + Send>>;
