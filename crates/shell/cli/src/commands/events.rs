//! `events`: what happened on the answering peer's node.

use api::shapes::NoticeRow;
use api::{path, routes};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Context;
use crate::connect;
use crate::error::CliError;
use crate::out::moment;

/// Show what happened on the answering peer's node
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now
    #[arg(short, long)]
    follow: bool,
    /// Only what came after this sequence number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Only about this deployment (NAME or NAMESPACE/NAME)
    #[arg(long = "for", value_name = "DEPLOYMENT")]
    about: Option<crate::args::Target>,
}

pub(crate) async fn run(args: &EventsArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let after = args.after.to_string();
    let follow = args.follow.to_string();
    let stream = client.stream(&path(routes::NOTICES, &[("after", &after), ("follow", &follow)])).await?;
    let about = args.about.as_ref().map(|target| format!("{}/{}", target.namespace, target.name));
    let out = &context.out;
    let mut kept = Vec::new();
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| super::logs::broken(&client, &error))? {
        let row: NoticeRow =
            serde_json::from_str(&line).map_err(|error| CliError::from_error("peer", &error))?;
        if about.as_ref().is_some_and(|about| row.about.as_ref() != Some(about)) {
            continue;
        }
        if !out.structured() {
            let about = row.about.as_deref().map(|about| format!("{about}: ")).unwrap_or_default();
            out.line(format!("{}  {}  {}  {about}{}", moment(row.time_ms), row.node, row.kind, row.message))?;
        } else if args.follow {
            out.stream_value(&row)?;
        } else {
            kept.push(row);
        }
    }
    if out.structured() && !args.follow { out.value(&kept) } else { Ok(()) }
}
