//! A deployment as groups of fields, each of which merges as a whole.
//!
//! A group is the unit of merging: two sides of a partition that change different groups both keep
//! their change; the same group on both sides is a conflict. The document holds each group as JSON
//! text, so a group that a release does not know travels through it unharmed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::limits::{
    ARGS_MAX, CPU_M_MAX, ENV_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, MEMORY_B_MAX, MEMORY_B_MIN, PIDS_MAX,
    PIDS_MIN, PORTS_MAX, REPLICAS_MAX,
};
use crate::{
    Capacity, DependsGroup, Digest, EventId, Extras, JobGroup, LabelKey, Limits, Name, NodeId,
    PlacementGroup, Revision, UpdateGroup,
};

/// The groups of this release, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// What is run: image, command, arguments, working folder, user.
    Image,
    /// How many, and with which promise.
    Replicas,
    /// What one replica may use.
    Resources,
    /// Environment variables.
    Env,
    /// Published ports.
    Ports,
    /// Which nodes may run it, and before whom.
    Placement,
    /// When it is started again.
    Restart,
    /// Labels.
    Meta,
    /// How a new template reaches the replicas.
    Update,
    /// What it waits for before it is started.
    DependsOn,
    /// That it is work which is done once, and how.
    Job,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 11] = [
        Self::Image,
        Self::Replicas,
        Self::Resources,
        Self::Env,
        Self::Ports,
        Self::Placement,
        Self::Restart,
        Self::Meta,
        Self::Update,
        Self::DependsOn,
        Self::Job,
    ];

    /// Those that make a template: changing one of them replaces running containers, and makes a new revision.
    pub const TEMPLATE: [Self; 5] = [Self::Image, Self::Resources, Self::Env, Self::Ports, Self::Restart];

    /// The group's name in documents and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Replicas => "replicas",
            Self::Resources => "resources",
            Self::Env => "env",
            Self::Ports => "ports",
            Self::Placement => "placement",
            Self::Restart => "restart",
            Self::Meta => "meta",
            Self::Update => "update",
            Self::DependsOn => "depends-on",
            Self::Job => "job",
        }
    }
}

/// Why the merged groups do not make a deployment. What runs is kept; nothing is started.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A group that this release does not know: made by a newer one.
    #[error("group `{group}` is not known to this release")]
    Unknown {
        /// Its name.
        group: String,
    },
    /// A group that every deployment needs is missing.
    #[error("group `{group}` is missing")]
    Missing {
        /// Its name.
        group: &'static str,
    },
    /// The group's JSON is not of its form.
    #[error("group `{group}` cannot be read")]
    Malformed {
        /// Its name.
        group: &'static str,
        /// What the reader found.
        source: serde_json::Error,
    },
    /// A value is out of its range.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field as the manifest spells it.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageGroup {
    /// The name the user gave, `name:tag`; shown, not resolved again.
    pub reference: String,
    /// The digest of the image's manifest: what runs.
    pub digest: Digest,
    /// Instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Instead of the image's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Instead of the image's working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Instead of the image's user: `name`, `uid` or `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What is promised when the cluster is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// At least one copy of each replica; each island may run its own.
    #[default]
    Available,
    /// At most one copy of each replica, whatever happens.
    Exclusive,
}

/// How its number is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As many as are asked for, wherever there is room.
    #[default]
    Replicated,
    /// One on every node that meets its conditions.
    Global,
}

impl Mode {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_replicated(&self) -> bool {
        *self == Self::Replicated
    }
}

/// How many, and with which promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicasGroup {
    /// Wanted copies, 0 to [`REPLICAS_MAX`]. In mode `global` 1, or 0 to run none for a while.
    pub count: u32,
    /// The promise.
    #[serde(default)]
    pub class: Class,
    /// How its number is found.
    #[serde(default, skip_serializing_if = "Mode::is_replicated")]
    pub mode: Mode,
    /// With [`Class::Exclusive`]: who decides which node runs a replica; one, or 3 to
    /// [`VOTERS_MAX`](crate::limits::VOTERS_MAX), sorted. As they were said at the creation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<NodeId>,
}

/// What is set aside for one replica, and the most that it may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourcesGroup {
    /// Thousandths of a core.
    pub cpu_m: u64,
    /// Bytes.
    pub memory_b: u64,
    /// Processes.
    pub pids: u64,
    /// Named things of the node, counted whole.
    #[serde(default, skip_serializing_if = "Extras::is_empty")]
    pub extras: Extras,
    /// The most that it may use, where that is more.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

