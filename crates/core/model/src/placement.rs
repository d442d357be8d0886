//! Where a deployment may run, where it had better run, and what else it minds.
//!
//! Requirements are judged of one node's labels. Every node has a label `host`: its name, unless its
//! operator gave it another.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::deployment::{GroupError, invalid};
use crate::limits::{
    AFFINITIES_MAX, LABEL_VALUE_BYTES_MAX, PREFERENCES_MAX, REQUIREMENT_VALUES_MAX, REQUIREMENTS_MAX,
    SPREAD_MAX, WEIGHT_MAX,
};
use crate::{LabelKey, Name, NameError};

/// The label that every node has.
pub const HOST: &str = "host";

/// Who yields to whom where there is no room for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Yields to all others.
    Low,
    /// What is not said to be anything else.
    #[default]
    Normal,
    /// Before those.
    High,
    /// Before all others.
    Critical,
}

impl Priority {
    /// Every priority, the least first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// Has one of the values; with one value written `=`.
    In,
    /// Is not there, or has none of the values; with one value written `!=`.
    NotIn,
    /// Is there, with any value.
    Exists,
    /// Is not there.
    Absent,
    /// Is a whole number and less than the value.
    Less,
    /// Is a whole number and more than the value.
    More,
}

/// One condition on a node's label, like `disk = ssd`, `zone in (a, b)`, `gpu exists` or `ram > 4`.
///
/// Its text form is what is signed; [`fmt::Display`] writes the one form of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label.
    pub key: LabelKey,
    /// How it is compared.
    pub test: Test,
    /// With what: one or more for `In` and `NotIn`, sorted and distinct; one for `Less` and `More`, a whole
    /// number; none for the others.
    pub values: Vec<String>,
}

/// Why a text is not a requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// It has none of the forms.
    #[error(
        "`{text}` is no condition: write `KEY = VALUE`, `KEY != VALUE`, `KEY in (A, B)`, `KEY not in (A, B)`, `KEY exists`, `KEY absent`, `KEY < N` or `KEY > N`"
    )]
    Form {
        /// The text as given, its start.
        text: String,
    },
    /// Its key is no label's key.
    #[error("the label of a condition: {0}")]
    Key(NameError),
    /// `<` and `>` compare whole numbers.
    #[error("`{key} {test}` needs a whole number, found `{value}`")]
    Number {
        /// The label.
        key: LabelKey,
        /// `<` or `>`.
        test: &'static str,
        /// What was given.
        value: String,
    },
    /// A value that no label can have.
    #[error("`{value}` cannot be the value of `{key}`: it has {} characters, the limit is {LABEL_VALUE_BYTES_MAX}", value.len())]
    Value {
        /// The label.
        key: LabelKey,
        /// What was given.
        value: String,
    },
    /// More values than [`REQUIREMENT_VALUES_MAX`].
    #[error("`{key}` is compared with {count} values, the limit is {REQUIREMENT_VALUES_MAX}")]
    Values {
        /// The label.
        key: LabelKey,
        /// How many.
        count: usize,
    },
}

/// Characters of a text in an error.
const SHOWN_CHARS_MAX: usize = 60;

impl Requirement {
    /// The label has exactly this value.
    pub fn equals(key: LabelKey, value: &str) -> Self {
        Self { key, test: Test::In, values: vec![value.to_owned()] }
    }

    /// Whether a node with this value of the label, if it has any, meets it.
    pub fn is_met_by(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|it| it == value);
        let compared = |value: &str| {
            let bound = self.values.first().and_then(|it| it.parse::<i64>().ok());
            value.parse::<i64>().ok().zip(bound).map(|(value, bound)| value.cmp(&bound))
        };
        match (self.test, value) {
            (Test::In, value) => value.is_some_and(listed),
            (Test::NotIn, value) => !value.is_some_and(listed),
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::Less, value) => value.and_then(compared) == Some(Ordering::Less),
            (Test::More, value) => value.and_then(compared) == Some(Ordering::Greater),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, test, values } = self;
        let all = values.join(", ");
        match test {
            Test::In if values.len() == 1 => write!(f, "{key} = {all}"),
            Test::In => write!(f, "{key} in ({all})"),
            Test::NotIn if values.len() == 1 => write!(f, "{key} != {all}"),
            Test::NotIn => write!(f, "{key} not in ({all})"),
            Test::Exists => write!(f, "{key} exists"),
            Test::Absent => write!(f, "{key} absent"),
            Test::Less => write!(f, "{key} < {all}"),
            Test::More => write!(f, "{key} > {all}"),
        }
    }
}

