//! A story as a scenario file: what people read, keep and take further.
//!
//! Each step of a story that the form of scenarios has words for becomes one; every other is a comment
//! in its place, and so is what of the world has no key there. A story skips a step that cannot be
//! taken, a scenario ends there: so this is for stories that were shrunk, in which every step counts.

use std::fmt::Write as _;
use std::time::Duration;

use model::{DependsGroup, EnvGroup, ReplicasGroup, ResourcesGroup, RestartPolicy, Terms};

use super::action::{Action, Cuts};
use super::draw::{Ending, Shape, Step, Story};
use super::work::Offer;
use crate::author::Spec;
use crate::doom::Program;
use crate::faults::User;
use crate::short::Shortage;

/// How long after calm the peers of a scenario that was a story must agree: the checks of a story
/// give documents six seconds, and plans ten more.
const AGREED_WITHIN: Duration = Duration::from_secs(16);

impl Story {
    /// The steps, each with its time from the beginning, as a scenario would say them.
    pub fn steps_in_words(&self) -> Vec<String> {
        let mut off = vec![false; self.nodes];
        let word = |(at, step): (Duration, &Step)| {
            let said = said(&step.action, &off).join("; ");
            note_switches(&step.action, &mut off);
            format!("{:>9} {said}", seconds(at))
        };
        self.steps_in_time().map(word).collect()
    }

    /// How programs end by themselves, and what machines make of what they have, a line each.
    pub fn work_in_words(&self) -> Vec<String> {
        let program = |it: &Program| {
            format!(
                "programs of {} run {:?} to {:?}; of 1000 {} end badly, {} run for ever",
                it.of, it.runs.0, it.runs.1, it.fails, it.endless
            )
        };
        let offer = |(host, it): (usize, &Offer)| {
            let Terms { reserved_cpu_m, reserved_memory_b, cpu_percent, memory_percent } = it.terms;
            format!(
                "n{} keeps {reserved_cpu_m}m cpu and {} MiB, offers {cpu_percent} % of the other cpu and \
                 {memory_percent} % of the memory, and has {}",
                host + 1,
                reserved_memory_b >> 20,
                if it.extras.is_empty() { "nothing counted".to_owned() } else { it.extras.to_string() }
            )
        };
        let offers = self.offers.iter().enumerate().filter(|(_, it)| **it != Offer::default());
        self.settings.programs.iter().map(program).chain(offers.map(offer)).collect()
    }

    fn steps_in_time(&self) -> impl Iterator<Item = (Duration, &Step)> {
        self.steps.iter().scan(Duration::ZERO, |at, step| {
            *at += step.after;
            Some((*at, step))
        })
    }

    /// The story as the text of a scenario file; `what` is its story line.
    pub fn scenario(&self, what: &str) -> String {
        let mut text = format!("# Drawn from seed {}.\n", self.seed);
        let mut put = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let settings = &self.settings;
        put(format!(
            "# The world of the story also had: a sync of {:?}, stops of {:?} to {:?},",
            settings.sync, settings.stop.0, settings.stop.1
        ));
        put(format!(
            "# {} of 1000 starts that fail, clocks off by {:?} ms, {:?}.",
            settings.start_failures, self.skews_ms, settings.odds
        ));
        self.work_in_words().into_iter().for_each(|line| put(format!("# {line}.")));
        if let Some(host) = self.rogue {
            put(format!("# From the beginning n{} was a rogue.", host + 1));
        }
        if let Ending::Core(core, _, Shape::Line) = &self.ending {
            put(format!("# In the end each reached its neighbours only in the line {}.", nodes(core)));
        }
        if let Ending::Core(_, outside, _) = &self.ending {
            let outside: Vec<String> =
                outside.iter().map(|(host, how)| format!("n{} {how:?}", host + 1)).collect();
            put(format!("# In the end these stayed broken for good: {}.", outside.join(", ")));
        }
        let line: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        put(format!("story = {}\nnodes = {}\nseed = {}\n", quoted(line.trim()), self.nodes, self.seed));
        put("[world]".to_owned());
        put(format!("latency = [{}, {}]", span(settings.latency.0), span(settings.latency.1)));
        put(format!("loss_permille = {}", settings.loss));
        put(format!("start = {}", span(settings.start)));
        put(format!("cpu_m = {}", settings.capacity.cpu_m));
        put(format!("memory_mib = {}", settings.capacity.memory_b >> 20));
        let mut off = vec![false; self.nodes];
        let mut end = Duration::ZERO;
        for (at, step) in self.steps_in_time() {
            end = at;
            for said in said(&step.action, &off) {
                if said.starts_with('#') {
                    put(format!("\n# at {}: {}", seconds(at), said.trim_start_matches(['#', ' '])));
                } else {
                    put(format!("\n[[step]]\nat = {}\n{said}", span(at)));
                }
            }
            note_switches(&step.action, &mut off);
        }
        put(format!("\n[[step]]\nat = {}\nheal = true", span(end)));
        let off: Vec<usize> = (0..self.nodes).filter(|host| off[*host]).collect();
        if !off.is_empty() {
            put(format!("\n[[step]]\nat = {}\nstart = {}", span(end), nodes(&off)));
        }
        let all: Vec<usize> = (0..self.nodes).collect();
        put(format!(
            "\n[[step]]\nat = {}\nexpect = {{ agreed = {}, within = {} }}",
            span(end),
            nodes(&all),
            span(AGREED_WITHIN)
        ));
        text
    }
}

