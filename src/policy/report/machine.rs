//! For programs: JSON, SARIF 2.1.0, and GitHub's workflow commands.

use std::fmt::Write;

use serde_json::{Value, json};

use super::page;
use super::text::shown;
use crate::policy::problem::{Problem, ProblemCode, Severity};

/// A JSON array with one object for each problem.
#[must_use]
pub fn json(problems: &[Problem]) -> String {
    let values: Vec<Value> = problems.iter().map(one).collect();
    pretty(&Value::Array(values))
}

fn one(problem: &Problem) -> Value {
    json!({
        "severity": severity(problem),
        "code": problem.code.as_str(),
        "file": &*problem.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "length": problem.place.length,
        "message": problem.message,
        "help": problem.help,
        "docs": page(problem.code),
    })
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn pretty(value: &Value) -> String {
    // The alternate form of a JSON value is its indented text.
    format!("{value:#}\n")
}

/// A SARIF 2.1.0 log. `root` is the bundle's directory as seen from the repository, `policies`; empty for none.
#[must_use]
pub fn sarif(problems: &[Problem], root: &str) -> String {
    let mut codes: Vec<ProblemCode> = problems.iter().map(|problem| problem.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code.as_str(), "helpUri": page(*code) })).collect();
    let results: Vec<Value> = problems.iter().map(|problem| sarif_result(problem, &codes, root)).collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "tollgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

fn sarif_result(problem: &Problem, codes: &[ProblemCode], root: &str) -> Value {
    let message = match &problem.help {
        Some(help) => format!("{} ({help})", problem.message),
        None => problem.message.clone(),
    };
    json!({
        "ruleId": problem.code.as_str(),
        "ruleIndex": codes.binary_search(&problem.code).unwrap_or_default(),
        "level": severity(problem),
        "message": { "text": message },
        "locations": sarif_locations(problem, root),
    })
}

fn sarif_locations(problem: &Problem, root: &str) -> Value {
    if problem.file.is_empty() {
        return json!([]);
    }
    let artifact = json!({ "uri": uri(&under(root, &problem.file)) });
    if problem.place.line == 0 {
        return json!([{ "physicalLocation": { "artifactLocation": artifact } }]);
    }
    let column = problem.place.column.max(1);
    let region = json!({
        "startLine": problem.place.line,
        "startColumn": column,
        "endColumn": column.saturating_add(problem.place.length.max(1)),
    });
    json!([{ "physicalLocation": { "artifactLocation": artifact, "region": region } }])
}

/// Commands that make GitHub show each problem at its line of a pull request. `root` as in [`sarif`].
#[must_use]
pub fn github(problems: &[Problem], root: &str) -> String {
    let mut out = String::new();
    for problem in problems {
        let title = format!("{} ({})", problem.code, page(problem.code));
        let level = if problem.severity == Severity::Note { "notice" } else { severity(problem) };
        let _ = write!(out, "::{level} ");
        if !problem.file.is_empty() {
            let _ = write!(out, "file={},", property(&under(root, &problem.file)));
            if problem.place.line > 0 {
                let (line, column) = (problem.place.line, problem.place.column.max(1));
                // GitHub counts the last column in.
                let end = column.saturating_add(problem.place.length.max(1) - 1);
                let _ = write!(out, "line={line},col={column},endColumn={end},");
            }
        }
        // A workflow's log is a terminal too.
        let help = problem.help.as_ref().map(|help| format!("\nhelp: {}", shown(help))).unwrap_or_default();
        let message = format!("{}{help}", shown(&problem.message));
        let _ = writeln!(out, "title={}::{}", property(&title), data(&message));
    }
    out
}

fn under(root: &str, file: &str) -> String {
    match root.trim_end_matches('/') {
        "" | "." => file.to_owned(),
        root => format!("{root}/{file}"),
    }
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A path as a relative URI.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}
