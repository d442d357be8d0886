//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Capacity, ContainerRecord, Declined, Deployment, ImageRecord, JobEnds, LabelKey, Name, NodeId,
    RecordVersion, Revision,
};

/// One deployment that should run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The deployment; valid (`Deployment::validate` holds).
    pub deployment: &'a Deployment,
    /// The hash of its template, `deployment.revision()`; handed in since it costs a SHA-256.
    pub revision: Revision,
    /// What has ended for good of it, where it is a job.
    pub ends: Option<&'a JobEnds>,
}

/// One member of the roster, as it is seen from here.
#[derive(Clone, Debug)]
pub struct NodeView<'a> {
    /// The version of the record that all of this is from but `ordinal`, `alive`, `accepts_new`, `drains` and
    /// `linked_voters`: with the same one it is the same. `None` where it is not from a record.
    pub said: Option<RecordVersion>,
    /// Its ordinal in deployments of mode `global`, see [`crate::ordinals`].
    pub ordinal: u32,
    /// Its name.
    pub name: &'a Name,
    /// Its labels.
    pub labels: &'a BTreeMap<LabelKey, String>,
    /// What it offers to containers: declared, less its own reserve.
    pub capacity: &'a Capacity,
    /// The version of that capacity; declines said at another version are void.
    pub capacity_version: u64,
    /// Whether it counts as running: up or suspected, or down for less than the grace.
    pub alive: bool,
    /// Whether it takes new work: false while it is cordoned. What it runs stays.
    pub accepts_new: bool,
    /// Why its machine takes no new work for now, in its own words. What it runs stays.
    pub pressure: Option<&'a str>,
    /// Whether what it runs is to move elsewhere. It takes no new work then either.
    pub drains: bool,
    /// Of the voters of exclusive deployments those that it has a live link to, itself among them: a lease is asked
    /// for over links, and nobody passes it on. Sorted.
    pub linked_voters: Vec<NodeId>,
    /// The images that it holds whole.
    pub images: &'a [ImageRecord],
    /// Its claims: what its record says that it runs.
    pub containers: &'a [ContainerRecord],
    /// What it could not run.
    pub declined: &'a [Declined],
}

/// The ordinal of each member in deployments of mode `global`: the first 31 bits of its id, or the next
/// number that is free where two have the same. So it is the same on each island, whoever else is admitted
/// or removed, but for a clash that comes once in a million clusters of sixty nodes.
pub fn ordinals(members: impl IntoIterator<Item = NodeId>) -> BTreeMap<NodeId, u32> {
    let members: BTreeSet<NodeId> = members.into_iter().collect();
    let mut taken = BTreeSet::new();
    let ordinal_of = |id: &NodeId| {
        let bytes = id.as_bytes();
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 1
    };
    members
        .into_iter()
        .map(|id| {
            let mut ordinal = ordinal_of(&id);
            while !taken.insert(ordinal) {
                ordinal = (ordinal + 1) & (u32::MAX >> 1);
            }
            (id, ordinal)
        })
        .collect()
}

/// Everything that a plan depends on.
///
/// The order of `deployments` and of the records does not matter. No two deployments have the same
/// namespace, name and incarnation; if they do, the greater revision counts.
#[derive(Clone, Debug, Default)]
pub struct View<'a> {
    /// What should run.
    pub deployments: Vec<Wanted<'a>>,
    /// The roster with what is known of each member; a member without a record is left out.
    pub nodes: BTreeMap<NodeId, NodeView<'a>>,
    /// The rules to plan by, see [`crate::RULES`].
    pub rules: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_of_one_beginning_have_two_ordinals_whoever_comes_first() {
        let id = |first: u8, last: u8| {
            let mut bytes = [0; 32];
            (bytes[3], bytes[31]) = (first, last);
            NodeId::from_bytes(bytes)
        };
        let members = [id(4, 1), id(5, 2), id(9, 3)];
        let all = ordinals(members);
        assert_eq!(members.map(|it| all[&it]), [2, 3, 4]);
        let turned = ordinals(members.into_iter().rev());
        assert_eq!(turned, all);
        let without = ordinals([id(5, 2), id(9, 3)]);
        assert_eq!((without[&id(5, 2)], without[&id(9, 3)]), (2, 4));
    }
}
