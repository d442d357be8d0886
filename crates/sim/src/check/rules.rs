//! Rules over what was seen of a cluster from outside. Whoever looks at one can be held to them: the
//! simulator at its own kernels, and the end-to-end tests at those of real machines.
//!
//! - [`components`], [`beyond_neighbours`]: who can speak with whom.
//! - [`run_twice`]: S7, one copy of each replica.
//! - [`Truth`]: S9, what somebody says of a machine was so not long ago.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::Time;

/// How long what ran is remembered: longer than any word may be old.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Machines that hear each other, each of one all others of it. What hears only some is in none: it is
/// for the stories of bridges. `hears` says whether a machine takes part at all, `clear` whether two can
/// speak with one another, both ways.
pub fn components(
    count: usize,
    hears: impl Fn(usize) -> bool,
    clear: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<usize>> {
    let mut left: BTreeSet<usize> = (0..count).filter(|host| hears(*host)).collect();
    let mut components = Vec::new();
    while let Some(first) = left.pop_first() {
        let all = reached(first, &mut left, &clear);
        if all.iter().all(|a| all.iter().all(|b| a == b || clear(*a, *b))) {
            components.push(all);
        }
    }
    components
}

/// All that can be reached from one machine by way of others, taken out of those that are left.
fn reached(first: usize, left: &mut BTreeSet<usize>, clear: &impl Fn(usize, usize) -> bool) -> Vec<usize> {
    let mut found = BTreeSet::from([first]);
    let mut queue = vec![first];
    while let Some(a) = queue.pop() {
        let near: Vec<usize> = left.iter().copied().filter(|b| clear(a, *b)).collect();
        for b in near {
            left.remove(&b);
            found.insert(b);
            queue.push(b);
        }
    }
    found.into_iter().collect()
}

/// All ways of a line but those between neighbours.
pub fn beyond_neighbours(order: &[usize]) -> BTreeSet<(usize, usize)> {
    let far = |at: usize| order.iter().skip(at + 2).map(move |other| (order[at], *other));
    (0..order.len()).flat_map(far).flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

/// S7: a replica, in one revision, of which there are two copies among these, and where they are. Whoever
/// asks leaves out what is too young to have been found out, and what was told to stop.
pub fn run_twice<K: Ord>(copies: impl IntoIterator<Item = (K, usize)>) -> Option<(K, Vec<usize>)> {
    let mut by_replica: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (replica, host) in copies {
        by_replica.entry(replica).or_default().push(host);
    }
    by_replica.into_iter().find(|(_, hosts)| hosts.len() > 1)
}

/// What ran on one machine from when on, for as long as anybody may speak of it.
#[derive(Clone, Debug)]
pub struct Truth<T>(VecDeque<(Time, BTreeSet<T>)>);

impl<T> Default for Truth<T> {
    /// Nothing ever ran.
    fn default() -> Self {
        Self(VecDeque::from([(Time::ZERO, BTreeSet::new())]))
    }
}

impl<T: Ord + Clone> Truth<T> {
    /// What runs has changed.
    pub fn note(&mut self, now: Time, runs: BTreeSet<T>) {
        self.0.push_back((now, runs));
        while self.0.len() > 1 && self.0.get(1).is_some_and(|(at, _)| now.since(*at) > REMEMBERED) {
            self.0.pop_front();
        }
    }

    /// All that ran at some time within the last `window`, the newest first.
    pub fn within(&self, now: Time, window: Duration) -> Vec<&BTreeSet<T>> {
        let mut recent = Vec::new();
        for (since, ran) in self.0.iter().rev() {
            recent.push(ran);
            if now.since(*since) > window {
                break; // This one was so when the window began.
            }
        }
        recent
    }

    /// S9: whether somebody who says that all of `runs` run here, and nothing beside `may`, which are those
    /// that begin or end and `runs` themselves, would have been right at some time within the last `window`.
    pub fn bears_out(&self, now: Time, window: Duration, runs: &BTreeSet<T>, may: &BTreeSet<T>) -> bool {
        self.within(now, window).into_iter().any(|ran| runs.is_subset(ran) && ran.is_subset(may))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn set(of: &[u32]) -> BTreeSet<u32> {
        of.iter().copied().collect()
    }

    #[test]
    fn a_bridge_and_its_banks_are_no_component_and_whoever_does_not_hear_is_in_none() {
        let clear = |a: usize, b: usize| [a, b].contains(&1) || (a > 2 && b > 2);
        assert_eq!(components(3, |_| true, clear), Vec::<Vec<usize>>::new());
        assert_eq!(components(6, |host| host > 2 && host != 4, clear), [vec![3, 5]]);
        assert_eq!(components(3, |host| host != 1, clear), [vec![0], vec![2]]);
    }

    #[test]
    fn a_replica_that_runs_twice_is_named_with_its_places() {
        assert_eq!(run_twice([("a", 0), ("b", 1), ("a", 2)]), Some(("a", vec![0, 2])));
        assert_eq!(run_twice([("a", 0), ("b", 1)]), None);
    }

    #[test]
    fn a_word_is_borne_out_by_what_ran_within_the_window_and_by_nothing_older() {
        let mut truth = Truth::default();
        truth.note(Time::from_millis(1_000), set(&[1]));
        truth.note(Time::from_millis(5_000), set(&[1, 2]));
        let now = Time::from_millis(6_500);
        let says = |window, runs: &[u32], may: &[u32]| truth.bears_out(now, window, &set(runs), &set(may));
        assert!(says(SECOND, &[1, 2], &[1, 2]));
        assert!(says(SECOND, &[1], &[1, 2]), "the second one begins");
        assert!(!says(SECOND, &[1], &[1]), "so it was, too long ago");
        assert!(says(SECOND * 2, &[1], &[1]));
        assert!(!says(SECOND * 9, &[1, 2, 3], &[1, 2, 3]));
        assert!(Truth::default().bears_out(now, SECOND, &set(&[]), &set(&[])));
    }

    #[test]
    fn what_ran_longest_ago_is_forgotten_but_for_what_was_so_last() {
        let mut truth = Truth::default();
        for second in 0..100 {
            truth.note(Time::from_millis(second * 1_000), set(&[1]));
        }
        assert!(truth.0.len() <= 32, "{}", truth.0.len());
    }
}
