//! A snapshot: everything that decides, compiled and immutable. A request reads one and only one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use cedar_policy_core::ast::Entity;
use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::condition::{Condition, ConditionIndex};
use super::entities::{EntityIndex, EntityStore, Kind, Pattern, Patterns, Reach, Subject};
use super::index::{Index, RuleIndex, ScopeIndex, Scopes};
use super::limits::Limits;
use super::proved::RecentlyProved;
use super::schema::{ActionSet, BundleSchema};
use super::syntax::Extras;
use crate::model::{Effect, EntityUid, KeyHash, NameError, PasswordHash, RuleReference, Timestamp};

/// A set of actions, by its number in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActionSetIndex(pub(crate) u32);

/// A rule, compiled. A million of them stay in memory, so all that can be shared is, and each is in a line of the cache
/// of its own.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Rule {
    /// Its id.
    pub id: SmolStr,
    /// What it does.
    pub effect: Effect,
    /// The number of its file.
    pub file: u32,
    /// Its first line.
    pub line: u32,
    /// Who.
    pub principal: ScopeIndex,
    /// What.
    pub resource: ScopeIndex,
    /// Which actions.
    pub actions: ActionSetIndex,
    /// Whether the index alone tells that its scopes match: each is one list of alternatives at most.
    pub exact: bool,
    /// Whether it says nothing of models that a router leads to: that a key has some routers alone.
    pub direct_only: bool,
    /// What else must hold.
    pub condition: Option<ConditionIndex>,
}

/// How many of each a bundle declares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub files: usize,
    pub rules: usize,
    pub permits: usize,
    pub forbids: usize,
    pub conditions: usize,
    pub limits: usize,
    pub orgs: usize,
    pub teams: usize,
    pub users: usize,
    pub services: usize,
    pub keys: usize,
    pub provider_accounts: usize,
    pub models: usize,
    pub model_groups: usize,
    pub routers: usize,
    pub entities: usize,
}

/// The meaning of a resource name in a request.
#[derive(Debug, Clone)]
pub enum ResourceName {
    /// This resource.
    Resource(Subject),
    /// A resource that is declared with `enabled: false`.
    Disabled(Subject),
    /// No resource.
    Unknown,
}

/// What a bundle says of a key, as far as it takes to prove it.
#[derive(Debug, Clone, Copy)]
pub struct BundleKey<'a> {
    /// What it hashes to.
    pub hash: &'a KeyHash,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Texts by name.
    pub metadata: &'a [(SmolStr, SmolStr)],
}

/// Everything that decides.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) revision: Arc<str>,
    pub(crate) schema: Arc<BundleSchema>,
    pub(crate) store: EntityStore,
    pub(crate) scopes: Scopes,
    pub(crate) index: Index,
    pub(crate) rules: Vec<Rule>,
    pub(crate) limits: Limits,
    pub(crate) files: Vec<Arc<str>>,
    pub(crate) conditions: Vec<Arc<Condition>>,
    pub(crate) action_sets: Vec<ActionSet>,
    pub(crate) aliases: Arc<HashMap<SmolStr, EntityIndex, RandomState>>,
    pub(crate) group_patterns: Arc<Patterns<EntityIndex>>,
    pub(crate) counts: Counts,
    /// Whether anyone is disabled or can expire, so that it has to be looked at.
    pub(crate) may_be_disabled: bool,
    /// Whether the built-in policies decide the actions of `admin` for which the bundle has no rule.
    pub(crate) admin_policies: bool,
    /// Whether a condition reads what meters say.
    pub(crate) reads_meters: bool,
    /// Whose credentials were looked up in it lately.
    pub(super) recently_proved: RecentlyProved,
    /// Keys that it declares and narrows, once somebody asked.
    pub(super) narrowed_keys: OnceLock<HashSet<SmolStr>>,
}

impl Snapshot {
    /// The name of the bundle's content.
    #[must_use]
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// How many of each the bundle declares.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The schema of the bundle.
    #[must_use]
    pub fn schema(&self) -> &BundleSchema {
        &self.schema
    }

    /// What the bundle keeps of the password of this user or service.
    #[must_use]
    pub fn password(&self, principal: &EntityUid) -> Option<&PasswordHash> {
        let index = self.store.find(self.store.kind_of(principal.kind())?, principal.id())?;
        self.store.record(index).details.as_ref()?.extras.password.as_ref()
    }

    /// What the bundle keeps of anybody's password.
    pub fn passwords(&self) -> impl Iterator<Item = &PasswordHash> {
        self.store.iter().filter_map(|(_, record)| record.details.as_ref()?.extras.password.as_ref())
    }

    /// The files that the bundle is made of.
    #[must_use]
    pub fn files(&self) -> &[Arc<str>] {
        &self.files
    }

