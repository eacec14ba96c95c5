//! What all declarations have in common: known keys, and values that are names, texts, lists, switches or instants.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::model::{NameError, Timestamp, check_name};
use crate::policy::problem::{Problem, ProblemCode, nearest};
use crate::policy::syntax::{Located, Name, Place};
use crate::policy::yaml::{Key, Kind, MAX_KEPT_PROBLEMS, Node, Scalar, Style};

use super::synonyms::synonym;

/// The problems found so far. Shared, since every part of a declaration adds to them.
pub(super) struct Findings {
    file: Arc<str>,
    problems: RefCell<Vec<Problem>>,
    found: Cell<usize>,
}

impl Findings {
    pub(super) fn new(file: &Arc<str>, problems: Vec<Problem>) -> Self {
        let found = Cell::new(problems.len());
        Self { file: Arc::clone(file), problems: RefCell::new(problems), found }
    }

    pub(super) fn error(&self, code: ProblemCode, place: Place, message: impl Into<String>) -> Finding<'_> {
        self.add(Problem::error(code, &self.file, place, message))
    }

    pub(super) fn warning(&self, code: ProblemCode, place: Place, message: impl Into<String>) -> Finding<'_> {
        self.add(Problem::warning(code, &self.file, place, message))
    }

    fn add(&self, problem: Problem) -> Finding<'_> {
        Finding { findings: self, problem: Some(problem) }
    }

    /// Whether what is found from now on is only counted.
    pub(super) fn is_full(&self) -> bool {
        self.found.get() >= MAX_KEPT_PROBLEMS
    }

    /// How many were found, and those of them that were kept.
    pub(super) fn into_problems(self) -> (usize, Vec<Problem>) {
        (self.found.get(), self.problems.into_inner())
    }
}

/// A problem on its way to the others; it gets there when dropped.
pub(super) struct Finding<'a> {
    findings: &'a Findings,
    problem: Option<Problem>,
}

impl Finding<'_> {
    /// Adds the way out.
    pub(super) fn help(mut self, help: impl Into<String>) {
        self.problem = self.problem.take().map(|problem| problem.with_help(help));
    }
}

impl Drop for Finding<'_> {
    fn drop(&mut self) {
        let found = self.findings.found.get();
        self.findings.found.set(found + 1);
        if let Some(problem) = self.problem.take().filter(|_| found < MAX_KEPT_PROBLEMS) {
            self.findings.problems.borrow_mut().push(problem);
        }
    }
}

/// Where `*` may stand in a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wildcard {
    /// Nowhere.
    Never,
    /// Alone, for every one of the kind.
    All,
    /// Alone, and within names as a pattern.
    Pattern,
}

