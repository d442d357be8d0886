//! `conflicts`: what two sides changed, which value is in force, and settling it.

use api::routes;
use api::shapes::{ConflictRow, ConflictSide};
use document::event::{Delete, Edit, Verb};
use model::EventId;

use super::history::author;
use crate::Context;
use crate::args::{GuardArgs, IdPrefix, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, find, stand};
use crate::connect;
use crate::error::CliError;
use crate::fields::{Groups, show_group};
use crate::out::{Format, moment, short};

/// Show or settle concurrent changes
#[derive(Debug, clap::Args)]
pub(crate) struct ConflictsArgs {
    /// What to do [default: ls]
    #[command(subcommand)]
    command: Option<ConflictsCommand>,
}

/// What to do with conflicts
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List open conflicts: both sides, authors and times, and which is in force
    Ls,
    /// Settle a conflict by taking one side
    Resolve(ResolveArgs),
}

/// Settle a conflict
#[derive(Debug, clap::Args)]
pub(crate) struct ResolveArgs {
    /// NAME or NAMESPACE/NAME
    deployment: Target,
    /// Only this group [default: every group in conflict that the event is a side of]
    #[arg(long)]
    group: Option<String>,
    /// The event whose side is taken, as `conflicts ls` shows it
    #[arg(long, value_name = "EVENT")]
    take: IdPrefix,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

fn side_line(row: &ConflictRow, side: &ConflictSide) -> String {
    let force = if side.event == row.winner { "in force" } else { "        " };
    let value = match (&row.group, &side.value) {
        (Some(group), Some(json)) => show_group(group, json),
        (None, Some(json)) => match serde_json::from_str::<Groups>(json) {
            Ok(groups) => {
                groups.iter().map(|(group, json)| show_group(group, json)).collect::<Vec<_>>().join(" ")
            }
            Err(_) => json.clone(),
        },
        (_, None) => "(deleted)".to_owned(),
    };
    format!(
        "  {force}  {}  {}  {}  {value}",
        short(&side.event),
        moment(side.time_ms),
        author(side.author_name.as_ref(), &side.author)
    )
}

fn list(rows: &[ConflictRow], context: &Context) -> Result<(), CliError> {
    let out = &context.out;
    let name = |row: &ConflictRow| Target {
        namespace: row.namespace.parse().unwrap_or_else(|_| model::Name::default_namespace()),
        name: row.deployment.parse().unwrap_or_else(|_| model::Name::default_namespace()),
    };
    if out.structured() {
        return out.value(&rows);
    }
    if rows.is_empty() {
        return out.say("no conflicts");
    }
    for row in rows {
        let shown = name(row);
        if out.format == Format::Name {
            out.line(shown.to_string())?;
            continue;
        }
        match &row.group {
            Some(group) => out.line(format!("{shown} {group}"))?,
            None => out.line(format!("{shown} was created on both sides"))?,
        }
        for side in &row.sides {
            out.line(side_line(row, side))?;
        }
        if let Some(side) = row.sides.first() {
            let group = row.group.as_deref().map(|group| format!(" --group {group}")).unwrap_or_default();
            out.say(format!(
                "  settle it: skerry conflicts resolve {shown}{group} --take {}",
                short(&side.event)
            ))?;
        }
    }
    Ok(())
}

/// The rows that are meant, each with the side that is taken.
fn meant<'a>(
    rows: &'a [ConflictRow],
    args: &ResolveArgs,
) -> Result<Vec<(&'a ConflictRow, &'a ConflictSide)>, CliError> {
    let target = &args.deployment;
    let of_it: Vec<_> = rows
        .iter()
        .filter(|row| row.namespace == target.namespace.as_str() && row.deployment == target.name.as_str())
        .filter(|row| args.group.is_none() || row.group == args.group)
        .collect();
    if of_it.is_empty() {
        let group = args.group.as_deref().map(|group| format!(" on `{group}`")).unwrap_or_default();
        return Err(CliError::new("not-found", format!("{target} has no conflict{group}"))
            .hint("`skerry conflicts ls` lists them"));
    }
    let sides: Vec<_> = of_it
        .iter()
        .filter_map(|row| row.sides.iter().find(|side| args.take.is_of(&side.event)).map(|side| (*row, side)))
        .collect();
    if sides.is_empty() {
        let error = CliError::new("not-found", format!("event `{}` is no side of it", args.take.0));
        return Err(of_it
            .iter()
            .flat_map(|row| row.sides.iter().map(|side| side_line(row, side).trim().to_owned()))
            .fold(error, CliError::because));
    }
    if sides.iter().any(|(_, side)| side.event != sides[0].1.event) {
        return Err(CliError::new("ambiguous", format!("`{}` may be any of several events", args.take.0))
            .hint("give more digits"));
    }
    Ok(sides)
}

