//! The passwords that stand beside the keys.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Later, StoreError};
use crate::model::{EntityUid, PasswordHash, PasswordRecord};

/// What becomes of a password.
#[derive(Debug, Clone)]
pub enum PasswordWrite {
    /// It is this one, whatever it was before.
    Set(PasswordRecord),
    /// This principal has none any more.
    Remove(EntityUid),
}

/// Why a password is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordWriteError {
    /// There are as many as there may be.
    #[error("there are {0} passwords, and there may be no more")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The passwords that were set on a running server, kept where the keys are. All of them are in memory too, so that finding
/// one never waits.
pub trait Passwords: Send + Sync {
    /// What is kept of the password of `principal`.
    ///
    /// # Errors
    /// Where nobody can say: what is in memory may be older than a change.
    fn find(&self, principal: &EntityUid) -> Result<Option<Arc<PasswordRecord>>, StoreError>;

    /// Of each cost that a password has here, a hash that is nobody's. While the costs are the same, so is the list.
    fn decoys(&self) -> Arc<[PasswordHash]>;

    /// What chooses between decoys: secret, and the same for all who open this store. Without it unknown names would be
    /// told by costing something else on another node, or after a restart. `None` where nobody can say yet.
    fn decoy_key(&self) -> Option<Zeroizing<[u8; 32]>> {
        None
    }

    /// As [`Keys::catch_up`](super::Keys::catch_up).
    fn catch_up(&self) -> Option<Later<()>> {
        None
    }

    /// Sets a password, or takes it away. What is acknowledged is kept, and holds on this node at once.
    fn write(&self, write: PasswordWrite) -> Later<Result<(), PasswordWriteError>>;
}
