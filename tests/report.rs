//! How problems are told: to people, to programs, to code scanning, and to GitHub.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use std::sync::Arc;

use serde_json::Value;
use tollgate::policy::problem::{Problem, ProblemCode};
use tollgate::policy::report;
use tollgate::policy::syntax::Place;

fn problems() -> Vec<Problem> {
    let file: Arc<str> = Arc::from("eu, west/rules 100%.yaml");
    let place = Place { line: 12, column: 3, length: 4 };
    let mut unknown = Problem::error(ProblemCode::UnknownField, &file, place, "a rule has no `u\x1b[31m:s`, 100%")
        .with_help("did you mean\n`users`?");
    unknown.source_line = Some(Arc::from("\t日x本y\x1b"));
    vec![
        unknown,
        Problem::warning(ProblemCode::DuplicateName, &file, Place::default(), "twice"),
        Problem::error(ProblemCode::BundleEmpty, &Arc::from(""), Place::default(), "no rule"),
    ]
}

#[test]
fn text_shows_the_line_and_nothing_that_a_terminal_acts_upon() {
    let expected = "\
error[unknown-field]: a rule has no `u\\u{1b}[31m:s`, 100%
  --> eu, west/rules 100%.yaml:12:3
   |
12 |     日x本y\\u{1b}
   |       ^^^^^^^^^^
   = help: did you mean `users`?

warning[duplicate-name]: twice
 --> eu, west/rules 100%.yaml

error[bundle-empty]: no rule

2 errors, 1 warning
";
    assert_eq!(report::text(&problems(), false), expected);
    let coloured = report::text(&problems(), true);
    assert!(coloured.starts_with("\x1b[1;31merror[unknown-field]\x1b[0m: "));
    assert_eq!(report::text(&[], true), "");
}

#[test]
fn json_has_every_part() {
    let value: Value = serde_json::from_str(&report::json(&problems())).unwrap();
    let expected = serde_json::json!({
        "severity": "error", "code": "unknown-field", "file": "eu, west/rules 100%.yaml", "line": 12, "column": 3, "length": 4,
        "message": "a rule has no `u\u{1b}[31m:s`, 100%", "help": "did you mean\n`users`?",
        "docs": "docs/diagnostics/unknown-field.md",
    });
    assert_eq!(value[0], expected);
    assert_eq!(value[1]["help"], Value::Null);
    assert_eq!(report::json(&[]), "[]\n");
}

#[test]
fn sarif_names_rules_and_regions() {
    let value: Value = serde_json::from_str(&report::sarif(&problems(), "policies/")).unwrap();
    let run = &value["runs"][0];
    assert_eq!(value["version"], "2.1.0");
    for result in run["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    }
    let location = &run["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(location["artifactLocation"]["uri"], "policies/eu%2C%20west/rules%20100%25.yaml");
    assert_eq!(location["region"], serde_json::json!({ "startLine": 12, "startColumn": 3, "endColumn": 7 }));
    assert!(run["results"][1]["locations"][0]["physicalLocation"].get("region").is_none());
    assert_eq!(run["results"][2]["locations"], serde_json::json!([]));
}

#[test]
fn github_commands_are_escaped() {
    let expected = "\
::error file=policies/eu%2C west/rules 100%25.yaml,line=12,col=3,endColumn=6,title=unknown-field (docs/diagnostics/unknown-field.md)::a rule has no `u\\u{1b}[31m:s`, 100%25%0Ahelp: did you mean `users`?
::warning file=policies/eu%2C west/rules 100%25.yaml,title=duplicate-name (docs/diagnostics/duplicate-name.md)::twice
::error title=bundle-empty (docs/diagnostics/bundle-empty.md)::no rule
";
    assert_eq!(report::github(&problems(), "policies"), expected);
}

#[test]
fn the_order_is_that_of_the_files() {
    let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a.yaml"), Arc::from("b.yaml"));
    let at = |file, line, column, code| Problem::error(code, file, Place { line, column, length: 1 }, "");
    let mut problems = vec![
        at(&b, 1, 1, ProblemCode::NullValue),
        at(&a, 2, 1, ProblemCode::WrongType),
        at(&a, 1, 5, ProblemCode::WrongType),
        at(&a, 1, 5, ProblemCode::UnknownField),
    ];
    report::sorted(&mut problems);
    let order: Vec<_> = problems.iter().map(|problem| (&*problem.file, problem.place.line, problem.code)).collect();
    let expected = [
        ("a.yaml", 1, ProblemCode::UnknownField),
        ("a.yaml", 1, ProblemCode::WrongType),
        ("a.yaml", 2, ProblemCode::WrongType),
        ("b.yaml", 1, ProblemCode::NullValue),
    ];
    assert_eq!(order, expected);
}
