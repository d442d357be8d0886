//! `help-pages`: the reference of commands, made from the commands themselves.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;
use crate::error::CliError;

/// Write the reference of every command as Markdown
#[derive(Debug, clap::Args)]
pub(crate) struct HelpPagesArgs {
    /// The folder; the page is cli.md
    dir: PathBuf,
}

fn option_line(arg: &Arg) -> Option<String> {
    if arg.is_hide_set()
        || arg.is_positional()
        || arg.is_global_set()
        || ["help", "version"].contains(&arg.get_id().as_str())
    {
        return None;
    }
    Some(format!("- `{}`: {}", arg.to_string().trim(), words(arg)))
}

fn words(arg: &Arg) -> String {
    let mut words = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        words = format!("{words} (default `{}`)", defaults.join(","));
    }
    words
}

fn section(page: &mut String, command: &Command, path: &str, depth: usize) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Writing to a String does not fail.
    let mut put = |text: String| writeln!(page, "{text}").expect("a String takes any text");
    put(format!("{} {path}\n", "#".repeat(depth)));
    put(format!("{about}.\n"));
    let positionals: Vec<_> = command.get_positionals().filter(|arg| !arg.is_hide_set()).collect();
    for arg in positionals {
        put(format!("- `{}`: {}", arg.to_string().trim(), words(arg)));
    }
    for line in command.get_arguments().filter_map(option_line) {
        put(line);
    }
    put(String::new());
    for sub in command.get_subcommands() {
        section(page, sub, &format!("{path} {}", sub.get_name()), depth + 1);
    }
}

pub(crate) fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = String::from(
        "# The commands of skerry\n\n<!-- Made by `skerry help-pages docs/reference`; do not edit. -->\n\n\
         Data goes to stdout, words and errors to stderr. With `-o json` the answers have the shapes of\n\
         `schemas/`, and an error is one object on stderr.\n\n## Options of every command\n\n",
    );
    let mut put = |text: String| page.push_str(&text);
    for arg in root.get_arguments().filter(|arg| arg.is_global_set()) {
        put(format!("- `{}`: {}\n", arg.to_string().trim(), words(arg)));
    }
    put("\n".to_owned());
    if let Some(after) = root.get_after_help() {
        put(format!("{after}\n\n"));
    }
    for command in root.get_subcommands() {
        section(&mut page, command, &format!("skerry {}", command.get_name()), 2);
    }
    format!("{}\n", page.trim_end())
}

pub(crate) fn run(args: &HelpPagesArgs) -> Result<(), CliError> {
    let path = args.dir.join("cli.md");
    std::fs::create_dir_all(&args.dir).and_then(|()| std::fs::write(&path, page())).map_err(|error| {
        CliError::new("help-pages", format!("{} cannot be written", path.display()))
            .because(error.to_string())
    })
}
