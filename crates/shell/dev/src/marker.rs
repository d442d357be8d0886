//! `dev.json`: what a cluster's folder holds, written before it is made.
//!
//! It is the first file in the folder and the last one out of it: a folder without it is not ours.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::Process;

/// The version of the file.
const FORMAT: u32 = 1;

/// Its name.
pub(crate) const FILE: &str = "dev.json";

/// Where it is written before it is renamed into place.
pub(crate) const DRAFT: &str = "dev.json.tmp";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged.
    #[error("{} cannot be understood", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Another release wrote it.
    #[error("{} was made by another Skerry: format {found}, this one reads {FORMAT}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// What a node shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// Not prepared to its end yet.
    Prepared,
    /// Its peer runs.
    Up,
    /// Its peer was killed; its containers go on.
    Stopped,
    /// It has no power.
    Killed,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    pub(crate) name: String,
    /// Known once it is prepared.
    pub(crate) id: Option<String>,
    pub(crate) address: Ipv4Addr,
    /// The last peer that was started.
    pub(crate) peer: Option<Process>,
    pub(crate) wanted: Wanted,
}

/// Links that are cut, apart from those of nodes without power.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CutRecord {
    pub(crate) groups: Vec<Vec<String>>,
    /// Sender and receiver.
    pub(crate) one_way: Vec<(String, String)>,
    /// Sender, receiver, and how many packets of a thousand are lost on the way.
    #[serde(default)]
    pub(crate) lossy: Vec<(String, String, u16)>,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    format: u32,
    /// Start times of processes are of this boot.
    pub(crate) boot_id: String,
    /// The folder of cgroups that holds every node's.
    pub(crate) cgroup: String,
    /// What each node offers, as `init --capacity` takes it.
    pub(crate) capacity: Option<String>,
    /// The process whose cluster this is and that takes it down itself; a later run may only once it is gone.
    pub(crate) owner: Option<Process>,
    /// Whether `up` came to its end.
    pub(crate) complete: bool,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) cuts: CutRecord,
}

impl Marker {
    pub(crate) fn new(
        boot_id: String,
        cgroup: String,
        capacity: Option<String>,
        owner: Option<Process>,
    ) -> Self {
        Self {
            format: FORMAT,
            boot_id,
            cgroup,
            capacity,
            owner,
            complete: false,
            nodes: Vec::new(),
            cuts: CutRecord::default(),
        }
    }

    /// Reads a folder's marker; `None` where it has none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, MarkerError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MarkerError::Io { action: "read", path, source }),
        };
        let damaged = |source| MarkerError::Damaged { path: path.clone(), source };
        let Versioned { format: found } = serde_json::from_slice(&text).map_err(damaged)?;
        if found != FORMAT {
            return Err(MarkerError::OtherFormat { path, found });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Writes it so that it is there as a whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), MarkerError> {
        let (path, draft) = (dir.join(FILE), dir.join(DRAFT));
        let text = serde_json::to_vec_pretty(self).expect("a marker is plain data");
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| MarkerError::Io { action, path, source }
        };
        let mut file = fs::File::create(&draft).map_err(failed("create", &draft))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write", &draft))?;
        fs::rename(&draft, &path).map_err(failed("replace", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_a_folder_without_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        let mut marker = Marker::new("boot".into(), "skerry-dev-x".into(), None, None);
        marker.nodes.push(NodeRecord {
            name: "n1".into(),
            id: None,
            address: Ipv4Addr::new(10, 99, 0, 1),
            peer: Some(Process { pid: 7, start_ticks: 9 }),
            wanted: Wanted::Killed,
        });
        marker.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker));
    }

    #[test]
    fn a_damaged_or_newer_marker_is_named_and_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Marker::read(dir.path()), Err(MarkerError::Damaged { .. })));
        fs::write(dir.path().join(FILE), r#"{"format": 2, "more": 1}"#).unwrap();
        assert!(matches!(Marker::read(dir.path()), Err(MarkerError::OtherFormat { found: 2, .. })));
    }
}
