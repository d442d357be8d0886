//! `pause`, `resume`, `promote`: how far a change may go.

use api::shapes::DeploymentRow;
use document::event::Verb;
use model::{Group, UpdateGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::error::CliError;
use crate::one_group::{Asked, change_group};

/// Name deployments
#[derive(Debug, clap::Args)]
pub(crate) struct RolloutArgs {
    /// NAME or NAMESPACE/NAME
    #[arg(required = true)]
    deployments: Vec<Target>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// What is said of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// Nothing further changes.
    Pause,
    /// It goes on.
    Resume,
    /// The replicas that are no canaries follow.
    Promote,
}

/// The update group with what is said; an error where that makes no sense.
fn said(
    say: Say,
    target: &Target,
    row: &DeploymentRow,
    mut update: UpdateGroup,
) -> Result<UpdateGroup, CliError> {
    match (say, &mut update.canary) {
        (Say::Pause, _) => update.paused = true,
        (Say::Resume, _) => update.paused = false,
        (Say::Promote, None) => {
            return Err(CliError::new(
                "no-canary",
                format!("{target} has no canaries: nothing waits to be let through"),
            )
            .hint("a manifest asks for them with `update: {canary: 1}`"));
        }
        (Say::Promote, Some(canary)) => {
            if let Some(failed) = &row.failed {
                return Err(CliError::new(
                    "update-failed",
                    format!("v{} of {target} did not come up on {}", failed.revision, failed.node),
                )
                .because(failed.reason.clone())
                .hint("change it, and the canaries are tried again"));
            }
            let hash = row.revision_hash.as_deref().unwrap_or_default();
            canary.promoted =
                Some(hash.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?);
        }
    }
    Ok(update)
}

pub(crate) async fn run(args: &RolloutArgs, say: Say, context: &Context) -> Result<(), CliError> {
    let asked = Asked {
        targets: &args.deployments.iter().collect::<Vec<_>>(),
        guard: &args.guard,
        wait: &args.wait,
        verb: Verb::Apply,
        group: Group::Update,
    };
    change_group(context, asked, |target, row, update| said(say, target, row, update.unwrap_or_default()))
        .await
}
