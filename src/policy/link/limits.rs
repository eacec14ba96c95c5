//! Limits: who, what and which actions become scopes, as those of rules do; then whether they can bind at all, and
//! whether what they count has a price.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::labels::has_model_tags;
use super::{Linker, ParsedFile};
use crate::meter::{Mode, Unpriced};
use crate::model::Unit;
use crate::policy::entities::{EntityIndex, Kind, Subject};
use crate::policy::index::{Key, ScopeIndex};
use crate::policy::limits::BoundLimit;
use crate::policy::problem::ProblemCode;
use crate::policy::schema::{Action, ActionSet};
use crate::policy::syntax::{Each, LimitDeclaration, Name, Place, Selector, SelectorKind};

/// Most limits of a bundle.
const MOST_LIMITS: usize = 20_000;
/// What a limit binds where it says no action: to see what there is costs nothing.
const NOT_BY_DEFAULT: &str = "list";
/// Most models that one warning names.
const MOST_NAMED: usize = 3;
/// Most pairs of a limit and a model that one load looks at for prices.
const MOST_LOOKS: usize = 1_000_000;

impl Linker<'_> {
    /// Links the limits of all files; `may_walk` says that no chain of groups is a circle, or too long.
    pub(super) fn link_limits(&mut self, files: &[Arc<ParsedFile>], may_walk: bool) {
        let labels = self.labels(files);
        let children = self.child_teams(files);
        let mut ids: HashMap<&SmolStr, (&Arc<str>, u32), RandomState> = HashMap::default();
        let mut of_money = Vec::new();
        for file in files {
            for limit in &file.document.limits {
                if self.limits.len() == MOST_LIMITS {
                    let message = format!("a bundle has {MOST_LIMITS} limits at most");
                    let help = "one limit with `each` has a meter for every user, team or key".to_owned();
                    self.error(ProblemCode::BundleTooLarge, &file.path, limit.place, message, Some(help));
                    return;
                }
                if let Some((first, line)) = ids.insert(&limit.id.value, (&file.path, limit.id.place.line)) {
                    let message = format!("two limits are called `{}`", limit.id.value);
                    let help = format!("the other one is at {first}:{line}; give one of them another id");
                    self.error(ProblemCode::DuplicateId, &file.path, limit.id.place, message, Some(help));
                }
                let Some(bound) = self.link_limit(limit, file, &labels) else { continue };
                self.warn_of_child_teams(limit, &children, &file.path);
                if counts_money(limit) {
                    of_money.push((&file.path, limit.id.place, bound.resource));
                }
                self.limits.push(bound);
            }
        }
        if may_walk && !of_money.is_empty() {
            self.warn_of_models_without_price(&of_money);
        }
    }

    /// The direct child teams of every team, if a limit is for each team of some that it names.
    fn child_teams(&self, files: &[Arc<ParsedFile>]) -> HashMap<EntityIndex, Vec<EntityIndex>, RandomState> {
        let mut children: HashMap<EntityIndex, Vec<EntityIndex>, RandomState> = HashMap::default();
        if !files.iter().flat_map(|file| &file.document.limits).any(is_for_each_named_team) {
            return children;
        }
        for (index, record) in self.store.iter().filter(|(_, record)| record.kind == Kind::TEAM) {
            for parent in record.parents.iter().filter(|parent| self.store.record(**parent).kind == Kind::TEAM) {
                children.entry(*parent).or_default().push(index);
            }
        }
        children
    }

    /// A limit for each team has a meter for each team that people are in, and so for each child of a team that it
    /// names. A limit that also names the children states this intent explicitly.
    fn warn_of_child_teams(
        &mut self,
        limit: &LimitDeclaration,
        children: &HashMap<EntityIndex, Vec<EntityIndex>, RandomState>,
        file: &Arc<str>,
    ) {
        if !is_for_each_named_team(limit) {
            return;
        }
        let team = |selector: &Selector| self.store.find(Kind::TEAM, &selector.name.value);
        let selectors = || limit.who.iter().filter(|selector| selector.kind == SelectorKind::Team);
        let named: HashSet<EntityIndex> = selectors().filter_map(team).collect();
        let mut found = Vec::new();
        for selector in selectors() {
            let of_team = team(selector).and_then(|team| children.get(&team)).into_iter().flatten();
            let mut unnamed: Vec<&str> = of_team
                .filter(|child| !named.contains(child))
                .map(|child| self.store.record(*child).id.as_str())
                .collect();
            unnamed.sort_unstable();
            if unnamed.is_empty() {
                continue;
            }
            let id = &selector.name.value;
            let shown = listed(&unnamed);
            let message = format!("`{id}` has child teams ({shown}), and each of them gets the whole amount too");
            let help = format!(
                "leave `each` out for one meter that all members of `{id}` share, or also name the child teams if \
                 each team is to have its own"
            );
            found.push((selector.name.place, message, help));
        }
        for (place, message, help) in found {
            self.warn(ProblemCode::EachChildTeam, file, place, message, Some(help));
        }
    }

    /// The tags of models and accounts, if a limit asks for any.
    fn labels(&self, files: &[Arc<ParsedFile>]) -> HashSet<SmolStr, RandomState> {
        let mut what = files.iter().flat_map(|file| &file.document.limits).flat_map(|limit| &limit.what);
        if !what.any(|one| one.kind == SelectorKind::ModelTag) {
            return HashSet::default();
        }
        let records = self.store.iter().map(|(_, record)| record).filter(|record| has_model_tags(record.kind));
        records.flat_map(|record| record.tags().iter().cloned()).collect()
    }

    fn link_limit(
        &mut self,
        limit: &LimitDeclaration,
        file: &ParsedFile,
        labels: &HashSet<SmolStr, RandomState>,
    ) -> Option<BoundLimit> {
        let before = self.errors;
        let principal = self.principal_scope(&limit.who, &file.path);
        let resource = self.resource_scope(&limit.what, &file.path);
        let actions = self.limited_actions(&limit.actions, &file.path)?;
        let failed = self.errors > before;
        if let (false, Some((place, message, help))) = (failed, self.never_binds(limit, resource, &actions, labels)) {
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
        Some(BoundLimit {
            limit: Arc::clone(&limit.limit),
            each: limit.each.clone(),
            principal,
            resource,
            actions,
            payers,
            description: limit.description.as_deref().map(Arc::from),
            file: Arc::clone(&file.path),
            line: limit.place.line,
        })
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
        labels: &HashSet<SmolStr, RandomState>,
    ) -> Option<(Place, String, &'static str)> {
        let mut tags = limit.what.iter().filter(|one| one.kind == SelectorKind::ModelTag).map(|one| &one.name);
        if let Some(first) = tags.clone().next()
            && !tags.any(|name| labels.contains(&name.value))
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
                Key::In(entity) => {
                    let kind = self.store.record(*entity).kind;
                    Some(kind.members().filter(|_| kind.has_descendants()).unwrap_or(kind))
                }
                Key::Matching(pattern) => Some(pattern.kind()),
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
    /// `limits` are such, each with its file, place and resources.
    fn warn_of_models_without_price(&mut self, limits: &[(&Arc<str>, Place, ScopeIndex)]) {
        let priced = Kind::all().filter(|kind| kind.is_priced()).flat_map(|kind| self.store.every(kind));
        let unpriced: Vec<EntityIndex> = priced.filter(|index| self.is_unpriced(*index)).collect();
        let unpriced: Vec<(EntityIndex, Vec<EntityIndex>)> =
            unpriced.into_iter().map(|index| (index, self.above(index))).collect();
        let most = MOST_LOOKS / unpriced.len().max(1);
        for (file, place, resource) in limits.iter().take(most) {
            let mut names: Vec<&str> = unpriced
                .iter()
                .filter(|(index, above)| self.is_in(*resource, *index, above))
                .map(|(index, _)| self.store.record(*index).id.as_str())
                .collect();
            names.sort_unstable();
            if names.is_empty() {
                continue;
            }
            let message = format!("this limit counts money, and no price is known of {}", listed(&names));
            let help =
                "their use will be forbidden with `price_unknown`: give them a `price`, or write `unpriced: free`";
            self.warn(ProblemCode::ModelsWithoutPrice, file, *place, message, Some(help.to_owned()));
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
        let model = self.store.record(model);
        let matches = |key: &_| match self.scopes.key_at(*key) {
            Key::Any => true,
            Key::Is(kind) => *kind == model.kind,
            Key::In(entity) | Key::Eq(entity) => above.contains(entity),
            Key::Tag(tag) => above.iter().any(|index| self.store.record(*index).tags().contains(tag)),
            Key::Matching(pattern) => pattern.matches(model.kind, &model.id),
            Key::Role(_) | Key::OneOf(_) => false,
        };
        self.scopes.scope_at(scope).all(|clause| clause.iter().any(matches))
    }
}

/// Some names for a message, and how many more there are.
fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let shown: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{name}`")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Whether a limit has a meter for each team, of some teams that it names.
fn is_for_each_named_team(limit: &LimitDeclaration) -> bool {
    limit.each == Some(Each::Team) && limit.who.iter().any(|selector| selector.kind == SelectorKind::Team)
}

/// Whether a limit forbids what has no price.
fn counts_money(limit: &LimitDeclaration) -> bool {
    let limit = &limit.limit;
    limit.unit() == Unit::Usd && limit.mode == Mode::Enforce && limit.unpriced == Unpriced::Forbid
}
