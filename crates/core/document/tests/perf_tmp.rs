#![allow(clippy::all, clippy::pedantic, clippy::disallowed_methods)]
mod common;
use common::*;
use document::{Documents, Outcome};
use std::time::Instant;
#[test]
fn perf() {
    for total in [1000u32, 4000] {
        for ahead in [0u32, 200] {
            let world = World::new();
            let mut d = world.documents();
            let mut inc = vec![];
            for i in 0..500u32 {
                if i % 50 == 0 {
                    let edits = (i..i + 50)
                        .map(|n| {
                            let mut g = whole(n);
                            for (k, v) in [
                                ("env", r#"{"vars":{"A":"b"}}"#),
                                ("ports", "{}"),
                                ("resources", r#"{"cpu_m":100,"memory_b":67108864,"pids":64}"#),
                                ("meta", "{}"),
                            ] {
                                g.insert(k.to_string(), v.to_string());
                            }
                            create(&format!("d{n}"), g)
                        })
                        .collect();
                    let e = world.at_heads(&d, apply(edits));
                    let id = put(&mut d, &e);
                    for n in i..i + 50 {
                        inc.push((format!("d{n}"), id));
                    }
                }
            }
            let mut events = vec![];
            let mut seed = 1u64;
            let mut times = vec![];
            let mut checks = vec![];
            let mut decodes = vec![];
            for n in 0..total {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (name, id) = &inc[(seed >> 33) as usize % 500];
                let g = if n % 2 == 0 { replicas(n % 50) } else { image(n) };
                let e = world.at_heads(&d, apply(vec![set(name, *id, g)]));
                let t0 = Instant::now();
                document::event::decode(&e).unwrap();
                let t = Instant::now();
                d.check(&e).unwrap();
                let t2 = Instant::now();
                let o = d.insert(&e).unwrap();
                let t3 = Instant::now();
                assert!(matches!(o.outcome, Outcome::Applied { .. }));
                if n + 200 >= total {
                    decodes.push((t - t0).as_micros());
                    checks.push((t2 - t).as_micros());
                    times.push((t3 - t2).as_micros());
                }
                events.push(e);
            }
            times.sort();
            checks.sort();
            decodes.sort();
            println!(
                "{total} events: decode median {} us, check median {} us, insert median {} us, p95 {} us, max {}",
                decodes[100], checks[100], times[100], times[190], times[199]
            );
            if ahead > 0 {
                // 200 concurrent events branching at an old point
                let old = d.history(&web(), None)[100].id;
                let auth = d.heads(&model::DocId::Cluster);
                let mut times = vec![];
                for n in 0..200u32 {
                    let (name, id) = &inc[n as usize];
                    if n as usize >= 500 {
                        break;
                    }
                    let e = world.change_event(
                        &world.deploy,
                        &web(),
                        auth.clone(),
                        vec![old],
                        apply(vec![set(name, *id, replicas(n))]),
                    );
                    let t = Instant::now();
                    let o = d.insert(&e).unwrap();
                    times.push(t.elapsed().as_micros());
                    assert!(matches!(o.outcome, Outcome::Applied { .. }), "{o:?}");
                }
                times.sort();
                println!("  late concurrent at {total}: median {} us p95 {}", times[100], times[190]);
            }
            let t = Instant::now();
            let (all, _) = d.since(&web(), &[], usize::MAX);
            let since = t.elapsed();
            let mut fresh = world.documents();
            let t = Instant::now();
            for r in fresh.insert_all(&all) {
                r.unwrap();
            }
            println!(
                "  since all {since:?}; insert_all of {} events: {} us/event",
                all.len(),
                t.elapsed().as_micros() / all.len() as u128
            );
            let t = Instant::now();
            let mut f2 = Documents::new(world.cluster);
            for b in &world.first {
                f2.insert(b).unwrap();
            }
            let h = d.history(&web(), None);
            println!("  history {} items {:?}", h.len(), t.elapsed());
            let t = Instant::now();
            let s = d.save(&web()).unwrap();
            println!("  save {} bytes {:?}", s.len(), t.elapsed());
            assert_eq!(fresh.heads(&web()), d.heads(&web()));
            let rss = std::fs::read_to_string("/proc/self/status").unwrap();
            println!("  {}", rss.lines().find(|l| l.starts_with("VmRSS")).unwrap());
        }
    }
}
