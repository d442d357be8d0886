//! Listening on ports of the host, shared with our own kind and with nobody else.
//!
//! Containers of one runtime folder may share a port (replicas of one deployment): the kernel then
//! spreads connections over them. The kernel's own rule, any process of the same user, is too wide.
//! So under a lock of the folder: bind alone first; where that fails, every socket that listens on
//! the port must be one that a living supervisor of the folder has written down.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Errno, RuntimeError, StartError};
use crate::files;
use crate::record::Process;
use crate::spec::PublishedPort;
use crate::sys;

/// Taken while ports are bound and written down.
const LOCK: &str = ".ports.lock";

/// Connections that wait while a burst is being accepted.
const BACKLOG: i32 = 512;

/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    /// The port on the container's loopback.
    pub(super) container: u16,
}

/// The file `listeners.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Listeners {
    boot_id: String,
    supervisor: Process,
    /// Numbers of the sockets, as `/proc/net/tcp` shows them.
    inodes: Vec<u64>,
}

/// Listens on all `ports`, for the container in `dir` of the runtime folder `root`.
pub(super) fn open(
    root: &Path,
    dir: &Path,
    ports: &[PublishedPort],
    supervisor: &Process,
    boot_id: &str,
) -> Result<Vec<Listener>, StartError> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let path = root.join(LOCK);
    let _lock = files::lock(&path).map_err(StartError::kernel(format!("lock {}", path.display())))?;
    let mut listeners = Vec::new();
    let mut inodes = Vec::new();
    for port in ports {
        let refused = |source: io::Error| StartError::PortRefused { port: port.host, source: source.into() };
        let socket = listen(root, port.host, boot_id)?;
        inodes.push(sys::inode(socket.as_fd()).map_err(refused)?);
        listeners.push(Listener { socket, container: port.container });
    }
    let known = Listeners { boot_id: boot_id.to_owned(), supervisor: supervisor.clone(), inodes };
    files::write_volatile(dir, files::LISTENERS, &known).map_err(|_| {
        StartError::kernel(format!("write down the listeners in {}", dir.display()))(Errno(libc::EIO))
    })?;
    Ok(listeners)
}

fn listen(root: &Path, port: u16, boot_id: &str) -> Result<OwnedFd, StartError> {
    let refused = |error: io::Error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => StartError::PortTaken { port },
        Some(libc::EACCES) => {
            StartError::NoPermission { action: format!("listen on port {port}"), source: Errno::from(error) }
        }
        _ => StartError::PortRefused { port, source: error.into() },
    };
    let socket = match bound(port, false) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
            if !all_ours(root, port, boot_id).map_err(refused)? {
                return Err(StartError::PortTaken { port });
            }
            bound(port, true).map_err(refused)?
        }
        done => done.map_err(refused)?,
    };
    // After a bind alone too, or the next of our own could not join.
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(refused)?;
    sys::listen(socket.as_fd(), BACKLOG).map_err(refused)?;
    Ok(socket)
}

/// On all addresses of both families, or of IPv4 where there is no IPv6.
fn bound(port: u16, shared: bool) -> io::Result<OwnedFd> {
    match bound_to(libc::AF_INET6, port, shared) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            bound_to(libc::AF_INET, port, shared)
        }
        done => done,
    }
}

fn bound_to(family: i32, port: u16, shared: bool) -> io::Result<OwnedFd> {
    let socket = sys::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    // Connections of an earlier container that linger do not keep the port from us.
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if family == libc::AF_INET6 {
        sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    sys::bind_any(socket.as_fd(), family, port)?;
    Ok(socket)
}

/// Whether everything that listens on the port belongs to living supervisors of `root`.
fn all_ours(root: &Path, port: u16, boot_id: &str) -> io::Result<bool> {
    let mut ours = Vec::new();
    for entry in fs::read_dir(root)? {
        let listeners = match files::read::<Listeners>(&entry?.path(), files::LISTENERS) {
            Ok(Some(listeners)) => listeners,
            // Plain files of the folder, and what is half-removed: not ours to claim.
            Ok(None) | Err(RuntimeError::File { .. } | RuntimeError::Unreadable { .. }) => continue,
            Err(error) => return Err(io::Error::other(error)),
        };
        if listeners.boot_id == boot_id && listeners.supervisor.is_alive() {
            ours.extend(listeners.inodes);
        }
    }
    let mut listening = Vec::new();
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match fs::read_to_string(file) {
            Ok(text) => listening.extend(listeners_on(&text, port)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // One that is bound but does not listen is in neither file, and is not ours: ours are written
    // down, and listen, before the lock is free.
    Ok(!listening.is_empty() && listening.iter().all(|inode| ours.contains(inode)))
}

/// The socket numbers of those that listen on the port.
fn listeners_on(table: &str, port: u16) -> Vec<u64> {
    let at_port = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&at_port) && *state == LISTENING).then(|| inode.parse().ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_a_port_are_found_and_connections_are_not() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0
   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0
";
        assert_eq!(listeners_on(table, 8080), [111]);
        assert_eq!(listeners_on(table, 8081), [333]);
        assert_eq!(listeners_on(table, 80), [0; 0]);
    }
}
