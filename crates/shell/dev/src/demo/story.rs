//! The steps, in their order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use api::routes;
use api::shapes::{Applied, ConflictRow, ConflictSide, ImageRow, NodeState as Liveness, PsRow, PsState};

use super::look::{self, NAME, PORT, problem};
use super::{Teller, Told};
use crate::cli::shell_line;
use crate::cluster::{Cluster, ClusterError, Options, User};
use crate::kernel;
use crate::meddler::Meddler;
use crate::skerry::{Answer, ask};
use crate::wait;
use crate::web;

/// What each node offers: room for all replicas.
const CAPACITY: &str = "cpu=8,memory=4Gi,pids=4000";

/// Replicas at first, and after alice's change.
const REPLICAS: usize = 6;
const REPLICAS_THEN: usize = 8;

/// Memory of a replica at first, and after bob's change.
const MEMORY: (&str, u64) = ("64Mi", 64 << 20);
const MEMORY_THEN: (&str, u64) = ("96Mi", 96 << 20);

/// How long any one thing may take before the story ends: generous, the busiest machine included.
const LIMIT: Duration = Duration::from_secs(40);

/// How long looking at what should be so already may take.
const LOOK: Duration = Duration::from_secs(10);

const ALL: [&str; 3] = ["n1", "n2", "n3"];

/// What the manifest says.
struct Wanted {
    replicas: usize,
    memory: &'static str,
    greeting: &'static str,
}

/// The cluster, and what was made of it so far.
pub(super) struct Story {
    cluster: Cluster,
}

impl Story {
    /// Makes the cluster.
    pub(super) fn begin(
        exe: &Path,
        dir: &Path,
        teller: &mut Teller<'_>,
    ) -> io::Result<Result<Self, ClusterError>> {
        let options = Options {
            exe: exe.to_owned(),
            dir: dir.to_owned(),
            nodes: ALL.len(),
            capacity: Some(CAPACITY.to_owned()),
            owned: true,
            replace: true,
        };
        let started = Instant::now();
        let cluster = match Cluster::up(&options) {
            Ok(cluster) => cluster,
            Err(error) => return Ok(Err(error)),
        };
        let told = vec![
            format!("3 peers run, each in its own network namespace, and see each other; {CAPACITY} each"),
            "n1 began, n2 and n3 joined with a token; alice is admin, bob may deploy".to_owned(),
        ];
        teller.told("up", started.elapsed(), Ok(told))?;
        Ok(Ok(Self { cluster }))
    }

