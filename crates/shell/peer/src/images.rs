//! Images from other peers: each blob is asked for over the mesh and verified as it comes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::{Client, Connect, Connection};
use image::{BlobRef, ImageStore};
use model::{Digest, NodeId};
use node::Input;
use tokio_util::io::SyncIoBridge;
use transport::Endpoint;

use crate::containers::chain;
use crate::mind::Mind;

/// How long another peer may take to begin its answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Bytes of a manifest: OCI registries take 4 MiB.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// A peer that is reached over the mesh.
pub(crate) struct MeshPeer {
    pub(crate) endpoint: Endpoint,
    pub(crate) node: NodeId,
}

impl Connect for MeshPeer {
    fn connect(&self) -> api::Connecting<'_> {
        Box::pin(async {
            let (send, recv) = self.endpoint.open(self.node).await.map_err(io::Error::other)?;
            Ok(Box::new(tokio::io::join(recv, send)) as Box<dyn Connection>)
        })
    }

    fn name(&self) -> String {
        format!("node {}", self.node.short())
    }
}

/// A client of another peer.
pub(crate) fn client(endpoint: &Endpoint, node: NodeId) -> Client {
    Client::new(Arc::new(MeshPeer { endpoint: endpoint.clone(), node }), ANSWER_MAX)
}

/// Fetches images.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) endpoint: Endpoint,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) mind: Mind,
}

impl Fetcher {
    /// Gets the image from the first of `from` that can give all of it, and unpacks it.
    pub(crate) fn fetch(&self, digest: Digest, reference: String, from: Vec<NodeId>) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut reasons = Vec::new();
            for node in from {
                match this.fetch_from(digest, &reference, node).await {
                    Ok(()) => {
                        this.mind.input(Input::Images(this.images.records())).await;
                        this.mind.input(Input::ImageReady(digest)).await;
                        return;
                    }
                    Err(reason) => reasons.push(format!("{}: {reason}", node.short())),
                }
            }
            this.mind.input(Input::ImageFailed { digest, reason: reasons.join("; ") }).await;
        });
    }

    async fn fetch_from(&self, digest: Digest, reference: &str, node: NodeId) -> Result<(), String> {
        let client = client(&self.endpoint, node);
        if !self.images.has_blob(&digest) {
            self.manifest(&client, digest).await?;
        }
        let images = Arc::clone(&self.images);
        let blobs = blocking(move || Ok(images.blobs_of(&digest)?)).await?;
        for blob in blobs {
            if !self.images.has_blob(&blob.digest) {
                self.blob(&client, blob).await?;
            }
        }
        let (images, reference) = (Arc::clone(&self.images), reference.to_owned());
        blocking(move || Ok(images.adopt(&reference, &digest)?)).await?;
        let images = Arc::clone(&self.images);
        blocking(move || Ok(images.prepare(&digest)?)).await?;
        Ok(())
    }

    /// The manifest, whose size is not known before: read whole, up to its limit.
    async fn manifest(&self, client: &Client, digest: Digest) -> Result<(), String> {
        use tokio::io::AsyncReadExt;
        let path = format!("{}/{digest}", api::routes::BLOBS);
        let stream = client.stream(&path).await.map_err(|error| chain(&error))?;
        let mut bytes = Vec::new();
        let mut limited = stream.take(MANIFEST_BYTES_MAX);
        limited.read_to_end(&mut bytes).await.map_err(|error| chain(&error))?;
        let images = Arc::clone(&self.images);
        blocking(move || {
            let mut writer = images.blob_writer(&digest, bytes.len() as u64)?;
            io::Write::write_all(&mut writer, &bytes)?;
            Ok(writer.finish()?)
        })
        .await
    }

    async fn blob(&self, client: &Client, blob: BlobRef) -> Result<(), String> {
        let path = format!("{}/{}", api::routes::BLOBS, blob.digest);
        let stream = client.stream(&path).await.map_err(|error| chain(&error))?;
        let images = Arc::clone(&self.images);
        blocking(move || {
            let mut writer = images.blob_writer(&blob.digest, blob.size_b)?;
            io::copy(&mut SyncIoBridge::new(stream), &mut writer)?;
            Ok(writer.finish()?)
        })
        .await
    }
}

/// Runs what blocks on a thread of the pool, with its error in words.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("a bug in the image store: {error}")),
    }
}
