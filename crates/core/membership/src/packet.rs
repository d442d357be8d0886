//! The form of a packet between nodes: short ids, small numbers, nothing that the link says already.
//!
//! The sender's id is the link's, the receiver's id is the receiver's own, and other members go by
//! the first bytes of their ids, so a probe and its answer are 9 bytes each. Lives and incarnations
//! are LEB128. A packet is: tag, sender's life and incarnation, receiver's life, by tag a peer and a
//! probe number, then members up to the end.

use foca::{Codec as _, Header, Member};
use model::NodeId;
use model::limits::NODES_MAX;

use crate::codec::{self, FullCodec, message, parts, shape, state, state_tag};
use crate::peer::Peer;
use crate::roster::{Roster, SHORT_BYTES, short};

/// Bytes of a datagram that is taken. Those that are sent stay under 1,150, which QUIC carries from
/// its first packet on, except where short ids collide: those then go by a stream, as any that is
/// longer than the path allows.
pub const DATAGRAM_BYTES_MAX: usize = 2_200;

/// Bytes of one side of a push-pull: a full roster in its longest form.
pub const PUSH_PULL_BYTES_MAX: usize = 64 * 1024;
const _: () = assert!(PUSH_PULL_BYTES_MAX > (NODES_MAX + 1) * MEMBER_BYTES_MAX);

/// Bytes of a member in its longest form: state, whole id, generation, renewal, incarnation.
const MEMBER_BYTES_MAX: usize = 1 + 32 + 10 + 5 + 3;

/// What a packet takes before its members, and each member in its short form, as long as lives are few: room is
/// made for so many at once.
const HEADER_BYTES_MOSTLY: usize = 16;
const MEMBER_BYTES_MOSTLY: usize = 12;

/// In the byte of a state: the whole id follows.
const WHOLE_ID: u8 = 0x80;

/// Why bytes from another node were dropped. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// The sender is not in the roster.
    #[error("{0:?} is not a member")]
    Stranger(NodeId),
    /// More bytes than are taken.
    #[error("{size} bytes from {from:?}, the limit is {max}")]
    TooLarge {
        /// The sender.
        from: NodeId,
        /// How many.
        size: usize,
        /// How many are taken.
        max: usize,
    },
    /// The bytes are no packet.
    #[error("a packet from {from:?} cannot be read: {what}")]
    Malformed {
        /// The sender.
        from: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// It asks for a probe of, or speaks for, a node that is not in the roster here (yet).
    #[error("a packet from {from:?} is about a node that is not a member")]
    UnknownPeer {
        /// The sender.
        from: NodeId,
    },
    /// It was read, and the protocol refused it.
    #[error("a packet from {from:?} was refused")]
    Refused {
        /// The sender.
        from: NodeId,
        /// foca's reason.
        source: foca::Error,
    },
}

/// What is wrong with bytes; the sender is added by whoever knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Malformed(&'static str),
    UnknownPeer,
}

impl Wrong {
    fn by(self, from: NodeId) -> DatagramError {
        match self {
            Self::Malformed(what) => DatagramError::Malformed { from, what },
            Self::UnknownPeer => DatagramError::UnknownPeer { from },
        }
    }
}

/// A packet, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) header: Header<Peer>,
    pub(crate) updates: Vec<Member<Peer>>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (start, rest) = self.0.split_first_chunk().ok_or(Wrong::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*start)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        self.array().map(|[byte]| byte)
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, Wrong> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part || (byte == 0 && shift > 0) {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return T::try_from(value).map_err(|_| Wrong::Malformed("a number is too large"));
            }
        }
        Err(Wrong::Malformed("a number is not in its shortest form or too large"))
    }

    /// A peer; `Ok(Err(..))` when it is in its right form and no member.
    fn peer(&mut self, whole: bool, roster: &Roster) -> Result<Result<Peer, Wrong>, Wrong> {
        let node = if whole {
            Some(NodeId::from_bytes(self.array()?)).filter(|id| roster.knows(id))
        } else {
            roster.of_short(self.array::<SHORT_BYTES>()?)
        };
        let (generation, renewal) = (self.number()?, self.number()?);
        Ok(node.map(|node| Peer { node, generation, renewal }).ok_or(Wrong::UnknownPeer))
    }

    /// Members up to the end; those that are not in the roster are passed over.
    fn members(&mut self, roster: &Roster) -> Result<Vec<Member<Peer>>, Wrong> {
        let mut members = Vec::new();
        while !self.0.is_empty() {
            let first = self.byte()?;
            let state = state(first & !WHOLE_ID).ok_or(Wrong::Malformed("it has an unknown state"))?;
            let peer = self.peer(first & WHOLE_ID != 0, roster)?;
            let incarnation = self.number()?;
            if let Ok(peer) = peer {
                members.push(Member::new(peer, incarnation, state));
            }
        }
        Ok(members)
    }
}

fn put_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits fit a byte") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("the loop left seven bits"));
}

fn put_life(peer: &Peer, out: &mut Vec<u8>) {
    put_number(peer.generation, out);
    put_number(peer.renewal.into(), out);
}

