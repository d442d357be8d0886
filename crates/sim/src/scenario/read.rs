//! Text becomes a scenario, or an error that says where and what would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use model::{Capacity, LabelKey, Name};
use toml::Spanned;

use super::act::{Act, Expectation, Step};
use super::raw::{self, Nodes, Text};
use super::steps::{extras, labels};
use crate::faults::User;
use crate::world::Settings;

/// Nodes of a scenario: a transcript of more is not read by people.
const NODES_MAX: usize = 20;

/// The longest scenario: an hour of virtual time takes seconds, and an hour of trouble needs some time
/// before and after.
const SPAN_MAX: Duration = Duration::from_secs(2 * 3_600);

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
    /// Nodes that are no members before they join.
    pub outside: BTreeSet<usize>,
    /// What single machines offer and how they are labelled, where that differs.
    pub machines: BTreeMap<usize, Machine>,
    /// What is done and expected, by time.
    pub steps: Vec<Step>,
    /// The file that it was read from.
    pub file: String,
}

/// One machine, where it differs from the others.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it offers.
    pub offers: Capacity,
    /// Its labels.
    pub labels: BTreeMap<LabelKey, String>,
}

pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    nodes: usize,
    /// What each node offers.
    pub(super) capacity: Capacity,
}

/// Where, what is wrong, and what would be right.
pub(super) type Fault = (Range<usize>, String, Option<String>);

pub(super) fn fault<T>(
    span: Range<usize>,
    problem: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, Fault> {
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
        let capacity = Settings::default().capacity;
        let mut reader = Reader { file, text, nodes: 0, capacity };
        let raw: raw::File = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
        reader.scenario(raw).map_err(|fault| reader.error(fault))
    }
}

impl Reader<'_> {
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
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
        if let Some(loss) = &raw.world.loss_permille {
            settings.loss = permille(loss)?;
        }
        if let Some(start) = &raw.world.start {
            settings.start = span_of(start)?;
        }
        settings.capacity = self.capacity(raw.world.cpu_m, raw.world.memory_mib);
        self.capacity = settings.capacity.clone();
        let outside: BTreeSet<usize> = self.some(&raw.world.outside)?.into_iter().collect();
        if let Some(first) = raw.world.outside.iter().find(|node| node.get_ref() == "n1") {
            return fault(first.span(), "n1 founds the cluster", "name others");
        }
        let mut machines = BTreeMap::new();
        for (node, it) in &raw.world.node {
            let mut offers = self.capacity(it.cpu_m, it.memory_mib);
            offers.extras = extras(&it.extras)?;
            machines.insert(self.node(node)?, Machine { offers, labels: labels(&it.labels)? });
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut free = Duration::ZERO;
        for step in raw.step {
            let span = step.span();
            let step = self.step(step.get_ref(), span.clone())?;
            if step.at < free {
                let problem =
                    format!("this step begins at {:?}, when those before it may still run", step.at);
                return fault(span, problem, format!("begin at {free:?} or later"));
            }
            free = match &step.act {
                Act::Expect(Expectation { within, holds, .. }) => step.at + *within + *holds,
                _ => step.at,
            };
            let end = match &step.act {
                Act::Watch(_, until) => *until,
                Act::Flap(flap) => step.at + flap.lasts,
                Act::Edits(.., count, every) => step.at + *every * *count,
                _ => free,
            };
            if end > SPAN_MAX {
                return fault(span, format!("this step ends at {end:?}"), format!("end by {SPAN_MAX:?}"));
            }
            steps.push(step);
        }
        if !steps.iter().any(|step| matches!(step.act, Act::Expect(_))) {
            return fault(0..0, "nothing is expected", "add a step with `expect`");
        }
        let switched_off = raw.world.switched_off;
        let file = self.file.to_owned();
        let (nodes, seed) = (self.nodes, raw.seed);
        Ok(Scenario { story, nodes, seed, settings, switched_off, outside, machines, steps, file })
    }

    pub(super) fn node(&self, text: &Text) -> Result<usize, Fault> {
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

    pub(super) fn some(&self, nodes: &Nodes) -> Result<Vec<usize>, Fault> {
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
    pub(super) fn on(&self, nodes: Option<&Nodes>) -> Result<Vec<usize>, Fault> {
        nodes.map_or_else(|| Ok((0..self.nodes).collect()), |nodes| self.some(nodes))
    }

    /// Groups that hold every node once.
    pub(super) fn groups(&self, groups: &[Nodes], span: &Range<usize>) -> Result<Vec<Vec<usize>>, Fault> {
        let flat: Nodes = groups.iter().flatten().cloned().collect();
        if self.some(&flat)?.len() != self.nodes {
            return fault(span.clone(), "a node is in no group of the split", "name every node in one group");
        }
        groups.iter().map(|group| self.some(group)).collect()
    }
}

pub(super) fn name(text: &Text) -> Result<Name, Fault> {
    text.get_ref().parse().map_err(|error: model::NameError| (text.span(), error.to_string(), None))
}

/// A share in thousandths.
pub(super) fn permille(number: &Spanned<u32>) -> Result<u32, Fault> {
    match *number.get_ref() {
        it if it <= 1_000 => Ok(it),
        it => fault(number.span(), format!("{it} thousandths lost"), "use 0 to 1000"),
    }
}

pub(super) fn user(text: Option<&Text>) -> Result<User, Fault> {
    let Some(text) = text else { return Ok(User::Alice) };
    match text.get_ref().as_str() {
        "alice" => Ok(User::Alice),
        "bob" => Ok(User::Bob),
        other => fault(text.span(), format!("there is no user `{other}`"), "use `alice` or `bob`"),
    }
}

/// A span like `10s`, `500ms`, `2m`.
pub(super) fn span_of(text: &Text) -> Result<Duration, Fault> {
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
