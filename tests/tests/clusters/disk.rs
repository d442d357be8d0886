//! What is on disk, damaged.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use e2e::{World, with_cluster};

use super::{lines, quiet};

/// The segments of a node's journal, oldest first.
fn segments(world: &World) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(world.dir("n1").join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    assert!(!found.is_empty(), "the journal has no segment");
    found
}

#[test]
fn a_journal_whose_end_was_torn_by_a_power_cut_loses_nothing_that_was_acknowledged() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(2)));
        let before = world.settled(&["n1"], "app", 2);
        world.stop("n1");
        let path = segments(world).pop().unwrap();
        // The beginning of a record that was never synced.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0x17; 11]).unwrap();
        world.start("n1");
        assert_eq!(world.settled(&["n1"], "app", 2), before);
        assert_eq!(world.replicas("n1", "app"), Ok(2));
    });
}

#[test]
fn a_journal_that_was_damaged_in_its_middle_is_named_and_the_peer_does_not_start() {
    with_cluster(1, |world| {
        world.image("n1");
        world.apply("n1", "app", &lines(&quiet(2)));
        let before = world.settled(&["n1"], "app", 2);
        world.stop("n1");
        let path = segments(world).remove(0);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let error = world.cluster.start("n1").unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "the damaged file was changed");
        // Nobody manages the containers meanwhile, and nobody harms them.
        assert_eq!(world.held(&["n1"]).unwrap(), before);
        fs::write(&path, whole).unwrap();
        world.start("n1");
        assert_eq!(world.settled(&["n1"], "app", 2), before);
    });
}
