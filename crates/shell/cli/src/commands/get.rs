//! `get`: the habit of those who come from kubectl.

use api::routes;
use api::shapes::{DeploymentRow, JobState};

use super::{image, node, ps, user};
use crate::Context;
use crate::connect;
use crate::error::CliError;

/// Show what there is
#[derive(Debug, clap::Subcommand)]
pub(crate) enum GetCommand {
    /// The deployments
    #[command(visible_alias = "apps")]
    Deployments,
    /// The same as `ps`
    Replicas(ps::PsArgs),
    /// The same as `node ls`
    Nodes,
    /// The same as `image ls`
    Images,
    /// The same as `user ls`
    Users,
}

/// A deployment's name, with its namespace where that is not the default.
pub(crate) fn name(row: &DeploymentRow) -> String {
    if row.namespace == "default" { row.name.clone() } else { format!("{}/{}", row.namespace, row.name) }
}

fn reason(row: &DeploymentRow) -> String {
    if let Some(why) = &row.invalid {
        return format!("not valid as merged: {why}");
    }
    if !row.unplaced.is_empty() {
        return format!("{} without a node: `skerry explain {}`", row.unplaced.len(), name(row));
    }
    if let Some(job) = &row.job {
        match (job.state, job.failures.first()) {
            (JobState::Completed, _) => return "completed".to_owned(),
            (JobState::Failed, Some(it)) => {
                return format!("failed: {}.{} on {}: {}", row.name, it.ordinal, it.node, it.reason);
            }
            (JobState::Failed, None) => return "failed: its time is over".to_owned(),
            (JobState::Waiting | JobState::Running, _) => {}
        }
    }
    if !row.waits.is_empty() && row.ready < row.replicas {
        return row.waits.join("; ");
    }
    if let Some(cycle) = row.cycles.first() {
        return format!("in a cycle, so it does not wait: {cycle}");
    }
    if !row.conflicts.is_empty() {
        return format!("conflict on {}", row.conflicts.join(", "));
    }
    String::new()
}

pub(crate) fn deployments(rows: &[DeploymentRow], context: &Context) -> Result<(), CliError> {
    context.out.rows(
        rows,
        name,
        &[
            ("DEPLOYMENT", &name),
            ("REVISION", &|row| format!("v{}", row.revision)),
            ("READY", &|row| format!("{}/{}", row.ready, row.replicas)),
            ("RUNNING", &|row| row.running.to_string()),
            ("+INCARNATION", &|row| crate::out::short(&row.incarnation).to_owned()),
            ("REASON", &reason),
        ],
    )
}

pub(crate) async fn run(command: &GetCommand, context: &Context) -> Result<(), CliError> {
    match command {
        GetCommand::Deployments => {
            let client = connect::client(&context.globals)?;
            let rows: Vec<DeploymentRow> = client.get(routes::DEPLOYMENTS).await?;
            deployments(&rows, context)
        }
        GetCommand::Replicas(args) => ps::run(args, context).await,
        GetCommand::Nodes => node::run(&node::NodeCommand::Ls, context).await,
        GetCommand::Images => image::run(&image::ImageCommand::Ls, context).await,
        GetCommand::Users => user::run(&user::UserCommand::Ls, context).await,
    }
}
