//! What files declare, linked as a whole: who belongs to whom, what stands for which model. As long as no file declares
//! anything else, the next snapshot takes it over as it is.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::ancestry::Ancestry;
use super::labels::Labels;
use super::near::Wanted;
use super::{Files, Linker, ParsedFile, Tools, people};
use crate::policy::entities::{EntityIndex, EntityStore, Patterns};
use crate::policy::parallel;
use crate::policy::problem::Problem;
use crate::policy::snapshot::Counts;
use crate::policy::syntax::{AccountDeclaration, Document};

/// Everyone and everything that files declare.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) store: EntityStore,
    pub(super) aliases: Arc<HashMap<SmolStr, EntityIndex, RandomState>>,
    pub(super) group_patterns: Arc<Patterns<EntityIndex>>,
    pub(super) counts: Counts,
    pub(super) labels: Arc<Labels>,
    pub(super) problems: Vec<Problem>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) ancestry: Ancestry,
}

impl Declared {
    /// Links the declarations of `files`.
    pub(super) fn link(tools: Tools<'_>, files: &Files) -> Self {
        let mut linker = Linker::new(tools);
        linker.native_entities(&files.entities);
        linker.declarations(&files.documents);
        linker.native_parents(&files.entities);
        let ancestry = linker.check_ancestry(&files.documents, &files.entities);
        if ancestry.sound {
            linker.close_native_entities();
        }
        let labels = Arc::new(Labels::of(&linker.store));
        Self {
            store: linker.store.complete(),
            labels,
            aliases: linker.aliases,
            group_patterns: linker.group_patterns,
            counts: linker.counts,
            problems: linker.problems,
            wanted: linker.wanted,
            ancestry,
        }
    }

    /// A linker of rules over what is declared.
    pub(super) fn linker<'a>(&self, tools: Tools<'a>) -> Linker<'a> {
        Linker {
            aliases: Arc::clone(&self.aliases),
            group_patterns: Arc::clone(&self.group_patterns),
            counts: self.counts,
            labels: Arc::clone(&self.labels),
            ..Linker::with(tools, self.store.over())
        }
    }
}

impl Linker<'_> {
    fn declarations(&mut self, files: &[Arc<ParsedFile>]) {
        let count = |of: fn(&Document) -> usize| files.iter().map(|file| of(&file.document)).sum::<usize>();
        let models = |account: &AccountDeclaration| account.models.as_ref().map_or(0, Vec::len);
        self.store.reserve(count(|document| document.users.len() + document.services.len() + document.teams.len()));
        self.store.reserve(files.iter().flat_map(|file| &file.document.provider_accounts).map(models).sum());
        let all = || {
            self.declare_people(files);
            self.declare_models(files);
            self.link_people(files);
            self.link_models(files);
        };
        let ((), mut look_alikes) = parallel::both(all, || people::look_alikes(files));
        self.problems.append(&mut look_alikes);
    }
}
