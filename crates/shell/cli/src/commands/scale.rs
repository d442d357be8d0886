//! `scale`: how many.

use std::collections::BTreeMap;
use std::str::FromStr;

use document::event::Verb;
use model::limits::REPLICAS_MAX;
use model::{Group, Mode, ReplicasGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::error::CliError;
use crate::one_group::{Asked, change_group};

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

pub(crate) async fn run(args: &ScaleArgs, context: &Context) -> Result<(), CliError> {
    let counts: BTreeMap<&Target, u32> = args.counts.iter().map(|it| (&it.target, it.count)).collect();
    let asked = Asked {
        targets: &args.counts.iter().map(|it| &it.target).collect::<Vec<_>>(),
        guard: &args.guard,
        wait: &args.wait,
        verb: Verb::Scale,
        group: Group::Replicas,
    };
    change_group(context, asked, |target, _, replicas: Option<ReplicasGroup>| {
        let replicas = replicas
            .ok_or_else(|| CliError::new("group", format!("{target} does not say how many are wanted")))?;
        let count = counts[target];
        if replicas.mode == Mode::Global && count > 1 {
            return Err(CliError::usage(format!(
                "{target} runs one on each node, it cannot be scaled to {count}"
            ))
            .hint(format!("`skerry scale {target}=0` stops all of them, `{target}=1` starts them again")));
        }
        Ok(ReplicasGroup { count, ..replicas })
    })
    .await
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
