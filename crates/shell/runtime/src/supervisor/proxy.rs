//! Bytes between the host's published ports and the container.
//!
//! An idle connection holds two descriptors and no buffer. What one side does not take is kept, and
//! no more is read from the other side meanwhile: at most [`CHUNK_B`] each way.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::sys::{self, Epoll, Event};

/// Read at once, and the most that is kept for a side that does not take it.
const CHUNK_B: usize = 16 << 10;

/// Connections of one container at a time; two descriptors each. Further ones wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 2048;

/// Chunks moved for one connection before the others have their turn.
const CHUNKS_PER_TURN: usize = 4;

/// One way of a connection.
#[derive(Debug, Default)]
struct Flow {
    /// Read, and not taken by the other side yet.
    pending: Vec<u8>,
    /// The source says no more.
    ended: bool,
    /// The other side was told so.
    shut: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Interest {
    read: bool,
    write: bool,
}

/// One forwarded connection. Side 0 is the client, side 1 the container.
#[derive(Debug)]
struct Connection {
    ends: [OwnedFd; 2],
    /// What epoll was told of each end; nothing when it is not registered.
    interests: [Interest; 2],
    /// `flows[n]` is read from end `n`.
    flows: [Flow; 2],
    connected: bool,
}

/// All connections of a container.
#[derive(Debug)]
pub(super) struct Proxy {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Not free yet: events of the same turn may still be about what was there.
    closed: Vec<usize>,
    scratch: Vec<u8>,
    /// Added to a connection's number to make its tokens.
    token_base: u64,
}

impl Proxy {
    pub(super) fn new(token_base: u64) -> Self {
        Self {
            connections: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            scratch: Vec::new(),
            token_base,
        }
    }

    /// Whether one more connection may be accepted.
    pub(super) fn has_room(&self) -> bool {
        self.connections.len() - self.free.len() - self.closed.len() < CONNECTIONS_MAX
    }

    /// Forwards an accepted client to `port` of the container, by a socket of its network.
    pub(super) fn open(
        &mut self,
        epoll: &Epoll,
        client: OwnedFd,
        inner: OwnedFd,
        port: u16,
    ) -> io::Result<()> {
        for end in [&client, &inner] {
            sys::set_option(end.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        }
        let connected = sys::connect_loopback(inner.as_fd(), port)?;
        let connection = Connection {
            ends: [client, inner],
            interests: [Interest::default(); 2],
            flows: [Flow::default(), Flow::default()],
            connected,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let connection = self.connections[index].insert(connection);
        if let Err(error) = connection.register(epoll, self.token_base + index as u64 * 2) {
            self.close(index);
            return Err(error);
        }
        Ok(())
    }

    /// Goes on with the connection that the event is about. Whether it has ended.
    pub(super) fn turn(&mut self, epoll: &Epoll, event: Event) -> bool {
        let Ok(number) = usize::try_from(event.token - self.token_base) else { return false };
        let (index, side) = (number / 2, number % 2);
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            // Closed earlier in this turn.
            return false;
        };
        if self.scratch.is_empty() {
            self.scratch.resize(CHUNK_B, 0);
        }
        let alive = connection
            .turn(side, event, &mut self.scratch)
            .and_then(|open| {
                connection.register(epoll, self.token_base + index as u64 * 2)?;
                Ok(open)
            })
            .unwrap_or(false);
        if !alive {
            self.close(index);
        }
        !alive
    }

    fn close(&mut self, index: usize) {
        // Closing a descriptor takes it out of epoll.
        self.connections[index] = None;
        self.closed.push(index);
    }

    /// To be called when all events of a turn are handled.
    pub(super) fn settle(&mut self) {
        self.free.append(&mut self.closed);
        if self.free.len() == self.connections.len() {
            self.connections = Vec::new();
            self.free = Vec::new();
            self.scratch = Vec::new();
        }
    }
}

impl Connection {
    /// Moves what can be moved. False when the connection is over.
    fn turn(&mut self, side: usize, event: Event, scratch: &mut [u8]) -> io::Result<bool> {
        if event.failed {
            return Ok(false);
        }
        if side == 1 && !self.connected {
            sys::take_error(self.ends[1].as_fd())?;
            self.connected = true;
        }
        if event.writable {
            // Room for what the other end has sent.
            self.flows[1 - side].push(self.ends[side].as_fd())?;
        }
        if event.readable {
            for _ in 0..CHUNKS_PER_TURN {
                if !self.pull(side, scratch)? {
                    break;
                }
            }
        }
        Ok(!self.flows.iter().all(|flow| flow.shut))
    }

    /// Reads once and passes it on. Whether it is worth another try at once.
    fn pull(&mut self, side: usize, scratch: &mut [u8]) -> io::Result<bool> {
        let flow = &mut self.flows[side];
        if flow.ended || !flow.pending.is_empty() || !self.connected {
            return Ok(false);
        }
        let n = match sys::read(self.ends[side].as_fd(), scratch) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let other = self.ends[1 - side].as_fd();
        if n == 0 {
            flow.ended = true;
            flow.push(other)?;
            return Ok(false);
        }
        let sent = send_some(other, &scratch[..n])?;
        if sent < n {
            flow.pending.extend_from_slice(&scratch[sent..n]);
            return Ok(false);
        }
        Ok(n == scratch.len())
    }

    /// Tells epoll what is waited for now. An end of which nothing is wanted is taken out: epoll
    /// reports a hang-up whether one asks or not, and would never rest.
    fn register(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        for side in 0..2 {
            let wanted = if self.connected {
                Interest {
                    read: !self.flows[side].ended && self.flows[side].pending.is_empty(),
                    write: !self.flows[1 - side].pending.is_empty(),
                }
            } else {
                Interest { read: false, write: side == 1 }
            };
            let (fd, token) = (self.ends[side].as_fd(), token + side as u64);
            let none = Interest::default();
            match (self.interests[side], wanted) {
                (old, new) if old == new => {}
                (old, new) if old == none => epoll.add(fd, token, new.read, new.write)?,
                (_, new) if new == none => epoll.remove(fd)?,
                (_, new) => epoll.change(fd, token, new.read, new.write)?,
            }
            self.interests[side] = wanted;
        }
        Ok(())
    }
}

impl Flow {
    /// Passes on what is pending, and the end after it.
    fn push(&mut self, to: BorrowedFd<'_>) -> io::Result<()> {
        if !self.pending.is_empty() {
            let sent = send_some(to, &self.pending)?;
            if sent == self.pending.len() {
                self.pending = Vec::new();
            } else {
                self.pending.drain(..sent);
            }
        }
        if self.ended && self.pending.is_empty() && !self.shut {
            self.shut = true;
            match sys::shutdown_write(to) {
                // It has gone already.
                Err(error) if error.raw_os_error() != Some(libc::ENOTCONN) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Sends until the socket takes no more.
fn send_some(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match sys::send(to, &bytes[sent..]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
