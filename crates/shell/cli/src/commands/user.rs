//! `user`: the people who may change things, by key.

use api::routes;
use api::shapes::UserRow;
use document::event::{Kind, Role, UserAdd};
use model::{Name, UserId};

use crate::Context;
use crate::author::submit_cluster;
use crate::error::CliError;
use crate::out::short;
use crate::shapes::UserKey;
use crate::{connect, keys};

/// Manage the people who may change things
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// List the users
    Ls,
    /// Let a user in by their public key (`skerry user key` prints it)
    Add(AddArgs),
    /// Print your own public key; makes the key where there is none
    Key,
}

/// Let a user in
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// A name for people
    name: Name,
    /// The public key, 64 hexadecimal digits
    #[arg(value_name = "KEY")]
    public_key: UserId,
    /// What they may do
    #[arg(long, value_enum, default_value = "deploy")]
    role: RoleArg,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RoleArg {
    /// Everything
    Admin,
    /// Change deployments
    Deploy,
}

pub(crate) async fn run(command: &UserCommand, context: &Context) -> Result<(), CliError> {
    match command {
        UserCommand::Ls => {
            let client = connect::client(&context.globals)?;
            let rows: Vec<UserRow> = client.get(routes::USERS).await?;
            context.out.rows(
                &rows,
                |row| row.name.clone(),
                &[
                    ("USER", &|row: &UserRow| row.name.clone()),
                    ("ROLE", &|row| row.role.clone()),
                    ("KEY", &|row| row.key.clone()),
                ],
            )
        }
        UserCommand::Add(args) => {
            let client = connect::client(&context.globals)?;
            let key = keys::load(context.globals.key.as_deref())?;
            let role = match args.role {
                RoleArg::Admin => Role::Admin,
                RoleArg::Deploy => Role::Deploy,
            };
            let kind = Kind::UserAdd(UserAdd { name: args.name.clone(), key: args.public_key, role });
            let submitted = submit_cluster(&client, &key, kind).await?;
            context.out.answer(&submitted, || {
                format!("{} ({}) is let in", args.name, short(&args.public_key.to_string()))
            })
        }
        UserCommand::Key => {
            let (key, path, created) = keys::load_or_create(context.globals.key.as_deref())?;
            if created {
                context.out.say(format!("made a new key at {}", path.display()))?;
            }
            let answer =
                UserKey { key: key.user_id().to_string(), path: path.display().to_string(), created };
            context.out.answer(&answer, || answer.key.clone())
        }
    }
}
