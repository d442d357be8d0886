//! The shapes that programs read: a promise, with schemas in `schemas/`.
//!
//! Fields are only ever added. Absence is `null`, never a missing key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a container, or a replica without one, is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PsState {
    /// Wanted, with no container yet, or waiting for an image or a back-off.
    Pending,
    /// Being made.
    Starting,
    /// Its first process runs.
    Running,
    /// Asked to end.
    Stopping,
    /// Ended as it should.
    Exited,
    /// Ended or never began, against its will.
    Failed,
    /// Its node was declared down.
    Lost,
    /// Its node was not heard from and not declared down.
    Unknown,
}

/// One row of `ps`: a container known in the cluster, or a replica that has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PsRow {
    /// Namespace.
    pub namespace: String,
    /// Deployment.
    pub deployment: String,
    /// Which copy, from 0.
    pub ordinal: u32,
    /// The revision number that people see.
    pub revision: u64,
    /// The node's name.
    pub node: Option<String>,
    /// What it is doing.
    pub state: PsState,
    /// Whether it is healthy, where that is known.
    pub healthy: Option<bool>,
    /// The container.
    pub container: Option<String>,
    /// Its first process as the host sees it.
    pub pid: Option<u32>,
    /// Seconds since it started.
    pub age_s: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is as it is, where there is something to say.
    pub reason: Option<String>,
}

/// Liveness of a node as the answering peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Heard from.
    Up,
    /// Silent for a moment.
    Suspect,
    /// Silent for long enough that its work is placed elsewhere.
    Down,
    /// Removed from the cluster by an event.
    Removed,
}

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_m: u64,
    /// Bytes of memory.
    pub memory_b: u64,
    /// Processes.
    pub pids: u64,
    /// Named things, counted whole; none where it is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extras: BTreeMap<String, u64>,
}

/// How a node was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removal {
    /// Who signed it: a user's name, or a short key.
    pub by: String,
    /// When, in milliseconds of Unix time by their clock.
    pub time_ms: i64,
    /// The event that did.
    pub event: String,
}

/// Whether a node takes work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeSchedule {
    /// It takes its share.
    #[default]
    Normal,
    /// It keeps what it runs, and takes nothing new.
    Cordoned,
    /// What it runs moves elsewhere.
    Drained,
}

fn whole() -> u16 {
    100
}

/// One row of `node ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRow {
    /// Name.
    pub name: String,
    /// Id: the node's public key, hexadecimal.
    pub id: String,
    /// Liveness.
    pub state: NodeState,
    /// Whether it takes work.
    pub schedule: NodeSchedule,
    /// What it offers.
    pub capacity: Amounts,
    /// What of it is free.
    pub free: Amounts,
    /// Where its documents stand: document to event ids.
    pub heads: BTreeMap<String, Vec<String>>,
    /// Seconds since it was last heard from; 0 for the answering peer itself.
    pub seen_s: Option<u64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where its mesh port is reached.
    pub addresses: Vec<String>,
    /// Percent of what it has, beside its reserve, that it offers of its processors; above 100: over-committed.
    #[serde(default = "whole")]
    pub cpu_percent: u16,
    /// The same of its memory.
    #[serde(default = "whole")]
    pub memory_percent: u16,
    /// Thousandths of a core that it keeps for its system.
    #[serde(default)]
    pub reserved_cpu_m: u64,
    /// Bytes of memory that it keeps.
    #[serde(default)]
    pub reserved_memory_b: u64,
    /// Why it takes no new work for now, if its machine is short of something.
    #[serde(default)]
    pub pressure: Option<String>,
    /// How it was removed, if it was.
    pub removed: Option<Removal>,
}

