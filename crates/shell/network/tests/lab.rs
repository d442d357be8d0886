//! Labs on this machine's kernel: real namespaces, links and packet filters. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "what is not tested is said loudly")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use network::{Cuts, Lab, LabError, NodeNet, Subnet, doctor, in_netns, one_way, partition, spawn_in};
use tempfile::TempDir;

/// How long something that must happen may take: far more than it does, for a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long nothing may arrive before it counts as dropped. Without a cut it takes under 1 ms.
const SILENCE: Duration = Duration::from_millis(400);

/// Whether the kernel lets us; otherwise says loudly what stays untested.
fn root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("\n*** NOT TESTED: `{test}` needs root to make network namespaces ***\n");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI nothing may stay untested");
    false
}

/// A lab that is gone when the test ends, also when it fails.
struct Bench {
    lab: Lab,
    temp: TempDir,
}

impl Bench {
    fn new(nodes: &[&str]) -> Self {
        let temp = TempDir::new().unwrap();
        let lab = Lab::create(&temp.path().join("lab"), &names(nodes), Subnet::default()).unwrap();
        Self { lab, temp }
    }

    fn node(&self, name: &str) -> NodeNet {
        self.lab.node(name).unwrap()
    }

    /// A UDP socket inside a node, on its address.
    fn udp(&self, name: &str) -> UdpSocket {
        let node = self.node(name);
        in_netns(&node.netns_path, || {
            let socket = UdpSocket::bind((node.address, 0)).unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            socket
        })
        .unwrap()
    }

    /// Whether datagrams get from one node to the other. One that arrives is proof; several that
    /// do not arrive, of a path that was proved before, are a cut.
    fn arrives(&self, from: &str, to: &str) -> bool {
        let (sender, receiver) = (self.udp(from), self.udp(to));
        let target = receiver.local_addr().unwrap();
        let mut buffer = [0; 16];
        for _ in 0..3 {
            sender.send_to(b"hello", target).unwrap();
        }
        loop {
            match receiver.recv_from(&mut buffer) {
                Ok((5, source)) => {
                    assert_eq!(source, sender.local_addr().unwrap(), "no address is translated");
                    return true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("from {from} to {to}: {other:?}"),
            }
        }
    }

    /// Every directed pair that datagrams get through.
    fn reach(&self) -> BTreeSet<(String, String)> {
        let names: Vec<String> = self.lab.nodes().map(|node| node.name).collect();
        let mut reach = BTreeSet::new();
        for from in &names {
            for to in names.iter().filter(|to| *to != from) {
                if self.arrives(from, to) {
                    reach.insert((from.clone(), to.clone()));
                }
            }
        }
        reach
    }

    fn listen(&self, name: &str) -> TcpListener {
        let node = self.node(name);
        in_netns(&node.netns_path, || TcpListener::bind((node.address, 0)).unwrap()).unwrap()
    }

    fn connect(&self, from: &str, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
        in_netns(&self.node(from).netns_path, || TcpStream::connect_timeout(&to, limit)).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let destroyed = self.lab.destroy();
        if !std::thread::panicking() {
            destroyed.unwrap();
            assert_eq!(std::fs::read_dir(self.temp.path()).unwrap().count(), 0, "the folder is gone");
        }
    }
}

/// Sent to measure a loss: enough that chance is far from the bounds.
const PACKETS: usize = 2000;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn pairs(text: &[&str]) -> BTreeSet<(String, String)> {
    text.iter()
        .map(|pair| {
            let (from, to) = pair.split_once('>').unwrap();
            (from.to_owned(), to.to_owned())
        })
        .collect()
}

/// The mounts below a folder.
fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned).collect()
}

/// The links of the namespace that the test runs in.
fn links() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap();
    table.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect()
}

