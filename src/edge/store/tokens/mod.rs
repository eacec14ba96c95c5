//! What of Tollgate's own tokens must last: signing keys, and refresh tokens as digests. In a file of the data directory, or
//! in a Redis that many nodes share; each passes one contract suite.

#[cfg(feature = "sqlite")]
mod file;
mod known;

#[cfg(feature = "sqlite")]
pub use file::{TokenFile, TokenFileError};
pub(super) use known::Known;

/// How long a revoked family is remembered: longer than any token that came of it lives, which is an hour.
pub(super) const REVOKED_FOR_MS: i64 = 24 * 60 * 60 * 1000;
