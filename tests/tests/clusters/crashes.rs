//! Peers that are killed, nodes that lose their power, and what goes on without them.

use std::time::Duration;

use api::routes;
use api::shapes::{PsRow, PsState};
use e2e::{Held, LIMIT, eventually, never_within, with_cluster};

use super::{ALL, lines, quiet};

#[test]
fn containers_outlive_a_killed_peer_and_are_adopted_as_they_are() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(3)));
        let before = world.settled(&["n1"], "app", 3);
        world.stop("n1");
        never_within(Duration::from_secs(1), || {
            let now = world.held(&["n1"])?;
            if now == before { Ok(()) } else { Err(format!("containers changed without a peer: {now:?}")) }
        });
        world.start("n1");
        eventually(LIMIT, || {
            let rows: Vec<PsRow> = world.ask("n1", routes::PS)?;
            let adopted =
                rows.iter().filter(|row| row.state == PsState::Running && row.restarts == 0).count();
            if adopted == 3 { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        assert_eq!(world.settled(&["n1"], "app", 3), before);
        // It is in charge of them again, not only aware.
        world.ok("n1", &["delete", "app"]);
        world.gone(&["n1"], "app");
    });
}

#[test]
fn a_killed_peer_that_is_back_within_its_grace_loses_no_container_to_others() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        let before = world.settled(&ALL, "app", 6);
        world.stop("n2");
        world.start("n2");
        world.linked(&ALL);
        assert_eq!(world.settled(&ALL, "app", 6), before);
    });
}

#[test]
fn a_container_that_ended_while_no_peer_ran_is_found_and_replaced() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(2)));
        let before = world.settled(&["n1"], "app", 2);
        world.stop("n1");
        for process in &before[0].processes {
            process.kill().unwrap();
        }
        world.start("n1");
        let after = world.settled(&["n1"], "app", 2);
        assert!(after.contains(&before[1]), "the other one was touched: {after:?}");
        assert!(!after.contains(&before[0]));
    });
}

#[test]
fn what_a_node_without_power_ran_is_taken_over_and_no_more_than_that() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        let before = world.settled(&ALL, "app", 6);
        world.kill("n2");
        assert!(world.held(&["n2"]).unwrap().is_empty());
        let after = world.settled(&["n1", "n3"], "app", 6);
        for held in before.iter().filter(|held| held.node != "n2") {
            assert!(after.contains(held), "{held:?} was moved although its node was well");
        }
    });
}

#[test]
fn a_node_that_is_back_after_its_work_moved_starts_no_second_copy_for_good() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        world.kill("n3");
        world.settled(&["n1", "n2"], "app", 6);
        world.start("n3");
        world.linked(&ALL);
        world.agreed(&ALL);
        world.settled(&ALL, "app", 6);
        // It takes part again: what is new finds it the emptiest.
        world.ok("n1", &["scale", "app=9"]);
        let held = world.settled(&ALL, "app", 9);
        assert!(held.iter().any(|held| held.node == "n3"), "{held:?}");
    });
}

#[test]
fn a_node_that_boots_cut_off_runs_its_last_share_at_once() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        let before = world.settled(&ALL, "app", 6);
        let mut share: Vec<&str> =
            before.iter().filter(|held| held.node == "n3").map(Held::ordinal).collect();
        share.sort_unstable();
        assert!(!share.is_empty());
        world.cut("n1,n2/n3");
        world.kill("n3");
        world.start("n3");
        eventually(LIMIT, || {
            let held = world.of("app", &["n3"]);
            let there = share.iter().all(|ordinal| held.iter().any(|held| held.ordinal() == *ordinal));
            if there { Ok(()) } else { Err(format!("of {share:?} there run {held:?}")) }
        });
        world.heal();
        world.agreed(&ALL);
        world.settled(&ALL, "app", 6);
    });
}

