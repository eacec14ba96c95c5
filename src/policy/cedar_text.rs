//! Rules as Cedar text: what `compile` prints and the validator reads, one policy a rule.

use std::fmt::Write as _;

use super::condition::Condition;
use super::entities::{EntityStore, Kind, Pattern};
use super::index::{Key, KeyIndex, ScopeIndex, Scopes};
use super::schema::{Action, ActionSet, BundleSchema};
use super::snapshot::{Rule, Snapshot};

/// The two sides of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Principal,
    Resource,
}

impl Side {
    const fn variable(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Resource => "resource",
        }
    }
}

/// What a scope says: in the policy's head where Cedar can say it there, else as a condition before the others.
struct Written {
    head: String,
    condition: Option<String>,
}

/// Writes rules of one bundle.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Names of entities.
    pub store: &'a EntityStore,
    /// Names of keys.
    pub scopes: &'a Scopes,
    /// Names of actions.
    pub schema: &'a BundleSchema,
}

/// A policy's text, and where each clause of its condition begins in it.
pub struct PolicyText {
    /// The policy.
    pub text: String,
    /// Byte offsets of the clauses, in their order.
    pub clauses: Vec<usize>,
}

impl Snapshot {
    /// Every rule as Cedar, in the order of the bundle, each with its id, file and line as annotations. Restrictions of
    /// a key that restrict nothing (`routers: "*"`) are left out, since no validator accepts a policy that can never
    /// match.
    #[must_use]
    pub fn to_cedar(&self) -> String {
        let mut text = String::new();
        for policy in self.printed().filter_map(|number| self.policy_text(number)) {
            text.push_str(&policy);
            text.push_str("\n\n");
        }
        text
    }

    /// The numbers of the rules that [`Snapshot::to_cedar`] prints, in the order of the bundle.
    pub fn printed(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.rules.len()).filter(|number| !self.excepts_all_it_names(*number))
    }

    /// Whether the exceptions of a rule cover its whole scope.
    fn excepts_all_it_names(&self, number: usize) -> bool {
        let excepted = |rule: &Rule| match &*self.condition(rule.condition?).clauses {
            [only] if only.unless => Some((rule.resource, only.text.clone())),
            _ => None,
        };
        let writer = Writer { store: &self.store, scopes: &self.scopes, schema: &self.schema };
        let excepted = self.rules.get(number).and_then(excepted);
        excepted.is_some_and(|(resource, text)| text == writer.resource_condition(resource))
    }

    /// The rule of this number (they count from 0, in the order of the bundle) as Cedar, with its annotations.
    #[must_use]
    pub fn policy_text(&self, number: usize) -> Option<String> {
        let rule = self.rules.get(number)?;
        let writer = Writer { store: &self.store, scopes: &self.scopes, schema: &self.schema };
        let file = self.files.get(rule.file as usize).map_or("", |file| file);
        let condition = rule.condition.map(|index| self.condition(index).as_ref());
        let policy = writer.policy(rule, self.action_set(rule.actions), condition).text;
        let (id, file) = (quoted(&rule.id), quoted(file));
        Some(format!("@id({id})\n@file({file})\n@line(\"{}\")\n{policy}", rule.line))
    }
}

