//! `node cordon`, `node drain`, `node uncordon`: whether a node takes work.

use std::time::{Duration, Instant};

use api::shapes::{NodeRow, NodeSchedule, NodeState, PsRow, PsState};
use api::{Client, routes};
use document::event::{DRAIN_SECONDS_MAX, Kind, NodeSchedule as Said, Schedule};
use model::NodeId;

use super::node::find;
use crate::Context;
use crate::args::parse_duration;
use crate::author::submit_cluster;
use crate::error::{CliError, Exit};
use crate::keys;

/// How often it is looked whether a node is empty.
const POLL: Duration = Duration::from_millis(100);

/// Name a node
#[derive(Debug, clap::Args)]
pub(crate) struct ScheduleArgs {
    /// Its name, or the beginning of its id
    pub(crate) node: String,
}

/// Drain a node
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Its name, or the beginning of its id
    node: String,
    /// Stop what has not moved after so long, like 90s, 10m or 2h; without it nothing is stopped that runs
    /// nowhere else
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    deadline: Option<u32>,
    /// Do not wait until it is empty
    #[arg(long)]
    detach: bool,
    /// Even if no other node takes work
    #[arg(long)]
    force: bool,
}

/// Whole seconds, as events have them.
fn parse_deadline(text: &str) -> Result<u32, String> {
    let span = parse_duration(text)?;
    let seconds = u32::try_from(span.as_secs()).ok().filter(|it| (1..=DRAIN_SECONDS_MAX).contains(it));
    match seconds {
        Some(seconds) if span.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(format!("`{text}` is no deadline, use whole seconds, 1s to {}h", DRAIN_SECONDS_MAX / 3_600)),
    }
}

/// The word beside a node's state; nothing where it takes work.
pub(crate) const fn schedule_word(schedule: NodeSchedule) -> Option<&'static str> {
    match schedule {
        NodeSchedule::Normal => None,
        NodeSchedule::Cordoned => Some("cordoned"),
        NodeSchedule::Drained => Some("drained"),
    }
}

/// Signs what a node is to do.
pub(crate) async fn say(
    client: &Client,
    context: &Context,
    rows: &[NodeRow],
    node: &str,
    schedule: Schedule,
) -> Result<(), CliError> {
    let row = find(rows, node)?;
    let submitted = submit(client, context, row, schedule, None).await?;
    let what = match schedule {
        Schedule::Normal => "takes work again",
        Schedule::Cordoned => "takes no new work; what it runs stays",
        Schedule::Drained => "is being drained",
    };
    context.out.answer(&submitted, || format!("{} {what}", row.name))
}

async fn submit(
    client: &Client,
    context: &Context,
    row: &NodeRow,
    schedule: Schedule,
    deadline_s: Option<u32>,
) -> Result<api::shapes::Submitted, CliError> {
    if row.state == NodeState::Removed {
        return Err(CliError::new("removed", format!("{} was removed from the cluster", row.name)));
    }
    let node: NodeId =
        row.id.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let key = keys::load(context.globals.key.as_deref())?;
    submit_cluster(client, &key, Kind::NodeSchedule(Said { node, schedule, deadline_s })).await
}

/// Drains a node and waits until it is empty.
pub(crate) async fn drain(
    client: &Client,
    context: &Context,
    rows: &[NodeRow],
    args: &DrainArgs,
) -> Result<(), CliError> {
    let row = find(rows, &args.node)?;
    let takes_work = |other: &&NodeRow| {
        other.id != row.id && other.state == NodeState::Up && other.schedule == NodeSchedule::Normal
    };
    if !args.force && !rows.iter().any(|other| takes_work(&other)) {
        return Err(CliError::new(
            "last-node",
            format!("no other node is up and takes work: what {} runs has nowhere to go", row.name),
        )
        .hint(format!(
            "bring another one up, or run `skerry node drain {} --force`: what runs stays until one takes it, or until --deadline",
            args.node
        )));
    }
    let submitted = submit(client, context, row, Schedule::Drained, args.deadline).await?;
    if !args.detach {
        wait_until_empty(client, context, row).await?;
    }
    let words = if args.detach { "is being drained" } else { "is empty, and takes no new work" };
    context.out.answer(&submitted, || format!("{} {words}", row.name))
}

/// What a node still runs.
fn left<'a>(rows: &'a [PsRow], node: &NodeRow) -> Vec<&'a PsRow> {
    let runs = |row: &&PsRow| {
        let there = row.node.as_deref() == Some(node.name.as_str()) && row.container.is_some();
        there
            && matches!(
                row.state,
                PsState::Pending | PsState::Starting | PsState::Running | PsState::Stopping
            )
    };
    rows.iter().filter(runs).collect()
}

async fn wait_until_empty(client: &Client, context: &Context, node: &NodeRow) -> Result<(), CliError> {
    let deadline = Instant::now() + context.globals.timeout;
    let mut told = None;
    loop {
        let rows: Vec<PsRow> = client.get(routes::PS).await?;
        let left = left(&rows, node);
        if left.is_empty() {
            return Ok(());
        }
        if told != Some(left.len()) {
            told = Some(left.len());
            let containers = if left.len() == 1 { "container" } else { "containers" };
            context.out.say(format!("{} still runs {} {containers}", node.name, left.len()))?;
        }
        if Instant::now() >= deadline {
            let error = CliError::new(
                "not-converged",
                format!("{} is not empty within {} s", node.name, context.globals.timeout.as_secs_f64()),
            )
            .exit(Exit::NotConverged)
            .hint(
                "it continues in the background: `skerry explain NAME` says why a replica has nowhere to go",
            );
            let lines = left.iter().map(|row| format!("{}.{} is still there", row.deployment, row.ordinal));
            return Err(lines.fold(error, CliError::because));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_whole_seconds_up_to_a_day() {
        assert_eq!(parse_deadline("90s"), Ok(90));
        assert_eq!(parse_deadline("24h"), Ok(86_400));
        for bad in ["500ms", "1500ms", "25h", "0s", "soon"] {
            assert!(parse_deadline(bad).is_err(), "{bad}");
        }
    }
}
