//! The client of the interface: one HTTP connection for each request, over whatever carries bytes.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::shapes::ErrorBody;

/// Bytes of an answer that is read whole: the history of a busy namespace fits many times over.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Anything that carries bytes both ways.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A connection on its way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// Makes connections to one peer: a Unix socket, or a stream of a QUIC connection.
pub trait Connect: Send + Sync {
    /// Opens one connection.
    fn connect(&self) -> Connecting<'_>;
    /// How the peer is named to people.
    fn name(&self) -> String;
}

/// A peer's Unix socket.
#[derive(Clone, Debug)]
pub struct UnixSocket(pub PathBuf);

impl Connect for UnixSocket {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = tokio::net::UnixStream::connect(&self.0).await?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }

    fn name(&self) -> String {
        format!("unix:{}", self.0.display())
    }
}

/// Why a request got no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection: the peer does not run, or cannot be reached.
    #[error("no peer answers at {peer}")]
    Unreachable {
        /// Which peer.
        peer: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke before the answer was whole. The request may have been carried out.
    #[error("the connection to {peer} broke before the answer came")]
    Broken {
        /// Which peer.
        peer: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer did not answer in time. The request may have been carried out.
    #[error("{peer} did not answer within {seconds} s")]
    TimedOut {
        /// Which peer.
        peer: String,
        /// The deadline.
        seconds: u64,
    },
    /// The peer answered with an error.
    #[error("{}", body.error)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: Box<ErrorBody>,
    },
    /// The answer is not of its shape: the peer is of another release.
    #[error("the answer of {peer} cannot be read; is it of another release?")]
    Shape {
        /// Which peer.
        peer: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// A client of one peer.
#[derive(Clone)]
pub struct Client {
    connect: Arc<dyn Connect>,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.connect.name())
    }
}

type Sent = Response<Incoming>;

impl Client {
    /// A client whose requests are answered within `timeout` (streams: their first byte).
    pub fn new(connect: Arc<dyn Connect>, timeout: Duration) -> Self {
        Self { connect, timeout }
    }

    /// How the peer is named to people.
    pub fn peer(&self) -> String {
        self.connect.name()
    }

    async fn send(&self, request: Request<BoxBody<Bytes, io::Error>>) -> Result<Sent, ClientError> {
        let peer = || self.connect.name();
        let broken = |source: hyper::Error| ClientError::Broken { peer: peer(), source: source.into() };
        let whole = async {
            let io = self
                .connect
                .connect()
                .await
                .map_err(|source| ClientError::Unreachable { peer: peer(), source })?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
            // Ends by itself with the answer's body, or with the upgrade.
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await.map_err(broken)
        };
        let answer = tokio::time::timeout(self.timeout, whole)
            .await
            .map_err(|_| ClientError::TimedOut { peer: peer(), seconds: self.timeout.as_secs() })??;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let bytes = self.collect(answer).await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            error: format!("the peer answered {status}"),
            code: "http".into(),
            at: None,
            why: vec![String::from_utf8_lossy(&bytes).chars().take(200).collect()],
            hint: None,
        });
        Err(ClientError::Refused { status: status.as_u16(), body: Box::new(body) })
    }

    async fn collect(&self, answer: Sent) -> Result<Bytes, ClientError> {
        let limited = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let collected = limited.collect().await;
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|source| ClientError::Broken { peer: self.connect.name(), source })
    }

    fn request(
        method: Method,
        path: &str,
        body: BoxBody<Bytes, io::Error>,
    ) -> Request<BoxBody<Bytes, io::Error>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "skerry")
            .header("content-type", "application/octet-stream")
            .body(body)
            .expect("paths are made by `path` below, which escapes")
    }

    fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
        Full::new(bytes.into()).map_err(|never| match never {}).boxed()
    }

    async fn shape<T: DeserializeOwned>(&self, answer: Sent) -> Result<T, ClientError> {
        let bytes = self.collect(answer).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Shape { peer: self.connect.name(), source })
    }

    /// GET, answered with a shape.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.send(Self::request(Method::GET, path, Self::full(Bytes::new()))).await?;
        self.shape(answer).await
    }

    /// POST of a few bytes, answered with a shape.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, ClientError> {
        let answer = self.send(Self::request(Method::POST, path, Self::full(body))).await?;
        self.shape(answer).await
    }

    /// POST of a stream of any length, answered with a shape.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        from: impl AsyncRead + Send + Sync + 'static,
    ) -> Result<T, ClientError> {
        use futures_util::TryStreamExt;
        let stream = tokio_util::io::ReaderStream::new(from).map_ok(hyper::body::Frame::data);
        let body = http_body_util::StreamBody::new(stream).boxed();
        let answer = self.send(Self::request(Method::POST, path, body)).await?;
        self.shape(answer).await
    }

    /// GET, answered with a stream of bytes (lines of JSON, a blob).
    pub async fn stream(&self, path: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, ClientError> {
        use futures_util::TryStreamExt;
        let answer = self.send(Self::request(Method::GET, path, Self::full(Bytes::new()))).await?;
        let body = http_body_util::BodyDataStream::new(answer.into_body()).map_err(io::Error::other);
        Ok(tokio_util::io::StreamReader::new(Box::pin(body)))
    }

    /// POST that turns into a connection of frames.
    pub async fn upgrade(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        protocol: &str,
    ) -> Result<Box<dyn Connection>, ClientError> {
        let mut request = Self::request(Method::POST, path, Self::full(body));
        request.headers_mut().insert("connection", hyper::header::HeaderValue::from_static("upgrade"));
        let protocol = protocol.parse().expect("a protocol is a plain word");
        request.headers_mut().insert("upgrade", protocol);
        let answer = self.send(request).await?;
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded
            .map(|upgraded| Box::new(TokioIo::new(upgraded)) as Box<dyn Connection>)
            .map_err(|source| ClientError::Broken { peer: self.connect.name(), source: source.into() })
    }
}

/// A path with its query, escaped.
pub fn path(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (n, (key, value)) in query.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                out.push(byte as char);
            } else {
                out.push('%');
                out.extend(
                    [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
                );
            }
        }
    }
    out
}
