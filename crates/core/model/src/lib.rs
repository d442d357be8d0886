//! The nouns: ids, names, quantities, deployments, what a node says of itself, and the checks that
//! make them valid.
//!
//! Every crate speaks in these words (docs/architecture.md has the list). Values here are valid by
//! construction where a newtype can hold the rule; the rest is checked by `validate`.
//!
//! Invariant: nothing here reads a clock, a file, chance or the environment.
//! Absent on purpose: automerge, the wire format, words for people. The JSON form of a group
//! (`deployment`) is what a user's key signs: golden files in `document` hold it.
#![forbid(unsafe_code)]

mod capacity;
pub mod depends;
mod deployment;
mod exclusive;
mod extras;
mod ids;
mod job;
pub mod limits;
mod name;
mod placement;
mod record;
mod sabotage;
mod time;
mod update;

pub use capacity::{Capacity, Limits, Terms};
pub use depends::{Condition, DependsGroup};
pub use deployment::{
    Class, Deployment, EnvGroup, Group, GroupError, ImageGroup, MetaGroup, Mode, Port, PortsGroup, Protocol,
    ReplicasGroup, ResourcesGroup, RestartGroup, RestartPolicy,
};
pub use exclusive::{LeaseGrant, majority};
pub use extras::{Extras, ExtrasError};
pub use ids::{
    ClusterId, ContainerId, Digest, EventId, IdError, NodeId, ReplicaId, Revision, TokenId, UserId,
};
pub use job::{FailedRun, JobEnds, JobGroup, JobId, JobRecord};
pub use name::{DocId, LabelKey, Name, NameError};
pub use placement::{
    Affinity, HOST, PlacementGroup, Preference, Priority, Requirement, RequirementError, Test, Unmet,
    label_of,
};
pub use record::{
    ContainerRecord, ContainerState, Declined, FailedRevision, ImageRecord, NodeRecord, RecordVersion,
    Signature, SignedRecord,
};
pub use sabotage::{Sabotage, Sabotages};
pub use time::Time;
pub use update::{Canary, OnFailure, Strategy, UpdateGroup};
