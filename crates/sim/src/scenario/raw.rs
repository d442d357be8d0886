//! The form of a scenario file. Nothing here is checked but the form; `read` does the rest.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub(super) type Text = Spanned<String>;
pub(super) type Nodes = Vec<Text>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) story: Text,
    pub(super) nodes: Spanned<usize>,
    pub(super) seed: u64,
    #[serde(default)]
    pub(super) world: World,
    #[serde(default)]
    pub(super) step: Vec<Spanned<Step>>,
}

/// What differs from the usual world.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct World {
    /// Shortest and longest time of a message on its way.
    pub(super) latency: Option<[Text; 2]>,
    /// Datagrams lost, in thousandths.
    pub(super) loss_permille: Option<Spanned<u32>>,
    /// How long a container takes to start.
    pub(super) start: Option<Text>,
    /// What each node offers.
    pub(super) cpu_m: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    /// Nodes do not run before a step starts them.
    #[serde(default)]
    pub(super) switched_off: bool,
    /// Nodes that are not members before a step lets them join.
    #[serde(default)]
    pub(super) outside: Nodes,
    /// What differs on one node.
    #[serde(default)]
    pub(super) node: BTreeMap<Text, OneNode>,
}

/// What differs on one node.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneNode {
    pub(super) cpu_m: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    /// Counted things.
    #[serde(default)]
    pub(super) extras: BTreeMap<Text, u64>,
    #[serde(default)]
    pub(super) labels: BTreeMap<Text, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) at: Text,
    pub(super) deploy: Option<Deploy>,
    pub(super) set: Option<Set>,
    pub(super) scale: Option<Scale>,
    pub(super) restart: Option<Named>,
    pub(super) delete: Option<Named>,
    pub(super) remove_node: Option<RemoveNode>,
    pub(super) schedule: Option<Schedule>,
    pub(super) split: Option<Vec<Nodes>>,
    pub(super) one_way: Option<OneWay>,
    pub(super) bridge: Option<Bridge>,
    pub(super) heal: Option<Spanned<bool>>,
    pub(super) power_off: Option<Nodes>,
    pub(super) stop_peer: Option<Nodes>,
    pub(super) start: Option<Nodes>,
    pub(super) disk_full: Option<Nodes>,
    pub(super) disk_free: Option<Nodes>,
    pub(super) remember: Option<Spanned<bool>>,
    pub(super) retry: Option<Retry>,
    pub(super) edits: Option<Edits>,
    pub(super) join: Option<Join>,
    pub(super) flap: Option<Flap>,
    pub(super) loss_permille: Option<Spanned<u32>>,
    pub(super) power_off_on_ack: Option<Nodes>,
    pub(super) copy_disk: Option<Nodes>,
    pub(super) clock: Option<Clock>,
    pub(super) capacity: Option<Offer>,
    pub(super) pressure: Option<Press>,
    pub(super) crash: Option<Crash>,
    pub(super) crash_loop: Option<CrashLoop>,
    pub(super) mend: Option<Mend>,
    pub(super) watch: Option<Expect>,
    pub(super) expect: Option<Expect>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deploy {
    pub(super) name: Text,
    pub(super) replicas: Spanned<u32>,
    pub(super) through: Text,
    pub(super) by: Option<Text>,
    pub(super) cpu_m: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    #[serde(default)]
    pub(super) extras: BTreeMap<Text, u64>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Labels that a node must have.
    #[serde(default)]
    pub(super) only_where: BTreeMap<Text, String>,
    /// One on each node.
    #[serde(default)]
    pub(super) global: bool,
    /// At most one copy of each replica, by the leases of these nodes.
    #[serde(default)]
    pub(super) voters: Vec<Text>,
    pub(super) priority: Option<Text>,
    /// Conditions as manifests have them.
    #[serde(default)]
    pub(super) constraints: Vec<Text>,
    #[serde(default)]
    pub(super) spread: Vec<Text>,
    /// Names of deployments.
    #[serde(default)]
    pub(super) near: Vec<Text>,
    #[serde(default)]
    pub(super) apart: Vec<Text>,
    pub(super) update: Option<Update>,
    /// `always`, `on-failure` or `never`.
    pub(super) restart: Option<Text>,
    /// `started`, `healthy` or `completed`, by name.
    #[serde(default)]
    pub(super) depends_on: BTreeMap<Text, Text>,
    pub(super) job: Option<Job>,
}

/// Work that is done once, by as many runs as there are replicas; what is left out is as usual.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) parallelism: Option<u32>,
    pub(super) retries: Option<u32>,
    pub(super) deadline: Option<Text>,
}

