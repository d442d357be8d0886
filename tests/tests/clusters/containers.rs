//! One container's life, seen from outside.

use api::routes;
use api::shapes::{LogLine, PsRow, PsState};
use dev::{User, kernel};
use e2e::world::same_namespace;
use e2e::{Held, LIMIT, World, eventually, never_within, with_cluster, with_cluster_of};
use std::time::Duration;

use super::{QUIET, lines, quiet};

fn row(world: &World, node: &str, name: &str) -> Result<PsRow, String> {
    let rows: Vec<PsRow> = world.ask(node, routes::PS)?;
    rows.into_iter().find(|row| row.deployment == name).ok_or(format!("{node} shows no row of {name}"))
}

/// Bytes of memory that the kernel counts in a container's cgroup.
fn limits(world: &World, id: &str) -> kernel::Limits {
    kernel::limits(&format!("{}/{id}", world.cluster.cgroup("n1"))).unwrap()
}

#[test]
fn what_is_applied_runs_isolated_and_limited_and_answers_and_is_gone_when_deleted() {
    with_cluster(1, |world| {
        world.image("n1");
        let more = [
            "command: [/probe, web]",
            "env: {GREETING: hello}",
            "resources: {cpu: 250m, memory: 48Mi, pids: 30}",
            "ports: [\"8080:8080\"]",
        ];
        let applied = world.apply("n1", "web", &more);
        assert_eq!((applied.durable_on, applied.revisions["web"], applied.reason), (1, 1, None));
        let held = world.settled(&["n1"], "web", 1).remove(0);
        let limits = limits(world, &held.id);
        assert_eq!(limits.memory_b, Some(48 << 20));
        assert_eq!(limits.cpu_m, Some(250));
        // Our init is one more than the program may have.
        assert!(limits.pids.is_some_and(|pids| (30..=31).contains(&pids)), "{limits:?}");
        for kind in ["user", "net", "pid", "mnt", "uts", "ipc", "cgroup"] {
            for process in &held.processes {
                assert!(!same_namespace(kind, process.pid, std::process::id()), "{kind} is the host's");
            }
        }
        let hello = world.http("n1", 8080).unwrap();
        assert_eq!((hello.hostname.as_str(), hello.greeting.as_str()), ("web-0", "hello"));
        assert_eq!(hello.container, held.id);
        let row = row(world, "n1", "web").unwrap();
        assert_eq!((row.state, row.healthy, row.restarts), (PsState::Running, Some(true), 0));
        assert!(held.processes.iter().any(|process| Some(process.pid) == row.pid), "{row:?} {held:?}");
        world.ok("n1", &["delete", "web"]);
        world.gone(&["n1"], "web");
        assert!(world.http("n1", 8080).is_err());
        let cgroup = format!("{}/{}", world.cluster.cgroup("n1"), held.id);
        eventually(LIMIT, || match kernel::cgroups(&cgroup).unwrap().as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?} are left")),
        });
    });
}

#[test]
fn a_program_that_takes_more_memory_than_it_may_is_killed_alone_and_told_as_such() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "calm", &lines(&quiet(1)));
        let calm = world.settled(&["n1"], "calm", 1);
        let more = [
            "command: [/probe, eat, \"200\"]",
            "resources: {cpu: 500m, memory: 32Mi, pids: 20}",
            "restart: never",
        ];
        world.submit("n1", User::Alice, "greedy", &more);
        eventually(LIMIT, || {
            let row = row(world, "n1", "greedy")?;
            let reason = row.reason.clone().unwrap_or_default().to_lowercase();
            let told = reason.contains("memory") || reason.contains("oom");
            if row.state == PsState::Failed && told { Ok(()) } else { Err(format!("{row:?}")) }
        });
        world.gone(&["n1"], "greedy");
        assert_eq!(world.settled(&["n1"], "calm", 1), calm, "the neighbour was touched");
    });
}

#[test]
fn a_fork_bomb_is_held_to_its_number_of_processes_and_its_neighbour_goes_on() {
    with_cluster(1, |world| {
        world.image("n1");
        let web = [
            "command: [/probe, web]",
            "ports: [\"8080:8080\"]",
            "resources: {cpu: 100m, memory: 32Mi, pids: 10}",
        ];
        world.apply("n1", "web", &web);
        let bomb = ["command: [/probe, fork]", "resources: {cpu: 200m, memory: 128Mi, pids: 25}"];
        world.submit("n1", User::Alice, "bomb", &bomb);
        let count = || world.of("bomb", &["n1"]).iter().map(|held| held.processes.len()).sum::<usize>();
        eventually(LIMIT, || if count() >= 20 { Ok(()) } else { Err(format!("{} processes", count())) });
        never_within(Duration::from_secs(1), || {
            let count = count();
            if count > 26 { Err(format!("{count} processes where 25 are allowed")) } else { Ok(()) }
        });
        eventually(LIMIT, || {
            let answer = world.ok("n1", &["logs", "bomb", "--tail", "1"]);
            if answer.stdout.contains("refused after") { Ok(()) } else { Err(answer.stdout) }
        });
        assert_eq!(world.http("n1", 8080).unwrap().hostname, "web-0");
        world.ok("n1", &["delete", "bomb"]);
        world.gone(&["n1"], "bomb");
    });
}

