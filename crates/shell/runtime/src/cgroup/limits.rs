//! Limits as the kernel holds them, and what a container uses.

use std::io;

use super::Group;
use crate::error::StartError;
use crate::record::Stats;
use crate::spec::Limits;

/// The usual period of the processor limit.
const PERIOD_USEC: u64 = 100_000;

/// For limits so small that their share of the usual period is less than the kernel takes (1 ms).
const PERIOD_LONG_USEC: u64 = 1_000_000;

/// Below this many thousandths of a core the long period is used.
const PERIOD_LONG_BELOW_CPU_M: u64 = 10;

/// The kernel counts memory in pages, and rounds a limit down to whole ones.
const PAGE_B: u64 = 4096;

/// v1 says "no limit" with the largest multiple of the page size that fits an i64.
const UNLIMITED_FROM_B: u64 = 1 << 62;

/// The weight of one core, and the least that the kernel takes (v1 `cpu.shares`).
const SHARES_PER_CORE: u64 = 1024;
const SHARES_MIN: u64 = 2;

fn refused(limit: &str, problem: impl Into<String>, source: Option<io::Error>) -> StartError {
    StartError::LimitRefused { limit: limit.into(), problem: problem.into(), source: source.map(Into::into) }
}

fn find<'a>(groups: &'a [Group], controller: &str) -> Option<&'a Group> {
    groups.iter().find(|group| group.has(controller))
}

/// Writes the limits into groups that exist, and reads each one back. `cpu_share_m`: the thousandths of a core
/// that its weight is made of; as the limit where 0.
pub(crate) fn apply(groups: &[Group], limits: &Limits, cpu_share_m: u64) -> Result<(), StartError> {
    if let Some(v2) = groups.iter().find(|group| group.version == 2 && group.has("memory")) {
        // All of a container or nothing: a web server without its worker is worse than a restart.
        write(v2, "memory", "memory.oom.group", "1")?;
    }
    for (name, asked) in [("cpu", limits.cpu_m), ("memory", limits.memory_b), ("pids", limits.pids)] {
        if asked == 0 {
            continue;
        }
        let Some(group) = find(groups, name) else {
            let hint = "this kernel offers no such controller; it may be switched off in the boot options";
            return Err(refused(name, hint, None));
        };
        match name {
            "cpu" => write_cpu(group, asked, if cpu_share_m == 0 { asked } else { cpu_share_m })?,
            "memory" => write_memory(group, asked)?,
            _ => write(group, name, "pids.max", &asked.to_string())?,
        }
    }
    let held =
        read_limits(groups).map_err(|error| refused("of any kind", "cannot be read back", Some(error)))?;
    let asked = Limits { memory_b: limits.memory_b - limits.memory_b % page_b(), ..*limits };
    let pairs = [
        ("cpu", asked.cpu_m, held.cpu_m),
        ("memory", asked.memory_b, held.memory_b),
        ("pids", asked.pids, held.pids),
    ];
    for (name, asked, held) in pairs {
        if asked != 0 && asked != held {
            return Err(refused(name, format!("wrote {asked}, the kernel holds {held}"), None));
        }
    }
    Ok(())
}

fn page_b() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(PAGE_B)
}

fn write(group: &Group, limit: &str, file: &str, value: &str) -> Result<(), StartError> {
    group.write(file, value).map_err(|error| {
        let file = group.path.join(file);
        refused(limit, format!("`{value}` cannot be written to {}", file.display()), Some(error))
    })
}

fn write_cpu(group: &Group, cpu_m: u64, share_m: u64) -> Result<(), StartError> {
    let period = if cpu_m < PERIOD_LONG_BELOW_CPU_M { PERIOD_LONG_USEC } else { PERIOD_USEC };
    let quota = cpu_m.saturating_mul(period / 1000);
    let shares = (share_m.saturating_mul(SHARES_PER_CORE) / 1000).clamp(SHARES_MIN, 1 << 18);
    if group.version == 2 {
        // The usual conversion: 2..=262144 shares to a weight of 1..=10000.
        let weight = 1 + (shares - SHARES_MIN) * 9999 / ((1 << 18) - SHARES_MIN);
        write(group, "cpu", "cpu.weight", &weight.to_string())?;
        return write(group, "cpu", "cpu.max", &format!("{quota} {period}"));
    }
    write(group, "cpu", "cpu.shares", &shares.to_string())?;
    write(group, "cpu", "cpu.cfs_period_us", &period.to_string())?;
    write(group, "cpu", "cpu.cfs_quota_us", &quota.to_string())
}

fn write_memory(group: &Group, memory_b: u64) -> Result<(), StartError> {
    let value = memory_b.to_string();
    if group.version == 2 {
        write(group, "memory", "memory.max", &value)?;
        if group.path.join("memory.swap.max").exists() {
            write(group, "memory", "memory.swap.max", "0")?;
        }
        return Ok(());
    }
    write(group, "memory", "memory.limit_in_bytes", &value)?;
    // Memory and swap together: no swap. The file is there only where swap is counted.
    if group.path.join("memory.memsw.limit_in_bytes").exists() {
        write(group, "memory", "memory.memsw.limit_in_bytes", &value)?;
    }
    Ok(())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is not a number", text.escape_default()))
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| invalid(text))
}

/// `max` is 0, which here means no limit.
fn number_or_max(text: &str) -> io::Result<u64> {
    if text == "max" { Ok(0) } else { number(text) }
}

