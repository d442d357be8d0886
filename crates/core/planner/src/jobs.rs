//! How the replicas of a job stand: the lowest ordinals that have not ended run, so many at a time.
//!
//! A replica that ended for good is not run again, wherever it ran and whether its node is there. Once one has
//! failed for good, or the time of the job is over, none is started any more; what runs runs to its end, unless
//! the time is over (`node` stops it). A run is not moved: a node that drains waits for it. Another template
//! is other work: what runs of the earlier one is stopped first.

use model::{JobEnds, JobGroup, NodeId};

use crate::Placement;
use crate::cache::{Need, Spec};
use crate::depends::Waits;
use crate::stance::{Held, Stance};

/// What each replica of a job does.
pub(crate) fn take_job_turns(
    spec: &Spec,
    job: &JobGroup,
    waits: Option<&Waits>,
    all: &[(u32, Option<NodeId>, Held)],
) -> Vec<(u32, Stance)> {
    let nothing = JobEnds::default();
    let ends = spec.ends.as_ref().unwrap_or(&nothing);
    let given_up = ends.has_failed(spec.count);
    let holds_updates = waits.is_some_and(Waits::holds_updates);
    let waits = waits.is_some_and(Waits::holds_starts);
    let runs = |ordinal: u32, held: &Held| held.live && !ends.is_done(ordinal);
    let running = all.iter().filter(|(ordinal, _, held)| runs(*ordinal, held)).count();
    let mut turns = job.parallelism.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX));
    let stance = |(ordinal, only, held): &(u32, Option<NodeId>, Held)| {
        let settled = |placement| (*ordinal, Stance::Settled(placement));
        match (held.fitting, held.old) {
            (Some(it), _) => settled(Placement::Keep { node: it.node, container: it.container }),
            _ if ends.is_done(*ordinal) => settled(Placement::Ended),
            (None, Some(it)) if held.moves || holds_updates => {
                settled(Placement::KeepOld { node: it.node, container: it.container })
            }
            (None, Some(it)) => settled(Placement::StopFirst { node: it.node, container: it.container }),
            (None, None) if given_up => settled(Placement::GivenUp),
            (None, None) if waits => settled(Placement::Waits),
            (None, None) if turns == 0 => settled(Placement::Queued),
            (None, None) => {
                turns -= 1;
                (
                    *ordinal,
                    Stance::Needs(Need { ordinal: *ordinal, only: *only, old: None, may_stop_first: false }),
                )
            }
        }
    };
    all.iter().map(stance).collect()
}
