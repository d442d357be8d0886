//! Every scenario in `simulations/`, against the transcript that is committed beside it.
//! `UPDATE_TRANSCRIPTS=1` writes them anew; `SCENARIO=name,name` runs some.

use std::path::{Path, PathBuf};

use sim::scenario::{ReadError, Scenario};

/// Seeds beside its own that each scenario runs with: enough to see that its own is not a lucky one. A
/// change of the core is run with some hundreds.
const OTHER_SEEDS: u64 = 1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulations")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder `simulations` is there");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    files.sort();
    files
}

fn name_of(file: &Path) -> String {
    format!(
        "simulations/{}",
        file.file_name().and_then(|it| it.to_str()).expect("scenarios have plain names")
    )
}

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn asked(what: &str) -> Option<String> {
    std::env::var(what).ok()
}

fn number(what: &str, usual: u64) -> u64 {
    asked(what).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{what}={text} is no number")))
}

/// Every scenario, or those of `SCENARIO=name,name`.
fn scenarios() -> Vec<(PathBuf, Scenario)> {
    let only = asked("SCENARIO");
    let is = |file: &PathBuf, name: &str| file.file_stem().is_some_and(|stem| stem == name);
    let wanted = |file: &PathBuf| only.as_ref().is_none_or(|it| it.split(',').any(|name| is(file, name)));
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a scenario can be read");
        let scenario = Scenario::read(&name_of(&file), &text).unwrap_or_else(|error| panic!("{error}"));
        (file, scenario)
    };
    files().into_iter().filter(wanted).map(read).collect()
}

#[allow(clippy::disallowed_methods, reason = "each scenario runs in one thread; the test runs several")]
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

/// Does some work on every processor; the results, in any order.
fn in_parallel<T: Send + 'static, R: Send + 'static>(of: Vec<T>, work: fn(T) -> R) -> Vec<R> {
    let todo = std::sync::Arc::new(std::sync::Mutex::new(of));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let start = |_| {
        let todo = std::sync::Arc::clone(&todo);
        let next = move || todo.lock().expect("panics are caught below").pop();
        spawn(move || std::iter::from_fn(next).map(work).collect::<Vec<_>>())
    };
    let threads: Vec<_> = (0..threads).map(start).collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("panics are caught in each run")).collect()
}

/// Runs a scenario; a panic in it is a failure like any other.
fn run(scenario: &Scenario) -> Result<String, String> {
    let ran = std::panic::catch_unwind(|| scenario.run());
    match ran {
        Ok(Ok(transcript)) => Ok(transcript.text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            Err(format!("{}: panicked: {}", scenario.file, text.unwrap_or_default()))
        }
    }
}

/// Holds a scenario against the transcript beside it; what is wrong, if anything is.
#[allow(clippy::disallowed_methods, reason = "the core is handed its files and time; this test has its own")]
#[allow(clippy::print_stdout, reason = "which scenario is slow is seen with --nocapture")]
fn compare((file, scenario): (PathBuf, Scenario)) -> Option<String> {
    let name = name_of(&file);
    let begun = std::time::Instant::now();
    let now = match run(&scenario) {
        Ok(text) => text,
        Err(error) => return Some(error),
    };
    println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    let beside = file.with_extension("txt");
    if asked("UPDATE_TRANSCRIPTS").is_some_and(|it| it == "1") {
        std::fs::write(&beside, &now).expect("a transcript can be written");
    }
    // A transcript that is committed was another run of the same seed: both must be alike.
    let committed = std::fs::read_to_string(&beside).unwrap_or_default();
    if committed == now {
        return None;
    }
    let line = committed.lines().zip(now.lines()).position(|(a, b)| a != b);
    let at = line.unwrap_or_else(|| committed.lines().count().min(now.lines().count()));
    Some(format!(
        "{name}: the transcript differs from line {}:\n  committed: {}\n  now:       {}\n\
         If that is right, UPDATE_TRANSCRIPTS=1 writes it anew.",
        at + 1,
        committed.lines().nth(at).unwrap_or("(nothing)"),
        now.lines().nth(at).unwrap_or("(nothing)"),
    ))
}

