//! What a reload takes over from the snapshot before it.
//!
//! The rule: what files declare is taken over where every file declares the same as before; and then the rules of each
//! file that is the same as before are copied as they were linked. Anything else is linked.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::declared::Declared;
use super::merge::{Renumbered, Source};
use super::near::{Search, Wanted};
use super::{Files, Linked, Linker, ParsedFile, Tools, ids};
use crate::policy::entities::EntityIndex;
use crate::policy::index::Scopes;
use crate::policy::native::NativeFile;
use crate::policy::parallel;
use crate::policy::problem::Problem;
use crate::policy::snapshot::Snapshot;

/// Parts linked at a time: enough for every core, and few enough for what they take to be no matter beside the snapshot.
const AT_A_TIME: usize = 16;

/// The last snapshot, and what it was linked from.
#[derive(Debug)]
pub struct Kept {
    parts: Parts,
    snapshot: Arc<Snapshot>,
}

/// What a bundle was linked from.
#[derive(Debug)]
pub struct Parts {
    schema: u64,
    /// Files that declare something.
    files: Files,
    declared: Arc<Declared>,
    /// By path; without one, what keys are narrowed to.
    by_path: HashMap<Arc<str>, Part>,
}

/// Rules that were linked by themselves.
#[derive(Debug)]
struct Part {
    of: Of,
    /// Their numbers in the snapshot.
    rules: Range<usize>,
    /// The numbers there of entities that nobody declares and these rules name.
    named: Vec<EntityIndex>,
    problems: Vec<Problem>,
    wanted: Vec<Wanted>,
}

/// What a part is linked from, besides what is declared.
#[derive(Debug, Clone)]
enum Of {
    Rules(Arc<ParsedFile>),
    /// What keys are narrowed to, of every file.
    Restrictions,
    Policies(Arc<NativeFile>),
}

impl Of {
    fn path(&self) -> Arc<str> {
        match self {
            Self::Rules(file) => Arc::clone(&file.path),
            Self::Restrictions => Arc::from(""),
            Self::Policies(file) => Arc::clone(&file.path),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rules(one), Self::Rules(other)) => Arc::ptr_eq(one, other),
            (Self::Policies(one), Self::Policies(other)) => Arc::ptr_eq(one, other),
            (Self::Restrictions, Self::Restrictions) => true,
            _ => false,
        }
    }

    fn link<'a>(&self, tools: Tools<'a>, declared: &Declared, files: &Files) -> Linker<'a> {
        let mut linker = declared.linker(tools);
        match self {
            Self::Rules(file) => linker.link_rules(file),
            Self::Restrictions => linker.link_key_restrictions(&files.documents),
            Self::Policies(file) => linker.native_policies(file),
        }
        linker
    }
}

impl Kept {
    /// The last snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

impl Parts {
    /// These with the snapshot that was made of them.
    #[must_use]
    pub fn with(self, snapshot: Arc<Snapshot>) -> Kept {
        Kept { parts: self, snapshot }
    }

