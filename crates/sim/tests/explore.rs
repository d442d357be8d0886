//! Every order of small scopes. `EXPLORE=N` tries so many orders of each; `EXPLORE_DEPTH=N` chooses so
//! often in each; `EXPLORE_SCOPE=N` looks at one of them.
#![allow(clippy::print_stdout, reason = "figures are seen with --nocapture")]

use std::sync::Mutex;

use sim::explore::{Explored, Scope, explore};

/// Orders of each scope in each run of the tests: ten thousand states, some 20 s of two processors.
const RUNS: usize = 550;

/// Choices in each.
const DEPTH: usize = 12;

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn number(of: &str) -> Option<usize> {
    let text = std::env::var(of).ok();
    text.map(|text| text.parse().unwrap_or_else(|_| panic!("{of}={text} is not a number")))
}

/// Searches the scopes on every processor; what was found, in their order.
#[allow(clippy::disallowed_methods, reason = "each search runs in one thread; the test runs several")]
fn search(scopes: Vec<Scope>, depth: usize, runs: usize) -> Vec<(&'static str, Result<Explored, String>)> {
    let todo = Mutex::new(scopes.into_iter().enumerate());
    let found = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads_of| {
        for _ in 0..threads {
            threads_of.spawn(|| {
                loop {
                    let Some((at, scope)) = todo.lock().expect("no search panics").next() else { return };
                    let explored = explore(&scope, depth, runs);
                    println!("{}: {:?}", scope.name, explored.as_ref().ok());
                    found.lock().expect("no search panics").push((at, scope.name, explored));
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no search panics");
    found.sort_by_key(|(at, ..)| *at);
    found.into_iter().map(|(_, name, explored)| (name, explored)).collect()
}

#[test]
fn every_order_of_a_few_events_with_a_cut_and_a_crash_comes_to_rest() {
    let (runs, depth) = (number("EXPLORE").unwrap_or(RUNS), number("EXPLORE_DEPTH").unwrap_or(DEPTH));
    let mut scopes = Scope::all();
    if let Some(one) = number("EXPLORE_SCOPE") {
        scopes = vec![scopes.swap_remove(one)];
    }
    let (mut states, mut ends) = (0, 0);
    for (name, explored) in search(scopes, depth, runs) {
        let explored = explored.unwrap_or_else(|why| panic!("{why}"));
        assert!(explored.ends > 0, "{name} never came to an end");
        states += explored.states;
        ends += explored.ends;
    }
    println!("{states} states, {ends} ends");
    assert!(states > runs, "the orders that were tried came to few states: {states}");
}
