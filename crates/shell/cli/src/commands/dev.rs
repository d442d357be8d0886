//! `dev` and `demo`: clusters on this machine, by way of the crate `dev`.

use std::io::Write;

use crate::Context;
use crate::error::{CliError, Exit};
use crate::out::Format;

/// Runs one of the two, which write by themselves; their exit code is passed on.
fn hand_over(
    context: &Context,
    word: &str,
    work: impl FnOnce(bool, &mut dyn Write, &mut dyn Write) -> Result<u8, dev::cli::Error>,
) -> Result<(), CliError> {
    let json = context.out.format == Format::Json;
    match work(json, &mut std::io::stdout(), &mut std::io::stderr()) {
        Ok(0) => Ok(()),
        Ok(code) => {
            // It has said why.
            let mut error = CliError::new(word, "it did not end well");
            error.exit = Exit::Passed(code);
            error.silent = true;
            Err(error)
        }
        Err(error) => {
            let hint = error.hint();
            let failed = CliError::new(word, error.to_string());
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let failed = causes.fold(failed, |failed, cause| failed.because(cause.to_string()));
            Err(hint.into_iter().fold(failed, CliError::hint))
        }
    }
}

pub(crate) fn run(args: &dev::cli::DevArgs, context: &Context) -> Result<(), CliError> {
    hand_over(context, "dev", |json, out, talk| dev::cli::run(args, json, out, talk))
}

pub(crate) fn demo(args: &dev::demo::DemoArgs, context: &Context) -> Result<(), CliError> {
    hand_over(context, "demo", |json, out, talk| dev::demo::run(args, json, out, talk))
}
