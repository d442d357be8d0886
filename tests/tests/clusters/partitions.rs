//! The network in pieces, and whole again.

use api::routes;
use api::shapes::{ConflictRow, NodeState as Liveness};
use dev::User;
use e2e::{LIMIT, World, eventually, with_cluster};

use super::{ALL, lines, quiet};

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// `quiet`, with one line more.
fn with(replicas: usize, line: &str) -> Vec<String> {
    let mut all = quiet(replicas);
    all.push(line.to_owned());
    all
}

/// Waits until each side has noticed that the other is away.
fn noticed(world: &World, sides: &[&[&str]]) {
    for (n, side) in sides.iter().enumerate() {
        for other in sides.iter().enumerate().filter(|(m, _)| *m != n).flat_map(|(_, other)| other.iter()) {
            for node in *side {
                world.sees(node, other, Liveness::Down);
            }
        }
    }
}

fn conflicts(world: &World, node: &str) -> Vec<ConflictRow> {
    world.ask(node, routes::CONFLICTS).unwrap()
}

#[test]
fn a_cut_drops_packets_and_each_side_runs_everything() {
    with_cluster(3, |world| {
        world.image("n1");
        let web = [
            "command: [/probe, web]",
            "replicas: 3",
            "ports: [\"8080:8080\"]",
            "resources: {cpu: 50m, memory: 32Mi, pids: 20}",
        ];
        world.apply("n1", "web", &web);
        world.settled(&ALL, "web", 3);
        assert!(world.http_between("n1", "n3", 8080).is_ok());
        world.cut("n1,n2/n3");
        assert!(world.http_between("n1", "n3", 8080).is_err(), "packets pass a cut link");
        assert!(world.http_between("n1", "n2", 8080).is_ok(), "packets do not pass a whole one");
        world.settled(&["n1", "n2"], "web", 3);
        world.settled(&["n3"], "web", 3);
        world.heal();
        world.settled(&ALL, "web", 3);
        assert!(world.http_between("n1", "n2", 8080).is_ok() || world.http_between("n1", "n3", 8080).is_ok());
    });
}

#[test]
fn different_fields_changed_on_both_sides_merge_without_a_conflict() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(3)));
        world.settled(&ALL, "app", 3);
        world.cut("n1,n2/n3");
        noticed(world, &[&["n1", "n2"], &["n3"]]);
        world.ok("n1", &["scale", "app=5"]);
        world.apply("n3", "app", &lines(&with(3, "env: {WORD: there}")));
        world.heal();
        world.agreed(&ALL);
        let held = world.settled(&ALL, "app", 5);
        assert!(held.iter().all(|held| held.var("WORD") == "there"), "{held:?}");
        for node in ALL {
            assert_eq!(conflicts(world, node), [], "{node}");
        }
    });
}

#[test]
fn the_same_field_changed_on_both_sides_is_a_conflict_alike_on_every_peer_until_it_is_resolved() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&with(3, "env: {WORD: before}")));
        world.settled(&ALL, "app", 3);
        world.cut("n1,n2/n3");
        noticed(world, &[&["n1", "n2"], &["n3"]]);
        let left =
            world.submit("n1", User::Alice, "app", &lines(&with(3, "env: {WORD: left}"))).event.unwrap();
        let right =
            world.submit("n3", User::Bob, "app", &lines(&with(3, "env: {WORD: right}"))).event.unwrap();
        world.heal();
        world.agreed(&ALL);
        let shown = conflicts(world, "n1");
        assert_eq!(shown.len(), 1, "{shown:?}");
        for node in ALL {
            assert_eq!(conflicts(world, node), shown, "{node} shows another conflict");
        }
        let mut sides: Vec<_> = shown[0].sides.iter().map(|side| side.event.clone()).collect();
        sides.sort();
        let mut expected = vec![left.clone(), right.clone()];
        expected.sort();
        assert_eq!(sides, expected);
        let word = if shown[0].winner == left { "left" } else { "right" };
        let held = world.settled(&ALL, "app", 3);
        assert!(held.iter().all(|held| held.var("WORD") == word), "the winner is not what runs: {held:?}");
        let (loser, lost) = if word == "left" { (right, "right") } else { (left, "left") };
        world.ok("n2", &["conflicts", "resolve", "app", "--take", &loser]);
        world.agreed(&ALL);
        let held = world.settled(&ALL, "app", 3);
        assert!(held.iter().all(|held| held.var("WORD") == lost), "{held:?}");
        assert_eq!(conflicts(world, "n3"), []);
    });
}

