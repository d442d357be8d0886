//! A cluster under measurement: what is asked of it, and what it shows.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use api::shapes::{Authoring, DeploymentRow, ImageRow, Submitted};
use api::{Client, UnixSocket, path, routes};
use dev::{Cluster, NodeState, Options as Shape, User, kernel};
use document::event::{Create, Delete, Edit, Set, SignedEvent, Verb};
use e2e::author;
use identity::KeyPair;
use model::{DocId, Name};

use super::{Options, go_on, say};

/// What containers run: its first act is to read the clock.
const MARK_C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char line[256];
    int length = snprintf(line, sizeof line, "MARK %lld%09ld %s %s\n", (long long)now.tv_sec, now.tv_nsec,
                          getenv("SKERRY_DEPLOYMENT"), getenv("SKERRY_ORDINAL"));
    if (write(1, line, length) != length) return 1;
    for (;;) pause();
}
"#;

const IMAGE: &str = "mark:1";
/// Room for everything that is started here, so that placement is never what is measured.
const CAPACITY: &str = "cpu=64,memory=64Gi,pids=100000";
/// How long one answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long clearing up between runs may take.
pub(crate) const CALM_WAIT: Duration = Duration::from_secs(40);
/// How often the kernel or a log is looked at while something is waited for. The figures do not come
/// from these looks where a container's own clock gives them.
pub(crate) const POLL: Duration = Duration::from_millis(4);

/// Nanoseconds of Unix time: the clock that the containers read too.
pub(crate) fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Milliseconds from one to the other.
#[expect(clippy::cast_precision_loss, reason = "spans of minutes")]
pub(crate) fn ms(from_ns: i128, to_ns: i128) -> f64 {
    (to_ns - from_ns) as f64 / 1e6
}

/// A container's first instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) ns: i128,
    pub(crate) node: String,
    pub(crate) ordinal: u32,
}

/// An event that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Just before the request's first byte.
    pub(crate) at_ns: i128,
    /// Until the answer was whole.
    pub(crate) ack: Duration,
}

/// The cluster. Dropping it takes it down.
pub(crate) struct World {
    cluster: Option<Cluster>,
    dir: PathBuf,
    pub(crate) names: Vec<String>,
    key: KeyPair,
    runtime: tokio::runtime::Runtime,
    groups: BTreeMap<String, String>,
    counter: Cell<u64>,
}

impl Drop for World {
    fn drop(&mut self) {
        if self.cluster.take().is_some()
            && let Err(error) = Cluster::down_at(&self.dir)
        {
            say(format_args!("the cluster in {} was not taken down: {error}", self.dir.display()));
        }
    }
}

fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, binary) = (dir.join("mark.c"), dir.join("mark"));
    fs::write(&source, MARK_C)?;
    let built = Command::new("cc").args(["-static", "-O2", "-s", "-o"]).arg(&binary).arg(&source).output();
    let built = built.context("run cc")?;
    if !built.status.success() {
        bail!("cc does not compile the probe: {}", String::from_utf8_lossy(&built.stderr).trim());
    }
    Ok(binary)
}

/// Looks until there is something.
pub(crate) fn until<T>(limit: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_every(POLL, limit, look)
}

/// The same, looking as often as `poll` says.
pub(crate) fn until_every<T>(
    poll: Duration,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        go_on()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > limit {
            bail!("waited for {} s", limit.as_secs());
        }
        std::thread::sleep(poll);
    }
}

