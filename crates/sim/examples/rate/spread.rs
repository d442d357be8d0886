//! One event to a cluster that is spread over the world.

use std::time::Duration;

use sim::{Cluster, Spec};

use crate::watch::Watch;

/// Where the machines stand: a city, its latitude and its longitude in degrees.
const REGIONS: [(&str, f64, f64); 19] = [
    ("Amsterdam", 52.37, 4.90),
    ("Stockholm", 59.33, 18.07),
    ("Mumbai", 19.08, 72.88),
    ("Paris", 48.86, 2.35),
    ("Dallas", 32.78, -96.80),
    ("Secaucus", 40.79, -74.06),
    ("Frankfurt", 50.11, 8.68),
    ("São Paulo", -23.55, -46.63),
    ("Ashburn", 39.04, -77.49),
    ("Johannesburg", -26.20, 28.05),
    ("Los Angeles", 34.05, -118.24),
    ("London", 51.51, -0.13),
    ("Tokyo", 35.68, 139.69),
    ("Chicago", 41.88, -87.63),
    ("Singapore", 1.35, 103.82),
    ("San José", 37.34, -121.89),
    ("Sydney", -33.87, 151.21),
    ("Toronto", 43.65, -79.38),
    ("Santiago", -33.45, -70.67),
];

/// Light in glass goes at two thirds of its speed in vacuum, in kilometres a second.
const GLASS_KM_PER_S: f64 = 299_792.458 * 2.0 / 3.0;

/// A cable is longer than the great circle, by as much as is often measured between well-linked cities.
const DETOUR: f64 = 1.5;

const EARTH_RADIUS_KM: f64 = 6_371.0;

/// How exactly the arrival of an event is seen.
const STEP: Duration = Duration::from_micros(500);

/// By when everybody must have it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two events.
const PAUSE: Duration = Duration::from_secs(2);

/// What a packet takes from one city to another.
fn one_way(from: (f64, f64), to: (f64, f64)) -> Duration {
    let (lat_a, lat_b) = (from.0.to_radians(), to.0.to_radians());
    let (lat, lon) = (lat_b - lat_a, (to.1 - from.1).to_radians());
    let half = (lat / 2.0).sin().powi(2) + lat_a.cos() * lat_b.cos() * (lon / 2.0).sin().powi(2);
    let km = 2.0 * EARTH_RADIUS_KM * half.sqrt().min(1.0).asin();
    Duration::from_secs_f64(km * DETOUR / GLASS_KM_PER_S)
}

fn part(sorted: &[Duration], of_thousand: usize) -> Duration {
    let at = (sorted.len() * of_thousand).div_ceil(1_000).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |of_thousand| part(&times, of_thousand).as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms of {}",
        ms(500),
        ms(990),
        ms(1_000),
        times.len()
    );
}

pub(crate) fn spread(nodes: usize, events: usize) {
    let mut watch = Watch::new(nodes);
    let one_way: Vec<Vec<Duration>> =
        REGIONS.iter().map(|a| REGIONS.iter().map(|b| one_way((a.1, a.2), (b.1, b.2))).collect()).collect();
    let farthest = one_way.iter().flatten().max().copied().unwrap_or_default();
    println!("{} regions, {:.0} ms between the farthest two", REGIONS.len(), farthest.as_secs_f64() * 1e3);
    watch.cluster.put_into_regions((0..nodes).map(|host| host % REGIONS.len()).collect(), one_way);
    let all = watch.all.clone();
    watch.switch_on();
    watch.until("up", |c| c.all_up(&all));
    watch.cluster.run_for(Duration::from_secs(20));
    let (mut each, mut last, mut sent) = (Vec::new(), Vec::new(), 0);
    for n in 0..events {
        let through = n * 7 % nodes;
        let before = watch.cluster.events_sent;
        let begin = watch.cluster.now();
        watch.cluster.apply(through, &format!("e-{n}"), &Spec::new(0));
        let mut waiting: Vec<usize> = all.iter().copied().filter(|host| *host != through).collect();
        let event = newest(&watch.cluster, through);
        while !waiting.is_empty() && watch.cluster.now().since(begin) < PATIENCE {
            watch.cluster.run_for(STEP);
            let took = watch.cluster.now().since(begin);
            waiting.retain(|host| {
                let has = watch.cluster.node(*host).is_some_and(|node| node.documents().contains(event));
                if has {
                    each.push(took);
                }
                !has
            });
        }
        last.push(watch.cluster.now().since(begin));
        watch.cluster.run_for(PAUSE);
        sent += watch.cluster.events_sent - before;
    }
    told("each machine has the event", each);
    told("the last machine has the event", last);
    let number = |it: usize| f64::from(u32::try_from(it).expect("small"));
    let copies = number(usize::try_from(sent).expect("small")) / number(events * (nodes - 1));
    println!("copies sent for each machine: {copies:.2}");
    watch.end();
}

/// The event that was just handed in.
fn newest(cluster: &Cluster, host: usize) -> model::EventId {
    let node = cluster.node(host).expect("it runs");
    let heads = node.documents().heads(&model::DocId::Namespace(model::Name::default_namespace()));
    *heads.first().expect("an event was handed in")
}
