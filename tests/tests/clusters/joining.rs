//! Nodes and people that come and go.

use api::routes;
use api::shapes::{ImageRow, NodeRow, NodeState as Liveness, TokenRow};
use dev::User;
use dev::skerry::Skerry;
use e2e::{LIMIT, World, binary, eventually, with_cluster};
use std::time::Duration;

use super::{ALL, lines, quiet};

/// Tries to join a node with a token, from inside of n1's network.
fn join(world: &World, token: &str, name: &str) -> dev::skerry::Answer {
    let dir = world.cluster.dir().join(name).display().to_string();
    let netns = world.cluster.node("n1").unwrap().netns_path;
    let skerry = Skerry::new(binary::skerry(), Duration::from_secs(20)).inside(&netns);
    let cgroup = format!("{}-x", world.cluster.cgroup(name));
    let args = [
        "join",
        token,
        "--dir",
        &dir,
        "--name",
        name,
        "--listen",
        "127.0.0.1:7999",
        "--cgroup-parent",
        &cgroup,
    ];
    skerry.run(&args).unwrap()
}

fn token(world: &World, args: &[&str]) -> String {
    let mut all = vec!["token", "create"];
    all.extend(args);
    let made: serde_json::Value = world.json("n1", &all);
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_node_that_joins_late_gets_documents_and_images_and_takes_its_share() {
    with_cluster(2, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(4)));
        world.settled(&["n1", "n2"], "app", 4);
        let late = world.cluster.add_node().unwrap();
        assert_eq!(late, "n3");
        world.linked(&ALL);
        world.ok("n1", &["scale", "app=9"]);
        let held = world.settled(&ALL, "app", 9);
        assert!(held.iter().any(|held| held.node == "n3"), "{held:?}");
        world.agreed(&ALL);
    });
}

#[test]
fn an_image_that_one_peer_has_reaches_every_peer_that_must_run_it() {
    with_cluster(3, |world| {
        world.image("n2");
        let holders = |node: &str| -> Vec<String> {
            let rows: Vec<ImageRow> = world.ask(node, routes::IMAGES).unwrap();
            rows.into_iter().filter(|row| row.reference.contains("probe")).flat_map(|row| row.nodes).collect()
        };
        eventually(
            LIMIT,
            || if holders("n1") == ["n2"] { Ok(()) } else { Err(format!("{:?}", holders("n1"))) },
        );
        // Applied through a peer that has not got it.
        world.apply("n1", "app", &lines(&quiet(6)));
        let held = world.settled(&ALL, "app", 6);
        for node in ALL {
            assert!(held.iter().any(|held| held.node == node), "nothing runs on {node}");
        }
        eventually(LIMIT, || {
            if holders("n1").len() == 3 { Ok(()) } else { Err(format!("{:?}", holders("n1"))) }
        });
    });
}

#[test]
fn a_removed_node_is_let_go_its_work_moves_and_its_peer_ends() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        let refused = world.run("n1", User::Alice, &["node", "rm", "n3"]);
        assert_eq!(refused.code, Some(1), "a node that is well is not removed by mistake: {refused:?}");
        world.ok("n1", &["node", "rm", "n3", "--force"]);
        world.settled(&["n1", "n2"], "app", 6);
        world.gone(&["n3"], "app");
        eventually(LIMIT, || {
            let rows = world.cluster.status().map_err(|error| error.to_string())?;
            let row = rows.into_iter().find(|row| row.name == "n3").ok_or("no n3")?;
            if row.pid.is_none() { Ok(()) } else { Err(format!("the removed peer still runs: {row:?}")) }
        });
        world.sees("n1", "n3", Liveness::Removed);
    });
}

#[test]
fn a_token_admits_as_many_as_it_says_and_not_one_more() {
    with_cluster(1, |world| {
        let token = token(world, &["--uses", "1"]);
        assert_eq!(join(world, &token, "x1").code, Some(0));
        let second = join(world, &token, "x2");
        assert_eq!(second.code, Some(1), "{second:?}");
        let rows: Vec<NodeRow> = world.ask("n1", routes::NODES).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert!(names.contains(&"x1") && !names.contains(&"x2"), "{names:?}");
        let tokens: Vec<TokenRow> = world.ask("n1", routes::TOKENS).unwrap();
        assert!(tokens.iter().any(|token| token.used == 1 && token.uses == 1), "{tokens:?}");
    });
}

#[test]
fn an_expired_a_revoked_a_truncated_and_a_foreign_token_are_refused_and_nobody_is_let_in() {
    with_cluster(1, |world| {
        let nodes = || world.ask::<Vec<NodeRow>>("n1", routes::NODES).unwrap().len();
        let expired = token(world, &["--ttl", "1ms"]);
        let revoked = token(world, &[]);
        let rows: Vec<TokenRow> = world.ask("n1", routes::TOKENS).unwrap();
        for row in rows.iter().filter(|row| row.used == 0) {
            world.ok("n1", &["token", "revoke", &row.id]);
        }
        let good = token(world, &[]);
        let truncated = &good[..good.len() - 5];
        for (what, token) in
            [("expired", expired.as_str()), ("revoked", &revoked), ("truncated", truncated), ("empty", "x")]
        {
            let answer = join(world, token, "x1");
            assert_eq!(answer.code, Some(1), "{what}: {answer:?}");
            assert!(!answer.stderr.trim().is_empty(), "{what}");
            assert_eq!(nodes(), 1, "{what}");
        }
        // The folder of the failed tries can be used for a good one.
        assert_eq!(join(world, &good, "x1").code, Some(0));
        assert_eq!(nodes(), 2);
    });
}

#[test]
fn who_may_only_deploy_can_deploy_and_cannot_let_anyone_in() {
    with_cluster(1, |world| {
        world.image("n1");
        assert!(world.submit("n1", User::Bob, "app", &lines(&quiet(1))).event.is_some());
        world.settled(&["n1"], "app", 1);
        let answer = world.run("n1", User::Bob, &["token", "create"]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        let answer = world.run("n1", User::Bob, &["node", "rm", "n1"]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        world.sees("n1", "n1", Liveness::Up);
    });
}
