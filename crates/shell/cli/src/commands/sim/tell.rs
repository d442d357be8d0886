//! The answer of `sim cut`: as programs read it, and in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use model::{Name, ReplicaId};
use sim::whatif::{Answer, Heal, Island, Missing, Question};

use crate::out::span;
use crate::shapes::whatif::{
    WhatIf, WhatIfBefore, WhatIfHeal, WhatIfIsland, WhatIfMissing, WhatIfNode, WhatIfOn, WhatIfStopped,
    WhatIfTwice,
};

/// Names in one heading; more are counted.
const NAMES_SHOWN_MAX: usize = 6;

/// A replica as `ps` names it.
pub(super) fn replica(it: &ReplicaId) -> String {
    if it.namespace == Name::default_namespace() {
        format!("{}.{}", it.deployment, it.ordinal)
    } else {
        format!("{}/{}.{}", it.namespace, it.deployment, it.ordinal)
    }
}

pub(super) fn replicas(of: &[ReplicaId]) -> Vec<String> {
    of.iter().map(replica).collect()
}

/// The answer as programs read it.
pub(super) fn shape(question: &Question, answer: &Answer, cluster: Option<String>) -> WhatIf {
    let told = Told { question };
    let all: Vec<usize> = (0..question.machines.len()).collect();
    let before = &answer.before;
    let mut shape = WhatIf {
        summary: String::new(),
        cluster,
        lasts_s: question.lasts.as_secs_f64(),
        killed: question.killed.iter().map(|host| told.name(*host)).collect(),
        before: WhatIfBefore {
            wanted: before.wanted,
            running: count(&before.runs),
            nodes: told.nodes(&all, &before.runs, &[]),
            missing: told.missing(&before.missing),
        },
        islands: answer.islands.iter().map(|island| told.island(island)).collect(),
        twice: answer
            .twice
            .iter()
            .map(|it| WhatIfTwice {
                replica: replica(&it.replica),
                nodes: it.machines.iter().map(|host| told.name(*host)).collect(),
                lasted_s: it.lasted.as_secs_f64(),
            })
            .collect(),
        heal: answer.heal.as_ref().map(|heal| told.heal(heal, &all)),
    };
    shape.summary = summary(&shape);
    shape
}

/// How many replicas these machines run: one that several run counts once.
fn count(runs: &[Vec<ReplicaId>]) -> usize {
    runs.iter().flatten().collect::<std::collections::BTreeSet<_>>().len()
}

struct Told<'a> {
    question: &'a Question,
}

impl Told<'_> {
    fn name(&self, host: usize) -> String {
        self.question.machines[host].name.to_string()
    }

    fn nodes(&self, hosts: &[usize], runs: &[Vec<ReplicaId>], off: &[usize]) -> Vec<WhatIfNode> {
        let node = |(host, runs): (&usize, &Vec<ReplicaId>)| WhatIfNode {
            node: self.name(*host),
            on: !off.contains(host),
            runs: replicas(runs),
        };
        hosts.iter().zip(runs).map(node).collect()
    }

    fn missing(&self, missing: &[Missing]) -> Vec<WhatIfMissing> {
        let one = |it: &Missing| WhatIfMissing {
            replica: replica(&it.replica),
            nodes: it.reasons.iter().map(|(host, reason)| (self.name(*host), reason.clone())).collect(),
        };
        missing.iter().map(one).collect()
    }

    fn on(&self, of: &[(ReplicaId, usize)]) -> Vec<WhatIfOn> {
        of.iter().map(|(of, host)| WhatIfOn { replica: replica(of), node: self.name(*host) }).collect()
    }

    fn island(&self, island: &Island) -> WhatIfIsland {
        WhatIfIsland {
            nodes: self.nodes(&island.machines, &island.runs, &self.question.killed),
            running: count(&island.runs),
            settled_s: island.settled.map(|it| it.as_secs_f64()),
            started: self.on(&island.started),
            stopped: self.on(&island.stopped),
            missing: self.missing(&island.missing),
        }
    }

    fn heal(&self, heal: &Heal, all: &[usize]) -> WhatIfHeal {
        let stopped = heal.stopped.iter().map(|it| WhatIfStopped {
            replica: replica(&it.replica),
            node: self.name(it.machine),
            stays: it.stays.iter().map(|host| self.name(*host)).collect(),
            after_s: it.after.as_secs_f64(),
        });
        WhatIfHeal {
            agreed_s: heal.agreed.map(|it| it.as_secs_f64()),
            once_s: heal.once.map(|it| it.as_secs_f64()),
            stopped: stopped.collect(),
            started: self.on(&heal.started),
            nodes: self.nodes(all, &heal.runs, &self.question.killed),
            missing: self.missing(&heal.missing),
        }
    }
}