/// The keys and values of one declaration.
pub(super) struct Fields<'a> {
    pub(super) findings: &'a Findings,
    pub(super) place: Place,
    what: &'static str,
    entries: &'a [(Key, Node)],
    /// The known keys that the unknown ones were probably meant to be.
    guesses: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `what`, which knows the keys `known`; `None` where `node` is no mapping.
    pub(super) fn of(
        node: &'a Node,
        what: &'static str,
        known: &[&'static str],
        findings: &'a Findings,
    ) -> Option<Self> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("expected {what}, found {}", describe(node));
            let code = if node.kind == Kind::Null { ProblemCode::NullValue } else { ProblemCode::WrongType };
            findings.error(code, node.place, message).help(form(node, known));
            return None;
        };
        let mut fields = Self { findings, place: node.place, what, entries, guesses: Vec::new() };
        fields.refuse_unknown(known);
        Some(fields)
    }

    /// The sections of a file.
    pub(super) fn of_file(node: &'a Node, known: &[&'static str], findings: &'a Findings) -> Option<Self> {
        if matches!(node.kind, Kind::Mapping(_)) {
            return Self::of(node, "a file", known, findings);
        }
        let message = format!("expected sections such as `authz_rules:`, found {}", describe(node));
        let help = format!("a file holds {}", listed(known));
        findings.error(ProblemCode::WrongType, node.place, message).help(help);
        None
    }

    fn refuse_unknown(&mut self, known: &[&'static str]) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            // Looking for near names takes time.
            if self.findings.is_full() {
                return;
            }
            let message = format!("{} has no `{}`", self.what, shortened(&key.text));
            let near = synonym(&key.text, known).or_else(|| nearest(&key.text, known.iter().copied()));
            self.guesses.extend(near);
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let help = match (self.what, key.text.as_str()) {
                ("a file", "tests") => "tests stand in a file of their own, whose name ends in `_test.yaml`".to_owned(),
                ("a limit", "rpm") => "write `rate: { requests: 60, every: minute }`".to_owned(),
                ("a limit", "tpm") => "write `rate: { tokens: 100000, every: minute }`".to_owned(),
                ("a limit", "carry_over") => "`carry_over` stands inside of `budget`".to_owned(),
                (
                    "a limit",
                    "every" | "rolling" | "timezone" | "starts_on" | "burst" | "usd" | "tokens" | "requests",
                ) => {
                    let inside = if matches!(key.text.as_str(), "burst" | "requests") { "rate" } else { "budget" };
                    format!("`{}` stands inside of `{inside}`, as in `{inside}: {{ {}: … }}`", key.text, key.text)
                }
                _ => format!("{near}{} has {}", self.what, listed(known)),
            };
            self.findings.error(ProblemCode::UnknownField, key.place, message).help(help);
        }
    }

    pub(super) fn entry(&self, name: &str) -> Option<(&'a Key, &'a Node)> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
    }

    /// Whether the key is there, or another was probably meant to be it.
    pub(super) fn is_meant(&self, name: &str) -> bool {
        self.has(name) || self.guesses.contains(&name)
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The value of a key, if it is there; that it is null is reported.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        let (key, node) = self.entry(name)?;
        self.findings.value(key, node)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, name: &str) -> Option<&'a Node> {
        if !self.is_meant(name) {
            let message = format!("{} needs `{name}`", self.what);
            self.findings.error(ProblemCode::MissingField, self.place, message).help(format!("add `{name}:`"));
        }
        self.get(name)
    }

    /// The id that a declaration is known by.
    pub(super) fn id(&self, field: &str) -> Option<Name> {
        let node = self.required(field)?;
        self.findings.name(node, Wildcard::Never, || "an id is one name and stands for nothing else".to_owned())
    }

    /// One name that may be left out.
    pub(super) fn name(&self, field: &str) -> Option<Name> {
        let node = self.get(field)?;
        self.findings.name(node, Wildcard::Never, || format!("name one; `{field}` takes no wildcard"))
    }

    /// A short text that may be left out.
    pub(super) fn text(&self, field: &str) -> Option<SmolStr> {
        let node = self.get(field)?;
        let scalar = self.findings.scalar(node, "a text")?;
        self.findings.checked(&scalar.text, node.place)
    }

    /// A list of names; empty where the key is not there.
    pub(super) fn names(&self, field: &str, wildcard: Wildcard) -> Box<[Name]> {
        self.get(field).map(|node| self.findings.names(node, field, wildcard)).unwrap_or_default()
    }

    /// `true` or `false`.
    pub(super) fn switch(&self, field: &str) -> Option<bool> {
        let node = self.get(field)?;
        let plain = match &node.kind {
            Kind::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.as_str(),
            _ => "",
        };
        let (found, help) = match plain {
            "true" | "True" | "TRUE" => return Some(true),
            "false" | "False" | "FALSE" => return Some(false),
            "" => (describe(node).to_owned(), "write `true` or `false`, without quotes"),
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => (format!("`{plain}`"), "write `true`"),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => (format!("`{plain}`"), "write `false`"),
            _ => (format!("`{}`", shortened(plain)), "write `true` or `false`"),
        };
        let message = format!("`{field}` is true or false, found {found}");
        self.findings.error(ProblemCode::WrongType, node.place, message).help(help);
        None
    }

    /// An instant as RFC 3339 writes it.
    pub(super) fn instant(&self, field: &str) -> Option<Timestamp> {
        let node = self.get(field)?;
        let scalar = self.findings.scalar(node, "a date and time")?;
        let instant = Some(&scalar.text).filter(|text| has_rfc3339_form(text)).and_then(|text| Timestamp::parse(text));
        if instant.is_none() {
            let message = format!("`{}` is no date and time", shortened(&scalar.text));
            let help = "write it as RFC 3339 with its offset: `2027-01-01T00:00:00Z`, `2027-01-01T00:00:00+01:00`";
            self.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
        }
        instant
    }

    /// Texts by name; numbers are taken as they are written.
    pub(super) fn metadata(&self) -> Box<[(SmolStr, SmolStr)]> {
        let Some(node) = self.get("metadata") else { return Box::default() };
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("`metadata` is a mapping of texts, found {}", describe(node));
            self.findings.error(ProblemCode::WrongType, node.place, message).help("write `{ region: eu }`");
            return Box::default();
        };
        let text = |(key, node): &(Key, Node)| {
            let value = self.findings.scalar(self.findings.value(key, node)?, "a text")?;
            self.findings.checked(&key.text, key.place)?;
            Some((key.text.clone(), value.text.clone()))
        };
        entries.iter().filter_map(text).collect()
    }
}

