//! ^C and SIGTERM, for programs that have a cluster to take down.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Runs `act` at the first of them, in a thread of its own; the process goes on.
///
/// # Errors
/// Where signals cannot be heard.
pub fn at_end(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        });
        // A second one does not end the process in the middle: tokio never gives a signal back to the kernel.
        act();
    });
    Ok(())
}