// --- Words.

/// Seconds as people say them: tenths below a minute.
pub(super) fn seconds(of: f64) -> String {
    let of = Duration::try_from_secs_f64(of).unwrap_or_default();
    if of < Duration::from_secs(60) { format!("{:.1}s", of.as_secs_f64()) } else { span(of.as_secs()) }
}

fn names(nodes: &[&str]) -> String {
    let shown = nodes[..nodes.len().min(NAMES_SHOWN_MAX)].join(",");
    if nodes.len() > NAMES_SHOWN_MAX {
        format!("{shown} and {} more", nodes.len() - NAMES_SHOWN_MAX)
    } else {
        shown
    }
}

/// The names of an island: those without power are named only where there is no other.
fn of_island(island: &WhatIfIsland) -> String {
    let on = island.nodes.iter().filter(|it| it.on);
    let shown: Vec<&str> = match on.clone().next() {
        Some(_) => on.map(|it| it.node.as_str()).collect(),
        None => island.nodes.iter().map(|it| it.node.as_str()).collect(),
    };
    names(&shown)
}

fn summary(it: &WhatIf) -> String {
    let wanted = it.before.wanted;
    let islands: Vec<String> = it
        .islands
        .iter()
        .enumerate()
        .map(|(n, island)| {
            let runs = if n == 0 {
                format!(" runs {} of {wanted} replicas", island.running)
            } else {
                format!(" {} of {wanted}", island.running)
            };
            format!("{}{runs}", of_island(island))
        })
        .collect();
    let mut text = islands.join(", ");
    if !it.killed.is_empty() {
        let killed: Vec<&str> = it.killed.iter().map(String::as_str).collect();
        let verb = if killed.len() == 1 { "has" } else { "have" };
        write!(text, "; {} {verb} no power", names(&killed)).expect("a text takes every line");
    }
    let twice = it.twice.iter().filter(|it| it.nodes.len() > 1);
    match twice.clone().count() {
        0 => text.push_str("; nothing runs twice"),
        count => {
            let longest = twice.map(|it| it.lasted_s).fold(0.0, f64::max);
            let verb = if count == 1 { "runs" } else { "run" };
            write!(text, "; {count} {verb} twice for up to {}", seconds(longest))
                .expect("a text takes every line");
        }
    }
    match &it.heal {
        None => {}
        Some(WhatIfHeal { once_s: Some(once), stopped, started, .. }) => {
            write!(
                text,
                "; the heal stops {} and starts {} in {}",
                stopped.len(),
                started.len(),
                seconds(*once)
            )
            .expect("a text takes every line");
        }
        Some(_) => text.push_str("; the heal comes to no rest"),
    }
    text
}

/// The answer in words, for people.
pub(super) fn words(it: &WhatIf) -> String {
    let mut lines = vec![it.summary.clone(), String::new()];
    let wanted = it.before.wanted;
    lines.push(format!("Before: {} of {wanted} replicas", it.before.running));
    node_lines(&mut lines, &it.before.nodes);
    missing_lines(&mut lines, &it.before.missing);
    for island in &it.islands {
        let alone = if island.nodes.iter().filter(|it| it.on).count() == 1 { ", alone" } else { "" };
        let moved = match island.settled_s {
            None => "nothing moves".to_owned(),
            Some(settled) => format!(
                "{} started, {} stopped, at rest after {}",
                island.started.len(),
                island.stopped.len(),
                seconds(settled)
            ),
        };
        let runs = format!("{} of {wanted} replicas", island.running);
        lines.push(format!("\nIsland {}{alone}: {runs}; {moved}", of_island(island)));
        let on: Vec<WhatIfNode> = island.nodes.iter().filter(|it| it.on).cloned().collect();
        node_lines(&mut lines, if on.is_empty() { &island.nodes } else { &on });
        missing_lines(&mut lines, &island.missing);
    }
    if !it.twice.is_empty() {
        lines.push("\nRuns twice".to_owned());
        let mut grouped: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
        for one in &it.twice {
            grouped.entry((one.nodes.clone(), seconds(one.lasted_s))).or_default().push(one.replica.clone());
        }
        for ((nodes, lasted), replicas) in grouped {
            lines.push(format!("  {}  on {} for {lasted}", compressed(&replicas), nodes.join(" and ")));
        }
    }
    if let Some(heal) = &it.heal {
        heal_lines(&mut lines, heal);
    }
    lines.join("\n")
}

