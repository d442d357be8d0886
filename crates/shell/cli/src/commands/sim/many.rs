//! Seeds on several threads, each alone in its world, and how far they are.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::out::Out;

/// Seeds in one run: at some tens a second, a day.
pub(super) const SEEDS_MAX: u64 = 1_000_000;
/// Threads of one run: more than any machine has processors for this.
pub(super) const JOBS_MAX: u16 = 512;
/// Failures that are kept to be shown; the others are counted.
pub(super) const FAILURES_KEPT_MAX: usize = 100;

/// How one seed ended.
pub(super) struct One {
    /// What did not hold, and where.
    pub(super) failed: Option<(Option<String>, String)>,
    /// Virtual time of all its nodes together.
    pub(super) node_time: Duration,
}

/// How all of them did.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) done: u64,
    pub(super) failed: u64,
    /// By seed: where and what; the first [`FAILURES_KEPT_MAX`] of them.
    pub(super) failures: BTreeMap<u64, (Option<String>, String)>,
    pub(super) node_time: Duration,
    pub(super) took: Duration,
}

impl All {
    fn take(&mut self, seed: u64, one: One) {
        self.done += 1;
        self.node_time += one.node_time;
        if let Some(failed) = one.failed {
            self.failed += 1;
            self.failures.insert(seed, failed);
            if self.failures.len() > FAILURES_KEPT_MAX {
                self.failures.pop_last();
            }
        }
    }

    /// Seeds a second, and simulated node-hours an hour.
    pub(super) fn rate(&self) -> String {
        let took = self.took.as_secs_f64().max(1e-6);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let seeds = self.done as f64 / took;
        format!("{seeds:.1} seeds/s, {:.0} simulated node-hours/h", self.node_time.as_secs_f64() / took)
    }

    /// What the bar says beside how far it is.
    fn progress(&self) -> String {
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        format!("{failed}, {}", self.rate())
    }
}

/// The text of a panic.
pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
    format!("panicked: {text}")
}

/// Runs `count` seeds from `from` on, on so many threads. A panic is a failure of its seed.
pub(super) fn run(out: &Out, (from, count): (u64, u64), jobs: usize, one: impl Fn(u64) -> One + Sync) -> All {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let mut all = All::default();
    let bar = out.progress(count);
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..jobs {
            let (send, next, one) = (send.clone(), &next, &one);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let seed = from.saturating_add(at);
                    let ended = catch_unwind(AssertUnwindSafe(|| one(seed))).unwrap_or_else(|panic| One {
                        failed: Some((None, words(panic.as_ref()))),
                        node_time: Duration::ZERO,
                    });
                    // Nobody listens any more only when this thread is not waited for either.
                    if send.send((seed, ended)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        while let Ok((seed, ended)) = receive.recv() {
            all.take(seed, ended);
            all.took = begin.elapsed();
            bar.set_message(all.progress());
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    all.took = begin.elapsed();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_run_once_and_a_panic_is_a_failure_of_its_seed() {
        let (out, captured) = Out::captured();
        let all = run(&out, (10, 50), 4, |seed| {
            assert!(seed != 33, "seed {seed} is no good");
            let failed = (seed == 17).then(|| (Some("x.toml:4".to_owned()), "not within 1s".to_owned()));
            One { failed, node_time: Duration::from_secs(3_600) }
        });
        assert_eq!((all.done, all.failed), (50, 2));
        assert_eq!(all.node_time, Duration::from_secs(49 * 3_600));
        assert_eq!(all.failures[&17].1, "not within 1s");
        assert_eq!(all.failures[&33].1, "panicked: seed 33 is no good");
        assert_eq!(captured.stderr(), "", "without a terminal there is no bar");
    }

    #[test]
    fn the_line_of_progress_says_how_fast_it_is_and_what_failed() {
        let (done, failed) = (30, 1);
        let (took, node_time) = (Duration::from_secs(3), Duration::from_secs(30));
        let all = All { done, failed, node_time, took, ..All::default() };
        assert_eq!(all.progress(), ", 1 failed, 10.0 seeds/s, 10 simulated node-hours/h");
    }

    #[test]
    fn only_the_first_failures_are_kept() {
        let mut all = All::default();
        for seed in (0..150).rev() {
            let failed = Some((None, String::new()));
            all.take(seed, One { failed, node_time: Duration::ZERO });
        }
        assert_eq!((all.failed, all.failures.len()), (150, FAILURES_KEPT_MAX));
        assert_eq!(all.failures.first_key_value().unwrap().0, &0);
    }
}
