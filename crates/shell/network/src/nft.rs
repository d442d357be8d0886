//! The packet filter of one namespace, as netlink messages to `nf_tables`.
//!
//! Equal to `table inet skerry-lab { chain input { type filter hook input priority 0; ... } }` with
//! one rule per sender: `ip saddr A drop`, or `ip saddr A numgen random mod 1000 < N drop`. One
//! batch removes the table and makes it anew: the kernel takes all of it at once or none.
//!
//! Only IPv4 is dropped, and only on its way to the node itself: ARP passes, as on a switch whose
//! router is down, and the lab's links have no IPv6.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h`; attribute values are big-endian, message
//! headers are in the machine's own order.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket,
    sockopt::{ReceiveTimeout, SndBufForce},
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// Why a packet filter was not set. The one that was there still is.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel cannot be talked to.
    #[error("cannot {action} the packet filter's netlink socket")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not want the filter.
    #[error("the kernel refused the packet filter")]
    Refused {
        /// Its answer. `EPERM`: not root. `ENOENT` or `EOPNOTSUPP`: built without `nf_tables`.
        source: io::Error,
    },
    /// The kernel answered something that is no answer.
    #[error("the kernel's answer about the packet filter cannot be read")]
    Answer,
}

/// Drop what comes from one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drop {
    pub(crate) source: Ipv4Addr,
    /// 1 to 1000.
    pub(crate) per_mille: u16,
}

/// Seconds to wait for the kernel's answer, which comes at once: a limit, so that a test that
/// meets a strange kernel fails instead of hanging.
const ANSWER_S_MAX: i64 = 5;

/// Bytes of one answer: errors quote the message that they answer, and ours are far smaller.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one batch, which the kernel takes in one piece: what a lab's largest filter needs.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes of a batch that a socket takes as Linux makes it (`net.core.wmem_default`, 212,992, less
/// its overhead).
const BATCH_BYTES_UNASKED: usize = 128 * 1024;

const TABLE: &str = "skerry-lab";
const CHAIN: &str = "input";

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const NLMSG_HEADER_BYTES: usize = 16;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const DELTABLE: u16 = NEWTABLE + 2;
const NEWCHAIN: u16 = NEWTABLE + 3;
const NEWRULE: u16 = NEWTABLE + 6;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NF_INET_LOCAL_IN: u32 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
const META_NFPROTO: u32 = 15;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const IPV4_SOURCE_OFFSET: u32 = 12;
const CMP_EQ: u32 = 0;
const CMP_LT: u32 = 2;
const NG_RANDOM: u32 = 1;
const BYTEORDER_HTON: u32 = 1;
const LIST_ELEM: u16 = 1;

/// Netlink messages one after another.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    seq: u32,
}

impl Batch {
    /// Adds one message; `body` writes its attributes.
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.seq += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]); // The length, known below.
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // The port: the kernel knows it.
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).expect("a message is some hundred bytes");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes: length, type, value, padding to four bytes.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn put(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]); // The length, known below.
        self.0.extend_from_slice(&kind.to_ne_bytes());
        value(self.0);
        let length = u16::try_from(self.0.len() - start).expect("an attribute is some hundred bytes");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.put(kind, |bytes| bytes.extend_from_slice(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.put(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        });
    }

    fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.put(kind | NLA_F_NESTED, |bytes| body(&mut Attributes(bytes)));
    }

    /// One expression of a rule: `(attribute, number)` pairs, then what they cannot say.
    fn expression(&mut self, name: &str, numbers: &[(u16, u32)], more: impl FnOnce(&mut Attributes<'_>)) {
        self.nested(LIST_ELEM, |element| {
            element.text(1, name);
            element.nested(2, |data| {
                for (kind, value) in numbers {
                    data.number(*kind, *value);
                }
                more(data);
            });
        });
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.expression("cmp", &[(1, REG_1), (2, operation)], |data| data.nested(3, |it| it.bytes(1, value)));
    }
}

