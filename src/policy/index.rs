//! Which rules can match: an index by principal scope and resource scope, so that a decision looks at candidates only.
//!
//! A scope is a conjunction of alternatives over *keys*: `in Team::"research"`, `is Model`, tag `gpu`. Each entity knows
//! the keys that it matches (few, whatever the number of rules); a rule is filed under pairs of a principal key and a
//! resource key, and of an exact match only the condition is left to evaluate.

mod scopes;

use std::collections::HashMap;
use std::hint::black_box;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

pub use scopes::{Key, KeyIndex, ScopeIndex, Scopes};

pub(super) use self::scopes::ANY;
use super::entities::{EntityIndex, EntityStore, Kind, Names, Pattern, Patterns, Subject};
use super::parallel;
use crate::model::RESERVED_ROLE_PREFIX;

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

/// Which roles of an entity count for a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoleKeys {
    /// All of them.
    All,
    /// All but Tollgate's own.
    Unreserved,
}

/// A count as the tables have it.
// INVARIANT: bundles are bounded far below 2^32 of anything.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Rules of up to this many pairs are filed under each pair; a longer list becomes a key of its own.
const MOST_PAIRS: usize = 64;
/// Ranges up to this long are looked through; in longer ones each key of the other side is searched for.
const SCANNED: usize = 64;
/// Keys whose ranges are fetched together: as many as most have.
const AT_ONCE: usize = 16;

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
    equal: HashMap<EntityIndex, KeyIndex, RandomState>,
    kinds: Vec<Option<KeyIndex>>,
    tags: HashMap<SmolStr, KeyIndex, RandomState>,
    roles: HashMap<SmolStr, KeyIndex, RandomState>,
    patterns: Patterns<KeyIndex>,
    groups: HashMap<KeyIndex, Vec<KeyIndex>, RandomState>,
}

/// Rules under a key of one side, each with its key of the other side; by the first and then by the second key.
#[derive(Debug)]
struct Table {
    /// A bit for each key that has entries: of a million rules it stays in the cache, as `starts` does not.
    used: Vec<u64>,
    starts: Vec<u32>,
    entries: Vec<(KeyIndex, RuleIndex)>,
}

/// Rules by scope.
#[derive(Debug)]
pub struct Index {
    by_principal: Table,
    /// Rules that name no principal in particular: many would stand under one key otherwise.
    by_resource: Table,
    memberships: Memberships,
    used: Used,
}

impl Index {
    /// Files `rules` and works out which keys each entity of `store` matches.
    pub fn build(scopes: &mut Scopes, store: &EntityStore, rules: &[Filed]) -> Self {
        let mut groups = HashMap::default();
        let mut by_principal: Vec<(KeyIndex, KeyIndex, RuleIndex)> = Vec::with_capacity(rules.len());
        let mut by_resource: Vec<(KeyIndex, KeyIndex, RuleIndex)> = Vec::new();
        let (mut principals, mut resources) = (Vec::new(), Vec::new());
        for (at, rule) in rules.iter().enumerate() {
            let rule_index = RuleIndex(number(at));
            filing(scopes, rule.principal, &mut principals);
            filing(scopes, rule.resource, &mut resources);
            if principals.len() * resources.len() > MOST_PAIRS {
                one_of(scopes, &mut groups, &mut principals);
                one_of(scopes, &mut groups, &mut resources);
            }
            let broad = |keys: &[KeyIndex]| keys.iter().any(|key| is_broad(scopes, store, *key));
            let pairs = principals.iter().flat_map(|principal| resources.iter().map(move |one| (*principal, *one)));
            if broad(&principals) && !broad(&resources) {
                by_resource.extend(pairs.map(|(principal, resource)| (resource, principal, rule_index)));
            } else {
                by_principal.extend(pairs.map(|(principal, resource)| (principal, resource, rule_index)));
            }
        }
        scopes.shrink_to_fit();
        let scopes = &*scopes;
        let used = Used::of(scopes, groups);
        let (memberships, (by_principal, by_resource)) = parallel::both(
            || Memberships::of(scopes, store, &used),
            || (Table::of(&by_principal, scopes.keys().len()), Table::of(&by_resource, scopes.keys().len())),
        );
        Self { by_principal, by_resource, memberships, used }
    }

