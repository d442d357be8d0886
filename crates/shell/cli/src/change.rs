//! The way of every change of deployments: show it, ask, sign it, submit it, wait, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::shapes::{
    Applied, Authoring, DeploymentRow, JobRow, JobState, NodeRow, PsRow, PsState, UpdateFailed, Waited,
};
use api::{Client, path, routes};
use document::event::{Create, Delete, Edit, Set, Verb};
use model::{DocId, EventId, Group, Name, UpdateGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, Wait};
use crate::author::{Work, authoring, carry_out};
use crate::cycles::refuse_cycles;
use crate::doubts::doubts;
use crate::error::{CliError, Exit};
use crate::fields::{self, Groups};
use crate::jobs::job_failed;
use crate::keys;
use crate::near::nearest;
use crate::out::short;
use crate::shapes::{PlanAction, PlanRow};

/// How often the peer is asked whether it has come about: P1 promises 50 ms to the first
/// instruction, and a person sees no difference below this.
const POLL: Duration = Duration::from_millis(100);
/// How long the peer may show the state before our event: it acknowledged it already.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// How long a replica must be without a place before that is final: plans settle in far less.
const UNPLACED_FOR: Duration = Duration::from_millis(1500);
/// Restarts after which a failing container is taken for one that will go on failing.
const RESTARTS_MAX: u32 = 3;
/// Letters by which a name may differ from a known one to be taken for that.
pub(crate) const NEAR_LETTERS: usize = 2;
/// Containers are looked at once in so many polls; their rows are many.
const PS_EVERY: u32 = 4;

/// A manifest that says nothing of the update asks for the usual one, which is written only where another is
/// there. What a person let through stays let through.
fn with_update(row: &DeploymentRow, mut wanted: Groups) -> Groups {
    let group = Group::Update.as_str();
    let read = |json: &String| serde_json::from_str::<UpdateGroup>(json).ok();
    let Some(text) = row.groups.get(group) else { return wanted };
    let Some(now) = read(text) else { return wanted };
    let mut update = wanted.get(group).and_then(read).unwrap_or_default();
    if let (Some(canary), Some(before)) = (&mut update.canary, now.canary) {
        canary.promoted = before.promoted;
    }
    let json = || serde_json::to_string(&update).expect("a group is plain data");
    wanted.insert(group.to_owned(), if update == now { text.clone() } else { json() });
    wanted
}

/// The same of groups in which nothing of what is there is kept.
fn with_what_is_usual(row: &DeploymentRow, mut wanted: Groups) -> Groups {
    for group in [Group::DependsOn, Group::Job].map(Group::as_str) {
        if row.groups.contains_key(group)
            && !wanted.contains_key(group)
            && let Some(json) = fields::default_of(group)
        {
            wanted.insert(group.to_owned(), json);
        }
    }
    wanted
}

/// What is to be done to one deployment.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) target: Target,
    pub(crate) before: Groups,
    /// All groups then; `None` where it ends.
    pub(crate) after: Option<Groups>,
    pub(crate) edit: Edit,
}

impl Step {
    /// Creates a deployment, or sets what differs from `row`; `None` where nothing does.
    pub(crate) fn apply(
        target: Target,
        row: Option<&DeploymentRow>,
        wanted: Groups,
    ) -> Result<Option<Self>, CliError> {
        let Some(row) = row else {
            let edit = Edit::Create(Create { name: target.name.clone(), groups: wanted.clone() });
            return Ok(Some(Self { target, before: Groups::new(), after: Some(wanted), edit }));
        };
        Self::set(target, row, &with_what_is_usual(row, with_update(row, wanted)))
    }

    /// Whether running containers are replaced for it.
    fn changes_template(&self) -> bool {
        self.edit.groups().is_some_and(|groups| groups.keys().any(|group| fields::replaces(group)))
    }

    /// Sets the groups of `wanted` that differ from `row`; `None` where none does.
    pub(crate) fn set(
        target: Target,
        row: &DeploymentRow,
        wanted: &Groups,
    ) -> Result<Option<Self>, CliError> {
        let groups = fields::changed(&row.groups, wanted);
        if groups.is_empty() {
            return Ok(None);
        }
        let mut after = row.groups.clone();
        after.extend(groups.clone());
        let edit = Edit::Set(Set { name: target.name.clone(), incarnation: incarnation(row)?, groups });
        Ok(Some(Self { target, before: row.groups.clone(), after: Some(after), edit }))
    }

