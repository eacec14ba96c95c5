//! What was proved lately, by the digest of the whole credential: a bounded memory. When its younger half is full, it
//! becomes the older one and what was the older is forgotten; what is asked for stays young. No list is kept in order,
//! so that a hit is a look into a map.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// Parts, so that threads seldom wait for one another.
const PARTS: usize = 16;

/// The digest of a whole credential. Never less: who finds two with one beginning would be the other.
pub(super) type CredentialDigest = [u8; 32];

/// The digest of `credential`.
pub(super) fn digest(credential: &str) -> CredentialDigest {
    Sha256::digest(credential.as_bytes()).into()
}

/// Remembers the last few thousand.
pub(super) struct Recent<V> {
    parts: [Mutex<Part<V>>; PARTS],
    /// Most in the younger half of a part.
    most: usize,
}

struct Part<V> {
    young: HashMap<CredentialDigest, V, RandomState>,
    old: HashMap<CredentialDigest, V, RandomState>,
}

impl<V> Default for Part<V> {
    fn default() -> Self {
        Self { young: HashMap::default(), old: HashMap::default() }
    }
}

impl<V: Clone> Recent<V> {
    /// Of `most` at most; of none, where that is 0.
    pub(super) fn new(most: usize) -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), most: most.div_ceil(2 * PARTS) }
    }

    /// What is known of it.
    pub(super) fn get(&self, digest: &CredentialDigest) -> Option<V> {
        let mut part = self.part(digest)?.lock();
        if let Some(found) = part.young.get(digest) {
            return Some(found.clone());
        }
        let found = part.old.remove(digest)?;
        self.put_in(&mut part, *digest, found.clone());
        Some(found)
    }

    /// Remembers it.
    pub(super) fn put(&self, digest: CredentialDigest, value: V) {
        if let Some(part) = self.part(&digest).filter(|_| self.most > 0) {
            self.put_in(&mut part.lock(), digest, value);
        }
    }

    /// Forgets it.
    pub(super) fn forget(&self, digest: &CredentialDigest) {
        if let Some(part) = self.part(digest) {
            let mut part = part.lock();
            part.young.remove(digest);
            part.old.remove(digest);
        }
    }

    fn put_in(&self, part: &mut Part<V>, digest: CredentialDigest, value: V) {
        if part.young.len() >= self.most {
            part.old = std::mem::take(&mut part.young);
        }
        part.young.insert(digest, value);
    }

    fn part(&self, digest: &CredentialDigest) -> Option<&Mutex<Part<V>>> {
        self.parts.get(usize::from(digest[0]) % PARTS)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let len = |part: &Mutex<Part<V>>| {
            let part = part.lock();
            part.young.len() + part.old.len()
        };
        self.parts.iter().map(len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_it_may_and_what_is_asked_for_stays() {
        let recent = Recent::new(320);
        let kept = digest("kept");
        recent.put(kept, 0);
        for number in 1..10_000 {
            recent.put(digest(&number.to_string()), number);
            assert_eq!(recent.get(&kept), Some(0));
        }
        assert!(recent.len() <= 320, "{}", recent.len());
        recent.forget(&kept);
        assert_eq!(recent.get(&kept), None);
        let none = Recent::new(0);
        none.put(kept, 1);
        assert_eq!(none.get(&kept), None);
    }
}