/// How a new template reaches the replicas; what is left out is as usual.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    pub(super) surge: Option<u32>,
    pub(super) unavailable: Option<u32>,
    pub(super) min_healthy: Option<Text>,
    pub(super) deadline: Option<Text>,
    #[serde(default)]
    pub(super) stop_on_failure: bool,
    #[serde(default)]
    pub(super) blue_green: bool,
    pub(super) canary: Option<u32>,
    /// The canaries are let through after so long.
    pub(super) promote_after: Option<Text>,
    #[serde(default)]
    pub(super) paused: bool,
}

/// What is said of a node's work.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    pub(super) node: Text,
    /// `normal`, `cordoned` or `drained`.
    pub(super) to: Text,
    pub(super) deadline: Option<Text>,
    pub(super) through: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) name: Text,
    pub(super) through: Text,
    pub(super) by: Option<Text>,
    pub(super) cpu_m: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) update: Option<Update>,
    pub(super) depends_on: Option<BTreeMap<Text, Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    pub(super) name: Text,
    pub(super) replicas: Spanned<u32>,
    pub(super) through: Text,
    pub(super) by: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: Text,
    pub(super) through: Text,
    pub(super) by: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveNode {
    pub(super) node: Text,
    pub(super) through: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneWay {
    pub(super) from: Text,
    pub(super) to: Text,
}

/// Two sides that reach one another through others alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) between: [Nodes; 2],
}

/// The last event is handed in again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) through: Text,
}

/// Many changes of a deployment's labels, one after the other: nothing is restarted for them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edits {
    pub(super) name: Text,
    pub(super) count: Spanned<u32>,
    pub(super) every: Text,
    pub(super) through: Text,
    pub(super) by: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub(super) node: Text,
    pub(super) through: Text,
}

/// A link that goes and comes, again and again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flap {
    pub(super) between: [Nodes; 2],
    pub(super) down: Text,
    pub(super) up: Text,
    pub(super) lasts: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clock {
    pub(super) on: Nodes,
    pub(super) unix_s: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    pub(super) on: Nodes,
    pub(super) cpu_m: Option<u64>,
    pub(super) memory_mib: Option<u64>,
}

/// What machines are short of; their peers must run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Press {
    pub(super) on: Nodes,
    /// The part of the time in which something waits for memory.
    pub(super) memory_percent: Spanned<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Crash {
    pub(super) name: Text,
    pub(super) on: Option<Nodes>,
    #[serde(default = "one")]
    pub(super) code: i32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CrashLoop {
    pub(super) name: Text,
    pub(super) on: Option<Nodes>,
    /// Only programs with these variables.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// How long each runs.
    pub(super) after: Text,
    #[serde(default = "one")]
    pub(super) code: i32,
}

const fn one() -> i32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mend {
    pub(super) name: Text,
}

/// A condition: what `expect` waits for, or `watch` keeps an eye on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) within: Option<Text>,
    pub(super) holds: Option<Text>,
    pub(super) until: Option<Text>,
    pub(super) runs_once: Option<RunsOnce>,
    pub(super) gone: Option<OfName>,
    pub(super) updated: Option<OfName>,
    pub(super) runs_with: Option<RunsWith>,
    pub(super) agreed: Option<Nodes>,
    pub(super) level: Option<Nodes>,
    pub(super) all_up: Option<Nodes>,
    pub(super) conflicts: Option<Conflicts>,
    pub(super) accepted: Option<Accepted>,
    pub(super) refused: Option<Text>,
    pub(super) undisturbed: Option<Nodes>,
    pub(super) removed: Option<Nodes>,
    pub(super) at_least: Option<RunsOnce>,
    pub(super) at_most: Option<AtMost>,
    pub(super) starts_at_most: Option<StartsAtMost>,
    pub(super) messages_at_most: Option<Spanned<u64>>,
    pub(super) no_new_events: Option<Nodes>,
    pub(super) known: Option<Nodes>,
    pub(super) believe: Option<Believe>,
    pub(super) alike: Option<OfName>,
    pub(super) forgotten: Option<OfName>,
    pub(super) unplaced: Option<Conflicts>,
    pub(super) waits: Option<Conflicts>,
    pub(super) cycle: Option<OfName>,
    pub(super) done: Option<Conflicts>,
    pub(super) given_up: Option<OfName>,
    pub(super) acked_kept: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AtMost {
    pub(super) name: Text,
    pub(super) copies: usize,
    pub(super) on: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartsAtMost {
    pub(super) name: Text,
    pub(super) count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Believe {
    pub(super) nodes: Nodes,
    pub(super) of: Text,
    pub(super) r#as: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsOnce {
    pub(super) name: Text,
    pub(super) replicas: usize,
    pub(super) on: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfName {
    pub(super) name: Text,
    pub(super) on: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsWith {
    pub(super) name: Text,
    pub(super) env: BTreeMap<String, String>,
    pub(super) on: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conflicts {
    pub(super) name: Text,
    pub(super) count: usize,
    pub(super) on: Option<Nodes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    pub(super) disks: u32,
    /// Whether the event was there before.
    pub(super) known: Option<bool>,
}
