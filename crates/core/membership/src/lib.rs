//! Who is alive, suspected or down, and what each node says of itself.
//!
//! [`Membership`] wraps foca (SWIM: probes, indirect probes, suspicion, gossip) as a machine without
//! clock, socket or thread: datagrams and ticks go in, effects come out. [`Records`] holds the newest
//! observed record of each member.
//!
//! Invariants:
//! - only members of the roster are heard, spoken to or spoken of; a removed one is forgotten at once;
//! - no member is called down without a reason that can be logged, and never for being unheard of by
//!   others alone when we hear it (what a push-pull says about the down is not believed, probes are);
//! - the same seed and the same inputs give the same effects, byte for byte;
//! - bytes from outside never panic and never take memory beyond fixed limits;
//! - a record is replaced by a newer one of the same node only.
//!
//! Absent on purpose: the grace that a node gets to come back (`node` waits, suspicion here is soft),
//! dialling (the caller says when a link is up), signatures of records (the caller vouches for them).
//! "Down" never means "remove": removing is a signed event.
#![forbid(unsafe_code)]

mod announces;
mod codec;
mod packet;
mod peer;
mod records;
mod roster;
mod settings;
mod swim;
mod timers;
mod trial;

pub use packet::{DATAGRAM_BYTES_MAX, DatagramError, PUSH_PULL_BYTES_MAX};
pub use records::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, DECLINED_MAX, REASON_BYTES_MAX, REFERENCE_BYTES_MAX, RecordError,
    Records,
};
pub use settings::{PROBE_PERIOD_MAX, PROBE_PERIOD_MIN, Settings, SettingsError};
pub use swim::{Belief, Effect, Liveness, Membership};