impl Default for ResourcesGroup {
    /// What a replica gets that asks for nothing: enough for a small service on a small box.
    fn default() -> Self {
        Self { cpu_m: 100, memory_b: 64 << 20, pids: 64, extras: Extras::NONE, limits: Limits::default() }
    }
}

impl ResourcesGroup {
    /// As an amount that can be set against a node's capacity.
    pub fn as_capacity(&self) -> Capacity {
        let extras = self.extras.clone();
        Capacity { cpu_m: self.cpu_m, memory_b: self.memory_b, pids: self.pids, extras }
    }

    /// Checks every range, and that no limit is less than what is set aside.
    fn validate(&self) -> Result<(), GroupError> {
        let Self { cpu_m, memory_b, pids, extras: _, limits } = self;
        if !(1..=CPU_M_MAX).contains(cpu_m) {
            return Err(invalid("resources.cpu", format!("{cpu_m}m asked, use 1m to {CPU_M_MAX}m")));
        }
        if !(MEMORY_B_MIN..=MEMORY_B_MAX).contains(memory_b) {
            return Err(invalid("resources.memory", format!("{memory_b} bytes asked, use 1Mi to 16Ti")));
        }
        if !(PIDS_MIN..=PIDS_MAX).contains(pids) {
            return Err(invalid("resources.pids", format!("{pids} asked, use {PIDS_MIN} to {PIDS_MAX}")));
        }
        let within = |field, limit: Option<u64>, set_aside: u64, max: u64, unit: &str| match limit {
            Some(limit) if limit < set_aside => Err(invalid(
                field,
                format!("{limit}{unit} is less than the {set_aside}{unit} that are set aside for it"),
            )),
            Some(limit) if limit > max => {
                Err(invalid(field, format!("{limit}{unit}, the most is {max}{unit}")))
            }
            _ => Ok(()),
        };
        within("resources.limits.cpu", limits.cpu_m, *cpu_m, CPU_M_MAX, "m")?;
        within("resources.limits.memory", limits.memory_b, *memory_b, MEMORY_B_MAX, " bytes")?;
        within("resources.limits.pids", limits.pids, *pids, PIDS_MAX, "")
    }
}

/// Environment variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvGroup {
    /// By name.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port that the program listens on.
    pub container: u16,
    /// The port of the node that leads to it.
    pub host: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Published ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortsGroup {
    /// Each at most once.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever its exit code.
    #[default]
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}

/// When it is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartGroup {
    /// The policy.
    #[serde(default)]
    pub policy: RestartPolicy,
    /// Changed by `restart`, so that every replica is made anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
}

/// Labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaGroup {
    /// By key.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, String>,
}

/// A deployment, merged and valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// The event that created it.
    pub incarnation: EventId,
    /// What is run.
    pub image: ImageGroup,
    /// How many.
    pub replicas: ReplicasGroup,
    /// What one replica may use.
    pub resources: ResourcesGroup,
    /// Environment variables.
    pub env: EnvGroup,
    /// Published ports.
    pub ports: PortsGroup,
    /// Which nodes may run it.
    pub placement: PlacementGroup,
    /// When it is started again.
    pub restart: RestartGroup,
    /// Labels.
    pub meta: MetaGroup,
    /// How a new template reaches the replicas.
    pub update: UpdateGroup,
    /// What it waits for before it is started.
    pub depends: DependsGroup,
    /// How it is done once, where it is no service; `replicas` says how many runs must end well.
    pub job: Option<JobGroup>,
}

/// Reads one group; a missing one has its default where it has one.
fn read<T: DeserializeOwned>(
    groups: &BTreeMap<String, String>,
    group: Group,
    missing: impl FnOnce() -> Option<T>,
) -> Result<T, GroupError> {
    let name = group.as_str();
    match groups.get(name) {
        Some(json) => {
            serde_json::from_str(json).map_err(|source| GroupError::Malformed { group: name, source })
        }
        None => missing().ok_or(GroupError::Missing { group: name }),
    }
}

pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> GroupError {
    GroupError::Invalid { field, problem: problem.into() }
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("groups are maps with text keys")
}

