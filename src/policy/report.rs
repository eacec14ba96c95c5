//! Problems as people and programs read them: text for terminals, JSON, SARIF for code scanning, and annotations for
//! GitHub's workflows.
//!
//! What stands in a policy file is never trusted to be printed: control characters, and those that turn the direction
//! of text, are shown as their numbers.

mod machine;
mod text;

pub use machine::{github, json, sarif};
pub use text::{shown, text};

use super::problem::{Problem, ProblemCode};

/// Brings `problems` in the order in which they are shown: by file, line, column and code.
pub fn sorted(problems: &mut [Problem]) {
    problems.sort_by(|left, right| {
        let key = |problem: &Problem| (problem.place.line, problem.place.column, problem.code);
        left.file.cmp(&right.file).then_with(|| key(left).cmp(&key(right)))
    });
}

/// The page that explains a code.
#[must_use]
pub fn page(code: ProblemCode) -> String {
    format!("docs/diagnostics/{code}.md")
}
