//! `leave`: this node leaves the cluster.

use api::routes;
use api::shapes::{NodeState, Status};

use super::node;
use crate::Context;
use crate::connect;
use crate::error::CliError;

/// Take the node of the answering peer out of the cluster, for ever
#[derive(Debug, clap::Args)]
pub(crate) struct LeaveArgs {
    /// Even if it is the last node
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: &LeaveArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let status: Status = client.get(routes::STATUS).await?;
    let own = status
        .nodes
        .iter()
        .find(|row| row.id == status.node_id)
        .ok_or_else(|| CliError::new("peer", format!("{} does not name its own node", client.peer())))?;
    let others =
        status.nodes.iter().filter(|row| row.id != own.id && row.state != NodeState::Removed).count();
    if others == 0 && !args.force {
        return Err(CliError::new(
            "last-node",
            format!("{} is the last node of {}", own.name, status.cluster),
        )
        .hint("stop the peer and delete its data folder to end the cluster, or use --force"));
    }
    if context.out.interactive() {
        context.out.say(format!(
            "{} leaves {}: its containers stop, others take its work, and its key is never let in again",
            own.name, status.cluster
        ))?;
        if !context.out.confirm("Leave?")? {
            return Err(CliError::new("declined", "nothing was changed"));
        }
    }
    node::remove(&client, context, own).await
}
