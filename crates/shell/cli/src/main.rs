//! The binary: a supervisor of a container when it is called as one, else the command line.

use std::ffi::OsString;
use std::process::ExitCode;

use cli::out::Out;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == runtime::SUPERVISOR_ARG) {
        // Before anything else: a supervisor is small because nothing was set up.
        let code = runtime::supervisor_main(&args);
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if args.get(1).is_some_and(|arg| arg == dev::web::ARG) {
        return dev::web::main();
    }
    ExitCode::from(cli::run(args, Out::real()))
}
