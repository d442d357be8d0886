//! What needs no cluster: the binary's size, and the planner alone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Options;
use super::report::{Report, Series, Target};
use super::stats::Samples;

/// P23. The one that is shipped is of the profile `dist`; it is measured where it was built.
pub(crate) fn binary(options: &Options, report: &mut Report) -> Result<()> {
    let series = Series::begin(&Options { no_settle: true, ..options.clone() })?;
    let shipped = Path::new("target/dist/skerry");
    for (what, path, target) in [
        ("P23 binary, as shipped (`dist`)", shipped, Target::max(25.0)),
        ("P23b binary that was measured", options.skerry.as_path(), Target::NONE),
    ] {
        let mut size = Samples::default();
        match std::fs::metadata(path) {
            #[expect(clippy::cast_precision_loss, reason = "bytes of a file")]
            Ok(there) => size.push(there.len() as f64 / 1e6),
            Err(_) if path == shipped => {
                report.note(
                    "P23: no target/dist/skerry; `cargo build --profile dist -p cli` makes it".to_owned(),
                );
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
        }
        report.add(what, "MB", &size, target, series)?;
    }
    Ok(())
}

/// The planner's own bench; the first of its worlds is the one that has targets.
pub(crate) fn planning(options: &Options, report: &mut Report) -> Result<()> {
    let built =
        Command::new("cargo").args(["bench", "-p", "planner", "--bench", "plan", "--no-run"]).output()?;
    if !built.status.success() {
        bail!("the planner's bench does not build: {}", String::from_utf8_lossy(&built.stderr).trim());
    }
    let series = Series::begin(options)?;
    let output = Command::new("cargo").args(["bench", "-q", "-p", "planner", "--bench", "plan"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the planner's bench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let world = text.lines().skip_while(|line| !line.starts_with("1000 deployments")).skip(1);
    let mut found = 0;
    for line in world.take_while(|line| line.starts_with(' ')) {
        let Some((case, time)) = line.trim().rsplit_once(' ') else { continue };
        let case = case.trim();
        let Some(time_ms) = milliseconds(time) else { bail!("the planner's bench says `{line}`") };
        let target = if case.contains("from nothing") {
            Target::p50(100.0)
        } else if case == "nothing changed" {
            Target::NONE
        } else {
            Target::p50(5.0)
        };
        let mut samples = Samples::default();
        samples.push(time_ms);
        report.add(
            &format!("plan 1,000 × 10 over 100 nodes: {case} (median of ≥ 15)"),
            "ms",
            &samples,
            target,
            series,
        )?;
        found += 1;
    }
    if found == 0 {
        bail!("the planner's bench says nothing of 1000 deployments: {text}");
    }
    Ok(())
}

/// A duration as Rust prints it.
fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_rust_prints_them() {
        let read = ["1.50ms", "250.00µs", "2.00s", "500.00ns", "soon"].map(milliseconds);
        assert_eq!(read, [Some(1.5), Some(0.25), Some(2000.0), Some(0.0005), None]);
    }
}
