//! `skerry dev ...`: the form of its command line, and what it does.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cluster::{Cluster, ClusterError, NodeStatus, Options, User};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// This program's own path.
    #[error("this program's path is not known, so it cannot be started for the peers")]
    Exe(#[source] io::Error),
    /// Nobody reads what is written.
    #[error("the output cannot be written")]
    Write(#[from] io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Cluster(ClusterError::Missing { .. }) => {
                Some("run the same as root, with `sudo` before it")
            }
            Self::Cluster(ClusterError::NotFound { .. }) => Some("make one: skerry dev up --nodes 3"),
            _ => None,
        }
    }
}

/// Run a whole cluster on this machine, to try things out
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DevCommand,
}

/// Where the cluster is.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// The cluster's folder [default: /var/lib/skerry-dev as root, else ~/.local/state/skerry-dev]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What to do with a cluster on this machine.
#[derive(Clone, Debug, Subcommand)]
pub enum DevCommand {
    /// Make a cluster of real peers, each in a network namespace of its own
    Up {
        /// Where.
        #[command(flatten)]
        at: At,
        /// How many nodes; they are named n1, n2 and so on
        #[arg(long, default_value_t = 3, value_name = "N")]
        nodes: usize,
        /// What each node offers, cpu=2,memory=1Gi,pids=500 [default: measured]
        #[arg(long)]
        capacity: Option<String>,
    },
    /// Cut the links between groups of nodes, in place of what was cut before
    Partition {
        /// Where.
        #[command(flatten)]
        at: At,
        /// Groups, as n1,n2/n3; a node in no group reaches everybody
        #[arg(value_name = "GROUPS", value_parser = parse_groups, required_unless_present = "one_way")]
        groups: Option<Groups>,
        /// Also drop everything from one node to another, as n1>n2; the way back stays open
        #[arg(long, value_name = "FROM>TO", value_parser = parse_one_way)]
        one_way: Vec<(String, String)>,
    },
    /// Mend every link
    Heal(At),
    /// Take a node's power away: peer, containers and network end at once
    Kill {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The node
        node: String,
    },
    /// Kill a node's peer with SIGKILL; its containers go on
    Stop {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The node
        node: String,
    },
    /// Start a node's peer again; gives a killed node its network back
    Start {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The node
        node: String,
    },
    /// Show the nodes
    Status(At),
    /// Take everything down and away, the folder included
    Down(At),
}

/// Groups of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(pub Vec<Vec<String>>);

/// Reads `n1,n2/n3`.
pub fn parse_groups(text: &str) -> Result<Groups, String> {
    let groups: Vec<Vec<String>> =
        text.split('/').map(|group| group.split(',').map(|name| name.trim().to_owned()).collect()).collect();
    if groups.len() < 2 || groups.iter().flatten().any(String::is_empty) {
        return Err("write groups like `n1,n2/n3`: nodes with `,` between them, groups with `/`".to_owned());
    }
    Ok(Groups(groups))
}

/// Reads `n1>n2`.
pub fn parse_one_way(text: &str) -> Result<(String, String), String> {
    match text.split_once('>') {
        Some((from, to)) if !from.trim().is_empty() && !to.trim().is_empty() => {
            Ok((from.trim().to_owned(), to.trim().to_owned()))
        }
        _ => Err("write it like `n1>n2` (in quotes, for the shell's sake)".to_owned()),
    }
}

/// The default folder of clusters: `name` below the machine's or the user's state.
pub(crate) fn default_dir(name: &str) -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return Path::new("/var/lib").join(name);
    }
    let absolute = |var| std::env::var_os(var).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join(name)
}

impl At {
    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| default_dir("skerry-dev"))
    }
}

fn rows(cluster: &Cluster, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let rows = cluster.status()?;
    if json {
        return Ok(json_to(&rows, out)?);
    }
    writeln!(out, "{:<6}{:<10}{:<10}{:<10}SOCKET", "NODE", "STATE", "PID", "ID")?;
    for row in rows {
        let state = serde_json::to_value(row.state).map_err(io::Error::from)?;
        let NodeStatus { name, id, pid, socket, .. } = row;
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let id = id.as_deref().and_then(|id| id.get(..8)).unwrap_or("-");
        let state = state.as_str().unwrap_or_default();
        writeln!(out, "{name:<6}{state:<10}{pid:<10}{id:<10}{}", socket.display())?;
    }
    Ok(())
}

