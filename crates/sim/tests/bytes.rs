//! What it costs to carry one event to everybody, in bytes. `BYTES_NODES=300` measures one more size.
#![allow(clippy::print_stdout, reason = "figures are seen with --nocapture")]

use std::time::Duration;

use sim::{Bytes, Cluster, Settings, Spec, User};

const SECOND: Duration = Duration::from_secs(1);

/// What carries an event: itself, the word that it is stored, and questions about where others stand.
const OF_EVENTS: [&str; 4] = ["events", "stored", "want", "positions"];

/// L10: of an event of b bytes to N peers no more than this times N b bytes are sent.
const TIMES_MAX: f64 = 5.0;

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn more_nodes() -> Option<usize> {
    std::env::var("BYTES_NODES").ok().map(|text| text.parse().expect("BYTES_NODES is a number of nodes"))
}

/// What is sent of some kinds while a second passes in a calm cluster, on average.
fn idle(cluster: &mut Cluster, seconds: u32) -> Bytes {
    cluster.count_bytes();
    cluster.run_for(SECOND * seconds);
    cluster.bytes()
}

struct Cost {
    nodes: usize,
    event: usize,
    /// Times N b: what carries the event; that and what is said of it in records.
    events: f64,
    all: f64,
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people, of numbers far below 2^52")]
fn cost(nodes: usize) -> Cost {
    /// Over so many seconds the news of an event are told by all to all, in records as well.
    const WINDOW: u32 = 10;
    let mut cluster = Cluster::new(5, nodes, Settings::default());
    cluster.thorough(false);
    let all: Vec<usize> = (0..nodes).collect();
    let step = SECOND / 10;
    while !(cluster.all_up(&all) && cluster.agreed(&all)) {
        cluster.run_for(step);
        assert!(cluster.now().as_millis() < 120_000, "{nodes} never came up");
    }
    // Until the records of the beginning have all got around.
    cluster.run_for(SECOND * 30);
    let before = idle(&mut cluster, WINDOW);
    cluster.count_bytes();
    let spec = Spec::new(0);
    let signed = cluster.sign_and_submit(0, User::Alice, "apply web", |author, documents, time_ms| {
        author.apply(documents, "web", &spec, time_ms)
    });
    let event = signed.expect("nothing runs yet").1.len();
    cluster.run_for(SECOND * WINDOW);
    assert!(cluster.same_heads(&all), "the event is not everywhere");
    let after = cluster.bytes();
    let whole = (nodes * event) as f64;
    let more = |kinds: &[&str]| (after.of(kinds).saturating_sub(before.of(kinds))) as f64 / whole;
    println!("{nodes} nodes: idle {before:?}\n  with the event of {event} bytes {after:?}");
    Cost {
        nodes,
        event,
        events: more(&OF_EVENTS),
        all: after.total().saturating_sub(before.total()) as f64 / whole,
    }
}

#[test]
fn an_event_costs_less_than_five_times_its_bytes_for_each_peer() {
    let sizes = [3, 10, 30, 100].into_iter().chain(more_nodes());
    let costs: Vec<Cost> = sizes.map(cost).collect();
    for Cost { nodes, event, events, all } in &costs {
        println!("{nodes:>4} nodes, {event} bytes: {events:.2} N b to carry it, {all:.2} N b with records");
    }
    for Cost { nodes, events, .. } in costs {
        assert!(events <= TIMES_MAX, "{nodes} nodes: {events:.2} N b");
    }
}
