//! What nodes offer and containers ask: counted things, limits above requests, reserves, pressure; by the
//! kernel's word.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;

use api::routes;
use api::shapes::{Explain, NodeRow, PsRow};
use dev::User;
use e2e::{Held, LIMIT, World, eventually, with_cluster};

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
