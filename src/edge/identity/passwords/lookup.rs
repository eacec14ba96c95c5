//! What became of a password since a token was handed out for it.

use super::BasicProvider;
use super::stored::Stored;
use crate::gate::{Later, PasswordLookup, StoreError};
use crate::model::{CredentialMark, EntityUid, Timestamp};
use crate::policy::Snapshot;

/// Of what is kept, which has a salt.
pub(super) fn mark(stored: &Stored) -> CredentialMark {
    CredentialMark::of(stored.expose().as_bytes())
}

impl PasswordLookup for BasicProvider {
    fn is_kept(
        &self,
        principal: &EntityUid,
        mark: &str,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let found = self.inner.find(principal.id_smol(), snapshot, now)?;
        Ok(found.is_some_and(|(known, stored)| known == *principal && self::mark(&stored).text() == mark))
    }

    fn catch_up(&self) -> Option<Later<()>> {
        self.inner.store.as_ref()?.catch_up()
    }
}
