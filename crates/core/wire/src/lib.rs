//! Messages between peers, and their bytes.
//!
//! A frame is `version (u16, big endian) | body`. The body is bincode's standard configuration over
//! the types of `v1`; this crate is the only one that names bincode (docs/decisions/0003), and
//! nothing of it is ever put on disk. Golden frames in `tests/golden` hold the bytes.
//!
//! A record is encoded by itself first, since its bytes are what its node signs and what is passed on
//! unchanged.
//!
//! Invariants: a decoder never allocates from a length that it has not bounded; a frame with bytes
//! left over is refused; no type here is recursive or zero-sized.
//! Absent on purpose: who may send what, and whose signature a record has. The sender is known from its
//! certificate, and the core judges the content.
#![forbid(unsafe_code)]

mod codec;
mod v1;

pub use codec::{
    DecodeError, EncodeError, FRAME_BYTES_MAX, PROTOCOL_VERSION, RECORD_BYTES_MAX, decode, decode_record,
    encode, encode_record,
};
pub use v1::{LeaseAnswer, LeaseAsk, LeaseEnd, Message, Position, Round, Verdict};
