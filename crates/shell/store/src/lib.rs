//! What one peer keeps on disk: the data folder, its lock and the journal, which counts the starts.
//!
//! Owns the layout of the data folder and the form of the journal's files. It is synchronous: the
//! peer runs it on a thread of its own, and no call here is quick enough for an async task.
//!
//! What must hold:
//! - What was acknowledged is on disk: [`Journal::append`] returns after the records and the mark
//!   that counts them were synced, never before.
//! - A journal is whole or it is refused. A power cut may cost records that were never
//!   acknowledged; whatever else is missing or changed is an error that names the file. A journal
//!   that is silently shorter would let a node act on a cluster that has never existed.
//! - After a failed write or sync nothing is tried again: what the kernel still holds in memory is
//!   then unknown. Opening anew reads what is there and writes the uncertain end once more.
//! - The number of a start ([`Journal::opening`]) is never given twice, whatever happens: it is that
//!   of the mark which opening writes. Damage to it is mended by going on beyond every number that
//!   can have been given, or the journal is refused.
//! - A data folder is prepared at one moment, the last of [`Draft::finish`]. Before it, a power cut
//!   leaves a draft, which is told as such and which the same command takes up again with its key.
//!   What is not ours is not touched.
//! - Opening a prepared folder needs no room on the disk: a node whose disk is full starts.
//! - One peer per data folder.
//!
//! Absent on purpose: what a record means (`document`), when to write (`node`), and any retry.
#![forbid(unsafe_code)]

mod atomic;
mod data_dir;
mod draft;
pub mod faults;
pub mod fs;
mod journal;
mod lock;

pub use atomic::{FileError, ReadJsonError, atomic_write, atomic_write_with, read_json};
pub use data_dir::{DataDir, FORMAT_VERSION, Format, OpenError};
pub use draft::{CreateError, Draft, Secret};
pub use journal::{APPEND_BYTES_MAX, Journal, JournalError, RECORD_BYTES_MAX, Recovered, SEGMENT_BYTES};
pub use lock::{Lock, LockError};
