//! The first step of a request that brings a credential: providers are asked in their order, and the first that knows the
//! credential's form says whom it proves, or why nobody.
//!
//! What is hard about it: nobody may be proved by accident. A refusal is a value of its own and never an empty identity,
//! and a provider that does not know a form says so instead of guessing.

use std::net::IpAddr;
use std::sync::Arc;

use smol_str::SmolStr;

use super::decide::Who;
use super::ports::Later;
use crate::model::{Identity, Refusal, RefusalReason, SecretText, Timestamp};
use crate::policy::Snapshot;

/// What proves who somebody is.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `Authorization: Bearer …`: a token, or a key.
    Bearer(SecretText),
    /// A key in a header of its own (`x-api-key`), or in `api_key`.
    ApiKey(SecretText),
    /// A name and a password (RFC 7617).
    Basic {
        /// The name.
        username: SmolStr,
        /// The password.
        password: SecretText,
    },
    /// The parameters of `Authorization: Digest …` (RFC 7616), as they stand there.
    Digest(SecretText),
    /// The client's certificates of this connection, the client's own first, each as DER.
    Certificates(Arc<[Box<[u8]>]>),
    /// What a trusted proxy says of its client's certificate (`x-forwarded-client-cert`).
    ForwardedCertificate(SmolStr),
}

/// The request that a credential came with, as far as providers look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Its method.
    pub method: SmolStr,
    /// Its path, without the query.
    pub path: SmolStr,
    /// Its headers, without those that hold credentials; names in small letters.
    pub headers: Box<[(SmolStr, SmolStr)]>,
    /// Its query.
    pub params: Box<[(SmolStr, SmolStr)]>,
}

/// A credential, and where it came from.
#[derive(Debug, Clone)]
pub struct Presented {
    /// The credential.
    pub credential: Credential,
    /// The address that it came from, where that is known.
    pub source: Option<IpAddr>,
    /// The request that it came with.
    pub request: Described,
}

impl Presented {
    /// A credential of which nothing else is known.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self { credential, source: None, request: Described::default() }
    }
}

/// What a provider says to a credential.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It proves this principal.
    Proved(Arc<Identity>),
    /// It proves nobody, and no other provider is asked.
    Refused(Refusal),
    /// It is not of this provider's form: the next one is asked.
    Passed,
}

/// A provider of identities.
pub trait Authenticator: Send + Sync {
    /// What it is called in the configuration, in logs and metrics.
    fn name(&self) -> &str;

    /// Whom `presented` proves. People are looked up in `snapshot`, times are compared with `now`.
    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict>;

    /// What a caller that has to prove itself is told in `WWW-Authenticate`, at `now`, besides `Bearer`: most providers
    /// add nothing.
    fn challenge(&self, _now: Timestamp) -> Option<String> {
        None
    }
}

/// Whom `presented` proves, by the first of `providers` that knows its form.
///
/// # Errors
/// With the reason, where it proves nobody.
pub async fn authenticate(
    providers: &[Arc<dyn Authenticator>],
    presented: &Presented,
    snapshot: &Arc<Snapshot>,
    now: Timestamp,
) -> Result<Arc<Identity>, Refusal> {
    for provider in providers {
        match provider.authenticate(presented, snapshot, now).await {
            Verdict::Proved(identity) if identity.expires_at.is_none_or(|end| now < end) => return Ok(identity),
            Verdict::Proved(_) => return Err(Refusal::new(RefusalReason::Expired, "the credential has expired")),
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Passed => {}
        }
    }
    Err(Refusal::new(RefusalReason::NotRecognized, "no provider of this server knows such a credential"))
}

/// Whether an identity has one of `roles`, its own or through what it is in, and is not disabled.
#[must_use]
pub fn has_role(snapshot: &Snapshot, identity: &Arc<Identity>, roles: &[&str], now: Timestamp) -> bool {
    let Ok(who) = Who::find(snapshot, None, &identity.principal, Some(identity)) else { return false };
    let is_one = |role: &SmolStr| roles.contains(&role.as_str());
    let store = &snapshot.store;
    let above = store.closure(store.parents(&who.subject));
    let kept = store.index_of(&who.subject).into_iter().chain(above);
    let has = identity.said.roles.iter().any(is_one) || kept.flat_map(|index| store.record(index).roles()).any(is_one);
    has && !store.is_disabled(&who.subject, now)
}
