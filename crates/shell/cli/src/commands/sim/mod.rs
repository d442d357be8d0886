//! `sim`: the simulator in the binary. It drives the code that every peer runs, in virtual time and in
//! one process, and needs neither a peer nor any right.
//!
//! - `ls`: the scenarios that ship with the binary.
//! - `run`: a scenario, once or under many seeds; or random stories.
//! - `seed`: one random story, told and shrunk.
//! - `many`: seeds on several threads, and how far they are.
//! - `cut`: what would happen if links were cut or nodes died; `island` reads its sides, `tell` has its
//!   words, `picture` draws it.

mod cut;
mod island;
mod ls;
mod many;
mod picture;
mod run;
mod seed;
mod tell;

use crate::Context;
use crate::error::CliError;

/// Try partitions and faults in a simulator
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SimCommand {
    /// List the scenarios that ship with this binary
    Ls,
    /// Run a scenario, once or under many seeds, or random stories
    Run(run::RunArgs),
    /// Tell the random story of one seed
    Seed(seed::SeedArgs),
    /// Show what a cut, or the loss of nodes, would do to this cluster or to one that is described
    Cut(Box<cut::CutArgs>),
}

pub(crate) fn run(command: &SimCommand, context: &Context) -> Result<(), CliError> {
    match command {
        SimCommand::Ls => ls::run(context),
        SimCommand::Run(args) => run::run(args, context),
        SimCommand::Seed(args) => seed::run(args, context),
        SimCommand::Cut(args) => cut::run(args, context),
    }
}
