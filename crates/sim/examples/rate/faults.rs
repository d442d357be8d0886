//! Random stories with every fault.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use sim::story::{Story, Told};

/// How long stories are run.
const STORIES_FOR: Duration = Duration::from_secs(60);

/// Seconds that this process was on a processor.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold spaces; ticks of user and system are the 12th and 13th behind it, 100 a second.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn node_hours(told: &Told) -> f64 {
    told.lasted.as_secs_f64() / 3600.0 * f64::from(u32::try_from(told.machines).expect("small"))
}

pub(crate) fn faults(nodes: usize) {
    let begin = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = |thread: u64| {
        std::thread::spawn(move || {
            let (mut hours, mut stories, mut failed) = (0.0, 0, 0);
            for seed in (0..).filter(|seed| seed % threads == thread) {
                if begin.elapsed() > STORIES_FOR {
                    break;
                }
                stories += 1;
                let told = Story::draw_sized(seed, Some(nodes)).tell();
                hours += node_hours(&told);
                if let Err(what) = told.ended {
                    failed += 1;
                    println!("seed {seed}: {}", what.lines().next().unwrap_or_default());
                }
            }
            (hours, stories, failed)
        })
    };
    let processors = f64::from(u32::try_from(threads).expect("small"));
    let threads: Vec<_> = (0..threads).map(share).collect();
    let (mut hours, mut stories, mut failed) = (0.0, 0, 0);
    for thread in threads {
        let (its_hours, its_stories, its_failed) = thread.join().expect("a story does not panic");
        hours += its_hours;
        stories += its_stories;
        failed += its_failed;
    }
    let wall = begin.elapsed().as_secs_f64() / 3600.0;
    println!(
        "{stories} stories on {nodes} machines, {failed} failed: {:.0} node-hours a wall hour",
        hours / wall
    );
    // Where something else runs beside, the wall says little.
    println!(
        "{:.0} node-hours an hour of {processors} processors",
        hours / (processor_s() / 3600.0) * processors
    );
}

/// The same stories each time, one after the other, on one processor: what they take, and a hash of all that
/// happened in them. A change that makes the simulator faster leaves the hash as it is.
pub(crate) fn fixed(nodes: usize, stories: u64) {
    let begin = processor_s();
    let (mut hours, mut failed) = (0.0, 0);
    let mut hash = Sha256::new();
    for seed in 0..stories {
        let told = Story::draw_sized(seed, Some(nodes)).tell();
        hours += node_hours(&told);
        failed += usize::from(told.ended.is_err());
        for line in told.trace.iter().chain(told.ended.as_ref().err()) {
            hash.update(line.as_bytes());
            hash.update(b"\n");
        }
    }
    let took = processor_s() - begin;
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!(
        "{stories} stories on {nodes} machines, {failed} failed, {hours:.1} node-hours, {took:.2} s; {hash}"
    );
}
