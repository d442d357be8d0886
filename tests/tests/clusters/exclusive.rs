//! What may run once: leases, deadlines and numbers, with real containers.

use std::time::{Duration, Instant};

use e2e::{Held, World, with_cluster};

use super::{ALL, QUIET};

/// From the loss of a holder to its replacement: the term of a lease, what voters wait beyond it, and what finding
/// the loss and starting take on a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// The term of a lease.
const TERM: Duration = Duration::from_secs(10);

fn exclusive(world: &World) -> Held {
    // Its holder may be the only one that has the image, and lost.
    for node in ALL {
        world.image(node);
    }
    let mut lines = QUIET.to_vec();
    lines.extend(["class: exclusive", "voters: [n1, n2, n3]"]);
    world.apply("n1", "ledger", &lines);
    world.settled(&ALL, "ledger", 1).remove(0)
}

fn fence(held: &Held) -> u64 {
    held.var("SKERRY_FENCE").parse().unwrap_or_else(|_| panic!("no number in {held:?}"))
}

/// Watches what runs until another node than `lost` runs it: never two at a time. When the lost one was gone, and
/// which came then.
fn taken_over(world: &World, lost: &str) -> (Duration, Held) {
    let (begin, mut gone) = (Instant::now(), None);
    while begin.elapsed() < TAKEN_OVER {
        let running = world.at_once("ledger", &ALL);
        assert!(running.len() <= 1, "two run at the same moment: {running:?}");
        if running.iter().all(|held| held.node != lost) {
            gone.get_or_insert_with(|| begin.elapsed());
        }
        if let (Some(gone), Some(held)) = (gone, running.into_iter().find(|held| held.node != lost)) {
            return (gone, held);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody took over in {TAKEN_OVER:?}; the lost one was gone after {gone:?}");
}

#[test]
fn a_holder_that_is_cut_off_ends_within_its_term_and_the_other_side_runs_it_after_that() {
    with_cluster(3, |world| {
        let before = exclusive(world);
        let program = before.processes.last().unwrap();
        let file = std::fs::read_to_string(format!("/proc/{}/root/etc/skerry-fence", program.pid)).unwrap();
        assert_eq!(file, format!("{}\n", fence(&before)), "the file has the number of the environment");
        let rest: Vec<&str> = ALL.into_iter().filter(|node| *node != before.node).collect();
        world.cut(&format!("{}/{}", before.node, rest.join(",")));
        let (gone, after) = taken_over(world, &before.node);
        assert!(gone <= TERM, "it ran on for {gone:?}");
        assert!(fence(&after) > fence(&before), "{after:?} after {before:?}");
        world.heal();
        assert_eq!(world.settled(&ALL, "ledger", 1), [after]);
    });
}

#[test]
fn a_container_whose_peer_was_killed_ends_at_its_deadline_by_itself() {
    with_cluster(3, |world| {
        let before = exclusive(world);
        world.stop(&before.node);
        let (gone, after) = taken_over(world, &before.node);
        assert!(gone <= TERM, "it ran on for {gone:?}");
        assert!(fence(&after) > fence(&before), "{after:?} after {before:?}");
        world.start(&before.node);
        assert_eq!(world.settled(&ALL, "ledger", 1), [after]);
    });
}
