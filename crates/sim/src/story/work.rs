//! What some stories ask of the cluster beside plain deployments: jobs, order between deployments, counted
//! things, limits apart from what is set aside, machines that give away more than they have, and machines that
//! are short of something.
//!
//! It is drawn from dice of its own, as what is rare is: all stories without it are what they were before it came.
//! Which programs end by themselves, and how often a failed run is tried again, is one name's for a whole story:
//! so that how a run ended says whether it ended for good, whatever users change meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Condition, DependsGroup, Extras, JobGroup, Limits, ResourcesGroup, RestartPolicy, Terms};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::action::{Action, NAMES};
use super::draw::{Dice, Step, Story};
use crate::author::name;
use crate::doom::Program;
use crate::short::Shortage;
use crate::world::seed32;

/// Stories in a hundred that have any of it.
const WORK: u32 = 35;

/// Names of counted things.
const EXTRAS: [&str; 2] = ["camera", "gpu"];

/// Which names are jobs in one story.
type Jobs = BTreeMap<&'static str, JobGroup>;

/// What a machine makes of what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What is kept, and how often the rest is given away.
    pub terms: Terms,
    /// Counted things.
    pub extras: Extras,
}

/// How likely each thing is in one story, in hundredths.
struct Taste {
    jobs: u32,
    order: u32,
    extras: u32,
    limits: u32,
    terms: u32,
    short: u32,
}

impl Taste {
    fn draw(dice: &mut Dice) -> Self {
        let mut of = |often: &[u32]| dice.pick(often);
        Self {
            jobs: of(&[0, 40, 70, 100]),
            order: of(&[0, 0, 40, 80]),
            extras: of(&[0, 0, 50, 100]),
            limits: of(&[0, 0, 50, 100]),
            terms: of(&[0, 0, 50, 100]),
            short: of(&[0, 0, 30, 80]),
        }
    }
}

impl Story {
    pub(super) fn with_work(mut self) -> Self {
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(self.seed, 0x58, 1)));
        if !dice.chance(WORK) {
            return self;
        }
        let taste = Taste::draw(&mut dice);
        let mut jobs = BTreeMap::new();
        for of in NAMES {
            if dice.chance(taste.jobs) {
                jobs.insert(of, dice.job());
            }
        }
        self.settings.programs = jobs.keys().map(|of| dice.program(of)).collect();
        self.change_what_is_applied(&mut dice, &taste, &jobs);
        self.change_it_later(&mut dice, &taste, &jobs);
        self.offers = (0..self.nodes).map(|_| dice.offer(&taste)).collect();
        self.fall_short(&mut dice, &taste);
        self
    }

    fn change_what_is_applied(&mut self, dice: &mut Dice, taste: &Taste, jobs: &Jobs) {
        for step in &mut self.steps {
            match &mut step.action {
                Action::Apply(_, _, of, spec) => {
                    if let Some(job) = jobs.get(of) {
                        spec.job = Some(dice.again(*job));
                        spec.restart.policy = RestartPolicy::Never;
                    }
                    if dice.chance(taste.order) {
                        spec.depends = dice.depends(of, jobs);
                    }
                    dice.more_resources(taste, &mut spec.resources);
                }
                Action::Set(_, _, _, "resources", json) => {
                    if let Ok(mut group) = serde_json::from_str::<ResourcesGroup>(json) {
                        dice.more_resources(taste, &mut group);
                        *json = json_of(&group);
                    }
                }
                _ => {}
            }
        }
    }

    /// Changes of what deployments wait for, and of how many of a job run at a time; more jobs.
    fn change_it_later(&mut self, dice: &mut Dice, taste: &Taste, jobs: &Jobs) {
        for _ in 0..dice.below(8) {
            let (user, host, of) = (dice.user(), dice.below(self.nodes), dice.pick(&NAMES));
            let action = if let Some(job) = jobs.get(of).filter(|_| dice.chance(60)) {
                if dice.chance(50) {
                    Action::Set(user, host, of, "job", json_of(&dice.again(*job)))
                } else {
                    // Another template is other work.
                    Action::Set(
                        user,
                        host,
                        of,
                        "env",
                        format!(r#"{{"vars":{{"WORK":"{}"}}}}"#, dice.below(4)),
                    )
                }
            } else if dice.chance(taste.order) {
                Action::Set(user, host, of, "depends-on", json_of(&dice.depends(of, jobs)))
            } else {
                continue;
            };
            self.insert(dice, Duration::from_millis(4_000), action);
        }
    }

    /// Machines become short of something, of something else, or of nothing more; some stay so for good.
    fn fall_short(&mut self, dice: &mut Dice, taste: &Taste) {
        for host in 0..self.nodes {
            if !dice.chance(taste.short) {
                continue;
            }
            for _ in 0..=dice.below(3) {
                let shortage = dice.shortage();
                self.insert(dice, Duration::from_millis(15_000), Action::Press(host, shortage));
            }
            let last = if dice.chance(75) { Shortage::Nothing } else { dice.shortage() };
            let after = dice.span(Duration::from_millis(15_000));
            self.steps.push(Step { after, action: Action::Press(host, last) });
        }
    }

    fn insert(&mut self, dice: &mut Dice, most: Duration, action: Action) {
        let at = 1 + dice.below(self.steps.len());
        self.steps.insert(at, Step { after: dice.span(most), action });
    }
}