/// `first` gets the mark of a whole id where that is needed.
fn put_peer(first: u8, peer: &Peer, roster: &Roster, out: &mut Vec<u8>) {
    if roster.is_short_enough(&peer.node) {
        out.push(first);
        out.extend_from_slice(&short(&peer.node));
    } else {
        out.push(first | WHOLE_ID);
        out.extend_from_slice(peer.node.as_bytes());
    }
    put_life(peer, out);
}

fn put_members<'a>(members: impl IntoIterator<Item = &'a Member<Peer>>, roster: &Roster, out: &mut Vec<u8>) {
    for member in members {
        // What foca has not forgotten yet of a removed node is not passed on.
        if roster.knows(&member.id().node) {
            put_peer(state_tag(member.state()), member.id(), roster, out);
            put_number(member.incarnation().into(), out);
        }
    }
}

impl Packet {
    /// Reads what `from` sent to this node.
    pub(crate) fn read(from: NodeId, bytes: &[u8], roster: &Roster) -> Result<Self, DatagramError> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::TooLarge { from, size: bytes.len(), max: DATAGRAM_BYTES_MAX });
        }
        Self::parse(from, bytes, roster).map_err(|wrong| wrong.by(from))
    }

    fn parse(from: NodeId, bytes: &[u8], roster: &Roster) -> Result<Self, Wrong> {
        let mut reader = Reader(bytes);
        let tag = reader.byte()?;
        let (has_peer, has_number) = shape(tag).ok_or(Wrong::Malformed("it has an unknown tag"))?;
        let src = Peer { node: from, generation: reader.number()?, renewal: reader.number()? };
        let src_incarnation = reader.number()?;
        let dst = Peer { node: roster.me(), generation: reader.number()?, renewal: reader.number()? };
        let peer = if has_peer {
            match reader.byte()? {
                0 => Some(reader.peer(false, roster)??),
                WHOLE_ID => Some(reader.peer(true, roster)??),
                _ => return Err(Wrong::Malformed("it has an unknown form of id")),
            }
        } else {
            None
        };
        let number = if has_number { Some(reader.byte()?) } else { None };
        let message = message(tag, peer, number).expect("the parts were read by the tag's shape");
        let updates = reader.members(roster)?;
        Ok(Self { header: Header { src, src_incarnation, dst, message }, updates })
    }

    /// The bytes for the receiver.
    pub(crate) fn write(&self, roster: &Roster) -> Vec<u8> {
        let Header { src, src_incarnation, dst, message } = &self.header;
        let (tag, peer, number) = parts(message);
        let mut out = Vec::with_capacity(HEADER_BYTES_MOSTLY + self.updates.len() * MEMBER_BYTES_MOSTLY);
        out.push(tag);
        put_life(src, &mut out);
        put_number((*src_incarnation).into(), &mut out);
        put_life(dst, &mut out);
        if let Some(peer) = peer {
            put_peer(0, peer, roster, &mut out);
        }
        out.extend(number);
        put_members(&self.updates, roster, &mut out);
        out
    }

    /// Reads foca's own form; what foca wrote always can be.
    pub(crate) fn of_foca(mut bytes: &[u8]) -> Self {
        let header = FullCodec.decode_header(&mut bytes).expect("foca wrote a header");
        let mut updates = Vec::new();
        if let Some((_count, rest)) = bytes.split_first_chunk::<2>() {
            bytes = rest;
            while !bytes.is_empty() {
                updates
                    .push(FullCodec.decode_member(&mut bytes).expect("foca wrote members after its header"));
            }
        }
        Self { header, updates }
    }

    /// foca's own form.
    pub(crate) fn for_foca(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * codec::HEADER_BYTES + self.updates.len() * codec::MEMBER_BYTES);
        FullCodec.encode_header(&self.header, &mut out).expect("a vector has room");
        if !self.updates.is_empty() {
            let count = u16::try_from(self.updates.len()).expect("a datagram holds fewer members");
            out.extend_from_slice(&count.to_be_bytes());
            for update in &self.updates {
                FullCodec.encode_member(update, &mut out).expect("a vector has room");
            }
        }
        out
    }
}

/// One side of a push-pull.
pub(crate) fn write_push_pull<'a>(
    members: impl IntoIterator<Item = &'a Member<Peer>>,
    roster: &Roster,
) -> Vec<u8> {
    let mut out = Vec::with_capacity((roster.others().len() + 1) * MEMBER_BYTES_MOSTLY);
    put_members(members, roster, &mut out);
    out
}

/// Reads the other side of a push-pull; members that are not in the roster are passed over.
pub(crate) fn read_push_pull(
    from: NodeId,
    bytes: &[u8],
    roster: &Roster,
) -> Result<Vec<Member<Peer>>, DatagramError> {
    if bytes.len() > PUSH_PULL_BYTES_MAX {
        return Err(DatagramError::TooLarge { from, size: bytes.len(), max: PUSH_PULL_BYTES_MAX });
    }
    Reader(bytes).members(roster).map_err(|wrong| wrong.by(from))
}
