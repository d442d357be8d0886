//! Shapes that the CLI adds to those of the interface (`api::shapes`): the same promise holds.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod sim;
pub mod whatif;

/// `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Initialised {
    /// The new cluster's name.
    pub cluster: String,
    /// Its id.
    pub cluster_id: String,
    /// The node's name.
    pub node: String,
    /// Its id.
    pub node_id: String,
    /// The data folder.
    pub dir: String,
    /// Your public key.
    pub user: String,
    /// Where the recovery key was put: move it off the machine.
    pub recovery_key: String,
}

/// `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// The cluster's name.
    pub cluster: String,
    /// Its id.
    pub cluster_id: String,
    /// The node's name.
    pub node: String,
    /// Its id.
    pub node_id: String,
    /// The data folder.
    pub dir: String,
    /// The address of the peer that let it in.
    pub via: String,
}

/// `token create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// The token: a secret.
    pub token: String,
    /// Its public half.
    pub id: String,
    /// Unix time in milliseconds after which peers refuse it.
    pub expires_ms: i64,
    /// How many nodes it may admit.
    pub uses: u32,
    /// The command for the new node.
    pub join: String,
}

/// `user key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserKey {
    /// Your public key, hexadecimal.
    pub key: String,
    /// Where its private half is.
    pub path: String,
    /// Whether it was made just now.
    pub created: bool,
}

/// One row of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorRow {
    /// What was looked at: `kernel`, `cgroups`, ...
    pub check: String,
    /// How it is.
    pub state: DoctorState,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How a check of `doctor` came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DoctorState {
    /// As it should be.
    Ok,
    /// It works, with something missing.
    Warn,
    /// Containers cannot run.
    Fail,
}

/// `plan`: what `apply` would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanAnswer {
    /// The cluster's name.
    pub cluster: String,
    /// Where each namespace stands: for `apply --if-heads`.
    pub heads: BTreeMap<String, Vec<String>>,
    /// A row a deployment, the unchanged ones included.
    pub deployments: Vec<PlanRow>,
}

/// What would happen to one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What would be done.
    pub action: PlanAction,
    /// Whether running replicas would be replaced.
    pub replaces: bool,
    /// The fields that would change.
    pub fields: Vec<PlanField>,
}

/// What would be done to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanAction {
    /// It is new.
    Create,
    /// Some fields change.
    Update,
    /// It ends.
    Delete,
    /// Nothing.
    Unchanged,
}

/// One field that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanField {
    /// The field as the manifest spells it.
    pub field: String,
    /// The value now.
    pub before: Option<String>,
    /// The value then.
    pub after: Option<String>,
}

/// One row of `validate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValidRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Image as given.
    pub image: String,
    /// Wanted copies.
    pub replicas: u32,
}

/// `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// This release.
    pub version: String,
    /// The version of events that it writes.
    pub event_version: u16,
    /// The peer's release, where one was asked.
    pub peer: Option<String>,
}