impl Findings {
    /// The value of `key`, which must not be null.
    fn value<'a>(&self, key: &Key, node: &'a Node) -> Option<&'a Node> {
        if node.kind != Kind::Null {
            return Some(node);
        }
        let place = if node.place.length == 0 { key.place } else { node.place };
        let message = format!("`{}` has no value", shortened(&key.text));
        self.error(ProblemCode::NullValue, place, message).help("give it a value, or remove the key");
        None
    }

    /// The names of a list; each once.
    pub(super) fn names(&self, node: &Node, field: &str, wildcard: Wildcard) -> Box<[Name]> {
        if let Some(all) = self.every(node, field, wildcard) {
            return all;
        }
        let Some(items) = self.list(node, field, "names") else { return Box::default() };
        let mut names: Vec<Name> = Vec::with_capacity(items.len());
        let mut seen = Seen::default();
        for item in items {
            let way_out = || wildcard_help(field, wildcard);
            let Some(name) = self.name(item, wildcard, way_out) else { continue };
            match seen.line_of(&name, &names) {
                None => names.push(name),
                Some(line) => {
                    let message = format!("`{}` stands in this list twice", name.value);
                    let help = format!("it stands first in line {line}; remove one of the two");
                    self.warning(ProblemCode::DuplicateName, name.place, message).help(help);
                }
            }
        }
        names.into()
    }

    /// `"*"` or `["*"]`, every one of a kind; `None` for anything else.
    fn every(&self, node: &Node, field: &str, wildcard: Wildcard) -> Option<Box<[Name]>> {
        let item = match &node.kind {
            Kind::Sequence(items) if items.len() == 1 => items.first()?,
            _ => node,
        };
        let Kind::Scalar(Scalar { text, .. }) = &item.kind else { return None };
        if text != "*" {
            return None;
        }
        if wildcard == Wildcard::Never {
            let message = format!("`{field}` takes no `*`");
            self.error(ProblemCode::WildcardNotAllowed, item.place, message).help(wildcard_help(field, wildcard));
            return Some(Box::default());
        }
        Some(Box::new([Located::new(text.clone(), item.place)]))
    }

    /// The items of a list of `what`; `None` where `node` is no list.
    pub(super) fn list<'a>(&self, node: &'a Node, field: &str, what: &str) -> Option<&'a [Node]> {
        match &node.kind {
            Kind::Sequence(items) if items.is_empty() => {
                let message = format!("`{field}` is an empty list");
                let help = "an empty list says neither all nor none: name what is meant, or remove the key";
                self.error(ProblemCode::EmptyList, node.place, message).help(help);
                None
            }
            Kind::Sequence(items) => Some(items),
            Kind::Null => None,
            kind => {
                let message = format!("`{field}` is a list of {what}, found {}", describe(node));
                let help = match kind {
                    Kind::Scalar(scalar) if matches!(what, "names" | "percents") => {
                        format!("write `{field}: [{}]`", shortened(&scalar.text))
                    }
                    _ => format!("begin each of the {what} with `- `"),
                };
                self.error(ProblemCode::WrongType, node.place, message).help(help);
                None
            }
        }
    }

    /// One name; `way_out` says what to do about a `*` that may not stand there.
    pub(super) fn name(&self, node: &Node, wildcard: Wildcard, way_out: impl Fn() -> String) -> Option<Name> {
        let scalar = self.scalar(node, "a name")?;
        if scalar.style == Style::PlainLines {
            let message = format!("the name `{}` goes over several lines", shortened(&scalar.text));
            let help = "put each name on a line of its own, in the same column; quote a name that holds spaces";
            self.error(ProblemCode::InvalidName, node.place, message).help(help);
            return None;
        }
        let text = self.checked(&scalar.text, node.place)?;
        if text.contains('*') && (wildcard != Wildcard::Pattern || text == "*") {
            let message = match (text.as_str(), wildcard) {
                ("*", Wildcard::Never) => "`*` may not stand here".to_owned(),
                ("*", _) => "`*` stands for every one, so it stands alone".to_owned(),
                _ => format!("`{}` holds a `*`, which is no pattern here", shortened(&text)),
            };
            self.error(ProblemCode::WildcardNotAllowed, node.place, message).help(way_out());
            return None;
        }
        Some(Located::new(text, node.place))
    }

    /// A text that may be a name: not empty, and nothing in it that a reader cannot see.
    pub(super) fn checked(&self, text: &SmolStr, place: Place) -> Option<SmolStr> {
        match check_name(text) {
            Ok(()) => Some(text.clone()),
            Err(error) => {
                let help = match error {
                    NameError::Empty => "name what is meant, or remove it",
                    NameError::TooLong { .. } => "shorten it",
                    NameError::Segment => "name the model as its account does",
                    NameError::Character { .. } => {
                        "type the name anew; characters that cannot be seen often come along when text is copied"
                    }
                };
                self.error(ProblemCode::InvalidName, place, error.to_string()).help(help);
                None
            }
        }
    }

    /// A scalar, where `what` is expected.
    pub(super) fn scalar<'a>(&self, node: &'a Node, what: &str) -> Option<&'a Scalar> {
        let code = match &node.kind {
            Kind::Scalar(scalar) => return Some(scalar),
            Kind::Null => ProblemCode::NullValue,
            Kind::Sequence(_) | Kind::Mapping(_) => ProblemCode::WrongType,
        };
        let help = match &node.kind {
            Kind::Null if node.place.length > 0 && what == "a name" => {
                format!("write {what}; put it in quotes if it is really called so")
            }
            Kind::Mapping(_) => format!("write {what}; put a text that holds `: ` in quotes"),
            Kind::Sequence(_) => format!("write {what}, without brackets and without `- `"),
            _ => format!("write {what}, or remove the item"),
        };
        self.error(code, node.place, format!("expected {what}, found {}", describe(node))).help(help);
        None
    }
}

