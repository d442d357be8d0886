//! `plan`: what `apply` would do. Writes nothing.

use std::collections::BTreeMap;

use super::apply::{FilesArgs, plan};
use crate::Context;
use crate::args::GuardArgs;
use crate::change::{Step, plan_lines};
use crate::connect;
use crate::cycles::refuse_cycles;
use crate::doubts::doubts;
use crate::error::{CliError, Exit};
use crate::manifest::load;
use crate::out::{Format, short};
use crate::shapes::{PlanAction, PlanAnswer, PlanRow};

/// Show what `apply` would change, and change nothing
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    files: FilesArgs,
    #[command(flatten)]
    guard: GuardArgs,
    /// Exit with 1 if there are changes
    #[arg(long)]
    exit_code: bool,
}

pub(crate) async fn run(args: &PlanArgs, context: &Context) -> Result<(), CliError> {
    let specs = load(&args.files.files)?;
    let client = connect::client(&context.globals)?;
    let planned = plan(&client, &specs, &args.guard).await?;
    refuse_cycles(&planned.prepared)?;
    let mut deployments: Vec<PlanRow> =
        planned.prepared.iter().flat_map(|one| one.steps.iter().map(Step::row)).collect();
    let changes = !deployments.is_empty();
    deployments.extend(planned.unchanged.iter().map(|target| PlanRow {
        namespace: target.namespace.to_string(),
        name: target.name.to_string(),
        action: PlanAction::Unchanged,
        replaces: false,
        fields: Vec::new(),
    }));
    let answer = PlanAnswer {
        cluster: planned.prepared.first().map(|one| one.authoring.cluster_name.clone()).unwrap_or_default(),
        heads: planned
            .prepared
            .iter()
            .map(|one| (one.namespace.to_string(), one.authoring.deps.clone()))
            .collect::<BTreeMap<_, _>>(),
        deployments,
    };
    let out = &context.out;
    if out.format == Format::Name {
        for row in answer.deployments.iter().filter(|row| row.action != PlanAction::Unchanged) {
            out.line(&row.name)?;
        }
    } else {
        out.answer(&answer, || plan_lines(&answer.deployments).join("\n"))?;
    }
    for doubt in doubts(&client, &planned.prepared).await? {
        out.say(format!("warning: {doubt}"))?;
    }
    if !out.structured() {
        for (namespace, heads) in &answer.heads {
            let heads: Vec<_> = heads.iter().map(|head| short(head)).collect();
            if !heads.is_empty() {
                out.say(format!("namespace {namespace} stands at {}", heads.join(",")))?;
            }
        }
    }
    if args.exit_code && changes { Err(CliError::quiet(Exit::Error)) } else { Ok(()) }
}
