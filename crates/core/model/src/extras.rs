//! What a node has beside processors, memory and processes: counted things with names, like `gpu` or `camera`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::LabelKey;
use crate::limits::{EXTRA_COUNT_MAX, EXTRAS_MAX};

/// A number of each of some named things, counted whole. Mostly there is none, which costs nothing.
///
/// Invariant: no count is 0, so that two of the same amounts are equal.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extras(Option<Arc<BTreeMap<LabelKey, u64>>>);

/// Why counts are no extras.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtrasError {
    /// More names than there may be.
    #[error("{count} extras, the limit is {EXTRAS_MAX}")]
    TooMany {
        /// How many names.
        count: usize,
    },
    /// A count of nothing, or of more than anybody counts.
    #[error("{count} of extra `{name}`, use 1 to {EXTRA_COUNT_MAX}")]
    Count {
        /// Of which.
        name: LabelKey,
        /// How many.
        count: u64,
    },
}

impl Extras {
    /// No extras.
    pub const NONE: Self = Self(None);

    /// Those counts.
    ///
    /// # Errors
    /// With more than [`EXTRAS_MAX`] names, or a count that is not 1 to [`EXTRA_COUNT_MAX`].
    pub fn new(counts: BTreeMap<LabelKey, u64>) -> Result<Self, ExtrasError> {
        if counts.len() > EXTRAS_MAX {
            return Err(ExtrasError::TooMany { count: counts.len() });
        }
        match counts.iter().find(|(_, count)| !(1..=EXTRA_COUNT_MAX).contains(*count)) {
            Some((name, count)) => Err(ExtrasError::Count { name: name.clone(), count: *count }),
            None => Ok(Self::of(counts)),
        }
    }

    fn of(counts: BTreeMap<LabelKey, u64>) -> Self {
        Self((!counts.is_empty()).then(|| Arc::new(counts)))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each name with its count, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, u64)> {
        self.0.iter().flat_map(|counts| counts.iter().map(|(name, count)| (name, *count)))
    }

    /// How many there are of one; 0 where it is not there.
    pub fn count(&self, name: &LabelKey) -> u64 {
        self.0.as_ref().and_then(|counts| counts.get(name)).copied().unwrap_or(0)
    }

    /// The first by name of which more is asked than there is: name, what is there, what is asked.
    pub fn lacking<'a>(&self, asked: &'a Self) -> Option<(&'a LabelKey, u64, u64)> {
        if asked.is_empty() {
            return None;
        }
        asked.iter().map(|(name, asked)| (name, self.count(name), asked)).find(|(_, has, asked)| has < asked)
    }

    /// What is left after `taken`; nothing goes below zero.
    #[must_use]
    pub fn less(&self, taken: &Self) -> Self {
        if self.is_empty() || taken.is_empty() {
            return self.clone();
        }
        let left = self.iter().map(|(name, count)| (name.clone(), count.saturating_sub(taken.count(name))));
        Self::of(left.filter(|(_, count)| *count > 0).collect())
    }

    /// The sum, name by name.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        if more.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return more.clone();
        }
        let mut sum: BTreeMap<LabelKey, u64> =
            self.iter().map(|(name, count)| (name.clone(), count)).collect();
        for (name, count) in more.iter() {
            let of_it = sum.entry(name.clone()).or_default();
            *of_it = of_it.saturating_add(count);
        }
        Self::of(sum)
    }
}

/// `camera=2, gpu=1`.
impl fmt::Display for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, count)) in self.iter().enumerate() {
            write!(f, "{}{name}={count}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl Serialize for Extras {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        static NONE: BTreeMap<LabelKey, u64> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Extras {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extras(of: &[(&str, u64)]) -> Extras {
        Extras::new(of.iter().map(|(name, count)| (name.parse().unwrap(), *count)).collect()).unwrap()
    }

    #[test]
    fn what_is_taken_and_given_back_is_what_there_was() {
        let all = extras(&[("camera", 2), ("gpu", 1)]);
        let taken = extras(&[("gpu", 1)]);
        let left = all.less(&taken);
        assert_eq!(left, extras(&[("camera", 2)]));
        assert_eq!(left.plus(&taken), all);
        assert_eq!(left.lacking(&taken), Some((&"gpu".parse().unwrap(), 0, 1)));
        assert_eq!(all.lacking(&taken), None);
        assert_eq!(all.less(&all), Extras::NONE);
        assert_eq!(all.to_string(), "camera=2, gpu=1");
    }

    #[test]
    fn counts_of_nothing_and_more_names_than_may_be_are_refused_wherever_they_come_from() {
        let read = |json: &str| serde_json::from_str::<Extras>(json).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(Extras::NONE));
        assert_eq!(read(r#"{"gpu":1}"#), Ok(extras(&[("gpu", 1)])));
        assert!(read(r#"{"gpu":0}"#).unwrap_err().starts_with("0 of extra `gpu`, use 1 to"));
        assert!(read(r#"{"gpu":18446744073709551615}"#).is_err());
        let many: Vec<String> = (0..=EXTRAS_MAX).map(|n| format!("\"x{n}\":1")).collect();
        assert!(
            read(&format!("{{{}}}", many.join(","))).unwrap_err().starts_with("17 extras, the limit is 16")
        );
        assert_eq!(serde_json::to_string(&extras(&[("gpu", 1)])).unwrap(), r#"{"gpu":1}"#);
    }
}
