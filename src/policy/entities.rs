//! Everyone and everything a bundle knows: a compact store of entities, their parents and what conditions read of them.
//!
//! Cedar's own `Entities` holds about 3 KiB a user and cannot change one without visiting all. Here a user is a small
//! record, and Cedar is handed the two or three entities that a condition reads, made when it is evaluated.

mod cedar;
mod emails;
mod pattern;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use cedar_policy_core::ast::{Eid, Entity, EntityType, EntityUID};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smol_str::SmolStr;

use emails::Emails;
pub use pattern::{Names, Pattern, Patterns};

use super::index::number;
use super::proved::Proved;
use super::syntax::{Estimates, Extras};
use crate::meter::Price;
pub use crate::model::Kind;
use crate::model::{EntityUid, KeyHash, Timestamp};

/// What the role of a team's administrator ends with, where it is written with its team.
const ADMIN_OF: &str = ":admin";

/// An entity, by its number in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityIndex(pub(crate) u32);

/// What is said of an entity besides its parents; most say little.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// Its own tags; with those of its ancestors they are the attribute `tags`.
    pub tags: Box<[SmolStr]>,
    /// Its own roles.
    pub roles: Box<[SmolStr]>,
    /// Its roles in teams, as `team:role`.
    pub team_roles: Box<[SmolStr]>,
    /// Email, expiry, metadata …
    pub extras: Extras,
    /// What a key hashes to.
    pub key_hash: Option<Box<KeyHash>>,
    /// A provider account's provider.
    pub provider: Option<SmolStr>,
    /// A model's largest output.
    pub max_output_tokens: Option<i64>,
    /// How many tokens a request to a model, or to a model of an account, is estimated to use.
    pub estimates: Estimates,
    /// What a model costs.
    pub price: Option<Arc<Price>>,
    /// An account that lists its models, and so has no others.
    pub closed: bool,
    /// The models that a router reaches: of these entities or their members, or of these patterns.
    pub reaches: Box<[Reach]>,
    /// An entity from a JSON file, with its attributes as they stand there.
    pub native: Option<Arc<Entity>>,
}

/// An entry in the list of a router or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A model, or every model of an account.
    In(EntityIndex),
    /// Every model with one of these names.
    Named(Names),
}

/// One entity. In a line of the cache of its own: with a million of them, looking one up is a trip to memory.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct EntityRecord {
    /// Its type.
    pub kind: Kind,
    /// Whether a file declares it, or it is only referred to.
    pub declared: bool,
    /// A model that is declared with `enabled: false`.
    pub switched_off: bool,
    /// Its id.
    pub id: SmolStr,
    /// Its direct parents.
    pub parents: Box<[EntityIndex]>,
    /// The rest, if anything is said.
    pub details: Option<Box<Details>>,
}

impl EntityRecord {
    /// Its own tags.
    #[must_use]
    pub fn tags(&self) -> &[SmolStr] {
        self.details.as_ref().map_or(&[], |details| &details.tags)
    }

    /// Its own roles.
    #[must_use]
    pub fn roles(&self) -> &[SmolStr] {
        self.details.as_ref().map_or(&[], |details| &details.roles)
    }
}

/// A principal or resource of a request: one of the store, or one that only the request names.
#[derive(Debug, Clone)]
pub enum Subject {
    /// One of the store.
    Known(EntityIndex),
    /// Named by the request alone; a model may still have its account as parent.
    Stranger {
        /// Its type.
        kind: Kind,
        /// Its id.
        id: SmolStr,
        /// What it is in.
        parents: Vec<EntityIndex>,
        /// What the request says of it, if it does.
        given: Option<Arc<Given>>,
    },
    /// Whom a credential proved, with what it says beside the bundle.
    Proved(Arc<Proved>),
}

/// What a request itself says of an entity that no file declares. As of an entity of a JSON file, this is all that
/// Cedar sees of it.
#[derive(Debug)]
pub struct Given {
    /// Its number, where a rule names it.
    pub own: Option<EntityIndex>,
    /// Its tags.
    pub tags: Box<[SmolStr]>,
    /// Its roles.
    pub roles: Box<[SmolStr]>,
    /// Its attributes, and all that it is in.
    pub entity: Arc<Entity>,
}

#[derive(Debug, Clone)]
struct KindName {
    text: SmolStr,
    core: EntityType,
}

