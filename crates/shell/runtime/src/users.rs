//! Who the users of a container are on the host.
//!
//! A container that root starts has a range of 65,536 ids of the host to itself, in a user namespace:
//! its user 0 is nobody in particular outside. The range follows from the container's id, so no two
//! nodes, peers or runs have to agree on anything; within one runtime folder a range that is taken is
//! passed over, and each container's range is written down beside it.
//!
//! If two containers of different folders of one machine meet in a range, they stay apart by their
//! namespaces; what is lost is the second wall: a program that has broken out of the one would be the
//! owner of the other's files and processes. It would still be nobody to the host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ids of one container: all 16-bit numbers, which hold every user that images and Debian's or Alpine's
/// packages have, `nobody` (65534) included.
pub(crate) const IDS: u32 = 1 << 16;

/// The first id of the first range: above everything that shadow-utils hands to people's own
/// namespaces (up to 600,100,000), and aligned, so that an id shows its range in hexadecimal.
const IDS_FIRST: u32 = 0x4000_0000;

/// How many ranges there are. They end below `0x7000_0000`, where systemd-nsresourced begins, and below
/// 2^31, from where on programs take ids for negative. All of them lie in what systemd sets aside for
/// containers, so no ordinary user is in there.
const RANGES: u32 = 0x3000 - 1;

/// Belongs to no container: the range that is tried out when a peer starts.
pub(crate) const TRIAL: Range = Range { first: IDS_FIRST + RANGES * IDS };

const _: () = assert!(TRIAL.first == 0x6FFF_0000);

/// The ids of one container on the host: [`IDS`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Who user 0, and group 0, of the container is.
    pub(crate) first: u32,
}

impl Range {
    fn number(number: u32) -> Self {
        assert!(number < RANGES);
        Self { first: IDS_FIRST + number * IDS }
    }

    /// Whether this release would give it to a container; a file may say anything.
    pub(crate) fn is_one(self) -> bool {
        (IDS_FIRST..TRIAL.first).contains(&self.first) && self.first.is_multiple_of(IDS)
    }

    /// The id on the host of a user or group of the container, if it is one of its own.
    pub(crate) fn of(self, inside: u32) -> Option<u32> {
        (inside < IDS).then(|| self.first + inside)
    }
}

/// The file `ids.json`, written by the peer before each start and obeyed by the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ids {
    /// A user namespace with this range.
    Mapped(Range),
    /// None.
    Host {
        /// Why not, in words for the person who sees what the container lacks.
        why: String,
    },
}

/// How the users of a container that starts or runs are known to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// By the same numbers: there is no user namespace.
    Host,
    /// Only user 0, who is whoever started it without root.
    Own,
    /// By the numbers of a range of its own.
    Mapped(Range),
}

impl Users {
    /// Whether the container has a user namespace.
    pub(crate) fn have_namespace(self) -> bool {
        self != Self::Host
    }

    /// Whether the supervisor is not root.
    pub(crate) fn are_rootless(self) -> bool {
        self == Self::Own
    }
}

/// Whether containers get user namespaces, as a peer finds it out once:
/// [`Runtime::try_user_namespaces`](crate::Runtime::try_user_namespaces).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNamespaces {
    /// Each container has one. Started by root, with ids of its own on the host.
    Used,
    /// Root starts containers without: user 0 of a container is user 0 of the host.
    Refused {
        /// What was tried and what the kernel said.
        why: String,
    },
}

/// Which container of a runtime folder has which range.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    taken: BTreeMap<Range, String>,
}

impl Ranges {
    /// The range of a container that was found with one. False when another has it already.
    pub(crate) fn keep(&mut self, range: Range, id: &str) -> bool {
        range.is_one() && self.taken.entry(range).or_insert_with(|| id.to_owned()) == id
    }

    /// The range of container `id`: the one that it has, else the first free one from where its id
    /// points to. `None` when all are taken.
    pub(crate) fn take(&mut self, id: &str) -> Option<Range> {
        if let Some((range, _)) = self.taken.iter().find(|(_, holder)| *holder == id) {
            return Some(*range);
        }
        let start = spread(id);
        let range = (0..RANGES)
            .map(|step| Range::number((start + step) % RANGES))
            .find(|range| !self.taken.contains_key(range))?;
        self.taken.insert(range, id.to_owned());
        Some(range)
    }

    /// The container is no more.
    pub(crate) fn give_back(&mut self, id: &str) {
        self.taken.retain(|_, holder| holder != id);
    }
}

/// A number below [`RANGES`] for an id. Ids are random or digests, but tests and people choose short
/// ones; FNV-1a is enough to spread those, and nobody gains anything by steering it.
fn spread(id: &str) -> u32 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    u32::try_from((hash ^ (hash >> 32)) % u64::from(RANGES)).expect("less than RANGES")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_follows_from_the_id_alone_and_is_kept() {
        let (mut here, mut there) = (Ranges::default(), Ranges::default());
        for id in ["0a", "0b", "ffff"] {
            assert_eq!(here.take(id), there.take(id), "{id}");
            assert_eq!(here.take(id), here.take(id), "{id}");
        }
    }

    #[test]
    fn every_container_of_a_folder_has_another_range_until_none_is_left() {
        let mut ranges = Ranges::default();
        let ids: Vec<String> = (0..200).map(|number| format!("{number:x}")).collect();
        let mut seen: Vec<Range> = ids.iter().map(|id| ranges.take(id).unwrap()).collect();
        assert!(seen.iter().all(|range| range.is_one() && *range != TRIAL));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ids.len());

        let all = (0..RANGES).map(|number| (Range::number(number), "other".to_owned()));
        let mut full = Ranges { taken: all.collect() };
        assert_eq!(full.take("0a"), None);
        full.give_back("other");
        assert!(full.take("0a").is_some());
    }

    #[test]
    fn a_range_that_was_found_is_kept_unless_another_has_it_or_it_is_none() {
        let mut ranges = Ranges::default();
        assert!(ranges.keep(Range::number(7), "0a"));
        assert!(ranges.keep(Range::number(7), "0a"));
        assert!(!ranges.keep(Range::number(7), "0b"));
        assert_eq!(ranges.take("0a"), Some(Range::number(7)));
        for first in [0, 1000, IDS_FIRST + 1, TRIAL.first, u32::MAX] {
            assert!(!ranges.keep(Range { first }, "0c"), "{first}");
        }
    }

    #[test]
    fn ids_inside_are_ids_of_the_range_and_others_are_nobody() {
        let range = Range::number(1);
        assert_eq!(range.of(0), Some(0x4001_0000));
        assert_eq!(range.of(65535), Some(0x4001_FFFF));
        assert_eq!(range.of(65536), None);
    }
}
