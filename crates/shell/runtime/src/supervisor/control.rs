//! The supervisor's side of its socket: connections, and the lines on them.
//!
//! Whatever comes in, the container goes on: a request that is too long, not understood or not
//! possible is answered, and its connection closed. Only our own user and root can reach the socket.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::protocol::{REQUEST_B_MAX, Reply, line};
use crate::sys::{self, Epoll};

/// A peer needs one to watch and one for each exec; further ones are turned away.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Read at once.
const READ_B: usize = 16 << 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has asked nothing yet.
    New,
    /// It waits for the end.
    Watch,
    /// It belongs to a program, by its number among the execs.
    Exec(usize),
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    role: Role,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    /// By a number that is not used twice: answers come late, and must not reach somebody else.
    list: BTreeMap<usize, Connection>,
    next: u32,
    token_base: u64,
}

/// What a readable connection brought.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) role: Role,
    pub(super) lines: Vec<Vec<u8>>,
    /// The client is gone, or said too much.
    pub(super) over: bool,
}

impl Connections {
    pub(super) fn new(token_base: u64) -> Self {
        Self { list: BTreeMap::new(), next: 0, token_base }
    }

    /// Takes all clients that wait.
    pub(super) fn accept(&mut self, epoll: &Epoll, socket: &UnixListener) -> io::Result<()> {
        loop {
            let stream = match socket.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            if self.list.len() == CONNECTIONS_MAX {
                // The refusal is best effort: the connection is closed either way.
                let refusal = line(&Reply::Refused("too many connections".into()));
                match sys::send(stream.as_fd(), &refusal) {
                    Ok(_) | Err(_) => continue,
                }
            }
            let index = self.next as usize;
            self.next = self.next.wrapping_add(1);
            epoll.add(stream.as_fd(), self.token_base + index as u64, true, false)?;
            let connection = Connection { stream, input: Vec::new(), role: Role::New };
            self.list.insert(index, connection);
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, index: usize) -> Option<Brought> {
        let connection = self.list.get_mut(&index)?;
        let mut buffer = [0; READ_B];
        // What was read before holds no line's end, and is not searched again.
        let mut from = connection.input.len();
        let over = match connection.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(n) => {
                connection.input.extend_from_slice(&buffer[..n]);
                connection.input.len() > REQUEST_B_MAX
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        let mut lines = Vec::new();
        while let Some(end) = connection.input[from..].iter().position(|byte| *byte == b'\n') {
            let rest = connection.input.split_off(from + end + 1);
            from = 0;
            lines.push(std::mem::replace(&mut connection.input, rest));
        }
        Some(Brought { role: connection.role, lines, over })
    }

    /// Sets what a connection is for.
    pub(super) fn set_role(&mut self, index: usize, role: Role) {
        if let Some(connection) = self.list.get_mut(&index) {
            connection.role = role;
        }
    }

    /// Answers. A client that does not read its answers is cut off.
    pub(super) fn reply(&mut self, index: usize, reply: &Reply) {
        self.reply_with(index, reply, &[]);
    }

    /// Answers, with descriptors.
    pub(super) fn reply_with(&mut self, index: usize, reply: &Reply, fds: &[std::os::fd::OwnedFd]) {
        let Some(connection) = self.list.get(&index) else { return };
        let fds: Vec<_> = fds.iter().map(std::os::fd::AsFd::as_fd).collect();
        if sys::send_fds(connection.stream.as_fd(), &line(reply), &fds).is_err() {
            self.close(index);
        }
    }

    /// Answers everybody who waits for the end.
    pub(super) fn tell_watchers(&mut self, reply: &Reply) {
        let watchers = self.list.iter().filter(|(_, it)| it.role == Role::Watch).map(|(index, _)| *index);
        for index in watchers.collect::<Vec<_>>() {
            self.reply(index, reply);
        }
    }

    pub(super) fn close(&mut self, index: usize) {
        self.list.remove(&index);
    }
}
