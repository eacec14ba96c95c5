//! Files of tests, `*_test.yaml`: they are no policy, so policy in them is an error and not passed over.

use super::bundle::SourceFile;
use super::parse::SECTIONS;
use super::problem::{Problem, ProblemCode, Severity, nearest};
use super::skipped::{keys, readable};
use super::source::{place_at, text};
use super::syntax::Place;
use super::yaml::{self, Kind};

/// The key of tests.
const TESTS: &str = "tests";

/// The problems of a file of tests. The tests themselves are not checked.
pub(super) fn problems(file: &SourceFile) -> Vec<Problem> {
    let text = match text(file) {
        Ok(text) => text,
        Err(problem) => {
            let bytes = readable(&file.bytes);
            let found = keys(&bytes, 1).into_iter().find(|key| SECTIONS.contains(&key.name));
            let policy = found.map(|key| misplaced(file, key.name, problem.place));
            return policy.into_iter().chain([warned(problem)]).collect();
        }
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
            let of =
                |key: super::skipped::FoundKey<'_>| (key.name.to_owned(), place_at(text, key.offset, key.name.len()));
            keys(text, 1).into_iter().map(of).collect()
        }
    };
    let wrong = found.into_iter().filter_map(|(name, place)| wrong(file, &name, place));
    wrong.chain(reading.problems.into_iter().map(warned)).collect()
}

/// The problem with a key of a file of tests. Keys that resemble no key of Tollgate may hold YAML anchors.
fn wrong(file: &SourceFile, name: &str, place: Place) -> Option<Problem> {
    if SECTIONS.contains(&name) {
        return Some(misplaced(file, name, place));
    }
    let near = nearest(name, SECTIONS.iter().copied().chain([TESTS])).filter(|_| name != TESTS)?;
    let message = format!("a file of tests has no `{}`", name.escape_debug());
    let problem = Problem::warning(ProblemCode::UnknownField, &file.path, place, message);
    Some(problem.with_help(format!("did you mean `{near}`? tests are listed under `{TESTS}`")))
}

fn misplaced(file: &SourceFile, name: &str, place: Place) -> Problem {
    let message = format!("`{name}` has no effect in a file of tests");
    Problem::error(ProblemCode::PolicyInTest, &file.path, place, message)
        .with_help("move it to a file whose name does not end in `_test.yaml` or `_test.yml`, or rename this one")
}

/// A test that cannot be read keeps no bundle from loading.
fn warned(problem: Problem) -> Problem {
    Problem { severity: Severity::Warning, ..problem }
}
