//! What this machine is short of, as its kernel tells: pressure stall information (PSI), and room on the disk.
//!
//! Here it is measured alone; what follows from it the core decides.

use std::path::{Path, PathBuf};
use std::time::Duration;

use node::{Input, Pressure};

use crate::mind::Mind;

/// Where the kernel has its figures.
pub const FILES: &str = "/proc/pressure";

/// How often it is looked: the kernel's own figures are of the last ten seconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Hundredths of a percent in the line `some avg10=12.34 ...` of a file of PSI.
fn some_avg10(text: &str) -> Option<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let number = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, part) = number.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() != 2 || !digits(whole) || !digits(part) {
        return None;
    }
    let hundredths = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)?;
    (hundredths <= 10_000).then_some(hundredths)
}

/// What is so now. What cannot be read is not known: a kernel without PSI is not in trouble for that.
fn look(files: &Path, dir: &Path) -> Pressure {
    let some = |name: &str| some_avg10(&std::fs::read_to_string(files.join(name)).ok()?);
    // Containers are not the machine's root.
    let disk = crate::room::space(dir, false).ok();
    Pressure { cpu: some("cpu"), memory: some("memory"), io: some("io"), disk }
}

/// Tells the mind what the machine is short of, for as long as the peer runs.
pub(crate) async fn watch(mind: Mind, dir: PathBuf, files: Option<PathBuf>) {
    let files = files.unwrap_or_else(|| PathBuf::from(FILES));
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Pressure::default();
    loop {
        every.tick().await;
        let now = look(&files, &dir);
        // An idle machine has nothing new to tell, and is not to be woken for it.
        if now != last {
            last = now;
            mind.input(Input::Pressure(now)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_kernel_are_read_and_nonsense_is_not_known() {
        let text = "some avg10=34.05 avg60=1.00 avg300=0.10 total=1\nfull avg10=99.00 avg60=0.00\n";
        assert_eq!(some_avg10(text), Some(3_405));
        assert_eq!(some_avg10("some avg10=100.00 avg60=0.00"), Some(10_000));
        for bad in [
            "",
            "full avg10=1.00",
            "some avg60=1.00",
            "some avg10=1",
            "some avg10=-1.00",
            "some avg10=999.99",
        ] {
            assert_eq!(some_avg10(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_not_in_trouble_and_the_disk_is_looked_at_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let found = look(&dir.path().join("nothing"), dir.path());
        assert_eq!((found.cpu, found.memory, found.io), (None, None, None));
        assert!(found.disk.unwrap().total_b > 0);
        std::fs::write(dir.path().join("memory"), "some avg10=1.50 avg60=0.00 avg300=0.00 total=0\n")
            .unwrap();
        assert_eq!(look(dir.path(), dir.path()).memory, Some(150));
    }
}
