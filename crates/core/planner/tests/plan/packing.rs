//! How full a cluster can be packed, against what one who sees everything beforehand can do.

use model::{Capacity, ResourcesGroup};
use planner::Placement;

use crate::world::{MIB, World, deployment};

/// A number below `below`, the next of a sequence (splitmix64).
fn next(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) % below
}

/// How much of the scarcest of a node's resources something takes, in thousandths.
fn size(asked: &Capacity, of: &Capacity) -> u64 {
    (asked.cpu_m * 1_000 / of.cpu_m).max(asked.memory_b * 1_000 / of.memory_b)
}

/// First fit by falling size: the largest first, each on the first node that has room.
fn first_fit_decreasing(nodes: &[Capacity], asked: &[Capacity]) -> usize {
    let mut free = nodes.to_vec();
    let mut sorted = asked.to_vec();
    sorted.sort_by_key(|it| std::cmp::Reverse(size(it, &nodes[0])));
    let fits = |it: &&Capacity| {
        free.iter_mut().find(|free| free.holds(it)).map(|free| *free = free.less(it)).is_some()
    };
    sorted.iter().filter(fits).count()
}

#[test]
fn of_demands_that_fill_nine_tenths_nearly_all_that_can_be_placed_are() {
    let node = Capacity { cpu_m: 4_000, memory_b: 4_000 * MIB, pids: 100_000, ..Capacity::default() };
    let (mut ours, mut theirs) = (0, 0);
    for seed in 0..40 {
        let mut state = seed;
        let nodes = 10 + u8::try_from(next(&mut state, 20)).unwrap();
        let mut world = World::new(nodes);
        for n in 0..nodes {
            world.node(n).capacity = node.clone();
        }
        let (mut asked, mut cpu_m, mut memory_b) = (Vec::new(), 0, 0);
        let whole = u64::from(nodes) * 9 / 10;
        while cpu_m < whole * node.cpu_m && memory_b < whole * node.memory_b {
            let mut it = deployment(&format!("d{}", asked.len()), 1);
            it.resources = ResourcesGroup {
                cpu_m: 50 + next(&mut state, 1_950),
                memory_b: (50 + next(&mut state, 1_950)) * MIB,
                pids: 10,
                ..ResourcesGroup::default()
            };
            cpu_m += it.resources.cpu_m;
            memory_b += it.resources.memory_b;
            asked.push(it.resources.as_capacity());
            world.deployments.push(it);
        }
        let plan = world.plan();
        ours += plan.placements.values().filter(|it| matches!(it, Placement::Start { .. })).count();
        theirs += first_fit_decreasing(&vec![node.clone(); usize::from(nodes)], &asked);
    }
    println!("{ours} placed, {theirs} by first fit decreasing");
    assert!(ours * 100 >= theirs * 99, "{ours} placed, {theirs} by first fit decreasing");
}
