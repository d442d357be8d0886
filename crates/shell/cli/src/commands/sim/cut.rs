//! `sim cut`: what would happen to this cluster, or to one that is only described, if links were cut or
//! nodes lost power.

use std::path::PathBuf;
use std::time::Duration;

use api::routes;
use api::shapes::{Amounts, DeploymentRow, NodeRow, NodeState, PsRow, PsState, Status};
use model::{Capacity, Deployment, Digest, Extras, Name};
use sim::Machine;
use sim::whatif::{Answer, NoAnswer, Placed, Question};

use super::{island, picture, tell};
use crate::args::parse_duration;
use crate::commands::node::state_word;
use crate::error::{CliError, Exit};
use crate::manifest::{self, load, nodes, read_sources};
use crate::{Context, connect, online};

/// The longest cut: nothing new happens after the first seconds, and a week says so long enough.
const LASTS_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Node-hours that one answer may take: some minutes of one processor. A release build did 33,000 an hour of
/// five nodes without faults (2026-11-25).
const NODE_HOURS_MAX: u64 = 2_000;

/// Show what a cut would do: who runs what on each side, what runs twice, what the heal stops
#[derive(Debug, clap::Args)]
pub(crate) struct CutArgs {
    /// The sides, like a,b/c,d: nothing passes between them
    #[arg(value_name = "SIDES")]
    sides: String,
    /// How long it lasts
    #[arg(long = "for", value_name = "TIME", value_parser = parse_lasts)]
    lasts: Duration,
    /// A node that loses power when the cut begins, and stays off; may be given more than once
    #[arg(long, value_name = "NODE")]
    kill: Vec<String>,
    /// Show what the heal does as well
    #[arg(long)]
    then_heal: bool,
    /// Deployments of a manifest, beside those of the cluster and before them
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Nodes of a file instead of a running cluster
    #[arg(long, value_name = "FILE", requires = "files")]
    nodes: Option<PathBuf>,
    /// Seed of all chance
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = super::run::parse_seed)]
    seed: u64,
    /// Draw what ran when into an SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the drawing and the words into an HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Reads how long a cut lasts.
fn parse_lasts(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a cut lasts longer than nothing".to_owned()),
        lasts if lasts > LASTS_MAX => Err("a cut lasts at most 7d here".to_owned()),
        lasts => Ok(lasts),
    }
}

