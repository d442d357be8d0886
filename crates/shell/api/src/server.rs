//! The routes, over a `Backend`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::client::Connection;
use crate::routes;
use crate::shapes::{
    Authoring, ConflictRow, DeploymentRow, ErrorBody, ExecAsk, Explain, HistoryRow, ImageRow, LogLine,
    NodeRow, NoticeRow, PsRow, Status, Submitted, TokenRow, UserRow,
};

/// Bytes of a body that is read whole: one event, one question.
const SMALL_BODY_BYTES_MAX: usize = 128 * 1024;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// Whoever may open the Unix socket.
    Local,
    /// A user whose key is in the cluster document.
    User(model::UserId),
    /// Another node of the cluster, on behalf of a request that it was given.
    Node(model::NodeId),
}

/// A refused request: HTTP status and what to say.
#[derive(Debug)]
pub struct Failure {
    /// HTTP status.
    pub status: StatusCode,
    /// What to say.
    pub body: Box<ErrorBody>,
}

impl Failure {
    /// A failure with a status, a word for programs and a sentence.
    pub fn new(status: u16, code: &str, error: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body =
            ErrorBody { error: error.into(), code: code.to_owned(), at: None, why: vec![], hint: None };
        Self { status, body: Box::new(body) }
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// With the chain of causes of an error.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.body.why.push(cause.to_string());
            next = cause.source();
        }
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// Lines for a streamed answer.
pub type LineStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// A body of any length.
pub type BodyReader = Pin<Box<dyn AsyncRead + Send>>;

/// Which logs are asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct LogsAsk {
    /// Namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Deployment.
    #[serde(default)]
    pub deployment: Option<String>,
    /// One replica only.
    #[serde(default)]
    pub ordinal: Option<u32>,
    /// Lines from the end of each container's log; all where not given.
    #[serde(default)]
    pub tail: Option<usize>,
    /// Whether to go on with new lines.
    #[serde(default)]
    pub follow: bool,
}

/// What the routes stand on. Every call is bounded in time by the backend.
pub trait Backend: Send + Sync + 'static {
    /// `status`.
    fn status(&self) -> impl Future<Output = Result<Status, Failure>> + Send;
    /// `node ls`.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRow>, Failure>> + Send;
    /// `ps`.
    fn ps(&self) -> impl Future<Output = Result<Vec<PsRow>, Failure>> + Send;
    /// Deployments of one namespace, or all.
    fn deployments(
        &self,
        namespace: Option<String>,
    ) -> impl Future<Output = Result<Vec<DeploymentRow>, Failure>> + Send;
    /// What the author of an event in this document needs.
    fn authoring(&self, doc: String) -> impl Future<Output = Result<Authoring, Failure>> + Send;
    /// Takes an event, durable on `durable` peers if that many can be reached.
    fn submit(&self, event: Bytes, durable: u32) -> impl Future<Output = Result<Submitted, Failure>> + Send;
    /// Past changes.
    fn history(
        &self,
        namespace: Option<String>,
        deployment: Option<String>,
    ) -> impl Future<Output = Result<Vec<HistoryRow>, Failure>> + Send;
    /// Open conflicts.
    fn conflicts(&self) -> impl Future<Output = Result<Vec<ConflictRow>, Failure>> + Send;
    /// What happened on this node, from `after` on.
    fn notices(
        &self,
        after: u64,
        follow: bool,
    ) -> impl Future<Output = Result<LineStream<NoticeRow>, Failure>> + Send;
    /// Why placed so.
    fn explain(
        &self,
        namespace: String,
        deployment: String,
    ) -> impl Future<Output = Result<Explain, Failure>> + Send;
    /// Tokens.
    fn tokens(&self) -> impl Future<Output = Result<Vec<TokenRow>, Failure>> + Send;
    /// Users.
    fn users(&self) -> impl Future<Output = Result<Vec<UserRow>, Failure>> + Send;
    /// Images anywhere in the cluster.
    fn images(&self) -> impl Future<Output = Result<Vec<ImageRow>, Failure>> + Send;
    /// Takes an archive.
    fn image_load(
        &self,
        name: Option<String>,
        body: BodyReader,
    ) -> impl Future<Output = Result<Vec<ImageRow>, Failure>> + Send;
    /// Makes an image of one executable.
    fn image_binary(
        &self,
        name: String,
        file: String,
        body: BodyReader,
    ) -> impl Future<Output = Result<Vec<ImageRow>, Failure>> + Send;
    /// One blob: its length and bytes.
    fn blob(&self, digest: String) -> impl Future<Output = Result<(u64, BodyReader), Failure>> + Send;
    /// Logs, merged over the nodes that can be asked.
    fn logs(&self, ask: LogsAsk) -> impl Future<Output = Result<LineStream<LogLine>, Failure>> + Send;
    /// Logs of one container of this node.
    fn container_logs(
        &self,
        id: String,
        ask: LogsAsk,
    ) -> impl Future<Output = Result<LineStream<LogLine>, Failure>> + Send;
    /// Runs a program in a container, here or on the node that has it; answers once it is known
    /// that it can be run, with what carries the frames on.
    fn exec(&self, ask: ExecAsk) -> impl Future<Output = Result<ExecRun, Failure>> + Send;
}

