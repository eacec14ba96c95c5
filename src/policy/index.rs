//! Which rules can match: an index by principal scope and resource scope, so that a decision looks at candidates only.
//!
//! A scope is a conjunction of alternatives over *keys*: `in Team::"research"`, `is Model`, tag `gpu`. Each entity knows
//! the keys that it matches (few, whatever the number of rules); a rule is filed under pairs of a principal key and a
//! resource key, and of an exact match only the condition is left to evaluate.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::entities::{EntityIndex, EntityStore, Kind, Pattern, Subject};

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
    /// Models that the pattern matches.
    Matching(Pattern),
    /// Whatever matches one of a long list of keys.
    OneOf(u32),
}

/// A key, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(pub(crate) u32);

/// Alternatives, all of which must hold in one member at least; sorted. Without any, everything matches.
pub type Scope = Box<[Box<[KeyIndex]>]>;

/// A scope, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeIndex(pub(crate) u32);

/// A rule, by its number in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(pub(crate) u32);

impl RuleIndex {
    /// The rule's position in the snapshot, from 0.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

/// Rules of up to this many pairs are filed under each pair; a longer list becomes a key of its own.
const MOST_PAIRS: usize = 64;
/// Ranges up to this long are looked through; in longer ones each resource key is searched for.
const SCANNED: usize = 24;

/// The keys and scopes that rules use, numbered.
#[derive(Debug)]
pub struct Scopes {
    keys: Vec<Key>,
    by_key: HashMap<Key, KeyIndex, RandomState>,
    scopes: Vec<Scope>,
    by_scope: HashMap<Scope, ScopeIndex, RandomState>,
}

impl Default for Scopes {
    fn default() -> Self {
        let mut scopes =
            Self { keys: Vec::new(), by_key: HashMap::default(), scopes: Vec::new(), by_scope: HashMap::default() };
        scopes.key(Key::Any);
        scopes
    }
}

impl Scopes {
    /// The number of `key`, given when it is new.
    pub fn key(&mut self, key: Key) -> KeyIndex {
        if let Some(index) = self.by_key.get(&key) {
            return *index;
        }
        let index = KeyIndex(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        self.keys.push(key.clone());
        self.by_key.insert(key, index);
        index
    }

    /// The number of the scope made of these alternatives.
    pub fn scope(&mut self, clauses: impl IntoIterator<Item = Vec<KeyIndex>>) -> ScopeIndex {
        let scope: Scope = clauses
            .into_iter()
            .map(|mut clause| {
                clause.sort_unstable();
                clause.dedup();
                clause.into_boxed_slice()
            })
            .collect();
        if let Some(index) = self.by_scope.get(&scope) {
            return *index;
        }
        let index = ScopeIndex(u32::try_from(self.scopes.len()).unwrap_or(u32::MAX));
        self.scopes.push(scope.clone());
        self.by_scope.insert(scope, index);
        index
    }

    /// What a key stands for.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a KeyIndex is only made by this table, which never drops one")]
    pub fn key_at(&self, index: KeyIndex) -> &Key {
        &self.keys[index.0 as usize]
    }

    /// What a scope stands for.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a ScopeIndex is only made by this table, which never drops one")]
    pub fn scope_at(&self, index: ScopeIndex) -> &Scope {
        &self.scopes[index.0 as usize]
    }

    /// Whether whatever has these keys (sorted) is in the scope.
    #[must_use]
    pub fn contains(&self, index: ScopeIndex, keys: &[KeyIndex]) -> bool {
        self.scope_at(index).iter().all(|clause| intersects(clause, keys))
    }
}

/// Whether two sorted lists share a member; quick where one is short.
fn intersects(left: &[KeyIndex], right: &[KeyIndex]) -> bool {
    let (short, long) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    short.iter().any(|key| long.binary_search(key).is_ok())
}

/// What the index needs to know of a rule.
#[derive(Debug, Clone, Copy)]
pub struct Filed {
    /// Who.
    pub principal: ScopeIndex,
    /// What.
    pub resource: ScopeIndex,
}

/// The keys that each entity matches.
#[derive(Debug, Default)]
struct Memberships {
    starts: Vec<u32>,
    keys: Vec<KeyIndex>,
}

/// Numbers of keys by what they are about, for making memberships quickly.
#[derive(Debug, Default)]
struct Used {
    inside: Vec<Option<KeyIndex>>,
    equal: Vec<Option<KeyIndex>>,
    kinds: Vec<Option<KeyIndex>>,
    tags: HashMap<SmolStr, KeyIndex, RandomState>,
    roles: HashMap<SmolStr, KeyIndex, RandomState>,
    patterns: Vec<(Pattern, KeyIndex)>,
    groups: HashMap<KeyIndex, Vec<KeyIndex>, RandomState>,
}

/// Rules by scope.
#[derive(Debug)]
pub struct Index {
    starts: Vec<u32>,
    entries: Vec<(KeyIndex, RuleIndex)>,
    memberships: Memberships,
    used: Used,
}

impl Index {
    /// Files `rules` and works out which keys each entity of `store` matches.
    pub fn build(scopes: &mut Scopes, store: &EntityStore, rules: &[Filed]) -> Self {
        let mut groups = HashMap::default();
        let mut pairs: Vec<(KeyIndex, KeyIndex, RuleIndex)> = Vec::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            let rule_index = RuleIndex(u32::try_from(number).unwrap_or(u32::MAX));
            let principals = filing(scopes, rule.principal);
            let resources = filing(scopes, rule.resource);
            let (principals, resources) = if principals.len() * resources.len() > MOST_PAIRS {
                (one_of(scopes, &mut groups, principals), one_of(scopes, &mut groups, resources))
            } else {
                (principals, resources)
            };
            for principal in &principals {
                pairs.extend(resources.iter().map(|resource| (*principal, *resource, rule_index)));
            }
        }
        pairs.sort_unstable();
        let mut starts = vec![0_u32; scopes.keys.len() + 1];
        for (principal, _, _) in &pairs {
            if let Some(count) = starts.get_mut(principal.0 as usize + 1) {
                *count += 1;
            }
        }
        for at in 1..starts.len() {
            let before = starts.get(at - 1).copied().unwrap_or_default();
            if let Some(start) = starts.get_mut(at) {
                *start += before;
            }
        }
        let entries = pairs.into_iter().map(|(_, resource, rule)| (resource, rule)).collect();
        let used = Used::of(scopes, store, groups);
        let memberships = Memberships::of(store, &used);
        Self { starts, entries, memberships, used }
    }

