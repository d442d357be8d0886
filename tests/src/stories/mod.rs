//! Random stories on real machines: the seeds of the simulator's own generator, played with real peers and
//! containers in network namespaces, and held against what the kernels show.
//!
//! A seed gives a world and steps (`sim::story::Story`), of the kinds that can be done here: deployments are
//! applied and changed by two users through any peer, links are cut, flap and lose packets, peers are killed
//! with SIGKILL and stand still by SIGSTOP, machines lose power and come back, programs die. Then the world
//! is healed, or a part of it, and must come to rest. What is done, and how long after what came before it,
//! is the seed's; how long each thing takes is the machine's, so two runs of one seed are not the same run.
//!
//! - `stage`, `packets`: the cluster, and whether the filters do what was asked.
//! - `play`: the steps are taken at their times.
//! - `users`: what is handed in, and the answers.
//! - `lives`, `words`: what the kernels run and why it was told to stop.
//! - `judge`: what must hold at every look; `ends`: what must hold in the end.
//!
//! What must hold:
//! - What is judged is what the kernels and disks show. A peer's word is only ever what is judged, or the
//!   reason why a container ended.
//! - Time is waited for, and never asserted on: deadlines are those of a busy machine.
//! - A story leaves nothing behind, and touches nothing that it did not make, however it ends. What a run
//!   that was killed itself has left, the next one takes down.

mod ends;
mod judge;
mod lives;
mod packets;
mod play;
mod stage;
mod users;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dev::Cluster;
use sim::story::{Ending, Kind, Shape, Story};

use crate::world::folder;
use play::{Play, STOP};
use stage::Stage;
use users::Users;

/// Stories at the same time, where nobody says otherwise: mostly they wait.
pub const AT_ONCE: usize = 2;

/// How one story was played to its end.
#[derive(Clone, Debug)]
pub struct Told {
    /// The story's seed.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// Steps.
    pub steps: usize,
    /// From calm until all documents were equal, and everybody found up or down.
    pub level: Duration,
    /// From calm until every wanted replica ran once.
    pub at_rest: Duration,
    /// All of it, the making of the cluster included.
    pub lasted: Duration,
    /// How often each check had something to look at.
    pub looked: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked: Vec<String> =
            self.looked.iter().map(|(check, count)| format!("{check} {count}")).collect();
        write!(
            f,
            "seed {} held: {} nodes, {} steps, level after {:.1} s of calm, at rest after {:.1} s, {:.0} s in all; {}",
            self.seed,
            self.nodes,
            self.steps,
            self.level.as_secs_f64(),
            self.at_rest.as_secs_f64(),
            self.lasted.as_secs_f64(),
            looked.join(", ")
        )
    }
}

/// What did not hold in one story, and all that is known of it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The story's seed.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// The steps, as drawn.
    pub steps: Vec<String>,
    /// What happened, with the times of this run.
    pub trace: Vec<String>,
    /// What the kernel and the peer of each machine showed then.
    pub shown: Vec<(String, String)>,
    /// Where this and the logs of the peers are kept.
    pub kept: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(f, "--- {} steps, with the times of the story", self.steps.len())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        writeln!(f, "--- trace, with the times of this run")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for (node, words) in &self.shown {
            writeln!(f, "--- {node}: {words}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "--- the logs of the peers are kept in {}", kept.display())?;
        }
        writeln!(f, "again: target/release/stories --from {} --stories 1", self.seed)
    }
}

impl std::error::Error for Failure {}

/// The story of a seed, of what real machines can do.
pub fn draw(seed: u64) -> Story {
    Story::draw_among(seed, None, |kind| Kind::REAL.contains(&kind))
}

/// Plays the story of a seed. Needs root.
///
/// # Errors
/// What did not hold, or what could not be done.
pub fn play(seed: u64) -> Result<Told, Box<Failure>> {
    let story = draw(seed);
    let began = Instant::now();
    let nothing_known = |error: &anyhow::Error| Failure {
        seed,
        what: format!("{error:#}"),
        steps: story.steps_in_words(),
        trace: Vec::new(),
        shown: Vec::new(),
        kept: None,
    };
    let folder = folder();
    let dir = folder.path().join("c");
    let mut play = set_up(&dir, &story).map_err(|error| Box::new(nothing_known(&error)))?;
    let bystander = Bystander::beside(&play.stage.cluster);
    let words = format!("seed {seed}: {} nodes, {}", story.nodes, ending(&story.ending));
    play.stage.tell(words);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        play.steps(&story)?;
        play.ends(&story.ending)
    }));
    let ended = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Err(anyhow::anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    let mut failure = ended.as_ref().err().map(|error| {
        let known = Failure { trace: play.stage.trace.clone(), ..nothing_known(error) };
        let shown = if STOP.load(Ordering::Relaxed) { Vec::new() } else { play.show() };
        let mut failure = Box::new(Failure { shown, ..known });
        keep(&mut failure, &play.stage);
        failure
    });
    let (looked, trace) = (play.judge.looked.clone(), play.stage.trace.clone());
    let left = play.stage.down().and_then(|left| bystander?.judge(left));
    if let Err(error) = left {
        let after = || Box::new(Failure { trace, ..nothing_known(&error) });
        // What came first is the one that counts.
        failure = failure.or_else(|| Some(after()));
    }
    match (failure, ended) {
        (None, Ok(took)) => {
            let (nodes, steps) = (story.nodes, story.steps.len());
            let ends::Took { level, at_rest } = took;
            Ok(Told { seed, nodes, steps, level, at_rest, lasted: began.elapsed(), looked })
        }
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(Box::new(nothing_known(&error))),
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Calm => "in the end all is healed".to_owned(),
        Ending::Core(core, outside, shape) => {
            let between = if *shape == Shape::Line { "-" } else { ", " };
            let core: Vec<String> = core.iter().map(|host| format!("n{}", host + 1)).collect();
            let outside: Vec<String> =
                outside.iter().map(|(host, how)| format!("n{} {how:?}", host + 1)).collect();
            format!("in the end {} are healed; for good: {}", core.join(between), outside.join(", "))
        }
    }
}

