//! `tollgate.yaml`: read as bundles are, so that what is wrong with it is told with its line, all of it at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Settings;
use super::sections::SECTIONS;
use super::table::{ENTRIES, Entry};
use crate::policy::problem::{Problem, ProblemCode, nearest};
use crate::policy::syntax::Place;
use crate::policy::yaml::{self, Key, Kind, Node, Style};

/// Applies `text` to `settings`; its paths are relative to `base`. Returns the problems, and `data` as it is written.
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
    let mut reader = Reader { name, base, settings, data: None, problems: reading.problems };
    if let Some(root) = &reading.root {
        reader.section("", root);
    }
    let (mut problems, data) = (reader.problems, reader.data);
    crate::policy::excerpt::fill(&mut problems, text);
    crate::policy::report::sorted(&mut problems);
    (problems, data)
}

struct Reader<'a> {
    name: &'a Arc<str>,
    base: &'a Path,
    settings: &'a mut Settings,
    data: Option<PathBuf>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn error(&mut self, code: ProblemCode, place: Place, message: String, help: String) {
        self.problems.push(Problem::error(code, self.name, place, message).with_help(help));
    }

    /// The settings whose names begin with `section`.
    fn section(&mut self, section: &str, node: &Node) {
        let Kind::Mapping(members) = &node.kind else {
            let what = if section.is_empty() { "a config file" } else { section };
            let help = format!("write {}", listed(section));
            return self.error(ProblemCode::WrongType, node.place, format!("`{what}` is a mapping of settings"), help);
        };
        for (key, node) in members {
            let name = if section.is_empty() { key.text.to_string() } else { format!("{section}.{}", key.text) };
            if let Some(section) = SECTIONS.iter().find(|section| section.name == name) {
                self.problems.extend(section.apply(self.name, node, self.base, self.settings).err());
            } else if let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) {
                self.value(entry, key, node);
            } else if ENTRIES
                .iter()
                .any(|entry| entry.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')))
            {
                self.section(&name, node);
            } else {
                self.unknown(section, key);
            }
        }
    }

    fn unknown(&mut self, section: &str, key: &Key) {
        let near = nearest(&key.text, names(section));
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let message = format!("there is no setting `{}` here", key.text.escape_debug());
        self.error(ProblemCode::UnknownField, key.place, message, format!("{near}there are {}", listed(section)));
    }

    fn value(&mut self, entry: &Entry, key: &Key, node: &Node) {
        match (&node.kind, entry.field.is_list()) {
            (Kind::Sequence(items), true) => items.iter().for_each(|item| self.scalar(entry, item)),
            (Kind::Scalar(_), false) => self.scalar(entry, node),
            (Kind::Null, _) => {
                let place = if node.place.length == 0 { key.place } else { node.place };
                let message = format!("`{}` has no value", entry.name);
                self.error(ProblemCode::NullValue, place, message, "give it a value, or remove the key".to_owned());
            }
            _ => self.wrong(entry, node.place, &entry.field.expected()),
        }
    }

    fn scalar(&mut self, entry: &Entry, node: &Node) {
        let Kind::Scalar(scalar) = &node.kind else {
            return self.wrong(entry, node.place, &entry.field.expected());
        };
        // In quotes, `"true"` and `"1"` are texts, as anywhere in YAML.
        let quoted = scalar.style == Style::Quoted && entry.field.is_plain();
        let taken = if quoted { Err(entry.field.expected()) } else { entry.field.set(self.settings, &scalar.text) };
        match taken {
            Err(message) => self.wrong(entry, node.place, &message),
            Ok(()) => {
                if entry.name == "data" {
                    self.data = Some(PathBuf::from(scalar.text.as_str()));
                }
                entry.field.resolve(self.settings, self.base);
            }
        }
    }

    fn wrong(&mut self, entry: &Entry, place: Place, message: &str) {
        let about = entry.about.to_owned();
        self.error(ProblemCode::InvalidValue, place, format!("`{}`: {message}", entry.name), about);
    }
}

/// The keys of a section, each once.
fn names(section: &str) -> Vec<&'static str> {
    let within = |entry: &Entry| {
        let rest = if section.is_empty() { entry.name } else { entry.name.strip_prefix(section)?.strip_prefix('.')? };
        rest.split('.').next()
    };
    let mut names: Vec<&'static str> = ENTRIES.iter().filter_map(within).collect();
    if section.is_empty() {
        names.extend(SECTIONS.iter().map(|section| section.name));
    }
    names.dedup();
    names
}

fn listed(section: &str) -> String {
    names(section).iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
