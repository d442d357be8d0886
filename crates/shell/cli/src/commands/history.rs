//! `history`: every change of desired state, by whom and when.

use api::shapes::{HistoryChange, HistoryRow};
use api::{path, routes};

use model::Group;

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

/// Whether these changes of one deployment are its creation.
pub(super) fn creates(changes: &[&HistoryChange]) -> bool {
    changes.iter().any(|change| match change.group.as_deref() {
        None => change.after.is_some(),
        Some(group) => group == Group::Image.as_str() && change.before.is_none(),
    })
}

/// What a row changed, for people: each subject, and of a deployment its fields.
fn change_lines(row: &HistoryRow) -> Vec<String> {
    let mut lines = Vec::new();
    let mut subjects: Vec<&str> = row.changes.iter().map(|change| change.subject.as_str()).collect();
    subjects.dedup();
    for subject in subjects {
        let changes: Vec<_> = row.changes.iter().filter(|change| change.subject == subject).collect();
        let new = creates(&changes);
        if new {
            lines.push(format!("{subject}: new"));
        } else if changes.iter().any(|change| change.group.is_none()) {
            lines.push(format!("{subject}: gone"));
        }
        for change in changes {
            let Some(group) = &change.group else { continue };
            let groups =
                |json: &Option<String>| json.iter().map(|json| (group.clone(), json.clone())).collect();
            for field in fields::diff(&groups(&change.before), &groups(&change.after)) {
                lines.push(match &field.after {
                    Some(after) if new => format!("{subject}: {}: {}", field.field, fields::cut(after)),
                    _ => format!("{subject}: {}", fields::show_field(&field)),
                });
            }
        }
    }
    lines
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
        for line in change_lines(row) {
            out.line(format!("    {line}"))?;
        }
    }
    Ok(())
}
