//! How a job ended, for people.

use api::shapes::{JobFailure, JobRow};

use crate::args::Target;
use crate::error::{CliError, Exit};

/// The error for a job that has failed.
pub(crate) fn job_failed(of: &Target, job: &JobRow) -> CliError {
    let what = format!("job {of} has failed: {} of {} runs are done", job.succeeded, job.completions);
    let mut error = CliError::new("job-failed", what).exit(Exit::JobFailed);
    for JobFailure { ordinal, node, reason } in &job.failures {
        error = error.because(format!("{of}.{ordinal} on {node}: {reason}"));
    }
    if job.overdue {
        error = error.because(format!("its {} s are over", job.deadline_s.unwrap_or_default()));
    }
    let first = job.failures.first().map_or(0, |it| it.ordinal);
    error.hint(format!(
        "`skerry logs {of}.{first}` shows what it said; `skerry restart {of}` runs all of it anew"
    ))
}
