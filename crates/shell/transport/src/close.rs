//! Why a connection is closed: the code for machines, the text for people.

use quinn::{Connection, ConnectionError, VarInt};

use crate::limits::IDLE_MS_MAX;

/// Why this end closes. The numbers are on the wire and keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// Nothing more to say. Also what QUIC sends when a connection is just dropped.
    Done = 0,
    /// The key is not in the roster.
    NotAMember = 1,
    /// The key was in the roster until now.
    Removed = 2,
    /// A limit is reached; later it may work.
    Busy = 3,
    /// Another connection between the same two is kept.
    Superseded = 4,
    /// The other end broke the protocol.
    Fault = 5,
    /// This end stops.
    Stopping = 6,
    /// The other end took too long.
    TooSlow = 7,
    /// Joining is not allowed here now.
    NotJoining = 8,
    /// The caller has this node's own key.
    Myself = 9,
}

impl Close {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotAMember => "not a member of this cluster",
            Self::Removed => "removed from the cluster",
            Self::Busy => "busy: too many connections",
            Self::Superseded => "another connection between the two nodes is kept",
            Self::Fault => "protocol error",
            Self::Stopping => "the node is stopping",
            Self::TooSlow => "took too long",
            Self::NotJoining => "this node admits nobody at present",
            Self::Myself => "the caller has this node's own key",
        }
    }

    pub(crate) const fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Closes with the standard text.
    pub(crate) fn shut(self, connection: &Connection) {
        connection.close(self.code(), self.text().as_bytes());
    }
}

/// The other end's words, made safe for a log line.
pub(crate) fn said(reason: &[u8]) -> String {
    /// Characters kept of what the other end says: ours are shorter.
    const REASON_CHARS_MAX: usize = 200;
    String::from_utf8_lossy(reason)
        .chars()
        .filter(|character| !character.is_control())
        .take(REASON_CHARS_MAX)
        .collect()
}

/// Why a connection ended, for people.
pub(crate) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            "closed by the other end".to_owned()
        }
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by the other end: {}", said(&close.reason))
        }
        ConnectionError::TimedOut => format!("no sign of life for {} s", IDLE_MS_MAX / 1000),
        ConnectionError::Reset => "the other end does not know the connection: it was restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::TransportError(error) if is_wrong_key(error.code) => {
            "the other end has another key than the one expected".to_owned()
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            "refused by the other end: busy".to_owned()
        }
        ConnectionError::ConnectionClosed(close) => {
            format!("aborted by the other end: {} {}", close.error_code, said(&close.reason))
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}

/// Whether our own verifier refused the server's key: identity's pin answers with this TLS alert.
pub(crate) fn is_wrong_key(code: quinn::TransportErrorCode) -> bool {
    code == quinn::TransportErrorCode::crypto(rustls::AlertDescription::AccessDenied.into())
}
