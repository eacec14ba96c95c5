//! Keys, which an entity can match, and scopes, which are made of them.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smol_str::SmolStr;

use super::number;
use crate::policy::entities::{EntityIndex, Kind, Pattern};

/// What an entity can match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Anything.
    Any,
    /// Everything of a type.
    Is(Kind),
    /// The entity and everything in it.
    In(EntityIndex),
    /// The entity itself.
    Eq(EntityIndex),
    /// Whatever has the tag, itself or through what it is in.
    Tag(SmolStr),
    /// Whoever has the role.
    Role(SmolStr),
    /// Resources of one kind that the pattern matches. Boxed, since few keys are patterns and a key must be small.
    Matching(Box<Pattern>),
    /// Whatever matches one of a long list of keys.
    OneOf(u32),
}

/// A key, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(pub(crate) u32);

/// A scope, by its number: lists of alternatives, of each of which one key at least must match. Without any list,
/// everything is in the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeIndex(pub(crate) u32);

/// The keys and scopes that rules use, numbered.
///
/// A million rules have about as many scopes, so these are slices of one list and not lists of their own.
#[derive(Debug)]
pub struct Scopes {
    keys: Vec<Key>,
    /// Every key; of a whole bundle without those of [`Key::In`], which are many.
    by_key: HashMap<Key, KeyIndex, RandomState>,
    /// The keys of [`Key::In`] by entity; `ANY` where there is none. Only of a whole bundle: it is as long as there are
    /// entities.
    inside: Option<Vec<KeyIndex>>,
    /// The alternatives of every scope.
    alternatives: Vec<KeyIndex>,
    /// Where the alternatives of each clause end.
    clause_ends: Vec<u32>,
    /// Where the clauses of each scope end.
    scope_ends: Vec<u32>,
    by_scope: HashTable<u32>,
    /// The scopes of nothing but one key, by it, as far as [`Scopes::add`] made them: most are such.
    of_one: Vec<Option<ScopeIndex>>,
    hasher: RandomState,
}

/// The number of [`Key::Any`].
pub(in crate::policy) const ANY: KeyIndex = KeyIndex(0);

impl Default for Scopes {
    fn default() -> Self {
        Self {
            keys: vec![Key::Any],
            by_key: HashMap::from_iter([(Key::Any, ANY)]),
            inside: None,
            alternatives: Vec::new(),
            clause_ends: Vec::new(),
            scope_ends: Vec::new(),
            by_scope: HashTable::new(),
            of_one: Vec::new(),
            hasher: RandomState::default(),
        }
    }
}

impl Scopes {
    /// Those of a whole bundle, none so far.
    #[must_use]
    pub fn of_bundle() -> Self {
        Self { inside: Some(Vec::new()), ..Self::default() }
    }

    /// The number of `key`, given when it is new.
    pub fn key(&mut self, key: Key) -> KeyIndex {
        let next = KeyIndex(number(self.keys.len()));
        let index = if let (Key::In(entity), Some(inside)) = (&key, &mut self.inside) {
            let at = entity.0 as usize;
            if inside.len() <= at {
                inside.resize(at + 1, ANY);
            }
            let Some(slot) = inside.get_mut(at) else { return ANY };
            if *slot == ANY {
                *slot = next;
            }
            *slot
        } else if let Some(known) = self.by_key.get(&key) {
            *known
        } else {
            self.by_key.insert(key.clone(), next);
            next
        };
        if index == next {
            self.keys.push(key);
        }
        index
    }

    /// The number of [`Key::In`] for `entity`, if a rule uses it.
    pub(super) fn inside(&self, entity: EntityIndex) -> Option<KeyIndex> {
        self.inside.as_ref()?.get(entity.0 as usize).copied().filter(|key| *key != ANY)
    }

    /// The number of the scope made of these alternatives.
    pub fn scope(&mut self, clauses: impl IntoIterator<Item = Vec<KeyIndex>>) -> ScopeIndex {
        // Put in place as if it were new, and taken away again where it is not.
        let (alternatives, ends) = (self.alternatives.len(), self.clause_ends.len());
        for mut clause in clauses {
            clause.sort_unstable();
            clause.dedup();
            self.alternatives.extend(clause);
            self.clause_ends.push(number(self.alternatives.len()));
        }
        let index = number(self.scope_ends.len());
        self.scope_ends.push(number(self.clause_ends.len()));
        let hash = self.hash(index);
        if let Some(known) = self.by_scope.find(hash, |known| self.clauses(*known).eq(self.clauses(index))) {
            let known = ScopeIndex(*known);
            self.alternatives.truncate(alternatives);
            self.clause_ends.truncate(ends);
            self.scope_ends.pop();
            return known;
        }
        let mut by_scope = std::mem::take(&mut self.by_scope);
        by_scope.insert_unique(hash, index, |other| self.hash(*other));
        self.by_scope = by_scope;
        ScopeIndex(index)
    }

