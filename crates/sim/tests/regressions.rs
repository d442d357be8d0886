//! Faults of our own that were found and mended: each test fails without its mend.

use std::time::Duration;

use sim::{Cluster, Settings, Spec};

const SECOND: Duration = Duration::from_secs(1);

/// `nodes` that know each other and are at rest.
fn at_rest(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(23, nodes, Settings::default());
    let all: Vec<usize> = (0..nodes).collect();
    let up = cluster.run_until(10 * SECOND, |it| it.all_up(&all) && it.agreed(&all));
    assert!(up.is_some(), "the cluster never came up");
    cluster.run_for(10 * SECOND);
    cluster
}

/// Decision 0007. A peer that had caught up with one other took the silence of the third, which was
/// starting as well, for its running nothing, and started copies of all that the third still ran.
#[test]
fn peers_that_are_killed_and_started_together_start_nothing_that_still_runs() {
    for late in [0, 50, 200, 600, 1_200] {
        let mut cluster = at_rest(3);
        cluster.apply(0, "web", &Spec::new(9));
        let runs = cluster.run_until(5 * SECOND, |it| it.runs_once(&[0, 1, 2], "web", 9));
        assert!(runs.is_some(), "web does not run");
        cluster.run_for(5 * SECOND);
        let before = cluster.processes();
        for host in 0..3 {
            cluster.stop_peer(host);
        }
        cluster.run_for(3 * SECOND);
        cluster.start(0);
        cluster.start(1);
        cluster.run_for(Duration::from_millis(late));
        cluster.start(2);
        cluster.run_for(20 * SECOND);
        assert_eq!(
            cluster.processes(),
            before,
            "the last peer {late} ms late:\n{}",
            cluster.trace().join("\n")
        );
    }
}

/// Each event moves the heads of every member. Told at once by all to all, one event of a cluster of
/// 30 was some thousands of messages.
#[test]
fn one_event_does_not_make_every_member_tell_all_others_of_its_heads_at_once() {
    /// Messages to carry one event to 30 peers: 5 from each, each answered when it is on disk, and as
    /// much again for exchanges that happen to fall into the second.
    const FRAMES_MAX: u64 = 30 * 5 * 2 * 2;

    let mut cluster = at_rest(30);
    let idle = {
        let before = cluster.frames;
        cluster.run_for(SECOND);
        cluster.frames - before
    };
    let before = cluster.frames;
    cluster.apply(0, "web", &Spec::new(0));
    cluster.run_for(SECOND);
    let all: Vec<usize> = (0..30).collect();
    assert!(cluster.same_heads(&all), "the event is not everywhere after a second");
    let sent = (cluster.frames - before).saturating_sub(idle);
    assert!(sent <= FRAMES_MAX, "{sent} messages beyond the {idle} of an idle second");
}

/// Decision 0013. Each change of a record was passed on at once by everybody: one deployment in a large
/// cluster was some hundred messages from each member.
#[test]
fn what_a_deployment_changes_in_a_large_cluster_is_passed_on_together() {
    /// Beyond those of idle seconds: 1,975 in this world, and 13,249 one by one.
    const FRAMES_MAX: u64 = 3_000;

    let mut cluster = at_rest(30);
    let before = cluster.frames;
    cluster.run_for(5 * SECOND);
    let idle = cluster.frames - before;
    let before = cluster.frames;
    cluster.apply(0, "web", &Spec::new(30));
    cluster.run_for(5 * SECOND);
    let all: Vec<usize> = (0..30).collect();
    assert!(cluster.runs_once(&all, "web", 30) && cluster.agreed(&all), "web does not run");
    let sent = (cluster.frames - before).saturating_sub(idle);
    assert!(sent <= FRAMES_MAX, "{sent} messages beyond the {idle} of five idle seconds");
}

/// A peer that was stopped hears afterwards what was said meanwhile: that another copy is well and saw its
/// own. It let its copy go for one on a machine that had just died, and nothing ran.
#[test]
fn a_peer_that_stood_still_does_not_stop_its_copy_for_one_on_a_machine_that_is_gone() {
    let mut cluster = at_rest(3);
    cluster.apply(0, "web", &Spec::new(1));
    assert!(cluster.run_until(5 * SECOND, |it| it.processes().len() == 1).is_some(), "web does not run");
    cluster.run_for(3 * SECOND);
    let copy = cluster.processes()[0];
    cluster.pause(copy.0, 600 * SECOND);
    assert!(cluster.run_until(10 * SECOND, |it| it.processes().len() == 2).is_some(), "nobody takes over");
    cluster.run_for(3 * SECOND);
    let other = cluster.processes().into_iter().find(|it| *it != copy).expect("it was there a moment ago");
    cluster.power_off(other.0);
    cluster.resume(copy.0);
    cluster.run_for(20 * SECOND);
    assert_eq!(cluster.processes(), [copy], "{}", cluster.trace().join("\n"));
}