impl World {
    /// Brings a cluster up, and runs the probe once on each node, so that its image is there.
    pub(crate) fn new(options: &Options, nodes: usize) -> Result<Self> {
        let exe =
            options.skerry.canonicalize().with_context(|| format!("find {}", options.skerry.display()))?;
        let began = Instant::now();
        let shape = Shape {
            exe,
            dir: options.dir.clone(),
            nodes,
            capacity: Some(CAPACITY.to_owned()),
            owned: true,
            replace: true,
        };
        let cluster = Cluster::up(&shape).context("bring up a cluster")?;
        let dir = cluster.dir().to_owned();
        let names = cluster.names();
        let key = KeyPair::load(&dir.join("user.key"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // From here on the cluster is taken down whatever happens.
        let mut world = Self {
            cluster: Some(cluster),
            dir,
            names: names?,
            key: key?,
            runtime: runtime?,
            groups: BTreeMap::new(),
            counter: Cell::new(0),
        };
        say(format_args!("{nodes} peers are up after {:.1} s", began.elapsed().as_secs_f64()));
        let scratch = tempfile::tempdir()?;
        let binary = compile(scratch.path())?;
        let images: Vec<ImageRow> = world.cluster().skerry("n1", User::Alice).json(&[
            "image",
            "build",
            IMAGE,
            "--binary",
            &binary.display().to_string(),
        ])?;
        let digest = &images.first().context("no image was built")?.digest;
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        world.groups = [
            ("image", format!(r#"{{"reference":"{IMAGE}","digest":"{digest}"}}"#)),
            ("resources", r#"{"cpu_m":50,"memory_b":16777216,"pids":8}"#.to_owned()),
        ]
        .map(|(group, json)| (group.to_owned(), json))
        .into();
        if nodes <= 8 {
            let replicas = u32::try_from(nodes)? * 2;
            let began = Instant::now();
            world.create("n1", "warm", replicas)?;
            world.await_marks("warm", 0, replicas as usize, Duration::from_secs(60))?;
            world.delete("n1", "warm")?;
            world.calm()?;
            say(format_args!("the image is everywhere after {:.1} s", began.elapsed().as_secs_f64()));
        }
        Ok(world)
    }

    /// Takes the cluster down, and checks that nothing is left.
    pub(crate) fn down(mut self) -> Result<()> {
        if let Some(cluster) = self.cluster.take() {
            let traces = cluster.traces()?;
            let others = cluster.down()?;
            if !others.is_empty() {
                bail!("processes {others:?} are still in the cluster's network");
            }
            let left = traces.left()?;
            if !left.is_empty() {
                bail!("the cluster left something behind: {left:?}");
            }
        }
        Ok(())
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("it is taken only where the world ends")
    }

    /// A name that was not used before.
    pub(crate) fn fresh(&self, stem: &str) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("{stem}-{}", self.counter.get())
    }

    pub(crate) fn client(&self, node: &str) -> Client {
        Client::new(Arc::new(UnixSocket(self.cluster().socket(node))), ANSWER_WAIT)
    }

    pub(crate) fn get<T: serde::de::DeserializeOwned>(&self, node: &str, route: &str) -> Result<T> {
        let client = self.client(node);
        Ok(self.runtime.block_on(client.get(route))?)
    }

    /// Where the default namespace stands at a node.
    pub(crate) fn authoring(&self, node: &str) -> Result<Authoring> {
        let doc = DocId::Namespace(Name::default_namespace()).to_string();
        self.get(node, &path(routes::AUTHORING, &[("doc", &doc)]))
    }

    fn row(&self, node: &str, name: &str) -> Result<(Authoring, DeploymentRow)> {
        let authoring = self.authoring(node)?;
        let row = authoring.deployments.iter().find(|row| row.name == name).cloned();
        Ok((authoring, row.with_context(|| format!("{node} knows no deployment {name}"))?))
    }

    fn signed(&self, authoring: &Authoring, verb: Verb, edit: Edit) -> Result<Vec<u8>> {
        self.counter.set(self.counter.get() + 1);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.counter.get().to_le_bytes());
        let time_ms = i64::try_from(now_ns() / 1_000_000)?;
        nonce[8..].copy_from_slice(&time_ms.to_le_bytes());
        let body = author::change(&self.key, authoring, nonce, time_ms, verb, edit)?;
        body.check()?;
        Ok(SignedEvent::sign(&body, |bytes| self.key.sign(bytes)).encode())
    }

    /// Submits at `node`; the clock starts when everything is signed.
    fn post(&self, node: &str, authoring: &Authoring, verb: Verb, edit: Edit) -> Result<Sent> {
        let event = self.signed(authoring, verb, edit)?;
        let client = self.client(node);
        // The peer answers when it is on its own disk.
        let route = path(routes::EVENTS, &[("durable", "1")]);
        let (at_ns, began) = (now_ns(), Instant::now());
        let _: Submitted = self.runtime.block_on(client.post(&route, event))?;
        Ok(Sent { at_ns, ack: began.elapsed() })
    }

    fn replicas(count: u32) -> (String, String) {
        ("replicas".to_owned(), format!(r#"{{"count":{count}}}"#))
    }

    pub(crate) fn create(&self, node: &str, name: &str, count: u32) -> Result<Sent> {
        let mut groups = self.groups.clone();
        groups.extend([Self::replicas(count)]);
        let authoring = self.authoring(node)?;
        self.post(node, &authoring, Verb::Apply, Edit::Create(Create { name: name.parse()?, groups }))
    }

    pub(crate) fn scale(&self, node: &str, name: &str, count: u32) -> Result<Sent> {
        let (authoring, row) = self.row(node, name)?;
        let groups = [Self::replicas(count)].into();
        let set = Set { name: name.parse()?, incarnation: row.incarnation.parse()?, groups };
        self.post(node, &authoring, Verb::Scale, Edit::Set(set))
    }

    pub(crate) fn delete(&self, node: &str, name: &str) -> Result<Sent> {
        let (authoring, row) = self.row(node, name)?;
        let delete = Delete { name: name.parse()?, incarnation: row.incarnation.parse()? };
        self.post(node, &authoring, Verb::Delete, Edit::Delete(delete))
    }

    /// The first instructions of a deployment's containers since a moment, as their logs hold them.
    pub(crate) fn marks(&self, deployment: &str, since_ns: i128) -> Result<Vec<Mark>> {
        let mut marks = Vec::new();
        for node in &self.names {
            let Ok(containers) = fs::read_dir(self.dir.join(node).join("containers")) else { continue };
            for container in containers {
                // It may be removed while we look.
                let Ok(log) = fs::read_to_string(container?.path().join("log")) else { continue };
                for line in log.lines() {
                    let Some((_, text)) = line.split_once("MARK ") else { continue };
                    let mut words = text.split_ascii_whitespace();
                    let (Some(ns), Some(of), Some(ordinal)) = (words.next(), words.next(), words.next())
                    else {
                        continue;
                    };
                    let ns: i128 = ns.parse().with_context(|| format!("read the line {line}"))?;
                    if of == deployment && ns >= since_ns {
                        marks.push(Mark { ns, node: node.clone(), ordinal: ordinal.parse()? });
                    }
                }
            }
        }
        marks.sort_by_key(|mark| mark.ns);
        Ok(marks)
    }

    /// Waits for `count` of them.
    pub(crate) fn await_marks(
        &self,
        deployment: &str,
        since_ns: i128,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<Mark>> {
        until(limit, || {
            let marks = self.marks(deployment, since_ns)?;
            Ok((marks.len() >= count).then_some(marks))
        })
        .with_context(|| format!("{count} containers of {deployment} did not begin"))
    }

    /// Containers with a process on a node, by the kernel.
    pub(crate) fn running(&self, node: &str) -> Result<usize> {
        Ok(kernel::containers(&self.cluster().cgroup(node))?.len())
    }

    pub(crate) fn running_everywhere(&self) -> Result<usize> {
        self.names.iter().map(|node| self.running(node)).sum()
    }

    /// Containers with a process, and their deployments as their logs name them.
    pub(crate) fn live(&self) -> Result<Vec<(String, String)>> {
        let mut live = Vec::new();
        for node in &self.names {
            for container in kernel::containers(&self.cluster().cgroup(node))?.into_keys() {
                let log = self.dir.join(node).join("containers").join(&container).join("log");
                let text = fs::read_to_string(log).unwrap_or_default();
                let of = text.lines().find_map(|line| line.split_once("MARK ")?.1.split(' ').nth(1));
                live.push((container, of.unwrap_or_default().to_owned()));
            }
        }
        Ok(live)
    }

    /// The numbers of the first processes of a deployment's containers on a node, as its peer has it.
    pub(crate) fn pids(&self, node: &str) -> Result<BTreeMap<String, u32>> {
        let rows: Vec<api::shapes::PsRow> = self.get(node, routes::PS)?;
        let mine = rows.into_iter().filter(|row| row.node.as_deref() == Some(node));
        Ok(mine.filter_map(|row| Some((row.container?, row.pid?))).collect())
    }

    /// Waits until nothing runs anywhere and every folder of a container is gone.
    pub(crate) fn calm(&self) -> Result<()> {
        until_every(Duration::from_millis(10), CALM_WAIT, || {
            for node in &self.names {
                let containers = self.dir.join(node).join("containers");
                if fs::read_dir(&containers)?.next().is_some() {
                    return Ok(None);
                }
            }
            Ok((self.running_everywhere()? == 0).then_some(()))
        })
        .context("containers of a run before did not end")
    }

    /// Waits until every peer sees every other one and their documents stand at the same heads.
    pub(crate) fn whole(&self) -> Result<()> {
        self.cluster().together()?;
        until_every(Duration::from_millis(20), CALM_WAIT, || self.heads_equal()).context("heads differ")
    }

    /// Whether all nodes stand at the same heads of the default namespace.
    pub(crate) fn heads_equal(&self) -> Result<Option<()>> {
        let mut first: Option<Vec<String>> = None;
        for node in &self.names {
            let deps = self.authoring(node)?.deps;
            match &first {
                None => first = Some(deps),
                Some(first) if *first != deps => return Ok(None),
                Some(_) => {}
            }
        }
        Ok(Some(()))
    }

    /// The peer of a node.
    pub(crate) fn peer(&self, node: &str) -> Result<u32> {
        let rows = self.cluster().status()?;
        let row = rows.into_iter().find(|row| row.name == node);
        row.and_then(|row| row.pid).with_context(|| format!("no peer runs on {node}"))
    }

    /// Cuts nodes off from all others.
    pub(crate) fn cut(&self, groups: &[&[&str]]) -> Result<()> {
        let groups: Vec<Vec<String>> =
            groups.iter().map(|group| group.iter().map(|it| (*it).to_owned()).collect()).collect();
        Ok(self.cluster().partition(&groups, &[])?)
    }

    /// Brings everything back to where a bench expects it: whole, up, and nothing deployed.
    pub(crate) fn recover(&self) -> Result<()> {
        self.cluster().heal()?;
        for row in self.cluster().status()? {
            if row.state != NodeState::Up {
                self.cluster().start(&row.name)?;
            }
        }
        self.whole()?;
        for row in self.authoring("n1")?.deployments {
            self.delete("n1", &row.name)?;
        }
        self.calm()
    }
}