    /// The keys that a subject matches, sorted.
    #[must_use]
    pub fn keys_of(&self, store: &EntityStore, subject: &Subject) -> SubjectKeys<'_> {
        match subject {
            Subject::Known(index) => SubjectKeys::Kept(self.memberships.of_entity(*index)),
            Subject::Stranger { .. } => {
                let mut keys = Vec::new();
                self.used.collect(store, subject, &mut keys);
                SubjectKeys::Made(keys)
            }
        }
    }

    /// Hands every rule filed under a pair of these keys to `visit`; a rule may come more than once.
    pub fn candidates(&self, principal: &[KeyIndex], resource: &[KeyIndex], mut visit: impl FnMut(RuleIndex)) {
        for key in principal {
            let range = self.range(*key);
            if range.len() <= SCANNED {
                for (wanted, rule) in range {
                    if resource.binary_search(wanted).is_ok() {
                        visit(*rule);
                    }
                }
                continue;
            }
            for wanted in resource {
                let from = range.partition_point(|(key, _)| key < wanted);
                let rest = range.get(from..).unwrap_or_default();
                for (_, rule) in rest.iter().take_while(|(key, _)| key == wanted) {
                    visit(*rule);
                }
            }
        }
    }

    /// Every rule filed under one of these principal keys, whatever its resource.
    pub fn of_principal<'a>(&'a self, principal: &'a [KeyIndex]) -> impl Iterator<Item = RuleIndex> + 'a {
        principal.iter().flat_map(|key| self.range(*key)).map(|(_, rule)| *rule)
    }

    fn range(&self, key: KeyIndex) -> &[(KeyIndex, RuleIndex)] {
        let at = key.0 as usize;
        let (Some(start), Some(end)) = (self.starts.get(at), self.starts.get(at + 1)) else { return &[] };
        self.entries.get(*start as usize..*end as usize).unwrap_or_default()
    }
}

/// The keys of a subject, kept with the entity or made for a stranger.
#[derive(Debug)]
pub enum SubjectKeys<'a> {
    /// Of an entity of the store.
    Kept(&'a [KeyIndex]),
    /// Of one that only the request names.
    Made(Vec<KeyIndex>),
}

impl std::ops::Deref for SubjectKeys<'_> {
    type Target = [KeyIndex];
    fn deref(&self) -> &[KeyIndex] {
        match self {
            Self::Kept(keys) => keys,
            Self::Made(keys) => keys,
        }
    }
}

/// The keys to file a scope under: its narrowest alternatives, which are those of the first clause that is not just types.
fn filing(scopes: &Scopes, index: ScopeIndex) -> Vec<KeyIndex> {
    let scope = scopes.scope_at(index);
    let narrow = |clause: &&Box<[KeyIndex]>| !clause.iter().any(|key| matches!(scopes.key_at(*key), Key::Is(_)));
    match scope.iter().find(narrow).or_else(|| scope.first()) {
        Some(clause) => clause.to_vec(),
        None => vec![KeyIndex(0)],
    }
}

/// A list of keys as one key.
fn one_of(
    scopes: &mut Scopes,
    groups: &mut HashMap<KeyIndex, Vec<KeyIndex>, RandomState>,
    keys: Vec<KeyIndex>,
) -> Vec<KeyIndex> {
    if keys.len() == 1 {
        return keys;
    }
    let list = scopes.scope([keys.clone()]);
    let known = scopes.by_key.contains_key(&Key::OneOf(list.0));
    let group = scopes.key(Key::OneOf(list.0));
    if !known {
        for key in keys {
            groups.entry(key).or_insert_with(Vec::new).push(group);
        }
    }
    vec![group]
}