#[test]
fn a_site_that_loses_its_power_as_a_whole_runs_everything_again_without_anyones_help() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        world.settled(&ALL, "app", 6);
        for node in ALL {
            world.kill(node);
        }
        assert!(world.held(&ALL).unwrap().is_empty());
        for node in ALL {
            world.start(node);
        }
        world.agreed(&ALL);
        world.settled(&ALL, "app", 6);
    });
}

#[test]
fn every_peer_killed_and_started_in_turn_leaves_every_container_as_it_is() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        let before = world.settled(&ALL, "app", 6);
        for node in ALL {
            world.stop(node);
            world.start(node);
            world.linked(&ALL);
        }
        assert_eq!(world.settled(&ALL, "app", 6), before);
    });
}

#[test]
fn all_peers_killed_at_once_and_started_again_leave_every_container_as_it_is() {
    with_cluster(3, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(6)));
        let before = world.settled(&ALL, "app", 6);
        for node in ALL {
            world.stop(node);
        }
        // None of them has heard of the others' containers in its life when it starts.
        for node in ALL {
            world.start(node);
        }
        world.linked(&ALL);
        world.agreed(&ALL);
        let after = world.settled(&ALL, "app", 6);
        assert!(before == after, "containers were replaced: {before:?} became {after:?}");
    });
}

#[test]
fn a_killed_supervisor_takes_its_container_with_it_and_the_replica_is_started_again() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(1)));
        let before = world.settled(&["n1"], "app", 1).remove(0);
        let init = before.processes.iter().min_by_key(|process| process.start_ticks).unwrap();
        let supervisor = dev::process::Process::find(init.parent().unwrap()).unwrap();
        assert!(supervisor.args().contains(&before.id), "{:?}", supervisor.args());
        supervisor.kill().unwrap();
        eventually(LIMIT, || match before.processes.iter().find(|process| process.is_alive()) {
            None => Ok(()),
            Some(left) => Err(format!("{left:?} outlived its supervisor")),
        });
        let after = world.settled(&["n1"], "app", 1).remove(0);
        assert_ne!(after.processes, before.processes);
    });
}

/// The one that is stopped is the last that runs: nobody may rely on it any more, whoever asks for it.
#[test]
fn a_container_that_was_being_stopped_when_its_peer_was_killed_is_not_taken_for_one_that_runs() {
    with_cluster(1, |world| {
        world.image("n1");
        let stubborn = ["command: [/probe, stubborn]", "resources: {cpu: 50m, memory: 32Mi, pids: 20}"];
        world.apply("n1", "app", &stubborn);
        let before = world.settled(&["n1"], "app", 1).remove(0);
        world.ok("n1", &["scale", "app=0", "--detach"]);
        let state_is = |wanted: PsState| {
            let rows: Vec<PsRow> = world.ask("n1", routes::PS)?;
            let states: Vec<PsState> = rows.iter().map(|row| row.state).collect();
            if states == [wanted] { Ok(()) } else { Err(format!("{rows:?}")) }
        };
        eventually(LIMIT, || state_is(PsState::Stopping));
        world.stop("n1");
        assert!(before.processes.iter().any(dev::process::Process::is_alive), "it ended at once");
        world.start("n1");
        // Asked for again, it is another one that runs.
        world.ok("n1", &["scale", "app=1", "--detach"]);
        let after = world.settled(&["n1"], "app", 1).remove(0);
        assert_ne!(after.id, before.id);
        assert!(before.processes.iter().all(|it| !it.is_alive()), "{before:?} runs on");
    });
}

#[test]
fn a_second_peer_on_the_same_folder_is_refused_and_the_first_goes_on() {
    with_cluster(1, |world| {
        let dir = world.dir("n1").display().to_string();
        let answer = world.run("n1", dev::User::Alice, &["peer", "--dir", &dir]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(&dir), "{answer:?}");
        world.ok("n1", &["node", "ls"]);
    });
}
