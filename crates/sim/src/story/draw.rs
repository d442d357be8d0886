//! A seed becomes a world and steps.

use std::time::Duration;

use model::{Capacity, ResourcesGroup};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::action::{Action, Cuts, KINDS, Kind};
use super::work::Offer;
use crate::faults::User;
use crate::weather::Odds;
use crate::world::{Settings, seed32};

/// One step of a story.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long after the one before.
    pub after: Duration,
    /// What.
    pub action: Action,
}

/// How a story ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is healed, started and freed.
    Calm,
    /// These machines are healed among themselves; all others stay broken for good, each in its way.
    Core(Vec<usize>, Vec<(usize, Outside)>, Shape),
}

/// Who of a core reaches whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All reach all.
    Whole,
    /// Each reaches the one before it and the one behind it, in the core's order, and nobody else.
    Line,
}

/// How a machine that is not of the core stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Without power.
    Off,
    /// Its peer does not run; its containers may.
    PeerDown,
    /// It runs and nothing passes either way.
    CutOff,
    /// What it says is heard by the core, and nothing passes the other way.
    Deaf,
    /// It hears the core, and nothing passes the other way.
    Mute,
    /// What it says is heard now and then.
    Flaps,
}

/// A world and what is done to it.
#[derive(Clone, Debug)]
pub struct Story {
    /// The seed of everything.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// The world.
    pub settings: Settings,
    /// How far the clocks are off, by machine.
    pub skews_ms: Vec<i64>,
    /// A machine that goes rogue at the beginning.
    pub rogue: Option<usize>,
    /// What machines keep, give away twice, and count, by machine; as usual for those beyond.
    pub offers: Vec<Offer>,
    /// What is done.
    pub steps: Vec<Step>,
    /// What follows.
    pub ending: Ending,
}

pub(super) struct Dice(pub(super) ChaCha8Rng);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub(super) fn chance(&mut self, in_hundred: u32) -> bool {
        self.0.random_range(0..100) < in_hundred
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Small ones as often as large ones: half of the time under the tenth part.
    pub(super) fn span(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
        let most = if self.chance(50) { most.div_ceil(10) } else { most };
        Duration::from_millis(self.0.random_range(0..=most))
    }

    pub(super) fn user(&mut self) -> User {
        if self.chance(50) { User::Alice } else { User::Bob }
    }

    pub(super) fn resources(&mut self) -> ResourcesGroup {
        let cpu_m = self.pick(&[50, 100, 100, 250, 400]);
        ResourcesGroup {
            cpu_m,
            memory_b: self.pick(&[32 << 20, 64 << 20, 256 << 20]),
            pids: 64,
            ..ResourcesGroup::default()
        }
    }

