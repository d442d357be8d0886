//! A story is played: its steps are taken at their times, and everything is looked at between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use model::Time;
use sim::User;
use sim::story::{Action, Bad, Cuts, Story};

use super::judge::Judge;
use super::stage::{Stage, State};
use super::users::{Answer, Outcome, Users, Wish};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(200);

/// How long a peer may stand still: the simulator's may do so for an hour.
const STILL_MAX: Duration = Duration::from_secs(20);

/// Shortest time for which a link is cut or whole while it flaps: setting the filters takes some of it.
const HALF_MIN: Duration = Duration::from_millis(100);

/// How long nothing is done where nothing is due.
const IDLE: Duration = Duration::from_millis(5);

/// Set by ^C and SIGTERM; every wait looks at it, so that the cluster is taken down and not left.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);

/// An event that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Acked {
    /// Through which machine.
    pub(super) host: usize,
    /// Its id.
    pub(super) event: String,
    /// On how many disks, by the answer.
    pub(super) durable_on: u32,
}

/// Something that the story has set off.
#[derive(Clone, Debug)]
enum Due {
    /// A peer that stands still goes on, if it lives that life.
    GoesOn { host: usize, life: u64 },
    /// Ways that come and go do so.
    Flips { ways: BTreeSet<(usize, usize)>, half: Duration, until: Time, down: bool },
}

/// A story under way.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) stage: Stage,
    pub(super) judge: Judge,
    pub(super) users: Users,
    pub(super) acked: Vec<Acked>,
    due: BTreeMap<(Time, u64), Due>,
    count: u64,
    looked_at: Time,
}

impl Play {
    pub(super) fn new(stage: Stage, users: Users) -> Self {
        Self {
            stage,
            judge: Judge::default(),
            users,
            acked: Vec::new(),
            due: BTreeMap::new(),
            count: 0,
            looked_at: Time::ZERO,
        }
    }

    /// Takes all steps. Ends at the first thing that does not hold.
    pub(super) fn steps(&mut self, story: &Story) -> Result<()> {
        self.stage.lose(story.settings.loss)?;
        let words = story.steps_in_words();
        for (step, words) in story.steps.iter().zip(&words) {
            self.wait(step.after)?;
            // The words begin with the time of the story, and the trace with that of this run.
            self.stage.tell(words.trim_start().split_once(' ').map_or("", |(_, words)| words));
            self.take(&step.action)?;
        }
        Ok(())
    }

    /// Lets time pass, and looks.
    pub(super) fn wait(&mut self, span: Duration) -> Result<()> {
        let until = self.stage.now() + span;
        loop {
            self.once()?;
            let now = self.stage.now();
            if now >= until {
                return Ok(());
            }
            let next = self.due.keys().next().map_or(until, |(at, _)| *at).min(until);
            std::thread::sleep(next.since(now).min(IDLE));
        }
    }

    /// Looks until something holds; what was seen instead where it does not in time.
    pub(super) fn until<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Result<T, String>> {
        let until = self.stage.now() + limit;
        loop {
            self.wait(Duration::ZERO)?;
            match look(self) {
                Ok(found) => return Ok(Ok(found)),
                Err(seen) if self.stage.now() >= until => return Ok(Err(seen)),
                Err(_) => self.wait(LOOK)?,
            }
        }
    }

