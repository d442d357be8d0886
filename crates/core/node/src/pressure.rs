//! Whether this node takes new work, by what its machine is short of.
//!
//! The shell measures; here it is decided, and told in the node's record, so that the plans of all peers agree.
//! What runs stays where it is, as on a node that is cordoned.
//!
//! Invariant: the reason that is told does not change while it holds, however its numbers do: a record that
//! changes goes to every peer.

use std::time::Duration;

use model::limits::{
    PRESSURE_CPU_BEGIN, PRESSURE_CPU_END, PRESSURE_DISK_B_MAX, PRESSURE_DISK_PART, PRESSURE_IO_BEGIN,
    PRESSURE_IO_END, PRESSURE_MEMORY_BEGIN, PRESSURE_MEMORY_END,
};
use model::{Sabotage, Time};

use crate::containers::short;
use crate::state::Node;

/// How long the machine must be short of something before anybody is told: the start of a container, or an image
/// that is unpacked, is over by then.
const LASTS: Duration = Duration::from_secs(10);

/// How long it must be well before it takes work again: what is placed at once would bring the trouble back at
/// once, and would then be placed elsewhere, and so on.
const CALM: Duration = Duration::from_secs(30);

/// What a machine is short of, as its kernel tells. `None`: the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Hundredths of a percent of the last ten seconds in which some task waited for a processor.
    pub cpu: Option<u16>,
    /// The same for memory.
    pub memory: Option<u16>,
    /// The same for a disk.
    pub io: Option<u16>,
    /// The disk that the data folder is on.
    pub disk: Option<DiskSpace>,
}

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that are free.
    pub free_b: u64,
    /// Bytes of all of it.
    pub total_b: u64,
}

/// What may be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Disk,
    Io,
    Cpu,
}

impl Kind {
    /// The worst first.
    const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Io, Self::Cpu];
}

/// How bad one kind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Well,
    /// Better than where trouble begins, and not as good as where it ends.
    Between,
    Short,
}

impl Pressure {
    fn level(&self, kind: Kind) -> Level {
        let waited = |some: Option<u16>, begin: u16, end: u16| match some {
            Some(some) if some >= begin => Level::Short,
            Some(some) if some >= end => Level::Between,
            _ => Level::Well,
        };
        match kind {
            Kind::Cpu => waited(self.cpu, PRESSURE_CPU_BEGIN, PRESSURE_CPU_END),
            Kind::Memory => waited(self.memory, PRESSURE_MEMORY_BEGIN, PRESSURE_MEMORY_END),
            Kind::Io => waited(self.io, PRESSURE_IO_BEGIN, PRESSURE_IO_END),
            Kind::Disk => match self.disk {
                Some(disk) if disk.free_b < disk.least_b() => Level::Short,
                Some(disk) if disk.free_b < disk.least_b().saturating_mul(2) => Level::Between,
                _ => Level::Well,
            },
        }
    }

    /// The worst kind that is short.
    fn short(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| self.level(*kind) == Level::Short)
    }

    fn is_well(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.level(kind) == Level::Well)
    }

    /// In words, with its numbers.
    fn words(&self, kind: Kind) -> String {
        let waited = |what: &str, some: Option<u16>, begin: u16| {
            let some = some.unwrap_or_default();
            format!(
                "{what}: something waited for it {}.{:02} % of ten seconds, the limit is {} %",
                some / 100,
                some % 100,
                begin / 100
            )
        };
        match kind {
            Kind::Cpu => waited("cpu", self.cpu, PRESSURE_CPU_BEGIN),
            Kind::Memory => waited("memory", self.memory, PRESSURE_MEMORY_BEGIN),
            Kind::Io => waited("io", self.io, PRESSURE_IO_BEGIN),
            Kind::Disk => {
                let (free_b, least_b) = self.disk.map_or((0, 0), |disk| (disk.free_b, disk.least_b()));
                format!("disk: {} MiB free, {} MiB needed", free_b >> 20, least_b >> 20)
            }
        }
    }
}

