//! The walk over a manifest's tree: every problem is noted, with its place, and the walk goes on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use model::limits::{ARGS_MAX, ENV_MAX, LABELS_MAX, REPLICAS_MAX};
use model::{
    DependsGroup, Deployment, Digest, EnvGroup, EventId, GroupError, ImageGroup, LabelKey, MetaGroup, Name,
    Port, PortsGroup, Protocol, ReplicasGroup, ResourcesGroup, RestartGroup, RestartPolicy, UpdateGroup,
};

use super::node::{Node, Value, parse};
use super::{Place, Problem, SMALLEST, start_of, units};

/// The fields of a file.
pub(super) const FILE_FIELDS: [&str; 2] = ["namespace", "deployments"];
/// The fields of a deployment.
pub(super) const DEPLOYMENT_FIELDS: [&str; 24] = [
    "name",
    "image",
    "mode",
    "replicas",
    "class",
    "voters",
    "priority",
    "command",
    "args",
    "env",
    "workdir",
    "user",
    "resources",
    "ports",
    "restart",
    "labels",
    "constraints",
    "prefer",
    "spread",
    "near",
    "apart",
    "update",
    "depends-on",
    "job",
];
/// The fields of a port.
pub(super) const PORT_FIELDS: [&str; 2] = ["host", "container"];

/// What people write who come from elsewhere, too far from our word for a count of letters to see.
const HABITS: [(&str, &str); 30] = [
    ("services", "deployments"),
    ("apps", "deployments"),
    ("environment", "env"),
    ("entrypoint", "command"),
    ("working_dir", "workdir"),
    ("workingDir", "workdir"),
    ("cwd", "workdir"),
    ("mem", "memory"),
    ("mem_limit", "memory"),
    ("cpus", "cpu"),
    ("scale", "replicas"),
    ("count", "replicas"),
    ("instances", "replicas"),
    ("limits", "resources"),
    ("nodeSelector", "constraints"),
    ("affinity", "near"),
    ("antiAffinity", "apart"),
    ("topologySpreadConstraints", "spread"),
    ("preferences", "prefer"),
    ("rollout", "update"),
    ("update_config", "update"),
    ("maxSurge", "surge"),
    ("maxUnavailable", "unavailable"),
    ("priorityClassName", "priority"),
    ("restartPolicy", "restart"),
    ("publish", "ports"),
    ("depends_on", "depends-on"),
    ("dependsOn", "depends-on"),
    ("gpu", "extras"),
    ("devices", "extras"),
];

/// An image as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// `name:tag`.
    pub reference: String,
    /// The digest, where the manifest gives it.
    pub digest: Option<Digest>,
}

/// One deployment of a manifest: valid, except that its image is a name and not yet a digest.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Its image.
    pub image: ImageRef,
    /// Names or ids of the nodes that vote, where it is exclusive. Until they are known its deployment has others
    /// in their place.
    pub voters: Vec<String>,
    /// Where its name stands in the file.
    pub place: Place,
    deployment: Deployment,
}

impl Spec {
    /// What it waits for.
    pub(super) fn depends(&self) -> &DependsGroup {
        &self.deployment.depends
    }

    /// The deployment, with the digest that its image stands for.
    pub fn with_digest(&self, digest: Digest) -> Deployment {
        let mut deployment = self.deployment.clone();
        deployment.image.digest = digest;
        deployment
    }
}

/// Splits `name:tag` or `name@sha256:HEX`.
pub fn split_reference(text: &str) -> Result<ImageRef, String> {
    let parsed = ::image::Reference::parse(text).map_err(|error| match error {
        // The longest names are cut: an error is a line.
        ::image::ReferenceError::TooLong { .. } => format!("{error}: `{}`", start_of(text)),
        _ => error.to_string(),
    })?;
    let reference = text.split_once('@').map_or(text, |(reference, _)| reference);
    Ok(ImageRef { reference: reference.to_owned(), digest: parsed.digest() })
}

/// Reads a manifest. Every problem found is returned.
pub fn read(text: &str) -> Result<Vec<Spec>, Vec<Problem>> {
    let tree = parse(text).map_err(|problem| vec![problem])?;
    let mut reader = Reader { problems: Vec::new() };
    let specs = reader.file(&tree);
    if reader.problems.is_empty() { Ok(specs) } else { Err(reader.problems) }
}