    /// What is due, and a look if it is time for one.
    fn once(&mut self) -> Result<()> {
        if STOP.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let now = self.stage.now();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let due = entry.remove();
            self.happens(due)?;
        }
        for answer in self.users.answers() {
            self.answered(answer);
        }
        if self.stage.now().since(self.looked_at) >= LOOK {
            self.looked_at = self.stage.now();
            self.judge.look(&self.stage)?;
        }
        match self.judge.violations.first() {
            Some(violation) => bail!("{violation}"),
            None => Ok(()),
        }
    }

    /// Looks now, whatever the time.
    fn look(&mut self) -> Result<()> {
        self.looked_at = Time::ZERO;
        self.once()
    }

    fn later(&mut self, after: Duration, what: Due) {
        self.count += 1;
        self.due.insert((self.stage.now() + after, self.count), what);
    }

    fn happens(&mut self, due: Due) -> Result<()> {
        match due {
            Due::GoesOn { host, life } => self.stage.go_on(host, life),
            Due::Flips { ways, half, until, down } => {
                self.stage.flap(&ways, down)?;
                if down || self.stage.now() < until {
                    let down = !down && self.stage.now() < until;
                    self.later(half, Due::Flips { ways, half, until, down });
                }
                Ok(())
            }
        }
    }

    /// Nothing that was set off goes on: who stands still goes on, what flaps is whole.
    pub(super) fn calm(&mut self) -> Result<()> {
        let mut left = std::mem::take(&mut self.due);
        left.retain(|_, due| matches!(due, Due::GoesOn { .. }));
        for due in left.into_values() {
            self.happens(due)?;
        }
        self.stage.calm_links();
        Ok(())
    }

    /// Ways come and go from now on, until `span` is over.
    pub(super) fn flap(
        &mut self,
        ways: BTreeSet<(usize, usize)>,
        half: Duration,
        span: Duration,
    ) -> Result<()> {
        let until = self.stage.now() + span;
        self.happens(Due::Flips { ways, half: half.max(HALF_MIN), until, down: true })
    }

    // --- Answers.

    fn answered(&mut self, answer: Answer) {
        let Answer { host, wish, deleted, outcome } = answer;
        let name = self.stage.name(host).to_owned();
        match outcome {
            Outcome::Nothing => self.stage.tell(format!("{name}: there is nothing to sign")),
            Outcome::Refused(why) => self.stage.tell(format!("{name} answers: {why}")),
            Outcome::Unanswered(why) => self.stage.tell(format!("{name} does not answer: {why}")),
            Outcome::Accepted { event, durable_on, found_on } => {
                self.stage.tell(format!("{name} answers: accepted, on {durable_on} disks ({})", &event[..8]));
                self.judge.looks("S1 acked");
                self.stage.disturb();
                if let Wish::Bad(bad @ (Bad::Forged | Bad::Stranger)) = wish {
                    self.judge.violation(format!("S3: {name} accepted an event that nobody signed: {bad:?}"));
                    return;
                }
                if let Some(found_on) = found_on.filter(|found_on| *found_on < durable_on as usize) {
                    self.judge.violation(format!(
                        "S1: {name} acknowledged {event} on {durable_on} disks, and it is on {found_on}"
                    ));
                }
                let now = self.stage.now();
                if let Some(incarnation) = deleted {
                    self.judge.knows_deleted(host, incarnation, now);
                }
                self.acked.push(Acked { host, event, durable_on });
            }
        }
    }

    fn asks(&mut self, user: User, host: usize, of: &str, wish: Wish) {
        // A machine without a peer answers nobody; one that stands still keeps its client waiting.
        if self.stage.machines[host].state == State::Up {
            self.stage.disturb();
            self.judge.is_asked(host, self.stage.now());
            self.users.hand_in(&self.stage, user, host, of, wish);
        }
    }

    // --- Steps.

    /// Does one thing, where it can be done: as `sim` takes it.
    fn take(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Apply(user, host, of, spec) => self.asks(*user, *host, of, Wish::Apply(spec.clone())),
            Action::Set(user, host, of, group, json) => {
                self.asks(*user, *host, of, Wish::Set(group, json.clone()));
            }
            Action::Restart(user, host, of) => self.asks(*user, *host, of, Wish::Restart),
            Action::Delete(user, host, of) => self.asks(*user, *host, of, Wish::Delete),
            Action::Undo(user, host, of) => self.asks(*user, *host, of, Wish::Undo),
            Action::Bad(user, host, of, bad) => self.asks(*user, *host, of, Wish::Bad(*bad)),
            Action::Retry(host) => self.asks(User::Alice, *host, "", Wish::Retry),
            Action::Cut(cuts) => {
                let cuts = self.ways(cuts);
                self.stage.set_cuts(cuts)?;
                self.packets()?;
            }
            Action::Heal => {
                self.stage.set_cuts(BTreeSet::new())?;
                self.packets()?;
            }
            Action::Flap(pairs, half, span) => self.flap(pairs.iter().copied().collect(), *half, *span)?,
            Action::Lossy(from, to, loss) => self.stage.lose_on(*from, *to, *loss)?,
            Action::PowerOff(host) => self.power_off(*host)?,
            Action::KillPeer(host) => self.stage.kill_peer(*host)?,
            Action::Again(host) => {
                if self.stage.machines[*host].state == State::Up {
                    self.stage.kill_peer(*host)?;
                    self.start(*host)?;
                }
            }
            Action::Start(host) => self.start(*host)?,
            Action::Blackout => self.stage.hosts().try_for_each(|host| self.power_off(host))?,
            Action::StartAll => self.stage.hosts().try_for_each(|host| self.start(host))?,
            Action::Pause(host, span) => {
                if let Some(life) = self.stage.stand_still(*host)? {
                    self.later((*span).min(STILL_MAX), Due::GoesOn { host: *host, life });
                }
            }
            Action::Crash(draw) => self.crash(*draw)?,
            other => bail!("real machines cannot do this: {other:?}"),
        }
        Ok(())
    }

    /// The ways on which nothing passes: a split takes the place of what was cut, the others add to it.
    fn ways(&self, cuts: &Cuts) -> BTreeSet<(usize, usize)> {
        let hosts = || self.stage.hosts();
        let pairs = |cut: &dyn Fn(usize, usize) -> bool| -> BTreeSet<(usize, usize)> {
            let all = hosts().flat_map(|a| hosts().map(move |b| (a, b)));
            all.filter(|(a, b)| a != b && cut(*a, *b)).collect()
        };
        match cuts {
            Cuts::Split(groups) => {
                let group = |host: usize| groups.iter().position(|group| group.contains(&host));
                pairs(&|a, b| group(a) != group(b))
            }
            Cuts::OneWay(ways) => self.stage.cuts().into_iter().chain(ways.iter().copied()).collect(),
            Cuts::Bridge(bridge) => &self.stage.cuts() | &pairs(&|a, b| a != *bridge && b != *bridge),
            Cuts::Ring => {
                let count = hosts().len();
                pairs(&|a, b| (a + 1) % count != b && (b + 1) % count != a)
            }
        }
    }

    /// Whether the filters do what the story says: what follows would be worth nothing otherwise.
    fn packets(&mut self) -> Result<()> {
        self.judge.looks("packets");
        match self.stage.packets()? {
            Some(what) => bail!("{what}"),
            None => Ok(()),
        }
    }

    pub(super) fn power_off(&mut self, host: usize) -> Result<()> {
        if self.stage.machines[host].state != State::Off {
            self.look()?;
            self.judge.loses_power(&self.stage, host)?;
            self.stage.power_off(host)?;
        }
        Ok(())
    }

    pub(super) fn start(&mut self, host: usize) -> Result<()> {
        let was = self.stage.machines[host].state;
        let name = self.stage.name(host).to_owned();
        self.stage.start(host).with_context(|| format!("L7: the peer of {name} does not start"))?;
        if was == State::Off {
            self.judge.has_power_again(&self.stage, host);
        }
        Ok(())
    }

    /// A program is killed, drawn from those that run in an order that a story can be played again in.
    fn crash(&mut self, draw: u64) -> Result<()> {
        self.look()?;
        let mut running: Vec<_> = self.judge.lives.all().cloned().collect();
        running.sort_by(|a, b| (&a.made.replica, a.host).cmp(&(&b.made.replica, b.host)));
        if running.is_empty() {
            return Ok(());
        }
        let life = running.swap_remove(usize::try_from(draw % running.len() as u64).unwrap_or(0));
        self.stage.tell(format!("the program of {} is killed", life.name(&self.stage)));
        self.judge.ends(&life, self.stage.now());
        self.stage.disturb();
        Ok(life.program.kill()?)
    }
}
