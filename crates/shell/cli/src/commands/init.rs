//! `init`: the first node of a new cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::peer::{Amounts, NodeOptions, Overcommit, Pressure, Reserve};
use model::{Extras, LabelKey, Name};

use crate::Context;
use crate::args::{parse_capacity, parse_extra, parse_label, parse_overcommit, parse_reserve};
use crate::connect::{default_dir, socket};
use crate::error::CliError;
use crate::keys;
use crate::shapes::Initialised;

/// Make this machine the first node of a new cluster
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "skerry")]
    cluster: Name,
    /// Your name, as the history shows it [default: the login name]
    #[arg(long, value_name = "NAME")]
    user: Option<Name>,
    /// Print a systemd unit for the peer, and do nothing else
    #[arg(long)]
    systemd: bool,
}

/// What `init` and `join` are told of the node.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The data folder [default: /var/lib/skerry as root, else ~/.local/share/skerry]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The node's name [default: the host's]
    #[arg(long)]
    name: Option<Name>,
    /// The UDP address that the mesh listens on
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7440")]
    listen: SocketAddr,
    /// What others dial, HOST:PORT, most wanted first [default: from --listen]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// A label for placement, KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(LabelKey, String)>,
    /// What the node offers, cpu=2,memory=1Gi,pids=500 [default: measured]
    #[arg(long, value_parser = parse_capacity)]
    capacity: Option<Amounts>,
    /// Something else that it offers, counted whole, like gpu=1
    #[arg(long = "extra", value_name = "NAME=COUNT", value_parser = parse_extra)]
    extras: Vec<(LabelKey, u64)>,
    /// What is kept for the system, cpu=200m,memory=256Mi [default: a tenth of what is measured]
    #[arg(long, value_parser = parse_reserve)]
    reserve: Option<Reserve>,
    /// How often the rest is given away, cpu=1.5,memory=1.2 [default: once]
    #[arg(long, value_parser = parse_overcommit)]
    overcommit: Option<Overcommit>,
    /// Take new work even while the machine is short of processors, memory or disk
    #[arg(long)]
    ignore_pressure: bool,
    /// The folder of its containers' cgroups: peers that share a machine need different ones
    #[arg(long, value_name = "NAME", default_value = "skerry")]
    cgroup_parent: String,
}

/// A host's or login name as a name of ours: lower case, other characters as `-`.
fn as_name(text: &str, what: &str, option: &str) -> Result<Name, CliError> {
    let first = text.split('.').next().unwrap_or_default().to_lowercase();
    let mapped: String =
        first.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let cut: String = mapped.trim_matches('-').chars().take(model::limits::NAME_BYTES_MAX).collect();
    cut.trim_matches('-').parse().map_err(|_| {
        CliError::usage(format!("{what} `{}` makes no name", text.escape_debug()))
            .hint(format!("give one with {option} NAME"))
    })
}

impl NodeArgs {
    pub(crate) fn dir(&self) -> Result<PathBuf, CliError> {
        match &self.dir {
            Some(dir) => std::path::absolute(dir).map_err(|error| {
                CliError::new("dir", "the current folder is not known").because(error.to_string())
            }),
            None => default_dir(),
        }
    }

    pub(crate) fn options(&self) -> Result<NodeOptions, CliError> {
        let name = if let Some(name) = &self.name {
            name.clone()
        } else {
            let host = nix::unistd::gethostname().map_err(|error| {
                CliError::new("host", "the host's name cannot be read").because(error.to_string())
            })?;
            as_name(&host.to_string_lossy(), "the host's name", "--name")?
        };
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if !self.cgroup_parent.split('/').all(plain) {
            return Err(CliError::usage(format!(
                "`{}` is not a folder of cgroups: use letters, digits, `-`, `_`, `.` and `/` between them",
                self.cgroup_parent.escape_debug()
            )));
        }
        // The system would give another port at each start.
        if self.listen.port() == 0 && self.advertise.is_empty() {
            return Err(CliError::usage(format!(
                "others cannot reach a node that listens at {}",
                self.listen
            ))
            .hint("name a port in --listen, or with --advertise HOST:PORT what others dial"));
        }
        let mut extras = BTreeMap::new();
        for (name, count) in &self.extras {
            if extras.insert(name.clone(), *count).is_some() {
                return Err(CliError::usage(format!("extra `{name}` is given twice")));
            }
        }
        let extras = Extras::new(extras).map_err(|error| CliError::usage(error.to_string()))?;
        Ok(NodeOptions {
            dir: self.dir()?,
            name,
            listen: self.listen,
            advertise: self.advertise.clone(),
            labels: self.labels.iter().cloned().collect(),
            capacity: self.capacity,
            extras,
            reserve: self.reserve,
            overcommit: self.overcommit.unwrap_or_default(),
            pressure: Pressure { ignore: self.ignore_pressure, files: None },
            cgroup_parent: self.cgroup_parent.clone(),
        })
    }

