//! The one writer: data on stdout, words on stderr, in the form that was asked for.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{CliError, Exit};

/// The form of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// For programs; one object a line where the data is a stream.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

/// Where output goes.
enum Sink {
    Real,
    /// Kept for a test to read.
    Kept {
        stdout: Arc<Mutex<Vec<u8>>>,
        stderr: Arc<Mutex<Vec<u8>>>,
    },
}

/// What a command says and answers.
pub struct Out {
    sink: Sink,
    /// The form of data.
    pub format: Format,
    /// Whether words that are no errors are left out.
    pub quiet: bool,
    /// Whether questions are answered with yes.
    pub yes: bool,
    interactive: bool,
    /// Whether a person sees the words while they come.
    live: bool,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out")
            .field("format", &self.format)
            .field("quiet", &self.quiet)
            .finish_non_exhaustive()
    }
}

/// What a captured [`Out`] has written so far.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

fn text_of(bytes: &Mutex<Vec<u8>>) -> String {
    let bytes = bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Captured {
    /// What was written to stdout.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// What was written to stderr.
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }
}

fn failed(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // `skerry ... | head`: the reader has what it wanted.
        return CliError::quiet(Exit::Passed(0));
    }
    CliError::new("output", "the output cannot be written").because(error.to_string())
}

/// A heading, and the cell of a row.
pub(crate) type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> String);

impl Out {
    /// The process's own stdout and stderr.
    pub fn real() -> Self {
        Self {
            sink: Sink::Real,
            format: Format::Table,
            quiet: false,
            yes: false,
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
            live: io::stderr().is_terminal(),
        }
    }

    /// Writes into memory; no terminal is there to answer questions.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        let sink = Sink::Kept { stdout: captured.stdout.clone(), stderr: captured.stderr.clone() };
        let (interactive, live) = (false, false);
        let out = Self { sink, format: Format::Table, quiet: false, yes: false, interactive, live };
        (out, captured)
    }

    /// Whether a person can answer questions.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether data is for programs.
    pub fn structured(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    fn write(&self, to_stdout: bool, bytes: &[u8]) -> Result<(), CliError> {
        let written = match &self.sink {
            Sink::Kept { stdout, stderr } => {
                let sink = if to_stdout { stdout } else { stderr };
                let mut sink = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let mut strip = anstream::StripStream::new(&mut *sink as &mut Vec<u8>);
                strip.write_all(bytes)
            }
            Sink::Real if to_stdout => {
                let mut stdout = anstream::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Sink::Real => anstream::stderr().lock().write_all(bytes),
        };
        written.map_err(|error| failed(&error))
    }

    /// Bytes for stdout as they are (what a program in a container wrote).
    pub fn raw(&self, to_stdout: bool, bytes: &[u8]) -> Result<(), CliError> {
        match &self.sink {
            Sink::Kept { .. } => self.write(to_stdout, bytes),
            Sink::Real => {
                let write = |out: &mut dyn Write| out.write_all(bytes).and_then(|()| out.flush());
                let written =
                    if to_stdout { write(&mut io::stdout().lock()) } else { write(&mut io::stderr().lock()) };
                written.map_err(|error| failed(&error))
            }
        }
    }

    /// A line of data.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        self.write(true, format!("{}\n", text.as_ref()).as_bytes())
    }

    /// A line of words; not in quiet.
    pub fn say(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        if self.quiet { Ok(()) } else { self.write(false, format!("{}\n", text.as_ref()).as_bytes()) }
    }

    /// A bar on stderr for so many steps; hidden where nobody watches.
    pub(crate) fn progress(&self, count: u64) -> ProgressBar {
        let shown = !self.quiet && self.live;
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len}{msg}, {eta} left")
            .expect("the template is a constant")
            .progress_chars("##.");
        ProgressBar::with_draw_target(Some(count), target).with_style(style)
    }

    /// The error that ends the command.
    pub fn error(&self, error: &CliError) -> Result<(), CliError> {
        let text = if self.format == Format::Json {
            serde_json::to_string(&error.body()).expect("an error is plain text")
        } else {
            let text = error.to_string();
            match text.strip_prefix("error:") {
                Some(rest) => format!("\u{1b}[1;31merror:\u{1b}[0m{rest}"),
                None => text,
            }
        };
        self.write(false, format!("{text}\n").as_bytes())
    }

    /// One value for programs: pretty JSON, or YAML.
    pub fn value<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let failed = |why: String| CliError::new("output", "the answer cannot be written").because(why);
        let text = if self.format == Format::Yaml {
            serde_saphyr::to_string(value).map_err(|error| failed(error.to_string()))?
        } else {
            serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string()))?
        };
        self.line(text.trim_end())
    }

    /// One value of a stream, on one line.
    pub fn stream_value<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        if self.format == Format::Yaml {
            self.line("---")?;
            return self.value(value);
        }
        let text = serde_json::to_string(value).map_err(|error| {
            CliError::new("output", "the answer cannot be written").because(error.to_string())
        })?;
        self.line(text)
    }

    /// One value: for programs as it is, for people as `words` put it.
    pub fn answer<T: Serialize>(&self, value: &T, words: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.structured() { self.value(value) } else { self.line(words().trim_end()) }
    }

    /// Rows. `columns` has a heading and the cell of a row; those whose heading begins with `+` are
    /// shown in the wide form only.
    pub(crate) fn rows<T: Serialize>(
        &self,
        rows: &[T],
        name: impl Fn(&T) -> String,
        columns: &[Column<'_, T>],
    ) -> Result<(), CliError> {
        match self.format {
            Format::Json | Format::Yaml => self.value(&rows),
            Format::Name => rows.iter().try_for_each(|row| self.line(name(row))),
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                let shown: Vec<_> =
                    columns.iter().filter(|(heading, _)| wide || !heading.starts_with('+')).collect();
                let header =
                    shown.iter().map(|(heading, _)| heading.trim_start_matches('+').to_owned()).collect();
                let cells =
                    rows.iter().map(|row| shown.iter().map(|(_, cell)| cell(row)).collect()).collect();
                self.line(table(header, cells))
            }
        }
    }

    /// Asks before a change. Where nobody can answer, `--yes` must have been given.
    pub fn confirm(&self, question: &str) -> Result<bool, CliError> {
        if self.yes {
            return Ok(true);
        }
        if !self.interactive {
            return Err(CliError::usage("this changes the cluster, and there is no terminal to ask on")
                .hint("say yes beforehand: -y, or SKERRY_YES=1"));
        }
        self.write(false, format!("{question} [y/N] ").as_bytes())?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| failed(&error))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// Cells in columns, without borders and without white space at the ends of lines.