#[test]
fn every_scenario_runs_as_its_transcript_says() {
    let wrong: Vec<String> = in_parallel(scenarios(), compare).into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// `SCENARIO_SEEDS=N` runs so many of each, `SCENARIO_FROM=S` from that seed on.
#[test]
fn what_a_scenario_expects_does_not_hang_on_its_seed() {
    let (from, count) = (number("SCENARIO_FROM", 1_000), number("SCENARIO_SEEDS", OTHER_SEEDS));
    let other = |(_, scenario): &(PathBuf, Scenario), seed| Scenario { seed, ..scenario.clone() };
    let all = scenarios();
    let runs = all.iter().flat_map(|it| (from..from + count).map(move |seed| other(it, seed))).collect();
    let one = |it: Scenario| run(&it).err().map(|error| format!("seed {}: {error}", it.seed));
    let mut wrong: Vec<String> = in_parallel(runs, one).into_iter().flatten().collect();
    wrong.sort();
    let heads: Vec<&str> = wrong.iter().filter_map(|it| it.lines().next()).collect();
    assert!(wrong.is_empty(), "{} runs failed:\n{}\nthe first:\n{}", wrong.len(), heads.join("\n"), wrong[0]);
}

#[test]
fn a_scenario_runs_twice_alike() {
    let (_, scenario) = scenarios().swap_remove(0);
    assert_eq!(run(&scenario), run(&scenario));
}

#[test]
fn every_transcript_has_its_scenario() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "txt") {
            assert!(path.with_extension("toml").exists(), "{} is left over", path.display());
        }
    }
}

const START: &str = "story = \"s\"\nnodes = 2\nseed = 1\n";
const EXPECT: &str = "[[step]]\nat = \"1s\"\nexpect = { agreed = [\"n1\"], within = \"1s\" }\n";

fn error(steps: &str) -> String {
    Scenario::read("x.toml", &format!("{START}{steps}")).expect_err("this must not be read").to_string()
}

#[test]
fn a_sound_scenario_is_read() {
    let scenario = Scenario::read("x.toml", &format!("{START}{EXPECT}")).unwrap();
    assert_eq!((scenario.nodes, scenario.seed, scenario.steps.len()), (2, 1, 1));
    assert_eq!(scenario.steps[0].line, 4);
}

