//! `completions`: for shells.

use clap::CommandFactory;

use crate::Context;
use crate::args::Cli;
use crate::error::CliError;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "skerry", &mut script);
    context.out.raw(true, &script)
}
