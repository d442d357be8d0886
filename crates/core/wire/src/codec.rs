//! The only code that names bincode.

use bincode::config::{Configuration, Limit};

use model::NodeRecord;

use crate::Message;

/// The newest protocol version that this release speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Bytes of one frame, header included. Larger than any message that `node` makes: it fills frames
/// to a quarter of this and splits.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = 2;

/// Bytes of one encoded record: with its signature and lengths it fits a frame by itself.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX - 256;

fn config() -> Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<FRAME_BYTES_MAX>> {
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>()
}

/// Why bytes are not a message. The frame is dropped; the sender broke the protocol.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Too short to hold a version.
    #[error("a frame of {bytes} bytes holds no version")]
    NoVersion {
        /// Its size.
        bytes: usize,
    },
    /// A version that this release does not speak.
    #[error("a frame of protocol version {version}, this release speaks {PROTOCOL_VERSION}")]
    Version {
        /// Its version.
        version: u16,
    },
    /// The body is no message.
    #[error("a frame that holds no message")]
    Malformed {
        /// What the decoder found.
        source: bincode::error::DecodeError,
    },
    /// Bytes are left after the message.
    #[error("a frame with {bytes} bytes after its message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Why a message could not be made into a frame, or a record into bytes: it is larger than any may be.
#[derive(Debug, thiserror::Error)]
#[error("a {what} larger than {max} bytes")]
pub struct EncodeError {
    what: &'static str,
    max: usize,
    source: bincode::error::EncodeError,
}

/// The frame of a message.
pub fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    let mut frame = PROTOCOL_VERSION.to_be_bytes().to_vec();
    frame.extend_from_slice(&body(message, "message", FRAME_BYTES_MAX - HEADER_BYTES)?);
    Ok(frame)
}

/// The bytes of a record, which its node signs.
pub fn encode_record(record: &NodeRecord) -> Result<Vec<u8>, EncodeError> {
    body(record, "record", RECORD_BYTES_MAX)
}

fn body<T: serde::Serialize>(of: &T, what: &'static str, max: usize) -> Result<Vec<u8>, EncodeError> {
    let too_large = |source| EncodeError { what, max, source };
    let body = bincode::serde::encode_to_vec(of, config()).map_err(too_large)?;
    if body.len() > max {
        return Err(too_large(bincode::error::EncodeError::Other("over the limit")));
    }
    Ok(body)
}

/// The record of signed bytes. Whether its node signed them is not looked at here.
pub fn decode_record(bytes: &[u8]) -> Result<NodeRecord, DecodeError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len() });
    }
    let (record, read) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|source| DecodeError::Malformed { source })?;
    match bytes.len() - read {
        0 => Ok(record),
        bytes => Err(DecodeError::Trailing { bytes }),
    }
}

/// The message of a frame.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: frame.len() });
    }
    let Some((header, body)) = frame.split_at_checked(HEADER_BYTES) else {
        return Err(DecodeError::NoVersion { bytes: frame.len() });
    };
    let version = u16::from_be_bytes([header[0], header[1]]);
    if version != PROTOCOL_VERSION {
        return Err(DecodeError::Version { version });
    }
    let (message, read) = bincode::serde::decode_from_slice(body, config())
        .map_err(|source| DecodeError::Malformed { source })?;
    match body.len() - read {
        0 => Ok(message),
        bytes => Err(DecodeError::Trailing { bytes }),
    }
}
