//! Frames of an upgraded `exec` connection: kind (1 byte), length (4 bytes, big endian), payload.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one frame's payload: a screenful of output, and small enough to keep a terminal lively.
pub(crate) const EXEC_FRAME_BYTES_MAX: usize = 64 * 1024;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecFrame {
    /// Bytes for the program.
    Stdin(Vec<u8>),
    /// The program's input has ended.
    StdinEnd,
    /// Bytes from the program.
    Stdout(Vec<u8>),
    /// Bytes from the program's error output.
    Stderr(Vec<u8>),
    /// The terminal's new size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// The program ended with this code; the last frame.
    Exit(i32),
    /// The program could not be run; the last frame. Holds a sentence.
    Failed(String),
}

/// Why a frame could not be moved. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the exec connection broke")]
    Io(#[from] io::Error),
    /// The other side sent something that is no frame.
    #[error("the other side sent a frame of kind {kind} with {length} bytes, which is none of ours")]
    Malformed {
        /// First byte.
        kind: u8,
        /// Claimed length.
        length: usize,
    },
}

/// Writes one frame.
pub async fn write_frame(out: &mut (impl AsyncWrite + Unpin), frame: &ExecFrame) -> Result<(), FrameError> {
    let mut small = [0; 4];
    let (kind, payload): (u8, &[u8]) = match frame {
        ExecFrame::Stdin(bytes) => (0, bytes),
        ExecFrame::StdinEnd => (1, &[]),
        ExecFrame::Stdout(bytes) => (2, bytes),
        ExecFrame::Stderr(bytes) => (3, bytes),
        ExecFrame::Resize { rows, columns } => {
            small[..2].copy_from_slice(&rows.to_be_bytes());
            small[2..].copy_from_slice(&columns.to_be_bytes());
            (4, &small)
        }
        ExecFrame::Exit(code) => {
            small.copy_from_slice(&code.to_be_bytes());
            (5, &small)
        }
        ExecFrame::Failed(text) => (6, text.as_bytes()),
    };
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind);
    let length = u32::try_from(payload.len().min(EXEC_FRAME_BYTES_MAX)).expect("bounded just before");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&payload[..payload.len().min(EXEC_FRAME_BYTES_MAX)]);
    out.write_all(&bytes).await?;
    out.flush().await?;
    Ok(())
}

/// Reads one frame; `None` at the end of the connection.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<ExecFrame>, FrameError> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let kind = head[0];
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let malformed = || FrameError::Malformed { kind, length };
    if length > EXEC_FRAME_BYTES_MAX {
        return Err(malformed());
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Some(match (kind, payload.as_slice()) {
        (0, _) => ExecFrame::Stdin(payload),
        (1, []) => ExecFrame::StdinEnd,
        (2, _) => ExecFrame::Stdout(payload),
        (3, _) => ExecFrame::Stderr(payload),
        (4, &[a, b, c, d]) => {
            ExecFrame::Resize { rows: u16::from_be_bytes([a, b]), columns: u16::from_be_bytes([c, d]) }
        }
        (5, &[a, b, c, d]) => ExecFrame::Exit(i32::from_be_bytes([a, b, c, d])),
        (6, text) => ExecFrame::Failed(String::from_utf8_lossy(text).into_owned()),
        _ => return Err(malformed()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_frame_reads_back_as_it_was_written() {
        let frames = [
            ExecFrame::Stdin(b"in".to_vec()),
            ExecFrame::StdinEnd,
            ExecFrame::Stdout(vec![0, 255]),
            ExecFrame::Stderr(vec![]),
            ExecFrame::Resize { rows: 24, columns: 80 },
            ExecFrame::Exit(-1),
            ExecFrame::Failed("no such program".into()),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            write_frame(&mut bytes, frame).await.unwrap();
        }
        let mut from = bytes.as_slice();
        for frame in frames {
            assert_eq!(read_frame(&mut from).await.unwrap(), Some(frame));
        }
        assert_eq!(read_frame(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_of_four_gigabytes_is_refused_before_anything_is_allocated() {
        let error = read_frame(&mut [2, 255, 255, 255, 255].as_slice()).await.unwrap_err();
        assert!(matches!(error, FrameError::Malformed { kind: 2, .. }));
    }
}
