//! What a node's operator decides: `peer.toml` in the data folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{Capacity, Extras, LabelKey};
use serde::{Deserialize, Serialize};

/// The settings of one node. A misspelt key is refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The UDP address that the mesh listens on.
    pub listen: SocketAddr,
    /// What others are told to dial, `host:port`, most wanted first.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// The folder of cgroups under which this node's containers live, relative to each hierarchy's
    /// root. Peers that share a machine need different ones.
    pub cgroup_parent: String,
    /// What the node offers to containers; measured at start where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Amounts>,
    /// What else it offers, counted whole: `gpu = 1`.
    #[serde(default, skip_serializing_if = "Extras::is_empty")]
    pub extras: Extras,
    /// Labels for placement.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, String>,
}

/// Amounts that each machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_m: u64,
    /// Bytes of memory.
    pub memory_b: u64,
    /// Processes.
    pub pids: u64,
}

/// Why the settings cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not of its form.
    #[error("{} is not a valid configuration", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// The file's name in the data folder.
    pub const FILE: &str = store::DataDir::SETTINGS;

    /// Reads the settings of a data folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(Self::FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Malformed { path, source: Box::new(source) })
    }

    /// The node's labels: those that its operator gave it, and where these say nothing else `os` and `arch`,
    /// in the words that images have for them (`linux`, `arm64`).
    pub fn labels_with_platform(&self) -> BTreeMap<LabelKey, String> {
        let image::Platform { os, architecture, .. } = image::Platform::this();
        let mut labels = self.labels.clone();
        for (key, value) in [("os", os), ("arch", architecture)] {
            labels.entry(key.parse().expect("a word is a label's key")).or_insert(value);
        }
        labels
    }

    /// What the node offers: what its operator said, or else what the machine has.
    pub fn offers(&self, measured: impl FnOnce() -> Amounts) -> Capacity {
        let Amounts { cpu_m, memory_b, pids } = self.capacity.unwrap_or_else(measured);
        Capacity { cpu_m, memory_b, pids, extras: self.extras.clone() }
    }

    /// The settings as text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("settings are tables of plain values")
    }
}