/// What runs of a deployment that says nothing sensible any more is kept: each island had kept its own.
#[test]
fn of_a_deployment_that_means_nothing_any_more_one_copy_is_kept() {
    let mut cluster = at_rest(3);
    cluster.apply(0, "web", &Spec::new(1));
    assert!(cluster.run_until(5 * SECOND, |it| it.processes().len() == 1).is_some(), "web does not run");
    cluster.run_for(3 * SECOND);
    cluster.split(&[&[0], &[1], &[2]]);
    assert!(cluster.run_until(20 * SECOND, |it| it.processes().len() == 3).is_some(), "not on each island");
    cluster.run_for(3 * SECOND);
    cluster.set(0, false, "web", "env", r#"{"vars":17}"#);
    cluster.run_for(SECOND);
    cluster.heal();
    cluster.run_for(20 * SECOND);
    assert_eq!(cluster.processes().len(), 1, "{}", cluster.trace().join("\n"));
}

/// Each start failed on this node alone, by its own word, and the next was tried on another.
#[test]
fn an_update_that_no_node_can_start_has_failed_and_is_rolled_back() {
    let mut cluster = at_rest(3);
    cluster.apply(0, "web", &Spec::new(1));
    cluster.run_for(5 * SECOND);
    let before = cluster.processes();
    assert_eq!(before.len(), 1);
    for host in 0..3 {
        cluster.no_pids(host, true);
    }
    cluster.set(0, false, "web", "env", r#"{"vars":{"V":"2"}}"#);
    let told = |it: &Cluster| it.trace().iter().any(|line| line.contains("back to v1"));
    let back = cluster.run_until(120 * SECOND, told);
    assert!(back.is_some(), "{}", cluster.trace().join("\n"));
    assert_eq!(cluster.processes(), before, "what ran runs on");
    assert_eq!(cluster.violations(), &[] as &[String]);
}

/// What could not be remembered of failed updates was dropped without a word.
#[test]
fn of_more_failed_updates_than_are_remembered_one_is_told_of_and_none_breaks_a_record() {
    const DEPLOYMENTS: usize = model::limits::FAILED_REVISIONS_MAX + 2;

    let mut cluster = at_rest(3);
    let mut spec = Spec::new(1);
    (spec.resources.cpu_m, spec.resources.memory_b) = (20, 16 << 20);
    let all: Vec<String> = (0..DEPLOYMENTS).map(|n| format!("web-{n}")).collect();
    for of in &all {
        cluster.apply(0, of, &spec);
    }
    let runs = cluster.run_until(60 * SECOND, |it| it.processes().len() == DEPLOYMENTS);
    assert!(runs.is_some(), "they do not run");
    cluster.run_for(5 * SECOND);
    let before = cluster.processes();
    cluster.set_start_failures(1_000);
    for of in &all {
        cluster.set(0, false, of, "env", r#"{"vars":{"V":"2"}}"#);
    }
    let told =
        |it: &Cluster| it.trace().iter().filter(|line| line.contains("no more are remembered")).count();
    let full = cluster.run_until(300 * SECOND, |it| told(it) > 0);
    assert!(full.is_some(), "{}", cluster.trace().join("\n"));
    cluster.run_for(60 * SECOND);
    let trace = cluster.trace().join("\n");
    assert!(told(&cluster) <= 3, "each peer says it once: {trace}");
    assert_eq!(cluster.processes(), before, "what ran runs on: {trace}");
    assert_eq!(cluster.violations(), &[] as &[String]);
    for host in 0..3 {
        let node = cluster.node(host).expect("it runs");
        assert!(node.own_record().failed.len() <= model::limits::FAILED_REVISIONS_MAX);
    }
    // With room again the rest goes back as well.
    cluster.delete(0, &all[0]);
    cluster.delete(0, &all[1]);
    let is_back = |it: &Cluster, host: usize, of: &str| {
        let key = (model::Name::default_namespace(), of.parse().expect("a name"));
        let node = it.node(host).expect("it runs");
        node.desired().get(&key).is_some_and(|desired| desired.rolled_back.is_some())
    };
    let back = cluster
        .run_until(300 * SECOND, |it| (0..3).all(|host| all[2..].iter().all(|of| is_back(it, host, of))));
    assert!(back.is_some(), "{}", cluster.trace().join("\n"));
}
