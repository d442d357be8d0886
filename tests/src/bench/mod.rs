//! The benches, one file for each kind, and what they share.

mod failures;
mod idle;
mod machine;
mod report;
mod sizes;
mod spread;
mod starts;
mod stats;
mod world;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use clap::Parser;

use report::Report;
use world::World;

/// Set by ^C and SIGTERM; every wait looks at it, so that the cluster is taken down and not left.
static STOP: AtomicBool = AtomicBool::new(false);

/// Fails once this process was asked to end.
fn go_on() -> Result<()> {
    if STOP.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Words for the person at the terminal, on stderr; a terminal that is gone hears nothing.
fn say(text: impl std::fmt::Display) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Measure a cluster of real peers on this machine
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// The binary to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/skerry")]
    skerry: PathBuf,
    /// Only these, separated by commas (P1,P2,P4,P6,P7,P8,P9,P10,P11,P12,P13,P14,P15,P16,P23,plan)
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    only: Vec<String>,
    /// A few runs of each, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Put the figures into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Peers of P6
    #[arg(long, default_value_t = 30)]
    peers: usize,
    /// Runs of each bench instead of its own number
    #[arg(long)]
    runs: Option<usize>,
    /// Do not wait for a quiet machine
    #[arg(long)]
    no_settle: bool,
    /// The folder of the clusters; taken down first if an earlier run was killed
    #[arg(long, default_value = "/var/lib/skerry-bench")]
    dir: PathBuf,
}

/// Everything there is.
const ALL: [&str; 16] = [
    "P1", "P2", "P4", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15", "P16", "P23", "plan",
];

impl Options {
    fn wants(&self, ids: &[&str]) -> bool {
        self.only.is_empty() || ids.iter().any(|id| self.only.iter().any(|it| it == id))
    }

    /// How many runs: `full`, or `quick` of them.
    fn runs(&self, full: usize, quick: usize) -> usize {
        self.runs.unwrap_or(if self.quick { quick } else { full })
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let options = Options::parse();
    let known: BTreeSet<&str> = ALL.into_iter().collect();
    if let Some(strange) = options.only.iter().find(|id| !known.contains(id.as_str())) {
        say(format_args!("there is no bench `{strange}`: there are {}", ALL.join(", ")));
        return ExitCode::from(2);
    }
    let listens = e2e::signals::at_end(|| {
        STOP.store(true, Ordering::Relaxed);
        say("stopping: the cluster is taken down");
    });
    if let Err(error) = listens {
        say(format_args!("signals cannot be heard: {error:#}"));
        return ExitCode::FAILURE;
    }
    let mut report = Report::new();
    let ended = measure(&options, &mut report);
    // What was measured before an error is worth showing.
    let shown = report.show();
    let written = if options.write { report.write() } else { Ok(()) };
    let mut code = ExitCode::SUCCESS;
    for error in [ended.err(), shown.err(), written.err()].into_iter().flatten() {
        say(format_args!("error: {error:#}"));
        code = ExitCode::FAILURE;
    }
    code
}

/// A bench: which figures it gives, and the work.
type Bench = (&'static [&'static str], fn(&World, &Options, &mut Report) -> Result<()>);

/// Those on one cluster of three peers, in this order: the idle ones first, on a fresh cluster.
const ON_THREE: [Bench; 9] = [
    (&["P13", "P15", "P16"], idle::peers),
    (&["P2"], starts::command_line),
    (&["P1"], starts::first_instruction),
    (&["P4"], starts::scale),
    (&["P14"], idle::supervisors),
    (&["P8"], failures::peer_killed),
    (&["P11", "P12"], failures::cut_off),
    (&["P9", "P10"], failures::heal),
    (&["P7"], failures::power_loss),
];

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    if options.wants(&["P23"]) {
        sizes::binary(options, report)?;
    }
    if options.wants(&["plan"]) {
        sizes::planning(options, report)?;
    }
    if ON_THREE.iter().any(|(ids, _)| options.wants(ids)) {
        let world = World::new(options, 3)?;
        for (ids, bench) in ON_THREE {
            if options.wants(ids) {
                go_on()?;
                say(format_args!("{} ...", ids.join(", ")));
                // One that fails (a wait that was too short) must not hide what the others find.
                if let Err(error) = bench(&world, options, report) {
                    go_on()?;
                    say(format_args!("{} failed: {error:#}", ids.join(", ")));
                    report.failed(ids, &format!("{error:#}"));
                    world.recover()?;
                }
            }
        }
        world.down()?;
    }
    if options.wants(&["P6"]) {
        go_on()?;
        say(format_args!("P6 with {} peers ...", options.peers));
        let world = World::new(options, options.peers)?;
        let ended = spread::last_peer(&world, options, report);
        world.down()?;
        ended?;
    }
    Ok(())
}