    /// The keys that a subject matches, sorted.
    #[must_use]
    pub fn keys_of(&self, scopes: &Scopes, store: &EntityStore, subject: &Subject) -> SubjectKeys<'_> {
        match subject {
            Subject::Known(index) => SubjectKeys::Kept(self.memberships.of_entity(*index)),
            Subject::Stranger { .. } | Subject::Proved(_) => {
                let mut keys = Vec::new();
                self.used.collect(scopes, store, subject, &mut keys, &mut Vec::new());
                SubjectKeys::Made(keys)
            }
        }
    }

    /// Hands every rule filed under a pair of these keys to `visit`; a rule may come more than once.
    pub fn candidates(&self, principal: &[KeyIndex], resource: &[KeyIndex], mut visit: impl FnMut(RuleIndex)) {
        self.by_principal.pairs(principal, resource, &mut visit);
        self.by_resource.pairs(resource, principal, &mut visit);
    }

    /// Every rule filed under one of these principal keys, whatever its resource, or that names no principal and is
    /// filed under one of these resource keys.
    pub fn of_either<'a>(
        &'a self,
        principal: &'a [KeyIndex],
        resource: &'a [KeyIndex],
    ) -> impl Iterator<Item = RuleIndex> + 'a {
        let of = |table: &'a Table, keys: &'a [KeyIndex]| keys.iter().flat_map(|key| table.range(*key));
        of(&self.by_principal, principal).chain(of(&self.by_resource, resource)).map(|(_, rule)| *rule)
    }
}

impl Table {
    fn of(pairs: &[(KeyIndex, KeyIndex, RuleIndex)], keys: usize) -> Self {
        let mut used = vec![0_u64; keys / 64 + 1];
        // Where the rules of each key end, then, as they are put in from behind, where they start.
        let mut starts = vec![0_u32; keys + 1];
        for (KeyIndex(key), _, _) in pairs {
            used.iter_mut().skip(*key as usize / 64).take(1).for_each(|word| *word |= 1 << (key % 64));
            starts.iter_mut().skip(*key as usize).take(1).for_each(|count| *count += 1);
        }
        let mut before = 0;
        for start in &mut starts {
            before += *start;
            *start = before;
        }
        let mut entries = vec![(ANY, RuleIndex(0)); pairs.len()];
        for (first, second, rule) in pairs.iter().rev() {
            let Some(start) = starts.get_mut(first.0 as usize) else { continue };
            *start -= 1;
            entries.iter_mut().skip(*start as usize).take(1).for_each(|entry| *entry = (*second, *rule));
        }
        for (start, end) in starts.iter().zip(starts.iter().skip(1)) {
            if let Some(range) = entries.get_mut(*start as usize..*end as usize) {
                range.sort_unstable();
            }
        }
        Self { used, starts, entries }
    }

    /// Hands every rule under one of `first` and one of `second` to `visit`.
    fn pairs(&self, first: &[KeyIndex], second: &[KeyIndex], visit: &mut impl FnMut(RuleIndex)) {
        for some in first.chunks(AT_ONCE) {
            let mut ranges = [&[] as &[_]; AT_ONCE];
            ranges.iter_mut().zip(some).for_each(|(range, key)| *range = self.range(*key));
            // With many rules each range is a trip to memory: this makes all of them at once and not one by one.
            black_box(ranges.iter().filter_map(|range| range.first()).fold(0, |all, (key, _)| all ^ key.0));
            for range in ranges.iter().take(some.len()) {
                pairs_of(range, second, visit);
            }
        }
    }