/// What is known of one deployment, for whoever writes the next event and for waiting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
pub struct DeploymentRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The event that created it.
    pub incarnation: String,
    /// The revision number that people see.
    pub revision: u64,
    /// Hash of the merged template.
    pub revision_hash: Option<String>,
    /// Wanted replicas.
    pub replicas: u32,
    /// Replicas that run the wanted revision and are healthy; of a job, those that ended well.
    pub ready: u32,
    /// Containers that hold some replica of it, of any revision.
    pub running: u32,
    /// Merged groups: name to JSON text.
    pub groups: BTreeMap<String, String>,
    /// Groups in conflict.
    pub conflicts: Vec<String>,
    /// Why the merged groups make no valid deployment: what runs is kept, nothing is started.
    pub invalid: Option<String>,
    /// Replicas that no node has room for, with one line a node.
    pub unplaced: Vec<Unplaced>,
    /// Why the template that was asked for is not in force or goes no further, if so: it did not come up.
    pub failed: Option<UpdateFailed>,
    /// Nothing changes until a person says so: the update is paused.
    pub paused: bool,
    /// What it waits for before more of it is started, a line for each.
    #[serde(default)]
    pub waits: Vec<String>,
    /// Cycles of deployments that wait for one another, and so do not: `a -> b -> a`.
    #[serde(default)]
    pub cycles: Vec<String>,
    /// How far it is, where it is a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRow>,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobRow {
    /// Runs that must end well.
    pub completions: u32,
    /// So many run at a time, on each island of a split.
    pub parallelism: u32,
    /// So often each run is done again after it failed.
    pub retries: u32,
    /// Seconds that the whole has, by the clock of each node.
    pub deadline_s: Option<u32>,
    /// Runs that ended well.
    pub succeeded: u32,
    /// Containers that run, or will.
    pub running: u32,
    /// What it comes to.
    pub state: JobState,
    /// Runs that failed for good; the first few.
    pub failures: Vec<JobFailure>,
    /// Whether it has failed since its time was over.
    pub overdue: bool,
}

/// What a job comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Nothing of it runs, and nothing has ended well.
    Waiting,
    /// Some of it runs, or has run.
    Running,
    /// All runs ended well.
    Completed,
    /// A run failed for good, or its time is over: nothing more of it is started.
    Failed,
}

/// A run of a job that failed for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobFailure {
    /// Which.
    pub ordinal: u32,
    /// Node name.
    pub node: String,
    /// How it ended the last time, with its exit code.
    pub reason: String,
}

/// A template that did not come up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateFailed {
    /// The number that people see for it.
    pub revision: u64,
    /// The number of the template that is in force instead; none where there is no earlier one, or the update
    /// says to stop.
    pub back_to: Option<u64>,
    /// The node where it failed.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// A replica that has no node, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unplaced {
    /// Which copy.
    pub ordinal: u32,
    /// Node name to reason.
    pub nodes: BTreeMap<String, String>,
}

/// What the author of an event needs to know before signing it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Authoring {
    /// The cluster's id.
    pub cluster: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Heads of the asked document: the new event's `deps`.
    pub deps: Vec<String>,
    /// Heads of the cluster document: the new event's `auth`.
    pub auth: Vec<String>,
    /// The deployments of the asked namespace.
    pub deployments: Vec<DeploymentRow>,
    /// The newest event version that every member understands.
    pub event_version: u16,
}

/// The answer to a submitted event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The event's id.
    pub event: String,
    /// On how many peers it is on disk.
    pub durable_on: u32,
    /// Whether the event was known before (a retry).
    pub known: bool,
}

/// How `apply` and its kin ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The event's id; `null` where nothing had to change.
    pub event: Option<String>,
    /// Revision number by deployment.
    pub revisions: BTreeMap<String, u64>,
    /// On how many peers the event is on disk.
    pub durable_on: u32,
    /// What was waited for.
    pub waited: Waited,
    /// Why it stopped waiting short of that.
    pub reason: Option<String>,
}

/// What a command waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Waited {
    /// Every replica runs and is healthy.
    Running,
    /// The event is on the asked number of disks.
    Replicated,
    /// Nothing.
    None,
}

/// One row of `history`: a change of desired state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryRow {
    /// The event's id.
    pub event: String,
    /// Its document.
    pub doc: String,
    /// The author's key.
    pub author: String,
    /// The author's name, where the cluster knows one.
    pub author_name: Option<String>,
    /// Unix time in milliseconds by the author's clock.
    pub time_ms: i64,
    /// What was done: `apply`, `scale`, `delete`, `token`, ...
    pub verb: String,
    /// The event that this one undoes.
    pub undoes: Option<String>,
    /// What changed.
    pub changes: Vec<HistoryChange>,
}

/// One changed group of one deployment, or one changed entry of the roster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryChange {
    /// The deployment, node, user or token.
    pub subject: String,
    /// The group; `null` where the subject as a whole came or went.
    pub group: Option<String>,
    /// JSON text before.
    pub before: Option<String>,
    /// JSON text after.
    pub after: Option<String>,
}

