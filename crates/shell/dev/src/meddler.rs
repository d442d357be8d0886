//! Somebody between a client and a peer, who changes every event that is handed in by one bit.
//!
//! For checks that a peer believes signatures and nothing else. It knows of an event that it is the
//! body of a POST, and that its signature comes first.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use api::routes;

/// Bytes of one request's head: our own client asks.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where a request's head ends.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Meddler {
    socket: PathBuf,
    ended: Arc<AtomicBool>,
    changed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Meddler {
    /// Listens at `socket`, which is made, and passes on to the peer with the socket `peer`.
    pub fn between(socket: &Path, peer: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let ended = Arc::new(AtomicBool::new(false));
        let changed = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (ended, changed, peer) = (Arc::clone(&ended), Arc::clone(&changed), peer.to_owned());
            move || {
                for client in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    let (changed, peer) = (Arc::clone(&changed), peer.clone());
                    // A connection that breaks is the client's to complain of.
                    std::thread::spawn(move || client.and_then(|client| pass_on(client, &peer, &changed)));
                }
            }
        });
        Ok(Self { socket: socket.to_owned(), ended, changed, thread: Some(thread) })
    }

    /// How many events it has changed.
    pub fn changed(&self) -> usize {
        self.changed.load(Ordering::Acquire)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The connection is what wakes the listener; where none can be made, it listens no more.
        if UnixStream::connect(&self.socket).is_ok()
            && let Some(thread) = self.thread.take()
        {
            thread.join().ok();
        }
        std::fs::remove_file(&self.socket).ok();
    }
}

/// One connection: one request, as our client has it.
fn pass_on(mut client: UnixStream, peer: &Path, changed: &AtomicUsize) -> io::Result<()> {
    let mut server = UnixStream::connect(peer)?;
    let (mut answer, mut back) = (server.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        let copied = io::copy(&mut answer, &mut back);
        back.shutdown(Shutdown::Both).and(copied)
    });
    let mut head = Vec::new();
    while !head.ends_with(HEAD_END) && head.len() < HEAD_BYTES_MAX {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    server.write_all(&head)?;
    if head.starts_with(format!("POST {}", routes::EVENTS).as_bytes()) {
        let mut first = [0];
        client.read_exact(&mut first)?;
        server.write_all(&[first[0] ^ 1])?;
        changed.fetch_add(1, Ordering::AcqRel);
    }
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    drop(answers.join());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that answers with the body it was sent, of four bytes.
    fn echo(socket: &Path) -> JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|it| it == HEAD_END) || !bytes.ends_with(b"body"[1..].as_ref()) {
                    let mut buffer = [0; 64];
                    let n = stream.read(&mut buffer).unwrap();
                    bytes.extend_from_slice(&buffer[..n]);
                }
                stream.write_all(&bytes[bytes.len() - 4..]).unwrap();
            }
        })
    }

    #[test]
    fn one_bit_of_an_event_is_changed_and_nothing_of_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let (peer, between) = (dir.path().join("peer"), dir.path().join("between"));
        let echo = echo(&peer);
        let meddler = Meddler::between(&between, &peer).unwrap();
        let ask = |path: &str| {
            let mut stream = UnixStream::connect(&between).unwrap();
            write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\n\r\nbody").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert_eq!((ask("/v1/images"), meddler.changed()), ("body".to_owned(), 0));
        assert_eq!((ask("/v1/events?durable=1"), meddler.changed()), ("cody".to_owned(), 1));
        echo.join().unwrap();
        drop(meddler);
        assert!(!between.exists());
    }
}
