//! How jobs stand, in the shapes that programs read.

use api::shapes::{JobFailure, JobRow, JobState};
use model::{ContainerRecord, JobEnds};
use node::{Desired, Node};

/// How a job stands, with its containers on nodes that are there; `None` where it is none.
pub(crate) fn row(node: &Node, desired: &Desired, containers: &[&ContainerRecord]) -> Option<JobRow> {
    let job = desired.deployment.job?;
    let completions = desired.deployment.replicas.count;
    let nothing = JobEnds::default();
    let ends = node.ends_of(desired).unwrap_or(&nothing);
    let succeeded = ends.done_of(completions);
    let runs = |it: &&&ContainerRecord| it.revision == desired.revision && planner::holds_capacity(it.state);
    let running = u32::try_from(containers.iter().filter(runs).count()).unwrap_or(u32::MAX);
    let state = if succeeded == completions {
        JobState::Completed
    } else if ends.has_failed(completions) {
        JobState::Failed
    } else if running > 0 || succeeded > 0 {
        JobState::Running
    } else {
        JobState::Waiting
    };
    let failures = ends.failures_of(completions).map(|(ordinal, run)| JobFailure {
        ordinal,
        node: node.name_of(&run.node),
        reason: run.reason.clone(),
    });
    Some(JobRow {
        completions,
        parallelism: job.parallelism,
        retries: job.retries,
        deadline_s: job.deadline_s,
        succeeded,
        running,
        state,
        failures: failures.collect(),
        overdue: ends.overdue && state == JobState::Failed,
    })
}

/// Why a replica that was not started never will be.
pub(crate) fn given_up(node: &Node, desired: &Desired) -> String {
    let completions = desired.deployment.replicas.count;
    match node.ends_of(desired).and_then(|ends| ends.failures_of(completions).next()) {
        Some((ordinal, run)) => {
            format!("not started: replica {ordinal} failed on {}: {}", node.name_of(&run.node), run.reason)
        }
        None => "not started: the time of its job is over".to_owned(),
    }
}