    /// `--dir DIR`, where the folder is not the default one.
    pub(crate) fn dir_option(&self) -> Result<String, CliError> {
        let dir = self.dir()?;
        Ok(if default_dir().is_ok_and(|default| default == dir) {
            String::new()
        } else {
            format!(" --dir {}", dir.display())
        })
    }

    /// `--peer unix:...`, where the socket is not the default one.
    pub(crate) fn peer_option(&self) -> Result<String, CliError> {
        let dir = self.dir()?;
        Ok(if default_dir().is_ok_and(|default| default == dir) {
            String::new()
        } else {
            format!(" --peer unix:{}", socket(&dir).display())
        })
    }
}

/// The unit. `KillMode=process`: containers outlive the peer, so systemd must not end them with it.
/// `Delegate`: the peer makes cgroups of its own. It waits for no network: a node that boots cut off
/// runs its share.
fn unit(program: &Path, dir: &Path) -> String {
    format!(
        "[Unit]
Description=Skerry peer
# No network-online.target: a node that boots cut off runs its share at once.
After=local-fs.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={} peer --dir {}
Restart=always
RestartSec=1
# The node was removed: there is nothing to run any more.
RestartPreventExitStatus=8
# Containers outlive the peer; they are adopted when it starts again.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
",
        program.display(),
        dir.display()
    )
}

pub(crate) fn run(args: &InitArgs, context: &Context) -> Result<(), CliError> {
    if args.systemd {
        let program = std::env::current_exe().map_err(|error| {
            CliError::new("program", "this program's path is not known").because(error.to_string())
        })?;
        context
            .out
            .say("save this as /etc/systemd/system/skerry.service, then: systemctl enable --now skerry")?;
        return context.out.line(unit(&program, &args.node.dir()?).trim_end());
    }
    let options = args.node.options()?;
    let user_name = if let Some(name) = &args.user {
        name.clone()
    } else {
        let login = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
        as_name(&login.unwrap_or_else(|_| "admin".to_owned()), "the login name", "--user")?
    };
    let (key, key_path, created) = keys::load_or_create(context.globals.key.as_deref())?;
    let made = ::peer::init(&options, &args.cluster, &user_name, &key)
        .map_err(|error| CliError::from_error("init", &error))?;
    let answer = Initialised {
        cluster: args.cluster.to_string(),
        cluster_id: made.cluster.to_string(),
        node: options.name.to_string(),
        node_id: made.node.to_string(),
        dir: options.dir.display().to_string(),
        user: key.user_id().to_string(),
        recovery_key: made.recovery_key.display().to_string(),
    };
    let out = &context.out;
    if created {
        out.say(format!("made your key at {}: it signs what you change", key_path.display()))?;
    }
    out.say(format!(
        "the recovery key is at {}: move it off this machine, it can let anyone in again",
        answer.recovery_key
    ))?;
    out.answer(&answer, || format!("cluster {} has its first node, {}", answer.cluster, answer.node))?;
    out.say("next:")?;
    out.say(format!("  skerry peer{}", args.node.dir_option()?))?;
    out.say(format!("  skerry{} token create", args.node.peer_option()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_name() {
        for (host, name) in [
            ("edge-1", "edge-1"),
            ("Edge_1.shop.example", "edge-1"),
            ("--x--", "x"),
            ("a".repeat(80).as_str(), &"a".repeat(63)),
        ] {
            assert_eq!(as_name(host, "the host's name", "--name").unwrap().as_str(), name);
        }
        assert_eq!(as_name("...", "the host's name", "--name").unwrap_err().exit.code(), 2);
    }

    #[test]
    fn the_unit_leaves_containers_alone_and_waits_for_no_network() {
        let unit = unit(Path::new("/usr/bin/skerry"), Path::new("/var/lib/skerry"));
        for line in [
            "Type=notify",
            "KillMode=process",
            "Delegate=yes",
            "Restart=always",
            "RestartPreventExitStatus=8",
            "ExecStart=/usr/bin/skerry peer --dir /var/lib/skerry",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}");
        }
        let settings = unit.lines().filter(|line| !line.starts_with('#'));
        assert!(settings.clone().all(|line| !line.contains("network")), "{unit}");
    }
}