#[test]
fn mistakes_are_named_with_file_line_column_and_a_hint() {
    let cases = [
        (
            "[[step]]\nat = \"1s\"\nexpct = {}\n",
            "x.toml:6:1: unknown field `expct`",
            "did you mean `expect`?",
        ),
        ("[[step]]\nat = \"1s\"\nstart = [\"n3\"]\n", "x.toml:6:10: there is no node `n3`", "n1 to n2"),
        ("[[step]]\nat = \"soon\"\nheal = true\n", "x.toml:5:6: `soon` is no span of time", "write `10s`"),
        ("[[step]]\nat = \"1s\"\n", "x.toml:4:1: this step does 0 things", "a step does one"),
        (
            "[[step]]\nat = \"1s\"\nheal = true\nremember = true\n",
            "x.toml:4:1: this step does 2 things",
            "does one",
        ),
        ("[[step]]\nat = \"1s\"\nheal = false\n", "x.toml:6:8: `false` does nothing", "write `true`"),
        ("[[step]]\nat = \"1s\"\nsplit = [[\"n1\"]]\n", "x.toml:4:1: a node is in no group", "every node"),
        ("[[step]]\nat = \"1s\"\nstart = [\"n1\", \"n1\"]\n", "x.toml:6:16: `n1` is named twice", "once"),
        (
            "[[step]]\nat = \"1s\"\ndelete = { name = \"web\", through = \"n1\", by = \"eve\" }\n",
            "x.toml:6:47: there is no user `eve`",
            "`alice` or `bob`",
        ),
        ("[[step]]\nat = \"1s\"\nexpect = { within = \"1s\" }\n", "x.toml:4:1: 0 conditions", "expects one"),
        ("[[step]]\nat = \"1s\"\nheal = true\n", "x.toml:1:1: nothing is expected", "`expect`"),
        (
            "[[step]]\nat = \"1s\"\nexpect = { at_lest = {}, within = \"1s\" }\n",
            "x.toml:6:12: unknown field `at_lest`",
            "did you mean `at_least`?",
        ),
        (
            "[[step]]\nat = \"1s\"\nwatch = { agreed = [\"n1\"], within = \"1s\" }\n",
            "x.toml:6:37: `watch` has neither",
            "give `until`",
        ),
        (
            "[[step]]\nat = \"1s\"\nwatch = { agreed = [\"n1\"] }\n",
            "x.toml:4:1: it is not said how long this is watched",
            "add `until`",
        ),
        (
            "[[step]]\nat = \"2s\"\nwatch = { agreed = [\"n1\"], until = \"2s\" }\n",
            "x.toml:6:36: this is over before it begins",
            "later than 2s",
        ),
        (
            "[[step]]\nat = \"1s\"\nexpect = { agreed = [\"n1\"], until = \"2s\" }\n",
            "x.toml:6:37: `expect` has no `until`",
            "write `watch`",
        ),
        (
            "[[step]]\nat = \"1s\"\nexpect = { agreed = [\"n1\"] }\n",
            "x.toml:4:1: it is not said how long it may take",
            "add `within`",
        ),
        (
            "[[step]]\nat = \"1s\"\nexpect = { believe = { nodes = [\"n1\"], of = \"n2\", as = \"dead\" }, within = \"1s\" }\n",
            "x.toml:6:56: nobody is `dead`",
            "use `up`",
        ),
        (
            "[[step]]\nat = \"1s\"\njoin = { node = \"n2\", through = \"n2\" }\n",
            "x.toml:6:33: a node cannot join through itself",
            "name a member",
        ),
        (
            "[[step]]\nat = \"1s\"\nloss_permille = 1001\n",
            "x.toml:6:17: 1001 thousandths lost",
            "use 0 to 1000",
        ),
        (
            "[[step]]\nat = \"1s\"\nedits = { name = \"web\", count = 0, every = \"1s\", through = \"n1\" }\n",
            "x.toml:6:33: 0 edits",
            "use 1 to 2000",
        ),
        (
            "[[step]]\nat = \"1s\"\nflap = { between = [[\"n1\"], [\"n2\"]], down = \"1ms\", up = \"1s\", lasts = \"1s\" }\n",
            "x.toml:6:45: too short for a network",
            "50ms or more",
        ),
        ("[world]\noutside = [\"n1\"]\n", "x.toml:5:12: n1 founds the cluster", "name others"),
        ("[world.node.n7]\ncpu_m = 1\n", "x.toml:4:13: there is no node `n7`", "n1 to n2"),
    ];
    for (steps, begins, hint) in cases {
        let error = error(steps);
        assert!(error.starts_with(begins), "{error}\nshould begin with {begins}");
        assert!(error.contains(hint), "{error}\nshould contain {hint}");
    }
    let overlap = format!("{EXPECT}[[step]]\nat = \"1s\"\nheal = true\n");
    assert!(error(&overlap).contains("begin at 2s or later"), "{}", error(&overlap));
    let many = Scenario::read("x.toml", "story = \"s\"\nnodes = 99\nseed = 1\n").unwrap_err();
    assert_eq!(many.to_string(), "x.toml:2:9: 99 nodes; use 1 to 20");
    let broken: ReadError = Scenario::read("x.toml", "story = \"s\nnodes").unwrap_err();
    assert_eq!((broken.line, broken.file.as_str()), (2, "x.toml"), "the line break ends the text too early");
}

