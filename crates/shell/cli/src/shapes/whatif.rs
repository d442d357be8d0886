//! The shape that `sim cut` answers with. Replicas are named as `ps` names them: `web.0`, or
//! `shop/web.0` outside of the default namespace.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `sim cut`: what would happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIf {
    /// All of it in a line.
    pub summary: String,
    /// The cluster that was asked; `null` where the nodes came from a file.
    pub cluster: Option<String>,
    /// How long the cut lasts, in seconds.
    pub lasts_s: f64,
    /// Nodes that lose power when it begins, and stay off.
    pub killed: Vec<String>,
    /// The cluster before it.
    pub before: WhatIfBefore,
    /// Each side at the end of it.
    pub islands: Vec<WhatIfIsland>,
    /// Replicas that more than one node ran at the same time.
    pub twice: Vec<WhatIfTwice>,
    /// What the heal did; `null` where none was asked for.
    pub heal: Option<WhatIfHeal>,
}

/// What one node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfNode {
    /// Its name.
    pub node: String,
    /// Whether it has power.
    pub on: bool,
    /// The replicas that it runs.
    pub runs: Vec<String>,
}

/// A replica that has no place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfMissing {
    /// The replica.
    pub replica: String,
    /// Node name to the planner's reason.
    pub nodes: BTreeMap<String, String>,
}

/// A replica and a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfOn {
    /// The replica.
    pub replica: String,
    /// The node's name.
    pub node: String,
}

/// The cluster before the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfBefore {
    /// Wanted replicas.
    pub wanted: usize,
    /// How many of them ran.
    pub running: usize,
    /// Every node.
    pub nodes: Vec<WhatIfNode>,
    /// What had no place.
    pub missing: Vec<WhatIfMissing>,
}

/// One side of the cut, at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfIsland {
    /// Its nodes.
    pub nodes: Vec<WhatIfNode>,
    /// How many of the wanted replicas run there.
    pub running: usize,
    /// From the cut to its last start or stop, in seconds; `null` where there was none.
    pub settled_s: Option<f64>,
    /// What was started there.
    pub started: Vec<WhatIfOn>,
    /// What was stopped there, for another reason than want of power.
    pub stopped: Vec<WhatIfOn>,
    /// What had no place there.
    pub missing: Vec<WhatIfMissing>,
}

/// A replica that ran more than once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfTwice {
    /// The replica.
    pub replica: String,
    /// The nodes that ran it when there were most of them.
    pub nodes: Vec<String>,
    /// For how long, in seconds.
    pub lasted_s: f64,
}

/// What the heal did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfHeal {
    /// Seconds until all peers agreed; `null` where that did not come.
    pub agreed_s: Option<f64>,
    /// Seconds until every replica with a place ran once; `null` where that did not come.
    pub once_s: Option<f64>,
    /// What stopped.
    pub stopped: Vec<WhatIfStopped>,
    /// What was started.
    pub started: Vec<WhatIfOn>,
    /// Every node in the end.
    pub nodes: Vec<WhatIfNode>,
    /// What had no place in the end.
    pub missing: Vec<WhatIfMissing>,
}

/// A program that the heal stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfStopped {
    /// The replica.
    pub replica: String,
    /// Where it stopped.
    pub node: String,
    /// Where it went on.
    pub stays: Vec<String>,
    /// Seconds after the heal.
    pub after_s: f64,
}
