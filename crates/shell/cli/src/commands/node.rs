//! `node`: the machines of the cluster.

use api::shapes::{NodeRow, NodeState, Removal};
use api::{Client, routes};
use document::event::{Kind, NodeRemove, Schedule};
use model::NodeId;

use super::schedule::{self, DrainArgs, ScheduleArgs, schedule_word};
use crate::Context;
use crate::args::IdPrefix;
use crate::author::submit_cluster;
use crate::error::CliError;
use crate::manifest::units::{show_bytes, show_cpu};
use crate::out::{NOTHING, moment, short, span};
use crate::{connect, keys};

/// List, drain or remove nodes
#[derive(Debug, clap::Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes as this peer sees them
    Ls,
    /// Give a node no new work; what it runs stays
    Cordon(ScheduleArgs),
    /// Move what a node runs elsewhere, one replica of each deployment at a time
    Drain(DrainArgs),
    /// Let a node take work again
    Uncordon(ScheduleArgs),
    /// Remove a lost node for ever: its key is no longer accepted
    Rm(RemoveArgs),
}

/// Remove a node
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Its name, or the beginning of its id
    node: String,
    /// Even if it is up
    #[arg(long)]
    force: bool,
}

/// The word for a node's state.
pub(crate) fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Down => "down",
        NodeState::Removed => "removed",
    }
}

/// The word, and whether it takes work; of a removed node by whom and when.
fn state(row: &NodeRow) -> String {
    let word = state_word(row.state);
    // The first word of the reason says of what: the rest is in the wide form.
    let short_of = row.pressure.as_ref().map(|why| why.split(':').next().unwrap_or(why));
    let word = match short_of {
        Some(what) if row.removed.is_none() => &format!("{word}, short of {what}"),
        _ => word,
    };
    match (&row.removed, schedule_word(row.schedule)) {
        (Some(removal), _) => format!("{word} {}", told(removal)),
        (None, Some(schedule)) => format!("{word}, {schedule}"),
        (None, None) => (*word).to_owned(),
    }
}

/// By whom and when.
pub(crate) fn told(removal: &Removal) -> String {
    format!("by {} at {}", removal.by, moment(removal.time_ms))
}

fn labels(row: &NodeRow) -> String {
    row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn of(free: u64, all: u64, show: fn(u64) -> String) -> String {
    format!("{}/{}", show(free), show(all))
}

/// The same of what may be given away more than once.
fn of_ratio(free: u64, all: u64, percent: u16, show: fn(u64) -> String) -> String {
    let amounts = of(free, all, show);
    if percent == 100 { amounts } else { format!("{amounts} (x{}.{:02})", percent / 100, percent % 100) }
}

fn extras(row: &NodeRow) -> String {
    if row.capacity.extras.is_empty() {
        return NOTHING.to_owned();
    }
    let one = |(name, all): (&String, &u64)| {
        let free = row.free.extras.get(name).copied().unwrap_or(0);
        format!("{name}={free}/{all}")
    };
    row.capacity.extras.iter().map(one).collect::<Vec<_>>().join(",")
}

pub(crate) fn list(rows: &[NodeRow], context: &Context) -> Result<(), CliError> {
    // Few clusters have any.
    let has_extras = rows.iter().any(|row| !row.capacity.extras.is_empty());
    let extras_heading = if has_extras { "EXTRAS FREE" } else { "+EXTRAS FREE" };
    context.out.rows(
        rows,
        |row| row.name.clone(),
        &[
            ("NODE", &|row| row.name.clone()),
            ("ID", &|row| short(&row.id).to_owned()),
            ("STATE", &state),
            ("SEEN", &|row| match row.seen_s {
                Some(0) => "now".to_owned(),
                Some(seconds) => format!("{} ago", span(seconds)),
                None => NOTHING.to_owned(),
            }),
            ("CPU FREE", &|row| of_ratio(row.free.cpu_m, row.capacity.cpu_m, row.cpu_percent, show_cpu)),
            ("MEMORY FREE", &|row| {
                of_ratio(row.free.memory_b, row.capacity.memory_b, row.memory_percent, show_bytes)
            }),
            ("PIDS FREE", &|row| of(row.free.pids, row.capacity.pids, |count| count.to_string())),
            (extras_heading, &extras),
            ("+RESERVED", &|row| {
                format!("cpu={},memory={}", show_cpu(row.reserved_cpu_m), show_bytes(row.reserved_memory_b))
            }),
            ("+SHORT OF", &|row| row.pressure.clone().unwrap_or_else(|| NOTHING.to_owned())),
            ("+ADDRESSES", &|row| row.addresses.join(",")),
            ("+HEADS", &|row| {
                let heads = row.heads.iter().map(|(doc, heads)| {
                    format!("{doc}:{}", heads.iter().map(|head| short(head)).collect::<Vec<_>>().join("+"))
                });
                heads.collect::<Vec<_>>().join(" ")
            }),
            ("LABELS", &labels),
        ],
    )
}

/// The node of that name or id; an error where there is none, or more than one.
pub(crate) fn find<'a>(rows: &'a [NodeRow], text: &str) -> Result<&'a NodeRow, CliError> {
    let named: Vec<_> =
        rows.iter().filter(|row| row.name == text && row.state != NodeState::Removed).collect();
    let found = if named.is_empty() {
        match text.parse::<IdPrefix>() {
            Ok(prefix) => rows.iter().filter(|row| prefix.is_of(&row.id)).collect(),
            Err(_) => Vec::new(),
        }
    } else {
        named
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(CliError::new("not-found", format!("there is no node `{text}`"))
            .hint("`skerry node ls` lists them")),
        more => Err(more
            .iter()
            .fold(
                CliError::new("ambiguous", format!("`{text}` may be any of {} nodes", more.len())),
                |error, row| error.because(format!("{} {} ({})", row.name, row.id, state_word(row.state))),
            )
            .hint("name it by its id")),
    }
}

