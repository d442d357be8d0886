//! `sim run`: a scenario as it is written, or under many seeds; or random stories.

use std::io::Read;
use std::time::Duration;

use sim::scenario::{Act, ReadError, Scenario};
use sim::story::Story;

use super::ls;
use super::many::{self, All, FAILURES_KEPT_MAX, JOBS_MAX, One, SEEDS_MAX};
use crate::Context;
use crate::error::{CliError, Exit};
use crate::manifest::{self, Place, Problem, Source};
use crate::shapes::sim::{SimExpectation, SimFailure, SimRun};

/// Bytes of a scenario file: a hundred times the longest that ships.
const SCENARIO_BYTES_MAX: u64 = 1 << 20;

/// Run a scenario, once or under many seeds, or random stories
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// A scenario of `sim ls`, or a file that ends in .toml
    #[arg(required_unless_present = "random", conflicts_with = "random")]
    scenario: Option<String>,
    /// Run so many random stories instead
    #[arg(long, value_name = "N", value_parser = parse_count)]
    random: Option<u64>,
    /// Run the scenario under so many seeds
    #[arg(long, value_name = "N", conflicts_with = "random", value_parser = parse_count)]
    seeds: Option<u64>,
    /// The first seed [default: the scenario's own; 0 for random stories]
    #[arg(long, value_name = "SEED", value_parser = parse_seed)]
    from: Option<u64>,
    /// Seeds that are run at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = parse_jobs)]
    jobs: Option<u16>,
}

/// Reads a seed.
pub(super) fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a seed is a whole number, 0 to {}", u64::MAX))
}

/// Reads how many seeds are run.
fn parse_count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| (1..=SEEDS_MAX).contains(count));
    count.ok_or_else(|| format!("write how many seeds, 1 to {SEEDS_MAX}"))
}

/// Reads how many seeds are run at the same time.
fn parse_jobs(text: &str) -> Result<u16, String> {
    let count = text.parse().ok().filter(|count| (1..=JOBS_MAX).contains(count));
    count.ok_or_else(|| format!("write how many at the same time, 1 to {JOBS_MAX}"))
}

impl RunArgs {
    fn jobs(&self, count: u64) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or(processors, usize::from);
        jobs.min(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// How one command line runs seeds, and what they are called in it.
struct Work<'a> {
    /// As it was named; `None` for random stories.
    scenario: Option<&'a str>,
    from: u64,
    count: u64,
}

impl Work<'_> {
    /// The command that shows one seed again.
    fn replay(&self, seed: u64) -> String {
        match self.scenario {
            Some(name) => format!("skerry sim run {name} --from {seed}"),
            None => format!("skerry sim seed {seed}"),
        }
    }

    fn answer(&self, all: &All) -> SimRun {
        let failure = |(seed, (at, what)): (&u64, &(Option<String>, String))| SimFailure {
            seed: *seed,
            at: at.clone(),
            what: what.clone(),
            replay: self.replay(*seed),
        };
        SimRun {
            scenario: self.scenario.map(str::to_owned),
            from: self.from,
            seeds: all.done,
            held: all.done - all.failed,
            failures: all.failures.iter().map(failure).collect(),
            node_hours: all.node_time.as_secs_f64() / 3_600.0,
            took_s: all.took.as_secs_f64(),
            transcript: Vec::new(),
            expectations: Vec::new(),
        }
    }
}

pub(crate) fn run(args: &RunArgs, context: &Context) -> Result<(), CliError> {
    let Some(name) = &args.scenario else {
        let (from, count) = (args.from.unwrap_or(0), args.random.unwrap_or(1));
        return many(args, context, &Work { scenario: None, from, count }, |seed| {
            let story = Story::draw(seed);
            let told = story.tell();
            One {
                failed: told.ended.err().map(|what| (None, what)),
                node_time: told.lasted * nodes(told.machines),
            }
        });
    };
    let scenario = find(name)?;
    let from = args.from.unwrap_or(scenario.seed);
    let Some(count) = args.seeds else { return once(context, name, &Scenario { seed: from, ..scenario }) };
    many(args, context, &Work { scenario: Some(name), from, count }, |seed| {
        let scenario = Scenario { seed, ..scenario.clone() };
        let (failed, lasted) = match scenario.run() {
            Ok(transcript) => (None, transcript.lasted),
            Err(error) => (
                Some((Some(format!("{}:{}", error.file, error.line)), error.problem)),
                error.transcript.lasted,
            ),
        };
        One { failed, node_time: lasted * nodes(scenario.nodes) }
    })
}

fn nodes(count: usize) -> u32 {
    u32::try_from(count).expect("a simulated cluster is bounded by its roster")
}