    /// The number of the scope made of these alternatives, sorted here; a new one unless it is a single key. For
    /// copying scopes that were told apart before, without looking for each among all.
    pub fn add(&mut self, clauses: impl IntoIterator<Item = impl IntoIterator<Item = KeyIndex>>) -> ScopeIndex {
        let (alternatives, ends) = (self.alternatives.len(), self.clause_ends.len());
        for clause in clauses {
            let from = self.alternatives.len();
            self.alternatives.extend(clause);
            if let Some(clause) = self.alternatives.get_mut(from..) {
                clause.sort_unstable();
            }
            self.clause_ends.push(number(self.alternatives.len()));
        }
        let index = ScopeIndex(number(self.scope_ends.len()));
        if let (Some([KeyIndex(one)]), 1) = (self.alternatives.get(alternatives..), self.clause_ends.len() - ends) {
            let at = *one as usize;
            self.of_one.resize(self.of_one.len().max(at + 1), None);
            if let Some(Some(known)) = self.of_one.get(at) {
                self.alternatives.truncate(alternatives);
                self.clause_ends.truncate(ends);
                return *known;
            }
            self.of_one.iter_mut().skip(at).take(1).for_each(|slot| *slot = Some(index));
        }
        self.scope_ends.push(number(self.clause_ends.len()));
        index
    }

    /// The keys so far.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn hash(&self, scope: u32) -> u64 {
        let mut all: u64 = 0;
        for clause in self.clauses(scope) {
            all = self.hasher.hash_one((all, clause));
        }
        all
    }

    /// What a key stands for.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a KeyIndex is only made by this table, which never drops one")]
    pub fn key_at(&self, index: KeyIndex) -> &Key {
        &self.keys[index.0 as usize]
    }

    /// What a scope stands for: its lists of alternatives, each sorted.
    pub fn scope_at(&self, index: ScopeIndex) -> impl ExactSizeIterator<Item = &[KeyIndex]> + Clone {
        self.clauses(index.0)
    }

    #[expect(clippy::indexing_slicing, reason = "a ScopeIndex is only made by this table, which never drops one")]
    fn clauses(&self, scope: u32) -> impl ExactSizeIterator<Item = &[KeyIndex]> + Clone {
        let from = |ends: &[u32], at: usize| if at == 0 { 0 } else { ends[at - 1] as usize };
        let scope = scope as usize;
        let clauses = from(&self.scope_ends, scope)..self.scope_ends[scope] as usize;
        clauses.map(move |at| &self.alternatives[from(&self.clause_ends, at)..self.clause_ends[at] as usize])
    }

    /// How many scopes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scope_ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scope_ends.is_empty()
    }

    /// Whether whatever has these keys (sorted) is in the scope.
    #[must_use]
    pub fn contains(&self, index: ScopeIndex, keys: &[KeyIndex]) -> bool {
        self.scope_at(index).all(|clause| intersects(clause, keys))
    }

    /// Whether the index alone tells that both scopes match: it goes by one list of alternatives of each.
    #[must_use]
    pub fn are_exact(&self, principal: ScopeIndex, resource: ScopeIndex) -> bool {
        self.scope_at(principal).len() <= 1 && self.scope_at(resource).len() <= 1
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.keys.shrink_to_fit();
        self.inside.as_mut().map(Vec::shrink_to_fit);
        self.alternatives.shrink_to_fit();
        self.clause_ends.shrink_to_fit();
        self.scope_ends.shrink_to_fit();
        // Only for making more of them.
        self.by_scope = HashTable::new();
        self.of_one = Vec::new();
    }
}

/// Whether two sorted lists share a member; quick where one is short.
fn intersects(left: &[KeyIndex], right: &[KeyIndex]) -> bool {
    let (short, long) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    short.iter().any(|key| long.binary_search(key).is_ok())
}
