//! Linking: the documents of all files become entities, scopes and rules, and every name is looked up.
//!
//! What files declare is linked first, as a whole (`declared`); then the rules of each file by themselves, on every
//! core (`rules`); and what comes of them is put together with all numbers given anew (`merge`). A reload does the
//! less of it the less changed (`kept`). All problems are collected.

mod allowed;
mod ancestry;
mod declared;
mod ids;
mod kept;
mod labels;
mod limits;
mod literals;
mod merge;
mod models;
mod near;
mod people;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::condition::{Condition, ConditionIndex};
use super::condition_cache::ConditionCache;
use super::entities::{EntityIndex, EntityStore, Kind, Patterns};
use super::index::Scopes;
use super::limits::BoundLimit;
use super::native::{EntitiesFile, NativeFile};
use super::problem::{Problem, ProblemCode};
use super::schema::{ActionSet, BundleSchema};
use super::snapshot::{ActionSetIndex, Counts, Rule};
use super::syntax::{Document, Name, Place};
use super::validate::{Checker, Validation, ValidationCache};
pub use kept::{Kept, Parts};
use labels::Labels;
use near::{Near, Wanted};
use people::{Form, Reference};

/// The maximum number of names in one file for which similar names are searched although the name itself is allowed.
/// The limit of a whole load is lower.
const MOST_WANTED: usize = 10_000;

/// A parsed file, as linking takes it.
#[derive(Debug)]
pub struct ParsedFile {
    /// Its path in the bundle.
    pub path: Arc<str>,
    /// What it says.
    pub document: Document,
}

/// The files of one bundle, each kind in the order of their paths.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// YAML.
    pub documents: Vec<Arc<ParsedFile>>,
    /// Native policies.
    pub policies: Vec<Arc<NativeFile>>,
    /// Entities in JSON.
    pub entities: Vec<Arc<EntitiesFile>>,
}

impl Files {
    /// How many rules they hold, but for those that narrow keys.
    fn rules(&self) -> usize {
        let yaml = self.documents.iter().map(|file| file.document.rules.len());
        yaml.chain(self.policies.iter().map(|file| file.policies.len())).sum()
    }
}

/// What is kept from load to load of texts and shapes, whatever file they stand in.
#[derive(Debug, Default)]
pub struct LinkCache {
    /// Conditions by text.
    pub conditions: ConditionCache,
    /// Findings by shape.
    pub validation: ValidationCache,
}

impl LinkCache {
    /// Forgets what is in nobody's use.
    pub fn tidy(&self) {
        self.conditions.tidy();
        self.validation.tidy();
    }
}

/// What every part of linking works with.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// The schema that rules are validated against.
    pub schema: &'a BundleSchema,
    checker: &'a Checker<'a>,
    conditions: &'a ConditionCache,
}

/// Links what is declared, or the rules of one file, or takes up all that was linked.
pub struct Linker<'a> {
    /// The schema that rules are validated against.
    pub schema: &'a BundleSchema,
    /// Everyone and everything so far.
    pub store: EntityStore,
    /// Keys and scopes so far.
    pub scopes: Scopes,
    /// Rules so far.
    pub rules: Vec<Rule>,
    /// Limits so far.
    pub limits: Vec<BoundLimit>,
    /// Every file's path, by number.
    pub files: Vec<Arc<str>>,
    /// Distinct conditions so far.
    pub conditions: Vec<Arc<Condition>>,
    /// Distinct action sets so far.
    pub action_sets: Vec<ActionSet>,
    /// Aliases of models.
    pub aliases: Arc<HashMap<SmolStr, EntityIndex, RandomState>>,
    /// Groups that name models by pattern (`None`: every model).
    pub group_patterns: Arc<Patterns<EntityIndex>>,
    /// How many of each.
    pub counts: Counts,
    /// The tags and roles that files give.
    labels: Arc<Labels>,
    /// What is wrong so far.
    problems: Vec<Problem>,
    /// What is wrong, where a name near to another has yet to be looked for.
    wanted: Vec<Wanted>,
    /// How many of both are errors.
    errors: usize,
    file_numbers: HashMap<Arc<str>, u32, RandomState>,
    validation: Validation<'a>,
    condition_cache: &'a ConditionCache,
    condition_numbers: HashMap<usize, ConditionIndex, RandomState>,
    action_set_numbers: HashMap<ActionSet, ActionSetIndex, RandomState>,
}

