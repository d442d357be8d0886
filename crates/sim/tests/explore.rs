//! Every order of small scopes. `EXPLORE=N` tries so many orders of each; `EXPLORE_DEPTH=N` chooses so
//! often in each.

use sim::explore::{Scope, explore};

/// Orders of each scope in each run of the tests: some seconds in all.
const RUNS: usize = 60;

/// Choices in each.
const DEPTH: usize = 12;

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn number(of: &str, otherwise: usize) -> usize {
    let text = std::env::var(of).ok();
    text.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{of}={text} is not a number")))
}

#[test]
fn every_order_of_a_few_events_with_a_cut_and_a_crash_comes_to_rest() {
    let (runs, depth) = (number("EXPLORE", RUNS), number("EXPLORE_DEPTH", DEPTH));
    let mut states = 0;
    for scope in Scope::all() {
        let found = explore(&scope, depth, runs).unwrap_or_else(|why| panic!("{why}"));
        println!("{}: {found:?}", scope.name);
        assert!(found.ends > 0, "{} never came to an end", scope.name);
        states += found.states;
    }
    println!("{states} states");
}
