//! Small scopes, every order: two or three peers, a few events, one cut, one crash, and each order in
//! which what is under way may come.
//!
//! A run is a list of choices. Where several things are under way (a frame on each link, a sync, a
//! start, an alarm, the next act of the scope), each of them is tried as the one that comes first; the
//! others wait. What follows the last choice is calm, and is checked as a story's end is. A state that
//! was seen before is not followed again. Runs are replayed from the beginning: a peer cannot be copied. So
//! each run goes on to its end by choices drawn on the way, and leaves what it did not choose to others.
//!
//! Things that are due within one `WINDOW` come at the same instant, in any order, so that two orders
//! that make no difference make none in the state either.
//!
//! - `scope`: what is done in a scope.
//! - `search`: the choices, and which states were seen.

mod scope;
mod search;

pub use scope::{Act, Scope};
pub use search::{Explored, explore};
