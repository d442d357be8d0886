//! `restart`: every replica is made anew, one at a time.

use data_encoding::HEXLOWER;
use document::event::Verb;
use model::{Group, RestartGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::author::random;
use crate::error::CliError;
use crate::one_group::{Asked, change_group};

/// Make every replica anew, one at a time
#[derive(Debug, clap::Args)]
pub(crate) struct RestartArgs {
    /// NAME or NAMESPACE/NAME
    #[arg(required = true, value_name = "DEPLOYMENT")]
    deployments: Vec<Target>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

pub(crate) async fn run(args: &RestartArgs, context: &Context) -> Result<(), CliError> {
    let asked = Asked {
        targets: &args.deployments.iter().collect::<Vec<_>>(),
        guard: &args.guard,
        wait: &args.wait,
        verb: Verb::Restart,
        group: Group::Restart,
    };
    change_group(context, asked, |_, _, restart: Option<RestartGroup>| {
        let token = HEXLOWER.encode(&random::<8>()?);
        Ok(RestartGroup { token, ..restart.unwrap_or_default() })
    })
    .await
}