    /// Ends a deployment.
    pub(crate) fn delete(target: Target, row: &DeploymentRow) -> Result<Self, CliError> {
        let edit = Edit::Delete(Delete { name: target.name.clone(), incarnation: incarnation(row)? });
        Ok(Self { target, before: row.groups.clone(), after: None, edit })
    }

    fn action(&self) -> PlanAction {
        match (&self.edit, &self.after) {
            (Edit::Create(_), _) => PlanAction::Create,
            (Edit::Delete(_), None) => PlanAction::Delete,
            // One of two that were created on both sides ends; the name goes on as the other.
            (Edit::Delete(_), Some(_)) | (Edit::Set(_), _) => PlanAction::Update,
        }
    }

    /// As `plan` shows it.
    pub(crate) fn row(&self) -> PlanRow {
        let changed =
            self.after.as_ref().map(|after| fields::changed(&self.before, after)).unwrap_or_default();
        PlanRow {
            namespace: self.target.namespace.to_string(),
            name: self.target.name.to_string(),
            action: self.action(),
            replaces: self.action() == PlanAction::Update
                && changed.keys().any(|group| fields::replaces(group)),
            fields: match &self.after {
                Some(after) => fields::diff(&self.before, after),
                None => Vec::new(),
            },
        }
    }
}

/// The event that created a deployment.
pub(crate) fn incarnation(row: &DeploymentRow) -> Result<EventId, CliError> {
    row.incarnation.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))
}

/// A deployment of the answer, or an error that names the near ones.
pub(crate) fn find<'a>(rows: &'a [DeploymentRow], target: &Target) -> Result<&'a DeploymentRow, CliError> {
    let found = rows
        .iter()
        .find(|row| row.name == target.name.as_str() && row.namespace == target.namespace.as_str());
    found.ok_or_else(|| {
        let error = CliError::new("not-found", format!("there is no deployment `{target}`"));
        let name = target.name.as_str();
        let near =
            rows.iter().filter(|row| row.namespace == target.namespace.as_str()).map(|row| row.name.as_str());
        match nearest(name, near, NEAR_LETTERS) {
            Some(other) => error.hint(format!("did you mean `{other}`?")),
            None => error.hint("`skerry get deployments` lists them"),
        }
    })
}

/// The change of one namespace, ready to be shown and signed.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) namespace: Name,
    pub(crate) authoring: Authoring,
    pub(crate) verb: Verb,
    pub(crate) undoes: Option<EventId>,
    pub(crate) steps: Vec<Step>,
}

/// How a change is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A yes is needed, from a person or from `-y`.
    Always,
    /// On a terminal a person is asked; a script is taken at its word.
    Person,
    /// The command says it all.
    Never,
}

/// The namespaces of some targets, each once; an error where a target is there twice.
pub(crate) fn namespaces(targets: &[&Target]) -> Result<Vec<Name>, CliError> {
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    for target in targets {
        if !seen.insert(*target) {
            return Err(CliError::usage(format!("{target} is named twice")));
        }
        names.insert(target.namespace.clone());
    }
    Ok(names.into_iter().collect())
}

/// Asks where each namespace stands, and checks the guard.
pub(crate) async fn stand(
    client: &Client,
    namespaces: &[Name],
    guard: &GuardArgs,
) -> Result<BTreeMap<Name, Authoring>, CliError> {
    let mut answers = BTreeMap::new();
    for namespace in namespaces {
        let answer = authoring(client, &DocId::Namespace(namespace.clone())).await?;
        if let Some(heads) = &guard.if_heads {
            let equal = heads.len() == answer.deps.len()
                && heads.iter().all(|head| answer.deps.iter().any(|id| head.is_of(id)));
            if !equal {
                let now: Vec<_> = answer.deps.iter().map(|id| short(id)).collect();
                return Err(CliError::new(
                    "changed",
                    format!("namespace {namespace} changed since the plan"),
                )
                .because(format!("it stands at {} now", now.join(",")))
                .hint("plan again")
                .exit(Exit::Changed));
            }
        }
        answers.insert(namespace.clone(), answer);
    }
    Ok(answers)
}

