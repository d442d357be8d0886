//! `sim seed`: the random story of one seed, told; and made small where something did not hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use sim::scenario::Scenario;
use sim::story::{Ending, Shape, Story, kind_of};

use super::run::parse_seed;
use crate::Context;
use crate::error::CliError;
use crate::out::span;
use crate::shapes::sim::SimSeed;

/// Tell the random story of one seed
#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// The seed
    #[arg(value_parser = parse_seed)]
    seed: u64,
    /// Where something does not hold, leave out what that does not need, and print a scenario file
    #[arg(long)]
    shrink: bool,
    /// Write what happened into a file instead of to stdout
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// How a story ended, a panic included.
struct Ended {
    failed: Option<String>,
    trace: Vec<String>,
    lasted_s: u64,
}

fn tell(story: &Story) -> Ended {
    match catch_unwind(AssertUnwindSafe(|| story.tell())) {
        Ok(told) => Ended { failed: told.ended.err(), trace: told.trace, lasted_s: told.lasted.as_secs() },
        Err(panic) => {
            Ended { failed: Some(super::many::words(panic.as_ref())), trace: Vec::new(), lasted_s: 0 }
        }
    }
}

pub(crate) fn run(args: &SeedArgs, context: &Context) -> Result<(), CliError> {
    let story = Story::draw(args.seed);
    replay(args, context, story)
}

fn replay(args: &SeedArgs, context: &Context, mut story: Story) -> Result<(), CliError> {
    let out = &context.out;
    let mut ended = tell(&story);
    let mut scenario = None;
    if let (true, Some(what)) = (args.shrink, ended.failed.clone()) {
        let before = story.steps.len();
        out.say(format!("{what}\nshrinking {before} steps"))?;
        let kind = kind_of(&what);
        story = story.shrink_while(|story| tell(story).failed.is_some_and(|what| kind_of(&what) == kind));
        ended = tell(&story);
        out.say(format!("{} of {before} steps are needed", story.steps.len()))?;
        scenario = Some(story.scenario(ended.failed.as_deref().unwrap_or(&what)));
    }
    let answer = SimSeed {
        seed: story.seed,
        nodes: story.nodes,
        steps: story.steps_in_words(),
        trace: if args.trace.is_some() { Vec::new() } else { ended.trace.clone() },
        failed: ended.failed.clone(),
        scenario,
    };
    if let Some(path) = &args.trace {
        write_trace(path, &ended.trace)?;
    }
    if out.structured() {
        out.value(&answer)?;
    } else if let Some(text) = &answer.scenario {
        // Alone on stdout, so that it can be kept as it is.
        out.line(text.trim_end())?;
        out.say(as_scenario(text))?;
    } else {
        out.line(world(&story))?;
        story.work_in_words().iter().try_for_each(|line| out.line(line))?;
        out.line(format!("\n{} steps", answer.steps.len()))?;
        answer.steps.iter().try_for_each(|step| out.line(step))?;
        if args.trace.is_none() {
            out.line("\nTrace")?;
            answer.trace.iter().try_for_each(|line| out.line(line))?;
        }
        out.line("")?;
        let end = match &answer.failed {
            None => format!("seed {} holds; {} of virtual time", story.seed, span(ended.lasted_s)),
            Some(what) => format!("seed {} does not hold: {what}", story.seed),
        };
        out.line(end)?;
    }
    match answer.failed {
        None if args.shrink => out.say("there is nothing to shrink"),
        None => Ok(()),
        Some(what) => {
            let error = CliError::new("not-held", format!("seed {} does not hold", story.seed)).because(what);
            Err(if args.shrink {
                error
            } else {
                error.hint(format!("`skerry sim seed {} --shrink` finds the steps that matter", story.seed))
            })
        }
    }
}

/// The world of a story in a few lines.
fn world(story: &Story) -> String {
    let it = &story.settings;
    let odds = &it.odds;
    let skewed = story.skews_ms.iter().filter(|skew| **skew != 0).count();
    format!(
        "Seed {}: {} nodes, each {}m cpu and {} MiB; {skewed} of the clocks are off\n\
         messages take {:?} to {:?}, {} of 1000 datagrams are lost; a sync takes {:?}\n\
         a container starts in {:?}, stops in {:?} to {:?}, {} of 1000 starts fail\n\
         datagrams: {} of 1000 late by up to {:?}, {} twice; links: {}; syncs: {} of 1000 take a second, \
         {} of 100000 fail\n\
         {} of 1000 programs do not end when asked{}; {}",
        story.seed,
        story.nodes,
        it.capacity.cpu_m,
        it.capacity.memory_b >> 20,
        it.latency.0,
        it.latency.1,
        it.loss,
        it.sync,
        it.start,
        it.stop.0,
        it.stop.1,
        it.start_failures,
        odds.late,
        odds.late_by,
        odds.twice,
        if odds.bytes_per_s == 0 {
            "without bound".to_owned()
        } else {
            format!("{} bytes/s", odds.bytes_per_s)
        },
        odds.slow_syncs,
        odds.failed_syncs,
        odds.deaf,
        story.rogue.map_or_else(String::new, |host| format!("; n{} is a rogue", host + 1)),
        ending(&story.ending),
    )
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Calm => "in the end all is healed".to_owned(),
        Ending::Core(core, outside, shape) => {
            let mut parts: Vec<String> =
                outside.iter().map(|(host, how)| format!("n{} is {how:?}", host + 1)).collect();
            if *shape == Shape::Line {
                let line: Vec<String> = core.iter().map(|host| format!("n{}", host + 1)).collect();
                parts.push(format!("{} reach their neighbours only", line.join(" - ")));
            }
            format!("in the end {} for good", parts.join(", "))
        }
    }
}

