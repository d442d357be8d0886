//! The fields of work that is done once.

use std::collections::BTreeMap;

use model::JobGroup;
use model::limits::{JOB_COMPLETIONS_MAX, JOB_RETRIES_MAX};

use super::node::Node;
use super::read::Reader;

/// The fields of `job`.
pub(super) const JOB_FIELDS: [&str; 4] = ["completions", "parallelism", "retries", "deadline"];

/// What means nothing beside a job, and why.
const NOT_BESIDE: [(&str, &str); 3] = [
    ("replicas", "write `job: {completions: N}`"),
    ("restart", "a job is run again when it fails, `job: {retries: N}` times"),
    (
        "update",
        "another template is other work: what runs of the earlier one is stopped, and all is run anew",
    ),
];

impl Reader {
    /// How often it is to end well, and how; what has no place beside it is noted.
    pub(super) fn job(&mut self, fields: &BTreeMap<&'static str, &Node>) -> (u32, JobGroup) {
        let (mut completions, mut job) = (1, JobGroup::default());
        for (field, hint) in NOT_BESIDE {
            if let Some(node) = fields.get(field) {
                self.note_with(node.place, format!("{field} has no place beside a job"), hint);
            }
        }
        let Some(inner) = fields.get("job").and_then(|node| self.fields(node, "job", &JOB_FIELDS)) else {
            return (completions, job);
        };
        for (field, value, least, most) in [
            ("completions", &mut completions, 1, JOB_COMPLETIONS_MAX),
            ("parallelism", &mut job.parallelism, 1, JOB_COMPLETIONS_MAX),
            ("retries", &mut job.retries, 0, JOB_RETRIES_MAX),
        ] {
            if let Some(node) = inner.get(field)
                && let Some(read) = self.whole(node, &format!("job.{field}"), least, most.into())
            {
                *value = u32::try_from(read).unwrap_or(most);
            }
        }
        job.deadline_s = inner.get("deadline").and_then(|node| self.seconds(node, "job.deadline", 1));
        (completions, job)
    }
}
