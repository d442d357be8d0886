//! Looks at what the kernel shows, and waiting until it shows what it should.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use dev::process::Process;
use dev::wait;

/// One container as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub node: String,
    /// Its id: the name of its cgroup.
    pub id: String,
    /// Its processes, our init among them.
    pub processes: Vec<Process>,
    /// The environment of its program: what it was started with, by `/proc`.
    pub env: BTreeMap<String, String>,
}

impl Held {
    /// Of which deployment; empty while the program is not yet executed.
    pub fn deployment(&self) -> &str {
        self.var("SKERRY_DEPLOYMENT")
    }

    /// Which copy.
    pub fn ordinal(&self) -> &str {
        self.var("SKERRY_ORDINAL")
    }

    /// A variable of its program; empty where it has none.
    pub fn var(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }
}

/// The environment of the first of these processes that has ours.
pub(crate) fn env_of(processes: &[Process]) -> BTreeMap<String, String> {
    for process in processes {
        let bytes = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let env: BTreeMap<String, String> = text
            .split('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if env.contains_key("SKERRY_DEPLOYMENT") {
            return env;
        }
    }
    BTreeMap::new()
}

/// Waits until `look` succeeds; fails the test with what it last saw.
#[track_caller]
pub fn eventually<T>(limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match wait::until(limit, look) {
        Ok((found, _)) => found,
        Err(late) => panic!("{late}"),
    }
}

/// Checks that `look` succeeds for the whole of `span`.
#[track_caller]
pub fn never_within(span: Duration, look: impl FnMut() -> Result<(), String>) {
    if let Err(late) = wait::throughout(span, look) {
        panic!("{late}");
    }
}
