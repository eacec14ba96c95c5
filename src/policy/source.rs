//! From byte offsets in a text to places: what Cedar's errors point at, in lines and columns.

use miette::Diagnostic;

use super::bundle::SourceFile;
use super::problem::{Problem, ProblemCode};
use super::syntax::Place;

/// The text of `file`.
///
/// # Errors
/// The problem that its bytes are not UTF-8, with the line of the first that is not.
pub fn text(file: &SourceFile) -> Result<&str, Problem> {
    std::str::from_utf8(&file.bytes).map(|text| text.strip_prefix('\u{FEFF}').unwrap_or(text)).map_err(|error| {
        let valid = file.bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + String::from_utf8_lossy(valid).matches('\n').count();
        let column = 1 + valid.iter().rev().take_while(|byte| **byte != b'\n').count();
        let place = Place { line: number(line), column: number(column), length: 1 };
        Problem::error(ProblemCode::NotUtf8, &file.path, place, "the file is not UTF-8 text")
            .with_help("save the file in UTF-8")
    })
}

/// The place of `length` bytes of `text` from byte `offset` on, cut to the first line.
#[must_use]
pub fn place_at(text: &str, offset: usize, length: usize) -> Place {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let rest = text.get(offset..).unwrap_or_default();
    let line_rest = rest.find('\n').map_or(rest, |end| rest.get(..end).unwrap_or_default());
    let covered = line_rest.char_indices().take_while(|(at, _)| *at < length.max(1)).count().max(1);
    Place {
        line: number(1 + before.matches('\n').count()),
        column: number(1 + text.get(line_start..offset).unwrap_or_default().chars().count()),
        length: number(covered),
    }
}

/// Places of ascending offsets in one text, each found from the one before: a file may hold a hundred thousand of them.
#[derive(Debug)]
pub struct Places<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Places<'a> {
    /// At the beginning of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, column: 1 }
    }

    /// The place of `length` bytes from `offset` on, cut to the first line.
    pub fn of(&mut self, offset: usize, length: usize) -> Place {
        let named = self.text.get(offset..offset.saturating_add(length)).unwrap_or_default();
        let covered = named.lines().next().map_or(1, |line| line.chars().count().max(1));
        Place { length: number(covered), ..self.at(offset) }
    }

    /// The place of the character at `offset`.
    pub fn at(&mut self, offset: usize) -> Place {
        if offset < self.at {
            *self = Self::new(self.text);
        }
        for (step, next) in self.text.get(self.at..).unwrap_or_default().char_indices() {
            if self.at + step >= offset {
                break;
            }
            if next == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.at = offset.min(self.text.len());
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        Place { line: number(self.line), column: number(self.column), length: 1 }
    }
}

/// Where the first label of a Cedar error points, as offset and length.
#[must_use]
pub fn label_of(error: &dyn Diagnostic) -> Option<(usize, usize)> {
    let own = error.labels().and_then(|mut labels| labels.next()).map(|label| (label.offset(), label.len()));
    own.or_else(|| error.related().and_then(|mut related| related.next().and_then(label_of)))
}

/// Where in `text` a Cedar error points.
#[must_use]
pub fn place_of(error: &dyn Diagnostic, text: &str) -> Place {
    label_of(error).map_or_else(Place::default, |(offset, length)| place_at(text, offset, length))
}

/// The problem with the line that it points at.
#[must_use]
pub fn with_line(problem: Problem, text: &str) -> Problem {
    let mut one = [problem];
    super::excerpt::fill(&mut one, text);
    let [problem] = one;
    problem
}

/// A count as places have it.
#[must_use]
pub fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_one_by_one_are_places_from_the_start() {
        let text = "ab\n\nñü c\r\nd";
        let mut places = Places::new(text);
        for (offset, _) in text.char_indices().chain([(3, 'x'), (0, 'x')]) {
            assert_eq!(places.at(offset), place_at(text, offset, 1), "{offset}");
        }
    }
}