/// Entities numbered one after the other.
#[derive(Debug, Default)]
struct Layer {
    records: Vec<EntityRecord>,
    /// Their positions in `records`.
    by_uid: HashTable<u32>,
    /// The resources whose names begin with a container's id, by that id: models by their account.
    named: HashMap<SmolStr, Vec<EntityIndex>, RandomState>,
    /// Users and services by their `external_id`; `None` where several have the same.
    external: HashMap<(Kind, SmolStr), Option<EntityIndex>, RandomState>,
    /// Users and services by their `email`, ignoring the case of ASCII letters.
    emails: Emails,
}

/// The result of looking up an id of another directory or an email address in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum External {
    /// Nobody.
    Nobody,
    /// This one.
    One(EntityIndex),
    /// More than one, so that nobody is meant.
    Several,
}

impl Layer {
    fn find(&self, hash: u64, kind: Kind, id: &str) -> Option<u32> {
        let same = |at: &u32| self.records.get(*at as usize).is_some_and(|one| one.kind == kind && one.id == id);
        self.by_uid.find(hash, same).copied()
    }

    fn named_in(&self, container: Option<&str>) -> impl Iterator<Item = EntityIndex> {
        let of_container = container.and_then(|container| self.named.get(container));
        let others = self.named.values().filter(move |_| container.is_none());
        of_container.into_iter().chain(others).flatten().copied()
    }
}

/// All entities of a snapshot: those that files declare, which one snapshot takes over from the one before it as long
/// as they are the same, and those that only rules name.
#[derive(Debug)]
pub struct EntityStore {
    kinds: Arc<Vec<KindName>>,
    hasher: RandomState,
    /// Complete; the numbers of the others follow on theirs.
    shared: Arc<Layer>,
    own: Layer,
}

impl Default for EntityStore {
    fn default() -> Self {
        let hasher = RandomState::default();
        let mut store = Self { kinds: Arc::default(), hasher, shared: Arc::default(), own: Layer::default() };
        for kind in Kind::all() {
            store.kind(kind.name());
        }
        store
    }
}

impl EntityStore {
    /// The type called `text`, numbered when it is new. `None` where that is no type.
    pub fn kind(&mut self, text: &str) -> Option<Kind> {
        if let Some(kind) = self.kind_of(text) {
            return Some(kind);
        }
        let core: EntityType = text.parse::<cedar_policy::EntityTypeName>().ok()?.as_ref().clone();
        let number = u16::try_from(self.kinds.len()).ok()?;
        Arc::make_mut(&mut self.kinds).push(KindName { text: text.into(), core });
        Some(Kind(number))
    }

    /// The type called `text`, if the store has one of it.
    #[must_use]
    pub fn kind_of(&self, text: &str) -> Option<Kind> {
        let position = self.kinds.iter().position(|kind| kind.text == text)?;
        u16::try_from(position).ok().map(Kind)
    }

    /// The number that the type of this number in `other` has here, given when it is new.
    pub(crate) fn kind_like(&mut self, other: &Self, kind: Kind) -> Kind {
        if Arc::ptr_eq(&self.kinds, &other.kinds) {
            return kind;
        }
        self.kind(other.kind_text(kind)).unwrap_or(kind)
    }

    /// How the type is written.
    #[must_use]
    pub fn kind_text(&self, kind: Kind) -> &SmolStr {
        &self.kind_name(kind).text
    }

    /// The type as Cedar has it.
    #[must_use]
    pub fn kind_core(&self, kind: Kind) -> &EntityType {
        &self.kind_name(kind).core
    }

    #[expect(clippy::indexing_slicing, reason = "a Kind is only made by this store, which never drops one")]
    fn kind_name(&self, kind: Kind) -> &KindName {
        &self.kinds[usize::from(kind.0)]
    }

    /// The same entities, to none of which anything will be added.
    #[must_use]
    pub(crate) fn complete(self) -> Self {
        // INVARIANT: nothing is shared yet, so that every number stays what it is.
        let mut all = self.own;
        all.records.shrink_to_fit();
        for (at, record) in all.records.iter().enumerate() {
            let id = record.details.as_ref().and_then(|details| details.extras.external_id.clone());
            if let (Some(id), true, Kind::USER | Kind::SERVICE) = (id, record.declared, record.kind) {
                let index = EntityIndex(number(at));
                all.external.entry((record.kind, id)).and_modify(|one| *one = None).or_insert(Some(index));
            }
        }
        all.emails = Emails::of(&all.records, &self.hasher);
        Self { shared: Arc::new(all), own: Layer::default(), ..self }
    }

    /// A store of the same complete entities and no others.
    #[must_use]
    pub(crate) fn over(&self) -> Self {
        let (kinds, shared) = (Arc::clone(&self.kinds), Arc::clone(&self.shared));
        Self { kinds, hasher: self.hasher.clone(), shared, own: Layer::default() }
    }

