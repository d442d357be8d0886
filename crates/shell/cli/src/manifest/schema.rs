//! The manifest's form as types, for its JSON schema. `read` reads it; a test holds the two together.

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// A file of deployments.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub struct Manifest {
    /// The namespace of every deployment of the file; `default` where not given.
    #[schemars(default, regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    namespace: Option<String>,
    /// The deployments.
    #[schemars(length(min = 1))]
    deployments: Vec<DeploymentForm>,
}

/// One deployment.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Deployment", rename_all = "kebab-case")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct DeploymentForm {
    /// A DNS label.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: String,
    /// `name:tag`, which a peer must hold, or `name@sha256:HEX`.
    #[schemars(length(min = 1, max = 255))]
    image: String,
    /// How their number is found.
    #[schemars(default)]
    mode: Option<ModeForm>,
    /// Wanted copies; not with mode `global`.
    #[schemars(default = "one", range(min = 1, max = 10000))]
    replicas: u32,
    /// What is promised when the cluster is split.
    #[schemars(default)]
    class: Option<ClassForm>,
    /// With class `exclusive`: names or ids of the nodes that decide who runs a replica; one, or three to five.
    /// They stay as they were when the deployment was made.
    #[schemars(default)]
    voters: Vec<String>,
    /// Who yields to whom where there is no room for all.
    #[schemars(default)]
    priority: Option<PriorityForm>,
    /// Instead of the image's entrypoint.
    #[schemars(default)]
    command: Vec<String>,
    /// Instead of the image's arguments.
    #[schemars(default)]
    args: Vec<String>,
    /// Environment variables.
    #[schemars(default)]
    env: BTreeMap<String, String>,
    /// Instead of the image's working folder: an absolute path.
    #[schemars(default, regex(pattern = "^/"))]
    workdir: Option<String>,
    /// Instead of the image's user: `name`, `uid` or `uid:gid`.
    #[schemars(default)]
    user: Option<String>,
    /// What one replica may use; also what is set aside for it.
    #[schemars(default)]
    resources: Option<ResourcesForm>,
    /// Published ports.
    #[schemars(default)]
    ports: Vec<PortForm>,
    /// When a container that ended is started again.
    #[schemars(default)]
    restart: Option<RestartForm>,
    /// Labels of the deployment.
    #[schemars(default)]
    labels: BTreeMap<String, String>,
    /// What a node must have to run it.
    #[schemars(default)]
    constraints: Option<ConstraintsForm>,
    /// Nodes that are better or worse than others.
    #[schemars(default)]
    prefer: Option<OneOrMore<PreferenceForm>>,
    /// Labels over whose values the replicas are spread evenly, the most important first; `host` is each
    /// node's name.
    #[schemars(default)]
    spread: Option<OneOrMore<String>>,
    /// Deployments beside which it runs, and nowhere else: `NAME`, or `NAME within LABEL`.
    #[schemars(default)]
    near: Option<OneOrMore<String>>,
    /// Deployments beside which it does not run, nor they beside it: `NAME`, or `NAME within LABEL`.
    #[schemars(default)]
    apart: Option<OneOrMore<String>>,
    /// How a new template reaches the replicas.
    #[schemars(default)]
    update: Option<UpdateForm>,
    /// Deployments of the same namespace that it waits for before it is started, and how far each must be.
    #[schemars(default)]
    depends_on: Option<DependsForm>,
    /// It is work that is done once, by so many runs; the same as mode `job`, with more words.
    #[schemars(default)]
    job: Option<JobForm>,
}

/// Work that is done once.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Job")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct JobForm {
    /// So many runs must end well.
    #[schemars(default = "one", range(min = 1, max = 1000))]
    completions: u32,
    /// So many run at a time, on each island of a split.
    #[schemars(default = "one", range(min = 1, max = 1000))]
    parallelism: u32,
    /// So often each run is done again after it failed, on one node.
    #[schemars(default = "three", range(max = 100))]
    retries: u32,
    /// What is not done after so long is stopped, and the job has failed: `10m`.
    #[schemars(default)]
    deadline: Option<String>,
}

fn three() -> u32 {
    3
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "DependsOn")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum DependsForm {
    /// Those are to be healthy.
    Names(OneOrMore<String>),
    /// By name.
    Conditions(BTreeMap<String, ConditionForm>),
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Condition", rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum ConditionForm {
    /// One of its replicas runs.
    Started,
    /// One of its replicas is well.
    Healthy,
    /// All of its replicas have ended well for good.
    Completed,
}

