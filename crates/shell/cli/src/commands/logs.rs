//! `logs`: what replicas wrote, merged over the nodes that can be asked.

use api::shapes::{LogLine, PsRow};
use api::{Client, path, routes};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Context;
use crate::args::ReplicaTarget;
use crate::connect;
use crate::error::CliError;
use crate::out::moment;

/// Show what replicas wrote, merged over all nodes that can be asked
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// NAME, NAME.ORDINAL or NAMESPACE/NAME
    #[arg(value_name = "DEPLOYMENT")]
    target: ReplicaTarget,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each container
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// With the time of each line, in UTC
    #[arg(short, long)]
    timestamps: bool,
}

/// A stream of the peer ended before its end.
pub(crate) fn broken(client: &Client, error: &std::io::Error) -> CliError {
    CliError::new("peer", format!("the connection to {} broke", client.peer()))
        .because(error.to_string())
        .hint("any other peer will do: --peer HOST:PORT")
}

/// Colours of prefixes, so that replicas are told apart by eye: none is red, which is for errors.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

fn show(line: &LogLine, prefix: bool, timestamps: bool) -> String {
    let time = if timestamps { format!("{}  ", moment(line.time_ms)) } else { String::new() };
    let prefix = if prefix {
        let colour = COLOURS[usize::try_from(line.ordinal).unwrap_or(0) % COLOURS.len()];
        format!("\u{1b}[{colour}m{}-{} |\u{1b}[0m ", line.deployment, line.ordinal)
    } else {
        String::new()
    };
    // A word of the supervisor's own is set apart from what the program wrote.
    if line.stream == "skerry" {
        format!("{time}{prefix}\u{1b}[2m[skerry on {}] {}\u{1b}[0m", line.node, line.text)
    } else {
        format!("{time}{prefix}{}", line.text)
    }
}

pub(crate) async fn run(args: &LogsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let target = &args.target.target;
    let ordinal = args.target.ordinal.map(|ordinal| ordinal.to_string());
    let tail = args.tail.map(|tail| tail.to_string());
    let follow = args.follow.to_string();
    let mut query = vec![
        ("namespace", target.namespace.as_str()),
        ("deployment", target.name.as_str()),
        ("follow", follow.as_str()),
    ];
    query.extend(ordinal.as_deref().map(|ordinal| ("ordinal", ordinal)));
    query.extend(tail.as_deref().map(|tail| ("tail", tail)));
    let prefix = ordinal.is_none() && {
        let rows: Vec<PsRow> = client.get(routes::PS).await?;
        let of_it = rows.iter().filter(|row| {
            row.namespace == target.namespace.as_str() && row.deployment == target.name.as_str()
        });
        of_it.count() > 1
    };
    let stream = client.stream(&path(routes::LOGS, &query)).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(text) = lines.next_line().await.map_err(|error| broken(&client, &error))? {
        let line: LogLine =
            serde_json::from_str(&text).map_err(|error| CliError::from_error("peer", &error))?;
        if context.out.structured() {
            context.out.stream_value(&line)?;
        } else {
            context.out.line(show(&line, prefix, args.timestamps))?;
        }
    }
    Ok(())
}
