//! `skerry demo`: the main job, shown on a real cluster on this machine, each step checked.
//!
//! `story` has the steps in their order, `look` what they check: what the kernel shows, and what the
//! replicas answer over HTTP. The story is data: it goes to stdout.
//!
//! Invariant: a step that did not hold ends the story with exit code 1, and the cluster is taken down
//! in any case but `--keep`.

mod look;
mod story;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{Error, default_dir};
use story::Story;

/// Show the main job on a real cluster of three peers on this machine
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the cluster up, and say what to try next
    #[arg(long)]
    pub keep: bool,
    /// The cluster's folder [default: /var/lib/skerry-demo as root, else ~/.local/state/skerry-demo]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// One step, as it is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRow {
    /// Counts from 1.
    pub step: usize,
    /// A word.
    pub title: String,
    /// Whether every check held.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
    /// What was seen, or which check did not hold.
    pub told: Vec<String>,
}

/// Tells the story as it goes.
struct Teller<'a> {
    json: bool,
    out: &'a mut dyn Write,
    steps: usize,
    started: Instant,
}

/// What a step saw, or which check did not hold.
type Told = Result<Vec<String>, String>;

impl Teller<'_> {
    /// Runs a step and tells of it. Whether it held.
    fn step(&mut self, title: &str, step: impl FnOnce() -> Told) -> io::Result<bool> {
        let started = Instant::now();
        let told = step();
        self.told(title, started.elapsed(), told)
    }

    /// Tells of a step that took so long.
    fn told(&mut self, title: &str, took: Duration, told: Told) -> io::Result<bool> {
        self.steps += 1;
        let row = StepRow {
            step: self.steps,
            title: title.to_owned(),
            ok: told.is_ok(),
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            told: told.unwrap_or_else(|problem| problem.lines().map(str::to_owned).collect()),
        };
        if self.json {
            serde_json::to_writer(&mut *self.out, &row)?;
            writeln!(self.out)?;
        } else {
            self.show(&row)?;
        }
        self.out.flush()?;
        Ok(row.ok)
    }

    fn show(&mut self, row: &StepRow) -> io::Result<()> {
        let mark = if row.ok { "" } else { "FAILED: " };
        for (n, line) in row.told.iter().enumerate() {
            if n == 0 {
                let (step, title, seconds) = (row.step, &row.title, row.seconds);
                writeln!(self.out, "{step:>2}  {title:<9} {seconds:>5.1} s  {mark}{line}")?;
            } else {
                writeln!(self.out, "                       {line}")?;
            }
        }
        Ok(())
    }

    /// A line that is no step.
    fn say(&mut self, line: &str) -> io::Result<()> {
        if !self.json {
            writeln!(self.out, "{line}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Tells the whole story. Returns the process's exit code: 0 only if every check held.
pub fn run(args: &DemoArgs, json: bool, out: &mut dyn Write, talk: &mut dyn Write) -> Result<u8, Error> {
    let exe = std::env::current_exe().map_err(Error::Exe)?;
    let dir = args.dir.clone().unwrap_or_else(|| default_dir("skerry-demo"));
    if dir.join(crate::marker::FILE).exists() {
        writeln!(talk, "an earlier run left its cluster in {}: it is taken down first", dir.display())?;
    }
    let mut teller = Teller { json, out, steps: 0, started: Instant::now() };
    let story = Story::begin(&exe, &dir, &mut teller)??;
    let held = story.tell(&mut teller)?;
    if args.keep {
        story.keep(&mut teller)?;
    } else {
        let clean = story.end(&mut teller)?;
        let seconds = teller.elapsed().as_secs_f64();
        if held && clean {
            teller.say(&format!(
                "every check held, in {seconds:.0} s; try it by hand: skerry dev up --nodes 3"
            ))?;
        }
        return Ok(u8::from(!(held && clean)));
    }
    Ok(u8::from(!held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: bool) -> String {
        let mut out = Vec::new();
        let mut teller = Teller { json, out: &mut out, steps: 0, started: Instant::now() };
        assert!(teller.step("cut", || Ok(vec!["n3 is alone".into(), "and goes on".into()])).unwrap());
        assert!(!teller.step("heal", || Err("7 of 8".into())).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_step_is_told_in_lines_and_one_that_did_not_hold_says_so() {
        assert_eq!(
            told(false),
            " 1  cut         0.0 s  n3 is alone\n                       and goes on\n 2  heal        0.0 s  FAILED: 7 of 8\n"
        );
    }

    #[test]
    fn for_programs_a_step_is_one_object_a_line() {
        let text = told(true);
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows[0]["title"], "cut");
        assert_eq!(rows[1]["ok"], false);
    }
}