/// Which machines, or their peers, are off after a step.
fn note_switches(action: &Action, off: &mut [bool]) {
    match action {
        Action::PowerOff(host) | Action::KillPeer(host) => off[*host] = true,
        Action::Start(host) => off[*host] = false,
        Action::Blackout => off.fill(true),
        Action::StartAll => off.fill(false),
        _ => {}
    }
}

/// A span in the units of scenario files, exactly.
fn span(it: Duration) -> String {
    let micros = it.as_micros();
    match micros {
        0 => "\"0ms\"".to_owned(),
        _ if micros.is_multiple_of(1_000_000) => format!("\"{}s\"", micros / 1_000_000),
        _ if micros.is_multiple_of(1_000) => format!("\"{}ms\"", micros / 1_000),
        _ => format!("\"{micros}us\""),
    }
}

fn seconds(at: Duration) -> String {
    format!("{}.{:03}s", at.as_secs(), at.subsec_millis())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn node(host: usize) -> String {
    format!("\"n{}\"", host + 1)
}

fn nodes(hosts: &[usize]) -> String {
    let names: Vec<String> = hosts.iter().map(|host| node(*host)).collect();
    format!("[{}]", names.join(", "))
}

fn by(user: User) -> String {
    format!("by = \"{}\"", user.name())
}

fn removal(through: usize, gone: usize) -> String {
    format!("remove_node = {{ node = {}, through = {} }}", node(gone), node(through))
}

/// What a set of one group is in a scenario, if it has a key for it.
fn set(group: &str, json: &str) -> Option<(&'static str, String)> {
    match group {
        "replicas" => {
            let group: ReplicasGroup = serde_json::from_str(json).ok()?;
            Some(("scale", format!("replicas = {}", group.count)))
        }
        "env" => {
            let group: EnvGroup = serde_json::from_str(json).ok()?;
            let vars: Vec<String> =
                group.vars.iter().map(|(key, value)| format!("{key} = {}", quoted(value))).collect();
            Some(("set", format!("env = {{ {} }}", vars.join(", "))))
        }
        "resources" => {
            let group: ResourcesGroup = serde_json::from_str(json).ok()?;
            let is_all = group.extras.is_empty() && group.limits.is_empty();
            is_all.then(|| ("set", resources(&group)))
        }
        "depends-on" => {
            let group: DependsGroup = serde_json::from_str(json).ok()?;
            Some(("set", format!("depends_on = {{ {} }}", awaited(&group).join(", "))))
        }
        _ => None,
    }
}

fn resources(group: &ResourcesGroup) -> String {
    format!("cpu_m = {}, memory_mib = {}", group.cpu_m, group.memory_b >> 20)
}

/// What of a deployment only some have.
fn beside(spec: &Spec) -> String {
    let mut it = String::new();
    let mut table = |key: &str, rows: Vec<String>| {
        if !rows.is_empty() {
            write!(it, ", {key} = {{ {} }}", rows.join(", ")).expect("a text takes every line");
        }
    };
    table("extras", spec.resources.extras.iter().map(|(of, count)| format!("{of} = {count}")).collect());
    table("depends_on", awaited(&spec.depends));
    if let Some(job) = &spec.job {
        let deadline = job.deadline_s.map(|seconds| format!("deadline = \"{seconds}s\""));
        let rows = [format!("parallelism = {}", job.parallelism), format!("retries = {}", job.retries)];
        table("job", rows.into_iter().chain(deadline).collect());
    }
    it
}

fn awaited(group: &DependsGroup) -> Vec<String> {
    group.on.iter().map(|(of, condition)| format!("{of} = \"{}\"", condition.as_str())).collect()
}

/// An action as steps of a scenario, or as one comment where it has no form there.
/// `off` are the machines that are off, or without their peer, before it.
fn said(action: &Action, off: &[bool]) -> Vec<String> {
    let one = match action {
        Action::Apply(user, host, of, spec) => {
            let mut it = format!("deploy = {{ name = \"{of}\", replicas = {}", spec.replicas.count);
            write!(it, ", {}{}", resources(&spec.resources), beside(spec)).expect("a text takes every line");
            write!(it, ", through = {}, {} }}", node(*host), by(*user)).expect("a text takes every line");
            let mut all = vec![it];
            if spec.restart.policy != RestartPolicy::Always && spec.job.is_none() {
                all.push(format!("# {of} is started again by the policy {:?}", spec.restart.policy));
            }
            if !spec.resources.limits.is_empty() {
                all.push(format!("# {of} may use up to {:?}", spec.resources.limits));
            }
            return all;
        }
        Action::Set(user, host, of, group, json) => match set(group, json) {
            Some((verb, what)) => {
                format!("{verb} = {{ name = \"{of}\", {what}, through = {}, {} }}", node(*host), by(*user))
            }
            None => format!("# set {group} of {of} to {json} through n{}", host + 1),
        },
        Action::Restart(user, host, of) => {
            format!("restart = {{ name = \"{of}\", through = {}, {} }}", node(*host), by(*user))
        }
        Action::Delete(user, host, of) => {
            format!("delete = {{ name = \"{of}\", through = {}, {} }}", node(*host), by(*user))
        }
        Action::Cut(Cuts::Split(groups)) => {
            let groups: Vec<String> = groups.iter().map(|group| nodes(group)).collect();
            format!("split = [{}]", groups.join(", "))
        }
        Action::Cut(Cuts::OneWay(pairs)) => {
            let one_way = |(from, to): &(usize, usize)| {
                format!("one_way = {{ from = {}, to = {} }}", node(*from), node(*to))
            };
            return pairs.iter().map(one_way).collect();
        }
        Action::Cut(Cuts::Bridge(bridge)) => {
            let others: Vec<usize> = (0..off.len()).filter(|host| host != bridge).collect();
            let cut = |at: usize| {
                let (one, rest) = (nodes(&others[at..=at]), nodes(&others[at + 1..]));
                format!("bridge = {{ between = [{one}, {rest}] }}")
            };
            return (0..others.len().saturating_sub(1)).map(cut).collect();
        }
        Action::Cut(Cuts::Ring) => {
            let count = off.len();
            let near = |a: usize, b: usize| b - a == 1 || (a == 0 && b == count - 1);
            let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
            let cut = |(a, b)| format!("bridge = {{ between = [{}, {}] }}", nodes(&[a]), nodes(&[b]));
            let far = pairs.filter(|(a, b)| !near(*a, *b)).map(cut);
            return std::iter::once("heal = true".to_owned()).chain(far).collect();
        }
        Action::Remove(through, gone) => removal(*through, *gone),
        Action::Leave(host) => removal(*host, *host),
        Action::Heal => "heal = true".to_owned(),
        Action::PowerOff(host) => format!("power_off = [{}]", node(*host)),
        Action::KillPeer(host) => format!("stop_peer = [{}]", node(*host)),
        Action::Start(host) => format!("start = [{}]", node(*host)),
        Action::Blackout => {
            let all: Vec<usize> = (0..off.len()).collect();
            format!("power_off = {}", nodes(&all))
        }
        Action::StartAll if off.contains(&true) => {
            let which: Vec<usize> = (0..off.len()).filter(|host| off[*host]).collect();
            format!("start = {}", nodes(&which))
        }
        Action::Press(host, Shortage::Memory(some)) => {
            format!("pressure = {{ on = [{}], memory_percent = {} }}", node(*host), some / 100)
        }
        Action::DiskFull(host, true) => format!("disk_full = [{}]", node(*host)),
        Action::DiskFull(host, false) => format!("disk_free = [{}]", node(*host)),
        other => format!("# {}", without_form(other)),
    };
    vec![one]
}

/// What scenarios have no words for, in those of the trace.
fn without_form(action: &Action) -> String {
    let n = |host: &usize| format!("n{}", host + 1);
    match action {
        Action::Retry(host) => format!("the last event is handed in again through {}", n(host)),
        Action::StartAll => "everything that is off is started".to_owned(),
        Action::Undo(user, host, of) => {
            format!("{} undoes the last change of {of} through {}", user.name(), n(host))
        }
        Action::Bad(user, host, of, bad) => {
            format!("{} hands in something bad about {of} through {}: {bad:?}", user.name(), n(host))
        }
        Action::Join(host) => format!("a new machine joins through {}", n(host)),
        Action::Clog(from, to, span) => format!("{} -> {} is clogged for {span:?}", n(from), n(to)),
        Action::Flap(pairs, half, lasts) => {
            let pairs: Vec<String> = pairs.iter().map(|(a, b)| format!("{}->{}", n(a), n(b))).collect();
            format!("{} come and go every {half:?} for {lasts:?}", pairs.join(" "))
        }
        Action::Lossy(from, to, loss) => format!("{} -> {} loses {loss} of 1,000", n(from), n(to)),
        Action::DieAfter(host, effects, death, back) => {
            let back = back.map_or_else(String::new, |after| format!(", and is back after {after:?}"));
            format!("{} dies after {effects} effects, by {death:?}{back}", n(host))
        }
        Action::Pause(host, span) => format!("{}'s peer stands still for {span:?}", n(host)),
        Action::Again(host) => format!("{}'s peer is killed and started at once", n(host)),
        Action::Room(host, records) => format!("{}'s disk has room for {records} records", n(host)),
        Action::BackUp(host) => format!("{}'s disk is backed up", n(host)),
        Action::Restore(host) => format!("{}'s disk is the one of the backup again", n(host)),
        Action::Clone(host) => format!("{}'s disk is copied into a second machine", n(host)),
        Action::StepClock(host, by_ms) => format!("{}'s clock is stepped by {by_ms} ms", n(host)),
        Action::Drift(host, ppm) => format!("{}'s clock drifts by {ppm} ppm", n(host)),
        Action::StopClock(host, true) => format!("{}'s clock stands", n(host)),
        Action::StopClock(host, false) => format!("{}'s clock goes again", n(host)),
        Action::NoPids(host, true) => format!("{} has no process left", n(host)),
        Action::NoPids(host, false) => format!("{} has processes again", n(host)),
        Action::SlowStarts(host, start) => format!("containers take {start:?} to start on {}", n(host)),
        Action::Press(host, shortage) => format!("{} {shortage}", n(host)),
        Action::Crash(_) => "some program ends with code 3".to_owned(),
        Action::Finish(_) => "some program ends with code 0".to_owned(),
        Action::Oom(_) => "some program is killed for want of memory".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_story_can_be_written_as_a_scenario_that_can_be_read() {
        for seed in 0..100 {
            let story = Story::draw(seed);
            let text = story.scenario("what \"did\" not hold:\nall of it");
            let read = Scenario::read("seed.toml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!((read.seed, read.nodes), (seed, story.nodes));
            assert_eq!(read.settings.latency, story.settings.latency);
            assert_eq!(read.settings.capacity.cpu_m, story.settings.capacity.cpu_m);
        }
    }

    #[test]
    fn the_steps_of_a_story_are_told_with_their_times() {
        let story = Story::draw(3);
        let words = story.steps_in_words();
        assert_eq!(words.len(), story.steps.len());
        assert!(words[0].contains("deploy = { name ="), "{}", words[0]);
    }
}
