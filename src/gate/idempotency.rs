//! Idempotency keys: each belongs to the principal that is asked about, so that two clients that choose the same key do not
//! get in each other's way.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::decide::Who;
use super::ports::{Meters, StoreError};
use crate::meter::Reservation;
use crate::model::{EntityUid, Identity, Timestamp};
use crate::policy::Snapshot;

/// The kind of operation that a key names: a reservation or a usage report. A gateway may use the same key for a call
/// and its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// A request that reserves.
    Reserve,
    /// Usage without a reservation.
    Usage,
}

/// An idempotency key that a client chose, with digests of the operations that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// The key as the client sent it.
    pub text: SmolStr,
    /// The digest of the request.
    pub digest: [u8; 32],
    /// The digest that keys had before they were scoped, as long as such keys may still be known.
    pub unscoped_digest: Option<[u8; 32]>,
}

/// A key with the principal that it belongs to: the owner, where an API key asks.
#[derive(Debug, Clone)]
pub struct ScopedKey<'k> {
    key: &'k ClientKey,
    used_for: KeyUse,
    principal: EntityUid,
}

/// The principal that a key belongs to; if an API key asks, its owner.
#[derive(Debug, Clone, Copy)]
pub struct KeyOwner<'a> {
    /// The principal that the request names.
    pub principal: &'a EntityUid,
    /// The identity that a credential proved of it.
    pub identity: Option<&'a Arc<Identity>>,
}

impl ClientKey {
    /// The key in the scope of its owner.
    #[must_use]
    pub fn scoped(&self, used_for: KeyUse, snapshot: &Snapshot, owner: KeyOwner<'_>) -> ScopedKey<'_> {
        let KeyOwner { principal, identity } = owner;
        // An invalid principal is refused when the request is decided.
        let owner = Who::find(snapshot, None, principal, identity).map(|who| who.principal);
        ScopedKey { key: self, used_for, principal: owner.unwrap_or_else(|_| principal.clone()) }
    }
}

impl ScopedKey<'_> {
    /// The name under which stores know it.
    // INVARIANT: a uid ends where its last quote does, so that no two pairs of a principal and a key have the same name, and
    // no name is one that was given before keys were scoped.
    #[must_use]
    pub fn name(&self) -> SmolStr {
        let used_for = match self.used_for {
            KeyUse::Reserve => "reserve",
            KeyUse::Usage => "usage",
        };
        format_smolstr!("{used_for}@{}:{}", self.principal, self.key.text)
    }

    /// The digest of the request.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.key.digest
    }

    /// The operation that the key names, if it exists, and whether it is the same request.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn find(&self, meters: &dyn Meters, now: Timestamp) -> Result<Option<(Reservation, bool)>, StoreError> {
        let is_same = |found: &Reservation, digest: &[u8; 32]| {
            found.idempotency.as_ref().is_some_and(|known| known.digest == *digest)
        };
        if let Some(found) = meters.named(&self.name(), now).await? {
            let same = is_same(&found, &self.key.digest);
            return Ok(Some((found, same)));
        }
        let Some(digest) = &self.key.unscoped_digest else { return Ok(None) };
        let before = match self.used_for {
            KeyUse::Reserve => format_smolstr!("reserve:{}", self.key.text),
            KeyUse::Usage => format_smolstr!("usage:{}", self.key.text),
        };
        let found = meters.named(&before, now).await?;
        let of_theirs = found.filter(|found| found.spending.principal == self.principal);
        Ok(of_theirs.map(|found| {
            let same = is_same(&found, digest);
            (found, same)
        }))
    }
}
