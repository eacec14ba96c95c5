//! A YAML file becomes a syntax tree: every value with its place, and every mistake that the file alone shows.
//!
//! What takes the whole bundle to know (whether a team is declared, an id comes twice) is for the next step. A value
//! that is wrong is reported and left out, so that the rest of its declaration is still looked at.

mod amounts;
mod fields;
mod limits;
mod measures;
mod models;
mod people;
mod prices;
mod rules;
mod synonyms;

use std::sync::Arc;

use super::bundle::SourceFile;
use super::excerpt;
use super::problem::{Problem, ProblemCode};
use super::report::sorted;
use super::syntax::{Document, Place};
use super::yaml::{self, Node};
use crate::model::KeyLimit;
use fields::{Fields, Findings, items};

/// How many problems of one file are shown.
const MAX_PROBLEMS: usize = 200;

/// A file, parsed.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// What it says, as far as it could be understood.
    pub document: Document,
    /// What is wrong with it, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Parses a YAML file of a bundle; not a test.
#[must_use]
pub fn parse(file: &SourceFile) -> Parsed {
    let path = &file.path;
    let text = match std::str::from_utf8(&file.bytes) {
        Ok(text) => text,
        Err(error) => {
            let problem = not_utf8(path, &file.bytes, error.valid_up_to());
            return Parsed { document: Document::default(), problems: vec![problem] };
        }
    };
    let reading = yaml::read(path, text);
    let findings = Findings::new(path, reading.problems);
    let document = reading.root.map_or_else(Document::default, |root| document(&root, &findings));
    Parsed { document, problems: shown(findings, path, text) }
}

/// Reads the limits of the key `key`: a list, in YAML or JSON, of limits as a bundle has them, without the selectors.
///
/// # Errors
/// What is wrong with the first that is.
pub fn key_limits(key: &str, text: &str) -> Result<Vec<KeyLimit>, String> {
    let name: Arc<str> = "limits".into();
    let reading = yaml::read(&name, text);
    let findings = Findings::new(&name, reading.problems);
    let list = |root| Some((root, findings.list(root, "limits", "limits")?));
    let list = reading.root.as_ref().and_then(list);
    let limits = list.map(|(list, nodes)| limits::all_of_key(list, nodes, key, &findings)).unwrap_or_default();
    let (_, problems) = findings.into_problems();
    match problems.into_iter().find(Problem::is_error) {
        Some(problem) => {
            let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
            Err(format!("{}{help}", problem.message))
        }
        None => Ok(limits.into_iter().map(|(_, limit)| limit).collect()),
    }
}

/// The keys of a policy file.
pub(super) const SECTIONS: &[&str] = &[
    "orgs",
    "teams",
    "users",
    "services",
    "keys",
    "provider_accounts",
    "model_groups",
    "routers",
    "authz_rules",
    "limits",
];

fn document(root: &Node, findings: &Findings) -> Document {
    let Some(fields) = Fields::of_file(root, SECTIONS, findings) else { return Document::default() };
    let (keys, of_keys): (Vec<_>, Vec<_>) = items(&fields, "keys", people::key).into_iter().unzip();
    let mut limits = items(&fields, "limits", limits::limit);
    limits.extend(of_keys.into_iter().flatten());
    Document {
        orgs: items(&fields, "orgs", people::org),
        teams: items(&fields, "teams", people::team),
        users: items(&fields, "users", |node, findings| people::member(node, "a user", findings)),
        services: items(&fields, "services", |node, findings| people::member(node, "a service", findings)),
        keys,
        provider_accounts: items(&fields, "provider_accounts", models::account),
        model_groups: items(&fields, "model_groups", |node, findings| models::models(node, "a model group", findings)),
        routers: items(&fields, "routers", |node, findings| models::models(node, "a router", findings)),
        rules: items(&fields, "authz_rules", rules::rule),
        limits,
    }
}

/// The problems in order, each with its line; not more of them than someone reads.
fn shown(findings: Findings, path: &Arc<str>, text: &str) -> Vec<Problem> {
    let (found, mut problems) = findings.into_problems();
    sorted(&mut problems);
    // What stands behind an alias was looked at once for each time it is used.
    let kept = problems.len();
    problems.dedup();
    let found = found - (kept - problems.len());
    // Past that limit not all of the file was looked at.
    let least = if kept >= yaml::MAX_KEPT_PROBLEMS { "at least " } else { "" };
    if found > MAX_PROBLEMS {
        problems.truncate(MAX_PROBLEMS);
    }
    if let Some(more) = found.checked_sub(MAX_PROBLEMS).filter(|&more| more > 0) {
        let place = problems.last().map_or_else(Place::default, |last| Place { length: 0, ..last.place });
        let message = format!("{least}{more} more problems are not shown");
        let problem = Problem::error(ProblemCode::TooManyProblems, path, place, message);
        problems.push(problem.with_help("many of them are often one mistake: mend the first and look again"));
    }
    excerpt::fill(&mut problems, text);
    problems
}

fn not_utf8(path: &Arc<str>, bytes: &[u8], valid: usize) -> Problem {
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
    let line = before.split('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let place = Place { line: count(line), column: count(column).saturating_add(1), length: 1 };
    let message = format!("the byte 0x{byte:02X} is not UTF-8");
    let mut problem = Problem::error(ProblemCode::NotUtf8, path, place, message).with_help("save the file as UTF-8");
    let rest = bytes.get(valid..).unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| valid + end);
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    excerpt::fill(std::slice::from_mut(&mut problem), &text);
    problem
}

/// Every declaration under its name in `schema/rules.schema.json`, with the keys that are read of it.
#[cfg(test)]
fn known_fields() -> [(&'static str, &'static [&'static str]); 22] {
    [
        ("", SECTIONS),
        ("org", people::ORG),
        ("team", people::TEAM),
        ("user", people::MEMBER),
        ("service", people::MEMBER),
        ("membership", people::MEMBERSHIP),
        ("key", people::KEY),
        ("provider_account", models::ACCOUNT),
        ("model", models::MODEL),
        ("price", prices::PRICE),
        ("price_tier", prices::TIER),
        ("model_group", models::MODELS),
        ("router", models::MODELS),
        ("rule", rules::KNOWN),
        ("limit", limits::KNOWN),
        ("key_path", people::PATH),
        ("key_limit", limits::OF_KEY),
        ("budget", measures::BUDGET),
        ("rate", measures::RATE),
        ("override", measures::OVERRIDE),
        ("on_store_error", limits::ON_STORE_ERROR),
        ("lease", limits::LEASE),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::known_fields;

    /// What people's editors know is what the parser reads, no key more and none less.
    #[test]
    fn the_json_schema_has_the_keys_that_are_read() {
        let schema: Value = serde_json::from_str(include_str!("../../schema/rules.schema.json")).unwrap();
        for (name, known) in known_fields() {
            let definition = if name.is_empty() { &schema } else { &schema["$defs"][name] };
            let alternatives = definition["anyOf"].as_array();
            let object = alternatives.and_then(|all| all.iter().find(|one| one["type"] == "object"));
            let object = object.unwrap_or(definition);
            let said: BTreeSet<&str> = object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(said, known.iter().copied().collect(), "{name}");
            assert_eq!(object["additionalProperties"], false, "{name}");
        }
        let known = known_fields();
        let objects = schema["$defs"].as_object().unwrap().iter().filter(|(_, one)| one["properties"].is_object());
        for (name, _) in objects {
            assert!(known.iter().any(|(known, _)| known == name), "`{name}` is nowhere read");
        }
    }
}
