//! `ps`: containers, and replicas that have none.

use api::routes;
use api::shapes::{PsRow, PsState};

use crate::Context;
use crate::args::ReplicaTarget;
use crate::connect;
use crate::error::CliError;
use crate::out::{NOTHING, span};

/// Show containers, and replicas that have none
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Only of this deployment (NAME or NAMESPACE/NAME) or replica (NAME.ORDINAL)
    #[arg(value_name = "DEPLOYMENT")]
    target: Option<ReplicaTarget>,
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// The word for a state.
pub(crate) fn state_word(state: PsState) -> &'static str {
    match state {
        PsState::Pending => "pending",
        PsState::Starting => "starting",
        PsState::Running => "running",
        PsState::Stopping => "stopping",
        PsState::Exited => "exited",
        PsState::Failed => "failed",
        PsState::Lost => "lost",
        PsState::Unknown => "unknown",
    }
}

fn or_nothing(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| NOTHING.to_owned())
}

/// A row's name: `web.0`, with its namespace where that is not the default.
pub(crate) fn name(row: &PsRow) -> String {
    let name = format!("{}.{}", row.deployment, row.ordinal);
    if row.namespace == "default" { name } else { format!("{}/{name}", row.namespace) }
}

pub(crate) async fn run(args: &PsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let mut rows: Vec<PsRow> = client.get(routes::PS).await?;
    if let Some(ReplicaTarget { target, ordinal }) = &args.target {
        rows.retain(|row| {
            row.namespace == target.namespace.as_str()
                && row.deployment == target.name.as_str()
                && ordinal.is_none_or(|ordinal| ordinal == row.ordinal)
        });
    }
    if let Some(node) = &args.node {
        rows.retain(|row| row.node.as_ref() == Some(node));
    }
    context.out.rows(
        &rows,
        name,
        &[
            ("REPLICA", &name),
            ("REVISION", &|row| format!("v{}", row.revision)),
            ("NODE", &|row| or_nothing(row.node.as_ref())),
            ("STATE", &|row| {
                // What was last heard of a node that is away is marked as such.
                let star = if row.state == PsState::Unknown { "*" } else { "" };
                format!("{}{star}", state_word(row.state))
            }),
            ("HEALTHY", &|row| match row.healthy {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => NOTHING.to_owned(),
            }),
            ("AGE", &|row| row.age_s.map_or_else(|| NOTHING.to_owned(), span)),
            ("RESTARTS", &|row| row.restarts.to_string()),
            ("+CONTAINER", &|row| or_nothing(row.container.as_ref())),
            ("+PID", &|row| row.pid.map_or_else(|| NOTHING.to_owned(), |pid| pid.to_string())),
            ("REASON", &|row| row.reason.clone().unwrap_or_default()),
        ],
    )
}