#[test]
fn what_does_not_come_true_is_told_with_its_line_and_the_transcript() {
    let steps = "[[step]]\nat = \"1s\"\nexpect = { refused = \"disk\", within = \"1s\" }\n";
    let scenario = Scenario::read("x.toml", &format!("{START}{steps}")).unwrap();
    let error = scenario.run().unwrap_err().to_string();
    assert!(
        error.starts_with("x.toml:4: not within 1s: the change is refused (disk)\ns\n2 nodes"),
        "{error}"
    );
    assert!(error.contains("FAILED"), "{error}");
}

/// Two nodes that run `web` twice, once each; from 3 s on one of two is what the step breaks.
const WEB: &str = "[[step]]\nat = \"2s\"\ndeploy = { name = \"web\", replicas = 2, through = \"n1\" }\n\
                   [[step]]\nat = \"4s\"\nremember = true\n";

#[test]
fn every_kind_of_expectation_can_fail() {
    let cut = "split = [[\"n1\"], [\"n2\"]]";
    let scaled = "scale = { name = \"web\", replicas = 3, through = \"n1\" }";
    let cases = [
        (cut, "runs_once = { name = \"web\", replicas = 2 }", "2 replicas of web run once each on n1 n2"),
        (
            "crash_loop = { name = \"web\", after = \"1ms\" }",
            "at_least = { name = \"web\", replicas = 3 }",
            "3 replicas of web or more run",
        ),
        (cut, "at_most = { name = \"web\", copies = 2 }", "2 containers of web or fewer run"),
        (scaled, "starts_at_most = { name = \"web\", count = 0 }", "0 programs of web or fewer"),
        (cut, "messages_at_most = 10", "10 messages or fewer"),
        (scaled, "no_new_events = [\"n1\", \"n2\"]", "n1 n2 have learned of no event"),
        (cut, "known = [\"n1\", \"n2\"]", "n1 n2 know exactly what runs on one another"),
        (cut, "believe = { nodes = [\"n1\"], of = \"n2\", as = \"up\" }", "n2 is up to n1"),
        (cut, "all_up = [\"n1\", \"n2\"]", "n1 n2 believe each other up"),
        (scaled, "undisturbed = [\"n1\", \"n2\"]", ""),
        (
            "stop_peer = [\"n2\"]",
            "acked_kept = [\"n1\", \"n2\"]",
            "have every event that was ever acknowledged",
        ),
        (scaled, "unplaced = { name = \"web\", count = 1 }", "find no room for 1 replicas of web"),
        (scaled, "forgotten = { name = \"web\" }", "nothing of web is left on n1 n2, nor known"),
        ("stop_peer = [\"n2\"]", "alike = { name = \"web\" }", "n1 n2 want the same of web"),
        (
            scaled,
            "accepted = { disks = 2, known = true }",
            "the change is accepted, on 2 disks or more, and was",
        ),
    ];
    for (act, expected, words) in cases {
        let steps = format!(
            "{WEB}[[step]]\nat = \"5s\"\n{act}\n\
             [[step]]\nat = \"9s\"\nexpect = {{ {expected}, within = \"0s\", holds = \"5s\" }}\n"
        );
        let scenario = Scenario::read("x.toml", &format!("{START}{steps}")).unwrap();
        match scenario.run() {
            // One more beside what was remembered does not disturb it.
            Ok(_) => assert!(words.is_empty(), "{expected} holds after {act}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with("x.toml:13: not within 0ns: "), "{error}");
                assert!(!words.is_empty() && error.contains(words), "{error}\nshould contain {words}");
            }
        }
    }
}

