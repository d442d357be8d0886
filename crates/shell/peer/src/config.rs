//! What a node's operator decides: `peer.toml` in the data folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::limits::OVERCOMMIT_PERCENT_MAX;
use model::{Capacity, Extras, LabelKey, Terms};
use serde::{Deserialize, Serialize};

/// Of what the machine has, the part that is offered to containers where the operator says nothing: the rest is
/// for the system and the peer itself.
const OFFERED_PERCENT: u64 = 90;

/// The settings of one node. A misspelt key is refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The UDP address that the mesh listens on.
    pub listen: SocketAddr,
    /// What others are told to dial, `host:port`, most wanted first.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// The folder of cgroups under which this node's containers live, relative to each hierarchy's
    /// root. Peers that share a machine need different ones.
    pub cgroup_parent: String,
    /// What the node offers to containers; measured at start where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Amounts>,
    /// What else it offers, counted whole: `gpu = 1`.
    #[serde(default, skip_serializing_if = "Extras::is_empty")]
    pub extras: Extras,
    /// What of it is kept for the system. Where nothing is said: a tenth of what was measured, and nothing of what
    /// was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Reserve>,
    /// How often the rest is given away.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub overcommit: Overcommit,
    /// Whether the node takes new work while its machine is short of something.
    #[serde(default, skip_serializing_if = "Pressure::is_usual")]
    pub pressure: Pressure,
    /// Labels for placement.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, String>,
}

/// What is never offered; what is left out is as where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_m: Option<u64>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_b: Option<u64>,
}

/// Percent of what there is beside the reserve that is offered: 100 to [`OVERCOMMIT_PERCENT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Overcommit {
    /// Of the processors. More than 100: containers that all want theirs get less than they asked for.
    pub cpu_percent: u16,
    /// Of memory. More than 100: where all use what they asked for, the kernel kills some.
    pub memory_percent: u16,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { cpu_percent: 100, memory_percent: 100 }
    }
}

impl Overcommit {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How it is seen whether the machine is short of something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// New work is taken in any case: of some peers on one machine each would see what all of them do.
    #[serde(default)]
    pub ignore: bool,
    /// The folder with the kernel's figures, where it is not `/proc/pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PathBuf>,
}

impl Pressure {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Amounts that each machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_m: u64,
    /// Bytes of memory.
    pub memory_b: u64,
    /// Processes.
    pub pids: u64,
}

/// Why the settings cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not of its form.
    #[error("{} is not a valid configuration", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// More or less is offered than can be.
    #[error("the settings of this node offer nothing that can be: {problem}")]
    Offer {
        /// What, and what would be right.
        problem: String,
    },
}

impl Config {
    /// The file's name in the data folder.
    pub const FILE: &str = store::DataDir::SETTINGS;

