//! Fixed tokens and the master key, for development.

use std::sync::Arc;

use crate::gate::{Authenticator, Credential, Later, Presented, Verdict};
use crate::model::{AuthMethod, EntityUid, Identity, Said, SecretText, Timestamp};
use crate::policy::Snapshot;

/// A token, and whom it proves.
#[derive(Debug, Clone)]
pub struct StaticSecret {
    /// The token.
    pub token: SecretText,
    /// Whom it proves.
    pub principal: EntityUid,
    /// Roles that it gives; the operator wrote them, so they may be Tollgate's own.
    pub roles: Vec<String>,
}

impl StaticSecret {
    /// Whether no token is there twice.
    ///
    /// # Errors
    /// With whom the first that is there twice proves.
    pub fn all_differ(tokens: &[Self]) -> Result<(), SameToken> {
        for (at, one) in tokens.iter().enumerate() {
            if let Some(other) = tokens.iter().skip(at + 1).find(|other| other.token.is(&one.token)) {
                return Err(SameToken(one.principal.clone(), other.principal.clone()));
            }
        }
        Ok(())
    }
}

impl PartialEq for StaticSecret {
    fn eq(&self, other: &Self) -> bool {
        self.token.is(&other.token) && self.principal == other.principal && self.roles == other.roles
    }
}

impl Eq for StaticSecret {}

/// Two principals would be proved by the same token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fixed tokens of {0} and {1} are the same")]
pub struct SameToken(EntityUid, EntityUid);

/// Knows a few tokens.
pub struct StaticProvider {
    known: Vec<(SecretText, Arc<Identity>)>,
}

impl StaticProvider {
    /// Of these tokens.
    ///
    /// # Errors
    /// Where two are the same, so that one would prove two principals.
    pub fn new(tokens: Vec<StaticSecret>) -> Result<Self, SameToken> {
        StaticSecret::all_differ(&tokens)?;
        let known = |secret: StaticSecret| {
            let roles = secret.roles.into_iter().map(Into::into).collect();
            let said = Said { roles, ..Said::default() };
            let identity = Identity { said, ..Identity::new(secret.principal, AuthMethod::Static) };
            (secret.token, Arc::new(identity))
        };
        Ok(Self { known: tokens.into_iter().map(known).collect() })
    }
}

impl Authenticator for StaticProvider {
    fn name(&self) -> &'static str {
        "static"
    }

    fn authenticate(&self, presented: &Presented, _: &Arc<Snapshot>, _: Timestamp) -> Later<Verdict> {
        let (Credential::Bearer(token) | Credential::ApiKey(token)) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        // All of them, so that the time does not tell which.
        let found = self
            .known
            .iter()
            .fold(None, |found, (known, identity)| if known.is(token) { Some(identity) } else { found });
        // A token that is none of these may be another provider's.
        Later::ready(found.map_or(Verdict::Passed, |identity| Verdict::Proved(Arc::clone(identity))))
    }
}