/// What all files come to.
#[derive(Debug)]
#[expect(missing_docs, reason = "as those of a linker and a snapshot")]
pub struct Linked {
    pub store: EntityStore,
    pub scopes: Scopes,
    pub rules: Vec<Rule>,
    pub limits: Vec<BoundLimit>,
    pub files: Vec<Arc<str>>,
    pub conditions: Vec<Arc<Condition>>,
    pub action_sets: Vec<ActionSet>,
    pub aliases: Arc<HashMap<SmolStr, EntityIndex, RandomState>>,
    pub group_patterns: Arc<Patterns<EntityIndex>>,
    pub counts: Counts,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Whether no chain of groups is a circle, or too long.
    pub sound: bool,
    /// What of this the next load may take over.
    pub parts: Parts,
}

/// Links `files`, but for what `kept` has of them already.
pub fn link(cache: &LinkCache, schema: &BundleSchema, files: &Files, kept: Option<&Kept>) -> Linked {
    let checker = Checker::new(&cache.validation, schema);
    kept::link(Tools { schema, checker: &checker, conditions: &cache.conditions }, files, kept)
}

impl<'a> Linker<'a> {
    /// A linker with nothing linked.
    fn new(tools: Tools<'a>) -> Self {
        let mut store = EntityStore::default();
        for kind in tools.schema.core().entity_type_names() {
            store.kind(&kind.to_string());
        }
        Self::with(tools, store)
    }

    fn with(tools: Tools<'a>, store: EntityStore) -> Self {
        Self {
            schema: tools.schema,
            store,
            scopes: Scopes::default(),
            rules: Vec::new(),
            limits: Vec::new(),
            files: Vec::new(),
            conditions: Vec::new(),
            action_sets: Vec::new(),
            aliases: Arc::default(),
            group_patterns: Arc::default(),
            counts: Counts::default(),
            labels: Arc::default(),
            problems: Vec::new(),
            wanted: Vec::new(),
            errors: 0,
            file_numbers: HashMap::default(),
            validation: Validation::new(tools.checker),
            condition_cache: tools.conditions,
            condition_numbers: HashMap::default(),
            action_set_numbers: HashMap::default(),
        }
    }

    /// The number of the file at `path`.
    pub fn file_number(&mut self, path: &Arc<str>) -> u32 {
        let next = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let number = *self.file_numbers.entry(Arc::clone(path)).or_insert(next);
        if number == next {
            self.files.push(Arc::clone(path));
        }
        number
    }

    pub(crate) fn put(&mut self, problem: Problem) {
        self.errors += usize::from(problem.is_error());
        self.problems.push(problem);
    }

    pub(crate) fn error(
        &mut self,
        code: ProblemCode,
        file: &Arc<str>,
        place: Place,
        message: String,
        help: Option<String>,
    ) {
        let problem = Problem::error(code, file, place, message);
        self.put(Problem { help, ..problem });
    }

    pub(crate) fn warn(
        &mut self,
        code: ProblemCode,
        file: &Arc<str>,
        place: Place,
        message: String,
        help: Option<String>,
    ) {
        let problem = Problem::warning(code, file, place, message);
        self.put(Problem { help, ..problem });
    }

    /// Puts a problem that a name near to `name` may help with.
    fn want(&mut self, near: Near, form: Form, name: &SmolStr, problem: Problem) {
        self.errors += usize::from(problem.is_error());
        self.wanted.push(Wanted { near, form, name: name.clone(), problem });
    }

    /// The declared entity called `name` in a list; a problem if it does not exist.
    pub(crate) fn declared(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> Option<EntityIndex> {
        self.declared_by(&Reference { kind, name, file, form: Form::List })
    }

    /// The number of a set of actions.
    pub(crate) fn action_set(&mut self, actions: ActionSet) -> ActionSetIndex {
        if let Some(known) = self.action_set_numbers.get(&actions) {
            return *known;
        }
        let number = ActionSetIndex(u32::try_from(self.action_sets.len()).unwrap_or(u32::MAX));
        self.action_sets.push(actions.clone());
        self.action_set_numbers.insert(actions, number);
        number
    }

    /// The number of a condition; equal conditions come from the cache as the same one.
    pub(crate) fn condition_number(&mut self, condition: &Arc<Condition>) -> ConditionIndex {
        let next = ConditionIndex(u32::try_from(self.conditions.len()).unwrap_or(u32::MAX));
        let number = *self.condition_numbers.entry(Arc::as_ptr(condition).addr()).or_insert(next);
        if number == next {
            self.conditions.push(Arc::clone(condition));
        }
        number
    }
}

/// The noun of a kind, with its article.
pub(crate) fn a_kind(kind: Kind) -> String {
    with_article(kind.noun())
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {noun}")
}
