//! `join`: a further node, let in by a peer that the token names.
//!
//! The node's key is on disk before a peer hears of it, and the folder is finished after the peer has
//! said yes. So a try that was cut off in between has been admitted already: it names its key in the
//! next conversation, proves that it holds it, and gets the log without another admission.

use std::sync::Arc;
use std::time::Duration;

use document::Documents;
use document::event::{
    Author, Body, EVENT_VERSION, Hex, Kind, NodeAdmit, NodeInfo, SignedEvent, admit_bytes,
};
use identity::{Expect, JoinToken, KeyPair};
use model::{ClusterId, DocId, Name, NodeId};
use store::fs::{Disk, Fs};
use store::{Draft, Format, Secret};
use tokio::io::{AsyncRead, AsyncWrite};
use transport::{ALPN_JOIN, DialError};

use super::{InitError, NodeOptions, advertised, begin, finish, folder, nonce, wall_ms};
use crate::joining::{self, Joiner, TalkError};

/// How long one address of a token is tried.
const JOIN_DIAL_MAX: Duration = Duration::from_secs(5);

/// How long the whole conversation may take: the log of a large cluster over a slow link.
const JOIN_TALK_MAX: Duration = Duration::from_secs(60);

/// A prepared further node.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster's name.
    pub cluster_name: Name,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The address of the peer that let it in.
    pub via: String,
}

/// Why a further node could not be prepared. The same command may be repeated: with the same key, so
/// that a token that was used on the way still serves.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The local part.
    #[error(transparent)]
    Prepare(#[from] InitError),
    /// None of the token's addresses let it in.
    #[error("no peer that the token names can be joined through: {}", tried.join("; "))]
    Unreachable {
        /// Each address and what happened there.
        tried: Vec<String>,
    },
    /// A peer answered and said no.
    #[error("{via} refused to let this node in: {reason}")]
    Refused {
        /// Which peer.
        via: String,
        /// Its words.
        reason: String,
    },
    /// What the peer sent is not the log of the token's cluster, or the peer is no member of it.
    #[error("{via} is not a peer of the cluster that the token was made for: {reason}")]
    Foreign {
        /// Which peer.
        via: String,
        /// What does not fit.
        reason: String,
    },
    /// An earlier try was let in, under another name.
    #[error("this node was let in as `{admitted}` by an earlier try: repeat that, with --name {admitted}")]
    OtherName {
        /// The name that the cluster knows it by.
        admitted: Name,
    },
    /// The conversation broke.
    #[error("the conversation with {via} broke")]
    Talk {
        /// Which peer.
        via: String,
        /// Why.
        source: TalkError,
    },
}

/// What a peer answered: the node is a member.
pub(super) struct Admitted {
    pub(super) cluster_name: Name,
    /// The cluster's log, with the node's own admission.
    pub(super) events: Vec<Vec<u8>>,
}

/// A node that is about to join.
pub(super) struct Joining<'a> {
    options: &'a NodeOptions,
    token: &'a JoinToken,
    draft: Draft,
    key: KeyPair,
}

/// Prepares a further node: asks a peer that the token names to let it in.
pub async fn join(options: &NodeOptions, token: &JoinToken) -> Result<Joined, JoinError> {
    let node = Joining::begin(&(Arc::new(Disk) as _), options, token)?;
    let mut tried = Vec::new();
    for address in token.addresses() {
        let connection =
            match transport::dial(address, token.key(), ALPN_JOIN, Expect::Any, JOIN_DIAL_MAX).await {
                Ok(connection) => connection,
                Err(DialError::Refused { reason, .. }) => {
                    return Err(JoinError::Refused { via: address.clone(), reason });
                }
                Err(error) => {
                    tried.push(error.to_string());
                    continue;
                }
            };
        let via = address.as_str();
        let talk = |source| JoinError::Talk { via: via.to_owned(), source };
        let (send, recv) = connection.open_bi().await.map_err(|error| talk(TalkError::Lost(error.into())))?;
        let conversation = node.converse(connection.peer_key(), via, send, recv);
        let admitted = tokio::time::timeout(JOIN_TALK_MAX, conversation)
            .await
            .unwrap_or_else(|_| Err(talk(TalkError::TooSlow { seconds: JOIN_TALK_MAX.as_secs() })))?;
        let joined = node.finish(admitted, via)?;
        connection.close().await;
        return Ok(joined);
    }
    Err(JoinError::Unreachable { tried })
}

