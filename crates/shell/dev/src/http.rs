//! Just enough HTTP to ask a published port, from inside of a node's network namespace.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use network::{NetnsError, in_netns};

/// Bytes of an answer that are read: applications of ours say a line.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No connection, or it broke.
    #[error("nothing answers at {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What came is no answer of HTTP.
    #[error("what answers at {address} does not speak HTTP")]
    NotHttp {
        /// Where.
        address: SocketAddr,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// Text.
    pub body: String,
}

/// GET, from inside of the namespace.
pub fn get(netns: &Path, address: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, HttpError> {
    let text = in_netns(netns, || exchange(address, path, timeout))?
        .map_err(|source| HttpError::Io { address, source })?;
    parse(&text).ok_or(HttpError::NotHttp { address })
}

fn exchange(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some(Answer { status: words.next()?.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_anything_else_is_none() {
        let answer = parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "hi".into() });
        for bad in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", "HTTP/1.1 200 OK"] {
            assert_eq!(parse(bad), None);
        }
    }
}
