//! Manifests: from a file of YAML or JSON to valid deployments, or to errors that point at the place.
//!
//! `node` reads text into a tree of placed values, `read` walks it (`placement`, `resources`, `update`, `depends`
//! and `job` the parts that say where, with what, how, after what and how often), `units` reads amounts, `schema`
//! is the form for machines, `files` finds and bounds the
//! files, `nodes` reads nodes that there are not.
//!
//! Invariants: a field that is not understood is refused by name, never skipped; every problem that
//! can be found is told at once; no more than [`FILE_BYTES_MAX`] bytes of a file are ever read.
//! Absent on purpose: the network. Which digest an image name stands for is asked in `resolve`.

mod depends;
mod exclusive;
mod files;
mod job;
mod node;
pub(crate) mod nodes;
mod placement;
mod read;
mod resources;
pub mod schema;
pub mod units;
mod update;

pub use files::{FILE_BYTES_MAX, Source, read_sources};
pub use node::Place;
pub use read::{ImageRef, Spec, read, split_reference};

use crate::error::{CliError, Why};

/// The smallest manifest, for hints.
pub(crate) const SMALLEST: &str = "the smallest manifest is `deployments: [{name: web, image: \"web:1\"}]`";

/// One thing that is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The first characters of a text that may be long or hold anything.
pub(crate) fn start_of(text: &str) -> String {
    let escaped: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().count() > 40 { format!("{escaped}...") } else { escaped }
}

/// Problems shown for one file; whoever mends these sees the rest next time.
const PROBLEMS_SHOWN_MAX: usize = 20;
/// Characters of a line shown around a problem.
const SNIPPET_CHARS_MAX: usize = 100;

/// The offending line with a caret below the place.
fn snippet(text: &str, place: Place) -> Option<String> {
    let line = text.lines().nth(place.line.checked_sub(1)?)?;
    let column = place.column.max(1) - 1;
    // A long line is cut so that the place stays in view.
    let from = if column > SNIPPET_CHARS_MAX - 20 { column - SNIPPET_CHARS_MAX / 2 } else { 0 };
    let shown: String = line
        .chars()
        .skip(from)
        .take(SNIPPET_CHARS_MAX)
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let length = shown.chars().count();
    let at = (column - from).min(length);
    let carets = place.width.clamp(1, (length.saturating_sub(at)).max(1));
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!("{number} | {}\n{margin} | {}{}", shown.trim_end(), " ".repeat(at), "^".repeat(carets)))
}

/// The error for a file with problems.
pub(crate) fn error(source: &Source, mut problems: Vec<Problem>) -> CliError {
    problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    let first = problems.first().map_or(Place::START, |problem| problem.place);
    let count = problems.len();
    let what = match count {
        1 => format!("{} cannot be used", source.name),
        _ => format!("{} cannot be used: {count} problems", source.name),
    };
    let mut error =
        CliError::new("manifest", what).at(format!("{}:{}:{}", source.name, first.line, first.column));
    let hint = problems.iter().find_map(|problem| problem.hint.clone());
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        error.why.push(Why {
            text: format!(
                "{}:{}:{}: {}",
                source.name, problem.place.line, problem.place.column, problem.message
            ),
            snippet: snippet(&source.text, problem.place),
        });
    }
    if count > PROBLEMS_SHOWN_MAX {
        error.why.push(Why::text(format!("and {} more", count - PROBLEMS_SHOWN_MAX)));
    }
    error.hint = hint;
    error
}

/// Reads every manifest that `paths` name (files, folders, `-`), and checks that no deployment is
/// there twice.
pub fn load(paths: &[std::path::PathBuf]) -> Result<Vec<Spec>, CliError> {
    let mut specs: Vec<Spec> = Vec::new();
    for source in read_sources(paths)? {
        for spec in read(&source.text).map_err(|problems| error(&source, problems))? {
            let twice =
                specs.iter().any(|other| other.namespace == spec.namespace && other.name == spec.name);
            if twice {
                let problem = Problem {
                    place: spec.place,
                    message: format!(
                        "deployment `{}/{}` is in another file as well",
                        spec.namespace, spec.name
                    ),
                    hint: Some("one file decides what a deployment is".to_owned()),
                };
                return Err(error(&source, vec![problem]));
            }
            specs.push(spec);
        }
    }
    Ok(specs)
}

#[cfg(test)]
mod tests;
