//! The lines of a file that its problems show: filled in once the problems are known, and cut where a line is long.

use std::sync::Arc;

use super::problem::Problem;

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
    if problems.is_empty() {
        return;
    }
    let lines: Vec<&str> = super::yaml::without_bom(text).split('\n').collect();
    let mut cursor = Cursor::default();
    for problem in problems.iter_mut().filter(|problem| problem.source_line.is_none()) {
        let line = (problem.place.line as usize).checked_sub(1).and_then(|index| lines.get(index));
        problem.source_line = line.map(|line| {
            let line = line.trim_end_matches('\r');
            let long = line.chars().nth(MAX_CHARACTERS).is_some();
            let first = if long { first_shown(problem.place.column as usize) } else { 0 };
            excerpt(cursor.from(line, problem.place.line, first), first > 0)
        });
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