fn json_of(group: &impl serde::Serialize) -> String {
    serde_json::to_string(group).expect("a group is a map with text keys")
}

impl Dice {
    fn job(&mut self) -> JobGroup {
        JobGroup {
            parallelism: 1,
            retries: self.pick(&[0, 0, 1, 3]),
            deadline_s: self.pick(&[None, None, None, Some(8), Some(40)]),
        }
    }

    /// The same job, with another number of runs at a time.
    fn again(&mut self, job: JobGroup) -> JobGroup {
        JobGroup { parallelism: self.pick(&[1, 1, 2, 3, 8]), ..job }
    }

    fn program(&mut self, of: &str) -> Program {
        let most = Duration::from_millis(self.pick(&[50, 1_000, 4_000]));
        Program {
            of: name(of),
            runs: (Duration::from_millis(1), most),
            fails: self.pick(&[0, 0, 100, 400, 900]),
            endless: self.pick(&[0, 0, 0, 100]),
        }
    }

    /// Some of the others, and how far each must be: mostly what it may ever be.
    fn depends(&mut self, of: &str, jobs: &Jobs) -> DependsGroup {
        let mut on = BTreeMap::new();
        for other in NAMES.into_iter().filter(|other| *other != of) {
            if !self.chance(50) {
                continue;
            }
            let condition = if jobs.contains_key(other) && self.chance(70) {
                Condition::Completed
            } else {
                self.pick(&[Condition::Started, Condition::Healthy, Condition::Healthy])
            };
            on.insert(name(other), condition);
        }
        DependsGroup { on }
    }

    fn extras(&mut self, counts: &[u64]) -> Extras {
        let mut of = BTreeMap::new();
        for extra in EXTRAS {
            let count = self.pick(counts);
            if count > 0 {
                of.insert(extra.parse().expect("a word is a label's key"), count);
            }
        }
        Extras::new(of).expect("two names, and small counts")
    }

    fn more_resources(&mut self, taste: &Taste, group: &mut ResourcesGroup) {
        if self.chance(taste.extras) {
            group.extras = self.extras(&[0, 1, 1, 2]);
        }
        if self.chance(taste.limits) {
            group.limits = Limits {
                cpu_m: self.chance(70).then(|| group.cpu_m * 4),
                memory_b: self.chance(50).then(|| group.memory_b * 2),
                pids: self.chance(30).then_some(group.pids * 2),
            };
        }
    }

    fn offer(&mut self, taste: &Taste) -> Offer {
        let extras = if taste.extras > 0 { self.extras(&[0, 1, 2, 3]) } else { Extras::NONE };
        if !self.chance(taste.terms) {
            return Offer { terms: Terms::default(), extras };
        }
        let terms = Terms {
            reserved_cpu_m: self.pick(&[0, 0, 100, 250]),
            reserved_memory_b: self.pick(&[0, 0, 64 << 20]),
            cpu_percent: self.pick(&[100, 150, 300]),
            memory_percent: self.pick(&[100, 100, 200]),
        };
        Offer { terms, extras }
    }

    fn shortage(&mut self) -> Shortage {
        self.pick(&[
            Shortage::Memory(2_500),
            Shortage::Memory(1_000),
            Shortage::Cpu(9_800),
            Shortage::Io(8_500),
            Shortage::Disk(100),
            Shortage::Disk(700),
            Shortage::Nothing,
        ])
    }
}
