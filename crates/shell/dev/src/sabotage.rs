//! A fault put in on purpose, for tests that show that the checks can fail.
//!
//! There only with the feature `sabotage`, which nothing that is shipped has.

use std::sync::OnceLock;

/// The variable that says which faults there are, with commas between them.
pub const VAR: &str = "SKERRY_SABOTAGE";

/// The word for: a partition drops no packet.
pub const NO_FILTER: &str = "no-filter";

/// Whether partitions of this process drop no packet.
pub(crate) fn no_filter() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| {
        let text = std::env::var(VAR).unwrap_or_default();
        text.split(',').any(|word| word == NO_FILTER)
    })
}
