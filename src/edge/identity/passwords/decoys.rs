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

/// Most costs. Whoever makes hashes seldom has more than two.
const MOST: usize = 64;

/// A hash of each cost.
#[derive(Default)]
pub(super) struct Decoys {
    /// The bundle that they are from.
    revision: Option<Arc<str>>,
    /// The file that they are from.
    names: Option<Arc<Names<Stored>>>,
    by_cost: BTreeMap<Box<str>, Stored>,
}

impl Decoys {
    /// Of `hashes`, which are those of the bundle and of the file.
    pub(super) fn new(
        revision: Arc<str>,
        names: Option<Arc<Names<Stored>>>,
        hashes: impl Iterator<Item = Stored>,
    ) -> Self {
        let mut by_cost = BTreeMap::new();
        for hash in hashes {
            if by_cost.len() < MOST && !by_cost.contains_key(hash.cost()) {
                by_cost.insert(hash.cost().into(), hash);
            }
        }
        Self { revision: Some(revision), names, by_cost }
    }

    /// Whether they are those of this bundle and this file.
    pub(super) fn are_of(&self, revision: &Arc<str>, names: Option<&Arc<Names<Stored>>>) -> bool {
        let same_file = match (&self.names, names) {
            (Some(known), Some(names)) => Arc::ptr_eq(known, names),
            (known, names) => known.is_none() && names.is_none(),
        };
        same_file && self.revision.as_ref() == Some(revision)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::PasswordHash;

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
        let before = Decoys::new("1".into(), None, many().chain([bcrypt(10)]));
        let costs: BTreeSet<_> = chosen(&before).into_iter().collect();
        assert_eq!(costs.len(), 2, "{costs:?}");
        // The same costs by other hashes, in another order.
        let after = Decoys::new("2".into(), None, [bcrypt(10)].into_iter().chain(many()));
        assert_eq!(chosen(&before), chosen(&after));
        // A cost that comes takes names of its own, and moves none between the others.
        let more = Decoys::new("3".into(), None, many().chain([bcrypt(10), argon2id(3)]));
        for (was, is) in chosen(&before).iter().zip(chosen(&more)) {
            assert!(is == *was || is.contains("t=3"), "{was} {is}");
        }
        assert_eq!(chosen(&Decoys::default())[0], Stored::nobody().cost());
    }

    #[test]
    fn they_are_of_one_bundle_and_one_file() {
        let (one, other) = (Arc::new(Names::<Stored>::new()), Arc::new(Names::<Stored>::new()));
        let decoys = Decoys::new("1".into(), Some(Arc::clone(&one)), std::iter::empty());
        assert!(decoys.are_of(&"1".into(), Some(&one)));
        assert!(!decoys.are_of(&"1".into(), Some(&other)) && !decoys.are_of(&"2".into(), Some(&one)));
        assert!(!decoys.are_of(&"1".into(), None));
    }
}
