//! From a wish to a running program, in a cluster that is whole.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Options;
use super::report::{Report, Series, Target};
use super::stats::Samples;
use super::world::{CALM_WAIT, World, ms, now_ns, until_every};

/// How long one start may take before a run is given up.
const START_WAIT: Duration = Duration::from_secs(20);

/// P1: submit at one peer, first instruction on another. Which node is chosen is the planner's
/// affair; runs where it chose the node that was asked are told apart.
pub(crate) fn first_instruction(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let series = Series::begin(options)?;
    let (mut other, mut same, mut ack) = (Samples::default(), Samples::default(), Samples::default());
    let (wanted, mut run) = (options.runs(60, 6), 0);
    while other.len() < wanted {
        let at = &world.names[run % world.names.len()];
        run += 1;
        let name = world.fresh("p1");
        let sent = world.create(at, &name, 1)?;
        let mark = &world.await_marks(&name, sent.at_ns, 1, START_WAIT)?[0];
        ack.push_ms(sent.ack);
        if mark.node == *at { &mut same } else { &mut other }.push(ms(sent.at_ns, mark.ns));
        world.delete(at, &name)?;
        world.calm()?;
    }
    report.add(
        "P1 submit → first instruction on another node",
        "ms",
        &other,
        Target::p50_p99(50.0, 100.0),
        series,
    )?;
    report.add("P1b submit → first instruction on the same node", "ms", &same, Target::NONE, series)?;
    report.add("P2b HTTP request → durable ack, socket", "ms", &ack, Target::NONE, series)
}

/// P2: a command as a person types it, from the start of its process to its end. It changes a label,
/// which no container has to be replaced for.
pub(crate) fn command_line(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let name = world.fresh("p2");
    world.create("n1", &name, 1)?;
    let scratch = tempfile::tempdir()?;
    let manifest = scratch.path().join("app.yaml");
    let series = Series::begin(options)?;
    let (mut apply, mut version) = (Samples::default(), Samples::default());
    for run in 0..options.runs(60, 5) {
        let text = format!(
            "deployments:\n  - name: {name}\n    image: mark:1\n    replicas: 1\n    labels: {{run: \"{run}\"}}\n    \
             resources: {{cpu: 50m, memory: 16Mi, pids: 8}}\n"
        );
        std::fs::write(&manifest, text)?;
        let command = |args: &[&str]| {
            let mut command = Command::new(world.cluster().exe());
            command
                .args(args)
                .env("SKERRY_PEER", format!("unix:{}", world.cluster().socket("n1").display()))
                .env("SKERRY_KEY", world.cluster().dir().join("user.key"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command
        };
        let file = manifest.display().to_string();
        for (args, samples) in
            [(&["apply", "-y", "--detach", "-f", &file][..], &mut apply), (&["version"][..], &mut version)]
        {
            let mut command = command(args);
            let began = Instant::now();
            let output = command.output()?;
            samples.push_ms(began.elapsed());
            if !output.status.success() {
                bail!(
                    "`skerry {}` failed: {}",
                    args.join(" "),
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
        }
    }
    world.delete("n1", &name)?;
    world.calm()?;
    report.add("P2 `skerry apply --detach` → ended, durable", "ms", &apply, Target::p50(15.0), series)?;
    report.add(
        "P2c of that, a process that only starts (`skerry version`)",
        "ms",
        &version,
        Target::NONE,
        series,
    )
}

/// P4: one deployment from 1 to 50 replicas on three nodes, and all of them stopped.
pub(crate) fn scale(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    const COUNT: usize = 50;
    let series = Series::begin(options)?;
    let [mut first, mut last, mut stop, mut gone] = <[Samples; 4]>::default();
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..options.runs(20, 2) {
        let name = world.fresh("p4");
        let sent = world.create("n1", &name, 1)?;
        world.await_marks(&name, sent.at_ns, 1, START_WAIT)?;
        let sent = world.scale("n1", &name, u32::try_from(COUNT)?)?;
        // Rarely: two cores have enough to do.
        let marks = until_every(Duration::from_millis(50), START_WAIT, || {
            let marks = world.marks(&name, sent.at_ns)?;
            Ok((marks.len() >= COUNT - 1).then_some(marks))
        })?;
        first.push(ms(sent.at_ns, marks[0].ns));
        last.push(ms(sent.at_ns, marks[COUNT - 2].ns));
        for mark in &marks {
            *spread.entry(mark.node.clone()).or_default() += 1;
        }
        // Their peers have said that they run, and the machine rests.
        std::thread::sleep(Duration::from_secs(1));
        let sent = world.delete("n1", &name)?;
        until_every(Duration::from_millis(10), CALM_WAIT, || {
            Ok((world.running_everywhere()? == 0).then_some(()))
        })?;
        stop.push(ms(sent.at_ns, now_ns()));
        world.calm()?;
        gone.push(ms(sent.at_ns, now_ns()));
    }
    report.add(
        "P4 scale 1 → 50 on 3 nodes, last first instruction",
        "ms",
        &last,
        Target::p50(600.0),
        series,
    )?;
    report.add("P4b of that, the first", "ms", &first, Target::NONE, series)?;
    report.add("P4c stop 50: no process left", "ms", &stop, Target::p50(800.0), series)?;
    report.add("P4d stop 50: no cgroup, mount or file left", "ms", &gone, Target::NONE, series)?;
    report.note(format!("P4 placed, in all runs, besides the first of each: {spread:?}"));
    Ok(())
}
