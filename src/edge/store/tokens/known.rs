//! Keys and revocations in memory, as they were last read or written.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use smol_str::SmolStr;

use crate::gate::KeptKey;

/// What is known.
#[derive(Default)]
pub(in crate::edge::store) struct Known {
    keys: RwLock<Vec<KeptKey>>,
    revoked: RwLock<HashSet<SmolStr>>,
    changes: AtomicU64,
}

impl Known {
    /// Everything is as that says.
    pub(in crate::edge::store) fn replace(&self, mut keys: Vec<KeptKey>, revoked: HashSet<SmolStr>) {
        keys.sort_by(|a, b| b.made_at.cmp(&a.made_at).then_with(|| a.kid.cmp(&b.kid)));
        *self.keys.write() = keys;
        *self.revoked.write() = revoked;
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// One more family is revoked.
    pub(in crate::edge::store) fn revoke(&self, family: SmolStr) {
        self.revoked.write().insert(family);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// One that is known no longer.
    #[cfg(feature = "sqlite")]
    pub(in crate::edge::store) fn forget(&self, family: &str) {
        self.revoked.write().remove(family);
    }

    pub(in crate::edge::store) fn keys(&self) -> Vec<KeptKey> {
        self.keys.read().clone()
    }

    pub(in crate::edge::store) fn is_revoked(&self, family: &str) -> bool {
        self.revoked.read().contains(family)
    }

    pub(in crate::edge::store) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