fn json_to<T: Serialize + ?Sized>(value: &T, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// The line that makes a shell talk to this cluster.
pub(crate) fn shell_line(cluster: &Cluster) -> String {
    let (socket, key) = (cluster.socket("n1"), cluster.key(User::Alice));
    format!("export SKERRY_PEER=unix:{} SKERRY_KEY={}", socket.display(), key.display())
}

/// Runs the command: data goes to `out`, words to `talk`. Returns the process's exit code.
pub fn run(args: &DevArgs, json: bool, out: &mut dyn Write, talk: &mut dyn Write) -> Result<u8, Error> {
    let exe = std::env::current_exe().map_err(Error::Exe)?;
    let open = |at: &At| Cluster::open(&at.dir(), &exe);
    let cluster = match &args.command {
        DevCommand::Up { at, nodes, capacity } => {
            let (dir, nodes, capacity) = (at.dir(), *nodes, capacity.clone());
            let options = Options { exe: exe.clone(), dir, nodes, capacity, owned: false, replace: false };
            let cluster = Cluster::up(&options)?;
            let s = if nodes == 1 { "" } else { "s" };
            writeln!(talk, "{nodes} peer{s} run, each in its own network namespace. Talk to one of them:")?;
            writeln!(talk, "  {}", shell_line(&cluster))?;
            writeln!(talk, "  skerry node ls")?;
            cluster
        }
        DevCommand::Partition { at, groups, one_way } => {
            let cluster = open(at)?;
            let groups = groups.as_ref().map(|groups| groups.0.as_slice()).unwrap_or_default();
            cluster.partition(groups, one_way)?;
            cluster
        }
        DevCommand::Heal(at) => {
            let cluster = open(at)?;
            cluster.heal()?;
            cluster
        }
        DevCommand::Kill { at, node } => {
            let cluster = open(at)?;
            cluster.kill(node)?;
            cluster
        }
        DevCommand::Stop { at, node } => {
            let cluster = open(at)?;
            cluster.stop(node)?;
            cluster
        }
        DevCommand::Start { at, node } => {
            let cluster = open(at)?;
            cluster.start(node)?;
            cluster
        }
        DevCommand::Status(at) => open(at)?,
        DevCommand::Down(at) => {
            let dir = at.dir();
            let others = Cluster::down_at(&dir)?;
            if !others.is_empty() {
                let pids: Vec<String> = others.iter().map(u32::to_string).collect();
                writeln!(talk, "processes of others are still in what was its network: {}", pids.join(", "))?;
            }
            if json {
                json_to(&Vec::<NodeStatus>::new(), out)?;
            } else {
                writeln!(out, "{} is gone", dir.display())?;
            }
            return Ok(0);
        }
    };
    rows(&cluster, json, out)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        dev: DevArgs,
    }

    fn parse(line: &str) -> Result<DevCommand, clap::Error> {
        Cli::try_parse_from(std::iter::once("dev").chain(line.split(' '))).map(|cli| cli.dev.command)
    }

    #[test]
    fn groups_are_read_as_written_in_the_manual() {
        let Ok(DevCommand::Partition { groups, one_way, .. }) = parse("partition n1,n2/n3 --one-way n1>n2")
        else {
            panic!("a partition")
        };
        assert_eq!(groups.unwrap().0, [vec!["n1".to_owned(), "n2".into()], vec!["n3".into()]]);
        assert_eq!(one_way, [("n1".to_owned(), "n2".to_owned())]);
        for bad in
            ["partition", "partition n1,n2", "partition n1//n2", "partition n1, /", "partition --one-way n1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_verb_takes_a_folder_and_up_makes_three_nodes() {
        for line in
            ["status --dir /x", "heal --dir /x", "down --dir /x", "kill --dir /x n1", "start n1 --dir /x"]
        {
            parse(line).unwrap();
        }
        let Ok(DevCommand::Up { nodes, .. }) = parse("up") else { panic!("an up") };
        assert_eq!(nodes, 3);
    }

    #[test]
    fn a_cluster_that_is_not_there_is_an_error_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let args = DevArgs { command: DevCommand::Status(At { dir: Some(dir.path().into()) }) };
        let error = run(&args, true, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("there is no cluster in {}", dir.path().display()));
        assert_eq!(error.hint(), Some("make one: skerry dev up --nodes 3"));
    }
}
