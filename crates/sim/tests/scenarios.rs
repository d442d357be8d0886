//! Every scenario in `simulations/`, against the transcript that is committed beside it.
//! `UPDATE_TRANSCRIPTS=1` writes them anew.

use std::path::{Path, PathBuf};

use sim::scenario::{ReadError, Scenario};

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

#[test]
#[allow(clippy::disallowed_methods, reason = "the core is handed its files; this test reads and writes them")]
fn every_scenario_runs_twice_alike_and_as_its_transcript_says() {
    let update = std::env::var("UPDATE_TRANSCRIPTS").is_ok_and(|it| it == "1");
    let files = files();
    assert!(files.len() >= 6, "{files:?}");
    let mut wrong = Vec::new();
    for file in &files {
        let name = format!("simulations/{}", file.file_name().unwrap().to_str().unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        let scenario = match Scenario::read(&name, &text) {
            Ok(scenario) => scenario,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let once = match scenario.run() {
            Ok(transcript) => transcript,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        assert_eq!(once, scenario.run().unwrap(), "{name}: the second run differs");
        let beside = file.with_extension("txt");
        if update {
            std::fs::write(&beside, &once.text).unwrap();
            continue;
        }
        let committed = std::fs::read_to_string(&beside).unwrap_or_default();
        if committed != once.text {
            let line = committed.lines().zip(once.text.lines()).position(|(a, b)| a != b);
            let at = line.unwrap_or_else(|| committed.lines().count().min(once.text.lines().count()));
            wrong.push(format!(
                "{name}: the transcript differs from line {}:\n  committed: {}\n  now:       {}\n\
                 If that is right, UPDATE_TRANSCRIPTS=1 writes it anew.",
                at + 1,
                committed.lines().nth(at).unwrap_or("(nothing)"),
                once.text.lines().nth(at).unwrap_or("(nothing)"),
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
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
