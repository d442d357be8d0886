//! What a network does to packets beside cutting them off: late, twice, clogged, narrow, flapping.

use std::collections::BTreeSet;
use std::time::Duration;

use model::Time;
use rand::RngExt;

use crate::check::rules;
use crate::world::{Cluster, Happening};

/// How likely the world does what nobody asked it to. All zero unless a story says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// Datagrams that come late, behind others that were sent after them, in thousandths.
    pub late: u32,
    /// How late at most.
    pub late_by: Duration,
    /// Datagrams that come twice, in thousandths.
    pub twice: u32,
    /// Bytes a second of each link in each direction; 0 is a link without bound.
    pub bytes_per_s: u64,
    /// Syncs of a disk that take a second, in thousandths.
    pub slow_syncs: u32,
    /// Syncs that fail, in hundred-thousandths: the journal takes nothing more until the peer is
    /// started again, and what it was given may be found then.
    pub failed_syncs: u32,
    /// Programs that do not end when they are asked to, in thousandths: they are killed after ten
    /// seconds.
    pub deaf: u32,
}

/// A sync behind a burst of writes on a worn card.
pub(crate) const SLOW_SYNC: Duration = Duration::from_secs(1);

/// How long a program that does not end is waited for.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A cut that comes and goes.
#[derive(Clone, Debug)]
pub(crate) struct Flap {
    pairs: Vec<(usize, usize)>,
    half: Duration,
    until: Time,
    down: bool,
}

impl Cluster {
    /// How much later than it should a datagram comes.
    pub(crate) fn late(&mut self) -> Duration {
        let Odds { late, late_by, .. } = self.settings.odds;
        if late == 0 || self.rng.random_range(0..1_000) >= late {
            return Duration::ZERO;
        }
        self.between((Duration::ZERO, late_by))
    }

    /// How often a datagram comes.
    pub(crate) fn times_that_it_comes(&mut self) -> u32 {
        let twice = self.settings.odds.twice;
        1 + u32::from(twice > 0 && self.rng.random_range(0..1_000) < twice)
    }

    /// For how long still nothing moves from one machine to another.
    pub(crate) fn clogged(&self, from: usize, to: usize) -> Duration {
        self.clogs.get(&(from, to)).map_or(Duration::ZERO, |until| until.since(self.now))
    }

    /// Nothing moves from one machine to another for a while; then everything comes.
    pub fn clog(&mut self, from: usize, to: usize, span: Duration) {
        self.tell(format!("n{} -> n{} is clogged for {span:?}", from + 1, to + 1));
        let until = self.now + span;
        self.disturb();
        self.clogs.insert((from, to), until);
    }

    /// Datagrams that one link loses in one direction, in thousandths, on top of what all lose.
    pub fn lose_on(&mut self, from: usize, to: usize, loss: u32) {
        self.tell(format!("n{} -> n{} loses {loss} of 1,000", from + 1, to + 1));
        self.losses.insert((from, to), loss);
    }

    /// Changes what the world does by itself from now on.
    pub fn set_odds(&mut self, odds: Odds) {
        self.settings.odds = odds;
    }

    /// Each machine reaches only its two neighbours in a ring.
    pub fn ring(&mut self) {
        self.tell("only neighbours in the ring n1, n2, ... reach each other");
        let count = self.hosts.len();
        let near = |a: usize, b: usize| (a + 1) % count == b || (b + 1) % count == a;
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let cuts: BTreeSet<(usize, usize)> = pairs.filter(|(a, b)| a != b && !near(*a, *b)).collect();
        self.set_cuts(cuts);
    }

    /// These machines reach only the one before and the one behind them, in this order; the others all.
    pub fn line(&mut self, order: &[usize]) {
        let names: Vec<String> = order.iter().map(|host| format!("n{}", host + 1)).collect();
        self.tell(format!("{} reach their neighbours only", names.join(" - ")));
        self.set_cuts(rules::beyond_neighbours(order));
    }

    /// Cuts these pairs and lets them pass again, each for `half`, until `span` is over. Begins with
    /// the cut, ends with everything passing.
    pub fn flap(&mut self, pairs: Vec<(usize, usize)>, half: Duration, span: Duration) {
        let words: Vec<String> = pairs.iter().map(|(a, b)| format!("n{}->n{}", a + 1, b + 1)).collect();
        self.tell(format!("{} come and go every {half:?} for {span:?}", words.join(" ")));
        let until = self.now + span;
        self.flaps.push(Flap { pairs, half, until, down: false });
        self.flips(self.flaps.len() - 1);
    }

    /// Ends all flapping.
    pub(crate) fn end_flaps(&mut self) {
        for flap in &mut self.flaps {
            flap.until = self.now;
        }
        self.flapped.clear();
        self.links_follow();
    }

    /// A cut that comes and goes does so.
    pub(crate) fn flips(&mut self, which: usize) {
        let now = self.now;
        let Some(flap) = self.flaps.get_mut(which) else { return };
        flap.down = !flap.down && now < flap.until;
        let (goes_on, half) = (now < flap.until, flap.half);
        self.flapped = self
            .flaps
            .iter()
            .filter(|it| it.down && now < it.until)
            .flat_map(|it| it.pairs.clone())
            .collect();
        self.links_follow();
        if goes_on {
            self.at(half, 0, Happening::Flips(which));
        }
    }
}