    /// Reads the settings of a data folder.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(Self::FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Malformed { path, source: Box::new(source) })
    }

    /// The node's labels: those that its operator gave it, and where these say nothing else `os` and `arch`,
    /// in the words that images have for them (`linux`, `arm64`).
    pub fn labels_with_platform(&self) -> BTreeMap<LabelKey, String> {
        let image::Platform { os, architecture, .. } = image::Platform::this();
        let mut labels = self.labels.clone();
        for (key, value) in [("os", os), ("arch", architecture)] {
            labels.entry(key.parse().expect("a word is a label's key")).or_insert(value);
        }
        labels
    }

    /// What the node offers, and how its operator came to that: of what was declared, or else of what the machine
    /// has, what is left beside the reserve, as often as the operator says.
    ///
    /// # Errors
    /// Where the reserve leaves nothing, or a percentage is out of its range.
    pub fn offers(&self, measured: impl FnOnce() -> Amounts) -> Result<(Capacity, Terms), ConfigError> {
        let offer = |problem: String| ConfigError::Offer { problem };
        let has = self.capacity.unwrap_or_else(measured);
        let usual =
            |whole: u64| if self.capacity.is_some() { 0 } else { whole - whole / 100 * OFFERED_PERCENT };
        let reserve = self.reserve.unwrap_or_default();
        let reserved_cpu_m = reserve.cpu_m.unwrap_or_else(|| usual(has.cpu_m));
        let reserved_memory_b = reserve.memory_b.unwrap_or_else(|| usual(has.memory_b));
        let Overcommit { cpu_percent, memory_percent } = self.overcommit;
        for (what, percent) in [("cpu-percent", cpu_percent), ("memory-percent", memory_percent)] {
            if !(100..=OVERCOMMIT_PERCENT_MAX).contains(&percent) {
                let most = OVERCOMMIT_PERCENT_MAX;
                return Err(offer(format!("overcommit.{what} is {percent}, use 100 to {most}")));
            }
        }
        // A machine that has nothing, or does not tell, offers nothing: only what was asked for is refused.
        if reserved_cpu_m > 0 && reserved_cpu_m >= has.cpu_m {
            return Err(offer(format!(
                "the reserve of {reserved_cpu_m}m cpu leaves nothing of {}m",
                has.cpu_m
            )));
        }
        if reserved_memory_b > 0 && reserved_memory_b >= has.memory_b {
            return Err(offer(format!(
                "the reserve of {reserved_memory_b} bytes of memory leaves nothing of {}",
                has.memory_b
            )));
        }
        let Amounts { cpu_m, memory_b, pids } = has;
        let has = Capacity { cpu_m, memory_b, pids, extras: self.extras.clone() };
        let terms = Terms { reserved_cpu_m, reserved_memory_b, cpu_percent, memory_percent };
        Ok((terms.offered(&has), terms))
    }

    /// The settings as text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("settings are tables of plain values")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(&format!("listen = \"127.0.0.1:1\"\ncgroup-parent = \"skerry\"\n{text}")).unwrap()
    }

    const HAS: Amounts = Amounts { cpu_m: 2_000, memory_b: 1_000 << 20, pids: 500 };

    #[test]
    fn what_is_measured_is_offered_less_a_tenth_and_what_is_declared_as_it_is() {
        let (offered, terms) = config("").offers(|| HAS).unwrap();
        assert_eq!((offered.cpu_m, offered.memory_b, offered.pids), (1_800, 943_718_400, 500));
        assert_eq!((terms.reserved_cpu_m, terms.cpu_percent), (200, 100));
        let declared = config("capacity = {cpu_m = 500, memory_b = 1048576, pids = 9}");
        let (offered, terms) = declared.offers(|| panic!("nothing is measured")).unwrap();
        assert_eq!((offered.cpu_m, offered.memory_b, offered.pids), (500, 1 << 20, 9));
        assert_eq!(terms, Terms::default());
    }

    #[test]
    fn the_reserve_is_kept_first_and_the_rest_given_away_as_often_as_is_said() {
        let text = "reserve = {cpu_m = 1000, memory_b = 0}\novercommit = {cpu-percent = 150}";
        let (offered, terms) = config(text).offers(|| HAS).unwrap();
        assert_eq!((offered.cpu_m, offered.memory_b), (1_500, 1_000 << 20));
        assert_eq!((terms.cpu_percent, terms.memory_percent), (150, 100));
        let half = config("reserve = {cpu_m = 1000}").offers(|| HAS).unwrap().1;
        assert_eq!((half.reserved_cpu_m, half.reserved_memory_b), (1_000, 104_857_600), "a tenth of memory");
        let nothing = config("").offers(|| Amounts { memory_b: 0, ..HAS }).unwrap().0;
        assert_eq!(nothing.memory_b, 0);
        let again: Config = toml::from_str(&config(text).to_text()).unwrap();
        assert_eq!(again, config(text));
    }

    #[test]
    fn an_offer_that_cannot_be_is_refused_with_its_numbers() {
        let refused = |text: &str| config(text).offers(|| HAS).unwrap_err().to_string();
        for (text, told) in [
            ("reserve = {cpu_m = 2000}", "the reserve of 2000m cpu leaves nothing of 2000m"),
            ("reserve = {memory_b = 9999999999}", "leaves nothing of 1048576000"),
            ("overcommit = {cpu-percent = 99}", "overcommit.cpu-percent is 99, use 100 to 1000"),
            ("overcommit = {memory-percent = 1001}", "overcommit.memory-percent is 1001"),
        ] {
            assert!(refused(text).contains(told), "{text}: {}", refused(text));
        }
    }
}
