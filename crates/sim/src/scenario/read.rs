//! Text becomes a scenario, or an error that says where and what would be right.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use model::{Class, EnvGroup, Name, ReplicasGroup, ResourcesGroup};

use super::condition::Condition;
use super::raw::{self, Nodes, Text};
use crate::author::Spec;
use crate::faults::User;
use crate::world::Settings;

/// Nodes of a scenario: a transcript of more is not read by people.
const NODES_MAX: usize = 20;

/// The longest scenario: an hour of virtual time takes seconds.
const SPAN_MAX: Duration = Duration::from_secs(3_600);

/// How alike two words must be for one to be meant by the other, in letters.
const ALIKE: usize = 3;

/// A scenario file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct ReadError {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// A story that a person wrote. Nodes are counted from 0.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is about, in a line.
    pub story: String,
    /// Machines.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
    /// The world.
    pub settings: Settings,
    /// Whether nodes run only once they are started.
    pub switched_off: bool,
    /// What is done and expected, by time.
    pub steps: Vec<Step>,
    /// The file that it was read from.
    pub file: String,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub act: Act,
    /// Where it is written.
    pub line: usize,
}

/// What is done, or expected.
#[derive(Clone, Debug)]
pub enum Act {
    /// Apply a whole deployment.
    Deploy(User, usize, Name, Box<Spec>),
    /// Set some groups of one: group and JSON.
    Set(User, usize, Name, Vec<(&'static str, String)>),
    /// Make all replicas anew.
    Restart(User, usize, Name),
    /// Delete one.
    Delete(User, usize, Name),
    /// Remove the second node through the first.
    RemoveNode(usize, usize),
    /// Let nothing pass between groups.
    Split(Vec<Vec<usize>>),
    /// Let nothing pass from the first to the second.
    OneWay(usize, usize),
    /// Let nothing pass between any of the first and any of the second.
    Bridge(Vec<usize>, Vec<usize>),
    /// Let everything pass.
    Heal,
    /// Cut the power.
    PowerOff(Vec<usize>),
    /// Kill peers.
    StopPeer(Vec<usize>),
    /// Switch machines on, or start their peers.
    Start(Vec<usize>),
    /// Fill disks, or free them.
    DiskFull(Vec<usize>, bool),
    /// Remember what runs, for `undisturbed`.
    Remember,
    /// Something must come true, and stay so.
    Expect(Expectation),
}

/// Something that must come true.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What.
    pub condition: Condition,
    /// How long it may take.
    pub within: Duration,
    /// How long it must stay so from then on.
    pub holds: Duration,
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    nodes: usize,
}

type Fault = (Range<usize>, String, Option<String>);

fn fault<T>(span: Range<usize>, problem: impl Into<String>, hint: impl Into<String>) -> Result<T, Fault> {
    Err((span, problem.into(), Some(hint.into())))
}

/// The word that was probably meant.
fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let by_distance = words.into_iter().map(|it| (strsim::damerau_levenshtein(word, it), it));
    by_distance.min().filter(|(distance, _)| *distance <= ALIKE).map(|(_, it)| it)
}

impl Scenario {
    /// Reads a scenario. `file` is named in errors.
    ///
    /// # Errors
    /// Where the text is not a scenario: the first place, what is wrong there, and a hint.
    pub fn read(file: &str, text: &str) -> Result<Self, ReadError> {
        let mut reader = Reader { file, text, nodes: 0 };
        let raw: raw::File = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
        reader.scenario(raw).map_err(|fault| reader.error(fault))
    }
}

