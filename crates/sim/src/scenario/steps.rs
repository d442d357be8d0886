//! Steps are read: what is done.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use document::event::Schedule;
use model::{
    Affinity, Canary, Capacity, Class, Condition, DependsGroup, EnvGroup, Extras, HOST, JobGroup, LabelKey,
    Mode, OnFailure, PlacementGroup, Priority, ReplicasGroup, ResourcesGroup, RestartPolicy, Strategy,
    UpdateGroup,
};

use super::act::{Act, CrashLoop, Flap, Step};
use super::raw::{self, Text};
use super::read::{Fault, Reader, fault, name, permille, span_of, user};
use crate::author::Spec;

/// Changes of one `edits` step: a thousand make a history; more take longer than they show.
const EDITS_MAX: u32 = 2_000;

/// The shortest time of a flapping link in one state: faster than any message is no network.
const FLAP_MIN: Duration = Duration::from_millis(50);

impl Reader<'_> {
    pub(super) fn step(&self, raw: &raw::Step, span: Range<usize>) -> Result<Step, Fault> {
        let at = span_of(&raw.at)?;
        let (line, _) = self.place(span.start);
        let mut acts = Vec::new();
        self.events(raw, &mut acts)?;
        self.network(raw, &span, &mut acts)?;
        self.machines(raw, &mut acts)?;
        self.programs(raw, &mut acts)?;
        for (flag, act) in [(&raw.heal, Act::Heal), (&raw.remember, Act::Remember)] {
            if let Some(flag) = flag {
                if !flag.get_ref() {
                    return fault(flag.span(), "`false` does nothing", "write `true`, or leave the step out");
                }
                acts.push(act);
            }
        }
        if let Some(it) = &raw.watch {
            acts.push(self.watch(it, at, &span)?);
        }
        if let Some(it) = &raw.expect {
            acts.push(Act::Expect(self.expect(it, &span)?));
        }
        let count = acts.len();
        match acts.pop() {
            Some(act) if count == 1 => Ok(Step { at, act, line }),
            _ => fault(span, format!("this step does {count} things"), "a step does one, like `heal = true`"),
        }
    }

    /// What users sign.
    fn events(&self, raw: &raw::Step, acts: &mut Vec<Act>) -> Result<(), Fault> {
        if let Some(it) = &raw.deploy {
            acts.push(self.deploy(it)?);
        }
        if let Some(it) = &raw.set {
            acts.push(self.set(it)?);
        }
        if let Some(it) = &raw.scale {
            let group = ReplicasGroup {
                count: *it.replicas.get_ref(),
                class: Class::Available,
                mode: Mode::Replicated,
                voters: Vec::new(),
            };
            let (user, host, of) = (user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?);
            acts.push(Act::Set(user, host, of, vec![("replicas", json(&group))]));
        }
        if let Some(it) = &raw.restart {
            acts.push(Act::Restart(user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?));
        }
        if let Some(it) = &raw.delete {
            acts.push(Act::Delete(user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?));
        }
        if let Some(it) = &raw.retry {
            acts.push(Act::Retry(self.node(&it.through)?));
        }
        if let Some(it) = &raw.edits {
            let count = *it.count.get_ref();
            if !(1..=EDITS_MAX).contains(&count) {
                return fault(it.count.span(), format!("{count} edits"), format!("use 1 to {EDITS_MAX}"));
            }
            let (user, host, of) = (user(it.by.as_ref())?, self.node(&it.through)?, name(&it.name)?);
            acts.push(Act::Edits(user, host, of, count, span_of(&it.every)?));
        }
        if let Some(it) = &raw.remove_node {
            acts.push(Act::RemoveNode(self.node(&it.through)?, self.node(&it.node)?));
        }
        if let Some(it) = &raw.schedule {
            let words = [Schedule::Normal, Schedule::Cordoned, Schedule::Drained];
            let Some(to) = words.into_iter().find(|word| word.as_str() == it.to.get_ref()) else {
                let what = format!("a node cannot be `{}`", it.to.get_ref());
                return fault(it.to.span(), what, "use `normal`, `cordoned` or `drained`");
            };
            let deadline = it.deadline.as_ref().map(span_of).transpose()?;
            acts.push(Act::Schedule(self.node(&it.through)?, self.node(&it.node)?, to, deadline));
        }
        if let Some(it) = &raw.join {
            let (host, through) = (self.node(&it.node)?, self.node(&it.through)?);
            if host == through {
                return fault(it.through.span(), "a node cannot join through itself", "name a member");
            }
            acts.push(Act::Join(through, host));
        }
        Ok(())
    }

    fn network(&self, raw: &raw::Step, span: &Range<usize>, acts: &mut Vec<Act>) -> Result<(), Fault> {
        if let Some(groups) = &raw.split {
            acts.push(Act::Split(self.groups(groups, span)?));
        }
        if let Some(it) = &raw.one_way {
            acts.push(Act::OneWay(self.node(&it.from)?, self.node(&it.to)?));
        }
        if let Some(it) = &raw.bridge {
            let [a, b] = &it.between;
            acts.push(Act::Bridge(self.some(a)?, self.some(b)?));
        }
        if let Some(it) = &raw.flap {
            let [a, b] = &it.between;
            for text in [&it.down, &it.up] {
                if span_of(text)? < FLAP_MIN {
                    return fault(
                        text.span(),
                        "too short for a network",
                        format!("use {FLAP_MIN:?} or more"),
                    );
                }
            }
            acts.push(Act::Flap(Flap {
                one: self.some(a)?,
                other: self.some(b)?,
                down: span_of(&it.down)?,
                up: span_of(&it.up)?,
                lasts: span_of(&it.lasts)?,
            }));
        }
        if let Some(loss) = &raw.loss_permille {
            acts.push(Act::Loss(permille(loss)?));
        }
        Ok(())
    }

    fn machines(&self, raw: &raw::Step, acts: &mut Vec<Act>) -> Result<(), Fault> {
        if let Some(nodes) = &raw.power_off {
            acts.push(Act::PowerOff(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.power_off_on_ack {
            acts.push(Act::PowerOffOnAck(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.stop_peer {
            acts.push(Act::StopPeer(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.start {
            acts.push(Act::Start(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.disk_full {
            acts.push(Act::DiskFull(self.some(nodes)?, true));
        }
        if let Some(nodes) = &raw.disk_free {
            acts.push(Act::DiskFull(self.some(nodes)?, false));
        }
        if let Some(nodes) = &raw.copy_disk {
            acts.push(Act::CopyDisk(self.some(nodes)?));
        }
        if let Some(it) = &raw.clock {
            acts.push(Act::Clock(self.some(&it.on)?, it.unix_s));
        }
        if let Some(it) = &raw.capacity {
            let capacity = self.capacity(it.cpu_m, it.memory_mib);
            acts.push(Act::Capacity(self.some(&it.on)?, capacity));
        }
        if let Some(it) = &raw.pressure {
            let percent = *it.memory_percent.get_ref();
            if percent > 100 {
                return fault(it.memory_percent.span(), format!("{percent} % of the time"), "use 0 to 100");
            }
            acts.push(Act::Pressure(self.some(&it.on)?, percent * 100));
        }
        Ok(())
    }

    fn programs(&self, raw: &raw::Step, acts: &mut Vec<Act>) -> Result<(), Fault> {
        if let Some(it) = &raw.crash {
            acts.push(Act::Crash(name(&it.name)?, self.on(it.on.as_ref())?, it.code));
        }
        if let Some(it) = &raw.crash_loop {
            acts.push(Act::CrashLoop(CrashLoop {
                of: name(&it.name)?,
                on: self.on(it.on.as_ref())?,
                env: it.env.clone(),
                after: span_of(&it.after)?,
                code: it.code,
            }));
        }
        if let Some(it) = &raw.mend {
            acts.push(Act::Mend(name(&it.name)?));
        }
        Ok(())
    }

    /// What a node offers: as the others do, but for what is said.
    pub(super) fn capacity(&self, cpu_m: Option<u64>, memory_mib: Option<u64>) -> Capacity {
        let usual = self.capacity.clone();
        let memory_b = memory_mib.map_or(usual.memory_b, |mib| mib.saturating_mul(1 << 20));
        Capacity { cpu_m: cpu_m.unwrap_or(usual.cpu_m), memory_b, ..usual }
    }

    fn deploy(&self, raw: &raw::Deploy) -> Result<Act, Fault> {
        let mut spec = Spec::new(*raw.replicas.get_ref());
        spec.resources = resources(raw.cpu_m, raw.memory_mib);
        spec.resources.extras = extras(&raw.extras)?;
        spec.env = EnvGroup { vars: raw.env.clone() };
        spec.placement = placement(raw)?;
        if let Some(update) = &raw.update {
            spec.update = update_of(update)?;
        }
        if let Some(restart) = &raw.restart {
            spec.restart.policy = policy(restart)?;
        }
        spec.depends = depends(&raw.depends_on)?;
        if let (Some(_), Some(restart)) = (&raw.job, &raw.restart) {
            return fault(
                restart.span(),
                "`restart` has no place beside a job",
                "leave it out: a job has `retries`",
            );
        }
        if let Some(job) = &raw.job {
            spec.job = Some(job_of(job)?);
            spec.restart.policy = RestartPolicy::Never;
        }
        for voter in &raw.voters {
            self.node(voter)?;
            spec.voters.push(voter.get_ref().to_owned());
        }
        if raw.global {
            spec.replicas.mode = Mode::Global;
        }
        let act = (user(raw.by.as_ref())?, self.node(&raw.through)?, name(&raw.name)?);
        Ok(Act::Deploy(act.0, act.1, act.2, Box::new(spec)))
    }

    fn set(&self, raw: &raw::Set) -> Result<Act, Fault> {
        let mut groups = Vec::new();
        if raw.cpu_m.is_some() || raw.memory_mib.is_some() {
            groups.push(("resources", json(&resources(raw.cpu_m, raw.memory_mib))));
        }
        if let Some(vars) = &raw.env {
            groups.push(("env", json(&EnvGroup { vars: vars.clone() })));
        }
        if let Some(update) = &raw.update {
            groups.push(("update", json(&update_of(update)?)));
        }
        if let Some(on) = &raw.depends_on {
            groups.push(("depends-on", json(&depends(on)?)));
        }
        if groups.is_empty() {
            return fault(
                raw.name.span(),
                "nothing is set",
                "give `env`, `cpu_m`, `memory_mib`, `update` or `depends_on`",
            );
        }
        Ok(Act::Set(user(raw.by.as_ref())?, self.node(&raw.through)?, name(&raw.name)?, groups))
    }
}

fn update_of(raw: &raw::Update) -> Result<UpdateGroup, Fault> {
    let usual = UpdateGroup::default();
    let seconds = |text: &Option<Text>| -> Result<Option<u32>, Fault> {
        let Some(text) = text else { return Ok(None) };
        Ok(Some(u32::try_from(span_of(text)?.as_secs()).unwrap_or(u32::MAX)))
    };
    let promote_after_s = seconds(&raw.promote_after)?;
    Ok(UpdateGroup {
        surge: raw.surge.unwrap_or(usual.surge),
        unavailable: raw.unavailable.unwrap_or(usual.unavailable),
        min_healthy_s: seconds(&raw.min_healthy)?.unwrap_or(usual.min_healthy_s),
        deadline_s: seconds(&raw.deadline)?.unwrap_or(usual.deadline_s),
        on_failure: if raw.stop_on_failure { OnFailure::Stop } else { OnFailure::Rollback },
        strategy: if raw.blue_green { Strategy::BlueGreen } else { Strategy::Rolling },
        canary: raw.canary.map(|replicas| Canary { replicas, promote_after_s, promoted: None }),
        paused: raw.paused,
    })
}

fn job_of(raw: &raw::Job) -> Result<JobGroup, Fault> {
    let usual = JobGroup::default();
    let deadline = raw.deadline.as_ref().map(span_of).transpose()?;
    if let Some(text) =
        raw.deadline.as_ref().filter(|_| deadline.is_some_and(|it| it.subsec_nanos() != 0 || it.is_zero()))
    {
        return fault(text.span(), "no deadline of a job", "use whole seconds, from `1s` on");
    }
    Ok(JobGroup {
        parallelism: raw.parallelism.unwrap_or(usual.parallelism),
        retries: raw.retries.unwrap_or(usual.retries),
        deadline_s: deadline.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX)),
    })
}

fn policy(text: &Text) -> Result<RestartPolicy, Fault> {
    match text.get_ref().as_str() {
        "always" => Ok(RestartPolicy::Always),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "never" => Ok(RestartPolicy::Never),
        _ => fault(text.span(), "no such restart policy", "use `always`, `on-failure` or `never`"),
    }
}

fn depends(raw: &BTreeMap<Text, Text>) -> Result<DependsGroup, Fault> {
    let all = [Condition::Started, Condition::Healthy, Condition::Completed];
    let one = |(of, text): (&Text, &Text)| match all.into_iter().find(|it| it.as_str() == text.get_ref()) {
        Some(condition) => Ok((name(of)?, condition)),
        None => fault(text.span(), "no such condition", "use `started`, `healthy` or `completed`"),
    };
    Ok(DependsGroup { on: raw.iter().map(one).collect::<Result<_, _>>()? })
}

/// Which nodes it is for.
fn placement(raw: &raw::Deploy) -> Result<PlacementGroup, Fault> {
    let beside = |text: &Text| {
        let within: LabelKey = HOST.parse().expect("a word is a label's key");
        Ok(Affinity { deployment: name(text)?, within })
    };
    let priority = match &raw.priority {
        None => Priority::Normal,
        Some(text) => match Priority::ALL.into_iter().find(|it| it.as_str() == text.get_ref()) {
            Some(priority) => priority,
            None => {
                return fault(text.span(), "no such priority", "use `low`, `normal`, `high` or `critical`");
            }
        },
    };
    Ok(PlacementGroup {
        labels: labels(&raw.only_where)?,
        require: raw.constraints.iter().map(parsed).collect::<Result<_, _>>()?,
        prefer: Vec::new(),
        spread: raw.spread.iter().map(parsed).collect::<Result<_, _>>()?,
        near: raw.near.iter().map(beside).collect::<Result<_, Fault>>()?,
        apart: raw.apart.iter().map(beside).collect::<Result<_, Fault>>()?,
        priority,
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &Text) -> Result<T, Fault> {
    text.get_ref().parse().map_err(|error: T::Err| (text.span(), error.to_string(), None))
}

/// Labels, with keys that are labels' keys.
pub(super) fn labels(raw: &BTreeMap<Text, String>) -> Result<BTreeMap<LabelKey, String>, Fault> {
    let label = |(key, value): (&Text, &String)| match key.get_ref().parse::<LabelKey>() {
        Ok(key) => Ok((key, value.clone())),
        Err(error) => Err((key.span(), error.to_string(), None)),
    };
    raw.iter().map(label).collect()
}

/// Counted things.
pub(super) fn extras(raw: &BTreeMap<Text, u64>) -> Result<Extras, Fault> {
    let Some(first) = raw.keys().next() else { return Ok(Extras::NONE) };
    let counts = raw.iter().map(|(name, count)| Ok((parsed(name)?, *count)));
    Extras::new(counts.collect::<Result<_, Fault>>()?)
        .map_err(|error| (first.span(), error.to_string(), None))
}

fn json<T: serde::Serialize>(group: &T) -> String {
    serde_json::to_string(group).expect("groups are maps with text keys")
}

fn resources(cpu_m: Option<u64>, memory_mib: Option<u64>) -> ResourcesGroup {
    let usual = ResourcesGroup::default();
    let memory_b = memory_mib.map_or(usual.memory_b, |mib| mib.saturating_mul(1 << 20));
    ResourcesGroup { cpu_m: cpu_m.unwrap_or(usual.cpu_m), memory_b, ..usual }
}
