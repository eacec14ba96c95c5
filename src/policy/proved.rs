//! Principals of credentials, looked up in the bundle that decides.
//!
//! A key in use asks thousands of times between two reloads. What it is in, and which rules are filed under it, is found
//! once, and remembered in the snapshot: with the next bundle it is found anew.

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::entities::{EntityIndex, Kind, Subject};
use super::index::{KeyIndex, SubjectKeys};
use super::set_associative::SetAssociative;
use super::snapshot::Snapshot;
use crate::model::{Identity, Said};

/// How many are remembered at most.
const REMEMBERED: usize = 16_384;

/// A principal of a credential, looked up in a bundle.
#[derive(Debug)]
pub struct Proved {
    /// Its type.
    pub kind: Kind,
    /// Its number, where a file declares it or a rule names it.
    pub own: Option<EntityIndex>,
    /// What it is in, by the bundle and by its credential; for a key, its owner.
    pub parents: Vec<EntityIndex>,
    /// What the credential proved.
    pub identity: Arc<Identity>,
    /// What rules are filed under that can match it, once somebody asked.
    rule_keys: OnceLock<SmallVec<[KeyIndex; 8]>>,
}

/// Those that asked lately.
#[derive(Default)]
pub(super) struct RecentlyProved {
    remembered: OnceLock<SetAssociative<Proved>>,
}

impl RecentlyProved {
    /// Where they are remembered: by where the identity itself is, which stays the same for as long as it is remembered.
    fn of(&self, identity: &Arc<Identity>) -> (&SetAssociative<Proved>, usize) {
        let address = Arc::as_ptr(identity).addr();
        // Allocations lie on multiples of sixteen, and most at some distance.
        (self.remembered.get_or_init(|| SetAssociative::new(REMEMBERED)), address >> 4 ^ address >> 18)
    }
}

impl std::fmt::Debug for RecentlyProved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecentlyProved(…)")
    }
}

impl Snapshot {
    /// The principal of a credential with more attributes than the bundle gives it, or with fewer rights; `None` if the
    /// bundle describes it completely.
    #[must_use]
    pub fn proved(&self, identity: &Arc<Identity>) -> Option<Arc<Proved>> {
        if identity.owner.is_none() && identity.said == Said::default() && identity.method.gives_reserved_roles() {
            return None;
        }
        let (remembered, hash) = self.recently_proved.of(identity);
        let is_it = |known: &Proved| Arc::ptr_eq(&known.identity, identity);
        if let Some(known) = remembered.find(hash, |known| is_it(known).then(|| Arc::clone(known))) {
            return Some(known);
        }
        let found = Arc::new(self.look_up(identity)?);
        remembered.put(hash, Arc::clone(&found), is_it);
        Some(found)
    }

    fn look_up(&self, identity: &Arc<Identity>) -> Option<Proved> {
        let Identity { principal, owner, said, .. } = &**identity;
        let store = &self.store;
        let kind = store.kind_of(principal.kind())?;
        let own = store.find(kind, principal.id());
        let record = own.map(|own| store.record(own));
        // As everywhere, what a JSON file says of an entity is all that there is of it.
        if record.is_some_and(|record| record.details.as_ref().is_some_and(|details| details.native.is_some())) {
            return None;
        }
        let declared = |kind: Kind, id: &str| store.find(kind, id).filter(|index| store.record(*index).declared);
        let mut parents: Vec<EntityIndex> = Vec::with_capacity(4);
        parents.extend(record.filter(|_| !said.replaces).into_iter().flat_map(|record| record.parents.iter().copied()));
        parents.extend(said.teams.iter().filter_map(|team| declared(Kind::TEAM, team)));
        parents.extend(said.orgs.iter().filter_map(|org| declared(Kind::ORG, org)));
        if let Some(owner) = owner {
            parents.extend(store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id())));
            parents.extend(store.find(Kind::OWNER_KIND, owner.kind()));
        }
        parents.sort_unstable();
        parents.dedup();
        Some(Proved { kind, own, parents, identity: Arc::clone(identity), rule_keys: OnceLock::new() })
    }

    /// What rules are filed under that can match `subject`, which was looked up in this snapshot.
    pub(crate) fn rule_keys<'a>(&'a self, subject: &'a Subject) -> SubjectKeys<'a> {
        let keys = |subject| self.index.keys_of(&self.scopes, &self.store, subject);
        match subject {
            // INVARIANT: a `Proved` is made by the snapshot that decides, and by no other.
            Subject::Proved(proved) => {
                SubjectKeys::Kept(proved.rule_keys.get_or_init(|| keys(subject).iter().copied().collect()))
            }
            Subject::Known(_) | Subject::Stranger { .. } => keys(subject),
        }
    }
}