    /// Whether the entity is one of the complete ones, which have the same number in every store over them.
    #[must_use]
    pub(crate) fn is_complete(&self, index: EntityIndex) -> bool {
        (index.0 as usize) < self.shared.records.len()
    }

    /// The entities that are not among the complete ones.
    pub(crate) fn others(&self) -> impl Iterator<Item = EntityIndex> + use<> {
        (self.own_index(0).0..self.own_index(0).0 + number(self.own.records.len())).map(EntityIndex)
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.records.len() + self.own.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entity, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (EntityIndex, &EntityRecord)> {
        let records = self.shared.records.iter().chain(&self.own.records);
        records.enumerate().filter_map(|(i, record)| Some((EntityIndex(u32::try_from(i).ok()?), record)))
    }

    /// The entity with this uid.
    #[must_use]
    pub fn find(&self, kind: Kind, id: &str) -> Option<EntityIndex> {
        let hash = self.hasher.hash_one((kind.0, id));
        let own = || Some(self.own_index(self.own.find(hash, kind, id)?));
        self.shared.find(hash, kind, id).map(EntityIndex).or_else(own)
    }

    /// Whom files declare with this `external_id`.
    #[must_use]
    pub fn external(&self, kind: Kind, id: &SmolStr) -> External {
        match self.shared.external.get(&(kind, id.clone())) {
            None => External::Nobody,
            Some(Some(index)) => External::One(*index),
            Some(None) => External::Several,
        }
    }

    /// Looks up the declared entity with this `email`. The case of ASCII letters is ignored. Other letters are not
    /// folded: a letter that only looks like another must not make one user the owner of another's address.
    #[must_use]
    pub fn by_email(&self, kind: Kind, email: &str) -> External {
        self.shared.emails.find(&self.shared.records, &self.hasher, kind, email)
    }

    /// The number of what is in this position of its own.
    fn own_index(&self, position: u32) -> EntityIndex {
        EntityIndex(number(self.shared.records.len()).saturating_add(position))
    }

    /// The entity with this uid, made (undeclared) if there is none.
    pub fn intern(&mut self, kind: Kind, id: &SmolStr) -> EntityIndex {
        if let Some(index) = self.find(kind, id) {
            return index;
        }
        let position = number(self.own.records.len());
        let index = self.own_index(position);
        let Layer { records, by_uid, named, .. } = &mut self.own;
        records.push(EntityRecord {
            kind,
            declared: false,
            switched_off: false,
            id: id.clone(),
            parents: Box::default(),
            details: None,
        });
        if kind.namespace().is_some() {
            let container = id.split_once('/').map_or("", |(container, _)| container);
            match named.get_mut(container) {
                Some(named) => named.push(index),
                None => drop(named.insert(container.into(), vec![index])),
            }
        }
        let hasher = &self.hasher;
        by_uid.insert_unique(hasher.hash_one((kind.0, id.as_str())), position, |at| {
            records.get(*at as usize).map_or(0, |record| hasher.hash_one((record.kind.0, record.id.as_str())))
        });
        index
    }

    /// The resources with these names, in no order.
    pub fn named(&self, names: &Names) -> impl Iterator<Item = EntityIndex> {
        let container = names.pattern().and_then(Pattern::account);
        let matches = move |index: &EntityIndex| {
            let record = self.record(*index);
            names.contain(record.kind, &record.id)
        };
        self.shared.named_in(container).chain(self.own.named_in(container)).filter(matches)
    }

    /// Every resource of a kind that has a namespace, in no order.
    pub fn every(&self, kind: Kind) -> impl Iterator<Item = EntityIndex> {
        let all = self.shared.named_in(None).chain(self.own.named_in(None));
        all.filter(move |index| self.record(*index).kind == kind)
    }

    /// Makes room for this many more.
    pub fn reserve(&mut self, more: usize) {
        let Layer { records, by_uid, .. } = &mut self.own;
        records.reserve(more);
        let hasher = &self.hasher;
        by_uid.reserve(more, |at| {
            records.get(*at as usize).map_or(0, |record| hasher.hash_one((record.kind.0, record.id.as_str())))
        });
    }

    /// The entity of this number.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "an EntityIndex is only made by this store, which never drops one")]
    pub fn record(&self, index: EntityIndex) -> &EntityRecord {
        let at = index.0 as usize;
        match self.shared.records.get(at) {
            Some(record) => record,
            None => &self.own.records[at - self.shared.records.len()],
        }
    }

    /// The entity of this number, to be filled in: none of the complete ones.
    #[expect(clippy::indexing_slicing, reason = "an EntityIndex is only made by this store, which never drops one")]
    pub(crate) fn record_mut(&mut self, index: EntityIndex) -> &mut EntityRecord {
        &mut self.own.records[index.0 as usize - self.shared.records.len()]
    }

    /// Whether Cedar sees an entity under this number: one that a file declares, or one of Tollgate's own types that
    /// the bundle names in a list, a scope or a condition. Entities of other types exist only if they are declared,
    /// since their attributes are otherwise unknown; metadata belongs to the request.
    #[must_use]
    pub(crate) fn exists(&self, index: EntityIndex) -> bool {
        let record = self.record(index);
        record.declared || record.kind.is_built_in()
    }

    /// The uid of this number.
    #[must_use]
    pub fn uid(&self, index: EntityIndex) -> EntityUid {
        let record = self.record(index);
        EntityUid::trusted(self.kind_text(record.kind).clone(), record.id.clone())
    }

    /// The uid as Cedar has it.
    #[must_use]
    pub fn core_uid(&self, index: EntityIndex) -> EntityUID {
        let record = self.record(index);
        self.core_uid_of(record.kind, &record.id)
    }

    fn core_uid_named(&self, uid: &EntityUid) -> Option<EntityUID> {
        Some(self.core_uid_of(self.kind_of(uid.kind())?, uid.id_smol()))
    }

    fn core_uid_of(&self, kind: Kind, id: &SmolStr) -> EntityUID {
        EntityUID::from_components(self.kind_core(kind).clone(), Eid::new(id.clone()), None)
    }

    /// Everything above these parents, themselves included, each once.
    pub fn closure(&self, parents: &[EntityIndex]) -> Vec<EntityIndex> {
        let mut above = Vec::with_capacity(parents.len() * 2);
        self.close(parents, &mut above);
        above
    }

    /// Puts into `above` what [`EntityStore::closure`] gives.
    pub fn close(&self, parents: &[EntityIndex], above: &mut Vec<EntityIndex>) {
        above.clear();
        above.extend(parents);
        let mut at = 0;
        let mut seen: Option<HashSet<EntityIndex>> = None;
        while let Some(&next) = above.get(at) {
            at += 1;
            for parent in &self.record(next).parents {
                let known = match &mut seen {
                    Some(seen) => !seen.insert(*parent),
                    None => above.contains(parent),
                };
                if !known {
                    above.push(*parent);
                }
            }
            // A look through the list is the quicker for the few that nearly everyone has.
            if seen.is_none() && above.len() > 32 {
                seen = Some(above.iter().copied().collect());
            }
        }
    }

    /// The direct parents of a subject.
    #[must_use]
    pub fn parents<'a>(&'a self, subject: &'a Subject) -> &'a [EntityIndex] {
        match subject {
            Subject::Known(index) => &self.record(*index).parents,
            Subject::Stranger { parents, .. } => parents,
            Subject::Proved(proved) => &proved.parents,
        }
    }

    /// The type and id of a subject.
    #[must_use]
    pub fn name_of<'a>(&'a self, subject: &'a Subject) -> (Kind, &'a SmolStr) {
        match subject {
            Subject::Known(index) => {
                let record = self.record(*index);
                (record.kind, &record.id)
            }
            Subject::Stranger { kind, id, .. } => (*kind, id),
            Subject::Proved(proved) => (proved.kind, proved.identity.principal.id_smol()),
        }
    }

    /// The number of a subject, where a file declares it or a rule names it.
    #[must_use]
    pub fn index_of(&self, subject: &Subject) -> Option<EntityIndex> {
        match subject {
            Subject::Known(index) => Some(*index),
            Subject::Stranger { given, .. } => given.as_ref()?.own,
            Subject::Proved(proved) => proved.own,
        }
    }

    /// The uid of a subject as Cedar has it.
    #[must_use]
    pub fn subject_core_uid(&self, subject: &Subject) -> EntityUID {
        let (kind, id) = self.name_of(subject);
        self.core_uid_of(kind, id)
    }

    /// Whether the principal, or anything it is in, is disabled or has expired at `now`.
    #[must_use]
    pub fn is_disabled(&self, subject: &Subject, now: Timestamp) -> bool {
        let off = |index: EntityIndex| {
            self.record(index).details.as_ref().is_some_and(|details| {
                details.extras.disabled || details.extras.expires_at.is_some_and(|expiry| now >= expiry)
            })
        };
        let own = match subject {
            Subject::Known(index) => Some(*index),
            Subject::Proved(proved) => proved.own,
            Subject::Stranger { .. } => None,
        };
        own.is_some_and(off) || self.closure(self.parents(subject)).into_iter().any(off)
    }
}
