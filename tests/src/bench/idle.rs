//! What peers and supervisors cost while nothing happens.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::report::{Report, Series, Target};
use super::stats::Samples;
use super::world::World;
use super::{Options, go_on, machine};

/// Sleeps, but ends when we are asked to.
fn rest(span: Duration) -> Result<()> {
    let until = std::time::Instant::now() + span;
    while std::time::Instant::now() < until {
        go_on()?;
        std::thread::sleep(
            Duration::from_millis(200).min(until.saturating_duration_since(std::time::Instant::now())),
        );
    }
    Ok(())
}

/// P13, P15, P16: each peer of an idle cluster of three is a sample.
pub(crate) fn peers(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let (before, span) = if options.quick { (5, 10) } else { (60, 60) };
    rest(Duration::from_secs(before))?;
    let series = Series::begin(options)?;
    let pids = world.names.iter().map(|node| world.peer(node)).collect::<Result<Vec<u32>>>()?;
    let read = |pid: u32| -> Result<_> { Ok((machine::processor(pid)?, machine::bytes_sent(pid)?)) };
    let began = std::time::Instant::now();
    let first = pids.iter().map(|pid| read(*pid)).collect::<Result<Vec<_>>>()?;
    rest(Duration::from_secs(span))?;
    let [mut cpu, mut wakes, mut bytes, mut rss, mut pss] = <[Samples; 5]>::default();
    let seconds = began.elapsed().as_secs_f64();
    for (pid, ((cpu_0, wakes_0), bytes_0)) in pids.iter().zip(first) {
        let ((cpu_1, wakes_1), bytes_1) = read(*pid)?;
        cpu.push((cpu_1.saturating_sub(cpu_0)).as_secs_f64() * 100.0 / seconds);
        #[expect(clippy::cast_precision_loss, reason = "counts of one minute")]
        {
            wakes.push(wakes_1.saturating_sub(wakes_0) as f64 / seconds);
            bytes.push(bytes_1.saturating_sub(bytes_0) as f64 / seconds / 1024.0);
        }
        rss.push(machine::memory_kib(*pid, "Rss")? / 1024.0);
        pss.push(machine::memory_kib(*pid, "Pss")? / 1024.0);
    }
    report.add("P13 RSS of an idle peer, 3 nodes", "MiB", &rss, Target::max(20.0), series)?;
    report.add("P13b its PSS", "MiB", &pss, Target::NONE, series)?;
    report.add("P15 an idle peer's share of a core", "%", &cpu, Target::max(0.2), series)?;
    report.add("P15b times that its threads are switched to", "/s", &wakes, Target::NONE, series)?;
    report.add("P16 sent by an idle peer, with all headers", "KiB/s", &bytes, Target::max(1.5), series)
}

/// P14: what each container costs besides its own processes.
pub(crate) fn supervisors(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let count: u32 = if options.quick { 12 } else { 60 };
    let series = Series::begin(options)?;
    let free = || -> Result<f64> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1)).and_then(|it| it.parse().ok());
        kib.context("/proc/meminfo says nothing of MemAvailable")
    };
    let before = free()?;
    let name = world.fresh("p14");
    let sent = world.create("n1", &name, count)?;
    world.await_marks(&name, sent.at_ns, count as usize, Duration::from_secs(60))?;
    rest(Duration::from_secs(3))?;
    let host = (before - free()?) / 1024.0 / f64::from(count);
    let [mut pss, mut private, mut init] = <[Samples; 3]>::default();
    for process in dev::process::with_args(|args| args.get(1).is_some_and(|word| word == "__supervisor"))? {
        let below = process
            .args()
            .get(2)
            .is_some_and(|dir| std::path::Path::new(dir).starts_with(world.cluster().dir()));
        if below {
            pss.push(machine::memory_kib(process.pid, "Pss")? / 1024.0);
            let clean = machine::memory_kib(process.pid, "Private_Clean")?;
            private.push((machine::memory_kib(process.pid, "Private_Dirty")? + clean) / 1024.0);
        }
    }
    for node in &world.names {
        for pid in world.pids(node)?.into_values() {
            // The first process is our init; the probe is its child.
            init.push(machine::memory_kib(pid, "Pss")? / 1024.0);
        }
    }
    let mut all = Samples::default();
    all.push(host);
    report.add("P14 PSS of a supervisor", "MiB", &pss, Target::max(0.5), series)?;
    report.add("P14b of that, private", "MiB", &private, Target::NONE, series)?;
    report.add("P14c PSS of a container's first process", "MiB", &init, Target::NONE, series)?;
    report.add("P14d available memory falls by, for each container", "MiB", &all, Target::NONE, series)?;
    world.delete("n1", &name)?;
    world.calm()
}
