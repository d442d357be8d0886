//! `validate`: a manifest is read, and nobody is asked.

use super::apply::FilesArgs;
use crate::Context;
use crate::error::CliError;
use crate::manifest::load;
use crate::shapes::ValidRow;

/// Check manifests without asking any peer
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    files: FilesArgs,
}

pub(crate) fn run(args: &ValidateArgs, context: &Context) -> Result<(), CliError> {
    let specs = load(&args.files.files)?;
    let rows: Vec<_> = specs
        .iter()
        .map(|spec| {
            let deployment =
                spec.with_digest(spec.image.digest.unwrap_or(model::Digest::from_bytes([0; 32])));
            ValidRow {
                namespace: spec.namespace.to_string(),
                name: spec.name.to_string(),
                image: spec.image.reference.clone(),
                replicas: deployment.replicas.count,
            }
        })
        .collect();
    context.out.rows(
        &rows,
        |row| row.name.clone(),
        &[
            ("NAMESPACE", &|row: &ValidRow| row.namespace.clone()),
            ("DEPLOYMENT", &|row| row.name.clone()),
            ("IMAGE", &|row| row.image.clone()),
            ("REPLICAS", &|row| row.replicas.to_string()),
        ],
    )
}
