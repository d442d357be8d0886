//! `restart`: every replica is made anew, one at a time.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use document::event::Verb;
use model::{Group, RestartGroup};

use super::scale::namespaces;
use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::author::random;
use crate::change::{Ask, Prepared, Step, carry, find, stand};
use crate::connect;
use crate::error::CliError;

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
    let names = namespaces(&args.deployments.iter().collect::<Vec<_>>())?;
    let client = connect::client(&context.globals)?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &names, &args.guard).await? {
        let mut steps = Vec::new();
        for target in args.deployments.iter().filter(|target| target.namespace == namespace) {
            let row = find(&authoring.deployments, target)?;
            let now = row.groups.get(Group::Restart.as_str());
            let mut restart: RestartGroup = match now {
                Some(json) => serde_json::from_str(json).map_err(|error| {
                    CliError::from_error("group", &error).at(format!("the restart policy of {target}"))
                })?,
                None => RestartGroup::default(),
            };
            restart.token = HEXLOWER.encode(&random::<8>()?);
            let json = serde_json::to_string(&restart).expect("a group is plain data");
            let wanted = BTreeMap::from([(Group::Restart.as_str().to_owned(), json)]);
            steps.extend(Step::set(target.clone(), row, &wanted)?);
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Restart, undoes: None, steps });
    }
    carry(context, &client, prepared, args.wait.wanted(), Ask::Never).await
}
