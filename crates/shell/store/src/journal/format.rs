//! The bytes of the journal's files. All numbers are little-endian.
//!
//! ```text
//! segment  = header record*
//! header   = magic 8 | version u32 | cluster 32 | segment u64 | first seq u64 | chain 16 | crc u32
//! record   = length u32 | crc u32 | seq u64 | chain 16 | payload
//! mark     = slot slot
//! slot     = magic 8 | version u32 | cluster 32 | commit u64 | segment u64 | length u64 | count u64
//!          | chain 16 | zeros | crc u32                                             (512 bytes)
//! ```
//!
//! `crc` is CRC-32C over everything else in its structure. `chain` is the first 16 bytes of
//! SHA-256(chain before | payload): a record stands in one place of one history. In a header,
//! `first seq` and `chain` are those that the records before it end with, so segments cannot be
//! swapped. A slot's place is its commit number modulo two, so writing one never touches the last.
//!
//! The magic, version, cluster and crc keep their place in every later version, so that a file
//! made by a newer release can be told from a damaged one.

use model::ClusterId;
use sha2::{Digest as _, Sha256};

/// The version that this release writes, and the only one so far.
pub(super) const VERSION: u32 = 1;

/// Bytes before the first record of a segment.
pub(super) const HEADER_BYTES: usize = 80;

/// Bytes before a record's payload.
pub(super) const RECORD_HEAD_BYTES: usize = 32;

/// Bytes of one slot of the mark: one sector, which no disk tears.
pub(super) const SLOT_BYTES: usize = 512;

/// Bytes of the mark.
pub(super) const MARK_BYTES: usize = 2 * SLOT_BYTES;

/// Marks of a journal's life: more than a disk can write, and counting on from there never overflows.
const COMMIT_MAX: u64 = 1 << 62;

const SEGMENT_MAGIC: [u8; 8] = *b"SKRYJRNL";
const MARK_MAGIC: [u8; 8] = *b"SKRYMARK";

/// What a history comes to: the hash of all payloads so far.
pub(super) type Chain = [u8; 16];

/// The chain after one more payload.
pub(super) fn chain_after(before: &Chain, payload: &[u8]) -> Chain {
    let hash: [u8; 32] = Sha256::new().chain_update(before).chain_update(payload).finalize().into();
    let mut chain = Chain::default();
    chain.copy_from_slice(&hash[..16]);
    chain
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster: ClusterId,
    /// Counted from 1.
    pub(super) segment: u64,
    /// The number of records in the segments before.
    pub(super) first_seq: u64,
    /// What they come to.
    pub(super) chain: Chain,
}

/// Why bytes are not what they should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Damaged or never one of ours; in words.
    Damaged(&'static str),
    /// Made by a newer release.
    Newer(u32),
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// The caller has checked that the structure's bytes are all there.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk::<N>().expect("the length was checked");
        self.0 = rest;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Appends the checksum of what is there.
fn seal(bytes: &mut Vec<u8>) {
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// What a sealed structure holds, if it is whole.
fn unseal(bytes: &[u8], magic: [u8; 8]) -> Result<Reader<'_>, Bad> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Bad::Damaged("it is too short"))?;
    let mut reader = Reader(body);
    if reader.take() != magic {
        return Err(Bad::Damaged("it does not begin as a file of ours"));
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Bad::Damaged("its checksum does not match"));
    }
    match reader.u32() {
        VERSION => Ok(reader),
        0 => Err(Bad::Damaged("there is no version 0")),
        newer => Err(Bad::Newer(newer)),
    }
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.chain);
        seal(&mut bytes);
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Bad> {
        let mut reader = unseal(bytes, SEGMENT_MAGIC)?;
        Ok(Self {
            cluster: ClusterId::from_bytes(reader.take()),
            segment: reader.u64(),
            first_seq: reader.u64(),
            chain: reader.take(),
        })
    }
}

/// How far the journal is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) cluster: ClusterId,
    /// Counts the marks: the higher of the two slots is the one that counts. It is also what openings
    /// are numbered by, so it never goes back.
    pub(super) commit: u64,
    /// The segment that holds the end.
    pub(super) segment: u64,
    /// Where in it the end is, in bytes.
    pub(super) length: u64,
    /// Records up to there.
    pub(super) count: u64,
    /// What they come to.
    pub(super) chain: Chain,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&MARK_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(self.cluster.as_bytes());
        for number in [self.commit, self.segment, self.length, self.count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.chain);
        bytes.resize(SLOT_BYTES - 4, 0);
        seal(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8], slot: u64) -> Result<Self, Bad> {
        let mut reader = unseal(bytes, MARK_MAGIC)?;
        let cluster = ClusterId::from_bytes(reader.take());
        let [commit, segment, length, count] = [(); 4].map(|()| reader.u64());
        if commit > COMMIT_MAX {
            return Err(Bad::Damaged("its number is out of range"));
        }
        if commit % 2 != slot {
            return Err(Bad::Damaged("it is in the other slot's place"));
        }
        Ok(Self { cluster, commit, segment, length, count, chain: reader.take() })
    }

    /// Where it is written.
    pub(super) fn offset(&self) -> u64 {
        (self.commit % 2) * SLOT_BYTES as u64
    }

    /// The newer of the slots that can be read, and whether both can. One that cannot is what a power
    /// cut leaves, or damage.
    pub(super) fn newest(bytes: &[u8; MARK_BYTES]) -> Result<(Self, bool), Bad> {
        let (first, second) = bytes.split_at(SLOT_BYTES);
        match (Self::decode(first, 0), Self::decode(second, 1)) {
            (Ok(a), Ok(b)) => Ok((if a.commit > b.commit { a } else { b }, true)),
            // A newer release's mark counts even beside one of ours: it is the later.
            (Err(Bad::Newer(version)), _) | (_, Err(Bad::Newer(version))) => Err(Bad::Newer(version)),
            (Ok(mark), Err(Bad::Damaged(_))) | (Err(Bad::Damaged(_)), Ok(mark)) => Ok((mark, false)),
            (Err(Bad::Damaged(_)), Err(Bad::Damaged(_))) => {
                Err(Bad::Damaged("neither of its slots can be read"))
            }
        }
    }
}

fn record_crc(length: u32, seq: u64, chain: &Chain, payload: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&length.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &seq.to_le_bytes());
    crc = crc32c::crc32c_append(crc, chain);
    crc32c::crc32c_append(crc, payload)
}

/// Appends one record to `bytes`. The caller has checked the payload's size.
pub(super) fn encode_record(bytes: &mut Vec<u8>, seq: u64, chain: &Chain, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a record is limited to far less");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&record_crc(length, seq, chain, payload).to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(chain);
    bytes.extend_from_slice(payload);
}

/// The first bytes of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHead {
    pub(super) length: u32,
    crc: u32,
    pub(super) seq: u64,
    pub(super) chain: Chain,
}

impl RecordHead {
    pub(super) fn decode(bytes: [u8; RECORD_HEAD_BYTES]) -> Self {
        let mut reader = Reader(&bytes);
        Self { length: reader.u32(), crc: reader.u32(), seq: reader.u64(), chain: reader.take() }
    }

    /// Whether the payload is the one that was written with this head.
    pub(super) fn seals(&self, payload: &[u8]) -> bool {
        record_crc(self.length, self.seq, &self.chain, payload) == self.crc
    }
}