impl Writer<'_> {
    /// One rule as a policy, without annotations.
    pub fn policy(self, rule: &Rule, actions: &ActionSet, condition: Option<&Condition>) -> PolicyText {
        let principal = self.scope(rule.principal, Side::Principal);
        let resource = self.scope(rule.resource, Side::Resource);
        let actions = self.actions(actions);
        let mut text = format!("{}({}, {}, {})", rule.effect.as_str(), principal.head, actions.head, resource.head);
        for scope in [principal.condition, actions.condition, resource.condition].into_iter().flatten() {
            let _ = write!(text, "\nwhen {{ {scope} }}");
        }
        let mut clauses = Vec::new();
        for clause in condition.map_or(&[] as &[_], |condition| &condition.clauses) {
            let _ = write!(text, "\n{} {{\n", if clause.unless { "unless" } else { "when" });
            clauses.push(text.len());
            // On lines of its own, so that a comment at its end ends there.
            let _ = write!(text, "{}\n}}", clause.text);
        }
        text.push(';');
        PolicyText { text, clauses }
    }

    /// The actions of a set that can be asked for, for a reader.
    pub fn action_names(self, actions: &ActionSet) -> String {
        let names = actions.iter().filter_map(|index| self.schema.action_at(index));
        let names: Vec<&str> =
            names.filter(|action| !action.principals.is_empty()).map(|action| action.name.as_str()).collect();
        names.join(", ")
    }

    /// Who a scope means, for a reader.
    pub fn principal_words(self, index: ScopeIndex) -> String {
        self.words(index, Side::Principal)
    }

    /// What a scope means, for a reader.
    pub fn resource_words(self, index: ScopeIndex) -> String {
        self.words(index, Side::Resource)
    }

    fn words(self, index: ScopeIndex, side: Side) -> String {
        const SHOWN: usize = 300;
        let Written { head, condition } = self.scope(index, side);
        let text = condition.unwrap_or(head);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }

    /// A resource scope as a condition.
    pub fn resource_condition(self, index: ScopeIndex) -> String {
        let clauses = self.scopes.scope_at(index);
        clauses.map(|clause| self.alternatives(clause, "resource")).collect::<Vec<_>>().join(" && ")
    }

    fn actions(self, actions: &ActionSet) -> Written {
        let in_head = |head: String| Written { head, condition: None };
        if actions.iter().count() == self.schema.actions().count() {
            return in_head("action".to_owned());
        }
        let named = || actions.iter().filter_map(|index| Some((index, self.schema.action_at(index)?)));
        let mut all = named();
        if let (Some((_, only)), None) = (all.next(), all.next()) {
            return in_head(format!("action == {}", only.uid));
        }
        // `in` takes along all that is below: of an action without some of that, only `==` says no more than is meant.
        let whole = |action: &Action| action.descendants.iter().all(|index| actions.contains(index));
        let mut left: Vec<_> = named().filter(|(_, action)| whole(action)).map(|(index, _)| index).collect();
        // A group says the same as all its members, shorter.
        let mut names = Vec::new();
        for (_, action) in named().filter(|(_, action)| whole(action)) {
            if action.principals.is_empty() && action.descendants.iter().count() > 1 {
                let covered = |index: &_| action.descendants.contains(*index);
                if left.iter().any(covered) {
                    left.retain(|index| !covered(index));
                    names.push(action.uid.to_string());
                }
            }
        }
        names.extend(left.iter().filter_map(|index| Some(self.schema.action_at(*index)?.uid.to_string())));
        let within = format!("action in [{}]", names.join(", "));
        let alone = named().filter(|(_, action)| !whole(action) && !action.principals.is_empty());
        let alone: Vec<String> = alone.map(|(_, action)| format!(" || action == {}", action.uid)).collect();
        if alone.is_empty() {
            return in_head(within);
        }
        Written { head: "action".to_owned(), condition: Some(format!("{within}{}", alone.concat())) }
    }

    fn scope(self, index: ScopeIndex, side: Side) -> Written {
        let variable = side.variable();
        let scope = self.scopes.scope_at(index);
        let mut clauses = scope.clone();
        if let (Some([only]), None) = (clauses.next(), clauses.next())
            && let Some(head) = self.head(*only, variable)
        {
            return Written { head, condition: None };
        }
        let empty = scope.len() == 0;
        let condition = scope.map(|clause| self.alternatives(clause, variable)).collect::<Vec<_>>().join(" && ");
        Written { head: variable.to_owned(), condition: (!empty).then_some(condition) }
    }

    /// A key that a policy's head can say.
    fn head(self, key: KeyIndex, variable: &str) -> Option<String> {
        Some(match self.scopes.key_at(key) {
            Key::Any => variable.to_owned(),
            Key::Is(kind) => format!("{variable} is {}", self.store.kind_text(*kind)),
            Key::In(entity) => format!("{variable} {} {}", self.belongs(*entity), self.store.core_uid(*entity)),
            Key::Eq(entity) => format!("{variable} == {}", self.store.core_uid(*entity)),
            Key::Tag(_) | Key::Role(_) | Key::Matching(_) | Key::OneOf(_) => return None,
        })
    }

    /// The operator that holds of an entity and all its descendants.
    fn belongs(self, entity: super::entities::EntityIndex) -> &'static str {
        if self.store.record(entity).kind.has_descendants() { "in" } else { "==" }
    }

    fn alternatives(self, clause: &[KeyIndex], variable: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut sets: Vec<(Kind, Vec<String>)> = Vec::new();
        let (mut tags, mut roles) = (Vec::new(), Vec::new());
        for key in clause {
            match self.scopes.key_at(*key) {
                Key::In(entity) => {
                    let kind = self.store.record(*entity).kind;
                    let uid = self.store.core_uid(*entity).to_string();
                    match sets.iter_mut().find(|(known, _)| *known == kind) {
                        Some((_, uids)) => uids.push(uid),
                        None => sets.push((kind, vec![uid])),
                    }
                }
                Key::Tag(tag) => tags.push(quoted(tag)),
                Key::Role(role) => roles.push(quoted(role)),
                Key::Matching(pattern) => parts.push(pattern_text(pattern, variable)),
                Key::OneOf(_) => {}
                _ => parts.extend(self.head(*key, variable)),
            }
        }
        for (_, uids) in sets {
            match uids.as_slice() {
                [only] => parts.push(format!("{variable} in {only}")),
                _ => parts.push(format!("{variable} in [{}]", uids.join(", "))),
            }
        }
        for (attribute, names) in [("tags", tags), ("roles", roles)] {
            if !names.is_empty() {
                parts.push(format!("{variable}.{attribute}.containsAny([{}])", names.join(", ")));
            }
        }
        match parts.as_slice() {
            [only] => only.clone(),
            _ => format!("({})", parts.join(" || ")),
        }
    }
}

/// With one slash more than the pattern, a `*` of Cedar's `like` would have crossed one.
fn pattern_text(pattern: &Pattern, variable: &str) -> String {
    let (kind, pattern) = (pattern.kind().name(), pattern.as_str());
    let slashes = pattern.matches('/').count();
    let crossing = format!("*{}", "/*".repeat(slashes + 1));
    format!(
        "({variable} is {kind} && {variable}.name like {} && !({variable}.name like \"{crossing}\"))",
        quoted(pattern)
    )
}

/// A text as a Cedar string. In a `like` pattern `*` stays the wildcard.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}
