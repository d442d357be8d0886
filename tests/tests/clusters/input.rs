//! What people and strangers send that makes no sense.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::routes;
use api::shapes::Status;
use dev::User;
use e2e::{LIMIT, eventually, with_cluster};

use super::{lines, quiet};

/// Noise that is the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut word = seed;
    let next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn manifests_that_make_no_sense_change_nothing() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(1)));
        let before = world.settled(&["n1"], "app", 1);
        let events = || world.json::<serde_json::Value>("n1", &["history"]).as_array().map(Vec::len);
        let history = events();
        let bad = [
            ("unknown key", "deployments: [{name: app, image: \"probe:1\", replcas: 3}]", "replicas"),
            ("wrong type", "deployments: [{name: app, image: \"probe:1\", replicas: many}]", "replicas"),
            (
                "wrong unit",
                "deployments: [{name: app, image: \"probe:1\", resources: {memory: 64Mb}}]",
                "64Mb",
            ),
            ("bad name", "deployments: [{name: ../etc, image: \"probe:1\"}]", "../etc"),
            ("no such image", "deployments: [{name: app, image: \"prove:1\"}]", "prove:1"),
            ("exclusive", "deployments: [{name: app, image: \"probe:1\", class: exclusive}]", "exclusive"),
            (
                "bomb",
                "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\ndeployments: [*c,*c,*c]",
                "",
            ),
        ];
        for (what, text, told) in bad {
            let path = world.file("bad.yaml", text);
            let answer = world.run("n1", User::Alice, &["apply", "-f", &path]);
            assert_ne!(answer.code, Some(0), "{what}: {answer:?}");
            assert!(answer.stderr.contains(told), "{what}: {answer:?}");
        }
        assert_eq!(events(), history);
        assert_eq!(world.settled(&["n1"], "app", 1), before);
    });
}

#[test]
fn a_program_that_the_image_does_not_have_is_told_and_repaired_by_the_next_apply() {
    with_cluster(1, |world| {
        world.image("n1");
        let path =
            world.manifest("app", &["command: [/prode]", "resources: {cpu: 50m, memory: 32Mi, pids: 20}"]);
        let answer = world.run("n1", User::Alice, &["apply", "-f", &path]);
        assert_eq!(answer.code, Some(3), "{answer:?}");
        assert!(answer.stderr.contains("/prode"), "{answer:?}");
        assert!(world.held(&["n1"]).unwrap().is_empty());
        world.apply("n1", "app", &lines(&quiet(1)));
        world.settled(&["n1"], "app", 1);
    });
}

#[test]
fn noise_on_the_mesh_port_and_on_the_socket_does_not_disturb_a_peer() {
    with_cluster(2, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(2)));
        let before = world.settled(&["n1", "n2"], "app", 2);
        let pid = || world.ask::<Status>("n1", routes::STATUS).map(|status| status.pid);
        let peer = pid().unwrap();
        let node = world.cluster.node("n2").unwrap();
        let target = (world.cluster.address("n1").unwrap(), 7070);
        network::in_netns(&node.netns_path, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for n in 0..400_u64 {
                let length = usize::try_from(n * 7 % 1_400).unwrap();
                socket.send_to(&noise(length, n), target).unwrap();
            }
        })
        .unwrap();
        for n in 0..50_u64 {
            let mut stream = UnixStream::connect(world.cluster.socket("n1")).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // It may hang up before all of it is written.
            stream.write_all(&noise(5_000, n)).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
        }
        let huge = format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20));
        let mut stream = UnixStream::connect(world.cluster.socket("n1")).unwrap();
        stream.write_all(huge.as_bytes()).ok();
        drop(stream);
        eventually(LIMIT, || if pid()? == peer { Ok(()) } else { Err("another peer answers".to_owned()) });
        world.ok("n1", &["scale", "app=3"]);
        let after = world.settled(&["n1", "n2"], "app", 3);
        assert!(before.iter().all(|held| after.contains(held)), "containers were touched");
    });
}
