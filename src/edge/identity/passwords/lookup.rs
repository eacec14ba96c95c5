//! What became of a password since a token was handed out for it.

use super::BasicProvider;
use super::stored::Stored;
use crate::gate::PasswordLookup;
use crate::model::{CredentialMark, EntityUid, Timestamp};
use crate::policy::Snapshot;

/// Of what is kept, which has a salt.
pub(super) fn mark(stored: &Stored) -> CredentialMark {
    CredentialMark::of(stored.expose().as_bytes())
}

impl PasswordLookup for BasicProvider {
    fn is_kept(&self, principal: &EntityUid, mark: &str, snapshot: &Snapshot, now: Timestamp) -> bool {
        let found = self.find(principal.id_smol(), snapshot, now);
        found.is_some_and(|(known, stored)| known == *principal && self::mark(&stored).text() == mark)
    }
}
