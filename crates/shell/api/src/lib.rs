//! The peer's HTTP/JSON interface: shapes, routes, and the client that the CLI and other peers use.
//!
//! The same routes are served on the Unix socket (whoever may open it), to users over the mesh port
//! (their key is in the cluster document), and to other peers on a stream of the mesh. The crate
//! knows HTTP and the shapes; what they mean is behind the `Backend` trait, which `peer` fulfils.
//!
//! Invariants: a request is answered or fails within its deadline; bodies are bounded, streamed
//! where they may be large; an error is always an `ErrorBody`.
//! Absent on purpose: decisions, keys, words of the CLI.
#![forbid(unsafe_code)]

mod client;
mod frames;
pub mod routes;
mod server;
pub mod shapes;

pub use client::{Client, ClientError, Connect, Connecting, Connection, UnixSocket, path};
pub use frames::{ExecFrame, FrameError, read_frame, write_frame};
pub use server::{
    Backend, BodyReader, ExecRun, Failure, LineStream, LogsAsk, Requester, router, serve_stream,
};
