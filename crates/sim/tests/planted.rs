//! Every fault that is put in on purpose is found by the random stories.
//!
//! docs/planted-bugs.md has a row for each: the seed whose story finds it, and how many seeds that took.
//! A run of this test takes each stored seed with its fault, which must fail, and without, which must hold.
//! `PLANTED_SEARCH=2000` searches anew, up to so many seeds from each of several starts, and writes the
//! page; `PLANTED=word,word` looks at some.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use model::{Sabotage, Sabotages};
use sim::story::Story;

/// Where each search starts: the median of so many says more than the first.
const STARTS: [u64; 5] = [0, 100_000, 200_000, 300_000, 400_000];

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn variable(of: &str) -> Option<String> {
    std::env::var(of).ok()
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/planted-bugs.md")
}

/// What the story of a seed says with these faults in every peer.
fn told(seed: u64, faults: Sabotages) -> Result<(), String> {
    let run = || {
        let mut story = Story::draw(seed);
        story.settings.sabotage = faults;
        story.run().map(|_| ()).map_err(|failure| failure.what)
    };
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// The first seed from `start` on that finds a fault and holds without it: how many seeds that took, the
/// seed, and what was found.
fn first(fault: Sabotage, start: u64, most: u64) -> Option<(u64, u64, String)> {
    (start..start + most).find_map(|seed| {
        let what = told(seed, Sabotages::NONE.with(fault)).err()?;
        told(seed, Sabotages::NONE).ok()?;
        Some((seed - start + 1, seed, what))
    })
}

/// What kind of finding it is, in a few words for the page.
fn kind(what: &str) -> String {
    let what = what.lines().next().unwrap_or_default();
    let what = what.split(" after calm").next().unwrap_or_default();
    let timed = what.starts_with(|first: char| first.is_ascii_digit());
    let words: Vec<&str> = what.split(' ').skip(usize::from(timed)).take(7).collect();
    words.join(" ").replace('|', "/").chars().take(60).collect()
}

struct Row {
    seed: u64,
    line: String,
}

/// The stored rows, by the word of their fault.
fn stored() -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(page()).unwrap_or_default();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let word = cells.get(1)?.trim_matches('`').to_owned();
        Some((word, Row { seed: cells.get(4)?.parse().ok()?, line: line.to_owned() }))
    })
    .collect()
}

/// Faults that the page says are not found yet.
fn not_found() -> Vec<String> {
    let text = std::fs::read_to_string(page()).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.strip_prefix("- `")?.split('`').next()?.to_owned())).collect()
}

/// Runs `work` for each fault on every processor; in the order of the faults.
#[allow(clippy::disallowed_methods, reason = "each story runs in one thread; the test runs several stories")]
fn for_each<T: Send>(faults: &[Sabotage], work: impl Fn(Sabotage) -> T + Sync) -> Vec<(Sabotage, T)> {
    let next = Mutex::new(0..faults.len());
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().expect("no panic leaves a story").next() else { return };
                    let result = work(faults[at]);
                    done.lock().expect("no panic leaves a story").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic leaves a story");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(at, result)| (faults[at], result)).collect()
}

fn quiet<T>(work: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = work();
    std::panic::set_hook(hook);
    result
}

/// Searches from every start and writes the page.
#[allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a person waits, and the page is what is made"
)]
fn search(faults: &[Sabotage], most: u64) {
    let found = quiet(|| {
        for_each(faults, |fault| {
            let found: Vec<_> = STARTS.iter().map(|start| first(fault, *start, most)).collect();
            let mut took: Vec<u64> =
                found.iter().map(|it| it.as_ref().map_or(most + 1, |(took, ..)| *took)).collect();
            took.sort_unstable();
            let best = found.iter().flatten().min_by_key(|(took, ..)| *took);
            let row = best.map(|(_, seed, what)| {
                let or_more = |it: u64| if it > most { format!("> {most}") } else { it.to_string() };
                format!(
                    "| `{}` | {} | {} | {seed} | {} | {} | {} |",
                    fault.word(),
                    fault.family(),
                    fault.sentence().trim(),
                    or_more(took[STARTS.len() / 2]),
                    or_more(took[STARTS.len() - 1]),
                    kind(what)
                )
            });
            println!("{}", row.clone().unwrap_or_else(|| format!("NOT FOUND: {}", fault.word())));
            row
        })
    });
    let mut rows = stored();
    let mut missing = not_found();
    for (fault, row) in found {
        match row {
            Some(line) => {
                missing.retain(|word| word != fault.word());
                rows.insert(fault.word().to_owned(), Row { seed: 0, line });
            }
            None if !rows.contains_key(fault.word()) => missing.push(fault.word().to_owned()),
            None => {}
        }
    }
    let mut text = String::from(HEAD);
    for fault in Sabotage::ALL {
        if let Some(row) = rows.get(fault.word()) {
            writeln!(text, "{}", row.line).expect("writing to memory");
        }
    }
    missing.sort_unstable();
    missing.dedup();
    let open = Sabotage::ALL.iter().filter(|fault| missing.iter().any(|word| word == fault.word()));
    let open: Vec<String> =
        open.map(|it| format!("- `{}` ({}): {}\n", it.word(), it.family(), it.sentence().trim())).collect();
    if !open.is_empty() {
        write!(
            text,
            "\nNot found yet: each is a gap in a check, or no mistake that can be seen.\n\n{}",
            open.concat()
        )
        .expect("writing to memory");
    }
    std::fs::write(page(), text).expect("the page can be written");
}

const HEAD: &str = "\
# Planted bugs

Each row is one mistake that somebody could make in the core, put in at the place where it would be made
(`model::Sabotage`; only in a build with the feature `sabotage`). The random stories must find it. `seed` is
the story that does so in every run of `.ci/run`, and holds without the fault; `median` and `most` are how
many seeds it took from five starts; `found as` is the first check that spoke.

```
cargo test --workspace --features sim/sabotage --test planted                       # each by its seed
PLANTED_SEARCH=2000 cargo test --release --workspace --features sim/sabotage --test planted   # anew
```

| fault | in | what is wrong | seed | median | most | found as |
|---|---|---|---:|---:|---:|---|
";

#[test]
fn every_planted_bug_is_found_by_its_seed() {
    let some = variable("PLANTED");
    let faults: Vec<Sabotage> = Sabotage::ALL
        .iter()
        .copied()
        .filter(|fault| some.as_ref().is_none_or(|some| some.split(',').any(|word| word == fault.word())))
        .collect();
    assert!(!faults.is_empty(), "there is no fault {some:?}");
    if let Some(most) = variable("PLANTED_SEARCH") {
        return search(&faults, most.parse().expect("PLANTED_SEARCH is a number of seeds"));
    }
    let (rows, open) = (stored(), not_found());
    assert!(rows.len() >= 40, "forty are asked for, {} have a seed", rows.len());
    let wrong: Vec<String> = quiet(|| {
        for_each(&faults, |fault| {
            let Some(row) = rows.get(fault.word()) else {
                let known = open.iter().any(|word| word == fault.word());
                return (!known).then(|| "it has no row, and is not among those not found".to_owned());
            };
            if let Err(what) = told(row.seed, Sabotages::NONE) {
                return Some(format!("seed {} does not hold without it: {what}", row.seed));
            }
            told(row.seed, Sabotages::NONE.with(fault))
                .is_ok()
                .then(|| format!("seed {} does not find it", row.seed))
        })
    })
    .into_iter()
    .filter_map(|(fault, wrong)| wrong.map(|wrong| format!("{}: {wrong}", fault.word())))
    .collect();
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), faults.len(), wrong.join("\n"));
}
