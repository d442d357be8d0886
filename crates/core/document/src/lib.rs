//! Desired state: signed events, the verdict on each, and what they merge to.
//!
//! Events are the truth, automerge is how they merge. A user's action is one signed event
//! ([`event`]). Whether it counts is decided from its causal past alone ([`VoidReason`] has the
//! table). A valid event makes exactly one automerge change, with the identical hash on every peer
//! (`log` has the scheme). Peers exchange events and never changes; each executes them itself.
//!
//! ```text
//! bytes ── event::decode ──► verdict ──► one change ──► merged groups ──► View, Conflict, History
//!            Refused,         Void        (automerge                       Roster
//!         NotUnderstood                    and index)
//! ```
//!
//! What must hold:
//! - The same set of events gives the same heads, change hashes, views, conflicts, roster,
//!   histories and revision numbers, whatever the order of arrival.
//! - A verdict never changes: not by what arrives later, nor by a restart.
//! - No input makes this crate panic, and an error leaves the documents as they were.
//! - The bytes of an event, its id, the verdict rules and the change hashes of version 1 are final:
//!   `tests/golden` holds them. Other rules need another event version; a further kind of event does
//!   once there is a release that does not know it.
//!
//! Absent on purpose: clocks (`time_ms` is shown, never compared; a token's expiry is checked by
//! the peer that serves the join), keys (signers are handed in), disks, parking of events that came
//! too early, and the limit of namespaces. Cutting epochs is not here yet; the epoch's number is
//! part of the scheme already. Automerge draws a random actor for a new document, which is replaced
//! at once and reaches no change.
#![forbid(unsafe_code)]

mod bits;
mod documents;
pub mod event;
pub mod fuzz;
mod history;
mod log;
mod namespace;
mod promise;
mod roster;
mod schedule;
mod shared;
mod verdict;

pub use documents::{Documents, EventReader, InsertError, Inserted, Outcome, SAMPLES_MAX, Stored};
pub use history::{Action, EditSummary, GroupChange, HistoryItem};
pub use namespace::{Conflict, Scope, Side, View};
pub use roster::{Member, Roster, Token, User};
pub use shared::Library;
pub use verdict::VoidReason;
