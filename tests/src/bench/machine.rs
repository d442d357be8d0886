//! The machine: what it is, how busy it is, and what its processes use.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Options, go_on, say};

/// How busy all processors together may be, in percent, for a series to begin.
const QUIET_PER_CENT: f64 = 8.0;
/// Over this long.
const QUIET_SPAN: Duration = Duration::from_secs(2);
/// A machine that never rests is measured all the same: the load stands beside the figures.
const QUIET_WAIT: Duration = Duration::from_secs(90);

/// The load of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(f64::NAN)
}

/// Busy and all ticks of all processors since boot.
fn ticks() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    let all: u64 = fields.iter().take(8).sum();
    // Idle, and waiting for a disk.
    let rest: u64 = fields.iter().skip(3).take(2).sum();
    Ok((all - rest, all))
}

/// How busy the machine was since a moment, in percent of all its processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy(u64, u64);

impl Busy {
    pub(crate) fn from_now() -> Result<Self> {
        let (busy, all) = ticks()?;
        Ok(Self(busy, all))
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks of some minutes are small")]
    pub(crate) fn per_cent(self) -> Result<f64> {
        let (busy, all) = ticks()?;
        Ok((busy - self.0) as f64 * 100.0 / ((all - self.1) as f64).max(1.0))
    }
}

/// Waits until the machine has little else to do.
pub(crate) fn settle(options: &Options) -> Result<()> {
    if options.no_settle {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        go_on()?;
        let busy = Busy::from_now()?;
        std::thread::sleep(QUIET_SPAN);
        let per_cent = busy.per_cent()?;
        if per_cent < QUIET_PER_CENT {
            return Ok(());
        }
        if began.elapsed() > QUIET_WAIT {
            say(format_args!("the machine is not quiet ({per_cent:.0} % busy): measuring all the same"));
            return Ok(());
        }
    }
}

/// One line: processor, cores, memory, kernel.
pub(crate) fn describe() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: u64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").trim().parse().unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, {:.1} GiB, Linux {}",
        field("/proc/cpuinfo", "model name"),
        f64::from(u32::try_from(memory_kib >> 10).unwrap_or(u32::MAX)) / 1024.0,
        kernel.trim()
    )
}

/// A field of `smaps_rollup` in KiB: `Rss`, `Pss`.
pub(crate) fn memory_kib(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.split(':').next() == Some(field));
    let value = line.and_then(|line| line.split_ascii_whitespace().nth(1)).and_then(|it| it.parse().ok());
    value.with_context(|| format!("{path} says nothing of {field}"))
}

/// Time on a processor of all threads that live, and how often they were switched to.
pub(crate) fn processor(pid: u32) -> Result<(Duration, u64)> {
    let (mut nanos, mut switches) = (0, 0);
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let mut fields = text.split_ascii_whitespace().map(|it| it.parse::<u64>().unwrap_or(0));
        nanos += fields.next().unwrap_or(0);
        switches += fields.nth(1).unwrap_or(0);
    }
    Ok((Duration::from_nanos(nanos), switches))
}

/// Bytes sent by all interfaces but loopback in the network namespace of a process.
pub(crate) fn bytes_sent(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let sent = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    Ok(sent.filter_map(|(_, fields)| fields.split_ascii_whitespace().nth(8)?.parse::<u64>().ok()).sum())
}
