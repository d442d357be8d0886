//! What ran when, drawn: a row a node, a bar a program, in SVG that needs nothing else.
//!
//! Seconds around the cut and around the heal decide, and hours between them show nothing: so the axis
//! of time is stretched around the two, and what lies between is drawn narrow, with its length written
//! in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use model::{Name, Time};
use sim::Life;
use sim::whatif::{Answer, Question};

use super::tell::{compressed, replica, replicas as replicas_in_words};
use crate::error::CliError;
use crate::out::span;

/// Bars of one picture: more are no picture, and a file of megabytes.
const BARS_MAX: usize = 5_000;

/// Colours that people who see few of them can still tell apart (Okabe and Ito, lighter), then the rest in turn.
const COLOURS: [&str; 8] =
    ["#6cbdec", "#eaae2c", "#3dbb94", "#d898bb", "#f0e442", "#5b9fd0", "#e58542", "#b0b0b0"];

// Pixels.
const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 74.0;
const BAR: f64 = 15.0;
const LANE: f64 = 18.0;
const ROW_GAP: f64 = 10.0;
/// The axis' words and two lines of the legend.
const FOOT: f64 = 74.0;
/// Islands that are told below the picture what they lack; the words have all of them.
const MISSING_LINES_MAX: usize = 6;
/// Width of a letter of the small text, nearly.
const LETTER: f64 = 6.2;

/// A stretch of the axis of time.
struct Stretch {
    from: Time,
    to: Time,
    /// Pixels.
    left: f64,
    width: f64,
    /// Ticks are counted from here; none in what is drawn narrow.
    ticks_from: Option<Time>,
}

struct Axis(Vec<Stretch>);

impl Axis {
    fn new(answer: &Answer) -> Self {
        let (cut, over, end) = (answer.cut_at, answer.over_at, answer.end_at);
        let lead = Duration::from_secs(2);
        let changes = answer.lives.iter().flat_map(|life| [Some(life.from), life.until]).flatten();
        // A quarter more than what happens, and three seconds where nothing does.
        let room = |from: Time, to: Time| {
            let last = changes.clone().filter(|at| *at > from && *at <= to).max().unwrap_or(from);
            (last.since(from) * 5 / 4).max(Duration::from_secs(3))
        };
        let begin = Time::from_nanos(cut.as_nanos().saturating_sub(nanos(lead)));
        let settled = (cut + room(cut, over)).min(over);
        let healed = (over + room(over, end)).min(end);
        let before_heal = Time::from_nanos(over.as_nanos().saturating_sub(nanos(lead))).max(settled);
        let has_heal = answer.heal.is_some();
        // (from, to, share of the width, where ticks are counted from)
        let mut parts = vec![(begin, settled, if has_heal { 45.0 } else { 80.0 }, Some(cut))];
        let quiet_to = if has_heal { before_heal } else { over };
        if quiet_to > settled {
            parts.push((settled, quiet_to, 12.0, None));
        }
        if has_heal && healed > quiet_to {
            parts.push((quiet_to, healed, 43.0, Some(over)));
        }
        let all: f64 = parts.iter().map(|it| it.2).sum();
        let mut left = LEFT;
        let stretch = |(from, to, share, ticks_from): (Time, Time, f64, _)| {
            let width = (WIDTH - LEFT - RIGHT) * share / all;
            left += width;
            Stretch { from, to, left: left - width, width, ticks_from }
        };
        Self(parts.into_iter().map(stretch).collect())
    }

    fn begin(&self) -> Time {
        self.0[0].from
    }

    fn end(&self) -> Time {
        self.0[self.0.len() - 1].to
    }

    /// Where a time is, in pixels; times beyond the ends are at the ends.
    fn x(&self, at: Time) -> f64 {
        let stretch = self.0.iter().find(|it| at <= it.to).unwrap_or(&self.0[self.0.len() - 1]);
        let (part, whole) = (at.min(stretch.to).since(stretch.from), stretch.to.since(stretch.from));
        stretch.left + stretch.width * part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
    }
}

fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// A row: one node and the lanes of its bars.
struct Row<'a> {
    host: usize,
    top: f64,
    lanes: Vec<Vec<&'a Life>>,
}

impl Row<'_> {
    fn height(&self) -> f64 {
        lanes_height(self.lanes.len())
    }
}

#[expect(clippy::cast_precision_loss, reason = "pixels of a picture of some thousand bars")]
fn lanes_height(lanes: usize) -> f64 {
    lanes.max(1) as f64 * LANE
}

/// Bars beside one another where they would overlap: each in the first lane that is free again.
fn lanes(mut lives: Vec<&Life>) -> Vec<Vec<&Life>> {
    lives.sort_by_key(|life| (life.from, life.replica.clone(), life.container));
    let mut lanes: Vec<Vec<&Life>> = Vec::new();
    for life in lives {
        let free = |lane: &&mut Vec<&Life>| {
            lane.last().is_some_and(|last| last.until.is_some_and(|until| until <= life.from))
        };
        match lanes.iter_mut().find(free) {
            Some(lane) => lane.push(life),
            None => lanes.push(vec![life]),
        }
    }
    lanes
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The picture.
pub(super) fn svg(question: &Question, answer: &Answer, summary: &str) -> Result<String, CliError> {
    let axis = Axis::new(answer);
    let shown: Vec<&Life> = answer
        .lives
        .iter()
        .filter(|life| life.from < axis.end() && life.until.is_none_or(|until| until > axis.begin()))
        .collect();
    if shown.len() > BARS_MAX {
        return Err(CliError::new("picture", format!("the picture would have {} bars", shown.len()))
            .because(format!("the limit is {BARS_MAX}"))
            .hint("-o json has all of it; a picture is for some tens of nodes"));
    }
    let mut top = TOP;
    let mut rows: Vec<Row<'_>> = Vec::new();
    for host in question.islands.iter().flatten() {
        let lanes = lanes(shown.iter().copied().filter(|life| life.host == *host).collect());
        let row = Row { host: *host, top, lanes };
        top += row.height() + ROW_GAP;
        rows.push(row);
    }
    let bottom = top;
    let mut put = Drawing { text: String::new() };
    let lacking = answer.islands.iter().filter(|it| !it.missing.is_empty()).count().min(MISSING_LINES_MAX);
    put.head(bottom + FOOT + lanes_height(lacking), summary, question);
    put.shades(question, answer, &axis, &rows);
    put.axis(&axis, bottom);
    let colours = colours(question);
    for row in &rows {
        put.row(question, row);
        for (n, lane) in row.lanes.iter().enumerate() {
            for life in lane {
                put.bar(answer, &axis, life, row.top + lanes_height(n + 1) - LANE, colours[&key(life)]);
            }
        }
    }
    put.marks(question, answer, &axis, &rows, bottom);
    put.legend(&colours, bottom);
    put.missing(question, answer, bottom);
    put.text.push_str("</svg>\n");
    Ok(put.text)
}

fn key(life: &Life) -> (&Name, &Name) {
    (&life.replica.namespace, &life.replica.deployment)
}

fn colours(question: &Question) -> BTreeMap<(&Name, &Name), &'static str> {
    let mut names: Vec<_> = question.deployments.iter().map(|it| (&it.namespace, &it.name)).collect();
    names.sort_unstable();
    names.into_iter().zip(COLOURS.into_iter().cycle()).collect()
}

struct Drawing {
    text: String,
}