/// The lines of a plan for people.
pub(crate) fn plan_lines(rows: &[PlanRow]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let name = if row.namespace == "default" {
            row.name.clone()
        } else {
            format!("{}/{}", row.namespace, row.name)
        };
        let (sign, words) = match row.action {
            PlanAction::Create => ("\u{1b}[32m+\u{1b}[0m", "create"),
            PlanAction::Update if row.replaces => {
                ("\u{1b}[33m~\u{1b}[0m", "update, replacing its containers one at a time")
            }
            PlanAction::Update => ("\u{1b}[33m~\u{1b}[0m", "update in place"),
            PlanAction::Delete => ("\u{1b}[31m-\u{1b}[0m", "delete"),
            PlanAction::Unchanged => (" ", "unchanged"),
        };
        lines.push(format!("{sign} {name}: {words}"));
        for field in &row.fields {
            // What is new has no value before it, so "added" would be said on every line.
            let line = match (row.action, &field.after) {
                (PlanAction::Create, Some(after)) => format!("{}: {}", field.field, fields::cut(after)),
                _ => fields::show_field(field),
            };
            lines.push(format!("    {line}"));
        }
    }
    lines
}

/// Shows, asks, signs, submits, waits and tells. `prepared` may hold no step at all.
pub(crate) async fn carry(
    context: &Context,
    client: &Client,
    mut prepared: Vec<Prepared>,
    wait: Wait,
    ask: Ask,
) -> Result<(), CliError> {
    let out = &context.out;
    prepared.retain(|one| !one.steps.is_empty());
    refuse_cycles(&prepared)?;
    let rows: Vec<_> = prepared.iter().flat_map(|one| one.steps.iter().map(Step::row)).collect();
    if rows.is_empty() {
        out.say("nothing to change")?;
        let applied = Applied {
            event: None,
            revisions: BTreeMap::new(),
            durable_on: 0,
            waited: Waited::None,
            reason: None,
        };
        return tell(context, &applied, &[]);
    }
    if ask != Ask::Never {
        if let Some(first) = prepared.first() {
            out.say(format!("cluster {} by way of {}", first.authoring.cluster_name, client.peer()))?;
        }
        for line in plan_lines(&rows) {
            out.say(line)?;
        }
        for doubt in doubts(client, &prepared).await? {
            out.say(format!("warning: {doubt}"))?;
        }
        let question = format!(
            "Change {}?",
            if rows.len() == 1 { "this".into() } else { format!("these {}", rows.len()) }
        );
        if (ask == Ask::Always || out.interactive()) && !out.confirm(&question)? {
            return Err(CliError::new("declined", "nothing was changed"));
        }
    }
    let key = keys::load(context.globals.key.as_deref())?;
    let durable = match wait {
        Wait::Replicated(count) => Some(count),
        Wait::Running | Wait::None => None,
    };
    let mut applied = Applied {
        event: None,
        revisions: BTreeMap::new(),
        durable_on: u32::MAX,
        waited: match wait {
            Wait::Running => Waited::Running,
            Wait::Replicated(_) => Waited::Replicated,
            Wait::None => Waited::None,
        },
        reason: None,
    };
    let mut steps = Vec::new();
    for one in prepared {
        let edits = one.steps.iter().map(|step| step.edit.clone()).collect();
        let work = Work { namespace: one.namespace, verb: one.verb, undoes: one.undoes, edits };
        if let Some(submitted) = carry_out(client, &key, &one.authoring, work, durable).await? {
            applied.durable_on = applied.durable_on.min(submitted.durable_on);
            applied.event = Some(submitted.event);
        }
        steps.extend(one.steps);
    }
    if let Some(event) = &applied.event {
        let peers = if applied.durable_on == 1 { "peer" } else { "peers" };
        out.say(format!("event {} is on disk on {} {peers}", short(event), applied.durable_on))?;
    }
    let stopped = match wait {
        Wait::Running => tokio::select! {
            stopped = converge(context, client, &steps) => stopped?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| CliError::from_error("signal", &error))?;
                Some(CliError::new("interrupted", "stopped waiting; it continues in the background")
                    .hint("`skerry ps` shows how far it is, `skerry undo` takes it back")
                    .exit(Exit::Interrupted))
            }
        },
        Wait::Replicated(count) if applied.durable_on < count => Some(
            CliError::new(
                "not-replicated",
                format!("it is on disk on {} of {count} peers", applied.durable_on),
            )
            .hint("the others get it when they can be reached; `skerry status` shows which cannot")
            .exit(Exit::NotConverged),
        ),
        Wait::Replicated(_) | Wait::None => None,
    };
    let ended = revisions(client, &steps, &mut applied).await;
    applied.reason = stopped.as_ref().map(|error| error.what.clone());
    tell(context, &applied, &steps)?;
    match stopped {
        Some(error) => Err(error),
        None => ended,
    }
}