/// The batch that replaces the table; the sequence number of the message that is acknowledged.
fn encode(drops: &[Drop]) -> (Vec<u8>, u32) {
    let mut batch = Batch::default();
    let table = |it: &mut Attributes<'_>| it.text(1, TABLE);
    batch.message(BATCH_BEGIN, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES, |_| {});
    // Made first, so that there is one to remove.
    batch.message(NEWTABLE, NLM_F_CREATE, NFPROTO_INET, 0, table);
    batch.message(DELTABLE, 0, NFPROTO_INET, 0, table);
    batch.message(NEWTABLE, NLM_F_CREATE, NFPROTO_INET, 0, table);
    // The last message of substance is acknowledged: an acknowledgement for each would need more
    // room than the socket has. Errors are reported for any of them.
    let ack = |last: bool| if last { NLM_F_ACK } else { 0 };
    batch.message(NEWCHAIN, NLM_F_CREATE | ack(drops.is_empty()), NFPROTO_INET, 0, |it| {
        it.text(1, TABLE);
        it.text(3, CHAIN);
        it.nested(4, |hook| {
            hook.number(1, NF_INET_LOCAL_IN);
            hook.number(2, 0);
        });
        it.number(5, NF_ACCEPT);
        it.text(7, "filter");
    });
    for (index, drop) in drops.iter().enumerate() {
        let flags = NLM_F_CREATE | NLM_F_APPEND | ack(index + 1 == drops.len());
        batch.message(NEWRULE, flags, NFPROTO_INET, 0, |it| {
            it.text(1, TABLE);
            it.text(2, CHAIN);
            it.nested(4, |expressions| encode_drop(expressions, *drop));
        });
    }
    let acknowledged = batch.seq;
    batch.message(BATCH_END, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES, |_| {});
    (batch.bytes, acknowledged)
}

fn encode_drop(expressions: &mut Attributes<'_>, drop: Drop) {
    assert!((1..=1000).contains(&drop.per_mille), "checked by `Cuts`");
    let nothing = |_: &mut Attributes<'_>| {};
    expressions.expression("meta", &[(1, REG_1), (2, META_NFPROTO)], nothing);
    expressions.compare(CMP_EQ, &[NFPROTO_IPV4]);
    let source = [(1, REG_1), (2, PAYLOAD_NETWORK_HEADER), (3, IPV4_SOURCE_OFFSET), (4, 4)];
    expressions.expression("payload", &source, nothing);
    expressions.compare(CMP_EQ, &drop.source.octets());
    if drop.per_mille < 1000 {
        expressions.expression("numgen", &[(1, REG_1), (2, 1000), (3, NG_RANDOM), (4, 0)], nothing);
        // Numbers are compared byte by byte, so the most significant must come first.
        let swap = [(1, REG_1), (2, REG_1), (3, BYTEORDER_HTON), (4, 4), (5, 4)];
        expressions.expression("byteorder", &swap, nothing);
        expressions.compare(CMP_LT, &u32::from(drop.per_mille).to_be_bytes());
    }
    expressions.expression("immediate", &[(1, REG_VERDICT)], |data| {
        data.nested(2, |value| value.nested(2, |verdict| verdict.number(1, NF_DROP)));
    });
}

/// Replaces the lab's packet filter in the network namespace of the calling thread.
pub(crate) fn replace(drops: &[Drop]) -> Result<(), FilterError> {
    let at = |action| move |error: nix::Error| FilterError::Socket { action, source: error.into() };
    let (batch, acknowledged) = encode(drops);
    let fd: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
            .map_err(at("open"))?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(ANSWER_S_MAX)).map_err(at("set up"))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(at("bind"))?;
    if batch.len() > BATCH_BYTES_UNASKED {
        // Beyond the system's limit, which root may pass; the kernel doubles it for its overhead.
        setsockopt(&fd, SndBufForce, &BATCH_BYTES_MAX).map_err(at("make room in"))?;
    }
    let sent =
        sendto(fd.as_raw_fd(), &batch, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(at("write to"))?;
    if sent != batch.len() {
        return Err(FilterError::Answer);
    }
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let read = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(at("read from"))?;
        if read_answers(&buffer[..read], acknowledged)? {
            return Ok(());
        }
    }
}

