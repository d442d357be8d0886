//! Partitions, deaths and returns, in virtual time: each a twin of an end-to-end test with real peers.

use std::time::Duration;

use node::Outcome;
use sim::{Cluster, Settings, Spec};

const SOON: Duration = Duration::from_secs(1);

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(7, nodes, Settings::default());
    let all: Vec<usize> = (0..nodes).collect();
    let joined = cluster.run_until(Duration::from_secs(5), |c| c.all_up(&all) && c.agreed(&all));
    assert!(joined.is_some(), "the cluster never came up:\n{}", cluster.trace().join("\n"));
    cluster
}

/// A cluster of `nodes` that runs `web` with `count` replicas, healthy and at rest.
fn with_web(nodes: usize, count: u32) -> Cluster {
    let mut cluster = cluster(nodes);
    cluster.apply(0, "web", &Spec::new(count));
    let all: Vec<usize> = (0..nodes).collect();
    expect(&mut cluster, SOON, "web runs", |c| c.runs_once(&all, "web", count as usize));
    cluster.run_for(Duration::from_secs(3));
    cluster
}

#[track_caller]
fn expect(cluster: &mut Cluster, max: Duration, what: &str, holds: impl FnMut(&Cluster) -> bool) -> Duration {
    match cluster.run_until(max, holds) {
        Some(took) => took,
        None => panic!("not within {max:?}: {what}\n{}", cluster.trace().join("\n")),
    }
}