async fn rows_of(client: &Client, steps: &[Step]) -> Result<Vec<DeploymentRow>, CliError> {
    let mut namespaces: Vec<_> = steps.iter().map(|step| step.target.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let mut rows: Vec<DeploymentRow> = Vec::new();
    for namespace in namespaces {
        let answer: Vec<DeploymentRow> =
            client.get(&path(routes::DEPLOYMENTS, &[("namespace", namespace)])).await?;
        rows.extend(answer);
    }
    Ok(rows)
}

fn row_of<'a>(rows: &'a [DeploymentRow], target: &Target) -> Option<&'a DeploymentRow> {
    rows.iter().find(|row| row.name == target.name.as_str() && row.namespace == target.namespace.as_str())
}

async fn revisions(client: &Client, steps: &[Step], applied: &mut Applied) -> Result<(), CliError> {
    let rows = rows_of(client, steps).await?;
    for step in steps.iter().filter(|step| step.after.is_some()) {
        if let Some(row) = row_of(&rows, &step.target) {
            applied.revisions.insert(step.target.to_string(), row.revision);
        }
    }
    Ok(())
}

fn tell(context: &Context, applied: &Applied, steps: &[Step]) -> Result<(), CliError> {
    let out = &context.out;
    if out.structured() {
        return out.value(applied);
    }
    for step in steps {
        let name = step.target.to_string();
        let end = match (&step.after, applied.revisions.get(&name)) {
            (None, _) => "deleted".to_owned(),
            (_, Some(revision)) => format!("v{revision}"),
            (_, None) => "accepted".to_owned(),
        };
        let named = out.format == crate::out::Format::Name;
        out.line(if named { name } else { format!("{name} {end}") })?;
    }
    Ok(())
}

/// How one deployment stands against what was asked.
enum Standing {
    Done,
    Going { ready: u32, replicas: u32 },
    Invalid(String),
    Failed(UpdateFailed),
    Unplaced(Vec<String>),
    JobFailed(JobRow),
}

/// How many replicas must be ready before a change is all that it will be by itself: fewer than all while it
/// is paused, or while its canaries are looked at.
fn waits_for(row: &DeploymentRow) -> u32 {
    if row.paused {
        return 0;
    }
    let update = row.groups.get(Group::Update.as_str());
    let update = update.and_then(|json| serde_json::from_str::<UpdateGroup>(json).ok());
    let waits = update.and_then(|update| update.canary).filter(|canary| {
        let through = canary.promoted.map(|it| it.to_string());
        canary.promote_after_s.is_none() && (through.is_none() || through != row.revision_hash)
    });
    waits.map_or(row.replicas, |canary| canary.replicas.min(row.replicas))
}

/// Whether a change is all that it will be by itself, where every replica has a place.
fn has_come_about(row: &DeploymentRow) -> bool {
    let enough = waits_for(row);
    // What an update has begun may stay beside the old while it is held up; else nothing runs beside what is
    // wanted. A replica that may no longer be where it runs is ready there.
    let all_run =
        if enough < row.replicas { row.running >= row.replicas } else { row.running == row.replicas };
    row.ready >= enough && all_run
}

fn rolled_back(step: &Step, failed: &UpdateFailed) -> CliError {
    let end = match failed.back_to {
        Some(back) => format!("and v{back} runs again"),
        None => "and nothing further is changed".to_owned(),
    };
    CliError::new(
        "rolled-back",
        format!("v{} of {} did not come up on {}, {end}", failed.revision, step.target, failed.node),
    )
    .because(failed.reason.clone())
    .hint(format!(
        "`skerry logs {}` and `skerry history {}` show more; the next change is tried anew",
        step.target, step.target
    ))
    .exit(Exit::RolledBack)
}

