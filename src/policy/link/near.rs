//! "Did you mean": names near to those that nobody declares. Looked for when everything else is linked, one after the
//! other: how many searches there are is bounded for the whole load, and which they are must not depend on which core
//! came first.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::a_kind;
use super::declared::Declared;
use super::labels::Label;
use super::literals::written;
use super::people::Form;
use crate::policy::entities::{EntityStore, Kind};
use crate::policy::problem::{Problem, edit_distance, nearest};

/// Most names that one load looks at in search of near ones: each search looks at every declared name, for 0.3 µs.
const MOST_NEAR_LOOKS: usize = 2_000_000;
/// Most searches for a near name in one load.
const MOST_NEAR_SEARCHES: usize = 200;
/// Shortest name, in characters, of which another one at one edit's distance is near.
const SHORTEST_MISSPELT: usize = 2;

/// Where a near name is looked for, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Near {
    /// Among what is declared of a kind; it takes the place of the help.
    Declared(Kind),
    /// Among what is declared of a kind; without one that is a slip away there is no problem.
    Slip(Kind),
    /// Among resources of a kind by the rest of their names after the container, and aliases; it takes the place of the
    /// help.
    Unqualified(Kind),
    /// A search among labels. A label without a similar one is not a problem.
    Label(Label),
}

/// A problem that a near name would add to.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) near: Near,
    pub(super) form: Form,
    pub(super) name: SmolStr,
    pub(super) problem: Problem,
}

/// A name that may be meant.
#[derive(Debug, Clone)]
enum Found {
    /// A name of the requested kind.
    Same(SmolStr),
    /// A name of another kind that differs only by case.
    Other(Kind, SmolStr),
    /// A label of another sort that differs only by case.
    Labelled(Label, SmolStr),
}

/// The searches of one load.
pub(super) struct Search<'a> {
    declared: &'a Declared,
    /// How many entities there are, declared or not.
    entities: usize,
    searches: usize,
    /// The results so far, since the same name is often misspelt in the same way many times.
    found: HashMap<(Near, SmolStr), Option<Found>, RandomState>,
}

impl<'a> Search<'a> {
    /// Searches through what is declared in `store`.
    pub(super) fn new(declared: &'a Declared, store: &EntityStore) -> Self {
        Self { declared, entities: store.len(), searches: 0, found: HashMap::default() }
    }

    /// The problem with what was found; `None` where without it there is none.
    pub(super) fn problem(&mut self, wanted: &Wanted) -> Option<Problem> {
        let Wanted { near, form, name, problem } = wanted;
        let found = self.found(*near, name);
        let problem = problem.clone();
        match near {
            Near::Slip(kind) => Some(slip(*kind, Mention { form: *form, name }, &found?, problem)),
            Near::Label(label) => Some(label_slip(*label, Mention { form: *form, name }, &found?, problem)),
            Near::Declared(kind) | Near::Unqualified(kind) => Some(match found {
                Some(found) => problem.with_help(meant(*kind, *form, &found)),
                None => problem,
            }),
        }
    }

    fn found(&mut self, near: Near, name: &SmolStr) -> Option<Found> {
        let key = (near, name.clone());
        if let Some(known) = self.found.get(&key) {
            return known.clone();
        }
        let found = if self.may_search() { self.find(near, name) } else { None };
        self.found.insert(key, found.clone());
        found
    }

    /// Whether one more search through all names is not too much. The first is done whatever their number.
    fn may_search(&mut self) -> bool {
        self.searches += 1;
        self.searches <= MOST_NEAR_SEARCHES && (self.searches - 1) * self.entities <= MOST_NEAR_LOOKS
    }

    fn find(&self, near: Near, name: &str) -> Option<Found> {
        let store = &self.declared.store;
        let declared = |kind: Kind| {
            let of_kind = store.iter().filter(move |(_, record)| record.kind == kind && record.declared);
            of_kind.map(|(_, record)| &record.id)
        };
        match near {
            Near::Declared(kind) => {
                let same = nearest(name, declared(kind).map(SmolStr::as_str)).map(|near| Found::Same(near.into()));
                same.or_else(|| self.of_another_kind(kind, name))
            }
            Near::Slip(kind) => {
                let same = a_slip_away(name, declared(kind)).map(Found::Same);
                same.or_else(|| self.of_another_kind(kind, name))
            }
            Near::Label(label) => {
                let same = a_slip_away(name, self.declared.labels.all(label)).map(Found::Same);
                let others = Label::ALL.into_iter().filter(|other| *other != label);
                let other = |label| {
                    let mut all = self.declared.labels.all(label).iter();
                    all.find(|known| folded(known) == folded(name)).map(|known| Found::Labelled(label, known.clone()))
                };
                same.or_else(|| others.into_iter().find_map(other))
            }
            Near::Unqualified(kind) => {
                let same = store.every(kind).filter(|index| {
                    let record = store.record(*index);
                    record.declared && record.id.split_once('/').is_some_and(|(_, rest)| rest == name)
                });
                let found = same.min().map(|index| store.record(index).id.clone()).or_else(|| {
                    let mut known: Vec<&str> = self.declared.aliases.keys().map(SmolStr::as_str).collect();
                    known.sort_unstable();
                    nearest(name, known).map(SmolStr::from)
                });
                found.map(Found::Same)
            }
        }
    }

