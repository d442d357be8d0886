//! The placements of a plan, deployment by deployment.
//!
//! A plan is walked far more often than it is looked up in, and one deployment is replaced as a whole, so the
//! replicas of a deployment lie side by side and its name is kept once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use model::ReplicaId;

use crate::Placement;
use crate::cache::Key;

/// What each wanted replica should do, in canonical order: by namespace, deployment, creation and ordinal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Placements {
    /// By ordinal; none is empty.
    by_deployment: BTreeMap<Arc<Key>, Vec<(u32, Placement)>>,
}

impl Placements {
    /// What a replica should do, if it is wanted.
    pub fn get(&self, replica: &ReplicaId) -> Option<&Placement> {
        let all = self.by_deployment.get(&Key::of_replica(replica))?;
        let at = all.binary_search_by_key(&replica.ordinal, |(ordinal, _)| *ordinal).ok()?;
        Some(&all[at].1)
    }

    /// Whether a replica is wanted.
    pub fn contains(&self, replica: &ReplicaId) -> bool {
        self.get(replica).is_some()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Placement)> {
        self.of(|_| true)
    }

    /// Those whose placement is such.
    pub fn of(&self, is_such: impl Fn(&Placement) -> bool) -> impl Iterator<Item = (ReplicaId, &Placement)> {
        self.by_deployment
            .iter()
            .flat_map(|(key, all)| all.iter().map(move |(ordinal, placement)| (key, *ordinal, placement)))
            .filter(move |(.., placement)| is_such(placement))
            .map(|(key, ordinal, placement)| (key.replica(ordinal), placement))
    }

    /// The replicas that are wanted.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> {
        self.iter().map(|(replica, _)| replica)
    }

    /// What they should do.
    pub fn values(&self) -> impl Iterator<Item = &Placement> {
        self.by_deployment.values().flatten().map(|(_, placement)| placement)
    }

    /// How many replicas are wanted.
    pub fn len(&self) -> usize {
        self.by_deployment.values().map(Vec::len).sum()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.by_deployment.is_empty()
    }

    /// Those of one deployment, by ordinal.
    pub(crate) fn of_key_mut(&mut self, key: &Arc<Key>) -> &mut Vec<(u32, Placement)> {
        self.by_deployment.entry(Arc::clone(key)).or_default()
    }

    /// Of a deployment that wants nothing, nothing is kept.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.by_deployment.remove(key);
    }
}

impl Index<&ReplicaId> for Placements {
    type Output = Placement;

    /// # Panics
    /// When the replica is not wanted.
    fn index(&self, replica: &ReplicaId) -> &Placement {
        self.get(replica).expect("a replica that is wanted")
    }
}

impl fmt::Debug for Placements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
