//! What machines are short of, and what they offer: how much is kept, given away twice, or counted.

use model::{Capacity, Extras, Terms, Time};
use node::{DiskSpace, Input, Pressure};

use crate::world::Cluster;

/// What a machine is short of, as its kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Something waits for memory, in hundredths of a percent of the time.
    Memory(u16),
    /// Something waits for a processor.
    Cpu(u16),
    /// Something waits for a disk.
    Io(u16),
    /// There are so many MiB left on a disk of 100 GiB.
    Disk(u64),
    /// All is well.
    Nothing,
}

/// How much of something there is, by docs/concepts/scheduling.md: what a peer must make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Short,
    Between,
    Well,
}

impl Shortage {
    fn level(self) -> Level {
        let (is_short, is_well) = match self {
            Self::Memory(some) => (some >= 2_000, some < 500),
            Self::Cpu(some) => (some >= 9_500, some < 7_000),
            Self::Io(some) => (some >= 8_000, some < 4_000),
            Self::Disk(mib) => (mib < 512, mib >= 1_024),
            Self::Nothing => (false, true),
        };
        match (is_short, is_well) {
            (true, _) => Level::Short,
            (false, true) => Level::Well,
            (false, false) => Level::Between,
        }
    }

    fn measured(self) -> Pressure {
        let well = Pressure::default();
        match self {
            Self::Memory(some) => Pressure { memory: Some(some), ..well },
            Self::Cpu(some) => Pressure { cpu: Some(some), ..well },
            Self::Io(some) => Pressure { io: Some(some), ..well },
            Self::Disk(mib) => {
                let disk = Some(DiskSpace { free_b: mib << 20, total_b: 100 << 30 });
                Pressure { disk, ..well }
            }
            Self::Nothing => well,
        }
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(some) => write!(f, "waits for memory {} % of the time", some / 100),
            Self::Cpu(some) => write!(f, "waits for a processor {} % of the time", some / 100),
            Self::Io(some) => write!(f, "waits for a disk {} % of the time", some / 100),
            Self::Disk(mib) => write!(f, "has {mib} MiB left on its disk"),
            Self::Nothing => write!(f, "is short of nothing"),
        }
    }
}

/// A tenth of a second beyond the ten that a shortage lasts before anybody is told.
const LASTS_MS: u128 = 10_100;

impl Cluster {
    /// From the next start of its peer on a machine keeps some of what it has, gives the rest away so often, and
    /// has these counted things.
    pub fn set_terms(&mut self, host: usize, terms: Terms, extras: Extras) {
        let it = &mut self.hosts[host];
        it.terms = terms;
        it.machine.capacity.extras = extras;
    }

    /// What a machine offers by its terms, worked out here and not by the peer.
    pub(crate) fn offered(&self, host: usize) -> Capacity {
        let it = &self.hosts[host];
        let (has, terms) = (&it.machine.capacity, it.terms);
        let part = |has: u64, kept: u64, percent: u16| has.saturating_sub(kept) * u64::from(percent) / 100;
        Capacity {
            cpu_m: part(has.cpu_m, terms.reserved_cpu_m, terms.cpu_percent),
            memory_b: part(has.memory_b, terms.reserved_memory_b, terms.memory_percent),
            ..has.clone()
        }
    }

    /// Makes a machine short of something, or of nothing more; its peer notices.
    pub fn press(&mut self, host: usize, shortage: Shortage) {
        self.tell(format!("n{} {shortage}", host + 1));
        self.hosts[host].shortage = Some(shortage);
        self.measure(host);
    }

    /// Lets the peer of a machine see what it is short of, if it runs.
    pub(crate) fn measure(&mut self, host: usize) {
        let it = &self.hosts[host];
        if let Some(shortage) = it.shortage
            && it.node.is_some()
        {
            self.input(host, Input::Pressure(shortage.measured()));
        }
    }

    /// A peer has been told what its machine is short of.
    pub(crate) fn measured(&mut self, host: usize) {
        let lasts = self.has_been_short(host);
        let now = self.now;
        let it = &mut self.hosts[host];
        it.short_since = match it.shortage.map_or(Level::Well, Shortage::level) {
            Level::Short => it.short_since.or(Some(now)),
            // What was told stays told until all is well.
            Level::Between => it.short_since.filter(|_| lasts),
            Level::Well => None,
        };
    }

    /// Whether the peer of a machine has known for long enough that it takes nothing new.
    pub(crate) fn has_been_short(&self, host: usize) -> bool {
        let since: Option<Time> = self.hosts[host].short_since;
        since.is_some_and(|since| self.now.since(since).as_millis() > LASTS_MS)
    }

    /// Whether a machine may say that it takes nothing new.
    pub(crate) fn may_be_short(&self, host: usize) -> bool {
        self.hosts[host].shortage.is_some_and(|it| it.level() != Level::Well)
    }
}
