//! The search: every choice at every point, as far as the budget goes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest as _, Sha256};

use super::scope::{Scope, take};
use crate::story::comes_to_rest;
use crate::world::{Cluster, Happening, seed32};

/// What is due within this comes in any order.
const WINDOW: Duration = Duration::from_millis(3);

/// Without a choice for so long the scope is over: what is under way then is heartbeats.
const OVER: Duration = Duration::from_millis(400);

/// For so long nothing may happen at the end of a run: as long as any program takes to be well there.
const QUIET: Duration = Duration::from_millis(100);

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// States that differ.
    pub states: usize,
    /// Runs to the end, each checked.
    pub ends: usize,
    /// Runs that came to a state that was known.
    pub pruned: usize,
    /// Whether every order was tried, up to the depth.
    pub complete: bool,
}

/// Tries the orders of a scope: at most `runs` of them, with at most `depth` choices in each. Where there
/// are more, those that are tried are spread over all of them, alike in each search.
///
/// # Errors
/// The first end that does not hold, with the choices that lead to it and the trace.
pub fn explore(scope: &Scope, depth: usize, runs: usize) -> Result<Explored, String> {
    let mut found = Explored::default();
    let mut search = Search {
        scope,
        depth,
        seen: BTreeSet::new(),
        untried: vec![Vec::new()],
        dice: ChaCha8Rng::from_seed(seed32(0, 0xe8, 0)),
    };
    for _ in 0..runs {
        let Some(begin) = search.next() else { break };
        let mut cluster = scope.begin();
        let (choices, is_end) = search.follow(&mut cluster, &begin);
        if is_end {
            found.ends += 1;
            if let Err(why) = comes_to_rest(&mut cluster, QUIET) {
                let trace = cluster.trace().join("\n");
                return Err(format!("{}: {why}\nchoices {choices:?}\n{trace}", scope.name));
            }
        } else {
            found.pruned += 1;
        }
    }
    found.states = search.seen.len();
    found.complete = search.untried.is_empty();
    Ok(found)
}

/// The choices of a run, from its beginning.
type Path = Vec<u8>;

struct Search<'a> {
    scope: &'a Scope,
    depth: usize,
    seen: BTreeSet<[u8; 32]>,
    /// Beginnings that nobody has followed yet: their last choice is new, all before it are known.
    untried: Vec<Path>,
    dice: ChaCha8Rng,
}

impl Search<'_> {
    /// A beginning to be followed; any of them, so that the early choices are varied as well as the late.
    fn next(&mut self) -> Option<Path> {
        let count = self.untried.len();
        (count > 0).then(|| self.untried.swap_remove(self.dice.random_range(0..count)))
    }

    /// One run; its choices, and whether it came to its end and not to a state that was known. What it
    /// could have chosen otherwise on its way is left for later runs.
    fn follow(&mut self, cluster: &mut Cluster, begin: &[u8]) -> (Path, bool) {
        let mut acts = self.scope.acts.iter();
        let mut path: Path = Vec::new();
        let mut last = cluster.now();
        while path.len() < self.depth {
            let due = cluster.due(WINDOW);
            let act = usize::from(acts.len() > 0);
            let of = (due.len() + act).min(usize::from(u8::MAX));
            if acts.len() == 0 && (of == 0 || cluster.now().since(last) > OVER) {
                break;
            }
            if of < 2 && act == 0 {
                cluster.run_for(WINDOW);
                continue;
            }
            let choice = if let Some(known) = begin.get(path.len()) {
                *known
            } else {
                if !self.seen.insert(state(cluster, acts.len())) {
                    return (path, false);
                }
                let choices = u8::try_from(of).unwrap_or(u8::MAX);
                let drawn = self.dice.random_range(0..choices);
                for other in (0..choices).filter(|other| *other != drawn) {
                    self.untried.push(path.iter().copied().chain([other]).collect());
                }
                drawn
            };
            path.push(choice);
            last = cluster.now();
            let choice = usize::from(choice);
            if choice < act {
                if let Some(act) = acts.next() {
                    take(cluster, *act);
                }
            } else if let Some(due) = due.get(choice - act) {
                cluster.takes(*due);
            }
        }
        for act in acts {
            take(cluster, *act);
        }
        let is_new = self.seen.insert(state(cluster, 0));
        (path, is_new)
    }
}

/// All that decides what can happen from here on.
fn state(cluster: &Cluster, acts_left: usize) -> [u8; 32] {
    let mut text = format!("{acts_left} {:?}", cluster.cuts);
    for host in &cluster.hosts {
        let links: Vec<_> = host.links.keys().collect();
        write!(text, "{:?} {:?} {:?} {links:?}", host.state, host.on_disk, host.kernel).expect("a text");
        write!(text, "{:?} {:?}", host.unsynced, host.allowed).expect("a text");
        let Some(node) = &host.node else { continue };
        let documents = node.documents();
        for doc in documents.docs() {
            write!(text, "{:?}", documents.heads(&doc)).expect("a text");
        }
        let records: Vec<_> = node.records().iter().collect();
        write!(text, "{:?} {:?} {records:?}", node.mine(), node.plan().placements).expect("a text");
        for other in &cluster.hosts {
            write!(text, "{:?}", node.liveness(&other.id)).expect("a text");
        }
    }
    for wire in cluster.wires.values() {
        write!(text, "{:?}", wire.sent).expect("a text");
    }
    text.push_str(&cluster.pending());
    Sha256::digest(text.as_bytes()).into()
}

impl Cluster {
    /// What is due within a while, one of each kind for each place: what must come behind another is
    /// left out. By its number in the queue.
    fn due(&self, within: Duration) -> Vec<u64> {
        let mut all: Vec<_> = self.queue_entries().collect();
        all.sort_unstable_by_key(|entry| (entry.at, entry.order));
        let Some(first) = all.iter().find(|entry| !self.is_stale(entry)) else { return Vec::new() };
        let end = first.at.max(self.now()) + within;
        let mut places = BTreeSet::new();
        let mut due = Vec::new();
        for entry in all.into_iter().filter(|entry| entry.at <= end && !self.is_stale(entry)) {
            let place = match &entry.what {
                Happening::Arrived { link, .. } => (0, entry.host, *link),
                Happening::Synced(_) => (1, entry.host, 0),
                Happening::Wake => (2, entry.host, 0),
                _ => (3, entry.host, entry.order),
            };
            // A datagram more or less is noise: they come in their order, in between.
            if matches!(entry.what, Happening::Datagram { .. }) {
                continue;
            }
            if places.insert(place) {
                due.push(entry.order);
            }
        }
        due
    }

    /// Lets this happen next, at the end of the window.
    fn takes(&mut self, order: u64) {
        self.take_entry(order, WINDOW);
    }
}