impl Drawing {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn words(&mut self, x: f64, y: f64, class: &str, words: &str) {
        self.line(format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{}</text>"#, escaped(words)));
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), how: &str) {
        self.line(format!(r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {how}/>"#));
    }

    fn head(&mut self, height: f64, summary: &str, question: &Question) {
        self.line(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img">"#
        ));
        self.line(format!("<title>{}</title>", escaped(summary)));
        self.line(
            "<style>text{font:11px ui-sans-serif,Helvetica,Arial,sans-serif;fill:#222}\
             .title{font-size:15px;font-weight:600}.node{font-size:13px;font-weight:600;text-anchor:end}\
             .tick{fill:#555;text-anchor:middle}.mark{font-weight:600;text-anchor:middle}\
             .without{fill:#922b21}.quiet{fill:#555;text-anchor:middle;font-style:italic}.inbar{fill:#111;paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-opacity:.7}</style>",
        );
        self.line(
            r##"<defs><pattern id="twice" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2" height="6" fill="#000" fill-opacity="0.45"/></pattern><pattern id="off" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect width="7" height="7" fill="#e5e5e5"/><rect width="1.5" height="7" fill="#bbb"/></pattern></defs>"##,
        );
        self.rect((0.0, 0.0), (WIDTH, height), r##"fill="#fff""##);
        let islands: Vec<String> = question.islands.iter().map(|it| named(question, it)).collect();
        let lasts = span(question.lasts.as_secs());
        let title = if islands.len() > 1 {
            format!("{} cut for {lasts}", islands.join(" / "))
        } else {
            format!("{lasts} without {}", killed(question))
        };
        self.words(20.0, 24.0, "title", &shortened(&title, 110));
        self.words(20.0, 43.0, "", &shortened(summary, 175));
    }

    /// The time of the cut, an island a shade.
    fn shades(&mut self, question: &Question, answer: &Answer, axis: &Axis, rows: &[Row<'_>]) {
        let (left, right) = (axis.x(answer.cut_at), axis.x(answer.over_at));
        for (n, island) in question.islands.iter().enumerate() {
            let here: Vec<&Row<'_>> = rows.iter().filter(|row| island.contains(&row.host)).collect();
            let (Some(first), Some(last)) = (here.first(), here.last()) else { continue };
            let (from, to) = (first.top - ROW_GAP / 2.0, last.top + last.height() + ROW_GAP / 2.0);
            if question.islands.len() > 1 {
                let shade = if n % 2 == 0 { "#eef3fb" } else { "#fbf1e6" };
                self.rect((left, from), (right - left, to - from), &format!(r#"fill="{shade}""#));
            }
            if n > 0 {
                self.line(format!(
                    r##"<line x1="{left:.1}" y1="{from:.1}" x2="{right:.1}" y2="{from:.1}" stroke="#c0392b" stroke-width="1.5" stroke-dasharray="5 4"/>"##
                ));
            }
        }
        for row in rows.iter().filter(|row| question.killed.contains(&row.host)) {
            let end = axis.x(axis.end());
            self.rect((left, row.top - 2.0), (end - left, row.height() + 2.0), r#"fill="url(#off)""#);
        }
    }

    fn axis(&mut self, axis: &Axis, bottom: f64) {
        for stretch in &axis.0 {
            let (left, right) = (stretch.left, stretch.left + stretch.width);
            let Some(from) = stretch.ticks_from else {
                let lasts = stretch.to.since(stretch.from);
                self.line(format!(
                    r##"<line x1="{left:.1}" y1="{bottom:.1}" x2="{right:.1}" y2="{bottom:.1}" stroke="#888" stroke-dasharray="2 4"/>"##
                ));
                let words = if lasts < Duration::from_secs(60) {
                    format!("{:.0}s", lasts.as_secs_f64())
                } else {
                    span(lasts.as_secs())
                };
                self.words(
                    f64::midpoint(left, right),
                    bottom + 15.0,
                    "quiet",
                    &format!("{words}, nothing moves"),
                );
                continue;
            };
            self.line(format!(
                r##"<line x1="{left:.1}" y1="{bottom:.1}" x2="{right:.1}" y2="{bottom:.1}" stroke="#888"/>"##
            ));
            let step = tick(stretch.to.since(stretch.from), stretch.width);
            let mut at = Duration::ZERO;
            while from + at <= stretch.to {
                let x = axis.x(from + at);
                self.line(format!(
                    r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{:.1}" stroke="#000" stroke-opacity="0.12"/>"##,
                    bottom + 4.0
                ));
                if !at.is_zero() {
                    self.words(x, bottom + 15.0, "tick", &format!("+{}", ticked(at)));
                }
                at += step;
            }
        }
    }

    fn row(&mut self, question: &Question, row: &Row<'_>) {
        let middle = row.top + row.height() / 2.0 + 3.0;
        let name = shortened(question.machines[row.host].name.as_str(), 14);
        self.words(LEFT - 10.0, middle, "node", &name);
    }

    fn bar(&mut self, answer: &Answer, axis: &Axis, life: &Life, top: f64, colour: &str) {
        let until = life.until.unwrap_or(answer.end_at);
        let (left, right) = (axis.x(life.from.max(axis.begin())), axis.x(until));
        let width = (right - left).max(1.5);
        let name = replica(&life.replica);
        let host = |at: Time| {
            if at < answer.cut_at {
                "before the cut".to_owned()
            } else if at <= answer.over_at {
                format!("{:.1} s after the cut", at.since(answer.cut_at).as_secs_f64())
            } else {
                format!("{:.1} s after the heal", at.since(answer.over_at).as_secs_f64())
            }
        };
        let ended = match life.until {
            None => "to the end".to_owned(),
            Some(until) => format!("to {}", host(until)),
        };
        let why = life.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        self.line("<g>");
        self.line(format!(
            "<title>{}</title>",
            escaped(&format!("{name}, from {} {ended}{why}", host(life.from)))
        ));
        self.rect(
            (left, top),
            (width, BAR),
            &format!(r##"rx="2" fill="{colour}" stroke="#444" stroke-width="0.5""##),
        );
        for (from, to) in elsewhere(answer, life) {
            let (from, to) = (axis.x(from.max(axis.begin())), axis.x(to));
            if to > from {
                self.rect((from, top), (to - from, BAR), r#"rx="2" fill="url(#twice)""#);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a name has some tens of letters")]
        let needs = name.chars().count() as f64 * LETTER + 6.0;
        if width > needs {
            self.words(left + 4.0, top + 11.5, "inbar", &name);
        }
        self.line("</g>");
    }

    fn marks(&mut self, question: &Question, answer: &Answer, axis: &Axis, rows: &[Row<'_>], bottom: f64) {
        let cut = if question.islands.len() > 1 { "cut" } else { "power lost" };
        let mut marks = vec![(answer.cut_at, cut, "#c0392b")];
        if answer.heal.is_some() {
            marks.push((answer.over_at, "heal", "#1e8449"));
        }
        for (at, word, colour) in marks {
            let x = axis.x(at);
            self.line(format!(
                r#"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="{colour}" stroke-width="2"/>"#,
                TOP - 8.0
            ));
            self.line(format!(
                r#"<text x="{x:.1}" y="{:.1}" class="mark" style="fill:{colour}">{word}</text>"#,
                TOP - 12.0
            ));
        }
        for row in rows.iter().filter(|row| question.killed.contains(&row.host)) {
            let (x, y) = (axis.x(answer.cut_at) + 8.0, row.top + row.height() / 2.0 + 4.0);
            self.line(format!(
                r#"<text x="{x:.1}" y="{y:.1}" style="fill:#922b21;font-weight:600">&#10005; no power</text>"#
            ));
        }
    }

    fn legend(&mut self, colours: &BTreeMap<(&Name, &Name), &'static str>, bottom: f64) {
        let (mut x, mut y) = (LEFT, bottom + 34.0);
        let mut entry = |this: &mut Self, how: &str, words: &str| {
            #[expect(clippy::cast_precision_loss, reason = "a name has some tens of letters")]
            let width = words.chars().count() as f64 * LETTER + 34.0;
            if x + width > WIDTH - RIGHT {
                // What finds no second line is in the words below the picture.
                (x, y) = (LEFT, y + 18.0);
            }
            if y < bottom + FOOT - 10.0 {
                this.rect((x, y - 10.0), (14.0, 12.0), how);
                this.words(x + 19.0, y, "", words);
            }
            x += width;
        };
        for (word, how) in [
            ("runs on two nodes at once", r##"fill="url(#twice)" stroke="#444" stroke-width="0.5""##),
            ("no power", r##"fill="url(#off)" stroke="#444" stroke-width="0.5""##),
        ] {
            entry(self, how, word);
        }
        for ((namespace, name), colour) in colours {
            let word = if **namespace == Name::default_namespace() {
                name.to_string()
            } else {
                format!("{namespace}/{name}")
            };
            entry(self, &format!(r##"rx="2" fill="{colour}" stroke="#444" stroke-width="0.5""##), &word);
        }
    }
}

impl Drawing {
    /// What found no place, a line an island.
    fn missing(&mut self, question: &Question, answer: &Answer, bottom: f64) {
        let lines = question.islands.iter().zip(&answer.islands).filter(|(_, told)| !told.missing.is_empty());
        let mut y = bottom + FOOT;
        for (island, told) in lines.take(MISSING_LINES_MAX) {
            let replicas: Vec<_> = told.missing.iter().map(|it| it.replica.clone()).collect();
            let words = format!(
                "without a place on {}: {}",
                named(question, island),
                compressed(&replicas_in_words(&replicas))
            );
            self.words(LEFT, y, "without", &shortened(&words, 150));
            y += 16.0;
        }
    }
}

fn killed(question: &Question) -> String {
    question.killed.iter().map(|it| question.machines[*it].name.as_str()).collect::<Vec<_>>().join(",")
}

/// The names of an island: those without power only where there is no other.
fn named(question: &Question, island: &[usize]) -> String {
    let on: Vec<usize> = island.iter().copied().filter(|it| !question.killed.contains(it)).collect();
    let shown = if on.is_empty() { island } else { &on };
    shown.iter().map(|it| question.machines[*it].name.as_str()).collect::<Vec<_>>().join(",")
}

fn shortened(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars - 3).chain("...".chars()).collect()
}

/// When the same replica ran on another machine as well since the cut, while this one did.
fn elsewhere(answer: &Answer, life: &Life) -> Vec<(Time, Time)> {
    let end = answer.end_at;
    let others = answer.lives.iter().filter(|it| it.replica == life.replica && it.host != life.host);
    let mut spans: Vec<(Time, Time)> = others
        .map(|it| {
            let from = it.from.max(life.from).max(answer.cut_at);
            (from, it.until.unwrap_or(end).min(life.until.unwrap_or(end)))
        })
        .filter(|(from, to)| to > from)
        .collect();
    spans.sort_unstable();
    // Three copies: the pattern is drawn once.
    let mut joined: Vec<(Time, Time)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// A round step between ticks, so that their words have room.
fn tick(whole: Duration, width: f64) -> Duration {
    const STEPS_S: [f64; 14] =
        [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0];
    let least = whole.as_secs_f64() * 45.0 / width.max(1.0);
    let step = STEPS_S.into_iter().find(|step| *step >= least).unwrap_or(86_400.0);
    Duration::from_secs_f64(step)
}

fn ticked(at: Duration) -> String {
    if at.subsec_millis() == 0 { span(at.as_secs()) } else { format!("{:.1}s", at.as_secs_f64()) }
}

/// The picture and the words in one page.
pub(super) fn page(svg: &str, summary: &str, words: &str) -> String {
    let mut page = String::new();
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\"><title>skerry: {0}</title>\n\
         <style>body{{font:14px ui-sans-serif,Helvetica,Arial,sans-serif;margin:24px;max-width:1140px}}\
         svg{{max-width:100%;height:auto}}pre{{background:#f6f6f6;padding:12px;overflow-x:auto}}</style>\n\
         </head><body>\n{svg}<pre>{1}</pre>\n</body></html>\n",
        escaped(summary),
        escaped(words)
    )
    .expect("a text takes every line");
    page
}