/// Signs the removal of a node.
pub(crate) async fn remove(client: &Client, context: &Context, row: &NodeRow) -> Result<(), CliError> {
    let node: NodeId =
        row.id.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let key = keys::load(context.globals.key.as_deref())?;
    let submitted = submit_cluster(client, &key, Kind::NodeRemove(NodeRemove { node })).await?;
    context.out.answer(&submitted, || format!("{} is removed", row.name))
}

pub(crate) async fn run(command: &NodeCommand, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let rows: Vec<NodeRow> = client.get(routes::NODES).await?;
    match command {
        NodeCommand::Ls => list(&rows, context),
        NodeCommand::Cordon(args) => {
            schedule::say(&client, context, &rows, &args.node, Schedule::Cordoned).await
        }
        NodeCommand::Uncordon(args) => {
            schedule::say(&client, context, &rows, &args.node, Schedule::Normal).await
        }
        NodeCommand::Drain(args) => schedule::drain(&client, context, &rows, args).await,
        NodeCommand::Rm(args) => {
            let row = find(&rows, &args.node)?;
            if row.state == NodeState::Removed {
                return Err(CliError::new("removed", format!("{} was removed already", row.name)));
            }
            if row.state == NodeState::Up && !args.force {
                return Err(CliError::new("node-up", format!("{} is up", row.name)).hint(format!(
                    "run `skerry leave` on it, or `skerry node rm {} --force` if it must go against its will",
                    args.node
                )));
            }
            if context.out.interactive() {
                context.out.say(format!(
                    "{} ({}) is {} and will never be let in again with its key",
                    row.name,
                    short(&row.id),
                    state_word(row.state)
                ))?;
                if !context.out.confirm("Remove it?")? {
                    return Err(CliError::new("declined", "nothing was changed"));
                }
            }
            remove(&client, context, row).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, id: &str, state: NodeState) -> NodeRow {
        NodeRow {
            name: name.into(),
            id: id.repeat(32),
            state,
            schedule: api::shapes::NodeSchedule::Normal,
            capacity: api::shapes::Amounts::default(),
            free: api::shapes::Amounts::default(),
            heads: std::collections::BTreeMap::new(),
            seen_s: None,
            labels: std::collections::BTreeMap::new(),
            addresses: vec![],
            cpu_percent: 100,
            memory_percent: 100,
            reserved_cpu_m: 0,
            reserved_memory_b: 0,
            pressure: None,
            removed: None,
        }
    }

    #[test]
    fn a_node_is_found_by_name_or_id_and_never_guessed() {
        let rows = [
            row("edge-1", "a1", NodeState::Up),
            row("edge-2", "a2", NodeState::Down),
            row("edge-2", "b2", NodeState::Up),
            row("edge-1", "c1", NodeState::Removed),
        ];
        assert_eq!(find(&rows, "edge-1").unwrap().id, "a1".repeat(32));
        assert_eq!(find(&rows, "b2b2").unwrap().id, "b2".repeat(32));
        assert_eq!(find(&rows, "edge-2").unwrap_err().what, "`edge-2` may be any of 2 nodes");
        assert_eq!(find(&rows, "edge-9").unwrap_err().what, "there is no node `edge-9`");
    }
}
