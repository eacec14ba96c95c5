//! The lines of a file that its problems show: filled in once the problems are known, cut where a line is long, and
//! with whatever may be a secret left out.

mod lines;
mod names;

use std::ops::Range;
use std::sync::Arc;

use super::bundle::FileKind;
use super::problem::Problem;
pub(crate) use lines::has_userinfo;
use names::may_hold_secrets;
pub(crate) use names::{is_file, is_list, is_secret};

/// Longer lines are cut.
const MAX_CHARACTERS: usize = 400;
/// How much is kept before the place in a line that is cut at its front.
const KEPT_BEFORE: usize = 200;
/// From this column on a long line is cut at its front.
const CUT_FROM: usize = 300;
/// Stands for what was cut off.
const CUT: char = '…';

/// Gives each of `problems`, all in the file that holds `text`, the line that it is about, unless it has one.
pub(crate) fn fill(problems: &mut [Problem], text: &str) {
    let mut wanting = problems.iter_mut().filter(|problem| problem.source_line.is_none()).peekable();
    let Some(first) = wanting.peek() else { return };
    let shown = Shown::of(&first.file, super::yaml::without_bom(text));
    let mut cursor = Cursor::default();
    // Many problems may be about one line, which may be long.
    let mut last: Option<(u32, String)> = None;
    for problem in wanting {
        let number = problem.place.line;
        if last.as_ref().is_none_or(|(known, _)| *known != number) {
            last = shown.line(number).map(|line| (number, line));
        }
        let Some((_, line)) = last.as_ref().filter(|(known, _)| *known == number) else { continue };
        let long = line.chars().nth(MAX_CHARACTERS).is_some();
        let first = if long { first_shown(problem.place.column as usize) } else { 0 };
        problem.source_line = Some(excerpt(cursor.from(line, number, first), first > 0));
    }
}

/// A text, of which secrets are not shown.
struct Shown<'a> {
    lines: Vec<&'a str>,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The bytes that are secrets, in order.
    secrets: Vec<Range<usize>>,
    is_yaml: bool,
}

impl<'a> Shown<'a> {
    fn of(file: &str, text: &'a str) -> Self {
        // JSON is YAML, and config files and environment variables are read as YAML too.
        let is_yaml = !matches!(FileKind::of(file), Some(FileKind::Cedar | FileKind::Schema));
        let secrets = if is_yaml && may_hold_secrets(text) { super::yaml::secrets(text) } else { Vec::new() };
        let lines: Vec<&str> = text.split('\n').collect();
        let next = |end: &mut usize, line: &&str| {
            let start = *end;
            *end += line.len() + 1;
            Some(start)
        };
        let starts = lines.iter().scan(0, next).collect();
        Self { lines, starts, secrets, is_yaml }
    }

    /// The line with this number, counted from 1, with a star for each character that may be part of a secret, either
    /// by parsing the text or by its look.
    fn line(&self, number: u32) -> Option<String> {
        let index = (number as usize).checked_sub(1)?;
        let (line, start) = (self.lines.get(index)?.trim_end_matches('\r'), *self.starts.get(index)?);
        let looked_at = if self.is_yaml {
            lines::masked(self.lines.get(..index).unwrap_or_default(), line)
        } else {
            lines::masked_line(line)
        };
        let begin = self.secrets.partition_point(|secret| secret.end <= start);
        let mut secrets = self.secrets.get(begin..).unwrap_or_default().iter().peekable();
        let mark = |((at, character), looked_at): ((usize, char), char)| {
            let at = start + at;
            while secrets.next_if(|secret| secret.end <= at).is_some() {}
            let is_secret = secrets.peek().is_some_and(|secret| secret.contains(&at)) && !character.is_whitespace();
            if is_secret { '*' } else { looked_at }
        };
        Some(line.char_indices().zip(looked_at.chars()).map(mark).collect())
    }
}

/// How many characters of a long line stand before those that are shown.
fn first_shown(column: usize) -> usize {
    if column > CUT_FROM { column - 1 - KEPT_BEFORE } else { 0 }
}

/// Where counting got to: a file may be one line of many megabytes, with all its problems at the end.
#[derive(Default)]
struct Cursor {
    line: u32,
    characters: usize,
    bytes: usize,
}

impl Cursor {
    /// `text`, which is line `line`, without its first `skipped` characters.
    fn from<'a>(&mut self, text: &'a str, line: u32, skipped: usize) -> &'a str {
        if skipped == 0 {
            return text;
        }
        if self.line != line || self.characters > skipped {
            *self = Self { line, ..Self::default() };
        }
        let rest = text.get(self.bytes..).unwrap_or_default();
        let further = rest.char_indices().nth(skipped - self.characters).map_or(rest.len(), |(bytes, _)| bytes);
        (self.characters, self.bytes) = (skipped, self.bytes + further);
        text.get(self.bytes..).unwrap_or_default()
    }
}

/// As much of `rest` as is shown.
fn excerpt(rest: &str, cut: bool) -> Arc<str> {
    let end = rest.char_indices().nth(MAX_CHARACTERS).map(|(end, _)| end);
    let mut shown = String::new();
    if cut {
        shown.push(CUT);
    }
    shown.push_str(end.and_then(|end| rest.get(..end)).unwrap_or(rest));
    if end.is_some() {
        shown.push(CUT);
    }
    shown.into()
}

/// The column of a problem's place within the line that it shows.
pub(crate) fn column(problem: &Problem) -> usize {
    let column = problem.place.column as usize;
    let cut = column > CUT_FROM && problem.source_line.as_deref().is_some_and(|line| line.starts_with(CUT));
    if cut { KEPT_BEFORE + 2 } else { column }
}
