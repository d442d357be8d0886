//! Why a replica that is wanted may run nowhere at rest: each reason that a plan has is held against what the
//! kernels run, or have run.

use model::{Condition, ReplicaId};
use node::{Desired, Node};
use planner::Placement;

use super::check::has_a_majority;
use crate::world::Cluster;

/// The first member's peer, and the deployment of a replica as it has it.
fn asked<'a>(
    cluster: &'a Cluster,
    members: &[usize],
    replica: &ReplicaId,
) -> Result<(&'a Node, &'a Desired), String> {
    let node = members.first().and_then(|host| cluster.node(*host)).ok_or("the first member does not run")?;
    let key = (replica.namespace.clone(), replica.deployment.clone());
    let desired = node.desired().get(&key).ok_or("a plan for a deployment that is not there")?;
    Ok((node, desired))
}

/// Holds "there is no room" against what the kernels use.
pub(super) fn no_room(cluster: &Cluster, members: &[usize], replica: &ReplicaId) -> Result<(), String> {
    let (_, desired) = asked(cluster, members, replica)?;
    let said = &desired.deployment.resources;
    let asked = said.as_capacity();
    // One that is short of something takes nothing, however much is free.
    let takes = |host: &usize| !cluster.may_be_short(*host);
    let fits = |host: &usize| cluster.hosts[*host].offers.less(&cluster.used(*host)).holds(&asked);
    // One voter runs all of it, or nobody; of several a majority must be there.
    let voters = &desired.deployment.replicas.voters;
    let may = |host: &usize| match voters.as_slice() {
        [] => true,
        [home] => *home == cluster.id(*host),
        voters => has_a_majority(cluster, members, *host, voters),
    };
    match members.iter().copied().filter(takes).filter(may).find(fits) {
        Some(host) => Err(format!("{replica:?} is not run, and n{} has room for it", host + 1)),
        None => Ok(()),
    }
}

/// Of a job: it ended well somewhere.
pub(super) fn has_ended(cluster: &Cluster, members: &[usize], replica: &ReplicaId) -> Result<(), String> {
    let (_, desired) = asked(cluster, members, replica)?;
    if cluster.check.work.has_ended(desired, replica.ordinal) {
        return Ok(());
    }
    Err(format!("{replica:?} counts as done, and has ended well on no machine"))
}

/// Of a job: a run of it failed for good, or its time is over.
pub(super) fn was_given_up(cluster: &Cluster, members: &[usize], replica: &ReplicaId) -> Result<(), String> {
    let (_, desired) = asked(cluster, members, replica)?;
    let deadline = desired.deployment.job.and_then(|job| job.deadline_s);
    let is_over = deadline.is_some_and(|seconds| cluster.now().as_millis() / 1_000 >= seconds.into());
    if is_over || cluster.check.work.has_been_given_up(desired) {
        return Ok(());
    }
    Err(format!("{replica:?} is not run any more, and no run of its job has failed for good"))
}

/// Of a job: as many of it as may run at a time.
pub(super) fn has_no_turn(cluster: &Cluster, members: &[usize], replica: &ReplicaId) -> Result<(), String> {
    let (node, desired) = asked(cluster, members, replica)?;
    let at_a_time = desired.deployment.job.map_or(0, |job| job.parallelism as usize);
    let is_of_it = |it: &ReplicaId| {
        it.deployment == replica.deployment
            && it.incarnation == replica.incarnation
            && it.ordinal < desired.deployment.replicas.count
    };
    let kernels = members.iter().flat_map(|host| cluster.hosts[*host].kernel.values());
    let running = kernels.filter(|it| it.pid.is_some() && is_of_it(&it.claim.replica)).count();
    let placements = node.plan().placements.iter();
    let unplaced = placements
        .filter(|(it, placement)| matches!(placement, Placement::Unplaced { .. }) && is_of_it(it))
        .count();
    if running + unplaced >= at_a_time {
        return Ok(());
    }
    Err(format!("{replica:?} has no turn, and {running} run of {at_a_time} at a time"))
}

/// Something that its deployment depends on is not as far as it asks; `updates` where that has to be completed.
pub(super) fn waits_for_others(
    cluster: &Cluster,
    members: &[usize],
    replica: &ReplicaId,
    updates: bool,
) -> Result<(), String> {
    let (node, desired) = asked(cluster, members, replica)?;
    let unmet = cluster.waits_by_kernels(members, node, desired);
    if unmet.iter().any(|(_, condition)| !updates || *condition == Condition::Completed) {
        return Ok(());
    }
    Err(format!("{replica:?} waits, and all that it depends on is as far as it asks"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{JobGroup, RestartPolicy};

    use super::*;
    use crate::author::Spec;
    use crate::world::Settings;

    #[test]
    fn no_reason_is_taken_where_the_kernels_say_otherwise() {
        let mut cluster = Cluster::new(5, 2, Settings::default());
        cluster.run_for(Duration::from_secs(2));
        let mut spec = Spec::new(2);
        spec.restart.policy = RestartPolicy::Never;
        spec.job = Some(JobGroup { parallelism: 3, retries: 0, deadline_s: None });
        cluster.apply(0, "web", &spec);
        cluster.run_for(Duration::from_secs(5));
        let (_, container) = cluster.running(0).next().expect("each machine runs one");
        let replica = container.claim.replica.clone();
        let all = [0, 1];
        let taken = [
            no_room(&cluster, &all, &replica),
            has_ended(&cluster, &all, &replica),
            was_given_up(&cluster, &all, &replica),
            has_no_turn(&cluster, &all, &replica),
            waits_for_others(&cluster, &all, &replica, false),
        ];
        assert!(taken.iter().all(Result::is_err), "{taken:?}");
        for (host, id, _) in cluster.processes() {
            let code = i32::from(host == 1);
            cluster.crash_container(host, id, code);
        }
        assert_eq!(has_ended(&cluster, &all, &replica), Ok(()));
        assert_eq!(was_given_up(&cluster, &all, &replica), Ok(()));
    }
}
