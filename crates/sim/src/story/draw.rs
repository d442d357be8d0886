//! A seed becomes a world and steps.

use std::time::Duration;

use model::{Capacity, ResourcesGroup};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::author::Spec;
use crate::faults::User;
use crate::world::{Settings, seed32};

/// Deployments that a story speaks of.
const NAMES: [&str; 3] = ["web", "api", "db"];

/// Who can no longer speak to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Nothing passes between the groups.
    Split(Vec<Vec<usize>>),
    /// Nothing passes from the first to the second of each pair, beside what is cut already.
    OneWay(Vec<(usize, usize)>),
    /// Only this one sees everybody; all others are cut from one another.
    Bridge(usize),
}

/// One thing that is done to a cluster.
#[derive(Clone, Debug)]
pub enum Action {
    /// A user applies a whole deployment.
    Apply(User, usize, &'static str, Box<Spec>),
    /// A user sets a group.
    Set(User, usize, &'static str, &'static str, String),
    /// A user restarts a deployment.
    Restart(User, usize, &'static str),
    /// A user deletes a deployment.
    Delete(User, usize, &'static str),
    /// The last event that anybody signed is handed in again, elsewhere.
    Retry(usize),
    /// Something is cut.
    Cut(Cuts),
    /// Everything passes again.
    Heal,
    /// A machine loses power.
    PowerOff(usize),
    /// A peer is killed.
    KillPeer(usize),
    /// A machine is switched on, or its peer started.
    Start(usize),
    /// Everything loses power at once.
    Blackout,
    /// Everything that is off is switched on.
    StartAll,
    /// A disk fills or has room again.
    DiskFull(usize, bool),
    /// Alice removes the second node through the first, which may be the same.
    RemoveNode(usize, usize),
    /// A program ends by itself; which of those that run is drawn from this number.
    Crash(u64),
}

/// One step of a story.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long after the one before.
    pub after: Duration,
    /// What.
    pub action: Action,
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
    /// What is done.
    pub steps: Vec<Step>,
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    fn chance(&mut self, in_hundred: u32) -> bool {
        self.0.random_range(0..100) < in_hundred
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Small ones as often as large ones: half of the time under the tenth part.
    fn span(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
        let most = if self.chance(50) { most.div_ceil(10) } else { most };
        Duration::from_millis(self.0.random_range(0..=most))
    }

    fn user(&mut self) -> User {
        if self.chance(50) { User::Alice } else { User::Bob }
    }

    fn resources(&mut self) -> ResourcesGroup {
        let cpu_m = self.pick(&[50, 100, 100, 250, 400]);
        ResourcesGroup { cpu_m, memory_b: self.pick(&[32 << 20, 64 << 20, 256 << 20]), pids: 64 }
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

    fn cuts(&mut self, nodes: usize) -> Cuts {
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

    fn action(&mut self, nodes: usize, weights: &[u32; KINDS]) -> Action {
        let total: u32 = weights.iter().sum();
        let mut drawn = self.0.random_range(0..total);
        let kind = weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        let (user, host, of) = (self.user(), self.below(nodes), self.pick(&NAMES));
        match kind.unwrap_or(0) {
            0 => {
                let mut spec = Spec::new(u32::try_from(self.below(8)).unwrap_or(0));
                spec.resources = self.resources();
                Action::Apply(user, host, of, Box::new(spec))
            }
            1 => {
                let count = self.below(9);
                Action::Set(user, host, of, "replicas", format!(r#"{{"count":{count},"class":"available"}}"#))
            }
            2 => {
                let value = self.below(100);
                Action::Set(user, host, of, "env", format!(r#"{{"vars":{{"A":"{value}"}}}}"#))
            }
            3 => {
                let ResourcesGroup { cpu_m, memory_b, pids } = self.resources();
                let json = format!(r#"{{"cpu_m":{cpu_m},"memory_b":{memory_b},"pids":{pids}}}"#);
                Action::Set(user, host, of, "resources", json)
            }
            4 => Action::Restart(user, host, of),
            5 => Action::Delete(user, host, of),
            6 => Action::Retry(host),
            7 => Action::Cut(self.cuts(nodes)),
            8 => Action::Heal,
            9 => Action::PowerOff(host),
            10 => Action::KillPeer(host),
            11 => Action::Start(host),
            12 if self.chance(30) => Action::Blackout,
            12 => Action::StartAll,
            13 => Action::DiskFull(host, self.chance(60)),
            _ => Action::Crash(self.0.random_range(0..=u64::MAX)),
        }
    }
}

/// Stories in which a node is removed, in a hundred. One node: what only a removed one knows of another's
/// removal is lost with it.
const REMOVAL_PERCENT: u32 = 30;

/// Kinds of actions that have a weight of their own.
const KINDS: usize = 15;

impl Story {
    /// The story of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(seed, 0x57, 1)));
        let nodes = 3 + dice.below(3);
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
            },
            ..Settings::default()
        };
        let skews = [0, 0, 0, 40_000, -3_600_000, -1_795_000_000_000, 315_000_000_000];
        let skews_ms = (0..nodes).map(|_| dice.pick(&skews)).collect();
        // Swarm: each story has its own taste, and leaves some kinds out.
        let mut weights = [12, 10, 8, 5, 4, 5, 3, 12, 12, 6, 6, 14, 2, 4, 6];
        for weight in &mut weights[2..] {
            *weight = dice.pick(&[0, *weight, *weight, *weight * 4]);
        }
        let most = dice.pick(&[millis(300), millis(3_000), millis(12_000)]);
        let first = Step {
            after: millis(if dice.chance(80) { 3_000 } else { 0 }),
            action: dice.action(nodes, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        };
        let count = 6 + dice.below(30);
        let rest = (0..count).map(|_| Step { after: dice.span(most), action: dice.action(nodes, &weights) });
        let mut steps: Vec<Step> = std::iter::once(first).chain(rest.collect::<Vec<_>>()).collect();
        // Drawn apart: with or without a removal, all else of a seed is the same.
        let mut dice = Dice(ChaCha8Rng::from_seed(seed32(seed, 0x57, 2)));
        if dice.chance(REMOVAL_PERCENT) {
            // Never n1, whose word the checks take for what is wanted.
            let (through, gone) = (dice.below(nodes), 1 + dice.below(nodes - 1));
            let step = Step { after: Duration::ZERO, action: Action::RemoveNode(through, gone) };
            steps.insert(1 + dice.below(steps.len()), step);
        }
        Self { seed, nodes, settings, skews_ms, steps }
    }
}
