//! Scratch.
#![allow(clippy::all, missing_docs)]
use std::ffi::OsString;
use std::process::ExitCode;
use clap::Parser;
#[derive(Debug, Parser)]
struct C { #[arg(short)] o: Option<String>, #[command(subcommand)] c: S }
#[derive(Debug, clap::Subcommand)]
enum S { Dev(dev::cli::DevArgs), Demo(dev::demo::DemoArgs) }
fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == runtime::SUPERVISOR_ARG) {
        return ExitCode::from(u8::try_from(runtime::supervisor_main(&args)).unwrap_or(1));
    }
    if args.get(1).is_some_and(|arg| arg == dev::web::ARG) { return dev::web::main(); }
    if args.iter().any(|a| a == "dev" || a == "demo") && !args.iter().any(|a| a == "--peer" || a == "--key") {
        let c = C::parse();
        let json = c.o.as_deref() == Some("json");
        let (mut o, mut e) = (std::io::stdout(), std::io::stderr());
        let r = match &c.c { S::Dev(a) => dev::cli::run(a, json, &mut o, &mut e), S::Demo(a) => dev::demo::run(a, json, &mut o, &mut e) };
        return match r { Ok(c) => ExitCode::from(c), Err(x) => { eprintln!("error: {}\nhint: {:?}", dev::wait::chain(&x), x.hint()); ExitCode::FAILURE } };
    }
    ExitCode::from(cli::run(args, cli::out::Out::real()))
}
