//! `history`: every change of desired state, by whom and when.

use api::shapes::{HistoryChange, HistoryRow};
use api::{path, routes};

use crate::Context;
use crate::args::Target;
use crate::connect;
use crate::error::CliError;
use crate::fields;
use crate::out::{Format, moment, short};

/// Show every change of desired state: who, when, what
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Only of this deployment (NAME or NAMESPACE/NAME)
    deployment: Option<Target>,
    /// Only the last changes
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Who did it, for people.
pub(crate) fn author(name: Option<&String>, key: &str) -> String {
    name.cloned().unwrap_or_else(|| short(key).to_owned())
}

fn change_lines(change: &HistoryChange) -> Vec<String> {
    let Some(group) = &change.group else {
        let end = match (&change.before, &change.after) {
            (Some(_), None) => "gone",
            (None, Some(_)) => "new",
            _ => "changed",
        };
        return vec![format!("{}: {end}", change.subject)];
    };
    let groups = |json: &Option<String>| json.iter().map(|json| (group.clone(), json.clone())).collect();
    let fields = fields::diff(&groups(&change.before), &groups(&change.after));
    fields.iter().map(|field| format!("{}: {}", change.subject, fields::show_field(field))).collect()
}

pub(crate) async fn run(args: &HistoryArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let mut query = Vec::new();
    if let Some(target) = &args.deployment {
        query.push(("namespace", target.namespace.as_str()));
        query.push(("deployment", target.name.as_str()));
    }
    let mut rows: Vec<HistoryRow> = client.get(&path(routes::HISTORY, &query)).await?;
    if let Some(limit) = args.limit {
        rows.drain(..rows.len().saturating_sub(limit));
    }
    let out = &context.out;
    if out.structured() {
        return out.value(&rows);
    }
    if out.format == Format::Name {
        return rows.iter().try_for_each(|row| out.line(&row.event));
    }
    for row in &rows {
        let undoes = row.undoes.as_deref().map(|id| format!(" of {}", short(id))).unwrap_or_default();
        let doc = if row.doc == "ns/default" { String::new() } else { format!("  {}", row.doc) };
        out.line(format!(
            "{}  {}  {}  {}{undoes}{doc}",
            short(&row.event),
            moment(row.time_ms),
            author(row.author_name.as_ref(), &row.author),
            row.verb
        ))?;
        for line in row.changes.iter().flat_map(change_lines) {
            out.line(format!("    {line}"))?;
        }
    }
    Ok(())
}