/// The scenario that ships by that name, or that lies in that file.
fn find(name: &str) -> Result<Scenario, CliError> {
    let is_file = name.contains('/')
        || std::path::Path::new(name).extension().is_some_and(|it| it.eq_ignore_ascii_case("toml"));
    if !is_file {
        return ls::shipped(name).ok_or_else(|| {
            let error = CliError::usage(format!("there is no scenario `{name}`"));
            match ls::meant(name) {
                Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                None => error.hint("`skerry sim ls` lists those that ship; a file of yours ends in .toml"),
            }
        });
    }
    let source = read_file(name)?;
    Scenario::read(name, &source.text).map_err(|error| not_read(&source, error))
}

fn read_file(name: &str) -> Result<Source, CliError> {
    let cannot = |why: String| CliError::usage(format!("{name} cannot be read")).because(why);
    let file = std::fs::File::open(name).map_err(|error| cannot(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(SCENARIO_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > SCENARIO_BYTES_MAX {
        return Err(cannot(format!("it is larger than {SCENARIO_BYTES_MAX} bytes (1 MiB)"))
            .hint("is it a scenario? Those in `simulations/` have some kilobytes"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        cannot(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
            .hint("a scenario is TOML in UTF-8")
    })?;
    Ok(Source { name: name.to_owned(), text })
}

fn not_read(source: &Source, error: ReadError) -> CliError {
    let place = Place { line: error.line, column: error.column, width: 1 };
    let problem = Problem { place, message: error.problem, hint: error.hint };
    let mut error = manifest::error(source, vec![problem]);
    "scenario".clone_into(&mut error.word);
    error.exit(Exit::Usage)
}

/// One seed of a scenario, with all that happened.
fn once(context: &Context, name: &str, scenario: &Scenario) -> Result<(), CliError> {
    let begin = std::time::Instant::now();
    let ended = scenario.run();
    let mut all = All { done: 1, took: begin.elapsed(), ..All::default() };
    let (transcript, stopped_at) = match &ended {
        Ok(transcript) => (transcript, None),
        Err(error) => {
            all.failed = 1;
            let at = format!("{}:{}", error.file, error.line);
            all.failures.insert(scenario.seed, (Some(at), error.problem.clone()));
            (&error.transcript, Some(error.line))
        }
    };
    all.node_time = transcript.lasted * nodes(scenario.nodes);
    let expectations: Vec<SimExpectation> = scenario
        .steps
        .iter()
        .filter_map(|step| match &step.act {
            Act::Expect(it) => Some(SimExpectation {
                line: step.line,
                condition: it.condition.to_string(),
                held: match stopped_at {
                    Some(at) if step.line > at => None,
                    Some(at) => Some(step.line != at),
                    None => Some(true),
                },
            }),
            _ => None,
        })
        .collect();
    let out = &context.out;
    if out.structured() {
        let work = Work { scenario: Some(name), from: scenario.seed, count: 1 };
        let transcript = transcript.text.lines().map(str::to_owned).collect();
        out.value(&SimRun { transcript, expectations, ..work.answer(&all) })?;
    } else {
        out.line(transcript.text.trim_end())?;
        out.line("\nExpected")?;
        for it in &expectations {
            let word = match it.held {
                Some(true) => "held    ",
                Some(false) => "FAILED  ",
                None => "not seen",
            };
            out.line(format!("{word} line {:>3}: {}", it.line, it.condition))?;
        }
        out.say(format!(
            "{} of virtual time in {}",
            crate::out::span(transcript.lasted.as_secs()),
            milliseconds(all.took)
        ))?;
    }
    ended.map(|_| ()).map_err(|error| {
        CliError::new("not-held", format!("{name} does not hold with seed {}", scenario.seed))
            .at(format!("{}:{}", error.file, error.line))
            .because(error.problem)
    })
}

fn milliseconds(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

fn many(
    args: &RunArgs,
    context: &Context,
    work: &Work<'_>,
    one: impl Fn(u64) -> One + Sync,
) -> Result<(), CliError> {
    if work.from.checked_add(work.count - 1).is_none() {
        return Err(CliError::usage(format!("there are no {} seeds from {} on", work.count, work.from))
            .hint(format!("the last seed is {}", u64::MAX)));
    }
    let out = &context.out;
    let all = many::run(out, (work.from, work.count), args.jobs(work.count), one);
    let answer = work.answer(&all);
    if out.structured() {
        out.value(&answer)?;
    } else {
        let of = work.scenario.unwrap_or("random stories");
        out.line(format!("{of}: {} seeds from {} on, {} held", all.done, work.from, answer.held))?;
        for it in &answer.failures {
            let at = it.at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
            out.line(format!("seed {}: {at}{}", it.seed, it.what))?;
            out.line(format!("  again: {}", it.replay))?;
        }
        if all.failed > FAILURES_KEPT_MAX as u64 {
            out.line(format!("and {} more", all.failed - FAILURES_KEPT_MAX as u64))?;
        }
        out.say(all.rate())?;
    }
    match answer.failures.first() {
        None => Ok(()),
        Some(first) => {
            Err(CliError::new("not-held", format!("{} of {} seeds do not hold", all.failed, all.done))
                .hint(format!("`{}` shows the first again", first.replay)))
        }
    }
}