impl DiskSpace {
    /// Bytes below which it is nearly full.
    fn least_b(self) -> u64 {
        (self.total_b / PRESSURE_DISK_PART).min(PRESSURE_DISK_B_MAX)
    }
}

/// Whether the node takes new work, and since when that may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Press {
    now: Pressure,
    /// Since when something has been short, while nobody was told.
    rises: Option<Time>,
    /// What was told.
    told: Option<(Kind, String)>,
    /// Since when all is well, while trouble is still told.
    calm: Option<Time>,
}

impl Press {
    /// Why the node takes no new work, if it takes none.
    pub(crate) fn reason(&self) -> Option<String> {
        self.told.as_ref().map(|(_, words)| words.clone())
    }

    pub(crate) fn next_wake(&self) -> Option<(Time, &'static str)> {
        match (&self.told, self.rises, self.calm) {
            (None, Some(since), _) => Some((since + LASTS, "the machine has been short of something")),
            (Some(_), _, Some(since)) => Some((since + CALM, "the machine has been well for a while")),
            _ => None,
        }
    }
}

impl Node {
    pub(crate) fn on_pressure(&mut self, pressure: Pressure) {
        let now = self.now;
        let for_good = self.has(Sabotage::PressureForGood);
        let press = &mut self.press;
        press.now = pressure;
        let (short, well) = (pressure.short(), pressure.is_well() && !for_good);
        press.rises = short.and(press.rises.or(Some(now)));
        press.calm = if well { press.calm.or(Some(now)) } else { None };
        // Another trouble has taken the place of the one that was told.
        if let (Some((told, _)), Some(kind)) = (&press.told, short)
            && *told != kind
            && pressure.level(*told) == Level::Well
        {
            self.tell_pressure(kind);
        }
    }

    /// Tells trouble that lasts, and that it is over once all has been well for a while.
    pub(crate) fn tick_pressure(&mut self) {
        let now = self.now;
        match (&self.press.told, self.press.rises, self.press.calm) {
            (None, Some(since), _) if now.since(since) >= LASTS => {
                if let Some(kind) = self.press.now.short() {
                    self.tell_pressure(kind);
                }
            }
            (Some(_), _, Some(since)) if now.since(since) >= CALM => {
                self.press.told = None;
                self.press.rises = None;
                self.notice("node-relieved", None, "this machine has room again: it takes new work");
                self.changed = true;
                self.dirty = true;
            }
            _ => {}
        }
    }

    fn tell_pressure(&mut self, kind: Kind) {
        let words = short(&self.press.now.words(kind));
        self.notice("node-pressure", None, format!("takes no new work, what runs stays: {words}"));
        self.press.told = Some((kind, words));
        self.changed = true;
        self.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_begins_and_ends_at_its_own_numbers_and_says_them() {
        let memory = |some| Pressure { memory: Some(some), ..Pressure::default() };
        assert_eq!(memory(2_000).short(), Some(Kind::Memory));
        assert_eq!(memory(1_999).short(), None);
        assert!(!memory(500).is_well() && memory(499).is_well());
        assert_eq!(
            memory(3_405).words(Kind::Memory),
            "memory: something waited for it 34.05 % of ten seconds, the limit is 20 %"
        );
        let disk = |free_mib: u64, total_gib: u64| Pressure {
            disk: Some(DiskSpace { free_b: free_mib << 20, total_b: total_gib << 30 }),
            ..Pressure::default()
        };
        // A large disk by bytes, a small one by its part.
        assert_eq!((disk(511, 1_000).short(), disk(512, 1_000).short()), (Some(Kind::Disk), None));
        assert_eq!((disk(51, 1).short(), disk(52, 1).short()), (Some(Kind::Disk), None));
        assert!(!disk(1_023, 1_000).is_well() && disk(1_024, 1_000).is_well());
        assert_eq!(disk(100, 1_000).words(Kind::Disk), "disk: 100 MiB free, 512 MiB needed");
        assert!(Pressure::default().is_well(), "a kernel that does not tell is not in trouble");
    }
}