/// One row of `conflicts`: a group that two sides changed, and which value is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictRow {
    /// Namespace.
    pub namespace: String,
    /// Deployment.
    pub deployment: String,
    /// The deployment's incarnation.
    pub incarnation: String,
    /// The group; `null` where the deployment was created on both sides.
    pub group: Option<String>,
    /// The event whose value is in force.
    pub winner: String,
    /// Every side, the winner first.
    pub sides: Vec<ConflictSide>,
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictSide {
    /// The event.
    pub event: String,
    /// The author's key.
    pub author: String,
    /// The author's name.
    pub author_name: Option<String>,
    /// Unix time in milliseconds by the author's clock.
    pub time_ms: i64,
    /// JSON text.
    pub value: Option<String>,
}

/// One row of `events`: something that happened on a node, kept by that node for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoticeRow {
    /// Counts the notices of the answering peer; ask for what comes after.
    pub seq: u64,
    /// Unix time in milliseconds by that node's clock.
    pub time_ms: i64,
    /// Node name.
    pub node: String,
    /// A word for programs, like `container-started`.
    pub kind: String,
    /// Namespace/deployment it is about.
    pub about: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// `explain`: where each replica is and why, and why not elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explain {
    /// Namespace.
    pub namespace: String,
    /// Deployment.
    pub deployment: String,
    /// A line a replica.
    pub replicas: Vec<ExplainReplica>,
    /// A line a node: whether one more replica would fit, with the number that decides.
    pub nodes: Vec<ExplainNode>,
}

/// Where one replica is, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainReplica {
    /// Which copy.
    pub ordinal: u32,
    /// Node name.
    pub node: Option<String>,
    /// Why there, or why nowhere.
    pub why: String,
}

/// Whether one more replica would fit on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainNode {
    /// Node name.
    pub node: String,
    /// Whether one more fits.
    pub fits: bool,
    /// The number that decides.
    pub why: String,
}

/// `status`: one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The answering node's name.
    pub node: String,
    /// The answering node's id.
    pub node_id: String,
    /// The release.
    pub version: String,
    /// The answering peer's process.
    pub pid: u32,
    /// Every node.
    pub nodes: Vec<NodeRow>,
    /// How many other peers there are, how many it has a live link to, and how many of those hold
    /// the same documents.
    pub peers: u32,
    /// Peers with a live link.
    pub connected: u32,
    /// Peers with equal heads.
    pub in_sync: u32,
    /// Every deployment.
    pub deployments: Vec<DeploymentRow>,
    /// Why the peer accepts no events, if so (a full or failed disk).
    pub refusing: Option<String>,
    /// Open conflicts.
    pub conflicts: u32,
    /// What the peer cannot do here and why.
    pub degraded: Vec<String>,
    /// How the answering node itself was removed, if it was: it stops what it runs.
    pub removed: Option<Removal>,
}

/// One row of `image ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRow {
    /// Name and tag.
    pub reference: String,
    /// The manifest's digest, `sha256:` and hexadecimal.
    pub digest: String,
    /// Bytes of all blobs.
    pub size_b: u64,
    /// Names of the nodes that hold it whole.
    pub nodes: Vec<String>,
}

/// One row of `token ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRow {
    /// The token's public half.
    pub id: String,
    /// Unix time in milliseconds after which peers refuse it.
    pub expires_ms: i64,
    /// How many nodes it may admit.
    pub uses: u32,
    /// How many it has admitted.
    pub used: u32,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// One row of `user ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserRow {
    /// Name.
    pub name: String,
    /// Public key, hexadecimal.
    pub key: String,
    /// `admin` or `deploy`.
    pub role: String,
}

/// One line of `logs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Node name.
    pub node: String,
    /// Container.
    pub container: String,
    /// Deployment.
    pub deployment: String,
    /// Which copy.
    pub ordinal: u32,
    /// Unix time in milliseconds by that node's clock.
    pub time_ms: i64,
    /// `stdout`, `stderr`, or `skerry` for a word of the supervisor.
    pub stream: String,
    /// The line, without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// An error as programs see it: one object on stderr, or the body of a failed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What failed.
    pub error: String,
    /// A word for programs, like `no-room`.
    pub code: String,
    /// Where, in a file or on a node.
    pub at: Option<String>,
    /// Why, from outermost to innermost cause.
    pub why: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// What `exec` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecAsk {
    /// Namespace.
    pub namespace: String,
    /// Deployment.
    pub deployment: String,
    /// Which copy; any running one where not given.
    pub ordinal: Option<u32>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Rows and columns of a terminal, where one is wanted.
    pub tty: Option<(u16, u16)>,
    /// Instead of the container's user.
    pub user: Option<String>,
}