impl<'a> Joining<'a> {
    /// Begins the folder. When this returns the key is on disk.
    pub(super) fn begin(
        fs: &Arc<dyn Fs>,
        options: &'a NodeOptions,
        token: &'a JoinToken,
    ) -> Result<Self, InitError> {
        let (draft, key) = begin(fs, options)?;
        // Of an `init` that was cut off before: a key of no cluster.
        draft.drop_secret(Secret::Recovery).map_err(folder(&options.dir))?;
        Ok(Self { options, token, draft, key })
    }

    /// Talks with the peer of the key `peer`, which the token led to.
    pub(super) async fn converse(
        &self,
        peer: [u8; 32],
        via: &str,
        mut send: impl AsyncWrite + Unpin,
        mut recv: impl AsyncRead + Unpin,
    ) -> Result<Admitted, JoinError> {
        let talk = |source| JoinError::Talk { via: via.to_owned(), source };
        let refused = |reason| JoinError::Refused { via: via.to_owned(), reason };
        let foreign = |reason: String| JoinError::Foreign { via: via.to_owned(), reason };
        let (cluster, me) = (self.token.cluster(), self.key.node_id());
        joining::ask(&mut send, &Joiner::new(cluster, self.token.token_id(), &self.key))
            .await
            .map_err(talk)?;
        let log = joining::read_log(&mut recv).await.map_err(talk)?.map_err(refused)?;
        // The log is believed from its first event on, whose hash the token holds; nothing else is.
        let mut documents = Documents::new(cluster);
        for inserted in documents.insert_all(&log) {
            inserted.map_err(|error| foreign(format!("its log is not that of the cluster: {error}")))?;
        }
        let roster = documents.roster();
        if !roster.nodes.contains_key(&NodeId::from_bytes(peer)) {
            return Err(foreign("its key is not in the cluster's roster".to_owned()));
        }
        let cluster_name =
            roster.name.clone().ok_or_else(|| foreign("its log has no first event".to_owned()))?;
        let mut events = log;
        let admission = match roster.nodes.get(&me) {
            Some(member) if member.name != self.options.name => {
                return Err(JoinError::OtherName { admitted: member.name.clone() });
            }
            Some(_) => None,
            None => Some(self.admission(&documents)?),
        };
        joining::send_event(&mut send, admission.as_deref().unwrap_or_default()).await.map_err(talk)?;
        joining::read_answer(&mut recv).await.map_err(talk)?.map_err(refused)?;
        events.extend(admission);
        Ok(Admitted { cluster_name, events })
    }

    /// The event that makes this node a member, signed by it and, in it, by the token.
    fn admission(&self, documents: &Documents) -> Result<Vec<u8>, InitError> {
        let (cluster, me) = (self.token.cluster(), self.key.node_id());
        let name = self.options.name.clone();
        let proof = self.token.key().sign(&admit_bytes(cluster, me, &name));
        let admit = NodeAdmit {
            token: self.token.token_id(),
            node: NodeInfo { name, key: me, addresses: advertised(self.options) },
            proof: Hex(proof),
        };
        let mut deps = documents.heads(&DocId::Cluster);
        deps.truncate(model::limits::EVENT_DEPS_MAX);
        let body = Body {
            v: EVENT_VERSION,
            cluster,
            doc: DocId::Cluster,
            author: Author::Node(me),
            auth: Vec::new(),
            deps,
            nonce: Hex(nonce()?),
            time_ms: wall_ms(),
            kind: Kind::NodeAdmit(admit),
        };
        Ok(SignedEvent::sign(&body, |bytes| self.key.sign(bytes)).encode())
    }

    /// Writes the rest of the folder.
    pub(super) fn finish(self, admitted: Admitted, via: &str) -> Result<Joined, InitError> {
        let (cluster, node) = (self.token.cluster(), self.key.node_id());
        let format = Format { cluster, node, name: self.options.name.clone() };
        finish(self.draft, self.options, &format, &admitted.events)?;
        Ok(Joined { cluster_name: admitted.cluster_name, cluster, node, via: via.to_owned() })
    }
}
