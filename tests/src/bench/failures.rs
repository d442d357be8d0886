//! What breaks, and how long until it is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use dev::process::Process;

use super::Options;
use super::report::{Report, Series, Target};
use super::stats::Samples;
use super::world::{CALM_WAIT, POLL, World, ms, now_ns, until, until_every};

/// How long a take-over may take before a run is given up.
const TAKEOVER_WAIT: Duration = Duration::from_secs(30);

/// P7: power loss of a node, to the first instruction of what replaces its containers. Each container
/// that was lost is a sample. The node is now one that was asked for the deployment, now another.
pub(crate) fn power_loss(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let series = Series::begin(options)?;
    let [mut each, mut last] = <[Samples; 2]>::default();
    for run in 0..options.runs(14, 2) {
        let name = world.fresh("p7");
        let victim = &world.names[run % world.names.len()];
        let sent = world.create("n1", &name, 6)?;
        let marks = world.await_marks(&name, sent.at_ns, 6, TAKEOVER_WAIT)?;
        let lost: BTreeSet<u32> =
            marks.iter().filter(|mark| mark.node == *victim).map(|mark| mark.ordinal).collect();
        // Everybody knows that all are healthy (1 s), and heartbeats are at no special moment.
        std::thread::sleep(Duration::from_millis(2_000 + 137 * (run as u64 % 7)));
        let began = now_ns();
        world.cluster().kill(victim)?;
        let marks = until(TAKEOVER_WAIT, || {
            let marks = world.marks(&name, began)?;
            Ok((marks.len() >= lost.len()).then_some(marks))
        })?;
        if let Some(strange) = marks.iter().find(|mark| !lost.contains(&mark.ordinal)) {
            report.note(format!("P7 run {run}: {strange:?} was started although it was not lost"));
        }
        for mark in &marks {
            each.push(ms(began, mark.ns));
        }
        if let Some(mark) = marks.last() {
            last.push(ms(began, mark.ns));
        }
        world.cluster().start(victim)?;
        world.whole()?;
        world.delete("n1", &name)?;
        world.calm()?;
    }
    report.add(
        "P7 power loss → a replacement's first instruction",
        "ms",
        &each,
        Target::p50_p99(3_000.0, 4_000.0),
        series,
    )?;
    report.add("P7b of those, the last of each node", "ms", &last, Target::NONE, series)
}

/// P8: kill -9 of a peer, and its start. Its containers must be the same processes as before.
pub(crate) fn peer_killed(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let name = world.fresh("p8");
    let sent = world.create("n1", &name, 15)?;
    world.await_marks(&name, sent.at_ns, 15, TAKEOVER_WAIT)?;
    let series = Series::begin(options)?;
    let [mut adopted, mut restarts, mut replacements] = <[Samples; 3]>::default();
    for run in 0..options.runs(40, 3) {
        let victim = &world.names[run % world.names.len()];
        let before = until(TAKEOVER_WAIT, || {
            let pids = world.pids(victim)?;
            Ok((pids.len() == world.running(victim)?).then_some(pids))
        })?;
        let processes: Vec<Process> = before.values().filter_map(|pid| Process::find(*pid)).collect();
        let asked = now_ns();
        world.cluster().stop(victim)?;
        let began = now_ns();
        let took = std::thread::scope(|scope| {
            let cluster = world.cluster();
            let starting = scope.spawn(move || world_start(cluster, victim));
            let took = until_every(Duration::from_millis(2), TAKEOVER_WAIT, || {
                // It does not answer at first.
                let now = world.pids(victim).ok();
                Ok((now.as_ref() == Some(&before)).then(|| ms(began, now_ns())))
            });
            match starting.join() {
                Ok(started) => started.and(took),
                Err(_) => bail!("the thread that starts a peer panicked"),
            }
        })?;
        adopted.push(took);
        // Long enough for anybody to do something foolish.
        std::thread::sleep(Duration::from_millis(1_500));
        let gone = processes.iter().filter(|process| !process.is_alive()).count();
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        {
            restarts.push(gone as f64);
            replacements.push(world.marks(&name, asked)?.len() as f64);
        }
        for mark in world.marks(&name, asked)? {
            let after = ms(asked, mark.ns);
            report.note(format!("P8 run {run}, peer of {victim} killed: {mark:?} after {after:.0} ms"));
        }
    }
    report.add(
        "P8 kill -9 of a peer, started again → all adopted",
        "ms",
        &adopted,
        Target::max(500.0),
        series,
    )?;
    report.add("P8b containers that ended meanwhile", "count", &restarts, Target::max(0.0), series)?;
    report.add(
        "P8c containers that were started meanwhile",
        "count",
        &replacements,
        Target::max(0.0),
        series,
    )?;
    world.whole()?;
    world.delete("n1", &name)?;
    world.calm()
}

fn world_start(cluster: &dev::Cluster, node: &str) -> Result<()> {
    Ok(cluster.start(node)?)
}