fn parse(id: &str) -> Result<EventId, CliError> {
    id.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))
}

async fn resolve(rows: &[ConflictRow], args: &ResolveArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let sides = meant(rows, args)?;
    let target = &args.deployment;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, std::slice::from_ref(&target.namespace), &args.guard).await?
    {
        let row = find(&authoring.deployments, target)?;
        let mut steps = Vec::new();
        let mut groups = Groups::new();
        for (conflict, side) in &sides {
            match (&conflict.group, &side.value) {
                (Some(group), Some(json)) => {
                    groups.insert(group.clone(), json.clone());
                }
                (Some(group), None) => {
                    return Err(CliError::new(
                        "peer",
                        format!("the value of `{group}` is not known to this peer"),
                    ));
                }
                // Both sides created it: the others end, and the one that is taken is left.
                (None, value) => {
                    let taken = value.as_deref().and_then(|json| serde_json::from_str::<Groups>(json).ok());
                    for other in conflict.sides.iter().filter(|other| other.event != side.event) {
                        let edit = Edit::Delete(Delete {
                            name: target.name.clone(),
                            incarnation: parse(&other.event)?,
                        });
                        steps.push(Step {
                            target: target.clone(),
                            before: row.groups.clone(),
                            // It goes on as the side that is taken.
                            after: Some(taken.clone().unwrap_or_else(|| row.groups.clone())),
                            edit,
                        });
                    }
                }
            }
        }
        if !groups.is_empty() {
            // Set even where the winner is confirmed: only a further event settles a conflict.
            let mut after = row.groups.clone();
            after.extend(groups.clone());
            let edit = Edit::Set(document::event::Set {
                name: target.name.clone(),
                incarnation: crate::change::incarnation(row)?,
                groups,
            });
            steps.push(Step { target: target.clone(), before: row.groups.clone(), after: Some(after), edit });
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Resolve, undoes: None, steps });
    }
    carry(context, &client, prepared, args.wait.wanted(), Ask::Person).await
}

pub(crate) async fn run(args: &ConflictsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let rows: Vec<ConflictRow> = client.get(routes::CONFLICTS).await?;
    match &args.command {
        None | Some(ConflictsCommand::Ls) => list(&rows, context),
        Some(ConflictsCommand::Resolve(args)) => resolve(&rows, args, context).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(event: &str) -> ConflictSide {
        ConflictSide {
            event: event.repeat(32),
            author: "aa".repeat(32),
            author_name: Some("ada".into()),
            time_ms: 0,
            value: Some(r#"{"vars":{"A":"1"}}"#.into()),
        }
    }

    fn row() -> ConflictRow {
        ConflictRow {
            namespace: "default".into(),
            deployment: "web".into(),
            incarnation: "01".repeat(32),
            group: Some("env".into()),
            winner: "b1".repeat(32),
            sides: vec![side("b1"), side("c2")],
        }
    }

    fn args(group: Option<&str>, take: &str) -> ResolveArgs {
        ResolveArgs {
            deployment: "web".parse().unwrap(),
            group: group.map(Into::into),
            take: take.parse().unwrap(),
            wait: WaitArgs { detach: true, wait: crate::args::Wait::None },
            guard: GuardArgs::default(),
        }
    }

    #[test]
    fn a_side_is_taken_by_the_beginning_of_its_event() {
        let rows = [row()];
        assert_eq!(meant(&rows, &args(None, "c2c2")).unwrap()[0].1.event, "c2".repeat(32));
        assert_eq!(
            meant(&rows, &args(Some("image"), "c2c2")).unwrap_err().what,
            "web has no conflict on `image`"
        );
        let error = meant(&rows, &args(None, "dddd")).unwrap_err();
        assert_eq!(error.what, "event `dddd` is no side of it");
        assert_eq!(error.why[0].text, "in force  b1b1b1b1  1970-01-01 00:00:00  ada  env.A=1");
    }
}