fn standing(step: &Step, row: Option<&DeploymentRow>, containers: Option<&[PsRow]>, fresh: bool) -> Standing {
    let waiting = Standing::Going { ready: 0, replicas: 0 };
    let Some(after) = &step.after else {
        // The document forgets at once; the containers are what is waited for.
        let left = containers.map(|rows| {
            rows.iter()
                .filter(|row| row.deployment == step.target.name.as_str())
                .filter(|row| row.namespace == step.target.namespace.as_str())
                .filter(|row| row.container.is_some())
                .filter(|row| {
                    !matches!(row.state, PsState::Exited | PsState::Failed | PsState::Lost | PsState::Unknown)
                })
                .count()
        });
        return match (row, left) {
            (None, Some(0)) => Standing::Done,
            (_, Some(left)) => {
                Standing::Going { ready: u32::try_from(left).unwrap_or(u32::MAX), replicas: 0 }
            }
            (_, None) => waiting,
        };
    };
    let Some(row) = row else { return waiting };
    if fresh {
        let ours = step.edit.groups().is_none_or(|groups| {
            groups.keys().all(|group| match (after.get(group), row.groups.get(group)) {
                (Some(wanted), Some(now)) => fields::same(wanted, now),
                _ => false,
            })
        });
        if !ours {
            return waiting;
        }
    }
    if let Some(invalid) = &row.invalid {
        return Standing::Invalid(invalid.clone());
    }
    if let Some(failed) = row.failed.as_ref().filter(|_| step.changes_template()) {
        return Standing::Failed(failed.clone());
    }
    match &row.job {
        Some(job) if job.state == JobState::Completed => return Standing::Done,
        Some(job) if job.state == JobState::Failed => return Standing::JobFailed(job.clone()),
        _ => {}
    }
    if row.unplaced.is_empty() {
        if row.job.is_none() && has_come_about(row) {
            return Standing::Done;
        }
        return Standing::Going { ready: row.ready, replicas: row.replicas };
    }
    // Replicas that lack the same on every node are said once.
    let mut lines: Vec<String> = Vec::new();
    for unplaced in &row.unplaced {
        for (node, reason) in &unplaced.nodes {
            let line = format!("{node}: {reason}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    if lines.is_empty() {
        lines.push("no node is up".to_owned());
    }
    Standing::Unplaced(lines)
}

fn cannot_be_placed(step: &Step, row: Option<&DeploymentRow>, lines: &[String]) -> CliError {
    let counts = row.map(|row| {
        let without = row.unplaced.len();
        let find = if without == 1 { "finds" } else { "find" };
        format!(": {} of {} replicas run, {without} {find} no node", row.ready, row.replicas)
    });
    let mut error = CliError::new(
        "cannot-be-placed",
        format!("deployment {} cannot be placed{}", step.target, counts.unwrap_or_default()),
    );
    for line in lines {
        error = error.because(line);
    }
    let all_run = row.is_some_and(|row| row.running >= row.replicas);
    let hint = if all_run && step.changes_template() {
        format!(
            "the old ones run on; `update: {{unavailable: 1}}` lets one be stopped first, see `skerry explain {}`",
            step.target
        )
    } else {
        format!(
            "ask for less, or see `skerry explain {}`; it starts by itself when a node has room",
            step.target
        )
    };
    error.hint(hint).exit(Exit::CannotBePlaced)
}

/// A container of the wanted revision that goes on failing: one of an older revision, which may be
/// why the change was made, is on its way out.
fn failing(step: &Step, revision: u64, containers: &[PsRow]) -> Option<CliError> {
    let row = containers.iter().find(|row| {
        row.deployment == step.target.name.as_str()
            && row.namespace == step.target.namespace.as_str()
            && row.revision == revision
            && !matches!(row.state, PsState::Stopping | PsState::Exited)
            && row.restarts >= RESTARTS_MAX
            && row.healthy != Some(true)
            && row.reason.is_some()
    })?;
    let node = row.node.as_deref().unwrap_or("an unknown node");
    Some(
        CliError::new(
            "failing",
            format!(
                "deployment {} does not come up: replica {} fails again and again",
                step.target, row.ordinal
            ),
        )
        .at(node)
        .because(format!("{} (started {} times)", row.reason.clone().unwrap_or_default(), row.restarts + 1))
        .hint(format!(
            "`skerry logs {0}.{1}` shows what it says, `skerry undo {0}` takes the change back",
            step.target, row.ordinal
        ))
        .exit(Exit::NotConverged),
    )
}

/// The deployments, and the containers where they are wanted.
async fn look(
    client: &Client,
    steps: &[Step],
    containers: bool,
) -> Result<(Vec<DeploymentRow>, Option<Vec<PsRow>>), CliError> {
    let rows = rows_of(client, steps).await?;
    let containers = if containers { Some(client.get(routes::PS).await?) } else { None };
    Ok((rows, containers))
}

/// Waits until every step has come about. `Some` is why it will not, or not in time.
async fn converge(context: &Context, client: &Client, steps: &[Step]) -> Result<Option<CliError>, CliError> {
    let started = Instant::now();
    let deadline = started + context.globals.timeout;
    let mut told = BTreeMap::new();
    let mut unplaced_since: BTreeMap<usize, (u32, Instant)> = BTreeMap::new();
    let mut containers: Option<Vec<PsRow>> = None;
    let mut polls = 0_u32;
    let deletes = steps.iter().any(|step| step.after.is_none());
    let mut lost = false;
    loop {
        let looked =
            look(client, steps, polls.is_multiple_of(PS_EVERY) || !unplaced_since.is_empty() || deletes);
        let rows = match looked.await {
            Ok((rows, fresh)) => {
                containers = fresh.or(containers);
                rows
            }
            // The event is on disk; a peer that is restarted comes back and can be asked again.
            Err(error) if Instant::now() >= deadline => return Ok(Some(error)),
            Err(error) => {
                if !lost {
                    context.out.say(format!("{}; asking again", error.what))?;
                }
                lost = true;
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        polls = polls.wrapping_add(1);
        let fresh = started.elapsed() < SEEN_WITHIN;
        let stopping = containers.iter().flatten().any(|row| row.state == PsState::Stopping);
        let mut done = 0;
        for (n, step) in steps.iter().enumerate() {
            let row = row_of(&rows, &step.target);
            let standing = standing(step, row, containers.as_deref(), fresh);
            if !matches!(standing, Standing::Unplaced(_)) {
                unplaced_since.remove(&n);
            }
            match standing {
                Standing::Done => done += 1,
                Standing::Invalid(why) => {
                    return Ok(Some(
                        CliError::new(
                            "invalid",
                            format!("deployment {} is not valid as merged", step.target),
                        )
                        .because(why)
                        .hint("what runs is kept; `skerry conflicts` shows who changed what"),
                    ));
                }
                Standing::JobFailed(job) => return Ok(Some(job_failed(&step.target, &job))),
                Standing::Failed(failed) => return Ok(Some(rolled_back(step, &failed))),
                Standing::Unplaced(lines) => {
                    let ready = row.map_or(0, |row| row.ready);
                    let since = unplaced_since.entry(n).or_insert_with(|| (ready, Instant::now()));
                    // What stops gives its room back, and what came up since shows that it goes on.
                    if since.0 != ready || stopping {
                        *since = (ready, Instant::now());
                    }
                    if since.1.elapsed() >= UNPLACED_FOR {
                        return Ok(Some(cannot_be_placed(step, row, &lines)));
                    }
                }
                Standing::Going { ready, replicas } => {
                    let words = match (&step.after, row) {
                        (None, _) => format!("{}: {ready} still running", step.target),
                        (Some(_), None) => continue,
                        (Some(_), Some(row)) => {
                            let waits = row.waits.iter().map(|it| format!(", {it}")).collect::<String>();
                            let word = if row.job.is_some() { "done" } else { "ready" };
                            format!("{}: {ready} of {replicas} {word}{waits}", step.target)
                        }
                    };
                    if told.get(&n) != Some(&words) {
                        context.out.say(&words)?;
                        told.insert(n, words);
                    }
                }
            }
            // One that is deleted need not come up any more.
            let wanted = containers.as_deref().filter(|_| step.after.is_some()).zip(row);
            // A template that has one before it goes back to that by itself, which is then told.
            // A job is tried as often as it says, and then it has failed.
            let wanted =
                wanted.filter(|(_, row)| row.job.is_none() && !(step.changes_template() && row.revision > 1));
            if let Some(error) = wanted.and_then(|(rows, row)| failing(step, row.revision, rows)) {
                return Ok(Some(error));
            }
        }
        if done == steps.len() {
            context.out.say(format!("done in {:.1} s", started.elapsed().as_secs_f64()))?;
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(
                too_late(context, client, steps, containers.as_deref().unwrap_or_default()).await,
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn too_late(context: &Context, client: &Client, steps: &[Step], containers: &[PsRow]) -> CliError {
    let names: Vec<_> = steps.iter().map(|step| step.target.to_string()).collect();
    let mut error = CliError::new(
        "not-converged",
        format!("{} did not come about within {} s", names.join(", "), context.globals.timeout.as_secs_f64()),
    )
    .exit(Exit::NotConverged)
    .hint("it continues in the background: `skerry ps` shows how far it is");
    let is_job = |row: &PsRow| {
        let of = steps.iter().find(|step| step.target.name.as_str() == row.deployment);
        of.and_then(|step| step.after.as_ref()).is_some_and(|after| after.contains_key(Group::Job.as_str()))
    };
    for row in containers {
        let ours = steps.iter().any(|step| {
            step.target.name.as_str() == row.deployment && step.target.namespace.as_str() == row.namespace
        });
        // Runs of a job that are done, or whose turn has not come, keep nobody waiting.
        let idle = row.state == PsState::Exited || (row.container.is_none() && is_job(row));
        if !ours || row.healthy == Some(true) || idle {
            continue;
        }
        let state = crate::commands::ps::state_word(row.state);
        let place = row.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
        let reason = row.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        error = error.because(format!("{}.{} is {state}{place}{reason}", row.deployment, row.ordinal));
    }
    // Whoever is away may be the reason.
    if let Ok(nodes) = client.get::<Vec<NodeRow>>(routes::NODES).await {
        let away = nodes.iter().filter(|node| {
            matches!(node.state, api::shapes::NodeState::Suspect | api::shapes::NodeState::Down)
        });
        for node in away {
            error = error.because(format!("{} cannot be reached", node.name));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deployment of four replicas, so many of which are ready, with so many containers that run.
    fn row(ready: u32, running: u32) -> DeploymentRow {
        DeploymentRow {
            namespace: "default".into(),
            name: "web".into(),
            incarnation: "01".repeat(32),
            revision: 2,
            revision_hash: Some("02".repeat(32)),
            replicas: 4,
            ready,
            running,
            ..DeploymentRow::default()
        }
    }

    #[test]
    fn a_change_has_come_about_when_what_is_wanted_runs_and_nothing_else() {
        assert!(has_come_about(&row(4, 4)));
        assert!(!has_come_about(&row(3, 4)), "one is not ready");
        assert!(!has_come_about(&row(4, 5)), "an old one still runs");
    }

    #[test]
    fn a_change_that_is_held_up_has_come_about_when_it_goes_no_further() {
        let paused = |ready, running| DeploymentRow { paused: true, ..row(ready, running) };
        assert!(has_come_about(&paused(1, 5)), "one of each runs on");
        assert!(!has_come_about(&paused(1, 3)));
        let with = |canary: &str, ready, running| {
            let groups = [("update".to_owned(), format!(r#"{{"canary":{canary}}}"#))].into();
            DeploymentRow { groups, ..row(ready, running) }
        };
        let waits = r#"{"replicas":2}"#;
        assert!(has_come_about(&with(waits, 2, 4)));
        assert!(!has_come_about(&with(waits, 1, 4)));
        let through = format!(r#"{{"replicas":2,"promoted":"{}"}}"#, "02".repeat(32));
        assert!(!has_come_about(&with(&through, 2, 4)), "the others follow");
        let by_itself = r#"{"replicas":2,"promote_after_s":60}"#;
        assert!(!has_come_about(&with(by_itself, 2, 4)), "the others follow in a minute");
    }
}