pub(crate) fn table(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    let columns = table.column_count();
    for row in rows {
        // A line break in a cell would make a second row of it.
        table.add_row(row.into_iter().map(|cell| cell.replace('\n', " ")));
    }
    for n in 0..columns {
        if let Some(column) = table.column_mut(n) {
            column.set_padding((0, 2));
        }
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// What a cell shows where there is nothing.
pub(crate) const NOTHING: &str = "-";

/// A span of seconds as people say it: `12s`, `4m12s`, `3h5m`, `2d4h`.
pub(crate) fn span(seconds: u64) -> String {
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// Unix time in milliseconds as people read it, in UTC.
pub(crate) fn moment(time_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time_ms.to_string(),
    }
}

/// The first eight characters of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_borders_and_no_trailing_space() {
        let text = table(
            vec!["NAME".into(), "STATE".into()],
            vec![vec!["web".into(), "up".into()], vec!["a-longer-one".into(), "one\ntwo".into()]],
        );
        assert_eq!(text, "NAME          STATE\nweb           up\na-longer-one  one two");
    }

    #[test]
    fn spans_and_moments_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (252, "4m12s"),
            (3600, "1h"),
            (11_100, "3h5m"),
            (187_200, "2d4h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(moment(0), "1970-01-01 00:00:00");
    }

    #[test]
    fn a_question_that_nobody_can_answer_is_a_usage_error() {
        let (mut out, _) = Out::captured();
        assert_eq!(out.confirm("Apply?").unwrap_err().exit.code(), 2);
        out.yes = true;
        assert!(out.confirm("Apply?").unwrap());
    }

    #[test]
    fn an_error_with_json_is_one_object_on_stderr() {
        let (mut out, captured) = Out::captured();
        out.format = Format::Json;
        out.error(&CliError::new("no-room", "no room").hint("wait")).unwrap();
        assert_eq!(captured.stdout(), "");
        assert_eq!(
            captured.stderr(),
            "{\"error\":\"no room\",\"code\":\"no-room\",\"at\":null,\"why\":[],\"hint\":\"wait\"}\n"
        );
    }
}
