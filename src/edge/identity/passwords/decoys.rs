//! What the passwords of unknown names are checked against: the hashes of others, so that a name that nobody has takes as
//! long as one that somebody has.
//!
//! What is hard about it: hashes cost differently, and a name must go on costing what it did, or whoever asks again after
//! a reload learns which are made up. So each cost that somebody's hash has is there once, and a name keeps to one of them
//! for as long as it is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::stored::Stored;
use crate::edge::identity::watched::Names;
use crate::model::PasswordHash;

/// Most costs. Whoever makes hashes seldom has more than two.
const MOST: usize = 64;

/// A hash of each cost.
#[derive(Default)]
pub(super) struct Decoys {
    /// The bundle that they are from.
    revision: Option<Arc<str>>,
    /// The file that they are from.
    names: Option<Arc<Names<Stored>>>,
    /// Those of the store that they are from.
    stored: Option<Arc<[PasswordHash]>>,
    by_cost: BTreeMap<Box<str>, Stored>,
}

impl Decoys {
    /// Of `hashes`, which are those of the bundle, of the file, and of the store, one for each cost there.
    pub(super) fn new(
        revision: Arc<str>,
        names: Option<Arc<Names<Stored>>>,
        stored: Option<Arc<[PasswordHash]>>,
        hashes: impl Iterator<Item = Stored>,
    ) -> Self {
        let mut by_cost = BTreeMap::new();
        for hash in stored.iter().flat_map(|stored| stored.iter().cloned().map(Stored::Argon2id)).chain(hashes) {
            if by_cost.len() < MOST && !by_cost.contains_key(hash.cost()) {
                by_cost.insert(hash.cost().into(), hash);
            }
        }
        Self { revision: Some(revision), names, stored, by_cost }
    }

    /// Whether they are those of this bundle, this file and this store.
    pub(super) fn are_of(
        &self,
        revision: &Arc<str>,
        names: Option<&Arc<Names<Stored>>>,
        stored: Option<&Arc<[PasswordHash]>>,
    ) -> bool {
        self.revision.as_ref() == Some(revision)
            && is_same(self.names.as_ref(), names)
            && is_same(self.stored.as_ref(), stored)
    }

    /// The one for `username`: of all costs the one whose tag with the name is the highest. Which it is nobody outside the
    /// process can work out, and another cost that comes or goes moves none but its own names.
    pub(super) fn choose(&self, key: &hmac::Key, username: &str) -> Stored {
        let tag = |cost: &str| {
            let mut signing = hmac::Context::with_key(key);
            signing.update(cost.as_bytes());
            signing.update(&[0]);
            signing.update(username.as_bytes());
            signing.sign().as_ref().to_vec()
        };
        let chosen = self.by_cost.iter().max_by_key(|(cost, _)| tag(cost));
        chosen.map_or_else(Stored::nobody, |(_, hash)| hash.clone())
    }
}

fn is_same<T: ?Sized>(known: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (known, other) {
        (Some(known), Some(other)) => Arc::ptr_eq(known, other),
        (known, other) => known.is_none() && other.is_none(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn argon2id(passes: u32) -> Stored {
        let text = format!("$argon2id$v=19$m=19456,t={passes},p=1$bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAA");
        Stored::Argon2id(PasswordHash::parse(&text).unwrap())
    }

    fn bcrypt(cost: u32) -> Stored {
        Stored::Bcrypt(format!("$2y${cost:02}$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234").into())
    }

    /// The costs of a hundred unknown names.
    fn chosen(decoys: &Decoys) -> Vec<String> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a key of this test");
        (0..100).map(|number| decoys.choose(&key, &format!("nobody-{number}")).cost().to_owned()).collect()
    }

    #[test]
    fn every_cost_is_a_decoy_however_many_have_another_and_names_keep_theirs() {
        let many = || (0..1_000).map(|_| argon2id(2));
        let before = Decoys::new("1".into(), None, None, many().chain([bcrypt(10)]));
        let costs: BTreeSet<_> = chosen(&before).into_iter().collect();
        assert_eq!(costs.len(), 2, "{costs:?}");
        // The same costs by other hashes, in another order.
        let after = Decoys::new("2".into(), None, None, [bcrypt(10)].into_iter().chain(many()));
        assert_eq!(chosen(&before), chosen(&after));
        // A cost that comes takes names of its own, and moves none between the others.
        let Stored::Argon2id(stored) = argon2id(3) else { panic!("it is argon2id") };
        let more = Decoys::new("3".into(), None, Some([stored].into()), many().chain([bcrypt(10)]));
        for (was, is) in chosen(&before).iter().zip(chosen(&more)) {
            assert!(is == *was || is.contains("t=3"), "{was} {is}");
        }
        assert_eq!(chosen(&Decoys::default())[0], Stored::nobody().cost());
    }

    #[test]
    fn they_are_of_one_bundle_one_file_and_one_store() {
        let (one, other) = (Arc::new(Names::<Stored>::new()), Arc::new(Names::<Stored>::new()));
        let (stored, none): (Arc<[PasswordHash]>, Arc<[PasswordHash]>) = (Arc::from([]), Arc::from([]));
        let decoys = Decoys::new("1".into(), Some(Arc::clone(&one)), Some(Arc::clone(&stored)), std::iter::empty());
        assert!(decoys.are_of(&"1".into(), Some(&one), Some(&stored)));
        for (revision, names, stored) in [
            ("2", Some(&one), Some(&stored)),
            ("1", Some(&other), Some(&stored)),
            ("1", None, Some(&stored)),
            ("1", Some(&one), Some(&none)),
            ("1", Some(&one), None),
        ] {
            assert!(!decoys.are_of(&revision.into(), names, stored));
        }
    }
}
