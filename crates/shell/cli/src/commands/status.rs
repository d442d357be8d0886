//! `status`: one screen.

use api::routes;
use api::shapes::{NodeState, Status};

use super::{get, node};
use crate::Context;
use crate::connect;
use crate::error::CliError;
use crate::out::{Format, span};

/// One screen: peers, sync, capacity, and what does not run and why
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_: &StatusArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let status: Status = client.get(routes::STATUS).await?;
    let out = &context.out;
    if out.structured() {
        return out.value(&status);
    }
    if out.format == Format::Name {
        return out.line(&status.cluster);
    }
    out.line(format!(
        "cluster {} · view of {} · in sync with {} of {} peers ({} connected) · skerry {}",
        status.cluster, status.node, status.in_sync, status.peers, status.connected, status.version
    ))?;
    for row in status.nodes.iter().filter(|row| matches!(row.state, NodeState::Suspect | NodeState::Down)) {
        let seen = row
            .seen_s
            .map_or_else(|| "never seen".to_owned(), |seconds| format!("unseen for {}", span(seconds)));
        out.line(format!("! {} is {}: {seen}", row.name, node::state_word(row.state)))?;
    }
    if let Some(removal) = &status.removed {
        out.line(format!(
            "! {} was removed from the cluster {}: it stops its containers, and its peer ends",
            status.node,
            node::told(removal)
        ))?;
    }
    if let Some(why) = &status.refusing {
        out.line(format!("! accepts no changes: {why}"))?;
    }
    for why in &status.degraded {
        out.line(format!("! {why}"))?;
    }
    if status.conflicts > 0 {
        out.line(format!("! {} open conflicts: `skerry conflicts ls`", status.conflicts))?;
    }
    out.line("")?;
    node::list(&status.nodes, context)?;
    if !status.deployments.is_empty() {
        out.line("")?;
        get::deployments(&status.deployments, context)?;
    }
    for row in &status.deployments {
        if let Some(why) = &row.invalid {
            out.line(format!("! {}/{} is not valid as merged: {why}", row.namespace, row.name))?;
        }
        for cycle in &row.cycles {
            out.line(format!(
                "! {}/{} waits for itself, so none of these waits for the next: {cycle}",
                row.namespace, row.name
            ))?;
        }
        for unplaced in &row.unplaced {
            out.line(format!("! {}.{} has no node:", row.name, unplaced.ordinal))?;
            for (node, why) in &unplaced.nodes {
                out.line(format!("    {node}: {why}"))?;
            }
        }
    }
    Ok(())
}
