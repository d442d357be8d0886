//! What a deployment waits for before it is started.
//!
//! Names are those of deployments in the same namespace. They are looked for when it is to be started: one that
//! is not there is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::Name;
use crate::deployment::{GroupError, invalid};
use crate::limits::DEPENDENCIES_MAX;

/// How far another deployment must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// One of its replicas runs, or has ended well for good.
    Started,
    /// One of its replicas is well, or has ended well for good.
    Healthy,
    /// All of its replicas have ended well for good, in the revision that is wanted.
    Completed,
}

impl Condition {
    /// The word for it in manifests and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        }
    }
}

/// What a deployment waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependsGroup {
    /// Other deployments of its namespace, and how far each must be; at most [`DEPENDENCIES_MAX`].
    #[serde(default)]
    pub on: BTreeMap<Name, Condition>,
}

impl DependsGroup {
    pub(crate) fn validate(&self, own: &Name) -> Result<(), GroupError> {
        if self.on.len() > DEPENDENCIES_MAX {
            return Err(invalid(
                "depends-on",
                format!("{} deployments, the limit is {DEPENDENCIES_MAX}", self.on.len()),
            ));
        }
        if self.on.contains_key(own) {
            return Err(invalid("depends-on", format!("`{own}` waits for itself: {own} -> {own}")));
        }
        Ok(())
    }
}

/// Who waits for whom in one namespace.
pub type Dependencies<'a> = BTreeMap<&'a Name, BTreeSet<&'a Name>>;

/// Those that are in a cycle, or wait for one that is: all that is left when whoever waits for nobody is taken
/// away again and again.
fn never_free<'a>(all: &Dependencies<'a>) -> BTreeSet<&'a Name> {
    let mut waiters: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    let mut open: BTreeMap<&Name, usize> = BTreeMap::new();
    for (name, on) in all {
        // Whoever is not there, or says nothing of others, waits for nobody.
        let on = on.iter().filter(|other| all.contains_key(*other));
        open.insert(*name, on.clone().count());
        for other in on {
            waiters.entry(*other).or_default().push(*name);
        }
    }
    let mut free: Vec<&Name> = open.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(name) = free.pop() {
        open.remove(name);
        for waiter in waiters.get(name).into_iter().flatten() {
            if let Some(count) = open.get_mut(waiter) {
                *count -= 1;
                if *count == 0 {
                    free.push(*waiter);
                }
            }
        }
    }
    open.into_keys().collect()
}

/// The shortest way from one to another along who waits for whom, both included; of two the first by name.
fn way<'a>(
    all: &Dependencies<'a>,
    among: &BTreeSet<&'a Name>,
    from: &'a Name,
    to: &Name,
) -> Option<Vec<&'a Name>> {
    let mut before: BTreeMap<&Name, &'a Name> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front() {
        if at == to {
            let mut back = vec![at];
            while let Some(earlier) = back.last().filter(|it| **it != from).and_then(|it| before.get(*it)) {
                back.push(*earlier);
            }
            back.reverse();
            return Some(back);
        }
        for other in all.get(at).into_iter().flatten().filter(|other| among.contains(*other)) {
            if *other != from && !before.contains_key(*other) {
                before.insert(*other, at);
                next.push_back(*other);
            }
        }
    }
    None
}

/// For each one that waits for another which, perhaps by way of more, waits for the first: that cycle, which
/// begins and ends with the first. The same for everybody who has the same deployments.
pub fn cycles<'a>(all: &Dependencies<'a>) -> BTreeMap<(&'a Name, &'a Name), Vec<&'a Name>> {
    let among = never_free(all);
    let mut cycles = BTreeMap::new();
    for name in &among {
        for other in all.get(name).into_iter().flatten().filter(|other| among.contains(*other)) {
            if let Some(way) = way(all, &among, other, name) {
                cycles.insert((*name, *other), std::iter::once(*name).chain(way).collect());
            }
        }
    }
    cycles
}

/// A cycle in words: `a -> b -> a`.
pub fn cycle_in_words<'a>(cycle: impl IntoIterator<Item = &'a Name>) -> String {
    cycle.into_iter().map(Name::as_str).collect::<Vec<_>>().join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(of: &[(&str, &[&str])]) -> Vec<String> {
        let names: Vec<(Name, Vec<Name>)> = of
            .iter()
            .map(|(name, on)| (name.parse().unwrap(), on.iter().map(|it| it.parse().unwrap()).collect()))
            .collect();
        let all: Dependencies<'_> = names.iter().map(|(name, on)| (name, on.iter().collect())).collect();
        cycles(&all).values().map(|cycle| cycle_in_words(cycle.iter().copied())).collect()
    }

    #[test]
    fn a_cycle_is_told_from_each_of_its_members_and_by_its_shortest_way() {
        assert_eq!(told(&[("a", &["b"]), ("b", &["a"])]), ["a -> b -> a", "b -> a -> b"]);
        assert_eq!(
            told(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &["a"]), ("d", &["c"])]),
            [
                "a -> b -> c -> a",
                "b -> c -> a -> b",
                "b -> d -> c -> a -> b",
                "c -> a -> b -> c",
                "d -> c -> a -> b -> d"
            ]
        );
    }

    #[test]
    fn who_waits_for_a_cycle_and_whom_it_waits_for_is_in_none() {
        assert_eq!(
            told(&[("web", &["a"]), ("a", &["b", "db"]), ("b", &["a"]), ("db", &["disk"])]),
            ["a -> b -> a", "b -> a -> b"]
        );
        assert!(told(&[("web", &["db", "cache"]), ("cache", &["db"]), ("db", &[])]).is_empty());
    }
}
