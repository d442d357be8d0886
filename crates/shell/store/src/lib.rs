//! What one peer keeps on disk: the data folder, its lock, its start counter and the journal.
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
//! - A start counter is never handed out twice, whatever happens.
//! - One peer per data folder.
//!
//! Absent on purpose: what a record means (`document`), when to write (`node`), and any retry.
#![forbid(unsafe_code)]

mod atomic;
mod data_dir;
pub mod faults;
pub mod fs;
mod journal;
mod lock;

pub use atomic::{FileError, ReadJsonError, atomic_write, atomic_write_with, read_json};
pub use data_dir::{CreateError, DataDir, FORMAT_VERSION, Format, GenerationError, OpenError};
pub use journal::{APPEND_BYTES_MAX, Journal, JournalError, RECORD_BYTES_MAX, Recovered, SEGMENT_BYTES};
pub use lock::{Lock, LockError};
