//! At most one: which nodes vote on who runs a replica, and what a voter keeps of that.
//!
//! The voters of a deployment are named when it is created and stay: docs/decisions/0019. They are apart from
//! the roster, so that who is a member and who decides change apart from each other.

use serde::{Deserialize, Serialize};

use crate::deployment::{GroupError, invalid};
use crate::limits::{EXCLUSIVE_REPLICAS_MAX, VOTERS_MAX};
use crate::{Class, ContainerId, Deployment, Mode, NodeId, ReplicaId, Strategy};

/// How many of so many voters must grant a lease: two such sets share one of them.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// What a voter has granted last for one replica; on its disk before it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseGrant {
    /// The replica.
    pub replica: ReplicaId,
    /// The fence token.
    pub number: u64,
    /// The greatest number that was granted for it: that one, or one that was given back or has run out.
    pub highest: u64,
    /// Who may run it.
    pub holder: NodeId,
    /// As which container.
    pub container: ContainerId,
    /// For how long from each renewal on, in milliseconds.
    pub term_ms: u32,
}

impl Deployment {
    /// Whether at most one copy of each replica may run, anywhere.
    pub fn is_exclusive(&self) -> bool {
        self.replicas.class == Class::Exclusive
    }

    /// Checks the promise, and that everything else of the deployment lets it be kept.
    pub(crate) fn validate_promise(&self) -> Result<(), GroupError> {
        let voters = &self.replicas.voters;
        if !self.is_exclusive() {
            if voters.is_empty() {
                return Ok(());
            }
            return Err(invalid("voters", "only `class: exclusive` has voters; leave them out, or say it"));
        }
        if voters.len() != 1 && !(3..=VOTERS_MAX).contains(&voters.len()) {
            let count = voters.len();
            let problem =
                format!("{count} named, use one or 3 to {VOTERS_MAX}: of two, each is one too many");
            return Err(invalid("voters", problem));
        }
        if voters.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(invalid("voters", "each node once, in the order of their ids"));
        }
        if self.replicas.count > EXCLUSIVE_REPLICAS_MAX {
            let count = self.replicas.count;
            return Err(invalid(
                "replicas",
                format!("{count} asked of `class: exclusive`, the limit is {EXCLUSIVE_REPLICAS_MAX}"),
            ));
        }
        if self.replicas.mode == Mode::Global {
            return Err(invalid("class", "`exclusive` in mode `global`, which runs one on each node"));
        }
        if self.job.is_some() {
            return Err(invalid("class", "`exclusive` for a job: only services can be, so far"));
        }
        if self.update.strategy == Strategy::BlueGreen {
            return Err(invalid("update.strategy", "`blue-green` runs old and new at once; use `rolling`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_share_a_voter() {
        for voters in 1..=VOTERS_MAX {
            assert!(2 * majority(voters) > voters, "{voters}");
            assert!(majority(voters) <= voters, "{voters}");
        }
    }
}