fn node_lines(lines: &mut Vec<String>, nodes: &[WhatIfNode]) {
    let width = nodes.iter().map(|it| it.node.chars().count()).max().unwrap_or(0);
    for it in nodes {
        let runs = match (it.on, it.runs.is_empty()) {
            (false, _) => "no power".to_owned(),
            (true, true) => "nothing".to_owned(),
            (true, false) => compressed(&it.runs),
        };
        lines.push(format!("  {:width$}  {runs}", it.node));
    }
}

/// Replicas without a place; those that every node refuses for the same reason are said once.
fn missing_lines(lines: &mut Vec<String>, missing: &[WhatIfMissing]) {
    let mut grouped: Vec<(&BTreeMap<String, String>, Vec<String>)> = Vec::new();
    for it in missing {
        match grouped.iter_mut().find(|(reasons, _)| **reasons == it.nodes) {
            Some((_, replicas)) => replicas.push(it.replica.clone()),
            None => grouped.push((&it.nodes, vec![it.replica.clone()])),
        }
    }
    for (reasons, replicas) in grouped {
        lines.push(format!("  without a place: {}", compressed(&replicas)));
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (node, reason) in reasons {
            by_reason.entry(reason).or_default().push(node);
        }
        for (reason, nodes) in by_reason {
            lines.push(format!("    {}: {reason}", names(&nodes)));
        }
    }
}

fn heal_lines(lines: &mut Vec<String>, heal: &WhatIfHeal) {
    let agreed = match heal.agreed_s {
        Some(agreed) => format!("all agree after {}", seconds(agreed)),
        None => "the peers do not come to agree".to_owned(),
    };
    let once = match heal.once_s {
        Some(once) => format!("one of each after {}", seconds(once)),
        None => "it comes to no rest".to_owned(),
    };
    lines.push(format!(
        "\nThe heal: {agreed}, {once}; {} stop, {} start",
        heal.stopped.len(),
        heal.started.len()
    ));
    let mut stops: BTreeMap<_, Vec<&WhatIfStopped>> = BTreeMap::new();
    for it in &heal.stopped {
        stops.entry((&it.node, it.stays.as_slice())).or_default().push(it);
    }
    for ((node, stays), stopped) in stops {
        let replicas: Vec<String> = stopped.iter().map(|it| it.replica.clone()).collect();
        let last = stopped.iter().map(|it| it.after_s).fold(0.0, f64::max);
        let stays = if stays.is_empty() { "nowhere".to_owned() } else { stays.join(" and ") };
        lines.push(format!(
            "  {node} stops {} by {}; stays on {stays}",
            compressed(&replicas),
            seconds(last)
        ));
    }
    let mut starts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in &heal.started {
        starts.entry(&it.node).or_default().push(it.replica.clone());
    }
    for (node, replicas) in starts {
        lines.push(format!("  {node} starts {}", compressed(&replicas)));
    }
    lines.push("Afterwards".to_owned());
    node_lines(lines, &heal.nodes);
    missing_lines(lines, &heal.missing);
}

/// Replicas, three and more neighbouring ones of a deployment as `web.0-2`.
pub(super) fn compressed(replicas: &[String]) -> String {
    let mut of: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for it in replicas {
        // Every name was made by `replica`.
        if let Some((name, ordinal)) = it.rsplit_once('.') {
            of.entry(name).or_default().extend(ordinal.parse::<u32>());
        }
    }
    let mut words = Vec::new();
    for (name, mut ordinals) in of {
        ordinals.sort_unstable();
        for run in ordinals.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [first, _, .., last] => words.push(format!("{name}.{first}-{last}")),
                few => words.extend(few.iter().map(|ordinal| format!("{name}.{ordinal}"))),
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_replicas_are_said_as_a_range() {
        let list = |of: &[&str]| of.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            compressed(&list(&["web.2", "web.0", "web.1", "web.5", "db.0", "db.1"])),
            "db.0 db.1 web.0-2 web.5"
        );
        assert_eq!(compressed(&list(&["shop/web.10", "shop/web.9", "shop/web.11"])), "shop/web.9-11");
        assert_eq!(compressed(&[]), "");
    }

    #[test]
    fn seconds_have_tenths_below_a_minute() {
        assert_eq!((seconds(1.24).as_str(), seconds(59.0).as_str()), ("1.2s", "59.0s"));
        assert_eq!((seconds(7_199.9).as_str(), seconds(60.0).as_str()), ("1h59m", "1m"));
    }
}
