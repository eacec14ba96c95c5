//! Files of tests, `*_test.yaml`: they are no policy, so policy in them is an error and not passed over.

use super::bundle::SourceFile;
use super::parse::SECTIONS;
use super::problem::{Problem, ProblemCode, Severity};
use super::skipped::keys;
use super::source::{place_at, text};
use super::syntax::Place;
use super::yaml::{self, Kind};

/// What is wrong with a file of tests. The tests themselves are not looked at.
pub(super) fn problems(file: &SourceFile) -> Vec<Problem> {
    let text = match text(file) {
        Ok(text) => text,
        Err(problem) => return vec![warned(problem)],
    };
    let reading = yaml::read(&file.path, text);
    let is_whole = reading.problems.is_empty();
    let found: Vec<(String, Place)> = match reading.root.map(|root| root.kind) {
        Some(Kind::Mapping(members)) if is_whole => {
            members.into_iter().map(|(key, _)| (key.text.to_string(), key.place)).collect()
        }
        _ if is_whole => Vec::new(),
        // What cannot be read to its end, or holds a second document, may hold policy all the same.
        _ => {
            let of = |key: super::skipped::FoundKey<'_>| {
                (key.name.to_owned(), place_at(text, key.offset, key.name.len()))
            };
            keys(text, 1).into_iter().map(of).collect()
        }
    };
    let is_policy = |(name, _): &(String, Place)| SECTIONS.contains(&name.as_str());
    let policy = found.into_iter().filter(is_policy).map(|(name, place)| misplaced(file, &name, place));
    policy.chain(reading.problems.into_iter().map(warned)).collect()
}

fn misplaced(file: &SourceFile, name: &str, place: Place) -> Problem {
    let message = format!("`{name}` stands in a file of tests, where it has no effect");
    Problem::error(ProblemCode::PolicyInTest, &file.path, place, message)
        .with_help("move it to a file whose name does not end in `_test.yaml` or `_test.yml`, or rename this one")
}

/// A test that cannot be read keeps no bundle from loading.
fn warned(problem: Problem) -> Problem {
    Problem { severity: Severity::Warning, ..problem }
}
