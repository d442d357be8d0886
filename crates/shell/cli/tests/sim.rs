//! `skerry sim` from the command line: no peer is there, but for the what-if of a running cluster.
#![allow(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]

#[allow(dead_code, reason = "the other file of tests uses the rest of it")]
mod fake;

use std::ffi::OsString;
use std::path::Path;

use api::shapes::{Amounts, NodeState};
use cli::out::Out;
use fake::{Ended, Peer, container, deployment, node};

/// Runs `skerry ARGS` where no peer is.
fn run(args: &[&str]) -> Ended {
    let line = ["skerry", "--peer", "unix:/nonexistent/api.sock"].iter().chain(args).map(OsString::from);
    let (out, captured) = Out::captured();
    let code = cli::run(line, out);
    Ended { code, stdout: captured.stdout(), stderr: captured.stderr() }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

const HEAD: &str = "story = \"s\"\nnodes = 2\nseed = 1\n";
const AGREED: &str = "[[step]]\nat = \"2s\"\nexpect = { agreed = [\"n1\", \"n2\"], within = \"2s\" }\n";
const NEVER: &str = "[[step]]\nat = \"5s\"\nexpect = { refused = \"disk\", within = \"1s\" }\n";

const NODES: &str = "\
- {name: a, capacity: {cpu: 1, memory: 1Gi, pids: 500}, labels: {site: north}}
- {name: b, capacity: {cpu: 1, memory: 1Gi, pids: 500}}
- {name: c, capacity: {cpu: 500m, memory: 1Gi, pids: 500}}
";
const APP: &str = "\
deployments:
  - {name: web, image: \"web:1\", replicas: 4, resources: {cpu: 250m}}
  - {name: db, image: \"db:1\", resources: {cpu: 250m}, constraints: {site: north}}
";

#[test]
fn the_scenarios_that_ship_are_listed_and_run_to_their_committed_transcript() {
    let listed = run(&["sim", "ls", "-o", "name"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.stdout.lines().any(|line| line == "delete-against-update"), "{listed:?}");
    let rows = run(&["sim", "ls", "-o", "json"]).json();
    assert!(rows[0]["story"].is_string() && rows[0]["nodes"].is_number(), "{rows}");
    let ended = run(&["sim", "run", "delete-against-update"]);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../simulations/delete-against-update.txt");
    let committed = std::fs::read_to_string(beside).unwrap();
    let expected = ended.stdout.strip_prefix(committed.trim_end()).unwrap_or_else(|| panic!("{ended:?}"));
    assert!(expected.starts_with("\n\nExpected\nheld     line "), "{expected}");
    assert!(!expected.contains("FAILED"), "{expected}");
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn what_does_not_hold_ends_with_1_and_names_line_and_seed() {
    let folder = Folder::new();
    let last = "[[step]]\nat = \"9s\"\nexpect = { agreed = [\"n1\", \"n2\"], within = \"1s\" }\n";
    let file = folder.file("x.toml", &format!("{HEAD}{AGREED}{NEVER}{last}"));
    let ended = run(&["sim", "run", &file]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for part in
        ["held     line   4: ", "FAILED   line   7: the change is refused (disk)", "not seen line  10: "]
    {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(ended.stderr.contains(&format!("at {file}:7")), "{}", ended.stderr);
    assert!(ended.stderr.contains("not within 1s: the change is refused (disk)"), "{}", ended.stderr);

    let ended = run(&["sim", "run", &file, "--seeds", "5", "--from", "40", "--jobs", "2", "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let told = ended.json();
    assert_eq!((told["seeds"].as_u64(), told["held"].as_u64()), (Some(5), Some(0)));
    assert_eq!(told["failures"][0]["seed"], 40);
    assert_eq!(told["failures"][0]["replay"], format!("skerry sim run {file} --from 40"));
    assert!(told["node_hours"].as_f64().unwrap() > 0.0, "{told}");
}

#[test]
fn many_seeds_that_hold_end_with_0_and_say_the_rate() {
    let folder = Folder::new();
    let file = folder.file("x.toml", &format!("{HEAD}{AGREED}"));
    let ended = run(&["sim", "run", &file, "--seeds", "20"]);
    assert_eq!((ended.code, ended.stdout), (0, format!("{file}: 20 seeds from 1 on, 20 held\n")));
    assert!(ended.stderr.contains(" seeds/s, "), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\r'), "no bar where there is no terminal: {}", ended.stderr);
    let random = run(&["sim", "run", "--random", "2", "--from", "7"]);
    assert_eq!((random.code, random.stdout.as_str()), (0, "random stories: 2 seeds from 7 on, 2 held\n"));
}

#[test]
fn a_cluster_that_is_only_described_is_cut_and_told() {
    let folder = Folder::new();
    let (nodes, app) = (folder.file("nodes.yaml", NODES), folder.file("app.yaml", APP));
    let (svg, html) = (folder.path("cut.svg"), folder.path("cut.html"));
    let line = ["sim", "cut", "a/b,c", "--for", "30s", "--then-heal", "-f", &app, "--nodes", &nodes];
    let ended = run(&[&line[..], &["--svg", &svg, "--html", &html]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "a runs 4 of 5 replicas, b,c 4 of 5; ",
        "Before: 5 of 5 replicas\n",
        "\nIsland a, alone: 4 of 5 replicas; ",
        "\nIsland b,c: 4 of 5 replicas; ",
        "  without a place: db.0\n    a: down\n    b,c: label: no site, site=north asked\n",
        "\nRuns twice\n",
        "\nThe heal: all agree after ",
        "\nAfterwards\n",
    ] {
        assert!(ended.stdout.contains(part), "{part} is not in\n{}", ended.stdout);
    }
    // The island of one has room for four; what it lacks is told in the planner's numbers.
    assert!(ended.stdout.contains("a: cpu: 0m free, 250m asked"), "{}", ended.stdout);
    let drawn = std::fs::read_to_string(svg).unwrap();
    assert!(drawn.starts_with("<svg xmlns=") && drawn.ends_with("</svg>\n"), "{drawn}");
    for tag in ["g", "text", "title", "defs", "pattern", "style"] {
        let opened = drawn.matches(&format!("<{tag}>")).count() + drawn.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, drawn.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    for part in [
        ">a<",
        ">b<",
        ">c<",
        ">cut<",
        ">heal<",
        ">db<",
        ">web<",
        "nothing moves",
        "without a place on b,c: db.0",
    ] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg ") && page.contains("Runs twice") && !page.contains("src="), "{page}");

    let told = run(&[&line[..], &["-o", "json"]].concat()).json();
    assert_eq!(told["before"]["wanted"], 5);
    assert_eq!(told["islands"][1]["missing"][0]["replica"], "db.0");
    assert_eq!(told["heal"]["missing"], serde_json::json!([]));
    assert!(told["heal"]["once_s"].as_f64().unwrap() < 5.0, "{told}");
}

#[test]
fn without_a_heal_none_is_told_and_a_node_without_power_runs_nothing() {
    let folder = Folder::new();
    let (nodes, app) = (folder.file("nodes.yaml", NODES), folder.file("app.yaml", APP));
    let told = run(&[
        "sim", "cut", "a,b", "--kill", "c", "--for", "20s", "-f", &app, "--nodes", &nodes, "-o", "json",
    ])
    .json();
    assert_eq!(told["heal"], serde_json::Value::Null);
    assert_eq!(told["killed"], serde_json::json!(["c"]));
    assert_eq!(told["islands"][0]["running"], 5);
    let off = told["islands"][0]["nodes"].as_array().unwrap().iter().find(|it| it["node"] == "c").unwrap();
    assert_eq!((off["on"].as_bool(), off["runs"].as_array().map(Vec::len)), (Some(false), Some(0)));
}

#[test]
fn a_running_cluster_is_cut_as_it_is_now() {
    let peer = Peer::new(|state| {
        let capacity = Amounts { cpu_m: 1_000, memory_b: 1 << 30, pids: 500, ..Amounts::default() };
        state.nodes = [("n1", "a1"), ("n2", "a2"), ("n3", "a3")]
            .map(|(name, id)| fake_node(name, id, NodeState::Up, capacity.clone()))
            .into();
        state.nodes.push(fake_node("n4", "a4", NodeState::Down, capacity));
        state.deployments = vec![deployment("web", 3)];
        // A planner would spread them.
        state.ps = vec![container("web", 0, "n3"), container("web", 1, "n3"), container("web", 2, "n3")];
    });
    let ended = peer.run(&["sim", "cut", "n1,n2/n3", "--for", "20s", "--then-heal", "-o", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = ended.json();
    assert_eq!(told["cluster"], "shop");
    let counts: Vec<usize> = told["before"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["runs"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [0, 0, 3], "{told}");
    assert_eq!(
        told["islands"][1]["settled_s"],
        serde_json::Value::Null,
        "nothing moves where all of it runs"
    );
    assert_eq!(told["twice"].as_array().unwrap().len(), 3);
    assert!(ended.stderr.contains("n4 is down and takes no part"), "{}", ended.stderr);
    let named = peer.run(&["sim", "cut", "n1,n2/n3,n4", "--for", "20s"]);
    assert_eq!((named.code, named.stderr.contains("n4 is down and takes no part")), (2, true), "{named:?}");
    assert!(peer.fake.state().events.is_empty(), "nothing was changed");
}

fn fake_node(name: &str, id: &str, state: NodeState, capacity: Amounts) -> api::shapes::NodeRow {
    api::shapes::NodeRow { capacity, ..node(name, id, state) }
}

/// A file of that text, and what is said of it.
struct Wrong<'a> {
    text: &'a str,
    place: &'a str,
    message: &'a str,
    hint: &'a str,
}

#[test]
fn a_scenario_that_cannot_be_read_is_refused_with_place_and_hint() {
    let folder = Folder::new();
    let step = |step: &str| format!("{HEAD}[[step]]\nat = \"1s\"\n{step}\n{AGREED}");
    for it in [
        Wrong {
            text: &step("spilt = [[\"n1\"], [\"n2\"]]"),
            place: ":6:1",
            message: "unknown field `spilt`",
            hint: "did you mean `split`?",
        },
        Wrong {
            text: &step("power_off = [\"n3\"]"),
            place: ":6:14",
            message: "there is no node `n3`",
            hint: "n1 to n2",
        },
        Wrong {
            text: &format!("{HEAD}[[step]]\nat = \"soon\"\nheal = true\n{AGREED}"),
            place: ":5:6",
            message: "`soon` is no span of time",
            hint: "write `10s`",
        },
        Wrong {
            text: &format!("story = \"s\"\nnodes = 100000\nseed = 1\n{AGREED}"),
            place: ":2:9",
            message: "100000 nodes",
            hint: "use 1 to ",
        },
        Wrong {
            text: &format!("story = \"s\"\nnodes = 2\nseed = \"seven\"\n{AGREED}"),
            place: ":3:8",
            message: "invalid type: string \"seven\", expected u64",
            hint: "",
        },
    ] {
        let file = folder.file("x.toml", it.text);
        let ended = run(&["sim", "run", &file]);
        assert_eq!(ended.code, 2, "{ended:?}");
        let said = &ended.stderr;
        assert!(said.contains(&format!("{file}{}: {}", it.place, it.message)), "{}: {said}", it.text);
        assert!(said.contains(it.hint), "{}: {said}", it.text);
    }
}

#[test]
fn nodes_that_cannot_be_read_are_refused_with_place_and_hint() {
    let folder = Folder::new();
    let app = folder.file("app.yaml", APP);
    for it in [
        Wrong {
            text: "- {name: a}\n",
            place: ":1:3",
            message: "nodes[0] has no `capacity`",
            hint: "the smallest file of nodes is",
        },
        Wrong {
            text: "- name: a\n  capactiy: {cpu: 1}\n",
            place: ":2:3",
            message: "unknown field `capactiy` in nodes[0]; did you mean `capacity`?",
            hint: "",
        },
        Wrong {
            text: "- {name: a, capacity: {cpu: 1, memory: 64mb, pids: 9}}\n",
            place: ":1:40",
            message: "capacity.memory: `64mb` is not an amount of memory; did you mean `64M`?",
            hint: "",
        },
    ] {
        let file = folder.file("nodes.yaml", it.text);
        let ended = run(&["sim", "cut", "a/b", "--for", "1m", "-f", &app, "--nodes", &file]);
        assert_eq!(ended.code, 2, "{ended:?}");
        let said = &ended.stderr;
        assert!(said.contains(&format!("{file}{}: {}", it.place, it.message)), "{}: {said}", it.text);
        assert!(said.contains(it.hint), "{}: {said}", it.text);
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_a_hint() {
    let folder = Folder::new();
    let (nodes, app) = (folder.file("nodes.yaml", NODES), folder.file("app.yaml", APP));
    let bad = folder.file("bad.yaml", "deployments: [{name: web, imag: x}]\n");
    let cut = |sides: &str, lasts: &str, app: &str| {
        run(&["sim", "cut", sides, "--for", lasts, "-f", app, "--nodes", &nodes])
    };
    for (ended, says, hint) in [
        (run(&["sim", "run", "brige"]), "there is no scenario `brige`", "did you mean `bridge`?"),
        (run(&["sim", "run", "nothing-like-it"]), "there is no scenario", "`skerry sim ls` lists"),
        (run(&["sim", "run", "/nonexistent/x.toml"]), "cannot be read", "No such file"),
        (run(&["sim", "run"]), "required", ""),
        (run(&["sim", "run", "bridge", "--seeds", "0"]), "write how many seeds, 1 to 1000000", ""),
        (run(&["sim", "run", "bridge", "--jobs", "lots"]), "write how many at the same time, 1 to 512", ""),
        (run(&["sim", "run", "--random", "5", "--from", "x"]), "a seed is a whole number, 0 to", ""),
        (
            run(&["sim", "run", "--random", "5", "--from", "18446744073709551615"]),
            "there are no 5 seeds from 18446744073709551615 on",
            "the last seed is",
        ),
        (run(&["sim", "seed", "seven"]), "a seed is a whole number, 0 to", ""),
        (cut("a,a/b,c", "1m", &app), "names a twice", "a node is on one side"),
        (cut("a/b", "1m", &app), "c is on no side of `a/b`", "--kill c"),
        (cut("a/b,x", "1m", &app), "there is no node `x`", "there is a, b, c"),
        (cut("a,b,c", "1m", &app), "cuts nothing", "--kill"),
        (cut("a/b,c", "2 hours", &app), "write it like `500ms`, `30s`, `2m`, `1h` or `7d`", ""),
        (cut("a/b,c", "0s", &app), "a cut lasts longer than nothing", ""),
        (cut("a/b,c", "8d", &app), "a cut lasts at most 7d here", ""),
        (cut("a/b,c", "1m", &bad), "unknown field `imag` in deployments[0]; did you mean `image`?", ""),
        (run(&["sim", "cut", "a/b", "--for", "1m", "--nodes", &nodes]), "--file", ""),
    ] {
        assert_eq!(ended.code, 2, "{says}: {ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{hint}: {}", ended.stderr);
    }
    let no_peer = run(&["sim", "cut", "a/b", "--for", "1m"]);
    assert_eq!(no_peer.code, 7, "{no_peer:?}");
    assert!(no_peer.stderr.contains("-f app.yaml --nodes nodes.yaml"), "{no_peer:?}");
}
