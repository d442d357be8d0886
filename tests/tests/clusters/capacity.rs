//! What nodes offer and containers ask: counted things, limits above requests, reserves, pressure; by the
//! kernel's word.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;

use api::routes;
use api::shapes::{Explain, NodeRow, PsRow};
use dev::{User, kernel};
use e2e::{Held, LIMIT, World, eventually, with_cluster, with_cluster_of};

use super::{ALL, lines, quiet};

/// The lines of [`quiet`], with other resources.
fn asking(replicas: usize, resources: &str) -> Vec<String> {
    let mut lines = quiet(replicas);
    lines.retain(|line| !line.starts_with("resources"));
    lines.push(format!("resources: {{{resources}}}"));
    lines
}

/// Adds to what a node's operator decides, and starts its peer anew.
fn configure(world: &World, node: &str, text: &str) {
    world.stop(node);
    let path = world.dir(node).join("peer.toml");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    world.start(node);
}

fn row(world: &World, node: &str, of: &str) -> Result<NodeRow, String> {
    let rows: Vec<NodeRow> = world.ask(node, routes::NODES)?;
    rows.into_iter().find(|row| row.name == of).ok_or(format!("{node} does not know {of}"))
}

/// Why a node cannot take one more of a deployment, or that it can.
fn why(world: &World, deployment: &str, node: &str) -> String {
    let explain: Explain = world.json("n1", &["explain", deployment]);
    explain.nodes.into_iter().find(|row| row.node == node).expect("each node is explained").why
}

#[test]
fn a_thing_that_a_node_has_is_given_to_one_container_alone_and_is_free_when_that_ends() {
    with_cluster(3, |world| {
        world.image("n1");
        configure(world, "n2", "\n[extras]\ncamera = 1\n");
        configure(world, "n3", "\n[extras]\ncamera = 1\ngpu = 2\n");
        world.linked(&ALL);
        let asked = "cpu: 50m, memory: 32Mi, pids: 20, extras: {camera: 1}";
        world.submit("n1", User::Alice, "watch", &lines(&asking(3, asked)));
        let both = eventually(LIMIT, || {
            let held = world.of("watch", &ALL);
            if held.len() == 2 { Ok(held) } else { Err(format!("{} run", held.len())) }
        });
        let on: BTreeSet<&str> = both.iter().map(|held: &Held| held.node.as_str()).collect();
        assert_eq!(on, BTreeSet::from(["n2", "n3"]));
        eventually(LIMIT, || {
            let rows: Vec<PsRow> = world.ask("n1", routes::PS)?;
            let waits = rows.iter().find(|row| row.deployment == "watch" && row.node.is_none());
            let reason = waits.and_then(|row| row.reason.clone()).unwrap_or_default();
            if reason.contains("camera: 0 free, 1 asked") { Ok(()) } else { Err(reason) }
        });
        assert_eq!(why(world, "watch", "n1"), "camera: 0 free, 1 asked");
        let n3 = row(world, "n1", "n3").unwrap();
        assert_eq!((n3.capacity.extras["gpu"], n3.free.extras.get("camera")), (2, None));
        // One that asks for none is not kept out.
        world.apply("n2", "web", &lines(&quiet(3)));
        world.settled(&ALL, "web", 3);
        // What ends gives it back.
        world.ok("n1", &["scale", "watch=1"]);
        world.apply("n1", "photo", &lines(&asking(1, asked)));
        world.settled(&ALL, "photo", 1);
    });
}

#[test]
fn what_is_set_aside_is_less_than_the_limit_that_the_kernel_holds_and_is_its_share_of_the_processors() {
    with_cluster_of(1, "cpu=1,memory=256Mi,pids=500", |world| {
        world.image("n1");
        let asked = "cpu: 200m, memory: 32Mi, pids: 20, limits: {cpu: 2, memory: 128Mi}";
        // Five of them may use ten cores and 640 MiB, and are set aside one core and 160 MiB.
        world.apply("n1", "web", &lines(&asking(5, asked)));
        for held in world.settled(&["n1"], "web", 5) {
            let cgroup = format!("{}/{}", world.cluster.cgroup("n1"), held.id);
            let limits = kernel::limits(&cgroup).unwrap();
            assert_eq!((limits.cpu_m, limits.memory_b), (Some(2_000), Some(128 << 20)));
            let read = |folder: &std::path::PathBuf, file| std::fs::read_to_string(folder.join(file)).ok();
            let folders = kernel::cgroups(&cgroup).unwrap();
            let shares = folders.iter().find_map(|it| read(it, "cpu.shares"));
            let weight = folders.iter().find_map(|it| read(it, "cpu.weight"));
            // 200 of 1000 parts of 1024 shares, or as a weight.
            let found = shares.as_deref().or(weight.as_deref()).map(str::trim);
            assert_eq!(found, Some(if shares.is_some() { "204" } else { "8" }));
        }
        let n1 = row(world, "n1", "n1").unwrap();
        assert_eq!((n1.free.cpu_m, n1.free.memory_b), (0, 96 << 20));
        world.ok("n1", &["scale", "web=6", "--detach"]);
        eventually(LIMIT, || {
            let told = why(world, "web", "n1");
            if told == "cpu: 0m free, 200m asked" { Ok(()) } else { Err(told) }
        });
        // A limit below what is set aside is refused where it is written, and nothing changes.
        let bad = world.manifest("web", &["resources: {cpu: 200m, limits: {cpu: 100m}}"]);
        let told = world.run("n1", User::Alice, &["apply", "-f", &bad]).ok().unwrap_err().to_string();
        assert!(told.contains("100m is less than the 200m that are set aside for it"), "{told}");
    });
}

