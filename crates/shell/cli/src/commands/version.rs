//! `version`.

use api::routes;
use api::shapes::Status;
use document::event::EVENT_VERSION;

use crate::Context;
use crate::connect;
use crate::error::CliError;
use crate::shapes::Version;

/// Print the release
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Ask the peer for its release as well
    #[arg(long)]
    peers: bool,
}

pub(crate) async fn run(args: &VersionArgs, context: &Context) -> Result<(), CliError> {
    let peer = if args.peers {
        let status: Status = connect::client(&context.globals)?.get(routes::STATUS).await?;
        Some(status.version)
    } else {
        None
    };
    let answer =
        Version { version: env!("CARGO_PKG_VERSION").to_owned(), event_version: EVENT_VERSION, peer };
    context.out.answer(&answer, || {
        let peer = answer.peer.as_ref().map(|peer| format!("\npeer   {peer}")).unwrap_or_default();
        format!("skerry {} (events: version {EVENT_VERSION}){peer}", answer.version)
    })
}
