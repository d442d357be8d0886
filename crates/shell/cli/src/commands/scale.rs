//! `scale`: how many.

use std::collections::BTreeMap;
use std::str::FromStr;

use document::event::Verb;
use model::limits::REPLICAS_MAX;
use model::{Group, Mode, Name, ReplicasGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, find, stand};
use crate::connect;
use crate::error::CliError;

/// Change how many replicas run
#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// NAME=COUNT or NAMESPACE/NAME=COUNT
    #[arg(required = true, value_name = "NAME=COUNT")]
    counts: Vec<Count>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// One deployment and its wanted copies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    target: Target,
    count: u32,
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, count) = text.split_once('=').ok_or("write it like `web=5`")?;
        let target = target.parse().map_err(|error: model::NameError| error.to_string())?;
        match count.parse() {
            Ok(count) if count <= REPLICAS_MAX => Ok(Self { target, count }),
            _ => Err(format!("`{count}` is not a number of replicas, 0 to {REPLICAS_MAX}")),
        }
    }
}

/// The namespaces of some targets, each once; an error where a target is there twice.
pub(super) fn namespaces(targets: &[&Target]) -> Result<Vec<Name>, CliError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for target in targets {
        if !seen.insert(*target) {
            return Err(CliError::usage(format!("{target} is named twice")));
        }
        names.insert(target.namespace.clone());
    }
    Ok(names.into_iter().collect())
}

pub(crate) async fn run(args: &ScaleArgs, context: &Context) -> Result<(), CliError> {
    let targets: Vec<_> = args.counts.iter().map(|count| &count.target).collect();
    let names = namespaces(&targets)?;
    let client = connect::client(&context.globals)?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &names, &args.guard).await? {
        let mut steps = Vec::new();
        for Count { target, count } in args.counts.iter().filter(|count| count.target.namespace == namespace)
        {
            let row = find(&authoring.deployments, target)?;
            let now = row.groups.get(Group::Replicas.as_str()).map_or("null", String::as_str);
            let mut replicas: ReplicasGroup = serde_json::from_str(now).map_err(|error| {
                CliError::from_error("group", &error).at(format!("the replicas of {target}"))
            })?;
            if replicas.mode == Mode::Global && *count > 1 {
                return Err(CliError::usage(format!(
                    "{target} runs one on each node, it cannot be scaled to {count}"
                ))
                .hint(format!(
                    "`skerry scale {target}=0` stops all of them, `{target}=1` starts them again"
                )));
            }
            replicas.count = *count;
            let json = serde_json::to_string(&replicas).expect("a group is plain data");
            let wanted = BTreeMap::from([(Group::Replicas.as_str().to_owned(), json)]);
            steps.extend(Step::set(target.clone(), row, &wanted)?);
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Scale, undoes: None, steps });
    }
    carry(context, &client, prepared, args.wait.wanted(), Ask::Never).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_name_and_a_number_in_range() {
        assert_eq!("shop/web=5".parse::<Count>().unwrap().count, 5);
        assert_eq!("web=0".parse::<Count>().unwrap().count, 0);
        for (bad, message) in [
            ("web", "write it like `web=5`"),
            ("web=", "`` is not a number of replicas, 0 to 10000"),
            ("web=-1", "`-1` is not a number of replicas, 0 to 10000"),
            ("web=10001", "`10001` is not a number of replicas, 0 to 10000"),
            ("=5", "a name must not be empty"),
        ] {
            assert_eq!(bad.parse::<Count>().unwrap_err(), message);
        }
    }
}
