//! The binary: a supervisor of a container when it is called as one, else the command line.

use std::process::ExitCode;

use cli::out::Out;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let first = args.nth(1);
    if first.is_some_and(|arg| arg == runtime::SUPERVISOR_ARG) {
        // Before anything else: a supervisor is small because nothing was set up.
        return runtime::supervisor_main();
    }
    ExitCode::from(cli::run(std::env::args_os(), Out::real()))
}