impl Deployment {
    /// Makes a deployment of merged groups (group name to JSON text).
    pub fn from_groups(
        namespace: &Name,
        name: &Name,
        incarnation: EventId,
        groups: &BTreeMap<String, String>,
    ) -> Result<Self, GroupError> {
        if let Some(group) = groups.keys().find(|key| !Group::ALL.iter().any(|g| g.as_str() == *key)) {
            return Err(GroupError::Unknown { group: group.clone() });
        }
        let deployment = Self {
            namespace: namespace.clone(),
            name: name.clone(),
            incarnation,
            image: read(groups, Group::Image, || None)?,
            replicas: read(groups, Group::Replicas, || None)?,
            resources: read(groups, Group::Resources, || Some(ResourcesGroup::default()))?,
            env: read(groups, Group::Env, || Some(EnvGroup::default()))?,
            ports: read(groups, Group::Ports, || Some(PortsGroup::default()))?,
            placement: read(groups, Group::Placement, || Some(PlacementGroup::default()))?,
            restart: read(groups, Group::Restart, || Some(RestartGroup::default()))?,
            meta: read(groups, Group::Meta, || Some(MetaGroup::default()))?,
            update: read(groups, Group::Update, || Some(UpdateGroup::default()))?,
            depends: read(groups, Group::DependsOn, || Some(DependsGroup::default()))?,
            // `null` where it was a job and is none any more.
            job: read(groups, Group::Job, || Some(None))?,
        };
        deployment.validate()?;
        Ok(deployment)
    }

    /// The groups as JSON text, in the form that is signed: all of them, but those that came later only where
    /// they say something.
    pub fn to_groups(&self) -> BTreeMap<String, String> {
        let is_said = |group: &&Group| match group {
            Group::Update => self.update != UpdateGroup::default(),
            Group::DependsOn => self.depends != DependsGroup::default(),
            Group::Job => self.job.is_some(),
            _ => true,
        };
        Group::ALL
            .iter()
            .filter(is_said)
            .map(|group| (group.as_str().to_owned(), self.json_of(*group)))
            .collect()
    }

    fn json_of(&self, group: Group) -> String {
        match group {
            Group::Image => to_json(&self.image),
            Group::Replicas => to_json(&self.replicas),
            Group::Resources => to_json(&self.resources),
            Group::Env => to_json(&self.env),
            Group::Ports => to_json(&self.ports),
            Group::Placement => to_json(&self.placement),
            Group::Restart => to_json(&self.restart),
            Group::Meta => to_json(&self.meta),
            Group::Update => to_json(&self.update),
            Group::DependsOn => to_json(&self.depends),
            Group::Job => to_json(&self.job),
        }
    }

