//! `peer`: the daemon itself.

use std::path::PathBuf;

use crate::connect::default_dir;
use crate::error::{CliError, Exit};

/// Run this node's peer, in the foreground
#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The data folder [default: /var/lib/skerry as root, else ~/.local/share/skerry]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &PeerArgs) -> Result<(), CliError> {
    let dir = match &args.dir {
        // Containers are started from other folders than this one.
        Some(dir) => std::path::absolute(dir).map_err(|error| {
            CliError::new("dir", "the current folder is not known").because(error.to_string())
        })?,
        None => default_dir()?,
    };
    tracing_to_stderr();
    ::peer::run(&dir).map_err(|error| {
        if let ::peer::RunError::Removed { .. } = error {
            return CliError::from_error("removed", &error)
                .hint(format!(
                    "its key is never let in again: delete {}, and `skerry join TOKEN` makes this machine a new \
                     node",
                    dir.display()
                ))
                .exit(Exit::Removed);
        }
        let said = CliError::from_error("peer", &error);
        match error.hint() {
            Some(hint) => said.hint(hint),
            None => said,
        }
    })
}

/// Traces of the daemon: `SKERRY_LOG` says which, `SKERRY_LOG_FORMAT=json` in which form.
fn tracing_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("SKERRY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var_os("SKERRY_LOG_FORMAT").is_some_and(|form| form == "json");
    // A second subscriber is only possible in a test that set its own.
    if json {
        builder.json().try_init().ok();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init().ok();
    }
}
