//! The command line's form.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use model::{LabelKey, Name};
use peer::{Amounts, Overcommit, Reserve};

use crate::commands;
use crate::manifest::units;
use crate::out::Format;

/// A masterless container orchestrator: any peer will do.
#[derive(Debug, Parser)]
#[command(
    name = "skerry",
    version,
    propagate_version = false,
    after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 not converged in time, 4 cannot be placed, 5 rolled back,\n6 changed since plan, 7 no peer reachable, 8 the node was removed, 9 a job failed, 130 interrupted; `exec` passes on the program's own\n(125 to 127 where it could not be run)."
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// The peer to talk to: unix:PATH or HOST:PORT[#NODE-ID] [default: the local peer's socket]
    #[arg(long, global = true, env = "SKERRY_PEER", value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// Your private key, which signs what you change [default: ~/.config/skerry/user.key]
    #[arg(long, global = true, env = "SKERRY_KEY", value_name = "PATH")]
    pub(crate) key: Option<PathBuf>,
    /// Form of the data
    #[arg(
        short,
        long,
        global = true,
        env = "SKERRY_OUTPUT",
        value_enum,
        default_value_t,
        hide_possible_values = false
    )]
    pub(crate) output: Format,
    /// Do not ask (nor with `SKERRY_YES=1`)
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// How long to wait for what was asked to come about
    #[arg(long, global = true, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// A command; each has its file in `commands`.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the doc comment of a variant is the command's help, kept at its arguments")]
pub(crate) enum Command {
    // The cluster.
    Init(commands::init::InitArgs),
    Peer(commands::peer::PeerArgs),
    Join(commands::join::JoinArgs),
    #[command(subcommand)]
    Token(commands::token::TokenCommand),
    #[command(subcommand)]
    Node(commands::node::NodeCommand),
    #[command(subcommand)]
    User(commands::user::UserCommand),
    Leave(commands::leave::LeaveArgs),
    Status(commands::status::StatusArgs),
    Doctor(commands::doctor::DoctorArgs),
    // Deployments.
    Apply(commands::apply::ApplyArgs),
    Plan(commands::plan::PlanArgs),
    Scale(commands::scale::ScaleArgs),
    Restart(commands::restart::RestartArgs),
    /// Stop an update where it is: nothing further changes
    Pause(commands::rollout::RolloutArgs),
    /// Let an update go on that was paused
    Resume(commands::rollout::RolloutArgs),
    /// Let the other replicas follow those that were changed first
    Promote(commands::rollout::RolloutArgs),
    Delete(commands::delete::DeleteArgs),
    History(commands::history::HistoryArgs),
    Undo(commands::undo::UndoArgs),
    Conflicts(commands::conflicts::ConflictsArgs),
    Explain(commands::explain::ExplainArgs),
    Validate(commands::validate::ValidateArgs),
    // Looking and reaching in.
    Ps(commands::ps::PsArgs),
    #[command(subcommand)]
    Get(commands::get::GetCommand),
    Logs(commands::logs::LogsArgs),
    Exec(commands::exec::ExecArgs),
    Events(commands::events::EventsArgs),
    #[command(subcommand)]
    Image(commands::image::ImageCommand),
    // The rest.
    Schema(commands::schema::SchemaArgs),
    Version(commands::version::VersionArgs),
    // Trying it out.
    Dev(dev::cli::DevArgs),
    Demo(dev::demo::DemoArgs),
    #[command(subcommand)]
    Sim(commands::sim::SimCommand),
    Completions(commands::completions::CompletionsArgs),
    #[command(hide = true)]
    HelpPages(commands::help_pages::HelpPagesArgs),
}

/// A deployment as people name it: `web` or `shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// The namespace.
    pub(crate) namespace: Name,
    /// The deployment.
    pub(crate) name: Name,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace == Name::default_namespace() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl FromStr for Target {
    type Err = model::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((namespace, name)) => Self { namespace: namespace.parse()?, name: name.parse()? },
            None => Self { namespace: Name::default_namespace(), name: text.parse()? },
        })
    }
}

