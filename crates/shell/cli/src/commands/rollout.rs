//! `pause`, `resume`, `promote`: how far a change may go.

use std::collections::BTreeMap;

use document::event::Verb;
use model::{Group, UpdateGroup};

use super::scale::namespaces;
use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, find, stand};
use crate::connect;
use crate::error::CliError;

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
fn said(say: Say, target: &Target, row: &api::shapes::DeploymentRow) -> Result<UpdateGroup, CliError> {
    let mut update = match row.groups.get(Group::Update.as_str()) {
        None => UpdateGroup::default(),
        Some(json) => serde_json::from_str(json)
            .map_err(|error| CliError::from_error("group", &error).at(format!("the update of {target}")))?,
    };
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
    let names = namespaces(&args.deployments.iter().collect::<Vec<_>>())?;
    let client = connect::client(&context.globals)?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &names, &args.guard).await? {
        let mut steps = Vec::new();
        for target in args.deployments.iter().filter(|target| target.namespace == namespace) {
            let row = find(&authoring.deployments, target)?;
            let update = said(say, target, row)?;
            let json = serde_json::to_string(&update).expect("a group is plain data");
            let wanted = BTreeMap::from([(Group::Update.as_str().to_owned(), json)]);
            steps.extend(Step::set(target.clone(), row, &wanted)?);
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Apply, undoes: None, steps });
    }
    carry(context, &client, prepared, args.wait.wanted(), Ask::Never).await
}
