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
    for problem in problems.iter_mut().filter(|problem| problem.source_line.is_none()) {
        let line = (problem.place.line as usize).checked_sub(1).and_then(|index| lines.get(index));
        problem.source_line = line.map(|line| excerpt(line.trim_end_matches('\r'), problem.place.column as usize));
    }
}

fn excerpt(line: &str, column: usize) -> Arc<str> {
    if line.chars().nth(MAX_CHARACTERS).is_none() {
        return line.into();
    }
    let first = if column > CUT_FROM { column - 1 - KEPT_BEFORE } else { 0 };
    let mut shown = String::new();
    if first > 0 {
        shown.push(CUT);
    }
    shown.extend(line.chars().skip(first).take(MAX_CHARACTERS));
    if line.chars().nth(first + MAX_CHARACTERS).is_some() {
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