impl FromStr for Requirement {
    type Err = RequirementError;

    fn from_str(text: &str) -> Result<Self, RequirementError> {
        let text = text.trim();
        let form = || RequirementError::Form { text: text.chars().take(SHOWN_CHARS_MAX).collect() };
        // The key ends where a character comes that no key has.
        let end = text.find(|c: char| !(c.is_alphanumeric() || "-_./".contains(c))).ok_or_else(form)?;
        let (key, rest) = (&text[..end], text[end..].trim());
        let listed = |list: &str| -> Option<Vec<String>> {
            let inner = list.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
        };
        let one = |value: &str| vec![value.trim().to_owned()];
        let (test, mut values) = match rest {
            "exists" => (Test::Exists, Vec::new()),
            "absent" => (Test::Absent, Vec::new()),
            _ => {
                if let Some(value) = rest.strip_prefix("!=") {
                    (Test::NotIn, one(value))
                } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                    (Test::In, one(value))
                } else if let Some(value) = rest.strip_prefix('<') {
                    (Test::Less, one(value))
                } else if let Some(value) = rest.strip_prefix('>') {
                    (Test::More, one(value))
                } else if let Some(list) = rest.strip_prefix("in") {
                    (Test::In, listed(list).ok_or_else(form)?)
                } else if let Some(list) =
                    rest.strip_prefix("not").and_then(|rest| rest.trim_start().strip_prefix("in"))
                {
                    (Test::NotIn, listed(list).ok_or_else(form)?)
                } else {
                    return Err(form());
                }
            }
        };
        let key: LabelKey = key.parse().map_err(RequirementError::Key)?;
        values.sort_unstable();
        values.dedup();
        let requirement = Self { key, test, values };
        requirement.check().map_err(|error| error.unwrap_or_else(form))?;
        Ok(requirement)
    }
}

impl Requirement {
    /// `Err(None)`: it has no form at all.
    fn check(&self) -> Result<(), Option<RequirementError>> {
        let Self { key, test, values } = self;
        if values.len() > REQUIREMENT_VALUES_MAX {
            return Err(Some(RequirementError::Values { key: key.clone(), count: values.len() }));
        }
        if let Some(value) = values.iter().find(|value| value.len() > LABEL_VALUE_BYTES_MAX) {
            return Err(Some(RequirementError::Value { key: key.clone(), value: value.clone() }));
        }
        // What stands between signs and commas must not look like them.
        if values.iter().any(|value| value.is_empty() || value.contains(['=', '<', '>', '(', ')', ',', '!']))
        {
            return Err(None);
        }
        if let Test::Less | Test::More = test {
            let value = values.first().ok_or(None)?;
            if value.parse::<i64>().is_err() {
                let test = if *test == Test::Less { "<" } else { ">" };
                return Err(Some(RequirementError::Number { key: key.clone(), test, value: value.clone() }));
            }
        }
        Ok(())
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where it had better run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Which nodes.
    pub when: Requirement,
    /// How much that counts: as much as so many percent more of the node staying free. -100 to 100, not 0;
    /// below 0 such nodes are avoided.
    pub weight: i32,
}

/// Another deployment of the same namespace whose company matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// Which.
    pub deployment: Name,
    /// Nodes with the same value of this label are one place; `host`: each node is one.
    pub within: LabelKey,
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deployment, within } = self;
        if within.as_str() == HOST {
            write!(f, "{deployment}")
        } else {
            write!(f, "{deployment} within {within}")
        }
    }
}

/// Which nodes may run it, which had better, and before whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementGroup {
    /// Labels that a node must have, with exactly these values.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, String>,
    /// Conditions that a node must meet, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Requirement>,
    /// Nodes that are better or worse than others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// Labels over whose values the replicas are spread evenly, the most important first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<LabelKey>,
    /// Runs only where these run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<Affinity>,
    /// Runs only where these do not, and they where this does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<Affinity>,
    /// Who yields to whom.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
}

