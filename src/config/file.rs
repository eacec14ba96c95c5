//! Reads `tollgate.yaml`, and reports everything that is wrong with it, each with its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::Schema;

use super::faults::{Fault, NodeError, Step};
use super::raw::Raw;
use super::{Settings, node, schema};
use crate::policy::problem::{Problem, ProblemCode, nearest};
use crate::policy::syntax::Place;
use crate::policy::yaml::{self, Kind, Node};

/// Sections with a page of their own.
const PAGES: [(&str, &str); 3] = [
    ("decision_log", "docs/decision-log.md has every setting"),
    ("identity", "docs/identity.md has every setting"),
    ("routes", "docs/http.md describes routes at `POST /v1/auth/validate`"),
];

/// Applies `text` to `settings`; its relative paths begin at `base`. Returns the problems, and `data` as it is written.
pub(super) fn apply(
    name: &Arc<str>,
    text: &[u8],
    base: &Path,
    settings: &mut Settings,
) -> (Vec<Problem>, Option<PathBuf>) {
    let Ok(text) = std::str::from_utf8(text) else {
        let message = "the file is not UTF-8";
        return (vec![Problem::error(ProblemCode::NotUtf8, name, Place::default(), message)], None);
    };
    let reading = yaml::read(name, text);
    let (mut problems, mut data) = (reading.problems, None);
    if let Some(root) = &reading.root {
        problems.extend(apply_node(name, root, base, settings));
        data = node::member(root, "data").and_then(scalar);
    }
    crate::policy::excerpt::fill(&mut problems, text);
    crate::policy::report::sorted(&mut problems);
    (problems, data)
}

fn scalar(node: &Node) -> Option<PathBuf> {
    match &node.kind {
        Kind::Scalar(scalar) => Some(PathBuf::from(scalar.text.as_str())),
        _ => None,
    }
}

/// Applies the settings of `root`, and returns the problems.
pub(super) fn apply_node(name: &Arc<str>, root: &Node, base: &Path, settings: &mut Settings) -> Vec<Problem> {
    let (raw, mut errors): (Raw, _) = node::read(root, base, |member| page(member).is_some());
    errors.extend(raw.apply(settings));
    if errors.is_empty() {
        return Vec::new();
    }
    let schema = schema::schema();
    errors.iter().map(|error| problem(name, error, &schema)).collect()
}

fn page(section: &str) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == section).map(|(_, page)| *page)
}

/// The problem that reports an error. The help for a setting is its description in the JSON Schema.
fn problem(file: &Arc<str>, error: &NodeError, schema: &Schema) -> Problem {
    let place = error.place.unwrap_or_default();
    let members = || {
        error.path.iter().filter_map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            Step::Item(_) => None,
        })
    };
    let first = members().next().unwrap_or_default();
    if let Some(page) = page(first) {
        let message = format!("`{first}`: {error}");
        return Problem::error(ProblemCode::InvalidValue, file, place, message).with_help(page);
    }
    let setting = members().collect::<Vec<_>>().join(".");
    let (code, message, help) = match &error.fault {
        Fault::UnknownMember { name, known } => {
            let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`? "));
            let help = format!("{}there are {}", near.unwrap_or_default(), listed(known));
            (ProblemCode::UnknownField, format!("there is no setting `{}` here", name.escape_debug()), help)
        }
        Fault::NotAMapping { known } => {
            let what = if setting.is_empty() { "a config file" } else { &setting };
            (ProblemCode::WrongType, format!("`{what}` is a mapping of settings"), format!("write {}", listed(known)))
        }
        Fault::Null => {
            let help = "give it a value, or remove the key".to_owned();
            (ProblemCode::NullValue, format!("`{setting}` has no value"), help)
        }
        _ => {
            let help = schema::description(schema, members()).unwrap_or_default();
            (ProblemCode::InvalidValue, format!("`{setting}`: {}", brief(error)), help)
        }
    };
    Problem::error(code, file, place, message).with_help(help)
}

/// The error of a scalar, without its setting and its place.
pub(super) fn brief(error: &NodeError) -> String {
    match &error.fault {
        Fault::Expected(expected) => format!("expected {expected}"),
        Fault::UnknownVariant { known, .. } => format!("expected {}", known.join(" or ")),
        _ => error.to_string(),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