/// A deployment or one of its replicas: `web`, `web.0`, `shop/web.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaTarget {
    /// The deployment.
    pub(crate) target: Target,
    /// The replica, where one is named.
    pub(crate) ordinal: Option<u32>,
}

impl FromStr for ReplicaTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, ordinal) = match text.split_once('.') {
            None => (text, None),
            Some((target, ordinal)) => {
                let ordinal = ordinal.parse().map_err(|_| {
                    format!("`{ordinal}` is not a replica's number: a replica is named like `web.0`")
                })?;
                (target, Some(ordinal))
            }
        };
        Ok(Self { target: target.parse().map_err(|error: model::NameError| error.to_string())?, ordinal })
    }
}

/// An id, or enough of its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdPrefix(pub(crate) String);

/// Hexadecimal digits of an id below which two are too easily alike.
const ID_PREFIX_DIGITS_MIN: usize = 4;

impl FromStr for IdPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex && (ID_PREFIX_DIGITS_MIN..=64).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("expected {ID_PREFIX_DIGITS_MIN} to 64 hexadecimal digits in lower case"))
        }
    }
}

impl IdPrefix {
    /// Whether it stands for this id.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        id.starts_with(&self.0)
    }
}

/// Reads a time: `500ms`, `30s`, `2m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let forms = "write it like `500ms`, `30s`, `2m`, `1h` or `7d`";
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or(format!("a time needs a unit: {forms}"))?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a time: {forms}"))?;
    let scale: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is not a time: {forms}")),
    };
    // A hundred years: beyond it, sums of times would overflow.
    match number.checked_mul(scale).filter(|millis| *millis <= 100 * 365 * 86_400_000) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(format!("`{text}` is longer than a hundred years")),
    }
}

/// Reads `KEY=VALUE`, a label.
pub(crate) fn parse_label(text: &str) -> Result<(LabelKey, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE")?;
    if value.len() > model::limits::LABEL_VALUE_BYTES_MAX {
        return Err(format!("the value is longer than {} characters", model::limits::LABEL_VALUE_BYTES_MAX));
    }
    Ok((key.parse().map_err(|error: model::NameError| error.to_string())?, value.to_owned()))
}

/// Reads `NAME=COUNT`, an extra of a node.
pub(crate) fn parse_extra(text: &str) -> Result<(LabelKey, u64), String> {
    let (name, count) = text.split_once('=').ok_or("an extra is written NAME=COUNT, like `gpu=1`")?;
    let name = name.parse().map_err(|error: model::NameError| error.to_string())?;
    let most = model::limits::EXTRA_COUNT_MAX;
    match count.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok((name, count)),
        _ => Err(format!("`{count}` is not a count, use a whole number from 1 to {most}")),
    }
}

/// Reads `cpu=200m,memory=256Mi`, or one of both.
pub(crate) fn parse_reserve(text: &str) -> Result<Reserve, String> {
    let mut reserve = Reserve::default();
    for (key, value) in parts(text, "write it like `cpu=200m,memory=256Mi`")? {
        match key {
            "cpu" => reserve.cpu_m = Some(units::cpu(value).map_err(|error| error.to_string())?),
            "memory" => reserve.memory_b = Some(units::memory(value).map_err(|error| error.to_string())?),
            other => return Err(format!("`{other}` is not kept, use cpu and memory")),
        }
    }
    Ok(reserve)
}

/// Reads `cpu=1.5,memory=1.2`, or one of both, each from 1 to 10 with two decimals at most.
pub(crate) fn parse_overcommit(text: &str) -> Result<Overcommit, String> {
    let most = model::limits::OVERCOMMIT_PERCENT_MAX;
    let percent = |value: &str| {
        let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let scaled = (digits(whole) && digits(part) && part.len() <= 2)
            .then(|| format!("{whole}{part:0<2}").parse::<u16>().ok())
            .flatten();
        scaled
            .filter(|percent| (100..=most).contains(percent))
            .ok_or(format!("`{value}` is no ratio, use 1 to {} with two decimals at most", most / 100))
    };
    let mut overcommit = Overcommit::default();
    for (key, value) in parts(text, "write it like `cpu=1.5,memory=1.2`")? {
        match key {
            "cpu" => overcommit.cpu_percent = percent(value)?,
            "memory" => overcommit.memory_percent = percent(value)?,
            other => return Err(format!("`{other}` is not over-committed, use cpu and memory")),
        }
    }
    Ok(overcommit)
}