/// How a new template reaches the replicas.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Update", rename_all = "kebab-case")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct UpdateForm {
    /// So many containers more than replicas may run meanwhile.
    #[schemars(default = "one", range(max = 10000))]
    surge: u32,
    /// So many replicas may be without a container that is well meanwhile.
    #[schemars(default, range(max = 10000))]
    unavailable: u32,
    /// A new container counts once it was well for so long: `30s`.
    #[schemars(default)]
    min_healthy: Option<String>,
    /// A new container that does not count after so long has failed; `10m` where not given.
    #[schemars(default)]
    deadline: Option<String>,
    /// What happens then.
    #[schemars(default)]
    on_failure: Option<OnFailureForm>,
    /// In which order replicas change.
    #[schemars(default)]
    strategy: Option<StrategyForm>,
    /// The first so many change alone.
    #[schemars(default)]
    canary: Option<CanaryForm>,
    /// Nothing changes until a person says so.
    #[schemars(default)]
    paused: bool,
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "OnFailure", rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum OnFailureForm {
    /// All replicas go back to the template before.
    Rollback,
    /// What has changed stays as it is; nothing further changes.
    Stop,
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Strategy", rename_all = "kebab-case")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum StrategyForm {
    /// Some at a time.
    Rolling,
    /// All new ones beside the old, which stop once all new ones are well.
    BlueGreen,
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Canary")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum CanaryForm {
    /// How many; the others follow when a person says so.
    Count(#[schemars(range(min = 1, max = 10000))] u32),
    /// Spelt out.
    Long(CanaryFields),
}

/// Canaries.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "CanaryFields", rename_all = "kebab-case")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct CanaryFields {
    /// How many.
    #[schemars(default = "one", range(min = 1, max = 10000))]
    replicas: u32,
    /// The others follow when these were well for so long: `10m`; where not given, when a person says so.
    #[schemars(default)]
    promote_after: Option<String>,
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several.
    More(Vec<T>),
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Constraints")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum ConstraintsForm {
    /// Labels with exactly these values.
    Labels(BTreeMap<String, String>),
    /// Conditions: `KEY = VALUE`, `KEY != VALUE`, `KEY in (A, B)`, `KEY not in (A, B)`, `KEY exists`,
    /// `KEY absent`, `KEY < N`, `KEY > N`.
    Conditions(OneOrMore<String>),
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Preference")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum PreferenceForm {
    /// A condition, with weight 10.
    Short(String),
    /// Spelt out.
    Long(PreferenceFields),
}

/// A preference.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "PreferenceFields")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct PreferenceFields {
    /// A condition, as in `constraints`.
    when: String,
    /// How much it counts: as much as so many percent more of the node staying free. Below 0 such nodes are
    /// avoided.
    #[schemars(default = "ten", range(min = -100, max = 100))]
    weight: i32,
}

fn ten() -> i32 {
    10
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Mode", rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum ModeForm {
    /// As many as `replicas` says, wherever there is room.
    Replicated,
    /// One on every node that meets the constraints.
    Global,
    /// Work that is done once: see `job`.
    Job,
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Priority", rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum PriorityForm {
    /// Yields to all others.
    Low,
    /// What is not said to be anything else.
    Normal,
    /// Before those.
    High,
    /// Before all others.
    Critical,
}

fn one() -> u32 {
    1
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Class", rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum ClassForm {
    /// At least one copy of each replica; each island may run its own.
    Available,
    /// At most one copy of each replica, whatever happens; it runs only where more than half of `voters` are in
    /// reach.
    Exclusive,
}

/// Amounts for one replica.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Resources")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct ResourcesForm {
    /// Cores: `250m`, `0.25` or `1`.
    #[schemars(default = "default_cpu")]
    cpu: AmountForm,
    /// Bytes, or with a unit: `64Mi`, `1Gi`, `500M`.
    #[schemars(default = "default_memory")]
    memory: AmountForm,
    /// Processes.
    #[schemars(default = "default_pids", range(min = 1, max = 4_194_304))]
    pids: u64,
    /// Named things of a node, counted whole: `gpu: 1`.
    extras: Option<BTreeMap<String, ExtraCount>>,
    /// The most that it may use, where that is more than what is set aside.
    limits: Option<LimitsForm>,
}

/// The most that a replica may use; what is left out is what is set aside.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Limits")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct LimitsForm {
    /// Cores: `250m`, `0.25` or `1`.
    cpu: Option<AmountForm>,
    /// Bytes, or with a unit: `64Mi`, `1Gi`, `500M`.
    memory: Option<AmountForm>,
    /// Processes.
    #[schemars(range(min = 1, max = 4_194_304))]
    pids: Option<u64>,
}

/// A whole count.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "ExtraCount", transparent)]
#[allow(dead_code, reason = "read by the schema's generator alone")]
pub(super) struct ExtraCount(#[schemars(range(min = 1, max = 10_000))] u64);

fn default_cpu() -> &'static str {
    "100m"
}

fn default_memory() -> &'static str {
    "64Mi"
}

fn default_pids() -> u64 {
    64
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Amount")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum AmountForm {
    /// A plain number.
    Number(#[schemars(range(min = 0.0))] f64),
    /// A number with a unit.
    Text(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|K|M|G|T)?$"))] String),
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Port")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum PortForm {
    /// `HOST:CONTAINER`.
    Short(#[schemars(regex(pattern = r"^[0-9]{1,5}:[0-9]{1,5}$"))] String),
    /// Spelt out.
    Long(PortFields),
}

/// A published port.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "PortFields")]
#[allow(dead_code, reason = "its fields are read by the schema's generator alone")]
pub(super) struct PortFields {
    /// The port of the node.
    #[schemars(range(min = 1))]
    host: u16,
    /// The port that the program listens on.
    #[schemars(range(min = 1))]
    container: u16,
}

#[derive(Debug, JsonSchema)]
#[schemars(rename = "Restart", rename_all = "kebab-case")]
#[allow(dead_code, reason = "read by the schema's generator alone")]
enum RestartForm {
    /// Whatever its exit code.
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}