#[test]
fn a_deletion_on_one_side_beats_a_change_on_the_other() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(3)));
        world.settled(&ALL, "app", 3);
        world.cut("n1,n2/n3");
        noticed(world, &[&["n1", "n2"], &["n3"]]);
        world.ok("n1", &["delete", "app"]);
        world.gone(&["n1", "n2"], "app");
        world.apply("n3", "app", &lines(&with(5, "env: {WORD: late}")));
        world.settled(&["n3"], "app", 5);
        world.heal();
        world.agreed(&ALL);
        world.gone(&ALL, "app");
        for node in ALL {
            assert!(world.deployment(node, "app").is_err(), "{node} still has it");
        }
    });
}

#[test]
fn every_node_alone_runs_everything_and_the_duplicates_go_after_the_heal() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(3)));
        world.settled(&ALL, "app", 3);
        world.cut("n1/n2/n3");
        for node in ALL {
            world.settled(&[node], "app", 3);
        }
        assert_eq!(world.held(&ALL).unwrap().len(), 9);
        world.heal();
        world.settled(&ALL, "app", 3);
    });
}

#[test]
fn a_node_in_the_middle_carries_changes_between_two_that_do_not_reach_each_other() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(3)));
        world.settled(&ALL, "app", 3);
        // n2 reaches both.
        world.cut("n1/n3");
        world.submit("n1", User::Alice, "app", &lines(&quiet(4)));
        eventually(LIMIT, || match world.replicas("n3", "app")? {
            4 => Ok(()),
            other => Err(format!("n3 wants {other}")),
        });
        world.heal();
        world.agreed(&ALL);
        world.settled(&ALL, "app", 4);
    });
}

#[test]
fn a_link_that_is_cut_one_way_only_leaves_one_copy_of_each_replica_after_the_heal() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        world.cut_one_way(&[("n1", "n3")]);
        world.submit("n1", User::Alice, "app", &lines(&quiet(7)));
        // By way of n2 it gets there all the same.
        eventually(LIMIT, || match world.replicas("n3", "app")? {
            7 => Ok(()),
            other => Err(format!("n3 wants {other}")),
        });
        world.heal();
        world.agreed(&ALL);
        world.settled(&ALL, "app", 7);
    });
}

#[test]
fn five_nodes_cut_two_from_three_take_changes_on_both_sides_and_agree_after_the_heal() {
    with_cluster(5, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(5)));
        world.settled(&FIVE, "app", 5);
        world.cut("n1,n2/n3,n4,n5");
        noticed(world, &[&["n1", "n2"], &["n3", "n4", "n5"]]);
        world.image("n1");
        world.apply("n1", "west", &lines(&quiet(2)));
        world.image("n4");
        world.apply("n4", "east", &lines(&quiet(2)));
        world.settled(&["n1", "n2"], "app", 5);
        world.settled(&["n3", "n4", "n5"], "app", 5);
        world.heal();
        world.agreed(&FIVE);
        for (name, wanted) in [("app", 5), ("west", 2), ("east", 2)] {
            world.settled(&FIVE, name, wanted);
        }
    });
}

#[test]
fn five_nodes_in_three_pieces_agree_after_the_heal() {
    with_cluster(5, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(5)));
        world.settled(&FIVE, "app", 5);
        world.cut("n1,n2/n3,n4/n5");
        noticed(world, &[&["n1", "n2"], &["n3", "n4"], &["n5"]]);
        world.ok("n1", &["scale", "app=6", "--detach"]);
        world.ok("n3", &["scale", "app=7", "--detach"]);
        world.submit("n5", User::Bob, "app", &lines(&with(5, "env: {WORD: five}")));
        world.heal();
        world.agreed(&FIVE);
        let wanted = world.replicas("n1", "app").unwrap();
        assert!(wanted == 6 || wanted == 7, "{wanted}");
        let held = world.settled(&FIVE, "app", wanted as usize);
        assert!(held.iter().all(|held| held.var("WORD") == "five"), "{held:?}");
        assert_eq!(conflicts(world, "n5").len(), 1);
    });
}

