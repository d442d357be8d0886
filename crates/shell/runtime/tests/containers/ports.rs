//! Published ports.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use runtime::{ContainerSpec, PublishedPort, StartError};

use crate::world::{PATIENCE, World, await_that};

pub(crate) const CASES: &[super::Case] = &[
    ("a_published_port_leads_into_the_container", a_published_port_leads_into_the_container),
    ("a_port_is_shared_by_replicas_and_nobody_else", a_port_is_shared_by_replicas_and_nobody_else),
    ("a_port_serves_on_while_its_starter_is_dead", a_port_serves_on_while_its_starter_is_dead),
    ("many_connections_at_once_are_all_served", many_connections_at_once_are_all_served),
    ("a_container_that_does_not_listen_hangs_up", a_container_that_does_not_listen_hangs_up),
];

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn server(world: &World, id: &str, port: u16) -> ContainerSpec {
    let mut spec = world.spec(id, &["serve", "80", id]);
    spec.ports = vec![PublishedPort { host: port, container: 80 }];
    spec
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Who answers.
fn name(port: u16) -> String {
    let mut line = String::new();
    BufReader::new(connect(port)).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn a_published_port_leads_into_the_container() {
    let world = World::new();
    let port = free_port();
    let mut spec = server(&world, "a1", port);
    // Any user of the container may listen on its port 80.
    spec.user = Some("web".into());
    world.start(&spec);
    world.await_log("a1", "listening");
    assert_eq!(name(port), "a1");
    // A lot of bytes both ways, then a half-close, then what the server says after it.
    let stream = connect(port);
    let sent: Vec<u8> = (0..8 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
    let reader = {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        })
    };
    (&stream).write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let got = reader.join().unwrap();
    assert_eq!(&got[..3], b"a1\n");
    assert!(got[3..got.len() - 4] == sent[..], "{} bytes", got.len());
    assert_eq!(&got[got.len() - 4..], b"end\n");
    // IPv6 too, where the machine has it.
    if let Ok(stream) = TcpStream::connect(("::1", port)) {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, "a1\n");
    }
    world.runtime.kill("a1").unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

fn a_port_is_shared_by_replicas_and_nobody_else() {
    let world = World::new();
    let port = free_port();
    for id in ["a1", "a2", "a3"] {
        world.start(&server(&world, id, port));
        world.await_log(id, "listening");
    }
    let mut seen = BTreeSet::new();
    await_that("answers of all three", || {
        seen.insert(name(port));
        seen.len() == 3
    });
    // One stops: the others serve.
    world.runtime.kill("a2").unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        seen.insert(name(port));
    }
    assert!(!seen.contains("a2"), "{seen:?}");
    // Another runtime folder is another node.
    let other = World::new();
    other.runtime.write_spec(&server(&other, "b1", port)).unwrap();
    let error = other.runtime.start("b1").unwrap_err();
    assert_eq!(error, StartError::PortTaken { port });
    assert_eq!(error.to_string(), format!("port {port} is taken"));
    drop(other);
    // A foreign listener, even one that would share.
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    world.runtime.write_spec(&server(&world, "a4", port)).unwrap();
    assert_eq!(world.runtime.start("a4").unwrap_err(), StartError::PortTaken { port });
    let shared = sharing_listener();
    let port = shared.local_addr().unwrap().port();
    world.runtime.write_spec(&server(&world, "a4", port)).unwrap();
    assert_eq!(world.runtime.start("a4").unwrap_err(), StartError::PortTaken { port });
    drop(shared);
    world.runtime.start("a4").unwrap();
}

/// A listener of another program of the same user that lets others share its port.
fn sharing_listener() -> TcpListener {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0)).unwrap();
    listen(&socket, Backlog::new(8).unwrap()).unwrap();
    socket.into()
}

fn a_port_serves_on_while_its_starter_is_dead() {
    use std::process::{Command, Stdio};
    let world = World::new();
    let port = free_port();
    world.runtime.write_spec(&server(&world, "a1", port)).unwrap();
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .arg(crate::world::STARTER_ARG)
        .arg(world.dir.path().join("run"))
        .arg("a1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(starter.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    starter.kill().unwrap();
    starter.wait().unwrap();
    world.await_log("a1", "listening");
    assert_eq!(name(port), "a1");
}

fn many_connections_at_once_are_all_served() {
    let world = World::new();
    let port = free_port();
    let mut spec = server(&world, "a1", port);
    spec.limits.pids = 1000;
    spec.limits.memory_b = 512 << 20;
    world.start(&spec);
    world.await_log("a1", "listening");
    let streams: Vec<_> = (0..300).map(|_| connect(port)).collect();
    for mut stream in &streams {
        stream.write_all(b"ping").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for mut stream in streams {
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, "a1\npingend\n");
    }
}

fn a_container_that_does_not_listen_hangs_up() {
    let world = World::new();
    let port = free_port();
    let mut spec = world.spec("a1", &["sleep"]);
    spec.ports = vec![PublishedPort { host: port, container: 80 }];
    world.start(&spec);
    let mut got = Vec::new();
    // Either an end or a reset, but at once.
    match connect(port).read_to_end(&mut got) {
        Ok(n) => assert_eq!(n, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert!(world.is_running("a1"));
}
