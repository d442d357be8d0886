//! Reads what the OCI image specification (and Docker before it) defines: manifests, indexes,
//! configurations. Everything here comes from outside and is checked once, on the way in.

use std::collections::BTreeMap;
use std::fmt;

use model::Digest;
use oci_spec::image as spec;
use serde_json::{Value, json};

use crate::Limits;

pub(crate) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MEDIA_DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A manifest, index or configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It does not decode.
    #[error("{what} does not decode")]
    Malformed {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// More bytes than such a document may have.
    #[error("{what} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Which document.
        what: String,
        /// Its bytes.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// It names something by a digest that is not sha256.
    #[error("{what} names `{digest}`: only sha256 digests are supported")]
    Algorithm {
        /// Which document.
        what: String,
        /// What it names.
        digest: String,
    },
    /// It is of a kind that is not an image.
    #[error("{what} is of the kind `{media}`, which is not an image")]
    Kind {
        /// Which document.
        what: String,
        /// Its media type.
        media: String,
    },
    /// Too many layers.
    #[error("{what} has {layers} layers, the limit is {limit}")]
    Layers {
        /// Which document.
        what: String,
        /// How many it has.
        layers: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Nothing to run.
    #[error("{what} has no layers: there is nothing to run")]
    NoLayers {
        /// Which document.
        what: String,
    },
    /// The manifest's layers are not those of the configuration.
    #[error("{what} has {layers} layers, its configuration names {diff_ids}")]
    LayersDiffer {
        /// Which document.
        what: String,
        /// Layers in the manifest.
        layers: usize,
        /// `diff_ids` in the configuration.
        diff_ids: usize,
    },
    /// An image for other machines.
    #[error("{what} is for {}; this node runs {wanted}", list(found))]
    Platform {
        /// Which document.
        what: String,
        /// What it is for.
        found: Vec<Platform>,
        /// What was looked for.
        wanted: Platform,
    },
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Which machines an image is for, in the words of OCI (Go): `linux/arm64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// Which generation of it (`v7`), where that matters.
    pub variant: Option<String>,
}

impl Platform {
    /// What this program was built for.
    pub fn this() -> Self {
        Self::linux(go_architecture(std::env::consts::ARCH))
    }

    pub(crate) fn linux(architecture: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an image for `self` runs on `node`, by system and processor.
    pub(crate) fn runs_on(&self, node: &Self) -> bool {
        self.os == node.os && self.architecture == node.architecture
    }

    /// Orders the variants of one architecture that a node can choose from: lower is better. Newer
    /// instruction sets are taken only where nothing older is offered, except on 32-bit ARM, where
    /// v7 is what every node that runs this program has.
    pub(crate) fn rank(&self) -> u32 {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm", Some("v7")) | ("arm64", Some("v8")) | ("amd64", Some("v1")) | (_, None) => 0,
            ("arm", Some("v6")) => 1,
            ("arm", Some("v5")) => 2,
            _ => 3,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Go's word for a processor, from Rust's.
fn go_architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// What a blob is to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// The list of the others.
    Manifest,
    /// How to run it, and the digests of its unpacked layers.
    Config,
    /// Files.
    Layer,
}

impl fmt::Display for BlobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Config => "configuration",
            Self::Layer => "layer",
        })
    }
}

/// One blob of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    /// Its name in the store.
    pub digest: Digest,
    /// Its bytes.
    pub size_b: u64,
    /// What it is to the image.
    pub kind: BlobKind,
}

/// A checked manifest of one image.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: BlobRef,
    pub(crate) layers: Vec<BlobRef>,
}

/// How an image wants to be run. What a deployment says goes before all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments; the program itself where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The working folder.
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; none is root.
    pub user: Option<String>,
    /// Ports that it listens on, as `80/tcp`, sorted.
    pub exposed: Vec<String>,
    /// Paths that should be volumes, sorted.
    pub volumes: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) platform: Platform,
    pub(crate) created: Option<String>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) run: ImageConfig,
}

/// One line of an index.
#[derive(Clone, Debug)]
pub(crate) struct IndexLine {
    pub(crate) digest: Digest,
    pub(crate) size_b: u64,
    pub(crate) media: Media,
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a line of an index points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Index,
    Manifest,
}

fn bounded(what: &str, bytes: &[u8], limits: &Limits) -> Result<(), ManifestError> {
    let (bytes, limit) = (bytes.len() as u64, limits.json_bytes);
    if bytes > limit {
        return Err(ManifestError::TooLarge { what: what.into(), bytes, limit });
    }
    Ok(())
}

fn sha256(what: &str, digest: &str) -> Result<Digest, ManifestError> {
    let hex = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| ManifestError::Algorithm {
        what: what.into(),
        digest: digest.chars().take(160).collect(),
    })
}

/// Reads a manifest; `what` names it in errors.
pub(crate) fn parse_manifest(what: &str, bytes: &[u8], limits: &Limits) -> Result<Manifest, ManifestError> {
    bounded(what, bytes, limits)?;
    let read: spec::ImageManifest = serde_json::from_slice(bytes)
        .map_err(|source| ManifestError::Malformed { what: what.into(), source })?;
    if let Some(media) = read.media_type().as_ref().map(ToString::to_string)
        && media != MEDIA_MANIFEST
        && media != MEDIA_DOCKER_MANIFEST
    {
        return Err(ManifestError::Kind { what: what.into(), media });
    }
    let blob = |descriptor: &spec::Descriptor, kind| {
        let digest = sha256(what, descriptor.digest().as_ref())?;
        Ok::<_, ManifestError>(BlobRef { digest, size_b: descriptor.size(), kind })
    };
    let layers = read.layers().len();
    if layers > limits.layers {
        return Err(ManifestError::Layers { what: what.into(), layers, limit: limits.layers });
    }
    if layers == 0 {
        return Err(ManifestError::NoLayers { what: what.into() });
    }
    Ok(Manifest {
        config: blob(read.config(), BlobKind::Config)?,
        layers: read.layers().iter().map(|layer| blob(layer, BlobKind::Layer)).collect::<Result<_, _>>()?,
    })
}

/// Reads a configuration; `what` names it in errors.
pub(crate) fn parse_config(what: &str, bytes: &[u8], limits: &Limits) -> Result<Config, ManifestError> {
    bounded(what, bytes, limits)?;
    let read: spec::ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|source| ManifestError::Malformed { what: what.into(), source })?;
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let run = read.config().as_ref().map_or_else(ImageConfig::default, |config| ImageConfig {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        workdir: filled(config.working_dir()),
        user: filled(config.user()),
        exposed: sorted(config.exposed_ports()),
        volumes: sorted(config.volumes()),
        stop_signal: filled(config.stop_signal()),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
    });
    let diff_ids = read.rootfs().diff_ids();
    Ok(Config {
        platform: Platform {
            os: read.os().to_string(),
            architecture: read.architecture().to_string(),
            variant: filled(read.variant()),
        },
        created: filled(read.created()),
        diff_ids: diff_ids.iter().map(|id| sha256(what, id)).collect::<Result<_, _>>()?,
        run,
    })
}

/// Reads an index; `what` names it in errors. Lines that are no images (signatures, attestations)
/// are left out.
pub(crate) fn parse_index(
    what: &str,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Vec<IndexLine>, ManifestError> {
    bounded(what, bytes, limits)?;
    let read: spec::ImageIndex = serde_json::from_slice(bytes)
        .map_err(|source| ManifestError::Malformed { what: what.into(), source })?;
    let mut lines = Vec::new();
    for line in read.manifests() {
        let media = match line.media_type().to_string().as_str() {
            MEDIA_INDEX | MEDIA_DOCKER_INDEX => Media::Index,
            MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST => Media::Manifest,
            _ => continue,
        };
        let platform = line.platform().as_ref().map(|platform| Platform {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
        });
        // How builders file attestations among the manifests.
        if platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
            continue;
        }
        lines.push(IndexLine {
            digest: sha256(what, line.digest().as_ref())?,
            size_b: line.size(),
            media,
            platform,
            annotations: line.annotations().clone().unwrap_or_default().into_iter().collect(),
        });
    }
    Ok(lines)
}

/// A manifest for blobs that are already here. The same blobs give the same bytes: the keys of a
/// [`Value`] are sorted.
pub(crate) fn write_manifest(config: (Digest, u64), layers: &[(Digest, u64, &'static str)]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size, media)| json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": size}))
        .collect();
    let (digest, size) = config;
    to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": {"mediaType": MEDIA_CONFIG, "digest": format!("sha256:{digest}"), "size": size},
        "layers": layers,
    }))
}

pub(crate) fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value in memory always encodes")
}
