//! What may be done to a cluster, and how each is drawn.

use std::time::Duration;

use model::ResourcesGroup;
use rand::RngExt;

use super::draw::Dice;
use crate::author::Spec;
use crate::faults::User;
use crate::short::Shortage;
use crate::trouble::Death;

/// Deployments that a story speaks of.
pub(super) const NAMES: [&str; 3] = ["web", "api", "db"];

/// Who can no longer speak to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Nothing passes between the groups.
    Split(Vec<Vec<usize>>),
    /// Nothing passes from the first to the second of each pair, beside what is cut already.
    OneWay(Vec<(usize, usize)>),
    /// Only this one sees everybody; all others are cut from one another.
    Bridge(usize),
    /// Each sees its two neighbours only.
    Ring,
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
    /// A program ends by itself; which of those that run is drawn from this number.
    Crash(u64),
    /// A program ends by itself, well.
    Finish(u64),
    /// The kernel kills one for want of memory.
    Oom(u64),
    /// A user takes back the last change of a deployment.
    Undo(User, usize, &'static str),
    /// A new machine joins through this one.
    Join(usize),
    /// A machine leaves: its own peer takes its removal.
    Leave(usize),
    /// A machine is removed through another.
    Remove(usize, usize),
    /// Something is handed in that has no effect, or is refused.
    Bad(User, usize, &'static str, Bad),
    /// Nothing moves from one machine to another for a while.
    Clog(usize, usize, Duration),
    /// These come and go.
    Flap(Vec<(usize, usize)>, Duration, Duration),
    /// One link loses datagrams in one direction, in thousandths.
    Lossy(usize, usize, u32),
    /// A peer dies between two effects, and may come back by itself.
    DieAfter(usize, u32, Death, Option<Duration>),
    /// A peer stands still for so long.
    Pause(usize, Duration),
    /// A peer is killed and started at once.
    Again(usize),
    /// A disk has room for so many records.
    Room(usize, usize),
    /// A disk is copied.
    BackUp(usize),
    /// The copy takes its place.
    Restore(usize),
    /// A copy of a disk is put into a second machine.
    Clone(usize),
    /// A clock is stepped by so many milliseconds.
    StepClock(usize, i64),
    /// A clock drifts by parts in a million.
    Drift(usize, i64),
    /// A clock stands, or goes again.
    StopClock(usize, bool),
    /// A machine has no process left, or has some again.
    NoPids(usize, bool),
    /// Containers take so long to start on one machine.
    SlowStarts(usize, Duration),
    /// A machine is short of something, or of nothing more.
    Press(usize, Shortage),
}

/// What a user hands in although it cannot do what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// A change of a deployment that is deleted: valid, and without effect.
    OnTheDeleted,
    /// A group whose JSON says nothing that this release understands: valid, and kept.
    Group,
    /// A signature that is not of its text.
    Forged,
    /// A change by somebody whom nobody has added.
    Stranger,
}

/// Kinds of actions that have a weight of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the `Action` of its name, or a `Set` of the group that it names")]
pub enum Kind {
    Apply,
    Set,
    Resources,
    Scale,
    Restart,
    Delete,
    Undo,
    Bad,
    Retry,
    Cut,
    Heal,
    Clog,
    Flap,
    Lossy,
    PowerOff,
    KillPeer,
    Again,
    Start,
    Blackout,
    StartAll,
    DieAfter,
    Pause,
    DiskFull,
    Room,
    BackUp,
    Restore,
    Clone,
    StepClock,
    Drift,
    StopClock,
    NoPids,
    SlowStarts,
    Crash,
    Oom,
    Join,
    Leave,
    Remove,
}

impl Kind {
    /// What can be done to real peers on one machine as well: nothing of disks, clocks and other kernels,
    /// and no death between two effects, which nobody outside of a peer can time. A link can be cut and
    /// lose packets there; it cannot hold them back.
    pub const REAL: &[Self] = &[
        Self::Apply,
        Self::Set,
        Self::Resources,
        Self::Scale,
        Self::Restart,
        Self::Delete,
        Self::Undo,
        Self::Bad,
        Self::Retry,
        Self::Cut,
        Self::Heal,
        Self::Flap,
        Self::Lossy,
        Self::PowerOff,
        Self::KillPeer,
        Self::Again,
        Self::Start,
        Self::Blackout,
        Self::StartAll,
        Self::Pause,
        Self::Crash,
    ];
}

/// Each kind and its weight before the story's taste.
pub(super) const KINDS: &[(Kind, u32)] = &[
    (Kind::Apply, 12),
    (Kind::Set, 10),
    (Kind::Resources, 5),
    (Kind::Scale, 8),
    (Kind::Restart, 4),
    (Kind::Delete, 5),
    (Kind::Undo, 4),
    (Kind::Bad, 3),
    (Kind::Retry, 3),
    (Kind::Cut, 12),
    (Kind::Heal, 12),
    (Kind::Clog, 4),
    (Kind::Flap, 3),
    (Kind::Lossy, 3),
    (Kind::PowerOff, 6),
    (Kind::KillPeer, 6),
    (Kind::Again, 4),
    (Kind::Start, 16),
    (Kind::Blackout, 1),
    (Kind::StartAll, 2),
    (Kind::DieAfter, 10),
    (Kind::Pause, 4),
    (Kind::DiskFull, 3),
    (Kind::Room, 3),
    (Kind::BackUp, 4),
    (Kind::Restore, 4),
    (Kind::Clone, 2),
    (Kind::StepClock, 2),
    (Kind::Drift, 1),
    (Kind::StopClock, 1),
    (Kind::NoPids, 2),
    (Kind::SlowStarts, 1),
    (Kind::Crash, 4),
    (Kind::Oom, 3),
    (Kind::Join, 1),
    (Kind::Leave, 1),
    (Kind::Remove, 1),
];