/// What is simulated, whatever it was read from.
struct Cluster {
    name: Option<String>,
    machines: Vec<Machine>,
    deployments: Vec<Deployment>,
    placed: Vec<Placed>,
    /// Nodes of the cluster that take no part, and why.
    away: Vec<(String, &'static str)>,
}

pub(crate) fn run(args: &CutArgs, context: &Context) -> Result<(), CliError> {
    let cluster = match &args.nodes {
        Some(path) => described(path)?,
        None => online_cluster(context)?,
    };
    let cluster = with_manifests(cluster, &args.files)?;
    if cluster.deployments.is_empty() {
        return Err(CliError::usage("there is no deployment").hint("name manifests with -f"));
    }
    let names: Vec<&str> = cluster.machines.iter().map(|it| it.name.as_str()).collect();
    let sides = island::read(&args.sides, &args.kill, &names, &cluster.away)?;
    let node_hours = args.lasts.as_secs() * names.len() as u64 / 3_600;
    if node_hours > NODE_HOURS_MAX {
        return Err(CliError::usage(format!(
            "{} nodes for {} are {node_hours} node-hours, the limit is {NODE_HOURS_MAX}",
            names.len(),
            crate::out::span(args.lasts.as_secs())
        ))
        .hint("a shorter cut shows the same: nothing moves after the first seconds"));
    }
    let out = &context.out;
    for (name, why) in &cluster.away {
        out.say(format!("{name} is {why} and takes no part"))?;
    }
    let question = Question {
        machines: cluster.machines,
        deployments: cluster.deployments,
        placed: cluster.placed,
        islands: sides.islands,
        killed: sides.killed,
        lasts: args.lasts,
        heals: args.then_heal,
        seed: args.seed,
    };
    let begin = std::time::Instant::now();
    let answer = question.answer().map_err(|error| no_answer(&error))?;
    let took = begin.elapsed();
    let told = tell::shape(&question, &answer, cluster.name);
    let words = tell::words(&told);
    draw(args, &question, &answer, &told.summary, &words)?;
    out.answer(&told, || words)?;
    out.say(format!(
        "{} of virtual time in {:.1} s",
        crate::out::span(answer.end_at.since(model::Time::ZERO).as_secs()),
        took.as_secs_f64()
    ))
}

fn draw(
    args: &CutArgs,
    question: &Question,
    answer: &Answer,
    summary: &str,
    words: &str,
) -> Result<(), CliError> {
    if args.svg.is_none() && args.html.is_none() {
        return Ok(());
    }
    let svg = picture::svg(question, answer, summary)?;
    let page = picture::page(&svg, summary, words);
    for (path, text) in [(&args.svg, &svg), (&args.html, &page)] {
        let Some(path) = path else { continue };
        std::fs::write(path, text).map_err(|error| {
            CliError::new("picture", format!("{} cannot be written", path.display()))
                .because(error.to_string())
        })?;
    }
    Ok(())
}

fn no_answer(error: &NoAnswer) -> CliError {
    let hint = match error {
        NoAnswer::Refused { .. } => "`skerry plan` would refuse it as well",
        NoAnswer::Restless { .. } => "`skerry ps` shows whether the cluster itself is at rest",
        NoAnswer::Violation { .. } => "this is a bug of Skerry; please report it with what you asked",
    };
    CliError::from_error("no-answer", error).hint(hint)
}

/// Nodes of a file.
fn described(path: &std::path::Path) -> Result<Cluster, CliError> {
    let usage = |mut error: CliError| {
        "nodes".clone_into(&mut error.word);
        error.exit(Exit::Usage)
    };
    let sources = read_sources(&[path.to_owned()]).map_err(usage)?;
    let [source] = sources.as_slice() else {
        return Err(CliError::usage(format!("{} is a folder", path.display())).hint("name one file of nodes"));
    };
    let nodes = nodes::read(&source.text).map_err(|problems| usage(manifest::error(source, problems)))?;
    let machine = |it: nodes::NodeSpec| Machine { name: it.name, capacity: it.capacity, labels: it.labels };
    Ok(Cluster {
        name: None,
        machines: nodes.into_iter().map(machine).collect(),
        deployments: Vec::new(),
        placed: Vec::new(),
        away: Vec::new(),
    })
}

/// The running cluster, as one peer knows it.
fn online_cluster(context: &Context) -> Result<Cluster, CliError> {
    let mut asked = None;
    online(async {
        let client = connect::client(&context.globals)?;
        let status: Status = client.get(routes::STATUS).await?;
        let rows: Vec<PsRow> = client.get(routes::PS).await?;
        asked = Some((status, rows));
        Ok(())
    })
    .map_err(|error| {
        if error.exit == Exit::NoPeer {
            error.hint("without a cluster, describe one: -f app.yaml --nodes nodes.yaml")
        } else {
            error
        }
    })?;
    let (status, rows) = asked.expect("what was asked was answered");
    running(&status, &rows)
}

fn running(status: &Status, rows: &[PsRow]) -> Result<Cluster, CliError> {
    let odd = |what: String| CliError::new("peer", "the peer's answer cannot be used").because(what);
    let mut cluster = Cluster {
        name: Some(status.cluster.clone()),
        machines: Vec::new(),
        deployments: Vec::new(),
        placed: Vec::new(),
        away: Vec::new(),
    };
    for row in status.nodes.iter().filter(|row| row.state != NodeState::Removed) {
        if row.state == NodeState::Up {
            cluster.machines.push(machine(row).map_err(odd)?);
        } else {
            cluster.away.push((row.name.clone(), state_word(row.state)));
        }
    }
    for row in &status.deployments {
        // What does not validate starts nothing in the cluster either.
        if row.invalid.is_none() {
            cluster.deployments.push(deployment(row).map_err(odd)?);
        }
    }
    let runs = |row: &&PsRow| matches!(row.state, PsState::Running | PsState::Starting);
    for row in rows.iter().filter(runs) {
        let machine = cluster.machines.iter().position(|it| Some(it.name.as_str()) == row.node.as_deref());
        let Some(machine) = machine else { continue };
        cluster.placed.push(Placed {
            namespace: row.namespace.parse().map_err(|error: model::NameError| odd(error.to_string()))?,
            name: row.deployment.parse().map_err(|error: model::NameError| odd(error.to_string()))?,
            ordinal: row.ordinal,
            machine,
        });
    }
    Ok(cluster)
}

fn machine(row: &NodeRow) -> Result<Machine, String> {
    let Amounts { cpu_m, memory_b, pids, extras } = &row.capacity;
    let extras = extras.iter().map(|(name, count)| Ok((name.parse()?, *count)));
    let extras = extras.collect::<Result<_, model::NameError>>().map_err(|error| error.to_string())?;
    let extras = Extras::new(extras).map_err(|error| error.to_string())?;
    let labels = row.labels.iter().map(|(key, value)| Ok((key.parse()?, value.clone())));
    Ok(Machine {
        name: row.name.parse().map_err(|error: model::NameError| error.to_string())?,
        capacity: Capacity { cpu_m: *cpu_m, memory_b: *memory_b, pids: *pids, extras },
        labels: labels.collect::<Result<_, model::NameError>>().map_err(|error| error.to_string())?,
    })
}

fn deployment(row: &DeploymentRow) -> Result<Deployment, String> {
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    let incarnation = row.incarnation.parse().map_err(|error: model::IdError| error.to_string())?;
    let made = Deployment::from_groups(&name(&row.namespace)?, &name(&row.name)?, incarnation, &row.groups)
        .map_err(|error| error.to_string())?;
    if made.is_exclusive() {
        return Err(format!(
            "{}/{} is `exclusive`, which is not simulated here yet",
            row.namespace, row.name
        ));
    }
    Ok(made)
}

/// Deployments of manifests take the place of those of the same name.
fn with_manifests(mut cluster: Cluster, files: &[PathBuf]) -> Result<Cluster, CliError> {
    for spec in load(files).map_err(|error| error.exit(Exit::Usage))? {
        let key = (spec.namespace.clone(), spec.name.clone());
        let known = cluster.deployments.iter().position(|it| it.namespace == key.0 && it.name == key.1);
        // No image is asked for: in a simulation every machine holds every image.
        let digest = spec.image.digest.unwrap_or(match known {
            Some(at) => cluster.deployments[at].image.digest,
            None => Digest::from_bytes([0x1a; 32]),
        });
        let deployment = spec.with_digest(digest);
        if deployment.is_exclusive() {
            let what = format!("{}/{} is `exclusive`, which is not simulated here yet", key.0, key.1);
            return Err(CliError::new("exclusive", what)
                .because("its voters are nodes of a cluster, and the machines of a simulation are not")
                .hint("leave it out: what it does in a split is in docs/concepts/partitions.md")
                .exit(Exit::Usage));
        }
        match known {
            Some(at) => cluster.deployments[at] = deployment,
            None => cluster.deployments.push(deployment),
        }
    }
    Ok(cluster)
}
