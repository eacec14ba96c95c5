//! What handing out tokens needs of the outside, and what it gives.

use std::sync::Arc;

use smol_str::SmolStr;
use zeroize::Zeroizing;

use super::{Later, StoreError};
use crate::model::{EntityUid, Identity, Refusal, SecretText, Timestamp};
use crate::policy::Snapshot;

/// For how long others may keep what [`Tokens::published`] says.
pub const PUBLISHED_FOR_SECONDS: i64 = 300;

/// How many families a principal has at most.
pub const MOST_FAMILIES: usize = 1_000;
/// How many refresh tokens of a family are known that were used; a second use of older ones is refused as of one that nobody
/// knows.
pub const MOST_USED: usize = 100;

/// Looks up what became of a key since a token was handed out for it.
pub trait KeyLookup: Send + Sync {
    /// Whom the key proves now, by the secret of this [mark](crate::model::CredentialMark).
    ///
    /// # Errors
    /// With the reason, where it is revoked, expired or gone, or its secret was replaced.
    fn identity(
        &self,
        key: &EntityUid,
        mark: &str,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal>;

    /// As [`Keys::catch_up`](super::Keys::catch_up).
    fn catch_up(&self) -> Option<Later<()>> {
        None
    }
}

/// Looks up what became of a password since a token was handed out for it.
pub trait PasswordLookup: Send + Sync {
    /// Whether it is still this principal's: what is kept of it has this [mark](crate::model::CredentialMark).
    ///
    /// # Errors
    /// Where nobody can say.
    fn is_kept(
        &self,
        principal: &EntityUid,
        mark: &str,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// As [`Keys::catch_up`](super::Keys::catch_up).
    fn catch_up(&self) -> Option<Later<()>> {
        None
    }
}

/// Tokens that were handed out.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What callers prove themselves with.
    pub access: SecretText,
    /// For how many seconds.
    pub expires_in: i64,
    /// What gets the next ones, once, and for how many seconds.
    pub refresh: Option<(SecretText, i64)>,
}

/// Why no token is handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// What should be refreshed is not good.
    #[error(transparent)]
    Refused(Refusal),
    /// It is a token of Tollgate's own: what came of it would outlive what it came of.
    #[error("a token of this server's own cannot be exchanged; refresh it, or show the credential that it came of")]
    Exchanged,
    /// The credential is narrowed in a way that a token cannot say.
    #[error("this credential cannot be exchanged: what it is narrowed to would be lost")]
    Narrowed,
    /// The token would be longer than this server takes.
    #[error("the token would be too long: too much is said of the principal")]
    TooLong,
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key can be made, or signs.
    #[error("no token can be signed")]
    Unavailable,
}

/// Hands out Tollgate's own tokens. `issue` and `refresh` wait for the disk, or for another machine.
pub trait Tokens: Send + Sync {
    /// Tokens for whom a credential proved.
    ///
    /// # Errors
    /// Where there are none for it.
    fn issue(&self, identity: &Arc<Identity>, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Issued, TokenError>;

    /// Tokens for a refresh token, which is good once.
    ///
    /// # Errors
    /// Where it is not good.
    fn refresh(&self, token: &SecretText, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Issued, TokenError>;

    /// The public keys, as a JSON Web Key Set.
    fn published(&self) -> String;
}

/// A key that signs tokens, as it is kept. It does not print.
#[derive(Clone)]
pub struct KeptKey {
    /// Its name.
    pub kid: SmolStr,
    /// The private key (RFC 5208), in clear: a store that others read seals it.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// When it was made.
    pub made_at: Timestamp,
}

/// All refresh tokens that came of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub id: SmolStr,
    /// Whom it counts towards: of one principal, the longest unused is forgotten when there are too many.
    pub principal: SmolStr,
    /// Whom they are for, in JSON.
    pub identity: String,
    /// When the credential itself ends.
    pub ends_at: Option<Timestamp>,
}

/// What a refresh token is known by. Of 256 random bits a plain digest is enough: there is nothing to guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefreshDigest(pub [u8; 32]);

/// What becomes of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// It was good, and is replaced.
    Replaced(Family),
    /// Nobody knows it.
    Unknown,
    /// It has ended.
    Expired,
    /// It was used before, or its family is revoked: now, or earlier.
    Revoked,
}

/// What of Tollgate's own tokens must outlive the process, wherever it is kept. Keys and revocations are in memory too, so
/// that checking a token never waits; what writes waits until it is kept.
pub trait TokenStore: Send + Sync {
    /// How often a key was kept or a family revoked. While that is the same, so are the keys.
    ///
    /// # Errors
    /// Where nobody can say: what is in memory may be older than a revocation.
    fn changes(&self) -> Result<u64, StoreError>;

    /// The keys, the newest first.
    fn signing_keys(&self) -> Vec<KeptKey>;

    /// Whether a refresh token of this family was used twice.
    fn is_revoked(&self, family: &str) -> bool;

    /// Keeps a key, unless there is one that was made at `unless_since` or later: of several nodes whose key grew old, one
    /// makes the next. Of the others those are forgotten whose successor was made before `forget_before`.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn keep_key(&self, key: KeptKey, unless_since: Timestamp, forget_before: Timestamp) -> Result<(), StoreError>;

    /// Begins a family with its first refresh token, which ends at `expires_at`. A principal has
    /// [`MOST_FAMILIES`] at most.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn begin(
        &self,
        family: &Family,
        token: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// The family of a refresh token that is known, whatever became of it.
    ///
    /// # Errors
    /// Where nobody can say.
    fn family(&self, token: &RefreshDigest) -> Result<Option<Family>, StoreError>;

    /// Replaces `used` by `next`, which ends at `expires_at`, or with the credential. One that is used a second time while
    /// it was good was stolen, or its answer was lost: nobody can tell, so its whole family ends.
    ///
    /// # Errors
    /// Where that cannot be kept; nobody knows then whether it was.
    fn replace(
        &self,
        used: &RefreshDigest,
        next: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Refreshed, StoreError>;
}
