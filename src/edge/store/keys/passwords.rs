//! All passwords of a store in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use smol_str::SmolStr;

use crate::gate::{PasswordWrite, PasswordWriteError};
use crate::model::{EntityUid, PasswordHash, PasswordRecord};

/// Most passwords of a store.
const MAX_PASSWORDS: usize = 5_000_000;
/// Most costs of which there is a decoy. Whoever makes hashes seldom has more than two.
const MAX_DECOYS: usize = 64;

/// The passwords.
#[derive(Default)]
pub(in crate::edge::store) struct PasswordTable(RwLock<Known>);

struct Known {
    by_principal: HashMap<EntityUid, Arc<PasswordRecord>>,
    /// How many have each cost, with a hash of it that is nobody's.
    costs: BTreeMap<SmolStr, (usize, PasswordHash)>,
    decoys: Arc<[PasswordHash]>,
}

impl Default for Known {
    fn default() -> Self {
        Self { by_principal: HashMap::default(), costs: BTreeMap::default(), decoys: Arc::from([]) }
    }
}

impl Known {
    fn put(&mut self, password: PasswordRecord) {
        let (cost, nobody) = (SmolStr::new(password.hash.cost()), password.hash.of_nobody());
        let before = self.by_principal.insert(password.principal.clone(), Arc::new(password));
        if let Some((count, _)) = self.costs.get_mut(&cost) {
            *count += 1;
        } else if let Some(nobody) = nobody {
            self.costs.insert(cost, (1, nobody));
            self.choose_decoys();
        }
        if let Some(before) = before {
            self.count_off(&before);
        }
    }

    fn remove(&mut self, principal: &EntityUid) {
        if let Some(before) = self.by_principal.remove(principal) {
            self.count_off(&before);
        }
    }

    fn count_off(&mut self, password: &PasswordRecord) {
        let cost = password.hash.cost();
        let Some((count, _)) = self.costs.get_mut(cost) else { return };
        *count -= 1;
        if *count == 0 {
            self.costs.remove(cost);
            self.choose_decoys();
        }
    }

    fn choose_decoys(&mut self) {
        self.decoys = self.costs.values().take(MAX_DECOYS).map(|(_, nobody)| nobody.clone()).collect();
    }
}

impl PasswordTable {
    pub(in crate::edge::store) fn find(&self, principal: &EntityUid) -> Option<Arc<PasswordRecord>> {
        self.0.read().by_principal.get(principal).cloned()
    }

    pub(in crate::edge::store) fn decoys(&self) -> Arc<[PasswordHash]> {
        Arc::clone(&self.0.read().decoys)
    }

    pub(in crate::edge::store) fn put(&self, password: PasswordRecord) {
        self.0.write().put(password);
    }

    pub(in crate::edge::store) fn remove(&self, principal: &EntityUid) {
        self.0.write().remove(principal);
    }

    /// Those that `keep` names none of are removed.
    #[cfg(feature = "redis")]
    pub(in crate::edge::store) fn retain(&self, keep: impl Fn(&EntityUid) -> bool) {
        let mut known = self.0.write();
        let gone: Vec<EntityUid> = known.by_principal.keys().filter(|principal| !keep(principal)).cloned().collect();
        gone.iter().for_each(|principal| known.remove(principal));
    }

    /// Whether there is room for what is to be written.
    ///
    /// # Errors
    /// Where there is none.
    pub(in crate::edge::store) fn check(&self, write: &PasswordWrite) -> Result<(), PasswordWriteError> {
        let known = self.0.read();
        match write {
            PasswordWrite::Set(password)
                if known.by_principal.len() >= MAX_PASSWORDS
                    && !known.by_principal.contains_key(&password.principal) =>
            {
                Err(PasswordWriteError::Full(MAX_PASSWORDS))
            }
            _ => Ok(()),
        }
    }

    /// Takes over what was written.
    pub(in crate::edge::store) fn take(&self, write: PasswordWrite) {
        match write {
            PasswordWrite::Set(password) => self.put(password),
            PasswordWrite::Remove(principal) => self.remove(&principal),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn password(name: &str, passes: u32) -> PasswordRecord {
        let hash = format!("$argon2id$v=19$m=19456,t={passes},p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA");
        let principal = EntityUid::new("User", name).unwrap();
        PasswordRecord { principal, hash: PasswordHash::parse(&hash).unwrap(), changed_at: Timestamp::from_millis(1) }
    }

    #[test]
    fn a_decoy_is_there_for_each_cost_for_as_long_as_somebody_has_it() {
        let table = PasswordTable::default();
        let costs = || table.decoys().iter().map(|nobody| nobody.cost().to_owned()).collect::<Vec<_>>();
        assert!(costs().is_empty());
        table.put(password("alice", 2));
        let first = table.decoys();
        table.put(password("bob", 2));
        assert!(Arc::ptr_eq(&first, &table.decoys()), "the costs are the same, and so is the list");
        table.put(password("bob", 3));
        assert_eq!(costs(), ["$argon2id$v=19$m=19456,t=2,p=1", "$argon2id$v=19$m=19456,t=3,p=1"]);
        table.remove(&password("bob", 3).principal);
        assert_eq!(costs(), ["$argon2id$v=19$m=19456,t=2,p=1"]);
        assert!(!table.decoys()[0].expose().contains("c29t"), "nothing of a password that somebody has");
        table.put(password("alice", 2));
        assert_eq!(costs().len(), 1);
        table.remove(&password("alice", 2).principal);
        assert!(costs().is_empty() && table.find(&password("alice", 2).principal).is_none());
    }
}
