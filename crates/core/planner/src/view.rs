//! What a plan is made from.

use std::collections::BTreeMap;

use model::{
    Capacity, ContainerRecord, Declined, Deployment, LabelKey, Name, NodeId, RecordVersion, Revision,
};

/// One deployment that should run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The deployment; valid (`Deployment::validate` holds).
    pub deployment: &'a Deployment,
    /// The hash of its template, `deployment.revision()`; handed in since it costs a SHA-256.
    pub revision: Revision,
}

/// One member of the roster, as it is seen from here.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The version of the record that all of this but `alive` and `accepts_new` is from: with the same one
    /// it is the same. `None` where it is not from a record.
    pub said: Option<RecordVersion>,
    /// Its name.
    pub name: &'a Name,
    /// Its labels.
    pub labels: &'a BTreeMap<LabelKey, String>,
    /// What it offers to containers: declared, less its own reserve.
    pub capacity: Capacity,
    /// The version of that capacity; declines said at another version are void.
    pub capacity_version: u64,
    /// Whether it counts as running: up or suspected, or down for less than the grace.
    pub alive: bool,
    /// Whether it takes new work: false while it is cordoned. What it runs stays.
    pub accepts_new: bool,
    /// Its claims: what its record says that it runs.
    pub containers: &'a [ContainerRecord],
    /// What it could not run.
    pub declined: &'a [Declined],
}

/// Everything that a plan depends on.
///
/// The order of `deployments` and of the records does not matter. No two deployments have the same
/// namespace, name and incarnation; if they do, the greater revision counts.
#[derive(Clone, Debug, Default)]
pub struct View<'a> {
    /// What should run.
    pub deployments: Vec<Wanted<'a>>,
    /// The roster with what is known of each member; a member without a record is left out.
    pub nodes: BTreeMap<NodeId, NodeView<'a>>,
    /// The rules to plan by, see [`crate::RULES`].
    pub rules: u16,
}
