//! What peers said of their containers, in their logs: why one was told to stop. A log is on the disk, so
//! it is there when its peer was killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result};

use super::stage::Stage;

/// The mark of a line that says so.
const STOPPING: &str = "kind=\"container-stopping\"";

/// Hexadecimal digits of a container's id.
const ID_DIGITS: usize = 16;

/// Why containers were told to stop.
#[derive(Debug, Default)]
pub(super) struct Words {
    read: BTreeMap<usize, u64>,
    told: BTreeMap<String, String>,
}

/// Why a container was told to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why<'a> {
    /// Another copy of a replica that is wanted stays.
    Surplus(&'a str),
    /// It is not wanted any more.
    Unwanted(&'a str),
}

impl Words {
    /// Reads what a machine's peers have said since.
    pub(super) fn catch_up(&mut self, stage: &Stage, host: usize) -> Result<()> {
        let path = stage.cluster.log(stage.name(host));
        let from = self.read.entry(host).or_insert(0);
        let mut text = Vec::new();
        let mut file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
        file.seek(SeekFrom::Start(*from))?;
        file.read_to_end(&mut text)?;
        // The last line may be half written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *from += whole as u64;
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            if let Some((id, why)) = stopping(line) {
                self.told.insert(id.to_owned(), why.to_owned());
            }
        }
        Ok(())
    }

    /// Why a container was told to stop, if it was.
    pub(super) fn why(&self, id: &str) -> Option<Why<'_>> {
        let why = self.told.get(id)?;
        let surplus = ["a duplicate: ", "replaced: ", "withdrawn: "].iter().any(|word| why.starts_with(word));
        Some(if surplus { Why::Surplus(why) } else { Why::Unwanted(why) })
    }
}

/// The container and the reason of a line like `... replica 3, 0123456789abcdef: scaled in kind=...`.
fn stopping(line: &str) -> Option<(&str, &str)> {
    let (text, _) = line.split_once(STOPPING)?;
    let (_, rest) = text.split_once("replica ")?;
    let (_, rest) = rest.split_once(", ")?;
    let (id, why) = rest.split_once(": ")?;
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some((id, why.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_says_which_container_was_told_to_stop_and_why() {
        let line = "2026-11-27T10:00:00.000000Z  INFO peer::notices: replica 3, 0123456789abcdef: a duplicate: \
                    fedcba9876543210 on n2 stays kind=\"container-stopping\" about=\"default/web\"";
        assert_eq!(stopping(line), Some(("0123456789abcdef", "a duplicate: fedcba9876543210 on n2 stays")));
        assert_eq!(stopping(&line.replace("stopping", "started")), None);
        let mut words = Words::default();
        for (id, why) in [("a", "replaced: b on n1 stays"), ("c", "scaled in")] {
            words.told.insert(id.to_owned(), why.to_owned());
        }
        assert_eq!(words.why("a"), Some(Why::Surplus("replaced: b on n1 stays")));
        assert_eq!(words.why("c"), Some(Why::Unwanted("scaled in")));
        assert_eq!(words.why("b"), None);
    }
}
