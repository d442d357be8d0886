//! Preparing a data folder: `init` and `join`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use identity::{JoinToken, KeyPair};
use model::{Capacity, ClusterId, LabelKey, Name, NodeId};

/// What the operator says of the node that is prepared.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The data folder.
    pub dir: PathBuf,
    /// The node's name.
    pub name: Name,
    /// Where the mesh listens.
    pub listen: SocketAddr,
    /// What others are told to dial; derived from `listen` where empty.
    pub advertise: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<LabelKey, String>,
    /// What it offers; measured at start where not given.
    pub capacity: Option<Capacity>,
    /// The cgroup folder of its containers.
    pub cgroup_parent: String,
}

/// A prepared first node.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Where the recovery key was put: the operator is to move it off the machine.
    pub recovery_key: PathBuf,
}

/// A prepared further node.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster's name.
    pub cluster_name: Name,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The address of the peer that let it in.
    pub via: String,
}
