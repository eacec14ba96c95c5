//! For people: each problem with its place, its line, and what to do.

use std::fmt::Write;

use crate::policy::excerpt;
use crate::policy::problem::{Problem, Severity};

const TAB_WIDTH: usize = 4;

struct Colours {
    error: &'static str,
    warning: &'static str,
    frame: &'static str,
    bold: &'static str,
    off: &'static str,
}

const COLOURED: Colours =
    Colours { error: "\x1b[1;31m", warning: "\x1b[1;33m", frame: "\x1b[1;34m", bold: "\x1b[1m", off: "\x1b[0m" };
const PLAIN: Colours = Colours { error: "", warning: "", frame: "", bold: "", off: "" };

/// The problems in the order given, and a line that counts them; empty where there are none.
#[must_use]
pub fn text(problems: &[Problem], colour: bool) -> String {
    let colours = if colour { &COLOURED } else { &PLAIN };
    let mut out = String::new();
    for problem in problems {
        // Writing to a String cannot fail.
        let _ = one(problem, colours, &mut out);
    }
    if !problems.is_empty() {
        let _ = writeln!(out, "{}", counts(problems));
    }
    out
}

fn one(problem: &Problem, colours: &Colours, out: &mut String) -> std::fmt::Result {
    let Colours { frame, bold, off, .. } = colours;
    let (colour, severity) = match problem.severity {
        Severity::Error => (colours.error, "error"),
        Severity::Warning => (colours.warning, "warning"),
        Severity::Note => (colours.frame, "note"),
    };
    writeln!(out, "{colour}{severity}[{}]{off}: {bold}{}{off}", problem.code, shown(&problem.message))?;
    let line = problem.place.line;
    let margin = if line == 0 { 1 } else { line.to_string().len() };
    match (problem.file.is_empty(), line) {
        (true, _) => {}
        (false, 0) => writeln!(out, "{:margin$}{frame}-->{off} {}", "", shown(&problem.file))?,
        (false, _) => {
            writeln!(out, "{:margin$}{frame}-->{off} {}:{line}:{}", "", shown(&problem.file), problem.place.column)?;
        }
    }
    if let Some(source) = problem.source_line.as_deref().filter(|_| line > 0) {
        let (drawn, before, width) = draw(source, excerpt::column(problem), problem.place.length as usize);
        writeln!(out, "{:margin$} {frame}|{off}", "")?;
        writeln!(out, "{frame}{line} |{off} {drawn}")?;
        writeln!(out, "{:margin$} {frame}|{off} {:before$}{colour}{:^<width$}{off}", "", "", "")?;
    }
    if let Some(help) = &problem.help {
        writeln!(out, "{:margin$} {frame}={off} help: {}", "", shown(help))?;
    }
    writeln!(out)
}

/// The line as it is shown, how many cells stand before the place, and how many the place takes.
fn draw(source: &str, column: usize, length: usize) -> (String, usize, usize) {
    let (first, end) = (column.saturating_sub(1), column.saturating_sub(1) + length.max(1));
    let (mut drawn, mut before, mut width) = (String::new(), 0, 0);
    for (index, character) in source.chars().enumerate() {
        let cells = if character == '\t' {
            drawn.push_str("    ");
            TAB_WIDTH
        } else if is_unseen(character) {
            let escape = escaped(character);
            drawn.push_str(&escape);
            escape.len()
        } else {
            drawn.push(character);
            cells(character)
        };
        if index < first {
            before += cells;
        } else if index < end {
            width += cells;
        }
    }
    (drawn.trim_end().to_owned(), before, width.max(1))
}

/// `text` on one line, with nothing in it that a terminal would act upon.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            _ if is_unseen(character) => shown.push_str(&escaped(character)),
            _ => shown.push(character),
        }
    }
    shown
}

fn escaped(character: char) -> String {
    character.escape_unicode().to_string()
}

/// Whether a reader would not see the character, or see others in another order because of it.
fn is_unseen(character: char) -> bool {
    crate::model::check_name(character.encode_utf8(&mut [0; 4])).is_err()
}

/// How many cells of a terminal the character takes: two for the wide ones of East Asia and for pictures, none for
/// marks that stand on the character before.
fn cells(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036F
        | 0x0483..=0x0489
        | 0x0591..=0x05BD
        | 0x064B..=0x065F
        | 0x1AB0..=0x1AFF
        | 0x1DC0..=0x1DFF
        | 0x20D0..=0x20FF
        | 0xFE20..=0xFE2F => 0,
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xA960..=0xA97F
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1F64F
        | 0x1F680..=0x1F6FF
        | 0x1F900..=0x1F9FF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

fn counts(problems: &[Problem]) -> String {
    let each = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let count = |(severity, what)| {
        let number = problems.iter().filter(|problem| problem.severity == severity).count();
        (number > 0).then(|| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    each.into_iter().filter_map(count).collect::<Vec<_>>().join(", ")
}
