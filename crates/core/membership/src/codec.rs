//! foca's own form of a packet, which never leaves this machine: whole ids, fixed lengths.
//!
//! foca owns its codec and gives no access to it, so the short form that is sent (`packet`), which
//! needs the roster, is made outside of it.

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use model::NodeId;

use crate::peer::Peer;

/// Bytes of a node's life: id, generation, renewal.
const PEER_BYTES: usize = 32 + 8 + 4;
/// Bytes of a member: life, incarnation, state.
pub(crate) const MEMBER_BYTES: usize = PEER_BYTES + 2 + 1;
/// Bytes of a header without the fields of its message: two lives, incarnation, tag.
pub(crate) const HEADER_BYTES: usize = 2 * PEER_BYTES + 2 + 1;

/// Why the internal form was not written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// No room; foca asks until there is none.
    #[error("the packet is full")]
    Full,
    /// It ends too early.
    #[error("the packet ends in the middle of an item")]
    Short,
    /// A tag that does not exist.
    #[error("the packet has an unknown tag")]
    Tag,
}

/// What of a message travels beside its tag.
pub(crate) const fn parts(message: &Message<Peer>) -> (u8, Option<&Peer>, Option<u8>) {
    match message {
        Message::Ping(number) => (0, None, Some(*number)),
        Message::Ack(number) => (1, None, Some(*number)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    }
}

/// Whether the message of this tag has a peer and a probe number; `None` where there is no such tag.
pub(crate) const fn shape(tag: u8) -> Option<(bool, bool)> {
    match tag {
        0 | 1 => Some((false, true)),
        2..=5 => Some((true, true)),
        6..=10 => Some((false, false)),
        _ => None,
    }
}

/// The message of a tag and its parts; `None` where they do not fit together.
pub(crate) const fn message(tag: u8, peer: Option<Peer>, number: Option<u8>) -> Option<Message<Peer>> {
    Some(match (tag, peer, number) {
        (0, None, Some(number)) => Message::Ping(number),
        (1, None, Some(number)) => Message::Ack(number),
        (2, Some(target), Some(probe_number)) => Message::PingReq { target, probe_number },
        (3, Some(origin), Some(probe_number)) => Message::IndirectPing { origin, probe_number },
        (4, Some(target), Some(probe_number)) => Message::IndirectAck { target, probe_number },
        (5, Some(origin), Some(probe_number)) => Message::ForwardedAck { origin, probe_number },
        (6, None, None) => Message::Announce,
        (7, None, None) => Message::Feed,
        (8, None, None) => Message::Gossip,
        (9, None, None) => Message::Broadcast,
        (10, None, None) => Message::TurnUndead,
        _ => return None,
    })
}

/// The number of a state in a packet.
pub(crate) const fn state_tag(state: State) -> u8 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

/// The state of a number.
pub(crate) const fn state(tag: u8) -> Option<State> {
    match tag {
        0 => Some(State::Alive),
        1 => Some(State::Suspect),
        2 => Some(State::Down),
        _ => None,
    }
}

fn put_peer(peer: &Peer, mut buf: impl BufMut) {
    buf.put_slice(peer.node.as_bytes());
    buf.put_u64(peer.generation);
    buf.put_u32(peer.renewal);
}

/// Takes a peer; the caller has checked that there are enough bytes.
fn get_peer(mut buf: impl Buf) -> Peer {
    let mut id = [0; 32];
    buf.copy_to_slice(&mut id);
    Peer { node: NodeId::from_bytes(id), generation: buf.get_u64(), renewal: buf.get_u32() }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FullCodec;

impl foca::Codec<Peer> for FullCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Peer>, mut buf: impl BufMut) -> Result<(), CodecError> {
        let (tag, peer, number) = parts(&header.message);
        let size = HEADER_BYTES + peer.map_or(0, |_| PEER_BYTES) + usize::from(number.is_some());
        if buf.remaining_mut() < size {
            return Err(CodecError::Full);
        }
        put_peer(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_peer(&header.dst, &mut buf);
        buf.put_u8(tag);
        if let Some(peer) = peer {
            put_peer(peer, &mut buf);
        }
        if let Some(number) = number {
            buf.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Peer>, CodecError> {
        if buf.remaining() < HEADER_BYTES {
            return Err(CodecError::Short);
        }
        let src = get_peer(&mut buf);
        let src_incarnation = buf.get_u16();
        let dst = get_peer(&mut buf);
        let tag = buf.get_u8();
        let (has_peer, has_number) = shape(tag).ok_or(CodecError::Tag)?;
        if buf.remaining() < usize::from(has_peer) * PEER_BYTES + usize::from(has_number) {
            return Err(CodecError::Short);
        }
        let peer = has_peer.then(|| get_peer(&mut buf));
        let number = has_number.then(|| buf.get_u8());
        let message = message(tag, peer, number).ok_or(CodecError::Tag)?;
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Peer>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(CodecError::Full);
        }
        put_peer(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(state_tag(member.state()));
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Peer>, CodecError> {
        if buf.remaining() < MEMBER_BYTES {
            return Err(CodecError::Short);
        }
        let peer = get_peer(&mut buf);
        let incarnation = buf.get_u16();
        let state = state(buf.get_u8()).ok_or(CodecError::Tag)?;
        Ok(Member::new(peer, incarnation, state))
    }
}