#[test]
fn what_is_watched_fails_in_its_own_line_while_other_steps_are_taken() {
    let steps = format!(
        "{WEB}[[step]]\nat = \"5s\"\nwatch = {{ undisturbed = [\"n1\", \"n2\"], until = \"60s\" }}\n\
         [[step]]\nat = \"10s\"\ncrash = {{ name = \"web\", on = [\"n2\"] }}\n\
         [[step]]\nat = \"20s\"\nexpect = {{ agreed = [\"n1\", \"n2\"], within = \"1s\" }}\n"
    );
    let scenario = Scenario::read("x.toml", &format!("{START}{steps}")).unwrap();
    let error = scenario.run().unwrap_err().to_string();
    let begins = "x.toml:10: no longer so, and watched: what was remembered on n1 n2 runs untouched\n";
    assert!(error.starts_with(begins), "{error}");
    assert!(error.contains("  10.000s FAILED no longer so"), "{error}");
    let broken = steps.replace("at = \"5s\"", "at = \"12s\"").replace("at = \"10s\"", "at = \"5s\"");
    let mut parts: Vec<&str> = broken.split("[[step]]").collect();
    parts.swap(3, 4);
    let scenario = Scenario::read("x.toml", &format!("{START}{}", parts.join("[[step]]"))).unwrap();
    let error = scenario.run().unwrap_err().to_string();
    assert!(error.contains("not so when the watch begins"), "{error}");
}

#[test]
fn a_link_that_flaps_ends_whole_and_a_refused_join_is_an_error() {
    let flap = "[[step]]\nat = \"3s\"\nflap = { between = [[\"n1\"], [\"n2\"]], down = \"3s\", up = \"1s\", lasts = \"6s\" }\n\
                [[step]]\nat = \"5s\"\nexpect = { believe = { nodes = [\"n1\"], of = \"n2\", as = \"down\" }, within = \"2s\" }\n\
                [[step]]\nat = \"9s\"\nexpect = { all_up = [\"n1\", \"n2\"], within = \"3s\", holds = \"20s\" }\n";
    let scenario = Scenario::read("x.toml", &format!("{START}{flap}")).unwrap();
    let text = scenario.run().unwrap_or_else(|error| panic!("{error}")).text;
    assert!(text.contains("n1 | n2 flaps: 3s cut, 1s whole, for 6s"), "{text}");
    assert!(text.contains("   9.000s the link flaps no more"), "{text}");

    // The token lets in as many as there are machines: both are members, and a third use is one too many.
    let join = "[[step]]\nat = \"3s\"\npower_off = [\"n2\"]\n\
                [[step]]\nat = \"4s\"\njoin = { node = \"n2\", through = \"n1\" }\n\
                [[step]]\nat = \"9s\"\npower_off = [\"n2\"]\n\
                [[step]]\nat = \"10s\"\njoin = { node = \"n2\", through = \"n1\" }\n";
    let scenario =
        Scenario::read("x.toml", &format!("{START}{join}{}", EXPECT.replace("1s", "12s"))).unwrap();
    let error = scenario.run().unwrap_err().to_string();
    assert!(error.contains("something waited for a change that was refused: "), "{error}");
}

/// The page lists every scenario with its story, and no other.
#[test]
fn the_page_of_scenarios_lists_every_one_with_its_story() {
    let page = folder().join("../docs/simulations.md");
    let text = std::fs::read_to_string(page).expect("docs/simulations.md is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| [")?.split_once("](../simulations/"));
    let listed: Vec<(String, String)> = rows
        .map(|(name, rest)| {
            let mut cells = rest.split(" | ");
            let link = cells.next().unwrap_or_default().trim_end_matches(')');
            assert_eq!(link, format!("{name}.txt"), "the link of {name}");
            (name.to_owned(), cells.next().unwrap_or_default().to_owned())
        })
        .collect();
    let there: Vec<(String, String)> = files()
        .into_iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&file).unwrap();
            let scenario = Scenario::read(&name_of(&file), &text).unwrap_or_else(|error| panic!("{error}"));
            (name, scenario.story)
        })
        .collect();
    let (mut sorted, unlisted) = (listed.clone(), there.iter().filter(|it| !listed.contains(it)));
    sorted.sort();
    let unlisted: Vec<_> = unlisted.collect();
    assert!(unlisted.is_empty(), "not in docs/simulations.md, or with another story: {unlisted:#?}");
    assert_eq!(sorted, there, "docs/simulations.md lists what is not there");
}
