//! What some stories have beside all else: programs that end for good, changes that are taken back half
//! way, an end in a line.
//!
//! It is drawn from dice of its own, so that all stories without it are what they were before it came:
//! a seed that found something once still tells of it.

use std::time::Duration;

use model::RestartPolicy;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::action::Action;
use super::draw::{Dice, Ending, Outside, Shape, Step, Story};
use crate::world::seed32;

/// Stories in a hundred whose programs may end for good.
const JOBS: u32 = 15;

/// Stories in a hundred in which changes are taken back half way.
const WAVERING: u32 = 15;

/// Stories in a hundred in which a disk is put back over several starts, of those in which disks repeat.
const OLD_DISKS: u32 = 60;

/// Stories in a hundred that end in a line, of those that can.
const LINES: u32 = 15;

/// Stories in a hundred in which at most one copy may run of each replica of one deployment.
const EXCLUSIVE: u32 = 12;

/// Machines of such a line, at most: a longer one that was whole a moment ago takes half a minute until nobody
/// is called down any more, and looks at rest before.
const LINE_MAX: usize = 4;

impl Story {
    pub(super) fn with_what_is_rare(mut self, repeats: bool) -> Self {
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(self.seed, 0x58, 0)));
        if dice.chance(JOBS) {
            self.have_jobs(&mut dice);
        }
        if dice.chance(WAVERING) {
            self.waver(&mut dice);
        }
        if repeats && dice.chance(OLD_DISKS) {
            self.forget_some_lives(&mut dice);
        }
        if dice.chance(LINES) && self.rogue.is_none() && !repeats {
            self.end_in_a_line(&mut dice);
        }
        self
    }

    /// The last that is drawn, from dice of its own.
    pub(super) fn with_leases(mut self) -> Self {
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(self.seed, 0x59, 0)));
        if dice.chance(EXCLUSIVE) {
            self.be_exclusive(&mut dice);
        }
        self
    }

    /// At most one copy of each replica of what is applied first, by the leases of one, three or five.
    fn be_exclusive(&mut self, dice: &mut Dice) {
        let Some(Step { action: Action::Apply(_, _, of, _), .. }) = self.steps.first() else { return };
        let of = *of;
        let is_of = |step: &Step| match &step.action {
            Action::Apply(_, _, it, spec) => *it == of && spec.job.is_some(),
            _ => false,
        };
        if self.steps.iter().any(is_of) {
            return; // Only services can be exclusive.
        }
        let sizes: Vec<usize> = [1, 3, 3, 5].into_iter().filter(|size| *size <= self.nodes).collect();
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        for left in (1..nodes.len()).rev() {
            nodes.swap(left, dice.below(left + 1));
        }
        nodes.truncate(dice.pick(&sizes));
        let voters: Vec<String> = nodes.iter().map(|host| format!("n{}", host + 1)).collect();
        for step in &mut self.steps {
            if let Action::Apply(_, _, it, spec) = &mut step.action
                && *it == of
            {
                spec.voters.clone_from(&voters);
            }
        }
    }

    /// Restart policies for what is applied, and programs that end well.
    fn have_jobs(&mut self, dice: &mut Dice) {
        let policies = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never];
        for step in &mut self.steps {
            if let Action::Apply(_, _, _, spec) = &mut step.action {
                spec.restart.policy = dice.pick(&policies);
            }
        }
        for _ in 0..2 + dice.below(8) {
            let at = 1 + dice.below(self.steps.len());
            let action = Action::Finish(dice.0.random_range(0..=u64::MAX));
            self.steps.insert(at, Step { after: dice.span(Duration::from_millis(3_000)), action });
        }
    }

    /// A change of what is applied first, taken back while it is on its way: replica for replica the old
    /// copy and the new one are both there, and each may take the other for the one that stays.
    fn waver(&mut self, dice: &mut Dice) {
        let Some(Step { action: Action::Apply(_, _, of, _), .. }) = self.steps.first() else { return };
        let of = *of;
        for round in 0..2 + dice.below(4) {
            let at = 1 + dice.below(self.steps.len());
            let (user, host) = (dice.user(), dice.below(self.nodes));
            let json = format!(r#"{{"vars":{{"HALF_WAY":"{round}"}}}}"#);
            let change = Action::Set(user, host, of, "env", json);
            let there = Step { after: dice.span(Duration::from_millis(2_000)), action: change };
            // A replica is well a second after its start.
            let half_way = self.settings.start + dice.span(Duration::from_millis(4_000));
            let back = Step { after: half_way, action: Action::Undo(user, host, of) };
            self.steps.splice(at..at, [there, back]);
        }
    }

    /// A disk is put back to a day before some starts of its peer: the others know it by a life to come.
    fn forget_some_lives(&mut self, dice: &mut Dice) {
        let host = dice.below(self.nodes);
        if self.rogue == Some(host) {
            return;
        }
        self.steps.retain(|step| !matches!(step.action, Action::Clone(_)));
        let at = 1 + dice.below(self.steps.len());
        let lives = [
            Action::Start(host),
            Action::BackUp(host),
            Action::Again(host),
            Action::Again(host),
            Action::Again(host),
            Action::Restore(host),
        ];
        let after = Duration::from_millis(1_500);
        self.steps.splice(at..at, lives.map(|action| Step { after, action }));
    }

    fn end_in_a_line(&mut self, dice: &mut Dice) {
        let (mut core, outside) = match &self.ending {
            Ending::Calm => ((0..self.nodes).collect::<Vec<_>>(), Vec::new()),
            Ending::Core(core, outside, _) => (core.clone(), outside.clone()),
        };
        if !(3..=LINE_MAX).contains(&core.len()) {
            return;
        }
        // Whoever is heard and does not hear accuses the living; in a line they answer late.
        let half = |how: &Outside| matches!(how, Outside::Deaf | Outside::Mute | Outside::Flaps);
        let outside = outside.into_iter();
        let outside =
            outside.map(|(host, how)| (host, if half(&how) { Outside::CutOff } else { how })).collect();
        for left in (1..core.len()).rev() {
            core.swap(left, dice.below(left + 1));
        }
        self.ending = Ending::Core(core, outside, Shape::Line);
    }
}