    /// All steps between up and down. Whether every check held.
    pub(super) fn tell(&self, teller: &mut Teller<'_>) -> io::Result<bool> {
        type Step = (&'static str, fn(&Story) -> Told);
        let steps: [Step; 10] = [
            ("image", Self::image),
            ("apply", Self::apply),
            ("forge", Self::forge),
            ("cut", Self::cut),
            ("change", Self::change),
            ("heal", Self::heal),
            ("resolve", Self::resolve),
            ("kill", Self::kill),
            ("return", Self::come_back),
            ("adopt", Self::adopt),
        ];
        for (title, step) in steps {
            if !teller.step(title, || step(self))? {
                for node in ALL {
                    let log = self.cluster.log_tail(node);
                    teller.say(&format!("the end of {node}'s log:\n{log}"))?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Leaves the cluster up.
    pub(super) fn keep(self, teller: &mut Teller<'_>) -> io::Result<()> {
        let dir = self.cluster.dir().display().to_string();
        let line = shell_line(&self.cluster);
        if let Err(error) = self.cluster.disown() {
            teller.say(&format!("the cluster cannot be given away: {}", problem(error)))?;
        }
        teller.say("the cluster is left up; try:")?;
        for line in [
            line,
            "skerry ps -o wide; skerry logs web --tail 2; skerry history web; skerry explain web".to_owned(),
            format!("skerry dev partition n1/n2,n3 --dir {dir}; skerry scale web=3; skerry node ls"),
            format!("skerry dev heal --dir {dir}; skerry undo web"),
            format!("skerry dev down --dir {dir}"),
        ] {
            teller.say(&format!("  {line}"))?;
        }
        Ok(())
    }

    /// Takes everything down, and looks for what is left.
    pub(super) fn end(self, teller: &mut Teller<'_>) -> io::Result<bool> {
        teller.step("down", || {
            let traces = self.cluster.traces().map_err(problem)?;
            let processes = traces.processes();
            self.cluster.down().map_err(problem)?;
            let left = traces.left().map_err(problem)?;
            if !left.is_empty() {
                return Err(format!("this is left: {left:?}"));
            }
            Ok(vec![format!(
                "{processes} processes ended; no process, cgroup, mount, namespace or file of it is left"
            )])
        })
    }

    fn manifest(&self, who: &str, wanted: &Wanted) -> Result<String, String> {
        let path = self.cluster.dir().join(format!("{who}.yaml"));
        let Wanted { replicas, memory, greeting } = wanted;
        // The image has the program at its root, under its own name.
        let exe = self.cluster.exe().file_name().unwrap_or_default().display();
        let (arg, container) = (web::ARG, web::PORT);
        let text = format!(
            "deployments:
  - name: {NAME}
    image: web:1
    replicas: {replicas}
    command: [\"/{exe}\", {arg}]
    env: {{GREETING: {greeting}}}
    resources: {{cpu: 100m, memory: {memory}, pids: 20}}
    ports: [\"{PORT}:{container}\"]
"
        );
        fs::write(&path, text).map_err(problem)?;
        Ok(path.display().to_string())
    }

    /// Applies what `user` wants at a node's peer, and waits for it.
    fn submit(&self, node: &str, user: User, who: &str, wanted: &Wanted) -> Result<Applied, String> {
        let path = self.manifest(who, wanted)?;
        let skerry = self.cluster.skerry(node, user).within(LIMIT);
        let applied: Applied = skerry.json(&["apply", "-f", &path]).map_err(problem)?;
        if applied.event.is_none() {
            return Err(format!("the change of {who} made no event"));
        }
        Ok(applied)
    }

    fn image(&self) -> Told {
        let exe = self.cluster.exe().display().to_string();
        let rows: Vec<ImageRow> = self
            .cluster
            .skerry("n1", User::Alice)
            .json(&["image", "build", "web:1", "--binary", &exe])
            .map_err(problem)?;
        let row = rows.first().ok_or("no image was built")?;
        let digest = row.digest.get(..19).unwrap_or(&row.digest);
        Ok(vec![format!(
            "web:1 is built of this program and the libraries it needs: {} MiB, {digest}..., on n1 alone",
            row.size_b >> 20
        )])
    }

    fn apply(&self) -> Told {
        let wanted = Wanted { replicas: REPLICAS, memory: MEMORY.0, greeting: "hello" };
        let started = Instant::now();
        let applied = self.submit("n1", User::Alice, "alice", &wanted)?;
        let took = started.elapsed();
        let (counts, _) = look::running(&self.cluster, &ALL, REPLICAS, LOOK)?;
        if counts.values().any(|count| *count == 0) {
            return Err(format!("equal nodes have unequal shares: {}", look::show(&counts)));
        }
        let answering = look::greet(&self.cluster, &ALL, "hello", LOOK)?;
        look::held_to(&self.cluster, &ALL, MEMORY.1, LOOK)?;
        Ok(vec![
            format!(
                "{REPLICAS} replicas run {:.1} s after `apply` at n1: {} (the image went from peer to peer)",
                took.as_secs_f64(),
                look::show(&counts)
            ),
            format!(
                "all {answering} answer over HTTP; the event is on disk on {} peers; {} each by cgroup",
                applied.durable_on, MEMORY.0
            ),
        ])
    }

    /// Two changes that nobody who may has signed: neither may get into any document.
    fn forge(&self) -> Told {
        let socket = self.cluster.socket("n2");
        let key = |who: &str| self.cluster.dir().join(who);
        look::same_heads(&self.cluster, &ALL, LOOK)?;
        let before = look::heads(&self.cluster, &ALL)?;
        let wanted = Wanted { replicas: REPLICAS + 1, memory: MEMORY.0, greeting: "gotcha" };
        let path = self.manifest("mallory", &wanted)?;
        let apply = ["apply", "--detach", "-f", &path];

        let between = key("between.sock");
        let meddler = Meddler::between(&between, &socket).map_err(problem)?;
        let changed = self.cluster.skerry_with(&between, &self.cluster.key(User::Alice));
        let changed = changed.run(&apply).map_err(problem)?;
        if meddler.changed() != 1 {
            return Err(format!("{} events were changed on their way", meddler.changed()));
        }
        refused(&changed, "is not signed by its author", "an event that was changed on its way")?;

        let mallory = self.cluster.skerry_with(&socket, &key("mallory.key"));
        mallory.ok(&["user", "key"]).map_err(problem)?;
        let strange = mallory.run(&apply).map_err(problem)?;
        refused(&strange, "may not do this", "an event of a stranger")?;

        if look::heads(&self.cluster, &ALL)? != before {
            return Err("a forged event has changed a document".to_owned());
        }
        look::running(&self.cluster, &ALL, REPLICAS, LOOK)?;
        Ok(vec![
            "one bit of a change by alice was turned on its way to n2: refused, for her signature".to_owned(),
            "mallory signed one with a key that nobody let in: refused; no peer's document has changed"
                .to_owned(),
        ])
    }

    fn cut(&self) -> Told {
        if !look::reaches(&self.cluster, "n1", "n3")? {
            return Err("n1 does not reach n3 before the cut".to_owned());
        }
        let groups = [vec!["n1".to_owned(), "n2".to_owned()], vec!["n3".to_owned()]];
        self.cluster.partition(&groups, &[]).map_err(problem)?;
        let started = Instant::now();
        if look::reaches(&self.cluster, "n1", "n3")? || look::reaches(&self.cluster, "n3", "n2")? {
            return Err("packets pass a link that is cut".to_owned());
        }
        look::sees(&self.cluster, "n1", &[("n2", Liveness::Up), ("n3", Liveness::Down)], LIMIT)?;
        look::sees(&self.cluster, "n3", &[("n1", Liveness::Down), ("n2", Liveness::Down)], LIMIT)?;
        let down = started.elapsed();
        let (left, _) = look::running(&self.cluster, &["n1", "n2"], REPLICAS, LIMIT)?;
        let (right, _) = look::running(&self.cluster, &["n3"], REPLICAS, LIMIT)?;
        Ok(vec![
            format!("n1,n2 | n3: packets are dropped; both sides noticed within {:.1} s", down.as_secs_f64()),
            format!(
                "each side runs all {REPLICAS} after {:.1} s: {} | {}",
                started.elapsed().as_secs_f64(),
                look::show(&left),
                look::show(&right)
            ),
        ])
    }

    fn change(&self) -> Told {
        let (alice, bob) = std::thread::scope(|scope| {
            let alice = scope.spawn(|| {
                let wanted = Wanted { replicas: REPLICAS_THEN, memory: MEMORY.0, greeting: "ahoy" };
                self.submit("n1", User::Alice, "alice", &wanted)
            });
            let wanted = Wanted { replicas: REPLICAS, memory: MEMORY_THEN.0, greeting: "moin" };
            let bob = self.submit("n3", User::Bob, "bob", &wanted);
            (alice.join().unwrap_or_else(|_| Err("alice's thread ended".to_owned())), bob)
        });
        alice?;
        bob?;
        let (left, _) = look::running(&self.cluster, &["n1", "n2"], REPLICAS_THEN, LOOK)?;
        let (right, _) = look::running(&self.cluster, &["n3"], REPLICAS, LOOK)?;
        look::greet(&self.cluster, &["n1", "n2"], "ahoy", LOOK)?;
        look::greet(&self.cluster, &["n3"], "moin", LOOK)?;
        look::held_to(&self.cluster, &["n1", "n2"], MEMORY.1, LOOK)?;
        look::held_to(&self.cluster, &["n3"], MEMORY_THEN.1, LOOK)?;
        Ok(vec![
            format!(
                "alice at n1: replicas {REPLICAS} -> {REPLICAS_THEN}, GREETING=ahoy; {} run it",
                look::show(&left)
            ),
            format!(
                "bob at n3: memory {} -> {}, GREETING=moin; {} run it, held to it by the kernel",
                MEMORY.0,
                MEMORY_THEN.0,
                look::show(&right)
            ),
        ])
    }

    fn heal(&self) -> Told {
        self.cluster.heal().map_err(problem)?;
        let heads = look::same_heads(&self.cluster, &ALL, LIMIT)?;
        for node in ALL {
            let row = look::deployment(&self.cluster, node)?;
            let value = |group: &str, field: &str| {
                let json: serde_json::Value = serde_json::from_str(row.groups.get(group)?).ok()?;
                json.get(field).and_then(serde_json::Value::as_u64)
            };
            let (replicas, memory) = (value("replicas", "count"), value("resources", "memory_b"));
            if (replicas, memory) != (Some(REPLICAS_THEN as u64), Some(MEMORY_THEN.1)) {
                return Err(format!("{node} has merged to {:?}", row.groups));
            }
            if row.conflicts != ["env"] {
                return Err(format!("{node} has conflicts on {:?} instead of env", row.conflicts));
            }
        }
        let row = self.conflict("n2")?;
        let mut told = vec![
            format!(
                "{:.1} s after the heal all peers have the same document: {REPLICAS_THEN} replicas (alice), {} (bob)",
                heads.as_secs_f64(),
                MEMORY_THEN.0
            ),
            "`env` was changed on both sides: a conflict, with the same winner on every peer".to_owned(),
        ];
        for side in &row.sides {
            let force = if side.event == row.winner { "in force" } else { "        " };
            let event = side.event.get(..8).unwrap_or(&side.event);
            told.push(format!(
                "  {force}  event {event} by {}: {}",
                author(side)?,
                side.value.as_deref().unwrap_or("-")
            ));
        }
        Ok(told)
    }

    /// The one conflict, as a peer shows it: on env, between alice and bob.
    fn conflict(&self, node: &str) -> Result<ConflictRow, String> {
        let mut rows: Vec<ConflictRow> =
            self.cluster.skerry(node, User::Bob).json(&["conflicts", "ls"]).map_err(problem)?;
        let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
            return Err(format!("{node} shows other conflicts than one: {rows:?}"));
        };
        let mut authors = row.sides.iter().map(author).collect::<Result<Vec<_>, _>>()?;
        authors.sort_unstable();
        if row.group.as_deref() != Some("env") || authors != ["alice", "bob"] {
            return Err(format!("{node} shows another conflict: {row:?}"));
        }
        Ok(row)
    }

    fn resolve(&self) -> Told {
        // The side that lost, so that settling it is seen.
        let row = self.conflict("n3")?;
        let side =
            row.sides.iter().find(|side| side.event != row.winner).ok_or("there is no side that lost")?;
        let word = if author(side)? == "bob" { "moin" } else { "ahoy" };
        let started = Instant::now();
        let resolved: Applied = self
            .cluster
            .skerry("n3", User::Alice)
            .within(LIMIT)
            .json(&["conflicts", "resolve", NAME, "--take", &side.event])
            .map_err(|error| look::instead_of(&self.cluster, &ALL, REPLICAS_THEN, &problem(error)))?;
        let (counts, _) = look::running(&self.cluster, &ALL, REPLICAS_THEN, LIMIT)?;
        look::same_heads(&self.cluster, &ALL, LOOK)?;
        for node in ALL {
            let rows: Vec<ConflictRow> =
                ask(&self.cluster.socket(node), routes::CONFLICTS).map_err(problem)?;
            if !rows.is_empty() {
                return Err(format!("{node} still shows a conflict: {rows:?}"));
            }
        }
        let answering = look::greet(&self.cluster, &ALL, word, LOOK)?;
        look::held_to(&self.cluster, &ALL, MEMORY_THEN.1, LOOK)?;
        Ok(vec![
            format!(
                "alice took {}'s GREETING={word} (on disk on {} peers), and no conflict is left",
                author(side)?,
                resolved.durable_on
            ),
            format!(
                "the duplicates are gone after {:.1} s: {answering} containers for {REPLICAS_THEN} replicas, {}; all say {word}",
                started.elapsed().as_secs_f64(),
                look::show(&counts)
            ),
        ])
    }

    fn kill(&self) -> Told {
        let before = look::counts(&self.cluster, &["n2"])?;
        let lost = before.values().sum::<usize>();
        if lost == 0 {
            return Err("n2 has no container to lose".to_owned());
        }
        let started = Instant::now();
        self.cluster.kill("n2").map_err(problem)?;
        let dead = look::counts(&self.cluster, &["n2"])?;
        if dead.values().any(|count| *count > 0) {
            return Err(format!("something of n2 runs without power: {}", look::show(&dead)));
        }
        let (counts, _) = look::running(&self.cluster, &["n1", "n3"], REPLICAS_THEN, LIMIT)?;
        let took = started.elapsed();
        look::answers(&self.cluster, "n1", LOOK)?;
        look::answers(&self.cluster, "n3", LOOK)?;
        Ok(vec![format!(
            "n2 lost its power and {lost} containers; all {REPLICAS_THEN} run and answer again after {:.1} s: {}",
            took.as_secs_f64(),
            look::show(&counts)
        )])
    }

    fn come_back(&self) -> Told {
        self.cluster.start("n2").map_err(problem)?;
        for node in ALL {
            let others = ALL.map(|other| (other, Liveness::Up));
            look::sees(&self.cluster, node, &others, LIMIT)?;
        }
        look::same_heads(&self.cluster, &ALL, LIMIT)?;
        let (counts, _) = look::running(&self.cluster, &ALL, REPLICAS_THEN, LIMIT)?;
        Ok(vec![format!(
            "n2 has power again: it is back, and {REPLICAS_THEN} containers run for {REPLICAS_THEN} replicas: {}",
            look::show(&counts)
        )])
    }

    fn adopt(&self) -> Told {
        let containers = || kernel::containers(&self.cluster.cgroup("n1")).map_err(problem);
        let before = containers()?;
        if before.is_empty() {
            return Err("n1 has no container to adopt".to_owned());
        }
        self.cluster.stop("n1").map_err(problem)?;
        let answering = look::answers(&self.cluster, "n1", LOOK)?.len();
        if containers()? != before {
            return Err("containers of n1 changed with the death of its peer".to_owned());
        }
        let started = Instant::now();
        self.cluster.start("n1").map_err(problem)?;
        wait::until(LIMIT, || {
            let rows: Vec<PsRow> = ask(&self.cluster.socket("n1"), routes::PS).map_err(problem)?;
            let mine: BTreeMap<String, PsRow> = rows
                .into_iter()
                .filter(|row| row.node.as_deref() == Some("n1") && row.state == PsState::Running)
                .filter_map(|row| Some((row.container.clone()?, row)))
                .collect();
            for (id, processes) in &before {
                let row = mine.get(id).ok_or(format!("n1 does not know its container {id}"))?;
                let known = processes.iter().any(|process| Some(process.pid) == row.pid);
                if !known || row.restarts > 0 {
                    return Err(format!("n1 did not adopt its container {id} as it is: {row:?}"));
                }
            }
            Ok(())
        })
        .map_err(problem)?;
        let took = started.elapsed();
        look::sees(&self.cluster, "n2", &[("n1", Liveness::Up)], LIMIT)?;
        look::running(&self.cluster, &ALL, REPLICAS_THEN, LIMIT)?;
        if containers()? != before {
            return Err("containers of n1 were started anew".to_owned());
        }
        let mut pids = String::new();
        for process in before.values().filter_map(|processes| processes.first()) {
            write!(pids, " {}", process.pid).map_err(problem)?;
        }
        Ok(vec![format!(
            "kill -9 of n1's peer: its {answering} containers went on, and were adopted {} ms after it was started again: same pids{pids}",
            took.as_millis()
        )])
    }
}

/// Checks that a command was refused, and for this reason.
fn refused(answer: &Answer, why: &str, what: &str) -> Result<(), String> {
    match answer.code {
        Some(0) => Err(format!("{what} was accepted")),
        _ if answer.stderr.contains(why) => Ok(()),
        _ => Err(format!("{what} was refused for another reason: {}", answer.stderr.trim())),
    }
}

/// The name of who made one side of a conflict.
fn author(side: &ConflictSide) -> Result<&str, String> {
    side.author_name.as_deref().ok_or(format!("the author {} has no name", side.author))
}
