//! Large clusters that are cut in half and healed.

use std::time::Duration;

use sim::{Cluster, Spec, User};

use crate::watch::Watch;

/// Deployments of the cluster.
const DEPLOYMENTS: usize = 10;

fn small(replicas: usize) -> Spec {
    let mut spec = Spec::new(u32::try_from(replicas).expect("small"));
    spec.resources.cpu_m = 50;
    spec.resources.memory_b = 16 << 20;
    spec
}

fn of(n: usize) -> String {
    format!("web-{n}")
}

/// Whether each replica runs once on these machines.
fn run_once(cluster: &Cluster, hosts: &[usize], replicas: usize) -> bool {
    let mut copies = vec![0_u32; DEPLOYMENTS * replicas];
    for (_, container) in hosts.iter().flat_map(|host| cluster.running(*host)) {
        let replica = &container.claim.replica;
        let deployment: Option<usize> =
            replica.deployment.as_str().strip_prefix("web-").and_then(|it| it.parse().ok());
        let place = deployment.map(|it| it * replicas + replica.ordinal as usize);
        match place.and_then(|place| copies.get_mut(place)) {
            Some(copies) => *copies += 1,
            None => return false,
        }
    }
    copies.iter().all(|copies| *copies == 1)
}

pub(crate) fn halves(nodes: usize) {
    let mut watch = Watch::new(nodes);
    let all = watch.all.clone();
    watch.tell("founded", Duration::ZERO);
    watch.switch_on();
    watch.until("up", |c| c.all_up(&all) && c.agreed(&all));
    for n in 0..DEPLOYMENTS {
        watch.cluster.apply(n % nodes, &of(n), &small(nodes));
    }
    watch.until("placed", |c| run_once(c, &all, nodes));
    watch.cluster.run_for(Duration::from_secs(3));
    let (one, other) = all.split_at(nodes / 2);
    watch.cluster.split(&[one, other]);
    watch.until("each half runs all", |c| run_once(c, one, nodes) && run_once(c, other, nodes));
    watch.cluster.run_for(Duration::from_secs(10));
    watch.tell("ten seconds later", Duration::from_secs(10));
    watch.cluster.heal();
    let level = watch.until("documents equal after the heal", |c| c.same_heads(&all));
    let agreed = watch.until("plans equal", |c| c.agreed(&all));
    watch.until("all believed up", |c| c.all_up(&all) && c.agreed(&all));
    watch.until("each replica once", |c| run_once(c, &all, nodes) && c.agreed(&all));
    println!("converged: documents {level:?}, plans {:?}", level + agreed);
    watch.end();
}

pub(crate) fn heal(nodes: usize) {
    let mut watch = Watch::new(nodes);
    let all = watch.all.clone();
    watch.switch_on();
    watch.until("up", |c| c.all_up(&all) && c.agreed(&all));
    watch.cluster.apply(0, &of(0), &small(nodes));
    watch.until("agreed", |c| c.agreed(&all));
    watch.cluster.run_for(Duration::from_secs(3));
    let (one, other) = all.split_at(nodes / 2);
    watch.cluster.split(&[one, other]);
    watch.cluster.run_for(Duration::from_secs(15));
    watch.cluster.apply(one[0], &of(1), &small(nodes));
    watch.cluster.apply(other[0], &of(2), &small(nodes));
    watch.until("each half agreed", |c| c.agreed(one) && c.agreed(other));
    watch.cluster.run_for(Duration::from_secs(3));
    watch.cluster.heal();
    let level = watch.until("documents equal after the heal", |c| c.same_heads(&all));
    let agreed = watch.until("plans equal", |c| c.agreed(&all));
    println!("T_conv of {nodes} machines: documents {level:?}, plans {:?}", level + agreed);
    watch.end();
}

pub(crate) fn p20(nodes: usize, events: usize) {
    let mut watch = Watch::new(nodes);
    let all = watch.all.clone();
    watch.tell("founded", Duration::ZERO);
    watch.switch_on();
    watch.until("up", |c| c.all_up(&all));
    for n in 0..DEPLOYMENTS {
        watch.cluster.apply(n % nodes, &of(n), &small(1));
    }
    watch.until("documents equal", |c| c.same_heads(&all));
    let (one, other) = all.split_at(nodes / 2);
    watch.cluster.split(&[one, other]);
    watch.cluster.run_for(Duration::from_secs(10));
    watch.tell("cut", Duration::from_secs(10));
    for n in 0..events {
        for (side, user) in [(one, User::Alice), (other, User::Bob)] {
            // Each event follows from all that its peer has heard by then.
            let json = format!("{{\"vars\":{{\"N\":\"{n}\"}}}}");
            let bob = user == User::Bob;
            watch.cluster.set(side[n % side.len()], bob, &of(n % DEPLOYMENTS), "env", &json);
        }
        watch.cluster.run_for(Duration::from_millis(20));
    }
    watch.until("each half has its events", |c| c.same_heads(one) && c.same_heads(other));
    watch.cluster.heal();
    let level = watch.until("documents equal after the heal", |c| c.same_heads(&all));
    let agreed = watch.until("plans equal", |c| c.agreed(&all));
    println!(
        "{nodes} peers, {events} events a side: documents equal {level:?}, plans {:?} after the heal",
        level + agreed
    );
    watch.end();
}
