//! The person's door: commands, manifests, words for people, exit codes. The binary is `skerry`.
//!
//! `args` is the command line's form, `commands` has a file for each command, `change` is the way of
//! every change, `author` signs, `connect` finds a peer, `out` is the only writer.
//!
//! Invariants: data goes to stdout and words to stderr; with `-o json` an error is one object on
//! stderr; the exit code is decided here and nowhere else; `--help` touches no network; what is
//! signed is what was shown.
//! Absent on purpose: decisions about the cluster. Any peer answers, and what it answers is shown.
#![forbid(unsafe_code)]

mod args;
mod author;
mod change;
mod commands;
mod connect;
mod cycles;
mod doubts;
pub mod error;
mod fields;
mod jobs;
mod keys;
pub mod manifest;
mod near;
mod one_group;
pub mod out;
mod sabotage;
pub mod shapes;
mod voters;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, Globals};
use error::CliError;
use out::{Format, Out};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) out: Out,
}

/// Whether the command line asks for JSON; looked at by hand, for errors of the command line itself.
fn wants_json(args: &[OsString]) -> bool {
    let texts: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    texts.iter().any(|text| ["-ojson", "-o=json", "--output=json"].contains(&text.as_ref()))
        || texts.windows(2).any(|pair| ["-o", "--output"].contains(&pair[0].as_ref()) && pair[1] == "json")
}

/// The whole of the binary: a supervisor of a container when it is called as one, the application of
/// the demo, else the command line.
pub fn begin(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|arg| arg == runtime::SUPERVISOR_ARG) {
        // Before anything else: a supervisor is small because nothing was set up.
        let code = runtime::supervisor_main(&args);
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if args.get(1).is_some_and(|arg| arg == dev::web::ARG) {
        return dev::web::main();
    }
    ExitCode::from(run(args, Out::real()))
}

/// Runs one command line and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, mut out: Out) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let ended = match Cli::try_parse_from(&args) {
        Ok(cli) => {
            out.format = cli.globals.output;
            out.quiet = cli.globals.quiet;
            out.yes = cli.globals.yes || std::env::var_os("SKERRY_YES").is_some_and(|value| value == "1");
            let context = Context { globals: cli.globals, out };
            let ended = sabotage::obey().and_then(|()| dispatch(cli.command, &context));
            out = context.out;
            ended
        }
        Err(error) if error.use_stderr() => {
            if wants_json(&args) {
                out.format = Format::Json;
            }
            // The first line says what; the rest shows how it would be right.
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            let (what, rest) = text.split_once('\n').unwrap_or((text, ""));
            let usage = CliError::usage(what.trim());
            let rest = rest.lines().map(str::trim).filter(|line| !line.is_empty());
            Err(rest.fold(usage, CliError::because))
        }
        // Help and version, which clap hands over as an error.
        Err(error) => out.line(error.render().ansi().to_string().trim_end()),
    };
    match ended {
        Ok(()) => 0,
        Err(error) => {
            if !error.silent && out.error(&error).is_err() {
                // Nobody reads stderr: the exit code is all that is left to say it with.
                return error.exit.code();
            }
            error.exit.code()
        }
    }
}

fn online<F: Future<Output = Result<(), CliError>>>(command: F) -> Result<(), CliError> {
    // One thread: a command waits for one peer and for nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CliError::new("runtime", "the system gave no resources").because(error.to_string())
    })?;
    let ended = runtime.block_on(command);
    // Reading stdin blocks a thread that nothing can wake.
    runtime.shutdown_background();
    ended
}

fn dispatch(command: Command, context: &Context) -> Result<(), CliError> {
    use commands as c;
    use commands::rollout::Say;
    match command {
        // These touch no peer, or are one.
        Command::Init(args) => c::init::run(&args, context),
        Command::Peer(args) => c::peer::run(&args),
        Command::Doctor(args) => c::doctor::run(&args, context),
        Command::Validate(args) => c::validate::run(&args, context),
        Command::Schema(args) => c::schema::run(&args, context),
        Command::Completions(args) => c::completions::run(&args, context),
        Command::HelpPages(args) => c::help_pages::run(&args),
        // These talk to one.
        Command::Join(args) => online(c::join::run(&args, context)),
        Command::Token(args) => online(c::token::run(&args, context)),
        Command::Node(args) => online(c::node::run(&args, context)),
        Command::User(args) => online(c::user::run(&args, context)),
        Command::Leave(args) => online(c::leave::run(&args, context)),
        Command::Status(args) => online(c::status::run(&args, context)),
        Command::Apply(args) => online(c::apply::run(&args, context)),
        Command::Plan(args) => online(c::plan::run(&args, context)),
        Command::Scale(args) => online(c::scale::run(&args, context)),
        Command::Restart(args) => online(c::restart::run(&args, context)),
        Command::Pause(args) => online(c::rollout::run(&args, Say::Pause, context)),
        Command::Resume(args) => online(c::rollout::run(&args, Say::Resume, context)),
        Command::Promote(args) => online(c::rollout::run(&args, Say::Promote, context)),
        Command::Delete(args) => online(c::delete::run(&args, context)),
        Command::History(args) => online(c::history::run(&args, context)),
        Command::Undo(args) => online(c::undo::run(&args, context)),
        Command::Conflicts(args) => online(c::conflicts::run(&args, context)),
        Command::Explain(args) => online(c::explain::run(&args, context)),
        Command::Ps(args) => online(c::ps::run(&args, context)),
        Command::Get(args) => online(c::get::run(&args, context)),
        Command::Logs(args) => online(c::logs::run(&args, context)),
        Command::Exec(args) => online(c::exec::run(&args, context)),
        Command::Events(args) => online(c::events::run(&args, context)),
        Command::Image(args) => online(c::image::run(&args, context)),
        Command::Version(args) => online(c::version::run(&args, context)),
        Command::Sim(command) => c::sim::run(&command, context),
        // These run whole clusters.
        Command::Dev(args) => c::dev::run(&args, context),
        Command::Demo(args) => c::dev::demo(&args, context),
    }
}