/// `KEY=VALUE,...`, each key once.
fn parts<'t>(text: &'t str, form: &str) -> Result<Vec<(&'t str, &'t str)>, String> {
    let mut parts: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or(form)?;
        if parts.iter().any(|(known, _)| *known == key) {
            return Err(format!("`{key}` is given twice"));
        }
        parts.push((key, value));
    }
    Ok(parts)
}

/// Reads `cpu=2,memory=1Gi,pids=500`; each is needed.
pub(crate) fn parse_capacity(text: &str) -> Result<Amounts, String> {
    let (mut cpu_m, mut memory_b, mut pids) = (None, None, None);
    for (key, value) in parts(text, "write it like `cpu=2,memory=1Gi,pids=500`")? {
        match key {
            "cpu" => cpu_m = Some(units::cpu(value).map_err(|error| error.to_string())?),
            "memory" => memory_b = Some(units::memory(value).map_err(|error| error.to_string())?),
            "pids" => pids = Some(value.parse().map_err(|_| format!("`{value}` is not a whole number"))?),
            other => return Err(format!("`{other}` is not known, use cpu, memory and pids")),
        }
    }
    let needed = |value: Option<u64>, name: &str| match value {
        Some(0) => Err(format!("`{name}` must not be 0")),
        Some(value) => Ok(value),
        None => Err(format!("`{name}` is missing, write it like `cpu=2,memory=1Gi,pids=500`")),
    };
    Ok(Amounts {
        cpu_m: needed(cpu_m, "cpu")?,
        memory_b: needed(memory_b, "memory")?,
        pids: needed(pids, "pids")?,
    })
}

/// What to wait for after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Every replica runs the wanted revision and is healthy.
    Running,
    /// The event is on so many disks.
    Replicated(u32),
    /// Nothing.
    None,
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "running" => Ok(Self::Running),
            None if text == "none" => Ok(Self::None),
            Some(("replicated", count)) => match count.parse() {
                Ok(count @ 1..) => Ok(Self::Replicated(count)),
                _ => Err(format!("`{count}` is not a number of peers, 1 or more")),
            },
            _ => Err("use running, replicated=N or none".to_owned()),
        }
    }
}

/// How long to stay after a change.
#[derive(Clone, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Do not wait (the same as --wait none)
    #[arg(long, conflicts_with = "wait")]
    pub(crate) detach: bool,
    /// What to wait for: running, replicated=N or none
    #[arg(long, default_value = "running", value_name = "WHAT")]
    pub(crate) wait: Wait,
}

impl WaitArgs {
    /// What was asked for.
    pub(crate) fn wanted(&self) -> Wait {
        if self.detach { Wait::None } else { self.wait }
    }
}

