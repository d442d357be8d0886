//! The commands that change one group of the deployments that they name: `scale`, `restart`, `pause`, `resume`,
//! `promote`.

use std::collections::BTreeMap;

use api::shapes::DeploymentRow;
use document::event::Verb;
use model::{Deployment, EventId, Group};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, find, namespaces, stand};
use crate::connect;
use crate::error::CliError;

/// What is asked for: of whom, how sure, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) targets: &'a [&'a Target],
    pub(crate) guard: &'a GuardArgs,
    pub(crate) wait: &'a WaitArgs,
    pub(crate) verb: Verb,
    pub(crate) group: Group,
}

/// Signs what `change` makes of the group as each deployment has it now, if it has it.
pub(crate) async fn change_group<T: DeserializeOwned + Serialize>(
    context: &Context,
    asked: Asked<'_>,
    change: impl Fn(&Target, &DeploymentRow, Option<T>) -> Result<T, CliError>,
) -> Result<(), CliError> {
    let Asked { targets, guard, wait, verb, group } = asked;
    let names = namespaces(targets)?;
    let client = connect::client(&context.globals)?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &names, guard).await? {
        let mut steps = Vec::new();
        for target in targets.iter().filter(|target| target.namespace == namespace) {
            let row = find(&authoring.deployments, target)?;
            let now = row.groups.get(group.as_str()).map(|json| serde_json::from_str(json)).transpose();
            let now = now.map_err(|error| {
                CliError::from_error("group", &error).at(format!("group `{}` of {target}", group.as_str()))
            })?;
            let json = serde_json::to_string(&change(target, row, now)?).expect("a group is plain data");
            let wanted = BTreeMap::from([(group.as_str().to_owned(), json)]);
            let step = Step::set((*target).clone(), row, &wanted)?;
            // Of a group that is sound by itself the rest may think otherwise: a job has at most 1,000 runs.
            if let Some(after) = step.as_ref().and_then(|step| step.after.as_ref()) {
                let made = Deployment::from_groups(
                    &target.namespace,
                    &target.name,
                    EventId::from_bytes([0; 32]),
                    after,
                );
                made.map_err(|error| CliError::usage(format!("{target} would not be valid: {error}")))?;
            }
            steps.extend(step);
        }
        prepared.push(Prepared { namespace, authoring, verb, undoes: None, steps });
    }
    carry(context, &client, prepared, wait.wanted(), Ask::Never).await
}