    fn declare_as(&self, schema: u64, files: &Files) -> bool {
        let declaring = |files: &[Arc<ParsedFile>]| -> Vec<Arc<ParsedFile>> {
            files.iter().filter(|file| file.document.declares()).cloned().collect()
        };
        let (documents, entities) = (declaring(&files.documents), &files.entities);
        let same = |one: &Arc<ParsedFile>, other: &Arc<ParsedFile>| {
            Arc::ptr_eq(one, other) || one.path == other.path && one.document.declares_as(&other.document)
        };
        self.schema == schema
            && self.files.documents.len() == documents.len()
            && self.files.documents.iter().zip(&documents).all(|(one, other)| same(one, other))
            && self.files.entities.len() == entities.len()
            && self.files.entities.iter().zip(entities).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// Links `files`, as far as `kept` does not have them.
pub(super) fn link(tools: Tools<'_>, files: &Files, kept: Option<&Kept>) -> Linked {
    let kept = kept.filter(|kept| kept.parts.declare_as(tools.schema.key, files));
    let declared = kept.map(|kept| Arc::clone(&kept.parts.declared));
    let declared = declared.unwrap_or_else(|| Arc::new(Declared::link(tools, files)));
    let assemble = || assemble(tools, &declared, files, kept);
    let ((mut linker, parts), twice) = parallel::both(assemble, || ids::given_twice(files));
    let mut ancestry = declared.ancestry;
    if ancestry.sound && ancestry.full {
        ancestry = linker.check_ancestry(&files.documents, &files.entities);
    }
    let mut problems = declared.problems.clone();
    problems.append(&mut linker.problems);
    let mut search = Search::new(&declared, &linker.store);
    problems.extend(declared.wanted.iter().filter_map(|wanted| search.problem(wanted)));
    for part in &parts {
        problems.extend(part.problems.iter().cloned());
        problems.extend(part.wanted.iter().filter_map(|wanted| search.problem(wanted)));
    }
    problems.extend(linker.wanted.iter().filter_map(|wanted| search.problem(wanted)));
    problems.extend(twice);
    let parts = Parts {
        schema: tools.schema.key,
        files: Files {
            documents: files.documents.iter().filter(|file| file.document.declares()).cloned().collect(),
            policies: Vec::new(),
            entities: files.entities.clone(),
        },
        declared,
        by_path: parts.into_iter().map(|part| (part.of.path(), part)).collect(),
    };
    let Linker {
        store, scopes, rules, limits, files, conditions, action_sets, aliases, group_patterns, counts, ..
    } = linker;
    let sound = ancestry.sound;
    Linked {
        store,
        scopes,
        rules,
        limits,
        files,
        conditions,
        action_sets,
        aliases,
        group_patterns,
        counts,
        problems,
        sound,
        parts,
    }
}

/// Every part, linked or copied, put together in the order of the files; and then the limits, which are few enough to be
/// linked each time.
fn assemble<'a>(tools: Tools<'a>, declared: &Declared, files: &Files, kept: Option<&Kept>) -> (Linker<'a>, Vec<Part>) {
    let mut whole = Linker { scopes: Scopes::of_bundle(), ..declared.linker(tools) };
    whole.rules.reserve(files.rules());
    for file in &files.documents {
        whole.file_number(&file.path);
    }
    let documents = files.documents.iter().map(|file| Of::Rules(Arc::clone(file)));
    let policies = files.policies.iter().map(|file| Of::Policies(Arc::clone(file)));
    let all: Vec<Of> = documents.chain([Of::Restrictions]).chain(policies).collect();
    let known = |of: &Of| kept.and_then(|kept| kept.parts.by_path.get(&of.path())).filter(|part| part.of.is(of));
    let before = kept.map(|kept| Source::of_snapshot(&kept.snapshot));
    let mut copied = Renumbered::default();
    let mut parts = Vec::with_capacity(all.len());
    for some in all.chunks(AT_A_TIME) {
        let new: Vec<&Of> = some.iter().filter(|of| known(of).is_none()).collect();
        let mut new = parallel::each(&new, |of| of.link(tools, declared, files)).into_iter();
        for of in some {
            let from = whole.rules.len();
            let (named, problems, wanted) = match (known(of), &before) {
                (Some(part), Some(before)) => {
                    let named = part.named.iter().copied();
                    let named = whole.append(before, part.rules.clone(), named, &mut copied);
                    (named, part.problems.clone(), part.wanted.clone())
                }
                _ => {
                    let Some(linker) = new.next() else { continue };
                    let (rules, entities) = (0..linker.rules.len(), linker.store.others());
                    let mut map = Renumbered::default();
                    let named = whole.append(&Source::of_linker(&linker), rules, entities, &mut map);
                    (named, linker.problems, linker.wanted)
                }
            };
            parts.push(Part { of: of.clone(), rules: from..whole.rules.len(), named, problems, wanted });
        }
    }
    whole.link_limits(&files.documents, declared.ancestry.sound);
    (whole, parts)
}