    /// A name that differs only by case, of another kind that the name could refer to.
    fn of_another_kind(&self, kind: Kind, name: &str) -> Option<Found> {
        let wanted = folded(name);
        let others = kind.confused_with();
        let alike = self.declared.store.iter().filter(|(_, record)| {
            record.declared
                && others.contains(&record.kind)
                && might_be(name, &record.id)
                && folded(&record.id) == wanted
        });
        let nearest = alike.min_by_key(|(_, record)| (record.id != name, record.kind, &record.id));
        nearest.map(|(_, record)| Found::Other(record.kind, record.id.clone()))
    }
}

/// The part of a name that counts in the comparison, without case and without spaces at its ends.
fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// A cheap look before the costly one: names that differ by case and by spaces at their ends alone are about as long.
fn might_be(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim(), other.trim());
    !(one.is_ascii() && other.is_ascii()) || one.len().abs_diff(other.len()) <= 1
}

/// The name among `names` that is not `name` and differs from it by one edit, by case or by spaces at its ends.
fn a_slip_away<'a>(name: &str, names: impl IntoIterator<Item = &'a SmolStr>) -> Option<SmolStr> {
    let wanted = folded(name);
    let long_enough = wanted.chars().count() >= SHORTEST_MISSPELT;
    let distance = |known: &SmolStr| {
        let distance = edit_distance(&folded(known), &wanted);
        (distance <= usize::from(long_enough)).then_some(distance)
    };
    let near = names.into_iter().filter(|known| *known != name && might_be(name, known));
    near.filter_map(|known| Some((distance(known)?, known))).min().map(|(_, known)| known.clone())
}

/// The proposal for a found name.
fn meant(kind: Kind, form: Form, found: &Found) -> String {
    match found {
        Found::Other(other, id) => elsewhere(*other, form, id),
        Found::Same(id) | Found::Labelled(_, id) => format!("did you mean `{}`?", written(form, kind, id)),
    }
}

/// Where a name of another kind would be right.
pub(super) fn elsewhere(kind: Kind, form: Form, id: &str) -> String {
    let (what, section) = (a_kind(kind), kind.section());
    match form {
        Form::List => format!("there is {what} `{id}`: write it under `{section}:` if that is meant"),
        Form::Literal => format!("there is {what} `{id}`: write `{}` if that is meant", written(form, kind, id)),
    }
}

/// A name as it stands in a file.
#[derive(Clone, Copy)]
struct Mention<'a> {
    form: Form,
    name: &'a SmolStr,
}

fn slip(kind: Kind, mention: Mention<'_>, found: &Found, problem: Problem) -> Problem {
    let Mention { form, name } = mention;
    let (what, section) = (kind.noun(), kind.section());
    let declare = format!("declare `{name}` under `{section}:`");
    let (near, help) = match found {
        Found::Other(other, id) => {
            (format!("{} `{id}`", a_kind(*other)), format!("{}, or {declare}", elsewhere(*other, form, id)))
        }
        Found::Same(id) | Found::Labelled(_, id) => {
            (format!("`{id}`"), format!("write `{}` if that is meant, or {declare}", written(form, kind, id)))
        }
    };
    let message = format!("no {what} is called `{name}`, but there is {near}");
    Problem { message, ..problem.with_help(help) }
}

fn label_slip(label: Label, mention: Mention<'_>, found: &Found, problem: Problem) -> Problem {
    let Mention { form, name } = mention;
    let (near, help) = match found {
        Found::Labelled(other, known) => (
            format!("a {} `{known}`", other.word()),
            match form {
                Form::List => {
                    format!("write it under `{}:` if that is meant; names are compared exactly", other.field())
                }
                Form::Literal => {
                    format!("look for it in `{}` if that is meant; names are compared exactly", other.attribute())
                }
            },
        ),
        Found::Same(known) | Found::Other(_, known) => {
            (format!("`{known}`"), format!("write `{known}` if that is meant; names are compared exactly"))
        }
    };
    let message = format!("{} `{name}`, but there is {near}", label.nothing_has());
    Problem { message, ..problem.with_help(help) }
}
