//! Plans of whole clusters: each rule on its own, and what is true of every cluster.
#![expect(clippy::unwrap_used, reason = "what a test made itself is there")]

mod depends;
mod exclusive;
mod extras;
mod jobs;
mod packing;
mod placement;
mod properties;
mod rules;
mod updates;
mod world;
