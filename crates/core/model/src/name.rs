//! Names that users give, and the names of documents.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::limits::{LABEL_KEY_BYTES_MAX, NAME_BYTES_MAX};

/// Why a text is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`] or [`LABEL_KEY_BYTES_MAX`].
    #[error("`{start}...` has {length} characters, the limit is {max}")]
    TooLong {
        /// The first characters.
        start: String,
        /// How long it is, in bytes.
        length: usize,
        /// How long it may be.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("`{text}` has the character {character:?}: {allowed}")]
    Character {
        /// The text as given.
        text: String,
        /// The first offending character.
        character: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

const NAME_RULE: &str = "use a to z, 0 to 9 and `-`, starting and ending with a letter or digit";
const LABEL_RULE: &str =
    "use letters, digits, `-`, `_`, `.` and `/`, starting and ending with a letter or digit";

fn start_of(text: &str) -> String {
    text.chars().take(20).collect()
}

fn check(
    text: &str,
    max: usize,
    allowed: &'static str,
    inner: impl Fn(char) -> bool,
    edge: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { start: start_of(text), length: text.len(), max });
    }
    let bad = |character| NameError::Character { text: text.to_owned(), character, allowed };
    if let Some(character) = text.chars().find(|c| !inner(*c)) {
        return Err(bad(character));
    }
    let edges = [text.chars().next(), text.chars().next_back()];
    match edges.into_iter().flatten().find(|c| !edge(*c)) {
        Some(character) => Err(bad(character)),
        None => Ok(()),
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    };
}

/// Reads a text without a copy of it.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = NameError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// The name of a namespace, deployment or node: a DNS label (RFC 1123). Most are short and lie in place: each
/// claim on a replica bears two, and plans, records and questions compare and copy them without end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmolStr);
text_newtype!(Name);

impl Name {
    /// The namespace of a deployment that names none.
    pub fn default_namespace() -> Self {
        Self(SmolStr::new_static("default"))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        check(text, NAME_BYTES_MAX, NAME_RULE, |c| edge(c) || c == '-', edge)?;
        Ok(Self(text.into()))
    }
}

/// The key of a label: letters, digits, `-`, `_`, `.`, `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(SmolStr);
text_newtype!(LabelKey);

impl FromStr for LabelKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let edge = |c: char| c.is_ascii_alphanumeric();
        check(text, LABEL_KEY_BYTES_MAX, LABEL_RULE, |c| edge(c) || "-_./".contains(c), edge)?;
        Ok(Self(text.into()))
    }
}

/// Names one document: the cluster's own, or that of one namespace.
///
/// As text: `cluster` or `ns/<namespace>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocId {
    /// Roster of nodes and users, tokens.
    Cluster,
    /// The deployments of one namespace.
    Namespace(Name),
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Namespace(name) => write!(f, "ns/{name}"),
        }
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DocId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("ns/") {
            Some(name) => Ok(Self::Namespace(name.parse()?)),
            None if text == "cluster" => Ok(Self::Cluster),
            None => Err(NameError::Character {
                text: start_of(text),
                character: text.chars().next().ok_or(NameError::Empty)?,
                allowed: "a document is `cluster` or `ns/<namespace>`",
            }),
        }
    }
}

impl Serialize for DocId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DocId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_and_nothing_else() {
        for good in ["a", "web", "web-1", "0", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "-a", "a-", "Web", "a.b", "ä", " a", &"a".repeat(64), &"a".repeat(300)]
        {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_document_name_survives_text() {
        for text in ["cluster", "ns/default"] {
            assert_eq!(text.parse::<DocId>().unwrap().to_string(), text);
        }
        for bad in ["", "Cluster", "ns/", "ns/..", "other"] {
            assert!(bad.parse::<DocId>().is_err(), "{bad}");
        }
    }
}
