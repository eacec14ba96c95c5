//! Putting together what was linked by parts, or for the snapshot before: rules are copied, and whatever they name by
//! number is numbered anew in the order in which it first comes up, so that it does not matter where a part comes from.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Linker;
use crate::policy::condition::{Condition, ConditionIndex};
use crate::policy::entities::{EntityIndex, EntityRecord, EntityStore};
use crate::policy::index::{Key, KeyIndex, ScopeIndex, Scopes};
use crate::policy::schema::ActionSet;
use crate::policy::snapshot::{ActionSetIndex, Rule, Snapshot};

/// What rules are copied from.
pub(super) struct Source<'a> {
    pub(super) store: &'a EntityStore,
    pub(super) scopes: &'a Scopes,
    pub(super) rules: &'a [Rule],
    pub(super) files: &'a [Arc<str>],
    pub(super) conditions: &'a [Arc<Condition>],
    pub(super) action_sets: &'a [ActionSet],
}

impl<'a> Source<'a> {
    pub(super) fn of_snapshot(snapshot: &'a Snapshot) -> Self {
        let Snapshot { store, scopes, rules, files, conditions, action_sets, .. } = snapshot;
        Self { store, scopes, rules, files, conditions, action_sets }
    }

    pub(super) fn of_linker(linker: &'a Linker<'_>) -> Self {
        let Linker { store, scopes, rules, files, conditions, action_sets, .. } = linker;
        Self { store, scopes, rules, files, conditions, action_sets }
    }
}

/// The new numbers of what was copied from one source so far.
#[derive(Default)]
pub(super) struct Renumbered {
    files: Numbers,
    scopes: Numbers,
    keys: Numbers,
    conditions: Numbers,
    action_sets: Numbers,
    entities: HashMap<EntityIndex, EntityIndex, RandomState>,
}

/// New numbers by the old ones.
#[derive(Default)]
struct Numbers(Vec<u32>);

/// That there is no number yet.
const NONE: u32 = u32::MAX;

impl Numbers {
    fn get(&self, at: u32) -> Option<u32> {
        self.0.get(at as usize).copied().filter(|number| *number != NONE)
    }

    fn put(&mut self, at: u32, number: u32) -> u32 {
        let at = at as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, NONE);
        }
        self.0.iter_mut().skip(at).take(1).for_each(|slot| *slot = number);
        number
    }
}

impl Linker<'_> {
    /// Takes over some of the rules of `from` and these entities, which only those rules name; their new numbers.
    #[expect(clippy::indexing_slicing, reason = "a rule's numbers are only made with the lists that it is kept with")]
    pub(super) fn append(
        &mut self,
        from: &Source<'_>,
        rules: Range<usize>,
        named: impl Iterator<Item = EntityIndex>,
        map: &mut Renumbered,
    ) -> Vec<EntityIndex> {
        // Some stand in the text of a condition alone.
        let named = named.map(|entity| self.copied_entity(from, entity, map)).collect();
        for rule in from.rules.get(rules).unwrap_or_default() {
            let file = map.files.get(rule.file).unwrap_or_else(|| {
                let new = self.file_number(&from.files[rule.file as usize]);
                map.files.put(rule.file, new)
            });
            let actions = map.action_sets.get(rule.actions.0).unwrap_or_else(|| {
                let new = self.action_set(from.action_sets[rule.actions.0 as usize].clone());
                map.action_sets.put(rule.actions.0, new.0)
            });
            let condition = rule.condition.map(|ConditionIndex(at)| {
                map.conditions.get(at).unwrap_or_else(|| {
                    let new = self.condition_number(&from.conditions[at as usize]);
                    map.conditions.put(at, new.0)
                })
            });
            let principal = self.copied_scope(from, rule.principal, map);
            let resource = self.copied_scope(from, rule.resource, map);
            self.rules.push(Rule {
                id: rule.id.clone(),
                effect: rule.effect,
                file,
                line: rule.line,
                principal,
                resource,
                actions: ActionSetIndex(actions),
                exact: rule.exact,
                direct_only: rule.direct_only,
                condition: condition.map(ConditionIndex),
            });
        }
        named
    }

    fn copied_scope(&mut self, from: &Source<'_>, scope: ScopeIndex, map: &mut Renumbered) -> ScopeIndex {
        if let Some(known) = map.scopes.get(scope.0) {
            return ScopeIndex(known);
        }
        for clause in from.scopes.scope_at(scope) {
            let unknown = clause.iter().filter(|key| map.keys.get(key.0).is_none()).copied().collect::<Vec<_>>();
            let mut new: Vec<(Key, KeyIndex)> =
                unknown.into_iter().map(|key| (self.copied_key(from, key, map), key)).collect();
            // Alternatives stand in the order of their numbers there, which is not that of every source.
            new.sort_unstable();
            for (key, old) in new {
                map.keys.put(old.0, self.scopes.key(key).0);
            }
        }
        let renumbered = |key: &KeyIndex| map.keys.get(key.0).map(KeyIndex);
        let new = self.scopes.add(from.scopes.scope_at(scope).map(|clause| clause.iter().filter_map(renumbered)));
        ScopeIndex(map.scopes.put(scope.0, new.0))
    }

    fn copied_key(&mut self, from: &Source<'_>, key: KeyIndex, map: &mut Renumbered) -> Key {
        match from.scopes.key_at(key) {
            Key::Is(kind) => Key::Is(self.store.kind_like(from.store, *kind)),
            Key::In(entity) => Key::In(self.copied_entity(from, *entity, map)),
            Key::Eq(entity) => Key::Eq(self.copied_entity(from, *entity, map)),
            // No scope of a rule has a `OneOf`: the index makes them.
            other @ (Key::Any | Key::OneOf(_) | Key::Tag(_) | Key::Role(_) | Key::Matching(_)) => other.clone(),
        }
    }

    /// The entity of this number; one that only rules name is made with all that it is in.
    fn copied_entity(&mut self, from: &Source<'_>, entity: EntityIndex, map: &mut Renumbered) -> EntityIndex {
        if self.store.is_complete(entity) {
            return entity;
        }
        if let Some(known) = map.entities.get(&entity) {
            return *known;
        }
        let EntityRecord { kind, id, parents, .. } = from.store.record(entity);
        let kind = self.store.kind_like(from.store, *kind);
        let before = self.store.len();
        let new = self.store.intern(kind, id);
        map.entities.insert(entity, new);
        if self.store.len() > before {
            let parents = parents.iter().map(|parent| self.copied_entity(from, *parent, map)).collect();
            self.store.record_mut(new).parents = parents;
        }
        new
    }
}