/// P11 and P12: what a node that reaches nobody can still do.
pub(crate) fn cut_off(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let keep = world.fresh("p12");
    let sent = world.create("n1", &keep, 6)?;
    world.await_marks(&keep, sent.at_ns, 6, TAKEOVER_WAIT)?;
    world.whole()?;
    let series = Series::begin(options)?;
    let mut ack = Samples::default();
    world.cut(&[&["n1"], &["n2"], &["n3"]])?;
    for run in 0..options.runs(60, 5) {
        let name = world.fresh("p11");
        ack.push_ms(world.create("n3", &name, 0)?.ack);
        // Some before the others are declared down, most after.
        std::thread::sleep(Duration::from_millis(if run % 2 == 0 { 40 } else { 120 }));
    }
    report.add(
        "P11 HTTP request → durable ack on a node that is cut off",
        "ms",
        &ack,
        Target::max(50.0),
        series,
    )?;
    world.recover()?;

    let keep = world.fresh("p12");
    let sent = world.create("n1", &keep, 6)?;
    world.await_marks(&keep, sent.at_ns, 6, TAKEOVER_WAIT)?;
    world.whole()?;
    let series = Series::begin(options)?;
    let mut boot = Samples::default();
    for _ in 0..options.runs(10, 2) {
        world.cut(&[&["n1", "n2"], &["n3"]])?;
        let share = world.running("n3")?;
        world.cluster().kill("n3")?;
        let began = now_ns();
        world.cluster().start("n3")?;
        let marks = until(TAKEOVER_WAIT, || {
            let mut marks = world.marks(&keep, began)?;
            marks.retain(|mark| mark.node == "n3");
            Ok((marks.len() >= share).then_some(marks))
        })?;
        if share > 0 {
            boot.push(ms(began, marks[share - 1].ns));
        }
        world.cluster().heal()?;
        world.whole()?;
        until(CALM_WAIT, || Ok((world.running_everywhere()? == 6).then_some(())))?;
        // The heal's verdicts are final only once everybody has been healthy for a while.
        std::thread::sleep(Duration::from_secs(2));
    }
    report.add(
        "P12 power-on with no network → its last share runs",
        "ms",
        &boot,
        Target::max(3_000.0),
        series,
    )?;
    world.delete("n1", &keep)?;
    world.calm()
}

/// P9 and P10: both sides of a partition ran everything and changed something; then it heals.
pub(crate) fn heal(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let series = Series::begin(options)?;
    let [mut heads, mut duplicates, mut deleted] = <[Samples; 3]>::default();
    for run in 0..options.runs(10, 2) {
        let (kept, gone, aside) = (world.fresh("p9"), world.fresh("p10"), world.fresh("p9-aside"));
        let sent = world.create("n1", &kept, 3)?;
        world.create("n1", &gone, 3)?;
        world.await_marks(&kept, sent.at_ns, 3, TAKEOVER_WAIT)?;
        world.await_marks(&gone, sent.at_ns, 3, TAKEOVER_WAIT)?;
        world.whole()?;
        std::thread::sleep(Duration::from_millis(1_500));
        world.cut(&[&["n1", "n2"], &["n3"]])?;
        let on_majority = || -> Result<usize> { Ok(world.running("n1")? + world.running("n2")?) };
        until(TAKEOVER_WAIT, || Ok((on_majority()? == 6 && world.running("n3")? == 6).then_some(())))?;
        world.delete("n1", &gone)?;
        world.create("n3", &aside, 0)?;
        until(CALM_WAIT, || Ok((on_majority()? == 3).then_some(())))?;
        std::thread::sleep(Duration::from_millis(1_500 + 211 * (run as u64 % 5)));
        let began = now_ns();
        world.cluster().heal()?;
        let [mut equal, mut single, mut none] = [None; 3];
        until(CALM_WAIT, || {
            let now = |it: &mut Option<f64>| *it = it.or(Some(ms(began, now_ns())));
            if equal.is_none() && world.heads_equal()?.is_some() {
                now(&mut equal);
            }
            // Three of the deployment that stays; what was deleted must be gone, where it still ran.
            let (kept_now, gone_now) = copies(world, &kept, &gone)?;
            if gone_now == 0 {
                now(&mut none);
            }
            if kept_now == 3 {
                now(&mut single);
            } else {
                single = None;
            }
            if kept_now < 3 {
                bail!("the heal left {kept_now} copies of 3");
            }
            Ok((equal.is_some() && single.is_some() && none.is_some()).then_some(()))
        })?;
        heads.push(equal.unwrap_or(f64::INFINITY));
        duplicates.push(single.unwrap_or(f64::INFINITY));
        deleted.push(none.unwrap_or(f64::INFINITY));
        std::thread::sleep(POLL);
        world.recover()?;
    }
    report.add("P9 heal → equal heads everywhere", "ms", &heads, Target::max(1_000.0), series)?;
    report.add("P9b heal → duplicates gone", "ms", &duplicates, Target::max(3_000.0), series)?;
    report.add("P10 heal → what the other side deleted is gone", "ms", &deleted, Target::max(3_000.0), series)
}

/// How many containers of two deployments have a process anywhere, by the kernel.
fn copies(world: &World, one: &str, other: &str) -> Result<(usize, usize)> {
    let (mut ones, mut others) = (0, 0);
    for (_, deployment) in world.live()? {
        ones += usize::from(deployment == one);
        others += usize::from(deployment == other);
    }
    Ok((ones, others))
}