/// A cluster with its users, taken down where it cannot be completed.
fn set_up(dir: &Path, story: &Story) -> Result<Play> {
    let (stage, digest) = Stage::up(dir, story.nodes, story.settings.capacity.clone())?;
    match Users::new(&stage, &digest, story.seed) {
        Ok(users) => Ok(Play::new(stage, users)),
        Err(error) => {
            // The first error is the one that counts.
            stage.down().ok();
            Err(error)
        }
    }
}

/// Writes down what is known of a failure, with the peers' logs, in a folder that stays.
fn keep(failure: &mut Failure, stage: &Stage) {
    let dir = std::env::temp_dir().join(format!("skerry-story-{}-{}", failure.seed, std::process::id()));
    let kept = fs::create_dir_all(&dir).and_then(|()| {
        for machine in &stage.machines {
            fs::copy(stage.cluster.log(&machine.name), dir.join(format!("{}.log", machine.name)))?;
        }
        fs::write(dir.join("story.txt"), failure.to_string())
    });
    // Where it cannot be kept, it is told all the same.
    failure.kept = kept.is_ok().then_some(dir);
}

/// A process of somebody else's, in the network of the first node: nothing of ours, and not to be touched.
struct Bystander(Child);

impl Bystander {
    /// It waits for words that never come, and ends when this process does.
    fn beside(cluster: &Cluster) -> Result<Self> {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let netns = cluster.node("n1")?.netns_path;
        Ok(Self(network::spawn_in(&netns, &mut command).context("a bystander cannot be started")?))
    }

    /// S11: it was not touched, and it is all that is left.
    fn judge(mut self, left: Vec<String>) -> Result<()> {
        let itself = format!("process {} in its network", self.0.id());
        let left: Vec<String> = left.into_iter().filter(|it| *it != itself).collect();
        if let Some(status) = self.0.try_wait()? {
            bail!("S11: a process that is not the cluster's was ended: {status}");
        }
        if !left.is_empty() {
            bail!("S11: this is left of the cluster: {left:?}");
        }
        Ok(())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to end.
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

/// How much is played.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The first seed.
    pub from: u64,
    /// So many stories.
    pub stories: u64,
    /// None is begun after this.
    pub within: Duration,
    /// So many at the same time.
    pub at_once: usize,
    /// Whether those behind a failure are played as well.
    pub keep_going: bool,
}

/// Plays story after story, and tells each as it ends; the failures, by seed.
pub fn play_all(budget: &Budget, tell: impl Fn(&str) + Sync) -> Vec<Failure> {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let failures = Mutex::new(Vec::new());
    let share = || loop {
        let goes_on = began.elapsed() < budget.within && !over.load(Ordering::Relaxed);
        let at = next.fetch_add(1, Ordering::Relaxed);
        if !goes_on || STOP.load(Ordering::Relaxed) || at >= budget.stories {
            return;
        }
        match play(budget.from + at) {
            Ok(told) => tell(&told.to_string()),
            Err(failure) => {
                tell(&failure.to_string());
                over.fetch_or(!budget.keep_going, Ordering::Relaxed);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(*failure);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..budget.at_once {
            scope.spawn(share);
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    failures
}

/// A span as people write it: `90s`, `10m`, `2h`.
///
/// # Errors
/// What was written, where it is none.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time like 90s, 10m or 2h");
    let (number, seconds) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Lets every story under way end at its next look, and take its cluster down. For ^C.
pub fn stop() {
    STOP.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_for_real_machines_has_only_steps_that_they_can_take_and_is_the_same_each_time() {
        use sim::story::Action;
        for seed in 0..300 {
            let story = draw(seed);
            assert_eq!(story.steps_in_words(), draw(seed).steps_in_words());
            for step in &story.steps {
                let can = !matches!(
                    step.action,
                    Action::DiskFull(..)
                        | Action::Oom(_)
                        | Action::Join(_)
                        | Action::Leave(_)
                        | Action::Remove(..)
                        | Action::Clog(..)
                        | Action::DieAfter(..)
                        | Action::Room(..)
                        | Action::BackUp(_)
                        | Action::Restore(_)
                        | Action::Clone(_)
                        | Action::StepClock(..)
                        | Action::Drift(..)
                        | Action::StopClock(..)
                        | Action::NoPids(..)
                        | Action::SlowStarts(..)
                        | Action::Press(..)
                );
                assert!(can, "seed {seed}: {:?}", step.action);
            }
        }
    }

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "5", "m", "-1s", "1d", "99999999999999999999h", "9999999999999999h"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