impl PlacementGroup {
    /// The first condition that a node does not meet. `value_of` gives the node's value of a label.
    pub fn unmet<'v>(&self, value_of: impl Fn(&LabelKey) -> Option<&'v str>) -> Option<Unmet<'_>> {
        let label = self.labels.iter().find(|(key, want)| value_of(key) != Some(want.as_str()));
        if let Some((key, want)) = label {
            return Some(Unmet::Label(key, want));
        }
        self.require.iter().find(|it| !it.is_met_by(value_of(&it.key))).map(Unmet::Requirement)
    }

    /// Whether a node whose labels these are, and whose name is that, meets all conditions.
    pub fn is_met_by(&self, labels: &BTreeMap<LabelKey, String>, name: &Name) -> bool {
        self.unmet(|key| label_of(labels, name, key)).is_none()
    }

    /// Checks every limit, and that the conditions do not contradict one another where one node's label would
    /// have to have two values.
    ///
    /// # Errors
    /// With the field as the manifest spells it.
    pub(crate) fn validate(&self) -> Result<(), GroupError> {
        let many = |what: &'static str, count: usize, max: usize| {
            if count > max {
                return Err(invalid(what, format!("{count} entries, the limit is {max}")));
            }
            Ok(())
        };
        many("constraints", self.require.len(), REQUIREMENTS_MAX)?;
        many("prefer", self.prefer.len(), PREFERENCES_MAX)?;
        many("spread", self.spread.len(), SPREAD_MAX)?;
        many("near", self.near.len(), AFFINITIES_MAX)?;
        many("apart", self.apart.len(), AFFINITIES_MAX)?;
        for (field, requirements) in [
            ("constraints", self.require.iter().collect::<Vec<_>>()),
            ("prefer", self.prefer.iter().map(|it| &it.when).collect()),
        ] {
            for it in requirements {
                it.check().map_err(|error| {
                    invalid(
                        field,
                        error.map_or_else(|| format!("`{it}` is no condition"), |error| error.to_string()),
                    )
                })?;
            }
        }
        if let Some(it) = self.prefer.iter().find(|it| it.weight == 0 || it.weight.abs() > WEIGHT_MAX) {
            return Err(invalid(
                "prefer",
                format!(
                    "the weight of `{}` is {}, use 1 to {WEIGHT_MAX} or -{WEIGHT_MAX} to -1",
                    it.when, it.weight
                ),
            ));
        }
        if let Some(both) = self.near.iter().find(|it| self.apart.contains(it)) {
            return Err(invalid("near", format!("`{both}` is in `near` and in `apart`: no node is both")));
        }
        match self.contradiction() {
            Some(what) => Err(invalid("constraints", what)),
            None => Ok(()),
        }
    }

    /// Two conditions on one label that no value meets, in words.
    fn contradiction(&self) -> Option<String> {
        let equal = self.labels.iter().map(|(key, value)| Requirement::equals(key.clone(), value));
        let all: Vec<Requirement> = equal.chain(self.require.iter().cloned()).collect();
        for (n, one) in all.iter().enumerate() {
            for other in all[..n].iter().filter(|other| other.key == one.key) {
                let (a, b) = if one.test == Test::In { (one, other) } else { (other, one) };
                let impossible = match (a.test, b.test) {
                    (Test::In, _) => !a.values.iter().any(|value| b.is_met_by(Some(value))),
                    (Test::Absent, test) | (test, Test::Absent) => {
                        !matches!(test, Test::Absent | Test::NotIn)
                    }
                    (Test::Less, Test::More) => !leaves_room(b, a),
                    (Test::More, Test::Less) => !leaves_room(a, b),
                    _ => false,
                };
                if impossible {
                    return Some(format!("`{other}` and `{one}` contradict one another: no node meets both"));
                }
            }
        }
        None
    }
}

/// Whether a whole number is above the one bound and below the other.
fn leaves_room(above: &Requirement, below: &Requirement) -> bool {
    let bound = |it: &Requirement| it.values.first().and_then(|value| value.parse::<i64>().ok());
    bound(above)
        .zip(bound(below))
        .is_none_or(|(low, high)| low.checked_add(1).is_some_and(|least| least < high))
}

/// A condition that a node does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// Of the exact ones.
    Label(&'a LabelKey, &'a String),
    /// Of the others.
    Requirement(&'a Requirement),
}