fn own_netns() -> std::path::PathBuf {
    std::fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn the_doctor_finds_all_that_a_lab_needs_and_leaves_nothing() {
    if !root("the_doctor_finds_all_that_a_lab_needs_and_leaves_nothing") {
        let [namespace] = doctor().try_into().expect("without a namespace nothing else is tried");
        assert!(!namespace.ok && namespace.fix.is_some(), "{namespace:?}");
        return;
    }
    let before = (links(), own_netns());
    let checks = doctor();
    assert_eq!(checks.len(), 5, "{checks:#?}");
    for check in &checks {
        assert!(check.ok && check.fix.is_none(), "{check:#?}");
    }
    assert_eq!((links(), own_netns()), before);
}

#[test]
fn nodes_reach_one_another_over_tcp_and_udp_and_have_addresses_in_order() {
    if !root("nodes_reach_one_another_over_tcp_and_udp_and_have_addresses_in_order") {
        return;
    }
    let before = (links(), own_netns());
    let bench = Bench::new(&["a", "b", "c"]);
    let addresses: Vec<_> = bench.lab.nodes().map(|node| node.address).collect();
    assert_eq!(addresses, [1, 2, 3].map(|last| Ipv4Addr::new(10, 99, 0, last)));
    assert_eq!(bench.reach(), pairs(&["a>b", "a>c", "b>a", "b>c", "c>a", "c>b"]));
    let listener = bench.listen("b");
    let mut client = bench.connect("a", listener.local_addr().unwrap(), DEADLINE).unwrap();
    let (mut server, source) = listener.accept().unwrap();
    assert_eq!(source.ip(), bench.node("a").address);
    client.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    assert_eq!((links(), own_netns()), before, "nothing in the caller's namespace is touched");
}

#[test]
fn a_partition_drops_between_the_groups_and_a_heal_brings_all_back() {
    if !root("a_partition_drops_between_the_groups_and_a_heal_brings_all_back") {
        return;
    }
    let bench = Bench::new(&["a", "b", "c"]);
    let all = bench.reach();
    assert_eq!(all.len(), 6);
    bench.lab.apply(&partition(&[names(&["a"]), names(&["b", "c"])]).unwrap()).unwrap();
    assert_eq!(bench.reach(), pairs(&["b>c", "c>b"]));
    // The next cuts take the place of the ones before.
    bench.lab.apply(&one_way("a", "b")).unwrap();
    assert_eq!(bench.reach(), pairs(&["a>c", "b>a", "b>c", "c>a", "c>b"]));
    bench.lab.apply(&Cuts::none()).unwrap();
    assert_eq!(bench.reach(), all);
}

#[test]
fn a_cut_stops_a_connection_that_was_there_and_a_heal_lets_it_go_on() {
    if !root("a_cut_stops_a_connection_that_was_there_and_a_heal_lets_it_go_on") {
        return;
    }
    let bench = Bench::new(&["a", "b"]);
    let listener = bench.listen("b");
    let address = listener.local_addr().unwrap();
    let mut client = bench.connect("a", address, DEADLINE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    bench.lab.apply(&partition(&[names(&["a"]), names(&["b"])]).unwrap()).unwrap();
    let refused = bench.connect("a", address, SILENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut, "dropped, not rejected");
    client.write_all(b"late").unwrap();
    server.set_read_timeout(Some(SILENCE)).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(server.read_exact(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    bench.lab.apply(&Cuts::none()).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
}

#[test]
fn loss_drops_about_the_share_that_was_asked_one_way_only() {
    if !root("loss_drops_about_the_share_that_was_asked_one_way_only") {
        return;
    }
    let bench = Bench::new(&["a", "b"]);
    bench.lab.apply(&Cuts::none().and_loss("a", "b", 300).unwrap()).unwrap();
    let count = |from: &str, to: &str| {
        let (sender, receiver) = (bench.udp(from), bench.udp(to));
        let target = receiver.local_addr().unwrap();
        let mut arrived = 0;
        // In small lots, so that no buffer overflows: that would be another loss than ours.
        for _ in 0..PACKETS / 50 {
            for _ in 0..50 {
                sender.send_to(b"x", target).unwrap();
            }
            receiver.set_nonblocking(true).unwrap();
            while receiver.recv(&mut [0; 4]).is_ok() {
                arrived += 1;
            }
        }
        receiver.set_nonblocking(false).unwrap();
        while receiver.recv(&mut [0; 4]).is_ok() {
            arrived += 1;
        }
        arrived
    };
    assert_eq!(count("b", "a"), PACKETS);
    // 700 in 1000 with a standard deviation of 20 in 2000: nine of them to each side.
    let arrived = count("a", "b");
    assert!((PACKETS * 7 / 10 - 185..=PACKETS * 7 / 10 + 185).contains(&arrived), "{arrived} of {PACKETS}");
}

#[test]
fn another_handle_finds_the_lab_adds_a_node_and_cuts_it() {
    if !root("another_handle_finds_the_lab_adds_a_node_and_cuts_it") {
        return;
    }
    let mut bench = Bench::new(&["a", "b"]);
    let mut other = Lab::open(bench.lab.dir()).unwrap();
    let added = other.add_node("c").unwrap();
    assert_eq!(added.address, Ipv4Addr::new(10, 99, 0, 3));
    // A handle that is older than the node still cuts it.
    bench.lab.apply(&partition(&[names(&["c"]), names(&["a"])]).unwrap()).unwrap();
    bench.lab = Lab::open(bench.lab.dir()).unwrap();
    assert_eq!(bench.reach(), pairs(&["a>b", "b>a", "b>c", "c>b"]));
    assert!(matches!(other.add_node("c"), Err(LabError::Duplicate { .. })));
    assert!(matches!(other.add_node("../c"), Err(LabError::Name(_))));
    assert!(matches!(other.apply(&one_way("a", "z")), Err(LabError::Cuts(_))));
    assert_eq!(bench.reach(), pairs(&["a>b", "b>a", "b>c", "c>b"]), "refused cuts change nothing");
    assert!(matches!(
        Lab::create(bench.lab.dir(), &names(&["x"]), Subnet::default()),
        Err(LabError::Exists { .. })
    ));
}

#[test]
fn a_process_runs_inside_the_namespace_and_the_caller_stays_outside() {
    if !root("a_process_runs_inside_the_namespace_and_the_caller_stays_outside") {
        return;
    }
    let bench = Bench::new(&["a", "b"]);
    let before = own_netns();
    let mut command = Command::new("cat");
    command.arg("/proc/self/net/dev").stdout(Stdio::piped());
    let child = spawn_in(&bench.node("a").netns_path, &mut command).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains("eth0:"), "{output}");
    let inside: BTreeSet<_> =
        output.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect();
    assert!(inside.contains("lo") && !inside.contains("v0"), "{inside:?}");
    assert_eq!(own_netns(), before);
    // Cuts are of IPv4: a way around them by IPv6 must not be there.
    let mut command = Command::new("cat");
    command.arg("/proc/self/net/if_inet6").stdout(Stdio::piped());
    let child = spawn_in(&bench.node("a").netns_path, &mut command).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(!output.contains("eth0"), "{output}");
    let error = spawn_in(&bench.node("a").netns_path, &mut Command::new("/no/such")).unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
    let error = spawn_in(Path::new("/no/netns"), &mut Command::new("true")).unwrap_err();
    assert!(error.to_string().contains("/no/netns"), "{error}");
}

#[test]
fn destroying_leaves_no_mount_no_link_and_no_file_and_may_be_repeated() {
    if !root("destroying_leaves_no_mount_no_link_and_no_file_and_may_be_repeated") {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (links_before, dir) = (links(), temp.path().join("with blank/lab"));
    let lab = Lab::create(&dir, &names(&["a", "b", "c"]), Subnet::default()).unwrap();
    // The folder's private mount, the bridge and three nodes.
    assert_eq!(mounts_below(temp.path()).len(), 5);
    assert_eq!(lab.destroy().unwrap(), []);
    assert_eq!(mounts_below(temp.path()), Vec::<String>::new());
    assert!(!dir.exists());
    assert_eq!(links(), links_before);
    assert_eq!(lab.destroy().unwrap(), [], "destroying what is gone is no error");
    assert_eq!(Lab::destroy_at(&dir).unwrap(), []);
    assert!(matches!(Lab::open(&dir), Err(LabError::NotFound { .. })));
    assert!(matches!(lab.apply(&Cuts::none()), Err(LabError::NotFound { .. })));
    // The same place serves again.
    Lab::create(&dir, &names(&["a"]), Subnet::default()).unwrap().destroy().unwrap();
}

#[test]
fn a_process_that_is_still_inside_is_named_and_loses_its_link_at_once() {
    if !root("a_process_that_is_still_inside_is_named_and_loses_its_link_at_once") {
        return;
    }
    let bench = Bench::new(&["a", "b"]);
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = spawn_in(&bench.node("b").netns_path, &mut command).unwrap();
    let stragglers = bench.lab.destroy().unwrap();
    let links = std::fs::read_to_string(format!("/proc/{}/net/dev", child.id())).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(stragglers.len(), 1, "{stragglers:?}");
    assert_eq!((stragglers[0].pid, stragglers[0].node.as_str()), (child.id(), "b"));
    assert!(!links.contains("eth0"), "{links}");
}

/// Not a test of its own: makes a lab in the folder that the test below names, again and again,
/// until it is killed.
#[test]
#[ignore = "the other half of the test that kills it"]
fn make_labs_until_killed() {
    let Some(dir) = std::env::var_os("LAB_TEST_DIR") else { return };
    loop {
        let mut lab = Lab::create(Path::new(&dir), &names(&["a", "b"]), Subnet::default()).unwrap();
        lab.add_node("c").unwrap();
        lab.destroy().unwrap();
    }
}

#[test]
fn a_lab_whose_maker_was_killed_anywhere_is_cleared_away_or_made_anew() {
    if !root("a_lab_whose_maker_was_killed_anywhere_is_cleared_away_or_made_anew") {
        return;
    }
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("lab");
    let links_before = links();
    for round in 0..12_u64 {
        let mut maker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "make_labs_until_killed", "--ignored"])
            .env("LAB_TEST_DIR", &dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while mounts_below(temp.path()).is_empty() {
            assert!(begun.elapsed() < DEADLINE, "the maker makes nothing");
            std::thread::yield_now();
        }
        // Not a wait for anything: chance decides where it is killed.
        std::thread::sleep(Duration::from_micros(round * 3700));
        maker.kill().unwrap();
        maker.wait().unwrap();
        if round % 2 == 0 {
            // Making one anew clears away what is there, unless that is whole.
            match Lab::create(&dir, &names(&["x", "y"]), Subnet::default()) {
                Ok(lab) => {
                    assert_eq!(lab.nodes().count(), 2);
                    assert_eq!(Lab::open(&dir).unwrap().nodes().count(), 2);
                }
                Err(LabError::Exists { .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        Lab::destroy_at(&dir).unwrap();
        assert_eq!(mounts_below(temp.path()), Vec::<String>::new(), "round {round}");
        assert!(!dir.exists(), "round {round}");
    }
    assert_eq!(links(), links_before);
}
