//! Every scenario in `simulations/`, against the transcript that is committed beside it.
//! `UPDATE_TRANSCRIPTS=1` writes them anew; `SCENARIO=name` runs one.

use std::path::{Path, PathBuf};

use sim::scenario::{ReadError, Scenario};

/// Seeds beside its own that each scenario runs with: enough to see that its own is not a lucky one. A
/// change of the core is run with some hundreds.
const OTHER_SEEDS: u64 = 2;

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
    format!("simulations/{}", file.file_name().unwrap().to_str().unwrap())
}

#[allow(clippy::disallowed_methods, reason = "a test is told on its command line how much to do")]
fn asked(what: &str) -> Option<String> {
    std::env::var(what).ok()
}

fn number(what: &str, usual: u64) -> u64 {
    asked(what).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{what}={text} is no number")))
}

/// Every scenario, or that of `SCENARIO=name`.
fn scenarios() -> Vec<(PathBuf, Scenario)> {
    let only = asked("SCENARIO");
    let wanted = |file: &PathBuf| only.as_ref().is_none_or(|it| file.file_stem().unwrap() == it.as_str());
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
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
#[allow(clippy::disallowed_methods, reason = "the core is handed its files; this test reads and writes them")]
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
        std::fs::write(&beside, &now).unwrap();
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
