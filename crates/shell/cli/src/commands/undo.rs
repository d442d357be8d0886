//! `undo`: one event is taken back by another, which puts back what was before.

use std::collections::BTreeMap;

use api::shapes::{DeploymentRow, HistoryChange, HistoryRow};
use api::{path, routes};
use document::event::{Create, Edit, Verb};
use model::{Deployment, EventId, Name};

use super::history::creates;
use crate::Context;
use crate::args::{GuardArgs, IdPrefix, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, stand};
use crate::connect;
use crate::error::CliError;
use crate::fields::{Groups, default_of};
use crate::out::short;

/// Take back one change: by default the last one of a deployment
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["deployment", "event"])))]
pub(crate) struct UndoArgs {
    /// The deployment whose last change is taken back (NAME or NAMESPACE/NAME)
    deployment: Option<Target>,
    /// The event to take back, as `history` shows it
    #[arg(long, value_name = "ID")]
    event: Option<IdPrefix>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// What a change did to one deployment.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    /// It came, with its image, which every deployment has from its first event on.
    Created,
    Deleted,
    /// Group to its JSON before, which may be none.
    Set(BTreeMap<String, Option<String>>),
}

/// What an event did, by deployment.
fn did(row: &HistoryRow) -> BTreeMap<&str, Did> {
    let mut by_name: BTreeMap<&str, Vec<&HistoryChange>> = BTreeMap::new();
    for change in &row.changes {
        by_name.entry(change.subject.as_str()).or_default().push(change);
    }
    let of = |changes: Vec<&HistoryChange>| {
        if creates(&changes) {
            return Did::Created;
        }
        if changes.iter().any(|change| change.group.is_none()) {
            return Did::Deleted;
        }
        let groups = changes.iter().filter_map(|change| Some((change.group.clone()?, change.before.clone())));
        Did::Set(groups.collect())
    };
    by_name.into_iter().map(|(name, changes)| (name, of(changes))).collect()
}

/// The groups of a deployment just before an event, replayed from the history.
fn before_event(rows: &[HistoryRow], namespace: &Name, name: &str, event: &str) -> Groups {
    let doc = format!("ns/{namespace}");
    let mut groups = Groups::new();
    for row in rows.iter().take_while(|row| row.event != event).filter(|row| row.doc == doc) {
        let of_it: Vec<_> = row.changes.iter().filter(|change| change.subject == name).collect();
        if creates(&of_it) || of_it.iter().any(|change| change.group.is_none()) {
            // It came or went: what was before belongs to another incarnation.
            groups.clear();
        }
        for change in of_it {
            if let (Some(group), Some(after)) = (&change.group, &change.after) {
                groups.insert(group.clone(), after.clone());
            }
        }
    }
    groups
}

/// The step that takes back what an event did to one deployment; `None` where nothing is to be done.
fn step(
    target: Target,
    did: &Did,
    row: Option<&DeploymentRow>,
    history: &[HistoryRow],
    event: &str,
) -> Result<Option<Step>, CliError> {
    match did {
        // The event that created it is its incarnation: another one is not what is taken back.
        Did::Created => match row {
            Some(row) if row.incarnation == event => Ok(Some(Step::delete(target, row)?)),
            Some(_) => Err(CliError::new("exists", format!("deployment {target} was created anew since"))
                .hint(format!("`skerry delete {target}` ends the one that is there"))),
            None => Ok(None),
        },
        Did::Deleted => {
            if row.is_some() {
                return Err(CliError::new("exists", format!("deployment {target} is there again"))
                    .hint("it was created anew after the event; delete that one first"));
            }
            let groups = before_event(history, &target.namespace, target.name.as_str(), event);
            let made = Deployment::from_groups(
                &target.namespace,
                &target.name,
                EventId::from_bytes([0; 32]),
                &groups,
            );
            if let Err(error) = made {
                return Err(CliError::new(
                    "history",
                    format!("what {target} was before {} is not known", short(event)),
                )
                .because(error.to_string()));
            }
            let edit = Edit::Create(Create { name: target.name.clone(), groups: groups.clone() });
            Ok(Some(Step { target, before: Groups::new(), after: Some(groups), edit }))
        }
        Did::Set(groups) => {
            let Some(row) = row else {
                return Err(CliError::new("not-found", format!("deployment {target} is not there any more"))
                    .hint("take back its deletion first"));
            };
            let mut wanted = Groups::new();
            for (group, before) in groups {
                let Some(json) = before.clone().or_else(|| default_of(group)) else {
                    return Err(CliError::new(
                        "history",
                        format!("group `{group}` of {target} had no value before {}", short(event)),
                    ));
                };
                wanted.insert(group.clone(), json);
            }
            Step::set(target, row, &wanted)
        }
    }
}

/// The event that is meant.
fn find<'a>(rows: &'a [HistoryRow], args: &UndoArgs) -> Result<&'a HistoryRow, CliError> {
    if let Some(prefix) = &args.event {
        let found: Vec<_> = rows.iter().filter(|row| prefix.is_of(&row.event)).collect();
        return match found.as_slice() {
            [one] => Ok(one),
            [] => Err(CliError::new("not-found", format!("there is no event `{}`", prefix.0))
                .hint("`skerry history` lists them")),
            more => {
                Err(CliError::new("ambiguous", format!("`{}` may be any of {} events", prefix.0, more.len()))
                    .hint("give more digits"))
            }
        };
    }
    let target = args.deployment.as_ref().ok_or_else(|| CliError::usage("name a deployment or an event"))?;
    let doc = format!("ns/{}", target.namespace);
    let of_it = |row: &&HistoryRow| {
        row.doc == doc && row.changes.iter().any(|change| change.subject == target.name.as_str())
    };
    rows.iter().rfind(of_it).ok_or_else(|| {
        CliError::new("not-found", format!("nothing was ever changed about `{target}`"))
            .hint("`skerry history` lists what was")
    })
}