/// Which names of a list have come already. Most lists are short, and are looked through.
#[derive(Default)]
struct Seen {
    lines: HashMap<SmolStr, u32>,
}

impl Seen {
    /// The line of `name` among `names`.
    fn line_of(&mut self, name: &Name, names: &[Name]) -> Option<u32> {
        const FEW: usize = 16;
        if names.len() < FEW {
            return names.iter().find(|known| known.value == name.value).map(|known| known.place.line);
        }
        let new = names.get(self.lines.len()..).unwrap_or_default();
        self.lines.extend(new.iter().map(|known| (known.value.clone(), known.place.line)));
        self.lines.get(&name.value).copied()
    }
}

/// The declarations of a section.
pub(super) fn items<T>(fields: &Fields, section: &str, read: impl Fn(&Node, &Findings) -> Option<T>) -> Vec<T> {
    let Some(node) = fields.get(section) else { return Vec::new() };
    let list = fields.findings.list(node, section, "declarations").unwrap_or_default();
    list.iter().take_while(|_| !fields.findings.is_full()).filter_map(|item| read(item, fields.findings)).collect()
}

pub(super) fn describe(node: &Node) -> &'static str {
    match &node.kind {
        Kind::Null => "nothing",
        Kind::Scalar(Scalar { style: Style::Quoted, .. }) => "a text in quotes",
        Kind::Scalar(_) => "a text",
        Kind::Sequence(_) => "a list",
        Kind::Mapping(_) => "a mapping",
    }
}

/// How a declaration is written, for one who wrote something else.
fn form(node: &Node, known: &[&str]) -> String {
    match (&node.kind, known.first()) {
        (Kind::Scalar(scalar), Some(&first @ ("id" | "name"))) if !known.contains(&"effect") => {
            format!("write `{first}: {}`", shortened(&scalar.text))
        }
        _ => format!("write a mapping of {}", listed(known)),
    }
}

fn wildcard_help(field: &str, wildcard: Wildcard) -> String {
    match (field, wildcard) {
        (_, Wildcard::All) => format!("write `{field}: \"*\"` for every one, or list names without `*`"),
        (_, Wildcard::Pattern) => {
            format!("write `{field}: \"*\"` for every one, or list names and patterns such as `account/*`")
        }
        ("actions", _) => "leave `actions` out for every action of `use`, or list actions".to_owned(),
        ("tags" | "roles" | "model_tags", _) => format!("list {field}; leave the key out where none is asked for"),
        _ => format!("list {field} by name; only users, services, keys, models and routers take `*`"),
    }
}

pub(super) fn listed(known: &[&str]) -> String {
    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// `text` cut to what a message may hold.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// Whether the text has the form `2027-01-01T00:00:00Z`; whether it is an instant too is for the calendar to say.
fn has_rfc3339_form(text: &str) -> bool {
    let shape: String =
        text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let rest = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with('0') => fraction.trim_start_matches('0'),
        Some(_) => return false,
        // An offset begins with a sign, so no digit is lost here.
        None => rest,
    };
    matches!(rest, "Z" | "+00:00" | "-00:00")
}