#[test]
fn five_nodes_in_a_row_where_each_reaches_its_neighbours_only_agree_without_a_heal() {
    with_cluster(5, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(5)));
        world.settled(&FIVE, "app", 5);
        // Every link but n1-n2-n3-n4-n5, both ways.
        let far = FIVE.iter().enumerate().flat_map(|(i, a)| {
            FIVE.iter().enumerate().filter(move |(j, _)| i.abs_diff(*j) > 1).map(move |(_, b)| (*a, *b))
        });
        world.cut_one_way(&far.collect::<Vec<_>>());
        world.submit("n1", User::Alice, "app", &lines(&quiet(6)));
        world.submit("n5", User::Bob, "other", &lines(&quiet(1)));
        for (node, name, wanted) in
            [("n5", "app", 6), ("n1", "other", 1), ("n3", "app", 6), ("n3", "other", 1)]
        {
            eventually(LIMIT, || match world.replicas(node, name)? {
                count if count == wanted => Ok(()),
                other => Err(format!("{node} wants {other} of {name}")),
            });
        }
        world.heal();
        world.agreed(&FIVE);
        world.settled(&FIVE, "app", 6);
        world.settled(&FIVE, "other", 1);
    });
}

#[test]
fn one_of_five_alone_goes_on_and_takes_over_what_four_decided_after_the_heal() {
    with_cluster(5, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(5)));
        world.settled(&FIVE, "app", 5);
        world.cut("n1,n2,n3,n4/n5");
        noticed(world, &[&["n1", "n2", "n3", "n4"], &["n5"]]);
        world.settled(&["n5"], "app", 5);
        world.apply("n2", "app", &lines(&with(5, "env: {WORD: four}")));
        let alone = world.of("app", &["n5"]);
        assert!(alone.iter().all(|held| held.var("WORD").is_empty()), "{alone:?}");
        world.heal();
        world.agreed(&FIVE);
        let held = world.settled(&FIVE, "app", 5);
        assert!(held.iter().all(|held| held.var("WORD") == "four"), "{held:?}");
    });
}

#[test]
fn a_node_that_is_heard_and_hears_nobody_leaves_one_copy_of_each_replica_after_the_heal() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        world.cut_one_way(&[("n1", "n3"), ("n2", "n3")]);
        // It hears nobody, so to itself it is alone and runs everything.
        world.settled(&["n3"], "app", 6);
        world.heal();
        world.agreed(&ALL);
        world.settled(&ALL, "app", 6);
    });
}

#[test]
fn one_name_created_on_both_sides_is_a_conflict_of_wholes_and_one_of_them_runs() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "first", &lines(&quiet(3)));
        world.settled(&ALL, "first", 3);
        world.cut("n1,n2/n3");
        noticed(world, &[&["n1", "n2"], &["n3"]]);
        world.apply("n1", "app", &lines(&with(2, "env: {WORD: left}")));
        world.apply("n3", "app", &lines(&with(3, "env: {WORD: right}")));
        world.heal();
        world.agreed(&ALL);
        let wanted = world.replicas("n1", "app").unwrap();
        let held = world.settled(&ALL, "app", wanted as usize);
        let word = if wanted == 2 { "left" } else { "right" };
        assert!(held.iter().all(|held| held.var("WORD") == word), "{held:?}");
        for node in ALL {
            let shown = conflicts(world, node);
            assert_eq!(shown.len(), 1, "{node}: {shown:?}");
            assert_eq!((shown[0].group.as_ref(), shown[0].sides.len()), (None, 2), "{node}: {shown:?}");
        }
    });
}

#[test]
fn cuts_that_come_and_go_leave_the_document_alike_and_one_copy_of_each_replica() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(4)));
        world.settled(&ALL, "app", 4);
        for (n, groups) in ["n1/n2,n3", "n1,n2/n3", "n1,n3/n2", "n1/n2/n3"].into_iter().enumerate() {
            world.cut(groups);
            // Each time somebody else changes something, and nobody waits for anything.
            let node = ALL[n % 3];
            world.submit(node, User::Alice, "app", &lines(&with(4, &format!("labels: {{round: \"{n}\"}}"))));
            world.heal();
        }
        world.agreed(&ALL);
        world.settled(&ALL, "app", 4);
    });
}
