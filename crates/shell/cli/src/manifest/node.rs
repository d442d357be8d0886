//! YAML or JSON text as a tree in which every value knows its place.
//!
//! The tree is read before anything is understood, so that the walk over it (`read`) can name every
//! problem of a file at once and in our own words.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, MessageFormatter, Spanned, UserMessageFormatter};

use super::Problem;

/// Nodes of a manifest: 4 MiB of the shortest fields stay below it, an alias bomb does not.
const NODES_MAX: usize = 500_000;
/// Levels of nesting: the manifest itself has six.
const DEPTH_MAX: usize = 32;
/// Aliases (`*name`) in one file: a person writes a handful.
const ALIASES_MAX: usize = 1_000;

/// Where a value stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1; 0 where it is not known.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// Characters.
    pub width: usize,
}

impl Place {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1, width: 1 };
}

/// One value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value of YAML or JSON.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The value as people name it: "the number 3", "a list".
    pub(super) fn found(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Whole(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text \"{}\"", super::start_of(text)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a group of fields".into(),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Whole(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry::<Node, Node>()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let at = spanned.referenced;
        let place = Place {
            line: usize::try_from(at.line()).unwrap_or(0),
            column: usize::try_from(at.column()).unwrap_or(0),
            width: usize::try_from(at.span().len()).unwrap_or(1).max(1),
        };
        Ok(Self { value: spanned.value, place })
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_total_scalar_bytes: super::FILE_BYTES_MAX,
        },
    }
}

/// What the parser found, in our words where its own are about Rust or about limits.
fn problem(error: &Error) -> Problem {
    let mut error = error.without_snippet();
    // What went wrong behind an alias is told where the alias stands; the cause is inside.
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let place = error.location().map_or(Place::START, |at| Place {
        line: usize::try_from(at.line()).unwrap_or(0),
        column: usize::try_from(at.column()).unwrap_or(0),
        width: usize::try_from(at.span().len()).unwrap_or(1).max(1),
    });
    let (message, hint) = match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            format!(
                "the file unfolds to more than a manifest may hold (limits: {NODES_MAX} values, {DEPTH_MAX} levels, {ALIASES_MAX} aliases)"
            ),
            Some("write repeated parts out, or split the file".to_owned()),
        ),
        Error::Eof { .. } => ("the file is empty".to_owned(), Some(super::SMALLEST.to_owned())),
        Error::MultipleDocuments { .. } => (
            "the file holds more than one document (`---`)".to_owned(),
            Some("list every deployment under one `deployments:`".to_owned()),
        ),
        other => (UserMessageFormatter.format_message(other).into_owned(), None),
    };
    Problem { place, message, hint }
}

/// Reads a text into a tree.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    serde_saphyr::from_str_with_options::<Node>(text, options()).map_err(|error| problem(&error))
}
