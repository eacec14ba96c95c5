//! All keys in memory, in parts of their own locks, so that who looks through all of them holds up nobody.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use smol_str::SmolStr;

#[cfg(feature = "sqlite")]
use crate::gate::KeyWriteError;
use crate::gate::{KeyWrite, KeysOf};
use crate::model::KeyRecord;

/// Most keys of a store.
pub const MAX_KEYS: usize = 5_000_000;
const PARTS: usize = 64;

/// The keys.
pub(in crate::edge::store) struct Table {
    parts: Box<[RwLock<HashTable<Arc<KeyRecord>>>]>,
    hasher: RandomState,
    count: AtomicUsize,
    changes: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| RwLock::default()).collect();
        Self { parts, hasher: RandomState::default(), count: AtomicUsize::new(0), changes: AtomicU64::new(0) }
    }
}

impl Table {
    fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The part of a hash: by its upper half, since the lower one says where in the part.
    #[expect(clippy::indexing_slicing, reason = "the rest of a division by the number of parts")]
    fn part(&self, hash: u64) -> &RwLock<HashTable<Arc<KeyRecord>>> {
        let number = usize::try_from(hash >> 40).unwrap_or(0) % PARTS;
        &self.parts[number]
    }

    fn read(part: &RwLock<HashTable<Arc<KeyRecord>>>) -> RwLockReadGuard<'_, HashTable<Arc<KeyRecord>>> {
        part.read()
    }

    fn write(part: &RwLock<HashTable<Arc<KeyRecord>>>) -> RwLockWriteGuard<'_, HashTable<Arc<KeyRecord>>> {
        part.write()
    }

    pub(in crate::edge::store) fn find(&self, id: &str) -> Option<Arc<KeyRecord>> {
        let hash = self.hash(id);
        Self::read(self.part(hash)).find(hash, |key| key.id == id).cloned()
    }

    pub(in crate::edge::store) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many changes there were.
    pub(in crate::edge::store) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(in crate::edge::store) fn put(&self, key: KeyRecord) {
        let hash = self.hash(&key.id);
        let mut part = Self::write(self.part(hash));
        let key = Arc::new(key);
        match part.entry(hash, |known| known.id == key.id, |known| self.hasher.hash_one(known.id.as_str())) {
            Entry::Occupied(mut known) => drop(std::mem::replace(known.get_mut(), key)),
            Entry::Vacant(place) => {
                place.insert(key);
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub(in crate::edge::store) fn remove(&self, id: &str) {
        let hash = self.hash(id);
        let mut part = Self::write(self.part(hash));
        if let Ok(found) = part.find_entry(hash, |key| key.id == id) {
            found.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub(in crate::edge::store) fn page(&self, of: &KeysOf) -> Vec<Arc<KeyRecord>> {
        let mut found: BTreeMap<SmolStr, Arc<KeyRecord>> = BTreeMap::new();
        for part in &self.parts {
            for key in &*Self::read(part) {
                let is_meant = of.owner.as_ref().is_none_or(|owner| key.owner == *owner)
                    && of.after.as_ref().is_none_or(|after| key.id > *after);
                let is_late = found.len() == of.most && found.last_key_value().is_some_and(|(last, _)| key.id > *last);
                if is_meant && !is_late {
                    found.insert(key.id.clone(), Arc::clone(key));
                    if found.len() > of.most {
                        found.pop_last();
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// Passes every key to `take`. The table is locked meanwhile, so `take` must be fast.
    pub(in crate::edge::store) fn each(&self, take: &mut dyn FnMut(&Arc<KeyRecord>)) {
        for part in &self.parts {
            Self::read(part).iter().for_each(&mut *take);
        }
    }

    /// Whether a change fits what is there. A Redis looks itself.
    ///
    /// # Errors
    /// Where it does not.
    #[cfg(feature = "sqlite")]
    pub(in crate::edge::store) fn check(&self, write: &KeyWrite) -> Result<(), KeyWriteError> {
        let version = |id: &str| self.find(id).map(|key| key.version);
        match write {
            KeyWrite::Make(key) | KeyWrite::MakeFirst(key) if version(&key.id).is_some() => Err(KeyWriteError::Taken),
            KeyWrite::MakeFirst(_) if self.count() > 0 => Err(KeyWriteError::Taken),
            KeyWrite::Make(_) if self.count() >= MAX_KEYS => Err(KeyWriteError::Full(MAX_KEYS)),
            KeyWrite::Change(key) if version(&key.id) != key.version.checked_sub(1) => Err(KeyWriteError::Changed),
            KeyWrite::Remove { id, version: read } if version(id) != Some(*read) => Err(KeyWriteError::Changed),
            _ => Ok(()),
        }
    }

    /// Takes over what was written.
    pub(in crate::edge::store) fn take(&self, write: KeyWrite) {
        match write {
            KeyWrite::Make(key) | KeyWrite::MakeFirst(key) | KeyWrite::Change(key) => self.put(key),
            KeyWrite::Remove { id, .. } => self.remove(&id),
        }
    }
}
