//! `join`: a further node.

use identity::JoinToken;

use super::init::NodeArgs;
use crate::Context;
use crate::error::CliError;
use crate::shapes::Joined;

/// Make this machine a node of the cluster that the token names
#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The token, as `skerry token create` printed it
    token: String,
}

pub(crate) async fn run(args: &JoinArgs, context: &Context) -> Result<(), CliError> {
    let token: JoinToken = args.token.parse().map_err(|error: identity::TokenError| {
        CliError::from_error("token", &error)
            .hint("copy the whole line that `skerry token create` printed, or make another")
    })?;
    let options = args.node.options()?;
    let joined = ::peer::join(&options, &token).await.map_err(|error| {
        let said = CliError::from_error("join", &error);
        match error {
            ::peer::JoinError::Refused { .. } => {
                said.hint("a token is good for a while and for so many nodes: `skerry token ls` shows it")
            }
            ::peer::JoinError::Prepare(error) if error.is_taken() => said.hint(
                "a folder is one node's for ever: if that node was removed, delete the folder or name another with --dir, and join with a new token",
            ),
            ::peer::JoinError::Unreachable { .. } => {
                said.hint("make a token that names an address which this machine can reach: `skerry token create --address HOST:PORT`")
            }
            _ => said,
        }
    })?;
    let answer = Joined {
        cluster: joined.cluster_name.to_string(),
        cluster_id: joined.cluster.to_string(),
        node: options.name.to_string(),
        node_id: joined.node.to_string(),
        dir: options.dir.display().to_string(),
        via: joined.via,
    };
    context.out.answer(&answer, || {
        format!("{} is a node of {} (by way of {})", answer.node, answer.cluster, answer.via)
    })?;
    context.out.say("next:")?;
    context.out.say(format!("  skerry peer{}", args.node.dir_option()?))
}
