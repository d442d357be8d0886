//! Who runs what: a pure function from a view of the cluster to a plan.
//!
//! Nobody is in charge, so every node computes the plan of the whole cluster and takes its own
//! share of it. Plans are advice, claims (what the nodes' records say that they run) are facts: a
//! replica that runs somewhere stays there, and only what runs nowhere is given a place.
//!
//! Invariants:
//! - the same view gives the same plan, bit for bit, on every machine: whole numbers only, no hash
//!   order, no chance; the rules have a number ([`RULES`]) that is kept in the document;
//! - on every node the claims and the placements that the plan adds never exceed the capacity (where
//!   the claims alone already do, nothing is added);
//! - a replica with a claim on a node that is alive, does not drain and meets the conditions is never moved;
//! - an update changes no more replicas at a time than it says, by ordinal, and stops none first while as
//!   many as it lets be missing are;
//! - every replica that has no place has a reason for every node it might have (in mode `global`, one);
//! - only what is of a strictly lower priority yields its room;
//! - what a deployment depends on holds up its starts, and stops nothing.
//!
//! Absent on purpose: time (waiting, grace and back-off belong to `node`), stopping (a container that
//! the plan does not name may go, by the rule of [`rank`]), leases of `exclusive` deployments (a plan asks for
//! the reach of their voters, `node` for the leases), and
//! deployments whose merged groups do not validate (the caller keeps what runs of them).
//!
//! [`plan`] plans from nothing; a [`Planner`] remembers and does only what a change asks for. Both
//! give equal plans (a property test holds this).
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod cache;
mod depends;
mod explain;
mod jobs;
mod place;
mod placements;
mod plan;
mod planner;
mod preempt;
mod rank;
mod room;
mod stance;
mod view;

pub use depends::{Dependency, Progress, Waits};
pub use explain::{Explanation, Fit, NodeExplained, explain};
pub use placements::Placements;
pub use plan::{Placement, Plan, Reasons, Refusal};
pub use planner::{Planner, plan};
pub use rank::{Rank, holds_capacity, is_claim, rank, winner};
pub use room::share_ppm;
pub use stance::is_done;
pub use view::{NodeView, View, Wanted, ordinals};

/// The number of the rules that this release plans by. A view that asks for others gets a plan that
/// keeps what runs and starts nothing ([`Refusal::Rules`]), since another release would differ.
pub const RULES: u16 = 1;