impl Dice {
    pub(super) fn action(&mut self, nodes: usize, weights: &[u32]) -> Action {
        let total: u32 = weights.iter().sum();
        let mut drawn = self.0.random_range(0..total);
        let kind = weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        let kind = kind.map_or(Kind::Apply, |at| KINDS[at].0);
        let (user, host, of) = (self.user(), self.below(nodes), self.pick(&NAMES));
        let (other, millis) = ((host + 1 + self.below(nodes.max(2) - 1)) % nodes, Duration::from_millis);
        match kind {
            Kind::Apply => {
                let mut spec = Spec::new(u32::try_from(self.below(8)).unwrap_or(0));
                spec.resources = self.resources();
                Action::Apply(user, host, of, Box::new(spec))
            }
            Kind::Set => {
                let json = format!(r#"{{"vars":{{"V":"{}"}}}}"#, self.below(5));
                Action::Set(user, host, of, "env", json)
            }
            Kind::Scale => {
                let count = self.below(9);
                let json = format!(r#"{{"count":{count},"class":"available"}}"#);
                Action::Set(user, host, of, "replicas", json)
            }
            Kind::Resources => {
                let ResourcesGroup { cpu_m, memory_b, pids, .. } = self.resources();
                let json = format!(r#"{{"cpu_m":{cpu_m},"memory_b":{memory_b},"pids":{pids}}}"#);
                Action::Set(user, host, of, "resources", json)
            }
            Kind::Restart => Action::Restart(user, host, of),
            Kind::Delete => Action::Delete(user, host, of),
            Kind::Undo => Action::Undo(user, host, of),
            Kind::Bad => {
                let bad = self.pick(&[Bad::OnTheDeleted, Bad::Group, Bad::Forged, Bad::Stranger]);
                Action::Bad(user, host, of, bad)
            }
            Kind::Retry => Action::Retry(host),
            Kind::Cut => Action::Cut(self.cuts(nodes)),
            Kind::Heal => Action::Heal,
            Kind::Clog => Action::Clog(host, other, self.span(millis(15_000))),
            Kind::Flap => {
                let mut pairs = vec![(host, other)];
                if self.chance(70) {
                    pairs.push((other, host));
                }
                if self.chance(30) {
                    let others = (0..nodes).filter(|it| *it != host);
                    pairs = others.flat_map(|it| [(host, it), (it, host)]).collect();
                }
                // 0.1 to 10 Hz.
                let half = millis(self.pick(&[50, 200, 1_000, 5_000]));
                Action::Flap(pairs, half, self.span(millis(30_000)))
            }
            Kind::Lossy => Action::Lossy(host, other, self.pick(&[100, 500, 1_000])),
            Kind::PowerOff => Action::PowerOff(host),
            Kind::KillPeer => Action::KillPeer(host),
            Kind::Again => Action::Again(host),
            Kind::Start => Action::Start(host),
            Kind::Blackout => Action::Blackout,
            Kind::StartAll => Action::StartAll,
            Kind::DieAfter => {
                let most = self.pick(&[3, 10, 30, 200]);
                let effects = self.0.random_range(0..=most);
                let death = if self.chance(70) { Death::Kill } else { Death::Power };
                let back = self.chance(70).then(|| self.span(millis(4_000)));
                Action::DieAfter(host, effects, death, back)
            }
            Kind::Pause => {
                let most = self.pick(&[millis(1_000), millis(4_000), millis(60_000), millis(3_600_000)]);
                let span = if self.chance(90) { most.min(millis(60_000)) } else { most };
                Action::Pause(host, self.span(span).max(millis(200)))
            }
            Kind::DiskFull => Action::DiskFull(host, self.chance(60)),
            Kind::Room => Action::Room(host, self.below(12)),
            Kind::BackUp => Action::BackUp(host),
            Kind::Restore => Action::Restore(host),
            Kind::Clone => Action::Clone(host),
            Kind::StepClock => {
                let by = self.pick(&[-86_400_000, -5_000, -300, 300, 5_000, 86_400_000, 315_000_000_000]);
                Action::StepClock(host, by)
            }
            Kind::Drift => Action::Drift(host, self.pick(&[-10_000, -50, 50, 10_000])),
            Kind::StopClock => Action::StopClock(host, self.chance(60)),
            Kind::NoPids => Action::NoPids(host, self.chance(50)),
            Kind::SlowStarts => Action::SlowStarts(host, self.span(millis(5_000))),
            Kind::Crash => Action::Crash(self.0.random_range(0..=u64::MAX)),
            Kind::Oom => Action::Oom(self.0.random_range(0..=u64::MAX)),
            Kind::Join => Action::Join(host),
            Kind::Leave => Action::Leave(host),
            Kind::Remove => Action::Remove(host, other),
        }
    }
}