#[test]
fn a_program_that_ends_again_and_again_is_started_again_and_its_exit_code_is_told() {
    with_cluster(1, |world| {
        world.image("n1");
        let more = ["command: [/probe, exit, \"3\"]", "resources: {cpu: 100m, memory: 32Mi, pids: 10}"];
        let path = world.manifest("broken", &more);
        let answer = world.run("n1", User::Alice, &["apply", "-f", &path]);
        assert_eq!(answer.code, Some(3), "{answer:?}");
        assert!(answer.stderr.contains('3'), "{answer:?}");
        let row = row(world, "n1", "broken").unwrap();
        assert!(row.restarts >= 3, "{row:?}");
        assert!(row.reason.as_deref().unwrap_or_default().contains('3'), "{row:?}");
    });
}

#[test]
fn logs_and_exec_reach_into_a_container_and_exit_codes_pass_through() {
    with_cluster(1, |world| {
        world.image("n1");
        let more = [
            "command: [/probe, say, moin]",
            "env: {COLOUR: blue}",
            "resources: {cpu: 100m, memory: 32Mi, pids: 10}",
        ];
        world.apply("n1", "talker", &more);
        let answer = world.ok("n1", &["logs", "talker"]);
        let line: LogLine = serde_json::from_str(answer.stdout.lines().next().unwrap()).unwrap();
        assert_eq!((line.text.as_str(), line.stream.as_str()), ("moin", "stdout"));
        let seen = world.run("n1", User::Alice, &["exec", "talker", "--", "/probe", "env", "COLOUR"]);
        assert_eq!((seen.code, seen.stdout.trim()), (Some(0), "blue"), "{seen:?}");
        let code = world.run("n1", User::Alice, &["exec", "talker.0", "--", "/probe", "exit", "42"]).code;
        assert_eq!(code, Some(42));
        let missing = world.run("n1", User::Alice, &["exec", "talker", "--", "/nothing"]);
        assert_eq!(missing.code, Some(127), "{missing:?}");
    });
}

#[test]
fn a_changed_template_replaces_one_replica_at_a_time_and_undo_brings_the_old_one_back() {
    with_cluster(1, |world| {
        world.image("n1");
        let with = |word: &str| {
            let mut more = quiet(4);
            more.push(format!("env: {{WORD: {word}}}"));
            more
        };
        world.apply("n1", "app", &lines(&with("one")));
        let old = world.settled(&["n1"], "app", 4);
        world.submit("n1", User::Alice, "app", &lines(&with("two")));
        // At every look at least three replicas have a container whose program runs.
        eventually(LIMIT, || {
            let held = world.at_once("app", &["n1"]);
            let mut ordinals: Vec<&str> = held.iter().map(Held::ordinal).collect();
            ordinals.sort_unstable();
            ordinals.dedup();
            assert!(ordinals.len() >= 3, "only {ordinals:?} run during the update");
            assert!(held.len() <= 5, "{} containers run during the update of 4", held.len());
            let new = held.iter().filter(|held| held.var("WORD") == "two").count();
            if new == 4 && held.len() == 4 { Ok(()) } else { Err(format!("{new} of 4 are new")) }
        });
        world.ok("n1", &["undo", "app"]);
        let back = world.settled(&["n1"], "app", 4);
        assert!(back.iter().all(|held| held.var("WORD") == "one"), "{back:?}");
        assert!(back.iter().all(|held| old.iter().all(|old| old.id != held.id)));
        let history: serde_json::Value = world.json("n1", &["history", "app"]);
        assert_eq!(history.as_array().map(Vec::len), Some(3), "{history}");
    });
}

#[test]
fn where_no_node_has_room_the_numbers_are_told_and_it_runs_once_there_is() {
    with_cluster_of(2, "cpu=1,memory=128Mi,pids=100", |world| {
        world.image("n1");
        let more =
            ["command: [/probe, sleep]", "resources: {cpu: 100m, memory: 100Mi, pids: 10}", "replicas: 3"];
        let path = world.manifest("big", &more);
        let answer = world.run("n1", User::Alice, &["apply", "-f", &path]);
        assert_eq!(answer.code, Some(4), "{answer:?}");
        for part in ["n1", "n2", "memory", "100Mi"] {
            assert!(answer.stderr.contains(part), "{part} is not told: {}", answer.stderr);
        }
        assert_eq!(world.of("big", &["n1", "n2"]).len(), 2, "those that fit run");
        let name = world.cluster.add_node().unwrap();
        world.settled(&["n1", "n2", &name], "big", 3);
    });
}

#[test]
fn a_port_that_another_program_has_is_told_and_taken_once_it_is_free() {
    with_cluster(1, |world| {
        world.image("n1");
        let netns = world.cluster.node("n1").unwrap().netns_path;
        let bind = || std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, 8080));
        let taken = network::in_netns(&netns, bind).unwrap().unwrap();
        let more = ["command: [/probe, web]", "ports: [\"8080:8080\"]", QUIET[1]];
        world.submit("n1", User::Alice, "web", &more);
        eventually(LIMIT, || {
            let row = row(world, "n1", "web")?;
            let told = row.reason.as_deref().is_some_and(|reason| reason.contains("8080"));
            if told { Ok(()) } else { Err(format!("{row:?}")) }
        });
        assert_eq!(world.of("web", &["n1"]).len(), 0);
        drop(taken);
        eventually(LIMIT, || world.http("n1", 8080).map(|_| ()));
    });
}
