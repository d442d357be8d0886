//! Whether packets pass where they must, and nowhere else: one datagram on every way, with no peer in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dev::Cluster;
use network::in_netns;

/// The port on every node.
const PORT: u16 = 7_999;

/// How long a datagram may take on a way that is whole: a busy machine, and the first one is preceded by
/// a question for the address.
const PASS_WAIT: Duration = Duration::from_secs(10);

/// How often it is sent again until then.
const AGAIN: Duration = Duration::from_millis(50);

/// How long is waited for what must not arrive. What passes does so at once.
const SILENCE: Duration = Duration::from_millis(100);

/// A socket in each node's network.
#[derive(Debug)]
pub(super) struct Packets {
    sockets: Vec<(UdpSocket, SocketAddr)>,
    round: u64,
}

impl Packets {
    /// Listens on every node.
    pub(super) fn listen(cluster: &Cluster, names: &[String]) -> Result<Self> {
        let socket = |name: &String| -> Result<(UdpSocket, SocketAddr)> {
            let node = cluster.node(name)?;
            let address = SocketAddr::from((node.address, PORT));
            let socket = in_netns(&node.netns_path, || UdpSocket::bind(address))?;
            let socket = socket.with_context(|| format!("listen in the network of {name}"))?;
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        };
        Ok(Self { sockets: names.iter().map(socket).collect::<Result<_>>()?, round: 0 })
    }

    /// Sends on each of these ways; the first on which a datagram passed and must not, or must and did not
    /// pass, with whether it did.
    pub(super) fn check(
        &mut self,
        must: &BTreeMap<(usize, usize), bool>,
    ) -> Result<Option<(usize, usize, bool)>> {
        self.round += 1;
        let ways = |pass: bool| must.iter().filter(move |(_, must)| **must == pass).map(|(way, _)| *way);
        // Those that are cut first: by when the others have arrived, so have they.
        for way in ways(false) {
            self.send(way)?;
        }
        let mut missing: BTreeSet<(usize, usize)> = ways(true).collect();
        let began = Instant::now();
        while !missing.is_empty() {
            if began.elapsed() > PASS_WAIT {
                return Ok(missing.first().map(|(from, to)| (*from, *to, false)));
            }
            for way in &missing {
                self.send(*way)?;
            }
            let sent = Instant::now();
            while !missing.is_empty() && sent.elapsed() < AGAIN {
                for way in self.arrived()? {
                    missing.remove(&way);
                    if must.get(&way) == Some(&false) {
                        return Ok(Some((way.0, way.1, true)));
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let began = Instant::now();
        while began.elapsed() < SILENCE && ways(false).next().is_some() {
            if let Some(way) = self.arrived()?.into_iter().find(|way| must.get(way) == Some(&false)) {
                return Ok(Some((way.0, way.1, true)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    fn send(&self, (from, to): (usize, usize)) -> Result<()> {
        let mut text = self.round.to_be_bytes().to_vec();
        text.extend([from, to].map(|host| u8::try_from(host).unwrap_or(u8::MAX)));
        match self.sockets[from].0.send_to(&text, self.sockets[to].1) {
            Ok(_) => Ok(()),
            // Nobody knows the address for now: then it does not pass.
            Err(error) if is_in_vain(&error) => Ok(()),
            Err(error) => Err(error).context("send a datagram"),
        }
    }

    /// The ways of all datagrams of this round that have arrived by now.
    fn arrived(&self) -> Result<Vec<(usize, usize)>> {
        let mut ways = Vec::new();
        for (socket, _) in &self.sockets {
            let mut buffer = [0; 16];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(10) if buffer[..8] == self.round.to_be_bytes() => {
                        ways.push((usize::from(buffer[8]), usize::from(buffer[9])));
                    }
                    // Of an earlier round.
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if is_in_vain(&error) => {}
                    Err(error) => return Err(error).context("receive a datagram"),
                }
            }
        }
        Ok(ways)
    }
}

fn is_in_vain(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | Interrupted | NetworkUnreachable | WouldBlock
    )
}
