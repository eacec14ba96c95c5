//! Rules: who, what and which actions become scopes; `when` and `unless` become conditions.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::ids::id_of;
use super::labels::Label;
use super::people::Form;
use super::{Linker, ParsedFile, allowed};
use crate::model::{Container, Effect};
use crate::policy::cedar_text::Writer;
use crate::policy::condition::{Condition, ConditionError, MAX_CONDITION_BYTES};
use crate::policy::entities::{Kind, Names, Reach};
use crate::policy::guard;
use crate::policy::index::{Key, KeyIndex, ScopeIndex, is_broad};
use crate::policy::problem::{Problem, ProblemCode, Severity, nearest};
use crate::policy::schema::ActionSet;
use crate::policy::snapshot::Rule;
use crate::policy::source;
use crate::policy::syntax::{
    ConditionText, KeyDeclaration, Name, Place, RuleDeclaration, Selector, SelectorKind, TextLayout,
};

/// What applies to the request for a model itself and to what a gateway does with it.
const DEFAULT_ACTIONS: &str = "use";

impl Linker<'_> {
    pub(super) fn link_rules(&mut self, file: &Arc<ParsedFile>) {
        let number = self.file_number(&file.path);
        for (position, rule) in file.document.rules.iter().enumerate() {
            let id = id_of(rule, position, &file.path);
            if let Some((made, actions)) = self.link_rule(rule, id, number, &file.path) {
                self.validate(&made, &actions, &rule.when, &rule.unless, &file.path, rule.place);
                self.rules.push(made);
            }
        }
    }

    fn link_rule(
        &mut self,
        rule: &RuleDeclaration,
        id: SmolStr,
        number: u32,
        file: &Arc<str>,
    ) -> Option<(Rule, ActionSet)> {
        // Left without either by mistakes that are reported already; read as it stands it would mean everyone.
        if rule.who.is_empty() || rule.what.is_empty() {
            return None;
        }
        let before = self.errors;
        let principal = self.principal_scope(&rule.who, file);
        let resource = self.resource_scope(&rule.what, file);
        // An unknown action keeps the bundle from loading; with others in its place the rest is still looked at.
        let actions = self.actions(&rule.actions, file).or_else(|| self.actions(&[], file));
        let condition = self.condition(&rule.when, &rule.unless, file);
        if let Ok(Some(condition)) = &condition
            && !self.limits_are_known(condition, &rule.when, &rule.unless, file)
        {
            return None;
        }
        if let Ok(Some(condition)) = &condition {
            let texts: Vec<&ConditionText> = rule.when.iter().chain(&rule.unless).collect();
            self.named_by_condition(condition, &texts, file);
        }
        let failed = self.errors > before;
        let (Some(actions), Ok(condition)) = (actions, condition) else { return None };
        if !failed {
            self.note_if_always_looked_at(principal, resource, rule.place, &id, file);
        }
        let condition = condition.map(|condition| self.condition_number(&condition));
        let set = self.action_set(actions.clone());
        let made = Rule {
            id,
            effect: rule.effect,
            file: number,
            line: rule.place.line,
            principal,
            resource,
            actions: set,
            exact: self.scopes.are_exact(principal, resource),
            direct_only: false,
            condition,
        };
        Some((made, actions))
    }

    pub(super) fn principal_scope(&mut self, who: &[Selector], file: &Arc<str>) -> ScopeIndex {
        let (mut any_of, mut tags, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for selector in who {
            let name = &selector.name;
            let kind = match selector.kind {
                SelectorKind::Tag => {
                    self.label(Label::Tag, Form::List, name, file);
                    tags.push(self.scopes.key(Key::Tag(name.value.clone())));
                    continue;
                }
                SelectorKind::Role => {
                    self.label(Label::Role, Form::List, name, file);
                    roles.push(self.scopes.key(Key::Role(name.value.clone())));
                    continue;
                }
                SelectorKind::Team | SelectorKind::Org => {
                    let kind = if selector.kind == SelectorKind::Team { Kind::TEAM } else { Kind::ORG };
                    any_of.push(self.group_key(kind, name, file));
                    continue;
                }
                SelectorKind::Service => Kind::SERVICE,
                SelectorKind::Key => Kind::API_KEY,
                _ => Kind::USER,
            };
            if name.value == "*" {
                self.everyone(kind, &mut any_of);
            } else {
                let index = self.referred(kind, name, file);
                any_of.push(self.scopes.key(Key::In(index)));
            }
        }
        let clauses = [any_of, tags, roles];
        self.scopes.scope(clauses.into_iter().filter(|clause| !clause.is_empty()))
    }

    /// Every one of a kind, and every key of theirs.
    fn everyone(&mut self, kind: Kind, keys: &mut Vec<KeyIndex>) {
        keys.push(self.scopes.key(Key::Is(kind)));
        if kind != Kind::API_KEY {
            let name = self.store.kind_text(kind).clone();
            let group = self.store.intern(Kind::OWNER_KIND, &name);
            keys.push(self.scopes.key(Key::In(group)));
        }
    }

    pub(super) fn resource_scope(&mut self, what: &[Selector], file: &Arc<str>) -> ScopeIndex {
        let (mut any_of, mut tags) = (Vec::new(), Vec::new());
        for selector in what {
            let name = &selector.name;
            match selector.kind {
                SelectorKind::ModelTag => {
                    self.label(Label::ModelTag, Form::List, name, file);
                    tags.push(self.scopes.key(Key::Tag(name.value.clone())));
                }
                other => any_of.extend(other.entity_kind().map(|kind| self.listed_key(kind, name, file))),
            }
        }
        let tagged = SelectorKind::ModelTag.entity_kind().filter(|_| !tags.is_empty());
        let tagged = tagged.into_iter().map(|kind| self.scopes.key(Key::Is(kind))).collect();
        let clauses = [any_of, tags, tagged];
        self.scopes.scope(clauses.into_iter().filter(|clause| !clause.is_empty()))
    }

    /// The key of one name in a list of resources of this kind, or of their containers.
    fn listed_key(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> KeyIndex {
        match kind.container() {
            _ if kind.namespace().is_some() => {
                let reach = self.model_name(name, file).unwrap_or(Reach::Named(Names::Every(kind)));
                self.reach_key(reach)
            }
            // The parser takes `*` for kinds of resources alone.
            _ if name.value == "*" => self.scopes.key(Key::Is(kind)),
            Container::Namespace(_) => {
                let index = self.referred(kind, name, file);
                self.scopes.key(Key::In(index))
            }
            _ => self.group_key(kind, name, file),
        }
    }

    /// Whoever or whatever is in the group of this name. Where nobody declares it that is a problem, and the group is
    /// made up: the bundle will not load, and the rest of the rule can still be looked at.
    fn group_key(&mut self, kind: Kind, name: &Name, file: &Arc<str>) -> KeyIndex {
        let declared = self.declared(kind, name, file);
        let index = declared.unwrap_or_else(|| self.store.intern(kind, &name.value));
        self.scopes.key(Key::In(index))
    }

    fn reach_key(&mut self, reach: Reach) -> KeyIndex {
        self.scopes.key(match reach {
            Reach::In(index) => Key::In(index),
            Reach::Named(Names::Matching(pattern)) => Key::Matching(Box::new(pattern)),
            Reach::Named(Names::Every(kind)) => Key::Is(kind),
        })
    }

    /// The named actions with all below them; every action of `use` where none is named.
    pub(super) fn actions(&mut self, names: &[Name], file: &Arc<str>) -> Option<ActionSet> {
        if names.is_empty() {
            return self
                .schema
                .action(DEFAULT_ACTIONS)
                .and_then(|index| Some(self.schema.action_at(index)?.descendants.clone()));
        }
        let mut all = ActionSet::of([]);
        let mut known = true;
        for name in names {
            match self.schema.action(&name.value).and_then(|index| self.schema.action_at(index)) {
                Some(action) => all.add(&action.descendants),
                None => {
                    known = false;
                    let names: Vec<&str> = self.schema.actions().map(|(_, action)| action.name.as_str()).collect();
                    let near =
                        nearest(&name.value, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                    let help = near.unwrap_or_else(|| format!("the actions are {}", names.join(", ")));
                    let message = format!("no action is called `{}`", name.value);
                    self.error(ProblemCode::UnknownAction, file, name.place, message, Some(help));
                }
            }
        }
        known.then_some(all)
    }

    /// Whether every limit that the condition names is one; a problem for each that is not. Cedar alone would take what
    /// asks whether there is such a limit for false, and so a rule for another.
    fn limits_are_known(
        &mut self,
        condition: &Condition,
        when: &[ConditionText],
        unless: &[ConditionText],
        file: &Arc<str>,
    ) -> bool {
        let mut unknown: Vec<&SmolStr> =
            condition.reads.limits.iter().filter(|id| !self.schema.limits.has(id)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        for id in &unknown {
            let found = when.iter().chain(unless).find_map(|text| Some((text, text.text.find(id.as_str())?)));
            let place = found.map_or_else(Place::default, |(text, at)| place_in(text, at, id.len()));
            let help = self.schema.limits.help(id);
            self.error(ProblemCode::UnknownReference, file, place, format!("no limit is called `{id}`"), Some(help));
        }
        unknown.is_empty()
    }

    fn condition(
        &mut self,
        when: &[ConditionText],
        unless: &[ConditionText],
        file: &Arc<str>,
    ) -> Result<Option<Arc<Condition>>, ()> {
        if when.is_empty() && unless.is_empty() {
            return Ok(None);
        }
        let written = || when.iter().map(|text| (false, text)).chain(unless.iter().map(|text| (true, text)));
        let key: Vec<(bool, SmolStr)> = written().map(|(unless, text)| (unless, text.text.clone())).collect();
        if let Some(known) = self.condition_cache.known(&key) {
            return Ok(Some(known));
        }
        let mut clauses = Vec::new();
        let mut failed = false;
        for (unless, text) in written() {
            match self.condition_cache.clause(&text.text, unless) {
                Ok(clause) => clauses.push(clause),
                Err(error) => {
                    failed = true;
                    self.put(condition_problem(&error, text, file));
                }
            }
        }
        if failed {
            return Err(());
        }
        Ok(Condition::new(clauses).map(|condition| self.condition_cache.keep(key, condition)))
    }

    /// What Cedar's validator says of a rule.
    fn validate(
        &mut self,
        rule: &Rule,
        actions: &ActionSet,
        when: &[ConditionText],
        unless: &[ConditionText],
        file: &Arc<str>,
        place: Place,
    ) {
        let condition = rule.condition.and_then(|index| self.conditions.get(index.0 as usize)).cloned();
        let found = self.validation.rule(&mut self.scopes, &self.store, rule, actions, condition.as_deref());
        for problem in found.iter() {
            let written: Vec<&ConditionText> = when.iter().chain(unless).collect();
            let at = problem
                .clause
                .and_then(|(clause, offset, length)| Some(place_in(written.get(clause)?, offset, length)))
                .unwrap_or(place);
            let made = Problem::error(problem.code, file, at, problem.message.clone());
            self.put(Problem { severity: problem.severity, help: problem.help.clone(), ..made });
        }
    }

    /// A rule that names neither a principal nor a resource in particular is a candidate in every decision.
    pub fn note_if_always_looked_at(
        &mut self,
        principal: ScopeIndex,
        resource: ScopeIndex,
        place: Place,
        id: &SmolStr,
        file: &Arc<str>,
    ) {
        let broad = |scope: ScopeIndex| {
            let broad = |key: &KeyIndex| is_broad(&self.scopes, &self.store, *key);
            self.scopes.scope_at(scope).all(|clause| clause.iter().any(broad))
        };
        if broad(principal) && broad(resource) {
            let message =
                format!("`{id}` names nobody and nothing in particular, so it is looked at in every decision");
            let help = "each such rule costs about 0.1 µs a decision, or 1 µs with a condition; name teams, users, accounts or groups where you can".to_owned();
            let problem = Problem::error(ProblemCode::AlwaysLookedAt, file, place, message).with_help(help);
            self.put(Problem { severity: Severity::Note, ..problem });
        }
    }

    /// What a key of the bundle is narrowed to: a forbid of everything else.
    pub(super) fn link_key_restrictions(&mut self, files: &[Arc<ParsedFile>]) {
        for file in files {
            let number = self.file_number(&file.path);
            for key in &file.document.keys {
                let before = self.errors;
                let mut restrictions = self.restrictions(key, &file.path);
                let prefix = format!("key:{}:", key.id.value);
                let is_limited = file.document.limits.iter().any(|limit| limit.limit.id.starts_with(&prefix));
                if !restrictions.is_empty() || is_limited {
                    restrictions.extend(self.managing());
                }
                if self.errors > before {
                    continue;
                }
                for restriction in restrictions {
                    self.restrict(&key.id, restriction, number, &file.path);
                }
            }
        }
    }

    /// A restricted key manages neither keys nor members, since it could make an unrestricted key. It may see usage.
    fn managing(&self) -> Option<Restriction> {
        let group = self.schema.action("admin").and_then(|index| self.schema.action_at(index))?;
        let view = self.schema.action(VIEW_USAGE);
        let actions = group.descendants.filter(|index| view != Some(*index));
        Some(Restriction { name: "narrowed", kinds: Vec::new(), unless: None, actions, direct_only: false })
    }

    fn restrictions(&mut self, key: &KeyDeclaration, file: &Arc<str>) -> Vec<Restriction> {
        let every = ActionSet::of(self.schema.actions().map(|(index, _)| index));
        let all =
            |name| Restriction { name, kinds: Vec::new(), unless: None, actions: every.clone(), direct_only: false };
        let mut restrictions = Vec::new();
        let lists = key.lists();
        let listed: Vec<(SelectorKind, Kind, &[Name])> = lists
            .into_iter()
            .filter_map(|(selector, names)| Some((selector, selector.entity_kind()?, names?)))
            .collect();
        for (selector, kind, names) in &listed {
            // If models are listed and routers are not, a router would lead to models that the key may not use. If routers
            // are listed and models are not, models can be used only through them.
            let related = kind.grants().chain(kind.leads_to());
            let mut kinds: Vec<Kind> =
                related.filter(|other| !listed.iter().any(|(_, kind, _)| kind == other)).chain([*kind]).collect();
            kinds.sort_unstable();
            let unless = Some(self.named(names, *selector, file));
            restrictions.push(Restriction {
                kinds,
                unless,
                direct_only: kind.grants_access(),
                ..all(selector.field())
            });
        }
        if let Some(allowed) = key.actions.as_ref().and_then(|names| self.actions(names, file)) {
            let actions = every.filter(|index| !allowed.contains(*index));
            restrictions.push(Restriction { actions, ..all("actions") });
        }
        if let Some(paths) = &key.paths {
            restrictions.push(Restriction { unless: Some(allowed::paths(paths)), ..all("paths") });
        }
        if let Some(networks) = &key.networks {
            restrictions.push(Restriction { unless: Some(allowed::networks(networks)), ..all("networks") });
        }
        restrictions
    }

    /// A condition that holds of what `names` names.
    fn named(&mut self, names: &[Name], kind: SelectorKind, file: &Arc<str>) -> String {
        let what: Vec<Selector> = names.iter().map(|name| Selector { kind, name: name.clone() }).collect();
        let scope = self.resource_scope(&what, file);
        Writer { store: &self.store, scopes: &self.scopes, schema: self.schema }.resource_condition(scope)
    }

    fn restrict(&mut self, key: &Name, restriction: Restriction, number: u32, file: &Arc<str>) {
        let index = self.store.intern(Kind::API_KEY, &key.value);
        let principal = {
            let key = self.scopes.key(Key::In(index));
            self.scopes.scope([vec![key]])
        };
        let Restriction { name, kinds, unless, actions, direct_only } = restriction;
        // Told in the words of the key: nobody wrote that condition.
        if unless.as_ref().is_some_and(|text| text.len() > MAX_CONDITION_BYTES) {
            let message = format!("the `{name}` of this key are too long together");
            let help = "name what they have in common (`/v1/*`, `account/*`, a wider network), or make several keys";
            self.error(ProblemCode::ConditionTooComplex, file, key.place, message, Some(help.to_owned()));
            return;
        }
        let kinds: Vec<KeyIndex> = kinds.iter().map(|kind| self.scopes.key(Key::Is(*kind))).collect();
        let resource = self.scopes.scope([kinds].into_iter().filter(|kinds| !kinds.is_empty()));
        let asked_for = |index| self.schema.action_at(index).is_some_and(|action| !action.principals.is_empty());
        if !actions.iter().any(asked_for) {
            return;
        }
        let unless: Vec<ConditionText> = unless
            .into_iter()
            .map(|text| ConditionText { text: text.into(), place: key.place, layout: TextLayout::Opaque })
            .collect();
        let Ok(condition) = self.condition(&[], &unless, file) else { return };
        let condition = condition.map(|condition| self.condition_number(&condition));
        let id = format_smolstr!("key:{}:{name}", key.value);
        let actions = self.action_set(actions);
        self.rules.push(Rule {
            id,
            effect: Effect::Forbid,
            file: number,
            line: key.place.line,
            principal,
            resource,
            actions,
            exact: self.scopes.are_exact(principal, resource),
            direct_only,
            condition,
        });
    }
}

/// The action of `admin` that changes nothing.
const VIEW_USAGE: &str = "view_usage";

/// What a key is narrowed to by one list: a forbid of `actions` on these kinds (all, where none is named), unless that holds.
struct Restriction {
    name: &'static str,
    kinds: Vec<Kind>,
    unless: Option<String>,
    actions: ActionSet,
    /// Whether it does not apply to a resource that is used through a grant, such as a model through a router.
    direct_only: bool,
}

fn condition_problem(error: &ConditionError, text: &ConditionText, file: &Arc<str>) -> Problem {
    match error {
        ConditionError::TooComplex { offset, message } => {
            Problem::error(ProblemCode::ConditionTooComplex, file, place_in(text, *offset, 1), message.clone())
                .with_help(guard::HELP)
        }
        ConditionError::Syntax { offset, length, message, help } => {
            let place = place_in(text, *offset, *length);
            let problem =
                Problem::error(ProblemCode::ConditionSyntax, file, place, format!("Cedar cannot read this: {message}"));
            let fallback = "a condition is a Cedar expression, such as `context.budget.used_percent < 80`";
            problem.with_help(help.clone().unwrap_or_else(|| fallback.to_owned()))
        }
    }
}

/// Where `length` bytes of a condition's text, from byte `offset` on, stand in the file.
pub(super) fn place_in(text: &ConditionText, offset: usize, length: usize) -> Place {
    let inner = source::place_at(&text.text, offset, length);
    match text.layout {
        TextLayout::Inline => Place {
            line: text.place.line,
            column: text.place.column + offset_in_characters(text, offset),
            length: inner.length,
        },
        TextLayout::Block => Place {
            line: text.place.line + inner.line - 1,
            column: text.place.column + inner.column - 1,
            length: inner.length,
        },
        TextLayout::Opaque => text.place,
    }
}

fn offset_in_characters(text: &ConditionText, offset: usize) -> u32 {
    source::number(text.text.char_indices().take_while(|(at, _)| *at < offset).count())
}