    fn range(&self, key: KeyIndex) -> &[(KeyIndex, RuleIndex)] {
        let at = key.0 as usize;
        if self.used.get(at / 64).is_none_or(|word| word & (1 << (at % 64)) == 0) {
            return &[];
        }
        let (Some(start), Some(end)) = (self.starts.get(at), self.starts.get(at + 1)) else { return &[] };
        self.entries.get(*start as usize..*end as usize).unwrap_or_default()
    }
}

/// Hands every rule of `range` under one of `second` to `visit`.
fn pairs_of(range: &[(KeyIndex, RuleIndex)], second: &[KeyIndex], visit: &mut impl FnMut(RuleIndex)) {
    if range.len() <= SCANNED {
        // Both are sorted, so neither is gone through twice.
        let mut rest = second;
        for (wanted, rule) in range {
            while let [first, behind @ ..] = rest
                && first < wanted
            {
                rest = behind;
            }
            match rest.first() {
                Some(first) if first == wanted => visit(*rule),
                Some(_) => {}
                None => break,
            }
        }
        return;
    }
    for wanted in second {
        let from = range.partition_point(|(key, _)| key < wanted);
        let rest = range.get(from..).unwrap_or_default();
        for (_, rule) in rest.iter().take_while(|(key, _)| key == wanted) {
            visit(*rule);
        }
    }
}

