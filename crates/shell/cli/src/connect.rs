//! Which peer is talked to, and how: a Unix socket, or a stream of a QUIC connection.
//!
//! A remote peer proves that it holds a node key; which key that must be is said by `#NODE-ID`
//! behind the address, or by what was seen there the first time (`known_peers` beside the user's
//! key). The first contact is trusted: what a false peer could learn is what is asked, and it can
//! change nothing, since every change is signed. A key that differs later is refused.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::{Client, Connect, Connection, UnixSocket};
use identity::{Expect, KeyPair};
use model::NodeId;
use tokio::sync::OnceCell;
use transport::{ALPN_API, ClientConnection, DialError};

use crate::args::Globals;
use crate::error::CliError;
use crate::keys;

/// How long an answer may take. Peers bound their own work below it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take that comes after an upload: slow links, large images.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How long a remote peer has for the handshake: a satellite link twice over.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);

/// The folder of a peer's data where none is named.
pub(crate) fn default_dir() -> Result<PathBuf, CliError> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(PathBuf::from("/var/lib/skerry"));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.map(|home| home.join(".local/share/skerry"))
        .ok_or_else(|| CliError::new("no-home", "HOME does not say where your data is").hint("use --dir DIR"))
}

/// A peer as `--peer` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Socket(PathBuf),
    Mesh { address: String, node: Option<NodeId> },
}

fn parse(text: &str) -> Result<Where, CliError> {
    let usage = |why: &str| {
        CliError::usage(format!("`{text}` names no peer: {why}"))
            .hint("write unix:/var/lib/skerry/api.sock, HOST:PORT or HOST:PORT#NODE-ID")
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err(usage("the path is empty"))
        } else {
            Ok(Where::Socket(path.into()))
        };
    }
    if text.starts_with('/') {
        return Err(usage("a socket's path begins with `unix:`"));
    }
    let (address, node) = match text.split_once('#') {
        None => (text, None),
        Some((address, node)) => {
            let node = node.parse().map_err(|error: model::IdError| usage(&error.to_string()))?;
            (address, Some(node))
        }
    };
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(Where::Mesh { address: address.to_owned(), node }),
        _ => Err(usage("it has no port")),
    }
}

/// Addresses and the node that was first seen there, one a line.
#[derive(Clone, Debug)]
struct KnownPeers(PathBuf);

impl KnownPeers {
    fn find(&self, address: &str) -> io::Result<Option<NodeId>> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let line = text.lines().find_map(|line| line.split_once(' ').filter(|(known, _)| *known == address));
        line.map(|(_, node)| {
            node.trim().parse().map_err(|error: model::IdError| {
                io::Error::other(format!("{} is damaged: {error}", self.0.display()))
            })
        })
        .transpose()
    }

    fn add(&self, address: &str, node: NodeId) -> io::Result<()> {
        if let Some(dir) = self.0.parent() {
            keys::private_dir(dir).map_err(io::Error::other)?;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        file.write_all(format!("{address} {node}\n").as_bytes())
    }
}

/// A peer reached over its mesh port with the user's key. One connection carries all requests.
struct Mesh {
    address: String,
    pin: Option<NodeId>,
    known: KnownPeers,
    key: KeyPair,
    connection: OnceCell<ClientConnection>,
}

impl Mesh {
    async fn dial(&self) -> io::Result<ClientConnection> {
        let known = match self.pin {
            Some(node) => Some(node),
            None => self.known.find(&self.address)?,
        };
        let expect = known.map_or(Expect::Any, Expect::from);
        let dialled = transport::dial(&self.address, &self.key, ALPN_API, expect, DIAL_TIMEOUT).await;
        let connection = dialled.map_err(|error| match &error {
            DialError::WrongKey { .. } if self.pin.is_none() => io::Error::other(format!(
                "{error}; if the machine was made anew on purpose, remove its line from {}",
                self.known.0.display()
            )),
            _ => io::Error::other(error),
        })?;
        if known.is_none() {
            self.known.add(&self.address, NodeId::from_bytes(connection.peer_key()))?;
        }
        Ok(connection)
    }
}

impl Connect for Mesh {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + '_>> {
        Box::pin(async {
            let connection = self.connection.get_or_try_init(|| self.dial()).await?;
            let (send, recv) = connection.open_bi().await.map_err(io::Error::other)?;
            Ok(Box::new(tokio::io::join(recv, send)) as Box<dyn Connection>)
        })
    }

    fn name(&self) -> String {
        self.address.clone()
    }
}

fn connector(globals: &Globals) -> Result<Arc<dyn Connect>, CliError> {
    let place = match &globals.peer {
        Some(text) => parse(text)?,
        None => Where::Socket(default_dir()?.join("api.sock")),
    };
    Ok(match place {
        Where::Socket(path) => Arc::new(UnixSocket(path)),
        Where::Mesh { address, node } => Arc::new(Mesh {
            address,
            pin: node,
            known: KnownPeers(keys::config_dir()?.join("known_peers")),
            key: keys::load(globals.key.as_deref())?,
            connection: OnceCell::new(),
        }),
    })
}

/// A client of the peer that the options name.
pub(crate) fn client(globals: &Globals) -> Result<Client, CliError> {
    Ok(Client::new(connector(globals)?, ANSWER_TIMEOUT.min(globals.timeout.max(Duration::from_secs(1)))))
}

/// The same, for requests with a large body.
pub(crate) fn upload_client(globals: &Globals) -> Result<Client, CliError> {
    Ok(Client::new(connector(globals)?, UPLOAD_TIMEOUT))
}

/// The socket of the peer whose data is in `dir`.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("api.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_socket_or_a_mesh_port() {
        assert_eq!(parse("unix:/x/api.sock").unwrap(), Where::Socket("/x/api.sock".into()));
        assert_eq!(parse("edge-1:7440").unwrap(), Where::Mesh { address: "edge-1:7440".into(), node: None });
        let pinned = format!("[fd00::1]:7440#{}", "ab".repeat(32));
        let Where::Mesh { address, node } = parse(&pinned).unwrap() else { panic!() };
        assert_eq!((address.as_str(), node), ("[fd00::1]:7440", Some(NodeId::from_bytes([0xab; 32]))));
        for bad in ["", "edge-1", "unix:", "/x/api.sock", ":7440", "edge-1:0", "edge-1:x", "edge-1:7440#ab"] {
            assert_eq!(parse(bad).unwrap_err().exit.code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_known_peer_is_found_again_and_a_damaged_list_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownPeers(dir.path().join("skerry/known_peers"));
        assert_eq!(known.find("a:1").unwrap(), None);
        known.add("a:1", NodeId::from_bytes([1; 32])).unwrap();
        known.add("b:1", NodeId::from_bytes([2; 32])).unwrap();
        assert_eq!(known.find("b:1").unwrap(), Some(NodeId::from_bytes([2; 32])));
        std::fs::write(&known.0, "a:1 rubbish\n").unwrap();
        assert!(known.find("a:1").unwrap_err().to_string().contains("is damaged"));
    }
}