/// A guard against changes since a plan was made.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GuardArgs {
    /// Only if the namespace still stands at these heads (as `plan` shows them), else exit 6
    #[arg(long, value_name = "HEADS", value_delimiter = ',')]
    pub(crate) if_heads: Option<Vec<IdPrefix>>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_has_an_argument_of_the_name_of_a_global_one() {
        // Clap would read the one where the other was meant, and say so only when it is used.
        fn walk(command: &clap::Command, globals: &[clap::Id], path: &str) {
            for arg in command.get_arguments().filter(|arg| !arg.is_global_set()) {
                assert!(!globals.contains(arg.get_id()), "{path}: {}", arg.get_id());
            }
            for sub in command.get_subcommands() {
                walk(sub, globals, &format!("{path} {}", sub.get_name()));
            }
        }
        let root = Cli::command();
        let globals: Vec<_> =
            root.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.get_id().clone()).collect();
        assert_eq!(globals.len(), 6);
        walk(&root, &globals, "skerry");
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(
            parse_duration("5").unwrap_err(),
            "a time needs a unit: write it like `500ms`, `30s`, `2m`, `1h` or `7d`"
        );
        for bad in ["", "m", "1.5h", "-1s", "3w", "99999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_capacity_names_all_three() {
        assert_eq!(
            parse_capacity("cpu=2,memory=1Gi,pids=500"),
            Ok(Amounts { cpu_m: 2000, memory_b: 1 << 30, pids: 500 })
        );
        for (bad, message) in [
            ("cpu=2", "`memory` is missing, write it like `cpu=2,memory=1Gi,pids=500`"),
            ("cpu=2,cpu=3", "`cpu` is given twice"),
            ("cpu=0,memory=1Gi,pids=5", "`cpu` must not be 0"),
            ("disk=3", "`disk` is not known, use cpu, memory and pids"),
            ("cpu", "write it like `cpu=2,memory=1Gi,pids=500`"),
            ("cpu=2,memory=1gb,pids=5", "`1gb` is not an amount of memory; did you mean `1G`?"),
        ] {
            assert_eq!(parse_capacity(bad).unwrap_err(), message);
        }
    }

    #[test]
    fn an_extra_is_a_name_and_a_whole_count() {
        assert_eq!(parse_extra("gpu=1"), Ok(("gpu".parse().unwrap(), 1)));
        assert_eq!(parse_extra("gpu").unwrap_err(), "an extra is written NAME=COUNT, like `gpu=1`");
        for bad in ["gpu=0", "gpu=half", "gpu=-1", "gpu=10001"] {
            assert!(parse_extra(bad).unwrap_err().ends_with("use a whole number from 1 to 10000"), "{bad}");
        }
        assert!(parse_extra("=1").is_err());
    }

    #[test]
    fn a_reserve_and_ratios_are_read_with_what_is_left_out_as_usual() {
        assert_eq!(parse_reserve("memory=256Mi"), Ok(Reserve { cpu_m: None, memory_b: Some(256 << 20) }));
        assert_eq!(
            parse_reserve("cpu=0.5,memory=1Gi"),
            Ok(Reserve { cpu_m: Some(500), memory_b: Some(1 << 30) })
        );
        assert_eq!(parse_reserve("disk=1").unwrap_err(), "`disk` is not kept, use cpu and memory");
        assert_eq!(parse_reserve("cpu=1,cpu=2").unwrap_err(), "`cpu` is given twice");
        let over = |cpu_percent, memory_percent| Ok(Overcommit { cpu_percent, memory_percent });
        assert_eq!(parse_overcommit("cpu=1.5"), over(150, 100));
        assert_eq!(parse_overcommit("cpu=2,memory=1.05"), over(200, 105));
        for bad in ["cpu=0.9", "cpu=11", "cpu=1.555", "cpu=-2", "cpu=", "cpu=1.", "cpu=nan"] {
            assert!(
                parse_overcommit(bad).unwrap_err().ends_with("use 1 to 10 with two decimals at most"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_replica_is_named_with_a_dot() {
        let target: ReplicaTarget = "shop/web.3".parse().unwrap();
        assert_eq!((target.target.to_string().as_str(), target.ordinal), ("shop/web", Some(3)));
        let target: ReplicaTarget = "web".parse().unwrap();
        assert_eq!((target.target.to_string().as_str(), target.ordinal), ("web", None));
        for bad in ["web.x", "../web", "web/", "a/b/c", ""] {
            assert!(bad.parse::<ReplicaTarget>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_to_wait_for_is_one_of_three() {
        assert_eq!("replicated=3".parse(), Ok(Wait::Replicated(3)));
        for bad in ["replicated", "replicated=0", "replicated=x", "done", ""] {
            assert!(bad.parse::<Wait>().is_err(), "{bad}");
        }
    }
}
