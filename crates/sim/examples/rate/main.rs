//! How fast the simulator is, and how large clusters behave in it:
//! `cargo run --release -p sim --example rate -- WHAT [numbers]`.
//!
//! - `faults 10`: random stories with every fault on ten machines, on each processor, for a while;
//!   prints simulated node-hours a wall hour.
//! - `fixed 10 100`: so many of these stories, always the same, one after the other; prints the processor
//!   seconds and a hash of all that happened: to hold a change against what was before.
//! - `halves 200`: so many machines with ten replicas each; cut in half, healed; prints how long it took
//!   until the plans were equal and each replica ran once, on the wall and in the simulation.
//! - `heal 10`: so many machines with a replica each; both halves of a cut are changed; prints how long it
//!   took from the heal until documents and plans were equal.
//! - `p20 1000 1000`: so many machines, and so many events on each side of a cut, then healed.
//! - `spread 200 50`: so many machines in 19 regions of the world, so many events one after the other;
//!   prints when each machine, and when the last, had an event, and how many copies were sent.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement looks at the clock, uses each processor and tells"
)]

mod faults;
mod large;
mod spread;
mod watch;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise| args.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    match args.first().map(String::as_str) {
        Some("fixed") => faults::fixed(number(1, 10), number(2, 100) as u64),
        Some("halves") => large::halves(number(1, 200)),
        Some("heal") => large::heal(number(1, 10)),
        Some("p20") => large::p20(number(1, 1_000), number(2, 1_000)),
        Some("spread") => spread::spread(number(1, 200), number(2, 50)),
        _ => faults::faults(number(1, 10)),
    }
}
