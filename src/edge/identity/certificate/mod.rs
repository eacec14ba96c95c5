//! Client certificates: the listener's own, which TLS has verified, and those that a trusted proxy tells of.
//!
//! What is hard about it: a certificate has many names, and each of them was signed. Which of them counts is said by the
//! operator's mappings alone, and one that could name two principals names nobody.

mod forwarded;
mod mapping;
mod names;
mod spiffe;

use std::net::IpAddr;
use std::sync::Arc;

use smol_str::SmolStr;

use forwarded::{HeaderError, last_element};
pub use mapping::{Grants, Mapping, MappingError, NameKind};
use names::{Names, NamesError};

use super::unlinked::{Proved, UnlinkedWarning};
use crate::gate::{Authenticator, Credential, Later, Presented, Verdict};
use crate::model::{AuthMethod, Identity, Network, Refusal, RefusalReason, Said, Timestamp};
use crate::policy::Snapshot;

/// Knows who the certificate of a connection's client is.
pub struct CertificateProvider {
    name: String,
    mappings: Box<[Mapping]>,
    /// Warns once that a principal is undeclared while the bundle declares one with a similar id.
    unlinked: UnlinkedWarning,
}

impl CertificateProvider {
    /// By these mappings: the first that fits one of the certificate's names decides.
    #[must_use]
    pub fn new(mappings: impl Into<Box<[Mapping]>>) -> Self {
        let unlinked = UnlinkedWarning::default();
        Self { name: "client_certificate".to_owned(), mappings: mappings.into(), unlinked }
    }

    /// Under another name, where there are several.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }
}

impl Authenticator for CertificateProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Credential::Certificates(certificates) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        let client = certificates.first().ok_or(NamesError::Form);
        let proved = client.and_then(|certificate| Names::of(certificate)).map_err(Refusal::from);
        Later::ready(verdict(proved.and_then(|names| {
            let identity = prove(&self.mappings, &names, now)?;
            self.unlinked.look(&about(&self.name, &identity, &names), snapshot);
            Ok(identity)
        })))
    }
}

/// Knows whom a proxy's client certificate names, as long as the proxy is one of those that are trusted to say so.
pub struct ForwardedProvider {
    name: String,
    from: Box<[Network]>,
    mappings: Box<[Mapping]>,
    /// Warns once that a principal is undeclared while the bundle declares one with a similar id.
    unlinked: UnlinkedWarning,
}

impl ForwardedProvider {
    /// From proxies in these networks, by these mappings.
    #[must_use]
    pub fn new(from: impl Into<Box<[Network]>>, mappings: impl Into<Box<[Mapping]>>) -> Self {
        let unlinked = UnlinkedWarning::default();
        Self { name: "forwarded_certificate".to_owned(), from: from.into(), mappings: mappings.into(), unlinked }
    }

    /// Under another name, where there are several.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    fn prove(
        &self,
        said: &str,
        by: Option<IpAddr>,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal> {
        if !by.is_some_and(|address| self.from.iter().any(|network| network.contains(address))) {
            let message = "certificates are not forwarded from there";
            return Err(Refusal::new(RefusalReason::NotAllowedHere, message));
        }
        let malformed = |error: HeaderError| Refusal::new(RefusalReason::Malformed, error.to_string());
        let names = last_element(said).map_err(malformed)?.names()?;
        let identity = prove(&self.mappings, &names, now)?;
        self.unlinked.look(&about(&self.name, &identity, &names), snapshot);
        Ok(identity)
    }
}

impl Authenticator for ForwardedProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Credential::ForwardedCertificate { said, by } = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        Later::ready(verdict(self.prove(said, *by, snapshot, now)))
    }
}

/// The proved principal, for the warning that a declared one seems to be the same.
fn about<'a>(by: &'a str, identity: &'a Identity, names: &'a Names) -> Proved<'a> {
    let email = names.of_kind(NameKind::Email).first().map(SmolStr::as_str);
    Proved { by, principal: &identity.principal, email, advice: "let a mapping name the declared one" }
}

fn verdict(proved: Result<Arc<Identity>, Refusal>) -> Verdict {
    match proved {
        Ok(identity) => Verdict::Proved(identity),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// Whom these names prove.
fn prove(mappings: &[Mapping], names: &Names, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
    if names.not_before.is_some_and(|begin| now < begin) {
        return Err(Refusal::new(RefusalReason::NotYetValid, "the certificate is not valid yet"));
    }
    if names.not_after.is_some_and(|end| now >= end) {
        return Err(Refusal::new(RefusalReason::Expired, "the certificate has expired"));
    }
    names.check_spiffe()?;
    for mapping in mappings {
        let mut found: Option<(&SmolStr, Grants)> = None;
        for name in names.of_kind(mapping.kind()) {
            let Some(grants) = mapping.apply(name) else { continue };
            if found.as_ref().is_some_and(|(_, known)| *known != grants) {
                let message = "the certificate names two principals";
                return Err(Refusal::new(RefusalReason::Malformed, message).about(name.clone()));
            }
            found = Some((name, grants));
        }
        if let Some((_, grants)) = found {
            return Ok(Arc::new(identity(grants, names.not_after)));
        }
    }
    let refusal = Refusal::new(RefusalReason::UnknownPrincipal, "the certificate names nobody that is known here");
    Err(match names.any() {
        Some(name) => refusal.about(name.clone()),
        None => refusal,
    })
}

fn identity(grants: Grants, expires_at: Option<Timestamp>) -> Identity {
    let Grants { principal, teams, orgs, roles, tags } = grants;
    let said = Said { teams, orgs, roles, tags, ..Said::default() };
    Identity { said, expires_at, ..Identity::new(principal, AuthMethod::MutualTls) }
}
