//! The rules of the house that no lint can hold: the map of crates, the size of files, what may lie
//! where. docs/architecture.md states the map; this test compares.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below a folder that git would track, with its path from the root.
fn files(ending: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "corpus" {
                    walk(&path, ending, found);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), ending, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().display().to_string(), text)
        })
        .collect()
}

/// The map as docs/architecture.md states it: rows `| crate | owns | may use | never |`.
fn stated_map() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let words = |cell: &str| -> BTreeSet<String> {
            cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        let of = words(cells[0]).pop_first().unwrap();
        (of, words(cells[2]))
    })
    .collect()
}

#[test]
fn crates_depend_only_on_what_the_map_in_the_architecture_page_allows() {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let stated = stated_map();
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let uses = package
            .dependencies
            .iter()
            .filter(|it| it.path.is_some() && it.kind == DependencyKind::Normal)
            .map(|it| it.name.clone());
        real.insert(package.name.to_string(), uses.collect());
    }
    let names = |map: &BTreeMap<String, BTreeSet<String>>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&stated), names(&real), "every crate has its row, and every row its crate");
    for (of, uses) in &real {
        let extra: Vec<_> = uses.difference(&stated[of]).collect();
        assert!(extra.is_empty(), "`{of}` uses {extra:?}, which its row does not allow");
        let idle: Vec<_> = stated[of].difference(uses).collect();
        assert!(idle.is_empty(), "the row of `{of}` allows {idle:?}, which it does not use");
    }
}

#[test]
fn the_core_names_no_crate_that_touches_the_world() {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let path = package.manifest_path.strip_prefix(root()).unwrap();
        if !path.starts_with("crates/core") {
            continue;
        }
        for it in package.dependencies.iter().filter(|it| it.kind == DependencyKind::Normal) {
            let worldly = ["tokio", "nix", "libc", "quinn", "rustls", "axum", "hyper", "rustix", "tempfile"];
            assert!(!worldly.contains(&it.name.as_str()), "`{}` uses {}", package.name, it.name);
        }
    }
}

#[test]
fn only_wire_names_bincode_and_only_three_crates_may_be_unsafe() {
    for (path, text) in files("Cargo.toml") {
        let names = text.lines().any(|line| line.starts_with("bincode"));
        assert!(
            !names || path == "Cargo.toml" || path == "crates/core/wire/Cargo.toml",
            "{path} names bincode"
        );
    }
    for (path, text) in files("lib.rs") {
        if path.starts_with("crates/")
            && path.ends_with("/src/lib.rs")
            && !path.starts_with("crates/shell/runtime")
        {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{path} does not forbid unsafe code");
        }
    }
}

#[test]
fn no_file_has_outgrown_a_room() {
    for (path, text) in files(".rs") {
        let lines = text.lines().count();
        assert!(lines <= 800, "{path} has {lines} lines; split it by idea");
    }
}

#[test]
fn every_crate_begins_with_what_it_is_for() {
    for (path, text) in files("lib.rs") {
        if path.starts_with("crates/") && path.ends_with("src/lib.rs") {
            assert!(text.starts_with("//! "), "{path} has no header");
            let header = text.lines().take_while(|line| line.starts_with("//!")).count();
            assert!(header >= 5, "{path}: the header says too little");
        }
    }
}

#[test]
fn nothing_is_left_owing() {
    let owing = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["FIX", "ME"].concat(),
        ["X", "XX"].concat(),
    ];
    for (path, text) in files(".rs") {
        for word in &owing {
            assert!(!text.contains(word.as_str()), "{path} holds {word}");
        }
    }
}

#[test]
fn every_limit_says_why() {
    for (path, text) in files(".rs") {
        if !path.starts_with("crates/") || !path.contains("/src/") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            let limit = line.starts_with("pub const ")
                && line.split(':').next().is_some_and(|it| it.ends_with("_MAX"));
            if limit {
                assert!(
                    n > 0 && lines[n - 1].trim_start().starts_with("///"),
                    "{path}:{} has no reason",
                    n + 1
                );
            }
        }
    }
}

#[test]
fn the_lint_file_of_the_core_holds_all_that_the_root_one_does() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (whole, core, sim) =
        (read("clippy.toml"), read("crates/core/clippy.toml"), read("crates/sim/clippy.toml"));
    for line in whole.lines().filter(|line| line.trim_start().starts_with("{ path") || line.contains(" = ")) {
        let line = line.trim();
        if line.starts_with('#') || line.ends_with('[') {
            continue;
        }
        assert!(core.contains(line), "crates/core/clippy.toml lacks: {line}");
        assert!(sim.contains(line), "crates/sim/clippy.toml lacks: {line}");
    }
}

#[test]
fn the_top_level_holds_what_belongs_there_and_nothing_else() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "schemas",
        "simulations",
        "tests",
        "docs",
        "justfile",
        "README.md",
        "LICENSE",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
        "target",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} does not belong at the top level"
        );
    }
}

#[test]
fn every_scenario_has_its_transcript_and_every_page_one_title() {
    let stories: Vec<_> =
        files(".toml").into_iter().filter(|(path, _)| path.starts_with("simulations/")).collect();
    assert!(!stories.is_empty(), "there is no scenario");
    for (path, _) in stories {
        let transcript = root().join(&path).with_extension("txt");
        assert!(transcript.exists(), "{path} has no transcript");
    }
    for (path, text) in files(".md") {
        let mut fenced = false;
        let titles = text.lines().filter(|line| {
            fenced ^= line.starts_with("```");
            !fenced && line.starts_with("# ")
        });
        assert_eq!(titles.count(), 1, "{path} has not exactly one title");
    }
}

#[test]
fn the_readme_stays_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() < 250);
}
