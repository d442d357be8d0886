//! `delete`: deployments end.

use std::path::PathBuf;

use document::event::Verb;

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, find, namespaces, stand};
use crate::connect;
use crate::error::CliError;
use crate::manifest::load;

/// End deployments and stop their containers
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm")]
pub(crate) struct DeleteArgs {
    /// NAME or NAMESPACE/NAME
    #[arg(value_name = "DEPLOYMENT", required_unless_present = "files")]
    deployments: Vec<Target>,
    /// The deployments of a manifest
    #[arg(short, long = "file", value_name = "FILE", conflicts_with = "deployments")]
    files: Vec<PathBuf>,
    /// Those that are not there are no error
    #[arg(long)]
    ignore_missing: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

pub(crate) async fn run(args: &DeleteArgs, context: &Context) -> Result<(), CliError> {
    let mut targets = args.deployments.clone();
    for spec in load(&args.files)? {
        targets.push(Target { namespace: spec.namespace, name: spec.name });
    }
    let names = namespaces(&targets.iter().collect::<Vec<_>>())?;
    let client = connect::client(&context.globals)?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &names, &args.guard).await? {
        let mut steps = Vec::new();
        for target in targets.iter().filter(|target| target.namespace == namespace) {
            match find(&authoring.deployments, target) {
                Ok(row) => steps.push(Step::delete(target.clone(), row)?),
                Err(_) if args.ignore_missing => context.out.say(format!("{target} is not there"))?,
                Err(error) => return Err(error),
            }
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Delete, undoes: None, steps });
    }
    carry(context, &client, prepared, args.wait.wanted(), Ask::Person).await
}
