//! Random stories on real peers, for as long as somebody likes: docs/simulation.md.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::signals;
use e2e::stories::{self, AT_ONCE, Budget};

/// Play random stories with real peers and containers on this machine
#[derive(Debug, Parser)]
#[command(name = "stories")]
struct Options {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX)]
    stories: u64,
    /// None is begun after this
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = stories::span)]
    within: Duration,
    /// How many at the same time
    #[arg(long, value_name = "COUNT", default_value_t = AT_ONCE)]
    jobs: usize,
    /// Play on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Print the steps of the first seed, and play nothing
    #[arg(long)]
    steps: bool,
}

/// Words for the person at the terminal; one that is gone hears nothing.
fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

fn main() -> ExitCode {
    let Options { from, stories, within, jobs, keep_going, steps } = Options::parse();
    if steps {
        let story = stories::draw(from);
        let settings = &story.settings;
        say(&format!("seed {from}: {} nodes, {:?} each, {:?}", story.nodes, settings.capacity, story.ending));
        say(&format!("{} of 1000 packets are lost", settings.loss));
        story.steps_in_words().iter().for_each(|step| say(step));
        return ExitCode::SUCCESS;
    }
    let listens = signals::at_end(|| {
        stories::stop();
        say("stopping: the clusters are taken down");
    });
    if let Err(error) = listens {
        say(&format!("signals cannot be heard: {error}"));
        return ExitCode::FAILURE;
    }
    let budget = Budget { from, stories, within, at_once: jobs, keep_going };
    let failures = stories::play_all(&budget, say);
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    let seeds: Vec<String> = failures.iter().map(|failure| failure.seed.to_string()).collect();
    say(&format!("did not hold: {}", seeds.join(", ")));
    ExitCode::FAILURE
}
