//! The limits of a snapshot, and which of them bind a request: by the same scopes and keys as rules, so that a name, a
//! tag or `"*"` means in a limit exactly what it means in a rule.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::entities::{EntityIndex, EntityStore, Subject};
use super::index::{ANY, KeyIndex, ScopeIndex, Scopes, is_broad};
use super::schema::ActionIndex;
use super::snapshot::{ActionSetIndex, Snapshot};
use super::source::number;
use super::syntax::{Each, Estimates};
use crate::meter::{Limit, Price};

/// A limit, with whom it binds and on what.
#[derive(Debug, Clone)]
pub struct BoundLimit {
    /// How much of what over which time, and what happens at its edges.
    pub limit: Arc<Limit>,
    /// Whose meters it has; `None` where all share one.
    pub each: Option<Each>,
    /// Whom it binds.
    pub principal: ScopeIndex,
    /// On what.
    pub resource: ScopeIndex,
    /// On which actions.
    pub actions: ActionSetIndex,
    /// The teams and orgs that it names: of a caller's teams these, and those in them, are charged.
    pub payers: Box<[EntityIndex]>,
    /// What is said of it, for people.
    pub description: Option<Arc<str>>,
    /// Its file.
    pub file: Arc<str>,
    /// Its first line.
    pub line: u32,
}

/// The limits of a snapshot.
#[derive(Debug, Default)]
pub struct Limits {
    all: Vec<BoundLimit>,
    by_id: HashMap<SmolStr, u32, RandomState>,
    /// Each limit under the narrowest alternatives of one of its scopes; sorted.
    by_principal: Vec<(KeyIndex, u32)>,
    by_resource: Vec<(KeyIndex, u32)>,
}

impl Limits {
    /// Files `all`.
    #[must_use]
    pub fn build(all: Vec<BoundLimit>, scopes: &Scopes, store: &EntityStore) -> Self {
        let (mut by_principal, mut by_resource) = (Vec::new(), Vec::new());
        for (at, limit) in all.iter().enumerate() {
            let narrow = |clause: &&[KeyIndex]| !clause.iter().any(|key| is_broad(scopes, store, *key));
            let principal = scopes.scope_at(limit.principal).find(narrow);
            let resource = scopes.scope_at(limit.resource).find(narrow);
            let (table, keys) = match (principal, resource) {
                (Some(keys), _) => (&mut by_principal, keys),
                (None, Some(keys)) => (&mut by_resource, keys),
                // Hardly anyone is not bound by it.
                (None, None) => (&mut by_principal, &[ANY] as &[KeyIndex]),
            };
            table.extend(keys.iter().map(|key| (*key, number(at))));
        }
        by_principal.sort_unstable();
        by_resource.sort_unstable();
        let by_id = all.iter().enumerate().map(|(at, bound)| (bound.limit.id.clone(), number(at))).collect();
        Self { all, by_id, by_principal, by_resource }
    }

    /// Every limit, in the order of the bundle.
    #[must_use]
    pub fn all(&self) -> &[BoundLimit] {
        &self.all
    }

    /// The limit of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&BoundLimit> {
        self.all.get(*self.by_id.get(id)? as usize)
    }
}

/// The entries under one of `keys`; both are sorted by key.
fn under<'a>(table: &'a [(KeyIndex, u32)], keys: &'a [KeyIndex]) -> impl Iterator<Item = u32> + 'a {
    keys.iter().flat_map(move |key| {
        let from = table.partition_point(|(known, _)| known < key);
        let rest = table.get(from..).unwrap_or_default();
        rest.iter().take_while(move |(known, _)| known == key).map(|(_, limit)| *limit)
    })
}

impl Snapshot {
    /// The limits of the bundle.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limits that bind `principal` when it does `action` with `resource`, reached through `router` if through one; in
    /// the order of the bundle. Costs nothing where the bundle has no limits.
    #[must_use]
    pub fn limits_for(
        &self,
        principal: &Subject,
        resource: &Subject,
        router: Option<&Subject>,
        action: ActionIndex,
    ) -> Vec<&BoundLimit> {
        if self.limits.all.is_empty() {
            return Vec::new();
        }
        let keys = |subject| self.index.keys_of(&self.scopes, &self.store, subject);
        let (principal, resource, router) = (keys(principal), keys(resource), router.map(keys));
        let router: &[KeyIndex] = router.as_deref().unwrap_or_default();
        let Limits { all, by_principal, by_resource, .. } = &self.limits;
        let mut found: Vec<u32> = Vec::new();
        found.extend(under(by_principal, &principal));
        found.extend(under(by_resource, &resource));
        found.extend(under(by_resource, router));
        found.sort_unstable();
        found.dedup();
        let applies = |bound: &&BoundLimit| {
            self.action_set(bound.actions).contains(action)
                && self.scopes.contains(bound.principal, &principal)
                && (self.scopes.contains(bound.resource, &resource)
                    || (!router.is_empty() && self.scopes.contains(bound.resource, router)))
        };
        found.into_iter().filter_map(|at| all.get(at as usize)).filter(applies).collect()
    }

    /// The limits that can bind `principal`, whatever it does.
    #[must_use]
    pub fn limits_of(&self, principal: &Subject) -> Vec<&BoundLimit> {
        let keys = self.index.keys_of(&self.scopes, &self.store, principal);
        self.limits.all.iter().filter(|bound| self.scopes.contains(bound.principal, &keys)).collect()
    }

    /// Whether any condition sees what meters say: without one, they need not be read before deciding.
    #[must_use]
    pub fn reads_meters(&self) -> bool {
        self.reads_meters
    }

    /// What a model costs, if its price is declared.
    #[must_use]
    pub fn price(&self, model: &Subject) -> Option<&Arc<Price>> {
        let Subject::Known(index) = model else { return None };
        self.store.record(*index).details.as_ref()?.price.as_ref()
    }

    /// How many tokens a request to a model is estimated to use: as the model declares, else its account.
    #[must_use]
    pub fn estimates(&self, model: &Subject) -> Estimates {
        let of = |index: EntityIndex| self.store.record(index).details.as_ref().map(|details| details.estimates);
        let own = if let Subject::Known(index) = model { of(*index).unwrap_or_default() } else { Estimates::default() };
        let account = || {
            let (kind, name) = self.store.name_of(model);
            of(self.store.find(kind.namespace()?, name.split_once('/')?.0)?)
        };
        if own.input_tokens.is_some() && own.output_tokens.is_some() {
            return own;
        }
        let account = account().unwrap_or_default();
        Estimates {
            input_tokens: own.input_tokens.or(account.input_tokens),
            output_tokens: own.output_tokens.or(account.output_tokens),
        }
    }

    /// The models that a request to a router may end at, as far as the bundle names them: those that are not switched off.
    #[must_use]
    pub fn models_behind(&self, router: &Subject) -> Vec<Subject> {
        let Subject::Known(router) = router else { return Vec::new() };
        let Some(members) = self.store.record(*router).kind.leads_to() else { return Vec::new() };
        let models = self.store.every(members).map(|index| (index, Subject::Known(index)));
        let is_behind = |(index, model): &(EntityIndex, Subject)| {
            !self.store.record(*index).switched_off && self.reaches(*router, model)
        };
        models.filter(is_behind).map(|(_, model)| model).collect()
    }

    /// The most tokens that a model answers with, if that is declared.
    #[must_use]
    pub fn max_output_tokens(&self, model: &Subject) -> Option<u64> {
        let Subject::Known(index) = model else { return None };
        self.store.record(*index).details.as_ref()?.max_output_tokens.and_then(|tokens| u64::try_from(tokens).ok())
    }
}