impl Used {
    fn of(scopes: &Scopes, store: &EntityStore, groups: HashMap<KeyIndex, Vec<KeyIndex>, RandomState>) -> Self {
        let mut used =
            Self { inside: vec![None; store.len()], equal: vec![None; store.len()], groups, ..Self::default() };
        let set = |list: &mut Vec<Option<KeyIndex>>, at: usize, index: KeyIndex| {
            if list.len() <= at {
                list.resize(at + 1, None);
            }
            if let Some(slot) = list.get_mut(at) {
                *slot = Some(index);
            }
        };
        for (number, key) in scopes.keys.iter().enumerate() {
            let index = KeyIndex(u32::try_from(number).unwrap_or(u32::MAX));
            match key {
                Key::Any | Key::OneOf(_) => {}
                Key::Is(kind) => set(&mut used.kinds, usize::from(kind.0), index),
                Key::In(entity) => set(&mut used.inside, entity.0 as usize, index),
                Key::Eq(entity) => set(&mut used.equal, entity.0 as usize, index),
                Key::Tag(tag) => drop(used.tags.insert(tag.clone(), index)),
                Key::Role(role) => drop(used.roles.insert(role.clone(), index)),
                Key::Matching(pattern) => used.patterns.push((pattern.clone(), index)),
            }
        }
        used
    }

    /// The keys that `subject` matches, sorted, appended to `keys`.
    fn collect(&self, store: &EntityStore, subject: &Subject, keys: &mut Vec<KeyIndex>) {
        let from = keys.len();
        let at = |list: &[Option<KeyIndex>], index: usize| list.get(index).copied().flatten();
        let (kind, id) = store.name_of(subject);
        keys.push(KeyIndex(0));
        keys.extend(at(&self.kinds, usize::from(kind.0)));
        let mut inherits = true;
        if let Subject::Known(index) = subject {
            keys.extend(at(&self.inside, index.0 as usize));
            keys.extend(at(&self.equal, index.0 as usize));
            self.collect_labels(store, *index, keys);
            // What a JSON file says of an entity's tags is all that Cedar sees of them.
            inherits = store.record(*index).details.as_ref().is_none_or(|details| details.native.is_none());
        }
        if let Subject::Stranger { given: Some(given), .. } = subject {
            let own = given.own.map_or(usize::MAX, |own| own.0 as usize);
            keys.extend(at(&self.inside, own));
            keys.extend(at(&self.equal, own));
            keys.extend(given.tags.iter().filter_map(|tag| self.tags.get(tag)));
            keys.extend(given.roles.iter().filter_map(|role| self.roles.get(role)));
            inherits = false;
        }
        for above in store.closure(store.parents(subject)) {
            keys.extend(at(&self.inside, above.0 as usize));
            if inherits {
                self.collect_labels(store, above, keys);
            }
        }
        if kind == Kind::MODEL {
            keys.extend(self.patterns.iter().filter(|(pattern, _)| pattern.matches(id)).map(|(_, key)| *key));
        }
        if !self.groups.is_empty() {
            for index in from..keys.len() {
                let key = keys.get(index).copied().unwrap_or(KeyIndex(0));
                if let Some(groups) = self.groups.get(&key) {
                    keys.extend(groups);
                }
            }
        }
        if let Some(mine) = keys.get_mut(from..) {
            mine.sort_unstable();
        }
        let mut last = None;
        let mut kept = from;
        for index in from..keys.len() {
            let key = keys.get(index).copied();
            if key != last
                && let (Some(key), Some(slot)) = (key, keys.get_mut(kept))
            {
                *slot = key;
                kept += 1;
            }
            last = key;
        }
        keys.truncate(kept);
    }

    fn collect_labels(&self, store: &EntityStore, index: EntityIndex, keys: &mut Vec<KeyIndex>) {
        if self.tags.is_empty() && self.roles.is_empty() {
            return;
        }
        let record = store.record(index);
        keys.extend(record.tags().iter().filter_map(|tag| self.tags.get(tag)));
        keys.extend(record.roles().iter().filter_map(|role| self.roles.get(role)));
    }
}

impl Memberships {
    fn of(store: &EntityStore, used: &Used) -> Self {
        let mut starts = Vec::with_capacity(store.len() + 1);
        let mut keys = Vec::with_capacity(store.len() * 4);
        for (index, _) in store.iter() {
            starts.push(u32::try_from(keys.len()).unwrap_or(u32::MAX));
            used.collect(store, &Subject::Known(index), &mut keys);
        }
        starts.push(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        keys.shrink_to_fit();
        Self { starts, keys }
    }

    fn of_entity(&self, index: EntityIndex) -> &[KeyIndex] {
        let at = index.0 as usize;
        let (Some(start), Some(end)) = (self.starts.get(at), self.starts.get(at + 1)) else { return &[] };
        self.keys.get(*start as usize..*end as usize).unwrap_or_default()
    }
}