    /// Checks every range. `from_groups` has done so already.
    pub fn validate(&self) -> Result<(), GroupError> {
        if self.image.reference.is_empty() || self.image.reference.len() > 255 {
            return Err(invalid("image", "a name of 1 to 255 characters is needed, like `web:1`"));
        }
        let words = self.image.command.len() + self.image.args.len();
        if words > ARGS_MAX {
            return Err(invalid("args", format!("{words} words, the limit is {ARGS_MAX}")));
        }
        if self.image.command.iter().chain(&self.image.args).any(|word| word.contains('\0')) {
            return Err(invalid("args", "a word holds a NUL character"));
        }
        if self.image.workdir.as_deref().is_some_and(|dir| !dir.starts_with('/') || dir.contains('\0')) {
            return Err(invalid("workdir", "an absolute path is needed, like `/srv`"));
        }
        if self.replicas.count > REPLICAS_MAX {
            return Err(invalid(
                "replicas",
                format!("{} asked, the limit is {REPLICAS_MAX}", self.replicas.count),
            ));
        }
        if self.replicas.mode == Mode::Global && self.replicas.count > 1 {
            return Err(invalid(
                "replicas",
                format!("{} asked in mode `global`, which runs one on each node", self.replicas.count),
            ));
        }
        self.resources.validate()?;
        if self.env.vars.len() > ENV_MAX {
            return Err(invalid("env", format!("{} variables, the limit is {ENV_MAX}", self.env.vars.len())));
        }
        for (key, value) in &self.env.vars {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(invalid("env", format!("`{}` is not a variable", key.escape_default())));
            }
        }
        if self.ports.ports.len() > PORTS_MAX {
            return Err(invalid(
                "ports",
                format!("{} ports, the limit is {PORTS_MAX}", self.ports.ports.len()),
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for port in &self.ports.ports {
            if port.container == 0 || port.host == 0 {
                return Err(invalid("ports", "port 0 cannot be published, use 1 to 65535"));
            }
            if !seen.insert((port.protocol, port.host)) {
                return Err(invalid("ports", format!("host port {} is published twice", port.host)));
            }
        }
        self.placement.validate()?;
        self.update.validate()?;
        self.depends.validate(&self.name)?;
        self.validate_job()?;
        self.validate_promise()?;
        for labels in [&self.meta.labels, &self.placement.labels] {
            if labels.len() > LABELS_MAX {
                return Err(invalid("labels", format!("{} labels, the limit is {LABELS_MAX}", labels.len())));
            }
            if let Some((key, _)) = labels.iter().find(|(_, value)| value.len() > LABEL_VALUE_BYTES_MAX) {
                return Err(invalid(
                    "labels",
                    format!("the value of `{key}` is longer than {LABEL_VALUE_BYTES_MAX} characters"),
                ));
            }
        }
        Ok(())
    }

    fn validate_job(&self) -> Result<(), GroupError> {
        let Some(job) = &self.job else { return Ok(()) };
        if self.replicas.mode == Mode::Global {
            return Err(invalid(
                "job",
                "in mode `global`, which runs one on each node for ever; leave one out",
            ));
        }
        if self.restart.policy != RestartPolicy::Never {
            return Err(invalid(
                "job",
                "with a restart policy: a job needs `never`, its retries are counted",
            ));
        }
        job.validate(self.replicas.count)
    }

    /// The hash of the merged template ([`Group::TEMPLATE`]): everything that makes a running replica out of
    /// date.
    pub fn revision(&self) -> Revision {
        let mut hash = Sha256::new();
        hash.update(b"skerry-revision-v1\0");
        for group in Group::TEMPLATE {
            let json = self.json_of(group);
            hash.update((json.len() as u64).to_be_bytes());
            hash.update(json.as_bytes());
        }
        Revision::from_bytes(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Deployment {
        Deployment {
            namespace: Name::default_namespace(),
            name: "web".parse().unwrap(),
            incarnation: EventId::from_bytes([1; 32]),
            image: ImageGroup {
                reference: "web:1".into(),
                digest: Digest::from_bytes([2; 32]),
                command: vec![],
                args: vec![],
                workdir: None,
                user: None,
            },
            replicas: ReplicasGroup {
                count: 3,
                class: Class::Available,
                mode: Mode::Replicated,
                voters: vec![],
            },
            resources: ResourcesGroup::default(),
            env: EnvGroup::default(),
            ports: PortsGroup::default(),
            placement: PlacementGroup::default(),
            restart: RestartGroup::default(),
            meta: MetaGroup::default(),
            update: UpdateGroup::default(),
            depends: DependsGroup::default(),
            job: None,
        }
    }

    #[test]
    fn groups_read_back_as_the_deployment_they_were_made_from() {
        let web = web();
        let groups = web.to_groups();
        let again = Deployment::from_groups(&web.namespace, &web.name, web.incarnation, &groups).unwrap();
        assert_eq!(again, web);
    }

    #[test]
    fn a_group_of_a_newer_release_is_named_and_not_ignored() {
        let web = web();
        let mut groups = web.to_groups();
        groups.insert("volumes".into(), "{}".into());
        let error = Deployment::from_groups(&web.namespace, &web.name, web.incarnation, &groups).unwrap_err();
        assert_eq!(error.to_string(), "group `volumes` is not known to this release");
    }

    #[test]
    fn scaling_keeps_the_revision_and_any_change_of_the_template_makes_a_new_one() {
        let web = web();
        let revision = web.revision();
        let mut scaled = web.clone();
        scaled.replicas.count = 9;
        assert_eq!(scaled.revision(), revision);
        let mut changed = web;
        changed.env.vars.insert("A".into(), "b".into());
        assert_ne!(changed.revision(), revision);
    }

    #[test]
    fn a_limit_below_what_is_set_aside_is_refused_and_one_that_is_not_said_changes_no_revision() {
        let mut bad = web();
        bad.resources.limits.cpu_m = Some(99);
        assert_eq!(
            bad.validate().unwrap_err().to_string(),
            "resources.limits.cpu: 99m is less than the 100m that are set aside for it"
        );
        bad.resources.limits = Limits { memory_b: Some(MEMORY_B_MAX + 1), ..Limits::default() };
        assert!(bad.validate().unwrap_err().to_string().starts_with("resources.limits.memory: "));
        let web = web();
        assert_eq!(
            web.to_groups()["resources"],
            r#"{"cpu_m":100,"memory_b":67108864,"pids":64}"#,
            "what nobody asked for is not signed"
        );
        let mut more = web.clone();
        more.resources.limits.cpu_m = Some(200);
        assert_ne!(more.revision(), web.revision());
        assert_eq!(more.resources.as_capacity(), web.resources.as_capacity());
    }

    #[test]
    fn absurd_amounts_are_refused_by_name() {
        let mut bad = web();
        bad.resources.memory_b = 64;
        assert!(bad.validate().unwrap_err().to_string().starts_with("resources.memory: 64 bytes asked"));
        let mut bad = web();
        bad.replicas.count = 1_000_000_000;
        assert_eq!(bad.validate().unwrap_err().to_string(), "replicas: 1000000000 asked, the limit is 10000");
    }
}
