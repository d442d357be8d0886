//! Random stories with every fault. `STORIES=N` runs so many, `STORY_FROM=S` from that seed on,
//! `STORY=S` runs and shrinks one.

use std::time::Duration;

use sim::story::{Failure, Story, Took};

/// Stories of each run of the tests: some seconds of two processors.
const STORIES: u64 = 240;

fn number(of: &str) -> Option<u64> {
    std::env::var(of).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{of}={text} is not a number")))
}

/// Runs one seed; a panic in it is a failure like any other.
fn one(seed: u64) -> Result<Took, Box<Failure>> {
    std::panic::catch_unwind(|| Story::draw(seed).run()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned())).unwrap_or_default();
        Err(Box::new(Failure { seed, what: format!("panicked: {text}"), steps: vec![], trace: vec![] }))
    })
}

/// Runs seeds on every processor; the failures, by seed.
fn run(from: u64, count: u64) -> (Vec<Took>, Vec<Box<Failure>>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = |thread: u64| {
        let seeds = (from..from + count).filter(move |seed| seed % threads == thread);
        std::thread::spawn(move || seeds.map(one).collect::<Vec<_>>())
    };
    let threads: Vec<_> = (0..threads).map(share).collect();
    let mut took = Vec::new();
    let mut failures = Vec::new();
    for result in threads.into_iter().flat_map(|thread| thread.join().expect("panics are caught in each story")) {
        match result {
            Ok(it) => took.push(it),
            Err(failure) => failures.push(failure),
        }
    }
    failures.sort_by_key(|failure| failure.seed);
    (took, failures)
}

#[test]
fn whatever_happens_the_cluster_comes_to_rest_and_keeps_its_promises() {
    if let Some(seed) = number("STORY") {
        let story = Story::draw(seed);
        if story.run().is_err() {
            panic!("{:?}\n{}", story.settings, story.shrink().run().expect_err("a shrunk story fails still"));
        }
        return;
    }
    let count = number("STORIES").unwrap_or(STORIES);
    let (took, failures) = run(number("STORY_FROM").unwrap_or(0), count);
    let worst = |of: fn(&Took) -> Duration| {
        let mut all: Vec<Duration> = took.iter().map(of).collect();
        all.sort_unstable();
        let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1))).copied();
        format!("p50 {:?} p99 {:?} max {:?}", at(50), at(99), all.last())
    };
    println!("{} stories, {} failed", count, failures.len());
    println!("level:   {}", worst(|it| it.level));
    println!("agreed:  {}", worst(|it| it.agreed));
    println!("at rest: {}", worst(|it| it.at_rest));
    for failure in &failures {
        println!("seed {}: {}", failure.seed, failure.what);
    }
    if let Some(first) = failures.first() {
        panic!("{} of {count} stories failed; the first:\n{first}", failures.len());
    }
}
