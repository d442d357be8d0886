//! One peer as a state machine: `handle(now, input) -> effects`.
//!
//! It decides everything that a peer does: which events it takes and passes on, whom it links to,
//! whom it believes alive, what it runs, what it says of itself. It does nothing: the shell carries
//! out the effects in order and reports what happened as inputs. The simulator does the same with
//! many nodes and virtual time.
//!
//! - `sync`: events from clients and peers: verdict, journal, passing on, catching up.
//! - `spread`: how an event gets around in a large cluster.
//! - `links`: who is linked, redialled, believed alive.
//! - `drain`: a node that is to be looked after.
//! - `farewell`: removed nodes are told so; this one, when it is told, stops for good.
//! - `finished`: what ended for good, beside others of its replica.
//! - `gossip`: observed records, this node's own and the others'.
//! - `signed`: who a record is of, whoever brings it.
//! - `standing`: whose word counts, and whose work as running.
//! - `view`: what the plan is made from.
//! - `priority`: what makes room for what is more important.
//! - `reconcile`: the plan's share, and one next step for each container of this node.
//! - `rollout`: whether a new template comes up.
//! - `leases`: at most one copy of an exclusive replica.
//! - `containers`: the life of one container as the core sees it.
//!
//! Invariants:
//! - nothing that tells of an event leaves before the journal has synced it;
//! - the same inputs at the same times give the same effects, bit for bit;
//! - a container is stopped as a duplicate only after the winner itself has confirmed, healthy, that
//!   it saw this very container;
//! - everything kept is bounded: parked events by sender, links by roster, waiting clients by
//!   deadline;
//! - what is believed of another node was signed by it.
//!
//! Absent on purpose: clocks, sockets, files, chance beyond the seed; keys (events arrive signed, and
//! what signs this node's records is handed in).
#![forbid(unsafe_code)]

mod adopt;
mod containers;
mod drain;
mod farewell;
mod finished;
mod gossip;
mod io;
mod jobs;
mod leases;
mod links;
mod pressure;
mod priority;
mod reconcile;
mod rollout;
mod settings;
mod signed;
mod spread;
mod standing;
mod state;
mod sync;
mod view;

pub use containers::{Mine, Phase};
pub use farewell::Removal;
pub use io::{Claim, CommandId, Effect, Exit, Found, Input, Notice, Outcome, RunSpec, Seq};
pub use pressure::{DiskSpace, Pressure};
pub use rollout::RolledBack;
pub use settings::{Boot, Config, FoundLeases, Timings};
pub use signed::{Plainly, Reader, Signer, sign_record, signing_bytes};
pub use state::{Desired, Knowledge, Node};
