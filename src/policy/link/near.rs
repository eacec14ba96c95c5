//! "Did you mean": names near to those that nobody declares. Looked for when everything else is linked, one after the
//! other: how many searches there are is bounded for the whole load, and which they are must not depend on which core
//! came first.

use smol_str::SmolStr;

use super::declared::Declared;
use super::kind_words;
use crate::policy::entities::{EntityStore, Kind};
use crate::policy::problem::{Problem, edit_distance, nearest};

/// Most names that one load looks at in search of near ones: each search looks at every declared name, for 0.3 µs.
const MOST_NEAR_LOOKS: usize = 2_000_000;
/// Most searches for a near name in one load.
const MOST_NEAR_SEARCHES: usize = 200;

/// Where a near name is looked for, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Near {
    /// Among what is declared of a kind; it takes the place of the help.
    Declared(Kind),
    /// Among what is declared of a kind; without one that is a slip away there is no problem.
    Slip(Kind),
    /// Among models by the name in their account, and aliases; it takes the place of the help.
    Model,
}

/// A problem that a near name would add to.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) near: Near,
    pub(super) name: SmolStr,
    pub(super) problem: Problem,
}

/// The searches of one load.
pub(super) struct Search<'a> {
    declared: &'a Declared,
    /// How many entities there are, declared or not.
    entities: usize,
    searches: usize,
}

impl<'a> Search<'a> {
    /// Searches through what is declared in `store`.
    pub(super) fn new(declared: &'a Declared, store: &EntityStore) -> Self {
        Self { declared, entities: store.len(), searches: 0 }
    }

    /// The problem with what was found; `None` where without it there is none.
    pub(super) fn problem(&mut self, wanted: &Wanted) -> Option<Problem> {
        let Wanted { near, name, problem } = wanted;
        let found = if self.may_search() { self.find(*near, name) } else { None };
        let problem = problem.clone();
        if let Near::Slip(kind) = near {
            let near = found.filter(|near| edit_distance(near, name) == 1)?;
            let (what, section) = kind_words(*kind);
            let help = format!("write `{near}` if that is meant, or declare `{name}` under `{section}:`");
            let message = format!("no {what} is called `{name}`, but there is `{near}`");
            return Some(Problem { message, ..problem.with_help(help) });
        }
        Some(match found {
            Some(near) => problem.with_help(format!("did you mean `{near}`?")),
            None => problem,
        })
    }

    /// Whether one more search through all names is not too much. The first is done whatever their number.
    fn may_search(&mut self) -> bool {
        self.searches += 1;
        self.searches <= MOST_NEAR_SEARCHES && (self.searches - 1) * self.entities <= MOST_NEAR_LOOKS
    }

    fn find(&self, near: Near, name: &str) -> Option<SmolStr> {
        let store = &self.declared.store;
        match near {
            Near::Declared(kind) | Near::Slip(kind) => {
                let declared = store.iter().filter(|(_, record)| record.kind == kind && record.declared);
                nearest(name, declared.map(|(_, record)| record.id.as_str())).map(SmolStr::from)
            }
            Near::Model => {
                let same = store.models(None).filter(|index| {
                    let record = store.record(*index);
                    record.declared && record.id.split_once('/').is_some_and(|(_, rest)| rest == name)
                });
                same.min().map(|index| store.record(index).id.clone()).or_else(|| {
                    let mut known: Vec<&str> = self.declared.aliases.keys().map(SmolStr::as_str).collect();
                    known.sort_unstable();
                    nearest(name, known).map(SmolStr::from)
                })
            }
        }
    }
}