/// Whether the file shows what the story did: not all of a story's world has a key in a scenario.
fn as_scenario(text: &str) -> String {
    let ended = Scenario::read("scenario", text).map(|scenario| scenario.run());
    match ended {
        Ok(Err(error)) => format!("as a scenario it fails at line {}: {}", error.line, error.problem),
        Ok(Ok(_)) => "as a scenario it holds: what fails needs what is in its comments alone".to_owned(),
        Err(error) => format!("as a scenario it cannot be read: {error}"),
    }
}

fn write_trace(path: &Path, trace: &[String]) -> Result<(), CliError> {
    let mut text = trace.join("\n");
    text.push('\n');
    std::fs::write(path, text).map_err(|error| {
        CliError::new("trace", format!("{} cannot be written", path.display())).because(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::out::Out;
    use clap::Parser;

    /// The arguments of a command line, and a context that keeps what is written.
    fn asked(line: &str) -> (SeedArgs, Context, crate::out::Captured) {
        let cli = Cli::parse_from(line.split(' '));
        let Command::Sim(super::super::SimCommand::Seed(args)) = cli.command else { panic!("{line}") };
        let (mut out, captured) = Out::captured();
        out.format = cli.globals.output;
        (args, Context { globals: cli.globals, out }, captured)
    }

    /// A story in which duplicates stay for ever.
    fn unsound() -> Story {
        let fails = |seed: &u64| {
            let mut story = Story::draw(*seed);
            story.settings.sabotage = model::Sabotages::NONE.with(model::Sabotage::NoDuplicateResolution);
            story.run().is_err()
        };
        let seed = (0..20).find(fails).expect("one of twenty stories has duplicates");
        let mut story = Story::draw(seed);
        story.settings.sabotage = model::Sabotages::NONE.with(model::Sabotage::NoDuplicateResolution);
        story
    }

    #[test]
    fn a_story_that_does_not_hold_is_told_and_ends_with_1() {
        let story = unsound();
        let (args, context, captured) = asked(&format!("skerry sim seed {}", story.seed));
        let error = replay(&args, &context, story.clone()).unwrap_err();
        assert_eq!(error.exit.code(), 1);
        assert!(error.hint.as_ref().unwrap().contains("--shrink"), "{error}");
        let stdout = captured.stdout();
        for part in [
            format!("Seed {}: {} nodes", story.seed, story.nodes),
            format!("{} steps", story.steps.len()),
            "Trace".to_owned(),
            " n1 starts".to_owned(),
            format!("seed {} does not hold: ", story.seed),
        ] {
            assert!(stdout.contains(&part), "{part} is not in\n{stdout}");
        }
    }

    #[test]
    fn a_shrunk_story_is_a_scenario_file_with_fewer_steps() {
        let story = unsound();
        let (args, context, captured) = asked(&format!("skerry sim seed {} --shrink", story.seed));
        assert_eq!(replay(&args, &context, story.clone()).unwrap_err().exit.code(), 1);
        let read = Scenario::read("x.toml", &captured.stdout()).unwrap();
        assert!(read.steps.len() < story.steps.len(), "{}", captured.stdout());
        assert!(captured.stderr().contains("steps are needed"), "{}", captured.stderr());
        assert!(captured.stderr().contains("as a scenario it "), "{}", captured.stderr());
    }

    #[test]
    fn a_trace_goes_into_a_file_where_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.txt");
        let (args, context, captured) = asked(&format!("skerry sim seed 1 --trace {}", path.display()));
        run(&args, &context).unwrap();
        let trace = std::fs::read_to_string(path).unwrap();
        assert!(trace.contains(" calm for n1, ") && trace.contains(" at rest\n"), "{trace}");
        assert!(!captured.stdout().contains("Trace"), "{}", captured.stdout());
        assert!(captured.stdout().contains("seed 1 holds"), "{}", captured.stdout());
    }
}