pub(crate) async fn run(args: &UndoArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let mut query = Vec::new();
    if let Some(target) = &args.deployment {
        query.push(("namespace", target.namespace.as_str()));
    }
    let history: Vec<HistoryRow> = client.get(&path(routes::HISTORY, &query)).await?;
    let row = find(&history, args)?;
    let Some(namespace) = row.doc.strip_prefix("ns/") else {
        return Err(CliError::new(
            "cluster-event",
            format!("a `{}` of the cluster cannot be taken back", row.verb),
        )
        .hint("there is `skerry token revoke` and `skerry node rm`"));
    };
    let namespace: Name =
        namespace.parse().map_err(|error: model::NameError| CliError::from_error("peer", &error))?;
    let undoes = row.event.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let mut prepared = Vec::new();
    for (namespace, authoring) in stand(&client, &[namespace], &args.guard).await? {
        let mut steps = Vec::new();
        for (name, did) in did(row) {
            // Of an event that changed several, the one that was named.
            if args.deployment.as_ref().is_some_and(|target| target.name.as_str() != name) {
                continue;
            }
            let name: Name =
                name.parse().map_err(|error: model::NameError| CliError::from_error("peer", &error))?;
            let target = Target { namespace: namespace.clone(), name };
            let now = authoring
                .deployments
                .iter()
                .find(|row| row.name == target.name.as_str() && row.namespace == namespace.as_str());
            steps.extend(step(target, &did, now, &history, &row.event)?);
        }
        prepared.push(Prepared { namespace, authoring, verb: Verb::Undo, undoes: Some(undoes), steps });
    }
    context.out.say(format!("takes back {} ({})", short(&row.event), row.verb))?;
    carry(context, &client, prepared, args.wait.wanted(), Ask::Person).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(
        subject: &str,
        group: Option<&str>,
        before: Option<&str>,
        after: Option<&str>,
    ) -> HistoryChange {
        HistoryChange {
            subject: subject.into(),
            group: group.map(Into::into),
            before: before.map(Into::into),
            after: after.map(Into::into),
        }
    }

    fn row(event: &str, verb: &str, changes: Vec<HistoryChange>) -> HistoryRow {
        HistoryRow {
            event: event.repeat(32),
            doc: "ns/default".into(),
            author: "aa".repeat(32),
            author_name: None,
            time_ms: 0,
            verb: verb.into(),
            undoes: None,
            changes,
        }
    }

    fn history() -> Vec<HistoryRow> {
        let image = format!(r#"{{"reference":"web:1","digest":"{}"}}"#, "cd".repeat(32));
        vec![
            row(
                "01",
                "apply",
                vec![
                    change("web", Some("image"), None, Some(&image)),
                    change("web", Some("replicas"), None, Some(r#"{"count":2}"#)),
                ],
            ),
            row(
                "02",
                "scale",
                vec![change("web", Some("replicas"), Some(r#"{"count":2}"#), Some(r#"{"count":5}"#))],
            ),
            row("03", "delete", vec![change("web", None, Some("{}"), None)]),
        ]
    }

    fn now(groups: &[(&str, &str)]) -> DeploymentRow {
        DeploymentRow {
            namespace: "default".into(),
            name: "web".into(),
            incarnation: "01".repeat(32),
            revision: 1,
            replicas: 5,
            groups: groups.iter().map(|(group, json)| ((*group).into(), (*json).into())).collect(),
            ..DeploymentRow::default()
        }
    }

    fn web() -> Target {
        "web".parse().unwrap()
    }

    #[test]
    fn undoing_a_change_puts_back_the_value_before() {
        let history = history();
        let done = did(&history[1]);
        let row = now(&[("replicas", r#"{"count":5}"#)]);
        let step = step(web(), &done["web"], Some(&row), &history, &history[1].event).unwrap().unwrap();
        assert_eq!(step.edit.groups().unwrap()["replicas"], r#"{"count":2}"#);
    }

    #[test]
    fn undoing_a_creation_deletes_and_undoing_a_deletion_creates_what_was() {
        let history = history();
        let row = now(&[]);
        let back =
            step(web(), &did(&history[0])["web"], Some(&row), &history, &history[0].event).unwrap().unwrap();
        assert!(matches!(back.edit, Edit::Delete(_)));
        let back = step(web(), &did(&history[2])["web"], None, &history, &history[2].event).unwrap().unwrap();
        let Edit::Create(create) = &back.edit else { panic!("{back:?}") };
        assert_eq!(create.groups["replicas"], r#"{"count":5}"#);
        assert!(create.groups.contains_key("image"));
    }

    #[test]
    fn what_cannot_be_taken_back_is_said() {
        let history = history();
        let error = step(web(), &did(&history[1])["web"], None, &history, &history[1].event).unwrap_err();
        assert_eq!(error.what, "deployment web is not there any more");
        let error =
            step(web(), &did(&history[2])["web"], Some(&now(&[])), &history, &history[2].event).unwrap_err();
        assert_eq!(error.what, "deployment web is there again");
    }

    #[test]
    fn a_group_that_was_not_set_before_gets_its_default() {
        assert_eq!(default_of("env").unwrap(), r#"{"vars":{}}"#);
        assert_eq!(default_of("image"), None);
        assert_eq!(default_of("volumes"), None);
    }
}