    /// The rule of this number.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a RuleIndex is only made by this snapshot's index")]
    pub(crate) fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index.0 as usize]
    }

    /// The rule of this number, by name and place.
    #[must_use]
    pub fn reference(&self, index: RuleIndex) -> RuleReference {
        let rule = self.rule(index);
        let file = self.files.get(rule.file as usize).cloned().unwrap_or_else(|| Arc::from(""));
        RuleReference { id: rule.id.clone(), effect: rule.effect, file, line: rule.line }
    }

    /// The condition of this number.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a ConditionIndex is only made with this snapshot")]
    pub(crate) fn condition(&self, index: ConditionIndex) -> &Arc<Condition> {
        &self.conditions[index.0 as usize]
    }

    /// The set of this number.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "an ActionSetIndex is only made with this snapshot")]
    pub(crate) fn action_set(&self, index: ActionSetIndex) -> &ActionSet {
        &self.action_sets[index.0 as usize]
    }

    /// Resolves a model name of a request, as [`Snapshot::resource`] does.
    pub fn model(&self, name: &SmolStr) -> ResourceName {
        self.resource(Kind::MODEL, name)
    }

    /// Resolves a name of a request: the id of a resource, an alias, or a name in a namespace that is not closed.
    pub fn resource(&self, kind: Kind, name: &SmolStr) -> ResourceName {
        let stranger =
            |parents| ResourceName::Resource(Subject::Stranger { kind, id: name.clone(), parents, given: None });
        let Some(namespace) = kind.namespace() else {
            let known = self.store.find(kind, name).map(|index| ResourceName::Resource(Subject::Known(index)));
            return known.unwrap_or_else(|| stranger(Vec::new()));
        };
        // No bundle declares such a resource, but a literal of a policy may name one.
        if kind.check_id(name) == Err(NameError::Segment) {
            return ResourceName::Unknown;
        }
        let known = self.store.find(kind, name).filter(|index| self.is_listed(kind, *index));
        if let Some(index) = known.or_else(|| self.alias(kind, name)) {
            let off = self.store.record(index).switched_off;
            let subject = Subject::Known(index);
            return if off { ResourceName::Disabled(subject) } else { ResourceName::Resource(subject) };
        }
        let Some((container, rest)) = name.split_once('/') else { return ResourceName::Unknown };
        if container.is_empty() || rest.is_empty() {
            return ResourceName::Unknown;
        }
        let container = self.store.find(namespace, container);
        if container.is_some_and(|index| self.is_closed(kind, index)) {
            return ResourceName::Unknown;
        }
        stranger(container.into_iter().chain(self.group_patterns.matching(kind, name)).collect())
    }

    /// The resource that has `name` as an alias.
    fn alias(&self, kind: Kind, name: &SmolStr) -> Option<EntityIndex> {
        let index = self.aliases.get(name).copied().filter(|_| kind.has_aliases())?;
        (self.store.record(index).kind == kind).then_some(index)
    }

    /// Whether a resource of the store may be asked for: it is declared, or its namespace lists none.
    fn is_listed(&self, kind: Kind, index: EntityIndex) -> bool {
        let record = self.store.record(index);
        record.declared || !record.parents.iter().any(|parent| self.is_closed(kind, *parent))
    }

    fn is_closed(&self, kind: Kind, namespace: EntityIndex) -> bool {
        kind.is_closed_when_listed()
            && self.store.record(namespace).details.as_ref().is_some_and(|details| details.closed)
    }

    /// Whether `router` leads to `model`.
    pub(crate) fn reaches(&self, router: EntityIndex, model: &Subject) -> bool {
        let record = self.store.record(router);
        let (kind, name) = self.store.name_of(model);
        let Some(details) = record.details.as_ref().filter(|_| record.kind.leads_to() == Some(kind)) else {
            return false;
        };
        let above = self.store.closure(self.store.parents(model));
        details.reaches.iter().any(|reach| match reach {
            Reach::Named(names) => names.contain(kind, name),
            Reach::In(index) => above.contains(index) || matches!(model, Subject::Known(known) if known == index),
        })
    }

    /// Every entity of the bundle, declared or only named, with the attributes and ancestors that conditions see. A
    /// decision is made as if Cedar had these, and beside them those of the request.
    pub fn entities(&self) -> impl Iterator<Item = Arc<Entity>> {
        let known = self.store.iter().map(|(index, _)| index).filter(|index| self.store.exists(*index));
        known.map(|index| self.store.materialize(&Subject::Known(index)))
    }

    /// `subject` with the attributes and ancestors that conditions see.
    #[must_use]
    pub fn entity(&self, subject: &Subject) -> Arc<Entity> {
        self.store.materialize(subject)
    }

    /// The entity that `uid` names, known or not; `None` for a type that nobody has heard of. A model of a request has
    /// more to it (aliases, its account): that is the gate's to find out.
    #[must_use]
    pub fn subject(&self, uid: &EntityUid) -> Option<Subject> {
        let kind = self.store.kind_of(uid.kind())?;
        Some(match self.store.find(kind, uid.id()) {
            Some(index) => Subject::Known(index),
            None => Subject::Stranger { kind, id: uid.id_smol().clone(), parents: Vec::new(), given: None },
        })
    }

    /// What the bundle says of the key with this id, if it declares one that can be proved.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<BundleKey<'_>> {
        let record = self.store.record(self.store.find(Kind::API_KEY, id)?);
        let details = record.details.as_deref().filter(|_| record.declared)?;
        let Extras { expires_at, metadata, .. } = &details.extras;
        Some(BundleKey { hash: details.key_hash.as_deref()?, expires_at: *expires_at, metadata })
    }

    /// Whether the bundle narrows this key of its own, besides limiting it.
    #[must_use]
    pub(crate) fn is_narrowed_key(&self, key: &EntityUid) -> bool {
        let of_rule = |rule: &Rule| {
            let (key, list) = rule.id.strip_prefix("key:")?.rsplit_once(':')?;
            // A key with limits alone has this rule too.
            (list != "narrowed").then(|| SmolStr::from(key))
        };
        let narrowed = || self.narrowed_keys.get_or_init(|| self.rules.iter().filter_map(of_rule).collect());
        key.kind() == "ApiKey" && narrowed().contains(key.id())
    }

    /// Whether the bundle has a rule of this id.
    #[must_use]
    pub(crate) fn rules_named(&self, id: &str) -> bool {
        self.rules.iter().any(|rule| rule.id == id)
    }

    /// Whether the bundle limits this key of its own.
    #[must_use]
    pub(crate) fn is_limited_key(&self, key: &EntityUid) -> bool {
        let prefix = format!("key:{}:", key.id());
        key.kind() == "ApiKey" && self.limits.all().iter().any(|bound| bound.limit.id.starts_with(&prefix))
    }

    /// Whether the bundle declares a model that this pattern matches.
    #[must_use]
    pub fn has_model_like(&self, pattern: &SmolStr) -> bool {
        let pattern = Pattern::new(Kind::MODEL, pattern.clone());
        self.declared_models().any(|name| pattern.matches(Kind::MODEL, name))
    }

    /// Whether the bundle declares a model in an account of this name.
    #[must_use]
    pub fn has_models_in(&self, account: &str) -> bool {
        self.declared_models().any(|name| name.strip_prefix(account).is_some_and(|rest| rest.starts_with('/')))
    }

    fn declared_models(&self) -> impl Iterator<Item = &SmolStr> {
        let models = self.store.iter().filter(|(_, record)| record.kind == Kind::MODEL && record.declared);
        models.map(|(_, record)| &record.id)
    }

    /// The users and services that files declare, with what identity providers are linked by.
    pub fn people(&self) -> impl Iterator<Item = (EntityUid, &Extras)> {
        let people = self
            .store
            .iter()
            .filter(|(_, record)| record.declared && matches!(record.kind, Kind::USER | Kind::SERVICE));
        people.filter_map(|(index, record)| Some((self.store.uid(index), &record.details.as_ref()?.extras)))
    }

    /// Whether the bundle declares this entity.
    #[must_use]
    pub fn declares(&self, uid: &EntityUid) -> bool {
        let kind = self.store.kind_of(uid.kind());
        let found = kind.and_then(|kind| self.store.find(kind, uid.id()));
        found.is_some_and(|index| self.store.record(index).declared)
    }

    /// Whether `inner` is in `outer`, or is it.
    #[must_use]
    pub fn is_in(&self, inner: &EntityUid, outer: &EntityUid) -> bool {
        let find = |uid: &EntityUid| self.store.find(self.store.kind_of(uid.kind())?, uid.id());
        let (Some(inner), Some(outer)) = (find(inner), find(outer)) else { return false };
        self.store.closure(&[inner]).contains(&outer)
    }

    /// The owner of a key that the bundle declares.
    #[must_use]
    pub fn owner_of(&self, key: &EntityUid) -> Option<EntityUid> {
        self.subject(key).and_then(|subject| self.owner(&subject)).map(|owner| self.store.uid(owner))
    }

    /// The owner of a key of the bundle.
    pub(crate) fn owner(&self, key: &Subject) -> Option<EntityIndex> {
        let Subject::Known(index) = key else { return None };
        let record = self.store.record(*index);
        (record.kind == Kind::API_KEY)
            .then(|| record.parents.iter().copied().find(|parent| self.store.record(*parent).kind != Kind::OWNER_KIND))
            .flatten()
    }
}