/// The walk so far.
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

/// The word that was probably meant.
fn meant<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let habit = HABITS.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(word)).map(|(_, ours)| *ours);
    if let Some(ours) = habit.and_then(|ours| known.iter().find(|field| **field == ours)) {
        return Some(ours);
    }
    let distance = |field: &str| strsim::damerau_levenshtein(&lower, field);
    // A third of the letters may differ: more is another word.
    let allowed = |field: &str| (field.len().max(lower.len()) / 3).max(1);
    known
        .iter()
        .copied()
        .filter(|field| distance(field) <= allowed(field))
        .min_by_key(|field| distance(field))
}

fn known_words(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The value of a key of a map.
fn within<'n>(node: &'n Node, part: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    let found = entries.iter().find(|(key, _)| matches!(&key.value, Value::Text(word) if word == part));
    found.map(|(_, value)| value)
}

impl Reader {
    pub(super) fn note(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into(), hint: None });
    }

    pub(super) fn note_with(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into(), hint: Some(hint.into()) });
    }

    /// The fields of a group of fields, the unknown ones noted.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&'static str],
    ) -> Option<BTreeMap<&'static str, &'n Node>> {
        let Value::Map(entries) = &node.value else {
            self.note(node.place, format!("{what} must be a group of fields, found {}", node.value.found()));
            return None;
        };
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let Value::Text(word) = &key.value else {
                self.note(key.place, format!("a field's name must be text, found {}", key.value.found()));
                continue;
            };
            if let Some(field) = known.iter().find(|field| *field == word) {
                fields.insert(*field, value);
                continue;
            }
            let shown = start_of(word);
            let message = match meant(word, known) {
                Some(meant) => format!("unknown field `{shown}` in {what}; did you mean `{meant}`?"),
                None => format!("unknown field `{shown}` in {what}, which knows {}", known_words(known)),
            };
            self.note(key.place, message);
        }
        Some(fields)
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Whole(_) | Value::Float(_) => {
                let bare = match &node.value {
                    Value::Bool(value) => value.to_string(),
                    Value::Whole(value) => value.to_string(),
                    Value::Float(value) => value.to_string(),
                    _ => String::new(),
                };
                self.note(
                    node.place,
                    format!(
                        "{what} must be text, found {}; put it in quotes: \"{bare}\"",
                        node.value.found()
                    ),
                );
                None
            }
            other => {
                self.note(node.place, format!("{what} must be text, found {}", other.found()));
                None
            }
        }
    }

    pub(super) fn whole(&mut self, node: &Node, what: &str, least: u64, most: u64) -> Option<u64> {
        let Value::Whole(number) = node.value else {
            self.note(node.place, format!("{what} must be a whole number, found {}", node.value.found()));
            return None;
        };
        let found = u64::try_from(number).ok().filter(|number| (least..=most).contains(number));
        if found.is_none() {
            self.note(node.place, format!("{what} must be {least} to {most}, found {number}"));
        }
        found
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        known: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
        let message = match meant(text, &words) {
            Some(meant) => format!("{what} cannot be `{}`; did you mean `{meant}`?", start_of(text)),
            None => format!("{what} cannot be `{}`, use one of {}", start_of(text), known_words(&words)),
        };
        self.note(node.place, message);
        None
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, what: &str, max: usize) -> &'n [Node] {
        let Value::List(items) = &node.value else {
            self.note(node.place, format!("{what} must be a list, found {}", node.value.found()));
            return &[];
        };
        if items.len() > max {
            self.note(node.place, format!("{what} has {} entries, the limit is {max}", items.len()));
            return &[];
        }
        items
    }

    fn words(&mut self, node: &Node, what: &str) -> Vec<String> {
        if let Value::Text(text) = &node.value {
            let list: Vec<_> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            self.note(
                node.place,
                format!("{what} must be a list, found the text \"{}\"; no shell splits it", start_of(text)),
            );
            if let Some(problem) = self.problems.last_mut() {
                problem.hint = Some(format!("write `{what}: [{}]`", list.join(", ")));
            }
            return Vec::new();
        }
        let items = self.list(node, what, ARGS_MAX);
        let mut words = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            if let Some(word) = self.text(item, &format!("{what}[{n}]")) {
                if word.contains('\0') {
                    self.note(item.place, format!("{what}[{n}] holds a NUL character"));
                }
                words.push(word.to_owned());
            }
        }
        words
    }

    /// Text by text: `env`, `labels`, `constraints`.
    fn table<K: Ord>(
        &mut self,
        node: &Node,
        what: &str,
        max: usize,
        key_of: impl Fn(&str) -> Result<K, String>,
    ) -> BTreeMap<K, String> {
        let mut table = BTreeMap::new();
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} must be a group of fields, found {}", node.value.found());
            self.note_with(node.place, message, format!("write `{what}: {{KEY: \"value\"}}`"));
            return table;
        };
        if entries.len() > max {
            self.note(node.place, format!("{what} has {} entries, the limit is {max}", entries.len()));
            return table;
        }
        for (key, value) in entries {
            let Some(word) = self.text(key, &format!("a name in {what}")) else { continue };
            let parsed = key_of(word);
            let Some(text) = self.text(value, &format!("{what}.{}", start_of(word))) else { continue };
            match parsed {
                Ok(parsed) => {
                    table.insert(parsed, text.to_owned());
                }
                Err(message) => self.note(key.place, format!("{what}: {message}")),
            }
        }
        table
    }

    pub(super) fn labels(&mut self, node: &Node, what: &str) -> BTreeMap<LabelKey, String> {
        let table = self
            .table(node, what, LABELS_MAX, |key| key.parse::<LabelKey>().map_err(|error| error.to_string()));
        if let Some((key, value)) =
            table.iter().find(|(_, value)| value.len() > model::limits::LABEL_VALUE_BYTES_MAX)
        {
            self.note(
                node.place,
                format!(
                    "{what}: the value of `{key}` has {} characters, the limit is {}",
                    value.len(),
                    model::limits::LABEL_VALUE_BYTES_MAX
                ),
            );
        }
        table
    }

    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<Name> {
        let text = self.text(node, what)?;
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.note(node.place, format!("{what}: {error}"));
                None
            }
        }
    }

    fn file(&mut self, node: &Node) -> Vec<Spec> {
        if matches!(node.value, Value::Null) {
            self.note_with(node.place, "the file is empty", SMALLEST);
            return Vec::new();
        }
        let Some(fields) = self.fields(node, "the manifest", &FILE_FIELDS) else { return Vec::new() };
        let namespace = match fields.get("namespace") {
            Some(node) => self.name(node, "namespace"),
            None => Some(Name::default_namespace()),
        };
        let Some(list) = fields.get("deployments") else {
            // A misspelt `deployments` was named already.
            if self.problems.is_empty() {
                self.note_with(node.place, "the manifest has no `deployments`", SMALLEST);
            }
            return Vec::new();
        };
        let items = self.list(list, "deployments", model::limits::DEPLOYMENTS_PER_NAMESPACE_MAX);
        if items.is_empty() && self.problems.is_empty() {
            self.note_with(list.place, "`deployments` is empty", SMALLEST);
        }
        let namespace = namespace.unwrap_or_else(Name::default_namespace);
        let mut lines = BTreeMap::new();
        let mut specs = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let Some(spec) = self.deployment(item, &format!("deployments[{n}]"), &namespace) else {
                continue;
            };
            match lines.entry(spec.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(spec.place.line);
                }
                Entry::Occupied(entry) => self.note(
                    spec.place,
                    format!("deployment `{}` is there twice: first in line {}", spec.name, entry.get()),
                ),
            }
            specs.push(spec);
        }
        self.refuse_cycles(&specs);
        specs
    }

    fn deployment(&mut self, node: &Node, what: &str, namespace: &Name) -> Option<Spec> {
        let before = self.problems.len();
        let fields = self.fields(node, what, &DEPLOYMENT_FIELDS)?;
        let missing = |field: &str| !fields.contains_key(field);
        for field in ["name", "image"] {
            // A misspelt one was named already.
            if missing(field) && self.problems.len() == before {
                self.note(node.place, format!("{what} has no `{field}`"));
            }
        }
        let name_at = fields.get("name").map_or(node.place, |node| node.place);
        let name = fields.get("name").and_then(|node| self.name(node, "name"));
        // From here on people know it by its name.
        let image = fields.get("image").and_then(|node| {
            let text = self.text(node, "image")?;
            split_reference(text).map_err(|message| self.note(node.place, format!("image: {message}"))).ok()
        });
        let count = fields.get("replicas").map_or(Some(1), |node| self.replicas(node));
        let promise = self.promise(&fields);
        let mut words =
            |field: &'static str| fields.get(field).map(|node| self.words(node, field)).unwrap_or_default();
        let (command, args) = (words("command"), words("args"));
        if let Some(node) = fields.get("command")
            && command.first().is_some_and(String::is_empty)
        {
            self.note(node.place, "command must begin with the name of a program, found \"\"");
        }
        let env = fields.get("env").map(|node| self.env(node)).unwrap_or_default();
        let workdir = fields.get("workdir").and_then(|node| {
            let text = self.text(node, "workdir")?;
            if !text.starts_with('/') || text.contains('\0') {
                let message =
                    format!("workdir must be an absolute path, like `/srv`, found `{}`", start_of(text));
                self.note(node.place, message);
            }
            Some(text.to_owned())
        });
        let user = fields.get("user").and_then(|node| {
            let text = match &node.value {
                // A bare 1000 is no surprise; 1000:1000 needs no quotes in YAML 1.2.
                Value::Whole(number) if *number >= 0 => number.to_string(),
                _ => self.text(node, "user")?.to_owned(),
            };
            if text.is_empty() || text.len() > 64 || text.contains(|c: char| c.is_whitespace() || c == '\0') {
                let message = format!(
                    "user must be `name`, `uid` or `uid:gid`, like `1000:1000`, found `{}`",
                    start_of(&text)
                );
                self.note(node.place, message);
            }
            Some(text)
        });
        let resources = fields
            .get("resources")
            .map_or_else(|| Some(ResourcesGroup::default()), |node| self.resources(node));
        let ports = fields.get("ports").map(|node| self.ports(node)).unwrap_or_default();
        let policies = [
            ("always", RestartPolicy::Always),
            ("on-failure", RestartPolicy::OnFailure),
            ("never", RestartPolicy::Never),
        ];
        let policy = fields
            .get("restart")
            .map_or(Some(RestartPolicy::Always), |node| self.word(node, "restart", &policies));
        let labels = fields.get("labels").map(|node| self.labels(node, "labels")).unwrap_or_default();
        let mode = self.mode(&fields);
        let placement = self.placement(&fields);
        let update =
            fields.get("update").map_or_else(|| Some(UpdateGroup::default()), |node| self.update(node));
        let (mode, is_job) = (mode.unwrap_or_default(), mode.is_none() || fields.contains_key("job"));
        let job = is_job.then(|| self.job(&fields));
        let (count, policy) = match job {
            Some((completions, _)) => (Some(completions), Some(RestartPolicy::Never)),
            None => (count, policy),
        };
        let depends = fields.get("depends-on").map(|node| self.depends(node)).unwrap_or_default();
        if self.problems.len() > before {
            return None;
        }
        let (name, image) = (name?, image?);
        let deployment = Deployment {
            namespace: namespace.clone(),
            name: name.clone(),
            incarnation: EventId::from_bytes([0; 32]),
            image: ImageGroup {
                reference: image.reference.clone(),
                digest: image.digest.unwrap_or(Digest::from_bytes([0; 32])),
                command,
                args,
                workdir,
                user,
            },
            replicas: ReplicasGroup {
                count: count?,
                class: promise.class,
                mode,
                voters: promise.stand_ins(),
            },
            resources: resources?,
            env: EnvGroup { vars: env },
            ports: PortsGroup { ports },
            placement,
            restart: RestartGroup { policy: policy?, token: String::new() },
            meta: MetaGroup { labels },
            update: update?,
            depends,
            job: job.map(|(_, job)| job),
        };
        self.validate(&deployment, node, &fields)?;
        let voters = promise.voters;
        Some(Spec { namespace: namespace.clone(), name, image, voters, place: name_at, deployment })
    }

    /// The model has the last word on every range; what it says is put at the field's place.
    fn validate(
        &mut self,
        deployment: &Deployment,
        node: &Node,
        fields: &BTreeMap<&'static str, &Node>,
    ) -> Option<()> {
        let Err(error) = deployment.validate() else { return Some(()) };
        let place = match &error {
            GroupError::Invalid { field, .. } => {
                let (outer, inner) = field.split_once('.').unwrap_or((field, ""));
                fields.get(outer).map_or(node.place, |outer| {
                    inner.split('.').fold(*outer, |found, part| within(found, part).unwrap_or(found)).place
                })
            }
            _ => node.place,
        };
        self.note(place, error.to_string());
        None
    }

    fn replicas(&mut self, node: &Node) -> Option<u32> {
        if matches!(node.value, Value::Whole(0)) {
            self.note_with(
                node.place,
                "replicas must be at least 1, found 0",
                "to run none for a while use `skerry scale NAME=0`, to end it `skerry delete NAME`",
            );
            return None;
        }
        let count = self.whole(node, "replicas", 1, REPLICAS_MAX.into())?;
        u32::try_from(count).ok()
    }

    fn env(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut vars = self.table(node, "env", ENV_MAX, |key| {
            if key.is_empty() || key.contains(['=', '\0']) {
                Err(format!("`{}` is not a variable's name", start_of(key)))
            } else {
                Ok(key.to_owned())
            }
        });
        if let Some(key) = vars.iter().find(|(_, value)| value.contains('\0')).map(|(key, _)| key.clone()) {
            self.note(node.place, format!("env.{} holds a NUL character", start_of(&key)));
            vars.remove(&key);
        }
        vars
    }

    pub(super) fn amount(
        &mut self,
        node: &Node,
        what: &str,
        forms: &str,
        parse: impl Fn(&str) -> Result<u64, units::UnitError>,
    ) -> Option<u64> {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            other => {
                self.note(node.place, format!("{what} must be an amount, found {}: {forms}", other.found()));
                return None;
            }
        };
        parse(&text).map_err(|error| self.note(node.place, format!("{what}: {error}"))).ok()
    }

    fn ports(&mut self, node: &Node) -> Vec<Port> {
        let items = self.list(node, "ports", model::limits::PORTS_MAX);
        let mut ports: Vec<Port> = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            let what = format!("ports[{n}]");
            let port = match &item.value {
                Value::Text(text) => self.short_port(item.place, &what, text),
                Value::Map(_) => self.long_port(item, &what),
                other => {
                    self.note(
                        item.place,
                        format!(
                            "{what} must be \"HOST:CONTAINER\", like \"8080:80\", found {}",
                            other.found()
                        ),
                    );
                    None
                }
            };
            let Some(port) = port else { continue };
            if ports.iter().any(|other| other.host == port.host) {
                self.note(item.place, format!("{what}: host port {} is published twice", port.host));
            }
            ports.push(port);
        }
        ports
    }

    fn short_port(&mut self, place: Place, what: &str, text: &str) -> Option<Port> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let port = text.split_once(':').and_then(|(host, container)| {
            Some(Port { host: number(host)?, container: number(container)?, protocol: Protocol::Tcp })
        });
        if port.is_none() {
            self.note(
                place,
                format!(
                    "{what} must be \"HOST:CONTAINER\" with ports 1 to 65535, like \"8080:80\", found \"{}\"",
                    start_of(text)
                ),
            );
        }
        port
    }

    fn long_port(&mut self, node: &Node, what: &str) -> Option<Port> {
        let before = self.problems.len();
        let fields = self.fields(node, what, &PORT_FIELDS)?;
        let mut number = |field: &'static str| {
            if let Some(node) = fields.get(field) {
                return self.whole(node, &format!("{what}.{field}"), 1, u16::MAX.into());
            }
            if self.problems.len() == before {
                self.note(node.place, format!("{what} has no `{field}`"));
            }
            None
        };
        let (host, container) = (number("host"), number("container"));
        Some(Port {
            host: u16::try_from(host?).ok()?,
            container: u16::try_from(container?).ok()?,
            protocol: Protocol::Tcp,
        })
    }
}