/// Takes the upgraded connection and carries an `exec` to its end.
pub type ExecRun = Box<dyn FnOnce(Box<dyn Connection>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

type Shared<B> = State<Arc<B>>;

#[derive(Deserialize)]
struct ScopeQuery {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    deployment: Option<String>,
}

#[derive(Deserialize)]
struct DocQuery {
    doc: String,
}

#[derive(Deserialize)]
struct DurableQuery {
    #[serde(default)]
    durable: Option<u32>,
}

#[derive(Deserialize)]
struct NoticesQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize)]
struct ImageQuery {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    file: Option<String>,
}

fn json<T: Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => failure.into_response(),
    }
}

fn lines<T: Serialize + 'static>(result: Result<LineStream<T>, Failure>) -> Response {
    match result {
        Ok(stream) => {
            let bytes = stream.map(|item| {
                let mut line = serde_json::to_vec(&item).map_err(std::io::Error::other)?;
                line.push(b'\n');
                Ok::<_, std::io::Error>(Bytes::from(line))
            });
            ([("content-type", "application/x-ndjson")], Body::from_stream(bytes)).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

fn reader(request: Request) -> BodyReader {
    let stream = request.into_body().into_data_stream().map_err(std::io::Error::other);
    Box::pin(tokio_util::io::StreamReader::new(stream))
}

async fn small(request: Request) -> Result<Bytes, Failure> {
    axum::body::to_bytes(request.into_body(), SMALL_BODY_BYTES_MAX).await.map_err(|_| {
        Failure::new(413, "too-large", format!("the body is larger than {SMALL_BODY_BYTES_MAX} bytes"))
    })
}

fn needed(value: Option<String>, name: &str) -> Result<String, Failure> {
    value.ok_or_else(|| Failure::new(400, "usage", format!("the query needs `{name}`")))
}

async fn explain<B: Backend>(State(b): Shared<B>, Query(q): Query<ScopeQuery>) -> Response {
    let answer = async {
        let namespace = q.namespace.unwrap_or_else(|| "default".to_owned());
        b.explain(namespace, needed(q.deployment, "deployment")?).await
    };
    json(answer.await)
}

async fn submit<B: Backend>(
    State(b): Shared<B>,
    Query(q): Query<DurableQuery>,
    request: Request,
) -> Response {
    let answer = async { b.submit(small(request).await?, q.durable.unwrap_or(2)).await };
    json(answer.await)
}

async fn image_load<B: Backend>(
    State(b): Shared<B>,
    Query(q): Query<ImageQuery>,
    request: Request,
) -> Response {
    json(b.image_load(q.name, reader(request)).await)
}

async fn image_binary<B: Backend>(
    State(b): Shared<B>,
    Query(q): Query<ImageQuery>,
    request: Request,
) -> Response {
    let answer =
        async { b.image_binary(needed(q.name, "name")?, needed(q.file, "file")?, reader(request)).await };
    json(answer.await)
}

async fn blob<B: Backend>(State(b): Shared<B>, Path(digest): Path<String>) -> Response {
    match b.blob(digest).await {
        Ok((length, body)) => {
            let stream = tokio_util::io::ReaderStream::with_capacity(body, 256 * 1024);
            ([("content-length", length.to_string())], Body::from_stream(stream)).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn exec<B: Backend>(State(b): Shared<B>, mut request: Request) -> Response {
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let answer = async {
        let Some(upgrade) = upgrade else {
            return Err(Failure::new(400, "usage", "exec needs an upgrade to `skerry-exec`"));
        };
        let ask: ExecAsk = serde_json::from_slice(&small(request).await?)
            .map_err(|error| Failure::new(400, "usage", "the question cannot be read").caused_by(&error))?;
        let run = b.exec(ask).await?;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => run(Box::new(TokioIo::new(upgraded))).await,
                Err(error) => tracing::debug!(%error, "exec client went before the upgrade"),
            }
        });
        let headers = [("connection", "upgrade"), ("upgrade", "skerry-exec")];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

async fn not_found() -> Failure {
    Failure::new(404, "not-found", "there is no such path")
}

/// The routes over a backend.
pub fn router<B: Backend>(backend: Arc<B>) -> Router {
    Router::new()
        .route(routes::STATUS, get(|State(b): Shared<B>| async move { json(b.status().await) }))
        .route(routes::NODES, get(|State(b): Shared<B>| async move { json(b.nodes().await) }))
        .route(routes::PS, get(|State(b): Shared<B>| async move { json(b.ps().await) }))
        .route(
            routes::DEPLOYMENTS,
            get(|State(b): Shared<B>, Query(q): Query<ScopeQuery>| async move {
                json(b.deployments(q.namespace).await)
            }),
        )
        .route(
            routes::AUTHORING,
            get(|State(b): Shared<B>, Query(q): Query<DocQuery>| async move { json(b.authoring(q.doc).await) }),
        )
        .route(routes::EVENTS, post(submit::<B>))
        .route(
            routes::HISTORY,
            get(|State(b): Shared<B>, Query(q): Query<ScopeQuery>| async move {
                json(b.history(q.namespace, q.deployment).await)
            }),
        )
        .route(routes::CONFLICTS, get(|State(b): Shared<B>| async move { json(b.conflicts().await) }))
        .route(
            routes::NOTICES,
            get(|State(b): Shared<B>, Query(q): Query<NoticesQuery>| async move {
                lines(b.notices(q.after, q.follow).await)
            }),
        )
        .route(routes::EXPLAIN, get(explain::<B>))
        .route(routes::TOKENS, get(|State(b): Shared<B>| async move { json(b.tokens().await) }))
        .route(routes::USERS, get(|State(b): Shared<B>| async move { json(b.users().await) }))
        .route(
            routes::IMAGES,
            get(|State(b): Shared<B>| async move { json(b.images().await) }).post(image_load::<B>),
        )
        .route(routes::IMAGES_BINARY, post(image_binary::<B>))
        .route(&format!("{}/{{digest}}", routes::BLOBS), get(blob::<B>))
        .route(
            routes::LOGS,
            get(|State(b): Shared<B>, Query(q): Query<LogsAsk>| async move { lines(b.logs(q).await) }),
        )
        .route(
            &format!("{}/{{id}}", routes::CONTAINER_LOGS),
            get(|State(b): Shared<B>, Path(id): Path<String>, Query(q): Query<LogsAsk>| async move {
                lines(b.container_logs(id, q).await)
            }),
        )
        .route(routes::EXEC, post(exec::<B>))
        .fallback(not_found)
        .with_state(backend)
}

/// Serves one connection to its end. A request may find who asks among its extensions.
pub async fn serve_stream(io: impl Connection + 'static, router: Router, requester: Requester) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(requester);
        let router = router.clone();
        async move { tower::ServiceExt::oneshot(router, request.map(Body::new)).await }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // A client that never finishes its head is let go; the limit is generous for slow links.
    http.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(10));
    if let Err(error) = http.serve_connection(TokioIo::new(io), service).with_upgrades().await {
        tracing::debug!(%error, "connection ended");
    }
}