impl Reader<'_> {
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn error(&self, (span, problem, hint): Fault) -> ReadError {
        let (line, column) = self.place(span.start);
        ReadError { file: self.file.to_owned(), line, column, problem, hint }
    }

    /// What the TOML reader found; a misspelt key gets the one that was meant.
    fn syntax(&self, error: &toml::de::Error) -> ReadError {
        let message = error.message().trim().replace('\n', " ");
        let mut quoted = message.split('`').skip(1).step_by(2);
        let hint = message
            .starts_with("unknown field")
            .then(|| quoted.next())
            .flatten()
            .and_then(|word| nearest(word, quoted).map(|meant| format!("did you mean `{meant}`?")));
        self.error((error.span().unwrap_or(0..0), message, hint))
    }

    fn scenario(&mut self, raw: raw::File) -> Result<Scenario, Fault> {
        self.nodes = *raw.nodes.get_ref();
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return fault(raw.nodes.span(), format!("{} nodes", self.nodes), format!("use 1 to {NODES_MAX}"));
        }
        let story = raw.story.get_ref().trim().to_owned();
        if story.is_empty() || story.contains('\n') {
            return fault(raw.story.span(), "the story is not told", "say in one line what happens");
        }
        let mut settings = Settings::default();
        if let Some([low, high]) = &raw.world.latency {
            settings.latency = (span_of(low)?, span_of(high)?);
            if settings.latency.0 > settings.latency.1 {
                return fault(
                    low.span(),
                    "the shortest latency is longer than the longest",
                    "turn them round",
                );
            }
        }
        if let Some(loss) = raw.world.loss_permille {
            settings.loss = *loss.get_ref();
            if settings.loss > 1_000 {
                return fault(loss.span(), format!("{} thousandths lost", settings.loss), "use 0 to 1000");
            }
        }
        if let Some(start) = &raw.world.start {
            settings.start = span_of(start)?;
        }
        settings.capacity.cpu_m = raw.world.cpu_m.unwrap_or(settings.capacity.cpu_m);
        if let Some(mib) = raw.world.memory_mib {
            settings.capacity.memory_b = mib.saturating_mul(1 << 20);
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut free = Duration::ZERO;
        for step in raw.step {
            let span = step.span();
            let step = self.step(step.into_inner(), span.clone())?;
            if step.at < free {
                let problem =
                    format!("this step begins at {:?}, when those before it may still run", step.at);
                return fault(span, problem, format!("begin at {free:?} or later"));
            }
            free = match &step.act {
                Act::Expect(Expectation { within, holds, .. }) => step.at + *within + *holds,
                _ => step.at,
            };
            if free > SPAN_MAX {
                return fault(span, format!("this step ends at {free:?}"), format!("end by {SPAN_MAX:?}"));
            }
            steps.push(step);
        }
        if !steps.iter().any(|step| matches!(step.act, Act::Expect(_))) {
            return fault(0..0, "nothing is expected", "add a step with `expect`");
        }
        let switched_off = raw.world.switched_off;
        let file = self.file.to_owned();
        Ok(Scenario { story, nodes: self.nodes, seed: raw.seed, settings, switched_off, steps, file })
    }

    fn step(&self, raw: raw::Step, span: Range<usize>) -> Result<Step, Fault> {
        let at = span_of(&raw.at)?;
        let (line, _) = self.place(span.start);
        let mut acts = Vec::new();
        if let Some(it) = raw.deploy {
            acts.push(self.deploy(it)?);
        }
        if let Some(it) = raw.set {
            acts.push(self.set(it)?);
        }
        if let Some(it) = raw.scale {
            let group = ReplicasGroup { count: *it.replicas.get_ref(), class: Class::Available };
            let (user, host, of) = (user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?);
            acts.push(Act::Set(user, host, of, vec![("replicas", json(&group))]));
        }
        if let Some(it) = raw.restart {
            acts.push(Act::Restart(user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?));
        }
        if let Some(it) = raw.delete {
            acts.push(Act::Delete(user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?));
        }
        if let Some(it) = raw.remove_node {
            acts.push(Act::RemoveNode(self.node(&it.through)?, self.node(&it.node)?));
        }
        if let Some(groups) = raw.split {
            acts.push(Act::Split(self.groups(&groups, &span)?));
        }
        if let Some(it) = raw.one_way {
            acts.push(Act::OneWay(self.node(&it.from)?, self.node(&it.to)?));
        }
        if let Some(it) = raw.bridge {
            let [a, b] = it.between;
            acts.push(Act::Bridge(self.some(&a)?, self.some(&b)?));
        }
        for (flag, act) in [(raw.heal, Act::Heal), (raw.remember, Act::Remember)] {
            if let Some(flag) = flag {
                if !flag.get_ref() {
                    return fault(flag.span(), "`false` does nothing", "write `true`, or leave the step out");
                }
                acts.push(act);
            }
        }
        if let Some(nodes) = raw.power_off {
            acts.push(Act::PowerOff(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.stop_peer {
            acts.push(Act::StopPeer(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.start {
            acts.push(Act::Start(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.disk_full {
            acts.push(Act::DiskFull(self.some(&nodes)?, true));
        }
        if let Some(nodes) = raw.disk_free {
            acts.push(Act::DiskFull(self.some(&nodes)?, false));
        }
        if let Some(it) = raw.expect {
            acts.push(Act::Expect(self.expect(it, &span)?));
        }
        let count = acts.len();
        match acts.pop() {
            Some(act) if count == 1 => Ok(Step { at, act, line }),
            _ => fault(span, format!("this step does {count} things"), "a step does one, like `heal = true`"),
        }
    }

    fn deploy(&self, raw: raw::Deploy) -> Result<Act, Fault> {
        let mut spec = Spec::new(*raw.replicas.get_ref());
        spec.resources = resources(raw.cpu_m, raw.memory_mib);
        spec.env = EnvGroup { vars: raw.env };
        let act = (user(raw.by.as_ref())?, self.node(&raw.through)?, name(&raw.name)?);
        Ok(Act::Deploy(act.0, act.1, act.2, Box::new(spec)))
    }

    fn set(&self, raw: raw::Set) -> Result<Act, Fault> {
        let mut groups = Vec::new();
        if raw.cpu_m.is_some() || raw.memory_mib.is_some() {
            groups.push(("resources", json(&resources(raw.cpu_m, raw.memory_mib))));
        }
        if let Some(vars) = raw.env {
            groups.push(("env", json(&EnvGroup { vars })));
        }
        if groups.is_empty() {
            return fault(raw.name.span(), "nothing is set", "give `env`, `cpu_m` or `memory_mib`");
        }
        Ok(Act::Set(user(raw.by.as_ref())?, self.node(&raw.through)?, name(&raw.name)?, groups))
    }

    fn expect(&self, raw: raw::Expect, span: &Range<usize>) -> Result<Expectation, Fault> {
        let within = span_of(&raw.within)?;
        let holds = raw.holds.as_ref().map_or(Ok(Duration::ZERO), span_of)?;
        let mut conditions = Vec::new();
        if let Some(it) = raw.runs_once {
            conditions.push(Condition::RunsOnce(name(&it.name)?, it.replicas, self.on(it.on.as_ref())?));
        }
        if let Some(it) = raw.gone {
            conditions.push(Condition::Gone(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = raw.updated {
            conditions.push(Condition::Updated(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = raw.runs_with {
            conditions.push(Condition::RunsWith(name(&it.name)?, it.env, self.on(it.on.as_ref())?));
        }
        if let Some(it) = raw.conflicts {
            conditions.push(Condition::Conflicts(name(&it.name)?, it.count, self.on(it.on.as_ref())?));
        }
        if let Some(nodes) = raw.agreed {
            conditions.push(Condition::Agreed(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.level {
            conditions.push(Condition::Level(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.all_up {
            conditions.push(Condition::AllUp(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.undisturbed {
            conditions.push(Condition::Undisturbed(self.some(&nodes)?));
        }
        if let Some(nodes) = raw.removed {
            conditions.push(Condition::Removed(self.some(&nodes)?));
        }
        if let Some(it) = raw.accepted {
            conditions.push(Condition::Accepted(it.disks));
        }
        if let Some(it) = raw.refused {
            conditions.push(Condition::Refused(it.into_inner()));
        }
        let count = conditions.len();
        match conditions.pop() {
            Some(condition) if count == 1 => Ok(Expectation { condition, within, holds }),
            _ => fault(
                span.clone(),
                format!("{count} conditions are expected at once"),
                "a step expects one, like `agreed = [\"n1\", \"n2\"]`",
            ),
        }
    }

    fn node(&self, text: &Text) -> Result<usize, Fault> {
        let number = text.get_ref().strip_prefix('n').and_then(|digits| digits.parse::<usize>().ok());
        match number {
            Some(number) if (1..=self.nodes).contains(&number) => Ok(number - 1),
            _ => fault(
                text.span(),
                format!("there is no node `{}`", text.get_ref()),
                format!("this scenario has n1 to n{}", self.nodes),
            ),
        }
    }

    fn some(&self, nodes: &Nodes) -> Result<Vec<usize>, Fault> {
        let mut hosts: Vec<usize> = Vec::new();
        for node in nodes {
            let host = self.node(node)?;
            if hosts.contains(&host) {
                return fault(
                    node.span(),
                    format!("`{}` is named twice", node.get_ref()),
                    "name each node once",
                );
            }
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// Nodes that are named, or all.
    fn on(&self, nodes: Option<&Nodes>) -> Result<Vec<usize>, Fault> {
        nodes.map_or_else(|| Ok((0..self.nodes).collect()), |nodes| self.some(nodes))
    }

    /// Groups that hold every node once.
    fn groups(&self, groups: &[Nodes], span: &Range<usize>) -> Result<Vec<Vec<usize>>, Fault> {
        let flat: Nodes = groups.iter().flatten().cloned().collect();
        if self.some(&flat)?.len() != self.nodes {
            return fault(span.clone(), "a node is in no group of the split", "name every node in one group");
        }
        groups.iter().map(|group| self.some(group)).collect()
    }
}

fn json<T: serde::Serialize>(group: &T) -> String {
    serde_json::to_string(group).expect("groups are maps with text keys")
}

fn resources(cpu_m: Option<u64>, memory_mib: Option<u64>) -> ResourcesGroup {
    let usual = ResourcesGroup::default();
    let memory_b = memory_mib.map_or(usual.memory_b, |mib| mib.saturating_mul(1 << 20));
    ResourcesGroup { cpu_m: cpu_m.unwrap_or(usual.cpu_m), memory_b, ..usual }
}

fn name(text: &Text) -> Result<Name, Fault> {
    text.get_ref().parse().map_err(|error: model::NameError| (text.span(), error.to_string(), None))
}

fn user(text: Option<&Text>) -> Result<User, Fault> {
    let Some(text) = text else { return Ok(User::Alice) };
    match text.get_ref().as_str() {
        "alice" => Ok(User::Alice),
        "bob" => Ok(User::Bob),
        other => fault(text.span(), format!("there is no user `{other}`"), "use `alice` or `bob`"),
    }
}

/// A span like `10s`, `500ms`, `2m`.
fn span_of(text: &Text) -> Result<Duration, Fault> {
    let word = text.get_ref();
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let units: BTreeMap<&str, u64> =
        BTreeMap::from([("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000)]);
    let (number, unit) = word.split_at(digits);
    let micros = number.parse::<u64>().ok().zip(units.get(unit)).and_then(|(n, unit)| n.checked_mul(*unit));
    match micros.map(Duration::from_micros) {
        Some(span) if span <= SPAN_MAX => Ok(span),
        Some(_) => fault(text.span(), format!("`{word}` is too long"), format!("use at most {SPAN_MAX:?}")),
        None => fault(text.span(), format!("`{word}` is no span of time"), "write `10s`, `500ms` or `2m`"),
    }
}
