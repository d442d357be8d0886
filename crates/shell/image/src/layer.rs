//! The compression of layers and archives: found out from the first bytes, not believed from a label.

use std::io::{self, BufReader, Chain, Cursor, Read};

use crate::hash::CHUNK_BYTES;
use crate::limits::ZSTD_WINDOW_LOG_MAX;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Compression {
    /// Bytes that are looked at.
    pub(crate) const MAGIC_BYTES: usize = 6;

    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of the sixteen kinds of frames to be skipped (zstd:chunked begins so).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Self::Unsupported("xz"),
            _ => Self::None,
        }
    }

    /// The media type of a layer so compressed.
    pub(crate) fn layer_media(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None | Self::Unsupported(_) => crate::oci::MEDIA_LAYER,
        }
    }
}

type Headed<R> = Chain<Cursor<Vec<u8>>, R>;

/// Looks at the first bytes of a stream and gives them back.
pub(crate) fn peek<R: Read>(mut reader: R) -> io::Result<(Compression, Headed<R>)> {
    let mut head = Vec::with_capacity(Compression::MAGIC_BYTES);
    (&mut reader).take(Compression::MAGIC_BYTES as u64).read_to_end(&mut head)?;
    Ok((Compression::of(&head), Cursor::new(head).chain(reader)))
}

/// The plain bytes of a stream. All members and frames are read, to the stream's very end.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let (compression, reader) = peek(reader)?;
    let reader: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, reader)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Unsupported(name) => {
            let text = format!("it is compressed by {name}; gzip, zstd and none are supported");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    };
    Ok((compression, reader))
}
