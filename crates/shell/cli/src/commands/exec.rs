//! `exec`: a program in a container of a deployment, with its exit code passed on.

use std::io::IsTerminal;

use api::shapes::{ExecAsk, PsRow, PsState};
use api::{ExecFrame, read_frame, routes, write_frame};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::Context;
use crate::args::ReplicaTarget;
use crate::connect;
use crate::error::{CliError, Exit};
use crate::out::Out;

/// Bytes of one read of stdin: a frame's worth would make a terminal wait for more.
const STDIN_BYTES: usize = 16 * 1024;

/// Run a program in a container of a deployment
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Instead of the container's user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// NAME (any replica that runs), NAME.ORDINAL or NAMESPACE/NAME
    #[arg(value_name = "DEPLOYMENT")]
    target: ReplicaTarget,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// A terminal in raw mode; as it was before when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self, CliError> {
        let failed = |error: nix::Error| {
            CliError::new("terminal", "the terminal cannot be set up").because(error.to_string())
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal has gone there is nothing to put back.
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Rows and columns of our terminal.
fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size().map(|(width, height)| (height.0, width.0))
}

/// The exit code for a program that could not be run, or whose end is not known, as Docker has it.
fn code_of_failure(text: &str) -> u8 {
    let says = |words: &[&str]| words.iter().any(|word| text.to_lowercase().contains(word));
    if says(&["not found", "no such file", "does not exist"]) {
        127
    } else if says(&["permission denied", "cannot be executed", "exec format"]) {
        126
    } else {
        125
    }
}

/// A refusal that is neither the command line's nor the lack of a peer is ours: 125.
fn ours(error: CliError) -> CliError {
    if error.exit == Exit::Error { error.exit(Exit::Passed(125)) } else { error }
}

/// Ends the command as the program ended.
fn ended(code: i32) -> Result<(), CliError> {
    match u8::try_from(code & 0xff) {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::quiet(Exit::Passed(code))),
        Err(_) => Err(CliError::quiet(Exit::Error)),
    }
}

/// Writes a frame from the program; `Some` is how the command ends.
fn show(out: &Out, frame: ExecFrame) -> Result<Option<Result<(), CliError>>, CliError> {
    match frame {
        ExecFrame::Stdout(bytes) => out.raw(true, &bytes)?,
        ExecFrame::Stderr(bytes) => out.raw(false, &bytes)?,
        ExecFrame::Exit(code) => return Ok(Some(ended(code))),
        ExecFrame::Failed(text) => {
            let code = code_of_failure(&text);
            let error = CliError::new("exec", "the program could not be run to its end").because(text);
            return Ok(Some(Err(error.exit(Exit::Passed(code)))));
        }
        // What only we send.
        ExecFrame::Stdin(_) | ExecFrame::StdinEnd | ExecFrame::Resize { .. } => {}
    }
    Ok(None)
}

async fn carry(args: &ExecArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let target = &args.target.target;
    let terminal = args.tty && std::io::stdin().is_terminal();
    if args.tty && args.interactive && !terminal {
        return Err(CliError::usage("-t needs a terminal on standard input").hint("leave -t out in scripts"));
    }
    let ask = ExecAsk {
        namespace: target.namespace.to_string(),
        deployment: target.name.to_string(),
        ordinal: args.target.ordinal,
        args: args.program.clone(),
        tty: args.tty.then(|| size().unwrap_or((24, 80))),
        user: args.user.clone(),
    };
    if ask.ordinal.is_none() && !context.out.quiet && args.interactive {
        // Which replica it is going to be is the peer's choice; where there is one, it is known.
        let rows: Vec<PsRow> = client.get(routes::PS).await?;
        let running: Vec<_> = rows
            .iter()
            .filter(|row| row.namespace == ask.namespace && row.deployment == ask.deployment)
            .filter(|row| row.state == PsState::Running)
            .collect();
        if let [one] = running.as_slice() {
            let node = one.node.as_deref().unwrap_or("?");
            context.out.say(format!("in {}.{} on {node}", one.deployment, one.ordinal))?;
        }
    }
    let body = serde_json::to_vec(&ask).map_err(|error| CliError::from_error("exec", &error))?;
    let connection = client.upgrade(routes::EXEC, body, "skerry-exec").await?;
    let _raw = if terminal { Some(RawTerminal::enter()?) } else { None };
    let (mut from, mut to) = tokio::io::split(connection);
    let failed = |error: std::io::Error| {
        CliError::new("signal", "signals cannot be caught").because(error.to_string())
    };
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let input = async {
        if !args.interactive {
            write_frame(&mut to, &ExecFrame::StdinEnd).await?;
        }
        let mut stdin = tokio::io::stdin();
        let mut bytes = vec![0; STDIN_BYTES];
        let mut open = args.interactive;
        loop {
            let frame = tokio::select! {
                read = stdin.read(&mut bytes), if open => match read {
                    Ok(0) | Err(_) => { open = false; ExecFrame::StdinEnd }
                    Ok(count) => ExecFrame::Stdin(bytes[..count].to_vec()),
                },
                _ = resized.recv() => match size() {
                    Some((rows, columns)) if args.tty => ExecFrame::Resize { rows, columns },
                    _ => continue,
                },
            };
            write_frame(&mut to, &frame).await?;
        }
        #[allow(unreachable_code, reason = "the type of a block that ends by `?` alone")]
        Ok::<(), api::FrameError>(())
    };
    let output = async {
        while let Some(frame) =
            read_frame(&mut from).await.map_err(|error| CliError::from_error("exec", &error))?
        {
            if let Some(end) = show(&context.out, frame)? {
                return end;
            }
        }
        Err(CliError::new("exec", "the connection ended before the program did")
            .because("the node or its peer went away"))
    };
    tokio::pin!(output);
    tokio::select! {
        end = &mut output => end,
        // What we send is of no use any more, but how it ended may still come.
        _ = input => output.await,
    }
}

pub(crate) async fn run(args: &ExecArgs, context: &Context) -> Result<(), CliError> {
    carry(args, context).await.map_err(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_passed_on_and_ours_are_125_to_127() {
        assert_eq!(ended(0), Ok(()));
        assert_eq!(ended(3).unwrap_err().exit.code(), 3);
        assert_eq!(ended(137).unwrap_err().exit.code(), 137);
        assert_eq!(code_of_failure("/bin/x: No such file or directory"), 127);
        assert_eq!(code_of_failure("/etc/passwd: Permission denied"), 126);
        assert_eq!(code_of_failure("how it ended is not known"), 125);
        assert_eq!(ours(CliError::new("x", "x")).exit.code(), 125);
        assert_eq!(ours(CliError::new("x", "x").exit(Exit::NoPeer)).exit.code(), 7);
    }

    #[test]
    fn frames_are_shown_where_they_belong() {
        let (out, captured) = Out::captured();
        assert_eq!(show(&out, ExecFrame::Stdout(b"out".to_vec())), Ok(None));
        assert_eq!(show(&out, ExecFrame::Stderr(b"err".to_vec())), Ok(None));
        assert_eq!((captured.stdout().as_str(), captured.stderr().as_str()), ("out", "err"));
        let end = show(&out, ExecFrame::Failed("sh: not found".into())).unwrap().unwrap().unwrap_err();
        assert_eq!(end.exit.code(), 127);
    }
}
