//! Tabs that indent. Some of them the reader refuses, at a place before them; others it takes for white space, and what
//! they were to indent may then mean something else. Here all of them are found, and told from tabs within texts.

use serde_saphyr::granit_parser::ScanError;

use super::{line, number_from, wording};
use crate::policy::syntax::Place;

/// The lines that begin with tabs, and those in which tabs are text.
pub(super) struct Tabs {
    /// The tabs in the indentation of lines, by line.
    indentations: Vec<Place>,
    /// First and last line of each scalar in which tabs are text, in their order; kept only where there are tabs.
    texts: Vec<(u32, u32)>,
}

impl Tabs {
    /// The tabs in the indentation of lines that hold more than white space and a comment.
    pub(super) fn of(text: &str) -> Self {
        if !text.contains('\t') {
            return Self { indentations: Vec::new(), texts: Vec::new() };
        }
        Self {
            indentations: text.split('\n').enumerate().filter_map(|(number, line)| indentation(number, line)).collect(),
            texts: Vec::new(),
        }
    }

    /// From line `first` to line `last` tabs are text.
    pub(super) fn text_in(&mut self, first: u32, last: u32) {
        if !self.indentations.is_empty() && first <= last {
            self.texts.push((first, last));
        }
    }

    /// The tabs that indent something else than lines of a text.
    pub(super) fn misused(&self, stopped_at: Option<&ScanError>) -> Vec<Place> {
        let free = self.indentations.iter().filter(|place| !self.is_text(place.line));
        let Some(error) = stopped_at else { return free.copied().collect() };
        // Of what stands behind the error, nothing is known; but of the tab that it is about, the reader may give the
        // beginning of the scalar before it.
        let at = line(error.marker());
        let about_tab = wording::is_about_tabs(error.kind());
        let may_follow = |place: &Place| (about_tab || place.line == at + 1) && !wording::is_about_quotes(error.kind());
        let mut behind = false;
        free.take_while(|place| {
            let taken = place.line <= at || (!behind && may_follow(place));
            behind |= place.line > at;
            taken
        })
        .copied()
        .collect()
    }

    fn is_text(&self, line: u32) -> bool {
        let after = self.texts.partition_point(|(first, _)| *first <= line);
        after.checked_sub(1).and_then(|index| self.texts.get(index)).is_some_and(|(_, last)| line <= *last)
    }
}

fn indentation(number: usize, line: &str) -> Option<Place> {
    let content = line.trim_start_matches([' ', '\t']);
    let indentation = line.strip_suffix(content)?;
    let before = indentation.find('\t')?;
    let counts = !content.trim_end().is_empty() && !content.starts_with('#');
    let length = indentation.bytes().skip(before).take_while(|&byte| byte == b'\t').count();
    counts.then(|| Place {
        line: number_from(number),
        column: number_from(before),
        length: u32::try_from(length).unwrap_or(1),
    })
}
