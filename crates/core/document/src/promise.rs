//! The promise of a deployment stays as it was created.
//!
//! Who may run an `exclusive` replica is decided by its voters. Two sides of a partition that each named others
//! would have two majorities, and two copies; and what was `available` may run on both. So the promise and the
//! voters are read from the event that created the deployment, which is in the past of all that is known of it.
//! Merged groups that say otherwise make no deployment: what runs is kept, and nothing new is started.

use model::{Class, Deployment, GroupError, ReplicasGroup};

/// The deployment, if its promise is that of its creation. `created`: the group `replicas` as it was created.
pub(crate) fn kept(deployment: Deployment, created: Option<&str>) -> Result<Deployment, GroupError> {
    // Nearly all are `available`, then and now: their creation is not read again.
    if !deployment.is_exclusive() && created.is_none_or(|json| !json.contains("exclusive")) {
        return Ok(deployment);
    }
    let Some(created) = created else { return Err(changed("class", "it was created without `replicas`")) };
    let created: ReplicasGroup = serde_json::from_str(created)
        .map_err(|source| GroupError::Malformed { group: "replicas", source })?;
    let now = &deployment.replicas;
    if created.class != now.class {
        let was = match created.class {
            Class::Available => "it was created `available`, and may run more than once already",
            Class::Exclusive => "it was created `exclusive`, and others rely on that",
        };
        return Err(changed("class", was));
    }
    if created.voters != now.voters {
        return Err(changed(
            "voters",
            "the voters that it was created with may have granted leases to others",
        ));
    }
    Ok(deployment)
}

fn changed(field: &'static str, why: &str) -> GroupError {
    let problem =
        format!("cannot be changed: {why}; undo the change, or delete the deployment and make it anew");
    GroupError::Invalid { field, problem }
}
