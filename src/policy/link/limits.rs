//! Limits: who, what and which actions become scopes, as those of rules do; then whether they can bind at all, and
//! whether what they count has a price.

use std::sync::Arc;

use super::{Linker, ParsedFile};
use crate::meter::{Mode, Unpriced};
use crate::model::Unit;
use crate::policy::entities::{EntityIndex, Kind, Subject};
use crate::policy::index::{Key, ScopeIndex};
use crate::policy::limits::BoundLimit;
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::schema::{Action, ActionSet};
use crate::policy::syntax::{LimitDeclaration, Name, Place, Selector, SelectorKind};

/// Most limits of a bundle.
const MOST_LIMITS: usize = 20_000;
/// What a limit binds where it says no action: to see what there is costs nothing.
const NOT_BY_DEFAULT: &str = "list";
/// Most models that one warning names.
const MOST_NAMED: usize = 3;
/// Most pairs of a limit and a model that one load looks at for prices.
const MOST_LOOKS: usize = 1_000_000;

impl Linker<'_> {
    pub(super) fn link_limits(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            for limit in &file.document.limits {
                if self.limits.len() == MOST_LIMITS {
                    let message = format!("a bundle has {MOST_LIMITS} limits at most");
                    let help = "one limit with `each` has a meter for every user, team or key".to_owned();
                    self.error(ProblemCode::BundleTooLarge, &file.path, limit.place, message, Some(help));
                    return;
                }
                self.claim_limit_id(&limit.id, file);
                self.link_limit(limit, file);
            }
        }
        self.warn_of_models_without_price(files);
    }

    fn claim_limit_id(&mut self, id: &Name, file: &ParsedFile) {
        let here = (Arc::clone(&file.path), id.place.line);
        if let Some((first, line)) = self.limit_ids.insert(id.value.clone(), here) {
            let message = format!("two limits are called `{}`", id.value);
            let help = format!("the other one is at {first}:{line}; give one of them another id");
            self.error(ProblemCode::DuplicateId, &file.path, id.place, message, Some(help));
        }
    }

    fn link_limit(&mut self, limit: &LimitDeclaration, file: &ParsedFile) {
        let before = self.problems.len();
        let principal = self.principal_scope(&limit.who, &file.path);
        let resource = self.resource_scope(&limit.what, &file.path);
        let Some(actions) = self.limited_actions(&limit.actions, &file.path) else { return };
        let failed = self.problems.get(before..).unwrap_or_default().iter().any(Problem::is_error);
        if let (false, Some((place, message, help))) = (failed, self.never_binds(limit, resource, &actions)) {
            self.warn(ProblemCode::LimitNeverBinds, &file.path, place, message, Some(help.to_owned()));
        }
        let payer = |selector: &Selector| {
            let kind = match selector.kind {
                SelectorKind::Team => Kind::TEAM,
                SelectorKind::Org => Kind::ORG,
                _ => return None,
            };
            self.store.find(kind, &selector.name.value)
        };
        let payers = limit.who.iter().filter_map(payer).collect();
        let actions = self.action_set(actions);
        self.limits.push(BoundLimit {
            limit: Arc::clone(&limit.limit),
            each: limit.each.clone(),
            principal,
            resource,
            actions,
            payers,
            description: limit.description.as_deref().map(Arc::from),
            file: Arc::clone(&file.path),
            line: limit.place.line,
        });
    }

    fn limited_actions(&mut self, names: &[Name], file: &Arc<str>) -> Option<ActionSet> {
        let all = self.actions(names, file)?;
        let not = self.schema.action(NOT_BY_DEFAULT).filter(|_| names.is_empty());
        Some(all.filter(|action| Some(*action) != not))
    }

    /// Why a limit can never bind, if it cannot; where that stands, and the way out.
    fn never_binds(
        &self,
        limit: &LimitDeclaration,
        resource: ScopeIndex,
        actions: &ActionSet,
    ) -> Option<(Place, String, &'static str)> {
        let mut tags = limit.what.iter().filter(|one| one.kind == SelectorKind::ModelTag).map(|one| &one.name);
        let has = |name: &Name| {
            let labelled = |kind| matches!(kind, Kind::MODEL | Kind::PROVIDER_ACCOUNT);
            self.store.iter().any(|(_, record)| labelled(record.kind) && record.tags().contains(&name.value))
        };
        if let Some(first) = tags.clone().next()
            && !tags.any(has)
        {
            let message = format!("this limit never binds: no model or account has the tag `{}`", first.value);
            return Some((first.place, message, "give a model or an account the tag, or remove the limit"));
        }
        let kinds = self.kinds_of(resource);
        let takes = |action: &Action| {
            let mut taken = action.resources.iter().filter_map(|name| self.store.kind_of(name));
            taken.any(|kind| kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind)))
        };
        if actions.iter().filter_map(|index| self.schema.action_at(index)).any(takes) {
            return None;
        }
        let place = limit.actions.first().map_or(limit.place, |name| name.place);
        let message = "this limit never binds: none of its actions applies to what it names".to_owned();
        Some((
            place,
            message,
            "`use` actions (chat, embed …) apply to models and routers; `model_tags` are of models only",
        ))
    }

    /// The types of what can be in a scope; `None` for any.
    fn kinds_of(&self, scope: ScopeIndex) -> Option<Vec<Kind>> {
        let mut kinds: Option<Vec<Kind>> = None;
        for clause in self.scopes.scope_at(scope) {
            let of_key = |key: &_| match self.scopes.key_at(*key) {
                Key::Is(kind) => Some(*kind),
                Key::In(entity) if self.store.record(*entity).kind == Kind::ROUTER => Some(Kind::ROUTER),
                Key::In(_) | Key::Matching(_) => Some(Kind::MODEL),
                _ => None,
            };
            let Some(here) = clause.iter().map(of_key).collect::<Option<Vec<Kind>>>() else { continue };
            kinds = Some(match kinds {
                Some(kinds) => kinds.into_iter().filter(|kind| here.contains(kind)).collect(),
                None => here,
            });
        }
        kinds
    }

    /// A money limit forbids what has no price, which nobody expects of a model that a rule permits.
    fn warn_of_models_without_price(&mut self, files: &[Arc<ParsedFile>]) {
        let counts_money = |limit: &LimitDeclaration| {
            let limit = &limit.limit;
            limit.unit() == Unit::Usd && limit.mode == Mode::Enforce && limit.unpriced == Unpriced::Forbid
        };
        let limits = files.iter().flat_map(|file| file.document.limits.iter().map(move |limit| (file, limit)));
        let limits: Vec<_> = limits.filter(|(_, limit)| counts_money(limit)).collect();
        if limits.is_empty() {
            return;
        }
        let unpriced: Vec<EntityIndex> = self.store.models(None).filter(|index| self.is_unpriced(*index)).collect();
        let unpriced: Vec<(EntityIndex, Vec<EntityIndex>)> =
            unpriced.into_iter().map(|index| (index, self.above(index))).collect();
        let most = MOST_LOOKS / unpriced.len().max(1);
        for (file, limit) in limits.into_iter().take(most) {
            let Some(bound) = self.limits.iter().find(|bound| Arc::ptr_eq(&bound.limit, &limit.limit)) else {
                continue;
            };
            let mut names: Vec<&str> = unpriced
                .iter()
                .filter(|(index, above)| self.is_in(bound.resource, *index, above))
                .map(|(index, _)| self.store.record(*index).id.as_str())
                .collect();
            names.sort_unstable();
            if names.is_empty() {
                continue;
            }
            let more = names.len().saturating_sub(MOST_NAMED);
            let shown: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{name}`")).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!("this limit counts money, and no price is known of {}{more}", shown.join(", "));
            let help =
                "their use will be forbidden with `price_unknown`: give them a `price`, or write `unpriced: free`";
            let problem = Problem::warning(ProblemCode::ModelsWithoutPrice, &file.path, limit.id.place, message);
            self.problems.push(problem.with_help(help));
        }
    }

    /// Whether a model can be asked for and has no price.
    fn is_unpriced(&self, model: EntityIndex) -> bool {
        let record = self.store.record(model);
        let details = |index: EntityIndex| self.store.record(index).details.as_deref();
        // An account that lists its models has no others, whatever a rule names.
        let unlisted = !record.declared
            && record.parents.iter().any(|parent| details(*parent).is_some_and(|details| details.closed));
        let off = record.switched_off || unlisted;
        !off && details(model).is_none_or(|details| details.price.is_none())
    }

    /// A model and all that it is in.
    fn above(&self, index: EntityIndex) -> Vec<EntityIndex> {
        let mut above = self.store.closure(self.store.parents(&Subject::Known(index)));
        above.push(index);
        above
    }

    /// Whether the model is in the scope.
    fn is_in(&self, scope: ScopeIndex, model: EntityIndex, above: &[EntityIndex]) -> bool {
        let matches = |key: &_| match self.scopes.key_at(*key) {
            Key::Any => true,
            Key::Is(kind) => *kind == Kind::MODEL,
            Key::In(entity) | Key::Eq(entity) => above.contains(entity),
            Key::Tag(tag) => above.iter().any(|index| self.store.record(*index).tags().contains(tag)),
            Key::Matching(pattern) => pattern.matches(&self.store.record(model).id),
            Key::Role(_) | Key::OneOf(_) => false,
        };
        self.scopes.scope_at(scope).all(|clause| clause.iter().any(matches))
    }
}
