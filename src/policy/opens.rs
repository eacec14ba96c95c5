//! Detects two effects of a reload: a permit for all principals that is new, and a forbid that no longer applies to any
//! declared principal. Both can result from a slip in one line, and neither removes a rule.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::entities::{EntityStore, Kind, Pattern, Subject};
use super::index::{Key, KeyIndex, RuleIndex, ScopeIndex, Scopes, is_broad, number};
use super::snapshot::{Rule, Snapshot};
use crate::model::{Effect, RuleReference};

/// The principal type, resource type and action of a permit for all principals, by name, since two bundles number them
/// differently.
type Everybody = HashSet<(SmolStr, SmolStr, SmolStr), RandomState>;

/// The first rule of `after` that permits all principals an access that no rule of `before` permits to all of them.
pub(super) fn permits_everybody(before: &Snapshot, after: &Snapshot) -> Option<RuleReference> {
    let known: Everybody = (0..before.rules.len()).flat_map(|at| everybody(before, at)).collect();
    let is_new = |at: &usize| everybody(after, *at).iter().any(|one| !known.contains(one));
    (0..after.rules.len()).find(is_new).map(|at| after.reference(RuleIndex(number(at))))
}

/// The access that the rule permits to all principals of a type on all resources of a type.
fn everybody(snapshot: &Snapshot, at: usize) -> Vec<(SmolStr, SmolStr, SmolStr)> {
    let Some(rule) = snapshot.rules.get(at).filter(|rule| rule.effect == Effect::Permit) else { return Vec::new() };
    let actions = snapshot.action_set(rule.actions);
    let mut found = Vec::new();
    let kinds = |scope| whole_kinds(&snapshot.scopes, &snapshot.store, scope);
    let (Some(principals), Some(resources)) = (kinds(rule.principal), kinds(rule.resource)) else { return found };
    if depends_on_who_or_what(snapshot, rule) {
        return found;
    }
    for action in actions.iter().filter_map(|index| snapshot.schema.action_at(index)) {
        for principal in action.principals.iter().filter(|name| principals.have(name)) {
            for resource in action.resources.iter().filter(|name| resources.have(name)) {
                found.push((principal.clone(), resource.clone(), action.name.clone()));
            }
        }
    }
    found
}

/// Whether a condition distinguishes between principals or resources.
fn depends_on_who_or_what(snapshot: &Snapshot, rule: &Rule) -> bool {
    let reads = |condition| {
        let reads = &snapshot.condition(condition).reads;
        reads.principal || reads.resource
    };
    rule.condition.is_some_and(reads)
}

/// Types of which a scope takes every entity.
enum Kinds {
    Every,
    These(Vec<SmolStr>),
}

impl Kinds {
    fn have(&self, name: &SmolStr) -> bool {
        match self {
            Self::Every => true,
            Self::These(names) => names.contains(name),
        }
    }
}

/// The types of which `scope` takes every entity; `None` for no type.
fn whole_kinds(scopes: &Scopes, store: &EntityStore, scope: ScopeIndex) -> Option<Kinds> {
    let mut kinds = Kinds::Every;
    for clause in scopes.scope_at(scope) {
        if clause.iter().any(|key| matches!(scopes.key_at(*key), Key::Any)) {
            continue;
        }
        let whole = |key: &KeyIndex| match scopes.key_at(*key) {
            Key::Is(kind) => Some(store.kind_text(*kind).clone()),
            Key::Matching(pattern) if matches_all(pattern) => Some(store.kind_text(pattern.kind()).clone()),
            _ => None,
        };
        let mut here: Vec<SmolStr> = clause.iter().filter_map(whole).collect();
        here.retain(|name| kinds.have(name));
        if here.is_empty() {
            return None;
        }
        kinds = Kinds::These(here);
    }
    Some(kinds)
}

/// `*/*` and its like.
fn matches_all(pattern: &Pattern) -> bool {
    pattern.as_str().bytes().all(|byte| matches!(byte, b'*' | b'/'))
}

/// The first forbid that applied to a declared principal in `before`, and applies to none in `after`.
pub(super) fn forbids_nobody(before: &Snapshot, after: &Snapshot) -> Option<RuleReference> {
    let forbids = |snapshot: &Snapshot| -> HashMap<SmolStr, usize, RandomState> {
        let rules = snapshot.rules.iter().enumerate().filter(|(_, rule)| rule.effect == Effect::Forbid);
        rules.map(|(at, rule)| (rule.id.clone(), at)).collect()
    };
    let known = forbids(before);
    let mut both: Vec<(usize, usize)> =
        forbids(after).into_iter().filter_map(|(id, at)| Some((at, *known.get(&id)?))).collect();
    both.sort_unstable();
    let scope = |snapshot: &Snapshot, at: usize| snapshot.rules.get(at).map(|rule| rule.principal);
    let now = about_somebody(after, both.iter().map(|(at, _)| scope(after, *at)));
    let lost: Vec<(usize, usize)> =
        both.into_iter().zip(now).filter(|(_, somebody)| !somebody).map(|(both, _)| both).collect();
    if lost.is_empty() {
        return None;
    }
    let then = about_somebody(before, lost.iter().map(|(_, at)| scope(before, *at)));
    let narrowed = lost.into_iter().zip(then).find(|(_, somebody)| *somebody);
    narrowed.map(|((at, _), _)| after.reference(RuleIndex(number(at))))
}

/// For each of these scopes, whether it contains a declared principal. A scope of all principals of a type counts even
/// if none is declared.
fn about_somebody(snapshot: &Snapshot, scopes: impl Iterator<Item = Option<ScopeIndex>>) -> Vec<bool> {
    let (table, store) = (&snapshot.scopes, &snapshot.store);
    let broad = |clause: &[KeyIndex]| clause.iter().any(|key| is_broad(table, store, *key));
    let mut found = Vec::new();
    // Each scope is filed under the alternatives of one of its lists. A principal in the scope has at least one of
    // them.
    let mut waiting: HashMap<KeyIndex, Vec<(usize, ScopeIndex)>, RandomState> = HashMap::default();
    for (at, scope) in scopes.enumerate() {
        let narrow =
            scope.and_then(|scope| table.scope_at(scope).find(|clause| !broad(clause)).map(|clause| (scope, clause)));
        found.push(narrow.is_none());
        if let Some((scope, clause)) = narrow {
            for key in clause {
                waiting.entry(*key).or_default().push((at, scope));
            }
        }
    }
    let mut left = found.iter().filter(|somebody| !**somebody).count();
    for (index, _) in store.iter().filter(|(_, record)| record.declared && is_principal(snapshot, record.kind)) {
        if left == 0 {
            break;
        }
        let keys = snapshot.index.keys_of(table, store, &Subject::Known(index));
        for (at, scope) in keys.iter().filter_map(|key| waiting.get(key)).flatten() {
            if let Some(somebody) = found.get_mut(*at).filter(|somebody| !**somebody)
                && table.contains(*scope, &keys)
            {
                *somebody = true;
                left -= 1;
            }
        }
    }
    found
}

fn is_principal(snapshot: &Snapshot, kind: Kind) -> bool {
    let name = snapshot.store.kind_text(kind);
    snapshot.schema.actions().any(|(_, action)| action.principals.contains(name))
}
