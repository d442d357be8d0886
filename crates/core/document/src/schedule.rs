//! Whether a node takes work: what an operator says before a machine is looked after.

use model::NodeId;
use serde::{Deserialize, Serialize};

use crate::event::{Refused, field};

/// Seconds that a drain may take before what is left is stopped: a day. A machine that is not looked
/// after by then is cordoned, not drained.
pub const DRAIN_SECONDS_MAX: u32 = 86_400;

/// What a node is to do with work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It takes its share.
    #[default]
    Normal,
    /// It keeps what it runs, and takes nothing new.
    Cordoned,
    /// What it runs moves elsewhere, and it takes nothing new.
    Drained,
}

impl Schedule {
    /// The word for screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Cordoned => "cordoned",
            Self::Drained => "drained",
        }
    }
}

/// A node takes work, or takes none. Of several that were said concurrently the most careful counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSchedule {
    /// Which.
    pub node: NodeId,
    /// What it is to do.
    pub schedule: Schedule,
    /// With `drained`: after how many seconds, counted by the node itself from when it learns of this, it
    /// stops what has not moved by then. 1 to [`DRAIN_SECONDS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
}

impl NodeSchedule {
    pub(crate) fn check(&self) -> Result<(), Refused> {
        const FIELD: &str = "kind.node_schedule.deadline_s";
        match self.deadline_s {
            Some(_) if self.schedule != Schedule::Drained => Err(field(FIELD, "goes with `drained` alone")),
            Some(deadline) if deadline == 0 || deadline > DRAIN_SECONDS_MAX => {
                Err(field(FIELD, format!("{deadline} asked, use 1 to {DRAIN_SECONDS_MAX}")))
            }
            _ => Ok(()),
        }
    }
}
