//! Linking: the documents of all files become entities, scopes and rules, and every name is looked up.
//!
//! Runs whole at each load, over files that were parsed before or now: quick, so that a change of one file among a
//! thousand needs no clever patching. All problems are collected.

mod ancestry;
mod limits;
mod models;
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
use super::parallel;
use super::problem::{Problem, ProblemCode, nearest};
use super::schema::{ActionSet, BundleSchema};
use super::snapshot::{ActionSetIndex, Counts, Rule};
use super::syntax::{AccountDeclaration, Document, Name, Place};
use super::validate::{Validation, ValidationCache};

/// A parsed file, as linking takes it.
#[derive(Debug)]
pub struct ParsedFile {
    /// Its path in the bundle.
    pub path: Arc<str>,
    /// What it says.
    pub document: Document,
}

/// What is kept from load to load.
#[derive(Debug, Default)]
pub struct LinkCache {
    /// Conditions by text.
    pub conditions: ConditionCache,
    /// Findings by shape.
    pub validation: ValidationCache,
}

/// Most names that one load looks at in search of near ones: each search looks at every declared name, for 0.3 µs.
const MOST_NEAR_LOOKS: usize = 2_000_000;
/// Most searches for a near name in one load.
const MOST_NEAR_SEARCHES: usize = 200;

/// Links the files of one bundle.
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
    pub aliases: HashMap<SmolStr, EntityIndex, RandomState>,
    /// Groups that name models by pattern (`None`: every model).
    pub group_patterns: Patterns<EntityIndex>,
    /// How many of each.
    pub counts: Counts,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
    file_numbers: HashMap<Arc<str>, u32, RandomState>,
    /// Where each rule stands, for finding ids that are there twice.
    pub(crate) rule_ids: HashMap<SmolStr, (u32, u32), RandomState>,
    /// Where each limit stands, likewise.
    limit_ids: HashMap<SmolStr, (Arc<str>, u32), RandomState>,
    pub(crate) validation: Validation<'a>,
    pub(crate) condition_cache: &'a mut ConditionCache,
    pub(crate) condition_numbers: HashMap<*const Condition, ConditionIndex, RandomState>,
    action_set_numbers: HashMap<ActionSet, ActionSetIndex, RandomState>,
    near_searches: usize,
}

impl<'a> Linker<'a> {
    /// A linker with nothing linked.
    pub fn new(schema: &'a BundleSchema, cache: &'a mut LinkCache) -> Self {
        let mut store = EntityStore::default();
        for kind in schema.core().entity_type_names() {
            store.kind(&kind.to_string());
        }
        Self {
            schema,
            store,
            scopes: Scopes::default(),
            rules: Vec::new(),
            limits: Vec::new(),
            files: Vec::new(),
            conditions: Vec::new(),
            action_sets: Vec::new(),
            aliases: HashMap::default(),
            group_patterns: Patterns::default(),
            counts: Counts::default(),
            problems: Vec::new(),
            file_numbers: HashMap::default(),
            rule_ids: HashMap::default(),
            limit_ids: HashMap::default(),
            validation: Validation::new(&mut cache.validation, schema),
            condition_cache: &mut cache.conditions,
            condition_numbers: HashMap::default(),
            action_set_numbers: HashMap::default(),
            near_searches: 0,
        }
    }

    /// Links YAML files: first everything that is declared, then what refers to it, then the rules.
    pub fn documents(&mut self, files: &[Arc<ParsedFile>]) {
        let count = |of: fn(&Document) -> usize| files.iter().map(|file| of(&file.document)).sum::<usize>();
        let models = |account: &AccountDeclaration| account.models.as_ref().map_or(0, Vec::len);
        self.store.reserve(count(|document| document.users.len() + document.services.len() + document.teams.len()));
        self.store.reserve(files.iter().flat_map(|file| &file.document.provider_accounts).map(models).sum());
        let rules = count(|document| document.rules.len());
        self.rules.reserve(rules);
        self.rule_ids.reserve(rules);
        let ((), mut look_alikes) = parallel::both(|| self.link(files), || people::look_alikes(files));
        self.problems.append(&mut look_alikes);
    }

    fn link(&mut self, files: &[Arc<ParsedFile>]) {
        self.declare_people(files);
        self.declare_models(files);
        self.link_people(files);
        self.link_models(files);
        for file in files {
            self.link_rules(file);
        }
        self.link_key_restrictions(files);
        self.link_limits(files);
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

    pub(crate) fn error(
        &mut self,
        code: ProblemCode,
        file: &Arc<str>,
        place: Place,
        message: String,
        help: Option<String>,
    ) {
        let problem = Problem::error(code, file, place, message);
        self.problems.push(Problem { help, ..problem });
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
        self.problems.push(Problem { help, ..problem });
    }

    /// The declared entity called `name`; a problem where there is none.
    pub(crate) fn declared(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> Option<EntityIndex> {
        let found = self.store.find(kind, &name.value).filter(|index| self.store.record(*index).declared);
        if found.is_none() {
            let help = self.near(kind, &name.value).map(|near| format!("did you mean `{near}`?"));
            let (what, section) = kind_words(kind);
            let message = format!("no {what} is called `{}`", name.value);
            let help = help.unwrap_or_else(|| format!("declare it under `{section}:`, in any file of the bundle"));
            self.error(ProblemCode::UnknownReference, file, name.place, message, Some(help));
        }
        found
    }

    /// The declared name of `kind` that is nearest to `name`.
    pub(crate) fn near(&mut self, kind: Kind, name: &str) -> Option<SmolStr> {
        if !self.may_search() {
            return None;
        }
        let declared = self.store.iter().filter(|(_, record)| record.kind == kind && record.declared);
        nearest(name, declared.map(|(_, record)| record.id.as_str())).map(SmolStr::from)
    }

    /// Whether one more search through all names is not too much. The first is done whatever their number.
    pub(crate) fn may_search(&mut self) -> bool {
        self.near_searches += 1;
        self.near_searches <= MOST_NEAR_SEARCHES && (self.near_searches - 1) * self.store.len() <= MOST_NEAR_LOOKS
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
        let number = *self.condition_numbers.entry(Arc::as_ptr(condition)).or_insert(next);
        if number == next {
            self.conditions.push(Arc::clone(condition));
        }
        number
    }
}

/// What a kind is called, and the section that declares it.
pub(crate) fn kind_words(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::ORG => ("org", "orgs"),
        Kind::TEAM => ("team", "teams"),
        Kind::USER => ("user", "users"),
        Kind::SERVICE => ("service", "services"),
        Kind::API_KEY => ("key", "keys"),
        Kind::PROVIDER_ACCOUNT => ("provider account", "provider_accounts"),
        Kind::MODEL_GROUP => ("model group", "model_groups"),
        Kind::MODEL => ("model", "provider_accounts"),
        Kind::ROUTER => ("router", "routers"),
        _ => ("entity", "entities"),
    }
}
