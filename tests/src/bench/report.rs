//! The table: on the terminal, and in `docs/benchmarks.md`, where a row replaces the one of its name.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::machine::{Busy, describe, load, settle};
use super::stats::Samples;
use super::{Options, say};

/// The page, from the workspace's top.
const PAGE: &str = "docs/benchmarks.md";
/// Between these lines of it stands what is written here.
const BEGIN: &str = "<!-- begin: written by `just bench --write` -->";
const END: &str = "<!-- end -->";
const HEADER: &str = "\
| what | unit | n | p50 | p99 | max | min | target | met | load, busy | when |
|---|---|---:|---:|---:|---:|---:|---|---|---|---|";

/// What a figure has to be: any of them, in the figure's unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Target {
    pub(crate) const NONE: Self = Self { p50: None, p99: None, max: None };

    pub(crate) fn max(max: f64) -> Self {
        Self { max: Some(max), ..Self::NONE }
    }

    pub(crate) fn p50(p50: f64) -> Self {
        Self { p50: Some(p50), ..Self::NONE }
    }

    pub(crate) fn p50_p99(p50: f64, p99: f64) -> Self {
        Self { p50: Some(p50), p99: Some(p99), max: None }
    }

    fn words(self) -> String {
        let parts = [("p50", self.p50), ("p99", self.p99), ("max", self.max)];
        let parts: Vec<_> =
            parts.iter().filter_map(|(name, it)| it.map(|it| format!("{name} ≤ {}", short(it)))).collect();
        parts.join(", ")
    }

    fn met(self, of: &Samples) -> Option<bool> {
        let parts = [(self.p50, of.quantile(50)), (self.p99, of.quantile(99)), (self.max, of.max())];
        let mut met = None;
        for (limit, value) in parts {
            if let Some(limit) = limit {
                met = Some(met.unwrap_or(true) && value <= limit);
            }
        }
        met
    }
}

/// A series under way: what the machine was like when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    load: f64,
    busy: Busy,
}

impl Series {
    /// Waits for a quiet machine, and begins.
    pub(crate) fn begin(options: &Options) -> Result<Self> {
        settle(options)?;
        Ok(Self { load: load(), busy: Busy::from_now()? })
    }
}

#[derive(Clone, Debug)]
struct Row {
    what: String,
    cells: Vec<String>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    when: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// As many digits as say something.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        it if it.abs() >= 100.0 => format!("{it:.0}"),
        it if it.abs() >= 10.0 => format!("{it:.1}"),
        it => {
            let text = format!("{it:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { when: date(now.as_secs()), rows: Vec::new(), notes: Vec::new() }
    }

    /// A row of `samples`.
    pub(crate) fn add(
        &mut self,
        what: &str,
        unit: &str,
        samples: &Samples,
        target: Target,
        series: Series,
    ) -> Result<()> {
        let met = match target.met(samples) {
            _ if samples.is_empty() => "not measured",
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        let busy = series.busy.per_cent()?;
        let numbers = [samples.quantile(50), samples.quantile(99), samples.max(), samples.min()].map(short);
        let mut cells = vec![what.to_owned(), unit.to_owned(), samples.len().to_string()];
        cells.extend(numbers);
        cells.extend([
            target.words(),
            met.to_owned(),
            format!("{:.1} → {:.1}, {busy:.0} %", series.load, load()),
            self.when.clone(),
        ]);
        say(format_args!("  {}", cells[..9].join(" | ")));
        self.rows.push(Row { what: what.to_owned(), cells });
        Ok(())
    }

    /// Something that stands below the table.
    pub(crate) fn note(&mut self, text: String) {
        say(format_args!("  note: {text}"));
        self.notes.push(text);
    }

    /// A bench that could not be carried to its end.
    pub(crate) fn failed(&mut self, ids: &[&str], why: &str) {
        self.notes.push(format!("{} failed: {why}", ids.join(", ")));
    }

    /// The table, for a terminal.
    pub(crate) fn show(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", describe())?;
        let header = ["what", "unit", "n", "p50", "p99", "max", "min", "target", "met", "load, busy"];
        let rows: Vec<Vec<&str>> = std::iter::once(header.to_vec())
            .chain(self.rows.iter().map(|row| cells(row, header.len())))
            .collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }

    /// Puts the rows into the page. Rows of other names stay, with their own dates.
    pub(crate) fn write(&self) -> Result<()> {
        let page = Path::new(PAGE);
        let text = fs::read_to_string(page).with_context(|| format!("read {PAGE}: run this at the top"))?;
        let (head, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
        let (old, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
        let mut lines: Vec<(String, String)> = old
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| what"))
            .map(|line| (line.split('|').nth(1).unwrap_or_default().trim().to_owned(), line.to_owned()))
            .collect();
        for row in &self.rows {
            let line = format!("| {} |", row.cells.join(" | "));
            match lines.iter_mut().find(|(what, _)| *what == row.what) {
                Some(there) => there.1 = line,
                None => lines.push((row.what.clone(), line)),
            }
        }
        lines.sort_by_key(|(what, _)| order(what));
        let table: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        let machine = describe();
        let text =
            format!("{head}{BEGIN}\nMachine: {machine}.\n\n{HEADER}\n{}\n{END}{tail}", table.join("\n"));
        fs::write(page, text).with_context(|| format!("write {PAGE}"))
    }
}

fn cells(row: &Row, count: usize) -> Vec<&str> {
    row.cells.iter().take(count).map(String::as_str).collect()
}

/// `P9b what` comes after `P9 what` and before `P10 what`.
fn order(what: &str) -> (u32, String) {
    let digits: String = what.chars().skip(1).take_while(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or(u32::MAX), what.to_owned())
}

/// A day as people write it, in UTC.
fn date(unix_s: u64) -> String {
    // Howard Hinnant's `civil_from_days`.
    let days = unix_s / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_numbers() {
        let mut names = ["plan x", "P10 b", "P9b c", "P9 a"];
        names.sort_by_key(|it| order(it));
        assert_eq!(names, ["P9 a", "P9b c", "P10 b", "plan x"]);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_564_800), "2026-11-25");
    }

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        assert_eq!([0.0, 0.05, 1.5, 42.04, 1234.5].map(short), ["0", "0.05", "1.5", "42.0", "1234"]);
    }
}
