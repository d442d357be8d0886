//! Which packets between which nodes are lost. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Loss at which nothing arrives.
pub const LOSS_PER_MILLE_MAX: u16 = 1000;

/// Why cuts make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutsError {
    /// A node that the lab does not have.
    #[error("there is no node `{node}` in the lab")]
    UnknownNode {
        /// Its name.
        node: String,
    },
    /// A node in two groups of one partition.
    #[error("node `{node}` is in more than one group")]
    InTwoGroups {
        /// Its name.
        node: String,
    },
    /// A node cut off from itself: loopback is not a link of the lab.
    #[error("node `{node}` cannot be cut off from itself")]
    Itself {
        /// Its name.
        node: String,
    },
    /// More than all packets.
    #[error("a loss of {per_mille} per mille is more than all, the limit is {LOSS_PER_MILLE_MAX}")]
    Loss {
        /// What was asked.
        per_mille: u16,
    },
}

/// Directed pairs of nodes whose packets are dropped, all or some. Pairs not named are untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Sender and receiver to the share of packets lost, in thousandths, 1 to 1000.
    loss: BTreeMap<(String, String), u16>,
}

impl Cuts {
    /// No cuts: applying them heals everything.
    pub fn none() -> Self {
        Self::default()
    }

    /// Also drops everything from one node to another; the way back stays as it is.
    #[must_use]
    pub fn and_one_way(mut self, from: &str, to: &str) -> Self {
        self.loss.insert((from.to_owned(), to.to_owned()), LOSS_PER_MILLE_MAX);
        self
    }

    /// Also drops everything between two nodes.
    #[must_use]
    pub fn and_both_ways(self, a: &str, b: &str) -> Self {
        self.and_one_way(a, b).and_one_way(b, a)
    }

    /// Also drops everything between a node and each of the others.
    #[must_use]
    pub fn and_isolated<'a>(self, node: &str, others: impl IntoIterator<Item = &'a str>) -> Self {
        others
            .into_iter()
            .filter(|other| *other != node)
            .fold(self, |cuts, other| cuts.and_both_ways(node, other))
    }

    /// Also loses `per_mille` of a thousand packets from one node to another, by chance. Takes the
    /// place of what was said of this pair before; 0 takes it back.
    pub fn and_loss(mut self, from: &str, to: &str, per_mille: u16) -> Result<Self, CutsError> {
        if per_mille > LOSS_PER_MILLE_MAX {
            return Err(CutsError::Loss { per_mille });
        }
        let pair = (from.to_owned(), to.to_owned());
        if per_mille == 0 {
            self.loss.remove(&pair);
        } else {
            self.loss.insert(pair, per_mille);
        }
        Ok(self)
    }

    /// Both sets together; where both name a pair, the greater loss counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (pair, per_mille) in other.loss {
            let entry = self.loss.entry(pair).or_insert(per_mille);
            *entry = per_mille.max(*entry);
        }
        self
    }

    /// Whether nothing is dropped.
    pub fn is_empty(&self) -> bool {
        self.loss.is_empty()
    }

    /// Thousandths of the packets from one node to another that are lost, 0 to 1000.
    pub fn loss(&self, from: &str, to: &str) -> u16 {
        self.loss.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or(0)
    }

    /// Every pair with its loss: sender, receiver, thousandths.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, u16)> {
        self.loss.iter().map(|((from, to), per_mille)| (from.as_str(), to.as_str(), *per_mille))
    }

    /// Checks that every pair is of two nodes of the lab.
    pub(crate) fn check(&self, nodes: &BTreeSet<&str>) -> Result<(), CutsError> {
        for (from, to, _) in self.pairs() {
            if let Some(node) = [from, to].into_iter().find(|node| !nodes.contains(node)) {
                return Err(CutsError::UnknownNode { node: node.to_owned() });
            }
            if from == to {
                return Err(CutsError::Itself { node: from.to_owned() });
            }
        }
        Ok(())
    }
}

/// Cuts every link between nodes of different groups. A node in no group reaches everybody: that
/// is a bridge between the groups.
pub fn partition(groups: &[Vec<String>]) -> Result<Cuts, CutsError> {
    let mut seen = BTreeSet::new();
    for node in groups.iter().flatten() {
        if !seen.insert(node) {
            return Err(CutsError::InTwoGroups { node: node.clone() });
        }
    }
    let mut cuts = Cuts::none();
    for (i, group) in groups.iter().enumerate() {
        for other in &groups[i + 1..] {
            for a in group {
                for b in other {
                    cuts = cuts.and_both_ways(a, b);
                }
            }
        }
    }
    Ok(cuts)
}

/// Drops everything from one node to another; the way back stays open.
pub fn one_way(from: &str, to: &str) -> Cuts {
    Cuts::none().and_one_way(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_partition_cuts_both_ways_between_groups_and_nothing_within() {
        let cuts = partition(&[group("a"), group("b c")]).unwrap();
        let pairs: Vec<_> = cuts.pairs().collect();
        assert_eq!(pairs, [("a", "b", 1000), ("a", "c", 1000), ("b", "a", 1000), ("c", "a", 1000)]);
    }

    #[test]
    fn a_node_in_no_group_is_a_bridge_between_them() {
        let cuts = partition(&[group("a"), group("b")]).unwrap();
        assert_eq!(cuts.loss("a", "b"), 1000);
        assert_eq!((cuts.loss("bridge", "a"), cuts.loss("b", "bridge")), (0, 0));
    }

    #[test]
    fn a_node_in_two_groups_is_refused_by_name() {
        let error = partition(&[group("a b"), group("b c")]).unwrap_err();
        assert_eq!(error, CutsError::InTwoGroups { node: "b".into() });
        assert!(partition(&[group("a a")]).is_err());
    }

    #[test]
    fn one_way_leaves_the_way_back_open() {
        let cuts = one_way("a", "b");
        assert_eq!((cuts.loss("a", "b"), cuts.loss("b", "a")), (1000, 0));
    }

    #[test]
    fn an_isolated_node_is_cut_off_from_all_others_and_not_from_itself() {
        let cuts = Cuts::none().and_isolated("a", ["a", "b", "c"]);
        assert_eq!(cuts, partition(&[group("a"), group("b c")]).unwrap());
    }

    #[test]
    fn loss_is_checked_replaced_and_taken_back() {
        let cuts = Cuts::none().and_loss("a", "b", 100).unwrap().and_loss("a", "b", 200).unwrap();
        assert_eq!(cuts.loss("a", "b"), 200);
        assert_eq!(cuts.clone().and(one_way("a", "b")).loss("a", "b"), 1000);
        assert!(cuts.and_loss("a", "b", 0).unwrap().is_empty());
        assert_eq!(Cuts::none().and_loss("a", "b", 1001), Err(CutsError::Loss { per_mille: 1001 }));
    }

    #[test]
    fn cuts_that_name_a_stranger_or_one_node_twice_are_refused() {
        let nodes = BTreeSet::from(["a", "b"]);
        assert_eq!(one_way("a", "b").check(&nodes), Ok(()));
        assert_eq!(one_way("a", "z").check(&nodes), Err(CutsError::UnknownNode { node: "z".into() }));
        assert_eq!(one_way("a", "a").check(&nodes), Err(CutsError::Itself { node: "a".into() }));
    }
}