#[test]
fn a_node_gives_away_what_is_left_beside_its_reserve_and_more_only_where_its_operator_says_so() {
    with_cluster_of(2, "cpu=1,memory=256Mi,pids=500", |world| {
        let both = ["n1", "n2"];
        world.image("n1");
        configure(world, "n2", "\n[reserve]\ncpu_m = 500\nmemory_b = 0\n\n[overcommit]\ncpu-percent = 300\n");
        world.linked(&both);
        let n2 = row(world, "n1", "n2").unwrap();
        assert_eq!((n2.capacity.cpu_m, n2.capacity.memory_b), (1_500, 256 << 20));
        assert_eq!((n2.reserved_cpu_m, n2.cpu_percent, n2.memory_percent), (500, 300, 100));
        let asked = "cpu: 500m, memory: 32Mi, pids: 20";
        world.submit("n1", User::Alice, "web", &lines(&asking(6, asked)));
        // Two on the one, three on the other, and none more.
        eventually(LIMIT, || {
            let told = (why(world, "web", "n1"), why(world, "web", "n2"));
            let full = "cpu: 0m free, 500m asked";
            if told.0 == full && told.1 == format!("{full}; cpu is over-committed to 300 %") {
                return Ok(());
            }
            Err(format!("{told:?}"))
        });
        eventually(LIMIT, || {
            let on = both.map(|node| world.of("web", &[node]).len());
            if on == [2, 3] { Ok(()) } else { Err(format!("{on:?} run")) }
        });
    });
}

#[test]
fn a_node_whose_machine_is_short_of_memory_says_so_and_takes_nothing_new_until_that_is_over() {
    with_cluster(2, |world| {
        let both = ["n1", "n2"];
        world.image("n1");
        world.apply("n1", "web", &lines(&quiet(2)));
        let before = world.settled(&both, "web", 2);
        // The kernel's figures of n2 come from a folder of ours.
        let figures = |some: &str| {
            let text = format!("some avg10={some} avg60=0.00 avg300=0.00 total=0\n");
            world.file("memory", &text)
        };
        let path = figures("34.05");
        let folder = std::path::Path::new(&path).parent().unwrap().display().to_string();
        world.stop("n2");
        let settings = world.dir("n2").join("peer.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        assert!(text.contains("\nignore = true\n"), "{text}");
        let text = text.replace("\nignore = true\n", &format!("\nignore = false\nfiles = \"{folder}\"\n"));
        std::fs::write(&settings, text).unwrap();
        world.start("n2");
        let reason = "memory: something waited for it 34.05 % of ten seconds, the limit is 20 %";
        eventually(LIMIT, || match row(world, "n1", "n2")?.pressure {
            Some(told) if told == reason => Ok(()),
            other => Err(format!("{other:?}")),
        });
        world.apply("n2", "web", &lines(&quiet(5)));
        let after = world.settled(&both, "web", 5);
        assert_eq!(after.iter().filter(|held| held.node == "n2").count(), 1, "{after:?}");
        assert!(before.iter().all(|held| after.iter().any(|it| it.id == held.id)), "something moved");
        assert_eq!(why(world, "web", "n2"), format!("pressure: takes no new work for now; {reason}"));
        assert!(world.ok("n2", &["events"]).stdout.contains("node-pressure"), "no event says so");
        // It is over: after half a minute of that it takes work again.
        figures("0.00");
        eventually(LIMIT, || match row(world, "n1", "n2")?.pressure {
            None => Ok(()),
            Some(told) => Err(told),
        });
        world.apply("n1", "web", &lines(&quiet(6)));
        let last = world.settled(&both, "web", 6);
        assert_eq!(last.iter().filter(|held| held.node == "n2").count(), 2, "{last:?}");
    });
}
