//! The search: every choice at every point, as far as the budget goes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::scope::{Scope, take};
use crate::story::{Ending, ends};
use crate::world::{Cluster, Happening};

/// What is due within this comes in any order.
const WINDOW: Duration = Duration::from_millis(3);

/// Without a choice for so long the scope is over: what is under way then is heartbeats.
const OVER: Duration = Duration::from_millis(400);

/// For so long nothing may happen at the end of a run.
const QUIET: Duration = Duration::from_secs(1);

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

/// One point of a run.
#[derive(Clone, Copy, Debug)]
struct Choice {
    taken: usize,
    of: usize,
}

/// Tries the orders of a scope: at most `runs` of them, with at most `depth` choices in each.
///
/// # Errors
/// The first end that does not hold, with the choices that lead to it and the trace.
pub fn explore(scope: &Scope, depth: usize, runs: usize) -> Result<Explored, String> {
    let mut found = Explored::default();
    let mut seen: BTreeSet<[u8; 32]> = BTreeSet::new();
    let mut path: Vec<Choice> = Vec::new();
    for _ in 0..runs {
        let known = path.len();
        let mut cluster = scope.begin();
        if follow(scope, &mut cluster, &mut path, known, depth, &mut seen) {
            found.ends += 1;
            if let Err(why) = ends(&mut cluster, &Ending::Calm, QUIET) {
                let choices: Vec<usize> = path.iter().map(|choice| choice.taken).collect();
                let trace = cluster.trace().join("\n");
                return Err(format!("{}: {why}\nchoices {choices:?}\n{trace}", scope.name));
            }
        } else {
            found.pruned += 1;
        }
        found.states = seen.len();
        // The last point with an order that was not tried.
        while path.last().is_some_and(|choice| choice.taken + 1 >= choice.of) {
            path.pop();
        }
        let Some(choice) = path.last_mut() else {
            found.complete = true;
            break;
        };
        choice.taken += 1;
    }
    Ok(found)
}

/// One run; whether it came to its end, and not to a state that was known.
fn follow(
    scope: &Scope,
    cluster: &mut Cluster,
    path: &mut Vec<Choice>,
    known: usize,
    depth: usize,
    seen: &mut BTreeSet<[u8; 32]>,
) -> bool {
    let mut acts = scope.acts.iter();
    let mut at = 0;
    let mut last = cluster.now();
    while at < depth {
        let due = cluster.due(WINDOW);
        let act = usize::from(acts.len() > 0);
        let of = due.len() + act;
        if acts.len() == 0 && (of == 0 || cluster.now().since(last) > OVER) {
            break;
        }
        if of < 2 && act == 0 {
            cluster.run_for(WINDOW);
            continue;
        }
        if at >= path.len() {
            path.push(Choice { taken: 0, of });
        }
        // The choice that leads to a known state is taken back by the caller.
        if at + 1 >= known && !seen.insert(state(cluster, acts.len())) && at >= known {
            path.truncate(at);
            return false;
        }
        let choice = path[at].taken;
        at += 1;
        last = cluster.now();
        if choice < act {
            if let Some(act) = acts.next() {
                take(cluster, *act);
            }
        } else {
            cluster.takes(due[choice - act]);
        }
    }
    for act in acts {
        take(cluster, *act);
    }
    seen.insert(state(cluster, 0))
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
