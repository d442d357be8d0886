//! The web application of the demo: ships inside of the `skerry` binary, needs nothing but std.
//!
//! It answers every request with one line of JSON about itself, so that whoever asks sees which
//! replica answered, of which revision, with which environment.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first argument that makes the binary this application.
pub const ARG: &str = "__demo-web";

/// The port that it listens on.
pub const PORT: u16 = 8080;

/// How long a client may take to ask: one that never does must not hold the others up for long.
const ASK_WAIT: Duration = Duration::from_secs(2);

/// Lines of a request's head that are read.
const HEAD_LINES_MAX: usize = 100;

/// What it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The replica's host name, as `web-0`.
    pub hostname: String,
    /// The container.
    pub container: String,
    /// The revision number that people see.
    pub revision: String,
    /// The environment variable `GREETING`.
    pub greeting: String,
}

impl Hello {
    fn of_this_process() -> Self {
        let var = |name| std::env::var(name).unwrap_or_default();
        Self {
            hostname: var("HOSTNAME"),
            container: var("SKERRY_CONTAINER"),
            revision: var("SKERRY_REVISION"),
            greeting: var("GREETING"),
        }
    }
}

/// Listens and answers until it is killed. Returns, with the process's exit code, only where it cannot.
pub fn main() -> ExitCode {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            io::stderr().write_all(format!("cannot listen on port {PORT}: {error}\n").as_bytes()).ok();
            return ExitCode::FAILURE;
        }
    };
    let hello = Hello::of_this_process();
    let words = format!("{} listens on port {PORT}: {}\n", hello.hostname, hello.greeting);
    // Nobody reads the log when it cannot be written.
    io::stdout().write_all(words.as_bytes()).ok();
    for stream in listener.incoming().flatten() {
        // One that breaks off is the client's own loss.
        answer(stream, &hello).ok();
    }
    ExitCode::FAILURE
}

fn answer(stream: TcpStream, hello: &Hello) -> io::Result<()> {
    stream.set_read_timeout(Some(ASK_WAIT))?;
    stream.set_write_timeout(Some(ASK_WAIT))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    for _ in 0..HEAD_LINES_MAX {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let body = serde_json::to_string(hello)?;
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        body.len() + 1
    );
    reader.get_mut().write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_one_line_about_the_replica() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let hello = Hello {
            hostname: "web-3".into(),
            container: "c".into(),
            revision: "2".into(),
            greeting: "ahoy".into(),
        };
        let said = hello.clone();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, &said).unwrap());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut stream, &mut text).unwrap();
        server.join().unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<Hello>(body).unwrap(), hello);
    }
}