/// The limits as the kernel holds them now; 0 where there is none.
pub(crate) fn read_limits(groups: &[Group]) -> io::Result<Limits> {
    let mut limits = Limits::default();
    if let Some(group) = find(groups, "cpu") {
        limits.cpu_m = if group.version == 2 {
            let text = group.read("cpu.max")?;
            let (quota, period) = text.split_once(' ').ok_or_else(|| invalid(&text))?;
            number_or_max(quota)? * 1000 / number(period)?.max(1)
        } else {
            let quota = group.read("cpu.cfs_quota_us")?;
            let period = number(&group.read("cpu.cfs_period_us")?)?.max(1);
            if quota == "-1" { 0 } else { number(&quota)? * 1000 / period }
        };
    }
    if let Some(group) = find(groups, "memory") {
        let held = if group.version == 2 {
            number_or_max(&group.read("memory.max")?)?
        } else {
            number(&group.read("memory.limit_in_bytes")?)?
        };
        limits.memory_b = if held >= UNLIMITED_FROM_B { 0 } else { held };
    }
    if let Some(group) = find(groups, "pids") {
        limits.pids = number_or_max(&group.read("pids.max")?)?;
    }
    Ok(limits)
}

/// The value behind `key` in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How many processes the kernel killed for want of memory; `None` where that is not counted.
pub(crate) fn oom_kills(groups: &[Group]) -> io::Result<Option<u64>> {
    let Some(group) = find(groups, "memory") else { return Ok(None) };
    let file = if group.version == 2 { "memory.events" } else { "memory.oom_control" };
    Ok(keyed(&group.read(file)?, "oom_kill"))
}

/// What the groups have counted.
pub(crate) fn stats(groups: &[Group]) -> io::Result<Stats> {
    let mut stats = Stats { oom_kills: oom_kills(groups)?, ..Stats::default() };
    if let Some(v2) = groups.iter().find(|group| group.version == 2) {
        stats.cpu_usec = keyed(&v2.read("cpu.stat")?, "usage_usec").unwrap_or(0);
    } else if let Some(group) = find(groups, "cpuacct") {
        stats.cpu_usec = number(&group.read("cpuacct.usage")?)? / 1000;
    }
    if let Some(group) = find(groups, "cpu") {
        let text = group.read("cpu.stat")?;
        stats.throttled = keyed(&text, "nr_throttled");
        stats.throttled_usec =
            keyed(&text, "throttled_usec").or_else(|| keyed(&text, "throttled_time").map(|ns| ns / 1000));
    }
    if let Some(group) = find(groups, "memory") {
        let (now, peak) = if group.version == 2 {
            ("memory.current", "memory.peak")
        } else {
            ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        };
        stats.memory_b = Some(number(&group.read(now)?)?);
        // `memory.peak` came with Linux 5.19.
        stats.memory_peak_b = group.read(peak).ok().and_then(|text| text.parse().ok());
    }
    if let Some(group) = find(groups, "pids") {
        stats.pids = Some(number(&group.read("pids.current")?)?);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn v2(dir: &std::path::Path) -> Vec<Group> {
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).to_vec();
        vec![Group { path: dir.to_owned(), version: 2, controllers }]
    }

    #[test]
    fn limits_of_v2_are_read_as_they_were_asked_and_none_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        put("cpu.max", "25000 100000\n");
        put("memory.max", "67108864\n");
        put("pids.max", "max\n");
        let held = read_limits(&v2(dir.path())).unwrap();
        assert_eq!(held, Limits { cpu_m: 250, memory_b: 64 << 20, pids: 0 });
        put("cpu.max", "max 100000\n");
        assert_eq!(read_limits(&v2(dir.path())).unwrap().cpu_m, 0);
        put("pids.max", "many\n");
        assert!(read_limits(&v2(dir.path())).is_err());
    }

    #[test]
    fn the_weight_of_the_processors_is_what_is_set_aside_and_not_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let weight = |share_m: u64| {
            for (file, text) in [("cpu.max", ""), ("memory.oom.group", "")] {
                fs::write(dir.path().join(file), text).unwrap();
            }
            fs::write(dir.path().join("cpu.weight"), "").unwrap();
            for (file, text) in [("memory.max", "max"), ("pids.max", "max")] {
                fs::write(dir.path().join(file), text).unwrap();
            }
            apply(&v2(dir.path()), &Limits { cpu_m: 2_000, ..Limits::default() }, share_m).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("cpu.max")).unwrap(), "200000 100000");
            fs::read_to_string(dir.path().join("cpu.weight")).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((weight(0), weight(2_000), weight(500)), (79, 79, 20));
    }

    #[test]
    fn a_limit_whose_controller_is_missing_is_an_error_and_names_the_limit() {
        let error = apply(&[], &Limits { pids: 7, ..Limits::default() }, 0).unwrap_err();
        assert!(error.to_string().starts_with("limit pids cannot be held"), "{error}");
        assert_eq!(apply(&[], &Limits::default(), 0), Ok(()));
    }

    #[test]
    fn a_limit_that_the_kernel_rounds_away_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let groups = v2(dir.path());
        for file in ["memory.oom.group", "memory.max"] {
            fs::write(dir.path().join(file), "0").unwrap();
        }
        fs::write(dir.path().join("cpu.max"), "max 100000").unwrap();
        fs::write(dir.path().join("pids.max"), "9999999").unwrap();
        // Shorter than what is there: the file is written without truncation, as the kernel's are.
        let error = apply(&groups, &Limits { pids: 7, ..Limits::default() }, 0).unwrap_err();
        assert!(error.to_string().contains("wrote 7, the kernel holds 7999999"), "{error}");
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "oom 3\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom_k"), None);
    }
}
