//! Nodes and people that come and go.

use api::routes;
use api::shapes::{ImageRow, NodeRow, NodeState as Liveness, Status, TokenRow};
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

/// The twin in virtual time is in the simulator's tests of removals.
#[test]
fn a_node_that_was_removed_while_it_was_off_stops_at_the_first_contact_and_says_by_whom() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        world.cut("n1,n2/n3");
        world.kill("n3");
        world.sees("n1", "n3", Liveness::Down);
        world.ok("n1", &["node", "rm", "n3"]);
        let others = world.settled(&["n1", "n2"], "app", 6);
        // It cannot know, and runs its last share.
        world.start("n3");
        eventually(LIMIT, || {
            if world.held(&["n3"])?.is_empty() { Err("nothing runs on n3".to_owned()) } else { Ok(()) }
        });
        world.heal();
        // Its own view, while its peer can still be asked.
        eventually(LIMIT, || {
            let status: Status = world.ask("n3", routes::STATUS)?;
            let row = status.nodes.iter().find(|row| row.name == "n3").ok_or("no n3")?;
            match (&status.removed, &row.removed) {
                (Some(own), Some(listed)) if own == listed && own.by == "alice" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        world.gone(&["n3"], "app");
        assert_eq!(world.settled(&["n1", "n2"], "app", 6), others, "the others were touched");
        eventually(LIMIT, || {
            let rows = world.cluster.status().map_err(|error| error.to_string())?;
            let row = rows.into_iter().find(|row| row.name == "n3").ok_or("no n3")?;
            if row.pid.is_none() { Ok(()) } else { Err(format!("the removed peer still runs: {row:?}")) }
        });
        assert!(world.cluster.log_tail("n3").contains("was removed from the cluster by alice at "));
        // Started again it says so, runs nothing, and says what to do. So does a join into its folder.
        let dir = world.dir("n3").display().to_string();
        let netns = world.cluster.node("n3").unwrap().netns_path;
        let inside = Skerry::new(binary::skerry(), LIMIT).inside(&netns);
        let again = inside.run(&["peer", "--dir", &dir]).unwrap();
        assert_eq!(again.code, Some(8), "{again:?}");
        for words in ["node `n3` was removed from cluster", "by alice at ", "`skerry join TOKEN`"] {
            assert!(again.stderr.contains(words), "{words}: {again:?}");
        }
        assert!(world.held(&["n3"]).unwrap().is_empty());
        let joined = world.run("n3", User::Alice, &["join", &token(world, &[]), "--dir", &dir]);
        assert_eq!(joined.code, Some(1), "{joined:?}");
        assert!(joined.stderr.contains("if that node was removed, delete the folder"), "{joined:?}");
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