/// Reads the kernel's answers: whether the acknowledgement is among them, or the first error.
fn read_answers(mut bytes: &[u8], acknowledged: u32) -> Result<bool, FilterError> {
    let mut done = false;
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<NLMSG_HEADER_BYTES>().ok_or(FilterError::Answer)?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(NLMSG_HEADER_BYTES..length).ok_or(FilterError::Answer)?;
        if u16::from_ne_bytes([k0, k1]) == NLMSG_ERROR {
            let code = i32::from_ne_bytes(*body.first_chunk().ok_or(FilterError::Answer)?);
            if code != 0 {
                let source = io::Error::from_raw_os_error(code.checked_neg().ok_or(FilterError::Answer)?);
                return Err(FilterError::Refused { source });
            }
            done |= u32::from_ne_bytes([s0, s1, s2, s3]) == acknowledged;
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_has_its_length_and_is_padded_to_four_bytes() {
        let mut bytes = Vec::new();
        Attributes(&mut bytes).text(1, "ab");
        assert_eq!(bytes[..2], 7_u16.to_ne_bytes());
        assert_eq!(bytes[4..], [b'a', b'b', 0, 0]);
    }

    #[test]
    fn the_messages_of_a_batch_follow_one_another_without_a_gap() {
        let drops = [
            Drop { source: Ipv4Addr::new(10, 99, 0, 1), per_mille: 1000 },
            Drop { source: Ipv4Addr::new(10, 99, 0, 2), per_mille: 5 },
        ];
        let (bytes, acknowledged) = encode(&drops);
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            let length = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes(bytes[at + 4..at + 6].try_into().unwrap()));
            assert_eq!(length % 4, 0);
            at += length;
        }
        assert_eq!(kinds, [BATCH_BEGIN, NEWTABLE, DELTABLE, NEWTABLE, NEWCHAIN, NEWRULE, NEWRULE, BATCH_END]);
        assert_eq!(acknowledged, 7);
    }

    #[test]
    fn a_filter_for_as_many_nodes_as_a_lab_may_have_is_taken_by_the_kernel() {
        let drop = Drop { source: Ipv4Addr::new(10, 99, 0, 1), per_mille: 5 };
        let drops = vec![drop; crate::lab::LAB_NODES_MAX];
        assert!(encode(&drops).0.len() <= BATCH_BYTES_MAX);
        if nix::unistd::geteuid().is_root() {
            crate::netns::in_new_netns(|| replace(&drops)).unwrap().unwrap();
        } else {
            println!("\n*** NOT TESTED: that the kernel takes a large filter; it needs root ***\n");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI nothing may stay untested");
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error_and_no_panic() {
        let mut answer = Vec::new();
        answer.extend_from_slice(&36_u32.to_ne_bytes());
        answer.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer.extend_from_slice(&[0; 2]);
        answer.extend_from_slice(&7_u32.to_ne_bytes());
        answer.extend_from_slice(&[0; 24]);
        assert!(read_answers(&answer, 7).unwrap());
        assert!(!read_answers(&answer, 8).unwrap());
        for length in 1..answer.len() {
            assert!(matches!(read_answers(&answer[..length], 7), Err(FilterError::Answer)), "{length}");
        }
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        let Err(FilterError::Refused { source }) = read_answers(&answer, 7) else { panic!("not refused") };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_message_of_length_zero_does_not_loop_for_ever() {
        assert!(matches!(read_answers(&[0; 16], 1), Err(FilterError::Answer)));
    }
}
