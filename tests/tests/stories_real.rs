//! Random stories on real peers, held against the kernels. `REAL_STORIES_FOR=10m` plays for so long,
//! `REAL_STORIES_FROM=S` from that seed on, `REAL_STORY=S` plays one. Without any of them, a few short ones.
#![allow(clippy::unwrap_used, reason = "all of this is test; clippy takes helpers for more")]

use std::time::Duration;

use e2e::stories::{self, AT_ONCE, Budget};
use e2e::world::can_run;

/// Short ones, for every run of the tests: splits, a blackout, forged events and a retry; a peer that is killed
/// and started at once, and a node that stays cut off for good.
const SHORT: [u64; 2] = [14, 42];

fn number(of: &str) -> Option<u64> {
    std::env::var(of).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{of}={text} is not a number")))
}

#[test]
fn random_faults_on_real_peers_leave_what_the_kernels_show_as_it_must_be() {
    if !can_run() {
        return;
    }
    let within = std::env::var("REAL_STORIES_FOR").ok();
    let within = within.map(|text| stories::span(&text).unwrap_or_else(|error| panic!("{error}")));
    let budget =
        |from, stories, within| Budget { from, stories, within, at_once: AT_ONCE, keep_going: false };
    let budgets = match (number("REAL_STORY"), number("REAL_STORIES_FROM"), within) {
        (Some(seed), ..) => vec![budget(seed, 1, Duration::MAX)],
        (None, from, Some(within)) => vec![budget(from.unwrap_or(0), u64::MAX, within)],
        (None, Some(from), None) => vec![budget(from, 10, Duration::MAX)],
        (None, None, None) => SHORT.map(|seed| budget(seed, 1, Duration::MAX)).to_vec(),
    };
    for budget in budgets {
        let failures = stories::play_all(&budget, |words| println!("{words}"));
        assert!(failures.is_empty(), "{}", failures[0]);
    }
}
