//! Ids of rules, of which each is there once in a bundle.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smol_str::{SmolStr, format_smolstr};

use super::{Files, ParsedFile};
use crate::policy::index::number;
use crate::policy::native::NativeFile;
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::syntax::{Place, RuleDeclaration};

/// A file with rules.
enum RuleFile<'a> {
    Yaml(&'a ParsedFile),
    Cedar(&'a NativeFile),
}

impl RuleFile<'_> {
    fn path(&self) -> &Arc<str> {
        match self {
            Self::Yaml(file) => &file.path,
            Self::Cedar(file) => &file.path,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Yaml(file) => file.document.rules.len(),
            Self::Cedar(file) => file.policies.len(),
        }
    }

    fn id(&self, position: usize) -> Option<(SmolStr, Place)> {
        Some(match self {
            Self::Yaml(file) => {
                let rule = file.document.rules.get(position)?;
                (id_of(rule, position, &file.path), rule.id.as_ref().map_or(rule.place, |id| id.place))
            }
            Self::Cedar(file) => {
                let policy = file.policies.get(position)?;
                (policy.id.clone(), policy.place)
            }
        })
    }
}

/// The id of the rule in this position of the file at `path`.
pub(super) fn id_of(rule: &RuleDeclaration, position: usize, path: &str) -> SmolStr {
    let stem = || path.strip_suffix(".yaml").or_else(|| path.strip_suffix(".yml")).unwrap_or(path);
    rule.id.as_ref().map_or_else(|| format_smolstr!("{}#{}", stem(), position + 1), |id| id.value.clone())
}

/// A problem for each rule with the id of another before it.
pub(super) fn given_twice(files: &Files) -> Vec<Problem> {
    let yaml = files.documents.iter().map(|file| RuleFile::Yaml(file));
    let files: Vec<RuleFile<'_>> = yaml.chain(files.policies.iter().map(|file| RuleFile::Cedar(file))).collect();
    let hasher = RandomState::default();
    // By hash, file and position: a table of the ids themselves would hold each a second time.
    let mut known: HashTable<(u64, u32, u32)> = HashTable::with_capacity(files.iter().map(RuleFile::len).sum());
    let mut found = Vec::new();
    for (file_number, file) in files.iter().enumerate() {
        for position in 0..file.len() {
            let Some((id, place)) = file.id(position) else { continue };
            let hash = hasher.hash_one(&id);
            let this = (hash, number(file_number), number(position));
            let other = |(_, file, position): &(u64, u32, u32)| {
                let file = files.get(*file as usize)?;
                let (id, place) = file.id(*position as usize)?;
                Some((id, place, file.path()))
            };
            let same = |known: &(u64, u32, u32)| known.0 == hash && other(known).is_some_and(|(other, ..)| other == id);
            match known.entry(hash, same, |(hash, ..)| *hash) {
                Entry::Vacant(slot) => drop(slot.insert(this)),
                Entry::Occupied(mut slot) => {
                    if let Some((_, Place { line, .. }, path)) = other(slot.get()) {
                        let message = format!("two rules are called `{id}`");
                        let help = format!("the other one is at {path}:{line}; give one of them another id");
                        let problem = Problem::error(ProblemCode::DuplicateId, file.path(), place, message);
                        found.push(problem.with_help(help));
                    }
                    *slot.get_mut() = this;
                }
            }
        }
    }
    found
}
