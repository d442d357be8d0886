//! Members with a valid key that do what no member should.
//!
//! - `forge`: a peer that was taken over. It does all that a peer does, and beside that it sends records
//!   of the others that these have not written.
//! - `rogue`: no peer at all. It replays, mutates, lies and floods.
//!
//! Neither has a user's key, so neither can make an event that anybody takes.

mod forge;
mod rogue;

pub(crate) use rogue::Rogue;
