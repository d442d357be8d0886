//! `schema`: the forms of manifests and answers as JSON schemas.

use std::path::PathBuf;

use schemars::{Schema, schema_for};

use crate::Context;
use crate::error::CliError;
use crate::{manifest, shapes};

/// Print the JSON schema of the manifest, or of an answer
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {
    /// Which [default: manifest]
    name: Option<String>,
    /// Write every schema into a folder
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "name")]
    all: Option<PathBuf>,
    /// List the names
    #[arg(long, conflicts_with_all = ["name", "all"])]
    list: bool,
}

/// Every schema: its name and itself. Lists are bare arrays, so their schema is that of a row.
fn schemas() -> Vec<(&'static str, Schema)> {
    use api::shapes as answers;
    vec![
        ("manifest", schema_for!(manifest::schema::Manifest)),
        ("applied", schema_for!(answers::Applied)),
        ("authoring", schema_for!(answers::Authoring)),
        ("conflict-row", schema_for!(answers::ConflictRow)),
        ("deployment-row", schema_for!(answers::DeploymentRow)),
        ("doctor-row", schema_for!(shapes::DoctorRow)),
        ("error", schema_for!(answers::ErrorBody)),
        ("exec-ask", schema_for!(answers::ExecAsk)),
        ("explain", schema_for!(answers::Explain)),
        ("history-row", schema_for!(answers::HistoryRow)),
        ("image-row", schema_for!(answers::ImageRow)),
        ("initialised", schema_for!(shapes::Initialised)),
        ("joined", schema_for!(shapes::Joined)),
        ("log-line", schema_for!(answers::LogLine)),
        ("node-row", schema_for!(answers::NodeRow)),
        ("notice-row", schema_for!(answers::NoticeRow)),
        ("plan", schema_for!(shapes::PlanAnswer)),
        ("ps-row", schema_for!(answers::PsRow)),
        ("scenario-row", schema_for!(shapes::sim::ScenarioRow)),
        ("sim-run", schema_for!(shapes::sim::SimRun)),
        ("sim-seed", schema_for!(shapes::sim::SimSeed)),
        ("status", schema_for!(answers::Status)),
        ("submitted", schema_for!(answers::Submitted)),
        ("token-created", schema_for!(shapes::TokenCreated)),
        ("token-row", schema_for!(answers::TokenRow)),
        ("user-key", schema_for!(shapes::UserKey)),
        ("user-row", schema_for!(answers::UserRow)),
        ("what-if", schema_for!(shapes::whatif::WhatIf)),
        ("valid-row", schema_for!(shapes::ValidRow)),
        ("version", schema_for!(shapes::Version)),
    ]
}

fn text(schema: &Schema) -> String {
    serde_json::to_string_pretty(schema).expect("a schema is JSON")
}

pub(crate) fn run(args: &SchemaArgs, context: &Context) -> Result<(), CliError> {
    let schemas = schemas();
    if args.list {
        return schemas.iter().try_for_each(|(name, _)| context.out.line(name));
    }
    if let Some(dir) = &args.all {
        std::fs::create_dir_all(dir).map_err(|error| {
            CliError::new("schema", format!("{} cannot be made", dir.display())).because(error.to_string())
        })?;
        for (name, schema) in &schemas {
            let path = dir.join(format!("{name}.json"));
            std::fs::write(&path, format!("{}\n", text(schema))).map_err(|error| {
                CliError::new("schema", format!("{} cannot be written", path.display()))
                    .because(error.to_string())
            })?;
        }
        return Ok(());
    }
    let wanted = args.name.as_deref().unwrap_or("manifest");
    let Some((_, schema)) = schemas.iter().find(|(name, _)| *name == wanted) else {
        let names: Vec<_> = schemas.iter().map(|(name, _)| *name).collect();
        let error = CliError::usage(format!("there is no schema `{wanted}`"));
        return Err(error.hint(format!("use one of {}", names.join(", "))));
    };
    context.out.line(text(schema))
}