    fn groups(&mut self, nodes: usize) -> Vec<Vec<usize>> {
        let ways = 2 + self.below(nodes - 1);
        let mut groups = vec![Vec::new(); ways];
        for host in 0..nodes {
            let group = self.below(ways);
            groups[group].push(host);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    pub(super) fn cuts(&mut self, nodes: usize) -> Cuts {
        match self.below(4) {
            0 => Cuts::Bridge(self.below(nodes)),
            1 => {
                let pairs = 1 + self.below(nodes);
                Cuts::OneWay(
                    (0..pairs)
                        .map(|_| (self.below(nodes), self.below(nodes)))
                        .filter(|(a, b)| a != b)
                        .collect(),
                )
            }
            2 => {
                let alone = self.below(nodes);
                Cuts::Split(vec![vec![alone], (0..nodes).filter(|host| *host != alone).collect()])
            }
            _ => Cuts::Split(self.groups(nodes)),
        }
    }

    fn odds(&mut self, latency: Duration) -> Odds {
        let millis = Duration::from_millis;
        let jitter = self.pick(&[millis(5), millis(50), millis(400)]);
        Odds {
            late: self.pick(&[0, 0, 50, 300]),
            late_by: jitter.max(latency),
            twice: self.pick(&[0, 0, 20, 200, 500]),
            bytes_per_s: self.pick(&[0, 0, 0, 0, 1_000_000, 100_000, 20_000]),
            slow_syncs: self.pick(&[0, 0, 0, 10, 100]),
            failed_syncs: self.pick(&[0, 0, 0, 0, 200, 2_000]),
            deaf: self.pick(&[0, 0, 0, 100, 500]),
        }
    }

    fn ending(&mut self, nodes: usize) -> Ending {
        if self.chance(50) {
            return Ending::Calm;
        }
        let all =
            [Outside::Off, Outside::PeerDown, Outside::CutOff, Outside::Deaf, Outside::Mute, Outside::Flaps];
        let first = self.below(nodes);
        let (mut core, mut outside) = (vec![first], Vec::new());
        for host in (0..nodes).filter(|host| *host != first) {
            if self.chance(60) {
                core.push(host);
            } else {
                outside.push((host, self.pick(&all)));
            }
        }
        core.sort_unstable();
        Ending::Core(core, outside, Shape::Whole)
    }
}

impl Story {
    /// The story of a seed.
    pub fn draw(seed: u64) -> Self {
        Self::draw_sized(seed, None)
    }

    /// The same on so many machines.
    pub fn draw_sized(seed: u64, nodes: Option<usize>) -> Self {
        Self::draw_among(seed, nodes, |_| true)
    }

    /// The same with steps of some kinds only, for a world that cannot do all of them. Users apply and
    /// change deployments in any.
    pub fn draw_among(seed: u64, nodes: Option<usize>, can: impl Fn(Kind) -> bool) -> Self {
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(seed, 0x57, 2)));
        let drawn = dice.pick(&[2, 3, 3, 4, 4, 5, 5, 6]);
        let nodes = nodes.unwrap_or(drawn);
        let millis = Duration::from_millis;
        let micros = Duration::from_micros;
        let latency = dice.pick(&[
            (micros(200), micros(1_500)),
            (micros(300), micros(3_000)),
            (millis(5), millis(25)),
            (millis(30), millis(60)),
        ]);
        let settings = Settings {
            latency,
            loss: dice.pick(&[0, 0, 20, 100, 300]),
            sync: dice.pick(&[micros(100), micros(400), millis(8), millis(60), millis(400)]),
            start: dice.pick(&[millis(5), millis(20), millis(300), millis(2_500)]),
            stop: dice.pick(&[
                (millis(1), millis(5)),
                (millis(5), millis(400)),
                (millis(100), millis(3_000)),
            ]),
            start_failures: dice.pick(&[0, 0, 0, 50, 300]),
            capacity: Capacity {
                cpu_m: dice.pick(&[500, 1_000, 4_000]),
                memory_b: dice.pick(&[512 << 20, 4 << 30]),
                pids: 4_000,
                ..Capacity::default()
            },
            odds: dice.odds(latency.1),
            ..Settings::default()
        };
        let skews = [0, 0, 0, 40_000, -3_600_000, -1_795_000_000_000, 315_000_000_000];
        let skews_ms = (0..nodes).map(|_| dice.pick(&skews)).collect();
        let rogue = (nodes > 2 && dice.chance(10)).then(|| 1 + dice.below(nodes - 1));
        // Swarm: each story has its own taste, and leaves some kinds out.
        let repeats = dice.chance(5);
        let mut weights: Vec<u32> = KINDS.iter().map(|(_, weight)| *weight).collect();
        for (weight, (kind, _)) in weights.iter_mut().zip(KINDS).skip(2) {
            *weight = dice.pick(&[0, 0, *weight, *weight, *weight * 4]);
            if matches!(kind, Kind::BackUp | Kind::Restore | Kind::Clone) && !repeats || !can(*kind) {
                *weight = 0;
            }
        }
        let most = dice.pick(&[millis(300), millis(3_000), millis(12_000)]);
        let mut only_apply = vec![0; KINDS.len()];
        only_apply[0] = 1;
        let first = Step {
            after: millis(if dice.chance(80) { 3_000 } else { 0 }),
            action: dice.action(nodes, &only_apply),
        };
        let count = 6 + dice.below(36);
        let rest = (0..count).map(|_| Step { after: dice.span(most), action: dice.action(nodes, &weights) });
        let steps = std::iter::once(first).chain(rest.collect::<Vec<_>>()).collect();
        let ending = if rogue.is_some() || repeats { Ending::Calm } else { dice.ending(nodes) };
        let offers = Vec::new();
        let story = Self { seed, nodes, settings, skews_ms, rogue, offers, steps, ending };
        // What is rare is of kinds that not every world can do.
        if !KINDS.iter().all(|(kind, _)| can(*kind)) {
            return story;
        }
        let story = story.with_what_is_rare(repeats);
        // How a job ended is a member's word, and on a disk of its own: neither is sound in these.
        let story = if story.rogue.is_some() || repeats { story } else { story.with_work() };
        story.with_leases()
    }
}
