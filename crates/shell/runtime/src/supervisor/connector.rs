//! Sockets inside of the container's network, held outside of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use crate::sys;

use super::exec::Door;

/// Makes sockets in the container's network namespace.
#[derive(Debug)]
pub(super) enum Connector {
    /// No port is published.
    None,
    /// With root: this thread goes in, makes the socket, and comes back.
    Visits {
        /// Our own network namespace.
        home: File,
        /// The container's.
        there: File,
    },
    /// Without root there is no way back out of a user namespace, so a child of ours stays in there
    /// and hands sockets out. It dies with us.
    Resident {
        /// A byte asks for a socket, which comes back.
        ask: OwnedFd,
    },
}

impl Connector {
    /// Finds or makes the way into the container behind `door`, whose init is `pid`.
    pub(super) fn new(pid: u32, door: &Door) -> io::Result<Self> {
        match door {
            Door::Process => Ok(Self::Visits {
                home: File::open("/proc/self/ns/net")?,
                there: File::open(format!("/proc/{pid}/ns/net"))?,
            }),
            Door::Files { .. } => {
                let (ask, answer) = std::os::unix::net::UnixStream::pair()?;
                if sys::fork()?.is_none() {
                    drop(ask);
                    reside(door, &answer.into());
                }
                Ok(Self::Resident { ask: ask.into() })
            }
        }
    }

    /// A TCP socket that is not connected yet and never waits.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        match self {
            Self::None => Err(io::ErrorKind::Unsupported.into()),
            Self::Visits { home, there } => {
                sys::setns(there.as_fd(), libc::CLONE_NEWNET)?;
                let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
                // Not being able to come home would publish the wrong network's ports: end instead.
                if sys::setns(home.as_fd(), libc::CLONE_NEWNET).is_err() {
                    sys::exit_now(4);
                }
                socket
            }
            Self::Resident { ask } => {
                sys::send(ask.as_fd(), b"s")?;
                let (_, mut sockets) = sys::receive_fds(ask.as_fd(), &mut [0])?;
                sockets.pop().ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// The life of the child that stays in the container's network.
fn reside(door: &Door, answer: &OwnedFd) -> ! {
    let entered = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())
        .and_then(|()| door.enter_network());
    if entered.is_err() {
        sys::exit_now(1);
    }
    loop {
        match sys::read(answer.as_fd(), &mut [0]) {
            Ok(0) | Err(_) => sys::exit_now(0),
            Ok(_) => {}
        }
        let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        let sent = match &socket {
            Ok(socket) => sys::send_fds(answer.as_fd(), b"s", &[socket.as_fd()]),
            Err(_) => sys::send_fds(answer.as_fd(), b"n", &[]),
        };
        if sent.is_err() {
            sys::exit_now(1);
        }
    }
}