/// A node's value of a label. Each node has [`HOST`]: its name, where its labels say nothing else.
pub fn label_of<'a>(
    labels: &'a BTreeMap<LabelKey, String>,
    name: &'a Name,
    key: &LabelKey,
) -> Option<&'a str> {
    let own = labels.get(key).map(String::as_str);
    own.or_else(|| (key.as_str() == HOST).then(|| name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(text: &str) -> Requirement {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_of_a_condition_reads_and_is_written_in_one_way() {
        for (text, written) in [
            ("disk=ssd", "disk = ssd"),
            (" disk  ==  ssd ", "disk = ssd"),
            ("disk != hdd", "disk != hdd"),
            ("zone in (b, a,b)", "zone in (a, b)"),
            ("zone in(a)", "zone = a"),
            ("zone not in (a, b)", "zone not in (a, b)"),
            ("gpu exists", "gpu exists"),
            ("gpu absent", "gpu absent"),
            ("ram > 4", "ram > 4"),
            ("ram<-4", "ram < -4"),
            ("skerry.io/site = a b", "skerry.io/site = a b"),
        ] {
            let read = requirement(text);
            assert_eq!(read.to_string(), written, "{text}");
            assert_eq!(requirement(written), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_in_words() {
        let refused = |text: &str| text.parse::<Requirement>().unwrap_err().to_string();
        for text in
            ["", "disk", "disk ssd", "= ssd", "disk =", "zone in a, b", "zone in (a,)", "a = b = c", "a >< 3"]
        {
            assert!(refused(text).contains("condition"), "{text}: {}", refused(text));
        }
        assert_eq!(refused("ram > much"), "`ram >` needs a whole number, found `much`");
        assert!(
            refused(&format!("disk = {}", "x".repeat(64))).contains("has 64 characters, the limit is 63")
        );
        let values: Vec<String> = (0..33).map(|n| n.to_string()).collect();
        assert!(refused(&format!("n in ({})", values.join(","))).contains("33 values, the limit is 32"));
    }

    #[test]
    fn a_condition_is_met_by_the_values_that_it_names() {
        for (text, met, unmet) in [
            ("disk = ssd", vec![Some("ssd")], vec![Some("hdd"), None]),
            ("disk != hdd", vec![Some("ssd"), None], vec![Some("hdd")]),
            ("zone in (a, b)", vec![Some("a"), Some("b")], vec![Some("c"), None]),
            ("zone not in (a, b)", vec![Some("c"), None], vec![Some("a")]),
            ("gpu exists", vec![Some(""), Some("x")], vec![None]),
            ("gpu absent", vec![None], vec![Some("")]),
            ("ram > 4", vec![Some("5"), Some("100")], vec![Some("4"), Some("-5"), Some("much"), None]),
            ("ram < 4", vec![Some("3"), Some("-100")], vec![Some("4"), Some("much"), None]),
        ] {
            let it = requirement(text);
            assert!(met.iter().all(|value| it.is_met_by(*value)), "{text}");
            assert!(!unmet.iter().any(|value| it.is_met_by(*value)), "{text}");
        }
    }

    #[test]
    fn every_node_has_its_name_as_a_host_label() {
        let placement =
            PlacementGroup { require: vec![requirement("host in (n1, n2)")], ..PlacementGroup::default() };
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert!(placement.is_met_by(&BTreeMap::new(), &name("n1")));
        assert!(!placement.is_met_by(&BTreeMap::new(), &name("n3")));
        let labels = BTreeMap::from([("host".parse().unwrap(), "n2".to_owned())]);
        assert!(placement.is_met_by(&labels, &name("n3")));
    }

    #[test]
    fn conditions_that_no_node_can_meet_together_are_named() {
        let contradiction = |texts: &[&str]| {
            let require = texts.iter().map(|text| requirement(text)).collect();
            PlacementGroup { require, ..PlacementGroup::default() }
                .validate()
                .err()
                .map(|error| error.to_string())
        };
        for texts in [
            ["disk = ssd", "disk = hdd"],
            ["disk = ssd", "disk != ssd"],
            ["zone in (a, b)", "zone not in (a, b, c)"],
            ["gpu exists", "gpu absent"],
            ["ram > 4", "ram < 5"],
            ["ram = 4", "ram > 4"],
        ] {
            let found = contradiction(&texts).expect(texts[0]);
            assert!(found.ends_with("contradict one another: no node meets both"), "{found}");
            assert!(texts.iter().all(|text| found.contains(text)), "{found}");
        }
        for texts in [["ram > 4", "ram < 6"], ["zone in (a, b)", "zone != a"], ["gpu absent", "gpu != x"]] {
            assert_eq!(contradiction(&texts), None, "{texts:?}");
        }
    }

    #[test]
    fn a_group_of_an_older_release_reads_and_is_written_as_it_was() {
        let json = r#"{"labels":{"site":"north"}}"#;
        let group: PlacementGroup = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&group).unwrap(), json);
    }
}
