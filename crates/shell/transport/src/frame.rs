//! Frames and greetings on a stream: lengths are checked before anything is allocated.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES};

/// Bytes of a greeting.
const GREETING_BYTES: usize = 16;

/// What each end of a connection says first, on its unidirectional stream.
///
/// The caller's says which of its calls this is; the other's says which was the caller-to-be's last
/// call when it accepted. With it an old call that arrives late is told from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// A random number of the process.
    pub(crate) instance: u64,
    /// A counter of the calls that the process has started.
    pub(crate) call: u64,
}

impl Greeting {
    /// Stands in the place of a welcome: the caller was removed, and one frame that says why follows.
    /// No process has this number but by a chance of one in 2^64.
    pub(crate) const FAREWELL: Self = Self { instance: u64::MAX, call: u64::MAX };

    pub(crate) fn to_bytes(self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..8].copy_from_slice(&self.instance.to_be_bytes());
        bytes[8..].copy_from_slice(&self.call.to_be_bytes());
        bytes
    }

    pub(crate) async fn read(stream: &mut RecvStream) -> Result<Self, ReadExactError> {
        let mut instance = [0; 8];
        let mut call = [0; 8];
        stream.read_exact(&mut instance).await?;
        stream.read_exact(&mut call).await?;
        Ok(Self { instance: u64::from_be_bytes(instance), call: u64::from_be_bytes(call) })
    }
}

/// Why no further frame can be read. The connection is of no use then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes was announced, the limit is {FRAME_BYTES_MAX}")]
    TooLarge { bytes: u32 },
    #[error("the stream of frames ended inside a frame")]
    Truncated,
    #[error("the stream of frames ended")]
    Ended,
    #[error("the connection was lost")]
    Lost,
}

fn lost(error: &ReadError) -> FrameError {
    match error {
        ReadError::ConnectionLost(_) => FrameError::Lost,
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => FrameError::Ended,
    }
}

/// The memory that frames of one connection may take: its own share and a part of everybody's.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) own: Arc<Semaphore>,
    pub(crate) total: Arc<Semaphore>,
}

/// Bytes that give their share of memory back when the last view of them is dropped.
struct Counted {
    bytes: Vec<u8>,
    _own: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads one frame: its length as u32 in network order, then that many bytes.
pub(crate) async fn read(stream: &mut RecvStream, inbox: &Inbox) -> Result<Bytes, FrameError> {
    let mut header = [0; 4];
    match stream.read_exact(&mut header).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Err(FrameError::Ended),
        Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Truncated),
        Err(ReadExactError::ReadError(error)) => return Err(lost(&error)),
    }
    let announced = u32::from_be_bytes(header);
    let len = match usize::try_from(announced) {
        Ok(len) if len <= FRAME_BYTES_MAX => len,
        Ok(_) | Err(_) => return Err(FrameError::TooLarge { bytes: announced }),
    };
    let weight = u32::try_from(len + FRAME_OVERHEAD_BYTES).expect("a frame's limit is far below 4 GiB");
    let own = Arc::clone(&inbox.own).acquire_many_owned(weight).await.map_err(|_| FrameError::Lost)?;
    let mut bytes = vec![0; len];
    match stream.read_exact(&mut bytes).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Truncated),
        Err(ReadExactError::ReadError(error)) => return Err(lost(&error)),
    }
    // Taken only now: a peer that announces a frame and then falls silent must not take from the
    // share of the others.
    let total = Arc::clone(&inbox.total).acquire_many_owned(weight).await.map_err(|_| FrameError::Lost)?;
    Ok(Bytes::from_owner(Counted { bytes, _own: own, _total: total }))
}

/// Writes one frame, whose length the sender has checked.
pub(crate) async fn write(stream: &mut SendStream, frame: Bytes) -> Result<(), WriteError> {
    let len = u32::try_from(frame.len()).expect("checked against the frame's limit when it was queued");
    stream.write_all_chunks(&mut [Bytes::copy_from_slice(&len.to_be_bytes()), frame]).await
}