/// Whether nearly everyone has the key.
pub(super) fn is_broad(scopes: &Scopes, store: &EntityStore, key: KeyIndex) -> bool {
    match scopes.key_at(key) {
        Key::Any | Key::Is(_) => true,
        Key::In(entity) => store.record(*entity).kind == Kind::OWNER_KIND,
        _ => false,
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

/// Puts into `keys` what to file a scope under: its narrowest alternatives, which are those of the first list that is not
/// just types.
fn filing(scopes: &Scopes, index: ScopeIndex, keys: &mut Vec<KeyIndex>) {
    let mut clauses = scopes.scope_at(index);
    let narrow = |clause: &&[KeyIndex]| !clause.iter().any(|key| matches!(scopes.key_at(*key), Key::Is(_)));
    let first = clauses.clone().next();
    keys.clear();
    keys.extend_from_slice(clauses.find(narrow).or(first).unwrap_or(&[ANY]));
}

/// Makes one key of a list of keys.
fn one_of(scopes: &mut Scopes, groups: &mut HashMap<KeyIndex, Vec<KeyIndex>, RandomState>, keys: &mut Vec<KeyIndex>) {
    if keys.len() == 1 {
        return;
    }
    let list = scopes.scope([keys.clone()]);
    let before = scopes.keys().len();
    let group = scopes.key(Key::OneOf(list.0));
    if scopes.keys().len() > before {
        for key in &*keys {
            groups.entry(*key).or_default().push(group);
        }
    }
    *keys = vec![group];
}

impl Used {
    fn of(scopes: &Scopes, groups: HashMap<KeyIndex, Vec<KeyIndex>, RandomState>) -> Self {
        let mut used = Self { groups, ..Self::default() };
        for (at, key) in scopes.keys().iter().enumerate() {
            let index = KeyIndex(number(at));
            match key {
                Key::Any | Key::OneOf(_) | Key::In(_) => {}
                Key::Is(Kind(kind)) => {
                    let at = usize::from(*kind);
                    used.kinds.resize(used.kinds.len().max(at + 1), None);
                    used.kinds.iter_mut().skip(at).take(1).for_each(|slot| *slot = Some(index));
                }
                Key::Eq(entity) => drop(used.equal.insert(*entity, index)),
                Key::Tag(tag) => drop(used.tags.insert(tag.clone(), index)),
                Key::Role(role) => drop(used.roles.insert(role.clone(), index)),
                Key::Matching(pattern) => used.patterns.add(Names::Matching(Pattern::clone(pattern)), index),
            }
        }
        used
    }

    /// The keys that `subject` matches, sorted, appended to `keys`.
    /// `above` is only there to be used again.
    fn collect(
        &self,
        scopes: &Scopes,
        store: &EntityStore,
        subject: &Subject,
        keys: &mut Vec<KeyIndex>,
        above: &mut Vec<EntityIndex>,
    ) {
        let from = keys.len();
        let (kind, id) = store.name_of(subject);
        keys.push(ANY);
        keys.extend(self.kinds.get(usize::from(kind.0)).copied().flatten());
        let mut inherits = true;
        let roles = match subject {
            Subject::Proved(proved) if !proved.identity.method.gives_reserved_roles() => RoleKeys::Unreserved,
            _ => RoleKeys::All,
        };
        if let Subject::Known(index) = subject {
            keys.extend(scopes.inside(*index));
            keys.extend(self.equal.get(index));
            self.collect_labels(store, *index, roles, keys);
            // What a JSON file says of an entity's tags is all that Cedar sees of them.
            inherits = store.record(*index).details.as_ref().is_none_or(|details| details.native.is_none());
        }
        if let Subject::Stranger { given: Some(given), .. } = subject {
            if let Some(own) = given.own {
                keys.extend(scopes.inside(own));
                keys.extend(self.equal.get(&own));
            }
            keys.extend(given.tags.iter().filter_map(|tag| self.tags.get(tag)));
            keys.extend(given.roles.iter().filter_map(|role| self.roles.get(role)));
            inherits = false;
        }
        if let Subject::Proved(proved) = subject {
            if let Some(own) = proved.own {
                keys.extend(scopes.inside(own));
                keys.extend(self.equal.get(&own));
                self.collect_labels(store, own, roles, keys);
            }
            let said = &proved.identity.said;
            keys.extend(said.tags.iter().filter_map(|tag| self.tags.get(tag)));
            keys.extend(said.roles.iter().filter_map(|role| self.roles.get(role)));
        }
        store.close(store.parents(subject), above);
        for one in above.iter() {
            keys.extend(scopes.inside(*one));
            if inherits {
                self.collect_labels(store, *one, roles, keys);
            }
        }
        if kind.namespace().is_some() {
            keys.extend(self.patterns.matching(kind, id));
        }
        if !self.groups.is_empty() {
            for index in from..keys.len() {
                let key = keys.get(index).copied().unwrap_or(ANY);
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

    fn collect_labels(&self, store: &EntityStore, index: EntityIndex, which: RoleKeys, keys: &mut Vec<KeyIndex>) {
        if self.tags.is_empty() && self.roles.is_empty() {
            return;
        }
        let record = store.record(index);
        keys.extend(record.tags().iter().filter_map(|tag| self.tags.get(tag)));
        let roles =
            record.roles().iter().filter(|role| which == RoleKeys::All || !role.starts_with(RESERVED_ROLE_PREFIX));
        keys.extend(roles.filter_map(|role| self.roles.get(role)));
    }
}

impl Memberships {
    fn of(scopes: &Scopes, store: &EntityStore, used: &Used) -> Self {
        let mut starts = Vec::with_capacity(store.len() + 1);
        let mut keys = Vec::with_capacity(store.len() * 4);
        let mut above = Vec::new();
        for (index, _) in store.iter() {
            starts.push(number(keys.len()));
            used.collect(scopes, store, &Subject::Known(index), &mut keys, &mut above);
        }
        starts.push(number(keys.len()));
        keys.shrink_to_fit();
        Self { starts, keys }
    }

    fn of_entity(&self, index: EntityIndex) -> &[KeyIndex] {
        let at = index.0 as usize;
        let (Some(start), Some(end)) = (self.starts.get(at), self.starts.get(at + 1)) else { return &[] };
        self.keys.get(*start as usize..*end as usize).unwrap_or_default()
    }
}