#[test]
fn a_deployment_runs_once_on_every_node_its_share() {
    let cluster = with_web(3, 6);
    for host in 0..3 {
        assert_eq!(cluster.running(host).count(), 2, "n{}", host + 1);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let story = || {
        let mut cluster = with_web(3, 6);
        cluster.split(&[&[0], &[1, 2]]);
        cluster.run_for(Duration::from_secs(10));
        cluster.heal();
        cluster.run_for(Duration::from_secs(10));
        cluster.trace().join("\n")
    };
    assert_eq!(story(), story());
}

#[test]
fn both_sides_of_a_split_keep_the_deployment_whole_and_the_heal_leaves_one_copy_of_each() {
    let mut cluster = with_web(3, 6);
    cluster.split(&[&[0], &[1, 2]]);
    let took = expect(&mut cluster, Duration::from_secs(6), "each side runs all six", |c| {
        c.runs_once(&[0], "web", 6) && c.runs_once(&[1, 2], "web", 6)
    });
    assert!(took <= Duration::from_secs(4), "took {took:?}");
    cluster.run_for(Duration::from_secs(30));
    cluster.heal();
    let level = expect(&mut cluster, Duration::from_secs(10), "heads are equal", |c| c.agreed(&[0, 1, 2]));
    assert!(level <= Duration::from_secs(1), "level after {level:?}");
    let took = expect(&mut cluster, Duration::from_secs(10), "duplicates are gone", |c| {
        c.runs_once(&[0, 1, 2], "web", 6)
    });
    assert!(took <= Duration::from_secs(3), "duplicates gone after {took:?}");
}

#[test]
fn healing_never_takes_the_copies_below_what_is_wanted() {
    let mut cluster = with_web(3, 6);
    cluster.split(&[&[0], &[1, 2]]);
    cluster.run_for(Duration::from_secs(30));
    cluster.heal();
    for _ in 0..5_000 {
        cluster.run_for(Duration::from_millis(1));
        assert_eq!(cluster.copies(&[0, 1, 2], "web").len(), 6, "{:?}", cluster.now());
    }
}

#[test]
fn both_sides_may_change_other_groups_and_both_changes_are_kept() {
    let mut cluster = with_web(3, 4);
    cluster.split(&[&[0], &[1, 2]]);
    cluster.run_for(Duration::from_secs(5));
    let here = cluster.set(0, false, "web", "replicas", r#"{"count":6,"class":"available"}"#);
    let there = cluster.set(1, true, "web", "resources", r#"{"cpu_m":200,"memory_b":67108864,"pids":64}"#);
    cluster.run_for(Duration::from_secs(20));
    for command in [here, there] {
        assert!(matches!(cluster.outcome(command), Some(Outcome::Accepted { .. })));
    }
    assert!(cluster.runs_once(&[0], "web", 6));
    assert!(cluster.runs_once(&[1, 2], "web", 4));
    cluster.heal();
    expect(&mut cluster, Duration::from_secs(30), "six with the new resources, once each", |c| {
        c.agreed(&[0, 1, 2])
            && c.runs_once(&[0, 1, 2], "web", 6)
            && (0..3).all(|n| c.running(n).all(|(_, it)| it.claim.run.resources.cpu_m == 200))
    });
    let node = cluster.node(2).unwrap();
    assert!(node.documents().deployments().all(|view| view.conflicts.is_empty()));
}

#[test]
fn the_same_group_on_both_sides_is_a_conflict_with_one_winner_everywhere() {
    let mut cluster = with_web(3, 3);
    cluster.split(&[&[0], &[1, 2]]);
    cluster.run_for(Duration::from_secs(5));
    cluster.set(0, false, "web", "env", r#"{"vars":{"A":"here"}}"#);
    cluster.set(1, true, "web", "env", r#"{"vars":{"A":"there"}}"#);
    cluster.run_for(Duration::from_secs(10));
    cluster.heal();
    expect(&mut cluster, Duration::from_secs(20), "one winner runs", |c| {
        c.agreed(&[0, 1, 2]) && c.runs_once(&[0, 1, 2], "web", 3) && {
            let values: std::collections::BTreeSet<_> = (0..3)
                .flat_map(|n| c.running(n).map(|(_, it)| it.claim.run.env["A"].clone()).collect::<Vec<_>>())
                .collect();
            values.len() == 1
        }
    });
    for n in 0..3 {
        let conflicts: usize =
            cluster.node(n).unwrap().documents().deployments().map(|view| view.conflicts.len()).sum();
        assert_eq!(conflicts, 1, "n{}", n + 1);
    }
}

#[test]
fn a_delete_beats_an_update_on_the_other_side() {
    let mut cluster = with_web(3, 3);
    cluster.split(&[&[0], &[1, 2]]);
    cluster.run_for(Duration::from_secs(5));
    cluster.delete(0, "web");
    cluster.set(1, true, "web", "replicas", r#"{"count":5,"class":"available"}"#);
    cluster.run_for(Duration::from_secs(10));
    assert_eq!(cluster.running(0).count(), 0);
    cluster.heal();
    let took = expect(&mut cluster, Duration::from_secs(10), "nothing runs", |c| {
        (0..3).all(|n| c.running(n).count() == 0)
    });
    assert!(took <= Duration::from_secs(3), "gone after {took:?}");
}

#[test]
fn a_node_that_loses_power_is_replaced_in_four_seconds_and_only_its_own_replicas_move() {
    let mut cluster = with_web(3, 6);
    let before: Vec<_> =
        [0, 1].iter().flat_map(|n| cluster.running(*n).map(|(id, _)| *id).collect::<Vec<_>>()).collect();
    cluster.power_off(2);
    let took = expect(&mut cluster, Duration::from_secs(8), "the others run six", |c| {
        c.runs_once(&[0, 1], "web", 6)
    });
    assert!(took <= Duration::from_secs(4), "took {took:?}");
    let after: Vec<_> =
        [0, 1].iter().flat_map(|n| cluster.running(*n).map(|(id, _)| *id).collect::<Vec<_>>()).collect();
    assert!(before.iter().all(|id| after.contains(id)), "what ran was not touched");
}

#[test]
fn a_peer_that_is_killed_and_back_within_two_seconds_loses_nothing_and_nothing_is_replaced() {
    let mut cluster = with_web(3, 6);
    let before: Vec<_> =
        (0..3).flat_map(|n| cluster.running(n).map(|(id, it)| (*id, it.pid)).collect::<Vec<_>>()).collect();
    cluster.stop_peer(1);
    cluster.run_for(Duration::from_secs(2));
    cluster.start(1);
    cluster.run_for(Duration::from_secs(20));
    let after: Vec<_> =
        (0..3).flat_map(|n| cluster.running(n).map(|(id, it)| (*id, it.pid)).collect::<Vec<_>>()).collect();
    assert_eq!(before, after, "{}", cluster.trace().join("\n"));
}

#[test]
fn a_node_that_boots_cut_off_runs_its_last_share_at_once() {
    let mut cluster = with_web(3, 6);
    cluster.power_off(0);
    cluster.run_for(Duration::from_secs(30));
    cluster.split(&[&[0], &[1, 2]]);
    cluster.start(0);
    let took =
        expect(&mut cluster, Duration::from_secs(5), "its two replicas run", |c| c.running(0).count() >= 2);
    assert!(took <= Duration::from_millis(500), "took {took:?}");
}

#[test]
fn a_node_that_comes_back_after_its_work_moved_ends_with_no_copy_twice() {
    let mut cluster = with_web(3, 6);
    cluster.power_off(2);
    cluster.run_for(Duration::from_secs(60));
    cluster.start(2);
    expect(&mut cluster, Duration::from_secs(10), "once each", |c| {
        c.runs_once(&[0, 1, 2], "web", 6) && c.agreed(&[0, 1, 2])
    });
    cluster.run_for(Duration::from_secs(10));
    assert!(cluster.runs_once(&[0, 1, 2], "web", 6));
}

#[test]
fn a_bridge_lets_both_halves_agree_without_a_fight() {
    let mut cluster = with_web(3, 6);
    // n1 and n3 cannot reach one another; n2 sees both.
    cluster.cut_one_way(0, 2);
    cluster.cut_one_way(2, 0);
    cluster.run_for(Duration::from_secs(20));
    let marks = |c: &Cluster| -> Vec<_> {
        (0..3).flat_map(|n| c.running(n).map(|(id, it)| (*id, it.starts)).collect::<Vec<_>>()).collect()
    };
    let before = marks(&cluster);
    cluster.set(0, false, "web", "replicas", r#"{"count":7,"class":"available"}"#);
    expect(&mut cluster, Duration::from_secs(5), "the change crosses the bridge", |c| {
        c.runs_once(&[0, 1, 2], "web", 7)
            && c.node(2).unwrap().documents().docs() == c.node(0).unwrap().documents().docs()
    });
    cluster.run_for(Duration::from_secs(60));
    assert!(cluster.runs_once(&[0, 1, 2], "web", 7), "{}", cluster.trace().join("\n"));
    let after = marks(&cluster);
    assert!(
        before.iter().all(|mark| after.contains(mark)),
        "nothing was restarted:\n{}",
        cluster.trace().join("\n")
    );
}

#[test]
fn a_one_way_cut_ends_with_every_replica_on_each_side_that_can_hear_itself() {
    let mut cluster = with_web(3, 6);
    cluster.cut_one_way(0, 1);
    cluster.run_for(Duration::from_secs(30));
    // n3 hears both, so nobody is declared down and nothing runs twice.
    assert!(cluster.runs_once(&[0, 1, 2], "web", 6), "{}", cluster.trace().join("\n"));
    cluster.heal();
    expect(&mut cluster, Duration::from_secs(10), "agreed again", |c| c.agreed(&[0, 1, 2]));
}

#[test]
fn five_nodes_split_three_ways_meet_again() {
    let mut cluster = with_web(5, 10);
    cluster.split(&[&[0, 1], &[2, 3], &[4]]);
    expect(&mut cluster, Duration::from_secs(8), "each island runs ten", |c| {
        c.runs_once(&[0, 1], "web", 10) && c.runs_once(&[2, 3], "web", 10) && c.runs_once(&[4], "web", 10)
    });
    for (host, value) in [(0, "a"), (2, "b"), (4, "c")] {
        cluster.set(host, host == 2, "web", "env", &format!(r#"{{"vars":{{"ISLAND":"{value}"}}}}"#));
    }
    cluster.run_for(Duration::from_secs(60));
    cluster.heal();
    expect(&mut cluster, Duration::from_secs(60), "one document, one copy each", |c| {
        c.agreed(&[0, 1, 2, 3, 4]) && c.runs_once(&[0, 1, 2, 3, 4], "web", 10)
    });
}

#[test]
fn an_event_is_accepted_alone_at_once_and_says_so() {
    let mut cluster = with_web(3, 3);
    cluster.split(&[&[0], &[1], &[2]]);
    cluster.run_for(Duration::from_secs(10));
    let command = cluster.set(0, false, "web", "replicas", r#"{"count":4,"class":"available"}"#);
    let took = expect(&mut cluster, SOON, "the answer", |c| c.outcome(command).is_some());
    assert!(took <= Duration::from_millis(50), "took {took:?}");
    assert!(matches!(cluster.outcome(command), Some(Outcome::Accepted { durable_on: 1, .. })));
}

#[test]
fn an_event_in_a_whole_cluster_is_on_more_than_one_disk_before_it_is_acknowledged() {
    let mut cluster = with_web(3, 3);
    let command = cluster.set(0, false, "web", "replicas", r#"{"count":4,"class":"available"}"#);
    expect(&mut cluster, SOON, "the answer", |c| c.outcome(command).is_some());
    assert!(matches!(cluster.outcome(command), Some(Outcome::Accepted { durable_on: 2.., .. })));
}

#[test]
fn a_removed_node_stops_its_containers_and_is_not_spoken_to_any_more() {
    let mut cluster = with_web(3, 6);
    cluster.remove_node(0, 2);
    expect(&mut cluster, Duration::from_secs(10), "the others run six and n3 none", |c| {
        c.runs_once(&[0, 1], "web", 6) && c.running(2).count() == 0
    });
}

#[test]
fn a_full_disk_refuses_events_says_so_and_recovers() {
    let mut cluster = with_web(3, 3);
    cluster.disk_full(0, true);
    let command = cluster.set(0, false, "web", "replicas", r#"{"count":4,"class":"available"}"#);
    expect(&mut cluster, SOON, "the answer", |c| c.outcome(command).is_some());
    assert!(matches!(cluster.outcome(command), Some(Outcome::Refused { code: "disk", .. })));
    assert!(cluster.node(0).unwrap().refusing().is_some());
    cluster.run_for(Duration::from_secs(5));
    assert!(cluster.runs_once(&[0, 1, 2], "web", 3), "nobody heard of it");
    cluster.disk_full(0, false);
    let command = cluster.set(0, false, "web", "replicas", r#"{"count":5,"class":"available"}"#);
    expect(&mut cluster, SOON, "five run", |c| c.runs_once(&[0, 1, 2], "web", 5));
    assert!(matches!(cluster.outcome(command), Some(Outcome::Accepted { .. })));
    assert!(cluster.node(0).unwrap().refusing().is_none());
}

#[test]
fn a_refused_change_moves_no_container() {
    let mut cluster = with_web(3, 3);
    cluster.disk_full(0, true);
    let before = cluster.processes();
    cluster.set(0, false, "web", "replicas", r#"{"count":9,"class":"available"}"#);
    cluster.delete(0, "web");
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(before, cluster.processes(), "{}", cluster.trace().join("\n"));
}

#[test]
fn a_node_whose_disk_was_full_catches_up_soon_after_it_has_room() {
    let mut cluster = with_web(3, 3);
    cluster.disk_full(0, true);
    cluster.set(1, false, "web", "replicas", r#"{"count":5,"class":"available"}"#);
    cluster.run_for(Duration::from_secs(30));
    assert!(!cluster.same_heads(&[0, 1, 2]), "it cannot have taken it");
    cluster.disk_full(0, false);
    expect(&mut cluster, Duration::from_secs(2), "level again", |c| c.agreed(&[0, 1, 2]));
}

#[test]
fn no_copy_is_stopped_on_what_a_winner_said_before_it_lost_power() {
    let settings = Settings { start: Duration::from_millis(2_500), ..Settings::default() };
    let mut cluster = Cluster::new(7, 3, settings);
    cluster.run_for(Duration::from_secs(3));
    cluster.apply(0, "web", &Spec::new(3));
    cluster.run_for(Duration::from_secs(10));
    let replica = cluster.running(1).next().expect("each node runs one").1.claim.replica.clone();
    // Its work is taken over while its peer is dead and its container is not; the winner confirms that.
    cluster.stop_peer(1);
    cluster.run_for(Duration::from_secs(20));
    let winner =
        [0, 2].into_iter().find(|host| cluster.running(*host).any(|(_, it)| it.claim.replica == replica));
    let winner = winner.expect("another node took over");
    // The winner goes too, and the other comes back before anybody has noticed: the third still passes
    // on what the winner said in good days, and believes it up.
    cluster.power_off(winner);
    cluster.guard_copies();
    cluster.start(1);
    cluster.run_for(Duration::from_secs(4));
    assert_eq!(cluster.lost_copies().count(), 0, "{}", cluster.trace().join("\n"));
    cluster.start(winner);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.lost_copies().count(), 0, "{}", cluster.trace().join("\n"));
    assert!(cluster.runs_once(&[0, 1, 2], "web", 3));
}

#[test]
fn without_duplicate_resolution_the_checks_of_this_file_fail() {
    let settings = Settings {
        sabotage: model::Sabotages::NONE.with(model::Sabotage::NoDuplicateResolution),
        ..Settings::default()
    };
    let mut cluster = Cluster::new(7, 3, settings);
    cluster.run_for(Duration::from_secs(3));
    cluster.apply(0, "web", &Spec::new(6));
    cluster.run_for(Duration::from_secs(3));
    cluster.split(&[&[0], &[1, 2]]);
    cluster.run_for(Duration::from_secs(10));
    cluster.heal();
    cluster.run_for(Duration::from_secs(30));
    assert!(!cluster.runs_once(&[0, 1, 2], "web", 6), "the check would have seen nothing");
}

#[test]
fn a_crash_loop_backs_off_and_says_why() {
    let mut cluster = with_web(3, 1);
    for _ in 0..600 {
        cluster.run_for(Duration::from_millis(100));
        let found = (0..3).find_map(|n| cluster.running(n).next().map(|(id, _)| (n, *id)));
        if let Some((host, id)) = found {
            cluster.crash_container(host, id, 3);
        }
    }
    let starts: u32 =
        (0..3).flat_map(|n| cluster.node(n).unwrap().mine().values().map(|it| it.claim.restarts)).sum();
    assert!((4..=8).contains(&starts), "{starts} restarts in a minute");
}
